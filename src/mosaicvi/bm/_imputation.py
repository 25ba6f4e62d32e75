"""The imputation comparison: which cells lose their target, and what a method is given."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from mosaicvi._errors import RequestError
from mosaicvi.bm._cell_types import leiden_types
from mosaicvi.bm._cells import bare_tables, cell_table, likelihood_of
from mosaicvi.bm._imputation_task import ImputationTask
from mosaicvi.bm._input import (
    BATCH,
    NO_TYPE,
    TYPE,
    ImputationInput,
)
from mosaicvi.bm._load import check_modalities, combine, load
from mosaicvi.bm._score import Truth
from mosaicvi.bm._shared_features import antigen, change_of_unit, gene, share
from mosaicvi.bm._tables import dense, noise, without
from mosaicvi.bm._unpaired import halves, take_apart
from mosaicvi.metrics import gate_threshold

if TYPE_CHECKING:
    from mudata import MuData

NOISE = "noise"
QUERY_PREFIX = "query:"


@dataclass(frozen=True)
class Imputation:
    """Impute a modality for cells that only have another.

    Exactly one of ``hide``, ``hide_batch`` and ``train`` with ``test`` chooses the cells.

    Parameters
    ----------
    source, target
        Modality to impute from, and to impute.
    data
        Dataset name or ``.h5mu`` file.
    hide
        Share of the paired cells that lose the target, drawn by the seed.
    hide_batch
        Batch whose cells all lose the target; the seed is then the methods' only.
    train, test
        Dataset names or files: all cells of the one, and the paired cells of the other without
        their target, on the features that both have (clones averaged, names without regard to
        case).
    validate
        Share of the paired cells left over that lose the target too, and are the ones imputed and
        scored. The cells chosen above lose theirs and are not looked at: settings chosen by these
        scores have not seen the cells of the comparison itself.
    n_cells
        Cells to draw from ``data`` before anything else; None: all.
    unpaired
        Take the training cells apart: a half of them, drawn by the seed, keeps the source alone,
        the other half the target alone, and methods get the feature graph instead. Methods that
        cannot do without pairs are told the source of the target's half, and marked as a ceiling:
        the same cells and the same values of the target.
    noise
        Features of a third modality, ``noise``, that every cell has and that says nothing: Poisson
        counts with mean one. 0: no such modality.
    batch_key
        Column with the batch; cells of data without it are one batch.
    labels
        Column with the type; default: ``celltype`` or ``cell_type`` where there is one, else
        Leiden clusters of the training cells' source.
    n_draws
        Draws that each method returns.
    likelihoods
        Likelihood of a modality, where it is not the default (zinb for ``rna``, nb_mixture for
        ``protein``, else nb).
    """

    source: str = "rna"
    target: str = "protein"
    data: str | None = None
    hide: float | None = None
    hide_batch: str | None = None
    train: str | None = None
    test: str | None = None
    validate: float | None = None
    n_cells: int | None = None
    unpaired: bool = False
    noise: int = 0
    batch_key: str = "batch"
    labels: str | None = None
    n_draws: int = 100
    likelihoods: dict[str, str] = field(default_factory=dict)

    name = "imputation"

    @property
    def setting(self) -> str:
        """Whether the training cells are unpaired."""
        return "unpaired" if self.unpaired else ""

    def __post_init__(self) -> None:
        across = self.train is not None and self.test is not None
        chosen = [self.hide is not None, self.hide_batch is not None, across]
        if sum(chosen) != 1 or across == (self.data is not None) or (self.train is None) == across:
            raise RequestError(
                "the cells to impute are not chosen, or chosen twice",
                key="hide, hide_batch, train, test",
                expected="--data with --hide or --hide-batch, or --train with --test",
            )
        for key, part in (("hide", self.hide), ("validate", self.validate)):
            if part is not None and not 0.0 < part < 1.0:
                raise RequestError(f"{part}", key=key, expected="a share between 0 and 1")
        if self.noise and self.unpaired:
            raise RequestError(
                "a modality that every cell has would pair them", key="noise", expected="0"
            )
        if self.n_cells is not None and (across or self.n_cells < 1):
            raise RequestError(
                f"{self.n_cells}", key="n_cells", expected="a positive number, with --data"
            )

    def describe(self) -> dict[str, Any]:
        """Every setting; goes into the record."""
        return asdict(self)

    def task(self, seed: int) -> ImputationTask:
        """Split the data by the seed.

        Raises
        ------
        RequestError
            If no cell, or every paired cell, would lose its target.
        """
        tables, obs, query = self._across if self.train is not None else self._within(seed)
        if self.validate is not None:
            tables = {**tables, self.target: without(tables[self.target], query)}
            query = self._drawn(tables, self.validate, (seed, 1))
        hidden = tables[self.target]
        truth_values = dense(hidden[list(query)])
        seen = {**tables, self.target: without(hidden, query)}
        paired = self._paired(seen)
        if not query or len(paired) < 1 + self.unpaired:
            raise RequestError(
                f"{len(query)} cells to impute and {len(paired)} paired cells to learn from",
                expected="some of both",
            )
        if self.unpaired:
            source_half, _ = halves([str(name) for name in paired], seed)
            seen[self.target] = without(seen[self.target], source_half)
        if self.noise:
            seen[NOISE] = noise(obs.index, self.noise, seed)
        mdata = combine(seen, obs[[BATCH]].astype(str))
        mdata.obs[TYPE] = self._types(mdata, obs, query)
        public = ImputationInput(
            mdata, self.source, self.target, query, self._likelihoods(mdata), seed, self.n_draws
        )
        truth = self._truth(public, truth_values)
        if not self.unpaired:
            return ImputationTask(public, truth)
        apart = take_apart(public, data=str(self.data))
        return ImputationTask(apart, truth, told=replace(public, ceiling=True))

    def _truth(self, public: ImputationInput, measured: np.ndarray) -> Truth:
        training = np.log1p(dense(public.mdata.mod[self.target]))
        gate, types = gate_threshold(training), public.labels(TYPE, public.query)
        if self.train is None:
            return Truth(measured, public.features, types, gate)
        log1p = np.log1p(measured)
        unit = change_of_unit(public.target_log1p(public.paired), log1p)
        return Truth(measured, public.features, types, gate, gate_threshold(log1p), unit)

    def _likelihoods(self, mdata: MuData) -> dict[str, str]:
        return {name: self._likelihood(name) for name in mdata.mod}

    def _types(self, mdata: MuData, obs: pd.DataFrame, query: tuple[str, ...]) -> np.ndarray:
        types = obs.loc[mdata.obs_names, TYPE]
        needed = mdata.mod[self.source].obs_names
        if types.loc[needed].isna().any():
            table, held = mdata.mod[self.source], set(query)
            training = np.array([name not in held for name in table.obs_names])
            counts = sp.csr_matrix(table.X)
            known, assigned = leiden_types(counts[training], counts[~training])
            types = pd.Series(NO_TYPE, index=mdata.obs_names, dtype=object)
            types.loc[table.obs_names[training]] = known
            types.loc[table.obs_names[~training]] = assigned
        return np.asarray(types.fillna(NO_TYPE).astype(str).to_numpy())

    def _read(self, data: str, prefix: str = "") -> tuple[dict[str, AnnData], pd.DataFrame]:
        """Bare tables of both modalities, and batch and type of every cell."""
        mdata = load(data)
        names = (self.source, self.target)
        check_modalities(mdata, names, data)
        obs = cell_table(mdata, data, self.batch_key, self.labels)
        tables = bare_tables(mdata, {name: self._likelihood(name) for name in names})
        for table in tables.values():
            table.obs_names = [f"{prefix}{cell}" for cell in table.obs_names]
        obs.index = [f"{prefix}{cell}" for cell in obs.index]
        return tables, obs

    @cached_property
    def _single(self) -> tuple[dict[str, AnnData], pd.DataFrame]:
        return self._read(str(self.data))

    def _within(self, seed: int) -> tuple[dict[str, AnnData], pd.DataFrame, tuple[str, ...]]:
        tables, obs = self._single
        if self.n_cells is not None and self.n_cells < len(obs):
            order = np.random.default_rng((seed, 2)).permutation(len(obs))
            obs = obs.iloc[np.sort(order[: self.n_cells])]
            tables = {
                name: table[table.obs_names.isin(obs.index)].copy()
                for name, table in tables.items()
            }
        if self.hide is not None:
            return tables, obs, self._drawn(tables, self.hide, seed)
        paired = self._paired(tables)
        batches = obs.loc[paired, BATCH].astype(str).to_numpy()
        chosen = paired[batches == self.hide_batch]
        if chosen.size == 0:
            raise RequestError(
                f"no paired cell of batch {self.hide_batch!r}",
                key="hide_batch",
                expected=f"one of {sorted(set(batches))}",
            )
        return tables, obs, tuple(str(name) for name in chosen)

    def _paired(self, tables: dict[str, AnnData]) -> np.ndarray:
        """Names of the cells with source and target, in the source's order."""
        target = set(tables[self.target].obs_names)
        return np.array([name for name in tables[self.source].obs_names if name in target])

    def _drawn(
        self, tables: dict[str, AnnData], share: float, seed: int | tuple[int, int]
    ) -> tuple[str, ...]:
        """A share of the paired cells, drawn by a seed."""
        paired = self._paired(tables)
        order = np.random.default_rng(seed).permutation(paired.size)
        chosen = np.sort(order[: round(share * paired.size)])
        return tuple(str(name) for name in paired[chosen])

    @cached_property
    def _across(self) -> tuple[dict[str, AnnData], pd.DataFrame, tuple[str, ...]]:
        """All cells of the training data, and the paired cells of the test data."""
        training, training_obs = self._read(str(self.train))
        test, test_obs = self._read(str(self.test), prefix=QUERY_PREFIX)
        target = set(test[self.target].obs_names)
        query = tuple(name for name in test[self.source].obs_names if name in target)
        tables = {}
        for name in (self.source, self.target):
            is_antigen = self._likelihood(name) == "nb_mixture"
            canonical = antigen if is_antigen else gene
            pair = share(training[name], test[name][list(query)], canonical, name)
            values = sp.vstack([part.X for part in pair], format="csr")
            cells = [*pair[0].obs_names, *pair[1].obs_names]
            tables[name] = AnnData(values, pd.DataFrame(index=cells), pair[0].var)
        test_obs = test_obs.loc[list(query)].copy()
        test_obs[BATCH] = QUERY_PREFIX + test_obs[BATCH].astype(str)
        return tables, pd.concat([training_obs, test_obs]), query

    def _likelihood(self, modality: str) -> str:
        return likelihood_of(modality, self.likelihoods)
