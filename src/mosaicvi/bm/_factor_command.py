"""``python -m mosaicvi.bm factors`` and ``stability``: their options, and what they ask for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mosaicvi._errors import RequestError
from mosaicvi.bm._factor_held_out import COHORT, HeldOutFactors
from mosaicvi.bm._factor_stability import stabilities, stability_table
from mosaicvi.bm._factors import GENERATORS, Factors

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the factor comparison alone."""
    add = parser.add_argument
    add("--generator", default="counts", choices=sorted([*GENERATORS, COHORT]),
        help="who draws the data; cohort: patients whose missing values are predicted")  # fmt: skip
    add("--data", help="dataset of the package, or an .h5mu file: hidden values are predicted")
    add("--missing", type=float, default=0.0,
        help="where factors are to be found: share of cells that lack one modality")  # fmt: skip
    add("--hide", type=float,
        help="share of cells that lose a modality, for each of them (default: .2)")  # fmt: skip
    add("--split", type=int, help="seed of what is hidden (default: that of the method)")
    add("--features", action="append", default=[], metavar="MODALITY=NUMBER",
        help="keep the features that most cells have counts of")  # fmt: skip
    add("--n-factors", type=int, default=10, help="factors that methods start with")
    add("--answers", type=Path, metavar="FOLDER", help="keep factors and weights, for 'stability'")


def add_stability_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command that compares seeds."""
    add = parser.add_argument
    add("folders", type=Path, nargs="+", help="folders of one split that 'factors --answers' left")
    add("--write", type=Path, help="write the table as JSON")


def is_held_out(arguments: argparse.Namespace) -> bool:
    """Whether hidden values are to be predicted."""
    return arguments.data is not None or arguments.generator == COHORT


def comparison(
    arguments: argparse.Namespace, likelihoods: Mapping[str, str]
) -> Factors | HeldOutFactors:
    """The comparison that was asked for.

    Raises
    ------
    RequestError
        If a number of features is none.
    """
    if not is_held_out(arguments):
        return Factors(
            arguments.generator, arguments.n_cells, arguments.missing, arguments.n_factors
        )
    features = {}
    for text in arguments.features:
        name, _equals, number = text.partition("=")
        if not number.isdecimal() or int(number) < 1:
            raise RequestError(f"{text!r}", key="features", expected="MODALITY=NUMBER")
        features[name] = int(number)
    return HeldOutFactors(
        data=arguments.data or COHORT,
        hide=arguments.hide,
        split=arguments.split,
        n_cells=arguments.n_cells,
        features=features,
        n_factors=arguments.n_factors,
        likelihoods=dict(likelihoods),
        answers=arguments.answers,
    )


def stability(arguments: argparse.Namespace) -> int:
    """Print the stability of every method of some folders."""
    rows = [row for folder in arguments.folders for row in stabilities(folder)]
    sys.stdout.write(stability_table(rows))
    if arguments.write is not None:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0
