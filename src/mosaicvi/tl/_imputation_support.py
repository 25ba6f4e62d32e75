"""Which cells are like training cells that held what is imputed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mosaicvi import _keys
from mosaicvi._errors import RequestError, check_whole
from mosaicvi.tl._latents import Floats, Ints, nearest, own_scores
from mosaicvi.tl._measured import registered
from mosaicvi.tl._write import mudata_of, spread, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from mosaicvi.data import MosaicData
    from mosaicvi.model import MosaicVI

N_NEIGHBOURS = 5
MOST_CELLS = 20_000
"""Training cells that others are held against at most."""


@dataclass(frozen=True)
class _Cells:
    """Rows of a registered MuData."""

    data: MosaicData
    adata: MuData | None
    rows: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def names(self) -> np.ndarray:
        return self.data.obs_names[self.rows].astype(str)

    def holding(self, modality: str | None) -> np.ndarray:
        """Cells that have a modality, bool ``(n_cells,)``; None: all."""
        if modality is None:
            return np.ones(len(self), dtype=bool)
        if modality not in self.data.modalities:
            return np.zeros(len(self), dtype=bool)
        return np.asarray(self.data.modalities[modality].present[self.rows])


def imputation_support(
    model: MosaicVI,
    modality: str,
    *,
    from_modalities: Sequence[str] | None = None,
    adata: MuData | None = None,
    n_neighbours: int = N_NEIGHBOURS,
    key_added: str | None = None,
    copy: bool = False,
    seed: int = 0,
) -> MuData | None:
    """Whether training knew cells like each one that held a modality.

    Intervals of :meth:`mosaicvi.MosaicVI.impute` hold for cells like those that trained the model.
    Of a type of which none had the modality they do not, and do not widen. This tells such cells,
    by the mean distance to the nearest training cells that hold the modality: in the latent space,
    where cells are placed by the evidence alone, and in what each modality's encoder reads, since a
    network places cells that it never saw among those that it saw. Logs of distances are put on one
    scale, that of training cells, each without itself; and the largest of a cell's is ranked among
    theirs. So the support is a p-value of conformal prediction (Vovk et al. 2005), about evenly
    spread from 0 to 1 over cells that are like the training cells, and next to 0 for those that are
    like none.

    Cells of another batch are farther, too: where the whole batch has little support, it says
    something of the batch. Types that differ from known ones by little are told in part.

    Parameters
    ----------
    model
        Fitted model; the MuData that it was built on is needed.
    modality
        Modality to be imputed.
    from_modalities
        Evidence; None: all modalities but the imputed one.
    adata
        MuData with the cells in question, which is written to; None: the one the model was built
        on.
    n_neighbours
        Nearest training cells whose distance is averaged.
    key_added
        Column to write; None: ``mosaicvi_support_<modality>``.
    copy
        Write to a copy and return it.
    seed
        Seed of the training cells, where there are more than 20,000.

    Returns
    -------
    None, or the copy. Written:

    - ``obs[key_added]``: from 0 to 1; NaN for cells without evidence.
    - ``uns["mosaicvi"]["imputation_support"]``: parameters.

    Raises
    ------
    RequestError
        If a modality is unknown, no cell has the evidence, or fewer training cells than neighbours
        hold the modality and evidence.

    Examples
    --------
    >>> mosaicvi.tl.imputation_support(model, "protein")
    >>> doubtful = mdata.obs["mosaicvi_support_protein"] < 0.05
    """
    check_whole(n_neighbours, "n_neighbours")
    mdata = mudata_of(model, adata)
    own, asked = registered(model, None), registered(model, adata)
    evidence = _evidence(own, modality, from_modalities)
    holds = own.modalities[modality].present & _any(own, evidence)
    trained = np.zeros(own.n_cells, dtype=bool)
    trained[model.train_indices_ if model.train_indices_ is not None else slice(None)] = True
    rows = np.flatnonzero(holds & trained)
    if len(rows) <= n_neighbours:
        raise RequestError(
            f"{len(rows)} training cells hold it and any of {list(evidence)}",
            modality=modality,
            key="modality",
            expected=f"more than {n_neighbours}",
            remedy="of modalities that no cells share, mosaicvi.tl.alignment_confidence says "
            "which cells have counterparts",
        )
    # By name, so that which cells are drawn is no matter of rows.
    rows = rows[np.argsort(own.obs_names[rows].astype(str), kind="stable")]
    rows = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST_CELLS])]
    cells = np.flatnonzero(_any(asked, evidence))
    if not len(cells):
        raise RequestError(
            f"no cell has any of {list(evidence)}",
            key="from_modalities",
            expected="evidence for some of the cells",
            remedy="ask about a MuData that has it, or name what these cells have",
        )
    known = _Cells(own, None, rows)
    usual, found = _strangeness(model, known, _Cells(asked, adata, cells), evidence, n_neighbours)
    support = _support(usual, found)
    key = f"{_keys.OBS_SUPPORT_PREFIX}{modality}" if key_added is None else key_added
    return write(
        mdata,
        {key: spread(support, cells, mdata.n_obs)},
        tool="imputation_support",
        parameters={
            "modality": modality,
            "from_modalities": np.array(evidence, dtype=object),
            "n_neighbours": n_neighbours,
            "key_added": key,
            "seed": seed,
        },
        copy=copy,
    )


def _evidence(data: MosaicData, modality: str, given: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(data.modalities)
    chosen = (given,) if isinstance(given, str) else given
    evidence = (
        tuple(name for name in names if name != modality)
        if chosen is None
        else tuple(dict.fromkeys(chosen))
    )
    for key, asked in (("modality", (modality,)), ("from_modalities", evidence)):
        for name in asked:
            if name not in names:
                raise RequestError(
                    f"the model has no modality {name!r}",
                    key=key,
                    expected="one of " + ", ".join(map(repr, names)),
                )
    if not evidence or modality in evidence:
        raise RequestError(
            f"found {list(evidence)}", key="from_modalities", expected=f"others than {modality!r}"
        )
    return evidence


def _any(data: MosaicData, evidence: Sequence[str]) -> np.ndarray:
    """Cells that have some of the evidence, bool ``(n_cells,)``."""
    return np.asarray(np.any([data.modalities[name].present for name in evidence], axis=0))


def _places(
    model: MosaicVI, adata: MuData | None, rows: np.ndarray, evidence: Sequence[str]
) -> Floats:
    return np.asarray(
        model.get_latent_representation(adata, rows, from_modalities=evidence), dtype=np.float64
    )


def _strangeness(
    model: MosaicVI, known: _Cells, asked: _Cells, evidence: Sequence[str], k: int
) -> tuple[Floats, Floats]:
    """How far cells lie from known ones, by the latent space and by each modality's own scores.

    Logs of distances, beside their median over known cells, in standard deviations of these.

    Returns
    -------
    Of known cells and of those asked about, ``(n_cells, 1 + n_evidence)``; NaN for a modality that
    a cell lacks, or that too few known cells have.
    """
    both = known, asked
    values = [np.full((len(cells), 1 + len(evidence)), np.nan) for cells in both]
    for column, name in enumerate((None, *evidence)):
        held = [cells.holding(name) for cells in both]
        if held[0].sum() <= k or not held[1].any():
            continue
        places = [
            _places(model, cells.adata, cells.rows[mask], evidence)
            if name is None
            else own_scores(model, cells.adata, name, cells.rows[mask])
            for cells, mask in zip(both, held, strict=True)
        ]
        names = [cells.names[mask] for cells, mask in zip(both, held, strict=True)]
        distances = [
            _distance(where, who, places[0], names[0], k)
            for where, who in zip(places, names, strict=True)
        ]
        least = distances[0][distances[0] > 0].min(initial=np.inf)
        if not np.isfinite(least):  # of scores that are all alike
            continue
        logs = [np.log(np.maximum(distance, least)) for distance in distances]
        typical, scale = np.median(logs[0]), max(logs[0].std(), 1e-6)
        for table, mask, log in zip(values, held, logs, strict=True):
            table[mask, column] = (log - typical) / scale
    return values[0], values[1]


def _support(usual: Floats, found: Floats) -> Floats:
    """Rank of each cell's largest value among those of known cells, of what the cell has."""
    support = np.ones(len(found))
    patterns, pattern = np.unique(np.isfinite(found), axis=0, return_inverse=True)
    for number, held in enumerate(patterns):
        rows = pattern.ravel() == number
        if not held.any():
            continue
        # Known cells that lack some of it have fewer values to take the largest of.
        alike = np.isfinite(usual[:, held]).all(axis=1)
        if not alike.any():
            alike = np.isfinite(usual[:, held]).any(axis=1)
        largest = np.sort(np.nanmax(usual[alike][:, held], axis=1))
        farther = len(largest) - np.searchsorted(largest, found[rows][:, held].max(axis=1))
        support[rows] = (farther + 1.0) / (len(largest) + 1.0)
    return support


def _distance(
    places: Floats, names: np.ndarray, known: Floats, known_names: np.ndarray, k: int
) -> Floats:
    """Mean distance to the k nearest known cells but for the cell itself, ``(n_cells,)``."""
    distance, index = nearest(places, known, k + 1)
    itself = known_names[index] == names[:, None]
    itself[~itself.any(axis=1), -1] = True  # of k + 1, the farthest
    return np.asarray(distance[~itself].reshape(len(places), -1).mean(axis=1))
