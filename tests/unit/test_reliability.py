"""Counting noise in what encoders read: against a second measurement of the same cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from mudata import MuData

import mosaicvi
from mosaicvi import likelihoods
from mosaicvi.model._inputs import as_values
from mosaicvi.model._reliability import reliability

N_CELLS, N_FEATURES = 900, 150


def rates(rng: np.random.Generator, depth: float, *, structured: bool = True) -> np.ndarray:
    """Expected counts of cells with five directions of variation, ``depth`` of a cell."""
    logits = rng.normal(size=(N_CELLS, 5)) @ rng.normal(size=(5, N_FEATURES)) * structured
    share = np.exp(logits + rng.normal(size=N_FEATURES))
    return share / share.sum(1, keepdims=True) * depth


def model_of(counts: np.ndarray, likelihood: str, batch: np.ndarray) -> mosaicvi.MosaicVI:
    """Beside a panel that nothing is asked of."""
    names = [f"c{i}" for i in range(N_CELLS)]
    obs = pd.DataFrame({"batch": batch}, index=names)
    other = np.random.default_rng(5).poisson(50.0, (N_CELLS, 8)).astype(np.float32)
    mdata = MuData(
        {
            "own": AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs),
            "other": AnnData(sp.csr_matrix(other), obs=obs),
        }
    )
    for name in mdata.mod:
        mdata[name].var_names = [f"{name}{i}" for i in range(mdata[name].n_vars)]
    mosaicvi.MosaicVI.setup_mudata(
        mdata, modalities={"own": likelihood, "other": "nb"}, batch_key={"own": "batch"}
    )
    return mosaicvi.MosaicVI(mdata)


def measured_reliability(model: mosaicvi.MosaicVI) -> float:
    modality = model._cells(None).data.modalities["own"]
    width = int(model.module.projections["own"].scale.shape[0])
    return reliability(modality, np.arange(N_CELLS), n_components=width)


@pytest.mark.parametrize("depth", [5.0, 20.0, 100.0, 1000.0])
@pytest.mark.parametrize("likelihood", ["nb", "poisson"])
def test_it_is_what_a_second_measurement_of_the_cells_repeats(
    depth: float, likelihood: str
) -> None:
    rng = np.random.default_rng(int(depth))
    expected = rates(rng, depth)
    counts = rng.poisson(expected)
    counts[counts.sum(1) == 0, 0] = 1
    model = model_of(counts, likelihood, np.repeat("one", N_CELLS))
    projection = model.module.projections["own"]
    target = float(np.median(counts.sum(1)))

    # Two further measurements: the projection was fitted to the first, which flatters it.
    found = []
    for table in (rng.poisson(expected), rng.poisson(expected)):
        depths = torch.tensor(table.sum(1)).float()
        values = as_values(sp.csr_matrix(table.astype(np.float32)))
        encoded = likelihoods.get(likelihood).encode(values, depths, target_sum=target)
        scores = projection(encoded, depths)[:, : projection.scale.shape[0]].numpy()
        found.append(scores - scores.mean(0))
    repeated = (found[0] * found[1]).sum() / np.sqrt((found[0] ** 2).sum() * (found[1] ** 2).sum())
    assert measured_reliability(model) == pytest.approx(repeated, abs=0.15)


def test_depth_tells_and_noise_does_not() -> None:
    rng = np.random.default_rng(1)
    one = np.repeat("one", N_CELLS)
    few, many = (
        measured_reliability(model_of(rng.poisson(rates(rng, depth)) + 1, "nb", one))
        for depth in (20.0, 2000.0)
    )
    noise = measured_reliability(
        model_of(rng.poisson(rates(rng, 300.0, structured=False)), "nb", one)
    )
    assert noise < 0.05
    assert few < many
    assert many > 0.9


def test_what_batches_share_is_no_signal() -> None:
    """Noise with another mean in each batch is noise."""
    rng = np.random.default_rng(2)
    batch = np.arange(N_CELLS) % 3
    level = rates(rng, 300.0, structured=False) * rng.gamma(1.0, 1.0, (3, N_FEATURES))[batch]
    model = model_of(rng.poisson(level), "nb", batch.astype(str))
    assert measured_reliability(model) < 0.05


def test_continuous_values_have_no_counts_to_split() -> None:
    values = np.random.default_rng(3).normal(size=(N_CELLS, N_FEATURES))
    assert measured_reliability(model_of(values, "normal", np.repeat("one", N_CELLS))) == 1.0
