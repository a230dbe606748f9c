"""The timeline of a memory as a figure: one row a slot, one column a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stmemory.inspection.history import KINDS, OUTCOMES, Change, History, fused_words
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
    colour_of_slot,
    font,
    page,
    text_on,
)
from stmemory.memory.slots import NO_FRAME

__all__ = [
    "KIND_COLOURS",
    "LEFT",
    "OUTCOME_COLOURS",
    "RIGHT",
    "ROOM_FOR_ARROWS",
    "ROOM_FOR_CROSSES",
    "Plot",
    "arrow",
    "axis",
    "cross",
    "draw_timeline",
    "legend",
]

LEFT = 112  # px beside the plot
RIGHT = 196
ROOM_FOR_ARROWS = 7  # px a frame
ROOM_FOR_CROSSES = 3

OUTCOME_COLOURS: dict[str, Colour] = {
    "pinned": (36, 78, 160),
    "stored": (126, 182, 120),
    "provisional": (190, 214, 160),
    "distilled": (70, 160, 170),
    "gate": (240, 150, 40),
    "absent": (205, 62, 62),
    "unwritten": (170, 170, 170),
}
KIND_COLOURS: dict[str, Colour] = {
    "pinned": (36, 78, 160),
    "fused": (230, 159, 0),
    "newest": (0, 158, 115),
    "older": (150, 205, 235),
}


@dataclass(frozen=True)
class Plot:
    """Where frames lie on the page."""

    pen: ImageDraw.ImageDraw
    first: int
    frames: int
    width: int

    @property
    def pitch(self) -> float:
        """Pixels of one frame."""
        return self.width / self.frames

    @property
    def end(self) -> float:
        """Where the plot ends."""
        return self.x(self.first + self.frames)

    def x(self, frame: float) -> float:
        """Where a frame begins."""
        return MARGIN + LEFT + (frame - self.first) * self.pitch

    def tint(self, frame: int) -> Colour:
        """The colour that stands for a frame."""
        return colour_of_frame((frame - self.first) / max(1, self.frames - 1))

    def span(self, begin: int, end: int) -> tuple[float, float]:
        """Left and right of frames, never past the end."""
        return self.x(begin), max(self.x(min(end, self.first + self.frames)) - 1, self.x(begin))


def legend(plot: Plot, y: int, outcomes: Sequence[str]) -> None:
    """Draw the legend, three lines from y on, with those of the outcomes that occur."""
    x, letters = float(MARGIN), font(13)
    for outcome in outcomes:
        chip(plot.pen, (x, y + 1), OUTCOME_COLOURS[outcome], size=13)
        plot.pen.text((x + 19, y - 1), OUTCOMES[outcome], INK, font=letters)
        x += 36 + letters.getlength(OUTCOMES[outcome])
    x, y = float(MARGIN), y + 22
    plot.pen.rectangle((x, y + 2, x + 22, y + 12), GRID)
    plot.pen.rectangle((x, y + 2, x + 22, y + 4), INK)
    plot.pen.text((x + 29, y - 1), "pinned: neither goes nor changes", INK, font=letters)
    x += 46 + letters.getlength("pinned: neither goes nor changes")
    if plot.pitch >= ROOM_FOR_ARROWS:
        arrow(plot.pen, (x, y + 3), (x + 18, y + 12))
        words = "the template that goes is fused into the one with the dot"
    else:
        plot.pen.rectangle((x + 6, y + 3, x + 8, y + 12), INK)
        words = "bars at the foot of a lane: how often another template was fused into it"
    plot.pen.text((x + 29, y - 1), words, INK, font=letters)
    x += 46 + letters.getlength(words)
    if plot.pitch >= ROOM_FOR_CROSSES:
        cross(plot.pen, x + 6, y + 7)
        plot.pen.text((x + 17, y - 1), "dropped, fused into nothing", INK, font=letters)
    x, y = float(MARGIN), y + 22
    plot.pen.text((x, y - 1), "attention to slots that hold:", INK, font=letters)
    x += 12 + letters.getlength("attention to slots that hold:")
    for kind, words in KINDS.items():
        chip(plot.pen, (x, y + 1), KIND_COLOURS[kind], size=13)
        plot.pen.text((x + 19, y - 1), words, INK, font=letters)
        x += 36 + letters.getlength(words)


def axis(plot: Plot, y: int) -> None:
    """Frame numbers under a strip of the frames' colours."""
    for place in range(plot.width):
        tint = plot.tint(plot.first + int(place / plot.pitch))
        plot.pen.line((plot.x(plot.first) + place, y + 4, plot.x(plot.first) + place, y + 9), tint)
    step = next(s * 10**e for e in range(12) for s in (1, 2, 5) if s * 10**e * plot.pitch >= 56)
    for frame in range(-(-plot.first // step) * step, plot.first + plot.frames, step):
        x = plot.x(frame) + min(plot.pitch, 40) / 2 * (plot.pitch >= 3)
        plot.pen.line((x, y + 10, x, y + 13), FAINT)
        plot.pen.text((x, y + 14), f"{frame:,}", FAINT, font=font(13), anchor="ma")
    plot.pen.text((MARGIN, y), "frame", FAINT, font=font(13))


def arrow(pen: ImageDraw.ImageDraw, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """A line with a dot at its end."""
    pen.line((*begin, *end), PAPER, 4)
    pen.line((*begin, *end), INK, 2)
    pen.ellipse((end[0] - 4, end[1] - 4, end[0] + 4, end[1] + 4), INK, PAPER)


def cross(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    """A red cross."""
    for sign in (-1, 1):
        pen.line((x - 4, y - 4 * sign, x + 4, y + 4 * sign), PAPER, 4)
        pen.line((x - 4, y - 4 * sign, x + 4, y + 4 * sign), (205, 62, 62), 2)


NARROWEST, WIDEST, FRAME = 560, 1160, 40  # px, of the plot and at most of a frame
HEAD, STRIP, SCORE, LANE, SHARES, AXIS, GAP = 30, 14, 34, 24, 64, 30, 26  # px, heights
LEGEND = 72  # px
ROOM_FOR_SLOTS = 3  # px a frame; below, shares by slot are noise, since slots take turns

_SHORT = {"gate": "too uncertain", "absent": "not seen", "unwritten": "not to be stored"}


def draw_timeline(histories: Mapping[int, History], *, gate: float = 0.0) -> Image.Image:
    """Draw what happened to objects' slots over time, on one time axis.

    Args:
        histories: by object id; one or more, with a frame or more.
        gate: the least score of what was memorised, in [0, 1].

    Returns:
        An RGB image, about 1,500 px wide; narrower for a clip of few frames.

    >>> history = History(5, first=0)
    >>> draw_timeline({7: history}).mode
    'RGB'
    """
    first = min(history.first for history in histories.values())
    frames = max(1, max(history.last for history in histories.values()) + 1 - first)
    width = min(WIDEST, max(NARROWEST, FRAME * frames))
    slots = [len(history.origin) for history in histories.values()]
    shares = SHARES + (SHARES + 6) * (width / frames >= ROOM_FOR_SLOTS)
    height = sum(HEAD + STRIP + 6 + SCORE + 6 + LANE * k + 8 + shares + AXIS + GAP for k in slots)
    stride = max(history.stride for history in histories.values())
    grain = f", a column is {stride} frames" if stride > 1 else ""
    notes = (
        f"frames {first:,} to {first + frames - 1:,}{grain}. A lane shows what a slot held, in the colour of the "
        "frame that it was written at: find it on the axis.",
    )
    counts = sum(history.outcomes.sum(1) for history in histories.values())
    used = [outcome for outcome, count in zip(OUTCOMES, np.asarray(counts), strict=True) if count]
    image, pen, y = page(2 * MARGIN + LEFT + width + RIGHT, height + LEGEND, "What the memory held", notes)
    plot = Plot(pen, first, frames, width)
    legend(plot, y, used)
    y += LEGEND
    for object_id, history in histories.items():
        y = _object(plot, y, object_id, history, gate) + GAP
    return image


def _object(plot: Plot, y: int, object_id: int, history: History, gate: float) -> int:
    """One object's panel; returns where it ends."""
    pen, left = plot.pen, MARGIN
    chip(pen, (left, y + 4), colour_of_object(object_id, bright=True))
    pen.text((left + 22, y), f"object {object_id}", INK, font=font(18))
    counts = [f"{int(n):,} {_SHORT.get(k, k)}" for k, n in zip(OUTCOMES, history.outcomes.sum(1), strict=True) if n]
    fusions, drops = int(history.fusions.sum()), int(history.drops.sum())
    summary = f"frames: {', '.join(counts) or 'none'};  fusions: {fusions:,};  dropped: {drops:,}"
    pen.text((left + LEFT, y + 4), summary, FAINT, font=font(14))
    y += HEAD
    pen.text((left, y - 2), "frame was", FAINT, font=font(13))
    for column in range(history.columns):
        _stack(plot, history, column, y)
    y += STRIP + 6
    _scores(plot, y, history, gate)
    y += SCORE + 6
    for slot in range(len(history.origin)):
        _lane(plot, y + slot * LANE, history, slot)
    for change in history.changes:
        if plot.pitch >= ROOM_FOR_ARROWS or (change.fate == "dropped" and plot.pitch >= ROOM_FOR_CROSSES):
            _mark(plot, y, change)
    y += LANE * len(history.origin) + 8
    _shares(plot, y, history, history.kinds, ("attention", "by kind"), [(KIND_COLOURS[k], k) for k in KINDS])
    y += SHARES
    if plot.pitch >= ROOM_FOR_SLOTS:
        names = [(colour_of_slot(slot), f"slot {slot}") for slot in range(len(history.share))]
        _shares(plot, y + 6, history, history.share, ("attention", "by slot"), names)
        y += SHARES + 6
    axis(plot, y)
    return y + AXIS


def _stack(plot: Plot, history: History, column: int, y: int) -> None:
    """What became of a column's frames, the worst outcome at the top."""
    counts = history.outcomes[:, column]
    left, right = _span(plot, history, column)
    top = float(y)
    for outcome, count in reversed(list(zip(OUTCOMES, counts, strict=True))):
        if count:
            bottom = top + STRIP * count / counts.sum()
            plot.pen.rectangle((left, top, right, bottom - 1), OUTCOME_COLOURS[outcome])
            top = bottom


def _scores(plot: Plot, y: int, history: History, gate: float) -> None:
    pen, bottom = plot.pen, y + SCORE
    pen.text((MARGIN, y + 8), "score", FAINT, font=font(13))
    pen.rectangle((plot.x(plot.first), y, plot.end - 1, bottom), PAPER, GRID)
    level = bottom - gate * SCORE
    for x in np.arange(plot.x(plot.first), plot.end - 4, 8):
        pen.line((x, level, x + 3, level), FAINT)
    if gate > 0:
        pen.text((plot.end + 8, level - 8), f"write gate {gate:g}", FAINT, font=font(12))
    past: tuple[float, float] | None = None
    for column in range(history.columns):
        score = history.score[column]
        if not np.isfinite(score):
            past = None
            continue
        left, right = _span(plot, history, column)
        here = ((left + right) / 2, bottom - float(score) * SCORE)
        pen.line((*(past or here), *here), INK, 2)
        past = here


def _lane(plot: Plot, y: int, history: History, slot: int) -> None:
    pen, letters = plot.pen, font(11)
    chip(pen, (MARGIN, y + 6), colour_of_slot(slot), size=11)
    pen.text((MARGIN + 17, y + 4), f"slot {slot}", INK, font=font(13))
    top, bottom = y + 1, y + LANE - 3
    pen.rectangle((plot.x(plot.first), top, plot.end - 1, bottom), EMPTY)
    origin, size, writes = history.origin[slot], history.size[slot], history.writes[slot]
    column = 0
    while column < history.columns:
        run = 1
        same = column + run
        while same < history.columns and origin[same] == origin[column] and not writes[same]:
            run += 1
            same = column + run
        frame = int(origin[column])
        if frame != NO_FRAME:
            tint = plot.tint(frame)
            left, right = _span(plot, history, column, run)
            pen.rectangle((left, top, right if plot.pitch * history.stride < 4 else right - 1, bottom), tint)
            if right - left >= letters.getlength(str(frame)) + 9 and history.stride == 1:
                shift = 8 if plot.pitch >= ROOM_FOR_ARROWS + 7 else 3  # past the arrow that begins here
                pen.text((left + shift, top + 4), str(frame), text_on(tint), font=letters)
        column += run
    for column in np.flatnonzero(history.pinned[slot, : history.columns]).tolist():
        left, right = _span(plot, history, column)
        pen.rectangle((left, top, right + 1, top + 2), INK)
    if plot.pitch < ROOM_FOR_ARROWS:
        for column in np.flatnonzero(history.fusions[slot, : history.columns]).tolist():
            left, right = _span(plot, history, column)
            tall = 2 + 8 * min(1.0, history.fusions[slot, column] / history.stride)
            ink = text_on(plot.tint(int(origin[column])))
            pen.rectangle((left, bottom - tall, right, bottom), ink)
    last = history.columns - 1
    if last >= 0 and origin[last] != NO_FRAME:
        fused = fused_words(int(size[last]), frame=history.last)
        words = f"frame {origin[last]:,} {fused}".rstrip() + ", pinned" * bool(history.pinned[slot, last])
        pen.text((plot.end + 8, y + 4), words, INK, font=font(13))


def _mark(plot: Plot, y: int, change: Change) -> None:
    """Arrows from what went to what it was fused into, or a cross where it was dropped."""

    def middle(slot: int) -> float:
        return y + slot * LANE + LANE / 2 - 1

    x = plot.x(change.frame)
    if change.fate == "dropped" and change.slot is not None:
        cross(plot.pen, x, middle(change.slot))
    for slot in change.into:
        begin = y - 3.0 if change.slot is None else middle(change.slot)
        arrow(plot.pen, (x, begin), (x + plot.pitch / 2, middle(slot)))


def _shares(
    plot: Plot,
    y: int,
    history: History,
    sums: NDArray[np.float64],
    title: tuple[str, str],
    parts: list[tuple[Colour, str]],
) -> None:
    """Shares of the attention of the object's cells, stacked: `sums [P, COLUMNS]` of P parts with a colour and a name
    each."""
    pen = plot.pen
    for line, words in enumerate(title):
        pen.text((MARGIN, y + SHARES // 2 - 16 + 16 * line), words, FAINT, font=font(13))
    pen.rectangle((plot.x(plot.first), y, plot.end - 1, y + SHARES - 1), EMPTY)
    columns = np.flatnonzero(history.reads[: history.columns]).tolist()
    for column in columns:
        left, right = _span(plot, history, column)
        top = float(y)
        for total, (colour, name) in zip((sums[:, column] / history.reads[column]).tolist(), parts, strict=True):
            below = top + total * SHARES
            if round(below) > round(top):
                pen.rectangle((left, round(top), right + 1, round(below) - 1), colour)
            if column == columns[-1] and total * SHARES >= 12:
                middle = (top + below) / 2 - 8
                pen.text((plot.end + 8, middle), f"{name}: {100 * total:.0f} %", INK, font=font(13))
            top = below


def _span(plot: Plot, history: History, column: int, columns: int = 1) -> tuple[float, float]:
    """Left and right of columns."""
    begin = history.first + column * history.stride
    return plot.span(begin, begin + columns * history.stride)
