"""What a model keeps beside its network, and how it is given the cells that it answers for."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from mosaicvi._scvi import SETUP_ARGS_KEY
from mosaicvi.model._cells import name_keys
from mosaicvi.model._registered import RegisteredModel

if TYPE_CHECKING:
    from mudata import MuData

    from mosaicvi.graph import FeatureGraph
    from mosaicvi.model._counterparts import Counterparts
    from mosaicvi.model._imputation import Imputability
    from mosaicvi.train import FitResult


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
        self.library_pool: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.counterparts: dict[str, Counterparts] = {}
        self.imputability: dict[str, Imputability] = {}
        self.split_keys: dict[str, np.ndarray] = {}
        self.graph: FeatureGraph | None = None

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

    def _find_split(self) -> None:
        """Look up the cells of a saved split in the attached MuData, whatever their order there.

        Cells that it does not hold are left out: no row of other cells is taken for held out.
        """
        if not self.split_keys:
            return
        keys = name_keys(self.adata_manager.data.obs_names)
        for name in ("train", "validation", "test"):
            saved = self.split_keys.get(name)
            rows = None if saved is None else np.flatnonzero(np.isin(keys, saved))
            setattr(self, f"{name}_indices_", rows)

    @abstractmethod
    def _rebuild(self, sizes: dict[str, Any]) -> None:
        """Make specification and network from the sizes in a file; weights are filled in later."""

    @abstractmethod
    def _describe(self) -> str:
        """One line for scvi-tools' summary of the model."""
