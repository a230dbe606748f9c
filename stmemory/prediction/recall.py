"""Synthetic clips that ask for memory: repeating images, digits that vanish, a curtain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stmemory.errors import OptionError
from stmemory.prediction.synthetic import Digits, check_least, checked_digits, dice_of, different_pictures

__all__ = [
    "Curtain",
    "RepeatingPictures",
    "VanishingDigits",
]


class RepeatingPictures:
    """An endless list of clips in which N different images come in a cycle: frame t is frame t - N.

    The images are drawn at random, so no frame before number N can be known from those before it. Frame N is image
    0 again, and says how long the cycle is. From frame N + 1 on everything is determined: what follows an image is
    what followed it the last time. Who keeps N images knows all of it, who keeps fewer does not.
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
            frames: T; by default two cycles of the most and the frame that shows it, 2 N + 1.
            size: H = W in pixels.
            per_picture: digits in each image.
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
            OptionError: the index is negative, or the pool has not as many different images.
        """
        dice, period = self._begin(index)
        pictures = different_pictures(self._pool, period, dice, size=self.size[1:], per_picture=self.per_picture)
        cycle = torch.from_numpy(pictures[:, None]).float() / 255
        return cycle[torch.arange(self.frames) % period]

    def period_of(self, index: int) -> int:
        """N, the images in the cycle of a clip."""
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


_GREY = 128  # of the curtain
_MOVES = 2  # frames in which it closes, and in which it opens
_TIMER_ROWS = 2


@dataclass(frozen=True)
class Curtain:
    """When the curtain is closed, and what is played before and after.

    Attributes:
        hidden: N, frames in which nothing is seen; or the least and the most of which each clip draws its own.
        scenes: M, images that are shown one after another, then hidden, then shown again in the same order.
        shown: frames that each scene stands.
    """

    hidden: int | tuple[int, int] = 8
    scenes: int = 1
    shown: int = 2

    def __post_init__(self) -> None:
        """Check every field."""
        if not 0 <= self.hidden_range[0] <= self.hidden_range[1]:
            raise OptionError(
                f"Curtain.hidden: expected a number of 0 or more, or the least and the most, got {self.hidden}"
            )
        check_least(**{"Curtain.scenes": (self.scenes, 1), "Curtain.shown": (self.shown, 1)})

    @property
    def hidden_range(self) -> tuple[int, int]:
        """The least and the most frames in which nothing is seen."""
        return (self.hidden, self.hidden) if isinstance(self.hidden, int) else self.hidden

    @property
    def closes(self) -> int:
        """The first frame in which the curtain is seen."""
        return self.scenes * self.shown

    def frames(self, hidden: int) -> int:
        """Frames until every scene was seen again, when nothing is seen for `hidden` frames.

        >>> Curtain(hidden=8, scenes=1, shown=2).frames(8)
        16
        """
        return 2 * self.closes + 2 * _MOVES + hidden


class VanishingDigits:
    """An endless list of clips: scenes of standing digits, a curtain over them for N frames, the same scenes again.

    The frames of a clip, c being `scenes * shown`:

    - 0 to c-1: the scenes, `shown` frames each;
    - c and c+1: a grey curtain comes down, over a third and then two thirds of the last scene;
    - c+2 to c+1+N: it is closed, and nothing is seen;
    - c+2+N and c+3+N: it goes up again, two thirds and then one third down, with the first scene behind it;
    - from c+4+N on: the scenes in the same order, `shown` frames each, round and round until the clip ends.

    The two top rows are a timer, in which no digit is ever drawn: from frame c on there is a white pixel for each frame
    until the curtain goes up, row by row from the left. So frame c shows when that will be, and every later frame is
    determined by frames 0..c.
    """

    def __init__(
        self,
        pool: Digits,
        curtain: Curtain = Curtain(),
        *,
        frames: int | None = None,
        size: int = 32,
        digits: int = 2,
        seed: int = 0,
    ) -> None:
        """Remember what to make clips of.

        Args:
            pool: uint8 [N, h, w].
            curtain: for how long what is hidden.
            frames: T; by default so many that every scene is seen again.
            size: H = W in pixels; two more than a digit, or larger.
            digits: number of digits in each scene.
            seed: not negative; (seed, index) decides the clip.

        Raises:
            ShapeError: the pool is not uint8 [N, h, w].
            OptionError: a number is out of its range, the frame has no room for a digit below the timer, or the timer
                none for N.

        >>> from stmemory.sequences import glyphs, halved
        >>> clips = VanishingDigits(halved(glyphs(100)), Curtain(hidden=8))
        >>> clips.clip(0).shape, clips.known_from(0), clips.recalled_from(0)
        (torch.Size([16, 1, 32, 32]), 3, 12)
        """
        self._pool = checked_digits(pool)
        most = curtain.hidden_range[1]
        self.frames = curtain.frames(most) if frames is None else frames
        check_least(
            frames=(self.frames, 1), digits=(digits, 1), seed=(seed, 0), size=(size, max(pool.shape[1:]) + _TIMER_ROWS)
        )
        if most + _MOVES > _TIMER_ROWS * size:
            raise OptionError(
                f"Curtain.hidden: expected at most {_TIMER_ROWS * size - _MOVES} frames, for which the timer of a "
                f"frame {size} wide has pixels, got {most}; pass a larger size"
            )
        self.size = (1, size, size)
        self.curtain = curtain
        self.digits = digits
        self.seed = seed

    def clip(self, index: int) -> Tensor:
        """Make the clip of that number.

        Returns:
            float32 [T, 1, H, W] in [0, 1].

        Raises:
            OptionError: the index is negative, or the pool has not as many different scenes.
        """
        dice, hidden = self._begin(index)
        curtain, (_, height, width) = self.curtain, self.size
        inside = (height - _TIMER_ROWS, width)
        scenes = different_pictures(self._pool, curtain.scenes, dice, size=inside, per_picture=self.digits)
        pictures = np.zeros((self.frames, height, width), np.uint8)
        opens = curtain.closes + _MOVES + hidden
        for time, picture in enumerate(pictures):
            picture[_TIMER_ROWS:] = scenes[self._scene_at(time, opens)]
            _draw_curtain(picture[_TIMER_ROWS:], down=self._down_at(time, opens))
            if time >= curtain.closes:
                picture.reshape(-1)[: max(0, opens - time)] = 255
        return torch.from_numpy(pictures[:, None]).float() / 255

    def hidden_of(self, index: int) -> int:
        """N, the frames of a clip in which nothing is seen."""
        return self._begin(index)[1]

    def known_from(self, index: int) -> int:
        """The frame after the first one with a curtain: from there on every frame follows from those before."""
        return self.curtain.closes + 1

    def recalled_from(self, index: int) -> int:
        """The frame in which the curtain goes up: the first one that shows again what was hidden."""
        return self.curtain.closes + _MOVES + self.hidden_of(index)

    def _begin(self, index: int) -> tuple[np.random.Generator, int]:
        """The random numbers of a clip, from which its N was drawn."""
        dice = dice_of(self.seed, index)
        least, most = self.curtain.hidden_range
        return dice, int(dice.integers(least, most + 1))

    def _scene_at(self, time: int, opens: int) -> int:
        """The scene behind the curtain, if there is one, in a frame."""
        curtain = self.curtain
        if time < opens:
            return min(time // curtain.shown, curtain.scenes - 1)
        return max(0, time - opens - _MOVES) // curtain.shown % curtain.scenes

    def _down_at(self, time: int, opens: int) -> float:
        """How far the curtain is down in a frame, in [0, 1]."""
        closing, opening = time - self.curtain.closes + 1, opens + _MOVES - time
        return max(0, min(closing, opening, _MOVES + 1)) / (_MOVES + 1)


def _draw_curtain(picture: NDArray[np.uint8], *, down: float) -> None:
    """Cover the upper part of an image [H, W] in place."""
    picture[: round(down * len(picture))] = _GREY
