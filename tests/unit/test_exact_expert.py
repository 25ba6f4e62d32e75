"""The closed-form expert of normal modalities, against the Gaussian posterior itself."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import torch
from anndata import AnnData

import mosaicvi
from mosaicvi.factor._objective import FactorObjective
from mosaicvi.factor._sweeps import sweep_weights

N_CELLS, N_FACTORS = 60, 2


def cohort(missing: float) -> mudata.MuData:
    """Two normal modalities, of which one lacks cells and the other values."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(N_CELLS, N_FACTORS))
    names = np.array([f"c{i:02d}" for i in range(N_CELLS)])
    parts = {}
    for name, n_features in (("a", 12), ("b", 9)):
        values = 3 + z @ rng.normal(size=(N_FACTORS, n_features))
        values = (values + 0.5 * rng.normal(size=values.shape)).astype(np.float32)
        keep = slice(None) if name == "a" else slice(0, 40)
        if name == "a":
            values[rng.random(values.shape) < missing] = np.nan
        var = pd.DataFrame(index=[f"{name}{i}" for i in range(n_features)])
        parts[name] = AnnData(values[keep], pd.DataFrame(index=names[keep]), var)
    return mudata.MuData(parts)


def expected(model: mosaicvi.FactorVI, mdata: mudata.MuData) -> np.ndarray:
    """Posterior means by one linear system a cell."""
    k = len(model.factors)
    precision = np.tile(np.eye(k), (N_CELLS, 1, 1))
    pull = np.zeros((N_CELLS, k))
    for name, part in mdata.mod.items():
        decoder = model.module.decoders[name]
        table = model.get_weights(name, tidy=True)
        mean = table["weight"].to_numpy().reshape(-1, k)
        variance = table["sd"].to_numpy().reshape(-1, k) ** 2
        scale = decoder.feature_parameters["log_scale"].detach().exp().numpy()
        noise = decoder.feature_parameters["log_sd"].detach().exp().numpy() ** 2
        bias = decoder.biases["mean"].detach().numpy()
        rows = mdata.obs_names.get_indexer(part.obs_names)
        for row, values in zip(rows, part.X, strict=True):
            for f in np.flatnonzero(np.isfinite(values)):
                second = np.outer(mean[f], mean[f]) + np.diag(variance[f])
                precision[row] += second / noise[f]
                pull[row] += mean[f] * (values[f] / scale[f] - bias[f]) / noise[f]
    return np.linalg.solve(precision, pull[..., None])[..., 0]


def fitted(missing: float) -> tuple[mosaicvi.FactorVI, mudata.MuData]:
    mdata = cohort(missing)
    mosaicvi.FactorVI.setup_mudata(mdata, {"a": "normal", "b": "normal"})
    model = mosaicvi.FactorVI(mdata, n_factors=N_FACTORS)
    model.train(5, accelerator="cpu", enable_progress_bar=False)
    return model, mdata


def test_factors_are_the_gaussian_posterior() -> None:
    model, mdata = fitted(0.0)
    np.testing.assert_allclose(
        model.get_latent_representation(), expected(model, mdata), rtol=2e-3, atol=2e-3
    )


def test_missing_values_say_nothing() -> None:
    model, mdata = fitted(0.3)
    np.testing.assert_allclose(
        model.get_latent_representation(), expected(model, mdata), rtol=2e-3, atol=2e-3
    )


def test_sweeps_do_not_lower_the_bound() -> None:
    model, _mdata = fitted(0.3)
    data = model._cells(None)
    cells = np.arange(N_CELLS)
    batch = data.dataset.fetch(cells)

    def loss() -> float:
        torch.manual_seed(0)
        objective = FactorObjective(N_CELLS)
        with torch.no_grad():
            return float(np.mean([objective(model.module, batch).total for _ in range(300)]))

    losses = [loss()]
    for _ in range(3):
        sweep_weights(model.module, data.dataset, cells, n_sweeps=1)
        losses.append(loss())
    assert losses[-1] < losses[0] - 0.01
    assert max(np.diff(losses)) < 0.02
