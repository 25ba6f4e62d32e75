"""Training plan and runner on Lightning."""

from mosaicvi.train._plan import MosaicTrainingPlan, OptimizerSpec
from mosaicvi.train._runner import FitResult, run_fit

__all__ = ["FitResult", "MosaicTrainingPlan", "OptimizerSpec", "run_fit"]
