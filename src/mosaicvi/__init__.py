"""Single-cell multi-omics models that read a MuData as it is."""

from mosaicvi import datasets, graph, metrics, pl, tl
from mosaicvi.__about__ import __version__
from mosaicvi._errors import (
    DataError,
    DownloadError,
    FileError,
    MosaicviError,
    MosaicviWarning,
    RequestError,
)
from mosaicvi._settings import settings
from mosaicvi.data import BlockShuffle, ModalitySpec
from mosaicvi.data._read import read_lazy
from mosaicvi.factor import FactorVI
from mosaicvi.model import MosaicVI

__all__ = [
    "BlockShuffle",
    "DataError",
    "DownloadError",
    "FactorVI",
    "FileError",
    "ModalitySpec",
    "MosaicVI",
    "MosaicviError",
    "MosaicviWarning",
    "RequestError",
    "__version__",
    "datasets",
    "graph",
    "metrics",
    "pl",
    "read_lazy",
    "settings",
    "tl",
]
