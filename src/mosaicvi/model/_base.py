"""What the getters of every model of the package share: access to data, checks of requests."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from mosaicvi import _scvi
from mosaicvi._errors import RequestError, check_whole
from mosaicvi.data._structure import check_object
from mosaicvi.model import _answers, _persistence, _requests
from mosaicvi.model._chunks import PredictiveRequest
from mosaicvi.model._imputation import MIN_CHECK_CELLS, Imputability, measure_imputability
from mosaicvi.model._posterior import PosteriorSampler
from mosaicvi.model._saved import SavedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from mosaicvi.data import MosaicManager
    from mosaicvi.model._cells import PreparedData


class MultimodalModel(SavedModel):
    """Base of the models: everything that does not depend on how a model is fitted."""

    groups: str | None = None
    """Column of groups of cells, in models that have some."""

    def __init__(self, adata: MuData | None, registry: dict[str, Any] | None) -> None:
        _requests.check_torch()
        super().__init__(adata, registry)
        self._prepared: dict[str, PreparedData] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A model of its own with the same MuData, which is never copied."""
        twin = copy.copy(self)
        memo[id(self)] = twin
        twin._prepared = dict(self._prepared)
        for name in vars(self).keys() - {"_adata", "_adata_manager", "_prepared"}:
            setattr(twin, name, copy.deepcopy(getattr(self, name), memo))
        return twin

    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to pickle a MuData: mudata writes what nothing can read.

        Raises
        ------
        RequestError
            If the model has data.
        """
        if self._adata is not None:
            raise RequestError(
                f"a {type(self).__name__} with its MuData cannot be pickled, as MuData cannot",
                key="adata",
                remedy="model.save(folder), and load it in the other process; joblib takes "
                "backend='threading'; copy.deepcopy(model) shares the MuData",
            )
        return dict(vars(self))

    def _cells(self, adata: MuData | None) -> PreparedData:
        """Registered data of a MuData, with encoder inputs; computed once a registration."""
        _requests.check_torch()
        if adata is None and self.adata is None:
            raise RequestError(
                "the model was loaded without data",
                key="adata",
                remedy="pass adata=mdata, or give it data of its own: model.attach(mdata)",
            )
        if adata is not None:
            # Before scvi-tools sees it: its own check would turn the user's view into a copy.
            check_object(adata)
            self._forget_stale(adata)
            if self.adata is None:
                self._register_query(adata)
        mdata = self._validate_anndata(adata, copy_if_view=False)
        manager: MosaicManager = self.get_anndata_manager(mdata, required=True)
        if manager.id not in self._prepared:
            manager.columns = () if self.groups is None else (self.groups,)
            self._prepared[manager.id] = self._prepare(manager)
        return self._prepared[manager.id]

    def deregister_manager(self, adata: MuData | None = None) -> None:
        """Forget cells that the model was asked about, and all that was read of them.

        They are kept to be asked about again. (scvi-tools' own method knows only of cells that were
        set up, and of models with data.)

        Parameters
        ----------
        adata
            The MuData; None: all but the model's own, and, as in scvi-tools, every setup of other
            MuData for a model of this class.
        """
        own = self._adata_manager
        asked = self._per_instance_manager_store.get(self.id, {})
        for store in (self._setup_adata_manager_store, asked):
            for uuid, manager in list(store.items()):
                if adata is None:
                    gone = own is None or uuid != own.adata_uuid
                else:
                    gone = manager.adata is adata
                if gone:
                    del store[uuid]
                    self._prepared.pop(manager.id, None)

    def _forget_stale(self, mdata: MuData) -> None:
        """Have a query that changed since it was asked about read again.

        The model's own MuData is what it was at the setup.
        """
        uuid = mdata.uns.get(_scvi.UUID_KEY)
        known = self._per_instance_manager_store.get(self.id, {}).get(uuid)
        if known is None or known.adata is not mdata or mdata is self.adata:
            return
        if known.is_stale():
            self._prepared.pop(known.id, None)
            _scvi.assign_new_uuid(mdata)

    @abstractmethod
    def _prepare(self, manager: MosaicManager) -> PreparedData:
        """Compute what the network reads of registered cells."""

    def _sampler(self, adata: MuData | None, seed: int | None) -> PosteriorSampler:
        if seed is not None:
            _requests.check_seed(seed, other="; None: the model's")
        self._check_if_trained(warn=True)
        prepared = self._cells(adata)
        return PosteriorSampler(
            self.module,
            prepared.data,
            prepared.dataset,
            library_pool=self.library_pool,
            counterparts=self.counterparts,
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
        codes = self._batch_codes(modality, transform_batch)
        check_whole(
            n_samples,
            "n_samples",
            1 if codes is None else len(codes),
            other=", as draws take the batches of transform_batch in turn" if codes else "",
        )
        return PredictiveRequest(
            modality=modality,
            from_modalities=self._evidence(from_modalities, exclude=modality),
            n_samples=n_samples,
            transform_batch=codes,
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
        """Measured once for each question on held-out cells, and saved with the model.

        Too few of them say nothing, and are not kept: other cells may hold more.
        """
        key = "|".join([request.modality, *request.from_modalities])
        if key in self.imputability:
            return self.imputability[key]
        if self.adata is None or self.validation_indices_ is None:
            n_features = self.module_spec.modalities[request.modality].n_features
            return Imputability(np.full(n_features, np.nan), 0)
        plain = PredictiveRequest(request.modality, request.from_modalities, 50)
        found = measure_imputability(
            self._sampler(None, None), np.asarray(self.validation_indices_), plain
        )
        if found.n_cells >= MIN_CHECK_CELLS:
            self.imputability[key] = found
        return found

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
