"""Figures of a memory: heat maps of attention, and the templates in the slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stmemory.inspection.history import History, fused_words
from stmemory.inspection.moments import Moment, Point, Thumbnail
from stmemory.io.drawing import (
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
    heat_over,
    outlined,
    page,
    text_on,
)
from stmemory.io.frames import WorkingSize
from stmemory.memory.slots import SlotInfo

__all__ = ["draw_attention", "draw_slots", "peak_of", "spread"]

BIG, TILE, GAP, CAPTION, BARS, CELL = 400, 230, 14, 44, 34, 46  # px
MOST_IN_A_ROW = 6  # tiles
ALONE = 0.2  # of the attention: a cell that gets so much is circled


def draw_attention(
    moment: Moment,
    object_id: int,
    points: Sequence[Point],
    heats: Sequence[NDArray[np.float32]],
    *,
    over_all: NDArray[np.float32] | None = None,
) -> Image.Image:
    """Draw where points of a frame read from.

    Args:
        moment: the frame.
        object_id: whose memory.
        points: pixels (x, y) of the frame.
        heats: for each point `[K, h, w]`, its attention.
        over_all: `[K, h, w]`, the mean over the object; None where it was not seen.

    Returns:
        An RGB image: the frame with the points on the left; for each point a row with the slots, each
        a frame and the heat on it, and above them one for the mean over the object.
    """
    part = moment.objects[object_id]
    slots = sorted(part.slots)
    across = min(len(slots), MOST_IN_A_ROW)
    ratio = moment.picture.ids.shape[0] / moment.picture.ids.shape[1]
    small, big = round(TILE * ratio), round(BIG * ratio)
    lines = -(-len(slots) // across)
    row_height = 26 + lines * (small + CAPTION)
    rows = [] if over_all is None else [(f"mean over object {object_id}", over_all)]
    rows += [
        (f"{_letter(n)}: pixel {x}, {y}", heat) for n, ((x, y), heat) in enumerate(zip(points, heats, strict=True))
    ]
    height = max(len(rows) * row_height, big + CAPTION)
    width = 2 * MARGIN + BIG + 2 * GAP + across * (TILE + GAP)
    notes = (
        "Brighter is read more; grey is not read. Each row has one scale, from 0 to its strongest cell, drawn as its "
        "square root. Lines: the object's mask.",
    )
    image, pen, top = page(width, height, f"What object {object_id} read in frame {moment.frame}", notes)
    frame = Image.fromarray(outlined(moment.picture.picture, moment.picture.ids, object_id))
    image.paste(frame.resize((BIG, big), Image.Resampling.BICUBIC), (MARGIN, top))
    seen = "" if over_all is not None else f": object {object_id} is not seen"
    pen.text((MARGIN, top + big + 6), f"frame {moment.frame}{seen}", INK, font=font(16))
    scale = BIG / moment.size.frame_width
    for number, (x, y) in enumerate(map(moment.in_window, points)):
        _ring(pen, MARGIN + (x + 0.5) * scale, top + (y + 0.5) * scale, _letter(number))
    for number, (words, heat) in enumerate(rows):
        y = top + number * row_height
        x = MARGIN + BIG + 2 * GAP
        most = float(heat.max())
        pen.text((x, y), f"{words}; the strongest cell gets {_percent(most)} of the attention", INK, font=font(15))
        best = max(slots, key=lambda slot: float(heat[slot].sum()))
        for place, slot in enumerate(slots):
            left = x + place % across * (TILE + GAP)
            above = y + 26 + place // across * (small + CAPTION)
            tile = _tile(part.origins.get(part.slots[slot].frame), heat[slot], moment.size, object_id, most)
            image.paste(tile.resize((TILE, small), Image.Resampling.BICUBIC), (left, above))
            if heat[slot].max() >= max(most / 4, ALONE):  # a single cell is small
                x_peak, y_peak = peak_of(heat[slot], moment.size)
                shrink = TILE / moment.size.frame_width
                _circle(pen, left + (x_peak + 0.5) * shrink, above + (y_peak + 0.5) * shrink)
            if slot == best:
                pen.rectangle((left - 2, above - 2, left + TILE + 1, above + small + 1), None, INK, 2)
            fused = fused_words(part.slots[slot].frames_inside, frame=moment.frame)
            _heat_caption(
                pen, (left, above + small + 4), part.slots[slot], fused, float(heat[slot].sum()), most_read=slot == best
            )
    return image


def spread(heat: NDArray[np.floating], size: WorkingSize, shape: tuple[int, int]) -> NDArray[np.floating]:
    """Stretch a map of cells over a picture of the whole frame, cell by cell, without the padding.

    Args:
        heat: `[h, w]`, of the padded working size.
        size: the frame's sizes.
        shape: H' and W' of the picture.

    Returns:
        `[H', W']`.

    >>> spread(np.array([[1.0, 2.0]]), WorkingSize.of(16, 24, None, 16), (2, 3)).tolist()
    [[1.0, 1.0, 2.0], [1.0, 1.0, 2.0]]
    """
    rows = ((np.arange(shape[0]) + 0.5) / shape[0] * size.height / size.padded_height * heat.shape[0]).astype(np.int64)
    columns = ((np.arange(shape[1]) + 0.5) / shape[1] * size.width / size.padded_width * heat.shape[1]).astype(np.int64)
    stretched: NDArray[np.floating] = heat[rows[:, None], columns[None]]
    return stretched


def peak_of(heat: NDArray[np.floating], size: WorkingSize) -> Point:
    """The pixel of the frame in the middle of the strongest cell.

    >>> peak_of(np.array([[0.1, 0.9]]), WorkingSize.of(16, 32, None, 16))
    (24, 8)
    """
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    y = (row + 0.5) / heat.shape[0] * size.padded_height * size.frame_height / size.height
    x = (column + 0.5) / heat.shape[1] * size.padded_width * size.frame_width / size.width
    return min(int(x), size.frame_width - 1), min(int(y), size.frame_height - 1)


def _tile(
    origin: Thumbnail | None, heat: NDArray[np.floating], size: WorkingSize, object_id: int, most: float
) -> Image.Image:
    """A slot's frame under its heat; a plain grey where the inspector did not see the frame."""
    shape = (round(400 * size.frame_height / size.frame_width), 400) if origin is None else origin.ids.shape
    picture = np.full((*shape, 3), 120, np.uint8) if origin is None else origin.picture
    covered = heat_over(picture, spread(heat, size, (shape[0], shape[1])), most=most)
    return Image.fromarray(covered if origin is None else outlined(covered, origin.ids, object_id))


def _heat_caption(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], slot: SlotInfo, fused: str, share: float, *, most_read: bool
) -> None:
    x, y = place
    pen.text((x, y), f"slot {slot.slot}, frame {slot.frame}", INK, font=font(14))
    pen.text((x + TILE, y), _percent(share), INK if most_read else FAINT, font=font(16), anchor="ra")
    pen.text((x, y + 17), ", ".join(filter(None, (fused, "pinned" * slot.pinned))), FAINT, font=font(13))
    pen.rectangle((x + TILE - 80, y + 23, x + TILE, y + 28), GRID)
    pen.rectangle((x + TILE - 80, y + 23, x + TILE - 80 + 80 * share, y + 28), INK)


def _letter(number: int) -> str:
    return chr(ord("A") + number % 26)


def _circle(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    pen.ellipse((x - 11, y - 11, x + 11, y + 11), None, INK, 3)
    pen.ellipse((x - 10, y - 10, x + 10, y + 10), None, (255, 240, 130), 1)


def _ring(pen: ImageDraw.ImageDraw, x: float, y: float, letter: str) -> None:
    pen.ellipse((x - 6, y - 6, x + 6, y + 6), None, INK, 4)
    pen.ellipse((x - 5, y - 5, x + 5, y + 5), None, PAPER, 2)
    pen.text((x + 8, y - 18), letter, PAPER, font=font(18), stroke_width=2, stroke_fill=INK)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else "< 0.1 %"


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
            _slot_caption(
                pen, x, top + tall + 4, info, fused_words(info.frames_inside, frame=histories[object_id].last)
            )
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


def _slot_caption(pen: ImageDraw.ImageDraw, x: int, y: int, info: SlotInfo, fused: str) -> None:
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
