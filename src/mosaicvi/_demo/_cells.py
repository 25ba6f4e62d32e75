"""The cells of the demo: real ones where they can be had, else simulated ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mosaicvi import datasets
from mosaicvi._errors import DownloadError, RequestError
from mosaicvi.bm import Imputation

if TYPE_CHECKING:
    from mosaicvi.bm._imputation_task import ImputationTask

HIDDEN_SHARE = 0.25
CHOICES = ("auto", "pbmc_mosaic", "simulated")
_NAMES = {"pbmc_mosaic": "pbmc_mosaic", "simulated": "simulate_cite"}


@dataclass(frozen=True)
class DemoCells:
    """What the demo works on.

    Attributes
    ----------
    task
        The cells, of which a quarter of the paired ones have lost their protein, and what these
        were measured to be.
    source
        Which data they are, in words.
    is_real
        Whether they were measured, not simulated.
    """

    task: ImputationTask
    source: str
    is_real: bool


def choose(data: str, seed: int) -> DemoCells:
    """Load the cells, and hide the protein of a quarter of the paired ones.

    Parameters
    ----------
    data
        ``"pbmc_mosaic"``, ``"simulated"``, or ``"auto"`` for the former where it can be had.
    seed
        Chooses the hidden cells.

    Raises
    ------
    RequestError
        If ``data`` is none of these.
    DownloadError
        If real cells were asked for, and can neither be found nor fetched.
    """
    if data not in CHOICES:
        raise RequestError(f"{data!r}", key="data", expected=f"one of {list(CHOICES)}")
    reason = ""
    if data == "auto":
        try:
            datasets.pbmc_mosaic()
            data = "pbmc_mosaic"
        except DownloadError as error:
            data, reason = "simulated", str(error)
    task = Imputation(data=_NAMES[data], hide=HIDDEN_SHARE).task(seed)
    if data == "pbmc_mosaic":
        source = "pbmc_mosaic, human blood cells measured by CITE-seq (Hao et al. 2021)"
        return DemoCells(task, source, is_real=True)
    source = "a simulated CITE-seq sample"
    if reason:
        source += f", because the real cells cannot be had here ({reason})"
    return DemoCells(task, source, is_real=False)
