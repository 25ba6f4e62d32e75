"""What a model keeps beside its network, and how that is saved, loaded and given other cells."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from mosaicvi._errors import RequestError
from mosaicvi._scvi import SETUP_ARGS_KEY, AnnDataManager
from mosaicvi.model import _persistence
from mosaicvi.model._registered import RegisteredModel

if TYPE_CHECKING:
    import numpy as np
    from mudata import MuData

    from mosaicvi.graph import FeatureGraph
    from mosaicvi.model._counterparts import Counterparts
    from mosaicvi.model._imputation import Imputability
    from mosaicvi.train import FitResult


class SavedModel(RegisteredModel):
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

    @abstractmethod
    def _rebuild(self, sizes: dict[str, Any]) -> None:
        """Make specification and network from the sizes in a file; weights are filled in later."""

    @abstractmethod
    def _describe(self) -> str:
        """One line for scvi-tools' summary of the model."""
