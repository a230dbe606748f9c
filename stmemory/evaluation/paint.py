"""Paint for rendered scenes: noise, panning textures, antialiased sprites and their compositing.

Owns pixels and nothing of what they show. All colours are float32 RGB in [0, 1], channel first, so that arithmetic runs
along whole rows; y grows downwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Map", "Sprite", "colour", "composite", "draw_sprite", "mix", "noise", "pan", "smoothstep"]

Map = NDArray[np.floating[Any]]
# Both take y and x in pixels, arrays of two dimensions: which points are inside, and the colours [3, ...] of those that
# are.
Outline = Callable[[Map, Map], NDArray[np.bool_]]
Paint = Callable[[Map, Map], Map]
_SAMPLES = 3


@dataclass(frozen=True, eq=False)
class Sprite:
    """A painted patch of the canvas.

    Attributes:
        top: first canvas row of the patch.
        left: first canvas column of the patch.
        colours: float32 [3, h, w], black where nothing is covered.
        coverage: float32 [h, w] in [0, 1], share of each pixel that the shape covers.
    """

    top: int
    left: int
    colours: Map
    coverage: Map


def colour(code: str) -> Map:
    """Colour [3, 1, 1] of a hexadecimal code.

    >>> colour("ff0000").ravel().tolist()
    [1.0, 0.0, 0.0]
    """
    return np.frombuffer(bytes.fromhex(code), dtype=np.uint8).astype(np.float32).reshape(3, 1, 1) / 255


def smoothstep(low: float, high: float, values: Map) -> Map:
    """0 below `low`, 1 above `high`, smooth between; `low` may be the larger one, to fall.

    >>> smoothstep(0.0, 2.0, np.array([-1.0, 1.0, 5.0], dtype=np.float32)).tolist()
    [0.0, 0.5, 1.0]
    """
    share = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    smooth: Map = (share * share * (3 - 2 * share)).astype(np.float32)
    return smooth


def mix(first: Map, second: Map, share: Map | float) -> Map:
    """Colours between two, [3, h, w] or one for all, by the share [h, w] of the second.

    >>> mix(colour("000000"), colour("ffffff"), 0.25).ravel().tolist()
    [0.25, 0.25, 0.25]
    """
    mixed: Map = first + (second - first) * share
    return mixed


def noise(shape: tuple[int, int], cells: tuple[int, int], *, octaves: int, rng: np.random.Generator) -> Map:
    """Fractal value noise in [0, 1] that repeats in both directions without a seam.

    Args:
        shape: height and width in pixels.
        cells: lattice cells down and across, doubled with each octave.
        octaves: layers, each half as strong as the one before.
        rng: draws the lattice.

    >>> noise((4, 8), (1, 2), octaves=2, rng=np.random.default_rng(0)).shape
    (4, 8)
    """
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        rows, columns = cells[0] << octave, cells[1] << octave
        lattice = rng.random((rows, columns), dtype=np.float32)
        across = _upsample(lattice, shape[1])
        total += _upsample(across.T, shape[0]).T / 2**octave
    low, high = total.min(), total.max()
    return total if high <= low else (total - low) / (high - low)


def _upsample(lattice: Map, length: int) -> Map:
    """The last axis [..., n] to [..., length], smoothly and round the seam."""
    count = lattice.shape[-1]
    places = np.arange(length, dtype=np.float32) * (count / length)
    before = places.astype(np.int64)
    share = smoothstep(0, 1, places - before.astype(np.float32))
    upsampled: Map = lattice[..., before] * (1 - share) + lattice[..., (before + 1) % count] * share
    return upsampled


def pan(texture: Map, shifts: NDArray[np.float64], width: int) -> Map:
    """A window [h, width] of a texture [h, period] that repeats, each row moved by its own number of pixels.

    Args:
        texture: float32 [h, period].
        shifts: float64 [h], pixels, not necessarily whole.
        width: columns of the window.

    >>> pan(np.float32([[0, 1, 2, 3]]), np.array([2.5]), 2).tolist()
    [[2.5, 1.5]]
    """
    period = texture.shape[1]
    whole = np.floor(shifts)
    share = (shifts - whole).astype(np.float32)[:, None]
    columns = (whole.astype(np.int64)[:, None] + np.arange(width)) % period
    columns += np.arange(texture.shape[0])[:, None] * period
    after = np.where((columns + 1) % period == 0, columns + 1 - period, columns + 1)
    flat = texture.ravel()
    window: Map = flat[columns] * (1 - share) + flat[after] * share
    return window


def draw_sprite(
    outline: Outline, paint: Paint, box: tuple[float, float, float, float], canvas_size: tuple[int, int]
) -> Sprite | None:
    """Paint a shape into the part of a box that lies on the canvas, nine samples a pixel.

    Args:
        outline: which points are inside.
        paint: colours of the points that are.
        box: top, left, bottom, right in pixels; must hold the whole shape.
        canvas_size: height and width of the canvas.

    Returns:
        The sprite; None when nothing of the box is on the canvas.

    >>> sprite = draw_sprite(lambda y, x: x < 0.5, lambda y, x: colour("ffffff"), (0, 0, 1, 1), (1, 1))
    >>> round(float(sprite.coverage[0, 0]), 2)
    0.33
    """
    top, left = max(math.floor(box[0]), 0), max(math.floor(box[1]), 0)
    bottom, right = min(math.ceil(box[2]), canvas_size[0]), min(math.ceil(box[3]), canvas_size[1])
    if bottom <= top or right <= left:
        return None
    y = top + (np.arange((bottom - top) * _SAMPLES, dtype=np.float32)[:, None] + 0.5) / _SAMPLES
    x = left + (np.arange((right - left) * _SAMPLES, dtype=np.float32)[None, :] + 0.5) / _SAMPLES
    inside = np.broadcast_to(outline(y, x), (y.shape[0], x.shape[1]))
    rows, columns = np.nonzero(inside)
    colours = np.zeros((3, *inside.shape), dtype=np.float32)
    colours[:, rows, columns] = paint(y[rows].reshape(1, -1), x[:, columns])[:, 0]
    count = _sum_samples(inside.astype(np.float32))
    return Sprite(top, left, _sum_samples(colours) / np.maximum(count, 1), count / _SAMPLES**2)


def _sum_samples(values: Map) -> Map:
    """Sums over the samples of each pixel, [..., h, w]; slices add up faster than a reduction over short axes."""
    rows = values[..., 0::_SAMPLES, :].copy()
    for sample in range(1, _SAMPLES):
        rows += values[..., sample::_SAMPLES, :]
    total = rows[..., 0::_SAMPLES].copy()
    for sample in range(1, _SAMPLES):
        total += rows[..., sample::_SAMPLES]
    return total


def composite(canvas: Map, sprite: Sprite) -> tuple[slice, slice]:
    """Lay a sprite over the canvas [3, H, W], in place.

    Returns:
        The rows and columns touched.

    >>> canvas = np.zeros((3, 2, 2), dtype=np.float32)
    >>> composite(canvas, Sprite(1, 0, np.ones((3, 1, 1), np.float32), np.full((1, 1), 0.5, np.float32)))
    (slice(1, 2, None), slice(0, 1, None))
    >>> canvas[:, 1, 0].tolist()
    [0.5, 0.5, 0.5]
    """
    height, width = sprite.coverage.shape
    window = slice(sprite.top, sprite.top + height), slice(sprite.left, sprite.left + width)
    canvas[:, *window] = mix(canvas[:, *window], sprite.colours, sprite.coverage)
    return window
