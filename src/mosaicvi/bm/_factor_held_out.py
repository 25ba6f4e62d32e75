"""The factor comparison on data without known factors: a modality of some cells is hidden."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from mosaicvi._errors import RequestError
from mosaicvi.bm._cell_types import leiden_types
from mosaicvi.bm._cells import DEFAULT_LIKELIHOOD, bare_tables
from mosaicvi.bm._factor_cohort import INCOMPLETE, draw_cohort
from mosaicvi.bm._factor_input import FactorAnswer, FactorInput
from mosaicvi.bm._factor_score import HeldOut
from mosaicvi.bm._input import REPORT, prediction_path
from mosaicvi.bm._load import check_modalities, combine, load
from mosaicvi.bm._tables import without
from mosaicvi.factor._stability import correlations

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

COHORT = "cohort"
COHORT_SAMPLES, COHORT_HIDDEN = 200, 1 / 3
N_KNOWN = 1000
"""Training cells at most whose predictions are asked for."""
_NAME = "name"
"""File that says what a method goes by."""


@dataclass(frozen=True)
class HeldOutTask:
    """One split. See :class:`mosaicvi.bm.Task`.

    Parameters
    ----------
    public
        What methods see.
    truth
        Modality -> what only the scores see.
    answers
        Folder in which answers are kept, for their stability over seeds; None: nowhere.
    """

    public: FactorInput
    truth: dict[str, HeldOut]
    answers: Path | None = None

    def write_input(
        self, folder: Path, *, options: dict[str, Any], method: str = "", name: str = ""
    ) -> None:
        """Write the data and the settings, and the name of the answer for :meth:`score`."""
        replace(self.public, options=options).write(folder)
        (folder / _NAME).write_text(name or method, encoding="utf-8")

    def score(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Score each variant that the worker left."""
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        scores = {}
        for variant in report["variants"]:
            answer = FactorAnswer.read(prediction_path(folder, variant))
            if self.answers is not None:
                name = _plain((folder / _NAME).read_text(encoding="utf-8"))
                self.answers.mkdir(parents=True, exist_ok=True)
                file = f"{name}{variant and f'-{variant}'}-seed{self.public.seed}.npz"
                cells = np.asarray(self.public.mdata.obs_names, dtype=np.str_)
                replace(answer, predictions={}, cells=cells).write(self.answers / file)
            scores[variant] = self.compare(answer)
        return scores

    def compare(self, answer: FactorAnswer) -> dict[str, Any]:
        """Held-out and training R2 of each modality with hidden values, and their means."""
        held = {
            name: truth.score(np.asarray(answer.predictions[name], dtype=np.float64))
            for name, truth in self.truth.items()
        }
        return {
            "held_out": {name: scores["r2"] for name, scores in held.items()},
            "mean_held_out": float(np.mean([scores["r2"] for scores in held.values()])),
            "mean_train": float(np.mean([scores["train"] for scores in held.values()])),
            "n_factors": int(answer.factors.shape[1]),
            "modalities": held,
            **self.depths(answer.factors),
        }

    def depths(self, factors: np.ndarray) -> dict[str, Any]:
        """How much of each modality's depth is in a factor, over the cells that show it.

        The largest absolute correlation of a factor with the log of a cell's counts, over all
        cells, and within types: of what both differ by from the means of the cell's type.
        """
        mdata, found, within = self.public.mdata, {}, {}
        for name, part in mdata.mod.items():
            if self.public.likelihoods[name] == "normal":
                continue
            rows = mdata.obs_names.get_indexer(part.obs_names)
            depth = np.log1p(np.asarray(part.X.sum(1), dtype=np.float64).ravel())
            found[name] = _strongest(factors[rows], depth)
            known = self.types[rows] >= 0
            within[name] = _strongest(
                _centred(factors[rows][known], self.types[rows][known]),
                _centred(depth[known, None], self.types[rows][known])[:, 0],
            )
        if not found:
            return {}
        return {
            "depth_correlations": found,
            "depth_correlation": max(found.values()),
            "depth_within_types": within,
        }

    @cached_property
    def types(self) -> np.ndarray:
        """Type of each cell, a number from zero; below zero where it is not known.

        Leiden clusters of the count modality with most features, of the cells that show it.
        """
        mdata = self.public.mdata
        counts = {n: p for n, p in mdata.mod.items() if self.public.likelihoods[n] != "normal"}
        types = np.full(mdata.n_obs, -1)
        if counts:
            part = max(counts.values(), key=lambda each: int(each.n_vars))
            clusters = leiden_types(sp.csr_matrix(part.X), sp.csr_matrix(part.X[:1]))[0]
            rows = mdata.obs_names.get_indexer(part.obs_names)
            types[rows] = np.unique(clusters, return_inverse=True)[1]
        return types

    def describe(self) -> dict[str, Any]:
        """Numbers of cells and features, of all and of hidden ones."""
        mdata = self.public.mdata
        return {
            "n_cells": int(mdata.n_obs),
            "n_features": {name: int(part.n_vars) for name, part in mdata.mod.items()},
            "n_shown": {name: int(part.n_obs) for name, part in mdata.mod.items()},
            "n_hidden": {name: len(truth.hidden) for name, truth in self.truth.items()},
        }


@dataclass(frozen=True)
class HeldOutFactors:
    """Predict the values of a modality that is hidden in some cells, from factors.

    Parameters
    ----------
    data
        Dataset name or ``.h5mu`` file; ``"cohort"``: simulated patients.
    hide
        Share of the cells with several modalities that lose each one, no cell more than one. None:
        a fifth; of the cohort a third lose one certain modality, as patients do.
    split
        Seed of what is hidden; None: that of the method.
    n_cells
        Cells to draw first; None: all.
    features
        Modality -> how many features to keep, those that most cells of the data have counts of.
    n_factors
        Factors that methods start with.
    likelihoods
        Likelihood of a modality, where it is not ``nb``: all counts have a library size here, as
        the scores have.
    answers
        Folder in which answers are kept, for their stability over seeds; without ``split``, over
        what is hidden too.
    """

    data: str
    hide: float | None = None
    split: int | None = None
    n_cells: int | None = None
    features: dict[str, int] = field(default_factory=dict)
    n_factors: int = 10
    likelihoods: dict[str, str] = field(default_factory=dict)
    answers: Path | None = None

    name = "factors"

    def __post_init__(self) -> None:
        if self.hide is not None and not 0.0 < self.hide < 0.5:
            raise RequestError(f"{self.hide}", key="hide", expected="a share between 0 and .5")

    @property
    def setting(self) -> str:
        """Data and share that is hidden."""
        share = "" if self.hide is None else f", hide={self.hide:g}"
        return f"{self.data}, {self.n_factors} factors{share}"

    def describe(self) -> dict[str, Any]:
        """Every setting; goes into the record."""
        return {key: value for key, value in asdict(self).items() if key != "answers"}

    def task(self, seed: int) -> HeldOutTask:
        """Hide values by the split's seed, or that of the method.

        Raises
        ------
        RequestError
            If no cell has several modalities.
        """
        split = seed if self.split is None else self.split
        tables, hidden, likelihoods = self._chosen(split)
        complete = _complete(tables)
        lost = {cell for cells in hidden.values() for cell in cells}
        rest = complete[~complete.isin(list(lost))]
        if not lost or not len(rest):
            raise RequestError(
                f"{len(complete)} cells of {self.data!r} have several modalities",
                key="data",
                expected="cells to hide a modality of, and others to learn from",
            )
        rng = np.random.default_rng((split, 5))
        known = rest[np.sort(rng.permutation(len(rest))[:N_KNOWN])]
        shown = {name: without(table, hidden.get(name, ())) for name, table in tables.items()}
        truth = {
            name: HeldOut(
                _dense(shown[name]),
                _dense(tables[name][known]),
                _dense(tables[name][list(cells)]),
                likelihoods[name] != "normal",
            )
            for name, cells in hidden.items()
        }
        names = pd.Index(np.unique(np.concatenate([t.obs_names for t in shown.values()])))
        public = FactorInput(
            combine(shown, pd.DataFrame(index=names)),
            likelihoods,
            self.n_factors,
            seed,
            wanted={name: [*known, *cells] for name, cells in hidden.items()},
        )
        which = "own" if self.split is None else self.split
        place = None if self.answers is None else self.answers / _plain(f"{self.setting}-{which}")
        return HeldOutTask(public, truth, place)

    def _chosen(self, split: int) -> tuple[dict[str, AnnData], dict[str, pd.Index], dict[str, str]]:
        """Complete tables, cells to hide of each, likelihoods."""
        rng = np.random.default_rng((split, 4))
        if self.data == COHORT:
            tables, _z = draw_cohort(self.n_cells or COHORT_SAMPLES, split)
            n_hidden = round((self.hide or COHORT_HIDDEN) * tables[INCOMPLETE].n_obs)
            order = rng.permutation(tables[INCOMPLETE].n_obs)
            hidden = {INCOMPLETE: tables[INCOMPLETE].obs_names[np.sort(order[:n_hidden])]}
            return tables, hidden, {**dict.fromkeys(tables, "normal"), **self.likelihoods}
        mdata = self._loaded
        check_modalities(mdata, tuple(self.features), self.data, option="--features")
        likelihoods = {**dict.fromkeys(mdata.mod, DEFAULT_LIKELIHOOD), **self.likelihoods}
        tables = bare_tables(mdata, {name: likelihoods[name] for name in mdata.mod})
        # By all cells: features are those of the data, whichever cells a seed draws.
        tables = {name: _common(table, self.features.get(name)) for name, table in tables.items()}
        if self.n_cells is not None and self.n_cells < mdata.n_obs:
            chosen = mdata.obs_names[rng.permutation(mdata.n_obs)[: self.n_cells]]
            tables = {name: t[t.obs_names.isin(chosen)].copy() for name, t in tables.items()}
        complete = _complete(tables)
        n_hidden = round((self.hide or 0.2) * len(complete))
        order = rng.permutation(len(complete))
        hidden = {
            name: complete[np.sort(order[number * n_hidden : (number + 1) * n_hidden])]
            for number, name in enumerate(tables)
        }
        return tables, hidden, likelihoods

    @cached_property
    def _loaded(self) -> MuData:
        return load(self.data)


def _strongest(factors: np.ndarray, depth: np.ndarray) -> float:
    """Largest absolute correlation of a column with the depth; zero where nothing varies."""
    return float(correlations(factors, depth[:, None]).max(initial=0.0))


def _centred(values: np.ndarray, types: np.ndarray) -> np.ndarray:
    """Rows less the means of their types."""
    count = np.maximum(np.bincount(types), 1)[:, None]
    means = np.stack([np.bincount(types, column) for column in values.T], axis=1) / count
    return np.asarray(values - means[types])


def _complete(tables: dict[str, AnnData]) -> pd.Index:
    """Cells that every table has, in the order of the first."""
    first: pd.Index
    first, *others = (table.obs_names for table in tables.values())
    for names in others:
        first = first[first.isin(names)]
    return first


def _common(table: AnnData, n_features: int | None) -> AnnData:
    """The features with counts in most cells, in their order; without those of no cell."""
    present = np.asarray((sp.csr_matrix(table.X) > 0).sum(0)).ravel()
    keep = present > 0
    if n_features is not None and n_features < keep.sum():
        keep = np.isin(np.arange(table.n_vars), np.argsort(-present, kind="stable")[:n_features])
    return table[:, keep].copy()


def _dense(table: AnnData) -> np.ndarray:
    values = table.X
    return np.asarray(values.toarray() if sp.issparse(values) else values, dtype=np.float64)


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in text)
