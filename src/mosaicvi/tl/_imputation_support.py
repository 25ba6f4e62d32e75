"""Which cells lie where training cells held what is imputed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi import _keys
from mosaicvi._errors import RequestError
from mosaicvi.model._requests import check_whole
from mosaicvi.tl._latents import Floats, nearest
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
    Of a type of which none had the modality they do not, and do not widen. This tells such cells:
    all are embedded by the evidence alone, and the mean distance of a cell to the nearest training
    cells that hold the modality is ranked among the same distances of these, each without itself.
    So the support is a p-value of conformal prediction (Vovk et al. 2005), about evenly spread from
    0 to 1 over cells that are like the training cells, and next to 0 for those that are like none.

    It takes cells of the type in training, by their evidence: those of a type that no assay of
    training had may be placed among known ones, and are then not told.

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
    known = _places(model, None, rows, evidence)
    cells = np.flatnonzero(_any(asked, evidence))
    if not len(cells):
        raise RequestError(
            f"no cell has any of {list(evidence)}",
            key="from_modalities",
            expected="evidence for some of the cells",
            remedy="ask about a MuData that has it, or name what these cells have",
        )
    places = _places(model, adata, cells, evidence)
    names = own.obs_names[rows].astype(str)
    usual = np.sort(_distance(known, names, known, names, n_neighbours))
    found = _distance(places, asked.obs_names[cells].astype(str), known, names, n_neighbours)
    farther = len(usual) - np.searchsorted(usual, found, side="left")
    key = f"{_keys.OBS_SUPPORT_PREFIX}{modality}" if key_added is None else key_added
    return write(
        mdata,
        {key: spread((farther + 1.0) / (len(usual) + 1.0), cells, mdata.n_obs)},
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


def _distance(
    places: Floats, names: np.ndarray, known: Floats, known_names: np.ndarray, k: int
) -> Floats:
    """Mean distance to the k nearest known cells but for the cell itself, ``(n_cells,)``."""
    distance, index = nearest(places, known, k + 1)
    itself = known_names[index] == names[:, None]
    itself[~itself.any(axis=1), -1] = True  # of k + 1, the farthest
    return np.asarray(distance[~itself].reshape(len(places), -1).mean(axis=1))
