"""Motion of layers and cameras over a synthetic clip, and where it puts pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

__all__ = [
    "Bump",
    "Motion",
    "Placement",
    "View",
    "come_in",
    "dense_field",
    "draw_back",
    "out_and_back",
    "pass_over",
    "place_base",
    "place_camera",
    "place_layer",
    "random_motion",
    "walk",
]

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


_NODES = 41


@dataclass(frozen=True)
class View:
    """The square part of a photo that the camera sees before it moves.

    Attributes:
        x: centre, in pixels of the photo.
        y: centre, in pixels of the photo.
        side: side, in pixels of the photo.
    """

    x: float
    y: float
    side: float

    def scaled(self, factor: float) -> View:
        """The same part of a photo of another size."""
        return View(self.x * factor, self.y * factor, self.side * factor)


@dataclass(frozen=True, eq=False)
class Bump:
    """A smooth local warp of a photo: what is at the centre moves, what is far stays.

    Attributes:
        x: centre, in pixels of the photo.
        y: centre, in pixels of the photo.
        radius: float32 [2], one standard deviation along x and y, in pixels of the photo.
        shift: float32 [T, 2], how far the centre moves, in pixels of the photo; keep it below the radius.
    """

    x: float
    y: float
    radius: Tensor
    shift: Tensor

    def scaled(self, factor: float) -> Bump:
        """The same warp of a photo of another size."""
        return Bump(self.x * factor, self.y * factor, self.radius * factor, self.shift * factor)


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a layer is seen: equal windows of the frame, one per frame, and where their pixels lie in its texture.

    Attributes:
        nodes: float32 [T x steps, 2, n, n], x and y in [-1, 1] of the texture, corners at the middles of corner pixels.
        extent: width and height of the windows, pixels.
        left: column of each window's first column, T of them.
        top: row of each window's first row, T of them.
        steps: moments averaged into one frame (motion blur).
    """

    nodes: Tensor
    extent: tuple[int, int]
    left: tuple[int, ...]
    top: tuple[int, ...]
    steps: int = 1

    def at(self, time: int) -> Placement:
        """That of one frame alone."""
        nodes = self.nodes[time * self.steps : (time + 1) * self.steps]
        return replace(self, nodes=nodes, left=self.left[time : time + 1], top=self.top[time : time + 1])


def place_base(motion: Motion, view: View, *, bumps: Sequence[Bump], shape: tuple[int, int], size: int) -> Tensor:
    """Where a moving camera looks at a photo.

    Args:
        motion: the camera; its centre is where the view's centre appears, its scale the zoom.
        view: what is seen while the motion is the identity.
        bumps: local warps, applied one after the other.
        shape: height and width of the photo, pixels.
        size: side of a frame, pixels.

    Returns:
        Nodes float32 [T, 2, n, n], x and y in [-1, 1] of the photo.

    Example:
        >>> none = torch.zeros(2)
        >>> still = Motion(torch.full((2, 2), 0.5), none, none, none, torch.zeros(2, 2, 4, 4))
        >>> place_base(still, View(8, 8, 16), bumps=[], shape=(16, 16), size=8)[0, 0, 0, ::20]
        tensor([-0.8750,  0.0000,  0.8750])
    """
    height, width = shape
    axis = (torch.arange(_NODES) / (_NODES - 1)) * (1 - 1 / size) + 0.5 / size
    nodes = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))  # [2, n, n], x and y in frame sides
    offset = nodes[None] - motion.centre[:, :, None, None]  # [T, 2, n, n]
    seen = torch.einsum("tij,tjhw->tihw", torch.linalg.inv(motion.matrix()), offset)
    field = F.interpolate(motion.elastic, size=(_NODES, _NODES), mode="bicubic", align_corners=True)
    at = (seen + 0.5 * field) * view.side + torch.tensor([view.x, view.y])[:, None, None]  # in pixels of the photo
    for bump in bumps:
        away = at - torch.tensor([bump.x, bump.y])[:, None, None] - bump.shift[:, :, None, None]
        weight = (-0.5 * (away / bump.radius[:, None, None]).square().sum(1, keepdim=True)).exp()
        at = at - weight * bump.shift[:, :, None, None]
    return at * (2 / torch.tensor([width, height])[:, None, None]) - 1


def place_camera(motion: Motion) -> Tensor:
    """Where a camera that moves on its own looks at a video: float32 [T, 2, 3], as F.affine_grid wants it; not the
    elastic part.

    Example:
        >>> none = torch.zeros(1)
        >>> still = Motion(torch.full((1, 2), 0.5), none, none, none, torch.zeros(1, 2, 4, 4))
        >>> place_camera(still).tolist()
        [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
    """
    back = torch.linalg.inv(motion.matrix())  # [T, 2, 2]
    return torch.cat([back, back @ (1 - 2 * motion.centre)[:, :, None]], 2)  # in [-1, 1] of the frame


def place_layer(motion: Motion, half: tuple[float, float], *, size: int, steps: int = 1) -> Placement:
    """Where a cut-out in motion is seen.

    Args:
        motion: T frames, or T x steps moments for motion blur.
        half: half the width and half the height of the layer at scale 1, in frame sides.
        size: side of a frame, pixels.
        steps: moments averaged into one frame.

    Returns:
        Windows that hold all of the layer that lies inside the frame.

    Example:
        >>> none = torch.zeros(1)
        >>> still = Motion(torch.full((1, 2), 0.5), none, none, none, torch.zeros(1, 2, 4, 4))
        >>> place_layer(still, (0.25, 0.125), size=32).extent  # 2 pixels wider on each side
        (20, 12)
    """
    frames = motion.angle.shape[0] // steps
    matrix = motion.matrix() * torch.tensor(half) * size  # [m, 2, 2], from [-1, 1] to pixels
    centre = motion.centre * size
    reach = matrix.abs().sum(-1) * (1 + motion.elastic.abs().amax(dim=(1, 2, 3)))[:, None] + 2
    low = (centre - reach).view(frames, steps, 2).amin(1).clamp(-4 * size, 4 * size)
    high = (centre + reach).view(frames, steps, 2).amax(1).clamp(-4 * size, 4 * size)
    width, height = (min(size, int(value)) for value in (high - low).amax(0).ceil().tolist())
    corner = low.floor().long().clamp(min=0)
    corner = torch.minimum(corner, size - torch.tensor([width, height]))  # [T, 2], every window lies inside the frame
    axes = [torch.linspace(0.5, length - 0.5, _NODES) for length in (width, height)]
    nodes = torch.stack(torch.meshgrid(axes[0], axes[1], indexing="xy"))  # [2, n, n]
    offset = nodes[None] + (corner.repeat_interleave(steps, 0) - centre)[:, :, None, None]
    at = torch.einsum("tij,tjhw->tihw", torch.linalg.inv(matrix), offset)
    at = at + F.grid_sample(
        dense_field(motion.elastic), at.permute(0, 2, 3, 1), padding_mode="border", align_corners=True
    )
    left, top = (tuple(edge) for edge in corner.T.tolist())
    return Placement(nodes=at, extent=(width, height), left=left, top=top, steps=steps)
