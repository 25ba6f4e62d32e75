r"""Library sizes of answers: those of cells that were measured, at what other modalities tell.

How many counts a cell has depends on its type and, in an assay that counts the same cell, on how
many the other assay found: proteins of ``pbmc10k_cite`` explain 70 % of the variance of the log of
RNA counts. So a draw for cell c is the size of a measured cell i, shifted by what is known of both,

.. math:: \log \ell_c = \log \ell_i + w^\top (x_c - x_i),

with :math:`x` the place in the latent space that a cell's *other* modalities give it, and the log
of their counts beside the mean of their batch. Residuals :math:`\log \ell_i - w^\top x_i` are those
of the batch that is answered for, where it measured, so that totals of a batch stay its own. By
places to which the modality itself contributed, :math:`w` would be that of its own depth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import RidgeCV

from mosaicvi import likelihoods

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mosaicvi.data._mosaic_data import ModalityData, MosaicData
    from mosaicvi.model._posterior import PosteriorSampler

MAX_POOL = 2000
"""Cells of a batch whose library sizes are kept, at most."""

MOST_KEPT, LEAST_POOL = 100_000, 100
"""Cells kept of all batches: of many, each has a smaller part, but not less than so many cells."""

LEAST_CELLS = 100
"""Cells with counts and another modality from which on a regression is fitted."""

PENALTIES = tuple(float(each) for each in np.logspace(-1, 5, 13))
"""Ridge penalties among which generalised cross-validation chooses."""


@dataclass(frozen=True)
class LibraryRule:
    """What cells tell of the log of a library size.

    Attributes
    ----------
    latent
        Weights of latent dimensions, ``(n_latent,)``.
    depth
        Modality to the weight of the log1p of its counts.
    typical
        Modality to the mean of that log1p in each of its batches, ``(n_batches,)``; NaN where no
        cell of the regression had it.
    at_draws
        Whether it is read at draws of places (of cells that hold the modality) or at posterior
        means.
    """

    latent: np.ndarray
    depth: Mapping[str, float]
    typical: Mapping[str, np.ndarray]
    at_draws: bool

    def told(
        self, places: np.ndarray, data: MosaicData, cells: np.ndarray, evidence: Sequence[str]
    ) -> np.ndarray:
        """What is known of the log of library sizes, up to a constant, ``(..., n_cells)``.

        Parameters
        ----------
        places
            In the latent space, ``(..., n_cells, n_latent)``.
        data
            Registered data.
        cells
            Rows of the MuData.
        evidence
            Modalities whose counts may be used.
        """
        # Row by row: last bits of a matrix product depend on how many rows there are.
        told = (places * self.latent).sum(axis=-1)
        for name in self.depth.keys() & set(evidence) & data.modalities.keys():
            modality = data.modalities[name]
            told = told + self.depth[name] * depth_of(modality, cells, self.typical[name])
        return np.asarray(told, dtype=np.float32)


@dataclass(frozen=True)
class LibraryPool:
    """Library sizes from which answers for unmeasured cells draw.

    Attributes
    ----------
    sizes, batches
        Size and batch code of cells that were measured, ``(n_kept,)`` each. Cells without a count
        are among them: they were measured as well.
    told
        What the rule says of these cells, ``(n_kept,)``; zeros without one.
    rule
        What cells tell of their sizes; None: nothing.
    """

    sizes: np.ndarray
    batches: np.ndarray
    told: np.ndarray
    rule: LibraryRule | None = None

    def draw(
        self, codes: np.ndarray, uniform: np.ndarray, told: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Library sizes, and the batch each comes from, both of ``uniform``'s shape.

        Parameters
        ----------
        codes
            Batch that is answered for, broadcastable to ``uniform``.
        uniform
            Noise on [0, 1), ``(n_samples, n_cells)``.
        told
            What the rule says of the cells asked about, broadcastable to ``uniform``. Nothing
            beyond what it says of cells that were measured is believed.
        """
        with np.errstate(divide="ignore"):
            rest = np.log(self.sizes) - self.told
        drawn, source = np.empty_like(uniform), np.empty(uniform.shape, dtype=np.int64)
        wanted = np.broadcast_to(codes, uniform.shape)
        known = np.clip(told, self.told.min(), self.told.max()) if len(self.told) else told
        shift = np.broadcast_to(known, uniform.shape)
        for code in np.unique(wanted):
            pool = np.flatnonzero(self.batches == code)
            pool = np.arange(len(self.sizes)) if len(pool) == 0 else pool
            pool = pool[np.argsort(rest[pool], kind="stable")]
            asked = wanted == code
            picks = pool[(uniform[asked] * len(pool)).astype(np.int64)]
            drawn[asked] = self.sizes[picks] * np.exp(shift[asked] - self.told[picks])
            source[asked] = self.batches[picks]
        return drawn, source

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, for a file."""
        found = {"sizes": self.sizes, "batches": self.batches, "told": self.told}
        if self.rule is not None:
            rule = self.rule
            found |= {"latent": rule.latent, "at_draws": np.array(rule.at_draws)}
            for name, weight in rule.depth.items():
                found[f"depth.{name}"] = np.array(weight, dtype=np.float32)
                found[f"typical.{name}"] = rule.typical[name]
        return found

    @classmethod
    def from_arrays(cls, found: Mapping[str, np.ndarray]) -> LibraryPool:
        """What :meth:`arrays` gave; of files without ``told``, sizes of which nothing is told."""
        sizes = found["sizes"]
        rule = None
        if "latent" in found:
            names = [name.removeprefix("depth.") for name in found if name.startswith("depth.")]
            rule = LibraryRule(
                found["latent"],
                {name: float(found[f"depth.{name}"]) for name in names},
                {name: found[f"typical.{name}"] for name in names},
                bool(found["at_draws"]),
            )
        return cls(sizes, found["batches"], found.get("told", np.zeros_like(sizes)), rule)


@dataclass
class _Evidence:
    """What the other modalities say of cells that hold one.

    Attributes
    ----------
    names
        Those used of each cell, by the code in ``used``.
    used
        Code of each cell, ``(n_cells,)``.
    """

    names: dict[int, tuple[str, ...]] = field(default_factory=dict)
    used: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        for code, names in self.names.items():
            yield names, np.flatnonzero(self.used == code)


def depth_of(modality: ModalityData, cells: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Log1p of the counts of cells beside the mean of their batch, ``(n_cells,)``.

    Zero where a cell lacks the modality, or no such mean is known.
    """
    rows = modality.rows[cells]
    held = rows >= 0
    found = np.zeros(len(cells), dtype=np.float32)
    codes = modality.batch[rows[held]]
    known = np.where(codes >= 0, typical[codes], np.nan)
    found[held] = np.nan_to_num(np.log1p(modality.library_size[rows[held]]) - known)
    return found


def library_pools(data: MosaicData) -> dict[str, LibraryPool]:
    """Pools of a model before any training: nothing is told of sizes.

    Returns
    -------
    Modality with library sizes to at most :data:`MAX_POOL` cells a batch, fewer where batches are
    many.
    """
    return {name: _pool(data.modalities[name], rows) for name, rows in _kept(data).items()}


def fit_libraries(sampler: PosteriorSampler, training: np.ndarray) -> dict[str, LibraryPool]:
    """Pools of a trained model, with what training cells' other modalities tell of their sizes.

    Where too few cells have another modality, places are those that the modality itself gives, and
    the rule is read at draws of such places: answers that are carried over from its cells.

    Parameters
    ----------
    sampler
        Posterior of the trained network, of its own cells.
    training
        Rows of the MuData that trained it.
    """
    data = sampler.data
    pools = {}
    for name, rows in _kept(data).items():
        pool, cells = _pool(data.modalities[name], rows), _cells_of(data.modalities[name], rows)
        usable = np.isin(cells, training) & (pool.sizes > 0)
        evidence = _others(data, name, cells)
        paired = np.array([len(evidence.names[code]) > 0 for code in evidence.used], dtype=bool)
        at_draws = int((usable & paired).sum()) < LEAST_CELLS
        if at_draws:
            evidence = _Evidence({0: (name,)}, np.zeros(len(cells), dtype=np.int64))
        fitted = usable if at_draws else usable & paired
        if int(fitted.sum()) >= LEAST_CELLS:
            pool = _told(sampler, pool, name, cells, evidence, fitted, at_draws=at_draws)
        pools[name] = pool
    return pools


def _kept(data: MosaicData) -> dict[str, np.ndarray]:
    """Rows of each modality with library sizes whose sizes are kept."""
    rng = np.random.default_rng(0)
    found = {}
    for name, modality in data.modalities.items():
        if not likelihoods.get(modality.spec.likelihood).uses_library_size:
            continue
        kept, codes = [], np.unique(modality.batch)
        most = min(MAX_POOL, max(LEAST_POOL, MOST_KEPT // max(len(codes), 1)))
        for code in codes:
            rows = np.flatnonzero(modality.batch == code)
            kept.append(rows if len(rows) <= most else rng.choice(rows, most, replace=False))
        found[name] = np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
    return found


def _pool(modality: ModalityData, rows: np.ndarray) -> LibraryPool:
    sizes = modality.library_size[rows].astype(np.float32)
    return LibraryPool(sizes, modality.batch[rows], np.zeros_like(sizes))


def _cells_of(modality: ModalityData, rows: np.ndarray) -> np.ndarray:
    """Rows of the MuData of rows of a modality."""
    cell = np.empty(modality.n_cells, dtype=np.int64)
    held = np.flatnonzero(modality.rows >= 0)
    cell[modality.rows[held]] = held
    return np.asarray(cell[rows])


def _others(data: MosaicData, name: str, cells: np.ndarray) -> _Evidence:
    """Some of the other modalities of each cell, drawn so that a rule serves any part of them."""
    others = [other for other in data.modalities if other != name]
    held = np.zeros((len(cells), len(others)), dtype=bool)
    for column, other in enumerate(others):
        held[:, column] = data.modalities[other].rows[cells] >= 0
    drawn = held & (np.random.default_rng(0).random(held.shape) < 0.5)
    drawn = np.where(drawn.any(1, keepdims=True), drawn, held)
    used = drawn @ (1 << np.arange(len(others), dtype=np.int64))
    names = {
        int(code): tuple(other for bit, other in enumerate(others) if code >> bit & 1)
        for code in np.unique(used)
    }
    return _Evidence(names, used)


def _told(
    sampler: PosteriorSampler,
    pool: LibraryPool,
    name: str,
    cells: np.ndarray,
    evidence: _Evidence,
    fitted: np.ndarray,
    *,
    at_draws: bool,
) -> LibraryPool:
    """A pool with a rule, fitted to some of its cells."""
    data, n_latent = sampler.data, sampler.module.n_latent
    places = np.zeros((len(cells), n_latent), dtype=np.float32)
    # A cell of one modality has no other place than its own.
    for names, chosen in evidence:
        for chunk in sampler.latent(cells[chosen], names or (name,)):
            places[chosen[chunk.places]] = chunk.posterior.mean.cpu().numpy()
    counted = [] if at_draws else _counted(data, name)
    typical = {other: _typical(data.modalities[other], cells[fitted]) for other in counted}
    columns = [places.astype(np.float64)]
    for other in counted:
        column = np.zeros((len(cells), 1))
        for names, chosen in evidence:
            if other in names:
                modality = data.modalities[other]
                column[chosen, 0] = depth_of(modality, cells[chosen], typical[other])
        columns.append(column)
    known = np.concatenate(columns, axis=1)
    weights = _regression(known[fitted], np.log(pool.sizes[fitted]), pool.batches[fitted])
    # As a file holds them, so that a loaded model has the same answers.
    depth = {other: float(np.float32(weights[n_latent + i])) for i, other in enumerate(counted)}
    rule = LibraryRule(weights[:n_latent].astype(np.float32), depth, typical, at_draws)
    return LibraryPool(pool.sizes, pool.batches, (known @ weights).astype(np.float32), rule)


def _counted(data: MosaicData, name: str) -> list[str]:
    """Other modalities whose cells have library sizes."""
    return [
        other
        for other, modality in data.modalities.items()
        if other != name and likelihoods.get(modality.spec.likelihood).uses_library_size
    ]


def _typical(modality: ModalityData, cells: np.ndarray) -> np.ndarray:
    """Mean log1p of the counts of some cells in each batch; NaN where none is."""
    rows = modality.rows[cells]
    rows = rows[rows >= 0]
    n_batches = len(modality.batch_categories)
    n_cells = np.bincount(modality.batch[rows], minlength=n_batches)
    total = np.bincount(
        modality.batch[rows], np.log1p(modality.library_size[rows]), minlength=n_batches
    )
    with np.errstate(invalid="ignore"):
        return np.asarray(total / n_cells, dtype=np.float32)


def _regression(known: np.ndarray, log_size: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Weights of a ridge regression within batches, ``(n_columns,)``."""
    _, of_batch = np.unique(batches, return_inverse=True)
    n_cells = np.bincount(of_batch)
    target = log_size - (np.bincount(of_batch, log_size) / n_cells)[of_batch]
    centred = known.copy()
    for column in centred.T:
        column -= (np.bincount(of_batch, column) / n_cells)[of_batch]
    scale = centred.std(axis=0)
    scale = np.where(scale > 0, scale, np.inf)
    ridge = RidgeCV(PENALTIES, fit_intercept=False).fit(centred / scale, target)
    return np.asarray(ridge.coef_ / scale)
