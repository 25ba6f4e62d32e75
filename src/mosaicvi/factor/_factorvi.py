"""FactorVI: sparse factors shared by the modalities of a MuData."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from mosaicvi.data import MosaicDataModule, MultiDataset
from mosaicvi.factor._build import FactorSpec, build_factor_module
from mosaicvi.factor._construct import check_factors, construct_factors, factor_inputs
from mosaicvi.factor._enrichment import enrichment, signed, tests_of
from mosaicvi.factor._gene_sets import (
    check_names,
    informed_members,
    match_sets,
    name_factors,
    set_table,
)
from mosaicvi.factor._groups import cell_groups, check_groups
from mosaicvi.factor._objective import FactorObjective
from mosaicvi.factor._reduce import reduce_factors
from mosaicvi.factor._start import start_module
from mosaicvi.factor._variance import cell_deviances, variance_table
from mosaicvi.graph._gene_sets import read_sets
from mosaicvi.model import _answers, _training
from mosaicvi.model._cells import Indices, PreparedData, select
from mosaicvi.model._getters import PosteriorGetters
from mosaicvi.train import FitResult, MosaicTrainingPlan, OptimizerSpec, run_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from mosaicvi.data import MosaicManager
    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.factor._gene_sets import Members
    from mosaicvi.graph._gene_sets import GeneSets

STEPS = 600
"""Steps of a default fit."""

EPOCH_RANGE = (10, 300)
BATCH_RANGE = (32, 256)
ACTIVE_R2 = 0.005
"""From this deviance R2 on a factor counts as active in a modality."""


class FactorVI(PosteriorGetters):
    """Bayesian factors of any mix of assays: linear, sparse, and fitted by Pyro.

    Factors are shared by the modalities; each modality has weights that are zero for most features
    and, where a factor does not act, for all. Counts are modelled as counts, with library size as
    an offset, so that depth is no factor. The story, the guide and the limits are in the model
    card :doc:`/models/factorvi`.

    Parameters
    ----------
    adata
        MuData registered with :meth:`setup_mudata`.
    n_factors
        Factors to start with; those that explain nothing are removed after training.
    groups
        Column of groups of cells (``mdata.obs``, or the modalities'): each has a scale of its own a
        factor, as in MOFA+ (Argelaguet et al. 2020). None: one scale.
    nonnegative
        Modalities whose weights are at least zero; True: all.
    gene_sets
        A named factor for each set, besides ``n_factors`` free ones: genes by set, a GMT file, or a
        DataFrame (see :func:`mosaicvi.graph.from_gene_sets`). Weights of members are likely not
        zero beforehand, those of other genes of the modality are; the data add and drop genes. A
        factor keeps the set's name where the data bear it out, with a positive mean weight of the
        members.
    gene_set_modality
        Modality whose features are genes; None: the one with most members.
    seed
        Seed of the start, the minibatches and default draws: same seed, same result.

    Raises
    ------
    RequestError
        If there are more factors than cells or features, or a group or modality is unknown.
    DataError
        If all features of a modality are constant.

    Examples
    --------
    >>> mdata = mosaicvi.datasets.pbmc_mosaic()
    >>> mosaicvi.FactorVI.setup_mudata(mdata, {"rna": "nb", "protein": "nb_mixture"})
    >>> model = mosaicvi.FactorVI(mdata, n_factors=15)
    >>> model.train()
    >>> model.get_weights("protein")
    """

    module: FactorModule
    module_spec: FactorSpec

    def __init__(
        self,
        adata: MuData | None = None,
        n_factors: int = 15,
        *,
        groups: str | None = None,
        nonnegative: bool | Sequence[str] = False,
        gene_sets: GeneSets | None = None,
        gene_set_modality: str | None = None,
        seed: int = 0,
        registry: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(adata, registry)
        self.seed, self.groups = seed, groups
        gene_sets = None if gene_sets is None else read_sets(gene_sets)
        self.init_params_ = self._get_init_params(locals())
        if registry is None:
            data = self.adata_manager.data
            members = self._members(gene_sets, gene_set_modality)
            named = () if members is None else members.names
            check_factors(data, n_factors + len(named))
            names = self._nonnegative(nonnegative, tuple(data.modalities))
            self.module_spec, self.module = construct_factors(
                data,
                (*named, *(f"factor{number}" for number in range(1, n_factors + 1))),
                groups=() if groups is None else check_groups(adata, groups, data),
                nonnegative=names,
                members=members,
                seed=seed,
            )
            self.library_pool = _training.library_pool(data)
            self._model_summary_string = self._describe()

    def _members(self, gene_sets: GeneSets | None, modality: str | None) -> Members | None:
        """Members of gene sets among the registered features."""
        if gene_sets is None:
            return None
        data = self.adata_manager.data
        if modality is not None:
            _answers.check_modality(modality, tuple(data.modalities), key="gene_set_modality")
        features = {name: part.var_names for name, part in data.modalities.items()}
        members = match_sets(gene_sets, features, modality)
        check_names(members)
        return members

    @staticmethod
    def _nonnegative(given: bool | Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(given, bool):
            return known if given else ()
        names = (given,) if isinstance(given, str) else tuple(given)
        for name in names:
            _answers.check_modality(name, known, key="nonnegative")
        return names

    def train(
        self,
        max_epochs: int | None = None,
        *,
        batch_size: int | None = None,
        train_size: float = 0.9,
        validation_size: float | None = None,
        early_stopping: bool = True,
        learning_rate: float = 0.02,
        least_r2: float = ACTIVE_R2,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        indices: Indices | None = None,
        **trainer_kwargs: Any,
    ) -> FitResult:
        """Fit the model, order its factors by the deviance they explain, and remove empty ones.

        When the fit ends, factors without a gene set are merged in pairs or dropped as long as the
        evidence lower bound rises by it.

        Parameters
        ----------
        max_epochs
            Epochs of the whole learning-rate schedule; None: as many as 600 steps take, between
            10 and 300.
        batch_size
            Cells a minibatch, stratified by which modalities they hold; None: an eighth of the
            training cells, between 32 and 256.
        train_size, validation_size
            Fractions of cells, drawn within each presence pattern; the rest is held out altogether.
        early_stopping
            Stop when the validation bound stops improving. The best weights are kept either way.
        learning_rate
            Peak learning rate of the one-cycle schedule.
        least_r2
            Factors that explain less than this of every modality's deviance are removed, named ones
            too.
        accelerator, devices
            As in :class:`~scvi.train.Trainer`.
        indices
            Cells to train on and validate with; None: all.
        **trainer_kwargs
            Passed to :class:`~scvi.train.Trainer`, such as ``enable_progress_bar=False``.

        Returns
        -------
        How the fit went; ``model.history`` as in :meth:`mosaicvi.MosaicVI.train`.

        Raises
        ------
        RequestError
            If ``indices`` are out of range, or the model was loaded without data.
        """
        prepared = self._cells(None)
        chosen = None if indices is None else select(prepared.data, indices)
        parts = _training.split(prepared.data, chosen, train_size, validation_size, self.seed)
        datamodule = MosaicDataModule(
            prepared.data,
            prepared.dataset.encoder_inputs,
            batch_size=batch_size or int(np.clip(len(parts[0]) // 8, *BATCH_RANGE)),
            seed=self.seed,
            external_indexing=parts,
            groups=prepared.dataset.groups,
        )
        n_batches = len(datamodule.train_dataloader())
        epochs = max_epochs or int(np.clip(round(STEPS / n_batches), *EPOCH_RANGE))
        with _training.seeded(self.seed):
            if self.fit_result is None:
                start_module(
                    self.module,
                    prepared.dataset,
                    datamodule.train_idx,
                    members=informed_members(self.module, self.module_spec.informed),
                    seed=self.seed,
                )
            result = run_fit(
                MosaicTrainingPlan(
                    self.module,
                    FactorObjective(datamodule.n_train),
                    OptimizerSpec(learning_rate=learning_rate),
                    n_steps=epochs * n_batches,
                ),
                datamodule,
                max_epochs=epochs,
                patience=max(5, epochs // 5) if early_stopping else None,
                accelerator=accelerator,
                devices=devices,
                **trainer_kwargs,
            )
            left = reduce_factors(
                self.module, prepared.dataset, datamodule.train_idx, seed=self.seed
            )
        names = tuple(self.module_spec.factors[number] for number in left)
        self.module_spec = replace(self.module_spec, factors=names)
        self.train_indices_ = datamodule.train_idx
        self.validation_indices_ = datamodule.val_idx
        self.test_indices_ = datamodule.test_idx
        self.history_, self.fit_result, self.is_trained_ = result.history, result, True
        self.imputability.clear()
        self.split_keys.clear()
        self._order(least_r2)
        self._model_summary_string = self._describe()
        return result

    def _order(self, least_r2: float) -> None:
        """Order factors by the deviance they explain, and drop those that explain nothing."""
        table = self.get_variance_explained(n_cells=2000)
        single = table[table["factor"].isin(self.module_spec.factors)]
        best = single.groupby("factor")["r2"].max()
        total = single.groupby("factor")["r2"].sum()
        names = [n for n in total.sort_values(ascending=False).index if best[n] >= least_r2]
        names = names or [str(total.idxmax())]
        order = [self.module_spec.factors.index(str(name)) for name in names]
        self.module.keep(torch.as_tensor(order, device=self.module.device))
        renamed, informed = name_factors(self.module, tuple(names), self.module_spec.informed)
        self.module_spec = replace(self.module_spec, factors=renamed, informed=informed)

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

    def _prepare(self, manager: MosaicManager) -> PreparedData:
        data = manager.data
        inputs = factor_inputs(data, self.module_spec, self.module)
        groups = None
        if self.module_spec.groups:
            groups = cell_groups(manager.adata, str(self.groups), data, self.module_spec.groups)
        return PreparedData(data, MultiDataset(data, inputs, groups))

    def _rebuild(self, sizes: dict[str, Any]) -> None:
        self.module_spec = FactorSpec.from_dict(sizes)
        self.module = build_factor_module(self.module_spec)

    def _describe(self) -> str:
        spec = self.module_spec
        return (
            f"FactorVI with modalities {', '.join(spec.modalities)}; factors: {len(spec.factors)}"
            + (f", groups: {len(spec.groups)}" if spec.groups else "")
        )
