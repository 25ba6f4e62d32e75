"""Parts of a training step of MosaicVI, each alone: milliseconds of processor time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mosaicvi.bm.timed._clock import now
from mosaicvi.model._inputs import project
from mosaicvi.train._threads import intra_op_threads, threads_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from mosaicvi.data._batch import MultiBatch
    from mosaicvi.model import MosaicVI
    from mosaicvi.model._cells import PreparedData
    from mosaicvi.module._mosaic_module import MosaicModule

N_STEPS = 15
WARM_UP = 3


def step_parts(model: MosaicVI, batch_size: int, device: str) -> dict[str, float]:
    """Median over minibatches of each part's milliseconds.

    ``project/m``: the frozen projection of the counts, which a fit computes once, not every step.
    ``load``: gathering a minibatch. ``encode``: encoders and fusion, forward and backward.
    ``decode/m``: all heads of one draw at every feature, forward and backward. ``likelihood/m``:
    the log-likelihood of the heads, forward and backward. A training step decodes the cross term's
    draws too, and reconstructs with one draw, so that parts do not add up to a step.

    Parameters
    ----------
    model
        A model in memory.
    batch_size
        Cells of a minibatch.
    device
        ``"cpu"``; on ``"cuda"`` times are on the clock.
    """
    prepared = model._cells(None)
    cells = np.random.default_rng(0).permutation(prepared.data.n_cells)
    minibatches = [
        np.take(cells, np.arange(step * batch_size, (step + 1) * batch_size), mode="wrap")
        for step in range(WARM_UP + N_STEPS)
    ]
    n_features = sum(part.n_features for part in prepared.data.modalities.values())
    threads = threads_for(batch_size * n_features, torch.get_num_threads())
    before = model.module.device
    model.module.to(device)
    with intra_op_threads(threads):
        rows = [_parts(model, prepared, each) for each in minibatches]
    model.module.to(before)
    names = sorted(set().union(*rows))
    return {n: float(np.median([row.get(n, 0.0) for row in rows[WARM_UP:]])) for n in names}


def _timed(work: Callable[[], Any], into: dict[str, float], name: str) -> Any:
    start = now()
    found = work()
    spent = now() - start
    into[name] = 1000 * (spent.wall if torch.cuda.is_initialized() else spent.cpu)
    return found


def _parts(model: MosaicVI, prepared: PreparedData, cells: np.ndarray) -> dict[str, float]:
    module: MosaicModule = model.module
    spent: dict[str, float] = {}
    batch = _timed(partial(prepared.dataset.fetch, cells), spent, "load").to(module.device)
    for name, modality in prepared.data.modalities.items():
        rows = modality.rows[cells]
        rows = rows[rows >= 0]
        if len(rows):
            size = model.module_spec.modalities[name].target_sum
            _timed(partial(project, modality, module.projections[name], size, rows=rows), spent,
                   f"project/{name}")  # fmt: skip
    _timed(partial(_encode, module, batch), spent, "encode")
    with torch.no_grad():
        linked = module.feature_embeddings()
        z = torch.randn(batch.n_cells, module.n_latent, device=module.device)
    for name in batch.modalities:
        decode = partial(_decode, module, name, batch, z, linked)
        heads = _timed(decode, spent, f"decode/{name}")
        _timed(partial(_score, module, name, batch, heads), spent, f"likelihood/{name}")
    return spent


def _encode(module: MosaicModule, batch: MultiBatch) -> None:
    experts = module.experts(batch)
    module.posterior(experts)
    (experts.means.sum() + experts.variances.sum()).backward()


def _decode(
    module: MosaicModule,
    name: str,
    batch: MultiBatch,
    z: torch.Tensor,
    linked: dict[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    part, decoder = batch.modalities[name], module.decoders[name]
    points = z[part.positions].requires_grad_()
    heads: dict[str, torch.Tensor] = decoder(
        points, decoder.batch_offsets(part.batch), linked=linked.get(name)
    )
    ones = [torch.ones_like(each) for each in heads.values()]
    torch.autograd.backward(list(heads.values()), ones)
    return {key: each.detach() for key, each in heads.items()}


def _score(
    module: MosaicModule, name: str, batch: MultiBatch, heads: dict[str, torch.Tensor]
) -> None:
    part, decoder = batch.modalities[name], module.decoders[name]
    likelihood = decoder.likelihood
    log_prob = likelihood.log_prob_of_heads(
        part.values,
        {key: each.requires_grad_() for key, each in heads.items()},
        dict(decoder.feature_parameters.items()),
        library_size=part.library_size if likelihood.uses_library_size else None,
        panel=decoder.panel(part.batch),
        observed=part.observed,
    )
    log_prob.sum().backward()
