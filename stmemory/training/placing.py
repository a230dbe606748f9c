"""Placing: where the pixels of a frame lie in a photo or a cut-out, for all T frames. Tiny geometry; touches no pixel.

All coordinate arithmetic is done on a coarse grid of nodes and spread bilinearly to pixels by `render`: affine parts
stay exact, and the elastic and local parts are smooth, so that only the sampling itself costs time per pixel. It is
done where clips are drawn, on the CPU, so that rendering never has to ask its device for a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from stmemory.training.motion import Motion, dense_field

__all__ = ["Bump", "Placement", "View", "place_base", "place_camera", "place_layer"]

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
        >>> still = Motion(torch.full((2, 2), 0.5), torch.zeros(2), torch.zeros(2), torch.zeros(2), torch.zeros(2, 2, 4, 4))
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
        >>> still = Motion(torch.full((1, 2), 0.5), torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.zeros(1, 2, 4, 4))
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
        >>> still = Motion(torch.full((1, 2), 0.5), torch.zeros(1), torch.zeros(1), torch.zeros(1), torch.zeros(1, 2, 4, 4))
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
