"""Developing: plans become frames and ids, on the device that their tensors are on. Leaves nothing to chance.

All operations are queued on that device one after the other, and none waits for a result: see
`tests/test_rendering.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stmemory.training.cutting import Cutout
from stmemory.training.photometric import degrade
from stmemory.training.plan import ClipPlan, Film, Ground, Pasted, Scene
from stmemory.training.render import paste, render_base, render_layer, render_seen

__all__ = ["base_ids", "develop", "ids_at"]


def develop(plan: ClipPlan) -> tuple[Tensor, Tensor]:
    """Frames uint8 [T, 3, H, W] and ids uint8 [T, H, W] of a clip.

    >>> from stmemory.training.photometric import Look
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
