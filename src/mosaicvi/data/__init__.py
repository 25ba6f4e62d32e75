"""Reading a MuData as it is: registration, arrays, minibatches."""

from mosaicvi.data._batch import ModalityBatch, MultiBatch
from mosaicvi.data._dataset import MultiDataset
from mosaicvi.data._field import MosaicField
from mosaicvi.data._manager import MosaicManager, build_manager
from mosaicvi.data._mosaic_data import UNSTATED_BATCH, ModalityData, MosaicData
from mosaicvi.data._sampler import SequentialBatchSampler, StratifiedBatchSampler
from mosaicvi.data._schema import ModalitySpec
from mosaicvi.data._splitter import MosaicDataModule
from mosaicvi.data._stream import BlockBatchSampler, BlockShuffle, StreamedLoader

__all__ = [
    "UNSTATED_BATCH",
    "BlockBatchSampler",
    "BlockShuffle",
    "ModalityBatch",
    "ModalityData",
    "ModalitySpec",
    "MosaicData",
    "MosaicDataModule",
    "MosaicField",
    "MosaicManager",
    "MultiBatch",
    "MultiDataset",
    "SequentialBatchSampler",
    "StratifiedBatchSampler",
    "StreamedLoader",
    "build_manager",
]
