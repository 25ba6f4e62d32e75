"""Background of isotype controls that not all batches measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from tests.disk import on_disk
from tests.helpers import PROTEINS, cell_names, counts_modality, make_mudata

from mosaicvi.data import build_manager

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData

N_CELLS, CONTROLS = 30, ("IgG1_isotype_control", "IgG2a_isotype_control")


def drawn(measured: dict[str, list[bool]]) -> MuData:
    """Every third cell is of batch ``b``; tables say which batches measured the two controls."""
    cells = cell_names(N_CELLS)
    batch = {cell: "aab"[number % 3] for number, cell in enumerate(cells)}
    protein = counts_modality(cells, [*PROTEINS, *CONTROLS], seed=2, batch=batch)
    table = pd.DataFrame(True, index=protein.var_names, columns=["a", "b"])
    dense = protein.X.toarray()
    for column, control in enumerate(CONTROLS):
        table.loc[control] = measured[control]
        for code, seen in zip("ab", measured[control], strict=True):
            if not seen:
                dense[protein.obs["batch"] == code, len(PROTEINS) + column] = 0
    protein.X = type(protein.X)(dense)
    protein.varm["panel"] = table
    return make_mudata({"protein": protein})


@pytest.mark.parametrize("kind", ["memory", "backed"])
def test_background_is_the_mean_of_the_cells_that_measured_a_control(
    kind: str, tmp_path: Path
) -> None:
    mdata = drawn({CONTROLS[0]: [True, False], CONTROLS[1]: [True, True]})
    counts = mdata["protein"].X.toarray()[:, -2:]
    of_a = (mdata["protein"].obs["batch"] == "a").to_numpy()
    if kind != "memory":
        mdata = on_disk(mdata, tmp_path, kind)
    data = build_manager(
        mdata, {"protein": "nb_mixture"}, batch_key="batch", panel_key={"protein": "panel"}
    ).data
    found = data.modalities["protein"].log_background
    assert found is not None
    assert np.isnan(found[:-2]).all()
    expected = [(counts[of_a, 0].sum() + 0.5) / of_a.sum(), (counts[:, 1].sum() + 0.5) / N_CELLS]
    np.testing.assert_allclose(np.exp(found[-2:]), expected)


def test_a_control_that_no_cell_measured_says_nothing() -> None:
    mdata = drawn({CONTROLS[0]: [False, False], CONTROLS[1]: [True, True]})
    data = build_manager(
        mdata, {"protein": "nb_mixture"}, batch_key="batch", panel_key={"protein": "panel"}
    ).data
    found = data.modalities["protein"].log_background
    assert found is not None
    assert np.isnan(found[:-1]).all()
    assert np.isfinite(found[-1])
