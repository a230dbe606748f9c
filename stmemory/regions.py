"""Which regions of a mask are believed: those that hang together with the object's last place (section 3.4.1).

Owns the removal of false positives. Does not know ids, probabilities (`masks.py`) or time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stmemory.errors import OptionError, ShapeError

__all__ = ["remove_false_positives"]


def remove_false_positives(masks: Tensor, previous: Tensor, *, reach: int) -> Tensor:
    """Remove regions that are far from the object's last place (section 3.4.1).

    A region is a set of pixels of a mask that are connected over sides or corners. It stays, whole, if one of its
    pixels is at most `reach` pixels (in a square neighbourhood) from the previous mask; so distance is walked inside
    the object, not through the air. An object that was nowhere before, or all of whose regions are too far away, keeps
    everything: it may have jumped, and no object is ever removed.

    Args:
        masks: bool `[N, H, W]` or `[H, W]`, the objects in this frame.
        previous: the same in the frame before.
        reach: how many pixels an object may move from frame to frame, at least 0.

    Returns:
        bool, shaped as `masks`, which is left as it is.

    Raises:
        ShapeError: `masks` and `previous` are not booleans of one such shape.
        OptionError: `reach` is below 0.

    >>> remove_false_positives(torch.tensor([[1, 1, 0, 1]]).bool(), torch.tensor([[1, 0, 0, 0]]).bool(), reach=1)
    tensor([[ True,  True, False, False]])
    """
    shapes = masks.shape == previous.shape and masks.ndim in (2, 3)
    if not shapes or masks.dtype != torch.bool or previous.dtype != torch.bool:
        raise ShapeError(
            "remove_false_positives: expected booleans [N, H, W] or [H, W] of one shape, got "
            f"{masks.dtype} {tuple(masks.shape)} and {previous.dtype} {tuple(previous.shape)}; compare ids with the "
            "object's id"
        )
    if reach < 0:
        raise OptionError(
            f"reach: expected a number of pixels from 0 up, got {reach}; 0 keeps what overlaps the last place"
        )
    box = _bounding_box(masks, margin=0)
    if box is None:
        return masks.clone()
    top, bottom, left, right = box
    inside = masks[..., top:bottom, left:right]
    seeds = inside & _near(previous, reach, box)
    if torch.equal(seeds, inside):
        return masks.clone()  # the common case: nothing is far away
    kept = _flood(seeds, inside)
    lost = ~kept.flatten(-2).any(dim=-1)[..., None, None]  # nowhere before, or jumped
    result = torch.zeros_like(masks)
    result[..., top:bottom, left:right] = torch.where(lost, inside, kept)
    return result


def _bounding_box(masks: Tensor, *, margin: int) -> tuple[int, int, int, int] | None:
    """Find top, bottom, left, right (ends excluded) of what is true in any of the masks."""
    plane = masks.any(dim=0) if masks.ndim == 3 else masks
    rows, columns = plane.any(dim=1).nonzero(), plane.any(dim=0).nonzero()
    if len(rows) == 0:
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _near(previous: Tensor, reach: int, box: tuple[int, int, int, int]) -> Tensor:
    """Say which pixels of the box have a true pixel of `previous` at most `reach` rows and columns away."""
    top, bottom, left, right = box
    first_row, first_column = max(0, top - reach), max(0, left - reach)
    near = previous[..., first_row : bottom + reach, first_column : right + reach]
    near = _dilate(_dilate(near, reach, dim=-2), reach, dim=-1)
    rows, columns = top - first_row, left - first_column
    return near[..., rows : rows + bottom - top, columns : columns + right - left]


def _dilate(masks: Tensor, reach: int, *, dim: int) -> Tensor:
    """Widen by `reach` both ways along one dimension, in steps that double: log2(reach) steps, not `reach`."""
    done = 0
    while done < reach:
        step = min(done + 1, reach - done)  # a longer step would jump over pixels beside the border
        length = masks.shape[dim] - step
        if length <= 0:
            return masks
        wider = masks.clone()
        wider.narrow(dim, step, length).logical_or_(masks.narrow(dim, 0, length))
        wider.narrow(dim, 0, length).logical_or_(masks.narrow(dim, step, length))
        masks, done = wider, done + step
    return masks


def _flood(seeds: Tensor, inside: Tensor) -> Tensor:
    """Grow the seeds within `inside` until nothing is added: whole straight runs at a time, in eight directions."""
    while True:
        grown = _dilate(_dilate(seeds, 1, dim=-2), 1, dim=-1) & inside
        if torch.equal(grown, seeds):
            return seeds
        for down, along in ((0, 1), (1, 0), (1, 1), (1, -1)):
            grown = _fill(grown, inside, down, along)
            grown = _fill(grown, inside, -down, -along)
        seeds = grown


def _fill(seeds: Tensor, inside: Tensor, down: int, along: int) -> Tensor:
    """Carry the seeds in one direction through the runs of `inside`, 1, 2, 4, ... pixels at a time."""
    filled, passable = seeds.clone(), inside.clone()
    height, width = inside.shape[-2:]
    step = 1
    while step * abs(down) < height and step * abs(along) < width:
        target, source = _shifted(height, step * down), _shifted(height, -step * down)
        across, back = _shifted(width, step * along), _shifted(width, -step * along)
        open_ahead = passable[..., target, across]
        filled[..., target, across] |= open_ahead & filled[..., source, back]
        # what is left passable are pixels with `2 * step` of `inside` in a row that ends there
        narrower = torch.zeros_like(passable)
        narrower[..., target, across] = open_ahead & passable[..., source, back]
        passable, step = narrower, 2 * step
    return filled


def _shifted(length: int, shift: int) -> slice:
    """The places that a shift lands on within 0 to `length`."""
    return slice(max(0, shift), length + min(0, shift))
