"""Sprites for rendered clips: textures, shadows, and bodies that move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Map",
    "Sprite",
    "beach_ball",
    "colour",
    "composite",
    "draw_sprite",
    "fish_kite",
    "kite_string",
    "mix",
    "noise",
    "pan",
    "post",
    "smoothstep",
]

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


_LIGHT = (-0.45, -0.72, 0.53)  # x, y, towards the viewer
_TILT = 0.95  # radians between the line of sight and the ball's pole


def beach_ball(
    centre: tuple[float, float],
    radius: float,
    *,
    turn: float,
    squash: float,
    panels: tuple[str, ...],
    canvas_size: tuple[int, int],
) -> Sprite | None:
    """A shaded ball with coloured panels.

    Args:
        centre: y and x in pixels.
        radius: pixels.
        turn: radians rolled, clockwise.
        squash: share of its height that it loses on the ground, in [0, 1).
        panels: colours around the pole.
        canvas_size: height and width of the canvas.

    Returns:
        The sprite; None when it is off the canvas.

    >>> ball = beach_ball((9, 9), 6, turn=0, squash=0, panels=("d03030", "ffffff"), canvas_size=(18, 18))
    >>> round(float(ball.coverage.sum()) / (36 * math.pi), 1)
    1.0
    """
    palette = np.concatenate([colour(code)[:, 0] for code in panels], axis=1)  # [3, panels]
    half_height, half_width = radius * (1 - squash), radius * (1 + 0.5 * squash)

    def outline(y: Map, x: Map) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = ((x - centre[1]) / half_width) ** 2 + ((y - centre[0]) / half_height) ** 2 <= 1
        return inside

    def paint(y: Map, x: Map) -> Map:
        across, down = (x - centre[1]) / half_width, (y - centre[0]) / half_height
        towards = np.sqrt(np.maximum(1 - across * across - down * down, 0))
        turned_x = across * math.cos(turn) + down * math.sin(turn)
        turned_y = down * math.cos(turn) - across * math.sin(turn)
        pole = towards * math.cos(_TILT) - turned_y * math.sin(_TILT)
        around = towards * math.sin(_TILT) + turned_y * math.cos(_TILT)
        place = (np.arctan2(around, turned_x) / (2 * math.pi) + 0.5) * len(panels)
        colours: Map = palette[:, np.minimum(place.astype(np.int64), len(panels) - 1)]
        colours = np.where(pole > 0.965, colour("fdfaf2"), colours)
        # Darker along the seams, as if the panels were blown up a little.
        seam = np.abs(place % 1 - 0.5) * 2
        lit = across * _LIGHT[0] + down * _LIGHT[1] + towards * _LIGHT[2]
        colours = colours * (0.44 + 0.66 * np.clip(lit, 0, 1) - 0.14 * smoothstep(0.86, 1.0, seam))
        colours = mix(colours, colour("f2cf8f"), np.clip(down, 0, 1) * (1 - np.clip(lit, 0, 1)) * 0.22)
        shine = np.clip(2 * lit * towards - _LIGHT[2], 0, 1) ** 26 * 0.75
        return np.clip(mix(colours, colour("ffffff"), shine), 0, 1)

    box = (centre[0] - half_height, centre[1] - half_width, centre[0] + half_height, centre[1] + half_width)
    return draw_sprite(outline, paint, box, canvas_size)


def fish_kite(
    mouth: tuple[float, float], length: float, *, wave: float, tilt: float, canvas_size: tuple[int, int]
) -> Sprite | None:
    """A striped fish of cloth that swims in the wind, head to the left.

    Args:
        mouth: y and x of its mouth in pixels.
        length: pixels from mouth to tail.
        wave: phase in radians of the wave that runs down the body.
        tilt: radians, tail down when positive.
        canvas_size: height and width of the canvas.

    Returns:
        The sprite; None when it is off the canvas.

    >>> fish = fish_kite((20, 5), 40, wave=0, tilt=0, canvas_size=(40, 60))
    >>> bool(fish.coverage.max() == 1)
    True
    """
    orange, crimson, cream = colour("f4812a"), colour("c9252d"), colour("fff3dc")

    def on_spine(y: Map, x: Map) -> tuple[Map, Map, Map]:
        """Place along the spine (0 mouth, 1 tail), signed distance from it in lengths, phase of the wave there."""
        right, down = (x - mouth[1]) / length, (y - mouth[0]) / length
        along = right * math.cos(tilt) + down * math.sin(tilt)
        off = down * math.cos(tilt) - right * math.sin(tilt)
        swing, bend = 0.02 + 0.13 * along, 7.2 * along - wave
        sine, cosine = np.sin(bend), np.cos(bend)
        slope = np.sqrt(1 + (swing * 7.2 * cosine + 0.13 * sine) ** 2)
        return along, (off - swing * sine) / slope, bend

    def half_widths(along: Map) -> tuple[Map, Map]:
        """Half width of the body alone, and of body and tail."""
        arch = np.sin(np.pi * np.clip((along + 0.035) / 0.86, 0, 1) ** 0.66)
        body: Map = 0.128 * np.maximum(arch, 0) ** 0.8
        tail = np.where(along > 0.7, 0.022 + 0.95 * np.clip(along - 0.74, 0, 1) ** 1.15, 0)
        return body, np.maximum(body, tail)

    def outline(y: Map, x: Map) -> NDArray[np.bool_]:
        along, side, _ = on_spine(y, x)
        notch = 0.62 * np.clip(along - 0.86, 0, 1)
        fin = 0.075 * smoothstep(0.24, 0.42, along) * smoothstep(0.62, 0.55, along)
        width = half_widths(along)[1]
        cloth = (side < width) & (side > -width - fin) & (np.abs(side) >= notch)
        inside: NDArray[np.bool_] = (along >= 0) & (along <= 1) & cloth
        return inside

    def paint(y: Map, x: Map) -> Map:
        along, side, bend = on_spine(y, x)
        body, width = half_widths(along)
        is_body, is_cloth = (along > 0.23) & (along < 0.7), (along > 0.74) | (-side > body)
        colours = mix(orange, cream, smoothstep(-0.12, 0.12, np.sin(along * 31 + 6 * np.abs(side))) * (along > 0.23))
        colours = mix(colours, crimson, smoothstep(0.68, 0.8, along))
        colours = mix(colours, crimson, smoothstep(0.0, 0.008, -side - body) * (along < 0.7))
        streaks = 0.08 + 0.08 * np.sin(side / np.maximum(width, 1e-3) * 16)
        row = np.floor(along * 34)
        scales = np.hypot(along * 34 - row - 0.1, (side * 34 + 0.5 * (row % 2)) % 1 - 0.5)
        colours = colours * (1 - streaks * is_cloth - 0.13 * smoothstep(0.4, 0.75, scales) * is_body)
        gill = np.abs(np.hypot(along - 0.13, side) - 0.085) < 0.006
        colours = np.where(gill & (along > 0.15) & (side < 0.06), crimson, colours)
        eye = np.hypot(along - 0.105, side + 0.028)
        colours = np.where(eye < 0.018, colour("1f2430"), np.where(eye < 0.031, cream, colours))
        # Round like a wind-sock, and each fold of the wave catches the light.
        roundness = np.clip(side / np.maximum(width, 1e-3), -1, 1)
        light = 0.98 - 0.24 * roundness - 0.14 * roundness**2 + 0.14 * np.cos(bend + 0.6)
        lit: Map = np.clip(colours * light, 0, 1)
        return lit

    reach = 0.46 * length + abs(math.sin(tilt)) * length
    box = (mouth[0] - reach, mouth[1] - 0.12 * length, mouth[0] + reach, mouth[1] + 1.12 * length)
    return draw_sprite(outline, paint, box, canvas_size)


def kite_string(mouth: tuple[float, float], *, canvas_size: tuple[int, int]) -> Sprite | None:
    """The kite's string, hanging from its mouth, y and x in pixels, to the left edge.

    >>> kite_string((8, -3), canvas_size=(40, 40)) is None
    True
    """
    height = canvas_size[0]

    def outline(y: Map, x: Map) -> NDArray[np.bool_]:
        share = 1 - x / mouth[1]
        line = mouth[0] + height * (0.30 * share + 0.10 * np.sin(np.pi * share))
        inside: NDArray[np.bool_] = (np.abs(y - line) < 0.0022 * height) & (share > 0)
        return inside

    box = (mouth[0] - 2, 0.0, mouth[0] + 0.45 * height, mouth[1])
    return draw_sprite(outline, lambda y, x: colour("f6efe0"), box, canvas_size)


def post(left: float, width: float, *, foot: float, grain: Map, canvas_size: tuple[int, int]) -> Sprite | None:
    """A round wooden post with a painted band, from above the frame down to its foot.

    Args:
        left: its left edge in pixels.
        width: pixels.
        foot: row where it stands.
        grain: noise [h, w] in [0, 1] for the wood.
        canvas_size: height and width of the canvas.

    Returns:
        The sprite; None when it is off the canvas.

    >>> post(50, 4, foot=9, grain=np.zeros((4, 4), dtype=np.float32), canvas_size=(10, 20)) is None
    True
    """

    def outline(y: Map, x: Map) -> NDArray[np.bool_]:
        across = (x - left) / width * 2 - 1
        inside: NDArray[np.bool_] = (np.abs(across) <= 1) & (y <= foot + 0.12 * width * (1 - across**2))
        return inside

    def paint(y: Map, x: Map) -> Map:
        height, share = y / canvas_size[0], (x - left) / width
        rows = (height * (grain.shape[0] - 1)).astype(np.int64) % grain.shape[0]
        wood = grain[rows, (share * (grain.shape[1] - 1)).astype(np.int64) % grain.shape[1]]
        colours = mix(colour("6b4a30"), colour("b98a5c"), wood)
        band = smoothstep(0.30, 0.304, height) * smoothstep(0.46, 0.456, height)
        stripes = np.where((height - 0.30) / 0.16 * 4 % 2 < 1, colour("2c6e8f"), colour("f4f1e6"))
        colours = mix(colours, stripes * (0.9 + 0.1 * wood), 0.9 * band)
        light = 0.42 + 0.72 * np.sqrt(np.clip(1 - (2 * share - 0.65) ** 2 / 1.85, 0, 1))
        lit: Map = np.clip(colours * light, 0, 1)
        return lit

    return draw_sprite(outline, paint, (0.0, left, foot + 0.2 * width, left + width), canvas_size)
