"""What a set of clips to predict is: numbered clips of one size and length. Makes and reads none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from stmemory.errors import OptionError

__all__ = ["FiniteSequences", "RecallSequences", "Sequences", "batch"]


class Sequences(Protocol):
    """Numbered clips; the same number gives the same clip in every process and order.

    Attributes:
        frames: T.
        size: C, H, W.
    """

    @property
    def frames(self) -> int:
        """T, frames of every clip."""
        ...

    @property
    def size(self) -> tuple[int, int, int]:
        """C, H, W of every frame."""
        ...

    def clip(self, index: int) -> Tensor:
        """The clip of that number, 0 or more: float32 [T, C, H, W] in [0, 1]."""
        ...


class FiniteSequences(Sequences, Protocol):
    """Clips of which there are only so many: those of a file or of a folder."""

    def __len__(self) -> int:
        """How many; their numbers are 0 to one less."""
        ...


class RecallSequences(Sequences, Protocol):
    """Clips that can be predicted by who remembers, and by no one else."""

    def known_from(self, index: int) -> int:
        """The first frame t from which on every frame follows from frames 0..t-1."""
        ...

    def recalled_from(self, index: int) -> int:
        """The first frame, not before `known_from`, that shows something which frame t-1 does not."""
        ...


def batch(sequences: Sequences, indices: Iterable[int]) -> Tensor:
    """Clips side by side.

    Args:
        sequences: where they come from.
        indices: their numbers, at least one.

    Returns:
        float32 [B, T, C, H, W] in [0, 1].

    Raises:
        OptionError: no number was given.

    >>> from stmemory.sequences import MovingDigits, glyphs
    >>> batch(MovingDigits(glyphs(20), frames=4), range(3)).shape
    torch.Size([3, 4, 1, 64, 64])
    """
    clips = [sequences.clip(index) for index in indices]
    if not clips:
        raise OptionError("indices: expected one or more numbers of clips, got none")
    return torch.stack(clips)
