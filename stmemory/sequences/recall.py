"""Pictures that come round again: each frame is new until all were seen, and none after that.

Owns the cycle, the first set where a memory must matter. The second one, digits behind a curtain, is `curtain.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stmemory.errors import OptionError
from stmemory.sequences.digits import Digits, checked_digits
from stmemory.sequences.pictures import check_least, dice_of, different_pictures

__all__ = ["RepeatingPictures"]


class RepeatingPictures:
    """An endless list of clips in which N different pictures come in a cycle: frame t is frame t - N.

    The pictures are drawn at random, so no frame before number N can be known from those before it. Frame N is picture
    0 again, and says how long the cycle is. From frame N + 1 on everything is determined: what follows a picture is
    what followed it the last time. Who keeps N pictures knows all of it, who keeps fewer does not.
    """

    def __init__(
        self,
        pool: Digits,
        period: int | tuple[int, int],
        *,
        frames: int | None = None,
        size: int = 32,
        per_picture: int = 2,
        seed: int = 0,
    ) -> None:
        """Remember what to make clips of.

        Args:
            pool: uint8 [N, h, w].
            period: N, pictures in the cycle; or the least and the most of which each clip draws its own.
            frames: T; by default two cycles of the most and the frame that tells, 2 N + 1.
            size: H = W in pixels.
            per_picture: digits in each picture.
            seed: not negative; (seed, index) decides the clip.

        Raises:
            ShapeError: the pool is not uint8 [N, h, w].
            OptionError: a number is out of its range, or the frame is smaller than a digit.

        >>> from stmemory.sequences import glyphs, halved
        >>> clips = RepeatingPictures(halved(glyphs(100)), period=3)
        >>> frames = clips.clip(0)
        >>> frames.shape, clips.known_from(0), bool((frames[3:] == frames[:-3]).all())
        (torch.Size([7, 1, 32, 32]), 4, True)
        """
        self._pool = checked_digits(pool)
        least, most = (period, period) if isinstance(period, int) else period
        if not 1 <= least <= most:
            raise OptionError(f"period: expected a number of 1 or more, or the least and the most, got {period}")
        self.frames = 2 * most + 1 if frames is None else frames
        check_least(
            frames=(self.frames, 1), per_picture=(per_picture, 1), seed=(seed, 0), size=(size, max(pool.shape[1:]))
        )
        self.size = (1, size, size)
        self.period = (least, most)
        self.per_picture = per_picture
        self.seed = seed

    def clip(self, index: int) -> Tensor:
        """Make the clip of that number.

        Returns:
            float32 [T, 1, H, W] in [0, 1].

        Raises:
            OptionError: the index is negative, or the pool has not as many different pictures.
        """
        dice, period = self._begin(index)
        pictures = different_pictures(self._pool, period, dice, size=self.size[1:], per_picture=self.per_picture)
        cycle = torch.from_numpy(pictures[:, None]).float() / 255
        return cycle[torch.arange(self.frames) % period]

    def period_of(self, index: int) -> int:
        """N, the pictures in the cycle of a clip."""
        return self._begin(index)[1]

    def known_from(self, index: int) -> int:
        """N + 1: from this frame on every frame follows from frames 0..N. May be T or more, when the clip ends
        before."""
        return self.period_of(index) + 1

    def recalled_from(self, index: int) -> int:
        """N + 1, as `known_from`: each frame from there on has to be recalled."""
        return self.known_from(index)

    def _begin(self, index: int) -> tuple[np.random.Generator, int]:
        """The random numbers of a clip, from which its N was drawn."""
        dice = dice_of(self.seed, index)
        return dice, int(dice.integers(self.period[0], self.period[1] + 1))
