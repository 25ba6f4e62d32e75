"""Gene-set tests on weights against own computations, and what they refuse."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.fits import QUIET, small_mosaic

from mosaicvi import FactorVI
from mosaicvi._errors import DataError, MosaicviWarning, RequestError
from mosaicvi.factor._enrichment import adjusted, enrichment
from mosaicvi.factor._gene_sets import match_sets

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]

SETS = {
    "first": [f"GENE{number:04d}" for number in range(1, 11)],
    "second": [f"GENE{number:04d}" for number in range(6, 20)],
    "small": ["GENE0001", "GENE0002"],
    "elsewhere": ["x1", "x2", "x3", "x4", "x5"],
}


@pytest.fixture(scope="module")
def model() -> FactorVI:
    pytest.importorskip("decoupler")
    mdata = small_mosaic(200)
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    model = FactorVI(mdata, n_factors=3)
    model.train(5, least_r2=-1.0, **QUIET)
    return model


@pytest.mark.parametrize("sign", ["both", "positive", "negative", "absolute"])
def test_ulm_is_the_regression_on_membership(model: FactorVI, sign: str) -> None:
    table = model.enrich(SETS, sign=sign)
    assert list(table["factor"].unique()) == list(model.factors)
    assert set(table["gene_set"]) == {"first", "second"}
    weights = model.get_weights("rna")
    change = {
        "both": lambda w: w,
        "positive": lambda w: np.maximum(w, 0),
        "negative": lambda w: np.maximum(-w, 0),
        "absolute": np.abs,
    }[sign]
    for row in table.itertuples():
        member = weights.index.isin(SETS[row.gene_set]).astype(float)
        fit = stats.linregress(member, change(weights[row.factor].to_numpy(dtype=float)))
        assert row.n_genes == member.sum()
        np.testing.assert_allclose(row.statistic, fit.slope / fit.stderr, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(row.p_value, fit.pvalue, rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(
        table["p_adjusted"], stats.false_discovery_control(table["p_value"]), rtol=1e-9
    )


def test_other_tests_and_a_factor_without_weights(model: FactorVI, tmp_path) -> None:
    path = tmp_path / "sets.gmt"
    path.write_text("\n".join("\t".join([name, "", *genes]) for name, genes in SETS.items()))
    for method, options in (("zscore", {}), ("gsea", {"times": 100, "seed": 0})):
        table = model.enrich(path, "rna", method=method, min_genes=2, **options)
        assert set(table["gene_set"]) == {"first", "second", "small"}
        assert table["p_value"].between(0, 1).all()
    kept = model.module.weights["rna"].loc.detach().clone()
    model.module.weights["rna"].loc.data[:, 1] = 0.0
    table = model.enrich(SETS)
    assert table.loc[table["factor"] == model.factors[1], "p_adjusted"].isna().all()
    assert table.loc[table["factor"] != model.factors[1], "p_adjusted"].notna().all()
    model.module.weights["rna"].loc.data.copy_(kept)


def test_a_named_programme_is_found() -> None:
    pytest.importorskip("decoupler")
    from tests.recovery.test_gene_sets import draw

    mdata, z, _member, sets = draw(0, 0.3)
    FactorVI.setup_mudata(mdata, {"rna": "nb"})
    model = FactorVI(mdata, n_factors=7)
    model.train(40, **QUIET)
    factors, table = model.get_factors(), model.enrich(sets, sign="absolute")
    for k in range(3):
        best = np.argmax(np.abs(np.corrcoef(factors.T, z[:, k])[-1, :-1]))
        top = table[table["factor"] == model.factors[best]].iloc[0]
        assert top["gene_set"] == f"set{k}"
        assert top["p_adjusted"] < 1e-6
    rest = table[table["gene_set"] == "irrelevant"]
    assert (rest["p_adjusted"] > 1e-3).all()


def test_a_set_of_all_features_has_no_background(model: FactorVI) -> None:
    table = model.enrich({**SETS, "all": list(model.get_weights("rna").index)})
    whole = table["gene_set"] == "all"
    assert table.loc[whole, ["statistic", "p_value", "p_adjusted"]].isna().all(axis=None)
    expected = model.enrich(SETS)
    np.testing.assert_array_equal(
        table.loc[~whole, "p_adjusted"].to_numpy(), expected["p_adjusted"].to_numpy()
    )


def test_a_signed_network_is_told_of(model: FactorVI) -> None:
    """Genes that go down cancel those that go up, whatever the network says of them."""
    weights = model.get_weights("rna")["factor1"]
    up, down = weights.nlargest(8).index, weights.nsmallest(8).index
    net = pd.DataFrame({"source": "TF", "target": [*up, *down], "weight": [1.0] * 8 + [-1.0] * 8})
    with pytest.warns(MosaicviWarning, match="8 weights in gene_sets are below zero"):
        model.enrich(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MosaicviWarning)
        apart = model.enrich(
            net.assign(source=np.where(net["weight"] < 0, "TF down", "TF up")), sign="absolute"
        )
        whole = model.enrich(net, sign="absolute")
        model.enrich(net.iloc[:8])
    assert set(apart["gene_set"]) == {"TF up", "TF down"}
    assert whole["statistic"].iloc[0] > 0


def test_adjusted_is_benjamini_hochberg() -> None:
    p = np.random.default_rng(0).uniform(size=50) ** 3
    np.testing.assert_allclose(adjusted(p), stats.false_discovery_control(p))
    with_gaps = np.r_[np.nan, p, np.nan]
    np.testing.assert_array_equal(np.isnan(adjusted(with_gaps)), np.isnan(with_gaps))
    np.testing.assert_allclose(adjusted(with_gaps)[1:-1], adjusted(p))


def test_refusals(model: FactorVI, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="none of 1 gene sets has 5 members"):
        model.enrich({"elsewhere": SETS["elsewhere"]})
    with pytest.raises(RequestError, match="'ulm', 'zscore', 'gsea'"):
        model.enrich(SETS, method="ora")
    with pytest.raises(RequestError, match="'absolute'"):
        model.enrich(SETS, sign="up")
    for unknown in ({"times": 10}, {"tmin": 3}):
        with pytest.raises(RequestError, match=rf"'ulm' of decoupler.*{next(iter(unknown))}"):
            model.enrich(SETS, **unknown)
    with pytest.raises(RequestError, match="no modality 'atac'"):
        model.enrich(SETS, "atac")
    with pytest.raises(DataError, match="'source'"):
        model.enrich(pd.DataFrame({"set": ["a"], "gene": ["b"]}))
    monkeypatch.setitem(sys.modules, "decoupler", None)
    with pytest.raises(RequestError, match=r"pip install 'mosaicvi\[explain\]'"):
        model.enrich(SETS)


@pytest.mark.parametrize("seed", [0, 1])
def test_permutations_of_any_seed_tell_a_set_that_acts(seed: int) -> None:
    """decoupler takes a seed of 0 for none, and permutes nothing."""
    pytest.importorskip("decoupler")
    names = [f"g{number}" for number in range(200)]
    weights = pd.DataFrame(
        np.random.default_rng(0).normal(size=(200, 2)), index=names, columns=["acts", "idle"]
    )
    weights.loc[names[:20], "acts"] += 2.0
    members = match_sets({"set": names[:20]}, {"rna": tuple(names)}, "rna", least=5)
    table = enrichment(weights, members, "gsea", times=200, seed=seed).set_index("factor")
    assert table.loc["acts", "p_value"] < 0.01
    assert table.loc["acts", "statistic"] > 1.5
    assert 0.02 < table.loc["idle", "p_value"] < 1
