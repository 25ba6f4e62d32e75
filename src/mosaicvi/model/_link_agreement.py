"""Whether the linked features of two modalities bear each other out, without any truth."""

from __future__ import annotations

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

    Returns
    -------
    A row for each linked feature of the modality that has fewer of them: ``first``, ``second`` (the
    modalities), ``modality``, ``feature``, ``correlation``; NaN where nothing is left without it.
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
        n_links = len(columns.features)
        found = np.full(n_links, np.nan)
        n_groups = int(columns.groups.max()) + 1
        fold = rng.permutation(n_groups) % min(N_FOLDS, n_groups)
        for part in range(fold.max() + 1 if n_groups > 1 else 0):
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
    """What is known of links where few tie two modalities; warn where they are in doubt.

    Doubt goes from 0, where links left out agree as far as where cells were matched rightly, or
    pairs tell, to 1, where they do not agree or nothing can say so.
    """
    numbers = {both: count_linked(data, graph, both) for both in n_neighbours}
    few = {both: n for both, n in numbers.items() if 0 < n < MANY_LINKED}
    found = {both: FewLinks(n_links, 0.0) for both, n_links in few.items()}
    for (first, second), n_links in few.items():
        if len(known.get((first, second), ())) >= LEAST_PAIRS:
            continue
        asked = {(first, second): n_neighbours[first, second]}
        table = link_agreement(data, graph, technical, kept, asked, seed=seed)
        mean = float(table["correlation"].mean())
        missing = 1.0 - (mean / LEAST_AGREEMENT if np.isfinite(mean) else 0.0)
        found[first, second] = FewLinks(n_links, float(np.clip(missing, 0.0, 1.0)))
        if mean >= LEAST_AGREEMENT:
            continue
        said = (
            f"left out in turn, they correlate by {mean:.2f} on average over cells that the "
            f"others match ({LEAST_AGREEMENT} and more where most cells were matched rightly)"
            if np.isfinite(mean)
            else f"nothing can say whether {'they are' if n_links > 1 else 'it is'} right"
        )
        warnings.warn(
            f"only {n_links} linked feature{'s tie' if n_links > 1 else ' ties'} {first!r} and "
            f"{second!r}: {said}. Many cells may be matched to cells of other types, and imputed "
            "values and labels be wrong. Link more features (model.get_link_agreement() lists "
            "what each says, graph.check(mdata) why others have no link), or add cells that hold "
            "both",
            MosaicviWarning,
            stacklevel=2,
        )
    return found
