"""Whether features that the graph links move together across the joint latent space."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.cluster import MiniBatchKMeans

from mosaicvi._errors import MosaicviWarning, RequestError, check_whole
from mosaicvi.alignment import edge_correlation, group_means
from mosaicvi.graph import FeatureGraph
from mosaicvi.tl._latents import Floats, Ints, UnimodalCells, unimodal_cells
from mosaicvi.tl._measured import registered, scale_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData

    from mosaicvi.data import ModalityData
    from mosaicvi.model import MosaicVI

CELLS_A_METACELL = 50
FEWEST = 5
"""A metacell counts if it has so many cells of both modalities."""
OVERALL = "all"


def integration_consistency(
    model: MosaicVI,
    graph: FeatureGraph,
    *,
    adata: MuData | None = None,
    n_metacells: int | None = None,
    n_permutations: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate linked features over metacells of the joint latent space; needs no truth.

    Cells of two modalities that edges join, each placed by its own alone, are clustered into
    metacells (k-means); counts are summed within them, scaled and log1p-transformed; and for each
    edge the Pearson correlation over metacells, times the edge's sign, is averaged with the edge's
    weight.
    After GLUE's integration consistency score (Cao and Gao 2022), with signs. A model that puts
    the modalities on top of each other at random scores like the permuted pairs.

    Parameters
    ----------
    model
        Fitted model.
    graph
        Edges between features of different modalities; others are left out.
    adata
        Cells; None: the MuData that the model was built on. It is not changed.
    n_metacells
        Metacells of two modalities; None: one for every 50 cells of the smaller, from 10 to 200.
    n_permutations
        How often the targets of a type's edges are shuffled among them, for the reference: the
        same features, linked wrongly.
    seed
        Seed of metacells and permutations.

    Returns
    -------
    DataFrame, a row for each pair of modalities and type of edge, and one ``all``: ``modalities``,
    ``type``, ``n_edges``, ``consistency`` (from -1 to 1), ``permuted`` (its mean over
    permutations), ``permuted_sd``, and ``excess``, the difference of the two. Edges of a feature
    that does not vary are left out.

    Raises
    ------
    RequestError
        If the graph is none or has no edge between two modalities of the model, a number is too
        small, or fewer than three metacells hold cells of both modalities.

    Warns
    -----
    MosaicviWarning
        Two modalities are left out, since so few metacells hold cells of both.

    Examples
    --------
    >>> mosaicvi.tl.integration_consistency(model, graph)
    """
    data = registered(model, adata)
    if not isinstance(graph, FeatureGraph):
        raise RequestError(
            f"found {type(graph).__name__}",
            key="graph",
            expected="a mosaicvi.graph.FeatureGraph",
            remedy="the one that the model was built with, or FeatureGraph.from_networkx(graph)",
        )
    if n_metacells is not None:
        check_whole(n_metacells, "n_metacells", 3)
    check_whole(n_permutations, "n_permutations")
    names = tuple(data.modalities)
    aligned = graph.align({name: data.modalities[name].var_names for name in names})
    sizes = [data.modalities[name].n_features for name in names]
    starts = np.cumsum([0, *sizes])
    edges = aligned.edges
    first, second = (
        np.searchsorted(starts, ends, side="right") - 1 for ends in (edges.source, edges.target)
    )
    between = first != second
    if not between.any():
        raise RequestError(
            "the graph has no edge between modalities of the model",
            key="graph",
            expected=f"edges between {list(names)}",
        )
    cells: dict[str, UnimodalCells] = {}
    rng = np.random.default_rng(seed)
    scored, refused = [], []
    # Metacells are of the two that edges join: a small third modality would leave few of them.
    for i, j in np.unique(np.column_stack([first, second])[between], axis=0):
        both = names[i], names[j]
        for name in both:
            if name not in cells:
                cells[name] = unimodal_cells(model, name, adata, key="graph").by_name()
        try:
            left, right = _profiles(
                data.modalities, {name: cells[name] for name in both}, n_metacells, seed
            )
        except RequestError as error:
            refused.append(error)
            continue
        here = np.flatnonzero((first == i) & (second == j))
        source, target = edges.source[here] - starts[i], edges.target[here] - starts[j]
        kept = (np.abs(left).max(axis=0) > 0)[source] & (np.abs(right).max(axis=0) > 0)[target]
        if kept.any():
            table = pd.DataFrame(
                {
                    "modalities": "-".join(both),
                    "type": np.asarray(edges.type)[here].astype(str),
                    "sign": edges.sign[here].astype(float),
                    "weight": edges.weight[here].astype(float),
                }
            )[kept]
            ends = source[kept], target[kept]
            scored.append((table, *_correlations(left, right, ends, table, n_permutations, rng)))
    if not scored:
        if refused:
            raise refused[0]
        raise RequestError(
            "no linked features vary over metacells",
            key="graph",
            expected="edges between features that differ between cells",
            remedy="link more features: graph.check(mdata) says which are not, and why",
        )
    for each in refused:
        warnings.warn(f"left out: {each}", MosaicviWarning, stacklevel=2)
    return _report(
        pd.concat([part for part, _, _ in scored], ignore_index=True),
        np.concatenate([part for _, part, _ in scored]),
        np.concatenate([part for _, _, part in scored], axis=1),
    )


def _report(table: pd.DataFrame, found: Floats, shuffled: Floats) -> pd.DataFrame:
    """A row for each pair of modalities and type of edge, and one for all."""
    weight = table["weight"].to_numpy()
    rows = []
    for edges in table.groupby(["modalities", "type"]).indices.values():
        pair, kind = map(str, table.loc[edges[0], ["modalities", "type"]])
        rows.append(_row(pair, kind, found[edges], shuffled[:, edges], weight[edges]))
    rows.append(_row(OVERALL, OVERALL, found, shuffled, weight))
    return pd.DataFrame(rows)


def _correlations(
    left: Floats,
    right: Floats,
    ends: tuple[Ints, Ints],
    table: pd.DataFrame,
    n_permutations: int,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Signed correlation of edges, ``(n_edges,)``, and of permuted ones."""
    sign, group = table["sign"].to_numpy(), pd.factorize(table["type"], sort=True)[0]
    found = edge_correlation(left, right, *ends) * sign
    shuffled = [
        edge_correlation(left, right, ends[0], _shuffled(ends[1], group, rng)) * sign
        for _ in range(n_permutations)
    ]
    return found, np.stack(shuffled)


def _shuffled(values: Ints, group: np.ndarray, rng: np.random.Generator) -> Ints:
    """Values in random order within each group."""
    order = np.lexsort([rng.random(len(values)), group])
    answer = np.empty_like(values)
    answer[np.argsort(group, kind="stable")] = values[order]
    return answer


def _row(
    modalities: str, kind: str, found: Floats, shuffled: Floats, weight: Floats
) -> dict[str, object]:
    score = float(np.average(found, weights=weight))
    reference = np.average(shuffled, axis=1, weights=weight)
    return {
        "modalities": modalities,
        "type": kind,
        "n_edges": len(found),
        "consistency": score,
        "permuted": float(reference.mean()),
        "permuted_sd": float(reference.std()),
        "excess": score - float(reference.mean()),
    }


def _profiles(
    modalities: Mapping[str, ModalityData],
    cells: Mapping[str, UnimodalCells],
    n_metacells: int | None,
    seed: int,
) -> list[Floats]:
    """Standardised features of modalities over metacells of them, of length one a column."""
    fewest = min(len(part) for part in cells.values())
    number = (
        int(np.clip(fewest // CELLS_A_METACELL, 10, 200)) if n_metacells is None else n_metacells
    )
    together = np.concatenate([part.latent for part in cells.values()])
    clusters = MiniBatchKMeans(min(number, len(together)), random_state=seed, n_init=3)
    codes = np.split(
        clusters.fit_predict(together), np.cumsum([len(part) for part in cells.values()])[:-1]
    )
    held = np.stack([np.bincount(part, minlength=number) for part in codes]).min(axis=0)
    kept = np.flatnonzero(held >= FEWEST)
    if len(kept) < 3:
        raise RequestError(
            f"{len(kept)} of {number} metacells hold {FEWEST} cells of "
            f"{' and '.join(map(repr, cells))}, of which {fewest} are those of the smaller one",
            key="n_metacells",
            expected="three or more",
            remedy="give fewer metacells, or see tl.alignment_confidence: the modalities may not "
            "overlap",
        )
    found = []
    for (name, part), each in zip(cells.items(), codes, strict=True):
        values = _sums(modalities[name], part.rows, each, number)[kept]
        centred = values - values.mean(axis=0)
        length = np.linalg.norm(centred, axis=0)
        centred[:, length < 1e-9] = 0.0
        found.append(np.asarray(centred / np.maximum(length, 1e-9)))
    return found


def _sums(modality: ModalityData, cells: Ints, codes: Ints, number: int) -> Floats:
    """Mean values a metacell, compositions scaled to their sum, log1p of counts."""
    rows = modality.rows[cells]
    scale = scale_of(modality)
    mean = group_means(modality.shown(rows), codes, number)
    if scale.target_sum is not None:
        mean *= scale.target_sum / np.maximum(mean.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray(np.log1p(mean) if scale.log1p else mean)
