"""Shots and events of synthetic clips: exposures, occlusions, exits and entries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from numpy.random import Generator
from torch import Tensor

from stmemory.training.synthesis.cutouts import Cutout, Cutter, box_of
from stmemory.training.synthesis.motion import Motion, come_in, draw_back, out_and_back, pass_over, random_motion

__all__ = ["Layer", "SceneConfig", "Shot", "cover_path", "reveal_path", "with_events", "with_reveal"]

_SHUTTER = 0.6  # of the time between two moments
_MOST_STEPS = 9  # moments of one exposure; more would cost time without a visible effect
_LONG = 12  # frames from which on a clip has several events, each in a part of it


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
    def gap(self) -> int: ...
    @property
    def photo_base(self) -> float: ...
    @property
    def local_motion(self) -> float: ...
    @property
    def lookalike(self) -> float: ...
    @property
    def event(self) -> float: ...
    @property
    def composite(self) -> float: ...
    @property
    def reveal(self) -> float: ...
    @property
    def natural(self) -> float: ...


@dataclass(frozen=True)
class Shot:
    """How the frames of a clip are taken.

    Attributes:
        frames: T.
        gap: moments of motion from one frame to the next; speeds are those of one moment.
        size: side of a frame, pixels.
    """

    frames: int
    gap: int
    size: int

    @property
    def moments(self) -> int:
        """Of motion, from the first frame to the last."""
        return (self.frames - 1) * self.gap + 1

    @property
    def is_long(self) -> bool:
        """Whether several things may happen one after the other."""
        return self.frames > _LONG

    def motion(self, rng: Generator, *, centre: tuple[float, float], speed: float, elastic: float) -> Motion:
        """A random motion over all moments, as the frames see it: T of them; see `random_motion`."""
        return random_motion(rng, self.moments, centre=centre, speed=speed, elastic=elastic).every(self.gap)

    def exposed(self, motion: Motion) -> tuple[Motion, int]:
        """A motion of T * steps moments that blurs each frame as much as a shutter would, and steps: at most about 3
        pixels apart."""
        moved = motion.centre.diff(dim=0).norm(dim=1)
        shutter = _SHUTTER / self.gap
        fastest = float(moved.max()) * shutter * self.size if len(moved) else 0.0
        steps = min(_MOST_STEPS, 1 + int(fastest / 3))
        return (motion.within_exposure(steps=steps, shutter=shutter), steps) if steps > 1 else (motion, 1)

    def windows(self, rng: Generator) -> list[tuple[int, int] | None]:
        """First and last frames of what happens in the clip: once, over all of it (None), or a few times in a long
        one."""
        if not self.is_long:
            return [None]
        found: list[tuple[int, int] | None] = []
        for _ in range(int(rng.integers(1, 1 + self.frames // 10))):
            length = int(rng.integers(4, 1 + self.frames // 2))
            first = int(rng.integers(1, max(2, self.frames - length)))
            found.append((first, first + length))
        return found


@dataclass(frozen=True, eq=False)
class Layer:
    """A cut-out in motion.

    Attributes:
        cutout: what.
        motion: where, over T frames.
        half: half its width and half its height at scale 1, in frame sides.
        object_id: 1..255, or 0 when it is not tracked.
    """

    cutout: Cutout
    motion: Motion
    half: tuple[float, float]
    object_id: int


@dataclass(frozen=True, eq=False)
class _Passed:
    """What is passed over, and how.

    Attributes:
        path: float32 [T, 2] of its centre, in frame sides.
        half: half its width and height, in frame sides.
        window: first and last frame of that; None is all of the clip.
        natural: probability that what passes over is photographed.
    """

    path: Tensor
    half: tuple[float, float]
    window: tuple[int, int] | None
    natural: float


def with_events(rng: Generator, cutter: Cutter, layers: list[Layer], *, natural: float, shot: Shot) -> list[Layer]:
    """The layers, from bottom to top, with events that befall tracked ones, and with what passes over these.

    Args:
        rng: the only source of chance.
        cutter: where what passes over comes from.
        layers: some of them tracked.
        natural: probability that it is photographed.
        shot: how the frames are taken.

    >>> import numpy as np
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from stmemory.training.data.material import Material, pack
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "cutouts").mkdir()
    ...     Image.new("RGBA", (20, 20), "red").save(Path(folder) / "cutouts" / "red.png")
    ...     _ = pack(folder, Path(folder) / "packed.safetensors")
    ...     material = Material.load(Path(folder) / "packed.safetensors")
    >>> rng, shot, cutter = np.random.default_rng(0), Shot(frames=4, gap=1, size=32), Cutter(material)
    >>> motion = shot.motion(rng, centre=(0.5, 0.5), speed=1.0, elastic=0.0)
    >>> tracked = Layer(cutter.cut(rng, natural=1.0, side=8), motion, (0.1, 0.1), object_id=1)
    >>> [layer.object_id for layer in with_events(rng, cutter, [tracked], natural=1.0, shot=shot)]
    [1, 0]
    """
    numbers = [number for number, layer in enumerate(layers) if layer.object_id]
    layers = list(layers)
    for window in shot.windows(rng):
        number = int(rng.choice(numbers))
        target = layers[number]
        if rng.random() < 0.5:
            x, y = target.motion.centre[window[0] if window else 0].tolist()
            shift = out_and_back(shot.frames, start=(x, y), reach=1.2 * max(target.half), window=window)
            layers[number] = replace(target, motion=target.motion.moved(shift))
        else:
            layers.append(_occluder(rng, cutter, shot, _Passed(target.motion.centre, target.half, window, natural)))
    return layers


def cover_path(rng: Generator, cutter: Cutter, ids: Tensor, *, natural: float, shot: Shot) -> list[Layer]:
    """What passes over object 1 of `ids` uint8 [T, H, W], which is in frame 0; see `with_events`.

    >>> import numpy as np
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from stmemory.training.data.material import Material, pack
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "cutouts").mkdir()
    ...     Image.new("RGBA", (20, 20), "red").save(Path(folder) / "cutouts" / "red.png")
    ...     _ = pack(folder, Path(folder) / "packed.safetensors")
    ...     material = Material.load(Path(folder) / "packed.safetensors")
    >>> ids, shot = torch.zeros(4, 32, 32, dtype=torch.uint8), Shot(frames=4, gap=1, size=32)
    >>> ids[:, 8:16, 8:16] = 1
    >>> layers = cover_path(np.random.default_rng(0), Cutter(material), ids, natural=1.0, shot=shot)
    >>> [layer.object_id for layer in layers]
    [0]
    """
    path, half = _path_of(ids == 1)
    return [_occluder(rng, cutter, shot, _Passed(path, half, window, natural)) for window in shot.windows(rng)]


def with_reveal(rng: Generator, cutter: Cutter, layers: list[Layer], *, natural: float, shot: Shot) -> list[Layer]:
    """The layers, one of whose tracked ones is hidden in part in frame 0, by the frame's side or by what is added, and
    comes into view.

    Args:
        rng: the only source of chance.
        cutter: where what hides it comes from.
        layers: from bottom to top, some of them tracked.
        natural: probability that what hides it is photographed.
        shot: how the frames are taken.

    >>> import numpy as np
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from stmemory.training.data.material import Material, pack
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "cutouts").mkdir()
    ...     Image.new("RGBA", (20, 20), "red").save(Path(folder) / "cutouts" / "red.png")
    ...     _ = pack(folder, Path(folder) / "packed.safetensors")
    ...     material = Material.load(Path(folder) / "packed.safetensors")
    >>> rng, shot, cutter = np.random.default_rng(0), Shot(frames=4, gap=1, size=32), Cutter(material)
    >>> motion = shot.motion(rng, centre=(0.5, 0.5), speed=1.0, elastic=0.0)
    >>> tracked = Layer(cutter.cut(rng, natural=1.0, side=8), motion, (0.1, 0.1), object_id=1)
    >>> [layer.object_id for layer in with_reveal(rng, cutter, [tracked], natural=1.0, shot=shot)]
    [1, 0]
    """
    number = int(rng.choice([number for number, layer in enumerate(layers) if layer.object_id]))
    target, layers = layers[number], list(layers)
    if rng.random() < 0.4:
        x, y = target.motion.centre[0].tolist()
        shift = come_in(rng, shot.frames, start=(x, y), half=max(target.half))
        of_object = target.object_id  # all of its parts move together
        return [replace(one, motion=one.motion.moved(shift)) if one.object_id == of_object else one for one in layers]
    return [*layers, _hider(rng, cutter, shot, _Passed(target.motion.centre, target.half, None, natural))]


def reveal_path(rng: Generator, cutter: Cutter, ids: Tensor, *, natural: float, shot: Shot) -> Layer:
    """What hides a part of object 1 of `ids` uint8 [T, H, W] in frame 0 and leaves it; see `with_reveal`.

    >>> import numpy as np
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from stmemory.training.data.material import Material, pack
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "cutouts").mkdir()
    ...     Image.new("RGBA", (20, 20), "red").save(Path(folder) / "cutouts" / "red.png")
    ...     _ = pack(folder, Path(folder) / "packed.safetensors")
    ...     material = Material.load(Path(folder) / "packed.safetensors")
    >>> ids, shot = torch.zeros(4, 32, 32, dtype=torch.uint8), Shot(frames=4, gap=1, size=32)
    >>> ids[:, 8:16, 8:16] = 1
    >>> reveal_path(np.random.default_rng(0), Cutter(material), ids, natural=1.0, shot=shot).object_id
    0
    """
    path, half = _path_of(ids == 1)
    return _hider(rng, cutter, shot, _Passed(path, half, None, natural))


def _hider(rng: Generator, cutter: Cutter, shot: Shot, passed: _Passed) -> Layer:
    """An untracked cut-out about as large as what it hides in part."""
    factor = rng.uniform(0.7, 1.4)
    half_sizes = (passed.half[0] * factor, passed.half[1] * factor)
    cutout = cutter.cut(rng, natural=passed.natural, side=2 * max(half_sizes) * shot.size)
    motion = shot.motion(rng, centre=(0.5, 0.5), speed=0.5, elastic=0.05)
    centres = draw_back(rng, passed.path, reach=max(passed.half) + max(half_sizes))
    return Layer(cutout, motion.moved(centres - motion.centre), half_sizes, 0)


def _occluder(rng: Generator, cutter: Cutter, shot: Shot, passed: _Passed) -> Layer:
    """An untracked cut-out, larger than what it passes over."""
    factor = rng.uniform(1.4, 2.2)
    half_sizes = (passed.half[0] * factor, passed.half[1] * factor)
    cutout = cutter.cut(rng, natural=passed.natural, side=2 * max(half_sizes) * shot.size)
    motion = shot.motion(rng, centre=(0.5, 0.5), speed=0.5, elastic=0.05)
    centres = pass_over(rng, passed.path, reach=1.3 * (max(passed.half) + max(half_sizes)), window=passed.window)
    return Layer(cutout, motion.moved(centres - motion.centre), half_sizes, 0)


def _path_of(masks: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Centres float32 [T, 2] and half sizes in frame 0 of a mask [T, H, W] that is not empty in frame 0, in frame
    sides."""
    size = masks.shape[-1]
    x, y, half_width, half_height = box_of(masks[0])
    centres = [torch.tensor([x, y])]
    for mask in masks[1:]:
        centres.append(torch.tensor(box_of(mask)[:2]) if bool(mask.any()) else centres[-1])
    return torch.stack(centres) / size, (min(0.4, half_width / size), min(0.4, half_height / size))
