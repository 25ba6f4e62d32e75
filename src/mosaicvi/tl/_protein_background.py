"""Expected background of each protein in each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mosaicvi._errors import RequestError
from mosaicvi.model._cells import select
from mosaicvi.tl._measured import check_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from mosaicvi.model import MosaicVI


def protein_background(
    model: MosaicVI,
    modality: str = "protein",
    from_modalities: Sequence[str] | None = None,
    *,
    adata: MuData | None = None,
    indices: Sequence[int] | Sequence[bool] | np.ndarray | None = None,
    n_samples: int = 25,
    seed: int | None = None,
) -> pd.DataFrame:
    """Expected counts of the background component, averaged over latent draws.

    What a cell without the protein would show: unbound and unspecifically bound antibody.

    Parameters
    ----------
    model
        Fitted model.
    modality
        A modality with the likelihood ``nb_mixture``.
    from_modalities
        Evidence to use; None: all that a cell has.
    adata, indices
        Cells; None: all cells of the model's MuData.
    n_samples
        Draws a cell.
    seed
        Seed of the draws; None: the model's.

    Returns
    -------
    DataFrame ``(n_cells, n_features)``, counts; NaN for cells without evidence.

    Raises
    ------
    RequestError
        If the modality is unknown, or its likelihood has no background.

    Examples
    --------
    >>> background = mosaicvi.tl.protein_background(model, from_modalities=["rna"])
    >>> mosaicvi.pl.imputation(imputed, measured, kind="violin", background=background)
    """
    check_model(model)
    names = model.module.modalities if from_modalities is None else from_modalities
    request = model._request(modality, names, n_samples, None, None)
    if "background" not in {head.name for head in model.module.decoders[modality].likelihood.heads}:
        raise RequestError(
            "its likelihood has no background component",
            modality=modality,
            remedy="set the modality up with 'nb_mixture'",
        )
    sampler = model._sampler(adata, seed)
    rows = select(sampler.data, indices)
    var_names = np.asarray(sampler.data.modalities[modality].var_names, dtype=str)
    level = np.full((len(rows), len(var_names)), np.nan, dtype=np.float32)
    for chunk in sampler.predictive(rows, request):
        mean = chunk.parameters["background_mean"].mean(0).cpu().numpy()
        level[chunk.places[chunk.evidence]] = mean[chunk.evidence]
    cells = pd.Index(sampler.data.obs_names[rows].astype(str))
    return pd.DataFrame(level, index=cells, columns=pd.Index(var_names))
