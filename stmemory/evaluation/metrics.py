"""J and F of masks, and their statistics over frames and objects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stmemory.errors import MaskError, ShapeError

__all__ = [
    "ObjectScores",
    "SequenceScores",
    "Statistics",
    "boundary_accuracy",
    "boundary_map",
    "boundary_radius",
    "region_similarity",
    "statistics",
]

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


BINS = 4  # of the decay


@dataclass(frozen=True)
class Statistics:
    """Statistics of one measure over one sequence.

    Attributes:
        mean: mean over frames, in [0, 1]; NaN without frames.
        recall: share of frames above 0.5; NaN without frames.
        decay: mean of the first quarter less mean of the last; NaN without frames.
        per_frame: the values themselves, in order.
    """

    mean: float
    recall: float
    decay: float
    per_frame: tuple[float, ...]


@dataclass(frozen=True)
class ObjectScores:
    """Both measures of one object over one sequence.

    Attributes:
        object_id: the object's id in the true masks.
        region: statistics of J.
        boundary: statistics of F.
        frames: positions in the video of the frames measured; empty where they are not known.
    """

    object_id: int
    region: Statistics
    boundary: Statistics
    frames: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """J&F: mean of the means of J and F, in [0, 1]."""
        return (self.region.mean + self.boundary.mean) / 2


def statistics(values: Sequence[float]) -> Statistics:
    """Mean, recall and decay of the values of one measure, in the order of the frames.

    The bins of the decay share their end frames, as the benchmark has it: their edges are `linspace(1, T, 5)`, rounded,
    a half up. Its own code keeps the edges in eight bits, which goes wrong beyond 256 frames; these do not.

    >>> statistics([1.0, 0.75, 0.25, 0.0]).recall
    0.5
    """
    if len(values) == 0:
        return Statistics(math.nan, math.nan, math.nan, ())
    array = np.asarray(values, dtype=np.float64)
    edges = np.round(np.linspace(1, len(array), BINS + 1) + 1e-10).astype(np.int64) - 1
    first, last = array[edges[0] : edges[1] + 1], array[edges[-2] : edges[-1] + 1]
    recall = int(np.count_nonzero(array > 0.5)) / len(array)
    return Statistics(float(array.mean()), recall, float(first.mean() - last.mean()), tuple(array.tolist()))


class SequenceScores:
    """Gathers J and F of each object, frame by frame.

    Feed it the frames that count and no others: the DAVIS protocol leaves out the first frame, whose mask is given, and
    the last. Void pixels are taken out of both masks before anything is measured.

    Args:
        void_id: id in the true masks whose pixels are ignored; None when there is none.
    """

    def __init__(self, *, void_id: int | None = 255) -> None:
        self._void_id = void_id
        self._values: dict[int, _Values] = {}

    def add(
        self,
        prediction: NDArray[np.integer] | Tensor,
        truth: NDArray[np.integer] | Tensor,
        *,
        object_ids: Iterable[int],
        void: NDArray[np.bool_] | Tensor | None = None,
        frame: int | None = None,
    ) -> None:
        """Measure one frame.

        Args:
            prediction: integer ids [H, W], 0 = background.
            truth: integer ids [H, W].
            object_ids: the objects that count in this frame, present or not.
            void: bool [H, W], further pixels to ignore.
            frame: its position in the video, to be found again in `ObjectScores.frames`.

        Raises:
            ShapeError: the maps are not integer [H, W] of one size, or `void` is not bool of that size.
            MaskError: an object id is 0 or the void id.
        """
        predicted, true = _id_map(prediction, "prediction"), _id_map(truth, "truth")
        if predicted.shape != true.shape:
            raise ShapeError(
                f"prediction: expected the size of the true mask {true.shape}, got {predicted.shape}; score at the "
                "frame's own size"
            )
        ignored = np.zeros(true.shape, np.bool_) if self._void_id is None else true == self._void_id
        if void is not None:
            ignored = ignored | _void_map(void, true.shape)
        counted = ~ignored if ignored.any() else None
        for object_id in object_ids:
            if object_id in (0, self._void_id):
                raise MaskError(f"object_ids: expected ids of objects, got {object_id}, which is background or void")
            first, second = predicted == object_id, true == object_id
            if counted is not None:
                first, second = first & counted, second & counted
            values = self._values.setdefault(object_id, _Values([], [], []))
            values.regions.append(region_similarity(first, second))
            values.boundaries.append(boundary_accuracy(first, second))
            if frame is not None:
                values.frames.append(frame)

    def scores(self) -> tuple[ObjectScores, ...]:
        """Scores of every object that was measured at least once, by object id."""
        return tuple(
            ObjectScores(object_id, statistics(values.regions), statistics(values.boundaries), tuple(values.frames))
            for object_id, values in sorted(self._values.items())
        )


@dataclass(frozen=True)
class _Values:
    """J and F of one object so far, and the frames they are of."""

    regions: list[float]
    boundaries: list[float]
    frames: list[int]


def _void_map(void: NDArray[np.bool_] | Tensor, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels to ignore as a bool array of that shape."""
    array: NDArray[np.bool_] = void.detach().cpu().numpy() if isinstance(void, Tensor) else np.asarray(void)
    if array.shape != shape or array.dtype != np.bool_:
        raise ShapeError(
            f"void: expected bool {shape}, got {array.dtype} {tuple(array.shape)}; mark the pixels to ignore"
        )
    return array


def _id_map(ids: NDArray[np.integer] | Tensor, name: str) -> NDArray[np.integer]:
    """The ids as an integer array [H, W]."""
    array: NDArray[np.integer] = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise ShapeError(f"{name}: expected integer ids [H, W], got {array.dtype} {tuple(array.shape)}")
    return array
