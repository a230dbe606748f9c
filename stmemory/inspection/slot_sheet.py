"""The slot sheet: what each slot holds now, which frames went into it, and how alike the slots are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stmemory.inspection.history import History, fused_words
from stmemory.inspection.ink import (
    EMPTY,
    FAINT,
    GRID,
    INK,
    MARGIN,
    PAPER,
    Colour,
    chip,
    colour_of_frame,
    colour_of_object,
    font,
    outlined,
    page,
    text_on,
)
from stmemory.inspection.moments import Thumbnail
from stmemory.memory.slots import SlotInfo

__all__ = ["draw_slots"]

TILE, GAP, CAPTION, BARS, CELL = 230, 14, 44, 34, 46  # px
MOST_IN_A_ROW = 6


def draw_slots(
    histories: Mapping[int, History],
    slots: Mapping[int, Mapping[int, SlotInfo]],
    similarity: Mapping[int, NDArray[np.float32]],
    thumbnails: Mapping[int, Thumbnail],
) -> Image.Image:
    """Draw what the slots hold now, an object a row.

    Args:
        histories: by object id.
        slots: of the objects that are still tracked, by slot number.
        similarity: `[K, K]` of eq. 1, by object id.
        thumbnails: by frame.

    Returns:
        An RGB image: for each slot the frame that it was written at, and below it bars, over the length of the video,
        of the frames that are inside; at the right of each object the similarities.
    """
    shapes = [picture.ids.shape for picture in thumbnails.values()] or [(3, 4)]
    tall = round(TILE * shapes[0][0] / shapes[0][1])
    most = max((len(held) for held in slots.values()), default=1) or 1
    across = min(most, MOST_IN_A_ROW)
    matrix = 40 + CELL * max((len(m) for m in similarity.values()), default=1)
    line = tall + CAPTION + BARS + GAP
    heights = [34 + max(-(-max(len(held), 1) // across) * line, matrix) + 24 for held in slots.values()]
    width = 2 * MARGIN + across * (TILE + GAP) + 40 + matrix
    notes = (
        "Under each frame, which frames are inside the slot, its own and those fused into it, from the first frame to "
        "the last.",
        "Matrix: similarity of row to column (eq. 1); the update policy compares these.",
    )
    image, pen, y = page(width, sum(heights) or 40, "What the slots hold now", notes)
    for (object_id, held), height in zip(slots.items(), heights, strict=True):
        chip(pen, (MARGIN, y + 4), colour_of_object(object_id, bright=True))
        pen.text((MARGIN + 22, y), f"object {object_id}", INK, font=font(18))
        pen.text((MARGIN + 130, y + 4), f"after frame {histories[object_id].last}", FAINT, font=font(14))
        for place, info in enumerate(held[slot] for slot in sorted(held)):
            x, top = MARGIN + place % across * (TILE + GAP), y + 34 + place // across * line
            _picture(image, pen, (x, top, tall), thumbnails.get(info.frame), object_id)
            _caption(pen, x, top + tall + 4, info, fused_words(info.frames_inside, frame=histories[object_id].last))
            _bars(pen, x, top + tall + CAPTION, histories[object_id], info.slot)
        if object_id in similarity:
            _matrix(pen, MARGIN + across * (TILE + GAP) + 40, y + 34, similarity[object_id], sorted(held))
        y += height
    return image


def _picture(
    image: Image.Image, pen: ImageDraw.ImageDraw, place: tuple[int, int, int], origin: Thumbnail | None, object_id: int
) -> None:
    x, y, tall = place
    if origin is None:
        pen.rectangle((x, y, x + TILE - 1, y + tall - 1), GRID)
        pen.text((x + TILE / 2, y + tall / 2), "not seen by the inspector", FAINT, font=font(14), anchor="mm")
        return
    picture = Image.fromarray(outlined(origin.picture, origin.ids, object_id))
    image.paste(picture.resize((TILE, tall), Image.Resampling.BICUBIC), (x, y))


def _caption(pen: ImageDraw.ImageDraw, x: int, y: int, info: SlotInfo, fused: str) -> None:
    pen.text((x, y), f"slot {info.slot}, frame {info.frame}", INK, font=font(15))
    pen.text((x + TILE, y), "pinned" if info.pinned else f"age {info.age}", FAINT, font=font(14), anchor="ra")
    pen.text((x, y + 19), fused or "nothing fused in", FAINT, font=font(14))


def _bars(pen: ImageDraw.ImageDraw, x: int, y: int, history: History, slot: int) -> None:
    """Which frames are inside: for each pixel the share of the frames that it stands for."""
    pen.rectangle((x, y, x + TILE - 1, y + BARS - 8), EMPTY)
    frames = history.last + 1 - history.first
    for column in np.flatnonzero(history.inside[slot, : history.columns]).tolist():
        left = x + column * history.stride * TILE / frames
        right = max(left, min(x + TILE, x + (column + 1) * history.stride * TILE / frames) - 1)
        tint = colour_of_frame(column * history.stride / max(1, frames - 1))
        tall = (BARS - 9) * min(1.0, 0.25 + 0.75 * history.inside[slot, column] / history.stride)
        pen.rectangle((left, y + BARS - 8 - tall, right, y + BARS - 8), tint)


def _matrix(pen: ImageDraw.ImageDraw, x: int, y: int, similarity: NDArray[np.float32], slots: list[int]) -> None:
    pen.text((x, y - 4), "similarity", INK, font=font(14))
    for i, one in enumerate(slots):
        pen.text((x + 30 + CELL * (i + 0.5), y + 22), str(one), FAINT, font=font(13), anchor="mm")
        pen.text((x + 16, y + 34 + CELL * (i + 0.5)), str(one), FAINT, font=font(13), anchor="mm")
        for j, other in enumerate(slots):
            value = float(similarity[one, other])
            left, top = x + 30 + CELL * j, y + 34 + CELL * i
            colour = GRID if one == other else _shade(value)
            pen.rectangle((left, top, left + CELL - 2, top + CELL - 2), colour)
            if one != other:
                pen.text((left + CELL / 2, top + CELL / 2), f"{value:.2f}", text_on(colour), font=font(14), anchor="mm")


def _shade(value: float) -> Colour:
    """Paper for 0 and less, dark blue for 1."""
    dark, share = (30, 62, 120), min(max(value, 0.0), 1.0) ** 3
    red, green, blue = (round(p + share * (d - p)) for p, d in zip(PAPER, dark, strict=True))
    return red, green, blue
