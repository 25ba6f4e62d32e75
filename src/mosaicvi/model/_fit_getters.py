"""What a fitted MosaicVI says of its own fit: bounds, errors, edges, and who contributes what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mosaicvi._errors import RequestError
from mosaicvi.model import _answers, _requests
from mosaicvi.model._cells import Indices, select
from mosaicvi.model._edge_evidence import graph_confidence
from mosaicvi.model._getters import PosteriorGetters
from mosaicvi.model._inputs import project
from mosaicvi.model._linkage import agreement

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
        graph = self._graph()
        sampler = self._sampler(None, seed)
        rows, spaces = {}, {}
        # In the order of names: groups of cells are then no matter of the order of rows.
        by_name = np.argsort(sampler.data.obs_names.astype(str), kind="stable")
        for name, modality in sampler.data.modalities.items():
            cells = by_name[modality.present[by_name]]
            rows[name] = modality.rows[cells]
            spaces[name], _ = _answers.latent_representation(
                sampler, cells, (name,), give_mean=True
            )
        table = graph.to_pandas()
        table["confidence"] = graph_confidence(sampler.data, graph, spaces, rows, seed=sampler.seed)
        return table

    def get_link_agreement(self, *, seed: int | None = None) -> pd.DataFrame:
        """Whether the linked features of two modalities bear each other out; needs no truth.

        A tenth of them is left out in turn (each alone where there are ten or fewer, but together
        with those that share a feature, such as another clone of an antibody); cells are matched
        as mutual neighbours in the others, before any training; and each one left out, averaged
        over a cell's 30 nearest in its modality, is correlated over these matches. Links that say
        the same of cells agree; those of wrong features, and links too few to tell cells apart,
        come out at zero. 3,000 cells of each modality are asked, and a model that is not trained
        yet answers, too. ``MosaicVI`` warns where fewer than 32 features tie two modalities that
        share fewer than 30 cells, and their mean is below .3, or 200 or more and their mean is
        below twelve standard errors, too; it widens the intervals of what is imputed across the
        two, and gives labels lower probabilities (see :doc:`/models/alignment_diagnostics`).

        Parameters
        ----------
        seed
            Seed of the cells and of the parts that are left out; None: the model's.

        Returns
        -------
        A row for each linked feature of the modality that has fewer of them: ``first`` and
        ``second`` (the modalities that are tied), ``modality``, ``feature``, and ``correlation``
        from -1 to 1, NaN where no other link is left, or a modality has 30 cells or fewer, all of
        which would be averaged.

        Raises
        ------
        RequestError
            If the model has no feature graph, or it links no two of the model's modalities.

        Examples
        --------
        >>> model = mosaicvi.MosaicVI(mdata, graph=mosaicvi.graph.from_names(mdata))
        >>> model.get_link_agreement()["correlation"].mean()
        """
        graph = self._graph()
        if seed is not None:
            _requests.check_seed(seed, other="; None: the model's")
        data, sizes = self._cells(None).data, self.module_spec.modalities
        projected = {
            name: project(modality, self.module.projections[name], sizes[name].target_sum)
            for name, modality in data.modalities.items()
        }
        table = agreement(data, graph, projected, seed=self.seed if seed is None else seed)
        if table.empty:
            raise RequestError(
                "no edge of the graph links features of two modalities",
                key="graph",
                expected=f"edges between {list(projected)}",
            )
        return table

    def _graph(self) -> FeatureGraph:
        if self.graph is None:
            raise RequestError(
                "the model has no feature graph", key="graph", remedy="MosaicVI(mdata, graph=graph)"
            )
        return self.graph

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
        Mean over the cells that hold a modality, in nats per cell; higher is better.

        Raises
        ------
        RequestError
            If indices are out of range, no selected cell holds a modality, or ``n_samples`` is no
            number of draws.
        """
        sampler = self._sampler(adata, seed)
        rows = select(sampler.data, indices)
        nats, divergence = _answers.reconstruction_nats(sampler, rows, n_samples)
        by_modality = np.stack(list(nats.values()))
        # A cell without any has no nats: the more of them, the better a mean would look.
        held = np.isfinite(by_modality).any(0)
        if not held.any():
            _answers.check_evidence(held, self.module.modalities, "bound")
        total = np.nansum(by_modality[:, held], 0) + divergence[held]
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
