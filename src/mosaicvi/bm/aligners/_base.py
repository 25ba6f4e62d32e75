"""The contract of a method of the alignment comparison."""

from __future__ import annotations

from mosaicvi.bm._alignment_input import AlignmentInput, Embedding
from mosaicvi.bm._method import BaseMethod


class Aligner(BaseMethod[AlignmentInput, Embedding]):
    """One way to bring the cells of two modalities into one space.

    Parameters
    ----------
    task
        What the method may see.
    """
