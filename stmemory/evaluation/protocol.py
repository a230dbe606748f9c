"""The protocol of an evaluation: a predictor and clips in, scores out.

A predictor is given nothing but the mask of each object where it first appears.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stmemory.errors import FrameError, MaskError, ShapeError
from stmemory.evaluation.clips import VOID_ID, Clip
from stmemory.evaluation.metrics import ObjectScores, SequenceScores

__all__ = [
    "ClipResult",
    "Predictor",
    "SegmentedFrame",
    "Stream",
    "Summary",
    "check_clip",
    "evaluate",
    "evaluate_clip",
    "new_scores",
    "summarise",
]

Ids = NDArray[np.int32]


class SegmentedFrame(Protocol):
    """What a stream answers to a frame."""

    @property
    def ids(self) -> Tensor:
        """Integer ids [H, W] at the frame's own size, 0 = background."""


class Stream(Protocol):
    """One video under way."""

    def step(self, frame: NDArray[np.uint8], *, mask: Ids | None = None) -> SegmentedFrame:
        """Segment the next frame [H, W, 3]; `mask` [H, W] holds the objects that enter with it and no others."""


class Predictor(Protocol):
    """Whatever is measured."""

    def start(self, frame: NDArray[np.uint8], mask: Ids, /) -> Stream:
        """Open a stream of its own for a video, from its first frame [H, W, 3] and the ids [H, W] there."""


@dataclass(frozen=True)
class ClipResult:
    """What one clip gave.

    Attributes:
        name: the clip's name.
        objects: scores of every object with at least one frame that counts, by id.
        frames: frames segmented by steps, all but the first.
        seconds: time spent in `start` and `step`, reading and scoring left out.
        height: pixels of a frame.
        width: pixels of a frame.
    """

    name: str
    objects: tuple[ObjectScores, ...]
    frames: int
    seconds: float
    height: int
    width: int

    @property
    def region(self) -> float:
        """J: mean over the clip's objects, in [0, 1]; NaN without objects."""
        return _mean([scores.region.mean for scores in self.objects])

    @property
    def boundary(self) -> float:
        """F: mean over the clip's objects, in [0, 1]; NaN without objects."""
        return _mean([scores.boundary.mean for scores in self.objects])

    @property
    def frames_per_second(self) -> float:
        """Frames segmented per second of the predictor's own time; NaN when no time passed."""
        return self.frames / self.seconds if self.seconds > 0 else math.nan


@dataclass(frozen=True)
class Summary:
    """Means over all objects of all clips, each object counted once, as DAVIS 2017 has it.

    Attributes:
        clips: clips measured.
        objects: objects measured.
        region: J, in [0, 1].
        boundary: F, in [0, 1].
        mean: J&F, in [0, 1].
        frames_per_second: all frames over all of the predictor's seconds.
    """

    clips: int
    objects: int
    region: float
    boundary: float
    mean: float
    frames_per_second: float


def evaluate(
    predictor: Predictor, clips: Iterable[Clip], *, on_clip: Callable[[ClipResult], None] | None = None
) -> list[ClipResult]:
    """Run a predictor over clips and score it; see `evaluate_clip` for what it is given.

    Args:
        predictor: what to measure.
        clips: what to measure it on.
        on_clip: called with each result when it is there, for progress.

    >>> class Silent:
    ...     def start(self, frame, mask, /):
    ...         raise NotImplementedError
    >>> evaluate(Silent(), [])
    []
    """
    results: list[ClipResult] = []
    for clip in clips:
        results.append(evaluate_clip(predictor, clip))
        if on_clip is not None:
            on_clip(results[-1])
    return results


def evaluate_clip(
    predictor: Predictor, clip: Clip, *, on_frame: Callable[[int, Ids], None] | None = None
) -> ClipResult:
    """Run a predictor over one clip and score it.

    The predictor starts at the first frame with an object. It is given the mask of an object once, at the frame where
    the object enters, and never another true pixel. Which frames count is said by the clip: by default an object counts
    from the frame after that one to the last annotated frame but one.

    Args:
        predictor: what to measure.
        clip: what to measure it on.
        on_frame: called for every frame with its index and its int32 ids [H, W], for those who store them: what was
            predicted; at the first frame the given mask, and before it nothing.

    Raises:
        FrameError: the clip has no frames, or one cannot be read.
        MaskError: no annotation shows an object, one is of no frame, or one cannot be read.
        ShapeError: a true or predicted mask is not of the frame's size.

    >>> class Silent:
    ...     def start(self, frame, mask, /):
    ...         raise NotImplementedError
    >>> evaluate_clip(Silent(), Clip("empty", (), (), ()))
    Traceback (most recent call last):
    stmemory.errors.FrameError: clip empty: expected at least one frame, got none
    """
    check_clip(clip)
    stream: Stream | None = None
    seen: list[int] = []
    sequence, frames, seconds = new_scores(clip), 0, 0.0
    height = width = 0
    for index in range(len(clip)):
        frame, truth = clip.frame(index), clip.truth(index)
        height, width = frame.shape[:2]
        if truth is not None and truth.shape != (height, width):
            raise ShapeError(
                f"clip {clip.name}, frame {index}: expected an annotation [{height}, {width}], got {truth.shape}; "
                "resize the frames or the annotations"
            )
        new = clip.entering(truth, index, seen)
        given = _only(truth, new)
        predicted = np.zeros((height, width), np.int32) if given is None else given
        began = time.perf_counter()
        if stream is not None:
            answer = stream.step(frame) if given is None else stream.step(frame, mask=given)
            predicted = answer.ids.cpu().numpy().astype(np.int32)
            frames += 1
        elif given is not None:
            stream = predictor.start(frame, given)
        seconds += time.perf_counter() - began
        if predicted.shape != (height, width):
            raise ShapeError(
                f"prediction: expected ids [{height}, {width}], got {predicted.shape}; answer at the frame's own size"
            )
        counting = [] if truth is None else clip.counting(index, seen, new)
        if truth is not None and counting:
            sequence.add(predicted, truth, object_ids=counting, void=clip.void(index), frame=index)
        if on_frame is not None:
            on_frame(index, predicted)
        seen += new
    if stream is None:
        raise MaskError(f"clip {clip.name}: expected an object in at least one annotation, got none")
    return ClipResult(clip.name, sequence.scores(), frames, seconds, height, width)


def check_clip(clip: Clip) -> None:
    """Refuse a clip that cannot be measured, before anything is done.

    Raises:
        FrameError: it has no frames.
        MaskError: it has no annotations, or one is of no frame.

    >>> from pathlib import Path
    >>> check_clip(Clip("walk", (Path("0.jpg"),), (None,), (None,), stray_paths=(Path("7.png"),)))
    Traceback (most recent call last):
    stmemory.errors.MaskError: clip walk: expected a frame for each annotation, got none for 1 of them, the first 7.png;
    add the frames or take the annotations away
    """
    if len(clip) == 0:
        raise FrameError(f"clip {clip.name}: expected at least one frame, got none")
    if clip.last_annotated < 0 and not clip.stray_paths:
        raise MaskError(
            f"clip {clip.name}: expected a true mask in Annotations for one frame or more, got none; put it there, or "
            "name the clips that are wanted"
        )
    if clip.stray_paths:
        first, many = clip.stray_paths[0], len(clip.stray_paths)
        raise MaskError(
            f"clip {clip.name}: expected a frame for each annotation, got none for {many} of them, the first {first}; "
            "add the frames or take the annotations away"
        )


def new_scores(clip: Clip) -> SequenceScores:
    """What gathers a clip's scores.

    >>> new_scores(Clip("empty", (), (), ())).scores()
    ()
    """
    return SequenceScores(void_id=VOID_ID if clip.ignore_void else None)


def summarise(results: Sequence[ClipResult]) -> Summary:
    """Means over all objects of all clips.

    >>> summarise([]).objects
    0
    """
    objects = [scores for result in results for scores in result.objects]
    region = _mean([scores.region.mean for scores in objects])
    boundary = _mean([scores.boundary.mean for scores in objects])
    seconds = sum(result.seconds for result in results)
    frames_per_second = sum(result.frames for result in results) / seconds if seconds > 0 else math.nan
    return Summary(len(results), len(objects), region, boundary, (region + boundary) / 2, frames_per_second)


def _only(truth: Ids | None, objects: Sequence[int]) -> Ids | None:
    """Ids [H, W] of those objects and of no others; None without objects."""
    return None if truth is None or not objects else np.where(np.isin(truth, objects), truth, 0).astype(np.int32)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
