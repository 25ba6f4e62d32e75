"""Labels that are numbers, and requests that tools of alignment refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from tests.fits import QUIET, build, fit, small_mosaic

from mosaicvi import FactorVI, tl
from mosaicvi._errors import DataError, RequestError

if TYPE_CHECKING:
    from mudata import MuData

    from mosaicvi import MosaicVI


@pytest.fixture(scope="module")
def model() -> MosaicVI:
    return fit(build(small_mosaic(160, n_types=3)), max_epochs=2)


@pytest.fixture
def mdata(model: MosaicVI) -> MuData:
    """The model's cells, with codes of types in either modality, some missing in the protein's."""
    copy: MuData = model.adata.copy()
    codes = copy.obs["cell_type"].astype("category").cat.codes.astype(int)
    rna, protein = copy.mod["rna"].obs, copy.mod["protein"].obs
    rna["code"] = codes[rna.index]
    protein["code"] = codes[protein.index].where(protein.index.isin(rna.index)).astype(float)
    return copy


@pytest.mark.parametrize("categorical", [False, True])
def test_integers_and_floats_are_one_vocabulary(
    model: MosaicVI, mdata: MuData, categorical: bool
) -> None:
    protein = mdata.mod["protein"].obs
    if categorical:
        protein["code"] = pd.Categorical(protein["code"])
    tl.transfer_labels(model, "code", source="rna", target="protein", adata=mdata)
    assert set(mdata.obs["mosaicvi_code"].cat.categories) <= {"0", "1", "2"}
    protein["code"] = 0.5
    mdata.mod["rna"].obs["code"] += 7
    mdata.mod["protein"].obs["code"] = np.where(
        protein.index.isin(mdata.mod["rna"].obs_names), np.nan, 0.5
    )
    with pytest.raises(DataError, match=r"share none"):
        tl.transfer_labels(model, "code", source="rna", target="protein", adata=mdata)


@pytest.mark.parametrize("k", [1.5, 2.0, "1", 0])
def test_numbers_of_matches_are_whole(model: MosaicVI, k: Any) -> None:
    with pytest.raises(RequestError, match=r"'k'.*a whole number, at least 1"):
        tl.match_cells(model, k=k)


def test_separate_models_of_a_factor_model_are_the_users() -> None:
    mdata = small_mosaic(80)
    FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"}, batch_key="batch")
    factors = FactorVI(mdata, n_factors=2)
    factors.train(1, **QUIET)
    with pytest.raises(RequestError, match=r"'separate'.*FactorVI.*'protein'.*each modality alone"):
        tl.negative_transfer(factors, "cell_type", separate={"rna": factors})
    same = tl.negative_transfer(
        factors, "cell_type", separate={"rna": factors, "protein": factors}, n_resamples=5
    )
    np.testing.assert_array_equal(same["difference"], 0)
