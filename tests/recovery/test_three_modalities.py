"""Three assays of which no two share a cell, with the truth of every cell in every assay known.

Each cell trains with one modality. Afterwards it is placed from each of the three, of which
training never saw two, and the places are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from tests.unpaired import LIKELIHOODS, draw, fit, graph_of, permuted

from mosaicvi import metrics
from mosaicvi.bm._alignment_input import AlignmentInput
from mosaicvi.bm._load import combine
from mosaicvi.bm.aligners import get

if TYPE_CHECKING:
    from mudata import MuData

    from mosaicvi import MosaicVI

pytestmark = pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")

NAMES = ("rna", "protein", "atac")
PAIRS = tuple(combinations(NAMES, 2))
N_CELLS = 1200
EPOCHS = 8
BOUNDS = {("rna", "protein"): 0.25, ("rna", "atac"): 0.1, ("protein", "atac"): 0.25}
"""FOSCTTM of each pair; .5 by chance."""


@dataclass(frozen=True)
class Simulated:
    """A third of the cells in each modality, and the same cells with all three."""

    seen: MuData
    whole: MuData

    @classmethod
    def of(cls, seed: int) -> Simulated:
        return cls(
            draw(dict.fromkeys(NAMES, 1 / 3), N_CELLS, seed),
            draw({"+".join(NAMES): 1.0}, N_CELLS, seed),
        )

    @property
    def links(self) -> pd.DataFrame:
        """Of genes to proteins, and of genes to peaks; proteins and peaks only through them."""
        links: pd.DataFrame = self.seen.uns["links"]
        return links

    @property
    def direct(self) -> pd.DataFrame:
        """Of proteins to the peaks of their genes, by the product of both signs and weights."""
        sides = [self.links[self.links["target_modality"] == name] for name in ("protein", "atac")]
        both = sides[0].merge(sides[1], on="source")
        return pd.DataFrame(
            {
                "source": both["target_x"],
                "target": both["target_y"],
                "sign": both["sign_x"] * both["sign_y"],
                "weight": both["weight_x"] * both["weight_y"],
                "source_modality": "protein",
                "target_modality": "atac",
            }
        )


@pytest.fixture(scope="module")
def data() -> Simulated:
    return Simulated.of(0)


@pytest.fixture(scope="module")
def chain(data: Simulated) -> MosaicVI:
    """Fitted with proteins and peaks tied through genes alone."""
    return fit(data.seen, graph_of(data.seen, data.links), epochs=EPOCHS)


def apart(model: MosaicVI, whole: MuData) -> dict[tuple[str, str], float]:
    """FOSCTTM of each two modalities, over all cells."""
    z = {name: model.get_latent_representation(whole, from_modalities=[name]) for name in NAMES}
    return {both: metrics.foscttm(z[both[0]], z[both[1]]) for both in PAIRS}


def by_linked_features(data: Simulated, both: tuple[str, str]) -> float:
    """The same of the linked features, smoothed or not, the best; they are shown all cells."""
    tables = {name: data.whole.mod[name].copy() for name in both}
    for name, table in tables.items():
        table.obs_names = [f"{name}:{cell}" for cell in table.obs_names]
    cells = [cell for table in tables.values() for cell in table.obs_names]
    batch = np.tile(data.whole.obs["batch"].to_numpy().astype(str), 2)
    links = pd.concat([data.links, data.direct], ignore_index=True)
    own = links[links["source_modality"].isin(both) & links["target_modality"].isin(both)]
    given = AlignmentInput(
        combine(tables, pd.DataFrame({"batch": batch}, index=cells)),
        both,
        graph_of(data.whole, own),
        {name: LIKELIHOODS[name] for name in both},
        seed=0,
    )
    scores: list[float] = []
    for method in ("linked", "smoothed"):
        aligner = get(method)(given)
        aligner.fit()
        scores += [
            metrics.foscttm(*(embedding.latents[name] for name in both))
            for embedding in aligner.predict().values()
        ]
    return min(scores)


def test_no_cell_has_two(data: Simulated) -> None:
    present = np.column_stack([np.asarray(data.seen.obsmap[name]).ravel() > 0 for name in NAMES])
    assert (present.sum(axis=1) == 1).all()
    assert set(data.seen.obs_names) == set(data.whole.obs_names)
    held = set(zip(data.links["source_modality"], data.links["target_modality"], strict=True))
    assert held == {("rna", "protein"), ("rna", "atac")}


def test_every_pair_aligns_with_two_of_them_tied_through_the_third(
    data: Simulated, chain: MosaicVI
) -> None:
    for both, found in apart(chain, data.whole).items():
        assert found < BOUNDS[both], both
        assert found < 0.95 * by_linked_features(data, both), both


def test_every_pair_aligns_with_links_between_all_three(data: Simulated) -> None:
    links = pd.concat([data.links, data.direct], ignore_index=True)
    for both, found in apart(
        fit(data.seen, graph_of(data.seen, links), epochs=EPOCHS), data.whole
    ).items():
        assert found < BOUNDS[both], both


def test_permuted_links_align_nothing(data: Simulated) -> None:
    """As by chance, over permutations: wrong links of one put groups of cells together or apart.

    A pair of modalities under one permutation lies .07 from .5 in one of three cases.
    """
    found = []
    for seed in range(3):
        wrong = fit(data.seen, graph_of(data.seen, permuted(data.links, seed)), epochs=EPOCHS)
        found += apart(wrong, data.whole).values()
    assert abs(np.mean(found) - 0.5) < 0.07


@pytest.mark.parametrize("seed", [1, 2])
def test_not_by_the_luck_of_one_seed(seed: int) -> None:
    data = Simulated.of(seed)
    found = apart(fit(data.seen, graph_of(data.seen, data.links), epochs=EPOCHS), data.whole)
    for both in PAIRS:
        assert found[both] < BOUNDS[both] + 0.05, both


@pytest.mark.parametrize("source", ["rna", "atac"])
def test_intervals_hold_across_assays(data: Simulated, chain: MosaicVI, source: str) -> None:
    """Proteins from genes, and from peaks, which no anchor ties to proteins."""
    assert {name: set(each.apart) for name, each in chain.counterparts.items()} == {
        name: set(NAMES) - {name} for name in NAMES
    }
    cells = np.flatnonzero(np.asarray(data.seen.obsmap[source]).ravel() > 0)
    truth = data.seen.obsm["truth_protein"].toarray()[cells]
    draws = chain.posterior_predictive_sample("protein", [source], indices=cells, n_samples=60)
    pit = metrics.randomised_pit(draws, truth)
    assert metrics.miscoverage(pit).mean() < 0.06
    assert metrics.pit_distance(pit).mean() < 0.1
