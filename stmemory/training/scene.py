"""Scenes: decides what is in a clip and how it moves, and has it rendered. The photometric part comes later."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from numpy.random import Generator
from torch import Tensor

from stmemory.training.cutting import Cutout, Cutter, resized
from stmemory.training.motion import Motion, out_and_back, pass_over, random_motion, walk
from stmemory.training.render import Bump, View, paste, render_base, render_layer

__all__ = ["Scene", "SceneConfig", "draw_scene"]

_SPEEDS = (0.3, 1.0, 1.0, 2.0, 4.0)
_BASE_SPEEDS = (0.1, 0.3, 0.6, 1.0, 1.5)
_SHUTTER = 0.6  # of the time between two frames
_MOST_STEPS = 9  # moments of one exposure; more would cost time that nobody sees


class SceneConfig(Protocol):
    """The part of a clip's configuration that scenes look at; see `ClipConfig`."""

    @property
    def size(self) -> int: ...
    @property
    def frames(self) -> int: ...
    @property
    def max_objects(self) -> int: ...
    @property
    def max_pasted(self) -> int: ...
    @property
    def photo_base(self) -> float: ...
    @property
    def local_motion(self) -> float: ...
    @property
    def lookalike(self) -> float: ...
    @property
    def event(self) -> float: ...
    @property
    def natural(self) -> float: ...


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


@dataclass(frozen=True, eq=False)
class _Layer:
    """A cut-out in motion; `half` is half its width and height in frame sides, `object_id` 0 when untracked."""

    cutout: Cutout
    motion: Motion
    half: tuple[float, float]
    object_id: int


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
    camera = random_motion(rng, config.frames, centre=(0.5, 0.5), speed=speed, elastic=0.03)
    tracked, name = 0, ""
    if cutter.photos and rng.random() < config.photo_base:
        frames, ids, tracked, name = _photo_base(rng, cutter, config, camera=camera, wanted=wanted)
    else:
        texture = cutter.background(rng)
        height, width = texture.shape[-2:]
        side = min(height, width) * math.exp(rng.uniform(math.log(0.45), 0.0))
        x, y = (rng.uniform(0.5 * side, length - 0.5 * side) for length in (width, height))
        frames, ids = _base(texture, camera, View(x, y, side), [], config.size)
    for layer in _layers(rng, cutter, config, camera=camera, free=(tracked, wanted), base=(frames, ids)):
        steps = _exposure_steps(layer, config.size) if rng.random() < 0.5 else 1
        motion = layer.motion.within_exposure(steps=steps, shutter=_SHUTTER) if steps > 1 else layer.motion
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
    rng: Generator, cutter: Cutter, config: SceneConfig, *, camera: Motion, wanted: int
) -> tuple[Tensor, Tensor, int, str]:
    """A photo zoomed so that one of its instances is as large as drawn, near ones tracked with it if there is room."""
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
    boxes = [_box(mask) for mask in masks]
    x, y, _, _ = boxes[0]
    x, y = (
        min(max(at + rng.uniform(-0.33, 0.33) * side, min(0.5 * side, length / 2)), max(length - 0.5 * side, length / 2))
        for at, length in ((x, width), (y, height))
    )
    bumps = []
    for box in boxes:
        if rng.random() < config.local_motion:
            bumps.append(_bump(rng, box, config.frames, side))
    frames, ids = _base(texture, camera, View(x, y, side), bumps, config.size)
    if rng.random() < 0.5:
        frames, ids = frames.flip(-1), ids.flip(-1)
    return frames, ids, len(picked), item.name


def _bump(rng: Generator, box: tuple[float, float, float, float], frames: int, side: float) -> Bump:
    """A local warp that moves what is in the box by up to a tenth of the view, never so far that it folds."""
    x, y, half_width, half_height = box
    radius = torch.tensor([half_width, half_height]) * 0.9 + 0.06 * side
    limit = torch.minimum(radius * 0.8, torch.tensor(0.1 * side))
    steps = walk(rng, frames, 2) * (0.02 * side * float(rng.choice([0.5, 1.0, 2.0])))
    return Bump(x, y, radius, limit * torch.tanh(steps / limit))


def _box(mask: Tensor) -> tuple[float, float, float, float]:
    """Centre x, y and half width, half height of a mask that is not empty, pixels."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    top, bottom, left, right = (int(edge) for edge in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    return (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2


def _layers(
    rng: Generator, cutter: Cutter, config: SceneConfig, *, camera: Motion, free: tuple[int, int], base: tuple[Tensor, Tensor]
) -> list[_Layer]:
    """The cut-outs from bottom to top; `free` is (ids taken, ids wanted), `base` the frames and ids below them."""
    frames, ids = base
    taken, wanted = free
    least = 0 if taken else 1
    count = int(rng.integers(least, config.max_pasted + 1))
    tone = frames[0].mean((1, 2))
    layers: list[_Layer] = []
    for number in range(count):
        tracked = taken < wanted and (number == 0 or rng.random() < 0.6)
        taken += tracked
        layers.append(_layer(rng, cutter, config, camera=camera, object_id=taken if tracked else 0, tone=tone))
    followed = [layer for layer in layers if layer.object_id]
    extra: list[_Layer] = []
    if followed and rng.random() < config.lookalike:
        twin = followed[int(rng.integers(len(followed)))]
        motion = _wander(rng, config.frames, camera, 0.1)
        factor = math.exp(rng.uniform(-0.3, 0.3))
        half = (twin.half[0] * factor, twin.half[1] * factor)
        extra.append(_Layer(twin.cutout, motion, half, 0))
    layers += extra
    order = rng.permutation(len(layers))
    layers = [layers[place] for place in order]
    if config.frames > 2 and rng.random() < config.event:
        if followed:
            layers = _with_event(rng, cutter, config, layers=layers)
        elif bool((ids[0] == 1).any()):
            path, half = _path_of(ids == 1)
            layers.append(_occluder(rng, cutter, config, path=path, half=half))
    return layers


def _layer(
    rng: Generator, cutter: Cutter, config: SceneConfig, *, camera: Motion, object_id: int, tone: Tensor
) -> _Layer:
    """One cut-out of random size and shape in random motion, its colours pulled a little to the base's now and then."""
    longer = math.exp(rng.uniform(math.log(0.04), math.log(0.8)))
    motion = _wander(rng, config.frames, camera, 0.0 if longer < 0.08 else 0.1)
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
    return _Layer(Cutout(views, cutout.name), motion, half, object_id)


def _wander(rng: Generator, frames: int, camera: Motion, elastic: float) -> Motion:
    """A motion from somewhere in the frame, half of the time on top of the camera's own."""
    speed = float(rng.choice(_SPEEDS))
    x, y = rng.uniform(0.1, 0.9, 2)
    motion = random_motion(rng, frames, centre=(x, y), speed=speed, elastic=elastic)
    return motion.moved(camera.centre - 0.5) if rng.random() < 0.5 else motion


def _with_event(rng: Generator, cutter: Cutter, config: SceneConfig, *, layers: list[_Layer]) -> list[_Layer]:
    """The layers with one tracked one that leaves the frame and comes back, or is passed over by something larger."""
    numbers = [number for number, layer in enumerate(layers) if layer.object_id]
    number = int(rng.choice(numbers))
    target = layers[number]
    reach = 1.2 * max(target.half)
    if rng.random() < 0.5:
        x, y = target.motion.centre[0].tolist()
        shift = out_and_back(config.frames, start=(x, y), reach=reach)
        gone = _Layer(target.cutout, target.motion.moved(shift), target.half, target.object_id)
        return [*layers[:number], gone, *layers[number + 1 :]]
    return [*layers, _occluder(rng, cutter, config, path=target.motion.centre, half=target.half)]


def _occluder(
    rng: Generator, cutter: Cutter, config: SceneConfig, *, path: Tensor, half: tuple[float, float]
) -> _Layer:
    """An untracked cut-out that passes over what moves along `path` [T, 2] with half sizes `half`, in frame sides."""
    factor = rng.uniform(1.4, 2.2)
    half_sizes = (half[0] * factor, half[1] * factor)
    cutout = cutter.cut(rng, natural=config.natural, side=2 * max(half_sizes) * config.size)
    motion = random_motion(rng, config.frames, centre=(0.5, 0.5), speed=0.5, elastic=0.05)
    centres = pass_over(rng, path, reach=1.3 * (max(half) + max(half_sizes)))
    return _Layer(cutout, motion.moved(centres - motion.centre), half_sizes, 0)


def _path_of(masks: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Centres float32 [T, 2] and half sizes in frame 0 of a mask [T, S, S] that is not empty in frame 0, in frame sides."""
    size = masks.shape[-1]
    x, y, half_width, half_height = _box(masks[0])
    centres = [torch.tensor([x, y])]
    for mask in masks[1:]:
        centres.append(torch.tensor(_box(mask)[:2]) if bool(mask.any()) else centres[-1])
    return torch.stack(centres) / size, (min(0.4, half_width / size), min(0.4, half_height / size))


def _exposure_steps(layer: _Layer, size: int) -> int:
    """Moments of one exposure that are at most about 3 pixels apart."""
    steps = layer.motion.centre.diff(dim=0).norm(dim=1)
    fastest = float(steps.max()) * _SHUTTER * size if len(steps) else 0.0
    return min(_MOST_STEPS, 1 + int(fastest / 3))
