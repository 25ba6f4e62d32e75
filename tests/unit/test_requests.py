"""Numbers and batches that a model is asked for: taken where they make sense, else refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.fits import build, without_truth
from tests.helpers import make_mudata

from mosaicvi import FactorVI, MosaicVI
from mosaicvi._errors import DataError, RequestError, check_whole
from mosaicvi.datasets import SimulatedModality, simulate
from mosaicvi.model._cells import select
from mosaicvi.model._requests import batch_codes
from mosaicvi.model._summaries import check_quantiles


@pytest.fixture(scope="module")
def model() -> MosaicVI:
    specs = {
        "rna": SimulatedModality.rna(20, likelihood="nb"),
        "protein": SimulatedModality.protein(4),
    }
    made = build(without_truth(simulate(60, specs, n_latent=3, seed=1)), n_latent=3, n_hidden=8)
    made.is_trained_ = True  # what is asked for is looked at first
    return made


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_whole_numbers_pass(value: Any) -> None:
    check_whole(value, "n")


@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, "3", None, True])
def test_what_is_no_number_of_things_is_refused(value: Any) -> None:
    with pytest.raises(RequestError, match="key 'n': found"):
        check_whole(value, "n")


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        ("1", (1,)),
        (1, (1,)),
        (np.int64(2), (2,)),
        (["0", 2], (0, 2)),
        (np.array([1, 2]), (1, 2)),
        (np.array("2"), (2,)),
        (1.0, (1,)),  # the column of a batch that some cells lack holds 1.0
    ],
)
def test_batches_are_asked_for_by_name_or_number(given: Any, codes: tuple[int, ...]) -> None:
    assert batch_codes("rna", given, ["0", "1", "2"], ["0", "1", "2"]) == codes


@pytest.mark.parametrize("given", ["3", 3, "0", [], None, [None], 1.5])
def test_other_batches_are_refused(given: Any) -> None:
    """Batch 0 is there, but did not measure the modality."""
    with pytest.raises(RequestError, match=r"modality 'rna', key 'transform_batch'.*'1', '2'"):
        batch_codes("rna", given, ["0", "1", "2"], ["1", "2"])


def test_a_single_quantile_is_one() -> None:
    assert check_quantiles(0.5) == (0.5,)
    with pytest.raises(RequestError, match="quantiles"):
        check_quantiles(5.0)


@pytest.mark.parametrize(
    "given",
    [
        {"n_latent": 0},
        {"n_latent": 2.5},
        {"n_hidden": 0},
        {"n_layers": -1},
        {"n_projection": 0},
        {"batch_prior_scale": -1.0},
        {"batch_prior_scale": float("nan")},
    ],
)
def test_a_network_without_units_is_refused(model: MosaicVI, given: dict[str, Any]) -> None:
    (key,) = given
    with pytest.raises(RequestError, match=f"key '{key}'"):
        replace(model.network, **given)


def test_encoders_may_be_linear(model: MosaicVI) -> None:
    assert replace(model.network, n_layers=0).n_layers == 0


@pytest.mark.parametrize("n_samples", [0, -1, 2.5])
def test_no_draws_are_refused(model: MosaicVI, n_samples: Any) -> None:
    with pytest.raises(RequestError, match="n_samples"):
        model.impute("protein", n_samples=n_samples)
    with pytest.raises(RequestError, match="n_samples"):
        model.get_elbo(n_samples=n_samples)
    with pytest.raises(RequestError, match="n_samples"):
        model.get_reconstruction_error(n_samples=n_samples)


@pytest.mark.parametrize("seed", ["a", -1, 1.5, 2**32])
def test_a_seed_is_a_whole_number(model: MosaicVI, seed: Any) -> None:
    with pytest.raises(RequestError, match="key 'seed'"):
        MosaicVI(model.adata, seed=seed)
    with pytest.raises(RequestError, match="key 'seed'"):
        model.impute("protein", seed=seed)


@pytest.mark.parametrize("kind", [MosaicVI, FactorVI])
def test_a_modality_that_says_nothing_is_refused(kind: type[MosaicVI | FactorVI]) -> None:
    mdata = without_truth(
        simulate(60, {"rna": SimulatedModality.rna(20), "protein": SimulatedModality.protein(4)})
    )
    mdata.mod["protein"].X = np.zeros(mdata["protein"].shape)
    kind.setup_mudata(mdata, {"rna": "nb", "protein": "nb"})
    with pytest.raises(DataError, match=r"'protein'.*all .* features are constant"):
        kind(mdata)
    # One feature that differs, in the last cell, is enough.
    mdata.mod["protein"].X[-1, 2] = 3.0
    kind.setup_mudata(mdata, {"rna": "nb", "protein": "nb"})
    assert kind(mdata).module is not None


def test_what_is_no_graph_is_refused(model: MosaicVI) -> None:
    with pytest.raises(RequestError, match="key 'graph': found str"):
        MosaicVI(model.adata, graph="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [[], np.zeros(60, dtype=bool), [False] * 60])
def test_no_cell_selected_is_refused(model: MosaicVI, given: Any) -> None:
    with pytest.raises(RequestError, match="'indices': no cell selected"):
        model.get_latent_representation(indices=given)


@pytest.mark.parametrize("given", [[[1, 2]], np.ones((60, 1), dtype=bool)])
def test_cells_are_selected_in_one_dimension(model: MosaicVI, given: Any) -> None:
    with pytest.raises(RequestError, match="'indices': an array of 2 dimensions"):
        model.get_latent_representation(indices=given)


def test_a_mask_with_names_goes_by_these(model: MosaicVI) -> None:
    data, names = model.adata_manager.data, model.adata.obs_names
    mask = pd.Series(np.arange(60) < 5, index=names)
    more = pd.concat([mask, pd.Series({"elsewhere": True})])
    for given in (
        mask,
        mask[::-1],
        mask[::-1].astype("boolean"),
        more,
        mask.reset_index(drop=True),
    ):
        np.testing.assert_array_equal(select(data, given), np.arange(5))
    np.testing.assert_array_equal(select(data, pd.Series([4, 2])), [4, 2])
    for given in (mask[:5], mask.reset_index(drop=True)[::-1], mask.iloc[[0, *range(60)]]):
        with pytest.raises(RequestError, match=r"'indices': a mask whose index (lacks|names)"):
            select(data, given)


def test_a_query_without_cells_is_said_to_have_none(model: MosaicVI) -> None:
    with pytest.raises(DataError, match="the MuData has no cells"):
        model.get_latent_representation(model.adata[[]].copy())
    parts = {"rna": model.adata["rna"][:0].copy(), "other": model.adata["protein"].copy()}
    with pytest.raises(DataError, match="no cell has 'rna'"):
        model.get_latent_representation(make_mudata(parts))
