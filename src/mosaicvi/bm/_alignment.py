"""The alignment comparison: paired data treated as unpaired, and data that are unpaired."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from mosaicvi._errors import RequestError
from mosaicvi.bm import aligners
from mosaicvi.bm._alignment_input import AlignmentInput, Embedding
from mosaicvi.bm._alignment_score import (
    DEPTH,
    PAIR,
    SCORED,
    AlignmentTruth,
    Scores,
    score_alignment,
)
from mosaicvi.bm._cells import bare_tables, cell_table, likelihood_of
from mosaicvi.bm._graphs import build_graph
from mosaicvi.bm._input import BATCH, REPORT, TYPE, prediction_path
from mosaicvi.bm._load import check_modalities, column, combine, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from mudata import MuData

    from mosaicvi.graph import FeatureGraph

FRAGMENTS = {"atac": "poisson"}
"""Likelihood of fragment counts."""
IS_TYPE = "is_type"
"""Column of data whose labels are not all types: False for those that are not scored."""


@dataclass(frozen=True)
class AlignmentTask:
    """One seed. See :class:`mosaicvi.bm.Task`.

    Parameters
    ----------
    public
        What methods see.
    truth
        What only the scores see.
    also
        Further scores, of an answer against the truth.
    """

    public: AlignmentInput
    truth: AlignmentTruth
    also: Callable[[Embedding, AlignmentTruth], Scores] | None = None

    def with_cells(
        self, tables: dict[str, AnnData], cells: dict[str, pd.DataFrame]
    ) -> AlignmentTask:
        """Return the task on other cells, or under other names, with what is true of them."""
        public = replace(self.public, mdata=_named_cells(tables, cells))
        return replace(self, public=public, truth=replace(self.truth, cells=cells, input=public))

    def with_public(self, **changes: Any) -> AlignmentTask:
        """Return the task with something else about what methods see."""
        public = replace(self.public, **changes)
        return replace(self, public=public, truth=replace(self.truth, input=public))

    def write_input(
        self, folder: Path, *, options: dict[str, Any], method: str = "", name: str = ""
    ) -> None:
        """Write the public part; a method listed as a ceiling is told the true pairs."""
        del name
        pairs = self._true_pairs() if method in aligners.CEILINGS else ()
        self.public.given(options=options, true_pairs=pairs).write(folder)

    def _true_pairs(self) -> tuple[tuple[str, str], ...]:
        names = []
        for modality in self.public.modalities:
            pair = self.truth.cells[modality][PAIR]
            names.append(pair[pair >= 0].sort_values().index)
        return tuple(zip(*(list(part) for part in names), strict=True))

    def score(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Score each variant that the worker left."""
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        found = {}
        for variant in report["variants"]:
            answer = Embedding.read(prediction_path(folder, variant))
            found[variant] = score_alignment(answer, self.truth)
            if self.also is not None:
                found[variant] |= self.also(answer, self.truth)
        return found

    def describe(self) -> dict[str, Any]:
        """Numbers of cells, of pairs, of edges, and the types that are scored."""
        types = [set(self.truth.typed(name)[1]) for name in self.public.modalities]
        return {
            "n_cells": {name: len(table) for name, table in self.truth.cells.items()},
            "n_features": {name: int(t.n_vars) for name, t in self.public.mdata.mod.items()},
            "n_pairs_given": self.public.n_pairs,
            "n_pairs_scored": len(self.truth.matches[0]),
            "n_edges": self.public.graph.n_edges,
            "n_types": len(types[0] | types[1]),
        }


@dataclass(frozen=True)
class Alignment:
    """Align two modalities whose cells are not, or mostly not, paired.

    Parameters
    ----------
    data
        Dataset name or ``.h5mu`` file.
    modalities
        First and second modality.
    pairs
        Share of the true pairs that methods are given, drawn by the seed; more pairs of one seed
        contain the fewer. Scores are over the other cells.
    n_cells
        Cells to draw from the data first; None: all. Cells of both modalities stay pairs.
    min_share
        Keep only features with counts in at least this share of the cells of their modality.
    linked_only
        Keep only the features that the graph links.
    batch_key
        Column with the batch; cells of data without it are one batch.
    labels
        Column with the type; default: ``celltype`` or ``cell_type`` where there is one. Cells whose
        column ``is_type`` is False are not scored by type.
    graph, assembly, graph_table
        As ``kind``, ``assembly`` and ``table`` of the graph given to methods: ``"auto"``,
        ``"names"``, ``"coordinates"``, ``"links"``, ``"table"`` or ``"none"``.
    likelihoods
        Likelihood of a modality, where it is not the default (zinb for ``rna``, nb_mixture for
        ``protein``, poisson for ``atac``, else nb).
    scib
        Score with scib-metrics too.
    columns
        Further columns of the cells that the truth holds.
    """

    data: str
    modalities: tuple[str, str] = ("rna", "atac")
    pairs: float = 0.0
    n_cells: int | None = None
    min_share: float = 0.0
    linked_only: bool = False
    batch_key: str = "batch"
    labels: str | None = None
    graph: str = "auto"
    assembly: str | None = None
    graph_table: str | None = None
    likelihoods: dict[str, str] = field(default_factory=dict)
    scib: bool = False
    columns: tuple[str, ...] = ()

    name = "alignment"

    def __post_init__(self) -> None:
        if len(self.modalities) != 2 or len(set(self.modalities)) != 2:
            raise RequestError(
                f"{','.join(self.modalities)!r}", key="modalities", expected="two, such as rna,atac"
            )
        if not 0.0 <= self.pairs < 1.0:
            raise RequestError(f"{self.pairs}", key="pairs", expected="0, or a share below 1")
        if not 0.0 <= self.min_share < 1.0:
            raise RequestError(f"{self.min_share}", key="min_share", expected="0 to below 1")
        if self.n_cells is not None and self.n_cells < 1:
            raise RequestError(f"{self.n_cells}", key="n_cells", expected="a positive number")

    @property
    def setting(self) -> str:
        """The share of pairs."""
        return f"pairs={self.pairs:g}"

    def with_pairs(self, pairs: float) -> Alignment:
        """Return the same comparison with another share of pairs; data are read once."""
        other = replace(self, pairs=pairs)
        other.__dict__["_read"] = self._read
        return other

    def describe(self) -> dict[str, Any]:
        """Every setting; goes into the record."""
        return asdict(self)

    def suiting(self) -> tuple[str, ...]:
        """Methods that can be given these data, other packages' models aside."""
        tables, _obs, graph = self._read
        first, second = (tables[name].obs_names for name in self.modalities)
        return aligners.defaults(paired=first.isin(second).any(), linked=graph.n_edges > 0)

    def task(self, seed: int) -> AlignmentTask:
        """Hide the pairing of the data by the seed.

        Raises
        ------
        RequestError
            If pairs are asked for and the data have none.
        """
        tables, obs, graph = self._read
        rng = np.random.default_rng(seed)
        if self.n_cells is not None and self.n_cells < len(obs):
            obs = obs.iloc[np.sort(rng.permutation(len(obs))[: self.n_cells])]
        names = {m: [n for n in tables[m].obs_names if n in obs.index] for m in self.modalities}
        held = set(names[self.modalities[1]])
        paired = [name for name in names[self.modalities[0]] if name in held]
        if self.pairs and not paired:
            raise RequestError(
                f"no cell of {self.data!r} has both modalities", key="pairs", expected="0"
            )
        order = [paired[i] for i in rng.permutation(len(paired))]
        number = {name: i for i, name in enumerate(order)}
        n_given = round(self.pairs * len(paired))
        seen, cells = {}, {}
        for modality in self.modalities:
            mixed = [names[modality][i] for i in rng.permutation(len(names[modality]))]
            seen[modality], cells[modality] = _renamed(
                modality, tables[modality], mixed, obs, number, n_given
            )
        mdata = _named_cells(seen, cells)
        public = AlignmentInput(mdata, self.modalities, graph, self._likelihoods, seed)
        return AlignmentTask(public, AlignmentTruth(self.modalities, cells, public, self.scib))

    @property
    def _likelihoods(self) -> dict[str, str]:
        chosen = {**FRAGMENTS, **self.likelihoods}
        return {m: likelihood_of(m, chosen) for m in self.modalities}

    @cached_property
    def _read(self) -> tuple[dict[str, AnnData], pd.DataFrame, FeatureGraph]:
        """Tables, batch and type of every cell, and the graph."""
        mdata = load(self.data)
        check_modalities(mdata, self.modalities, self.data, option="--modalities")
        obs = cell_table(mdata, self.data, self.batch_key, self.labels)
        for key in self.columns:
            values = column(mdata, key)
            if values is None:
                raise RequestError(
                    f"no column {key!r} in {self.data!r}",
                    key="columns",
                    expected=f"a column of obs: {', '.join(map(repr, mdata.obs.columns))}",
                )
            obs[key] = values
        is_type = column(mdata, IS_TYPE)
        if is_type is not None:
            obs.loc[is_type.reindex(obs.index).isin([False]).to_numpy(), TYPE] = np.nan
        tables = bare_tables(mdata, self._likelihoods)
        table = None if self.graph_table is None else Path(self.graph_table)
        graph = build_graph(
            mdata, self.modalities, self.graph, data=self.data, assembly=self.assembly, table=table
        )
        if self.min_share > 0:
            tables = {name: _frequent(table, self.min_share) for name, table in tables.items()}
            graph = graph.align({name: table.var_names for name, table in tables.items()})
        if self.linked_only:
            linked = graph.features.query("n_edges > 0")
            for name in self.modalities:
                kept = linked.loc[linked["modality"] == name, "feature"]
                tables[name] = tables[name][:, tables[name].var_names.isin(kept)].copy()
            graph = graph.align({name: tables[name].var_names for name in self.modalities})
        held = set().union(*(table.obs_names for table in tables.values()))
        return tables, obs.loc[[name for name in obs.index if name in held]], graph


def _named_cells(tables: dict[str, AnnData], cells: dict[str, pd.DataFrame]) -> MuData:
    """What methods see of the cells: counts, names and batches."""
    together = pd.concat(cells.values())
    return combine(tables, together.loc[~together.index.duplicated(), [BATCH]].astype(str))


def _frequent(table: AnnData, share: float) -> AnnData:
    """Features with counts in at least this share of the cells."""
    n_cells = np.asarray((table.X > 0).sum(axis=0)).ravel()
    return table[:, n_cells >= share * table.n_obs].copy()


def _renamed(
    modality: str,
    table: AnnData,
    order: list[str],
    obs: pd.DataFrame,
    number: dict[str, int],
    n_given: int,
) -> tuple[AnnData, pd.DataFrame]:
    """A modality's cells in a given order under new names, and what only the scores know.

    The names of given pairs are the same in both modalities; all others say nothing.
    """
    pair = np.array([number.get(name, -1) for name in order], dtype=np.int64)
    given = (pair >= 0) & (pair < n_given)
    new = [f"pair:{pair[i]}" if given[i] else f"{modality}:{i}" for i in range(len(order))]
    values = sp.csr_matrix(table.X)[table.obs_names.get_indexer(order)]
    cells = obs.loc[order].copy()
    cells.index = pd.Index(new)
    cells[DEPTH] = np.asarray(values.sum(axis=1), dtype=np.float64).ravel()
    cells[PAIR], cells[SCORED] = pair, ~given
    return AnnData(values, pd.DataFrame(index=new), table.var.copy()), cells
