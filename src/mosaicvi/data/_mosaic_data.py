"""A validated MuData, resolved to arrays: read-only, and shared with the user's object.

Only what the format forces is copied: CSC, dense or unsorted counts become one CSR of our own,
integers become float32, reordered features a reordered copy. Values on disk stay there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mosaicvi.data import _columns
from mosaicvi.data._coverage import read_pair
from mosaicvi.data._register import cells_of, codes_of, representation_of
from mosaicvi.data._schema import ModalitySpec, likelihood_of
from mosaicvi.data._stored import (
    Held,
    Rows,
    StoredValues,
    held,
    locked,
    shared_csr,
    stored_values,
)
from mosaicvi.data._transfer import batch_labels, feature_order, full_rows
from mosaicvi.data._values import choose_layer, read_layer, row_totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData

    from mosaicvi.data._state import MosaicState, RegisteredModality

UNSTATED_BATCH = ""
"""Name of the batch of cells that have none of a modality which they lack."""


@dataclass(frozen=True, eq=False)
class ModalityData:
    """One modality of a :class:`MosaicData`.

    Attributes
    ----------
    name
        Key of ``mdata.mod``.
    spec
        How it is read and modelled.
    var_names
        Features, in registered order.
    values
        Shape ``(n_modality_cells, n_features)``: CSR counts, or dense float32 of a continuous
        modality with NaN where a value is missing; counts out of counts as pairs
        (``likelihoods/_pairs.py``). Rows in the modality's own order, columns in
        registered order. On disk: :class:`~mosaicvi.data._stored.StoredValues`, which indexing
        with rows reads in the same form.
    rows
        Row of ``values`` for each cell of the MuData, int64 ``(n_cells,)``, -1 where absent.
    library_size
        Counts a cell over measured features, or the user's size factor, float32
        ``(n_modality_cells,)``; zero for a cell without counts; ones where the likelihood has no
        library size.
    batch
        Batch code of each row, int64 ``(n_modality_cells,)``, -1 where unseen.
    cell_batch
        Batch code of each cell of the MuData, int64 ``(n_cells,)``, -1 where unknown or unseen.
    cell_batch_names
        Name of the batch of each cell of the MuData, str ``(n_cells,)``: batches that training
        never saw share a code, but not a name. :data:`UNSTATED_BATCH` where a cell that lacks the
        modality has none.
    batch_categories
        Batch names by code.
    panel
        Measured features of each batch, bool ``(n_batches, n_features)``; None where all are.
    new_panels
        Batch that is none of ``batch_categories`` to its measured features, bool
        ``(n_features,)``, where it did not measure all.
    representation
        What the encoder reads instead of ``values``, float32 ``(n_modality_cells, n_inputs)``.
    log_background
        Known log background level of each feature, ``(n_features,)``, NaN where unknown.
    species
        ``"human"``, ``"mouse"``, or None where the names of features do not say.
    """

    name: str
    spec: ModalitySpec
    var_names: tuple[str, ...]
    values: Held
    rows: np.ndarray
    library_size: np.ndarray
    batch: np.ndarray
    cell_batch: np.ndarray
    cell_batch_names: np.ndarray
    batch_categories: tuple[str, ...]
    panel: np.ndarray | None
    new_panels: Mapping[str, np.ndarray]
    representation: np.ndarray | None
    log_background: np.ndarray | None
    species: str | None

    @property
    def n_cells(self) -> int:
        """Number of cells that have the modality."""
        return int(self.values.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.var_names)

    @property
    def present(self) -> np.ndarray:
        """Which cells of the MuData have the modality, bool ``(n_cells,)``."""
        return np.asarray(self.rows >= 0)

    @cached_property
    def cells(self) -> np.ndarray:
        """Cell of the MuData of each row of ``values``, int64 ``(n_modality_cells,)``."""
        return cells_of(self.rows, self.n_cells)

    @cached_property
    def missing(self) -> bool:
        """Whether a value of a continuous modality is missing."""
        if isinstance(self.values, StoredValues):
            return not self.values.is_count and self.values.source.profile.nan > 0
        return isinstance(self.values, np.ndarray) and bool(np.isnan(self.values).any())

    def measured(self, rows: np.ndarray) -> np.ndarray | None:
        """Features that rows' batches measured, bool ``(n_rows, n_features)``; None: all."""
        if self.panel is None and not self.new_panels:
            return None
        found = np.ones((len(rows), self.n_features), dtype=bool)
        codes = self.batch[rows]
        if self.panel is not None:
            found[codes >= 0] = self.panel[codes[codes >= 0]]
        names = self.cell_batch_names[self.cells[rows]]
        for name, panel in self.new_panels.items():
            found[names == name] = panel
        return found

    def shown(self, rows: np.ndarray) -> Rows:
        """Values of some rows on the scale of answers: as they are, or rates of pairs."""
        found: Rows = likelihood_of(self.spec).shown(self.values[rows])
        return found

    @property
    def on_disk(self) -> bool:
        """Whether values are read when they are asked for."""
        return isinstance(self.values, StoredValues)

    @cached_property
    def depth(self) -> np.ndarray | None:
        """Counts a cell, float32 ``(n_modality_cells,)``; None for a continuous modality."""
        if not likelihood_of(self.spec).is_count:
            return None
        return locked(_row_totals(self.values).astype(np.float32))

    @property
    def stored_per_cell(self) -> float:
        """Mean number of stored values of a cell."""
        return stored_values(self.values) / max(self.n_cells, 1)


@dataclass(frozen=True, eq=False)
class MosaicData:
    """A validated MuData, resolved to arrays.

    Attributes
    ----------
    obs_names
        Names of the cells, ``(n_cells,)``.
    modalities
        Modality name to its data, in the order of the setup.
    categorical
        Codes of categorical covariates, int64 ``(n_cells, n_categorical)``, -1 for a cell without
        modality; None where there are none.
    categorical_categories
        Categories of each of them.
    continuous
        Covariates standardised with the registered mean and deviation, float32
        ``(n_cells, n_continuous)``, zero for a cell without modality; None where there are none.
    """

    obs_names: np.ndarray
    modalities: Mapping[str, ModalityData]
    categorical: np.ndarray | None
    categorical_categories: tuple[tuple[str, ...], ...]
    continuous: np.ndarray | None

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.obs_names)

    @cached_property
    def presence(self) -> np.ndarray:
        """Which cells have which modality, bool ``(n_cells, n_modalities)``."""
        return np.stack([part.present for part in self.modalities.values()], axis=1)

    @property
    def on_disk(self) -> bool:
        """Whether any modality's values are read when they are asked for."""
        return any(part.on_disk for part in self.modalities.values())

    @cached_property
    def patterns(self) -> np.ndarray:
        """Presence pattern of each cell, int64 ``(n_cells,)``; 0 means no modality."""
        weights = np.left_shift(1, np.arange(len(self.modalities), dtype=np.int64))
        return np.asarray(self.presence @ weights, dtype=np.int64)


def resolve(mdata: MuData, state: MosaicState) -> MosaicData:
    """Resolve a MuData that was validated against ``state``.

    Parameters
    ----------
    mdata
        The MuData.
    state
        Its registration, or its transfer from another one.
    """
    rows = full_rows(mdata, state)
    present = {name: its_rows for name, its_rows in rows.items() if (its_rows >= 0).any()}
    modalities = {}
    for name, part in state.modalities.items():
        labels = batch_labels(mdata, state, name, present)
        modalities[name] = _resolve_modality(mdata, name, part, rows[name], labels)
    categorical = [
        codes_of(_columns.labels(mdata, key, present, option="categorical"), names)
        for key, names in state.categorical.items()
    ]
    continuous = [
        (_columns.numbers(mdata, key, present, option="continuous") - mean) / deviation
        for key, (mean, deviation) in state.continuous.items()
    ]
    return MosaicData(
        obs_names=locked(mdata.obs_names.to_numpy(dtype=object, copy=True)),
        modalities=modalities,
        categorical=locked(np.stack(categorical, axis=1)) if categorical else None,
        categorical_categories=tuple(state.categorical.values()),
        continuous=locked(np.nan_to_num(np.stack(continuous, axis=1)).astype(np.float32))
        if continuous
        else None,
    )


def _resolve_modality(
    mdata: MuData, name: str, part: RegisteredModality, rows: np.ndarray, labels: np.ndarray
) -> ModalityData:
    cell_batch = codes_of(labels, part.batch_categories)
    spec, likelihood = part.spec, likelihood_of(part.spec)
    is_present = bool((rows >= 0).any())
    representation = None
    values: Held
    if is_present:
        adata = mdata.mod[name]
        order = feature_order(adata, part)
        if likelihood.reads_coverage:
            values = read_pair(adata, spec, name, order)
        else:
            layer, _ = choose_layer(adata, spec, name)
            values = held(read_layer(adata, layer, name), order, is_count=likelihood.is_count)
        if spec.representation is not None:
            representation = representation_of(adata, name, spec.representation)
    else:
        shape = (0, part.n_features)
        values = (
            shared_csr(sp.csr_matrix(shape, dtype=np.float32))
            if likelihood.is_count
            else np.zeros(shape, dtype=np.complex64 if likelihood.reads_coverage else np.float32)
        )
        if part.n_representation is not None:
            representation = np.zeros((0, part.n_representation), dtype=np.float32)
    n_rows = int(values.shape[0])
    if not likelihood.uses_library_size:
        library = np.ones(n_rows)
    elif spec.size_factor_key is not None and is_present:
        library = _columns.size_factors(mdata, name, spec.size_factor_key, rows)
    else:
        library = _row_totals(values)
    panel, levels = part.panel(), part.log_background
    return ModalityData(
        name=name,
        spec=spec,
        var_names=part.var_names,
        values=values,
        rows=locked(rows),
        library_size=locked(library.astype(np.float32)),
        batch=locked(cell_batch[cells_of(rows, n_rows)]),
        cell_batch=locked(cell_batch),
        cell_batch_names=locked(
            np.array([UNSTATED_BATCH if each is None else each for each in labels], dtype=object)
        ),
        batch_categories=part.batch_categories,
        panel=None if panel is None else locked(panel),
        new_panels={batch: locked(each) for batch, each in part.new_panels().items()},
        representation=None if representation is None else locked(representation),
        log_background=None if levels is None else locked(np.array(levels, dtype=np.float64)),
        species=part.species,
    )


def _row_totals(values: Held) -> np.ndarray:
    return values.row_totals() if isinstance(values, StoredValues) else row_totals(values)
