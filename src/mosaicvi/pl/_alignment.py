"""The latent space of several modalities in one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.colors import Normalize

from mosaicvi import _keys
from mosaicvi._errors import RequestError
from mosaicvi.pl._style import GREY, INK, MAX_POINTS, PALE, palette, tidy
from mosaicvi.pl._values import categories, cell_column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from mudata import MuData

    from mosaicvi.model import MosaicVI

LOW_TO_HIGH = "viridis"
MANY_TYPES = 12
"""More categories than this are named in the plane instead of in a legend."""
TITLES = {"modality": "modality", "label": "label", "batch": "batch", "confidence": "confidence"}


def alignment(
    data: MosaicVI | MuData,
    label_key: str | None = None,
    *,
    batch_key: str | None = None,
    confidence_key: str = _keys.OBS_CONFIDENCE,
    umap_key: str = _keys.OBSM_UMAP,
    ax: Sequence[Axes] | np.ndarray | None = None,
) -> np.ndarray:
    """Plot the joint latent space by modality, label, batch and alignment confidence.

    Only reads: run :func:`mosaicvi.tl.alignment_confidence` before, and a UMAP of
    ``obsm["X_mosaicvi"]`` unless it is to be computed for this figure alone.

    Parameters
    ----------
    data
        MuData, or a model, whose MuData is taken.
    label_key
        Column with the type, of ``mdata.obs``, else of the modalities whose ``obs`` has it, in the
        order of its categories; None: no panels of labels. Of more than twelve the largest are
        named in place, save where a larger one's name stands.
    batch_key
        Column with the batch; None: no such panel.
    confidence_key
        Column of :func:`mosaicvi.tl.alignment_confidence`; panels of it are left out if it is
        missing or has no value.
    umap_key
        Key of ``obsm`` with two coordinates a cell; where it is missing, a UMAP is computed from
        ``obsm["X_mosaicvi"]``, or from the model, and not kept.
    ax
        Axes to draw on, as many as there are panels; None: new ones. Legends stand to the right of
        their panels: make room for them by ``plt.subplots(..., layout="constrained")``.

    Returns
    -------
    The axes, shape ``(n_panels,)``: modality, then label, batch, confidence and confidence by
    label, those of them for which there are data. Nothing is saved or shown.

    Raises
    ------
    RequestError
        If a column is missing, holds measurements or is no name, there are no coordinates, or too
        few axes.

    Examples
    --------
    >>> mosaicvi.tl.alignment_confidence(model)
    >>> mosaicvi.pl.alignment(model, "cell_type", batch_key="batch")
    """
    mdata, model = _read(data)
    place = _coordinates(mdata, model, umap_key)
    columns = {"modality": _modality(mdata)}
    for kind, key in (("label", label_key), ("batch", batch_key)):
        if key is not None:
            columns[kind] = cell_column(mdata, key, f"{kind}_key")
    confidence = np.full(mdata.n_obs, np.nan)
    if confidence_key in mdata.obs.columns:
        confidence = mdata.obs[confidence_key].to_numpy(dtype=float)
    known = np.isfinite(confidence)
    by_label = label_key is not None and bool((known & columns["label"].notna().to_numpy()).any())
    panels = _panels(ax, len(columns) + bool(known.any()) + by_label)
    spots = iter(panels)
    for kind, values in columns.items():
        _categories(next(spots), place, values, kind)
    if known.any():
        _numbers(next(spots), place, confidence)
    if by_label:
        _by_label(next(spots), confidence, columns["label"])
    return np.array(panels, dtype=object)


def _read(data: Any) -> tuple[MuData, MosaicVI | None]:
    if hasattr(data, "get_latent_representation"):
        if data.adata is None:
            raise RequestError("the model was loaded without data", key="data", remedy="pass mdata")
        return data.adata, data
    if not hasattr(data, "mod"):
        raise RequestError(f"a {type(data).__name__}", key="data", expected="a model or a MuData")
    return data, None


def _coordinates(mdata: MuData, model: MosaicVI | None, key: str) -> np.ndarray:
    if key in mdata.obsm:
        return np.asarray(mdata.obsm[key], dtype=float)[:, :2]
    if _keys.OBSM_LATENT in mdata.obsm:
        latent = np.asarray(mdata.obsm[_keys.OBSM_LATENT])
    elif model is not None:
        latent = np.asarray(model.get_latent_representation())
    else:
        raise RequestError(
            f"obsm has neither {key!r} nor {_keys.OBSM_LATENT!r}",
            key="umap_key",
            remedy='mdata.obsm["X_mosaicvi"] = model.get_latent_representation()',
        )
    return umap(latent)


def umap(latent: np.ndarray, seed: int = 0) -> np.ndarray:
    """UMAP of a latent space by scanpy, 15 neighbours, ``(n_cells, 2)``; NaN rows stay NaN."""
    import scanpy as sc
    from anndata import AnnData

    known = np.isfinite(latent).all(axis=1)
    table = AnnData(np.asarray(latent[known], dtype=np.float32))
    sc.pp.neighbors(table, n_neighbors=min(15, int(known.sum()) - 1), use_rep="X")
    sc.tl.umap(table, random_state=seed)
    place = np.full((len(latent), 2), np.nan)
    place[known] = table.obsm["X_umap"]
    return place


def _modality(mdata: MuData) -> pd.Series:
    """Which modalities a cell has, joined by a plus sign."""
    names = np.full(mdata.n_obs, "", dtype=object)
    for name in mdata.mod:
        present = np.asarray(mdata.obsmap[name]).ravel() > 0
        names[present] = np.where(names[present] == "", name, names[present] + "+" + name)
    return pd.Series(names, index=mdata.obs_names)


def _panels(ax: Any, number: int) -> list[Axes]:
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(given) != number:
            raise RequestError(f"{len(given)} axes", key="ax", expected=f"{number}, one a panel")
        return given
    n_columns = number if number <= 3 else -(-number // 2)
    n_rows = -(-number // n_columns)
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(4.6 * n_columns, 3.8 * n_rows),
        layout="constrained",
        squeeze=False,
    )
    panels = list(grid.ravel())
    for spare in panels[number:]:
        figure.delaxes(spare)
    return panels[:number]


def _shown(number: int) -> np.ndarray:
    """Cells to draw, in a random order that buries no category under another."""
    return np.random.default_rng(0).permutation(number)[:MAX_POINTS]


def _bare(ax: Axes, title: str) -> None:
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.set_adjustable("datalim")
    ax.spines[:].set_visible(False)
    ax.set_title(title, fontsize="medium", loc="left")


def _dot_size(number: int) -> float:
    return float(np.clip(14000 / max(number, 1), 1.5, 14))


def _categories(ax: Axes, place: np.ndarray, values: pd.Series, kind: str) -> None:
    text, names = categories(values)
    colours = palette(names, ax)
    order = _shown(len(place))
    tints = np.array([colours.get(name, PALE) for name in text[order]])
    ax.scatter(
        place[order, 0], place[order, 1], s=_dot_size(len(order)), c=tints, lw=0, rasterized=True
    )
    _bare(ax, TITLES[kind])
    if len(names) > MANY_TYPES:
        _name_in_place(ax, place, text, names)
        return
    for name in names:
        ax.scatter([], [], s=26, color=colours[name], label=name)
    if values.isna().any():
        ax.scatter([], [], s=26, color=PALE, label="none")
    ax.legend(
        frameon=False,
        fontsize="small",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        handletextpad=0.2,
        labelspacing=0.35,
    )


def _name_in_place(ax: Axes, place: np.ndarray, text: np.ndarray, names: Sequence[str]) -> None:
    from matplotlib.patheffects import withStroke

    # Names of few cells would cover those of many; the panel by label lists them all.
    largest = sorted(names, key=lambda name: -int((text == name).sum()))[:MANY_TYPES]
    low, high = np.nanmin(place, axis=0), np.nanmax(place, axis=0)
    taken: list[np.ndarray] = []  # place of a name and half of its extent, in shares of the axes
    for name in largest:
        middle = np.nanmedian(place[text == name], axis=0)
        share = (middle - low) / np.maximum(high - low, 1e-12)
        room = np.array([*share, 0.009 * len(name), 0.02])
        if any((np.abs(share - other[:2]) < room[2:] + other[2:]).all() for other in taken):
            continue
        taken.append(room)
        ax.text(
            middle[0],
            middle[1],
            name,
            fontsize=6.5,
            color=INK,
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _numbers(ax: Axes, place: np.ndarray, values: np.ndarray) -> None:
    order = _shown(len(place))
    shown = order[np.isfinite(values[order])]
    missing = order[~np.isfinite(values[order])]
    size = _dot_size(len(order))
    ax.scatter(place[missing, 0], place[missing, 1], s=size, color=PALE, lw=0, rasterized=True)
    dots = ax.scatter(
        place[shown, 0],
        place[shown, 1],
        s=size,
        c=values[shown],
        cmap=LOW_TO_HIGH,
        norm=Normalize(0, 1),
        lw=0,
        rasterized=True,
    )
    _bare(ax, "alignment confidence")
    bar = ax.figure.colorbar(dots, ax=ax, shrink=0.55, aspect=14, pad=0.02, ticks=[0, 0.5, 1])
    bar.outline.set_visible(False)


def _by_label(ax: Axes, confidence: np.ndarray, labels: pd.Series) -> None:
    """Box of each label's confidence, lowest at the bottom."""
    tidy(ax)
    table = pd.DataFrame({"value": confidence, "label": categories(labels)[0]}).dropna()
    middle = table.groupby("label")["value"].median().sort_values()
    parts = [table.loc[table["label"] == name, "value"].to_numpy() for name in middle.index]
    drawn = ax.boxplot(
        parts,
        orientation="horizontal",
        widths=0.62,
        showfliers=False,
        patch_artist=True,
        whis=(5, 95),
        medianprops={"color": INK, "linewidth": 1.4},
        whiskerprops={"color": GREY},
        capprops={"visible": False},
        boxprops={"edgecolor": "none"},
    )
    shade = colormaps[LOW_TO_HIGH]
    for box, value in zip(drawn["boxes"], middle, strict=True):
        box.set_facecolor(shade(float(value)))
    size = "small" if len(parts) <= MANY_TYPES else 6.5
    ax.set_yticks(range(1, len(parts) + 1), list(middle.index), fontsize=size)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("alignment confidence")
    ax.set_title("confidence by label", fontsize="medium", loc="left")
