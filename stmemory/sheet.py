"""A contact sheet: pictures with captions in a grid, under a title. Owns its looks; knows no clips, scores or files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stmemory.errors import OptionError, ShapeError
from stmemory.result import contours

__all__ = ["Tile", "contact_sheet", "draw_outline"]

Picture = NDArray[np.uint8]  # [H, W, 3] RGB

PAPER, INK, FAINT = (250, 248, 243), (38, 40, 46), (122, 124, 130)
MARGIN, GAP, CAPTION = 36, 18, 30  # px
DASH = 5  # px


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a sheet.

    Attributes:
        picture: uint8 RGB `[H, W, 3]`.
        caption: what stands under it, at the left.
        figure: what stands under it, at the right.
    """

    picture: Picture
    caption: str
    figure: str = ""


def contact_sheet(
    tiles: Sequence[Tile], *, title: str, notes: Sequence[str] = (), columns: int = 4, tile_width: int = 400
) -> Image.Image:
    """Lay out pictures in a grid.

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

    >>> contact_sheet([Tile(np.zeros((9, 16, 3), np.uint8), "frame 0")] * 5, title="five", columns=3, tile_width=160).size
    (588, 392)
    """
    if not tiles or columns < 1 or tile_width < 1:
        came = f"{len(tiles)}, {columns}, {tile_width}"
        raise OptionError(
            f"contact_sheet: expected one tile, column and px or more, got {came}; pass something to show"
        )
    columns = min(columns, len(tiles))
    tile_height = round(tile_width * tiles[0].picture.shape[0] / tiles[0].picture.shape[1])
    rows = -(-len(tiles) // columns)
    header = MARGIN + 44 + 26 * len(notes) + GAP
    size = (
        2 * MARGIN + columns * tile_width + (columns - 1) * GAP,
        header + rows * (tile_height + CAPTION + GAP) - GAP + MARGIN,
    )
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, INK, font=ImageFont.load_default(30))
    small = ImageFont.load_default(17)
    for line, note in enumerate(notes):
        pen.text((MARGIN, MARGIN + 46 + 26 * line), note, FAINT, font=small)
    mask = Image.new("L", (tile_width, tile_height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, tile_width - 1, tile_height - 1), 8, 255)
    for place, tile in enumerate(tiles):
        x = MARGIN + place % columns * (tile_width + GAP)
        y = header + place // columns * (tile_height + CAPTION + GAP)
        picture = Image.fromarray(tile.picture).resize((tile_width, tile_height), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x, y), mask)
        pen.text((x + 2, y + tile_height + 6), tile.caption, INK, font=small)
        pen.text((x + tile_width - 2, y + tile_height + 6), tile.figure, FAINT, font=small, anchor="ra")
    return sheet


def draw_outline(picture: Picture, ids: NDArray[np.integer]) -> Picture:
    """Draw a dashed line, two pixels wide and black and white, where the ids change.

    Args:
        picture: uint8 RGB `[H, W, 3]`.
        ids: `[H, W]`.

    Returns:
        A new picture.

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
