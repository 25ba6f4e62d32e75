"""Features of simulated modalities: embeddings, links between them, panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi._errors import RequestError
from mosaicvi.datasets._simulated_modality import SimulatedModality
from mosaicvi.datasets._truth import Codes, generator

if TYPE_CHECKING:
    from mosaicvi.datasets._generative import Array, Mask

Panels = Mapping[str, Mapping[str, Sequence[str]]]
Specs = Mapping[str, SimulatedModality]

_LINK_COLUMNS = ("source", "target", "sign", "weight", "source_modality", "target_modality")


def draw_embeddings(
    specs: Specs, n_latent: int, seed: int
) -> tuple[dict[str, Array], pd.DataFrame]:
    """Draw the embeddings ``v`` of each modality, and the links between them.

    The embedding of a linked feature is ``sign x weight`` times its source's plus an own part, so
    that their expected correlation over cells is ``sign x weight``.
    """
    own = {
        name: generator(seed, "embedding", name).normal(size=(spec.n_features, n_latent))
        for name, spec in specs.items()
    }
    tables, embeddings = [], {}
    for name, spec in specs.items():
        v = own[name].copy()
        if spec.linked_to is not None:
            table, source = _draw_links(name, spec, specs, seed)
            weight = table["weight"].to_numpy()[:, None]
            sign = table["sign"].to_numpy()[:, None]
            tables.append(table)
            v[: len(table)] = (
                sign * weight * own[spec.linked_to][source]
                + np.sqrt(1 - weight**2) * v[: len(table)]
            )
        v *= _active(spec, name, n_latent, seed)
        if spec.n_isotypes:
            v[-spec.n_isotypes :] = 0.0
        embeddings[name] = v * spec.signal_sd / np.sqrt(n_latent)
    empty = pd.DataFrame(columns=list(_LINK_COLUMNS))
    return embeddings, pd.concat(tables, ignore_index=True) if tables else empty


def _active(spec: SimulatedModality, name: str, n_latent: int, seed: int) -> Array:
    """Which dimension acts on which feature, 0 or 1, ``(n_features, n_latent)``."""
    active = np.ones((spec.n_features, n_latent))
    if spec.density < 1:
        rng = generator(seed, "density", name)
        active = (rng.random(active.shape) < spec.density).astype(float)
    if spec.factors is not None:
        active[:, [k for k in range(n_latent) if k not in spec.factors]] = 0.0
    return active


def _draw_links(
    name: str, spec: SimulatedModality, specs: Specs, seed: int
) -> tuple[pd.DataFrame, Codes]:
    """Draw links of a modality's first features, and the feature numbers of their sources."""
    rng = generator(seed, "links", name)
    other = str(spec.linked_to)
    n_links = spec.n_features - spec.n_isotypes
    source = np.arange(n_links, dtype=np.int64) % specs[other].n_features
    negative = rng.random(n_links) < spec.negative_links
    table = pd.DataFrame(
        {
            "source": np.array(specs[other].names, dtype=object)[source],
            "target": np.array(spec.names[:n_links], dtype=object),
            "sign": np.where(negative, -1, 1).astype(np.int64),
            "weight": rng.uniform(*spec.link_weight, n_links),
            "source_modality": other,
            "target_modality": name,
        }
    )
    return table, source


def panel_masks(specs: Specs, batches: Sequence[str], panels: Panels) -> dict[str, Mask]:
    """Mark the measured features of each modality, ``(n_features, n_batches)``."""
    masks = {name: np.ones((spec.n_features, len(batches)), bool) for name, spec in specs.items()}
    for name, by_batch in panels.items():
        known = set(specs[name].names) if name in specs else set()
        for batch, features in by_batch.items():
            unknown = sorted(set(features) - known)
            if name not in specs or batch not in batches or unknown or not len(features):
                raise RequestError(
                    f"batch {batch!r}, features not known: {unknown[:5]}",
                    modality=name,
                    key="panels",
                    expected=f"a modality of {list(specs)}, a batch of {list(batches)}, and one or "
                    "more names of its features",
                )
            masks[name][:, list(batches).index(batch)] = np.isin(specs[name].names, list(features))
    return masks
