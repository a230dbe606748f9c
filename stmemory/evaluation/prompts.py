"""How good the masks of boxes and clicks are: the true masks of first frames in, as prompts, and J out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import MaskError
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.metrics import region_similarity
from stmemory.io import rle
from stmemory.io.palette import object_ids_in
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt

__all__ = ["PromptScore", "box_of", "inmost", "measure_prompts"]

_CORRECTIONS = 2  # clicks after the first one


@dataclass(frozen=True)
class PromptScore:
    """J of one object in the first frame that shows it.

    Attributes:
        clip: the clip's name.
        object_id: the object's.
        as_drawn: of the box itself, taken for the mask.
        box: of the answer to the box.
        click: of the answer to one click, on its inmost pixel.
        clicks: after two more, each on the inmost pixel of the largest error.
    """

    clip: str
    object_id: int
    as_drawn: float
    box: float
    click: float
    clicks: float


def measure_prompts(predictor: VOSPredictor, clips: Iterable[Clip]) -> list[PromptScore]:
    """Prompt each object of the first annotated frame of clips.

    Args:
        predictor: whose network, or prompter, answers.
        clips: with true masks.

    Raises:
        OptionError: neither the network nor a prompter takes prompts.
        MaskError: a clip has no annotation with an object.
    """
    scores = []
    for clip in clips:
        index = next((n for n in range(len(clip)) if _truth(clip, n).any()), None)
        if index is None:
            raise MaskError(f"clip {clip.name}: expected an object in an annotation, got none; take another clip")
        frame, truth = clip.frame(index), _truth(clip, index)
        for object_id in object_ids_in(truth):
            scores.append(_score(predictor, frame, truth == object_id, clip.name, object_id))
    return scores


def box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the pixels of a mask `[H, W]`.

    >>> box_of(np.array([[False, False, False], [False, True, True]]))
    (1.0, 1.0, 3.0, 2.0)
    """
    left, top, across, down = rle.box_of(mask)
    return float(left), float(top), float(left + across), float(top + down)


def inmost(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """x and y of the pixel of a mask `[H, W]` that is left when the mask is worn off from all sides; of several the
    first.

    >>> inmost(np.pad(np.ones((3, 5), bool), 1))
    (2.5, 2.5)
    """
    left = mask
    while True:
        padded = np.pad(left, 1)
        worn = left & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        if not worn.any():
            break
        left = worn
    row, column = np.argwhere(left)[0]
    return float(column) + 0.5, float(row) + 0.5


def _truth(clip: Clip, index: int) -> NDArray[np.int32]:
    """The ids of a frame, 0 where there is no annotation or void."""
    truth = clip.truth(index)
    return np.zeros((1, 1), np.int32) if truth is None else truth.astype(np.int32)


def _score(
    predictor: VOSPredictor, frame: NDArray[np.uint8], truth: NDArray[np.bool_], clip: str, object_id: int
) -> PromptScore:
    """Prompt one object in one frame."""
    box, point = box_of(truth), inmost(truth)
    drawn = np.zeros_like(truth)
    drawn[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    by_box = _answer(predictor, frame, Prompt(object_id, box=box))
    points: dict[bool, list[tuple[float, float]]] = {True: [point], False: []}
    by_click = found = _answer(predictor, frame, Prompt(object_id, points=points[True]))
    for _ in range(_CORRECTIONS):
        missing, extra = truth & ~found, found & ~truth
        is_missing = int(missing.sum()) >= int(extra.sum())
        error = missing if is_missing else extra
        if not error.any():
            break
        points[is_missing].append(inmost(error))
        found = _answer(predictor, frame, Prompt(object_id, points=points[True], not_points=points[False]))
    scores = (region_similarity(mask, truth) for mask in (drawn, by_box, by_click, found))
    return PromptScore(clip, object_id, *scores)


def _answer(predictor: VOSPredictor, frame: NDArray[np.uint8], prompt: Prompt) -> NDArray[np.bool_]:
    """The mask of an object that is prompted, bool `[H, W]`; nothing where nothing was found."""
    try:
        ids = predictor.start(frame, prompts=prompt).last.ids
    except MaskError:
        return np.zeros(frame.shape[:2], bool)
    mask: NDArray[np.bool_] = ids.cpu().numpy() == prompt.object_id
    return mask
