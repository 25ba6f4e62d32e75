"""What is compiled in a process and what is read from disk are the same to the last bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mosaicvi._compiled

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


SMALL = """
import numpy as np
from mosaicvi._compiled import student_prior

raw = np.ones((2, 3), np.float32)
raw[1] = 2.0
print(student_prior(
    raw, np.zeros((0, 3), bool), np.full(3, 2, np.float32), np.ones(3, np.float32), 1.0, raw.copy()
))
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A package of the compiled functions alone, whose files a test may change."""
    source = Path(mosaicvi._compiled.__file__).parent
    shutil.copytree(
        source, tmp_path / "mosaicvi" / "_compiled", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "mosaicvi" / "__init__.py").touch()
    return tmp_path


def value_of(copied: Path, before: str = "") -> float:
    said = subprocess.run(
        [sys.executable, "-c", before + SMALL],
        env={
            **os.environ,
            "PYTHONPATH": str(copied),
            "NUMBA_CACHE_DIR": str(copied / "cache"),
            # Python's own files would be cut off, too, and are then not read.
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=True,
        capture_output=True,
        text=True,
    )
    return float(said.stdout)


def double_logarithms(copied: Path) -> None:
    """Change a function of one file that those of other files are made of."""
    file = copied / "mosaicvi" / "_compiled" / "_math.py"
    text = file.read_text()
    signature = "def log1p(x):\n"
    assert text.count(signature) == 1
    file.write_text(
        text.replace(signature, "def log1p(x):\n    return ONE + ONE\n\n\ndef _unused(x):\n")
    )


def test_what_was_compiled_of_other_sources_is_not_read(copied: Path) -> None:
    first = value_of(copied)
    assert value_of(copied) == first
    double_logarithms(copied)
    assert value_of(copied) == 3.0 != first


FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits of files")
def test_a_full_disk_is_no_reason_not_to_compute(copied: Path) -> None:
    first = value_of(copied, FULL_DISK)
    double_logarithms(copied)
    # Neither now nor later: the index may have been written, and the code not.
    assert value_of(copied, FULL_DISK) == 3.0 != first
    assert value_of(copied) == 3.0


def test_damaged_files_are_compiled_anew(copied: Path) -> None:
    first = value_of(copied)
    for file in (copied / "cache").rglob("*.nb?"):
        file.write_bytes(file.read_bytes()[:5])
    assert value_of(copied) == first
    assert value_of(copied) == first
    assert any(file.stat().st_size > 5 for file in (copied / "cache").rglob("*.nbi"))


def test_without_a_compiler_functions_are_those_of_python() -> None:
    """Numba's own switch for debugging and coverage, with which scanpy runs, too."""
    script = (
        "import numba\nfrom mosaicvi._compiled import student_prior\n"
        "print(numba.config.DISABLE_JIT, type(student_prior).__name__)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said.split() == ["1", "function"]
