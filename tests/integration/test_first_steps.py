"""Mistakes of a first notebook: each message names what was typed and what to type instead."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.fits import QUIET, build, small_mosaic
from tests.helpers import counts_modality, make_mudata, mosaic

from mosaicvi import FactorVI, MosaicVI, pl, tl
from mosaicvi._errors import DataError, MosaicviWarning, RequestError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mudata import MuData

BOTH = {"rna": "zinb", "protein": "nb_mixture"}


@pytest.fixture(scope="module")
def fitted() -> MosaicVI:
    model = build(small_mosaic(120))
    model.train(max_epochs=1, **QUIET)
    return model


@pytest.mark.parametrize("kind", ["without setup", "copy", "subset", "set up for another model"])
def test_a_model_of_an_object_that_was_not_set_up(kind: str) -> None:
    mdata = mosaic()
    setting_up = FactorVI if kind == "set up for another model" else MosaicVI
    if kind != "without setup":
        setting_up.setup_mudata(mdata, BOTH)
    given = {"copy": mdata.copy, "subset": lambda: mdata[:20].copy()}.get(kind, lambda: mdata)()
    with pytest.raises(DataError, match=r"MosaicVI\.setup_mudata\(mdata, \.\.\.\)"):
        MosaicVI(given)


@pytest.mark.parametrize("indices", [["c01", "c02"], np.array([1.0, 2.5])])
def test_cells_are_chosen_by_number(fitted: MosaicVI, indices: object) -> None:
    with pytest.raises(RequestError, match=r"get_indexer\(names\)"):
        fitted.get_latent_representation(indices=indices)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["lr", "use_gpu"])
def test_unknown_argument_of_train(fitted: MosaicVI, option: str) -> None:
    with pytest.raises(RequestError, match=rf"'{option}'.*learning_rate"):
        fitted.train(max_epochs=1, **{option: 1e-3})


def test_new_cells_without_the_batch_column(fitted: MosaicVI) -> None:
    query = without(fitted.adata, "batch")
    with pytest.raises(DataError, match=r"new cells need it as well: mdata\.obs\['batch'\] = "):
        fitted.get_latent_representation(query)


def without(mdata: MuData, column: str) -> MuData:
    parts = {name: part.copy() for name, part in mdata.mod.items()}
    for part in parts.values():
        part.obs = part.obs.drop(columns=column, errors="ignore")
    return make_mudata(parts)


def test_a_layer_that_one_modality_lacks() -> None:
    mdata = mosaic()
    mdata["rna"].layers["counts"] = mdata["rna"].X.copy()
    with pytest.raises(DataError, match=r"'protein'.*layer=\{modality: name\}"):
        MosaicVI.setup_mudata(mdata, BOTH, layer="counts")
    with pytest.raises(DataError, match=r"adata\.raw\.to_adata\(\)"):
        MosaicVI.setup_mudata(mdata, BOTH, layer="raw")


@pytest.mark.parametrize("padding", [0.0, np.nan])
def test_padded_cells(padding: float) -> None:
    mdata = mosaic()
    padded = mdata["protein"].X.toarray()
    padded[:10] = padding
    mdata["protein"].X = padded
    says = r'mdata\.mod\["protein"\] = mdata\["protein"\]\[measured\]\.copy\(\)'
    if np.isnan(padding):
        with pytest.raises(DataError, match=says):
            MosaicVI.setup_mudata(mdata, BOTH)
    else:
        with pytest.warns(
            MosaicviWarning, match=rf"10 cells have no counts in X \(\d+% of its cells\).*{says}"
        ):
            MosaicVI.setup_mudata(mdata, BOTH)


def test_names_that_coincide_in_different_cells() -> None:
    mdata = mosaic()
    for name in mdata.mod:
        mdata[name].obs["capture"] = name
    with pytest.raises(DataError, match="one name by chance"):
        MosaicVI.setup_mudata(mdata, BOTH, batch_key="capture")


@pytest.mark.parametrize("n_shared", [3, 12])
def test_few_shared_genes_are_told_of(n_shared: int) -> None:
    reference = small_mosaic(120)
    genes = list(reference["rna"].var_names)
    own = [f"ENSG{i}" for i in range(100 - n_shared)]
    query = counts_modality([f"q{i}" for i in range(5)], [*genes[:n_shared], *own])
    few = n_shared < 0.1 * min(len(genes), query.n_vars)
    options = {"n_samples": 2, "train_kwargs": {"max_epochs": 1, **QUIET}}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tl.impute_protein(query, reference, **options)
    assert any(f"only {n_shared} genes are shared" in str(each.message) for each in said) is few


def test_feature_kinds_in_one_modality() -> None:
    rna = counts_modality([f"c{i}" for i in range(9)], [f"GENE{i}" for i in range(6)])
    rna.var["feature_types"] = ["Gene Expression"] * 4 + ["Antibody Capture"] * 2
    with pytest.warns(MosaicviWarning, match="4 'Gene Expression', 2 'Antibody Capture'"):
        MosaicVI.setup_mudata(make_mudata({"rna": rna}), {"rna": "nb"})


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("Hashtag1_TotalSeqC", True),
        ("TotalSeqB_Hashtag_3", True),
        ("HTO1", True),
        ("HTO_A", True),
        ("anti-human Hashtag 10", True),
        ("CMO301", True),
        ("CD3_TotalSeqB", False),
        ("HTOR", False),
        ("CMOS", False),
    ],
)
def test_hashtags_among_antibodies(name: str, is_one: bool) -> None:
    protein = counts_modality([f"c{i}" for i in range(9)], ["CD4", "CD19", name])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        MosaicVI.setup_mudata(make_mudata({"protein": protein}), {"protein": "nb_mixture"})
    assert any("look like hashtags" in str(each.message) for each in said) is is_one


def test_factors_coloured_by_a_column_of_a_modality() -> None:
    from matplotlib import pyplot as plt

    mdata = small_mosaic(80)
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    model = FactorVI(mdata, n_factors=3)
    model.train(max_epochs=1, **QUIET)
    mdata["rna"].obs["kind"] = np.where(np.arange(mdata["rna"].n_obs) % 2, "x", "y")
    for color in ("kind", "rna:kind"):
        assert {"x", "y"} <= set(texts(pl.factors(model, color=color)))
    with pytest.raises(RequestError, match=r"'type'.*modality's obs.*'kind'"):
        pl.factors(model, color="type")
    plt.close("all")


def texts(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [each.get_text() for each in legend.get_texts()]
