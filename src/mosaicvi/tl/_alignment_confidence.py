"""Which cells have counterparts in the other modalities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi import _keys
from mosaicvi._errors import RequestError, check_whole
from mosaicvi.tl._counterparts import alignment_confidence_of
from mosaicvi.tl._latents import UnimodalCells, unimodal_cells
from mosaicvi.tl._measured import registered
from mosaicvi.tl._round_trip import SCALES
from mosaicvi.tl._write import mudata_of, spread, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from mosaicvi.model import MosaicVI


def alignment_confidence(
    model: MosaicVI,
    *,
    modalities: Sequence[str] | None = None,
    adata: MuData | None = None,
    n_neighbours: Sequence[int] | int = SCALES,
    key_added: str | None = None,
    copy: bool = False,
    seed: int = 0,
) -> MuData | None:
    r"""Confidence of every cell that another modality has cells of its kind; needs no truth.

    A round trip from a cell to its nearest cells of the other modality and back ends near the cell
    if that modality has its type, and among another type if not. How near is compared with a trip
    of two steps within the cell's own modality (1) and with random cells of it (0):

    ``clip((R - D + e) / (R - D0 + e), 0, 1) * min(1, R' / d)^2 * min(1, t / s)^(1/2)``

    with D, D0 and R the mean distances of the three, ``e = 0.05 R``, ``R' / d`` below one only
    for cells farther from the other modality than its random cells are from each other, and ``s``
    how far cells like this one lie from the other modality, averaged so that the noise of single
    cells is left out, with ``t`` its median in the modality where that is smaller. Where one
    modality has three times as many cells as the other, or more, these are measured among as many.
    The formula and its sources are in :doc:`/models/alignment_diagnostics`.

    Parameters
    ----------
    model
        Fitted model.
    modalities
        Modalities to compare; None: all.
    adata
        MuData to write to; None: the one the model was built on.
    n_neighbours
        Neighbours a step, one number or several, averaged over; a modality of few cells takes
        fewer (a twentieth of its cells).
    key_added
        Key to write; None: ``mosaicvi_alignment_confidence``.
    copy
        Write to a copy and return it.
    seed
        Seed of the random cells.

    Returns
    -------
    None, or the copy. Written:

    - ``obs[key_added]``: from 0 to 1, the largest over pairs of modalities: low for a type that
      only one modality has. NaN for cells without any of the modalities.
    - ``obsm[key_added]``: array ``(n_cells, n_modalities x (n_modalities - 1))``, a column for each
      pair such as ``rna>protein``: cells of RNA against the protein's; NaN for cells without RNA.
    - ``uns["mosaicvi"]["alignment_confidence"]``: parameters; ``pairs`` names these columns.

    Raises
    ------
    RequestError
        If a modality is unknown, there are fewer than two, or a number of neighbours is no whole
        number or below one.

    Examples
    --------
    >>> mosaicvi.tl.alignment_confidence(model)
    >>> mdata.obs.groupby("cell_type")["mosaicvi_alignment_confidence"].median()
    """
    scales = tuple(np.ravel(n_neighbours).tolist())
    if not scales:
        raise RequestError(f"{n_neighbours}", key="n_neighbours", expected="one or more")
    for scale in scales:
        check_whole(scale, "n_neighbours")
    mdata = mudata_of(model, adata)
    known = registered(model, adata).modalities
    given = (modalities,) if isinstance(modalities, str) else modalities
    names = tuple(known) if given is None else tuple(dict.fromkeys(given))
    if len(names) < 2:
        raise RequestError(
            f"only {list(names)}", key="modalities", expected="two modalities or more"
        )
    parts = {name: unimodal_cells(model, name, adata, key="modalities").by_name() for name in names}
    table = confidence_table(parts, mdata.n_obs, scales, seed)
    key = _keys.OBS_CONFIDENCE if key_added is None else key_added
    return write(
        mdata,
        {key: table.max(axis=1).to_numpy()},
        # no DataFrame: with one in obsm, mudata 0.3 cannot reorder cells or update after a filter
        obsm={key: table.to_numpy()},
        tool="alignment_confidence",
        parameters={
            "pairs": table.columns.to_numpy(dtype=object),
            "modalities": np.array(names, dtype=object),
            "n_neighbours": np.array(scales),
            "key_added": key,
            "seed": seed,
        },
        copy=copy,
    )


def confidence_table(
    parts: dict[str, UnimodalCells], n_cells: int, scales: tuple[int, ...], seed: int
) -> pd.DataFrame:
    """Confidence of each cell of each modality against each other one, NaN where it has none."""
    columns = {}
    for name, own in parts.items():
        for other, cells in parts.items():
            if other == name:
                continue
            found = alignment_confidence_of(own.places, cells.places, scales=scales, seed=seed)
            columns[f"{name}>{other}"] = spread(found, own.rows, n_cells)
    return pd.DataFrame(columns)
