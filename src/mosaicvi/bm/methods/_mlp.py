"""An ensemble of multilayer perceptrons on principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from mosaicvi.bm.methods._regression import Floats, Predictor, Regression

N_NETWORKS = 5
N_HIDDEN, DROPOUT = 128, 0.2
BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 128, 3e-3, 0.05
MIN_STEPS, MAX_EPOCHS = 750, 60
"""A fit takes 25 epochs, or more where those are fewer than 750 steps."""


class PerceptronEnsemble(Regression):
    """Mean of five perceptrons (two layers of 128, dropout, weight decay) on 64 components.

    scikit-learn's perceptron has neither dropout nor layer normalisation, and is the weaker
    opponent for it; so these are torch networks, trained on squared error with AdamW under a
    one-cycle schedule. Inputs are divided by the root of their own standard deviation and the first
    component's: half way between none and full whitening. Outcomes are standardised a feature, so
    that each counts alike.
    """

    name = "mlp"
    packages = ("scikit-learn", "torch")

    def learn(self, inputs: Floats, outcome: Floats) -> Predictor:
        """Train five networks."""
        spread = inputs.std(axis=0)
        unit = np.sqrt(np.maximum(spread, 1e-6) * spread.max())
        centre, width = outcome.mean(axis=0), np.maximum(outcome.std(axis=0), 1e-6)
        left = torch.as_tensor(inputs / unit, dtype=torch.float32)
        right = torch.as_tensor((outcome - centre) / width, dtype=torch.float32)
        steps = max(1, left.shape[0] // BATCH_SIZE)
        self._epochs = min(MAX_EPOCHS, max(25, round(MIN_STEPS / steps)))
        networks = [
            _train(left, right, self._epochs, seed=N_NETWORKS * self.task.seed + number)
            for number in range(N_NETWORKS)
        ]

        @torch.no_grad()
        def predictor(cells: Floats) -> Floats:
            given = torch.as_tensor(cells / unit, dtype=torch.float32)
            outputs = torch.stack([network(given) for network in networks]).mean(0)
            return np.asarray(centre + width * outputs.numpy().astype(np.float64))

        return predictor

    def details(self) -> dict[str, Any]:
        """Epochs of the final networks."""
        return {"epochs": self._epochs}


def _train(inputs: torch.Tensor, outcome: torch.Tensor, epochs: int, *, seed: int) -> nn.Module:
    """One perceptron, in evaluation mode."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    width = inputs.shape[1]
    for _ in range(2):
        layers += [nn.Linear(width, N_HIDDEN), nn.LayerNorm(N_HIDDEN), nn.GELU()]
        layers.append(nn.Dropout(DROPOUT))
        width = N_HIDDEN
    network = nn.Sequential(*layers, nn.Linear(width, outcome.shape[1]))
    n_cells = inputs.shape[0]
    size = min(BATCH_SIZE, n_cells)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=epochs * (n_cells // size) + 1, pct_start=0.2
    )
    for _ in range(epochs):
        order = torch.randperm(n_cells)
        for start in range(0, n_cells - size + 1, size):
            rows = order[start : start + size]
            loss = nn.functional.mse_loss(network(inputs[rows]), outcome[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()
