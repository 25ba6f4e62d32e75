"""What a fitted FactorVI says of its weights, and of gene sets on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch

from mosaicvi.factor._enrichment import enrichment, signed, tests_of, warn_signed
from mosaicvi.factor._gene_sets import match_sets, set_table
from mosaicvi.model import _answers
from mosaicvi.model._getters import PosteriorGetters

if TYPE_CHECKING:
    from mosaicvi.factor._build import FactorSpec
    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.graph._gene_sets import GeneSets


class GeneSetGetters(PosteriorGetters):
    """Weights, and tests of gene sets on them."""

    module: FactorModule
    module_spec: FactorSpec

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the factors, those first that explain most."""
        return self.module_spec.factors

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
            (posterior standard deviation; too small, as the model card says) and ``inclusion``
            (posterior probability that the weight is not zero).

        Returns
        -------
        DataFrame ``(n_features, n_factors)`` of posterior means, or the tidy table.

        Raises
        ------
        RequestError
            If the modality is unknown.
        """
        _answers.check_modality(modality, self.module.modalities)
        self._check_if_trained(warn=True)
        weights = self.module.weights[modality]
        with torch.no_grad():
            mean = weights.mean().cpu().numpy()
            sd = weights.spread().cpu().numpy()
            inclusion = weights.acting().cpu().numpy()
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
            Weights in it are not read; a warning tells of those below zero.
        modality
            Modality whose features are genes; None: the one with most members.
        method
            ``"ulm"``: t statistic of a regression of the weights on membership; ``"zscore"``;
            ``"gsea"`` (permutations; a p value of 0 is one below 1 over their number).
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
        rows); by factor and p value. NaN for a factor without weights in the modality, and for a
        set of all its features.

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
        if sign != "absolute":
            warn_signed(gene_sets)
        members = match_sets(gene_sets, features, modality, least=min_genes)
        weights = signed(self.get_weights(members.modality), sign)
        return enrichment(weights, members, method, **options)
