"""Simulated data follow their stated truth."""

from __future__ import annotations

import warnings
from dataclasses import replace

import mudata
import numpy as np
import pytest
import scipy.sparse as sp

from mosaicvi._errors import DataError, RequestError
from mosaicvi.datasets import SimulatedModality, simulate, simulate_cite, true_mean

RNA = SimulatedModality.rna(60)
PROTEIN = SimulatedModality.protein(10)
# Bounds on z-scores: the largest of 200 independent ones stays below this but once in 10,000.
LARGEST_Z = 5.3


def dense(values):
    return values.toarray() if sp.issparse(values) else np.asarray(values)


def presence(mdata):
    return {name: np.asarray(mdata.obsmap[name]).ravel() > 0 for name in mdata.mod}


def one(likelihood, n_features=40, **changes):
    spec = SimulatedModality(likelihood, tuple(f"f{i}" for i in range(n_features)), **changes)
    return {"m": spec}


SPECS = {
    "nb": one("nb", depth=400.0),
    "zinb": one("zinb", depth=400.0),
    "nb_mixture": one("nb_mixture", abundance=(2.5, 0.5), signal_sd=0.4),
    "poisson": one("poisson", depth=400.0),
    "bernoulli": one("bernoulli", depth=30.0),
    "normal": one("normal"),
    "student": one("student"),
    "lognormal": one("lognormal"),
}


def expected(mdata, n_draws=4000):
    """Mean and variance of one cell's entries by brute force, from the documented story.

    Written out here for each likelihood from the stored parameters, with its own random numbers.
    """
    rng = np.random.default_rng(1)
    part = mdata["m"]
    kind = mdata.uns["truth"]["m"]["likelihood"]
    batch = list(mdata.uns["truth"]["batches"]).index(mdata.obs["batch"].iloc[0])
    z = mdata.obsm["truth_z"][0]
    library = mdata.obs["truth_library_m"].iloc[0]
    signal = part.varm["truth_embedding"] @ z
    head = part.varm["truth_scale"][:, batch] * signal + part.varm["truth_bias"][:, batch]
    size = (n_draws, len(head))
    if kind == "normal":
        return head, part.var["truth_sd"].to_numpy() ** 2
    if kind == "student":
        df = part.var["truth_df"].to_numpy()
        return head, part.var["truth_sd"].to_numpy() ** 2 * df / (df - 2)
    if kind == "lognormal":
        spread = part.var["truth_sd"].to_numpy() ** 2
        mean = np.exp(head + spread / 2)
        return mean, mean**2 * np.expm1(spread)
    if kind == "nb_mixture":
        background = library * np.exp(
            part.varm["truth_log_background"][:, batch] + rng.normal(0, 0.3, size)
        )
        score = signal / mdata.uns["truth"]["m"]["signal_sd"]
        logit = (
            part.var["truth_mixing_slope"].to_numpy() * score
            + part.var["truth_mixing_offset"].to_numpy()
        )
        fore = rng.random(size) < 1 / (1 + np.exp(-logit))
        mean = background * (1 + fore * np.exp(head))
        theta = np.where(
            fore, part.var["truth_dispersion_foreground"], part.var["truth_dispersion_background"]
        )
        counts = rng.negative_binomial(theta, theta / (theta + mean))
        return counts.mean(axis=0), counts.var(axis=0)
    share = np.exp(head) / np.exp(head).sum()
    mean = library * share
    if kind == "poisson":
        return mean, mean
    if kind == "bernoulli":
        p = 1 - np.exp(-mean)
        return p, p * (1 - p)
    theta = part.var["truth_dispersion"].to_numpy()
    variance = mean + mean**2 / theta
    if kind == "nb":
        return mean, variance
    kept = 1 - part.var["truth_dropout"].to_numpy()
    return kept * mean, kept * (variance + mean**2) - (kept * mean) ** 2


@pytest.mark.parametrize("likelihood", SPECS)
def test_true_mean_is_that_of_the_documented_story(likelihood):
    mdata = simulate(5, SPECS[likelihood], batches=1)
    mean, variance = expected(mdata)
    tolerance = LARGEST_Z * np.sqrt(variance / 4000) if likelihood == "nb_mixture" else 1e-9
    assert (np.abs(true_mean(mdata, "m")[0] - mean) <= tolerance + 1e-9 * np.abs(mean)).all()


@pytest.mark.parametrize("likelihood", SPECS)
def test_values_scatter_around_the_true_mean(likelihood):
    """Many cells at the same z, batch and depth: their mean and variance are the story's."""
    n_cells = 4000
    spec = {"m": replace(SPECS[likelihood]["m"], depth_sd=0.0)}
    mdata = simulate(n_cells, spec, batches=1, n_types=1, separation=1.0)
    assert np.ptp(mdata.obsm["truth_z"], axis=0).max() == 0
    values = dense(mdata["m"].X)
    mean, variance = expected(mdata, n_draws=40_000)
    if likelihood == "nb_mixture":
        mean = true_mean(mdata, "m")[0]
    error = (values.mean(axis=0) - mean) / np.sqrt(variance / n_cells + 1e-12)
    assert np.abs(error).max() < LARGEST_Z
    seen = variance * n_cells > 100
    assert seen.sum() > 10
    assert np.allclose(values.var(axis=0)[seen], variance[seen], rtol=0.35)


def test_methylated_reads_follow_coverage_and_a_beta_rate():
    """Moments of reads given coverage, at the same z: binomial with a beta rate."""
    spec = {"m": replace(SimulatedModality.methylation(40), depth_sd=0.0)}
    mdata = simulate(4000, spec, batches=1, n_types=1, separation=1.0)
    part, p = mdata["m"], true_mean(mdata, "m")[0]
    k, n = (dense(part.layers[name]) for name in ("methylated", "coverage"))
    assert np.array_equal(k, dense(part.X))
    assert (k <= n).all()
    assert abs(n.mean() - 4.0) < 0.05
    phi = part.var["truth_concentration"].to_numpy()
    variance = (n * p * (1 - p) * (1 + (n - 1) / (1 + phi))).sum(0)
    assert np.abs((k - n * p).sum(0) / np.sqrt(variance)).max() < LARGEST_Z
    assert np.allclose(((k - n * p) ** 2).sum(0), variance, rtol=0.25)
    panel = [f"region{number:04d}" for number in range(1, 21)]
    mdata = simulate(40, {"m": SimulatedModality.methylation(40)}, panels={"m": {"batch2": panel}})
    unmeasured = dense(mdata["m"].layers["coverage"])[-1, 20:]
    assert (unmeasured == 0).all()


def test_total_over_cells_matches_truth_in_every_modality():
    specs = {
        "rna": replace(RNA, nonlinearity=0.5),
        "protein": PROTEIN,
        "atac": SimulatedModality.atac(80),
        "score": SimulatedModality.normal(5),
    }
    mdata = simulate(3000, specs, batches=3)
    for name in specs:
        complete = dense(mdata.obsm[f"truth_{name}"])
        mean = true_mean(mdata, name)
        residual = complete - mean
        z = residual.mean(axis=0) / (residual.std(axis=0) / np.sqrt(len(mean)) + 1e-12)
        assert np.abs(z).max() < LARGEST_Z
        assert mean.shape == (mdata.n_obs, specs[name].n_features)


def test_latent_is_standard_normal():
    z = simulate(20_000, one("normal", 2), n_types=0, n_latent=4).obsm["truth_z"]
    assert np.abs(z.mean(axis=0)).max() < LARGEST_Z / np.sqrt(20_000)
    assert np.allclose(np.cov(z.T), np.eye(4), atol=LARGEST_Z * np.sqrt(2 / 20_000))


def test_separation_is_the_share_of_variance_between_types():
    shares = []
    for seed in range(20):
        mdata = simulate(500, one("normal", 2), n_types=12, separation=0.6, seed=seed)
        z, types = mdata.obsm["truth_z"], mdata.obs["cell_type"].astype(str).to_numpy()
        within = np.mean([z[types == name].var(axis=0).mean() for name in np.unique(types)])
        shares.append(within)
    assert np.mean(shares) == pytest.approx(0.4, rel=0.05)


def test_values_of_present_cells_are_those_of_the_truth():
    mdata = simulate(300, {"rna": RNA, "protein": PROTEIN})
    for name, part in mdata.mod.items():
        rows = mdata.obs_names.get_indexer(part.obs_names)
        assert (dense(part.X) == dense(mdata.obsm[f"truth_{name}"])[rows]).all()
        assert isinstance(part.X, sp.csr_matrix)
        assert part.X.dtype == np.float32
        assert (part.obs["batch"].to_numpy() == mdata.obs["batch"].to_numpy()[rows]).all()
        assert (part.obs["cell_type"].to_numpy() == mdata.obs["cell_type"].to_numpy()[rows]).all()


def test_presence_is_as_asked():
    mdata = simulate(
        1000,
        {"rna": RNA, "protein": PROTEIN},
        patterns={"rna+protein": 0.301, "rna": 0.449, "protein": 0.25},
        batches=1,
    )
    here = presence(mdata)
    assert (here["rna"] & here["protein"]).sum() == 301
    assert (here["rna"] & ~here["protein"]).sum() == 449
    assert (~here["rna"] & here["protein"]).sum() == 250


def test_presence_may_differ_between_batches():
    mdata = simulate_cite()
    here = presence(mdata)
    for batch, rna, protein in (
        ("donor1", 1, 0),
        ("donor2", 0, 1),
        ("donor3", 1, 1),
        ("donor4", 1, 1),
    ):
        cells = (mdata.obs["batch"] == batch).to_numpy()
        assert cells.sum() == 400
        assert (here["rna"][cells] == rna).all()
        assert (here["protein"][cells] == protein).all()


@pytest.mark.parametrize("likelihood", SPECS)
def test_panel_is_respected(likelihood):
    measured = [f"f{i}" for i in range(0, 40, 2)]
    mdata = simulate(400, SPECS[likelihood], panels={"m": {"batch2": measured}})
    panel = mdata["m"].varm["panel"]
    assert list(panel.columns) == ["batch1", "batch2"]
    assert panel["batch1"].all()
    assert list(panel.index[panel["batch2"]]) == measured
    lacking = ~panel["batch2"].to_numpy()
    cells = (mdata["m"].obs["batch"] == "batch2").to_numpy()
    values, mean = dense(mdata["m"].X), true_mean(mdata, "m")
    if likelihood in {"normal", "student", "lognormal"}:
        assert np.isnan(values[cells][:, lacking]).all()
        assert not np.isnan(values[~cells]).any()
        assert not np.isnan(values[:, ~lacking]).any()
    else:
        assert (values[cells][:, lacking] == 0).all()
        assert (mean[cells][:, lacking] == 0).all()
        assert (values[~cells][:, lacking] > 0).any()
    if likelihood in {"nb", "poisson"}:
        # The softmax runs over what is measured, so the depth is spread over half the features.
        assert np.allclose(mean.sum(axis=1), mdata.obs["truth_library_m"])


def test_links_are_correlations_of_embeddings():
    specs = {
        "rna": SimulatedModality.rna(3000),
        "atac": replace(SimulatedModality.atac(3000), negative_links=0.3, link_weight=(0.7, 0.7)),
    }
    mdata = simulate(20, specs, n_latent=10)
    links = mdata.uns["links"]
    assert list(links.columns[:4]) == ["source", "target", "sign", "weight"]
    assert len(links) == 3000
    v = mdata["rna"].varm["truth_embedding"][mdata["rna"].var_names.get_indexer(links["source"])]
    w = mdata["atac"].varm["truth_embedding"][mdata["atac"].var_names.get_indexer(links["target"])]
    sign = links["sign"].to_numpy()
    assert (sign == -1).mean() == pytest.approx(0.3, abs=0.04)
    unit = sign * (v * w).sum(axis=1) * 10 / (0.8 * 1.0)
    assert unit.mean() / 10 == pytest.approx(0.7, abs=0.05)
    shuffled = (v[np.random.default_rng(0).permutation(3000)] * w).sum(axis=1) / 0.8
    assert shuffled.mean() == pytest.approx(0.0, abs=0.05)


def test_isotype_controls_are_background_only_and_unlinked():
    mdata = simulate(500, {"rna": RNA, "protein": PROTEIN})
    protein = mdata["protein"]
    controls = protein.var_names.str.contains("isotype")
    assert controls.sum() == 2
    assert not mdata.obsm["truth_protein_foreground"][:, controls].any()
    assert mdata.obsm["truth_protein_foreground"][:, ~controls].any(axis=0).all()
    assert (protein.varm["truth_embedding"][controls] == 0).all()
    assert not set(mdata.uns["links"]["target"]) & set(protein.var_names[controls])


def test_defaults_are_realistic():
    mdata = simulate_cite()
    rna, protein = mdata["rna"].X, mdata["protein"].X.toarray()
    depth = np.asarray(rna.sum(axis=1)).ravel()
    assert 400 < np.median(depth) < 700
    assert 0.08 < rna.nnz / np.prod(rna.shape) < 0.2
    means = protein.mean(axis=0)
    assert means.min() < 5
    assert 300 < means.max() < 2000
    assert mdata.var_names.is_unique
    # Two modes: within a component log counts vary far less than over all cells.
    foreground = mdata.obsm["truth_protein_foreground"]
    counts = np.log1p(mdata.obsm["truth_protein"].toarray())
    gaps = [
        (counts[on, j].mean() - counts[~on, j].mean()) / counts[~on, j].std()
        for j, on in enumerate(foreground.T)
        if on.any()
    ]
    assert np.median(gaps) > 3
    full = simulate(300)["rna"].X
    assert 1500 < np.median(np.asarray(full.sum(axis=1))) < 5000
    assert 0.08 < full.nnz / np.prod(full.shape) < 0.2


def test_same_seed_same_data():
    first, again, other = (simulate(200, {"rna": RNA}, seed=seed) for seed in (3, 3, 4))
    assert (first["rna"].X != again["rna"].X).nnz == 0
    assert (first.obsm["truth_z"] == again.obsm["truth_z"]).all()
    assert first.obs.equals(again.obs)
    assert (first["rna"].X != other["rna"].X).nnz > 0


def test_another_modality_or_other_presence_changes_no_draw():
    alone = simulate(200, {"rna": RNA})
    more = simulate(200, {"score": SimulatedModality.normal(4), "rna": RNA, "protein": PROTEIN})
    rows = more.obs_names.get_indexer(alone.obs_names)
    assert (more.obsm["truth_rna"][rows] != alone.obsm["truth_rna"]).nnz == 0
    assert (more.obsm["truth_z"][rows] == alone.obsm["truth_z"]).all()


def test_written_and_read_back_the_truth_is_the_same(tmp_path):
    specs = {"rna": RNA, "protein": PROTEIN, "score": SimulatedModality.normal(4)}
    mdata = simulate(150, specs, panels={"rna": {"batch1": RNA.names[:40]}})
    mdata.write(tmp_path / "simulated.h5mu")
    read = mudata.read_h5mu(tmp_path / "simulated.h5mu")
    for name in specs:
        assert np.array_equal(true_mean(read, name), true_mean(mdata, name), equal_nan=True)
        assert (dense(read[name].X) == dense(mdata[name].X)).all()
        assert (read[name].varm["panel"] == mdata[name].varm["panel"]).to_numpy().all()
    assert (read.uns["links"].to_numpy() == mdata.uns["links"].to_numpy()).all()
    some = read[20:90].copy()
    assert np.allclose(true_mean(some, "rna"), true_mean(mdata, "rna")[20:90])


def test_no_warning_reaches_the_user():
    with warnings.catch_warnings():
        for category in (FutureWarning, UserWarning, RuntimeWarning):
            warnings.simplefilter("error", category)
        simulate(60, {"rna": RNA, "protein": PROTEIN, "score": SimulatedModality.normal(4)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patterns": {"rna+atac": 1.0}}, "'atac'"),
        ({"patterns": {"rna": 0.5, "protein": 0.4}}, "add up to 1"),
        ({"patterns": {"rna": 1.5, "protein": -0.5}}, "add up to 1"),
        ({"patterns": {"rna": 1.0}}, "modality 'protein'"),
        ({"patterns": {"batch1": {"rna+protein": 1.0}}}, "for each batch"),
        ({"panels": {"rna": {"batch1": ["no such gene"]}}}, "no such gene"),
        ({"panels": {"rna": {"batch9": ["CD3E"]}}}, "batch9"),
        ({"panels": {"atac": {"batch1": ["CD3E"]}}}, "'atac'"),
        ({"batches": ["a", "a"]}, "different names"),
        ({"batches": 0}, "one batch or more"),
        ({"batches": "donor"}, "found 'donor'.*list of names"),
        ({"batches": [1, 2]}, r"found \[1, 2\]"),
        ({"patterns": ["rna"]}, "fractions by pattern"),
        ({"n_latent": 0}, "'n_latent'.*1 or more"),
        ({"n_types": 1.5}, "'n_types'.*whole number"),
        ({"seed": -1}, "'seed'"),
        ({"modalities": {"rna": replace(RNA, factors=(1, 8))}}, r"'rna'.*'factors'.*= 7"),
        ({"separation": 1.5}, "separation"),
        ({"modalities": {}}, "no modality"),
        ({"modalities": {"rna": "nb"}}, r"'rna'.*found 'nb'.*SimulatedModality.rna"),
        ({"modalities": ["rna"]}, "found list"),
        ({"modalities": {"protein": PROTEIN}}, "linked to 'rna'"),
    ],
)
def test_impossible_requests_are_refused(arguments, message):
    modalities = arguments.pop("modalities", {"rna": RNA, "protein": PROTEIN})
    with pytest.raises(RequestError, match=message):
        simulate(50, modalities, **arguments)


def test_impossible_modalities_are_refused():
    with pytest.raises(RequestError, match="nb_mixture"):
        SimulatedModality("gamma", ("a",))
    with pytest.raises(RequestError, match="same name"):
        SimulatedModality("nb", ("a", "a"))
    with pytest.raises(RequestError, match="isotype"):
        SimulatedModality("nb", ("a", "b"), n_isotypes=1)


@pytest.mark.parametrize(
    "odd",
    [
        {"depth": 0.0},
        {"depth_sd": -1.0},
        {"abundance": (0.0, -1.0)},
        {"signal_sd": 0.0},
        {"batch_sd": float("nan")},
        {"link_weight": (0.5, 1.5)},
        {"link_weight": (0.9, 0.5)},
        {"negative_links": 2.0},
        {"n_isotypes": -1},
        {"n_isotypes": 3},
        {"density": 2.0},
    ],
)
def test_odd_numbers_are_refused(odd):
    with pytest.raises(RequestError, match=f"'{next(iter(odd))}'"):
        SimulatedModality("nb_mixture", ("a", "b"), **odd)


def test_true_mean_needs_a_simulated_modality():
    mdata = simulate(20, {"rna": RNA})
    with pytest.raises(DataError, match="'rna'"):
        true_mean(mdata, "protein")


def test_true_mean_needs_all_features():
    mdata = simulate(20, {"rna": RNA}, batches=np.int64(2))
    mdata.mod["rna"] = mdata["rna"][:, :5].copy()
    with pytest.raises(DataError, match=r"'rna'.*5 of \d+ simulated features"):
        true_mean(mdata, "rna")
