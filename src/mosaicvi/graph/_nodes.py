"""Nodes of a feature graph: features of modalities, numbered, and written ``modality:feature``.

A node *is* the pair of modality and feature. Both may contain colons (``chr1:100-200``), so its
written form is for reading and for other programs; it is read back with the modalities in hand, and
refused where it could mean two things.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, RequestError
from mosaicvi.graph._modality import check_unique, name_index, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SEPARATOR = ":"


class Nodes:
    """Features of modalities, in order; a node's number is its place.

    Parameters
    ----------
    features
        Feature names by modality.

    Raises
    ------
    DataError
        A feature name occurs twice in its modality, or names are not by modality.
    """

    def __init__(self, features: Mapping[str, Iterable[str]]) -> None:
        if not isinstance(features, Mapping):
            raise DataError(
                f"found {type(features).__name__}",
                key="features",
                expected='names by modality, such as {"rna": ["CD4", "CD8A"]}',
            )
        indices = {str(modality): name_index(names) for modality, names in features.items()}
        for modality, names in indices.items():
            check_unique(names, modality)
        self.features: Mapping[str, pd.Index] = MappingProxyType(indices)
        sizes = np.array([len(names) for names in indices.values()], dtype=np.int64)
        self.n = int(sizes.sum())
        starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
        self.starts: Mapping[str, int] = MappingProxyType(
            dict(zip(indices, starts.tolist(), strict=False))
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return tuple(self.features)

    @cached_property
    def codes(self) -> np.ndarray:
        """Number of each node's modality, shape ``(n_features,)``, int64."""
        sizes = [len(names) for names in self.features.values()]
        return np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)

    def numbers(self, modality: str, names: Iterable[str]) -> np.ndarray:
        """Numbers of features of a modality, int64; -1 for what is no node."""
        wanted = name_index(names)
        if modality not in self.features:
            return np.full(len(wanted), -1, dtype=np.int64)
        places = np.asarray(self.features[modality].get_indexer(wanted), dtype=np.int64)
        return np.where(places < 0, -1, places + self.starts[modality])

    def pair(self, number: int) -> tuple[str, str]:
        """Modality and feature of a node."""
        modality = self.modalities[int(self.codes[number])]
        return modality, str(self.features[modality][number - self.starts[modality]])

    def label(self, number: int) -> str:
        """``modality:feature`` of a node."""
        return SEPARATOR.join(self.pair(int(number)))

    def frame(self) -> pd.DataFrame:
        """Columns ``modality`` and ``feature``, shape ``(n_features, 2)``."""
        names = [name for index in self.features.values() for name in index]
        return pd.DataFrame(
            {
                "modality": np.array(self.modalities, dtype=object)[self.codes],
                "feature": np.array(names, dtype=object),
            }
        )

    def labels(self) -> np.ndarray:
        """``modality:feature`` of every node, shape ``(n_features,)``, object.

        Raises
        ------
        DataError
            Two nodes read the same, which takes a colon in the name of a modality.
        """
        written = [
            f"{modality}{SEPARATOR}{name}"
            for modality, names in self.features.items()
            for name in names
        ]
        if len(set(written)) != len(written):
            table = pd.Series(written)
            repeated = table[table.duplicated()].unique()
            raise DataError(
                f"two features read the same as 'modality:feature': {shown(repeated)}",
                key="modality",
                remedy="give modalities names without a colon",
            )
        return np.array(written, dtype=object)


def parse_labels(
    labels: Sequence[str], modalities: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Read ``modality:feature``.

    Parameters
    ----------
    labels
        Written nodes, length ``n``.
    modalities
        The modalities there are; None: a label's modality ends at its first colon.

    Returns
    -------
    Modalities and features, each of shape ``(n,)``, object.

    Raises
    ------
    DataError
        A label has no known modality in front, or several.
    """
    found_modality = np.full(len(labels), None, dtype=object)
    found_feature = np.full(len(labels), None, dtype=object)
    known = (
        sorted({str(x).partition(SEPARATOR)[0] for x in labels if SEPARATOR in str(x)})
        if modalities is None
        else [str(name) for name in modalities]
    )
    table = pd.Series([str(x) for x in labels], dtype=object)
    for modality in known:
        prefix = modality + SEPARATOR
        here = table.str.startswith(prefix).to_numpy(dtype=bool)
        twice = here & (found_modality != None)  # noqa: E711 - elementwise
        if twice.any():
            label = table[np.flatnonzero(twice)[0]]
            raise DataError(
                f"{label!r} reads as a feature of {modality!r} and of "
                f"{found_modality[np.flatnonzero(twice)[0]]!r}",
                key="modalities",
                remedy="give modality and feature apart, in columns source_modality, source, "
                "target_modality and target",
            )
        found_modality[here] = modality
        found_feature[here] = table[here].str.slice(len(prefix)).to_numpy()
    unknown = np.flatnonzero(found_modality == None)  # noqa: E711 - elementwise
    if len(unknown):
        raise DataError(
            f"{len(unknown)} features have no known modality in front: {shown(table[unknown])}",
            key="modalities",
            expected="'modality:feature', with a modality of "
            + (shown(known) if known else "any name"),
            remedy="write the modality in front, or pass modalities=",
        )
    return found_modality, found_feature


def resolve(nodes: Nodes, modality: str, names: Iterable[str], *, key: str) -> np.ndarray:
    """Numbers of features that must be nodes.

    Raises
    ------
    RequestError
        The graph has no such modality, or not all of the features.
    """
    wanted = name_index(names)
    if modality not in nodes.features:
        raise RequestError(
            "the graph has no such modality",
            modality=modality,
            key=key,
            expected=f"one of {shown(nodes.modalities)}",
        )
    numbers = nodes.numbers(modality, wanted)
    if (numbers < 0).any():
        raise RequestError(
            f"{int((numbers < 0).sum())} of {len(wanted)} features are not in the graph: "
            f"{shown(wanted[numbers < 0])}",
            modality=modality,
            key=key,
            remedy="leave them out, or call align(), which takes features without edges",
        )
    return numbers
