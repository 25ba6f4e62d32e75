"""What a model's cells were measured to be, raw and on the scale that scanpy's functions expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

from mosaicvi import likelihoods
from mosaicvi._errors import RequestError

if TYPE_CHECKING:
    from mosaicvi.data import ModalityData, MosaicData
    from mosaicvi.model import MosaicVI
    from mosaicvi.model._cells import PreparedData


def check_model(model: object) -> None:
    """Refuse data in the model's place, where scanpy's tools take them.

    Raises
    ------
    RequestError
        If it is an AnnData or a MuData.
    """
    if isinstance(model, AnnData | MuData):
        raise RequestError(
            f"found {type(model).__name__}",
            key="model",
            expected="a fitted model",
            remedy="pass the model, which knows its MuData; another one goes into adata=",
        )


def prepared(model: MosaicVI, adata: MuData | None) -> PreparedData:
    """Cells as the network reads them, of the model's MuData or of another one."""
    check_model(model)
    return model._cells(adata)


def registered(model: MosaicVI, adata: MuData | None) -> MosaicData:
    """Validated arrays of the model's MuData, or of another one, which is registered first."""
    return prepared(model, adata).data


@dataclass(frozen=True)
class Scale:
    """How values of a modality are brought to the scale of ``X``.

    Attributes
    ----------
    log1p
        Whether values are counts, of which ``X`` holds log1p.
    target_sum
        Counts a cell to which they are scaled first; None where depth is part of the value.
    """

    log1p: bool
    target_sum: float | None


def scale_of(modality: ModalityData, model: MosaicVI | None = None) -> Scale:
    """Scale of a modality's values.

    Compositions (RNA) are scaled to the median library size of the cells that have any counts, as
    :func:`scanpy.pp.normalize_total` does; where no cell has, to that of the cells which ``model``
    was built on, so that answers for a query without the modality are on the scale of the model's
    own. Protein counts are not scaled.
    """
    likelihood = likelihoods.get(modality.spec.likelihood)
    if not likelihood.uses_library_size:
        return Scale(likelihood.is_count, None)
    found = [modality.library_size]
    if model is not None and modality.name in model.library_pool:
        found.append(model.library_pool[modality.name].sizes)
    for sizes in found:
        if (sizes > 0).any():
            return Scale(likelihood.is_count, float(np.median(sizes[sizes > 0])))
    return Scale(likelihood.is_count, 1.0)


def present_cells(modality: ModalityData) -> tuple[np.ndarray, np.ndarray]:
    """Cells of the MuData that have a modality, and the row of ``values`` of each of them."""
    cells = np.flatnonzero(modality.rows >= 0)
    return cells, modality.rows[cells]


def scaled_values(
    modality: ModalityData, scale: Scale, share: np.ndarray | float = 1.0
) -> np.ndarray:
    """Measured values of the cells that have the modality, on the scale of ``X``.

    Parameters
    ----------
    modality
        The modality.
    scale
        Its scale.
    share
        Of all that a cell would have shown, what its batch's panel holds, ``(n_modality_cells,)``.

    Returns
    -------
    Float32 ``(n_modality_cells, n_features)``, rows as :func:`present_cells` lists them; cells
    without counts are zero.
    """
    _, rows = present_cells(modality)
    found = modality.shown(rows)
    values = np.array(found if isinstance(found, np.ndarray) else found.toarray(), dtype=np.float32)
    if scale.target_sum is not None:
        sizes = modality.library_size[rows].astype(np.float64)
        factors = np.divide(scale.target_sum, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        factors *= share
        values *= factors[:, None].astype(np.float32)
    return np.asarray(np.log1p(values, out=values) if scale.log1p else values)


def measured_mask(modality: ModalityData) -> np.ndarray:
    """Which entries of the cells that have the modality were measured.

    False where a batch's panel lacks the feature, or a continuous value is missing.

    Returns
    -------
    Bool ``(n_modality_cells, n_features)``, rows as :func:`present_cells` lists them.
    """
    _, rows = present_cells(modality)
    measured = modality.measured(rows)
    mask = np.ones((len(rows), modality.n_features), dtype=bool) if measured is None else measured
    if not likelihoods.get(modality.spec.likelihood).is_count:
        mask &= np.isfinite(modality.shown(rows))
    return mask


def raw_values(modality: ModalityData, mask: np.ndarray) -> sp.csr_matrix:
    """Raw measured values of all cells of the MuData; zero where nothing was measured.

    Parameters
    ----------
    modality
        The modality.
    mask
        From :func:`measured_mask`.

    Returns
    -------
    CSR float32 ``(n_cells, n_features)``.
    """
    cells, rows = present_cells(modality)
    values = modality.shown(rows)
    if isinstance(values, np.ndarray):
        part = sp.csr_matrix(np.where(mask, values, 0).astype(np.float32))
    else:
        part = sp.csr_matrix(values, dtype=np.float32)
    n_cells = len(modality.rows)
    lengths = np.zeros(n_cells, dtype=np.int64)
    lengths[cells] = np.diff(part.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_matrix((part.data, part.indices, indptr), shape=(n_cells, part.shape[1]))
