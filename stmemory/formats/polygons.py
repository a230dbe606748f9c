"""Polygons of masks and masks of polygons, exactly: corners lie between pixels, and a pixel is inside where its centre
is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import MaskError

__all__ = ["draw_polygon", "is_hole", "joined_rings", "polygon_points", "rings_of"]

Points = NDArray[np.float64]  # [n, 2], x and y in px
MOST_CORNERS = 100_000  # of one polygon in a file


def rings_of(mask: NDArray[np.bool_]) -> list[Points]:
    """The outlines of a mask's regions and of the holes in them.

    Args:
        mask: `[H, W]`.

    Returns:
        Closed rings of corners `[n, 2]`, x and y in px from the top left, without the first corner again at the end.
        The inside is on the right of the way: regions go clockwise as they are seen, holes the other way round. Pixels
        that touch at a corner alone are of two regions.

    >>> [ring.tolist() for ring in rings_of(np.array([[False, True]]))]
    [[[1.0, 0.0], [2.0, 0.0], [2.0, 1.0], [1.0, 1.0]]]
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), np.bool_)
    padded[1:-1, 1:-1] = mask
    here, above, left = padded[1:, 1:], padded[:-1, 1:], padded[1:, :-1]
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}  # from each corner the steps that leave it
    for edges, start, step in (
        (here & ~above, (0, 0), (1, 0)),  # a top side goes right
        (~here & above, (1, 0), (-1, 0)),  # a bottom side goes left
        (~here & left, (0, 0), (0, 1)),  # a right side goes down
        (here & ~left, (0, 1), (0, -1)),  # a left side goes up
    ):
        for y, x in np.argwhere(edges).tolist():
            after.setdefault((x + start[0], y + start[1]), []).append(step)
    rings = []
    for begin in list(after):
        while after.get(begin):
            rings.append(_walk(after, begin))
    return rings


def is_hole(ring: Points) -> bool:
    """Whether a ring of `rings_of` goes round a hole.

    Args:
        ring: `[n, 2]`.

    >>> [is_hole(ring) for ring in rings_of(np.array([[True] * 3, [True, False, True], [True] * 3]))]
    [False, True]
    """
    x, y = ring[:, 0], ring[:, 1]
    return bool((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() < 0)


def joined_rings(rings: Sequence[Points]) -> Points:
    """One ring of several, for formats that have one polygon an object: lines of no width lead from one to the next and
    back.

    Args:
        rings: one or more, as `rings_of` gives them.

    >>> squares = [np.array([[x, 0], [x + 1, 0], [x + 1, 1], [x, 1]], np.float64) for x in (0, 4)]
    >>> len(joined_rings(squares))
    10
    """
    joined = [np.concatenate([ring, ring[:1]]) for ring in rings[1:]]
    back = [ring[:1] for ring in rings[-2:0:-1]]
    return np.concatenate([rings[0], rings[0][:1], *joined, *back]) if joined else rings[0]


def draw_polygon(mask: NDArray[np.bool_], points: Points) -> None:
    """Fill a polygon, over what is there. Where it runs over itself, an even number of times is outside.

    Args:
        mask: `[H, W]`, which is changed. What lies outside of it is left out.
        points: `[n, 2]`, x and y in px.

    >>> mask = np.zeros((2, 3), np.bool_)
    >>> draw_polygon(mask, np.array([[1, 0], [3, 0], [3, 1], [1, 1]], np.float64))
    >>> mask.astype(int).tolist()
    [[0, 1, 1], [0, 0, 0]]
    """
    height, width = mask.shape
    flips = np.zeros((height, width + 1), np.bool_)
    for (x0, y0), (x1, y1) in zip(points.tolist(), np.roll(points, -1, axis=0).tolist(), strict=True):
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        first, last = max(0, math.ceil(y0 - 0.5)), min(height, math.ceil(y1 - 0.5))  # rows whose centres it crosses
        if first >= last:
            continue
        rows = np.arange(first, last)
        crossing = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        flips[rows, np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)] ^= True
    mask |= np.logical_xor.accumulate(flips, axis=1)[:, :width]


def polygon_points(values: object, *, name: str) -> Points:
    """The corners of a polygon that stands in a file as a flat list of x and y.

    Args:
        values: numbers.
        name: of the frame, for the message.

    Returns:
        `[n, 2]`.

    Raises:
        MaskError: it is no list of at least three corners, or a number is not finite.

    >>> polygon_points([0, 0, 4, 0, 4, 2], name="00000").shape
    (3, 2)
    """
    numbers = values if isinstance(values, list) else []
    if (
        not 6 <= len(numbers) <= 2 * MOST_CORNERS
        or len(numbers) % 2
        or not all(isinstance(n, (int, float)) and abs(n) < 1e9 for n in numbers)
    ):
        raise MaskError(
            f"{name}: expected a polygon of three corners or more, as finite numbers x, y, x, y, ..., got another "
            "value; the file is damaged"
        )
    return np.array(numbers, np.float64).reshape(-1, 2)


def _walk(after: dict[tuple[int, int], list[tuple[int, int]]], begin: tuple[int, int]) -> Points:
    """Follow one ring, and take its steps away."""
    corners, place, way = list[tuple[int, int]](), begin, (0, 0)
    while True:
        steps, right = after[place], (-way[1], way[0])
        # where two ways lead on, the right turn keeps regions apart that touch at a corner alone
        if corners and place == begin and right not in steps:
            break
        step = right if right in steps else steps[0]
        steps.remove(step)
        if step != way:
            corners.append(place)
        place, way = (place[0] + step[0], place[1] + step[1]), step
    if _straight(corners[-1], corners[0], corners[1]):
        corners = corners[1:]
    return np.array(corners, np.float64)


def _straight(before: tuple[int, int], corner: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether no turn is made at a corner."""
    return (corner[0] - before[0]) * (after[1] - corner[1]) == (corner[1] - before[1]) * (after[0] - corner[0])
