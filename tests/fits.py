"""Small simulated data and quick fits that several test files share."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi import MosaicVI
from mosaicvi._errors import MosaicviWarning
from mosaicvi.datasets import SimulatedModality, simulate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData

QUIET = {
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}
"""Trainer arguments that say nothing."""

TRUTH = ("truth_", "links")


def small_mosaic(
    n_cells: int = 240,
    *,
    patterns: Mapping[str, float] | None = None,
    seed: int = 3,
    n_genes: int = 70,
    n_proteins: int = 8,
    **options: Any,
) -> MuData:
    """RNA (``nb``) and protein of a few cells in two batches, without the truth."""
    specs = {
        "rna": SimulatedModality.rna(n_genes, likelihood="nb"),
        "protein": SimulatedModality.protein(n_proteins),
    }
    drawn = {"n_latent": 4, "seed": seed, "patterns": patterns, **options}
    return without_truth(simulate(n_cells, specs, **drawn))


def without_truth(mdata: MuData) -> MuData:
    """Take the truth away from simulated data, in place."""
    for key in [key for key in mdata.obsm if key.startswith(TRUTH)]:
        del mdata.obsm[key]
    for key in [key for key in mdata.uns if key in {"truth", "links"}]:
        del mdata.uns[key]
    return mdata


def build(
    mdata: MuData,
    modalities: Mapping[str, Any] | None = None,
    *,
    batch_key: Any = "batch",
    setup: Mapping[str, Any] | None = None,
    **network: Any,
) -> MosaicVI:
    """Set up and build a small model."""
    MosaicVI.setup_mudata(
        mdata,
        modalities or {"rna": "nb", "protein": "nb_mixture"},
        batch_key=batch_key,
        **(setup or {}),
    )
    return MosaicVI(mdata, **{"n_latent": 5, "n_hidden": 24, "n_projection": 16, **network})


def fit(model: MosaicVI, max_epochs: int = 3, batch_size: int = 80, **options: Any) -> MosaicVI:
    """Train quickly and quietly."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        model.train(max_epochs, batch_size=batch_size, **{**QUIET, **options})
    return model


def answer(model: MosaicVI, *args: Any, **options: Any) -> Any:
    """Impute without the warning about cells that lack evidence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MosaicviWarning)
        return model.impute(*args, **{"n_samples": 12, **options})


def layers(adata: Any) -> dict[str, np.ndarray]:
    """X and every layer of an answer."""
    return {"X": np.asarray(adata.X), **{k: np.asarray(v) for k, v in adata.layers.items() if k}}


def assert_same_answer(left: Any, right: Any) -> None:
    """Every number of two answers is the same bit for bit, NaN included."""
    assert list(left.var_names) == list(right.var_names)
    other = layers(right)
    for name, values in layers(left).items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)
    for name in ("imputability", "imputable"):
        np.testing.assert_array_equal(left.var[name], right.var[name], err_msg=name)
