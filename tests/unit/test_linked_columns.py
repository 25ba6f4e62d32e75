"""Linked features of values that are no counts."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from tests.fits import without_truth

from mosaicvi import likelihoods
from mosaicvi.data import build_manager
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.graph import from_table
from mosaicvi.model._construct import features_of
from mosaicvi.model._linked_columns import linked_columns

N_CELLS, N_GENES = 60, 20

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")


def test_pairs_of_counts_are_read_as_rates() -> None:
    """Not as their methylated part, which follows the coverage."""
    specs = {
        "rna": SimulatedModality.rna(30, likelihood="nb"),
        "cpg": SimulatedModality.methylation(70),
    }
    mdata = without_truth(simulate(N_CELLS, specs, patterns={"rna+cpg": 1.0}, n_latent=3, seed=1))
    genes, regions = (mdata[name].var_names.to_numpy() for name in ("rna", "cpg"))
    links = pd.DataFrame(
        {"source": np.repeat(genes[:N_GENES], 2), "target": regions[: 2 * N_GENES], "sign": -1.0}
    )
    graph = from_table(mdata, links, "rna", "cpg", sign="sign")
    data = build_manager(mdata, {"rna": "nb", "cpg": "beta_binomial"}).data
    kept = {name: np.arange(N_CELLS) for name in data.modalities}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = linked_columns(data, graph.align(features_of(data)), ("rna", "cpg"), kept)
    assert found is not None
    assert (found.axis, found.features) == ("rna", list(genes[:N_GENES]))

    layers = {name: mdata["cpg"].layers[name].toarray() for name in ("methylated", "coverage")}
    covered = layers["coverage"] > 0
    rates = np.where(covered, layers["methylated"] / np.maximum(layers["coverage"], 1), 0.0)
    mean = rates.sum(0) / covered.sum(0)
    centred = np.where(covered, rates - mean, 0.0)[:, : 2 * N_GENES]
    expected = -centred.reshape(N_CELLS, N_GENES, 2).sum(2)
    np.testing.assert_allclose(found.sides["cpg"], expected, atol=1e-5)


def test_values_of_other_likelihoods_are_read_as_they_are() -> None:
    values = np.ones((2, 3))
    for name in ("nb", "zinb", "nb_mixture", "poisson", "bernoulli", "normal", "student"):
        assert likelihoods.get(name).shown(values) is values


@pytest.mark.parametrize("width", [5, 30])
def test_linked_features_are_values_where_encoders_read_a_representation(width: int) -> None:
    """An embedding has no features that a graph could link, even where it has as many columns."""
    specs = {
        "rna": SimulatedModality.rna(30, likelihood="nb"),
        "atac": SimulatedModality.rna(70, likelihood="poisson"),
    }
    mdata = without_truth(simulate(N_CELLS, specs, patterns={"rna+atac": 1.0}, n_latent=3, seed=1))
    genes, regions = (mdata[name].var_names.to_numpy() for name in ("rna", "atac"))
    links = pd.DataFrame({"source": genes[:N_GENES], "target": regions[:N_GENES]})
    graph = from_table(mdata, links, "rna", "atac")
    mdata["rna"].obsm["X_pca"] = np.random.default_rng(0).normal(size=(N_CELLS, width))
    kept = {name: np.arange(N_CELLS) for name in mdata.mod}
    found = []
    for key in (None, "X_pca"):
        rna = {"likelihood": "nb", "representation": key}
        data = build_manager(mdata, {"rna": rna, "atac": "poisson"}).data
        found.append(linked_columns(data, graph.align(features_of(data)), ("rna", "atac"), kept))
    plain, represented = found
    assert plain is not None
    assert represented is not None
    assert represented.axis == "rna"
    for name in mdata.mod:
        np.testing.assert_array_equal(represented.sides[name], plain.sides[name])
