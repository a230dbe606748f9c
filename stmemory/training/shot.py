"""Shots: what a scene is asked for, how its frames are taken, and the layers that move in it. Draws and renders
nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from numpy.random import Generator

from stmemory.training.cutting import Cutout
from stmemory.training.motion import Motion, random_motion

__all__ = ["Layer", "SceneConfig", "Shot"]

_SHUTTER = 0.6  # of the time between two moments
_MOST_STEPS = 9  # moments of one exposure; more would cost time that nobody sees
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
