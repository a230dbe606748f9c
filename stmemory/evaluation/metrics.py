"""J and F: how well a predicted mask agrees with a true one, as the DAVIS benchmark defines them.

Owns the two measures of one pair of masks. Knows no sequences (`scores.py`), no files and no predictor.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016, and
the conventions of that benchmark's own evaluation code, which published figures follow.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stmemory.errors import ShapeError

__all__ = ["boundary_accuracy", "boundary_map", "boundary_radius", "region_similarity"]

Mask = NDArray[np.bool_] | Tensor
BoolMap = NDArray[np.bool_]


def region_similarity(prediction: Mask, truth: Mask) -> float:
    """J: intersection over union of two masks, 1 when both are empty.

    Args:
        prediction: bool [H, W], an array or a tensor.
        truth: bool [H, W] of the same size.

    Returns:
        J in [0, 1].

    Raises:
        ShapeError: a mask is not bool [H, W], or the two differ in size.

    >>> region_similarity(np.array([[True, True]]), np.array([[True, False]]))
    0.5
    """
    first, second = _pair(prediction, truth)
    union = int(np.count_nonzero(first | second))
    return 1.0 if union == 0 else int(np.count_nonzero(first & second)) / union


def boundary_accuracy(prediction: Mask, truth: Mask, *, radius: int | None = None) -> float:
    """F: harmonic mean of the precision and the recall of the predicted mask's boundary.

    A boundary pixel counts as found when a pixel of the other boundary lies within `radius`, by Euclidean distance. F
    is 1 when both boundaries are empty and 0 when only one is.

    Args:
        prediction: bool [H, W], an array or a tensor.
        truth: bool [H, W] of the same size.
        radius: tolerance in pixels; by default `boundary_radius` of the size.

    Returns:
        F in [0, 1].

    Raises:
        ShapeError: a mask is not bool [H, W], or the two differ in size.

    >>> square = np.zeros((40, 40), dtype=bool)
    >>> square[10:20, 10:20] = True
    >>> boundary_accuracy(square, np.roll(square, 1, axis=1))
    1.0
    """
    first, second = _pair(prediction, truth)
    height, width = first.shape
    radius = boundary_radius(height, width) if radius is None else radius
    # Outside the box of both masks, one pixel wider, no boundary can be: most of a frame need not be looked at.
    box = _bounding_box(first | second)
    if box is None:
        return 1.0
    first_boundary, second_boundary = boundary_map(first[box]), boundary_map(second[box])
    if not first_boundary.any() or not second_boundary.any():
        return float(first_boundary.any() == second_boundary.any())
    precision = _share_near(first_boundary, second_boundary, radius)
    recall = _share_near(second_boundary, first_boundary, radius)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def boundary_radius(height: int, width: int) -> int:
    """Tolerance of F in pixels: 0.8 % of the frame's diagonal, rounded up.

    >>> boundary_radius(480, 854)
    8
    """
    return math.ceil(0.008 * math.hypot(height, width))


def boundary_map(mask: Mask) -> BoolMap:
    """One-pixel boundary of a mask: pixels that differ from their right, lower or lower right neighbour.

    The last row looks only right and the last column only down, so the frame's edge is no boundary by itself.

    Args:
        mask: bool [H, W], an array or a tensor.

    Returns:
        bool [H, W].

    Raises:
        ShapeError: the mask is not bool [H, W].

    >>> boundary_map(np.array([[False, False], [False, True]])).tolist()
    [[True, True], [True, False]]
    """
    inside = _bool_map(mask, "mask")
    boundary = np.zeros_like(inside)
    boundary[:, :-1] = inside[:, :-1] ^ inside[:, 1:]
    boundary[:-1] |= inside[:-1] ^ inside[1:]
    boundary[:-1, :-1] |= inside[:-1, :-1] ^ inside[1:, 1:]
    return boundary


def _share_near(points: BoolMap, targets: BoolMap, radius: int) -> float:
    """Share of the pixels of `points` with a pixel of `targets` in the disk of `radius`; both bool [H, W], not
    empty."""
    height, width = targets.shape
    # A row of running counts answers "is any target within x-reach..x+reach" with two look-ups, at the points alone.
    padded = np.zeros((height + 2 * radius, width + 2 * radius + 1), dtype=np.int32)
    np.cumsum(targets, axis=1, out=padded[radius : radius + height, radius + 1 : radius + 1 + width])
    padded[:, radius + 1 + width :] = padded[:, radius + width, None]
    counts, stride = padded.ravel(), padded.shape[1]
    rows, columns = np.nonzero(points)
    centres = (rows + radius) * stride + columns + radius
    missing = centres
    for offset in sorted(range(-radius, radius + 1), key=abs):  # nearest rows first: most points are found there
        reach = math.isqrt(radius * radius - offset * offset)
        row = missing + offset * stride
        missing = missing[counts[row + reach + 1] == counts[row - reach]]
    return (len(centres) - len(missing)) / len(centres)


def _bounding_box(mask: BoolMap) -> tuple[slice, slice] | None:
    """Slices of the box around a bool [H, W] mask, one pixel wider where the frame allows; None when it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _bool_map(mask: Mask, name: str) -> BoolMap:
    """The mask as a bool array [H, W]."""
    array: NDArray[np.bool_] = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if array.ndim != 2 or array.dtype != np.bool_:
        raise ShapeError(
            f"{name}: expected bool [H, W], got {array.dtype} {tuple(array.shape)}; compare ids with one id first, "
            "as in ids == 1"
        )
    return array


def _pair(prediction: Mask, truth: Mask) -> tuple[BoolMap, BoolMap]:
    """Both masks as bool arrays [H, W] of one size."""
    first, second = _bool_map(prediction, "prediction"), _bool_map(truth, "truth")
    if first.shape != second.shape:
        raise ShapeError(
            f"prediction: expected the size of the true mask {second.shape}, got {first.shape}; "
            "score masks at the frame's own size"
        )
    return first, second
