"""Clicks: what a person clicked on the frame that is shown becomes prompts, and prompts become ids.

Knows no files, no sessions and no web page. Holds the clicks of one frame, so nothing grows with the clip.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from painting import COLOURS, Ids, Picture, draw
from PIL import Image, ImageDraw

from stmemory.errors import MaskError
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt

__all__ = ["MOST", "Click", "Clicks", "answer", "draw_clicks"]

MOST = 40  # clicks of an object


@dataclass(frozen=True)
class Click:
    """One click.

    Attributes:
        x: px of the frame as it is shown.
        y: the same.
        on: whether it is on the object, or beside it.
    """

    x: float
    y: float
    on: bool = True


@dataclass
class Clicks:
    """The clicks of one frame, by object.

    Attributes:
        frame: its index.
        of: each object's clicks, oldest first.
        before: what was known of an object in the frame before it was clicked: bool `[H', W']`.
    """

    frame: int
    of: dict[int, list[Click]] = field(default_factory=dict)
    before: dict[int, NDArray[np.bool_]] = field(default_factory=dict)

    def add(self, object_id: int, click: Click, ids: Ids) -> None:
        """Add a click.

        Args:
            object_id: the object's.
            click: where.
            ids: `[H', W']`, what is shown.

        Raises:
            MaskError: there are too many.
        """
        if len(self.of.get(object_id, ())) >= MOST:
            raise MaskError(f"expected at most {MOST} clicks of an object in a frame; take some back, or paint")
        if object_id not in self.of:
            self.of[object_id], self.before[object_id] = [], ids == object_id
        self.of[object_id].append(click)

    def take_back(self, object_id: int) -> None:
        """Forget an object's last click.

        Raises:
            MaskError: there is none.
        """
        if not self.of.get(object_id):
            raise MaskError("expected a click of this object on this frame, found none; click first")
        self.of[object_id].pop()

    def forget(self, object_id: int) -> None:
        """Forget an object's clicks: it was painted."""
        self.of.pop(object_id, None)
        self.before.pop(object_id, None)


def answer(predictor: VOSPredictor, picture: Picture, clicks: Clicks, object_id: int, *, factor: float) -> Ids:
    """The mask of an object that follows from its clicks, and from what was known of it before them.

    Args:
        predictor: whose network, or prompter, answers.
        picture: the frame at its own size.
        clicks: of the frame.
        object_id: of an object with clicks.
        factor: pixels of the picture for each pixel of the frame as it is shown.

    Returns:
        `[H, W]` at the picture's size, the object's id where it is.

    Raises:
        MaskError: nothing was found there, or the clicks do not say where the object is.
        OptionError: neither the network nor a prompter takes clicks.
    """
    points: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for click in clicks.of[object_id]:
        points[click.on].append(((click.x + 0.5) * factor, (click.y + 0.5) * factor))
    prompt = Prompt(object_id, points=points[True], not_points=points[False])
    before = clicks.before[object_id]
    if before.any():
        known = Image.fromarray(before).resize((picture.shape[1], picture.shape[0]), Image.Resampling.NEAREST)
        stream = predictor.start(picture, np.array(known).astype(np.uint8) * np.uint8(object_id))
        stream.correct(prompts=prompt)
    else:
        stream = predictor.start(picture, prompts=prompt)
    found: Ids = stream.last.ids.cpu().numpy().astype(np.uint8)
    return found


def draw_clicks(picture: Picture, ids: Ids, clicks: Clicks | None) -> Picture:
    """A frame with its objects, and a dot for each click: filled on an object, hollow beside it.

    >>> dotted = draw_clicks(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8), Clicks(0, {1: [Click(4, 4)]}))
    >>> dotted[4, 4].tolist()
    [255, 0, 0]
    """
    drawn = Image.fromarray(draw(picture, ids))
    pen, radius = ImageDraw.Draw(drawn), max(3, min(ids.shape) // 90)
    for object_id, ones in (clicks.of if clicks else {}).items():
        colour = COLOURS[object_id - 1]
        for click in ones:
            box = (click.x - radius, click.y - radius, click.x + radius, click.y + radius)
            pen.ellipse(box, fill=colour if click.on else None, outline="white" if click.on else colour, width=2)
    return np.array(drawn)
