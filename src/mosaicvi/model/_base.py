"""What every model of the package shares: setup, data access, request checks, save and load."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd

from mosaicvi._errors import DataError, RequestError
from mosaicvi._scvi import SETUP_ARGS_KEY, AnnDataManager, BaseModelClass
from mosaicvi.data import ModalitySpec, MosaicManager, build_manager
from mosaicvi.data._structure import check_object
from mosaicvi.model import _answers, _persistence, _requests
from mosaicvi.model._chunks import PredictiveRequest
from mosaicvi.model._imputation import Imputability, measure_imputability
from mosaicvi.model._posterior import PosteriorSampler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

    from mosaicvi.graph import FeatureGraph
    from mosaicvi.model._cells import PreparedData
    from mosaicvi.model._disagreement import Disagreement
    from mosaicvi.train import FitResult


class MultimodalModel(BaseModelClass):
    """Base of the models: everything that does not depend on how a model is fitted."""

    module: Any
    """The network; a :class:`~mosaicvi.module.MultimodalModule`."""
    module_spec: Any
    """Its sizes, JSON-able, with the field ``modalities``."""
    seed: int

    def __init__(self, adata: MuData | None, registry: dict[str, Any] | None) -> None:
        super().__init__(adata, registry)
        self.fit_result: FitResult | None = None
        self.library_pool: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.disagreements: dict[tuple[str, str], Disagreement] = {}
        self.imputability: dict[str, Imputability] = {}
        self.split_keys: dict[str, np.ndarray] = {}
        self.graph: FeatureGraph | None = None
        self._prepared: dict[str, PreparedData] = {}

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        modalities: Mapping[str, str | Mapping[str, Any] | ModalitySpec],
        *,
        batch_key: str | Mapping[str, str] | None = None,
        layer: str | Mapping[str, str | None] | None = "auto",
        size_factor_key: str | Mapping[str, str] | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        panel_key: str | Mapping[str, str] | None = None,
        empty_droplets: Mapping[str, Any] | None = None,
        source_registry: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register a MuData as it is: paired, mosaic or unpaired.

        Nothing is copied, reordered or padded; scvi-tools' registration keys in ``mdata.uns`` are
        the only thing written.

        Parameters
        ----------
        mdata
            Cells; each modality holds the cells that it measured.
        modalities
            Modality to likelihood (``"nb"``, ``"zinb"``, ``"nb_mixture"``, ``"poisson"``,
            ``"bernoulli"``, ``"normal"``) or to a :class:`~mosaicvi.ModalitySpec`.
        batch_key
            Column of the technical batch: one for all modalities, or one a modality. Looked up in
            ``mdata.obs``, then in the modalities' ``obs``.
        layer
            Where counts are: ``"auto"`` takes X if it holds counts, else ``layers["counts"]``.
        size_factor_key
            Column that replaces counts a cell as library size.
        categorical_covariate_keys, continuous_covariate_keys
            Columns of further covariates of the decoders.
        panel_key
            ``varm`` key of a features x batches table, True where a batch measured a feature.
        empty_droplets
            Modality to counts of empty droplets (AnnData or matrix with the same features), which
            set the background of ``nb_mixture``.
        source_registry
            Registry of an earlier setup, whose categories and features are used.

        Raises
        ------
        DataError
            If the data are not what the model needs; the message names modality, key and remedy.
        RequestError
            If a modality, likelihood or option is unknown.
        """
        arguments = cls._get_setup_method_args(
            cls=cls,
            mdata=mdata,
            modalities=modalities,
            batch_key=batch_key,
            layer=layer,
            size_factor_key=size_factor_key,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            panel_key=panel_key,
        )
        manager = build_manager(
            mdata,
            modalities,
            batch_key=batch_key,
            layer=layer,
            size_factor_key=size_factor_key,
            categorical_covariate_keys=categorical_covariate_keys,
            continuous_covariate_keys=continuous_covariate_keys,
            panel_key=panel_key,
            empty_droplets=empty_droplets,
            setup_method_args=arguments,
            source_registry=source_registry,
            **kwargs,
        )
        cls.register_manager(manager)

    @classmethod
    def setup_anndata(cls, adata: AnnData, *args: Any, **kwargs: Any) -> None:
        """Refuse an AnnData and say how to make a MuData of it.

        Raises
        ------
        RequestError
            Always.
        """
        raise RequestError(
            f"{cls.__name__} reads a MuData, and was given {type(adata).__name__}",
            remedy="mdata = mudata.MuData({'rna': adata}); "
            f"{cls.__name__}.setup_mudata(mdata, {{'rna': 'zinb'}})",
        )

    @classmethod
    def _get_most_recent_anndata_manager(
        cls, adata: MuData, required: bool = False
    ) -> MosaicManager | None:
        """Registration of a MuData; scvi-tools' own messages speak of ``setup_anndata``."""
        try:
            found: MosaicManager | None = super()._get_most_recent_anndata_manager(adata, required)
        except ValueError as error:
            raise DataError(
                "the MuData was not set up for this model, or is a copy or subset of one that was",
                expected=f"the very object that {cls.__name__}.setup_mudata was given",
                remedy=f"call {cls.__name__}.setup_mudata(mdata, ...) on this object, then "
                f"{cls.__name__}(mdata); a model that is trained takes other cells by adata=",
            ) from error
        return found

    def save(
        self,
        dir_path: str | Path,
        *,
        overwrite: bool = False,
        save_anndata: bool = False,
        **anndata_write_kwargs: Any,
    ) -> None:
        """Save to a folder: weights as safetensors, everything else as JSON; no pickle.

        Parameters
        ----------
        dir_path
            Folder to write.
        overwrite
            Replace a model that is there.
        save_anndata
            Also write the MuData, as ``mdata.h5mu``.
        **anndata_write_kwargs
            Passed to :meth:`mudata.MuData.write`.

        Raises
        ------
        FileError
            If the folder exists and ``overwrite`` is False.
        """
        _persistence.save(
            self,
            Path(dir_path),
            overwrite=overwrite,
            save_anndata=save_anndata,
            write_kwargs=anndata_write_kwargs,
        )

    @classmethod
    def load(
        cls,
        dir_path: str | Path,
        adata: MuData | Literal[False] | None = None,
        *,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Load a saved model; no code from the files is run.

        Parameters
        ----------
        dir_path
            Folder that :meth:`save` wrote.
        adata
            Cells to answer for, in any order, with the model's features in any order; None: the
            MuData saved with the model; False: none, and getters need ``adata=``.
        accelerator, device
            Where the model goes, as in scvi-tools.

        Raises
        ------
        FileError
            If a file is missing, truncated, foreign or newer, or is of another model class.
        DataError
            If the MuData lacks features that the model was trained on.
        """
        return _persistence.load(cls, Path(dir_path), adata, accelerator, device)

    @staticmethod
    def load_registry(dir_path: str | Path, prefix: str | None = None) -> dict[str, Any]:
        """Registry of a saved model, read from its JSON; scvi-tools would unpickle a file here.

        Raises
        ------
        FileError
            If the folder does not hold a model of this package.
        """
        return _persistence.read_registry(Path(dir_path), prefix)

    @staticmethod
    def view_setup_args(dir_path: str | Path, prefix: str | None = None) -> None:
        """Show with which arguments a saved model's data were set up."""
        AnnDataManager.view_setup_method_args(_persistence.read_registry(Path(dir_path), prefix))

    @classmethod
    def convert_legacy_save(cls, *args: Any, **kwargs: Any) -> None:
        """Refuse: there is no earlier format, and scvi-tools' one is pickled.

        Raises
        ------
        RequestError
            Always.
        """
        raise RequestError(
            f"{cls.__name__} has no earlier file format, and pickled files are not opened",
            remedy="save the model with model.save()",
        )

    def attach(self, mdata: MuData) -> None:
        """Give a model that was loaded without data the MuData it answers for.

        Parameters
        ----------
        mdata
            Cells in any order, features in any order; nothing but scvi-tools' registration keys is
            written to it.

        Raises
        ------
        DataError
            If features of the model are missing.
        """
        type(self).setup_mudata(
            mdata, source_registry=self.registry_, **self.registry_[SETUP_ARGS_KEY]
        )
        self._adata = mdata
        self._adata_manager = self._get_most_recent_anndata_manager(mdata, required=True)
        self._register_manager_for_instance(self._adata_manager)
        _persistence.find_split(self)

    def _cells(self, adata: MuData | None) -> PreparedData:
        """Registered data of a MuData, with encoder inputs; computed once a registration."""
        if adata is None and self.adata is None:
            raise RequestError(
                "the model was loaded without data", key="adata", remedy="pass adata=mdata"
            )
        if adata is not None:
            # Before scvi-tools sees it: its own check would turn the user's view into a copy.
            check_object(adata)
            if self.adata is None:
                self.attach(adata)
        mdata = self._validate_anndata(adata, copy_if_view=False)
        manager: MosaicManager = self.get_anndata_manager(mdata, required=True)
        if manager.id not in self._prepared:
            self._prepared[manager.id] = self._prepare(manager)
        return self._prepared[manager.id]

    @abstractmethod
    def _prepare(self, manager: MosaicManager) -> PreparedData:
        """Compute what the network reads of registered cells."""

    @abstractmethod
    def _rebuild(self, sizes: dict[str, Any]) -> None:
        """Make specification and network from the sizes in a file; weights are filled in later."""

    def _sampler(self, adata: MuData | None, seed: int | None) -> PosteriorSampler:
        if seed is not None:
            _requests.check_whole(seed, "seed", 0, other="; None: the model's")
        self._check_if_trained(warn=True)
        prepared = self._cells(adata)
        return PosteriorSampler(
            self.module,
            prepared.data,
            prepared.dataset,
            library_pool=self.library_pool,
            disagreements=self.disagreements,
            seed=self.seed if seed is None else seed,
        )

    def _evidence(
        self, from_modalities: Sequence[str] | None, exclude: str | None
    ) -> tuple[str, ...]:
        known = self.module.modalities
        if from_modalities is None:
            return tuple(name for name in known if name != exclude)
        names = (from_modalities,) if isinstance(from_modalities, str) else tuple(from_modalities)
        for name in names:
            _answers.check_modality(name, known, key="from_modalities")
        if not names:
            raise RequestError(
                "no modality given as evidence", key="from_modalities", remedy="name at least one"
            )
        return tuple(name for name in known if name in names)

    def _request(
        self,
        modality: str,
        from_modalities: Sequence[str] | None,
        n_samples: int,
        transform_batch: str | Sequence[str] | None,
        library_size: float | str | None,
    ) -> PredictiveRequest:
        _answers.check_modality(modality, self.module.modalities)
        likelihood = self.module_spec.modalities[modality].likelihood
        _answers.check_library_size(modality, likelihood, library_size)
        _requests.check_whole(n_samples, "n_samples")
        return PredictiveRequest(
            modality=modality,
            from_modalities=self._evidence(from_modalities, exclude=modality),
            n_samples=n_samples,
            transform_batch=self._batch_codes(modality, transform_batch),
            library_size=library_size,
        )

    def _batch_codes(
        self, modality: str, transform_batch: str | Sequence[str] | None
    ) -> tuple[int, ...] | None:
        if transform_batch is None:
            return None
        categories = list(self.batch_categories[modality])
        measured = self.module.decoders[modality].measured.any(1).cpu().numpy()
        usable = [c for c, is_measured in zip(categories, measured, strict=True) if is_measured]
        return _requests.batch_codes(modality, transform_batch, categories, usable)

    def _get_imputability(self, request: PredictiveRequest) -> Imputability:
        """Measured once for each question on held-out cells, and saved with the model."""
        key = "|".join([request.modality, *request.from_modalities])
        if key not in self.imputability:
            if self.adata is None or self.validation_indices_ is None:
                n_features = self.module_spec.modalities[request.modality].n_features
                return Imputability(np.full(n_features, np.nan), 0)
            plain = PredictiveRequest(request.modality, request.from_modalities, 50)
            self.imputability[key] = measure_imputability(
                self._sampler(None, None), np.asarray(self.validation_indices_), plain
            )
        return self.imputability[key]

    @staticmethod
    def _frame(
        sampler: PosteriorSampler, rows: np.ndarray, modality: str, values: np.ndarray
    ) -> pd.DataFrame:
        return pd.DataFrame(
            values,
            index=pd.Index(sampler.data.obs_names[rows].astype(str)),
            columns=pd.Index(np.asarray(sampler.data.modalities[modality].var_names, dtype=str)),
        )

    @property
    def batch_categories(self) -> dict[str, tuple[str, ...]]:
        """Batch names of each modality, in the order of their codes."""
        return _persistence.batch_categories(self.registry_)

    @abstractmethod
    def _describe(self) -> str:
        """One line for scvi-tools' summary of the model."""
