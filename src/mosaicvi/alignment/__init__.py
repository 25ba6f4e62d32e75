"""Alignment: losses that bring the modalities' embeddings of the same cell together."""

from __future__ import annotations

from mosaicvi.alignment._infonce import infonce

__all__ = ["infonce"]
