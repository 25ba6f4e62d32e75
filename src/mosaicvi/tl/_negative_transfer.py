"""What a joint model costs each modality, against a model of that modality alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, RequestError, check_whole
from mosaicvi._scvi import SETUP_ARGS_KEY, layer_names
from mosaicvi._settings import logger
from mosaicvi.data._columns import labels
from mosaicvi.data._structure import rows_of, shown
from mosaicvi.datasets._assemble import assemble
from mosaicvi.model import MosaicVI
from mosaicvi.tl._latents import Floats, Ints, nearest_others, unimodal_cells
from mosaicvi.tl._write import mudata_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mudata import MuData


def negative_transfer(
    model: MosaicVI,
    label_key: str,
    *,
    modalities: Sequence[str] | None = None,
    separate: Mapping[str, MosaicVI] | None = None,
    n_neighbours: int = 15,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    train_kwargs: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Report, per modality and type, whether joint training blurs what one modality tells apart.

    A cell's purity is the share of its nearest cells, among those of its modality and placed by
    that modality alone, that have its type. It is compared, cell by cell, between the joint model
    and one that was trained on this modality alone with the same settings.

    Parameters
    ----------
    model
        The joint model.
    label_key
        Column with the types, in ``mdata.obs`` or the modalities' ``obs``; cells without are left
        out.
    modalities
        Modalities to report on; None: all.
    separate
        Modality to a model trained on it alone, whose cells bear the same names; those that are
        missing are trained here.
    n_neighbours
        Neighbours of each cell.
    n_resamples, level
        Bootstrap samples of cells, and nominal level of the percentile interval.
    seed
        Seed of the bootstrap.
    train_kwargs
        Passed to :meth:`~mosaicvi.MosaicVI.train` of the separate models.

    Returns
    -------
    DataFrame, a row for each modality and type, and one ``all``: ``modality``, ``type``,
    ``n_cells``, ``joint`` and ``separate`` (mean purities), ``difference`` (joint minus separate),
    ``low`` and ``high`` (its interval over cells; it knows nothing of other seeds of training) and
    ``harmed``, whether the whole interval is below zero.

    Raises
    ------
    RequestError
        If a modality is unknown, a number is out of range, or separate models are missing and the
        joint model is not a :class:`~mosaicvi.MosaicVI`.
    DataError
        If the column is missing or labels fewer than two cells of a modality, or a separate model
        lacks cells.
    KeyboardInterrupt
        If training of a separate model is interrupted.

    Examples
    --------
    >>> mosaicvi.tl.negative_transfer(model, "cell_type")
    """
    check_whole(n_neighbours, "n_neighbours")
    check_whole(n_resamples, "n_resamples")
    if not 0 < level < 1:
        raise RequestError(f"{level}", key="level", expected="between 0 and 1")
    mdata = mudata_of(model, None)
    given = model.module.modalities if modalities is None else modalities
    names = (given,) if isinstance(given, str) else tuple(given)
    unknown = [name for name in separate or {} if name not in model.module.modalities]
    if unknown:
        raise RequestError(
            f"the model has no modality {shown(unknown)}",
            key="separate",
            expected="models by the name of their modality, of " + shown(model.module.modalities),
        )
    _check_trainable(model, [name for name in names if name not in (separate or {})])
    tables = []
    for name in names:
        joint = unimodal_cells(model, name, None, key="modalities")
        column = labels(
            mdata, label_key, {name: rows_of(mdata, name)}, option="label_key", complete=False
        )[joint.rows]
        known = ~pd.isna(column)
        if known.sum() < 2:
            raise DataError(
                f"{int(known.sum())} of {len(known)} cells have a label",
                modality=name,
                key=label_key,
                expected="two or more, since purity is a share of a cell's neighbours",
                remedy="choose another column, or leave the modality out by modalities=",
            )
        alone = (separate or {}).get(name) or _train_alone(model, mdata, name, train_kwargs or {})
        other = unimodal_cells(alone, name, None, key="separate")
        if name not in (separate or {}):
            # scvi-tools would keep its data for good, and nobody else knows of them.
            alone.deregister_manager(alone.adata)
        order = pd.Index(other.names).get_indexer(pd.Index(joint.names))
        if (order < 0).any():
            raise DataError(
                f"the separate model lacks {int((order < 0).sum())} cells",
                modality=name,
                key="separate",
                expected="all cells of the modality in the joint model, under their names",
                remedy="train it on these, or leave it out: it is trained here then",
            )
        codes, types = pd.factorize(column[known].astype(str), sort=True)
        purities = [
            purity(latent[known], codes, n_neighbours)
            for latent in (joint.latent, other.latent[order])
        ]
        tables.append(_report(name, codes, list(types), purities, (n_resamples, level, seed)))
    return pd.concat(tables, ignore_index=True)


def _check_trainable(model: object, lacking: Sequence[str]) -> None:
    """Refuse to train separate models in the manner of one that is no MosaicVI."""
    if lacking and not isinstance(model, MosaicVI):
        kind = type(model).__name__
        raise RequestError(
            f"the joint model is a {kind}, and there is no separate model of {shown(lacking)}",
            key="separate",
            expected="a MosaicVI, whose settings separate models are trained with, or a model of "
            "each modality alone",
            remedy=f"train a {kind} of each modality, and pass separate={{name: model}}",
        )


def purity(latent: Floats, codes: Ints, k: int) -> Floats:
    """Share of each cell's nearest other cells that have its type, ``(n_cells,)``."""
    _, index = nearest_others(latent, k)
    return np.asarray((codes[index] == codes[:, None]).mean(axis=1))


def _report(
    name: str,
    codes: Ints,
    types: list[str],
    purities: list[Floats],
    resampling: tuple[int, float, int],
) -> pd.DataFrame:
    n_resamples, level, seed = resampling
    rng = np.random.default_rng(seed)
    rows = []
    groups = [(kind, np.flatnonzero(codes == code)) for code, kind in enumerate(types)]
    for kind, cells in [*groups, ("all", np.arange(len(codes)))]:
        difference = purities[0][cells] - purities[1][cells]
        means = np.array(
            [
                difference[rng.integers(len(cells), size=len(cells))].mean()
                for _ in range(n_resamples)
            ]
        )
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        rows.append(
            {
                "modality": name,
                "type": kind,
                "n_cells": len(cells),
                "joint": purities[0][cells].mean(),
                "separate": purities[1][cells].mean(),
                "difference": difference.mean(),
                "low": low,
                "high": high,
                "harmed": bool(high < 0),
            }
        )
    return pd.DataFrame(rows)


def _train_alone(
    model: MosaicVI, mdata: MuData, name: str, train_kwargs: Mapping[str, Any]
) -> MosaicVI:
    """Train a model of one modality with the joint model's setup and network."""
    logger.info("training a model of %r alone", name)
    setup = dict(model.registry_[SETUP_ARGS_KEY])
    chosen = setup.pop("modalities")
    for key, value in setup.items():
        if isinstance(value, dict):
            setup[key] = value.get(name)
    part = mdata.mod[name]
    # an object of its own, since a MuData takes hold of its modalities; values are shared
    own = type(part)(
        part.X,
        obs=part.obs,
        var=part.var,
        layers={key: part.layers[key] for key in layer_names(part)},
        obsm=dict(part.obsm),
        varm=dict(part.varm),
    )
    alone = assemble({name: own}, mdata.obs.loc[part.obs_names])
    MosaicVI.setup_mudata(alone, {name: chosen[name]}, **setup)
    network = model.network
    separate = MosaicVI(
        alone,
        network.n_latent,
        n_hidden=network.n_hidden,
        n_layers=network.n_layers,
        dropout_rate=model.module_spec.dropout_rate,
        n_projection=network.n_projection,
        fusion=network.fusion,
        batch_prior_scale=network.batch_prior_scale,
        seed=model.seed,
    )
    if separate.train(**train_kwargs).status == "interrupted":
        # Against half a fit, a joint model looks better than it is.
        raise KeyboardInterrupt
    return separate
