"""Rendering: samples photos, videos and cut-outs where `placing` says, and puts layers on top of each other. Chooses
nothing.

This is the work that there is for each pixel. It is done on the device of the texture; nothing of it waits for that
device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stmemory.training.placing import Placement

__all__ = ["Window", "paste", "render_base", "render_layer", "render_seen"]


@dataclass(frozen=True, eq=False)
class Window:
    """A layer rendered into equal windows of the frame, one per frame.

    Attributes:
        pixels: float32 [T, C, H', W'], premultiplied colours and, last, alpha.
        left: column of each window's first column, T of them.
        top: row of each window's first row, T of them.
    """

    pixels: Tensor
    left: tuple[int, ...]
    top: tuple[int, ...]


def render_base(texture: Tensor, nodes: Tensor, *, size: int, colours: int = 3) -> Tensor:
    """The photo under a moving camera.

    Args:
        texture: float32 [C + N, h, w], colours in [0, 1] and N masks in [0, 1].
        nodes: float32 [T, 2, n, n], see `place_base`.
        size: side of a frame, pixels.
        colours: C, usually 3; 0 renders masks alone.

    Returns:
        float32 [T, C + N, size, size]. Outside of the photo the pixels are mirrored and the masks are 0.

    Example:
        >>> nodes = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 5)] * 2, indexing="xy"))[None]
        >>> render_base(torch.ones(4, 8, 8), nodes, size=6).shape
        torch.Size([1, 4, 6, 6])
    """
    grid = F.interpolate(nodes, size=(size, size), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    source = texture.expand(nodes.shape[0], -1, -1, -1)
    sampled = F.grid_sample(source, grid, padding_mode="reflection", align_corners=False)
    if texture.shape[0] > colours:
        inside = (grid.abs() <= 1).all(-1)[:, None]
        sampled[:, colours:] *= inside
    return sampled


def render_seen(frames: Tensor, theta: Tensor) -> Tensor:
    """Colours float32 [T, 3, H, W] under a camera that moves on its own, or labels uint8 [T, H, W].

    Args:
        frames: of a video.
        theta: float32 [T, 2, 3], see `place_camera`.

    Returns:
        The same shape. Outside of a frame colours are mirrored and labels are 0.

    Example:
        >>> still = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]).expand(2, -1, -1)
        >>> render_seen(torch.ones(2, 8, 8, dtype=torch.uint8), still).sum().item()
        128
    """
    side = frames.shape[-1]
    grid = F.affine_grid(theta, [len(theta), 3, side, side], align_corners=False)
    if frames.dtype != torch.uint8:
        return F.grid_sample(frames, grid, padding_mode="reflection", align_corners=False)
    labels = F.grid_sample(frames[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return labels[:, 0].round().to(torch.uint8)


def render_layer(texture: Tensor, placement: Placement) -> Window:
    """A cut-out in motion.

    Args:
        texture: float32 [C, h, w] or one per frame [T, C, h, w], premultiplied colours and, last, alpha in [0, 1].
        placement: where it is seen.

    Example:
        >>> nodes = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 5)] * 2, indexing="xy"))[None]
        >>> render_layer(torch.ones(4, 8, 8), Placement(nodes, (6, 3), (0,), (0,))).pixels.shape
        torch.Size([1, 4, 3, 6])
    """
    (width, height), steps = placement.extent, placement.steps
    grid = F.interpolate(placement.nodes, size=(height, width), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    source = texture.repeat_interleave(steps, 0) if texture.dim() == 4 else texture.expand(len(grid), -1, -1, -1)
    pixels = F.grid_sample(source, grid, padding_mode="zeros", align_corners=False)
    if steps > 1:
        pixels = pixels.view(-1, steps, *pixels.shape[1:]).mean(1)
    return Window(pixels=pixels, left=placement.left, top=placement.top)


def paste(canvas: Tensor | None, ids: Tensor, window: Window, *, object_id: int) -> None:
    """Put a rendered layer on top, in place.

    Args:
        canvas: float32 [T, 3, H, W], changed in place; None for labels alone.
        ids: uint8 [T, H, W], changed in place: `object_id` where the layer covers at least half of a pixel.
        window: the layer.
        object_id: 1..255, or 0 for a layer that is not tracked.
    """
    height, width = window.pixels.shape[-2:]
    colour, alpha = window.pixels[:, :-1], window.pixels[:, -1:]
    clear, covers = 1 - alpha, alpha[:, 0] >= 0.5
    for time, (left, top) in enumerate(zip(window.left, window.top, strict=True)):
        rows, columns = slice(top, top + height), slice(left, left + width)
        if canvas is not None:
            canvas[time, :, rows, columns].mul_(clear[time]).add_(colour[time])
        ids[time, rows, columns].masked_fill_(covers[time], object_id)
