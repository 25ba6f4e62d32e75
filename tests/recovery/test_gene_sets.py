"""Named factors find the programmes of their gene sets, correct these, and go where none is."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from tests.fits import QUIET, small_mosaic
from tests.helpers import make_mudata

from mosaicvi import FactorVI
from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi.factor._gene_sets import name_factors

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

N_GENES, N_PROGRAMMES, SIZE, N_SETS = 300, 5, 30, 3


def draw(seed: int, wrong: float):
    """Counts of five programmes of 30 genes; sets of three, of which some genes are wrong."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(500, N_PROGRAMMES))
    member = np.zeros((N_GENES, N_PROGRAMMES), dtype=bool)
    for k in range(N_PROGRAMMES):
        member[rng.choice(N_GENES, SIZE, replace=False), k] = True
    sign = np.where(rng.random(member.shape) < 0.9, 1, -1)
    w = np.where(member, 0.8 * rng.gamma(4, 0.25, member.shape) * sign, 0)
    share = np.exp(z @ w.T + rng.normal(0, 1, N_GENES))
    rate = 1500 * np.exp(rng.normal(0, 0.5, 500))[:, None] * share / share.sum(1, keepdims=True)
    adata = AnnData(rng.poisson(rate * rng.gamma(5.0, 0.2, rate.shape)).astype(np.float32))
    adata.var_names = [f"g{j}" for j in range(N_GENES)]
    adata.obs_names = [f"c{i}" for i in range(500)]
    sets, n_wrong = {}, round(wrong * SIZE)
    for k in range(N_SETS):
        own, other = np.flatnonzero(member[:, k]), np.flatnonzero(~member[:, k])
        genes = [*rng.choice(own, SIZE - n_wrong, replace=False),
                 *rng.choice(other, n_wrong, replace=False)]  # fmt: skip
        sets[f"set{k}"] = [f"g{j}" for j in genes]
    sets["irrelevant"] = [f"g{j}" for j in rng.choice(N_GENES, 25, replace=False)]
    return make_mudata({"rna": adata}), z, member, sets


@cache
def fitted(seed: int, wrong: float):
    mdata, z, member, sets = draw(seed, wrong)
    FactorVI.setup_mudata(mdata, {"rna": "nb"})
    model = FactorVI(mdata, n_factors=4, gene_sets=sets)
    model.train(60, **QUIET)
    return model, z, member


@pytest.mark.parametrize("wrong", [0.0, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_named_factors(seed: int, wrong: float) -> None:
    model, z, member = fitted(seed, wrong)
    table, factors = model.get_gene_sets(), model.get_factors()
    assert list(factors.columns) == list(model.factors)
    for k in range(N_SETS):
        # Named, and of the sign of its members.
        assert np.corrcoef(factors[f"set{k}"], z[:, k])[0, 1] > 0.9
        part = table[table["factor"] == f"set{k}"]
        right = member[[int(gene[1:]) for gene in part["feature"]], k]
        counts = pd.crosstab(right, part["status"]).reindex(columns=["kept", "dropped", "added"])
        counts = counts.reindex([False, True]).fillna(0)
        n_wrong = round(wrong * SIZE)
        # Of 21 or 30 true members most stay, of the wrong ones most go, what was left out comes.
        assert counts.loc[True, "kept"] >= 0.9 * (SIZE - n_wrong)
        assert counts.loc[False, "dropped"] >= 0.6 * n_wrong
        assert counts.loc[True, "added"] >= 0.7 * n_wrong
        assert counts.loc[False, "added"] <= 3


@pytest.mark.parametrize("seed", [0, 1])
def test_an_irrelevant_set_is_switched_off(seed: int) -> None:
    for wrong in (0.0, 0.3):
        model, _z, _member = fitted(seed, wrong)
        assert "irrelevant" not in model.factors
        assert sorted(set(model.get_gene_sets()["factor"])) == ["set0", "set1", "set2"]
        # The programmes without a set have free factors, numbered as they come.
        free = [name for name in model.factors if name.startswith("factor")]
        assert free == [f"factor{number + 1}" for number in range(len(free))]
        assert len(free) >= N_PROGRAMMES - N_SETS


def test_names_survive_files_and_more_training(tmp_path) -> None:
    model, _z, _member = fitted(0, 0.3)
    model.save(tmp_path / "m")
    again = FactorVI.load(tmp_path / "m", draw(0, 0.3)[0], accelerator="cpu")
    assert again.factors == model.factors
    pd.testing.assert_frame_equal(again.get_gene_sets(), model.get_gene_sets())
    again.train(5, **QUIET)
    assert {"set0", "set1", "set2"} <= set(again.factors)


GENES = ["CD3E", "CD8A", "MS4A1", "ITGAM", "NCAM1", "FCGR3A"]


def built(gene_sets, **options) -> FactorVI:
    mdata = small_mosaic(120)
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    return FactorVI(mdata, n_factors=3, gene_sets=gene_sets, **options)


@pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")
def test_sets_of_any_form_are_the_same(tmp_path) -> None:
    sets = {"A": GENES[:3], "B": [*GENES[2:], "elsewhere"]}
    path = tmp_path / "sets.gmt"
    path.write_text("\n".join("\t".join([name, "", *genes]) for name, genes in sets.items()))
    long = pd.DataFrame([(n, g) for n, genes in sets.items() for g in genes])
    long.columns = ["source", "target"]
    wide = pd.crosstab(long["target"], long["source"])
    expected = built(sets)
    assert expected.factors == ("A", "B", "factor1", "factor2", "factor3")
    odds = expected.module.weights["rna"].log_odds.numpy()
    features = list(expected.adata.mod["rna"].var_names)
    assert {features[j] for j in np.flatnonzero(odds[:, 0] > 0)} == set(GENES[:3])
    assert (odds[:, :2] != 0).all()
    assert (odds[:, 2:] == 0).all()
    assert (expected.module.weights["protein"].log_odds == 0).all()
    for form in (path, str(path), long, wide):
        model = built(form)
        assert model.factors == expected.factors
        np.testing.assert_array_equal(model.module.weights["rna"].log_odds.numpy(), odds)


@pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")
@pytest.mark.parametrize(("explained", "named"), [(0.01, True), (0.0005, False)])
def test_a_factor_that_says_nothing_of_its_genes_has_no_name(explained: float, named: bool) -> None:
    model = built({"A": GENES})
    weights, member = model.module.weights["rna"], model.module.weights["rna"].log_odds[:, 0] > 0
    with torch.no_grad():
        weights.loc[member, 0], weights.inclusion[member, 0] = 1.0, 0.99
    table = pd.DataFrame({"rna": explained, "protein": 0.3}, index=list(model.factors))
    names, informed = name_factors(model.module, model.factors, ("A",), table)
    assert names[0] == ("A" if named else "factor1")
    assert informed == (("A",) if named else ())
    assert bool((weights.log_odds[:, 0] != 0).any()) == named


@pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning")
@pytest.mark.parametrize("acts", ["by weights", "by what it explains", "not"])
def test_a_named_factor_keeps_its_nonnegative_weights(acts: str) -> None:
    model = built({"A": GENES}, nonnegative=["protein"])
    rna, protein = model.module.weights["rna"], model.module.weights["protein"]
    member = rna.log_odds[:, 0] > 0
    with torch.no_grad():
        rna.loc[member, 0], rna.inclusion[member, 0] = -1.0, 0.99
        protein.loc[:, 0] = torch.tensor([0.5, -0.5]).repeat(len(protein.loc) // 2)
        protein.inclusion[:, 0] = 0.99 if acts == "by weights" else 0.1
    before = {name: w.mean()[:, 0].clone() for name, w in model.module.weights.items()}
    share = 0.3 if acts == "by what it explains" else 0.0
    table = pd.DataFrame({"rna": 0.3, "protein": share}, index=list(model.factors))
    names, _ = name_factors(model.module, model.factors, ("A",), table)
    assert names[0] == "A"
    if acts == "not":
        torch.testing.assert_close(rna.mean()[:, 0], -before["rna"])
        # Nothing that was clipped comes up.
        assert (protein.mean()[:, 0] == 0).all()
    else:
        torch.testing.assert_close(rna.mean()[:, 0], before["rna"])
        torch.testing.assert_close(protein.mean()[:, 0], before["protein"])


def test_sets_that_match_nothing() -> None:
    with pytest.raises(DataError) as caught:
        built({"A": ["x1", "x2", "x3"], "B": ["y1", "CD3E"]})
    text = str(caught.value)
    for part in ("none of 2 gene sets", "1 of 5 names match", "'x1'", "'CD3E'", "'rna'", "case"):
        assert part in text
    with pytest.raises(DataError, match="mixed species"):
        built({"A": ["Cd3e", "Cd8a", "Ms4a1", "Itgam"]})
    with pytest.warns(MosaicviWarning, match="1 of 2 gene sets have fewer than 3 members"):
        assert built({"A": GENES, "B": GENES[:2]}).factors[0] == "A"
    with pytest.raises(RequestError, match="factor1"):
        built({"factor1": GENES})
    with pytest.raises(RequestError, match="all factors"):
        built({"all factors": GENES})
    with pytest.raises(RequestError, match="no modality 'atac'"):
        built({"A": GENES}, gene_set_modality="atac")
    with pytest.raises(DataError, match="'source'"):
        built(pd.DataFrame({"set": ["A"], "gene": ["CD3E"]}))
    with pytest.raises(RequestError, match="n_factors"):
        built({f"set {number}": GENES for number in range(120)})
