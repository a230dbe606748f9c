"""Clicks on the frame that is shown: what is an object and what is not, the masks that come of them, and the way back.

What is kept is bounded: at most `MOST_CLICKS` masks of one bit a pixel, of one frame. Knows no files, no sessions and
no web page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from painting import COLOURS, Ids, Picture, changed_objects

from stmemory.errors import MaskError
from stmemory.inspection.moments import interesting_points
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt

__all__ = ["MOST_CLICKS", "Click", "Clicks", "Mask", "mask_of_prompt", "place_of", "prompt_of", "takes_clicks"]

Mask = NDArray[np.bool_]  # [H, W]

MOST_CLICKS = 40  # on a frame, while it is shown
_NEAR = 0.05  # short sides: what is as near to a click outside the object is not taken for its middle


@dataclass(frozen=True)
class Click:
    """One click on a frame.

    Attributes:
        object_id: whose it is, 1 to 6.
        x: px of the frame as it is shown.
        y: the same.
        inside: whether this is the object; otherwise it is not.
    """

    object_id: int
    x: float
    y: float
    inside: bool


@dataclass(frozen=True)
class _Taken:
    """A click whose mask was found: `bits` of it, row by row."""

    click: Click
    bits: bytes


class Clicks:
    """The clicks on one frame, and its ids with their masks in them. The object that was clicked last lies on top.

    Args:
        frame: its index.
        ids: `[H', W']`, what was painted or found there before.

    Attributes:
        frame: the same.
    """

    def __init__(self, frame: int, ids: Ids) -> None:
        self.frame, self._base = frame, ids
        self._settled: list[Click] = []
        self._taken: list[_Taken] = []

    @property
    def said(self) -> tuple[Click, ...]:
        """All clicks, the oldest first."""
        return (*self._settled, *(taken.click for taken in self._taken))

    @property
    def can_undo(self) -> bool:
        """Whether there is a click to take back: one after which nothing was painted."""
        return bool(self._taken)

    @property
    def ids(self) -> Ids:
        """`[H', W']`, what is seen on the frame now."""
        ids = self._base.copy()
        masks = self._masks()
        ids[np.isin(ids, list(masks))] = 0
        for object_id, bits in masks.items():
            ids[self._unpacked(bits)] = object_id
        return ids

    @property
    def objects(self) -> tuple[int, ...]:
        """Those that the clicks say something of: they were clicked, or others took pixels of theirs."""
        return tuple(sorted({*self._masks(), *changed_objects(self.ids, self._base)}))

    def mask(self, object_id: int) -> Mask:
        """What is known of an object, that which others cover included."""
        bits = self._masks().get(object_id)
        return self.base(object_id) if bits is None else self._unpacked(bits)

    def base(self, object_id: int) -> Mask:
        """What was painted or found of an object before the clicks that can be taken back."""
        mask: Mask = self._base == object_id
        return mask

    def take(self, click: Click, mask: Mask) -> None:
        """Take a click, and the mask `[H', W']` that its object has now."""
        self._taken.append(_Taken(click, np.packbits(mask).tobytes()))

    def check(self, click: Click) -> None:
        """Refuse a click that says nothing.

        Raises:
            MaskError: there is no such object or place, there are too many clicks, or nothing is known of an object
                that is not there.
        """
        height, width = self._base.shape
        if not 1 <= click.object_id <= len(COLOURS):
            raise MaskError(f"expected an object from 1 to {len(COLOURS)}, got {click.object_id}; choose one of those")
        if not (0 <= click.x <= width and 0 <= click.y <= height):
            raise MaskError(f"expected a click on the frame, got one at ({click.x:g}, {click.y:g}); click on the frame")
        if len(self.said) >= MOST_CLICKS:
            raise MaskError(f"expected at most {MOST_CLICKS} clicks on a frame, got more; paint what is still wrong")
        if not click.inside and not self.mask(click.object_id).any():
            raise MaskError(
                f"object {click.object_id} is not in this frame yet; click on it first, then on what is not it"
            )

    def undo(self) -> None:
        """Take the last click back.

        Raises:
            MaskError: there is none.
        """
        if not self._taken:
            raise MaskError("expected a click to take back, there is none since the last paint on this frame")
        self._taken.pop()

    def settle(self, ids: Ids, painted: Sequence[int]) -> None:
        """Go on from what a person painted: it replaces the clicks of the objects that it changed, and the others'
        cannot be taken back any more.

        Args:
            ids: `[H', W']`, all that is seen now.
            painted: the objects that it changed.
        """
        self._settled = [click for click in self.said if click.object_id not in painted]
        self._base, self._taken = ids, []

    def _masks(self) -> dict[int, bytes]:
        """The last mask of each object that was clicked, in the order of their last clicks."""
        masks: dict[int, bytes] = {}
        for taken in self._taken:
            masks.pop(taken.click.object_id, None)
            masks[taken.click.object_id] = taken.bits
        return masks

    def _unpacked(self, bits: bytes) -> Mask:
        height, width = self._base.shape
        flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=height * width)
        return flat.reshape(height, width).astype(np.bool_)


def place_of(event: object) -> tuple[float, float]:
    """Where a click is, from what a page sent.

    Raises:
        MaskError: it says no place.

    >>> place_of({"x": 3, "y": 2.5})
    (3.0, 2.5)
    """
    try:
        if not isinstance(event, Mapping):
            raise TypeError
        x, y = float(event["x"]), float(event["y"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise MaskError("expected the place of a click, got something else; click on the frame") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise MaskError("expected the place of a click, got no finite numbers; click on the frame")
    return x, y


def prompt_of(clicks: Sequence[Click], scale: tuple[float, float], middle_of: Mask | None = None) -> Prompt:
    """The prompt that clicks on one object make, all of them.

    Args:
        clicks: at least one, of the same object.
        scale: px of the clip's frame for one of the frame that is shown, across and down.
        middle_of: a mask `[H', W']` that the object had before; its middle counts as one more click on the object.

    >>> prompt_of([Click(2, 3, 4, True), Click(2, 1, 1, False)], (2, 2))
    Prompt(object_id=2, points=((6.0, 8.0),), not_points=((2.0, 2.0),), box=None)
    """
    inside = [(click.x, click.y) for click in clicks if click.inside]
    outside = [(click.x, click.y) for click in clicks if not click.inside]
    if middle_of is not None:
        inside = [*_middle(middle_of, outside), *inside]
    points, not_points = ([(x * scale[0], y * scale[1]) for x, y in some] for some in (inside, outside))
    return Prompt(clicks[0].object_id, points=points, not_points=not_points)


def takes_clicks(predictor: VOSPredictor) -> bool:
    """Whether clicks can make masks; otherwise the weights take masks alone."""
    return predictor.network.takes_prompts or predictor.prompter is not None


def mask_of_prompt(predictor: VOSPredictor, picture: Picture, before: Mask, prompt: Prompt) -> Mask:
    """The mask that a prompt makes in a frame of which nothing is remembered.

    Args:
        predictor: what answers.
        picture: the frame, uint8 RGB `[H, W, 3]`.
        before: `[H, W]`, what was said of the object there, which is improved; empty where nothing was.
        prompt: of the object.

    Raises:
        StmemoryError: see `VOSPredictor.start`.
    """
    if before.any():
        stream = predictor.start(picture, before.astype(np.uint8) * prompt.object_id)
        stream.correct(prompts=prompt)
    else:
        stream = predictor.start(picture, prompts=prompt)
    found: Mask = stream.last.ids.cpu().numpy() == prompt.object_id
    return found


def _middle(mask: Mask, outside: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The middle of a mask, away from clicks that are not the object; nothing where all of it is near these."""
    y, x = np.indices(mask.shape)
    near = np.zeros_like(mask)
    for at_x, at_y in outside:
        near |= np.hypot(x - at_x, y - at_y) <= _NEAR * min(mask.shape)
    return [(x + 0.5, y + 0.5) for x, y in interesting_points(mask & ~near)[:1]]
