r"""Densities of cells at the logits of a composition, and their gradients, for processors.

Written with tensors, a density passes over some twenty arrays of ``(cells, features)``, and a
processor waits for memory rather than computing. Here a row is worked on while it lies in the
cache, and nothing of it is kept: the gradient is computed from the logits once more, which costs
less than reading derivatives that the forward pass would have had to write.

With weights :math:`w_f` of features and a cell's library size :math:`l`,
:math:`\mu_f = l e^{a_f} / \sum_g w_g e^{a_g}`. Each row is treated as if all of its entries were
zero, in loops that become vector instructions; entries that are stored are set right after it.

:mod:`~mosaicvi.likelihoods._fused` and :mod:`~mosaicvi.likelihoods._wide` make functions of these
that torch can differentiate, and tests hold them against the same densities written with tensors.
"""

from mosaicvi._compiled._blocks import each_block, row_blocks
from mosaicvi._compiled._counts import counts_backward, counts_forward
from mosaicvi._compiled._math import SMALLEST_MEAN
from mosaicvi._compiled._mixtures import (
    LARGEST_LOG_MEAN,
    mixtures_backward,
    mixtures_forward,
)
from mosaicvi._compiled._offsets import student_prior
from mosaicvi._compiled._products import ascending, chunk_backward, chunk_forward, stored_rates
from mosaicvi._compiled._rates import rates_backward, rates_forward
from mosaicvi._compiled._slopes import count_slopes

__all__ = [
    "LARGEST_LOG_MEAN",
    "SMALLEST_MEAN",
    "ascending",
    "chunk_backward",
    "chunk_forward",
    "count_slopes",
    "counts_backward",
    "counts_forward",
    "each_block",
    "mixtures_backward",
    "mixtures_forward",
    "rates_backward",
    "rates_forward",
    "row_blocks",
    "stored_rates",
    "student_prior",
]
