"""What a fitted model says of the graph does not depend on the order of its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from tests.fits import build, fit, small_mosaic
from tests.helpers import make_mudata

from mosaicvi import MosaicVI, tl
from mosaicvi.graph import Edges, FeatureGraph

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData

pytestmark = [
    pytest.mark.filterwarnings("ignore::mosaicvi._errors.MosaicviWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def permuted(mdata: MuData) -> MuData:
    rng = np.random.default_rng(5)
    parts = {name: part[rng.permutation(part.n_obs)].copy() for name, part in mdata.mod.items()}
    return make_mudata(parts)


def test_edges_and_consistency(tmp_path: Path) -> None:
    mdata = small_mosaic(400, patterns={"rna": 0.5, "protein": 0.5})
    features = {name: list(mdata[name].var_names) for name in ("rna", "protein")}
    edges = Edges.of(np.arange(8), len(features["rna"]) + np.arange(8), 1, 0.9, "test")
    graph = FeatureGraph(features, edges)
    model = fit(build(mdata, graph=graph), 2)
    model.save(tmp_path / "model")
    other = MosaicVI.load(tmp_path / "model", permuted(mdata), accelerator="cpu")
    assert list(other.adata.obs_names) != list(mdata.obs_names)
    left, right = model.get_edge_confidence(), other.get_edge_confidence()
    np.testing.assert_allclose(left["confidence"], right["confidence"], rtol=1e-5)
    options = {"n_metacells": 12, "n_permutations": 3}
    pd.testing.assert_frame_equal(
        tl.integration_consistency(model, graph, **options),
        tl.integration_consistency(other, graph, **options),
        rtol=1e-5,
    )
