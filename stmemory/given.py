"""What a user says about a frame, how it enters what the network found, and what comes of both. Knows no network and no
time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stmemory.frames import WorkingSize
from stmemory.masks import ObjectMasks, ids_of_winners, winners
from stmemory.regions import remove_false_positives
from stmemory.result import Segmentation
from stmemory.window import Window

__all__ = ["GivenMasks", "impose", "keep_near", "last_places", "object_scores", "segmentation_of"]

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
        winner: int32 `[H, W]`, where it is known, see `stmemory.masks.winners`.

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
        winner: int32 `[H, W]`, where it is known, see `stmemory.masks.winners`.

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
        winner: int32 `[H, W]`, see `stmemory.masks.winners`.

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
