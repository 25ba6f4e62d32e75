"""Features that two data sets share, and the change of unit between them."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from mosaicvi._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ALIASES = {"pd1": "cd279", "pdl1": "cd274", "ctla4": "cd152"}
"""Common names of antigens that other panels list by their CD number."""


def antigen(name: str) -> str:
    """Antigen of an antibody: lower case, no TotalSeq suffix, no clone number, no punctuation.

    ``CD3_TotalSeqB``, ``cd3.1`` and ``CD3`` are one antigen; ``PD-1`` is ``cd279``; ``cd8`` and
    ``cd8a`` stay two, because names alone do not say that they are one.
    """
    text = re.sub(r"[_-]?totalseq[-_]?[abcd]?$", "", name.strip().lower())
    text = re.sub(r"\.\d+$", "", text)
    text = re.sub(r"[^a-z0-9]", "", text)
    return ALIASES.get(text, text)


def gene(name: str) -> str:
    """Gene symbol without regard to case."""
    return name.strip().upper()


def _groups(names: pd.Index, canonical: Callable[[str], str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(names):
        found[canonical(str(name))].append(position)
    return found


def share(
    first: AnnData, second: AnnData, canonical: Callable[[str], str], modality: str
) -> tuple[AnnData, AnnData]:
    """Both tables on the features that they share, under their canonical names, sorted.

    Features of one table with one canonical name (clones of an antibody) are averaged and rounded
    to whole counts, because models of counts want counts.

    Parameters
    ----------
    first, second
        Counts in ``X``.
    canonical
        :func:`antigen` or :func:`gene`.
    modality
        Named in the error.

    Raises
    ------
    DataError
        If they share no feature.
    """
    groups = _groups(first.var_names, canonical), _groups(second.var_names, canonical)
    names = sorted(set(groups[0]) & set(groups[1]))
    if not names:
        raise DataError(
            f"no feature in common: {list(first.var_names[:3])}, {list(second.var_names[:3])}, ...",
            modality=modality,
            expected="data sets that share features by name",
        )
    tables = []
    for table, members in zip((first, second), groups, strict=True):
        rows = np.concatenate([members[name] for name in names])
        sizes = np.array([len(members[name]) for name in names])
        columns = np.repeat(np.arange(len(names)), sizes)
        shape = (table.n_vars, len(names))
        mean = sp.csr_matrix((1.0 / sizes[columns], (rows, columns)), shape=shape)
        values = sp.csr_matrix(sp.csr_matrix(table.X, dtype=np.float64) @ mean)
        values.data = np.rint(values.data)
        values.eliminate_zeros()
        obs = table.obs[[]].copy()
        tables.append(AnnData(values.astype(np.float32), obs, pd.DataFrame(index=names)))
    return tables[0], tables[1]


def change_of_unit(
    training: NDArray[np.float64], test: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and intercept that give training values the mean and spread of the test values.

    Two laboratories' counts of one antigen differ in scale (antibody, titration, depth), and no
    method can know the other's. ``log1p`` values of predictions are mapped by
    ``intercept + slope * value`` before CRPS, PIT and RMSE; the map depends on measured values
    only, so it is the same for every method. Mean and standard deviation rather than median and
    MAD: of two populations, background and foreground, the latter see one only, and which one
    turns on the mix of cells.

    Parameters
    ----------
    training, test
        Measured log1p, ``(n_cells, n_features)`` each.

    Returns
    -------
    Slope and intercept, shape ``(n_features,)`` each.
    """
    spread = training.std(axis=0)
    slope = np.divide(test.std(axis=0), spread, out=np.ones_like(spread), where=spread > 0)
    return slope, test.mean(axis=0) - slope * training.mean(axis=0)
