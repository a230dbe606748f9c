"""Training of video prediction: scheduled sampling, and baselines of the same size in the same run.

The core never imports this package.
"""

from stmemory.training.prediction.baselines import RecurrentNetwork, matched, parameters
from stmemory.training.prediction.clips import Clips, ClipSource
from stmemory.training.prediction.config import ClipSet, Contender, PredictionTraining
from stmemory.training.prediction.loop import PredictionTrainer, new_network

__all__ = [
    "ClipSet",
    "ClipSource",
    "Clips",
    "Contender",
    "PredictionTrainer",
    "PredictionTraining",
    "RecurrentNetwork",
    "matched",
    "new_network",
    "parameters",
]
