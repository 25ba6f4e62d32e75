"""FactorVI: sparse factors shared by the modalities of a MuData."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mosaicvi._errors import check_whole
from mosaicvi.data import MosaicDataModule, MultiDataset
from mosaicvi.data._names import check_one_species
from mosaicvi.factor._build import FactorSpec, build_factor_module
from mosaicvi.factor._construct import (
    check_factors,
    construct_factors,
    factor_inputs,
    find_members,
    nonnegative_names,
    warn_apart,
    warn_lacking,
)
from mosaicvi.factor._fit import FitPlan, Fitted, check_fit, fit_best
from mosaicvi.factor._gene_sets import name_factors
from mosaicvi.factor._getters import FactorGetters
from mosaicvi.factor._groups import cell_groups, check_groups
from mosaicvi.factor._refinement_gain import refinement_gains
from mosaicvi.factor._sampler import N_STEPS
from mosaicvi.factor._stability import stability
from mosaicvi.factor._variance import most_explained
from mosaicvi.graph._gene_sets import read_sets
from mosaicvi.model import _training
from mosaicvi.model._cells import Indices, PreparedData, select
from mosaicvi.model._earlier_cells import held_out, remember, trained_keys
from mosaicvi.model._libraries import fit_libraries, library_pools
from mosaicvi.model._requests import check_seed
from mosaicvi.model._whole_change import whole_change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from mosaicvi.data import MosaicManager
    from mosaicvi.factor._factor_module import FactorModule
    from mosaicvi.graph._gene_sets import GeneSets
    from mosaicvi.train import FitResult

STEPS = 600
"""Steps of a default fit."""

LEAST_R2 = 0.001
"""Factors that explain less are removed without more ado: experts that were trained with a factor
are not those that would have been trained without it, so that little may go this way."""

DATA_SEED = 0
"""Seed of all that belongs to the data and not to a fit: projections, start, validation cells."""

EPOCH_RANGE = (10, 300)
BATCH_RANGE = (32, 256)


class FactorVI(FactorGetters):
    """Bayesian factors of several assays of the same cells: linear, sparse, and fitted by Pyro.

    Cells may lack modalities, but some must hold both: factors are aligned by these alone, and a
    warning names modalities that share no cell, directly or through others (for those,
    :class:`~mosaicvi.MosaicVI` with a graph).

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
        factor, as in MOFA+ (Argelaguet et al. 2020), but keeps its mean: what groups differ by is a
        factor unless the column is ``batch_key`` too. None: one scale.
    nonnegative
        Modalities whose weights are at least zero; True: all.
    gene_sets
        A named factor for each set, besides ``n_factors`` free ones: genes by set, a GMT file, or a
        DataFrame (see :func:`mosaicvi.graph.from_gene_sets`). Weights of members are likely not
        zero beforehand, those of other genes of the modality are; the data add and drop genes. A
        factor keeps the set's name where the data bear it out, with a positive mean weight of the
        members; where it acts on a modality of ``nonnegative``, that decides its sign.
    gene_set_modality
        Modality whose features are genes; None: the one with most members.
    seed
        Seed of default draws and of restarts after the first. No fit depends on it else: the same
        data give the same factors, unless :meth:`train` is given another ``seed``.
    refine
        Newton steps on a cell's values that bring its posterior nearer to the best before each
        answer, from where the encoder ends (values of cells are read for it). 0: none, as the
        encoder says. None: two where validation cells show that they pay, that is where what a
        modality says of the others becomes likelier (``model.module_spec.gains``, in nats a cell);
        a cell with several takes them if their gains add up to more than nothing. Without
        validation cells that show several modalities there are none. Closed forms, of ``normal``
        modalities, need none.

    Raises
    ------
    RequestError
        If there are more factors than cells or features, or a modality is unknown.
    DataError
        If all features of a modality are constant, modalities are of different species, ``groups``
        is no column, or a gene set has too few members among the features.

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
        refine: int | None = None,
        registry: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(adata, registry)
        if refine is not None:
            check_whole(refine, "refine", 0, other=", or None")
        check_seed(seed)
        self.seed, self.groups, self.refine = seed, groups, refine
        gene_sets = None if gene_sets is None else read_sets(gene_sets)
        self.init_params_ = self._get_init_params(locals())
        if registry is None:
            data = self.adata_manager.data
            check_one_species({name: each.species for name, each in data.modalities.items()})
            members = find_members(data, gene_sets, gene_set_modality)
            named = () if members is None else members.names
            check_factors(data, n_factors, len(named))
            names = nonnegative_names(nonnegative, tuple(data.modalities))
            warn_apart(data)
            self.module_spec, self.module = construct_factors(
                data,
                (*named, *(f"factor{number}" for number in range(1, n_factors + 1))),
                groups=() if groups is None else check_groups(adata, groups, data),
                nonnegative=names,
                members=members,
                seed=DATA_SEED,
            )
            self.library_pool = library_pools(data)
            self._model_summary_string = self._describe()

    def train(
        self,
        max_epochs: int | None = None,
        *,
        batch_size: int | None = None,
        train_size: float = 0.9,
        validation_size: float | None = None,
        early_stopping: bool = True,
        restarts: int = 1,
        learning_rate: float = 0.06,
        least_r2: float = LEAST_R2,
        least_share: float | None = None,
        least_stability: float | None = None,
        seed: int = 0,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        indices: Indices | None = None,
        **trainer_kwargs: Any,
    ) -> FitResult:
        """Fit the model, order its factors by the deviance they explain, and remove empty ones.

        When the fit ends, factors without a gene set are merged in pairs or dropped as long as the
        evidence lower bound rises by it. Those go too that add nothing to the prediction of values
        that they were not inferred from, and the weakest ones if a short fit without them has the
        better bound.

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
            The same data are split the same way by every fit. A model that is trained goes on from
            its weights: cells that trained an earlier fit are then not held out, and are among
            ``model.train_indices_``.
        early_stopping
            Stop when the validation bound has not improved for a fifth of the epochs, at least
            five. The best weights are kept either way.
        restarts
            Fits, of which that with the best bound on the validation cells is kept; all but the
            first start from a random half of the training cells. How well the others found its
            factors is in :meth:`get_stability`.
        learning_rate
            Peak learning rate of the one-cycle schedule.
        least_r2
            Factors that explain less than this of every modality's deviance are removed, alone and
            in addition to all others; named ones too.
        least_share
            Share of what all factors explain of unseen values that a factor must add, in some
            modality. None: what all explain of twelve training cells, at least .003 and at most
            .0125 (.003 for named factors), or one nat a cell and 4,500 in all, whichever is less;
            factors that add less are seldom found in other cells. Where cells are few, .003 keeps
            more factors, which predict a little better.
        least_stability
            Fit either half of the training cells too, which takes half as long again, for
            :meth:`get_stability` to say which factors both find; and drop those whose weights are
            correlated less than this with those of their partners there, on average (0 drops
            none). None: no such fits. Only where training starts.
        seed
            Seed of the order of cells and of the noise of a fit. Where training starts, which cells
            validate, and what factors are judged by do not depend on it, so that fits of several
            seeds differ by that noise alone.
        accelerator, devices
            As in :class:`~scvi.train.Trainer`.
        indices
            Cells to train on and validate with; None: all.
        **trainer_kwargs
            Passed to :class:`~scvi.train.Trainer`, such as ``enable_progress_bar=False``.

        Returns
        -------
        How the fit went; ``model.history`` as in :meth:`mosaicvi.MosaicVI.train`. A fit that fails,
        or is interrupted in its first epoch, leaves the model as it was. One that is interrupted
        later ends with the best weights so far, and while factors are judged, with all of them.

        Raises
        ------
        RequestError
            If ``indices`` are out of range, the model was loaded without data, or a model that is
            trained already is to be restarted.
        """
        _training.check_epochs(max_epochs)
        check_seed(seed)
        check_fit(
            restarts, self.fit_result, least_share=least_share, least_stability=least_stability
        )
        prepared = self._cells(None)
        chosen = None if indices is None else select(prepared.data, indices)
        start, earlier = self.fit_result is None, trained_keys(self)
        parts = _training.split(prepared.data, chosen, train_size, validation_size, DATA_SEED)
        parts = held_out(prepared.data, parts, earlier)
        if start:
            warn_lacking(prepared.data, parts[0])
        datamodule = MosaicDataModule(
            prepared.data,
            prepared.dataset.encoder_inputs,
            batch_size=int(np.clip(len(parts[0]) // 8, *BATCH_RANGE))
            if batch_size is None
            else batch_size,
            seed=seed,
            external_indexing=parts,
            groups=prepared.dataset.groups,
        )
        n_batches = len(datamodule.train_dataloader())
        plan = FitPlan(
            datamodule,
            epochs=max_epochs or int(np.clip(round(STEPS / n_batches), *EPOCH_RANGE)),
            early_stopping=early_stopping,
            learning_rate=learning_rate,
            informed=self.module_spec.informed,
            seed=seed,
            restart_seed=self.seed,
            least_share=least_share,
            least_stability=least_stability,
            trainer={"accelerator": accelerator, "devices": devices, **trainer_kwargs},
        )
        # On a copy: a fit that fails, or is interrupted too early, leaves the model as it was.
        best, others, halves = fit_best(copy.deepcopy(self.module), plan, restarts, start=start)
        if best.begun:
            with whole_change(self):
                self._take(best, datamodule, earlier)
                self._order(least_r2)
                self.module_spec = replace(
                    self.module_spec,
                    stability=stability(self.module, others),
                    halves=stability(self.module, halves),
                    gains=self._gains(),
                )
                sampler = self._sampler(None, DATA_SEED)
                self.library_pool = fit_libraries(sampler, datamodule.train_idx)
                self._model_summary_string = self._describe()
        return best.result

    def _take(self, fitted: Fitted, datamodule: MosaicDataModule, earlier: np.ndarray) -> None:
        """Become what a fit ended as; cells of earlier fits stay among those that trained it."""
        names = tuple(self.module_spec.factors[number] for number in fitted.left)
        self.module_spec = replace(
            self.module_spec, factors=names, stability=(), halves=(), gains={}
        )
        self.module, self.is_trained_ = fitted.module, True
        self.history_, self.fit_result = fitted.result.history, fitted.result
        self.imputability, self.split_keys = {}, {}
        self.train_indices_ = datamodule.train_idx
        self.validation_indices_ = datamodule.val_idx
        self.test_indices_ = datamodule.test_idx
        remember(self, earlier)

    def _order(self, least_r2: float) -> None:
        """Order factors by the deviance they explain, and drop those that explain nothing."""
        table = self.get_variance_explained(n_cells=2000, seed=DATA_SEED)
        explained = most_explained(table, self.module_spec.factors)
        best, total = explained.max(axis=1), explained.sum(axis=1)
        names = [n for n in total.sort_values(ascending=False).index if best[n] >= least_r2]
        names = names or [str(total.idxmax())]
        order = [self.module_spec.factors.index(str(name)) for name in names]
        self.module.keep(torch.as_tensor(order, device=self.module.device))
        renamed, informed = name_factors(
            self.module, tuple(names), self.module_spec.informed, explained
        )
        self.module_spec = replace(self.module_spec, factors=renamed, informed=informed)

    def _gains(self) -> dict[str, float]:
        """What refinement gains from each modality without a closed form, in validation cells."""
        names = [n for n, d in self.module.decoders.items() if not d.likelihood.is_normal]
        if self.refine is not None or self.validation_indices_ is None:
            return {}
        sampler = self._sampler(None, DATA_SEED)
        plain, refined = sampler.with_steps(0), sampler.with_steps(N_STEPS)
        return refinement_gains(plain, refined, np.asarray(self.validation_indices_), names)

    def _prepare(self, manager: MosaicManager) -> PreparedData:
        data = manager.data
        inputs = factor_inputs(data, self.module_spec, self.module)
        groups = None
        if self.module_spec.groups:
            groups = cell_groups(manager.adata, str(self.groups), data, self.module_spec.groups)
        return PreparedData(data, MultiDataset(data, inputs, groups))

    def _rebuild(self, sizes: dict[str, Any]) -> None:
        self.module_spec = FactorSpec.from_dict(sizes)
        with torch.random.fork_rng(devices=[]):
            self.module = build_factor_module(self.module_spec)

    def _describe(self) -> str:
        spec = self.module_spec
        return (
            f"FactorVI with modalities {', '.join(spec.modalities)}; factors: {len(spec.factors)}"
            + (f", groups: {len(spec.groups)}" if spec.groups else "")
        )
