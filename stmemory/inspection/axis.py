"""What a timeline consists of: its plot with the axis of frames, its legend, its marks. Knows no history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageDraw

from stmemory.inspection.changes import OUTCOMES
from stmemory.inspection.history import KINDS
from stmemory.inspection.ink import FAINT, GRID, INK, MARGIN, PAPER, Colour, chip, colour_of_frame, font

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
    """Say what colours and marks mean, in three lines from y on; of the outcomes only those that occur."""
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
