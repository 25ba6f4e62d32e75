"""``python -m mosaicvi``: a small command line on the package's own functions."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mosaicvi._errors import MosaicviError, RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

H5AD = ".h5ad"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mosaicvi", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="impute the protein of cells that only had RNA")
    add = demo.add_argument
    add("--out", type=Path, default=Path("mosaicvi_demo"), help="folder to write to (%(default)s)")
    add(
        "--data",
        default="auto",
        choices=("auto", "pbmc_mosaic", "simulated"),
        help="auto: real cells where they can be had, else simulated ones (%(default)s)",
    )
    add("--seed", type=int, default=0, help="chooses the hidden cells (%(default)s)")
    add("--epochs", type=int, help="epochs of training (as many as the data need)")
    impute = commands.add_parser("impute", help="impute protein from an .h5ad of RNA")
    add = impute.add_argument
    add("--rna", type=Path, required=True, help=".h5ad with RNA counts")
    add("--reference", required=True, help=".h5mu with modalities rna and protein, or a dataset")
    add("--out", type=Path, required=True, help=".h5ad to write")
    add("--batch-key", help="obs column with the batch")
    add("--train-on-query", action="store_true", help="train on the query's cells as well")
    add("--samples", type=int, default=100, help="draws a cell (%(default)s)")
    add("--seed", type=int, default=0, help="seed of training and draws (%(default)s)")
    add("--epochs", type=int, help="epochs of training (as many as the data need)")
    return parser


def _demo(arguments: argparse.Namespace) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from mosaicvi import _demo

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    _demo.run(
        arguments.out,
        data=arguments.data,
        seed=arguments.seed,
        say=say,
        train_kwargs={"max_epochs": arguments.epochs},
    )


def _impute(arguments: argparse.Namespace) -> None:
    import anndata

    from mosaicvi import tl
    from mosaicvi.bm._load import load

    _check_paths(arguments.rna, arguments.reference, arguments.out)
    answer = tl.impute_protein(
        anndata.read_h5ad(arguments.rna),
        load(arguments.reference),
        batch_key=arguments.batch_key,
        train_on_query=arguments.train_on_query,
        n_samples=arguments.samples,
        seed=arguments.seed,
        train_kwargs={"max_epochs": arguments.epochs},
    )
    protein = cast("anndata.AnnData", answer)
    protein.write_h5ad(arguments.out)
    genes = protein.uns["mosaicvi"]
    sys.stdout.write(
        f"{protein.n_vars} proteins of {protein.n_obs:,} cells imputed from "
        f"{genes['n_genes']:,} of {genes['n_shared_genes']:,} shared genes; "
        f"{int(protein.var['imputable'].sum())} of them are imputable (var['imputable']).\n"
        f"Written: {arguments.out}\n"
    )


def _check_paths(rna: Path, reference: str, out: Path) -> None:
    """Refuse files that cannot be read or written, before there is an answer to lose."""
    from mosaicvi.bm._load import holds_mudata

    if rna.suffix != H5AD or not rna.is_file():
        found = "no file " if rna.suffix == H5AD else ""
        raise RequestError(f"{found}{str(rna)!r}", key="rna", expected="an .h5ad file")
    if holds_mudata(rna):
        raise RequestError(
            f"{str(rna)!r} holds a MuData",
            key="rna",
            expected="an AnnData of RNA counts",
            remedy='mudata.read_h5mu(path)["rna"].write_h5ad("rna.h5ad")',
        )
    if out.suffix != H5AD:
        raise RequestError(f"{str(out)!r}", key="out", expected="a path that ends in .h5ad")
    if not out.parent.is_dir():
        raise RequestError(
            f"no folder {str(out.parent)!r}", key="out", expected="a file in a folder that is there"
        )
    if out.is_dir():
        raise RequestError(f"{str(out)!r} is a folder", key="out", expected="a file to write")
    for read, name in ((rna, "rna"), (Path(reference), "reference")):
        # By the file itself: one file may go by several paths and links.
        if out.exists() and read.exists() and out.samefile(read):
            raise RequestError(
                f"{str(out)!r} is the file of --{name}, which would be lost",
                key="out",
                expected="another file than those that are read",
            )


def _quiet() -> None:
    """Keep what other packages tell developers out of a command's output."""
    warnings.filterwarnings("ignore", module=r"(lightning|mudata|anndata|scvi|torch)\b")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 if mosaicvi refused what it was given."""
    arguments = _parser().parse_args(argv)
    _quiet()
    try:
        {"demo": _demo, "impute": _impute}[arguments.command](arguments)
    except (MosaicviError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
