"""The scores of a sequence: J and F of each object frame by frame, and their mean, recall and decay.

Owns the gathering and the statistics, as the DAVIS benchmark's own evaluation code has them. The measures of one pair
of masks are in `metrics.py`; which frames and objects count is the caller's protocol.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stmemory.errors import MaskError, ShapeError
from stmemory.evaluation.metrics import boundary_accuracy, region_similarity

__all__ = ["ObjectScores", "SequenceScores", "Statistics", "statistics"]

BINS = 4  # of the decay


@dataclass(frozen=True)
class Statistics:
    """What one measure did over one sequence.

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
        frames: positions in the video of the frames measured; empty where they were not told.
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
