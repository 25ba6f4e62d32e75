"""Networks: frozen projection, encoder, decoder, batch offsets."""

from mosaicvi.nn._batch_offsets import BatchOffsets
from mosaicvi.nn._cross_predictor import CrossPredictor
from mosaicvi.nn._decoder import Decoder
from mosaicvi.nn._encoder import Encoder
from mosaicvi.nn._projection import Projection, fit_projection
from mosaicvi.nn._trunk import DecoderSpec

__all__ = [
    "BatchOffsets",
    "CrossPredictor",
    "Decoder",
    "DecoderSpec",
    "Encoder",
    "Projection",
    "fit_projection",
]
