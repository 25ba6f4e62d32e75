"""Bad input is refused with a clear message, and the user's object stays as it was."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.helpers import (
    GENES,
    PROTEINS,
    SCVI_UNS_KEYS,
    cell_names,
    counts_modality,
    fingerprint,
    make_mudata,
    mosaic,
)

import mosaicvi
from mosaicvi import FactorVI, MosaicVI
from mosaicvi._errors import DataError, MosaicviError, MosaicviWarning, RequestError
from mosaicvi.data import ModalitySpec, build_manager
from mosaicvi.graph import Edges, FeatureGraph, from_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOTH = {"rna": "zinb", "protein": "nb_mixture"}


@dataclass(frozen=True)
class Case:
    """One way to get it wrong."""

    spoil: Callable[[mudata.MuData], mudata.MuData | None]
    error: type[MosaicviError]
    says: tuple[str, ...]
    modalities: dict[str, Any] = field(default_factory=lambda: dict(BOTH))
    options: dict[str, Any] = field(default_factory=dict)


def nothing(mdata: mudata.MuData) -> None:
    """Leave the data as they are: the request is what is wrong."""


def set_value(modality: str, value: float) -> Callable[[mudata.MuData], None]:
    def spoil(mdata: mudata.MuData) -> None:
        mdata.mod[modality].X.data[3] = value

    return spoil


def set_dense_value(value: float) -> Callable[[mudata.MuData], None]:
    def spoil(mdata: mudata.MuData) -> None:
        dense = mdata.mod["rna"].X.toarray()
        dense[2, 1] = value
        mdata.mod["rna"].X = dense

    return spoil


def reverse_rna(mdata: mudata.MuData) -> None:
    mdata.mod["rna"] = mdata.mod["rna"][::-1].copy()


def filter_rna(mdata: mudata.MuData) -> None:
    mdata.mod["rna"] = mdata.mod["rna"][:5].copy()


def rename_cells(mdata: mudata.MuData) -> None:
    mdata.mod["rna"].obs_names = [f"x{name}" for name in mdata.mod["rna"].obs_names]


def add_modality(mdata: mudata.MuData) -> None:
    mdata.mod["extra"] = counts_modality(cell_names(3))


def view_of_mudata(mdata: mudata.MuData) -> mudata.MuData:
    return mdata[:10]


def view_of_modality(mdata: mudata.MuData) -> None:
    mdata.mod["rna"] = mdata.mod["rna"][:, :5]


def empty_features(mdata: mudata.MuData) -> None:
    mdata.mod["rna"] = mdata.mod["rna"][:, :0].copy()


def empty_cells(mdata: mudata.MuData) -> mudata.MuData:
    return make_mudata({"rna": mdata.mod["rna"][:0].copy(), "protein": mdata.mod["protein"].copy()})


def obs_value(modality: str, column: str, value: Any) -> Callable[[mudata.MuData], None]:
    """Set a column of a modality for cell c14, which both modalities hold."""

    def spoil(mdata: mudata.MuData) -> None:
        obs = mdata.mod[modality].obs
        values = obs[column].astype(object).to_numpy(copy=True)
        values[obs.index.get_loc("c14")] = value
        obs[column] = values

    return spoil


def missing_batch(mdata: mudata.MuData) -> None:
    for name in mdata.mod:
        obs_value(name, "batch", None)(mdata)


def drop_batch(*modalities: str) -> Callable[[mudata.MuData], None]:
    def spoil(mdata: mudata.MuData) -> None:
        for name in modalities:
            del mdata.mod[name].obs["batch"]

    return spoil


def batch_twice(mdata: mudata.MuData) -> None:
    obs = mdata.mod["rna"].obs
    mdata.mod["rna"].obs = pd.concat([obs, obs], axis=1)


def global_batch_in_conflict(mdata: mudata.MuData) -> None:
    mdata.obs["batch"] = "z"


def covariate(values: Any) -> Callable[[mudata.MuData], None]:
    def spoil(mdata: mudata.MuData) -> None:
        column = np.full(mdata.n_obs, 1.0, dtype=object if isinstance(values, str) else float)
        column[7] = values
        mdata.obs["age"] = column

    return spoil


def ages_in_conflict(mdata: mudata.MuData) -> None:
    for number, adata in enumerate(mdata.mod.values()):
        adata.obs["age"] = float(number)


def duplicate_cells(mdata: mudata.MuData) -> None:
    names = list(mdata.mod["rna"].obs_names)
    names[1] = names[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata.mod["rna"].obs_names = names


def duplicate_features(mdata: mudata.MuData) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata.mod["rna"].var_names = ["GENE1", *GENES[1:]]


def log_transform(mdata: mudata.MuData) -> None:
    rna = mdata.mod["rna"]
    sums = np.asarray(rna.X.sum(axis=1)).ravel()
    scaled = sp.diags_array(1e4 / np.maximum(sums, 1)) @ rna.X
    rna.X = sp.csr_matrix(scaled).log1p().astype(np.float32)


def log_counts(mdata: mudata.MuData) -> None:
    mdata.mod["rna"].X = mdata.mod["rna"].X.log1p()


def counts_elsewhere(mdata: mudata.MuData) -> None:
    rna = mdata.mod["rna"]
    rna.layers["umi"], rna.raw = rna.X.copy(), rna
    log_transform(mdata)


def species_mixed(mdata: mudata.MuData) -> mudata.MuData:
    names = [f"ACTB{i}" for i in range(30)] + [f"Actb{i}" for i in range(30)]
    rna = counts_modality(list(mdata.mod["rna"].obs_names), names)
    return make_mudata({"rna": rna, "protein": mdata.mod["protein"].copy()})


def relative_size_factors(mdata: mudata.MuData) -> None:
    """As scran and scanpy give them; scvi-tools takes these, where means need not sum to one."""
    rna = mdata.mod["rna"]
    rna.X = rna.X * 100
    totals = np.asarray(rna.X.sum(axis=1)).ravel()
    rna.obs["depth"] = totals / totals.mean()


def size_factor(value: float) -> Callable[[mudata.MuData], None]:
    def spoil(mdata: mudata.MuData) -> None:
        factors = np.ones(mdata.mod["rna"].n_obs)
        factors[2] = value
        mdata.mod["rna"].obs["depth"] = factors

    return spoil


def panel(table: Any) -> Callable[[mudata.MuData], None]:
    def spoil(mdata: mudata.MuData) -> None:
        mdata.mod["rna"].varm["panel"] = table

    return spoil


def bad_representation(mdata: mudata.MuData) -> None:
    mdata.mod["rna"].obsm["pca"] = np.full((mdata.mod["rna"].n_obs, 2), np.nan)


STALE = ("stale", "mdata.update()", "'rna'")
N = len(GENES)
CASES = {
    "stale obsmap, reordered": Case(reverse_rna, DataError, STALE),
    "stale obsmap, filtered": Case(filter_rna, DataError, STALE),
    "stale obsmap, renamed": Case(rename_cells, DataError, STALE),
    "stale obsmap, added": Case(
        add_modality, DataError, ("stale", "mdata.update()"), {"extra": "nb"}
    ),
    "view of the MuData": Case(view_of_mudata, DataError, ("view", "mdata.copy()")),
    "view of a modality": Case(view_of_modality, DataError, ("view", "copy()", "'rna'")),
    "empty modality, no features": Case(empty_features, DataError, ("empty", "'rna'")),
    "empty modality, no cells": Case(empty_cells, DataError, ("empty", "'rna'")),
    "batch column missing": Case(
        nothing, DataError, ("lane", "in no obs", "'batch'"), options={"batch_key": "lane"}
    ),
    "batch column missing in one modality": Case(
        drop_batch("protein"),
        DataError,
        ("no value for 10 cells", "'protein'", "'batch'"),
        options={"batch_key": "batch"},
    ),
    "batch with a missing value": Case(
        missing_batch,
        DataError,
        ("no value for 1 cells", "'c14'", "'batch'"),
        options={"batch_key": "batch"},
    ),
    "batch in conflict between modalities": Case(
        obs_value("protein", "batch", "other"),
        DataError,
        ("conflict", "'other'", 'mdata.mod["rna"].obs', 'mdata.mod["protein"].obs'),
        options={"batch_key": "batch"},
    ),
    "batch in conflict with mdata.obs": Case(
        global_batch_in_conflict,
        DataError,
        ("conflict", "'z'", "mdata.obs"),
        options={"batch_key": "batch"},
    ),
    "two columns of one name": Case(
        batch_twice,
        DataError,
        ("'batch'", "2 columns", "duplicated"),
        options={"batch_key": "batch"},
    ),
    "batch key of an unknown modality": Case(
        nothing, RequestError, ("atac", "batch_key"), options={"batch_key": {"atac": "batch"}}
    ),
    "categorical covariate missing": Case(
        nothing, DataError, ("donor",), options={"categorical_covariate_keys": ["donor"]}
    ),
    "continuous covariate missing": Case(
        nothing, DataError, ("age",), options={"continuous_covariate_keys": ["age"]}
    ),
    "continuous covariate with a missing value": Case(
        covariate(np.nan),
        DataError,
        ("age", "no value for 1 cells", "c07"),
        options={"continuous_covariate_keys": ["age"]},
    ),
    "continuous covariate with an infinite value": Case(
        covariate(np.inf),
        DataError,
        ("age", "infinite", "c07"),
        options={"continuous_covariate_keys": ["age"]},
    ),
    "continuous covariate of words": Case(
        covariate("old"),
        DataError,
        ("age", "numbers", "categorical"),
        options={"continuous_covariate_keys": ["age"]},
    ),
    "continuous covariate in conflict": Case(
        ages_in_conflict,
        DataError,
        ("age", "conflict"),
        options={"continuous_covariate_keys": ["age"]},
    ),
    "covariate twice": Case(
        nothing, RequestError, ("twice",), options={"categorical_covariate_keys": ["a", "a"]}
    ),
    "duplicated cells": Case(duplicate_cells, DataError, ("duplicated cell names", "make_unique")),
    "duplicated features": Case(
        duplicate_features, DataError, ("duplicated feature names", "'GENE1'", "make_unique")
    ),
    "negative counts": Case(set_value("rna", -1), DataError, ("negative", "'rna'", "cell 'c")),
    "NaN counts": Case(set_value("rna", np.nan), DataError, ("NaN", "'rna'", "feature 'GENE")),
    "infinite counts": Case(set_value("protein", np.inf), DataError, ("infinite", "'protein'")),
    "negative counts, dense": Case(
        set_dense_value(-2), DataError, ("negative", "'c02'", "'GENE1'")
    ),
    "NaN counts, dense": Case(set_dense_value(np.nan), DataError, ("NaN", "'c02'", "'GENE1'")),
    "infinite values of a continuous modality": Case(
        set_dense_value(np.inf), DataError, ("infinite", "'c02'"), {"rna": "normal"}
    ),
    "log-transformed counts": Case(log_transform, DataError, ("log-transformed", "X", "'zinb'")),
    "log1p of counts": Case(log_counts, DataError, ("log-transformed",)),
    "log-transformed layer": Case(
        log_transform, DataError, ("log-transformed",), {"rna": ModalitySpec("nb", layer=None)}
    ),
    "counts in another layer and in raw": Case(
        counts_elsewhere, DataError, ("layers['umi']", ".raw", "layer=")
    ),
    "unknown layer": Case(nothing, DataError, ("'umi'", "layer"), options={"layer": "umi"}),
    "unknown modality": Case(
        nothing, RequestError, ("'atac'", "'rna'", "'protein'"), {"atac": "poisson"}
    ),
    "unknown likelihood": Case(
        nothing,
        RequestError,
        ("modality 'rna'", "'gauss'", "nb", "zinb", "nb_mixture", "poisson", "normal"),
        {"rna": "gauss"},
    ),
    "modalities as totalVI takes them": Case(
        nothing,
        RequestError,
        ("modality 'rna_layer'", "unknown likelihood 'rna'", '"rna": "zinb"'),
        {"rna_layer": "rna", "protein_layer": "protein"},
    ),
    "no modalities": Case(nothing, RequestError, ("modalities",), {}),
    "size factor without library size": Case(
        nothing,
        RequestError,
        ("no library size", "'protein'", "size_factor_key"),
        {"protein": ModalitySpec("nb_mixture", size_factor_key="depth")},
    ),
    "size factor for no modality": Case(
        nothing,
        RequestError,
        ("library size",),
        {"protein": "nb_mixture"},
        {"size_factor_key": "depth"},
    ),
    "size factor missing": Case(
        nothing, DataError, ("depth", "'rna'"), options={"size_factor_key": "depth"}
    ),
    "size factor of zero": Case(
        size_factor(0.0), DataError, ("above zero", "'rna'"), options={"size_factor_key": "depth"}
    ),
    "size factor with a missing value": Case(
        size_factor(np.nan), DataError, ("missing", "'rna'"), options={"size_factor_key": "depth"}
    ),
    "size factors with a mean of one": Case(
        relative_size_factors,
        DataError,
        ("'depth'", "'rna'", "1 on average", "scale of counts", "multiply the column by"),
        options={"size_factor_key": "depth"},
    ),
    "mixed species within a modality": Case(
        species_mixed, DataError, ("mixed species", "'ACTB0'", "'Actb0'", "'rna'")
    ),
    "panel missing": Case(nothing, DataError, ("panel", "varm"), options={"panel_key": "panel"}),
    "panel of wrong shape": Case(
        panel(np.ones((N, 3), dtype=bool)),
        DataError,
        ("shape", "'a', 'b'"),
        options={"panel_key": "panel", "batch_key": "batch"},
    ),
    "panel without a batch": Case(
        panel(pd.DataFrame({"a": [True] * N}, index=list(GENES))),
        DataError,
        ("no column for batches 'b'",),
        options={"panel_key": "panel", "batch_key": "batch"},
    ),
    "panel that contradicts the counts": Case(
        panel(np.repeat([[True, False]], N, axis=0) | (np.arange(N) > 2)[:, None]),
        DataError,
        ("unmeasured", "'b'", "GENE0"),
        options={"panel_key": "panel", "batch_key": "batch"},
    ),
    "isotype control missing": Case(
        nothing,
        DataError,
        ("'igg9'", "features"),
        {"protein": ModalitySpec("nb_mixture", isotypes=("igg9",))},
    ),
    "isotype controls of genes": Case(
        nothing, RequestError, ("background",), {"rna": ModalitySpec("nb", isotypes=("GENE1",))}
    ),
    "empty droplets of other features": Case(
        nothing,
        DataError,
        ("'cd3'", "empty_droplets"),
        options={"empty_droplets": {"protein": counts_modality(["d"], ["x"])}},
    ),
    "empty droplets of genes": Case(
        nothing,
        RequestError,
        ("background", "'rna'"),
        options={"empty_droplets": {"rna": np.ones((2, N))}},
    ),
    "representation missing": Case(
        nothing, DataError, ("'pca'", "obsm"), {"rna": ModalitySpec("nb", representation="pca")}
    ),
    "representation not finite": Case(
        bad_representation,
        DataError,
        ("'pca'", "finite"),
        {"rna": ModalitySpec("nb", representation="pca")},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_with_nothing_changed(name: str) -> None:
    case = CASES[name]
    mdata = mosaic()
    given = case.spoil(mdata)
    mdata = given if isinstance(given, mudata.MuData) else mdata
    before = fingerprint(mdata)
    with pytest.raises(case.error) as caught:
        build_manager(mdata, case.modalities, **case.options)
    for text in case.says:
        assert text in str(caught.value)
    assert re.search(r"Expected|Remedy", str(caught.value))
    assert fingerprint(mdata) == before
    assert not any(key in mdata.uns for key in SCVI_UNS_KEYS)


def test_an_anndata_is_pointed_to_mudata() -> None:
    with pytest.raises(DataError, match=r"mudata\.MuData"):
        build_manager(counts_modality(cell_names(4)), BOTH)


def test_non_integer_counts_warn_and_name_the_layer() -> None:
    mdata = mosaic()
    mdata.mod["rna"].X = mdata.mod["rna"].X * np.float32(0.5)
    with pytest.warns(MosaicviWarning, match=r"'rna': X holds values that are not integers"):
        build_manager(mdata, BOTH)
    mdata.mod["rna"].layers["counts"] = mdata.mod["rna"].X.copy()
    with pytest.warns(MosaicviWarning, match="layer 'counts' holds values that are not integers"):
        build_manager(mdata, BOTH)


def test_cells_without_counts_warn_and_are_kept_as_measured() -> None:
    mdata = mosaic()
    dense = mdata.mod["rna"].X.toarray()
    dense[[1, 4]] = 0
    mdata.mod["rna"].X = sp.csr_matrix(dense)
    with pytest.warns(MosaicviWarning, match="'rna': 2 cells have no counts"):
        data = build_manager(mdata, BOTH).data
    assert data.modalities["rna"].present.sum() == mdata.mod["rna"].n_obs
    assert (data.modalities["rna"].library_size == 0).sum() == 2


def test_many_genes_bring_guidance() -> None:
    wide = counts_modality(cell_names(3), [f"GENE{i}" for i in range(10_001)])
    with pytest.warns(MosaicviWarning, match="highly_variable_genes"):
        build_manager(make_mudata({"rna": wide}), {"rna": "nb"})


def test_peaks_bring_no_guidance_on_genes() -> None:
    peaks = counts_modality(cell_names(3), [f"chr1:{i}-{i + 10}" for i in range(10_001)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        build_manager(make_mudata({"atac": peaks}), {"atac": "poisson"})


def test_counts_are_not_binarised_silently() -> None:
    peaks = counts_modality(cell_names(3), [f"chr1:{i}-{i + 10}" for i in range(4)])
    peaks.X = sp.csr_matrix(np.array([[0, 1, 3, 0]] * 3, dtype=np.float32))
    with pytest.raises(DataError, match="above 1, the largest 3") as refused:
        build_manager(make_mudata({"atac": peaks}), {"atac": "bernoulli"})
    assert "'atac'" in str(refused.value)
    assert "poisson" in str(refused.value)
    peaks.layers["open"] = (peaks.X > 0).astype(np.float32)
    spec = ModalitySpec("bernoulli", layer="open")
    build_manager(make_mudata({"atac": peaks}), {"atac": spec})


def test_a_batch_for_each_cell_warns() -> None:
    mdata = mosaic()
    mdata.obs["barcode"] = mdata.obs_names
    with pytest.warns(MosaicviWarning, match="'barcode' has 30 batches for 30 cells"):
        build_manager(mdata, BOTH, batch_key="barcode")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_columns_on_disk_are_refused(tmp_path: Path) -> None:
    mosaic(kind="csc").write(tmp_path / "mosaic.h5mu")
    for mdata in (
        mudata.read_h5mu(tmp_path / "mosaic.h5mu", backed="r"),
        mosaicvi.read_lazy(tmp_path / "mosaic.h5mu"),
    ):
        with pytest.raises(DataError, match=r"by columns \(CSC\).*tocsr"):
            build_manager(mdata, BOTH)


@pytest.mark.filterwarnings("ignore:var_names are not unique")
def test_names_shared_between_modalities_are_fine() -> None:
    cells = cell_names(4)
    mdata = make_mudata({"rna": counts_modality(cells), "protein": counts_modality(cells)})
    build_manager(mdata, BOTH)


def test_always_zero_feature_and_huge_counts_are_fine() -> None:
    mdata = mosaic()
    dense = mdata.mod["rna"].X.toarray()
    dense[:, 3], dense[0, 0] = 0, 1e6
    mdata.mod["rna"].X = sp.csr_matrix(dense)
    data = build_manager(mdata, BOTH).data
    assert data.modalities["rna"].values[0, 0] == 1e6
    assert data.modalities["rna"].values[:, 3].nnz == 0


UNTIED = {"rna": range(15), "protein": range(15, 30)}


def unpaired(**cells: range) -> mudata.MuData:
    """Modalities of which no two share a cell, ready for a model."""
    names = cell_names(40)
    features = {"rna": GENES, "protein": PROTEINS, "atac": ("peak1", "peak2", "peak3")}
    parts = {m: counts_modality([names[i] for i in cells[m]], features[m]) for m in cells}
    mdata = make_mudata(parts)
    MosaicVI.setup_mudata(mdata, dict.fromkeys(cells, "nb"))
    return mdata


def links(**features: tuple[str, ...]) -> FeatureGraph:
    """First features of the first two modalities linked."""
    first = len(next(iter(features.values())))
    return FeatureGraph(features, Edges.of([0], [first], 1, 1.0, "test"))


TIES = {
    "two modalities that nothing ties": (
        UNTIED,
        {},
        DataError,
        ("nothing ties 'protein' to 'rna'", "no cell holds both", "from_names", "graph="),
    ),
    "a third modality that nothing ties": (
        {**UNTIED, "atac": range(30, 40)},
        {"graph": links(rna=GENES, protein=PROTEINS, atac=("peak1", "peak2", "peak3"))},
        DataError,
        ("nothing ties 'atac' to 'rna'", "no edge of the feature graph"),
    ),
    "a graph without a feature of some modality": (
        {**UNTIED, "atac": range(30, 40)},
        {"graph": links(rna=GENES, protein=PROTEINS)},
        DataError,
        ("'atac'", "'graph'", "no features of it", "build the graph from this MuData"),
    ),
    "a graph of other features": (
        UNTIED,
        {"graph": links(rna=("ENSG1", "ENSG2"), protein=PROTEINS)},
        DataError,
        ("nothing ties 'protein' to 'rna'",),
    ),
    "anchors without a graph": (
        UNTIED,
        {"alignment": "anchors"},
        RequestError,
        ("'alignment'", "no edge", "from_names, from_coordinates or from_table"),
    ),
    "an alignment that does not exist": (
        UNTIED,
        {"alignment": "sinkhorn"},
        RequestError,
        ("'sinkhorn'", "'auto'", "'anchors'", "'pairs'", "'none'"),
    ),
}


@pytest.mark.parametrize("name", TIES)
def test_a_model_of_untied_modalities_is_refused(name: str) -> None:
    cells, options, error, says = TIES[name]
    mdata = unpaired(**cells)
    before = fingerprint(mdata)
    with pytest.raises(error) as caught:
        MosaicVI(mdata, n_latent=3, n_hidden=8, **options)
    for text in says:
        assert text in str(caught.value), str(caught.value)
    assert re.search(r"Expected|Remedy", str(caught.value))
    assert fingerprint(mdata) == before


def test_confidence_of_edges_needs_edges() -> None:
    model = MosaicVI(unpaired(**UNTIED), n_latent=3, n_hidden=8, alignment="none")
    with pytest.raises(RequestError, match="no feature graph") as caught:
        model.get_edge_confidence()
    assert "graph=" in str(caught.value)


def test_values_that_change_between_setup_and_model_are_refused() -> None:
    """Normalising in place, with counts nowhere else, is what people do by mistake."""
    mdata = mosaic()
    MosaicVI.setup_mudata(mdata, BOTH)
    mdata.mod["rna"].X = mdata.mod["rna"].X * 2
    with pytest.raises(DataError, match="'rna', key 'layer': the values changed after they were"):
        MosaicVI(mdata)
    MosaicVI.setup_mudata(mdata, BOTH)
    mdata.mod["rna"].layers["counts"] = mdata.mod["rna"].X.copy()
    mdata.mod["rna"].X = np.log1p(mdata.mod["rna"].X)
    MosaicVI(mdata)


def test_a_copy_that_is_set_up_leaves_the_original_its_setup() -> None:
    mdata = mosaic()
    MosaicVI.setup_mudata(mdata, BOTH)
    copied = mdata.copy()
    MosaicVI.setup_mudata(copied, BOTH)
    model = MosaicVI(mdata)
    assert model.adata is mdata
    assert MosaicVI(copied).adata is copied


@pytest.mark.parametrize("unit", [1e-12, 1e20])
@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, "disk"])
def test_values_in_units_that_single_precision_cannot_hold(
    unit: float, kind: Any, tmp_path: Path
) -> None:
    """Magnitudes of mol or of p-values had been answered with numbers out of all proportion."""
    mdata = mosaic()
    values = np.random.default_rng(0).normal(size=mdata.mod["rna"].shape)
    values[:, 1] *= unit
    values[4, 1] = np.nan
    mdata.mod["rna"].X = values if kind == "disk" else kind(values)
    if kind == "disk":
        mdata.write(tmp_path / "units.h5mu")
        mdata = mosaicvi.read_lazy(tmp_path / "units.h5mu")
    with pytest.raises(DataError, match="modality 'rna', key 'layer': the largest value") as caught:
        MosaicVI.setup_mudata(mdata, {"rna": "normal"})
    assert "single precision" in str(caught.value)
    values[:, 1] /= unit
    values[3, :] = np.nan
    values[:, 2] = 0.0
    mdata = mosaic()
    mdata.mod["rna"].X = values
    MosaicVI.setup_mudata(mdata, {"rna": "normal"})


@pytest.mark.parametrize("model", [MosaicVI, FactorVI])
def test_arguments_of_another_model(model: type[MosaicVI | FactorVI]) -> None:
    """Such as totalVI's: scvi-tools' own message speaks of a function that nobody called."""
    with pytest.raises(RequestError, match=r"unknown arguments \['labels_key', 'rna_layer'\]") as e:
        model.setup_mudata(mosaic(), BOTH, rna_layer="counts", labels_key="cell_type")
    for word in ("'layer'", "'batch_key'", "'empty_droplets'", "layer={'rna': 'counts'}"):
        assert word in str(e.value)


def test_one_modalitys_column_as_the_batch_of_all() -> None:
    """As mudata shows it, ``rna:batch``; the cells that lack RNA have a batch of their own."""
    mdata = mosaic()
    for each in mdata.mod.values():
        each.obs["lane"] = "a"
    with pytest.raises(DataError, match=r"'rna:lane'.*no value.*Remedy: pass 'lane'"):
        MosaicVI.setup_mudata(mdata, BOTH, batch_key="rna:lane")
    MosaicVI.setup_mudata(mdata, BOTH, batch_key="lane")


@pytest.mark.filterwarnings("ignore:Trying to query inferred values")
@pytest.mark.parametrize(
    ("name", "found"), [("set_default_dtype", torch.float64), ("set_default_device", "meta")]
)
@pytest.mark.parametrize("kind", [MosaicVI, FactorVI])
def test_defaults_of_torch_are_told_of(
    name: str, found: Any, kind: type[MosaicVI | FactorVI]
) -> None:
    """What another package sets for itself had ended in errors of matrix products."""
    mdata = mosaic()
    kind.setup_mudata(mdata, BOTH)
    model = kind(mdata, 3)
    getattr(torch, name)(found)
    try:
        for ask in (lambda: kind(mdata, 3), model.train, lambda: model.impute("protein")):
            with pytest.raises(RequestError, match=rf"torch\.{name}.*Remedy: torch\.{name}"):
                ask()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_a_modality_without_a_name_is_refused() -> None:
    parts = mosaic().mod
    mdata = make_mudata({"": parts["rna"], "protein": parts["protein"]})
    with pytest.raises(RequestError, match=r"'modalities': a modality has no name.*pop"):
        MosaicVI.setup_mudata(mdata, {"": "zinb"})


@pytest.mark.filterwarnings("ignore:Trying to query inferred values")
def test_a_sparse_representation_is_read_as_a_dense_one() -> None:
    """Its contents are compared before each answer."""
    found = []
    for kind in (np.asarray, sp.csr_matrix):
        mdata = mosaic()
        values = np.random.default_rng(0).normal(size=(mdata["rna"].n_obs, 4))
        mdata["rna"].obsm["topics"] = kind(values)
        MosaicVI.setup_mudata(
            mdata, {"rna": ModalitySpec("nb", representation="topics"), "protein": "nb_mixture"}
        )
        model = MosaicVI(mdata, n_latent=3, n_hidden=8)
        found.append(model.get_latent_representation(mdata.copy()))
        found.append(model.get_latent_representation(mdata))
    for each in found[1:]:
        np.testing.assert_array_equal(each, found[0])


def species_between() -> mudata.MuData:
    """RNA of human cells and of other, mouse ones."""
    human = counts_modality([f"h{i}" for i in range(40)], [f"ACTB{i}" for i in range(30)])
    mouse = counts_modality([f"m{i}" for i in range(40)], [f"Actb{i}" for i in range(30)])
    return make_mudata({"human": human, "mouse": mouse})


@pytest.mark.parametrize("model", [MosaicVI, FactorVI])
def test_species_are_refused_without_a_table_of_orthologues(model: Any) -> None:
    mdata = species_between()
    model.setup_mudata(mdata, {"human": "nb", "mouse": "nb"})
    before = fingerprint(mdata)
    with pytest.raises(DataError) as refused:
        model(mdata)
    said = str(refused.value)
    for text in ("mixed species", "'human' looks like human", "'mouse' looks like mouse"):
        assert text in said
    assert "mosaicvi.graph.from_table" in said
    assert fingerprint(mdata) == before


@pytest.mark.filterwarnings("ignore::mosaicvi.MosaicviWarning")
def test_a_table_of_orthologues_ties_species() -> None:
    mdata = species_between()
    names = [f"ACTB{i}" for i in range(30)]
    table = pd.DataFrame({"human": names, "mouse": [name.capitalize() for name in names]})
    graph = from_table(mdata, table, "human", "mouse")
    MosaicVI.setup_mudata(mdata, {"human": "nb", "mouse": "nb"})
    model = MosaicVI(mdata, n_latent=4, n_hidden=8, graph=graph)
    assert model.graph is not None
    assert model.graph.n_edges == len(names)
