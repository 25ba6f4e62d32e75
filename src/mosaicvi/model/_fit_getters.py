"""What a fitted MosaicVI says of its own fit: bounds, errors, edges, and who contributes what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import RequestError
from mosaicvi.model import _answers
from mosaicvi.model._cells import Indices, select
from mosaicvi.model._edge_evidence import graph_confidence
from mosaicvi.model._getters import PosteriorGetters

if TYPE_CHECKING:
    import pandas as pd
    from mudata import MuData

    from mosaicvi.graph import FeatureGraph


class FitGetters(PosteriorGetters):
    """Answers about the fit, beside those that both models give."""

    graph: FeatureGraph | None

    def get_edge_confidence(self, *, seed: int | None = None) -> pd.DataFrame:
        """How far the cells bear out each edge of the feature graph.

        Features are averaged over groups of cells that are alike in the latent space, each cell
        embedded from its own modality; the correlation of an edge's two features is compared with
        that of features joined at random (see :doc:`/models/mosaicvi`).

        Parameters
        ----------
        seed
            Seed of the groups and of the features joined at random; None: the model's.

        Returns
        -------
        The graph's table of edges (:meth:`mosaicvi.graph.FeatureGraph.to_pandas`) with a column
        ``confidence``: the probability that the edge is right, from .01 to 1.

        Raises
        ------
        RequestError
            If the model has no feature graph.
        """
        if self.graph is None:
            raise RequestError(
                "the model has no feature graph", key="graph", remedy="MosaicVI(mdata, graph=graph)"
            )
        sampler = self._sampler(None, seed)
        rows, spaces = {}, {}
        for name, modality in sampler.data.modalities.items():
            cells = np.flatnonzero(modality.present)
            rows[name] = modality.rows[cells]
            spaces[name], _ = _answers.latent_representation(
                sampler, cells, (name,), give_mean=True
            )
        table = self.graph.to_pandas()
        table["confidence"] = graph_confidence(
            sampler.data, self.graph, spaces, rows, seed=sampler.seed
        )
        return table

    def get_elbo(
        self,
        adata: MuData | None = None,
        indices: Indices | None = None,
        *,
        n_samples: int = 5,
        seed: int | None = None,
    ) -> float:
        """Evidence lower bound at KL weight one and modality weights one.

        Parameters
        ----------
        adata, indices
            Cells; None: all cells of the model's MuData.
        n_samples
            Latent draws a cell.
        seed
            Seed of the draws; None: the model's.

        Returns
        -------
        Mean over cells, in nats per cell; higher is better.
        """
        sampler = self._sampler(adata, seed)
        rows = select(sampler.data, indices)
        nats, divergence = _answers.reconstruction_nats(sampler, rows, n_samples)
        total = np.nansum(np.stack(list(nats.values())), 0) + divergence
        return -float(np.mean(total))

    def get_reconstruction_error(
        self,
        adata: MuData | None = None,
        indices: Indices | None = None,
        *,
        n_samples: int = 5,
        seed: int | None = None,
    ) -> dict[str, float]:
        """Negative expected log-likelihood of each modality given all that a cell has.

        Parameters are those of :meth:`get_elbo`.

        Returns
        -------
        Modality to mean over the cells that hold it, in nats per cell; lower is better. Modalities
        that no selected cell holds are left out.
        """
        sampler = self._sampler(adata, seed)
        nats, _ = _answers.reconstruction_nats(sampler, select(sampler.data, indices), n_samples)
        return {
            name: float(np.nanmean(values))
            for name, values in nats.items()
            if np.isfinite(values).any()
        }

    def get_modality_contribution(
        self, adata: MuData | None = None, indices: Indices | None = None
    ) -> pd.DataFrame:
        """How much each modality says about each cell.

        Parameters
        ----------
        adata, indices
            Cells; None: all cells of the model's MuData.

        Returns
        -------
        DataFrame ``(n_cells, n_modalities + 1)``: shares of the posterior precision, averaged over
        latent dimensions, of each modality and of the prior (the column ``prior``); rows sum to
        one, and a modality that a cell lacks has share zero. In a mixture of experts, a modality's
        share of its own component, times the component's weight.
        """
        sampler = self._sampler(adata, None)
        return _answers.modality_contribution(sampler, select(sampler.data, indices))
