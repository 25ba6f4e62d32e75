"""Changes to a comparison's tables of counts: cells left out, noise added."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray


def without(table: AnnData, cells: Collection[str]) -> AnnData:
    """A copy of the table without some cells."""
    return table[~table.obs_names.isin(list(cells))].copy()


def dense(table: AnnData) -> NDArray[np.float64]:
    """Counts, ``(n_cells, n_features)``."""
    return np.asarray(sp.csr_matrix(table.X).toarray(), dtype=np.float64)


def noise(cells: pd.Index, n_features: int, seed: int) -> AnnData:
    """A modality of Poisson counts with mean one, the same whatever cells lose their target."""
    values = np.random.default_rng((seed, 3)).poisson(1.0, size=(len(cells), n_features))
    names = pd.DataFrame(index=[f"noise{number}" for number in range(n_features)])
    return AnnData(sp.csr_matrix(values, dtype=np.float32), pd.DataFrame(index=cells), names)
