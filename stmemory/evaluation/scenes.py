"""A rendered clip with exact true masks: a ball and a kite on a beach that passes by.

Object 1 is the ball, object 2 the kite. A second ball that looks alike is background; a post passes in front of both.
Any frame is a function of its index and the seed alone, and nothing is kept from frame to frame, so a clip can have any
length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.evaluation.sprites import (
    Map,
    Sprite,
    beach_ball,
    colour,
    composite,
    fish_kite,
    kite_string,
    mix,
    noise,
    pan,
    post,
    smoothstep,
)

__all__ = ["render_scene"]

_HORIZON, _SHORE = 0.44, 0.60  # rows, as shares of the height
_BALL = ("d8322f", "fbf7ec", "f5b921", "fbf7ec", "2477b8", "fbf7ec")
_LOOK_ALIKE = ("f5b921", "fbf7ec", "d8322f", "fbf7ec", "2f9a6a", "fbf7ec")


def render_scene(
    frames: int = 48, *, height: int = 360, width: int = 640, seed: int = 0, first: int = 0
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Frames and their true masks, rendered one at a time.

    Args:
        frames: length of the clip; a longer clip begins with the shorter one.
        height: pixels, at least 32.
        width: pixels, at least 32.
        seed: draws the scenery and the moments of the motions.
        first: index of the first frame, to go on from there.

    Returns:
        An iterator of a frame, uint8 RGB [H, W, 3], and its ids, uint8 [H, W]: 0 = background, 1 = ball, 2 = kite.

    Raises:
        OptionError: a number is out of its range.

    >>> frame, ids = next(render_scene(1, height=64, width=96))
    >>> frame.shape, ids.shape, np.unique(ids).tolist()
    ((64, 96, 3), (64, 96), [0, 1, 2])
    """
    if min(frames, first) < 0:
        raise OptionError(f"frames, first: expected 0 or more, got {frames} and {first}")
    if min(height, width) < 32:
        raise OptionError(f"height, width: expected at least 32 pixels each, got {height} and {width}")
    return _render(range(first, first + frames), _Scenery.draw(height, width, seed))


def _render(indices: range, scenery: _Scenery) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    for index in indices:
        canvas = scenery.background(index)
        visible = np.zeros_like(canvas)  # [3, H, W]: share of each pixel that shows background, ball, kite
        visible[0] = 1
        for object_id, sprite in scenery.cast(index, canvas):
            if sprite is not None:
                window = composite(canvas, sprite)
                visible[:, *window] *= 1 - sprite.coverage
                visible[object_id, *window] += sprite.coverage
        pixels = (np.clip(canvas * scenery.vignette, 0, 1) * 255 + 0.5).astype(np.uint8)
        yield np.ascontiguousarray(pixels.transpose(1, 2, 0)), visible.argmax(axis=0).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _Scenery:
    """What a seed draws, once per clip: textures [h, period] that repeat, and the phase of each motion."""

    height: int
    width: int
    clouds: Map
    ridge: Map
    water: Map
    sand: Map
    grain: Map
    wood: Map
    vignette: Map
    phases: tuple[float, float, float]

    @classmethod
    def draw(cls, height: int, width: int, seed: int) -> _Scenery:
        """Draw all textures of a scene."""
        rng = np.random.default_rng(seed)
        period, horizon, shore = 4 * height, math.ceil(_HORIZON * height), math.ceil(_SHORE * height)
        beach = height - math.floor(_HORIZON * height)
        y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
        return cls(
            height,
            width,
            clouds=noise((horizon, period), (2, 8), octaves=6, rng=rng),
            ridge=noise((2, period), (2, 10), octaves=5, rng=rng),
            water=noise((shore - horizon + height // 8, period), (12, 36), octaves=3, rng=rng),
            sand=noise((beach, period), (6, 14), octaves=5, rng=rng),
            grain=noise((beach, period), (beach // 2, period // 3), octaves=1, rng=rng),
            wood=noise((height, 48), (3, 8), octaves=3, rng=rng),
            vignette=(1.03 - 0.16 * (y[:, None] ** 2 + x**2) ** 1.5).astype(np.float32),
            phases=(float(rng.random()), float(rng.random()), float(rng.random())),
        )

    def travelled(self, index: int) -> float:
        """Pixels that the camera has moved, at the distance where the ball rolls."""
        return 0.0075 * self.height * index

    def background(self, index: int) -> Map:
        """Sky, hills, sea and sand, float32 [3, H, W]."""
        height, width, moved = self.height, self.width, self.travelled(index)
        canvas = np.empty((3, height, width), dtype=np.float32)
        horizon = len(self.clouds)
        rows = ((np.arange(horizon, dtype=np.float32) + 0.5) / height)[:, None]

        sky = mix(colour("3f8fd2"), colour("fde6c4"), smoothstep(-0.05, _HORIZON, rows) ** 1.3)
        clouds = pan(self.clouds, np.full(horizon, 0.12 * moved + 0.15 * index), width)
        cloud_colours = mix(colour("fffdf7"), colour("e9dcd6"), clouds)
        canvas[:, :horizon] = mix(sky, cloud_colours, smoothstep(0.46, 0.78, clouds) * 0.9)
        for layer, (tint, speed, rise) in enumerate((("9db6c9", 0.16, 0.12), ("5f8a86", 0.26, 0.075))):
            ridge = pan(self.ridge[layer : layer + 1], np.array([speed * moved]), width)
            above = np.clip(height * (rows - _HORIZON + rise * (0.15 + ridge)) + 0.5, 0, 1)
            canvas[:, :horizon] = mix(canvas[:, :horizon], colour(tint), above)
        self._paint_beach(canvas, index)
        return canvas

    def _paint_beach(self, canvas: Map, index: int) -> None:
        """Sand from the lower edge up to the horizon, then water over its upper part, in place."""
        height, width, moved = self.height, self.width, self.travelled(index)
        first = height - len(self.sand)
        rows = ((np.arange(first, height, dtype=np.float32) + 0.5) / height)[:, None]
        depth = (rows - _HORIZON) / (1 - _HORIZON)  # 0 at the horizon, 1 at the lower edge
        speeds = (0.3 + 1.1 * depth[:, 0].astype(np.float64)) * moved
        dunes, grain = pan(self.sand, speeds, width), pan(self.grain, speeds, width)
        sand = mix(colour("f1dcae"), colour("c79d63"), 0.75 * dunes + 0.3 * (depth - 0.4)) * (0.94 + 0.13 * grain)

        places = np.arange(width, dtype=np.float32) / height + (0.45 * moved / height) % (20 * math.pi)
        swell = 0.006 * math.sin(index * 0.11) + 0.008 * np.sin(places * 5.1 + index * 0.05 % (2 * math.pi))
        from_shore = rows - _SHORE - swell - 0.005 * np.sin(places * 11.7)  # negative in the water
        canvas[:, first:] = mix(sand, colour("a5814f"), 0.55 * smoothstep(0.07, 0.015, from_shore))

        count = min(len(self.water), len(rows))
        sea, from_shore, drift = canvas[:, first : first + count], from_shore[:count], 0.8 * speeds[:count]
        waves = pan(self.water[:count], drift + 0.5 * index, width)
        glints = waves * pan(self.water[::-1][:count], drift * 0.9 - 0.35 * index, width)
        colours = mix(colour("1f6f9f"), colour("4fc0bd"), smoothstep(-0.14, -0.005, from_shore)) * (0.86 + 0.3 * waves)
        colours = mix(colours, colour("fff6df"), 0.8 * smoothstep(0.36, 0.52, glints))
        in_water = smoothstep(0.003, -0.003, from_shore)
        ripple = np.abs(from_shore + 0.012 * (waves - 0.5))
        foam = smoothstep(0.011, 0.003, ripple) + 0.55 * smoothstep(0.006, 0.001, np.abs(ripple - 0.028)) * in_water
        sea[:] = mix(mix(sea, colours, in_water), colour("fffdf8"), np.clip(foam, 0, 0.92))

    def cast(self, index: int, canvas: Map) -> Iterator[tuple[int, Sprite | None]]:
        """Who is in the scene, from back to front, with the id that shows; casts their shadows on the canvas."""
        height, width, size = self.height, self.width, (self.height, self.width)
        moved = self.travelled(index)
        tau = 2 * math.pi

        sway = math.sin(tau * (index / 97 + self.phases[0]))
        mouth = (
            height * (0.21 + 0.035 * math.sin(tau * (index / 61 + self.phases[1]))),
            width * (0.50 + 0.04 * sway),
        )
        yield 0, kite_string(mouth, canvas_size=size)
        kite_tilt = 0.10 + 0.09 * math.sin(tau * (index / 53 + self.phases[2]))
        yield 2, fish_kite(mouth, 0.62 * height, wave=tau * index / 19, tilt=kite_tilt, canvas_size=size)

        far_radius = 0.088 * height
        lap = width + 4 * far_radius
        far_x = (width * 0.80 - 0.011 * height * index) % lap - 2 * far_radius
        far_ground = 0.70 * height
        far_turn = (-0.011 * height * index + 0.75 * moved) / far_radius % tau
        _shadow(canvas, (far_ground, far_x), far_radius, 0.0)
        far = (far_ground - 0.95 * far_radius, far_x)
        yield 0, beach_ball(far, far_radius, turn=far_turn, squash=0, panels=_LOOK_ALIKE, canvas_size=size)

        radius, ground = 0.135 * height, 0.90 * height
        ball_x = width * (0.40 - 0.20 * math.cos(tau * index / 100))
        bounce = abs(math.sin(math.pi * (index / 31 + 0.2)))
        rise = 0.25 * height * bounce
        squash = 0.16 * math.exp(-((bounce / 0.16) ** 2))
        turn = ((ball_x + moved) / radius) % tau
        _shadow(canvas, (ground, ball_x), radius, rise)
        centre = (ground - 0.97 * radius * (1 - squash) - rise, ball_x)
        yield 1, beach_ball(centre, radius, turn=turn, squash=squash, panels=_BALL, canvas_size=size)

        post_width = 0.15 * height
        spacing = 2.2 * width + 4 * post_width
        post_x = (0.88 * width + 2 * post_width - 2.6 * moved) % spacing - 2 * post_width
        _shadow(canvas, (0.985 * height, post_x + post_width / 2), 0.7 * post_width, 0.0)
        yield 0, post(post_x, post_width, foot=0.975 * height, grain=self.wood, canvas_size=size)


def _shadow(canvas: Map, foot: tuple[float, float], radius: float, rise: float) -> None:
    """Darken the ground under a thing, in place; the higher it is, the wider, paler and farther off its shadow."""
    height, width = canvas.shape[1:]
    spread = radius * (1.05 + 0.9 * rise / height)
    y, x = foot[0], foot[1] + 0.35 * radius + 0.5 * rise
    top, bottom = max(int(y - spread), 0), min(int(y + spread) + 1, height)
    left, right = max(int(x - 3 * spread), 0), min(int(x + 3 * spread) + 1, width)
    if bottom <= top or right <= left:
        return
    down = (np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5 - y) / (0.27 * spread)
    across = (np.arange(left, right, dtype=np.float32)[None, :] + 0.5 - x) / spread
    strength = 0.58 / (1 + 5 * rise / height)
    shade = strength * np.exp(-((across**2 + down**2) ** 1.4) * 0.8)
    ground = canvas[:, top:bottom, left:right]
    ground[:] = mix(ground, colour("4a3a3c"), shade)
