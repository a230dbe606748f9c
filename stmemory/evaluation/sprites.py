"""The things in a rendered scene: a beach ball, a fish-shaped kite, its string, a post.

Owns their shape, colours and shading at one moment. Where they are, and when, is the scene's.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stmemory.evaluation.paint import Map, Sprite, colour, draw_sprite, mix, smoothstep

__all__ = ["beach_ball", "fish_kite", "kite_string", "post"]

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
