"""The comparison of controls: whether an alignment and its diagnostics can be believed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mosaicvi.bm._alignment import Alignment, AlignmentTask
    from mosaicvi.bm.controls._base import Control

STREAM = 1
"""Second word of a control's seed, so that it does not repeat the draws of the task."""


@dataclass(frozen=True)
class Controlled:
    """The alignment comparison under a control, with the scores of both.

    Parameters
    ----------
    alignment
        The comparison.
    control
        What is changed.
    """

    alignment: Alignment
    control: Control

    name = "controls"

    @property
    def setting(self) -> str:
        """The control."""
        return self.control.text

    def describe(self) -> dict[str, Any]:
        """Every setting of the comparison, and the control."""
        return {**self.alignment.describe(), "control": self.control.text}

    def task(self, seed: int) -> AlignmentTask:
        """Build the comparison's task of a seed, and change it.

        Raises
        ------
        RequestError
            If the task has no such modality or type, or as for the comparison.
        """
        rng = np.random.default_rng([seed, STREAM])
        return self.control.apply(self.alignment.task(seed), rng)


def under_controls(alignment: Alignment, controls: Sequence[Control]) -> list[Controlled]:
    """Put a comparison under controls; data are read once.

    Parameters
    ----------
    alignment
        The comparison. Its share of pairs is given only under controls that need pairs.
    controls
        The controls.
    """
    columns = dict.fromkeys(key for control in controls for key in control.columns)
    paired = replace(alignment, columns=tuple(columns))
    unpaired = paired.with_pairs(0.0)
    return [Controlled(paired if one.needs_pairs else unpaired, one) for one in controls]
