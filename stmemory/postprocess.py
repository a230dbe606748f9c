"""From the network's probabilities and the user's masks to object ids: connected regions, and masks that are given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stmemory.errors import OptionError, ShapeError
from stmemory.io.frames import WorkingSize
from stmemory.io.masks import ObjectMasks, ids_of_winners, winners
from stmemory.result import Segmentation
from stmemory.window import Window

__all__ = [
    "GivenMasks",
    "impose",
    "keep_near",
    "last_places",
    "object_scores",
    "remove_false_positives",
    "segmentation_of",
]


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


_FEW = 3  # objects that are summed one by one
_PARTS = 1 << 30  # of a probability, in sums that must not depend on their order


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """Masks that a user gave for one frame, at the frame's own size and at the working size.

    Attributes:
        object_ids: the G ids, sorted.
        full: `[G, H, W]` in [0, 1].
        full_void: bool `[H, W]`, where the user says nothing.
        working: `[G, H', W']`, the same through the window that is looked through, at the padded working size.
        working_void: bool `[H', W']`.
    """

    object_ids: tuple[int, ...]
    full: Tensor
    full_void: Tensor
    working: Tensor
    working_void: Tensor

    @classmethod
    def of(cls, masks: ObjectMasks, size: WorkingSize, window: Window) -> GivenMasks:
        """Bring masks to the working size."""
        full, void = masks.probabilities, masks.void
        return cls(masks.object_ids, full, void, window.see(full, size), window.see(void.float()[None], size)[0] > 0.5)


def impose(probabilities: Tensor, given: Tensor, void: Tensor, rows: list[int]) -> Tensor:
    """Put given masks in place of what was found: given objects are exactly there, the others keep what is left.

    Args:
        probabilities: `[1 + N, H, W]`, sums to 1.
        given: `[G, H, W]` in [0, 1], of the objects `rows`.
        void: bool `[H, W]`, where the found stays.
        rows: G indices into the N objects.

    Returns:
        `[1 + N, H, W]`, sums to 1.

    >>> found = torch.tensor([0.2, 0.8, 0.0]).view(3, 1, 1)
    >>> impose(found, torch.ones(1, 1, 1), torch.zeros(1, 1).bool(), [1]).flatten().tolist()
    [0.0, 0.0, 1.0]
    """
    if not rows:
        return probabilities
    given = given / given.sum(0).clamp_min(1)
    result = probabilities * (1 - given.sum(0))
    result[[1 + row for row in rows]] = given.to(result.dtype)
    result[0] = (1 - result[1:].sum(0)).clamp_min(0)
    return torch.where(void, probabilities, result)


def keep_near(probabilities: Tensor, places: Tensor, *, reach: int, winner: Tensor | None = None) -> Tensor:
    """Give regions that are far from an object's last place to the background (section 3.4.1).

    Args:
        probabilities: `[1 + N, H, W]`, sums to 1.
        places: bool `[N, H, W]`, where each object was seen last.
        reach: see `remove_false_positives`, px.
        winner: int32 `[H, W]`, where it is known, see `stmemory.io.masks.winners`.

    Returns:
        `[1 + N, H, W]`, sums to 1; `probabilities` themselves where nothing is far.

    >>> found = torch.tensor([[0.1, 0.9, 0.1], [0.9, 0.1, 0.9]]).view(2, 1, 3)
    >>> keep_near(found, torch.tensor([[[True, False, False]]]), reach=0)[1].gt(0.5).tolist()
    [[True, False, False]]
    """
    masks = _masks(probabilities, winner)
    far = masks & ~remove_false_positives(masks, places, reach=reach)
    if not bool(far.any()):
        return probabilities
    result = probabilities.clone()
    result[1:].masked_fill_(far, 0.0)
    result[0] = (1 - result[1:].sum(0)).clamp_min(0)
    return result


def last_places(probabilities: Tensor, before: Tensor | None, *, winner: Tensor | None = None) -> Tensor:
    """Where each object was seen last: who is not seen now stays where it was.

    Args:
        probabilities: `[1 + N, H, W]`, background first.
        before: bool `[M, H, W]`, the places of the first M <= N objects until now.
        winner: int32 `[H, W]`, where it is known, see `stmemory.io.masks.winners`.

    Returns:
        bool `[N, H, W]`.

    >>> last_places(torch.tensor([[0.9], [0.1]]).view(2, 1, 1), torch.ones(1, 1, 1).bool()).item()
    True
    """
    places = _masks(probabilities, winner)
    if before is not None:
        known = places[: len(before)]
        known |= before & ~known.flatten(1).any(1)[:, None, None]
    return places


def object_scores(probabilities: Tensor, winner: Tensor) -> tuple[Tensor, Tensor]:
    """How sure each object's mask is: the mean probability over the pixels where the object wins; 0 where it wins none.

    Args:
        probabilities: `[1 + N, H, W]`, background first.
        winner: int32 `[H, W]`, see `stmemory.io.masks.winners`.

    Returns:
        Scores float32 `[N]` in [0, 1], and the numbers of pixels int64 `[N]`.

    >>> object_scores(torch.tensor([[0.25], [0.75]]).view(2, 1, 1), torch.ones(1, 1).int())
    (tensor([0.7500]), tensor([1]))
    """
    count = len(probabilities) - 1
    if 1 <= count <= _FEW:
        masks = winner == torch.arange(1, count + 1, device=winner.device).view(-1, 1, 1)
        area = masks.flatten(1).sum(1)
        # whole numbers: their sum is the same in any order, on any device
        total = (probabilities[1:] * masks).mul_(_PARTS).long().flatten(1).sum(1)
    else:  # one pass for all, which the CPU does on one thread
        number = winner.flatten().long()
        own = probabilities.flatten(1).gather(0, number[None])[0]  # [H W], each pixel's winning probability
        area = torch.bincount(number, minlength=1 + count)[1:]
        total = winner.new_zeros(1 + count, dtype=torch.int64).index_add(0, number, (own * _PARTS).long())[1:]
    return total.float() / area.clamp_min(1).float() / _PARTS, area


def segmentation_of(probabilities: Tensor, object_ids: tuple[int, ...], *, frame_index: int) -> Segmentation:
    """What a user gets to hold of one frame.

    Args:
        probabilities: `[1 + N, H, W]`, at the frame's own size, background first, sums to 1.
        object_ids: the N ids, in the order of `probabilities`.
        frame_index: from 0.

    >>> segmentation_of(torch.tensor([[0.25], [0.75]]).view(2, 1, 1), (7,), frame_index=0).scores
    {7: 0.75}
    """
    winner = winners(probabilities)
    scores, area = object_scores(probabilities, winner)
    return Segmentation(
        frame_index=frame_index,
        ids=ids_of_winners(winner, object_ids),
        probabilities=probabilities,
        object_ids=object_ids,
        scores=dict(zip(object_ids, scores.tolist(), strict=True)),
        present=dict(zip(object_ids, (area > 0).tolist(), strict=True)),
    )


def _masks(probabilities: Tensor, winner: Tensor | None) -> Tensor:
    """Where each object wins, bool `[N, H, W]`, of `[1 + N, H, W]`."""
    winner = winners(probabilities) if winner is None else winner
    return winner == torch.arange(1, len(probabilities), device=winner.device).view(-1, 1, 1)
