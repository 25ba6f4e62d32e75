"""Array containers that every layer shares."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, Inexact, Int, Real, Shaped
else:
    try:
        from jaxtyping import Bool, Float, Float32, Inexact, Int, Real, Shaped
    except ImportError:
        # Only tests read the shapes. To everyone else they are notes, as they are to mypy.
        from typing import Annotated

        Bool = Float = Float32 = Inexact = Int = Real = Shaped = Annotated


@dataclass(frozen=True)
class SparseCounts:
    """Rows of a count matrix in compressed sparse row parts, as torch tensors.

    torch's own CSR layout lacks row gathers and autograd through values on some devices, so the
    three parts travel as plain tensors.

    Parameters
    ----------
    indptr
        Row starts, shape ``(n_cells + 1,)``, int64.
    indices
        Column of each stored value, shape ``(n_stored,)``, int64.
    values
        Stored values, shape ``(n_stored,)``, float32 (float64 in numerical tests). Explicit zeros
        are allowed and mean a measured zero, like every entry that is not stored.
    n_features
        Number of columns.
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    n_features: int

    @property
    def n_cells(self) -> int:
        """Number of rows."""
        return int(self.indptr.shape[0]) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_cells, n_features)``."""
        return self.n_cells, self.n_features

    @property
    def dtype(self) -> torch.dtype:
        """Type of the stored values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Device of the stored values."""
        return self.values.device

    @cached_property
    def rows(self) -> Tensor:
        """Row of each stored value, shape ``(n_stored,)``, int64."""
        lengths = self.indptr[1:] - self.indptr[:-1]
        numbers = torch.arange(self.n_cells, device=self.indptr.device)
        return torch.repeat_interleave(numbers, lengths, output_size=int(self.indices.shape[0]))

    @cached_property
    def flat(self) -> Tensor:
        """Position of each stored value in the flattened dense matrix, ``(n_stored,)``, int64."""
        return self.rows * self.n_features + self.indices

    def row_sums(self) -> Tensor:
        """Sum of each row, shape ``(n_cells,)``."""
        return self.values.new_zeros(self.n_cells).index_add_(0, self.rows, self.values)

    def times(self, weights: Tensor) -> Tensor:
        """Product with a dense matrix ``(n_features, n)``; cost grows with stored values."""
        return torch.nn.functional.embedding_bag(
            self.indices,
            weights,
            self.indptr[:-1],
            mode="sum",
            per_sample_weights=self.values.to(weights.dtype),
        )

    def with_values(self, values: Tensor) -> SparseCounts:
        """Return the same sparsity pattern with other stored values, shape ``(n_stored,)``."""
        return SparseCounts(self.indptr, self.indices, values, self.n_features)

    def take(self, rows: Tensor, n_stored: int | None = None) -> SparseCounts:
        """Gather rows, in the given order; works on any device without leaving it.

        Parameters
        ----------
        rows
            Row numbers, shape ``(n_taken,)``, int64; repeats allowed.
        n_stored
            Stored values of these rows together, where they are known: an accelerator is then not
            waited for.
        """
        starts, ends = self.indptr[rows], self.indptr[rows + 1]
        lengths = ends - starts
        indptr = torch.cat([lengths.new_zeros(1), torch.cumsum(lengths, 0)])
        offsets = torch.repeat_interleave(starts - indptr[:-1], lengths, output_size=n_stored)
        source = torch.arange(int(offsets.shape[0]), device=rows.device) + offsets
        return SparseCounts(indptr, self.indices[source], self.values[source], self.n_features)

    def select(self, features: Tensor) -> SparseCounts:
        """Keep some features, by number (int64, ascending, without repeats)."""
        place = features.new_full((self.n_features,), -1)
        place[features] = torch.arange(features.shape[0], device=features.device)
        found = place.index_select(0, self.indices)
        kept = torch.nonzero(found >= 0).squeeze(-1)
        return SparseCounts(
            torch.searchsorted(kept, self.indptr),
            found.index_select(0, kept),
            self.values.index_select(0, kept),
            int(features.shape[0]),
        )

    def to_dense(self) -> Tensor:
        """Dense tensor, shape ``(n_cells, n_features)``."""
        dense = self.values.new_zeros(self.shape)
        return dense.index_put_((self.rows, self.indices), self.values, accumulate=True)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SparseCounts:
        """Move to a device."""
        return SparseCounts(
            self.indptr.to(device, non_blocking=non_blocking),
            self.indices.to(device, non_blocking=non_blocking),
            self.values.to(device, non_blocking=non_blocking),
            self.n_features,
        )

    def pin_memory(self) -> SparseCounts:
        """Copy to page-locked memory, from which transfers to a GPU overlap with compute."""
        return SparseCounts(
            self.indptr.pin_memory(),
            self.indices.pin_memory(),
            self.values.pin_memory(),
            self.n_features,
        )

    @classmethod
    def from_scipy(cls, matrix: sp.csr_matrix | sp.csr_array | Any) -> SparseCounts:
        """Copy the parts of a scipy CSR matrix or array; values become float32."""
        return cls(
            torch.from_numpy(np.array(matrix.indptr, dtype=np.int64)),
            torch.from_numpy(np.array(matrix.indices, dtype=np.int64)),
            torch.from_numpy(np.array(matrix.data, dtype=np.float32)),
            int(matrix.shape[1]),
        )

    @classmethod
    def from_dense(cls, matrix: Tensor) -> SparseCounts:
        """Take the nonzero entries of a dense tensor, shape ``(n_cells, n_features)``."""
        rows, columns = torch.nonzero(matrix, as_tuple=True)
        lengths = torch.bincount(rows, minlength=matrix.shape[0])
        indptr = torch.cat([lengths.new_zeros(1), torch.cumsum(lengths, 0)])
        return cls(indptr, columns, matrix[rows, columns], int(matrix.shape[1]))


def sent(numbers: np.ndarray, device: torch.device) -> Tensor:
    """Copy to a device; where that is a GPU, without waiting for what it is doing."""
    found = torch.tensor(numbers)  # a copy, for arrays may be read-only
    if device.type == "cuda":
        found = found.pin_memory()
    return found.to(device, non_blocking=True)


Values = SparseCounts | Tensor
"""Values of one modality for some cells: sparse counts, or a dense ``(n_cells, n_features)``."""


def as_dense(values: Values) -> Tensor:
    """Values as a dense tensor, shape ``(n_cells, n_features)``."""
    return values.to_dense() if isinstance(values, SparseCounts) else values


Matrix: TypeAlias = sp.csr_matrix | np.ndarray
"""Values outside of torch, ``(n_cells, n_features)``: sparse counts, or a dense array."""

__all__ = [
    "Bool",
    "Float",
    "Float32",
    "Inexact",
    "Int",
    "Matrix",
    "Real",
    "Shaped",
    "SparseCounts",
    "Values",
    "as_dense",
    "sent",
]
