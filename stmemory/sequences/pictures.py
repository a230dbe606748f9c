"""Still pictures of digits, and the random numbers of a clip. Knows no time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.sequences.digits import Digits

__all__ = ["check_least", "dice_of", "different_pictures", "paste"]

_ATTEMPTS = 100


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
    """Put a digit [h, w] onto a picture [H, W] in place; where they overlap, the brighter one counts.

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
    """Draw pictures of which no two are equal: digits, drawn with replacement, at places of equal chance.

    Args:
        digits: uint8 [N, h, w].
        number: how many pictures.
        dice: where chance comes from.
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
                f"digits: expected enough for {number} different pictures of {height} x {width}, got {len(digits)}, "
                "of which only "
                f"{place} were found; pass more digits or a larger size"
            )
        seen.add(picture.tobytes())
    return pictures
