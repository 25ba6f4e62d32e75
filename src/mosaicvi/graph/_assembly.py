"""Whether genes and peaks are of one assembly, judged by what open chromatin is known to do."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi._settings import logger
from mosaicvi.graph._loci import plain_chromosome
from mosaicvi.graph._rules import start_site

OnMismatch = Literal["warn", "error", "ignore"]

ASSEMBLIES = ("hg19", "hg38", "mm9", "mm10", "mm39")
"""Assemblies whose chromosome lengths are compared."""

NEAR = 1000
"""A peak within so many bases of a transcription start is near it."""

SHIFTS = (-57_847, -31_013, 31_013, 57_847)
"""Shifts in bases after which nearness is chance: far beyond promoters, within a region's density
of genes, and no offset between two assemblies."""

LEAST_ENRICHMENT = 1.5
"""Peaks of the right assembly are near transcription starts three to twelve times more often than
shifted ones (mouse cortex), of a wrong one .6 to 1.0 times."""

_LEAST_PEAKS, _LEAST_EXPECTED = 200, 5.0


def check_assembly(
    peaks: pd.DataFrame,
    sites: pd.DataFrame,
    *,
    modality: str,
    stated: str | None,
    of_annotation: str | None,
    on_mismatch: OnMismatch,
) -> None:
    """Compare peaks with the lengths of chromosomes, and with transcription starts.

    Parameters
    ----------
    peaks
        Columns ``chrom``, ``start``, ``end``, on the annotation's names of chromosomes.
    sites
        Genes, columns ``chrom``, ``start``, ``end``, ``strand``.
    modality
        Modality of the peaks, for messages.
    stated, of_annotation
        Assembly as the user states it, and as the annotation names it.
    on_mismatch
        What to do about too few peaks near transcription starts.

    Raises
    ------
    DataError
        A peak lies beyond the end of its chromosome in the stated assembly; stated assembly and
        annotation differ; or a mismatch, where ``on_mismatch="error"``.
    RequestError
        The stated assembly or ``on_mismatch`` is not known.

    Warns
    -----
    MosaicviWarning
        A mismatch, where ``on_mismatch="warn"``.
    """
    if on_mismatch not in ("warn", "error", "ignore"):
        raise RequestError(
            f"found {on_mismatch!r}", key="on_mismatch", expected="'warn', 'error' or 'ignore'"
        )
    if stated is not None:
        _check_stated(peaks, stated, of_annotation, modality)
    if on_mismatch == "ignore":
        return
    beyond = None if of_annotation is None else _beyond(peaks, of_annotation)
    n_near, expected = nearness(peaks, sites)
    judged = len(peaks) >= _LEAST_PEAKS and expected >= _LEAST_EXPECTED
    if not judged:
        logger.info("Too few peaks or genes to check the assembly: %d peaks", len(peaks))
    few = judged and n_near < LEAST_ENRICHMENT * expected
    if not few and not beyond:
        return
    found = (
        f"{n_near} of {len(peaks)} peaks lie within {NEAR} bases of a transcription start, where "
        f"{expected:.0f} do so by chance: genes and peaks look like different assemblies"
    )
    if beyond:
        found += f"; {beyond} peaks lie beyond the end of their chromosome in {of_annotation}"
    error = DataError(
        found,
        modality=modality,
        key="annotation",
        expected=f"at least {LEAST_ENRICHMENT} times as many as by chance",
        remedy="use the annotation of the peaks' assembly (their coordinates fit into "
        f"{_said(fitting(peaks))}), or lift the peaks over; on_mismatch='ignore' if they are known "
        "to avoid promoters",
    )
    if on_mismatch == "error":
        raise error
    warnings.warn(str(error), MosaicviWarning, stacklevel=3)


def _said(names: list[str]) -> str:
    return ", ".join(names) if names else f"none of {', '.join(ASSEMBLIES)}"


def nearness(peaks: pd.DataFrame, sites: pd.DataFrame) -> tuple[int, float]:
    """Number of peaks within :data:`NEAR` bases of a transcription start, and that by chance.

    Chance is the mean over peaks moved by each of :data:`SHIFTS`.
    """
    chrom = sites["chrom"].to_numpy()
    site = start_site(sites)
    by_chrom = {name: np.sort(site[chrom == name]) for name in pd.unique(chrom)}
    groups = [
        (by_chrom[name], peaks["start"].to_numpy()[rows], peaks["end"].to_numpy()[rows])
        for name, rows in peaks.groupby("chrom", sort=False).indices.items()
        if name in by_chrom
    ]

    def near(shift: int) -> int:
        return sum(
            int(
                (
                    np.searchsorted(sites_here, end + shift + NEAR)
                    > np.searchsorted(sites_here, start + shift - NEAR)
                ).sum()
            )
            for sites_here, start, end in groups
        )

    return near(0), float(np.mean([near(shift) for shift in SHIFTS]))


@cache
def _lengths(assembly: str) -> dict[str, int]:
    """Lengths of the assembled chromosomes by plain name, in bases; bioframe brings them along."""
    import bioframe

    sizes = bioframe.assembly_info(assembly).chromsizes
    return {plain_chromosome(str(name)): int(length) for name, length in sizes.items()}


def _beyond(peaks: pd.DataFrame, assembly: str) -> int:
    """Number of peaks that end after their chromosome does, on chromosomes that have the name."""
    if assembly not in ASSEMBLIES:
        return 0
    lengths = peaks["chrom"].astype(str).map(plain_chromosome).map(_lengths(assembly))
    return int((peaks["end"] > lengths).sum())


def fitting(peaks: pd.DataFrame) -> list[str]:
    """Assemblies that have all chromosomes of the peaks, each long enough."""
    ends = peaks.groupby("chrom", sort=False)["end"].max()
    main = ends[~ends.index.str.contains("_|\\.", regex=True)]
    fits = []
    for assembly in ASSEMBLIES:
        lengths = _lengths(assembly)
        if all(end <= lengths.get(plain_chromosome(str(name)), -1) for name, end in main.items()):
            fits.append(assembly)
    return fits


def _check_stated(
    peaks: pd.DataFrame, stated: str, of_annotation: str | None, modality: str
) -> None:
    if stated not in ASSEMBLIES:
        raise RequestError(
            f"found {stated!r}",
            key="assembly",
            expected=f"one of {', '.join(ASSEMBLIES)}",
            remedy="leave assembly out: peaks are compared with the genes all the same",
        )
    beyond = _beyond(peaks, stated)
    if beyond:
        raise DataError(
            f"{beyond} peaks lie beyond the end of their chromosome in {stated}",
            modality=modality,
            key="assembly",
            expected=f"coordinates of {stated}",
            remedy=f"the coordinates fit into {_said(fitting(peaks))}: state that, with its "
            "annotation, or lift the peaks over",
        )
    if of_annotation is not None and of_annotation != stated:
        raise DataError(
            f"the annotation is of {of_annotation}",
            modality=modality,
            key="assembly",
            expected=f"an annotation of {stated}",
            remedy=f"pass annotation=mosaicvi.graph.fetch_annotation({stated!r}), or a GTF of it",
        )
