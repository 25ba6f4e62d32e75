"""Rates of many features: the decoder's product and the density, a few features at a time.

Logits of a hundred thousand regions do not fit into a processor's caches, and writing and reading
them takes longer than computing them. Here the product with a chunk of the features' embeddings is
taken, and what the density needs of it is added up, before the next one overwrites it; for the
gradient it is taken once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaicvi import _compiled
from mosaicvi._types import Float, SparseCounts
from mosaicvi.likelihoods._base import Product
from mosaicvi.likelihoods._small_counts import log_factorials

CHUNK = 1024
"""Features a time."""
WIDE = 1 << 21
"""From so many entries on; fewer fit into the caches as they are."""


class _Wide(torch.autograd.Function):
    """Log density of rows whose logits are ``inputs @ embeddings.T + bias``."""

    @staticmethod
    def forward(
        ctx: Any,
        binary: bool,
        values: Float[SparseCounts, "cells features"],
        weights: Float[Tensor, " features"],
        library: Float[Tensor, " cells"],
        inputs: Float[Tensor, "cells inputs"],
        embeddings: Float[Tensor, "features inputs"],
        bias: Float[Tensor, " features"],
        log_factor: Float[Tensor, " features"],
    ) -> Float[Tensor, " cells"]:
        n_rows, n_features = values.shape
        indptr, indices = values.indptr.numpy(), values.indices.numpy()
        tops = np.full(n_rows, -np.inf)
        sums, rates = np.zeros((2, n_rows))
        points, at_stored = indptr[:-1].copy(), np.empty(len(indices), np.float32)
        factor = log_factor.exp()
        counted = factor * weights
        for start, stop, logits in _chunks(inputs, embeddings, bias):
            part = slice(start, stop)
            given = points, logits.numpy(), weights[part].numpy(), counted[part].numpy()
            _compiled.chunk_forward(start, indptr, indices, *given, tops, sums, rates, at_stored)
        value = -rates * library.numpy() / sums
        kept, change = np.stack([tops, sums, value], 1), np.empty(len(indices), np.float32)
        _compiled.stored_rates(
            indptr,
            indices,
            values.values.numpy(),
            weights.numpy(),
            library.numpy(),
            log_factor.numpy(),
            log_factorials(log_factor).numpy(),
            binary,
            kept,
            at_stored,
            value,
            change,
        )
        ctx.save_for_backward(weights, library, inputs, embeddings, bias, factor)
        ctx.values, ctx.kept, ctx.change = values, kept, change
        ctx.n_features = n_features
        return torch.from_numpy(value).to(inputs.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, " cells"]
    ) -> tuple[Float[Tensor, "..."] | None, ...]:
        weights, library, inputs, embeddings, bias, factor = ctx.saved_tensors
        indptr, indices = ctx.values.indptr.numpy(), ctx.values.indices.numpy()
        points = indptr[:-1].copy()
        learnt = ctx.needs_input_grad[7]
        by_factor = torch.zeros(len(factor) if learnt else 0)
        by_inputs = torch.zeros_like(inputs)
        by_embeddings, by_bias = torch.empty_like(embeddings), torch.empty_like(bias)
        cells = gradient.contiguous().numpy()
        for start, stop, logits in _chunks(inputs, embeddings, bias):
            part = slice(start, stop)
            _compiled.chunk_backward(
                start,
                indptr,
                indices,
                points,
                logits.numpy(),
                weights[part].numpy(),
                factor[part].numpy(),
                library.numpy(),
                ctx.kept,
                cells,
                ctx.change,
                by_factor[part].numpy(),
            )
            torch.mm(logits.T, inputs, out=by_embeddings[part])
            by_inputs.addmm_(logits, embeddings[part])
            torch.sum(logits, 0, out=by_bias[part])
        return *(None,) * 4, by_inputs, by_embeddings, by_bias, by_factor if learnt else None


def _chunks(
    inputs: Float[Tensor, "cells inputs"],
    embeddings: Float[Tensor, "features inputs"],
    bias: Float[Tensor, " features"],
) -> Iterator[tuple[int, int, Float[Tensor, "cells chunk"]]]:
    """First and last feature of each chunk, and its logits, which the next one overwrites."""
    n_features = len(embeddings)
    room = torch.empty(len(inputs) * min(CHUNK, n_features))
    for start in range(0, n_features, CHUNK):
        stop = min(start + CHUNK, n_features)
        logits = room[: len(inputs) * (stop - start)].view(len(inputs), stop - start)
        torch.addmm(bias[start:stop], inputs, embeddings[start:stop].T, out=logits)
        yield start, stop, logits


def wide_rates(
    values: Float[SparseCounts, "cells features"],
    library: Float[Tensor, " #cells"],
    product: Product,
    log_factor: Float[Tensor, " features"] | None,
    *,
    binary: bool,
    weights: Float[Tensor, " features"] | None,
) -> Float[Tensor, " cells"] | None:
    """Log density of cells whose logits are a product; None where it gains nothing.

    Parameters
    ----------
    values
        Counts, shape ``(n_cells, n_features)``.
    library
        Library size of each cell.
    product
        Logits.
    log_factor
        Logs of the features' factors; None: one.
    binary
        Whether values above zero count as one.
    weights
        For how many features each one stands; None: for itself.
    """
    inputs, embeddings, bias = product
    parts = [values.values, library, inputs, embeddings, bias]
    parts += [each for each in (log_factor, weights) if each is not None]
    if any(each.device.type != "cpu" or each.dtype != torch.float32 for each in parts):
        return None
    if inputs.dim() != 2 or len(inputs) * len(embeddings) < WIDE:
        return None
    if not _compiled.ascending(values.indptr.numpy(), values.indices.numpy()):
        return None
    n_features = len(embeddings)
    value: Tensor = _Wide.apply(
        binary,
        values,
        torch.ones(n_features) if weights is None else weights.contiguous(),
        library.expand(len(inputs)).contiguous(),
        inputs.contiguous(),
        embeddings.contiguous(),
        bias.contiguous(),
        torch.zeros(n_features) if log_factor is None else log_factor.contiguous(),
    )
    return value
