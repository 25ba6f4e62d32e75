"""What alignment must not depend on: sides, order, edges of no weight, which way a sign is put."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fits import build, fit, small_mosaic
from tests.helpers import make_mudata

from mosaicvi.alignment import mutual_neighbours, smooth
from mosaicvi.graph import Edges, FeatureGraph
from mosaicvi.nn._graph_prior import FeatureGraphPrior, GraphArrays

if TYPE_CHECKING:
    from mosaicvi import MosaicVI

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")

SIZES = (6, 5)
MANY = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def graphs(draw: st.DrawFn) -> GraphArrays:
    """Graphs of eleven features, any edges."""
    every = [(i, j) for i in range(sum(SIZES)) for j in range(i + 1, sum(SIZES))]
    ends = draw(st.lists(st.sampled_from(every), min_size=1, max_size=20, unique=True))
    n = len(ends)
    sign = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=n, max_size=n))
    weight = draw(st.lists(st.floats(0.05, 1.0), min_size=n, max_size=n))
    source, target = np.array(ends).T
    return GraphArrays(source, target, np.array(sign), np.array(weight), SIZES)


def embeddings(arrays: GraphArrays, own: torch.Tensor) -> torch.Tensor:
    prior = FeatureGraphPrior(arrays, own.shape[1], prior_scale=1.0)
    with torch.no_grad():
        prior.own.copy_(own)
        return prior.embeddings()


@MANY
@given(graphs(), st.integers(0, 2**31), st.data())
def test_an_edge_of_weight_zero_is_no_edge(
    arrays: GraphArrays, seed: int, data: st.DataObject
) -> None:
    own = torch.from_numpy(np.random.default_rng(seed).normal(size=(sum(SIZES), 3))).float()
    n = len(arrays.weight)
    zero = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    blanked = replace(arrays, weight=np.where(zero, 0.0, arrays.weight))
    parts = (arrays.source, arrays.target, arrays.sign, arrays.weight)
    without = GraphArrays(*(part[~zero] for part in parts), SIZES)
    torch.testing.assert_close(embeddings(blanked, own), embeddings(without, own))


@MANY
@given(graphs(), st.integers(0, 2**31))
def test_neither_order_nor_direction_of_edges_matters(arrays: GraphArrays, seed: int) -> None:
    rng = np.random.default_rng(seed)
    own = torch.from_numpy(rng.normal(size=(sum(SIZES), 3))).float()
    order, turn = rng.permutation(len(arrays.weight)), rng.random(len(arrays.weight)) < 0.5
    other = GraphArrays(
        np.where(turn, arrays.target, arrays.source)[order],
        np.where(turn, arrays.source, arrays.target)[order],
        arrays.sign[order],
        arrays.weight[order],
        SIZES,
    )
    torch.testing.assert_close(embeddings(other, own), embeddings(arrays, own))


@MANY
@given(graphs(), st.integers(0, 2**31), st.integers(0, sum(SIZES) - 1))
def test_turning_a_feature_round_turns_its_edges(
    arrays: GraphArrays, seed: int, feature: int
) -> None:
    """A feature that is its own opposite: signs of its edges, and its embedding, flip."""
    own = torch.from_numpy(np.random.default_rng(seed).normal(size=(sum(SIZES), 3))).float()
    flip = torch.ones(sum(SIZES), 1)
    flip[feature] = -1
    touches = (arrays.source == feature) | (arrays.target == feature)
    other = replace(arrays, sign=np.where(touches, -arrays.sign, arrays.sign))
    torch.testing.assert_close(embeddings(other, own * flip), embeddings(arrays, own) * flip)


@MANY
@given(st.integers(0, 2**31), st.integers(1, 8))
def test_pairs_depend_on_neither_side_nor_order(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(17, 4)), rng.normal(size=(12, 4))
    order = rng.permutation(17)
    found = mutual_neighbours(left, right, n_neighbours=k)
    turned = mutual_neighbours(right, left[order], n_neighbours=k)
    expected = {
        (int(i), int(j)): w for i, j, w in zip(found.left, found.right, found.weight, strict=True)
    }
    given_back = {
        (int(order[i]), int(j)): w
        for j, i, w in zip(turned.left, turned.right, turned.weight, strict=True)
    }
    assert given_back == pytest.approx(expected)


@MANY
@given(st.integers(0, 2**31), st.integers(1, 9))
def test_smoothing_follows_the_order_of_cells(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    values, space, order = rng.normal(size=(14, 3)), rng.normal(size=(14, 2)), rng.permutation(14)
    np.testing.assert_allclose(
        smooth(values[order], space[order], k), smooth(values, space, k)[order], atol=1e-12
    )


@pytest.fixture(scope="module", params=["product_of_experts", "mixture_of_experts"])
def model(request: pytest.FixtureRequest) -> MosaicVI:
    mdata = small_mosaic(120, patterns={"rna": 0.5, "protein": 0.5})
    features = {name: list(mdata[name].var_names) for name in ("rna", "protein")}
    # Simulated proteins are linked to the first genes, in order.
    n_genes = len(features["rna"])
    graph = FeatureGraph(features, Edges.of(np.arange(8), n_genes + np.arange(8), 1, 0.8, "test"))
    return fit(build(mdata, graph=graph, fusion=request.param), 2)


@pytest.mark.parametrize("name", ["rna", "protein"])
def test_aligned_latents_belong_to_cells(model: MosaicVI, name: str) -> None:
    mdata = model.adata
    assert len(model.module.aligned) == 2
    rng = np.random.default_rng(0)
    other = make_mudata(
        {m: mdata[m][rng.permutation(mdata[m].n_obs)].copy() for m in ("protein", "rna")}
    )
    cells = mdata[name].obs_names
    rows = [data.obs_names.get_indexer(cells) for data in (mdata, other)]
    first = model.get_latent_representation(indices=rows[0], from_modalities=[name])
    second = model.get_latent_representation(other, indices=rows[1], from_modalities=[name])
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_cell_of_an_unseen_batch_has_finite_answers(model: MosaicVI) -> None:
    rna = model.adata["rna"][:10].copy()
    rna.obs["batch"] = "never seen"
    answer = model.impute("protein", adata=make_mudata({"rna": rna}), n_samples=5)
    assert np.isfinite(answer.X).all()
