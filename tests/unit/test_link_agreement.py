"""Links that are left out in turn: against a search by hand, wrong links, and too few of them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData
from sklearn.neighbors import NearestNeighbors

from mosaicvi import MosaicVI, MosaicviWarning, RequestError
from mosaicvi.graph import Edges, FeatureGraph, from_table
from mosaicvi.model import _link_agreement

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


BOTH = ("rna", "protein")
N_GENES, N_PROTEINS = 40, 8


@pytest.fixture(scope="module")
def linked() -> tuple[MuData, pd.DataFrame]:
    """Genes and proteins that follow the same two states of cells, of which none has both."""
    return drawn(("r", "p"))


def drawn(names: tuple[str, str], n_proteins: int = N_PROTEINS) -> tuple[MuData, pd.DataFrame]:
    """350 cells of each modality; the first letter of a cell's name is its modality's."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(0, 1, (2, N_GENES))
    tables = {}
    for name, letter, level, n_features in (
        ("rna", names[0], 4.0, N_GENES),
        ("protein", names[1], 40.0, n_proteins),
    ):
        state = rng.normal(0, 0.8, (350, 2))
        counts = rng.poisson(level * np.exp(state @ loadings[:, :n_features]))
        tables[name] = AnnData(
            sp.csr_matrix(counts, dtype=np.float32),
            obs=pd.DataFrame(index=[f"{letter}{number}" for number in range(350)]),
            var=pd.DataFrame(index=[f"{name}{number}" for number in range(n_features)]),
        )
    links = {"source": tables["rna"].var_names[:n_proteins], "target": tables["protein"].var_names}
    return MuData(tables), pd.DataFrame(links).assign(sign=1, weight=1.0)


def built(mdata: MuData, links: pd.DataFrame) -> MosaicVI:
    MosaicVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    graph = from_table(mdata, links, *BOTH, weight="weight", sign="sign")
    return MosaicVI(mdata, graph=graph, n_latent=5, n_hidden=16)


def said_by(call: Callable[[], object]) -> list[str]:
    """Warnings of too few links."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call()
    texts = [str(each.message) for each in said if issubclass(each.category, MosaicviWarning)]
    return [text for text in texts if "linked feature" in text]


def rotated(links: pd.DataFrame) -> pd.DataFrame:
    """Every protein linked to the gene of another."""
    return links.assign(target=np.roll(links["target"].to_numpy(), 3))


def test_right_links_agree_and_wrong_ones_do_not(linked: tuple[MuData, pd.DataFrame]) -> None:
    mdata, links = linked
    right = built(mdata, links).get_link_agreement()
    assert list(right.columns) == ["first", "second", "modality", "feature", "correlation"]
    assert set(right["feature"]) == set(mdata["protein"].var_names)
    assert (right[["first", "second", "modality"]] == [*BOTH, "protein"]).all(axis=None)
    wrong = built(mdata, rotated(links)).get_link_agreement()
    assert right["correlation"].mean() > 0.3
    assert wrong["correlation"].mean() < 0.1


def test_a_link_of_the_wrong_sign_stands_out(linked: tuple[MuData, pd.DataFrame]) -> None:
    mdata, links = linked
    right = built(mdata, links).get_link_agreement().set_index("feature")["correlation"]
    best = right.idxmax()
    turned = links.assign(sign=np.where(links["target"] == best, -links["sign"], links["sign"]))
    found = built(mdata, turned).get_link_agreement().set_index("feature")["correlation"]
    # The link that is left out takes no part in the search: its sign turns its own figure alone.
    np.testing.assert_allclose(found[best], -right[best], atol=1e-6)
    assert found.idxmin() == best


def test_each_is_left_out_as_by_hand(linked: tuple[MuData, pd.DataFrame]) -> None:
    model = built(*linked)
    table = model.get_link_agreement(seed=3)
    data = model._cells(None).data
    sampled: dict[str, np.ndarray] = {}
    spaces: dict[str, np.ndarray] = {}
    original = _link_agreement.linked_columns

    def spy(*given: object) -> object:
        columns = original(*given)  # type: ignore[arg-type]
        assert columns is not None
        freed = columns.freed

        def keep(*arguments: object) -> list[np.ndarray]:
            sides = freed(*arguments)  # type: ignore[arg-type]
            sampled.update(zip(BOTH, (side.copy() for side in sides), strict=True))
            spaces.update({name: arguments[2][name].residuals for name in BOTH})  # type: ignore[index]
            return sides

        object.__setattr__(columns, "freed", keep)
        return columns

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_link_agreement, "linked_columns", spy)
        model.get_link_agreement(seed=3)
    left, right = sampled["rna"], sampled["protein"]
    assert len(left) == data.modalities["rna"].n_cells
    near = [NearestNeighbors(n_neighbors=30).fit(spaces[name]) for name in BOTH]
    means = [
        side[search.kneighbors(spaces[name], return_distance=False)].mean(1)
        for name, search, side in zip(BOTH, near, (left, right), strict=True)
    ]
    for number, expected in enumerate(table["correlation"]):
        others = [column for column in range(N_PROTEINS) if column != number]
        parts = []
        for side in (left, right):
            part = (side[:, others] - side[:, others].mean(0)) / side[:, others].std(0)
            parts.append(part / np.linalg.norm(part, axis=1, keepdims=True))
        there = NearestNeighbors(n_neighbors=15).fit(parts[1]).kneighbors(parts[0])[1]
        back = NearestNeighbors(n_neighbors=15).fit(parts[0]).kneighbors(parts[1])[1]
        pairs = [(i, j) for i in range(len(left)) for j in there[i] if i in back[j]]
        weight = np.array(
            [
                1 / np.sqrt(sum(p[0] == i for p in pairs) * sum(p[1] == j for p in pairs))
                for i, j in pairs
            ]
        )
        x, y = (side[[p[i] for p in pairs], number] for i, side in enumerate(means))
        together = np.cov(x, y, aweights=weight, ddof=0)
        by_hand = together[0, 1] / np.sqrt(together[0, 0] * together[1, 1])
        assert abs(by_hand - expected) < 0.01


def test_few_links_that_disagree_are_told_of(linked: tuple[MuData, pd.DataFrame]) -> None:
    mdata, links = linked
    assert not said_by(lambda: built(mdata, links))
    (text,) = said_by(lambda: built(mdata, rotated(links)))
    assert "only 8 linked features tie 'rna' and 'protein': left out in turn" in text
    assert "get_link_agreement()" in text
    (text,) = said_by(lambda: built(mdata, links.head(1)))
    assert "only 1 linked feature ties 'rna' and 'protein': nothing can say whether" in text
    assert built(mdata, links.head(1)).get_link_agreement()["correlation"].isna().all()


def test_links_that_share_a_feature_are_left_out_together() -> None:
    mdata, _ = drawn(("r", "p"))
    # Two clones of each of four antibodies, both linked to two genes: those of another antigen.
    counts = mdata["protein"].X.toarray()
    counts[:, 1::2] = np.random.default_rng(1).poisson(counts[:, ::2])
    mdata["protein"].X = sp.csr_matrix(counts)
    ends = [
        pd.DataFrame({"source": f"rna{gene}", "target": f"protein{protein}"}, index=[0])
        for protein in range(N_PROTEINS)
        for gene in ((protein // 2 * 2 + 2 + other) % N_PROTEINS for other in (0, 1))
    ]
    found = built(mdata, pd.concat(ends).assign(sign=1, weight=1.0)).get_link_agreement()
    assert len(found) == N_PROTEINS
    assert found["correlation"].mean() < 0.1
    # One complex is all that there is: nothing is left to judge it by.
    one = pd.concat(ends[:4]).assign(sign=1, weight=1.0)
    (text,) = said_by(lambda: built(mdata, one))
    assert "only 2 linked features tie" in text
    assert "nothing can say whether they are right" in text
    assert built(mdata, one).get_link_agreement()["correlation"].isna().all()


def test_many_links_that_say_nothing_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    mdata, links = drawn(("r", "p"), N_GENES)
    target = np.random.default_rng(1).permutation(links["target"])
    assert not said_by(lambda: built(mdata, links.assign(target=target)))
    monkeypatch.setattr(_link_agreement, "HUNDREDS", N_GENES)
    assert not said_by(lambda: built(mdata, links))
    (text,) = said_by(lambda: built(mdata, links.assign(target=target)))
    assert text.startswith("40 linked features tie 'rna' and 'protein': left out in turn")
    assert "12 times that and more where most cells were matched rightly" in text
    # A small mean does no harm where it is clear: most of many links may be noise.
    monkeypatch.setattr(_link_agreement, "LEAST_AGREEMENT", 10.0)
    assert not said_by(lambda: built(mdata, links))


def test_pairs_are_not_asked() -> None:
    # The same names: all cells hold both.
    paired, links = drawn(("c", "c"))
    MosaicVI.setup_mudata(paired, {"rna": "nb", "protein": "nb_mixture"})
    graph = from_table(paired, rotated(links), *BOTH, weight="weight", sign="sign")
    assert not said_by(lambda: MosaicVI(paired, graph=graph, alignment="anchors", n_hidden=16))


def test_the_same_after_loading_and_by_seed(
    linked: tuple[MuData, pd.DataFrame], tmp_path: Path
) -> None:
    mdata, links = linked
    model = built(mdata, links)
    before = model.get_link_agreement()
    assert before.equals(model.get_link_agreement())
    model.is_trained_ = True
    model.save(tmp_path / "model")
    loaded = MosaicVI.load(tmp_path / "model", mdata)
    np.testing.assert_allclose(
        loaded.get_link_agreement()["correlation"], before["correlation"], atol=1e-6
    )


def test_without_links_there_is_nothing_to_say(linked: tuple[MuData, pd.DataFrame]) -> None:
    mdata, _ = linked
    MosaicVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    with pytest.raises(RequestError, match="no feature graph"):
        MosaicVI(mdata, alignment="none").get_link_agreement()
    paired, _ = drawn(("c", "c"))
    MosaicVI.setup_mudata(paired, {"rna": "nb", "protein": "nb_mixture"})
    features = {name: list(paired[name].var_names) for name in BOTH}
    one = np.ones(1, np.int8)
    inside = FeatureGraph(features, Edges(one * 0, one, one, np.ones(1), np.array(["inside"])))
    with pytest.raises(RequestError, match="no edge of the graph links features of two"):
        MosaicVI(paired, graph=inside, n_hidden=16).get_link_agreement()


def test_links_say_nothing_where_all_cells_of_a_modality_are_averaged() -> None:
    """Correlations of rounding errors, such as -1e-7, had been told as those of links."""
    mdata, links = drawn(("r", "p"))
    few = MuData({"rna": mdata.mod["rna"].copy(), "protein": mdata.mod["protein"][:30].copy()})
    with pytest.warns(MosaicviWarning, match="nothing can say whether they are right"):
        model = built(few, links)
    assert model.get_link_agreement()["correlation"].isna().all()
