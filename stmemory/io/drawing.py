"""Drawing on images: one palette, font, page and outline for all figures, and sheets of tiles with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stmemory.errors import OptionError, ShapeError
from stmemory.io.palette import davis_palette

__all__ = [
    "EMPTY",
    "FAINT",
    "GRID",
    "INK",
    "MARGIN",
    "PAPER",
    "Colour",
    "Tile",
    "chip",
    "colour_of_frame",
    "colour_of_object",
    "colour_of_slot",
    "contact_sheet",
    "contours",
    "draw_outline",
    "font",
    "heat_over",
    "outlined",
    "page",
    "text_on",
]

Colour = tuple[int, int, int]
Picture = NDArray[np.uint8]  # [H, W, 3] RGB

PAPER: Colour = (250, 248, 243)
INK: Colour = (38, 40, 46)
FAINT: Colour = (122, 124, 130)
GRID: Colour = (223, 220, 211)
EMPTY: Colour = (241, 239, 232)
MARGIN = 30  # px

# Distinct for the colour blind too (Okabe and Ito's set, without black); the ninth slot has the first colour again.
_SLOTS: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (110, 110, 110),
)
# From dark to light in even steps, distinct for the colour blind too.
_FRAMES = np.array(
    [(68, 1, 84), (64, 67, 135), (41, 120, 142), (34, 167, 132), (121, 209, 81), (240, 220, 60)], np.float64
)
_HEAT = np.array([(80, 0, 0), (215, 40, 20), (255, 150, 20), (255, 240, 130)], np.float64)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own letters.

    >>> font(14).getlength("frame 7") > 0
    True
    """
    return ImageFont.load_default(size)


def colour_of_frame(share: float) -> Colour:
    """The colour of a moment of the video.

    Args:
        share: 0 for its beginning, 1 for its end.

    >>> colour_of_frame(0.0)
    (68, 1, 84)
    """
    red, green, blue = np.rint(_between(_FRAMES, np.array(share))).astype(int).tolist()
    return red, green, blue


def colour_of_object(object_id: int, *, bright: bool = False) -> Colour:
    """An object's colour in the DAVIS palette, as in masks and overlays.

    Args:
        object_id: its id.
        bright: the same hue at full strength, for lines.

    >>> colour_of_object(1), colour_of_object(1, bright=True)
    ((128, 0, 0), (255, 0, 0))
    """
    place = 3 * ((object_id - 1) % 255 + 1)
    red, green, blue = davis_palette()[place : place + 3]
    strongest = max(red, green, blue)
    if not bright or strongest == 0:
        return red, green, blue
    return red * 255 // strongest, green * 255 // strongest, blue * 255 // strongest


def colour_of_slot(slot: int) -> Colour:
    """A slot's colour where slots stand beside each other.

    >>> colour_of_slot(0) == colour_of_slot(8)
    True
    """
    return _SLOTS[slot % len(_SLOTS)]


def text_on(colour: Colour) -> Colour:
    """Ink or paper, whichever can be read on a colour.

    >>> text_on((0, 0, 0)) == PAPER
    True
    """
    return PAPER if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 135 else INK


def page(
    width: int, height: int, title: str, notes: tuple[str, ...] = ()
) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
    """An empty page under a title.

    Args:
        width: px.
        height: px of the room under the title.
        title: the headline.
        notes: lines under it.

    Returns:
        The image, its pen, and the y where the room begins.

    >>> page(200, 100, "t")[0].size
    (200, 206)
    """
    top = MARGIN + 46 + 22 * len(notes)
    image = Image.new("RGB", (width, top + height + MARGIN), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, MARGIN - 6), title, INK, font=font(26))
    for line, note in enumerate(notes):
        pen.text((MARGIN, MARGIN + 34 + 22 * line), note, FAINT, font=font(15))
    return image, pen, top


def chip(pen: ImageDraw.ImageDraw, at: tuple[float, float], colour: Colour, *, size: int = 14) -> None:
    """A small square of a colour.

    >>> image = Image.new("RGB", (9, 9))
    >>> chip(ImageDraw.Draw(image), (0, 0), (9, 9, 9), size=4)
    >>> image.getpixel((2, 2))
    (9, 9, 9)
    """
    pen.rounded_rectangle((at[0], at[1], at[0] + size - 1, at[1] + size - 1), 3, colour)


def contours(ids: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Say which pixels have a neighbour, above, below, left or right, with another id.

    Args:
        ids: `[H, W]`.

    Returns:
        bool `[H, W]`.

    >>> contours(np.array([[0, 0, 7]])).tolist()
    [[False, True, True]]
    """
    edge = np.zeros(ids.shape, np.bool_)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def outlined(picture: Picture, ids: NDArray[np.integer], object_id: int) -> Picture:
    """Draw an object's contour, two pixels wide.

    Args:
        picture: `[H, W, 3]`.
        ids: `[H, W]`.
        object_id: whose.

    >>> outlined(np.zeros((3, 3, 3), np.uint8), np.array([[0, 1, 1]] * 3), 1)[0, :, 0].tolist()
    [255, 255, 0]
    """
    drawn = picture.copy()
    drawn[contours((ids == object_id).astype(np.uint8))] = colour_of_object(object_id, bright=True)
    return drawn


def heat_over(picture: Picture, heat: NDArray[np.floating], *, most: float) -> Picture:
    """Lay a heat map over an image, which becomes grey and dark.

    Args:
        picture: `[H, W, 3]`.
        heat: `[H, W]`, 0 or more.
        most: the value of the brightest colour; the strength follows the square root, so that weak attention shows.

    >>> heat_over(np.full((1, 2, 3), 100, np.uint8), np.array([[0.0, 1.0]]), most=1.0).tolist()
    [[[60, 60, 60], [245, 231, 126]]]
    """
    grey = 0.6 * (picture @ np.array([0.299, 0.587, 0.114]))[..., None]
    strength = np.sqrt(np.clip(heat / max(most, 1e-12), 0, 1))
    cover = np.clip(1.6 * strength, 0, 0.95)[..., None]
    mixed: Picture = np.rint((1 - cover) * grey + cover * _between(_HEAT, strength)).astype(np.uint8)
    return mixed


def _between(colours: NDArray[np.float64], share: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colours `[..., 3]` at shares `[...]` of a scale of colours `[n, 3]`."""
    place = np.clip(share, 0, 1) * (len(colours) - 1)
    low = np.minimum(place.astype(np.int64), len(colours) - 2)
    mixed: NDArray[np.float64] = colours[low] + (place - low)[..., None] * (colours[low + 1] - colours[low])
    return mixed


SHEET_GAP, SHEET_CAPTION = 18, 30  # px
DASH = 5  # px


@dataclass(frozen=True, eq=False)
class Tile:
    """One image of a sheet.

    Attributes:
        picture: uint8 RGB `[H, W, 3]`.
        caption: text under it, at the left.
        figure: text under it, at the right.
    """

    picture: Picture
    caption: str
    figure: str = ""


def contact_sheet(
    tiles: Sequence[Tile], *, title: str, notes: Sequence[str] = (), columns: int = 4, tile_width: int = 400
) -> Image.Image:
    """Lay out images in a grid.

    Args:
        tiles: one or more; all are drawn at the shape of the first.
        title: the headline.
        notes: lines under it.
        columns: tiles in a row.
        tile_width: px.

    Returns:
        An RGB image.

    Raises:
        OptionError: there are no tiles, or no columns.

    >>> tiles = [Tile(np.zeros((9, 16, 3), np.uint8), "frame 0")] * 5
    >>> contact_sheet(tiles, title="five", columns=3, tile_width=160).size
    (576, 364)
    """
    if not tiles or columns < 1 or tile_width < 1:
        came = f"{len(tiles)}, {columns}, {tile_width}"
        raise OptionError(
            f"contact_sheet: expected one tile, column and px or more, got {came}; pass something to show"
        )
    columns = min(columns, len(tiles))
    tile_height = round(tile_width * tiles[0].picture.shape[0] / tiles[0].picture.shape[1])
    across, down = tile_width + SHEET_GAP, tile_height + SHEET_CAPTION + SHEET_GAP
    width, height = 2 * MARGIN + columns * across - SHEET_GAP, -(-len(tiles) // columns) * down - SHEET_GAP
    sheet, pen, top = page(width, height, title, tuple(notes))
    mask = Image.new("L", (tile_width, tile_height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, tile_width - 1, tile_height - 1), 8, 255)
    for place, tile in enumerate(tiles):
        x, y = MARGIN + place % columns * across, top + place // columns * down
        picture = Image.fromarray(tile.picture).resize((tile_width, tile_height), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x, y), mask)
        pen.text((x + 2, y + tile_height + 6), tile.caption, INK, font=font(17))
        pen.text((x + tile_width - 2, y + tile_height + 6), tile.figure, FAINT, font=font(17), anchor="ra")
    return sheet


def draw_outline(picture: Picture, ids: NDArray[np.integer]) -> Picture:
    """Draw a dashed line, two pixels wide and black and white, where the ids change.

    Args:
        picture: uint8 RGB `[H, W, 3]`.
        ids: `[H, W]`.

    Returns:
        A new image.

    Raises:
        ShapeError: the sizes differ.

    >>> drawn = draw_outline(np.full((4, 4, 3), 99, np.uint8), np.array([[0, 0, 1, 1]] * 4))
    >>> drawn[0, :, 0].tolist()
    [99, 255, 255, 99]
    """
    if picture.shape[:2] != ids.shape:
        raise ShapeError(
            f"draw_outline: expected ids {picture.shape[:2]}, got {ids.shape}; pass those of the same frame"
        )
    y, x = np.nonzero(contours(ids))
    drawn = picture.copy()
    drawn[y, x] = np.where((x + y) // DASH % 2 == 0, 255, 20)[:, None]
    return drawn
