"""Labels in and out: masks of any kind become soft maps per object, soft maps become ids.

Owns what counts as an object and an id, and soft aggregation. Does not know how masks are stored (`mask_files.py`,
`palette.py`), which regions are believed (`regions.py`), networks or time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stmemory.errors import MaskError, ShapeError
from stmemory.io.palette import read_mask

__all__ = [
    "MAX_OBJECTS",
    "ObjectMasks",
    "ids_from",
    "ids_of_winners",
    "mask_logits",
    "soft_aggregate",
    "to_object_masks",
    "winners",
]

MAX_OBJECTS = 200
LARGEST_ID = 2**31 - 1  # ids are int32 in results
EPSILON = 1e-7
LEAST_LOGIT = 1e-4  # of a winner that is no better than another
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


def to_object_masks(mask: object, *, height: int, width: int, allow_empty: bool = False) -> ObjectMasks:
    """Read a mask of any kind.

    | mask                                      | objects                                                        |
    |-------------------------------------------|----------------------------------------------------------------|
    | integers `[H, W]`                         | the non-zero values, unchanged: ids of the user's own choosing |
    | booleans `[H, W]`                         | object 1                                                       |
    | floats `[H, W]` in [0, 1]                 | object 1, soft                                                 |
    | booleans, or integers 0 and 1 `[N, H, W]` | objects 1 to N; where they overlap, the later one is on top    |
    | floats `[N, H, W]` in [0, 1]              | objects 1 to N, soft; overlaps are left to `soft_aggregate`    |
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


def soft_aggregate(probabilities: Tensor) -> Tensor:
    """Combine the objects' own probabilities into one distribution over background and objects (STM, Oh et al. 2019).

    Background is what no object claims: p0 = prod(1 - p_i). Then each p becomes its odds p / (1 - p), and the odds are
    divided by their sum. Worked out in logarithms. Each p, p0 too, is clamped to [1e-7, 1 - 1e-7] in its odds, so 0 and
    1 stay finite, and two objects that both claim a pixel with 1 get one half each.

    Args:
        probabilities: `[N, H, W]` in [0, 1], N may be 0. Any dimensions after the first will do.

    Returns:
        `[1 + N, H, W]`, background first, sums to 1. float64 if `probabilities` are, else float32.

    Raises:
        ShapeError: `probabilities` have no dimension, or are not floats.

    >>> soft_aggregate(torch.tensor([[[0.75]], [[0.0]]])).mul(100).round().flatten().tolist()
    [10.0, 90.0, 0.0]
    """
    if probabilities.ndim == 0 or not probabilities.is_floating_point():
        raise ShapeError(
            f"soft_aggregate: expected floats [N, H, W], got {probabilities.dtype} {tuple(probabilities.shape)}; pass "
            "the "
            "sigmoid of the logits"
        )
    if probabilities.dtype != torch.float64:
        probabilities = probabilities.to(torch.float32)
    below_one = probabilities.clamp(max=1 - EPSILON)
    log_rest = torch.log1p(-below_one)  # [N, H, W], log(1 - p)
    log_background = log_rest.sum(dim=0, keepdim=True)  # [1, H, W]
    background = (
        log_background.clamp(min=float(np.log(EPSILON))) - (-torch.expm1(log_background)).clamp(min=EPSILON).log()
    )
    objects = below_one.clamp(min=EPSILON).log() - log_rest
    return torch.cat([background, objects]).softmax(dim=0)


def ids_from(probabilities: Tensor, object_ids: tuple[int, ...]) -> Tensor:
    """Say for each pixel which object is the most probable. At a tie the background wins, then the first object.

    Args:
        probabilities: `[1 + N, H, W]`, background first.
        object_ids: the N ids, in the order of `probabilities`.

    Returns:
        int32 `[H, W]`, 0 = background.

    Raises:
        ShapeError: the number of ids is not N.

    >>> ids_from(torch.tensor([[[0.2, 0.9]], [[0.8, 0.1]]]), (7,))
    tensor([[7, 0]], dtype=torch.int32)
    """
    if probabilities.ndim != 3 or probabilities.shape[0] != 1 + len(object_ids):
        raise ShapeError(
            f"ids_from: expected [1 + N, H, W] with N = {len(object_ids)} ids, got {tuple(probabilities.shape)}; the "
            "background comes first"
        )
    return ids_of_winners(winners(probabilities), object_ids)


def winners(probabilities: Tensor) -> Tensor:
    """Say for each pixel which map is the largest; at a tie the first.

    Args:
        probabilities: `[1 + N, H, W]`, background first.

    Returns:
        int32 `[H, W]`, 0 to N. Several times faster than `argmax` over the first dimension on the CPU.

    >>> winners(torch.tensor([[0.2, 0.5], [0.8, 0.5]]).view(2, 1, 2)).tolist()
    [[1, 0]]
    """
    best = probabilities[0]
    winner = torch.zeros(best.shape, dtype=torch.int32, device=best.device)
    for number in range(1, len(probabilities)):
        better = probabilities[number] > best
        winner = winner.masked_fill(better, number)
        best = torch.maximum(best, probabilities[number])
    return winner


def mask_logits(probabilities: Tensor) -> Tensor:
    """The log-odds of each object against the best of its rivals, the background among them.

    Above 0 is exactly where the object wins the pixel, as in `Segmentation.ids`, so masks never overlap. With one
    object it is the logit of its probability. With several it is not: of 0.4, 0.35 and 0.25 the first wins, though its
    own logit is negative.

    Args:
        probabilities: `[1 + N, H, W]`, background first, sums to 1.

    Returns:
        float32 `[N, H, W]`, between -16.2 and 16.2.

    >>> mask_logits(torch.tensor([0.25, 0.4, 0.35]).view(3, 1, 1)).gt(0).flatten().tolist()
    [True, False]
    """
    logs = probabilities.float().clamp_min(EPSILON).log()
    winner = winners(probabilities)
    best, second = logs[0], torch.full_like(logs[0], -torch.inf)
    for one in logs[1:]:
        second = torch.maximum(second, torch.minimum(best, one))
        best = torch.maximum(best, one)
    wins = winner == torch.arange(1, len(logs), device=winner.device).view(-1, 1, 1)
    against = logs[1:] - torch.where(wins, second, best)
    return torch.where(wins, against.clamp_min(LEAST_LOGIT), against)


def ids_of_winners(winner: Tensor, object_ids: tuple[int, ...]) -> Tensor:
    """Replace object numbers by ids.

    Args:
        winner: int32 `[H, W]`, 0 to N, see `winners`.
        object_ids: the N ids.

    Returns:
        int32 `[H, W]`, 0 = background.

    >>> ids_of_winners(torch.tensor([[1, 0]]).int(), (7,)).tolist()
    [[7, 0]]
    """
    if object_ids == tuple(range(1, len(object_ids) + 1)):
        return winner
    names = torch.tensor((0, *object_ids), dtype=torch.int32, device=winner.device)
    return names[winner.long()]


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
                f"{int(values.max())}; "
                "pass an id map as [H, W], or mask > 0"
            )
        claimed = values.bool()
        above = claimed.flip(0).cumsum(0).flip(0) - claimed.long()  # how many later objects claim the pixel
        probabilities = (claimed & (above == 0)).to(torch.float32)
    seen = probabilities.flatten(1).amax(dim=1) > 0.5
    empty = [number for number in range(1, count + 1) if not seen[number - 1]]
    if empty and not allow_empty and len(empty) < count:
        raise MaskError(
            f"mask: expected pixels of each object of the stack, got none of object {', '.join(map(str, empty))} "
            "(hidden by "
            "later ones, or never above 0.5); leave it out"
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
