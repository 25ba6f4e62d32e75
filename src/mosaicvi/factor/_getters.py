"""What a fitted FactorVI says of its factors: weights, variance explained, gene sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from mosaicvi._errors import RequestError
from mosaicvi.factor._bound import cell_bounds, parameter_nats
from mosaicvi.factor._enrichment import enrichment, signed, tests_of
from mosaicvi.factor._gene_sets import match_sets, set_table
from mosaicvi.factor._variance import cell_deviances, variance_table
from mosaicvi.model import _answers
from mosaicvi.model._cells import Indices, select
from mosaicvi.model._getters import PosteriorGetters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from mosaicvi.factor._build import FactorSpec
    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.graph._gene_sets import GeneSets

ACTIVE_R2 = 0.005
"""From this deviance R2 on a factor counts as active in a modality."""


class FactorGetters(PosteriorGetters):
    """Answers of a factor model, beside those that both models give."""

    module: FactorModule
    module_spec: FactorSpec
    groups: str | None

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the factors, those first that explain most."""
        return self.module_spec.factors

    def get_factors(
        self,
        adata: MuData | None = None,
        indices: Indices | None = None,
        *,
        from_modalities: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Factors of cells by name: :meth:`get_latent_representation` as a DataFrame."""
        values = self.get_latent_representation(adata, indices, from_modalities=from_modalities)
        data = self._cells(adata).data
        names = data.obs_names[select(data, indices)].astype(str)
        return pd.DataFrame(np.asarray(values), index=pd.Index(names), columns=list(self.factors))

    def get_weights(self, modality: str, *, tidy: bool = False) -> pd.DataFrame:
        """Weights of a modality's features: how the head of the mean changes with each factor.

        For counts a weight is the change of log abundance a unit of the factor; for continuous
        values it is in units of the feature's standard deviation.

        Parameters
        ----------
        modality
            Modality.
        tidy
            One row a feature and factor, with the columns ``weight`` (posterior mean), ``sd``
            (posterior standard deviation) and ``inclusion`` (posterior probability that the weight
            is not zero).

        Returns
        -------
        DataFrame ``(n_features, n_factors)`` of posterior means, or the tidy table.

        Raises
        ------
        RequestError
            If the modality is unknown.
        """
        _answers.check_modality(modality, self.module.modalities)
        weights = self.module.weights[modality]
        with torch.no_grad():
            posterior = weights.posterior()
            mean = weights.mean().cpu().numpy()
            sd = posterior.variance.clamp_min(0).sqrt().cpu().numpy()
            inclusion = weights.inclusion.cpu().numpy()
        features = pd.Index(self._features(modality), name="feature")
        if not tidy:
            return pd.DataFrame(mean, index=features, columns=list(self.factors))
        columns = {"weight": mean, "sd": sd, "inclusion": inclusion}
        index = pd.MultiIndex.from_product(
            [features, list(self.factors)], names=["feature", "factor"]
        )
        return pd.DataFrame(
            {name: values.ravel() for name, values in columns.items()}, index=index
        ).reset_index()

    def _features(self, modality: str) -> tuple[str, ...]:
        from mosaicvi.model._persistence import feature_names

        return feature_names(self.registry_)[modality]

    def get_variance_explained(
        self,
        adata: MuData | None = None,
        indices: Indices | None = None,
        *,
        from_modalities: Sequence[str] | None = None,
        n_cells: int = 5000,
        seed: int | None = None,
    ) -> pd.DataFrame:
        r"""Share of the deviance of cells that factors explain.

        .. math:: R^2 = 1 - D(\text{factors}) / D(\text{no factor})

        with the Poisson deviance for counts, the Bernoulli deviance for zeros and ones, and squared
        error for continuous values. By default over the validation cells, whose values trained no
        weight; their factors are inferred from their own values, unless ``from_modalities`` leaves
        the modality in question out. An R2 is at most one; it is negative where factors predict
        worse than none.

        Parameters
        ----------
        adata, indices
            Cells; None: the model's validation cells (all, where there are none).
        from_modalities
            Evidence about the factors; None: all that a cell has.
        n_cells
            More cells than this are subsampled.
        seed
            Seed of subsample and bootstrap; None: the model's.

        Returns
        -------
        DataFrame with the columns ``modality``, ``group``, ``factor``, ``r2``, ``low``, ``high``
        (95 % bootstrap interval over cells) and ``n_cells``. Besides the factors there are two
        rows: ``"all factors"``, and ``"not additive"``, what all explain together beyond the
        sum of what each explains alone (negative where they overlap).

        Raises
        ------
        RequestError
            If a modality is unknown or indices are out of range.
        """
        sampler = self._sampler(adata, seed)
        rows = select(sampler.data, indices)
        held = self.validation_indices_
        if adata is None and indices is None and held is not None and len(held):
            rows = np.asarray(held)
        if len(rows) > n_cells:
            rows = np.sort(np.random.default_rng(sampler.seed).choice(rows, n_cells, replace=False))
        names = self._evidence(from_modalities, exclude=None)
        deviances = cell_deviances(sampler, rows, names)
        codes = sampler.dataset.groups
        groups = np.full(len(rows), "all", dtype=object)
        if codes is not None:
            known = np.array([*self.module_spec.groups, "unknown"], dtype=object)
            groups = known[codes[rows]]
        return variance_table(deviances, self.factors, groups, seed=sampler.seed)

    def get_elbo(
        self,
        adata: MuData | None = None,
        indices: Indices | None = None,
        *,
        n_samples: int = 5,
        seed: int | None = None,
    ) -> float:
        """Evidence lower bound, the weights' divergence spread over the training cells.

        Parameters
        ----------
        adata, indices
            Cells, such as ``indices=model.validation_indices_``; None: all cells of the model's
            MuData.
        n_samples
            Draws of factors and weights.
        seed
            Seed of the draws; None: the model's.

        Returns
        -------
        Mean over cells, in nats per cell; higher is better.

        Raises
        ------
        RequestError
            If indices are out of range.
        """
        sampler = self._sampler(adata, seed)
        cells = cell_bounds(sampler, select(sampler.data, indices), n_samples)
        trained = self.train_indices_
        if trained is None:
            trained = self.split_keys.get("train", np.arange(sampler.data.n_cells))
        n_train = len(trained)
        return float(cells.mean() - parameter_nats(self.module) / max(n_train, 1))

    def get_stability(self) -> pd.DataFrame:
        """How well the other restarts of :meth:`train` found each factor.

        Models of several seeds are compared by :func:`mosaicvi.tl.factor_stability`.

        Returns
        -------
        DataFrame, a row a factor: ``stability`` (mean absolute correlation of its weights with
        those of its partner, over the other restarts; from 0 to 1), ``least`` (the smallest) and
        ``correlation 1`` and so on.

        Raises
        ------
        RequestError
            If the model was trained without restarts.
        """
        found = np.array(self.module_spec.stability)
        if not found.size:
            raise RequestError(
                "the model was fitted once",
                key="restarts",
                remedy="train with restarts=5, or compare models by mosaicvi.tl.factor_stability",
            )
        columns = {f"correlation {n}": values for n, values in enumerate(found.T, start=1)}
        return pd.DataFrame(
            {"stability": found.mean(1), "least": found.min(1), **columns},
            index=pd.Index(self.factors, name="factor"),
        )

    def get_gene_sets(self) -> pd.DataFrame:
        """What became of the gene sets: members kept or dropped, and genes added.

        Returns
        -------
        DataFrame with the columns ``factor``, ``modality``, ``feature``, ``weight``, ``inclusion``
        and ``status``: ``"kept"`` (member, inclusion of at least .5), ``"dropped"`` (member, less)
        or ``"added"`` (no member, at least .5); rows by factor and falling absolute weight. Sets
        whose factors were removed, or that the data did not bear out, have no rows.
        """
        return set_table(
            self.module,
            self.factors,
            self.module_spec.informed,
            {name: self._features(name) for name in self.module.modalities},
        )

    def enrich(
        self,
        gene_sets: GeneSets,
        modality: str | None = None,
        *,
        method: Literal["ulm", "zscore", "gsea"] = "ulm",
        sign: Literal["both", "positive", "negative", "absolute"] = "both",
        min_genes: int = 5,
        **options: Any,
    ) -> pd.DataFrame:
        """Test gene sets on the weights of every factor, by decoupler (Badia-i-Mompel et al. 2022).

        Needs the extra ``mosaicvi[explain]``. The other features of the modality are the
        background. Tests treat features as independent, which genes of one programme are not:
        p values rank sets, and are too small as probabilities.

        Parameters
        ----------
        gene_sets
            Genes by set, a GMT file, or a DataFrame (see :func:`mosaicvi.graph.from_gene_sets`).
        modality
            Modality whose features are genes; None: the one with most members.
        method
            ``"ulm"``: t statistic of a regression of the weights on membership; ``"zscore"``;
            ``"gsea"`` (permutations).
        sign
            Weights to test: ``"both"``, as they are, so that the sign of the statistic is that of
            the members' weights; ``"positive"`` or ``"negative"``, the others set to zero;
            ``"absolute"``, for sets whose genes go both ways.
        min_genes
            Sets with fewer members among the features are left out.
        **options
            Passed to decoupler's test, such as ``times=1000`` and ``seed=0`` of ``"gsea"``.

        Returns
        -------
        DataFrame, a row a factor and set: ``factor``, ``gene_set``, ``n_genes`` (members among the
        features), ``statistic``, ``p_value`` and ``p_adjusted`` (Benjamini and Hochberg over all
        rows); by factor and p value. NaN for a factor without weights in the modality.

        Raises
        ------
        RequestError
            If decoupler is not installed, or an option is unknown.
        DataError
            If no set has members among the features.
        """
        tests_of(method)
        features = {name: self._features(name) for name in self.module.modalities}
        if modality is not None:
            _answers.check_modality(modality, self.module.modalities)
        members = match_sets(gene_sets, features, modality, least=min_genes)
        weights = signed(self.get_weights(members.modality), sign)
        return enrichment(weights, members, method, **options)

    def get_activity(self, *, threshold: float = ACTIVE_R2) -> pd.DataFrame:
        """Which factor acts in which modality: R2 of at least ``threshold`` (any group).

        Returns
        -------
        Bool DataFrame, factors x modalities.
        """
        table = self.get_variance_explained()
        table = table[table["factor"].isin(self.factors)]
        best = table.pivot_table(index="factor", columns="modality", values="r2", aggfunc="max")
        return best.loc[list(self.factors), list(self.module.modalities)] >= threshold

    def write_mofa_slots(self, mdata: MuData) -> None:
        """Write what muon's plots of MOFA read.

        ``mdata.obsm["X_mofa"]`` (factors), ``mdata.varm["LFs"]`` (weights, zero for features that
        the model does not have) and ``mdata.uns["mofa"]`` (variance explained in per cent).

        Parameters
        ----------
        mdata
            The model's MuData, or another one with its modalities.
        """
        own = None if mdata is self.adata else mdata
        mdata.obsm["X_mofa"] = np.asarray(self.get_latent_representation(own))
        weights = np.zeros((mdata.n_vars, len(self.factors)))
        start = 0
        for name, part in mdata.mod.items():
            if name in self.module.modalities:
                table = self.get_weights(name).reindex(part.var_names.astype(str)).fillna(0.0)
                weights[start : start + part.n_vars] = table.to_numpy()
            start += part.n_vars
        mdata.varm["LFs"] = weights
        table = self.get_variance_explained()
        table = table[table["factor"].isin(self.factors)]
        mdata.uns["mofa"] = {
            "variance": {
                name: 100 * part.groupby("factor", sort=False)["r2"].mean().to_numpy()
                for name, part in table.groupby("modality", sort=False)
            }
        }
