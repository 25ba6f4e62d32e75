"""Training cells that are read as if they had been sequenced less deeply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from tests.fits import build, small_mosaic

from mosaicvi._errors import RequestError
from mosaicvi.model._thinning import LEAST_SHARE, Thinning, thinned_inputs

if TYPE_CHECKING:
    from mosaicvi import MosaicVI
    from mosaicvi.data._thinned import ThinnedInputs

SHARE = 0.5


def test_counts_are_binomial() -> None:
    counts = sp.csr_matrix(np.full((4, 5000), 8.0, dtype=np.float32))
    share = np.array([0.1, 0.4, 0.9, 1.0])
    part = slice(0, 4)
    thin = Thinning(share, 0)(counts, part)
    assert thin.dtype == np.float32
    np.testing.assert_array_equal(counts.data, 8.0)
    dense = thin.toarray()
    np.testing.assert_allclose(dense.mean(1), 8 * share, atol=0.1)
    np.testing.assert_allclose(dense.var(1), 8 * share * (1 - share), atol=0.12)
    assert (thin.data > 0).all()
    np.testing.assert_array_equal(Thinning(share, 0)(counts, part).toarray(), dense)
    assert (Thinning(share, 1)(counts, part).toarray() != dense).any()


@pytest.fixture
def model() -> MosaicVI:
    return build(small_mosaic(200))


def inputs(model: MosaicVI, training: np.ndarray, share: float = SHARE) -> ThinnedInputs | None:
    prepared = model._cells(None)
    return thinned_inputs(prepared, model.module_spec, model.module, training, share=share, seed=0)


def test_some_training_cells_are_read_thinned(model: MosaicVI) -> None:
    prepared = model._cells(None)
    present = prepared.data.modalities["rna"].present
    cells = np.arange(prepared.data.n_cells)
    training = cells[::2]
    found = inputs(model, training)
    assert found is not None
    batch = prepared.dataset.fetch(cells)
    before = {name: part.encoder_input.clone() for name, part in batch.modalities.items()}
    changed = torch.zeros(len(cells), dtype=torch.bool)
    for _ in range(20):
        after = found.into(batch)
        rna = after.modalities["rna"]
        moved = (rna.encoder_input != before["rna"]).any(1)
        changed[rna.positions[moved]] = True
        assert rna.stored is batch.modalities["rna"].stored
        # Proteins are read as they are, and depth is the cell's own.
        torch.testing.assert_close(after.modalities["protein"].encoder_input, before["protein"])
        depth = model.module.projections["rna"].scale.shape[0]
        torch.testing.assert_close(rna.encoder_input[:, depth], before["rna"][:, depth])
        assert 0.1 < moved.float().mean() < 0.4
    expected = np.isin(cells, training) & present
    np.testing.assert_array_equal(changed.numpy(), expected)
    for name, part in batch.modalities.items():  # the minibatch itself stays
        torch.testing.assert_close(part.encoder_input, before[name])


def test_copies_are_projections_of_thinned_counts(model: MosaicVI) -> None:
    """As many counts as shares say: a copy of a deep cell lies where such a cell would."""
    prepared = model._cells(None)
    found = inputs(model, np.arange(prepared.data.n_cells), share=1.0)
    assert found is not None
    copies = found._modalities["rna"].inputs.numpy()
    own = prepared.dataset.encoder_inputs["rna"]
    n = model.module.projections["rna"].scale.shape[0]
    alike = [np.corrcoef(copies[:, i], own[:, i])[0, 1] for i in range(n)]
    assert 0.3 < np.mean(alike) < 0.98
    assert 0.1 < LEAST_SHARE < 0.5


def test_none_where_none_is_asked_for(model: MosaicVI) -> None:
    assert inputs(model, np.arange(10), share=0.0) is None


def train(**plan_kwargs: Any) -> np.ndarray:
    model = build(small_mosaic(200))
    model.train(max_epochs=2, plan_kwargs=plan_kwargs, enable_progress_bar=False)
    return np.asarray(model.get_latent_representation())


def test_fits_are_the_same_by_seed_and_differ_by_copies() -> None:
    with_copies = train(thinned=0.25)
    np.testing.assert_array_equal(train(thinned=0.25), with_copies)
    assert np.nanmax(np.abs(train() - with_copies)) > 1e-4


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(RequestError, match="thinned"):
        train(thinned=1.5)
