"""Rendering of synthetic clips: plans, layers, exposure, and photometric changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from stmemory.training.synthesis.cutouts import Cutout
from stmemory.training.synthesis.motion import Placement, walk

__all__ = [
    "ClipPlan",
    "Film",
    "Ground",
    "Look",
    "Pasted",
    "Scene",
    "Window",
    "base_ids",
    "degrade",
    "develop",
    "draw_look",
    "ids_at",
    "paste",
    "render_base",
    "render_layer",
    "render_seen",
]

_REACH = 3  # pixels on either side that a blur may take from


@dataclass(frozen=True, eq=False)
class Look:
    """What a camera does to the colours of T frames.

    Attributes:
        colour: float32 [T, 3], what each channel is multiplied with.
        gamma: float32 [T], the exponent of all of them; None leaves them.
        grey: whether the clip has no colour.
        taps: float32 [T, 7], the kernel of a blur along each axis; None is sharp.
        noise: standard deviation, in steps of 8 bits; 0 is none.
        noise_seed: seed of that noise.
    """

    colour: Tensor
    gamma: Tensor | None = None
    grey: bool = False
    taps: Tensor | None = None
    noise: float = 0.0
    noise_seed: int = 0


def draw_look(rng: Generator, length: int, *, blur: float, grey: float) -> Look:
    """Drifting gain, gamma and colour; sometimes blur, noise or greyscale.

    Args:
        rng: the only source of chance.
        length: T.
        blur: probability that the clip is out of focus, more in some frames than in others.
        grey: probability that the clip has no colour.

    Example:
        >>> draw_look(np.random.default_rng(0), 2, blur=0.0, grey=0.0).colour.shape
        torch.Size([2, 3])
    """
    drift = walk(rng, length, 5) * rng.choice([0.002, 0.01, 0.03])
    gain = (drift[:, :1] + rng.normal(0, 0.12)).clamp(-0.5, 0.4).exp()
    colour = gain * (drift[:, 1:4] + torch.from_numpy(rng.normal(0, 0.05, 3).astype(np.float32))).clamp(-0.3, 0.3).exp()
    gamma = (drift[:, 4] + rng.normal(0, 0.12)).clamp(-0.5, 0.5).exp()
    bends = rng.random() < 0.5
    without_colour = rng.random() < grey
    taps = None
    if rng.random() < blur:
        sigma = (rng.uniform(0.3, 1.2) + walk(rng, length, 1)[:, 0] * 0.2).clamp(0.2, 1.8)
        kernel = (-0.5 * (torch.arange(-_REACH, _REACH + 1) / sigma[:, None]).square()).exp()
        taps = kernel / kernel.sum(1, keepdim=True)
    noise, seed = 0.0, 0
    if rng.random() < 0.5:
        seed = int(rng.integers(2**62))
        noise = math.exp(rng.uniform(0, math.log(9)))
    return Look(colour, gamma if bends else None, without_colour, taps, noise, seed)


def degrade(frames: Tensor, look: Look) -> Tensor:
    """What a camera makes of frames, on their device.

    Args:
        frames: float32 [T, 3, H, W] in [0, 1].
        look: on the same device. Its noise comes from that device's generator: the same on all CPUs, other values of
            the same strength on a GPU.

    Returns:
        uint8 [T, 3, H, W].

    Example:
        >>> degrade(torch.full((2, 3, 8, 8), 0.5), Look(torch.ones(2, 3))).unique()
        tensor([128], dtype=torch.uint8)
    """
    frames = (frames * look.colour[:, :, None, None]).clamp_(1e-4, 1)
    if look.gamma is not None:
        frames = frames.pow(look.gamma[:, None, None, None])
    if look.grey:
        frames = frames.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    if look.taps is not None:
        frames = _blurred(frames, look.taps)
    scaled = frames * 255
    if look.noise:
        scaled = scaled + _noise(scaled, look.noise_seed) * look.noise
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _noise(like: Tensor, seed: int) -> Tensor:
    """Normal noise of that tensor's shape, on its device."""
    generator = torch.Generator(device=like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=generator, device=like.device)


def _blurred(frames: Tensor, taps: Tensor) -> Tensor:
    """Blurred along both axes, one after the other, with one kernel [T, 7] per frame."""
    channels = frames.shape[1]
    blurred = []
    for frame, kernel in zip(frames, taps, strict=True):
        stack = F.pad(frame[:, None], (_REACH,) * 4, mode="replicate")
        rows = F.conv2d(stack, kernel.view(1, 1, -1, 1))
        blurred.append(F.conv2d(rows, kernel.view(1, 1, 1, -1)).view(channels, *frames.shape[2:]))
    return torch.stack(blurred)


@dataclass(frozen=True, eq=False)
class Ground:
    """A photo under a moving camera.

    Attributes:
        pixels: uint8 [3, h, w], or float32 in [0, 1].
        labels: uint8 [h, w], or None for a photo without tracked instances.
        picked: the labels of those that are tracked; they get the ids 1, 2 and so on.
        shape: height and width that the photo is shrunk to, antialiased, before it is sampled.
        nodes: float32 [T, 2, n, n], see `place_base`.
        mirrored: whether left is right in the end.
    """

    pixels: Tensor
    labels: Tensor | None
    picked: tuple[int, ...]
    shape: tuple[int, int]
    nodes: Tensor
    mirrored: bool = False


@dataclass(frozen=True, eq=False)
class Film:
    """A piece of a video.

    Attributes:
        pixels: uint8 [T, 3, h, w], square, not yet of the clip's size.
        ids: uint8 [T, H, W].
        mirrored: whether left is right in the end.
        theta: float32 [T, 2, 3] of a camera that moves over it, see `place_camera`; or None.
    """

    pixels: Tensor
    ids: Tensor
    mirrored: bool = False
    theta: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Pasted:
    """A cut-out on top of what is below.

    Attributes:
        cutout: its sides.
        order: int64 [T], which side is seen in each frame; None for one that does not turn.
        placement: where it is seen.
        object_id: 1..255, or 0 when it is not tracked.
    """

    cutout: Cutout
    order: Tensor | None
    placement: Placement
    object_id: int


@dataclass(frozen=True, eq=False)
class Scene:
    """A clip before photometric change, with ids in any order.

    Attributes:
        base: what is below.
        layers: what is on it, from bottom to top.
        size: side of a frame, pixels.
        name: what it is made from.
        reversed: whether time runs backwards in the end.
    """

    base: Ground | Film
    layers: tuple[Pasted, ...]
    size: int
    name: str
    reversed: bool = False


@dataclass(frozen=True, eq=False)
class ClipPlan:
    """A clip, not yet rendered.

    Attributes:
        scene: what is seen.
        table: uint8 [256], the clip's id for each of the scene's: 0 for what is not tracked, or is hardly seen in frame
            0.
        look: what the camera does to its colours.
        skipped: one line for each file that was drawn for it and could not be used.
    """

    scene: Scene
    table: Tensor
    look: Look
    skipped: tuple[str, ...] = ()


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
        frames: frames of a video.
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


def develop(plan: ClipPlan) -> tuple[Tensor, Tensor]:
    """Frames uint8 [T, 3, H, W] and ids uint8 [T, H, W] of a clip.

    >>> from stmemory.training.synthesis.render import Look
    >>> ids = torch.zeros(2, 16, 16, dtype=torch.uint8)
    >>> ids[:, :8] = 7
    >>> scene = Scene(Film(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), ids), (), 16, "film")
    >>> table = torch.zeros(256, dtype=torch.uint8)
    >>> table[7] = 1
    >>> frames, ids = develop(ClipPlan(scene, table, Look(torch.ones(2, 3))))
    >>> frames.shape, ids.unique().tolist()
    (torch.Size([2, 3, 16, 16]), [0, 1])
    """
    scene = plan.scene
    frames, ids = _developed_base(scene.base, scene.size)
    tone = frames[0].mean((1, 2))
    for layer in scene.layers:
        paste(frames, ids, render_layer(_texture(layer, tone), layer.placement), object_id=layer.object_id)
    if scene.reversed:
        frames, ids = frames.flip(0), ids.flip(0)
    return degrade(frames, plan.look), plan.table[ids.long()]


def ids_at(scene: Scene, time: int) -> Tensor:
    """What `develop` makes of one frame of a scene: ids uint8 [H, W], in any order; of its masks alone, since that is
    quick.

    >>> ids = torch.zeros(2, 16, 16, dtype=torch.uint8)
    >>> ids[:, :8] = 7
    >>> scene = Scene(Film(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), ids), (), 16, "film")
    >>> ids_at(scene, 1).unique().tolist()
    [0, 7]
    """
    ids = base_ids(scene.base, [time], size=scene.size)
    for layer in scene.layers:
        views = layer.cutout.views[:, 3:]
        shown = views[0] if layer.order is None else views[layer.order[time : time + 1]]
        paste(None, ids, render_layer(shown, layer.placement.at(time)), object_id=layer.object_id)
    return ids[0]


def base_ids(base: Ground | Film, times: Sequence[int], *, size: int) -> Tensor:
    """Ids uint8 [times, H, W] of what is below all layers.

    >>> film = Film(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(4, 16, 16, dtype=torch.uint8))
    >>> base_ids(film, [0, 3], size=16).shape
    torch.Size([2, 16, 16])
    """
    chosen = list(times)
    if isinstance(base, Film):
        ids = base.ids[chosen].flip(-1) if base.mirrored else base.ids[chosen]
        return ids.clone() if base.theta is None else render_seen(ids, base.theta[chosen])
    if base.labels is None:
        return base.pixels.new_zeros((len(chosen), size, size), dtype=torch.uint8)
    rendered = render_base(_shrunk(_masks(base, base.labels), base.shape), base.nodes[chosen], size=size, colours=0)
    ids = _best(rendered)
    return ids.flip(-1) if base.mirrored else ids


def _developed_base(base: Ground | Film, size: int) -> tuple[Tensor, Tensor]:
    """Frames float32 [T, 3, H, W] in [0, 1] and ids uint8 [T, H, W], both to be painted on."""
    if isinstance(base, Film):
        frames = base.pixels.float().div_(255)
        frames = F.interpolate(frames, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        ids = base.ids.clone()
    else:
        colours = base.pixels if base.pixels.is_floating_point() else base.pixels.float().div_(255)
        texture = colours if base.labels is None else torch.cat([colours, _masks(base, base.labels)])
        rendered = render_base(_shrunk(texture, base.shape), base.nodes, size=size)
        frames = rendered[:, :3].contiguous()
        ids = torch.zeros_like(frames[:, 0], dtype=torch.uint8) if base.labels is None else _best(rendered[:, 3:])
    if base.mirrored:
        frames, ids = frames.flip(-1), ids.flip(-1)
    if isinstance(base, Film):
        if base.theta is not None:
            frames, ids = render_seen(frames, base.theta), render_seen(ids, base.theta)
        frames = frames.clamp(0, 1)
    return frames, ids


def _masks(base: Ground, labels: Tensor) -> Tensor:
    """Of the tracked instances: float32 [N, h, w]."""
    return torch.stack([labels == number for number in base.picked]).float()


def _best(masks: Tensor) -> Tensor:
    """Soft masks [T, N, H, W] to ids uint8 [T, H, W]: the strongest, where it makes up half of the pixel."""
    best, ids = masks.max(1)
    return torch.where(best >= 0.5, ids + 1, 0).to(torch.uint8)


def _shrunk(texture: Tensor, shape: tuple[int, int]) -> Tensor:
    """[C, h, w] in the shape asked for."""
    if tuple(texture.shape[-2:]) == shape:
        return texture
    return F.interpolate(texture[None], size=shape, mode="bilinear", antialias=True, align_corners=False)[0]


def _texture(layer: Pasted, tone: Tensor) -> Tensor:
    """The layer's side [4, h, w] or, of one that turns, a side a frame [T, 4, h, w]."""
    views = _tinted(layer.cutout, tone)
    return views[0] if layer.order is None else views[layer.order]


def _tinted(cutout: Cutout, tone: Tensor) -> Tensor:
    """The sides, their colours pulled to the tone [3] of what is below as far as their tint says."""
    views, tint = cutout.views, cutout.tint
    if tint is None:
        return views
    gain = ((tone + 0.1) / (tint.own + 0.1)).pow(tint.strength).clamp(0.5, 2)
    alpha = views[:, 3:]
    return torch.cat([torch.minimum(views[:, :3] * gain[:, None, None], alpha), alpha], dim=1)
