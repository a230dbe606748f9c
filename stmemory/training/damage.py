"""Damage: what goes wrong with the masks that are fed back, so that a network learns to mend it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Damage", "damaged", "draw_damage"]

_LEAST, _MOST = 0.1, 0.6  # share of an object that is erased, or of its size that a false part is away from it
_LONGEST = 8  # frames


@dataclass(frozen=True)
class Damage:
    """What goes wrong with one object's masks.

    Attributes:
        first: frame in which it begins.
        last: the last frame of it.
        angle: radians; the side of the object that is erased, or at which the false part stands.
        share: share of the object's pixels that are erased; or how far away the false part is, of the side of a square
            as large as the object.
        adds: whether a false part is added, a copy of the object's own mask; else a part is erased.
    """

    first: int
    last: int
    angle: float
    share: float
    adds: bool


def draw_damage(rows: int, frames: int, probability: float, generator: torch.Generator) -> tuple[Damage | None, ...]:
    """Draw for each row what will happen to it, or that nothing will.

    Args:
        rows: B.
        frames: T of the clip; frame 0 is never damaged.
        probability: probability of damage, for each row.
        generator: the only source of chance; asked for nothing where the probability is 0.

    >>> draw_damage(2, 8, 0.0, torch.Generator())
    (None, None)
    """
    if probability == 0 or frames < 3:
        return (None,) * rows
    found: list[Damage | None] = []
    for row in torch.rand(rows, 6, generator=generator).tolist():
        first = 1 + int(row[1] * (frames - 2))
        last = first + int(row[2] * _LONGEST)
        adds = row[5] < 0.3
        share = _LEAST + row[4] * (_MOST - _LEAST) + (0.5 if adds else 0.0)
        found.append(Damage(first, last, row[3] * 2 * math.pi, share, adds) if row[0] < probability else None)
    return tuple(found)


def damaged(masks: Tensor, damages: tuple[Damage | None, ...], time: int) -> Tensor:
    """The masks of a frame with what goes wrong in it; the same tensor where nothing does.

    Args:
        masks: `[B, H, W]` in [0, 1].
        damages: damages of the B rows.
        time: index of the frame.

    >>> masks = torch.zeros(1, 8, 8)
    >>> masks[0, 2:6, 2:6] = 1
    >>> half = Damage(first=1, last=1, angle=0.0, share=0.5, adds=False)
    >>> damaged(masks, (half,), 1)[0, 3].tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    """
    rows = list(masks)
    changed = False
    for number, damage in enumerate(damages):
        if damage is None or not damage.first <= time <= damage.last:
            continue
        y, x = (rows[number].detach() > 0.5).nonzero().unbind(1)
        if len(y) < 4:
            continue
        rows[number], changed = (_with_copy if damage.adds else _without_part)(rows[number], damage, y, x), True
    return torch.stack(rows) if changed else masks


def _without_part(mask: Tensor, damage: Damage, y: Tensor, x: Tensor) -> Tensor:
    """Erase a side of the object, as many of its pixels as the share says."""
    along, down = math.cos(damage.angle), math.sin(damage.angle)
    place = x.float() * along + y.float() * down
    border = place.kthvalue(max(1, round(damage.share * len(place)))).values
    height, width = mask.shape
    rows = torch.arange(height, device=mask.device, dtype=torch.float32)[:, None]
    columns = torch.arange(width, device=mask.device, dtype=torch.float32)[None]
    return mask * (rows * down + columns * along > border)


def _with_copy(mask: Tensor, damage: Damage, y: Tensor, x: Tensor) -> Tensor:
    """Add a copy of the object beside it."""
    distance = damage.share * math.sqrt(len(y))
    down, along = round(distance * math.sin(damage.angle)), round(distance * math.cos(damage.angle))
    height, width = mask.shape
    if abs(down) >= height or abs(along) >= width:
        return mask
    copy = torch.zeros_like(mask)
    copy[max(0, down) : height + min(0, down), max(0, along) : width + min(0, along)] = mask[
        max(0, -down) : height - max(0, down), max(0, -along) : width - max(0, along)
    ]
    return torch.maximum(mask, copy)
