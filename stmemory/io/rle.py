"""COCO's run-length code of one mask.

A mask is read column by column. `counts` are the lengths of its runs: first of zeros (0 if it begins with a one), then
of ones, and so on. In the compressed form each count, from the fourth on less the one two before it, becomes characters
of five bits each, lowest first; a sixth bit says that more follow, and 48 is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import MaskError

__all__ = ["Rle", "box_of", "decode_rle", "encode_rle"]

# Of a mask written as runs or polygons, in any format: a GiB as int32 ids. Images are limited by what a frame costs,
# `images.MOST_PIXELS`.
LARGEST_MASK = 2**28  # pixels
_DIGITS = 13  # groups of five bits that an int64 has


class Rle(TypedDict):
    """A mask as COCO's files hold it: `size` is `[H, W]`, `counts` the compressed runs."""

    size: list[int]
    counts: str


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """Encode a mask; the counts equal those of `pycocotools.mask.encode`, decoded as ASCII.

    Args:
        mask: bool `[H, W]`.

    Raises:
        MaskError: it is no such array, or has no pixel.

    >>> encode_rle(np.array([[False, True], [False, True]]))
    {'size': [2, 2], 'counts': '22'}
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
        raise MaskError(
            f"encode_rle: expected a bool array [H, W], got {mask.dtype} {mask.shape}; pass ids == object_id"
        )
    flat = mask.T.ravel()  # column by column
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0, 0] if flat[0] else [0], changes, [flat.size]))
    counts = np.diff(edges)
    counts[3:] -= counts[1:-2].copy()  # the right side is read before the left is written
    return {"size": [int(side) for side in mask.shape], "counts": _compress(counts)}


def decode_rle(rle: Mapping[str, object]) -> NDArray[np.bool_]:
    """Decode a mask.

    Args:
        rle: `size` `[H, W]`, and `counts`: compressed, as text or bytes, or a list of run lengths.

    Returns:
        bool `[H, W]`.

    Raises:
        MaskError: a key is missing, the runs do not add up to the size, or that has more than 2**28 pixels.

    >>> decode_rle({"size": [2, 2], "counts": "22"}).tolist()
    [[False, True], [False, True]]
    """
    try:
        height, width = _sides(rle["size"])
        given = rle["counts"]
        if isinstance(given, str | bytes):
            counts = _expand(given.encode("ascii") if isinstance(given, str) else given)
        else:
            counts = _whole_counts(given)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MaskError(
            f'RLE: expected {{"size": [H, W], "counts": text or run lengths}}, got {error!r}; is it a polygon?'
        ) from error
    if height * width > LARGEST_MASK:
        raise MaskError(
            f"RLE: expected a mask of at most {LARGEST_MASK:,} pixels, "
            f"got {height} x {width} (H x W); the file is damaged"
        )
    if (counts < 0).any() or (counts > height * width).any() or counts.sum() != height * width:
        raise MaskError(
            f"RLE: expected runs that add up to {height} x {width} (H "
            f"x W) pixels, got {int(counts.sum())}; the file is damaged"
        )
    ones = np.arange(len(counts)) % 2 == 1
    mask: NDArray[np.bool_] = np.repeat(ones, counts).reshape(width, height).T
    return mask


def box_of(mask: NDArray[np.bool_]) -> list[int]:
    """The smallest box around a mask, as COCO has it: `[x, y, width, height]` in px; four zeros for an empty mask.

    Args:
        mask: bool `[H, W]`.

    >>> box_of(np.array([[False, True, True]]))
    [1, 0, 2, 1]
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return [0, 0, 0, 0]
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1]


def _sides(size: object) -> tuple[int, int]:
    height, width = np.asarray(size).tolist()
    sides = (int(height), int(width))
    if sides != (height, width) or not all(0 < side < 2**31 for side in sides):
        raise MaskError(f"the size {sides}")
    return sides


def _whole_counts(given: object) -> NDArray[np.int64]:
    """Run lengths of a list, which holds whole numbers."""
    values = np.asarray(given)
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        raise MaskError("counts that are no list of numbers")
    with np.errstate(invalid="ignore"):  # of infinity
        counts: NDArray[np.int64] = values.astype(np.int64)
    if not (values == counts).all():
        raise MaskError("counts that are no whole numbers")
    return counts


def _compress(values: NDArray[np.int64]) -> str:
    """Whole numbers as characters."""
    shifts = 5 * np.arange(_DIGITS)
    digits = (values[:, None] >> shifts) & 31  # [n, 13]
    rest = values[:, None] >> (shifts + 5).clip(max=63)
    # the last digit is the first after which only copies of its own top bit, the sign, are left
    more = np.where(digits & 16, rest != -1, rest != 0)
    used = np.concatenate(
        [np.ones((len(values), 1), np.bool_), np.logical_and.accumulate(more[:, :-1], axis=1)], axis=1
    )
    characters: NDArray[np.uint8] = (digits + 32 * more + 48).astype(np.uint8)
    return bytes(characters[used]).decode("ascii")


def _expand(text: bytes) -> NDArray[np.int64]:
    """The run lengths of a compressed text."""
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise MaskError(
            "RLE: expected characters from '0' to 'o', the last one ending a number, got others; the file is damaged"
        )
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max() >= _DIGITS - 1:
        raise MaskError("RLE: expected numbers below 2**55, got a longer one; the file is damaged")
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * (place[ends] + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])  # the first three stand as they are
    values[2::2] = np.cumsum(values[2::2])
    return values
