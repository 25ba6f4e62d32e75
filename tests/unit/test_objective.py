"""Every loss term against a direct computation, in nats per cell, however cells are split."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import stats
from tests.fits import build, without_truth
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import cross_entropy, normalize
from torch.utils._python_dispatch import TorchDispatchMode

from mosaicvi._types import SparseCounts
from mosaicvi.data._pairs import PairBatch
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.graph import Edges, FeatureGraph
from mosaicvi.module import Losses, Objective, ObjectiveSpec, _objective, _told
from mosaicvi.module._evidence import random_evidence

if TYPE_CHECKING:
    from mosaicvi import MosaicVI
    from mosaicvi.data import MultiBatch

N_CELLS, K = 48, 4
PLAIN = ObjectiveSpec(
    kl_weight=0.7,
    cross_weight=0.9,
    consistency_weight=0.3,
    contrastive_weight=0.2,
    n_cross_samples=K,
    cross_features=10_000,
    modality_weights={"rna": 1.0, "protein": 2.5},
    warmup=0.2,
    n_train_cells=40,
)


def build_model(patterns: dict[str, float] | None = None, **network: Any) -> MosaicVI:
    specs = {
        "rna": SimulatedModality.rna(20, likelihood="nb"),
        "protein": SimulatedModality.protein(4),
    }
    data = without_truth(simulate(N_CELLS, specs, n_latent=3, patterns=patterns, seed=1))
    model = build(data, n_latent=3, n_hidden=8, **network)
    model.module.eval()
    with torch.no_grad():  # away from the start, so that every term depends on z
        generator = torch.Generator().manual_seed(0)
        for parameter in model.module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def model() -> MosaicVI:
    return build_model({"rna+protein": 0.5, "rna": 0.25, "protein": 0.25})


def fetch(model: MosaicVI, cells: np.ndarray | None = None) -> MultiBatch:
    dataset = model._cells(None).dataset
    return dataset.fetch(np.arange(N_CELLS) if cells is None else cells)


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws that are functions of the posterior, and all other modalities as evidence."""

    def draw(posterior: Any, n_samples: int | None = None) -> torch.Tensor:
        count = 1 if n_samples is None else n_samples
        steps = torch.linspace(-1, 1, count + 2)[1:-1].view(-1, 1, 1)
        z = posterior.mean + steps * posterior.variance.sqrt()
        return z[0] if n_samples is None else z

    def random_evidence(present: torch.Tensor, target: int) -> torch.Tensor:
        others = present.clone()
        others[target] = False
        return others

    monkeypatch.setattr(_objective, "draw", draw)
    monkeypatch.setattr(_told, "random_evidence", random_evidence)


def fused(model: MosaicVI, batch: MultiBatch, names: list[str]) -> tuple[torch.Tensor, ...]:
    """Closed-form product of the prior and the named experts: mean and variance."""
    precision = torch.ones(batch.n_cells, 3)
    pull = torch.zeros(batch.n_cells, 3)
    for name in names:
        part = batch.modalities[name]
        mean, variance = model.module.encoders[name](part.encoder_input)
        precision[part.positions] += 1 / variance
        pull[part.positions] += mean / variance
    return pull / precision, 1 / precision


def log_prob(model: MosaicVI, batch: MultiBatch, name: str, z: torch.Tensor) -> torch.Tensor:
    """Log-probability of dense values of the modality's cells, entry by entry."""
    part = batch.modalities[name]
    decoder = model.module.decoders[name]
    values = part.values.to_dense() if isinstance(part.values, SparseCounts) else part.values
    uses = decoder.likelihood.uses_library_size
    parameters = decoder.distribution(
        z[..., part.positions, :], part.batch, part.library_size if uses else None
    )
    return decoder.likelihood.log_prob_entries(values, parameters).sum(-1)


@torch.no_grad()
def test_terms_equal_direct_computation(model: MosaicVI, fixed: None) -> None:
    batch = fetch(model)
    losses = Objective(PLAIN)(model.module, batch)
    everything = ["rna", "protein"]
    mean, variance = fused(model, batch, everything)
    z = mean + 0.0 * variance
    expected = {}
    for name in everything:
        expected[f"reconstruction/{name}"] = -log_prob(model, batch, name, z).mean()
    joint = Normal(mean, variance.sqrt())
    expected["kl"] = kl_divergence(joint, Normal(0.0, 1.0)).sum(-1).mean()
    has = {name: torch.zeros(N_CELLS, dtype=torch.bool) for name in everything}
    for name in everything:
        has[name][batch.modalities[name].positions] = True
    paired = has["rna"] & has["protein"]
    divergences = []
    for name, other in (("rna", "protein"), ("protein", "rna")):
        location, spread = fused(model, batch, [other])
        steps = torch.linspace(-1, 1, K + 2)[1:-1].view(-1, 1, 1)
        draws = location + steps * spread.sqrt()
        each = log_prob(model, batch, name, draws)[:, paired[batch.modalities[name].positions]]
        # the importance-weighted bound, computed in probabilities relative to the best draw
        best = each.max(0).values
        nats = -(best + (each - best).exp().mean(0).log())
        expected[f"cross/{name}"] = nats.mean()
        partial = Normal(location, spread.sqrt())
        divergences.append(kl_divergence(joint, partial).sum(-1)[paired])
    expected["consistency"] = torch.cat(divergences).mean()
    priors = {name: model.module.decoders[name].negative_log_prior() for name in everything}
    expected["prior"] = sum(priors.values()) / PLAIN.n_train_cells
    expected["contrastive"] = losses.terms["contrastive"]  # has a test of its own
    assert set(losses.terms) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses.terms[name], value, rtol=1e-4, atol=1e-4, msg=name)
    share = {name: has[name].float().mean() for name in everything}
    paired_share = paired.float().mean()
    weight = PLAIN.modality_weights
    total = (
        sum(weight[n] * share[n] * expected[f"reconstruction/{n}"] for n in everything)
        + PLAIN.kl_weight * expected["kl"]
        + PLAIN.cross_weight
        * sum(weight[n] * paired_share * expected[f"cross/{n}"] for n in everything)
        + PLAIN.consistency_weight * paired_share * expected["consistency"]
        + sum(weight[n] * priors[n] for n in everything) / PLAIN.n_train_cells
    )
    rest = losses.total - total
    contrastive = PLAIN.contrastive_weight * expected["contrastive"]
    allowed = (contrastive, paired_share * contrastive)  # per pair, or per cell
    assert any(math.isclose(rest, value, abs_tol=2e-3) for value in allowed)


@torch.no_grad()
def test_contrastive_term(model: MosaicVI) -> None:
    """Symmetric cross entropy of cosine similarities among cells of one batch."""
    batch = fetch(model)
    value = Objective(PLAIN)(model.module, batch).terms["contrastive"]
    sides = []
    rows = {name: batch.modalities[name].positions.tolist() for name in ("rna", "protein")}
    paired = sorted(set(rows["rna"]) & set(rows["protein"]))
    for name in ("rna", "protein"):
        mean, _ = fused(model, batch, [name])
        sides.append(normalize(model.module.contrastive_head(mean[paired]), dim=-1))
    low, high = PLAIN.temperature_range
    temperature = float(model.module.log_temperature.exp().clamp(low, high))
    codes = {p: int(c) for p, c in zip(rows["rna"], batch.modalities["rna"].batch, strict=True)}
    group = torch.tensor([codes[cell] for cell in paired])
    total = 0.0
    for code in group.unique():
        own = group == code
        similarity = sides[0][own] @ sides[1][own].T / temperature
        target = torch.arange(int(own.sum()))
        total += 0.5 * float(
            cross_entropy(similarity, target, reduction="sum")
            + cross_entropy(similarity.T, target, reduction="sum")
        )
    assert value.item() == pytest.approx(total / len(paired), rel=1e-4)


@torch.no_grad()
def test_cross_term_with_one_draw_and_with_many(model: MosaicVI) -> None:
    """More draws tighten the bound: the expected cross term falls, and stays above the truth."""
    from dataclasses import replace

    batch = fetch(model)
    values = []
    for count in (1, 4, 64):
        objective = Objective(replace(PLAIN, n_cross_samples=count))
        terms = [objective(model.module, batch).terms["cross/protein"] for _ in range(20)]
        values.append(float(torch.stack(terms).mean()))
    assert values[0] > values[1] > values[2]


@torch.no_grad()
@pytest.mark.parametrize("n_parts", [2, 3, 8])
def test_total_does_not_depend_on_the_split(model: MosaicVI, fixed: None, n_parts: int) -> None:
    """Cells' nats add up, whichever minibatches they are in (negatives of InfoNCE set aside)."""
    from dataclasses import replace

    objective = Objective(replace(PLAIN, contrastive_weight=0.0))
    whole = objective(model.module, fetch(model)).total
    order = np.random.default_rng(n_parts).permutation(N_CELLS)
    parts = [fetch(model, cells) for cells in np.array_split(order, n_parts)]
    total = sum(objective(model.module, part).total * part.n_cells for part in parts) / N_CELLS
    torch.testing.assert_close(total, whole, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_wide_modalities_keep_their_expected_cross_term(model: MosaicVI, fixed: None) -> None:
    """A random share of cells stands for all of them."""
    from dataclasses import replace

    batch = fetch(model)
    whole = Objective(PLAIN)(model.module, batch).terms["cross/rna"]
    sparse = Objective(replace(PLAIN, cross_features=10))  # half of the 20 genes
    assert sparse.share(model.module, "rna") == 0.5
    assert sparse.share(model.module, "protein") == 1.0
    drawn = torch.stack([sparse(model.module, batch).terms["cross/rna"] for _ in range(300)])
    assert drawn.std() > 0
    error = float(drawn.std()) / math.sqrt(len(drawn))
    assert abs(float(drawn.mean() - whole)) < 4 * error


def losses(model: MosaicVI, **changes: Any) -> Losses:
    from dataclasses import replace

    return Objective(replace(PLAIN, **changes))(model.module, fetch(model))


@pytest.mark.parametrize("term", ["kl", "cross", "consistency", "contrastive"])
def test_weight_zero_removes_a_term_and_its_gradient(
    model: MosaicVI, fixed: None, term: str
) -> None:
    def gradients(**changes: Any) -> dict[str, torch.Tensor]:
        model.module.zero_grad()
        losses(model, **changes).total.backward()
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in model.module.named_parameters()
        }

    at = {weight: gradients(**{f"{term}_weight": weight}) for weight in (0.0, 0.5, 1.0)}
    changed = False
    for name, zero in at[0.0].items():
        half, one = at[0.5][name] - zero, at[1.0][name] - zero
        # linear in the weight: nothing of the term is left at zero
        torch.testing.assert_close(2 * half, one, rtol=2e-2, atol=2e-3, msg=name)
        changed |= bool(one.abs().max() > 1e-4)
    assert changed
    if term == "contrastive":
        assert at[0.0]["log_temperature"] == 0
    if term in {"cross", "consistency", "contrastive"}:
        names = losses(model, **{f"{term}_weight": 0.0}).terms
        assert not any(name.startswith(term) for name in names)


@torch.no_grad()
def test_modality_weight_zero_silences_a_modality(model: MosaicVI, fixed: None) -> None:
    weights = {"rna": 1.0, "protein": 0.0}
    spec = {"kl_weight": 0.0, "consistency_weight": 0.0, "contrastive_weight": 0.0}
    before = losses(model, modality_weights=weights, **spec).total
    bias = model.module.decoders["protein"].biases["background"]
    bias += 1.0
    after = losses(model, modality_weights=weights, **spec).total
    bias -= 1.0
    torch.testing.assert_close(before, after)


def test_schedule() -> None:
    spec = ObjectiveSpec(
        kl_weight=0.5, cross_weight=2.0, consistency_weight=0.1, contrastive_weight=0.4, warmup=0.2
    )
    final = {"kl": 0.5, "cross": 2.0, "consistency": 0.1, "contrastive": 0.4}
    for progress, rise in ((0.0, 0.0), (0.05, 0.25), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)):
        at = spec.at(progress)
        for name, value in final.items():
            assert at[name] == pytest.approx(rise * value), (name, progress)
        assert at["prior"] == 1.0
    assert ObjectiveSpec(warmup=0.0).at(0.0) == ObjectiveSpec(warmup=0.3).at(1.0)


@torch.no_grad()
def test_progress_enters_the_total_and_not_the_terms(model: MosaicVI, fixed: None) -> None:
    batch = fetch(model)
    early, late = (Objective(PLAIN)(model.module, batch, progress=p) for p in (0.0, 1.0))
    for name, value in late.terms.items():
        torch.testing.assert_close(early.terms[name], value)
    assert early.total < late.total


# --- subsets -----------------------------------------------------------------------------------


def test_random_evidence_is_uniform_over_subsets() -> None:
    n_cells, target = 14_000, 1
    present = torch.ones(4, n_cells, dtype=torch.bool)
    drawn = random_evidence(present, target)
    assert not drawn[target].any()
    code = (drawn.long() * torch.tensor([1, 2, 4, 8]).unsqueeze(1)).sum(0).numpy()
    counts = np.unique(code, return_counts=True)[1]
    assert len(counts) == 7  # non-empty subsets of three modalities
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("target", [0, 1, 2])
def test_random_evidence_is_observed_and_never_the_target(target: int) -> None:
    present = torch.rand(3, 4000) < 0.6
    drawn = random_evidence(present, target)
    assert not (drawn & ~present).any()
    assert not drawn[target].any()
    others = present.clone()
    others[target] = False
    torch.testing.assert_close(drawn.any(0), others.any(0))
    only_one = others.sum(0) == 1
    assert torch.equal(drawn[:, only_one], others[:, only_one])


@torch.no_grad()
@pytest.mark.parametrize("fusion", ["product_of_experts", "mixture_of_experts"])
def test_subsets_that_are_fused_together_are_those_fused_one_by_one(fusion: str) -> None:
    model = build_model({"rna+protein": 0.5, "rna": 0.25, "protein": 0.25}, fusion=fusion)
    module, experts = model.module, model.module.experts(fetch(model))
    subsets = [None, module.subset_of(["protein"]), module.subset_of([]), module.subset_of(["rna"])]
    for muted in ((), ("protein",)):
        module.muted = muted
        heard = module.heard(experts.present)
        given = replace(experts, heard=heard)
        for subset, found in zip(subsets, module.posteriors(given, subsets), strict=True):
            alone = module.posterior(given, subset)
            for name in ("weights", "means", "variances"):
                torch.testing.assert_close(getattr(found, name), getattr(alone, name))


@torch.no_grad()
def test_experts_of_networks_in_half_precision_are_fused_in_full(model: MosaicVI) -> None:
    """On a GPU they cannot be put among the others otherwise."""
    batch = fetch(model)
    with torch.autocast("cpu", torch.bfloat16):
        for name, part in batch.modalities.items():
            assert {e.dtype for e in model.module.expert(name, part.encoder_input)} == {
                torch.float32
            }


# --- other rules and patterns ------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("patterns", [{"rna": 0.5, "protein": 0.5}, {"rna": 1.0}])
def test_no_pairs_no_paired_terms(patterns: dict[str, float]) -> None:
    if patterns == {"rna": 1.0}:
        data = without_truth(
            simulate(N_CELLS, {"rna": SimulatedModality.rna(20, likelihood="nb")}, seed=1)
        )
        single = build(data, {"rna": "nb"}, n_latent=3)
    else:
        single = build_model(patterns, alignment="none")
    result = Objective(PLAIN)(single.module, fetch(single))
    kinds = {name.split("/")[0] for name in result.terms}
    assert kinds == {"reconstruction", "kl", "prior"}
    assert torch.isfinite(result.total)


def test_mixture_of_experts_has_gradients() -> None:
    mixture = build_model(fusion="mixture_of_experts")
    losses(mixture).total.backward()
    for name, parameter in mixture.module.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name
    encoders = [p.grad for p in mixture.module.encoders.parameters()]
    assert all(gradient is not None for gradient in encoders)


@torch.no_grad()
def test_one_cell(model: MosaicVI) -> None:
    for cell in range(N_CELLS):
        result = Objective(PLAIN)(model.module, fetch(model, np.array([cell])))
        assert torch.isfinite(result.total)
        assert all(torch.isfinite(value) for value in result.terms.values())


def aligned_model() -> MosaicVI:
    features = {
        "rna": list(SimulatedModality.rna(20).names),
        "protein": list(SimulatedModality.protein(4).names),
    }
    graph = FeatureGraph(features, Edges.of(np.arange(4), 20 + np.arange(4), 1, 0.8, "test"))
    return build_model({"rna": 0.5, "protein": 0.5}, graph=graph)


@torch.no_grad()
def test_anchors_and_graph_enter_with_their_weights() -> None:
    model = aligned_model()
    spec = replace(PLAIN, alignment_weight=3.0, graph_weight=5.0, kl_weight=1.0)
    inputs = model._cells(None).dataset.encoder_inputs
    rows = {"rna": [3, 1, 8, 5], "protein": [0, 2, 2, 9]}
    sides = tuple(torch.from_numpy(inputs[name][each]) for name, each in rows.items())
    batch = fetch(model)
    guidance = [PairBatch(("rna", "protein"), sides)]
    losses = Objective(spec)(model.module, batch, guidance=guidance)
    means = []
    for name, side in zip(rows, sides, strict=True):
        aligned = model.module.aligned[name]
        common, _ = model.module.shared_encoder(side[:, -aligned.n_directions :])
        means.append(normalize(common, dim=-1))
    scores = means[0] @ means[1].T / model.module.log_temperature.exp()
    target = torch.arange(4)
    expected = (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2
    torch.testing.assert_close(losses.terms["alignment"], expected, rtol=1e-4, atol=1e-4)
    # No cell holds both: nothing else but reconstruction, kl, graph and prior is there.
    kinds = {name.split("/")[0] for name in losses.terms}
    assert kinds == {"reconstruction", "kl", "alignment", "graph", "prior"}
    share = {name: len(batch.modalities[name].positions) / N_CELLS for name in rows}
    total = losses.terms["kl"] + 3 * losses.terms["alignment"] + 5 * losses.terms["graph"]
    own = model.module.graph.own.square().sum() / 2 / model.module.graph.prior_scale**2
    prior = own.clone()
    for name, weight in PLAIN.modality_weights.items():
        total += weight * share[name] * losses.terms[f"reconstruction/{name}"]
        own += model.module.decoders[name].negative_log_prior()
        prior += weight * model.module.decoders[name].negative_log_prior()
    torch.testing.assert_close(losses.terms["prior"], own / PLAIN.n_train_cells)
    torch.testing.assert_close(losses.total, total + prior / PLAIN.n_train_cells)


@torch.no_grad()
def test_alignment_warms_up_and_the_graph_is_there_from_the_start() -> None:
    spec = replace(PLAIN, alignment_weight=3.0, graph_weight=5.0, warmup=0.2)
    assert spec.at(0.1)["alignment"] == pytest.approx(1.5)
    assert spec.at(0.2)["alignment"] == spec.at(1.0)["alignment"] == pytest.approx(3.0)
    assert spec.at(0.0)["graph"] == 5.0
    model = aligned_model()
    assert "alignment" not in Objective(spec)(model.module, fetch(model)).terms


@torch.no_grad()
def test_modalities_that_are_aligned_share_an_encoder_of_shared_scores() -> None:
    """Where a cell is placed by one modality alone does not tell which, however sure that is."""
    patterns = {"rna": 0.5, "protein": 0.5}
    specs = {"rna": SimulatedModality.rna(20, "nb"), "protein": SimulatedModality.protein(4)}
    data = without_truth(simulate(N_CELLS, specs, n_latent=3, patterns=patterns, seed=1))
    features = {name: list(data[name].var_names) for name in specs}
    graph = FeatureGraph(features, Edges.of(np.arange(4), 20 + np.arange(4), 1, 0.8, "test"))
    module = build(data, n_latent=3, n_hidden=8, graph=graph).module.eval()
    shared = torch.randn(7, module.aligned["rna"].n_directions)
    alone = []
    for name, log_precision in zip(module.modalities, (-2.0, 3.0), strict=True):
        torch.nn.init.constant_(module.encoders[name].log_precision.bias, log_precision)
        own = torch.randn(7, module.aligned[name].widths[0])
        alone.append(module.unimodal(name, torch.cat([own, shared], -1)))
    torch.testing.assert_close(alone[0].mean, alone[1].mean)
    assert alone[0].mean.abs().max() > 1e-3
    assert (alone[0].variances > alone[1].variances).all()


def test_what_a_step_does_is_not_read_from_tensors(model: MosaicVI) -> None:
    """On an accelerator, a number that Python asks for waits for all that was asked before."""

    class Asked(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = str(function)
            assert "_local_scalar_dense" not in name, name
            assert "nonzero" not in name, name
            return function(*args, **(kwargs or {}))

    batch = fetch(model)
    wide = replace(PLAIN, cross_features=8)  # the cross term sees some of the cells
    with Asked():
        terms = Objective(wide)(model.module, batch).terms
    assert {"cross/rna", "cross/protein", "consistency", "contrastive"} <= set(terms)


@pytest.mark.parametrize("muted", [(), ("protein",)])
def test_who_is_heard_is_the_same_on_the_host(
    model: MosaicVI, muted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.module, "muted", muted)
    batch = fetch(model)
    heard = model.module.experts(batch).heard
    np.testing.assert_array_equal(model.module.heard_on_host(batch), heard.numpy())


@torch.no_grad()
@pytest.mark.parametrize("cross_features", [10_000, 8])
@pytest.mark.parametrize("muted", [(), ("protein",)])
def test_what_each_cell_adds_is_the_score_without_what_cells_share(
    cross_features: int, muted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their mean is the score, apart from terms of many cells; also where cells are sampled."""
    model = build_model({"rna+protein": 0.5, "rna": 0.25, "protein": 0.25})
    monkeypatch.setattr(model.module, "muted", muted)
    spec = replace(PLAIN, cross_features=cross_features)
    batch = fetch(model)
    torch.manual_seed(0)
    found = Objective(spec)(model.module, batch)
    terms, weights = found.terms, spec.at(1.0)
    own = {
        name: spec.modality_weights[name] * float(model.module.negative_log_prior(name))
        for name in ("rna", "protein")
        if name not in muted
    }
    shared = sum(own.values()) / spec.n_train_cells
    if "consistency" in terms:
        both = float((model.module.heard_on_host(batch).sum(0) >= 2).mean())
        shared += both * sum(
            weights[name] * float(terms[name]) for name in ("consistency", "contrastive")
        )
    assert found.by_cell is not None
    assert found.by_cell.shape == (N_CELLS,)
    assert float(found.by_cell.mean()) == pytest.approx(float(found.score) - shared, rel=1e-5)


def test_training_does_not_ask_what_each_cell_adds() -> None:
    model = build_model()
    model.module.train()
    assert Objective(PLAIN)(model.module, fetch(model)).by_cell is None
