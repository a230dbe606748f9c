"""Moving MNIST: digits that move over black at a constant speed and bounce off the walls.

Owns the motion, which is that of the published set (Srivastava et al., "Unsupervised Learning of Video Representations
using LSTMs", ICML 2015, as public generators have it). Where digits come from is `digits.py`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stmemory.errors import OptionError
from stmemory.sequences.digits import Digits, checked_digits
from stmemory.sequences.pictures import check_least, dice_of, paste

__all__ = ["MovingDigits", "bouncing_path"]


class MovingDigits:
    """An endless list of clips with digits that move: `clip(index)` is float32 [T, 1, H, W] in [0, 1].

    A digit's corner lives in the range that keeps it inside of the frame, taken as [0, 1] on both axes. It starts
    anywhere with equal chance, moves in any direction at `speed` of the range a frame, and where a step would leave the
    range it stops at the wall, to go back with the next step: the rest of that step is lost. Frame 0 shows it after one
    step. Pixels are `int(position * (size - digit))`. Digits are drawn with replacement, and where two overlap the
    brighter one counts.

    With pools of 28 x 28 digits and the standard options this is Moving MNIST: 64 x 64, two digits, 3.6 pixels a frame.
    The small set of this library is `MovingDigits(halved(digits), frames=12, size=32)`.

    Motion is drawn from (seed, index), whatever the pool: give training and test other seeds as well as other digits.
    """

    def __init__(
        self, pool: Digits, *, frames: int = 20, size: int = 64, digits: int = 2, speed: float = 0.1, seed: int = 0
    ) -> None:
        """Remember what to make clips of.

        Args:
            pool: uint8 [N, h, w].
            frames: T.
            size: H = W in pixels.
            digits: how many in a clip.
            speed: share of the range that a digit moves in a frame, in [0, 1].
            seed: not negative; (seed, index) decides the clip.

        Raises:
            ShapeError: the pool is not uint8 [N, h, w].
            OptionError: a number is out of its range, or the frame is smaller than a digit.

        >>> from stmemory.sequences import glyphs, halved
        >>> small = MovingDigits(halved(glyphs(100)), frames=12, size=32)
        >>> small.clip(0).shape, small.size
        (torch.Size([12, 1, 32, 32]), (1, 32, 32))
        """
        self._pool = checked_digits(pool)
        check_least(frames=(frames, 1), digits=(digits, 1), seed=(seed, 0), size=(size, max(pool.shape[1:])))
        if not 0 <= speed <= 1:
            raise OptionError(f"speed: expected a share of the range in [0, 1], got {speed}")
        self.frames = frames
        self.size = (1, size, size)
        self.digits = digits
        self.speed = speed
        self.seed = seed

    def clip(self, index: int) -> Tensor:
        """Make the clip of that number.

        Returns:
            float32 [T, 1, H, W] in [0, 1].

        Raises:
            OptionError: the index is negative.
        """
        dice = dice_of(self.seed, index)
        pictures = np.zeros((self.frames, *self.size[1:]), np.uint8)
        room = np.subtract(self.size[1:], self._pool.shape[1:])  # pixels of the range, down and across
        for _ in range(self.digits):
            digit = self._pool[dice.integers(len(self._pool))]
            start, angle = dice.random(2), dice.uniform(0, 2 * math.pi)
            step = (self.speed * math.sin(angle), self.speed * math.cos(angle))
            corners = (bouncing_path((float(start[0]), float(start[1])), step, self.frames) * room).astype(np.int64)
            for picture, (top, left) in zip(pictures, corners.tolist(), strict=True):
                paste(picture, digit, top, left)
        return torch.from_numpy(pictures[:, None]).float() / 255


def bouncing_path(start: tuple[float, float], step: tuple[float, float], frames: int) -> NDArray[np.float64]:
    """Where a point in the unit square is after each of so many steps; at a wall it stops, and that part of the step
    turns round.

    Args:
        start: y, x in [0, 1].
        step: y, x, what is added in a frame.
        frames: T.

    Returns:
        float64 [T, 2], y and x; the start itself is not among them.

    >>> bouncing_path((0.5, 0.75), (0.0, 0.5), 3).tolist()
    [[0.5, 1.0], [0.5, 0.5], [0.5, 0.0]]
    """
    path = np.empty((frames, 2))
    for axis, (position, change) in enumerate(zip(start, step, strict=True)):
        for time in range(frames):
            position += change
            if position <= 0:
                position, change = 0.0, -change
            if position >= 1:
                position, change = 1.0, -change
            path[time, axis] = position
    return path
