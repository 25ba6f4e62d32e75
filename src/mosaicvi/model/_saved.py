"""Files of a model: saved and loaded without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from mosaicvi._errors import RequestError
from mosaicvi._scvi import AnnDataManager
from mosaicvi.model import _persistence
from mosaicvi.model._kept import KeptModel

if TYPE_CHECKING:
    from mudata import MuData


class SavedModel(KeptModel):
    """A model that is saved and loaded."""

    def save(
        self,
        dir_path: str | Path,
        *,
        overwrite: bool = False,
        save_anndata: bool = False,
        prefix: None = None,
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
        prefix
            An argument of scvi-tools', which is refused: each model has a folder of its own here.
        **anndata_write_kwargs
            Passed to :meth:`mudata.MuData.write`: ``compression``, ``compression_opts``,
            ``allow_unknown_filter``, ``track_order``, ``track_times``.

        Raises
        ------
        FileError
            If the folder exists and ``overwrite`` is False, or a file is in its place.
        RequestError
            If a prefix is given, or a keyword that nothing takes: any without ``save_anndata``.
        """
        _persistence.check_prefix(prefix)
        _persistence.save(
            self,
            Path(dir_path).expanduser(),
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
        prefix: None = None,
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
        prefix
            Refused, as by :meth:`save`.

        Raises
        ------
        FileError
            If a file is missing, truncated, foreign or newer, or is of another model class.
        DataError
            If the MuData lacks features that the model was trained on.
        RequestError
            If a prefix is given.
        """
        _persistence.check_prefix(prefix)
        return _persistence.load(cls, Path(dir_path).expanduser(), adata, accelerator, device)

    @staticmethod
    def load_registry(dir_path: str | Path, prefix: str | None = None) -> dict[str, Any]:
        """Registry of a saved model, read from its JSON; scvi-tools would unpickle a file here.

        Raises
        ------
        FileError
            If the folder does not hold a model of this package.
        """
        return _persistence.read_registry(Path(dir_path).expanduser(), prefix)

    @staticmethod
    def view_setup_args(dir_path: str | Path, prefix: str | None = None) -> None:
        """Show with which arguments a saved model's data were set up."""
        AnnDataManager.view_setup_method_args(
            _persistence.read_registry(Path(dir_path).expanduser(), prefix)
        )

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
