"""Masks of any kind, as one soft map for each object: what counts as an object, an id and void."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stmemory.errors import MaskError
from stmemory.io.palette import read_mask
from stmemory.types import MaskLike

__all__ = [
    "LARGEST_ID",
    "MAX_OBJECTS",
    "ObjectMasks",
    "bounding_box",
    "to_object_masks",
]

MAX_OBJECTS = 200
LARGEST_ID = 2**31 - 1  # ids are int32 in results
_COUNTED = 2**16  # ids up to this are counted, larger ones sorted
SLACK = 1e-3  # resizing and half precision leave rounding errors


@dataclass(frozen=True, eq=False)
class ObjectMasks:
    """The objects of one mask.

    Attributes:
        object_ids: the N ids, above 0, sorted.
        probabilities: float32 `[N, H, W]` in [0, 1], in the order of `object_ids`; 0 where void.
        void: bool `[H, W]`, where the mask says nothing.
    """

    object_ids: tuple[int, ...]
    probabilities: Tensor
    void: Tensor


def to_object_masks(mask: MaskLike, *, height: int, width: int, allow_empty: bool = False) -> ObjectMasks:
    """Read a mask of any kind.

    | mask                                      | objects                                                        |
    |-------------------------------------------|----------------------------------------------------------------|
    | integers `[H, W]`                         | the non-zero values, unchanged: ids of the user's own choosing |
    | booleans `[H, W]`                         | object 1                                                       |
    | floats `[H, W]` in [0, 1]                 | object 1, soft                                                 |
    | booleans, or integers 0 and 1 `[N, H, W]` | objects 1 to N; where they overlap, the later one is on top    |
    | floats `[N, H, W]` in [0, 1]              | objects 1 to N, soft; where they overlap, each has its share   |
    | PIL image, or the path of an image file   | as integers: modes P, L, I, I;16; as booleans: 1; as floats: F |
    | PIL image or path: RGB, RGBA, LA          | as L, where all channels are equal and nothing is transparent  |

    255 is void in a palette image (mode P). In uint8 arrays and grey images (mode L) it is void beside other ids; where
    it is the only one, as in a black and white mask, it means object 1. A soft map that is never above
    0.5 has no pixel. Soft values up to 0.001 outside [0, 1] are clamped.

    Args:
        mask: an array or tensor as in the table, a PIL image, or a path.
        height: H of the frame.
        width: W of the frame.
        allow_empty: take a mask without any object, and leave out those of a stack that have no pixel, instead of
            raising.

    Returns:
        The objects, on the mask's device if it is a tensor, else on the CPU.

    Raises:
        MaskError: the size is not the frame's; no object, or an object without pixels; more than 200 objects; ids that
            are negative, above int32 or no integers; soft values outside [0, 1] or NaN; colours or a JPEG
            instead of ids; no such file.

    >>> import numpy as np
    >>> masks = to_object_masks(np.array([[0, 7], [300, 7]]), height=2, width=2)
    >>> masks.object_ids, masks.probabilities[1].tolist()
    ((7, 300), [[0.0, 0.0], [1.0, 0.0]])
    """
    values, void_id = read_mask(mask)
    if values.ndim not in (2, 3):
        raise MaskError(f"mask: expected [H, W] or [N, H, W], got shape {tuple(values.shape)}; pass one frame's mask")
    if tuple(values.shape[-2:]) != (height, width):
        hint = "resize it with nearest neighbours"
        if values.ndim == 3 and tuple(values.shape[:2]) == (height, width):
            hint = "put the objects first, as np.moveaxis(mask, -1, 0), or map colours to ids [H, W]"
        elif tuple(values.shape[-2:]) == (width, height):
            hint = "it looks turned by 90 degrees: turn it back, or the frames"
        raise MaskError(
            f"mask: expected the frame's size, {height} x {width} (H x W), got shape {tuple(values.shape)}; {hint}"
        )
    void = torch.zeros(height, width, dtype=torch.bool, device=values.device)
    if values.ndim == 2 and not values.is_floating_point() and values.dtype != torch.bool:
        if void_id is not None:
            void = values == void_id
        ids = _distinct_ids(values.masked_fill(void, 0))
        probabilities = (
            torch.stack([values == i for i in ids]).to(torch.float32)
            if ids
            else torch.zeros(0, height, width, dtype=torch.float32)
        )
    else:
        ids, probabilities = _stack(values if values.ndim == 3 else values[None], allow_empty=allow_empty)
    if not ids and not allow_empty:
        hint = "255 is void in it" if bool(void.any()) else "mark at least one pixel with an id above 0"
        raise MaskError(f"mask: expected at least one object, got a mask of background only; {hint}")
    return ObjectMasks(tuple(ids), probabilities.to(values.device), void)


def bounding_box(mask: Tensor) -> tuple[int, int, int, int] | None:
    """Top, bottom, left and right of the smallest box around a mask, px, bottom and right one past it; None where the
    mask is empty.

    Args:
        mask: bool `[H, W]`.

    >>> bounding_box(torch.tensor([[False, True, True]]))
    (0, 1, 1, 3)
    """
    rows, columns = (mask.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
    return (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else None


def _distinct_ids(values: Tensor) -> list[int]:
    ids = [i for i in _distinct(values) if i != 0]
    if len(ids) > MAX_OBJECTS:
        raise MaskError(
            f"mask: expected at most {MAX_OBJECTS} objects, got {len(ids)}; is it an image rather than an id map?"
        )
    if ids and (ids[0] < 0 or ids[-1] > LARGEST_ID):
        raise MaskError(f"mask: expected ids from 0 to {LARGEST_ID}, got {ids[0]} to {ids[-1]}; 0 is background")
    return ids


def _distinct(values: Tensor) -> list[int]:
    """The different values of integers `[H, W]`, sorted; counted where they are small, which is several times faster
    than sorting all pixels."""
    if values.numel() and values.dtype not in (torch.uint16, torch.uint32, torch.uint64):
        lowest, highest = (int(value) for value in torch.aminmax(values))
        if 0 <= lowest and highest <= _COUNTED:
            counts = torch.bincount(values.flatten().to(torch.int64), minlength=1)
            return [int(i) for i in counts.nonzero().flatten().tolist()]
    return [int(i) for i in torch.unique(values).tolist()]


def _stack(values: Tensor, *, allow_empty: bool) -> tuple[list[int], Tensor]:
    """Read bool, one-hot or soft maps [N, H, W] as the objects 1 to N."""
    count = len(values)
    if count > MAX_OBJECTS:
        raise MaskError(
            f"mask: expected at most {MAX_OBJECTS} objects, got a stack of {count}; is [N, H, W] what was meant?"
        )
    if values.numel() == 0:
        return [], values.to(torch.float32)
    if values.is_floating_point():
        _check_soft(values)
        probabilities = values.clamp(0, 1)
    else:
        if values.dtype != torch.bool and bool(((values != 0) & (values != 1)).any()):
            raise MaskError(
                f"mask: expected 0 and 1 in a stack [N, H, W] of integers, got {int(values.min())} to "
                f"{int(values.max())}; pass an id map as [H, W], or mask > 0"
            )
        claimed = values.bool()
        above = claimed.flip(0).cumsum(0).flip(0) - claimed.long()  # how many later objects claim the pixel
        probabilities = (claimed & (above == 0)).to(torch.float32)
    seen = probabilities.flatten(1).amax(dim=1) > 0.5
    empty = [number for number in range(1, count + 1) if not seen[number - 1]]
    if empty and not allow_empty and len(empty) < count:
        raise MaskError(
            f"mask: expected pixels of each object of the stack, got none of object {', '.join(map(str, empty))} "
            "(hidden by later ones, or never above 0.5); leave it out"
        )
    return [number for number in range(1, count + 1) if seen[number - 1]], probabilities[seen]


def _check_soft(values: Tensor) -> None:
    lowest, highest = (float(value) for value in torch.aminmax(values))
    if lowest >= -SLACK and highest <= 1 + SLACK:  # false for NaN
        return
    if not bool(values.isfinite().all()):
        raise MaskError("mask: expected soft values in [0, 1], got NaN or infinity; check what made the mask")
    whole = bool((values == values.round()).all())
    hint = (
        "ids must be integers: mask.astype(int) or mask.long()"
        if whole
        else "divide by the largest, or apply a sigmoid"
    )
    raise MaskError(f"mask: expected soft values in [0, 1], got floats in [{lowest:g}, {highest:g}]; {hint}")
