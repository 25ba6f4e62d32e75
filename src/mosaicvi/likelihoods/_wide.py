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
    """Log density of rows whose logits are ``inputs @ embeddings.T``, plus ``bias`` if any."""

    @staticmethod
    def forward(
        ctx: Any,
        binary: bool,
        values: Float[SparseCounts, "cells features"],
        weights: Float[Tensor, " features"],
        library: Float[Tensor, " cells"],
        inputs: Float[Tensor, "cells inputs"],
        embeddings: Float[Tensor, "features inputs"],
        bias: Float[Tensor, " features"] | None,
        log_factor: Float[Tensor, " features"],
    ) -> Float[Tensor, " cells"]:
        n_rows = values.n_cells
        blocks = _compiled.row_blocks(n_rows)
        pattern = values.indptr.numpy(), values.indices.numpy()
        tops = np.full(n_rows, -np.inf)
        sums, rates = np.zeros((2, n_rows))
        points, at_stored = pattern[0][:-1].copy(), np.empty(len(pattern[1]), np.float32)
        factor = log_factor.exp()
        counted = factor * weights
        state = tops, sums, rates, at_stored
        for start, stop, logits in _chunks(inputs, embeddings, bias):
            part = slice(start, stop)
            given = points, logits.numpy(), weights[part].numpy(), counted[part].numpy()

            def take(_: int, rows: tuple[int, int], start: int = start, given: Any = given) -> None:
                _compiled.chunk_forward(rows, start, *pattern, *given, *state)

            _compiled.each_block(blocks, take)
        value = -rates * library.numpy() / sums
        kept, change = np.stack([tops, sums, value], 1), np.empty_like(at_stored)
        features = weights, library, log_factor, log_factorials(log_factor)
        read = values.values.numpy(), *(each.numpy() for each in features), binary

        def add_stored(_: int, rows: tuple[int, int]) -> None:
            _compiled.stored_rates(rows, *pattern, *read, kept, at_stored, value, change)

        _compiled.each_block(blocks, add_stored)
        ctx.save_for_backward(weights, library, inputs, embeddings, bias, factor)
        ctx.values, ctx.kept, ctx.change = values, kept, change
        return torch.from_numpy(value).to(inputs.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Float[Tensor, " cells"]
    ) -> tuple[Float[Tensor, "..."] | None, ...]:
        weights, library, inputs, embeddings, bias, factor = ctx.saved_tensors
        blocks = _compiled.row_blocks(len(inputs))
        pattern = ctx.values.indptr.numpy(), ctx.values.indices.numpy()
        points = pattern[0][:-1].copy()
        learnt = ctx.needs_input_grad[7]
        by_factor = torch.zeros(len(blocks), len(factor) if learnt else 0)
        by_inputs = torch.zeros_like(inputs)
        by_embeddings = torch.empty_like(embeddings)
        by_bias = None if bias is None else torch.empty_like(bias)
        read = library.numpy(), ctx.kept, gradient.contiguous().numpy(), ctx.change
        for start, stop, logits in _chunks(inputs, embeddings, bias):
            part = slice(start, stop)
            given = points, logits.numpy(), weights[part].numpy(), factor[part].numpy()
            added = by_factor[:, part]

            def turn(
                number: int,
                rows: tuple[int, int],
                start: int = start,
                given: Any = given,
                added: Any = added,
            ) -> None:
                sums = added[number].numpy()
                _compiled.chunk_backward(rows, start, *pattern, *given, *read, sums)

            _compiled.each_block(blocks, turn)
            torch.mm(logits.T, inputs, out=by_embeddings[part])
            by_inputs.addmm_(logits, embeddings[part])
            if by_bias is not None:
                torch.sum(logits, 0, out=by_bias[part])
        factors = by_factor.sum(0) if learnt else None
        return *(None,) * 4, by_inputs, by_embeddings, by_bias, factors


def _chunks(
    inputs: Float[Tensor, "cells inputs"],
    embeddings: Float[Tensor, "features inputs"],
    bias: Float[Tensor, " features"] | None,
) -> Iterator[tuple[int, int, Float[Tensor, "cells chunk"]]]:
    """First and last feature of each chunk, and its logits, which the next one overwrites."""
    n_features = len(embeddings)
    room = torch.empty(len(inputs) * min(CHUNK, n_features))
    for start in range(0, n_features, CHUNK):
        stop = min(start + CHUNK, n_features)
        logits = room[: len(inputs) * (stop - start)].view(len(inputs), stop - start)
        if bias is None:
            torch.mm(inputs, embeddings[start:stop].T, out=logits)
        else:
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
    parts = [values.values, library, inputs, embeddings]
    parts += [each for each in (bias, log_factor, weights) if each is not None]
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
        None if bias is None else bias.contiguous(),
        torch.zeros(n_features) if log_factor is None else log_factor.contiguous(),
    )
    return value
