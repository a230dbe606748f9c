"""Pictures of a forecast: what was seen, what was predicted, and what came. Owns their looks; knows no networks and
writes no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stmemory.errors import OptionError

__all__ = ["Row", "animation", "strip"]

Picture = NDArray[np.uint8]  # [H, W, 3] RGB

OWN, PREDICTED = (64, 120, 200), (236, 132, 36)  # frames of the clip itself, and of its continuation
PAPER, INK = (250, 248, 243), (38, 40, 46)
EDGE, GAP, LABEL, CAPTION = 4, 6, 84, 20  # px
LONGEST = 50  # frames of each kind that an animation shows
COLUMNS = 10


@dataclass(frozen=True, eq=False)
class Row:
    """Frames of one kind.

    Attributes:
        label: what they are.
        pictures: uint8 RGB `[H, W, 3]`, all of one size.
        numbers: their places in the video.
        predicted: whether they were made rather than seen.
    """

    label: str
    pictures: Sequence[Picture]
    numbers: Sequence[int]
    predicted: bool = False


def animation(seen: Row, ahead: Row, came: Row | None = None, *, side: int = 192) -> list[Image.Image]:
    """What was seen and then what was predicted, each framed in its colour; what really came runs beside it on the
    left.

    Args:
        seen: frames of the clip; the last 50 are shown.
        ahead: predictions; the first 50 are shown.
        came: the frames that were predicted, as they came; where there are fewer, the last one stays.
        side: px of the longer side of each picture, about.

    Returns:
        RGB images of one size.

    Raises:
        OptionError: nothing was seen or predicted.

    >>> one = np.zeros((8, 8, 3), np.uint8)
    >>> [image.size for image in animation(Row("seen", [one], [0]), Row("predicted", [one], [1], predicted=True), side=16)]
    [(24, 24), (24, 24)]
    """
    _check(seen, ahead)
    images = []
    for row in (seen, ahead):
        shown = row.pictures[-LONGEST:] if row is seen else row.pictures[:LONGEST]
        for place, picture in enumerate(shown):
            panels = [_framed(picture, side, predicted=row.predicted)]
            if came is not None and came.pictures:
                own = picture if row is seen else came.pictures[min(place, len(came.pictures) - 1)]
                panels.insert(0, _framed(own, side, predicted=False))
            width, height = panels[0].size
            image = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height), PAPER)
            for column, panel in enumerate(panels):
                image.paste(panel, (column * (width + GAP), 0))
            images.append(image)
    return images


def strip(seen: Row, ahead: Row, came: Row | None = None, *, side: int = 96) -> Image.Image:
    """What was seen above, what was predicted below it, and what came below that, frame by frame from left to right.

    Args:
        seen: frames of the clip; the last 10 are shown.
        ahead: predictions; if there are more than 10, as many of them are shown, evenly spaced.
        came: the frames that were predicted, as they came, from the first on.
        side: px of the longer side of each picture, about.

    Raises:
        OptionError: nothing was seen or predicted.

    >>> one = np.zeros((8, 8, 3), np.uint8)
    >>> strip(Row("seen", [one] * 3, [0, 1, 2]), Row("predicted", [one], [3], predicted=True), side=16).size
    (180, 96)
    """
    _check(seen, ahead)
    chosen = sorted({round(place) for place in np.linspace(0, len(ahead.pictures) - 1, COLUMNS)})
    rows = [(seen, list(range(len(seen.pictures)))[-COLUMNS:]), (ahead, chosen)]
    if came is not None and came.pictures:
        rows.append((came, [place for place in chosen if place < len(came.pictures)]))
    width, height = _framed(seen.pictures[0], side, predicted=False).size
    columns = max(len(places) for _, places in rows)
    image = Image.new(
        "RGB", (LABEL + columns * (width + GAP) + GAP, len(rows) * (height + CAPTION + GAP) - CAPTION // 2 + GAP), PAPER
    )
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    for line, (row, places) in enumerate(rows):
        y = GAP + line * (height + CAPTION + GAP)
        pen.text((GAP, y + height // 2), row.label, INK, font=font, anchor="lm")
        for column, place in enumerate(places):
            x = LABEL + column * (width + GAP)
            image.paste(_framed(row.pictures[place], side, predicted=row.predicted), (x, y))
            pen.text((x + width // 2, y + height + 2), str(row.numbers[place]), INK, font=font, anchor="ma")
    return image


def _framed(picture: Picture, side: int, *, predicted: bool) -> Image.Image:
    """A picture at about that size, small ones in whole steps, with a frame of its kind's colour."""
    image = Image.fromarray(picture)
    longer = max(image.size)
    if longer < side:
        factor = side // longer
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    elif longer > side:
        image = image.resize(
            (max(1, image.width * side // longer), max(1, image.height * side // longer)), Image.Resampling.LANCZOS
        )
    framed = Image.new("RGB", (image.width + 2 * EDGE, image.height + 2 * EDGE), PREDICTED if predicted else OWN)
    framed.paste(image, (EDGE, EDGE))
    return framed


def _check(seen: Row, ahead: Row) -> None:
    if not seen.pictures or not ahead.pictures:
        raise OptionError(
            f"expected a frame seen and one predicted or more, got {len(seen.pictures)} and {len(ahead.pictures)}; "
            "pass some to show"
        )
