"""Motion: smooth random walks of a layer over the T frames of a clip. Draws nothing and knows no pictures.

Places are in frame sides: (0, 0) is the top left corner of the frame, (1, 1) the bottom right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

__all__ = ["Motion", "come_in", "dense_field", "draw_back", "out_and_back", "pass_over", "random_motion", "walk"]

_GRID = 4  # cells of the elastic field along one side
_MARGIN = 0.3  # how far outside of the frame a centre may wander, in frame sides
_LONG = 12  # moments from which on a walk is pulled back, so that nothing turns, grows or goes away without end
_PULL = 0.06  # of the way home, each moment


@dataclass(frozen=True, eq=False)
class Motion:
    """Where a layer is in each of T frames.

    Attributes:
        centre: float32 [T, 2], x and y in frame sides.
        angle: float32 [T], radians.
        log_scale: float32 [T], natural logarithm of the factor on the layer's size.
        shear: float32 [T].
        elastic: float32 [T, 2, 4, 4], displacement on a grid over the layer, in half-sizes of the layer.
    """

    centre: Tensor
    angle: Tensor
    log_scale: Tensor
    shear: Tensor
    elastic: Tensor

    def matrix(self) -> Tensor:
        """Rotation x shear x scale: float32 [T, 2, 2], from the layer's axes to the frame's."""
        cos, sin, scale = self.angle.cos(), self.angle.sin(), self.log_scale.exp()
        first = torch.stack([cos * scale, (cos * self.shear - sin) * scale], dim=-1)
        second = torch.stack([sin * scale, (sin * self.shear + cos) * scale], dim=-1)
        return torch.stack([first, second], dim=-2)

    def moved(self, shift: Tensor) -> Motion:
        """The same motion with its centre moved by float32 [T, 2] or [2]."""
        return replace(self, centre=self.centre + shift)

    def every(self, gap: int) -> Motion:
        """Every `gap`-th moment: what a camera sees that takes fewer frames."""
        return Motion(
            self.centre[::gap], self.angle[::gap], self.log_scale[::gap], self.shear[::gap], self.elastic[::gap]
        )

    def held(self, most: float) -> Motion:
        """The same motion, but never further from the middle of the frame than `most`, in frame sides."""
        return replace(self, centre=0.5 + most * torch.tanh((self.centre - 0.5) / most))

    def kept_near(self) -> Motion:
        """The same motion with its path mirrored at a margin around the frame, so that the layer never leaves for
        good."""
        return replace(self, centre=_folded(self.centre))

    def within_exposure(self, *, steps: int, shutter: float) -> Motion:
        """T x steps moments: `steps` around each frame, spread over `shutter` frame intervals (motion blur)."""
        frames = self.angle.shape[0]
        offsets = (torch.arange(steps) / max(1, steps - 1) - 0.5) * shutter
        times = (torch.arange(frames)[:, None] + offsets).clamp(0, frames - 1).flatten()
        before = times.long().clamp(max=max(0, frames - 2))
        after, part = (before + 1).clamp(max=frames - 1), times - before

        def at(values: Tensor) -> Tensor:
            weight = part.view(-1, *[1] * (values.dim() - 1))
            return values[before] * (1 - weight) + values[after] * weight

        return Motion(at(self.centre), at(self.angle), at(self.log_scale), at(self.shear), at(self.elastic))


def walk(rng: Generator, frames: int, channels: int) -> Tensor:
    """Positions of a random walk with momentum: float32 [T, channels], 0 at frame 0, steps of about unit size.

    The momentum itself is drawn, so that some walks are nearly straight and others jittery. A walk of more than 12
    frames is pulled back to where it began.

    Example:
        >>> walk(np.random.default_rng(0), 5, 2).shape
        torch.Size([5, 2])
    """
    momentum = rng.uniform(0.4, 0.97)
    kicks = rng.standard_normal((frames, channels))
    steps = np.empty_like(kicks)
    steps[0] = kicks[0]
    for time in range(1, frames):
        steps[time] = momentum * steps[time - 1] + math.sqrt(1 - momentum**2) * kicks[time]
    if frames <= _LONG:
        return torch.from_numpy((steps.cumsum(0) - steps[0]).astype(np.float32))
    steps[0] = 0
    for time in range(1, frames):
        steps[time] += (1 - _PULL) * steps[time - 1]
    return torch.from_numpy(steps.astype(np.float32))


def random_motion(rng: Generator, frames: int, *, centre: tuple[float, float], speed: float, elastic: float) -> Motion:
    """A smooth motion: translation, rotation, log-scale, shear and an elastic field, part fixed and part drifting.

    Args:
        rng: the only source of chance.
        frames: T.
        centre: x and y at frame 0, in frame sides.
        speed: 1 moves about a fiftieth of the frame's side per frame.
        elastic: typical displacement of the elastic field, in half-sizes of the layer.

    Example:
        >>> random_motion(np.random.default_rng(0), 3, centre=(0.5, 0.5), speed=1.0, elastic=0.1).angle.shape
        torch.Size([3])
    """
    turning = math.sqrt(speed) * rng.choice([0.3, 1.0, 1.5])
    path = _folded(walk(rng, frames, 2) * (0.022 * speed) + torch.tensor(centre, dtype=torch.float32))
    drift = walk(rng, frames, 2 * _GRID * _GRID).view(frames, 2, _GRID, _GRID)
    fixed = torch.from_numpy(rng.standard_normal((2, _GRID, _GRID)).astype(np.float32))
    field = fixed * (elastic * rng.uniform(0, 1)) + drift.clamp(-3, 3) * (elastic * 0.3 * min(1.5, math.sqrt(speed)))
    return Motion(
        centre=path,
        angle=walk(rng, frames, 1)[:, 0] * (0.04 * turning),
        log_scale=torch.tanh(walk(rng, frames, 1)[:, 0] * (0.03 * turning)),
        shear=torch.tanh(walk(rng, frames, 1)[:, 0] * (0.04 * turning)) * 0.4,
        elastic=field.clamp(-0.35, 0.35),
    )


def out_and_back(
    frames: int, *, start: tuple[float, float], reach: float, window: tuple[int, int] | None = None
) -> Tensor:
    """A shift float32 [T, 2] that leads over the nearest side of the frame and back again.

    Args:
        frames: T.
        start: x and y of the layer when it sets out, in frame sides.
        reach: half the layer's largest extent, in frame sides: how far beyond the side it must go to be unseen.
        window: when it sets out and when it is back, frames; None is the whole clip.

    Example:
        >>> shift = out_and_back(5, start=(0.9, 0.5), reach=0.2)
        >>> [round(x, 2) for x in shift[:, 0].tolist()]
        [0.0, 0.2, 0.4, 0.2, 0.0]
    """
    x, y = start
    to_side = {(-1, 0): x, (1, 0): 1 - x, (0, -1): y, (0, 1): 1 - y}
    direction = min(to_side, key=lambda side: to_side[side])
    distance = max(0.0, to_side[direction]) + 1.5 * reach
    there = (1 - _in_window(frames, window).abs()).clamp(0, 1) * distance
    return there[:, None] * torch.tensor(direction, dtype=torch.float32)


def pass_over(rng: Generator, target: Tensor, *, reach: float, window: tuple[int, int] | None = None) -> Tensor:
    """Centres float32 [T, 2] of an occluder that comes from aside, covers the target and leaves again.

    Args:
        rng: the only source of chance.
        target: float32 [T, 2], centres of what is to be covered, in frame sides.
        reach: distance of the two centres from which they no longer overlap, in frame sides.
        window: first and last frame in which they overlap; None is the whole clip.

    Example:
        >>> centres = pass_over(np.random.default_rng(0), torch.zeros(3, 2), reach=0.5)
        >>> [round(d, 2) for d in centres.norm(dim=1).tolist()]
        [0.5, 0.0, 0.5]
    """
    angle = rng.uniform(0, 2 * math.pi)
    direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float32)
    times = _in_window(target.shape[0], window)
    # slow near the middle, so that it covers for a while; fast outside of the window, so that it soon is out of the
    # frame
    return target + (times * times.abs() * reach).clamp(-3, 3)[:, None] * direction


def come_in(rng: Generator, frames: int, *, start: tuple[float, float], half: float) -> Tensor:
    """A shift float32 [T, 2] that puts a layer half over the nearest side of the frame at first, and leads it in.

    Args:
        rng: the only source of chance.
        frames: T.
        start: x and y of the layer in frame 0 without the shift, in frame sides.
        half: half its extent, in frame sides.

    Example:
        >>> come_in(np.random.default_rng(0), 5, start=(0.9, 0.5), half=0.2)[-1].tolist()
        [0.0, 0.0]
    """
    x, y = start
    to_side = {(-1, 0): x, (1, 0): 1 - x, (0, -1): y, (0, 1): 1 - y}
    direction = min(to_side, key=lambda side: to_side[side])
    distance = max(0.0, to_side[direction]) + rng.uniform(-0.4, 0.5) * half
    last = int(rng.integers(max(1, frames // 4), max(2, frames)))
    left = (1 - torch.arange(frames) / last).clamp(0, 1) * max(0.0, distance)
    return left[:, None] * torch.tensor(direction, dtype=torch.float32)


def draw_back(rng: Generator, target: Tensor, *, reach: float) -> Tensor:
    """Centres float32 [T, 2] of an occluder that hides a part of the target in frame 0 and leaves it.

    Args:
        rng: the only source of chance.
        target: float32 [T, 2], centres of what is hidden in part, in frame sides.
        reach: distance of the two centres from which they no longer overlap, in frame sides.

    Example:
        >>> centres = draw_back(np.random.default_rng(0), torch.zeros(3, 2), reach=0.5)
        >>> bool(centres[0].norm() < 0.5 < centres[2].norm())
        True
    """
    angle, frames = rng.uniform(0, 2 * math.pi), target.shape[0]
    direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float32)
    first, last = rng.uniform(0.35, 0.8), int(rng.integers(max(1, frames // 4), max(2, frames)))
    away = first + (1.1 - first) * torch.arange(frames) / last
    return target + (away.clamp(max=4) * reach)[:, None] * direction


def _in_window(frames: int, window: tuple[int, int] | None) -> Tensor:
    """Times float32 [T]: -1 in the first frame of the window, 1 in its last."""
    first, last = (0, frames - 1) if window is None else window
    return 2 * (torch.arange(frames) - first) / max(1, last - first) - 1


def _folded(centre: Tensor) -> Tensor:
    """The path mirrored at a margin around the frame, so that a long walk never leaves for good."""
    span = 1 + 2 * _MARGIN
    return span - (torch.remainder(centre + _MARGIN, 2 * span) - span).abs() - _MARGIN


def dense_field(elastic: Tensor, *, side: int = 16) -> Tensor:
    """An elastic field [T, 2, 4, 4] made smooth: [T, 2, side, side].

    Example:
        >>> dense_field(torch.zeros(3, 2, 4, 4)).shape
        torch.Size([3, 2, 16, 16])
    """
    return F.interpolate(elastic, size=(side, side), mode="bicubic", align_corners=True)
