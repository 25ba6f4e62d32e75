"""Whether features that the graph links move together across the joint latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.cluster import MiniBatchKMeans

from mosaicvi._errors import RequestError
from mosaicvi.alignment import edge_correlation, group_means
from mosaicvi.graph import FeatureGraph
from mosaicvi.model._requests import check_whole
from mosaicvi.tl._latents import Floats, Ints, unimodal_cells
from mosaicvi.tl._measured import registered, scale_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData

    from mosaicvi.data import ModalityData
    from mosaicvi.model import MosaicVI

CELLS_A_METACELL = 50
FEWEST = 5
"""A metacell counts if it has so many cells of every modality."""
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

    Cells of all modalities, each placed by its own modality alone, are clustered into metacells
    (k-means); counts are summed within them, scaled and log1p-transformed; and for each edge the
    Pearson correlation over metacells, times the edge's sign, is averaged with the edge's weight.
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
        Metacells; None: one for every 50 cells of the modality that has fewest, from 10 to 200.
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
        small, or too few metacells hold cells of all modalities.

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
    modality = np.repeat(np.arange(len(names)), sizes)
    edges = aligned.edges
    between = modality[edges.source] != modality[edges.target]
    if not between.any():
        raise RequestError(
            "the graph has no edge between modalities of the model",
            key="graph",
            expected=f"edges between {list(names)}",
        )
    profiles = _profiles(model, adata, data.modalities, n_metacells, seed)
    source, target = np.asarray(edges.source)[between], np.asarray(edges.target)[between]
    sign = np.asarray(edges.sign)[between].astype(float)
    weight = np.asarray(edges.weight)[between].astype(float)
    varies = np.abs(profiles).max(axis=0) > 0
    kept = varies[source] & varies[target]
    if not kept.any():
        raise RequestError(
            "no linked features vary over metacells",
            key="graph",
            expected="edges between features that differ between cells",
            remedy="link more features: graph.check(mdata) says which are not, and why",
        )
    parts = [part[kept] for part in (source, target, sign, weight)]
    kinds = np.asarray(edges.type).astype(str)[between][kept]
    pairs = np.array(
        [
            f"{names[a]}-{names[b]}"
            for a, b in zip(modality[parts[0]], modality[parts[1]], strict=True)
        ]
    )
    table = pd.DataFrame({"modalities": pairs, "type": kinds})
    rng = np.random.default_rng(seed)
    found = edge_correlation(profiles, profiles, parts[0], parts[1]) * parts[2]
    group = table.groupby(["modalities", "type"]).ngroup().to_numpy()
    shuffled = np.stack(
        [
            edge_correlation(profiles, profiles, parts[0], _shuffled(parts[1], group, rng))
            * parts[2]
            for _ in range(n_permutations)
        ]
    )
    rows = [
        _row(
            str(table["modalities"].iloc[cells[0]]),
            str(table["type"].iloc[cells[0]]),
            found[cells],
            shuffled[:, cells],
            parts[3][cells],
        )
        for cells in (np.flatnonzero(group == number) for number in range(group.max() + 1))
    ]
    rows.append(_row(OVERALL, OVERALL, found, shuffled, parts[3]))
    return pd.DataFrame(rows)


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
    model: MosaicVI,
    adata: MuData | None,
    modalities: Mapping[str, ModalityData],
    n_metacells: int | None,
    seed: int,
) -> Floats:
    """Standardised features of all modalities over metacells, of length one a column."""
    parts = {name: unimodal_cells(model, name, adata, key="graph").by_name() for name in modalities}
    fewest = min(len(part) for part in parts.values())
    number = (
        int(np.clip(fewest // CELLS_A_METACELL, 10, 200)) if n_metacells is None else n_metacells
    )
    together = np.concatenate([part.latent for part in parts.values()])
    clusters = MiniBatchKMeans(min(number, len(together)), random_state=seed, n_init=3)
    codes = np.split(
        clusters.fit_predict(together), np.cumsum([len(part) for part in parts.values()])[:-1]
    )
    held = np.stack([np.bincount(part, minlength=number) for part in codes]).min(axis=0)
    kept = np.flatnonzero(held >= FEWEST)
    if len(kept) < 3:
        raise RequestError(
            f"{len(kept)} of {number} metacells hold {FEWEST} cells of every modality",
            key="n_metacells",
            expected="three or more",
            remedy="give fewer metacells, or see tl.alignment_confidence: the modalities may not "
            "overlap",
        )
    tables = [
        _sums(modality, cells.rows, part, number)[kept]
        for modality, cells, part in zip(modalities.values(), parts.values(), codes, strict=True)
    ]
    values = np.hstack(tables)
    centred = values - values.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    centred[:, length < 1e-9] = 0.0
    return np.asarray(centred / np.maximum(length, 1e-9))


def _sums(modality: ModalityData, cells: Ints, codes: Ints, number: int) -> Floats:
    """Mean values a metacell, compositions scaled to their sum, log1p of counts."""
    rows = modality.rows[cells]
    scale = scale_of(modality)
    mean = group_means(modality.shown(rows), codes, number)
    if scale.target_sum is not None:
        mean *= scale.target_sum / np.maximum(mean.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray(np.log1p(mean) if scale.log1p else mean)
