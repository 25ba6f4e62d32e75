"""What the rows of other packages share: which assay a modality is, and their options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.bm._alignment_input import AlignmentInput

RNA, PEAKS, PROTEIN = "expression", "accessibility", "protein"
ASSAYS = {"zinb": RNA, "nb": RNA, "poisson": PEAKS, "bernoulli": PEAKS, "nb_mixture": PROTEIN}
"""Likelihood of a modality -> assay that a package knows it as."""


def assays(task: AlignmentInput) -> dict[str, str]:
    """Assay of both modalities, by their likelihoods.

    Raises
    ------
    RequestError
        If a modality holds no counts.
    """
    found = {}
    for name in task.modalities:
        likelihood = task.likelihoods[name]
        if likelihood not in ASSAYS:
            raise RequestError(
                f"values with likelihood {likelihood!r}",
                modality=name,
                expected=f"counts: one of {sorted(ASSAYS)}",
            )
        found[name] = ASSAYS[likelihood]
    return found


def with_defaults(
    method: str, options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Options as typed over the defaults.

    Raises
    ------
    RequestError
        If the method has no such option.
    """
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise RequestError(
            f"{method} has no such option: {', '.join(unknown)}",
            key="option",
            expected=f"of {sorted(f'{method}.{name}' for name in defaults)}",
        )
    return {**defaults, **options}
