"""The decoder: bilinear at the start, with hierarchical offsets and covariates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mosaicvi import likelihoods
from mosaicvi._types import SparseCounts
from mosaicvi.likelihoods._base import FeatureStart
from mosaicvi.nn import _decoder as decoder_file
from mosaicvi.nn._decoder import Decoder
from mosaicvi.nn._feature_sample import FeatureSample
from mosaicvi.nn._trunk import DecoderSpec

N_BATCHES, N_FEATURES, N_LATENT, N_CELLS = 3, 7, 4, 11

SPEC = DecoderSpec(
    n_latent=N_LATENT,
    n_hidden=16,
    residual=True,
    batch_prior_scale=0.3,
    batch_prior_weight=4.0,
    embedding_prior_scale=0.5,
)


def make(
    likelihood: str = "nb_mixture", measured: torch.Tensor | None = None, **changes: object
) -> Decoder:
    rule = likelihoods.get(likelihood)
    rng = np.random.default_rng(0)

    def values() -> np.ndarray:
        return rng.normal(size=N_FEATURES).astype(np.float32)

    start = FeatureStart(
        {head.name: values() for head in rule.heads},
        {name: values() for name in rule.feature_parameters},
    )
    mask = torch.ones(N_BATCHES, N_FEATURES, dtype=torch.bool) if measured is None else measured
    return Decoder(rule, start, mask, replace(SPEC, **changes))


@pytest.mark.parametrize("likelihood", sorted(likelihoods.TABLE))
def test_starts_bilinear(likelihood: str) -> None:
    decoder = make(likelihood)
    z = torch.randn(2, N_CELLS, N_LATENT)
    torch.testing.assert_close(decoder.trunk(z), z)
    batch = torch.randint(0, N_BATCHES, (N_CELLS,))
    heads = decoder(z, decoder.batch_offsets(batch))
    assert list(heads) == [head.name for head in decoder.likelihood.heads]
    for name, value in heads.items():
        expected = z @ decoder.embeddings[name].T + decoder.biases[name]
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


def test_residual_learns_from_its_zero_start() -> None:
    decoder = make()
    decoder.trunk(torch.randn(N_CELLS, N_LATENT)).square().sum().backward()
    last = decoder.trunk.residual[-1]
    assert last.weight.grad.abs().sum() > 0
    bilinear = make(residual=False)
    assert bilinear.trunk.residual is None
    z = torch.randn(N_CELLS, N_LATENT)
    assert bilinear.trunk(z) is z


def test_starting_values_are_copied() -> None:
    """Parameters that start from one array must not share its memory: loading would mix them."""
    rule = likelihoods.get("nb_mixture")
    zeros = np.zeros(N_FEATURES, dtype=np.float32)
    start = FeatureStart(
        {head.name: zeros for head in rule.heads}, dict.fromkeys(rule.feature_parameters, zeros)
    )
    decoder = Decoder(rule, start, torch.ones(1, N_FEATURES, dtype=torch.bool), SPEC)
    with torch.no_grad():
        decoder.biases["foreground"] += 1
    assert (decoder.biases["background"] == 0).all()
    assert (decoder.feature_parameters["log_dispersion_background"] == 0).all()
    assert (zeros == 0).all()
    places = [parameter.data_ptr() for parameter in decoder.parameters()]
    assert len(set(places)) == len(places)


def test_offsets_by_batch() -> None:
    decoder = make("zinb")
    assert list(decoder.offsets) == ["mean"]
    decoder.offsets["mean"].raw.data = torch.randn(N_BATCHES, N_FEATURES)
    table = decoder.offsets["mean"].table()
    torch.testing.assert_close(table.mean(0), torch.zeros(N_FEATURES), atol=1e-6, rtol=0)
    got = decoder.batch_offsets(torch.tensor([2, -1, 0]))["mean"]
    torch.testing.assert_close(got[0], table[2])
    torch.testing.assert_close(got[2], table[0])
    assert (got[1] == 0).all()  # an unknown batch stands at the mean
    z = torch.randn(3, N_LATENT)
    plain = decoder(z, {})
    shifted = decoder(z, {"mean": got})
    torch.testing.assert_close(shifted["mean"], plain["mean"] + got)
    torch.testing.assert_close(shifted["dropout"], plain["dropout"])


@pytest.mark.parametrize("name", ["zinb", "nb_mixture"])
@pytest.mark.parametrize("sampled", [False, True])
def test_offsets_in_the_product_are_offsets_that_are_added(
    monkeypatch: pytest.MonkeyPatch, name: str, sampled: bool
) -> None:
    decoder = make(name)
    for each in decoder.offsets.values():
        each.raw.data = torch.randn(N_BATCHES, N_FEATURES)
    sample = None
    if sampled and name == "zinb":
        features = torch.tensor([0, 2, 3])
        sample = FeatureSample(features, torch.tensor([1.0, 2.0, 1.5]))
    n_values = N_FEATURES if sample is None else len(sample.features)
    values = SparseCounts.from_dense(torch.poisson(torch.full((4, n_values), 2.0)))
    batch, library = torch.tensor([2, -1, 0, 2]), torch.full((4,), 50.0)
    z = torch.randn(4, N_LATENT)
    results = []
    for few in (decoder_file.FEW_BATCHES, 0):
        monkeypatch.setattr(decoder_file, "FEW_BATCHES", few)
        decoder.zero_grad()
        value = decoder.log_prob(values, z, batch, library, sample=sample)
        value.sum().backward()
        raw = [each.raw.grad.clone() for each in decoder.offsets.values()]
        assert all(gradient.abs().sum() > 0 for gradient in raw)
        results.append((value.detach(), *raw))
    for together, added in zip(*results, strict=True):
        torch.testing.assert_close(together, added, rtol=1e-4, atol=1e-4)


def test_panel() -> None:
    assert make().panel(torch.tensor([0, 1, -1])) is None
    measured = torch.ones(N_BATCHES, N_FEATURES, dtype=torch.bool)
    measured[1, :4] = False
    panel = make(measured=measured).panel(torch.tensor([0, 1, -1]))
    assert panel[0].all()
    assert torch.equal(panel[1], measured[1])
    assert panel[2].all()
    measured = torch.ones(N_BATCHES, N_FEATURES, dtype=torch.bool)
    measured[2] = False  # trained without the modality: no panel, and nothing to mask
    assert make(measured=measured).panel(torch.tensor([0, 1, 2])) is None


def test_softmax_runs_over_measured_features() -> None:
    measured = torch.ones(N_BATCHES, N_FEATURES, dtype=torch.bool)
    measured[1, :4] = False
    decoder = make("nb", measured)
    batch = torch.tensor([0, 1])
    parameters = decoder.distribution(
        torch.randn(2, N_LATENT), batch, torch.tensor([100.0, 50.0]), panel=decoder.panel(batch)
    )
    mean = parameters["mean"]
    torch.testing.assert_close(mean.sum(-1), torch.tensor([100.0, 50.0]))
    assert mean[1, :4].max() < 1e-6


def test_covariates_move_the_mean_head_only() -> None:
    decoder = make("zinb", n_categories=(2,), n_continuous=1)
    assert decoder.covariates.shape == (3, N_FEATURES)
    z, design = torch.randn(N_CELLS, N_LATENT), torch.randn(N_CELLS, 3)
    before = decoder(z, {}, design)
    torch.testing.assert_close(before["mean"], decoder(z, {})["mean"])  # they start at zero
    decoder.covariates.data = torch.randn(3, N_FEATURES)
    after = decoder(z, {}, design)
    torch.testing.assert_close(after["mean"], before["mean"] + design @ decoder.covariates)
    torch.testing.assert_close(after["dropout"], before["dropout"])


def test_negative_log_prior_is_gaussian_up_to_a_constant() -> None:
    decoder = make("nb", n_continuous=2)
    with torch.no_grad():
        decoder.covariates.normal_()
    decoder.offsets["mean"].raw.data = torch.randn(N_BATCHES, N_FEATURES)
    normal = torch.distributions.Normal(0.0, SPEC.embedding_prior_scale)
    standard = torch.distributions.Normal(0.0, 1.0)

    def expected() -> torch.Tensor:
        return (
            -normal.log_prob(decoder.embeddings["mean"]).sum()
            - standard.log_prob(decoder.covariates).sum()
            + decoder.offsets["mean"].negative_log_prior()
        )

    value, oracle = decoder.negative_log_prior(), expected()
    with torch.no_grad():
        decoder.embeddings["mean"] *= 3
        decoder.covariates *= 2
    torch.testing.assert_close(
        decoder.negative_log_prior() - value, expected() - oracle, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("likelihood", sorted(likelihoods.TABLE))
def test_heads_read_linked_embeddings_by_their_loading(likelihood: str) -> None:
    decoder = make(likelihood, linked=True)
    z, linked = torch.randn(N_CELLS, N_LATENT), torch.randn(N_FEATURES, N_LATENT)
    plain, tied = decoder(z, {}), decoder(z, {}, linked=linked)
    for head in decoder.likelihood.heads:
        expected = plain[head.name] + head.loading * (z @ linked.T)
        torch.testing.assert_close(tied[head.name], expected, atol=1e-5, rtol=1e-5)
    # The mean head starts at reading all of them; a gene that is expressed is no background.
    starts = {head.name: head.loading for head in decoder.likelihood.heads}
    assert starts[decoder.mean_head] == 1
    assert starts.get("mixing", -1) == -1
    assert starts.get("dropout", 0) == starts.get("background", 0) == 0


def test_loadings_are_learnt_around_their_start() -> None:
    decoder = make(linked=True)
    before = decoder.negative_log_prior()
    shift = torch.randn(N_FEATURES)
    with torch.no_grad():
        decoder.loadings["foreground"] += shift
        decoder.loadings["mixing"] -= shift
    after = decoder.negative_log_prior()
    normal = torch.distributions.Normal(0.0, 0.5)
    expected = 2 * (normal.log_prob(torch.zeros(N_FEATURES)) - normal.log_prob(shift)).sum()
    torch.testing.assert_close(after - before, expected, rtol=1e-3, atol=1e-3)
    assert not make().loadings
    linked = torch.randn(N_FEATURES, N_LATENT)
    unlinked = make()
    torch.testing.assert_close(
        unlinked.head_embeddings("foreground", linked), unlinked.embeddings["foreground"]
    )
