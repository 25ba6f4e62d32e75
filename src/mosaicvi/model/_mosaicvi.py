"""MosaicVI: one latent space for cells of any assay mix, and answers across modalities."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from mosaicvi._settings import logger
from mosaicvi.data import MosaicDataModule
from mosaicvi.model import _rates, _training
from mosaicvi.model._cells import Indices, PreparedData, name_keys, prepare, select
from mosaicvi.model._construct import NetworkSpec, construct, features_of, find_again
from mosaicvi.model._counterparts import find_counterparts
from mosaicvi.model._earlier_cells import held_out, remember, trained_keys
from mosaicvi.model._fit_getters import FitGetters
from mosaicvi.model._guide import guide
from mosaicvi.model._libraries import fit_libraries, library_pools
from mosaicvi.model._requests import check_seed, splitter_arguments
from mosaicvi.model._scarce import visits
from mosaicvi.model._thinning import thinned_inputs
from mosaicvi.model._ties import choose_alignment
from mosaicvi.model._whole_change import whole_change
from mosaicvi.module import ModuleSpec, MosaicModule, Objective, build_module
from mosaicvi.train import FitResult, MosaicTrainingPlan, run_fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from mudata import MuData

    from mosaicvi.alignment import Anchors
    from mosaicvi.data import MosaicManager
    from mosaicvi.data._pairs import PairSampler
    from mosaicvi.graph import FeatureGraph

BATCH_PRIOR_WEIGHT = 4.0
"""How many measured batches the prior on their spread counts for."""

EMBEDDING_PRIOR_SCALE = 0.1
"""Prior standard deviation of the feature embeddings' entries."""


class MosaicVI(FitGetters):
    r"""Mosaic variational inference over the modalities of a MuData.

    Learns one latent space for paired, partly paired and unpaired cells, and answers across
    modalities with posterior predictive intervals. The generative story, the objective and the
    limits are in the model card :doc:`/models/mosaicvi`.

    Parameters
    ----------
    adata
        MuData registered with :meth:`setup_mudata`.
    n_latent
        Dimensions of the latent space.
    n_hidden
        Width of the encoders' and the residual trunks' hidden layers.
    n_layers
        Number of hidden layers of each encoder.
    dropout_rate
        Dropout rate of the encoders; None: .5 where up to 2,500 cells tie the modalities (of models
        with regions: up to so many cells), .35 with more and where anchors align modalities.
    n_projection
        Singular vectors of each frozen projection (panels of up to 64 features skip it); None: one
        for every 100 cells of the modality, between 10 and 64; for every 20 where anchors align
        modalities, between 20 and 64.
    fusion
        ``"product_of_experts"`` or ``"mixture_of_experts"``.
    batch_prior_scale
        Prior spread between batches, on the scale of the decoder's heads (logs, of counts):
        :math:`\sigma_0` in :math:`\sigma_f^2 \sim \mathrm{InvGamma}(\nu/2, \nu \sigma_0^2/2)` of
        the offsets of a feature, with :math:`\nu = 4`. What an unseen batch differs by is drawn
        from a spread pooled over features, in which the prior counts for 20 differences between
        batches: all of it with one measured batch, the less the more features several batches
        measured.
    graph
        Which features of different modalities belong together, as the builders of
        ``mosaicvi.graph`` make it. Needed where no cells, or few, hold two modalities. Features are
        matched by name.
    alignment
        How modalities are brought together. ``"pairs"``: by cells that hold several. ``"anchors"``:
        also by pairs of cells that linked features point to, and by the graph; batch and depth are
        kept out of what the encoders read. ``"auto"`` takes anchors where a graph links two
        modalities of which fewer than half of the smaller one's cells are paired, and says which
        it took. ``"none"``: not at all; unpaired modalities then have spaces of their own.
    seed
        Seed of initial weights, minibatches and default draws: same seed, same result.

    Raises
    ------
    DataError
        If the MuData was not set up, neither cells that hold both nor edges of the graph tie a
        modality to the others, the graph lacks a modality, modalities are of two species and no
        edge links these (``mosaicvi.graph.from_table`` takes orthologues), or all features of one
        are constant.
    RequestError
        If ``alignment`` is unknown, or ``"anchors"`` without an edge between two modalities.

    Examples
    --------
    >>> mdata = mosaicvi.datasets.pbmc_mosaic()
    >>> mosaicvi.MosaicVI.setup_mudata(mdata, {"rna": "zinb", "protein": "nb_mixture"})
    >>> model = mosaicvi.MosaicVI(mdata)
    >>> model.train()
    >>> protein = model.impute("protein", from_modalities=["rna"])
    """

    module: MosaicModule
    module_spec: ModuleSpec

    def __init__(
        self,
        adata: MuData | None = None,
        n_latent: int = 40,
        *,
        n_hidden: int = 512,
        n_layers: int = 2,
        dropout_rate: float | None = None,
        n_projection: int | None = None,
        fusion: str = "product_of_experts",
        batch_prior_scale: float = 0.5,
        graph: FeatureGraph | None = None,
        alignment: str = "auto",
        seed: int = 0,
        registry: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(adata, registry)
        self.network = NetworkSpec(
            n_latent=n_latent,
            n_hidden=n_hidden,
            n_layers=n_layers,
            dropout_rate=dropout_rate,
            n_projection=n_projection,
            fusion=fusion,
            batch_prior_scale=batch_prior_scale,
            batch_prior_weight=BATCH_PRIOR_WEIGHT,
            embedding_prior_scale=EMBEDDING_PRIOR_SCALE,
        )
        check_seed(seed)
        self.seed = seed
        self.anchors: Anchors | None = None
        # The graph is saved with the weights.
        self.init_params_ = self._get_init_params({**locals(), "graph": None})
        if registry is None:
            data = self.adata_manager.data
            chosen = choose_alignment(data, graph, alignment)
            if graph is not None and chosen != "none":
                self.graph = graph.align(features_of(data))
            self.module_spec, self.module, self.anchors = construct(
                data,
                self.network,
                name_keys(data.obs_names),
                seed=seed,
                graph=self.graph,
                align=chosen == "anchors",
            )
            # Answers before any training have no dropout either.
            self.module.eval()
            self.library_pool = library_pools(data)
            self._model_summary_string = self._describe()

    def train(
        self,
        max_epochs: int | None = None,
        *,
        batch_size: int = 128,
        train_size: float = 0.9,
        validation_size: float | None = None,
        early_stopping: bool = True,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        indices: Indices | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> FitResult:
        """Fit the model.

        Parameters
        ----------
        max_epochs
            Epochs of the whole learning-rate schedule; None: 1600 over the square root of training
            cells, between 8 and 200; with anchors 600 over it, between 4 and 60.
        batch_size
            Cells a minibatch, stratified by which modalities they hold.
        train_size, validation_size
            Fractions of cells, drawn within each presence pattern; the rest is held out altogether.
        early_stopping
            Stop when the validation objective (at end-of-schedule weights) stops improving. The
            weights of the last epoch that is not clearly worse than the best are kept either way.
        accelerator, devices
            As in :class:`~scvi.train.Trainer`.
        indices
            Cells to train on and validate with; None: all.
        plan_kwargs
            Fields of :class:`~mosaicvi.module.ObjectiveSpec` and
            :class:`~mosaicvi.train.OptimizerSpec`, such as ``kl_weight`` or ``learning_rate``.
        datasplitter_kwargs
            Passed to the data module: ``blocks``, a :class:`~mosaicvi.BlockShuffle` of cells on
            disk, or ``resident``, whether cells lie on the GPU (see :doc:`/large_data`),
            ``drop_last``, ``shuffle``, ``loader_kwargs``; ``visits=None`` sees every cell once an
            epoch, also few that tie modalities (see :doc:`/models/mosaicvi`).
        **trainer_kwargs
            Passed to :class:`~scvi.train.Trainer`, such as ``enable_progress_bar=False``.

        Returns
        -------
        How the fit went. ``model.history`` maps ``<term>_train``, ``<term>_validation``,
        ``train_loss`` and ``validation_loss`` to a DataFrame with a row an epoch, in nats per cell.
        The losses are weighted totals without modalities of trust 0. With anchors,
        ``alignment_train`` has no ``_validation``, and ``validation_loss`` lacks that term.
        A fit that fails, or is interrupted in its first epoch, leaves the model as it was.

        Raises
        ------
        RequestError
            If ``max_epochs`` is below 1, an argument in ``plan_kwargs`` or ``datasplitter_kwargs``
            is unknown, ``indices`` are out of range, or the model was loaded without data.

        Examples
        --------
        >>> fit = model.train(plan_kwargs={"learning_rate": 1e-3}, enable_progress_bar=False)
        >>> fit.status, fit.n_epochs
        """
        _training.check_epochs(max_epochs)
        prepared = self._cells(None)
        objective_kwargs, optimizer_kwargs = _training.split_plan_arguments(plan_kwargs)
        asked = splitter_arguments(datasplitter_kwargs)
        epochs, anchored = max_epochs, len(self.module.aligned) > 0
        parts = _training.split(
            prepared.data,
            None if indices is None else select(prepared.data, indices),
            train_size,
            validation_size,
            self.seed,
        )
        earlier = trained_keys(self)
        parts = held_out(prepared.data, parts, earlier)
        muted = self.module.muted
        often = None if anchored else visits(prepared.data, parts[0], muted)
        datamodule = MosaicDataModule(
            prepared.data,
            prepared.dataset.encoder_inputs,
            batch_size=batch_size,
            seed=self.seed,
            external_indexing=parts,
            **{"visits": often, **asked},
        )
        if epochs is None:
            epochs = _training.default_epochs(datamodule.n_train, anchored=anchored)
        spec = _training.objective_spec(
            self.module,
            prepared.dataset,
            datamodule.train_idx,
            objective_kwargs,
            anchored=anchored,
        )
        with whole_change(self):
            with _training.seeded(self.seed):
                result = run_fit(
                    MosaicTrainingPlan(
                        self.module,
                        Objective(spec),
                        _rates.optimizer_spec(self.module, prepared.data, optimizer_kwargs),
                        n_steps=epochs * len(datamodule.train_dataloader()),
                        guide=self._guide(prepared, datamodule.train_idx, batch_size),
                        thinned=thinned_inputs(
                            prepared,
                            self.module_spec,
                            self.module,
                            datamodule.train_idx,
                            share=spec.thinned,
                            seed=self.seed,
                        ),
                    ),
                    datamodule,
                    max_epochs=epochs,
                    patience=_training.patience(epochs) if early_stopping else None,
                    trainer_kwargs={
                        "accelerator": accelerator,
                        "devices": devices,
                        **trainer_kwargs,
                    },
                )
            return self._take(result, prepared, datamodule, earlier) if result.n_epochs else result

    def _take(
        self,
        result: FitResult,
        prepared: PreparedData,
        datamodule: MosaicDataModule,
        earlier: np.ndarray,
    ) -> FitResult:
        """Become what a fit ended as; cells of earlier fits stay among those that trained it."""
        self.train_indices_ = datamodule.train_idx
        self.validation_indices_ = datamodule.val_idx
        self.test_indices_ = datamodule.test_idx
        self.imputability, self.split_keys = {}, {}
        remember(self, earlier)
        self.history_, self.fit_result, self.is_trained_ = result.history, result, True
        # What an earlier fit knew is of another latent space, also if what follows is interrupted.
        self.library_pool, self.counterparts = library_pools(prepared.data), {}
        try:
            self.counterparts = find_counterparts(
                prepared, self.module, self.anchors, datamodule.train_idx, seed=self.seed
            )
            self.library_pool = fit_libraries(self._sampler(None, None), datamodule.train_idx)
        except KeyboardInterrupt:
            logger.warning(
                "Training was interrupted after its last epoch, while counterparts of cells and "
                "library sizes were sought. The model can be used, but answers across modalities "
                "go without them. Call train() again for a full fit."
            )
            self.fit_result = replace(result, status="interrupted")
        return self.fit_result

    def _guide(
        self, prepared: PreparedData, training: np.ndarray, n_pairs: int
    ) -> PairSampler | None:
        """Anchors of training cells; sought again where the model was loaded from a file."""
        if not len(self.module.aligned):
            return None
        if self.anchors is None:
            self.anchors = find_again(
                prepared.data, self.graph, self.module, self.module_spec, seed=self.seed
            )
        return guide(prepared, self.anchors, training, n_pairs, seed=self.seed)

    def _prepare(self, manager: MosaicManager) -> PreparedData:
        return prepare(manager.data, self.module_spec, self.module)

    def _forget_rows(self) -> None:
        self.anchors = None

    def _rebuild(self, sizes: dict[str, Any]) -> None:
        self.module_spec = ModuleSpec.from_dict(sizes)
        # Initial weights are drawn, and replaced; the user's random numbers go on as they were.
        with torch.random.fork_rng(devices=[]):
            self.module = build_module(self.module_spec)

    def _describe(self) -> str:
        network = self.network
        return (
            f"MosaicVI with modalities {', '.join(self.module_spec.modalities)}; n_latent: "
            f"{network.n_latent}, n_hidden: {network.n_hidden}, n_layers: {network.n_layers}, "
            f"fusion: {network.fusion}"
        )
