"""Rendering: warps one layer over all T frames at once and puts layers on top of each other. Chooses nothing.

All coordinate arithmetic is done on a coarse grid of nodes and spread bilinearly to pixels: affine parts stay exact,
and the elastic and local parts are smooth, so that only the sampling itself costs time per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stmemory.training.motion import Motion, dense_field

__all__ = ["Bump", "View", "Window", "paste", "render_base", "render_layer", "render_seen"]

_NODES = 41


@dataclass(frozen=True, eq=False)
class Window:
    """A layer rendered into equal windows of the frame, one per frame.

    Attributes:
        pixels: float32 [T, 4, H', W'], premultiplied RGB and alpha.
        top: int64 [T], row of the window's first row.
        left: int64 [T], column of the window's first column.
    """

    pixels: Tensor
    top: Tensor
    left: Tensor


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


def render_base(texture: Tensor, motion: Motion, view: View, *, bumps: Sequence[Bump], size: int) -> Tensor:
    """The photo under a moving camera.

    Args:
        texture: float32 [3 + N, h, w], RGB in [0, 1] and N masks in [0, 1].
        motion: the camera; its centre is where the view's centre appears, its scale the zoom.
        view: what is seen while the motion is the identity.
        bumps: local warps, applied one after the other.
        size: side of a frame, pixels.

    Returns:
        float32 [T, 3 + N, size, size]. Outside of the photo the pixels are mirrored and the masks are 0.
    """
    height, width = texture.shape[-2:]
    frames = motion.angle.shape[0]
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
    at = at * (2 / torch.tensor([width, height])[:, None, None]) - 1
    grid = F.interpolate(at, size=(size, size), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    sampled = F.grid_sample(texture.expand(frames, -1, -1, -1), grid, padding_mode="reflection", align_corners=False)
    if texture.shape[0] > 3:
        inside = (grid.abs() <= 1).all(-1)[:, None]
        sampled[:, 3:] *= inside
    return sampled


def render_seen(frames: Tensor, ids: Tensor, motion: Motion) -> tuple[Tensor, Tensor]:
    """A video under a camera that moves on its own: one affine map a frame; the elastic part is not used.

    Args:
        frames: float32 [T, 3, S, S] in [0, 1].
        ids: uint8 [T, S, S].
        motion: the camera; see `render_base`.

    Returns:
        Frames and ids of the same shapes. Outside of a frame the pixels are mirrored and the ids are 0.

    Example:
        >>> still = Motion(torch.full((2, 2), 0.5), torch.zeros(2), torch.zeros(2), torch.zeros(2), torch.zeros(2, 2, 4, 4))
        >>> render_seen(torch.zeros(2, 3, 8, 8), torch.ones(2, 8, 8, dtype=torch.uint8), still)[1].sum().item()
        128
    """
    back = torch.linalg.inv(motion.matrix())  # [T, 2, 2]
    theta = torch.cat([back, back @ (1 - 2 * motion.centre)[:, :, None]], 2)  # in [-1, 1] of the frame, as F.affine_grid wants
    grid = F.affine_grid(theta, list(frames.shape), align_corners=False)
    seen = F.grid_sample(frames, grid, padding_mode="reflection", align_corners=False)
    labels = F.grid_sample(ids[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return seen, labels[:, 0].round().to(torch.uint8)


def render_layer(texture: Tensor, motion: Motion, half: tuple[float, float], *, size: int, steps: int = 1) -> Window:
    """A cut-out in motion.

    Args:
        texture: float32 [4, h, w] or one per frame [T, 4, h, w], premultiplied RGB and alpha in [0, 1].
        motion: T frames, or T x steps moments for motion blur.
        half: half the width and half the height of the layer at scale 1, in frame sides.
        size: side of a frame, pixels.
        steps: moments averaged into one frame.

    Returns:
        Windows that hold all of the layer that lies inside the frame.
    """
    moments = motion.angle.shape[0]
    frames = moments // steps
    matrix = motion.matrix() * torch.tensor(half) * size  # [m, 2, 2], from [-1, 1] to pixels
    centre = motion.centre * size
    reach = matrix.abs().sum(-1) * (1 + motion.elastic.abs().amax(dim=(1, 2, 3)))[:, None] + 2
    low = (centre - reach).view(frames, steps, 2).amin(1).clamp(-4 * size, 4 * size)
    high = (centre + reach).view(frames, steps, 2).amax(1).clamp(-4 * size, 4 * size)
    extent = [min(size, int(value)) for value in (high - low).amax(0).ceil().tolist()]
    corner = low.floor().long().clamp(min=0)
    corner = torch.minimum(corner, size - torch.tensor(extent))  # [T, 2], every window lies inside the frame
    axes = [torch.linspace(0.5, length - 0.5, _NODES) for length in extent]
    nodes = torch.stack(torch.meshgrid(axes[0], axes[1], indexing="xy"))  # [2, n, n]
    offset = nodes[None] + (corner.repeat_interleave(steps, 0) - centre)[:, :, None, None]
    at = torch.einsum("tij,tjhw->tihw", torch.linalg.inv(matrix), offset)
    field = dense_field(motion.elastic)
    at = at + F.grid_sample(field, at.permute(0, 2, 3, 1), padding_mode="border", align_corners=True)
    grid = F.interpolate(at, size=(extent[1], extent[0]), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    source = texture.repeat_interleave(steps, 0) if texture.dim() == 4 else texture.expand(moments, -1, -1, -1)
    pixels = F.grid_sample(source, grid, padding_mode="zeros", align_corners=False)
    if steps > 1:
        pixels = pixels.view(frames, steps, *pixels.shape[1:]).mean(1)
    return Window(pixels=pixels, top=corner[:, 1], left=corner[:, 0])


def paste(canvas: Tensor, ids: Tensor, window: Window, *, object_id: int) -> None:
    """Put a rendered layer on top, in place.

    Args:
        canvas: float32 [T, 3, H, W], changed in place.
        ids: uint8 [T, H, W], changed in place: `object_id` where the layer covers at least half of a pixel.
        window: the layer.
        object_id: 1..255, or 0 for a layer that is not tracked.
    """
    height, width = window.pixels.shape[-2:]
    colour, alpha = window.pixels[:, :3], window.pixels[:, 3:]
    clear, covers = 1 - alpha, alpha[:, 0] >= 0.5
    for time, (top, left) in enumerate(zip(window.top.tolist(), window.left.tolist(), strict=True)):
        rows, columns = slice(top, top + height), slice(left, left + width)
        canvas[time, :, rows, columns].mul_(clear[time]).add_(colour[time])
        ids[time, rows, columns].masked_fill_(covers[time], object_id)
