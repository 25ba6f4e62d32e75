"""Generative story, inference and objective."""

from mosaicvi.module._build import ModalitySize, ModuleSpec, build_module
from mosaicvi.module._mosaic_module import MosaicModule
from mosaicvi.module._multimodal import MultimodalModule
from mosaicvi.module._objective import Objective
from mosaicvi.module._objective_spec import Losses, ObjectiveSpec

__all__ = [
    "Losses",
    "ModalitySize",
    "ModuleSpec",
    "MosaicModule",
    "MultimodalModule",
    "Objective",
    "ObjectiveSpec",
    "build_module",
]
