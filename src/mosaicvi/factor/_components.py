"""Where factors start: principal components of all modalities together, rotated to be sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

N_ITERATIONS = 60
TOLERANCE = 1e-4
LEAST_NOISE = 1e-3


@dataclass(frozen=True)
class View:
    """Projected values of one modality.

    Attributes
    ----------
    values
        Shape ``(n_rows, n_inputs)``.
    cells
        Cell of each row, int64 ``(n_rows,)``.
    batch
        Batch code of each row, int64 ``(n_rows,)``.
    n_batches
        Number of batches.
    """

    values: np.ndarray
    cells: np.ndarray
    batch: np.ndarray
    n_batches: int


@dataclass
class Components:
    """Principal components with missing modalities.

    Attributes
    ----------
    loadings
        Modality to array ``(n_inputs, n_factors)``.
    centres
        Modality to centres of its batches, ``(n_batches, n_inputs)``.
    noise
        Modality to its noise variance.
    scores
        Posterior means, shape ``(n_cells, n_factors)``.
    """

    loadings: dict[str, np.ndarray]
    centres: dict[str, np.ndarray]
    noise: dict[str, float]
    scores: np.ndarray

    def rotate(self, rotation: np.ndarray) -> None:
        """Rotate factors, in place."""
        self.loadings = {name: b @ rotation for name, b in self.loadings.items()}
        self.scores = self.scores @ rotation


def fit_components(
    views: Mapping[str, View],
    presence: np.ndarray,
    n_factors: int,
    *,
    seed: int,
) -> Components:
    r"""Fit probabilistic principal components to modalities that not all cells have, by EM.

    Each modality has isotropic noise of its own: in the space of a modality's principal components
    noise of one variance a component would explain all that the modality does not share.

    Parameters
    ----------
    views
        Modality to its projected values.
    presence
        Bool ``(n_cells, n_modalities)``, in the order of the views.
    n_factors
        Number of factors.
    seed
        Seed of the start.

    Notes
    -----
    Tipping and Bishop (1999), with a noise variance a block as in the group factor analysis of
    Virtanen et al. (2012); cells that lack a block contribute nothing to it.
    """
    n_cells = len(presence)
    z = _first_scores(views, n_cells, n_factors, seed)
    covariance = np.zeros((n_factors, n_factors))
    patterns, code = np.unique(presence, axis=0, return_inverse=True)
    code = code.ravel()
    loadings, centres, noise = {}, {}, {}
    for name, view in views.items():
        centres[name] = np.zeros((view.n_batches, view.values.shape[1]))
        loadings[name] = np.zeros((view.values.shape[1], n_factors))
        noise[name] = 1.0
    spread = {name: np.zeros((n_factors, n_factors)) for name in views}
    before = np.inf
    for _ in range(N_ITERATIONS):
        for name, view in views.items():
            _maximise(name, view, z, spread[name], loadings, centres, noise)
        now = float(np.sum([np.log(v) * views[n].values.shape[1] for n, v in noise.items()]))
        z, spread = _expect(views, patterns, code, loadings, centres, noise)
        if abs(before - now) < TOLERANCE:
            break
        before = now
    del covariance
    return Components(loadings, centres, noise, z)


def _first_scores(views: Mapping[str, View], n_cells: int, n_factors: int, seed: int) -> np.ndarray:
    """Principal components of all values side by side, zeros where a modality is absent."""
    blocks = []
    for view in views.values():
        block = np.zeros((n_cells, view.values.shape[1]))
        centred = view.values - view.values.mean(0)
        block[view.cells] = centred / max(np.sqrt((centred**2).sum(1).mean()), 1e-9)
        blocks.append(block)
    table = np.concatenate(blocks, 1)
    _values, vectors = np.linalg.eigh(table.T @ table)
    chosen = vectors[:, ::-1][:, :n_factors]
    scores = table @ chosen
    scores /= np.maximum(scores.std(0), 1e-9)
    lacking = n_factors - scores.shape[1]
    if lacking > 0:
        extra = np.random.default_rng(seed).normal(size=(n_cells, lacking))
        scores = np.concatenate([scores, extra], 1)
    return np.asarray(scores)


def _maximise(
    name: str,
    view: View,
    z: np.ndarray,
    spread: np.ndarray,
    loadings: dict[str, np.ndarray],
    centres: dict[str, np.ndarray],
    noise: dict[str, float],
) -> None:
    """Loadings, centres and noise of one modality given the factors."""
    own = z[view.cells]
    n_rows, n_inputs = view.values.shape
    residual = view.values - own @ loadings[name].T
    counts = np.bincount(view.batch, minlength=view.n_batches)[:, None]
    one_hot = np.eye(view.n_batches)[view.batch]
    centres[name] = (one_hot.T @ residual) / np.maximum(counts, 1)
    values = view.values - centres[name][view.batch]
    second = own.T @ own + spread + 1e-6 * n_rows * np.eye(z.shape[1])
    loadings[name] = np.linalg.solve(second, own.T @ values).T
    residual = values - own @ loadings[name].T
    total = (residual**2).sum() + np.einsum("ij,jk,ik->", loadings[name], spread, loadings[name])
    noise[name] = max(float(total) / (n_rows * n_inputs), LEAST_NOISE)


def _expect(
    views: Mapping[str, View],
    patterns: np.ndarray,
    code: np.ndarray,
    loadings: dict[str, np.ndarray],
    centres: dict[str, np.ndarray],
    noise: dict[str, float],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Factors given everything else, and the summed posterior covariance for each modality."""
    n_factors = next(iter(loadings.values())).shape[1]
    pull = np.zeros((len(code), n_factors))
    for name, view in views.items():
        centred = view.values - centres[name][view.batch]
        pull[view.cells] += centred @ loadings[name] / noise[name]
    z = np.zeros_like(pull)
    spread = {name: np.zeros((n_factors, n_factors)) for name in views}
    for number, pattern in enumerate(patterns):
        cells = np.flatnonzero(code == number)
        precision = np.eye(n_factors)
        for name, shown in zip(views, pattern, strict=True):
            if shown:
                precision += loadings[name].T @ loadings[name] / noise[name]
        covariance = np.linalg.inv(precision)
        z[cells] = pull[cells] @ covariance
        for name, shown in zip(views, pattern, strict=True):
            if shown:
                spread[name] += len(cells) * covariance
    return z, spread


def varimax(loadings: np.ndarray, n_iterations: int = 200) -> np.ndarray:
    """Orthogonal rotation that makes squared loadings of a factor differ most (Kaiser 1958).

    Parameters
    ----------
    loadings
        Shape ``(n_features, n_factors)``.

    Returns
    -------
    Rotation, shape ``(n_factors, n_factors)``.
    """
    _n_features, n_factors = loadings.shape
    rotation, before = np.eye(n_factors), 0.0
    for _ in range(n_iterations):
        turned = loadings @ rotation
        target = turned**3 - turned * (turned**2).mean(0)
        left, singular, right = np.linalg.svd(loadings.T @ target)
        rotation = left @ right
        now = float(singular.sum())
        if now < before * (1 + 1e-8):
            break
        before = now
    return np.asarray(rotation)
