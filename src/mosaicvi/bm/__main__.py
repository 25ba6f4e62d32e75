"""``python -m mosaicvi.bm COMPARISON``; ``--help`` lists the comparisons."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosaicvi._errors import MosaicviError, RequestError
from mosaicvi._settings import logger
from mosaicvi.bm import (
    _factor_command,
    _speed_command,
    _speed_plot,
    aligners,
    controls,
    factors,
    methods,
    timed,
)
from mosaicvi.bm._alignment import Alignment
from mosaicvi.bm._controls import under_controls
from mosaicvi.bm._graphs import KINDS
from mosaicvi.bm._imputation import Imputation
from mosaicvi.bm._options import check_options, read_likelihoods, read_pairs
from mosaicvi.bm._records import distinct
from mosaicvi.bm._runner import Entry, read_records, run, write_summary
from mosaicvi.bm._table import comparison_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mosaicvi.bm._comparison import Comparison

OURS = "mosaicvi"
PLACES = ("--out", "--plot", "--answers")
"""Options that say where something is written."""


def _shared(parser: argparse.ArgumentParser, table: Mapping[str, str]) -> None:
    """Options of every comparison of scores."""
    add = parser.add_argument
    add("--n-cells", type=int, help="cells to draw from the data first (default: all)")
    add("--batch-key", default="batch", help="obs column with the batch")
    add("--labels", help="obs column with types (default: celltype or cell_type; imputation: "
        "else Leiden clusters)")  # fmt: skip
    _run_options(parser, table)


def _run_options(parser: argparse.ArgumentParser, table: Mapping[str, str]) -> None:
    """Options of every comparison."""
    add = parser.add_argument
    add("--seeds", default="0", help="comma-separated")
    add("--methods", help=f"of {', '.join(table)} (default: all that suit the comparison)")
    add("--likelihood", action="append", default=[], metavar="MODALITY=NAME")
    add("--option", action="append", default=[], metavar="KEY=VALUE",
        help="mosaicvi's: to its constructor, or train.KEY, setup.KEY, predict.KEY; another "
        "method's: METHOD.KEY")  # fmt: skip
    add("--label", action="append", default=[], metavar="[METHOD=]NAME",
        help="name of this setting of a method (default: mosaicvi) in the table")  # fmt: skip
    add("--out", type=Path, help="folder for one JSON record a method and seed")
    add("--include", type=Path, nargs="*", default=[], help="records of an earlier run to show too")
    add("--reference", help="method whose differences from the others are shown")
    add("--jobs", type=int, default=1, help="workers at a time")


def _aligned(parser: argparse.ArgumentParser) -> None:
    """Options of the comparisons that align two modalities."""
    add = parser.add_argument
    add("--data", required=True, help="dataset of the package, or an .h5mu file")
    add("--modalities", default="rna,atac", help="first and second, comma-separated")
    add("--graph", default="auto", choices=KINDS, help="where the feature graph comes from")
    add("--graph-table", metavar="FILE", help="table of linked features, first and second modality")
    add("--assembly", help="assembly of the peaks, such as mm10 (known for snareseq_cortex)")
    add("--min-share", type=float, default=0.0,
        help="keep only features with counts in at least this share of cells")  # fmt: skip
    add("--linked-only", action="store_true", help="keep only the features that the graph links")
    add("--scib", action="store_true", help="score with scib-metrics too")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mosaicvi.bm", description=__doc__)
    commands = parser.add_subparsers(dest="comparison", required=True)
    imputation = commands.add_parser(
        "imputation", help="hide a modality of some cells and impute it from another"
    )
    add = imputation.add_argument
    add("--data", help="dataset of the package, or an .h5mu file")
    add("--source", default="rna", help="modality to impute from")
    add("--target", default="protein", help="modality to impute")
    add("--hide", type=float, help="share of the paired cells that lose the target")
    add("--hide-batch", help="batch whose cells all lose the target")
    add("--train", help="dataset or file to learn from (with --test)")
    add("--test", help="dataset or file whose target is imputed (with --train)")
    add("--validate", type=float,
        help="score this share of the other paired cells instead: to choose settings")  # fmt: skip
    add("--unpaired", action="store_true",
        help="training cells keep one modality each; methods get the feature graph")  # fmt: skip
    add("--noise", type=int, default=0, metavar="FEATURES",
        help="add a third modality of random counts with this many features")  # fmt: skip
    add("--draws", type=int, default=100, help="draws of each predictive distribution")
    add("--no-query-cells", action="store_true", help="mosaicvi trains without the query's cells")
    _shared(imputation, methods.TABLE)
    alignment = commands.add_parser(
        "alignment", help="bring the cells of two modalities into one space, pairing hidden"
    )
    alignment.add_argument(
        "--pairs", default="0", help="shares of the true pairs that are given, comma-separated"
    )
    _aligned(alignment)
    _shared(alignment, aligners.TABLE)
    controlled = commands.add_parser(
        "controls", help="align what is known to be wrong or lacking, and see what comes out"
    )
    usages = "; ".join(kind.usage for kind in controls.TABLE.values())
    controlled.add_argument("--controls", required=True, help=f"comma-separated: {usages}")
    controlled.add_argument(
        "--pairs", type=float, default=0.2, help="share of pairs, in controls that need pairs"
    )
    _aligned(controlled)
    _shared(controlled, aligners.TABLE)
    found = commands.add_parser(
        "factors", help="find the factors of simulated data, or predict hidden values from factors"
    )
    _factor_command.add_options(found)
    _shared(found, factors.TABLE)
    stability = commands.add_parser(
        "stability", help="compare the factors of seeds that 'factors --answers' kept"
    )
    _factor_command.add_stability_options(stability)
    speed = commands.add_parser("speed", help="time the training of models on the same cells")
    _speed_command.add_options(speed)
    _run_options(speed, timed.TABLE)
    table = commands.add_parser("table", help="print the table of records made earlier")
    table.add_argument("records", type=Path, nargs="+", help="files, or folders of them")
    table.add_argument("--reference", help="method whose differences from the others are shown")
    table.add_argument("--write", type=Path, help="write the records, without single features' "
                       "scores, into one file")  # fmt: skip
    return parser


def _table(arguments: argparse.Namespace) -> int:
    """Print records made earlier, as the run that made them did."""
    records = [record for path in arguments.records for record in read_records(path)]
    if arguments.write is not None:
        write_summary(records, arguments.write)
    sys.stdout.write(comparison_table(records, reference=arguments.reference))
    return 0


def _by_method(
    options: Mapping[str, Any], names: Sequence[str], table: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Options of each method: ``METHOD.KEY`` is that method's, any other key mosaicvi's."""
    sorted_out: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in options.items():
        method, dot, rest = key.partition(".")
        named = bool(dot) and method in table
        owner = method if named else OURS
        if owner in sorted_out:
            sorted_out[owner][rest if named else key] = value
        elif named:
            raise RequestError(
                f"{key!r}, and {method} does not run", key="option", remedy=f"--methods {method}"
            )
    return sorted_out


def _entries(arguments: argparse.Namespace, table: Mapping[str, str]) -> list[Entry]:
    options = read_pairs(arguments.option)
    if getattr(arguments, "no_query_cells", False):
        options["query_cells"] = False
    names = _methods(arguments, table)
    for name in names:
        if name not in table:
            raise RequestError(f"{name!r}", key="methods", expected=f"of {sorted(table)}")
    labels = {OURS: ""}
    for text in arguments.label:
        method, equals, label = text.partition("=")
        labels |= {method: label} if equals else {OURS: text}
    given = _by_method(options, names, table)
    for name, own in given.items():
        check_options(name, own, arguments.comparison)
    return [Entry(name, labels.get(name, ""), given[name]) for name in names]


def _methods(arguments: argparse.Namespace, table: Mapping[str, str]) -> Sequence[str]:
    """Methods named, else those that suit the comparison."""
    if arguments.methods is not None:
        return str(arguments.methods).split(",")
    if arguments.comparison == "imputation":
        return methods.defaults(unpaired=arguments.unpaired)
    if arguments.comparison == "controls":
        return (OURS,)
    return factors.defaults(held_out=_factor_command.is_held_out(arguments))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a comparison and write its table to standard output; 1 if a method failed."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(words)
    with _told_plainly():
        return _compare(arguments, words)


@contextmanager
def _told_plainly() -> Iterator[None]:
    """Messages on standard error, as they are; afterwards as before."""
    handlers, propagate = list(logger.handlers), logger.propagate
    logger.handlers[:], logger.propagate = [logging.StreamHandler()], False
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate


def _compare(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    try:
        if arguments.comparison == "table":
            return _table(arguments)
        if arguments.comparison == "alignment":
            alignments = _alignments(arguments)
            if arguments.methods is None:
                arguments.methods = ",".join(alignments[0].suiting())
            return _run(alignments, aligners.TABLE, arguments, words)
        if arguments.comparison == "controls":
            chosen = controls.parse_all(arguments.controls)
            (alignment,) = _alignments(arguments)
            return _run(under_controls(alignment, chosen), aligners.TABLE, arguments, words)
        if arguments.comparison == "factors":
            chosen_factors = _factor_command.comparison(
                arguments, read_likelihoods(arguments.likelihood)
            )
            return _run([chosen_factors], factors.TABLE, arguments, words)
        if arguments.comparison == "stability":
            return _factor_command.stability(arguments)
        if arguments.comparison == "speed":
            return _speed(arguments, words)
        return _run([_imputation(arguments)], methods.TABLE, arguments, words)
    except MosaicviError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _speed(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Time the grid, one process at a time unless asked for more, and draw it."""
    comparisons = _speed_command.grid(arguments, read_likelihoods(arguments.likelihood))
    arguments.methods = ",".join(_speed_command.chosen_methods(arguments, comparisons))
    records: list[dict[str, Any]] = []
    failed = _run(comparisons, timed.TABLE, arguments, words, into=records)
    if arguments.plot is not None and records:
        _speed_plot.draw(records, arguments.plot)
    return failed


def _without_out(words: Sequence[str]) -> list[str]:
    """Words of the command that decide a result: where files go is a matter of the machine."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in PLACES and not word.startswith(tuple(f"{p}=" for p in PLACES)):
            kept.append(word)
        skip = word in PLACES
    return kept


def _imputation(arguments: argparse.Namespace) -> Imputation:
    return Imputation(
        source=arguments.source,
        target=arguments.target,
        data=arguments.data,
        hide=arguments.hide,
        hide_batch=arguments.hide_batch,
        train=arguments.train,
        test=arguments.test,
        validate=arguments.validate,
        n_cells=arguments.n_cells,
        unpaired=arguments.unpaired,
        noise=arguments.noise,
        batch_key=arguments.batch_key,
        labels=arguments.labels,
        n_draws=arguments.draws,
        likelihoods=read_likelihoods(arguments.likelihood),
    )


def _alignments(arguments: argparse.Namespace) -> list[Alignment]:
    """One comparison a share of pairs, on the same data."""
    shares = _numbers(str(arguments.pairs), float, "pairs")
    first = Alignment(
        data=arguments.data,
        modalities=tuple(arguments.modalities.split(",")),
        pairs=shares[0],
        n_cells=arguments.n_cells,
        min_share=arguments.min_share,
        linked_only=arguments.linked_only,
        batch_key=arguments.batch_key,
        labels=arguments.labels,
        graph=arguments.graph,
        assembly=arguments.assembly,
        graph_table=arguments.graph_table,
        likelihoods=read_likelihoods(arguments.likelihood),
        scib=arguments.scib,
    )
    return [first, *(first.with_pairs(share) for share in shares[1:])]


def _numbers(text: str, kind: type, key: str) -> list[Any]:
    """Comma-separated numbers."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(f"{text!r}", key=key, expected="comma-separated numbers") from error


def _run(
    comparisons: Sequence[Comparison],
    table: Mapping[str, str],
    arguments: argparse.Namespace,
    words: Sequence[str],
    *,
    into: list[dict[str, Any]] | None = None,
) -> int:
    """Run the comparisons, print their tables; 1 if a method failed. ``into``: takes records."""
    entries = _entries(arguments, table)
    seeds = _numbers(arguments.seeds, int, "seeds")
    included = [record for path in arguments.include for record in read_records(path)]
    command = f"python -m mosaicvi.bm {shlex.join(_without_out(words))}"
    records, failed = [], False
    for comparison in comparisons:
        found = run(
            comparison, entries, seeds, out=arguments.out, jobs=arguments.jobs, command=command
        )
        done = {(record["method"], record["seed"]) for record in found}
        failed |= any((entry.name, seed) not in done for entry in entries for seed in seeds)
        records += found
    shown = distinct([*records, *included])
    sys.stdout.write(comparison_table(shown, reference=arguments.reference))
    if into is not None:
        into += shown
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
