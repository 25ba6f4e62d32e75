"""What a model keeps beside its network, and how it is given the cells that it answers for."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi import _scvi
from mosaicvi._scvi import SETUP_ARGS_KEY, BaseModelClass
from mosaicvi.data import build_manager
from mosaicvi.data._structure import check_object
from mosaicvi.model._cells import name_keys
from mosaicvi.model._registered import RegisteredModel

if TYPE_CHECKING:
    from mudata import MuData

    from mosaicvi.graph import FeatureGraph
    from mosaicvi.model._counterparts import Counterparts
    from mosaicvi.model._imputation import Imputability
    from mosaicvi.model._library_pool import LibraryPool
    from mosaicvi.train import FitResult


SPLIT = ("train", "validation", "test")
"""Parts of a split."""


class KeptModel(RegisteredModel):
    """A registered model with everything that a file of it holds."""

    module: Any
    """The network; a :class:`~mosaicvi.module.MultimodalModule`."""
    module_spec: Any
    """Its sizes, JSON-able, with the field ``modalities``."""
    seed: int

    def __init__(self, adata: MuData | None, registry: dict[str, Any] | None) -> None:
        super().__init__(adata, registry)
        self.fit_result: FitResult | None = None
        self.library_pool: dict[str, LibraryPool] = {}
        self.counterparts: dict[str, Counterparts] = {}
        self.imputability: dict[str, Imputability] = {}
        self.split_keys: dict[str, np.ndarray] = {}
        self.graph: FeatureGraph | None = None

    @property
    def adata(self) -> Any:
        """The MuData that the model answers for; None where it was loaded without.

        Another one may be set: cells that trained the model, or were held out, are found in it by
        their names.
        """
        return self._adata

    @adata.setter
    def adata(self, mdata: MuData) -> None:
        check_object(mdata)
        self.split_keys = self._known_split()
        if self._adata is None:
            self.attach(mdata)
            return
        if mdata is not self._adata:
            self._forget_rows()
        BaseModelClass.adata.fset(self, mdata)
        self._find_split()

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
        self._find_split()

    def _register_query(self, mdata: MuData) -> None:
        """Register cells that a model without data is asked about; it goes on having none."""
        stores = self._per_instance_manager_store.get(self.id, {})
        known = stores.get(mdata.uns.get(_scvi.UUID_KEY))
        if known is not None:
            if known.adata is mdata:
                return
            # A copy bears the mark of what it was made of, which would be forgotten.
            _scvi.assign_new_uuid(mdata)
        registry = self.registry_
        keys = (_scvi.MODEL_NAME_KEY, _scvi.SETUP_METHOD_KEY, SETUP_ARGS_KEY)
        manager = build_manager(
            mdata,
            setup_method_args={key: registry[key] for key in keys if key in registry},
            source_registry=registry,
            **registry[SETUP_ARGS_KEY],
        )
        self._register_manager_for_instance(manager)

    def _find_split(self) -> None:
        """Look up the cells of a saved split in the attached MuData, whatever their order there.

        Cells that it does not hold are left out: no row of other cells is taken for held out.
        """
        if not self.split_keys:
            return
        keys = name_keys(self.adata_manager.data.obs_names)
        for name in SPLIT:
            saved = self.split_keys.get(name)
            rows = None if saved is None else np.flatnonzero(np.isin(keys, saved))
            setattr(self, f"{name}_indices_", rows)

    def _known_split(self) -> dict[str, np.ndarray]:
        """Keys of the training, validation and test cells, in the order of the rows.

        Those of a fit to other cells than the attached ones, which may be a part of them, are kept
        as they are.
        """
        if self._adata is None or self.split_keys:
            return self.split_keys
        names = self.adata_manager.data.obs_names
        rows = {name: getattr(self, f"{name}_indices_") for name in SPLIT}
        return {
            name: name_keys(names[np.asarray(chosen, dtype=np.int64)])
            for name, chosen in rows.items()
            if chosen is not None
        }

    def _forget_rows(self) -> None:
        """Forget what is known by rows of a MuData that is replaced."""

    @abstractmethod
    def _rebuild(self, sizes: dict[str, Any]) -> None:
        """Make specification and network from the sizes in a file; weights are filled in later."""

    @abstractmethod
    def _describe(self) -> str:
        """One line for scvi-tools' summary of the model."""
