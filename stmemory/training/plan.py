"""Plans: all that was decided about a clip, with the pictures that it is made of, before any of its pixels. Draws
nothing.

A plan is small beside its clip, holds tensors on one device, and is the same whether a worker, another process or a GPU
renders it; see `developing`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stmemory.training.cutting import Cutout
from stmemory.training.photometric import Look
from stmemory.training.placing import Placement

__all__ = ["ClipPlan", "Film", "Ground", "Pasted", "Scene"]


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
