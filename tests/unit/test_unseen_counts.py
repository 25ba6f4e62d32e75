"""Directions weighted by counts that the search for anchors did not see."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.sparse as sp
from tests.fits import without_truth

from mosaicvi.alignment import LEAST_PAIRS, AnchorSpec, CellPairs, find_anchors
from mosaicvi.alignment._canonical import strength
from mosaicvi.data import build_manager
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.graph import FeatureGraph, from_table
from mosaicvi.model._construct import features_of
from mosaicvi.model._inputs import fit_modality_projection, project, target_sum
from mosaicvi.model._linked_features import linked_sides
from mosaicvi.model._technical import explain_technical
from mosaicvi.model._unseen_counts import SEEN, thin, unseen_correlation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.data._mosaic_data import MosaicData

BOTH = ("rna", "atac")
N_CELLS, N_LATENT, WIDTH = 800, 2, 20
LIKELIHOODS = {"rna": "nb", "atac": "poisson"}


@pytest.fixture(scope="module")
def drawn() -> tuple[MosaicData, FeatureGraph]:
    """Sparse counts of the same cells, of which two directions are shared."""
    rna = SimulatedModality.rna(150, likelihood="nb")
    specs = {
        "rna": replace(rna, depth=150.0),
        "atac": replace(SimulatedModality.atac(150, likelihood="poisson"), depth=60.0),
    }
    mdata = simulate(N_CELLS, specs, patterns={"rna+atac": 1.0}, n_latent=N_LATENT, seed=1)
    graph = from_table(mdata, mdata.uns["links"], *BOTH, weight="weight", sign="sign")
    data = build_manager(without_truth(mdata), LIKELIHOODS, batch_key="batch").data
    return data, graph.align(features_of(data))


def rows(data: MosaicData) -> dict[str, np.ndarray]:
    return {name: np.arange(each.n_cells) for name, each in data.modalities.items()}


def test_parts_add_up_and_hold_their_share(drawn: tuple[MosaicData, FeatureGraph]) -> None:
    data, _ = drawn
    kept = {"rna": np.array([3, 10, 11, 400]), "atac": np.arange(N_CELLS)}
    seen, unseen = thin(data, kept, seed=0)
    for name, wanted in kept.items():
        given = sp.csr_matrix(data.modalities[name].values)[wanted]
        first, second = (part.modalities[name] for part in (seen, unseen))
        np.testing.assert_array_equal((first.values + second.values).toarray(), given.toarray())
        assert first.values.min() >= 0
        assert second.values.min() >= 0
        np.testing.assert_array_equal(first.batch, data.modalities[name].batch[wanted])
        np.testing.assert_array_equal(first.depth, first.values.sum(1).A1)
        total = given.sum()
        error = 4 * np.sqrt(SEEN * (1 - SEEN) / total)
        assert abs(first.values.sum() / total - SEEN) < error


def test_parts_tell_no_noise_of_each_other(drawn: tuple[MosaicData, FeatureGraph]) -> None:
    data, _ = drawn
    counts = np.random.default_rng(0).poisson(2.0, size=(N_CELLS, 150)).astype(np.float32)
    atac = replace(data.modalities["atac"], values=sp.csr_matrix(counts))
    seen, unseen = thin(replace(data, modalities={"atac": atac}), rows(data), seed=1)
    parts = [each.modalities["atac"].values.toarray().ravel() for each in (seen, unseen)]
    assert abs(np.corrcoef(*parts)[0, 1]) < 4 / np.sqrt(counts.size)
    assert np.corrcoef(parts[0], counts.ravel())[0, 1] > 0.8


def anchors_of(
    data: MosaicData, graph: FeatureGraph
) -> tuple[dict[str, np.ndarray], Mapping, AnchorSpec]:
    technical = {}
    for name, modality in data.modalities.items():
        scale = target_sum(modality)
        projection = fit_modality_projection(
            modality,
            n_components=WIDTH,
            target_sum=scale,
            seed=0,
            rows=np.arange(N_CELLS),
            values=modality.values,
        )
        projected = project(modality, projection, scale)
        technical[name] = explain_technical(modality, projected, seed=0)
    values = {name: each.residuals for name, each in technical.items()}
    return values, linked_sides(data, graph, technical, rows(data)), AnchorSpec(n_directions=8)


def test_directions_of_noise_are_worth_nothing(drawn: tuple[MosaicData, FeatureGraph]) -> None:
    data, graph = drawn
    values, linked, spec = anchors_of(data, graph)
    found = find_anchors(values, linked, {}, spec).canonical.correlation
    worth = unseen_correlation(
        data,
        graph,
        rows(data),
        spec,
        widths=dict.fromkeys(BOTH, WIDTH),
        n_neighbours=dict.fromkeys([BOTH], 15),
        seed=0,
    )
    # Anchors agree along all directions; two are shared.
    assert found[N_LATENT + 1] > 0.5 * found[0]
    assert worth[0] > 0.1
    assert worth[N_LATENT + 1] < 0.25 * worth[0]
    assert (np.diff(worth) <= 0).all()


def test_weights_and_pairs_change_directions_do_not(
    drawn: tuple[MosaicData, FeatureGraph],
) -> None:
    values, linked, spec = anchors_of(*drawn)
    plain = find_anchors(values, linked, {}, spec)
    worth = np.array([0.4, 0.3] + [0.01] * 6)
    weighed = find_anchors(values, linked, {}, spec, worth=worth)
    gain = strength(worth) / strength(plain.canonical.correlation)
    for name in BOTH:
        expected = plain.canonical.weights[name] * gain
        np.testing.assert_allclose(weighed.canonical.weights[name], expected)
    same = [
        float((each.pairs[BOTH].left == each.pairs[BOTH].right).sum()) for each in (plain, weighed)
    ]
    assert same[1] > same[0]


def test_few_true_pairs_leave_the_weights_to_unseen_counts(
    drawn: tuple[MosaicData, FeatureGraph],
) -> None:
    values, linked, spec = anchors_of(*drawn)
    worth = np.array([0.4, 0.3] + [0.01] * 6)
    for n_true, taken in ((LEAST_PAIRS - 1, True), (300, False)):
        rows = np.arange(n_true)
        known = {BOTH: CellPairs(rows, rows, np.ones(n_true))}
        found = find_anchors(values, linked, known, spec, worth=worth)
        assert np.array_equal(found.canonical.correlation, worth) == taken
        pairs = found.pairs[BOTH]
        assert ((pairs.left < n_true) == (pairs.right < n_true)).all()


def test_pairs_of_strangers_leave_them_too(drawn: tuple[MosaicData, FeatureGraph]) -> None:
    values, linked, spec = anchors_of(*drawn)
    worth = np.array([0.4, 0.3] + [0.01] * 6)
    rows = np.arange(400)
    wrong = np.random.default_rng(0).permutation(rows)
    found = find_anchors(
        values, linked, {BOTH: CellPairs(rows, wrong, np.ones(400))}, spec, worth=worth
    )
    alone = find_anchors(values, linked, {}, spec, worth=worth)
    assert found.refused == (BOTH,)
    np.testing.assert_array_equal(found.canonical.correlation, worth)
    np.testing.assert_array_equal(found.pairs[BOTH].left, alone.pairs[BOTH].left)


def test_the_same_seed_gives_the_same(drawn: tuple[MosaicData, FeatureGraph]) -> None:
    data, _ = drawn
    first, second, other = (thin(data, rows(data), seed=seed)[0] for seed in (0, 0, 1))
    for name in BOTH:
        kept = first.modalities[name].values
        assert (kept != second.modalities[name].values).nnz == 0
        assert (kept != other.modalities[name].values).nnz > 0


def test_dense_counts_are_not_divided(drawn: tuple[MosaicData, FeatureGraph]) -> None:
    data, _ = drawn
    many = sp.csr_matrix(np.full((N_CELLS, 150), 9.0, dtype=np.float32))
    protein = replace(data.modalities["atac"], values=many)
    modalities = {**data.modalities, "atac": protein}
    assert thin(replace(data, modalities=modalities), rows(data), seed=0) is None
