"""Names of `stmemory.training.prediction`, which moved."""

from stmemory.prediction.baselines import RecurrentNetwork, matched, parameters
from stmemory.prediction.train import Clips, ClipSource, PredictionTrainer, new_network
from stmemory.prediction.train_config import ClipSet, Contender, PredictionTraining

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
