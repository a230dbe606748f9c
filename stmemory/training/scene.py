"""Scenes: decides what is in a clip and how it moves, and has it rendered. The photometric part comes later."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from numpy.random import Generator
from torch import Tensor

from stmemory.training.cutting import Cutout, Cutter, box_of, resized
from stmemory.training.events import cover_path, with_events
from stmemory.training.motion import Motion, walk
from stmemory.training.render import Bump, View, paste, render_base, render_layer
from stmemory.training.shot import Layer, SceneConfig, Shot

__all__ = ["Scene", "draw_scene"]

_SPEEDS = (0.3, 1.0, 1.0, 2.0, 4.0)
_BASE_SPEEDS = (0.1, 0.3, 0.6, 1.0, 1.5)
_PANNED = 0.3  # how far the camera of a long clip turns away from where it began, in frame sides


@dataclass(frozen=True, eq=False)
class Scene:
    """A rendered clip before photometric change.

    Attributes:
        frames: float32 [T, 3, H, W] in [0, 1].
        ids: uint8 [T, H, W], 0 = background, 1..N in any order, with gaps.
        name: what it was made from.
    """

    frames: Tensor
    ids: Tensor
    name: str


def draw_scene(rng: Generator, cutter: Cutter, config: SceneConfig) -> Scene:
    """Draw a base and the cut-outs over it, and render both.

    Args:
        rng: the only source of chance.
        cutter: where pictures come from.
        config: sizes and probabilities.

    Returns:
        A scene that usually, but not always, has an object in frame 0.
    """
    wanted = int(rng.integers(1, config.max_objects + 1))
    speed = float(rng.choice(_BASE_SPEEDS))
    shot = Shot(config.frames, int(rng.integers(1, config.gap + 1)) if config.gap > 1 else 1, config.size)
    camera = shot.motion(rng, centre=(0.5, 0.5), speed=speed, elastic=0.03)
    if shot.is_long:
        camera = camera.held(_PANNED)  # beyond its rim a photo is mirrored, with copies of the objects that nobody labelled
    tracked, name = 0, ""
    if cutter.photos and rng.random() < config.photo_base:
        frames, ids, tracked, name = _photo_base(rng, cutter, config, camera=camera, shot=(shot, wanted))
    else:
        texture = cutter.background(rng)
        height, width = texture.shape[-2:]
        side = min(height, width) * math.exp(rng.uniform(math.log(0.45), 0.0))
        x, y = (rng.uniform(0.5 * side, length - 0.5 * side) for length in (width, height))
        frames, ids = _base(texture, camera, View(x, y, side), [], config.size)
    for layer in _layers(rng, cutter, config, camera=(shot, camera), free=(tracked, wanted), base=(frames, ids)):
        motion, steps = shot.exposed(layer.motion) if rng.random() < 0.5 else (layer.motion, 1)
        views = layer.cutout.views
        if len(views) > 1:
            turn = float(rng.choice([0.25, 0.5, 1.0]))
            order = (torch.arange(config.frames) * turn).long()
            there_and_back = (order + len(views) - 1) % (2 * len(views) - 2) - (len(views) - 1)
            views = views[there_and_back.abs()]
        window = render_layer(views if len(views) > 1 else views[0], motion, layer.half, size=config.size, steps=steps)
        paste(frames, ids, window, object_id=layer.object_id)
        name += f" + {layer.cutout.name}"
    return Scene(frames=frames, ids=ids, name=name)


def _base(texture: Tensor, camera: Motion, view: View, bumps: list[Bump], size: int) -> tuple[Tensor, Tensor]:
    """Frames [T, 3, S, S] and ids [T, S, S] of a photo [3 + N, h, w] under a moving camera."""
    factor = 1.25 * size / view.side
    if factor < 0.8:  # far smaller on screen than in the file: shrink first, or it would alias
        small = resized(texture, factor * max(texture.shape[-2:]))
        scale = small.shape[-1] / texture.shape[-1]
        view = View(view.x * scale, view.y * scale, view.side * scale)
        bumps = [Bump(b.x * scale, b.y * scale, b.radius * scale, b.shift * scale) for b in bumps]
        texture = small
    rendered = render_base(texture, camera, view, bumps=bumps, size=size)
    best, ids = rendered[:, 3:].max(1) if texture.shape[0] > 3 else (torch.zeros_like(rendered[:, 0]), torch.zeros(1))
    return rendered[:, :3].contiguous(), torch.where(best >= 0.5, ids + 1, 0).to(torch.uint8)


def _photo_base(
    rng: Generator, cutter: Cutter, config: SceneConfig, *, camera: Motion, shot: tuple[Shot, int]
) -> tuple[Tensor, Tensor, int, str]:
    """A photo zoomed so that one of its instances is as large as drawn, near ones tracked with it if there is room.

    `shot` is how it is taken, and how many objects are wanted.
    """
    how, wanted = shot
    item = cutter.photos.draw(rng)
    photo = cutter.material.photo(item.index)
    areas = torch.bincount(photo.ids.flatten(), minlength=2)
    areas[0] = 0
    numbers = (areas >= 30).nonzero()[:, 0].tolist() or [int(areas.argmax())]
    chosen = int(rng.choice(numbers))
    others = [number for number in numbers if number != chosen]
    extra = min(len(others), int(rng.integers(0, wanted)))
    picked = [chosen, *rng.choice(others, extra, replace=False).tolist()] if extra else [chosen]
    masks = torch.stack([photo.ids == number for number in picked])
    texture = torch.cat([photo.pixels.float().div_(255), masks.float()])

    height, width = photo.ids.shape
    share = math.exp(rng.uniform(math.log(0.003), math.log(0.45)))
    short = min(height, width)
    side = min(max(math.sqrt(float(areas[chosen]) / share), 0.3 * short), 1.15 * short)
    boxes = [box_of(mask) for mask in masks]
    x, y, _, _ = boxes[0]
    x, y = (
        min(max(at + rng.uniform(-0.33, 0.33) * side, min(0.5 * side, length / 2)), max(length - 0.5 * side, length / 2))
        for at, length in ((x, width), (y, height))
    )
    bumps = []
    for box in boxes:
        if rng.random() < config.local_motion:
            bumps.append(_bump(rng, box, how, side))
    frames, ids = _base(texture, camera, View(x, y, side), bumps, config.size)
    if rng.random() < 0.5:
        frames, ids = frames.flip(-1), ids.flip(-1)
    return frames, ids, len(picked), item.name


def _bump(rng: Generator, box: tuple[float, float, float, float], shot: Shot, side: float) -> Bump:
    """A local warp that moves what is in the box by up to a tenth of the view, never so far that it folds."""
    x, y, half_width, half_height = box
    radius = torch.tensor([half_width, half_height]) * 0.9 + 0.06 * side
    limit = torch.minimum(radius * 0.8, torch.tensor(0.1 * side))
    steps = walk(rng, shot.moments, 2)[:: shot.gap] * (0.02 * side * float(rng.choice([0.5, 1.0, 2.0])))
    return Bump(x, y, radius, limit * torch.tanh(steps / limit))


def _layers(
    rng: Generator,
    cutter: Cutter,
    config: SceneConfig,
    *,
    camera: tuple[Shot, Motion],
    free: tuple[int, int],
    base: tuple[Tensor, Tensor],
) -> list[Layer]:
    """The cut-outs from bottom to top; `free` is (ids taken, ids wanted), `base` the frames and ids below them."""
    frames, ids = base
    taken, wanted = free
    least = 0 if taken else 1
    count = int(rng.integers(least, config.max_pasted + 1))
    tone = frames[0].mean((1, 2))
    layers: list[Layer] = []
    for number in range(count):
        tracked = taken < wanted and (number == 0 or rng.random() < 0.6)
        taken += tracked
        layers.append(_layer(rng, cutter, config, camera=camera, object_id=taken if tracked else 0, tone=tone))
    followed = [layer for layer in layers if layer.object_id]
    if followed and rng.random() < config.lookalike:
        twin = followed[int(rng.integers(len(followed)))]
        motion = _wander(rng, camera, 0.1)
        factor = math.exp(rng.uniform(-0.3, 0.3))
        half = (twin.half[0] * factor, twin.half[1] * factor)
        layers.append(Layer(twin.cutout, motion, half, 0))
    order = rng.permutation(len(layers))
    layers = [layers[place] for place in order]
    if config.frames > 2 and rng.random() < config.event:
        if followed:
            layers = with_events(rng, cutter, layers, natural=config.natural, shot=camera[0])
        elif bool((ids[0] == 1).any()):
            layers += cover_path(rng, cutter, ids, natural=config.natural, shot=camera[0])
    return layers


def _layer(
    rng: Generator, cutter: Cutter, config: SceneConfig, *, camera: tuple[Shot, Motion], object_id: int, tone: Tensor
) -> Layer:
    """One cut-out of random size and shape in random motion, its colours pulled a little to the base's now and then."""
    longer = math.exp(rng.uniform(math.log(0.04), math.log(0.8)))
    motion = _wander(rng, camera, 0.0 if longer < 0.08 else 0.1)
    zoom = float(motion.log_scale.exp().max())
    cutout = cutter.cut(rng, natural=config.natural, side=max(6.0, longer * zoom * config.size))
    views = cutout.views.flip(-1) if rng.random() < 0.5 else cutout.views
    if rng.random() < 0.4:
        weight = views[:, 3:].sum().clamp(min=1)
        own = views[:, :3].sum((0, 2, 3)) / weight
        gain = ((tone + 0.1) / (own + 0.1)).pow(rng.uniform(0, 0.7)).clamp(0.5, 2)
        alpha = views[:, 3:]
        views = torch.cat([torch.minimum(views[:, :3] * gain[:, None, None], alpha), alpha], dim=1)
    stretch = math.exp(rng.normal(0, 0.15))
    if rng.random() < 0.12:
        stretch *= math.exp(rng.choice([-1, 1]) * rng.uniform(0.3, math.log(3)))
    aspect = cutout.aspect * stretch
    half = (longer / 2, longer / 2 / aspect) if aspect > 1 else (longer / 2 * aspect, longer / 2)
    return Layer(Cutout(views, cutout.name), motion, half, object_id)


def _wander(rng: Generator, camera: tuple[Shot, Motion], elastic: float) -> Motion:
    """A motion from somewhere in the frame, half of the time on top of the camera's own."""
    shot, base = camera
    speed = float(rng.choice(_SPEEDS))
    x, y = rng.uniform(0.1, 0.9, 2)
    motion = shot.motion(rng, centre=(x, y), speed=speed, elastic=elastic)
    if rng.random() < 0.5:
        motion = motion.moved(base.centre - 0.5)
    return motion.kept_near() if shot.is_long else motion
