"""What is compiled in a process and what is read from disk are the same to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import hashlib
import torch
from mosaicvi import likelihoods
from mosaicvi._types import SparseCounts

def digest(values):
    return hashlib.sha256(values.detach().contiguous().numpy().tobytes()).hexdigest()[:12]

torch.manual_seed(0)
for n_features in (14, 300):
    for name in ("nb", "zinb", "poisson", "nb_mixture", "bernoulli"):
        density = likelihoods.get(name)
        dense = torch.poisson(torch.rand(64, n_features) * 4)
        if density.largest is not None:
            dense = dense.clamp(max=density.largest)
        heads = {h.name: torch.randn(64, n_features, requires_grad=True) for h in density.heads}
        own = {f: torch.randn(n_features, requires_grad=True) for f in density.feature_parameters}
        size = dense.sum(-1).clamp_min(1) if density.uses_library_size else None
        value = density.log_prob_of_heads(
            SparseCounts.from_dense(dense), heads, own, library_size=size, panel=None
        )
        value.sum().backward()
        given = (value, *(t.grad for t in (*heads.values(), *own.values()) if t.grad is not None))
        print(name, n_features, *map(digest, given))
"""


def test_a_process_that_compiles_has_the_numbers_of_one_that_reads(tmp_path: Path) -> None:
    """The first fit after an installation had differed in its last bits."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for _ in range(2)
    ]
    assert any(tmp_path.iterdir())
    assert len(said[0].splitlines()) == 10
    assert said[0] == said[1]
