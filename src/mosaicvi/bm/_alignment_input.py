"""What a method sees of an alignment task, and what it answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from mosaicvi.bm._graphs import read_graph, write_graph
from mosaicvi.bm._input import BATCH
from mosaicvi.bm._load import quiet_mudata, read
from mosaicvi.tl._latents import Places

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData
    from numpy.typing import NDArray

    from mosaicvi.graph import FeatureGraph

Floats = np.ndarray[Any, np.dtype[np.float64]]
Pairs = tuple[tuple[str, str], ...]
_DATA, _SETTINGS = "input.h5mu", "input.json"
_WANTED = "wanted:"
EDGES = "edges"
"""Confidence in each edge of the graph, asked for besides latents."""
PLACES = "places"
"""Where cells lie but for the latent, asked for besides, and how far to believe it: see
:data:`SHARED`, :data:`OWN`, :data:`VARIANCE` and :data:`DOUBT`."""
SHARED, OWN, VARIANCE = "shared:", "own:", "variance:"
"""Before a modality: what :class:`mosaicvi.tl._latents.Places` calls so."""
DOUBT = "doubt"
"""How far what few links say of the two modalities is in doubt, from 0 to 1."""


@dataclass(frozen=True)
class AlignmentInput:
    """Cells of two modalities, most of them under names that do not say who belongs to whom.

    Parameters
    ----------
    mdata
        Two modalities of counts. A pair that methods may know bears one name in both; every other
        cell has a name of its own. The order of cells is random. ``obs["batch"]`` is always there;
        types are not.
    modalities
        First and second modality.
    graph
        Which features belong together; without edges where none is given.
    likelihoods
        Likelihood of each modality, for methods that have one.
    seed
        Seed of the method.
    options
        Settings of this run of the method, as typed on the command line.
    true_pairs
        For methods marked as a ceiling only: names of both cells of every true pair. Empty for all
        others.
    wanted
        What is asked for besides latents, of methods that can answer it: :data:`EDGES`,
        :data:`PLACES`, or a modality that cells of the other are to have imputed.
    """

    mdata: MuData
    modalities: tuple[str, str]
    graph: FeatureGraph
    likelihoods: dict[str, str]
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    true_pairs: Pairs = ()
    wanted: tuple[str, ...] = ()

    @property
    def n_pairs(self) -> int:
        """Number of pairs that methods may know."""
        first, second = (self.mdata.mod[name].obs_names for name in self.modalities)
        return len(first.intersection(second))

    def counts(self, modality: str) -> sp.csr_matrix:
        """Counts of a modality's cells, ``(n_cells, n_features)``, float64."""
        return sp.csr_matrix(self.mdata.mod[modality].X, dtype=np.float64)

    def batch(self, modality: str) -> NDArray[np.str_]:
        """Batch of a modality's cells, shape ``(n_cells,)``."""
        names = self.mdata.mod[modality].obs_names
        return np.asarray(self.mdata.obs.loc[names, BATCH].to_numpy().astype(str))

    def given(self, *, options: dict[str, Any], true_pairs: Pairs = ()) -> AlignmentInput:
        """Return the same task with the options of a method, and the truth for a ceiling."""
        return replace(self, options=options, true_pairs=true_pairs)

    def write(self, folder: Path) -> None:
        """Write to a folder, for :meth:`read`."""
        settings = {
            "modalities": list(self.modalities),
            "likelihoods": self.likelihoods,
            "seed": self.seed,
            "options": self.options,
            "true_pairs": [list(pair) for pair in self.true_pairs],
            "wanted": list(self.wanted),
        }
        (folder / _SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
        write_graph(self.graph, folder)
        with quiet_mudata():
            self.mdata.write_h5mu(folder / _DATA)

    @classmethod
    def read(cls, folder: Path) -> AlignmentInput:
        """Read what :meth:`write` wrote."""
        settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        mdata = read(folder / _DATA)
        settings["modalities"] = tuple(settings["modalities"])
        settings["true_pairs"] = tuple((left, right) for left, right in settings["true_pairs"])
        settings["wanted"] = tuple(settings["wanted"])
        graph = read_graph(folder, mdata, settings["modalities"])
        return cls(mdata=mdata, graph=graph, **settings)


@dataclass(frozen=True)
class Embedding:
    """What a method answers.

    Parameters
    ----------
    latents
        Modality -> latent of its cells in the order of the input, ``(n_cells, n_latent)``, finite,
        with the same dimensions for both.
    wanted
        What was asked for besides: :data:`EDGES` -> confidence of each edge in the order of the
        graph's table, ``(n_edges,)``; a modality -> mean of log1p imputed for the other one's cells
        in the order of the input, ``(n_other_cells, n_features)``; :data:`SHARED`,
        :data:`OWN` or :data:`VARIANCE` with a modality -> such values of its cells in the order of
        the input; :data:`DOUBT` -> one number, without axes.
    """

    latents: dict[str, Floats]
    wanted: dict[str, Floats] = field(default_factory=dict)

    def places(self, modality: str) -> Places:
        """Where cells of a modality lie; the latent stands for what the method does not say."""
        latent = self.latents[modality]
        shared, own = (self.wanted.get(key + modality, latent) for key in (SHARED, OWN))
        variance = self.wanted.get(VARIANCE + modality, np.zeros_like(latent))
        return Places(latent, shared, own, variance)

    @property
    def doubt(self) -> float:
        """How far the answer is in doubt, from 0 to 1; 0 where the method does not say."""
        return float(self.wanted.get(DOUBT, 0.0))

    def write(self, path: Path) -> None:
        """Write as ``.npz``."""
        values: dict[str, Any] = {
            name: np.asarray(latent, dtype=np.float64) for name, latent in self.latents.items()
        }
        values |= {_WANTED + name: np.asarray(found) for name, found in self.wanted.items()}
        np.savez(path, **values)

    @classmethod
    def read(cls, path: Path) -> Embedding:
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        wanted = {name for name in found if name.startswith(_WANTED)}
        return cls(
            {name: values for name, values in found.items() if name not in wanted},
            {name.removeprefix(_WANTED): found[name] for name in wanted},
        )
