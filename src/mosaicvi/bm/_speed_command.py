"""``python -m mosaicvi.bm speed``: its options, and the grid of sizes that they span."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from mosaicvi._errors import RequestError
from mosaicvi._settings import logger
from mosaicvi.bm import timed
from mosaicvi.bm._speed import PROTEIN_DENSITY, Speed
from mosaicvi.bm._speed_input import Timing
from mosaicvi.bm.aligners._peers import ASSAYS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

PEAK_DENSITY = 0.03
"""Share of simulated peaks with fragments, unless it is given."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this comparison alone."""
    add = parser.add_argument
    add("--data", help="dataset of the package, or an .h5mu file (default: simulated)")
    add("--modalities", help="first and second, comma-separated (default: rna with protein, or "
        "with atac where --peaks is given)")  # fmt: skip
    add("--cells", default="", help="cells, comma-separated (default: all, or 5000 simulated)")
    add("--genes", default="4000", help="simulated genes, comma-separated")
    add("--proteins", default="100", help="simulated proteins, comma-separated")
    add("--peaks", help="simulated peaks, comma-separated, in the place of proteins")
    add("--density", default="0.08", help="share of genes above zero, comma-separated")
    add("--second-density", type=float,
        help=f"the same of the other modality (default: {PROTEIN_DENSITY} of proteins, "
        f"{PEAK_DENSITY} of peaks)")  # fmt: skip
    add("--missing", default="0", help="shares of simulated cells that lack the second modality")
    add("--unpaired", action="store_true",
        help="cells keep one modality each, and methods get the feature graph")  # fmt: skip
    add("--assembly", help="assembly of the peaks, such as mm10 (known for snareseq_cortex)")
    add("--batch-size", default="default",
        help="cells of a minibatch, comma-separated; 'default': each method's own")  # fmt: skip
    add("--device", default="cpu", choices=("cpu", "cuda"))
    add("--epochs", type=int, default=5, help="timed epochs, after one that is not")
    add("--whole", action="store_true", help="time a fit at each method's defaults too")
    add("--parts", action="store_true", help="time the parts of mosaicvi's step too")
    add("--plot", type=Path, metavar="PNG", help="draw the table")


def _numbers(text: str, kind: type, key: str) -> list[float]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(f"{text!r}", key=key, expected="comma-separated numbers") from error


def grid(arguments: argparse.Namespace, likelihoods: dict[str, str]) -> list[Speed]:
    """One comparison a size.

    Raises
    ------
    RequestError
        For what is no number, or no pair of modalities.
    """
    second = "protein" if arguments.peaks is None else "atac"
    modalities = tuple((arguments.modalities or f"rna,{second}").split(","))
    if len(modalities) != 2:
        raise RequestError(f"{modalities}", key="modalities", expected="two, such as rna,atac")
    cells = _numbers(arguments.cells, int, "cells") if arguments.cells else [None]
    sizes = [None if each == "default" else int(_numbers(each, int, "batch-size")[0])
             for each in arguments.batch_size.split(",")]  # fmt: skip
    simulated = arguments.data is None
    genes = _numbers(arguments.genes, int, "genes") if simulated else [1]
    others = arguments.proteins if arguments.peaks is None else arguments.peaks
    widths = _numbers(others, int, "features") if simulated else [1]
    densities = _numbers(arguments.density, float, "density") if simulated else [1.0]
    lacking = _numbers(arguments.missing, float, "missing") if simulated else [0.0]
    own = arguments.second_density
    if own is None:
        own = PROTEIN_DENSITY if arguments.peaks is None else PEAK_DENSITY
    return [
        Speed(
            timing=Timing(
                arguments.device, size, arguments.epochs, arguments.whole, arguments.parts
            ),
            data=arguments.data,
            modalities=modalities,
            n_cells=None if n_cells is None else int(n_cells),
            n_features=(int(n_genes), int(width)),
            density=(density, own),
            missing=missing,
            unpaired=arguments.unpaired,
            assembly=arguments.assembly,
            likelihoods=likelihoods,
        )
        for n_cells, n_genes, width, density, missing, size in itertools.product(
            cells, genes, widths, densities, lacking, sizes
        )
    ]


def chosen_methods(arguments: argparse.Namespace, comparisons: Sequence[Speed]) -> list[str]:
    """Methods named, else those that suit the data; the ones that are installed."""
    first = comparisons[0]
    complete = not any(each.missing for each in comparisons)
    kinds = [ASSAYS.get(first.chosen_likelihoods[name]) for name in first.modalities]
    suiting = timed.suiting(kinds, paired=not first.unpaired, complete=complete)
    names = suiting if arguments.methods is None else arguments.methods.split(",")
    for name in names:
        if name not in timed.TABLE:
            raise RequestError(f"{name!r}", key="methods", expected=f"of {sorted(timed.TABLE)}")
        if name not in suiting:
            logger.warning("%s is left out: it cannot be given these cells", name)
    return timed.installed([name for name in names if name in suiting])
