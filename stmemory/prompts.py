"""`Prompt`: points and a box that say where an object is in a frame, where nobody painted its mask."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from stmemory.errors import MaskError
from stmemory.io.masks import LARGEST_ID, ObjectMasks
from stmemory.networks.tracking import Given
from stmemory.window import Window

__all__ = ["Prompt", "Prompter", "PromptsLike", "given_rows", "inside", "ready_prompts", "with_prompted"]

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Prompt:
    """Where one object is in a frame: points in it, points that are not in it, a box around it, or several of these.

    Coordinates are pixels of the frame, x to the right and y down; 0, 0 is the top left corner of the frame.

    Attributes:
        object_id: the object's, a whole number above 0.
        points: (x, y) of pixels of the object.
        not_points: (x, y) of pixels that are not of the object. Alone they can only correct what was found of it, see
            `VOSStream.correct`.
        box: (x0, y0, x1, y1), left, top, right and bottom of a box around the object.

    Raises:
        MaskError: the id or a number cannot be used, the box has no area, or there is nothing of the three.

    >>> Prompt(7, points=[(40, 25)], box=(20, 10, 60, 40))
    Prompt(object_id=7, points=((40.0, 25.0),), not_points=(), box=(20.0, 10.0, 60.0, 40.0))
    """

    object_id: int
    points: Sequence[Point] = ()
    not_points: Sequence[Point] = ()
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.object_id, np.integer):
            object.__setattr__(self, "object_id", int(self.object_id))
        if type(self.object_id) is not int or not 1 <= self.object_id <= LARGEST_ID:
            raise MaskError(f"prompt: expected object_id from 1 to {LARGEST_ID}, got {self.object_id!r}; choose one")
        for name in ("points", "not_points"):
            object.__setattr__(self, name, _points(name, getattr(self, name)))
        if self.box is not None:
            object.__setattr__(self, "box", _box(self.box))
        if self.box is None and not self.points and not self.not_points:
            raise MaskError(
                f"prompt of object {self.object_id}: expected a point of the object or a box around it, got neither"
            )

    def labelled(self) -> tuple[list[Point], list[int]]:
        """All its points, with SAM's labels: 2 and 3 for the corners of the box, then 1 in the object and 0 not.

        >>> Prompt(7, points=[(40, 25)], box=(20, 10, 60, 40)).labelled()
        ([(20.0, 10.0), (60.0, 40.0), (40.0, 25.0)], [2, 3, 1])
        """
        corners = [] if self.box is None else [(self.box[0], self.box[1]), (self.box[2], self.box[3])]
        labels = [2, 3][: len(corners)] + [1] * len(self.points) + [0] * len(self.not_points)
        return [*corners, *self.points, *self.not_points], labels


PromptsLike: TypeAlias = Prompt | Iterable[Prompt]


class Prompter(Protocol):
    """Makes masks of prompts for networks that take masks alone: `lite` is its own, others need one."""

    def masks(self, frame: Tensor, prompts: Sequence[Prompt], last: Mapping[int, Tensor]) -> Tensor:
        """The objects' own masks.

        Args:
            frame: float32 `[3, H, W]`, RGB in [0, 1].
            prompts: of R objects, all inside the frame.
            last: what was found of the objects in this frame before the prompts, probabilities `[H, W]` by id;
                objects that were not found are missing.

        Returns:
            Probabilities, float32 `[R, H, W]` in [0, 1]; 0.5 and more is the object.
        """


def ready_prompts(
    prompts: PromptsLike | None, *, height: int, width: int, found: Collection[int] = ()
) -> tuple[Prompt, ...]:
    """The prompts of a frame, one for each object, checked.

    Args:
        prompts: one, several, or None for none.
        height: H of the frame, px.
        width: W of the frame, px.
        found: ids of objects that were found in the frame already, and may be corrected by what they are not.

    Raises:
        MaskError: they are of another kind, two are of one object, one lies outside of the frame, or has neither a
            point of the object nor a box and the object was not found.

    >>> [prompt.object_id for prompt in ready_prompts(Prompt(7, [(3, 2)]), height=4, width=6)]
    [7]
    """
    if prompts is None:
        return ()
    several = [prompts] if isinstance(prompts, Prompt) else prompts
    if isinstance(several, (str, bytes)) or not isinstance(several, Iterable):
        raise MaskError(f"prompts: expected Prompt(object_id, points=..., box=...) or several, got {prompts!r}")
    ready = tuple(several)
    if wrong := [one for one in ready if not isinstance(one, Prompt)]:
        raise MaskError(f"prompts: expected Prompt(object_id, points=..., box=...) or several, got {wrong[0]!r}")
    ids = [one.object_id for one in ready]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise MaskError(f"prompts: expected one of each object, got several of {twice}; put all points into one")
    for one in ready:
        if one.box is None and not one.points and one.object_id not in found:
            raise MaskError(
                f"prompt of object {one.object_id}: expected a point of the object or a box around it, got neither; "
                "what is not the object does not say where it is"
            )
        corners = () if one.box is None else (one.box[:2], one.box[2:])
        for x, y in (*one.points, *one.not_points, *corners):
            if not (0 <= x <= width and 0 <= y <= height):
                raise MaskError(
                    f"prompt of object {one.object_id}: expected x from 0 to {width} and y from 0 to {height}, got "
                    f"({x:g}, {y:g}), which is outside the frame; give pixels of the frame, x first"
                )
    return ready


def with_prompted(masks: ObjectMasks, prompts: Sequence[Prompt], made: Tensor) -> ObjectMasks:
    """Masks that a user gave, and beside them those that a prompter made.

    Args:
        masks: what was given, of other objects.
        prompts: of R objects.
        made: float `[R, H, W]` in [0, 1], their masks.

    Raises:
        MaskError: a mask is empty.
    """
    ids = [prompt.object_id for prompt in prompts]
    if empty := [i for i, one in zip(ids, made, strict=True) if not bool((one >= 0.5).any())]:
        raise MaskError(f"prompts: nothing was found of {empty}; move the points or the box, or give a mask")
    given = masks.probabilities
    free = 1 - given.amax(0) if len(given) else torch.ones_like(masks.void, dtype=given.dtype)
    made = made.to(given.device).float().clamp(0, 1) * free  # given masks stay as they are
    both, names = torch.cat([given, made]), (*masks.object_ids, *ids)
    order = sorted(range(len(names)), key=names.__getitem__)
    return ObjectMasks(tuple(names[n] for n in order), both[order], masks.void)


def given_rows(masks: ObjectMasks, prompts: Sequence[Prompt], object_ids: Sequence[int], window: Window) -> list[Given]:
    """What is said of each object of a frame, for a network, which sees it through a window.

    Args:
        masks: of some objects.
        prompts: of others.
        object_ids: those of the rows that there are; new ids get the rows after them, masks first.
        window: what the network looks through.
    """
    rows = {object_id: row for row, object_id in enumerate(object_ids)}
    device, given = masks.probabilities.device, []
    for object_id, mask in zip(masks.object_ids, masks.probabilities, strict=True):
        given.append(Given(rows.setdefault(object_id, len(rows)), mask=window.part(mask)))
    for prompt in prompts:
        places, labels = prompt.labelled()
        points = torch.tensor(places, dtype=torch.float32, device=device).view(-1, 2)
        points = points - torch.tensor([window.left, window.top], dtype=torch.float32, device=device)
        row, kinds = rows.setdefault(prompt.object_id, len(rows)), torch.tensor(labels, device=device)
        given.append(Given(row, points=points, labels=kinds))
    return given


def inside(window: Window, prompts: Sequence[Prompt]) -> bool:
    """Whether all points and boxes lie in a window."""
    points = [point for prompt in prompts for point in prompt.labelled()[0]]
    return all(0 <= x - window.left <= window.width and 0 <= y - window.top <= window.height for x, y in points)


def _points(name: str, given: Iterable[Point]) -> tuple[Point, ...]:
    """Pairs of finite numbers."""
    try:
        points = tuple((float(x), float(y)) for x, y in given)
    except (TypeError, ValueError) as error:
        raise MaskError(f"prompt: expected {name} as [(x, y), ...], got {given!r}") from error
    if not all(math.isfinite(value) for point in points for value in point):
        raise MaskError(f"prompt: expected finite numbers in {name}, got {given!r}")
    return points


def _box(given: Iterable[float]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box that has an area."""
    try:
        left, top, right, bottom = (float(side) for side in given)
    except (TypeError, ValueError) as error:
        raise MaskError(f"prompt: expected box as (x0, y0, x1, y1), got {given!r}") from error
    if not (math.isfinite(left + top + right + bottom) and left < right and top < bottom):
        raise MaskError(
            f"prompt: expected a box with x0 < x1 and y0 < y1, got {given!r}; give left, top, right and bottom"
        )
    return left, top, right, bottom
