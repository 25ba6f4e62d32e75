"""Whether the linked features of two modalities bear each other out, without any truth."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi._errors import MosaicviWarning
from mosaicvi.alignment import LEAST_PAIRS, FewLinks, mutual_neighbours, pair_correlation, smooth
from mosaicvi.model._linked_columns import N_SMOOTHED, count_linked, linked_columns, smoothed
from mosaicvi.model._linked_features import MANY_LINKED, reduced

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mosaicvi.alignment import CellPairs
    from mosaicvi.data._mosaic_data import MosaicData
    from mosaicvi.graph import FeatureGraph
    from mosaicvi.model._technical import Technical

N_FOLDS = 10
"""Parts of the linked features that are left out in turn; each alone where there are fewer."""

MOST_CELLS = 3_000
"""Cells of each modality that are asked."""

FEW_FOLDS = 3
"""The same where a model is built on many links, of which only the mean is asked."""

HUNDREDS = 200
"""From so many linked features on, most of which may be noise to no harm, it is asked how clear
their mean is; of fewer, but :data:`~mosaicvi.model._linked_features.MANY_LINKED`, nothing is."""

LEAST_CERTAINTY = 12.0
"""Mean correlation of many links left out, in standard errors over links, below which labels were
right for .21 to .57 of the cells that got one (decisions, "Hundreds of links that say little")."""

LEAST_AGREEMENT = 0.3
"""Mean correlation of links left out below which half of the labels or more were wrong on nearly
all data that were tried (decisions, "Links that bear each other out")."""


def link_agreement(
    data: MosaicData,
    graph: FeatureGraph,
    technical: Mapping[str, Technical],
    kept: Mapping[str, np.ndarray],
    n_neighbours: Mapping[tuple[str, str], int],
    *,
    seed: int,
    n_folds: int = N_FOLDS,
) -> pd.DataFrame:
    """Correlation of each linked feature over pairs of cells that the other links find.

    Links that share a feature are left out together: a clone of an antibody would find what the
    other is judged by. Cells are matched one by one; the feature left out is averaged over the 30
    nearest cells of its own modality first.

    Parameters
    ----------
    data
        Registered data.
    graph
        Which features belong together, over exactly the registered features.
    technical
        Modality to what batch and depth explain of it.
    kept
        Modality to the rows among which anchors are sought; 3,000 of them are drawn.
    n_neighbours
        Every two modalities that are asked to the neighbours on either side among which mutual ones
        are taken.
    seed
        Seed of the cells, and of the parts in which links are left out.
    n_folds
        Number of these parts; each link is one where there are fewer.

    Returns
    -------
    A row for each linked feature of the modality that has fewer of them: ``first``, ``second`` (the
    modalities), ``modality``, ``feature``, ``correlation``; NaN where nothing is left without it,
    or a modality has no more cells than are averaged.
    Empty without an edge between two modalities.
    """
    rng = np.random.default_rng(seed)
    drawn = {
        name: np.sort(rng.choice(rows, min(len(rows), MOST_CELLS), replace=False))
        for name, rows in kept.items()
    }
    tables = []
    for both, number in n_neighbours.items():
        columns = linked_columns(data, graph, both, drawn)
        if columns is None:
            continue
        sides = columns.freed(smoothed, data, technical, drawn)
        # What single cells show is mostly noise, of which the other modality knows nothing.
        means = [
            smooth(side, technical[name].residuals[drawn[name]], N_SMOOTHED)
            for name, side in zip(both, sides, strict=True)
        ]
        # Of so few cells all are averaged, and means differ by rounding alone.
        tells = min(map(len, sides)) > N_SMOOTHED
        n_links = len(columns.features)
        found = np.full(n_links, np.nan)
        n_groups = int(columns.groups.max()) + 1
        fold = rng.permutation(n_groups) % min(n_folds, n_groups)
        for part in range(fold.max() + 1 if n_groups > 1 and tells else 0):
            out = fold[columns.groups] == part
            rest = reduced([side[:, ~out] for side in sides])
            pairs = mutual_neighbours(*rest, n_neighbours=number)
            left, right = (
                side[rows][:, out]
                for side, rows in zip(means, (pairs.left, pairs.right), strict=True)
            )
            found[out] = pair_correlation(left, right, pairs.weight)
        tables.append(
            pd.DataFrame(
                {
                    "first": both[0],
                    "second": both[1],
                    "modality": columns.axis,
                    "feature": columns.features,
                    "correlation": found,
                }
            )
        )
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def few_links(
    data: MosaicData,
    graph: FeatureGraph,
    technical: Mapping[str, Technical],
    kept: Mapping[str, np.ndarray],
    known: Mapping[tuple[str, str], CellPairs],
    n_neighbours: Mapping[tuple[str, str], int],
    *,
    seed: int,
) -> dict[tuple[str, str], FewLinks]:
    """What is known of links where few tie two modalities, or many in vain; warn of doubts.

    Doubt goes from 0, where links left out agree as far as where cells were matched rightly, or
    pairs tell, to 1, where they do not agree or nothing can say so. Of many links most may be noise
    to no harm: they are in doubt where their mean is not clear either.
    """
    numbers = {both: count_linked(data, graph, both) for both in n_neighbours}
    found = {both: FewLinks(n, 0.0) for both, n in numbers.items() if 0 < n < MANY_LINKED}
    for both, n_links in numbers.items():
        few = 0 < n_links < MANY_LINKED
        if not (few or n_links >= HUNDREDS) or len(known.get(both, ())) >= LEAST_PAIRS:
            continue
        asked = {both: n_neighbours[both]}
        folds = N_FOLDS if few else FEW_FOLDS
        table = link_agreement(data, graph, technical, kept, asked, seed=seed, n_folds=folds)
        told = table["correlation"].dropna().to_numpy()
        mean = float(told.mean()) if len(told) else math.nan
        error = float(told.std()) / math.sqrt(max(len(told), 1))
        share = mean / LEAST_AGREEMENT
        if not few:
            share = max(share, mean / max(error, 1e-12) / LEAST_CERTAINTY)
        doubt = float(np.clip(1.0 - share, 0.0, 1.0)) if np.isfinite(share) else 1.0
        if few or doubt:
            found[both] = FewLinks(n_links, doubt)
        if doubt:
            _warn(both, n_links, mean, error)
    return found


def _warn(both: tuple[str, str], n_links: int, mean: float, error: float) -> None:
    few, one = n_links < MANY_LINKED, n_links == 1
    said = f"nothing can say whether {'it is' if one else 'they are'} right"
    if np.isfinite(mean):
        least = f"{LEAST_AGREEMENT} and more"
        if not few:
            least = f"standard error {error:.2g}; {LEAST_CERTAINTY:.0f} times that and more"
        said = (
            f"left out in turn, they correlate by {mean:.2g} on average over cells that the others "
            f"match ({least} where most cells were matched rightly)"
        )
    more = "Link more features" if few else "Link features of more counts, or more cells"
    warnings.warn(
        f"{'only ' if few else ''}{n_links} linked feature{' ties' if one else 's tie'} "
        f"{both[0]!r} and {both[1]!r}: {said}. Many cells may be matched to cells of other types, "
        f"and imputed values and labels be wrong. {more} (model.get_link_agreement() lists what "
        "each says, graph.check(mdata) why others have no link), or add cells that hold both",
        MosaicviWarning,
        stacklevel=4,
    )
