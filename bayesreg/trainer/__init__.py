"""The trainer: NLL plus log-prior to a MAP estimate."""

from bayesreg.trainer.averaging import WeightAverage
from bayesreg.trainer.result import FitResult, History
from bayesreg.trainer.trainer import MAPTrainer

__all__ = ["FitResult", "History", "MAPTrainer", "WeightAverage"]
