"""Names of `stmemory.inspection.ink`, which moved."""

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
    heat_over,
    outlined,
    page,
    text_on,
)

__all__ = [
    "EMPTY",
    "FAINT",
    "GRID",
    "INK",
    "MARGIN",
    "PAPER",
    "Colour",
    "chip",
    "colour_of_frame",
    "colour_of_object",
    "colour_of_slot",
    "font",
    "heat_over",
    "outlined",
    "page",
    "text_on",
]
