"""Scenes: decides what is in a clip and how it moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from numpy.random import Generator
from torch import Tensor

from stmemory.errors import MaskError
from stmemory.training.synthesis.cutouts import Cutout, Cutter, Tint, box_of, shrunk_shape
from stmemory.training.synthesis.events import (
    Layer,
    SceneConfig,
    Shot,
    cover_path,
    reveal_path,
    with_events,
    with_reveal,
)
from stmemory.training.synthesis.motion import Bump, Motion, View, place_base, place_layer, walk
from stmemory.training.synthesis.render import Ground, Pasted, Scene, base_ids

__all__ = ["draw_scene"]

_SPEEDS = (0.3, 1.0, 1.0, 2.0, 4.0)
_BASE_SPEEDS = (0.1, 0.3, 0.6, 1.0, 1.5)
_PANNED = 0.3  # how far the camera of a long clip turns away from where it began, in frame sides


@dataclass(frozen=True, eq=False)
class _Take:
    """How a scene is taken.

    Attributes:
        shot: its frames.
        camera: over T frames.
        wanted: how many objects are tracked in all, if there is room.
    """

    shot: Shot
    camera: Motion
    wanted: int


def draw_scene(rng: Generator, cutter: Cutter, config: SceneConfig) -> Scene:
    """Draw a base and the cut-outs over it.

    Args:
        rng: the only source of chance.
        cutter: source of images.
        config: sizes and probabilities.

    Returns:
        A scene that usually, but not always, has an object in frame 0.

    Raises:
        FrameError, MaskError: an image of it cannot be used.

    >>> import numpy as np
    >>> from stmemory.training.synthesis.clips import ClipConfig
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from stmemory.training.data.material import Material, pack
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "cutouts").mkdir()
    ...     Image.new("RGBA", (20, 20), "red").save(Path(folder) / "cutouts" / "red.png")
    ...     _ = pack(folder, Path(folder) / "packed.safetensors")
    ...     material = Material.load(Path(folder) / "packed.safetensors")
    >>> scene = draw_scene(np.random.default_rng(0), Cutter(material), ClipConfig(size=32))
    >>> scene.size, {layer.cutout.name for layer in scene.layers}
    (32, {'cutouts/red.png'})
    """
    wanted = int(rng.integers(1, config.max_objects + 1))
    speed = float(rng.choice(_BASE_SPEEDS))
    shot = Shot(config.frames, int(rng.integers(1, config.gap + 1)) if config.gap > 1 else 1, config.size)
    camera = shot.motion(rng, centre=(0.5, 0.5), speed=speed, elastic=0.03)
    if shot.is_long:
        camera = camera.held(
            _PANNED
        )  # beyond its rim a photo is mirrored, with copies of the objects that have no label
    take = _Take(shot, camera, wanted)
    if cutter.photos and rng.random() < config.photo_base:
        base, name = _photo_base(rng, cutter, config, take)
    else:
        pixels, name = cutter.background(rng), ""
        height, width = pixels.shape[-2:]
        side = min(height, width) * math.exp(rng.uniform(math.log(0.45), 0.0))
        x, y = (rng.uniform(0.5 * side, length - 0.5 * side) for length in (width, height))
        base = _ground(pixels, camera, View(x, y, side), bumps=[], size=config.size)
    layers = _layers(rng, cutter, config, take, base=base)
    pasted = tuple(_pasted(rng, layer, shot) for layer in layers)
    return Scene(base, pasted, config.size, name + "".join(f" + {layer.cutout.name}" for layer in layers))


def _pasted(rng: Generator, layer: Layer, shot: Shot) -> Pasted:
    """The layer as the shot sees it: blurred by its motion half of the time, turned if it has several sides."""
    motion, steps = shot.exposed(layer.motion) if rng.random() < 0.5 else (layer.motion, 1)
    order, sides = None, len(layer.cutout.views)
    if sides > 1:
        turn = float(rng.choice([0.25, 0.5, 1.0]))
        times = (torch.arange(shot.frames) * turn).long()
        order = ((times + sides - 1) % (2 * sides - 2) - (sides - 1)).abs()  # there and back
    return Pasted(layer.cutout, order, place_layer(motion, layer.half, size=shot.size, steps=steps), layer.object_id)


def _ground(pixels: Tensor, camera: Motion, view: View, *, bumps: Sequence[Bump], size: int) -> Ground:
    """A photo [3, h, w] without tracked instances under a moving camera."""
    height, width = pixels.shape[-2:]
    factor = 1.25 * size / view.side
    shape = (height, width)
    if factor < 0.8:  # far smaller on screen than in the file: shrink first, or it would alias
        shape = shrunk_shape(height, width, factor * max(height, width))
        scale = shape[1] / width
        view, bumps = view.scaled(scale), [bump.scaled(scale) for bump in bumps]
    return Ground(pixels, None, (), shape, place_base(camera, view, bumps=bumps, shape=shape, size=size))


def _photo_base(rng: Generator, cutter: Cutter, config: SceneConfig, take: _Take) -> tuple[Ground, str]:
    """A photo zoomed so that one of its instances is as large as drawn, near ones tracked with it if there is room."""
    item = cutter.photos.draw(rng)
    photo = cutter.material.photo(item.index)
    areas = torch.bincount(photo.ids.flatten(), minlength=2)
    areas[0] = 0
    if not bool(areas.any()):  # or the background would be tracked
        raise MaskError(f"{item.name}: expected an object in its mask, got none; label one, or leave the picture out")
    numbers = (areas >= 30).nonzero()[:, 0].tolist() or [int(areas.argmax())]
    chosen = int(rng.choice(numbers))
    others = [number for number in numbers if number != chosen]
    extra = min(len(others), int(rng.integers(0, take.wanted)))
    picked = [chosen, *rng.choice(others, extra, replace=False).tolist()] if extra else [chosen]
    masks = torch.stack([photo.ids == number for number in picked])

    height, width = photo.ids.shape
    share = math.exp(rng.uniform(math.log(0.003), math.log(0.45)))
    short = min(height, width)
    side = min(max(math.sqrt(float(areas[chosen]) / share), 0.3 * short), 1.15 * short)
    boxes = [box_of(mask) for mask in masks]
    x, y, _, _ = boxes[0]
    x, y = (
        min(
            max(at + rng.uniform(-0.33, 0.33) * side, min(0.5 * side, length / 2)), max(length - 0.5 * side, length / 2)
        )
        for at, length in ((x, width), (y, height))
    )
    bumps = []
    for box in boxes:
        if rng.random() < config.local_motion:
            bumps.append(_bump(rng, box, take.shot, side))
    ground = _ground(photo.pixels, take.camera, View(x, y, side), bumps=bumps, size=config.size)
    mirrored = rng.random() < 0.5
    return replace(ground, labels=photo.ids, picked=tuple(picked), mirrored=mirrored), item.name


def _bump(rng: Generator, box: tuple[float, float, float, float], shot: Shot, side: float) -> Bump:
    """A local warp that moves what is in the box by up to a tenth of the view, never so far that it folds."""
    x, y, half_width, half_height = box
    radius = torch.tensor([half_width, half_height]) * 0.9 + 0.06 * side
    limit = torch.minimum(radius * 0.8, torch.tensor(0.1 * side))
    steps = walk(rng, shot.moments, 2)[:: shot.gap] * (0.02 * side * float(rng.choice([0.5, 1.0, 2.0])))
    return Bump(x, y, radius, limit * torch.tanh(steps / limit))


def _layers(rng: Generator, cutter: Cutter, config: SceneConfig, take: _Take, *, base: Ground) -> list[Layer]:
    """The cut-outs from bottom to top, on a base."""
    taken = len(base.picked)
    least = 0 if taken else 1
    count = int(rng.integers(least, config.max_pasted + 1))
    layers: list[Layer] = []
    for number in range(count):
        tracked = taken < take.wanted and (number == 0 or rng.random() < 0.6)
        taken += tracked
        layers.append(_layer(rng, cutter, config, take, object_id=taken if tracked else 0))
        if tracked and config.composite and rng.random() < config.composite:
            layers += _attached(rng, cutter, config, take, layers[-1])
    followed = [layer for layer in layers if layer.object_id]
    if followed and rng.random() < config.lookalike:
        twin = followed[int(rng.integers(len(followed)))]
        motion = _wander(rng, take, 0.1)
        factor = math.exp(rng.uniform(-0.3, 0.3))
        half = (twin.half[0] * factor, twin.half[1] * factor)
        layers.append(Layer(twin.cutout, motion, half, 0))
    order = rng.permutation(len(layers))
    layers = [layers[place] for place in order]
    if config.frames > 2 and rng.random() < config.event:
        if followed:
            layers = with_events(rng, cutter, layers, natural=config.natural, shot=take.shot)
        else:
            ids = base_ids(base, range(config.frames), size=config.size)
            if bool((ids[0] == 1).any()):
                layers += cover_path(rng, cutter, ids, natural=config.natural, shot=take.shot)
    if config.frames > 2 and config.reveal and rng.random() < config.reveal:
        if followed:
            layers = with_reveal(rng, cutter, layers, natural=config.natural, shot=take.shot)
        else:
            ids = base_ids(base, range(config.frames), size=config.size)
            if bool((ids[0] == 1).any()):
                layers.append(reveal_path(rng, cutter, ids, natural=config.natural, shot=take.shot))
    return layers


def _attached(rng: Generator, cutter: Cutter, config: SceneConfig, take: _Take, body: Layer) -> list[Layer]:
    """One or two parts of the body's object: they go with it, and swing about where they hang on it."""
    parts = []
    for _ in range(int(rng.integers(1, 3))):
        longer = 2 * max(body.half) * rng.uniform(0.35, 0.9)
        part = _layer(rng, cutter, config, take, object_id=body.object_id, longer=longer)
        turn, swing = (
            rng.uniform(0, 2 * math.pi),
            take.shot.motion(rng, centre=(0.5, 0.5), speed=float(rng.choice(_SPEEDS)), elastic=0.1),
        )
        away = torch.tensor(
            [math.cos(turn) * body.half[0], math.sin(turn) * body.half[1]], dtype=torch.float32
        )  # where it hangs, on the body
        arm = (
            torch.tensor([math.cos(turn) * part.half[0], math.sin(turn) * part.half[1]], dtype=torch.float32) * 0.7
        )  # from there to its own middle
        angle = body.motion.angle + 3 * swing.angle
        motion = replace(swing, angle=angle, log_scale=body.motion.log_scale)
        centre = body.motion.centre + body.motion.matrix() @ (away * 0.7) + motion.matrix() @ arm
        parts.append(replace(part, motion=replace(motion, centre=centre)))
    return parts


def _layer(
    rng: Generator, cutter: Cutter, config: SceneConfig, take: _Take, *, object_id: int, longer: float | None = None
) -> Layer:
    """One cut-out of random size and shape in random motion, its colours pulled a little to the base's now and then."""
    longer = math.exp(rng.uniform(math.log(0.04), math.log(0.8))) if longer is None else longer
    motion = _wander(rng, take, 0.0 if longer < 0.08 else 0.1)
    zoom = float(motion.log_scale.exp().max())
    cutout = cutter.cut(rng, natural=config.natural, side=max(6.0, longer * zoom * config.size))
    views = cutout.views.flip(-1) if rng.random() < 0.5 else cutout.views
    tint = None
    if rng.random() < 0.4:
        weight = views[:, 3:].sum().clamp(min=1)
        tint = Tint(views[:, :3].sum((0, 2, 3)) / weight, rng.uniform(0, 0.7))
    stretch = math.exp(rng.normal(0, 0.15))
    if rng.random() < 0.12:
        stretch *= math.exp(rng.choice([-1, 1]) * rng.uniform(0.3, math.log(3)))
    aspect = cutout.aspect * stretch
    half = (longer / 2, longer / 2 / aspect) if aspect > 1 else (longer / 2 * aspect, longer / 2)
    return Layer(Cutout(views, cutout.name, tint), motion, half, object_id)


def _wander(rng: Generator, take: _Take, elastic: float) -> Motion:
    """A motion from somewhere in the frame, half of the time on top of the camera's own."""
    speed = float(rng.choice(_SPEEDS))
    x, y = rng.uniform(0.1, 0.9, 2)
    motion = take.shot.motion(rng, centre=(x, y), speed=speed, elastic=elastic)
    if rng.random() < 0.5:
        motion = motion.moved(take.camera.centre - 0.5)
    return motion.kept_near() if take.shot.is_long else motion
