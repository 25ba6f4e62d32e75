"""Fusion: how what several modalities say becomes one posterior a cell.

A new rule is one file in this folder and one line in :data:`TABLE`.
"""

from __future__ import annotations

from mosaicvi._errors import RequestError
from mosaicvi.fusion._base import Fusion
from mosaicvi.fusion._full_gaussian import FullGaussian
from mosaicvi.fusion._gaussian_mixture import GaussianMixture, kl
from mosaicvi.fusion._mixture_of_experts import MixtureOfExperts
from mosaicvi.fusion._product_of_experts import ProductOfExperts

TABLE: dict[str, Fusion] = {rule.name: rule for rule in (ProductOfExperts(), MixtureOfExperts())}
"""Every fusion rule by name; they hold no state."""


def get(name: str) -> Fusion:
    """Return the fusion rule of a name.

    Parameters
    ----------
    name
        A key of :data:`TABLE`.

    Raises
    ------
    RequestError
        The name is unknown.
    """
    try:
        return TABLE[name]
    except KeyError:
        raise RequestError(
            f"unknown fusion rule {name!r}",
            key="fusion",
            expected="one of " + ", ".join(repr(known) for known in TABLE),
            remedy="choose one of the known rules",
        ) from None


__all__ = ["TABLE", "FullGaussian", "Fusion", "GaussianMixture", "get", "kl"]
