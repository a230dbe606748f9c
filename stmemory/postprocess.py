"""From each object's probabilities to a frame's result: aggregation, labels, given masks, and regions far away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stmemory.errors import OptionError, ShapeError
from stmemory.io.frames import WorkingSize
from stmemory.io.masks import ObjectMasks, bounding_box
from stmemory.result import Segmentation
from stmemory.window import Window

__all__ = [
    "GivenMasks",
    "Labels",
    "ids_from",
    "ids_of_winners",
    "impose",
    "impose_answers",
    "keep_near",
    "largest_logit",
    "last_places",
    "logits_at",
    "mask_logits",
    "object_scores",
    "remove_false_positives",
    "segmentation_of",
    "soft_aggregate",
    "soft_aggregate_logits",
    "winners",
]

Boxes = Sequence[tuple[int, int, int, int]]  # top, bottom, left, right of each object, px, ends excluded

EPSILON = 1e-7
LARGEST_LOGIT = math.log((1 - EPSILON) / EPSILON)
LEAST_LOGIT = 1e-4  # of a winner that is no better than another
_FEW = 3  # objects that are summed one by one
_PARTS = 1 << 30  # of a probability, in sums that must not depend on their order


@dataclass(frozen=True, eq=False)
class Labels:
    """What a frame came to at one resolution, computed once: which object has each pixel, and how surely.

    Attributes:
        probabilities: `[1 + N, H, W]`, background first, sums to 1.
        winner: int32 `[H, W]`, 0 to N, see `winners`.
        scores: float32 `[N]` in [0, 1], see `object_scores`.
        areas: int64 `[N]`, pixels that each object wins.

    >>> labels = Labels.of(torch.tensor([[0.25], [0.75]]).view(2, 1, 1))
    >>> labels.winner.tolist(), labels.scores.tolist(), labels.areas.tolist()
    ([[1]], [0.75], [1])
    """

    probabilities: Tensor
    winner: Tensor
    scores: Tensor
    areas: Tensor

    @classmethod
    def of(cls, probabilities: Tensor, winner: Tensor | None = None, *, boxes: Boxes | None = None) -> Labels:
        """Label the pixels of `probabilities`.

        Args:
            probabilities: see above.
            winner: where it is known already.
            boxes: see `soft_aggregate_logits`; None where objects may be anywhere.
        """
        winner = winners(probabilities, boxes) if winner is None else winner
        return cls(probabilities, winner, *object_scores(probabilities, winner, boxes))

    @property
    def masks(self) -> Tensor:
        """The pixels that each object wins, bool `[N, H, W]`."""
        return _masks(self.winner, len(self.areas))


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
            f"soft_aggregate: expected floats [N, H, W], got {probabilities.dtype} {tuple(probabilities.shape)}; "
            "pass the sigmoid of the logits"
        )
    if probabilities.dtype != torch.float64:
        probabilities = probabilities.to(torch.float32)
    below_one = probabilities.clamp(max=1 - EPSILON)
    log_rest = torch.log1p(-below_one)  # [N, H, W], log(1 - p)
    log_background = log_rest.sum(dim=0, keepdim=True)  # [1, H, W]
    background = log_background.clamp(min=math.log(EPSILON)) - (-torch.expm1(log_background)).clamp(min=EPSILON).log()
    objects = below_one.clamp(min=EPSILON).log() - log_rest
    return torch.cat([background, objects]).softmax(dim=0)


def soft_aggregate_logits(logits: Tensor, boxes: Boxes | None = None) -> Tensor:
    """`soft_aggregate` of the sigmoids of logits, worked out of the logits, and only where the objects may be.

    With odds o of an object, those of the background are 1 / E, where E = prod(1 + o) - 1. So an object comes to
    o E / (1 + E sum o), and the background to 1 / (1 + E sum o). Logits count as 16.1 at the most, as probabilities do
    there.

    Args:
        logits: float32 `[N, H, W]`.
        boxes: for each object top, bottom, left and right of a box, ends excluded, px, outside of which it is not; None
            looks everywhere.

    Returns:
        `[1 + N, H, W]`, background first, sums to 1.

    >>> found = soft_aggregate_logits(torch.tensor([0.75, 1e-9]).logit().view(2, 1, 1))
    >>> found.mul(100).round().flatten().tolist()
    [10.0, 90.0, 0.0]
    """
    places = _slices(boxes, logits)
    odds, rest = (logits.new_zeros(logits.shape[1:]) for _ in range(2))  # [H, W]: their sum, and log prod(1 + o)
    found = logits.new_zeros(1 + len(logits), *logits.shape[1:])
    for number, at in enumerate(places):
        own = logits[number][at].clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        rest[at] += F.softplus(own)
        odds[at] += own.exp_()
        found[1 + number][at] = own
    product = rest.clamp_max_(LARGEST_LOGIT).expm1_()  # E
    torch.addcmul(torch.ones_like(odds), odds, product, out=odds).reciprocal_()
    found[0] = odds
    product *= odds
    for number, at in enumerate(places):
        found[1 + number][at] *= product[at]
    return found


def largest_logit(logits: Tensor) -> Tensor:
    """Combine the objects' own logits into one distribution: a pixel is of the object with the largest logit above 0.

    The softmax of the logits and a background of 0, so one object alone keeps the sigmoid of its logit. This is how
    SAM 2 shares pixels between objects (its non-overlapping constraints).

    Args:
        logits: float32 `[N, H, W]`, N may be 0.

    Returns:
        `[1 + N, H, W]`, background first, sums to 1.

    >>> largest_logit(torch.tensor([[[1.0]], [[2.0]]])).argmax(0).tolist(), largest_logit(torch.zeros(0, 1, 1)).tolist()
    ([[2]], [[[1.0]]])
    """
    return torch.cat([logits.new_zeros(1, *logits.shape[1:]), logits]).softmax(0)


def winners(probabilities: Tensor, boxes: Boxes | None = None) -> Tensor:
    """Say for each pixel which map is the largest; at a tie the first.

    Args:
        probabilities: `[1 + N, H, W]`, background first.
        boxes: see `soft_aggregate_logits`.

    Returns:
        int32 `[H, W]`, 0 to N. Several times faster than `argmax` over the first dimension on the CPU.

    >>> winners(torch.tensor([[0.2, 0.5], [0.8, 0.5]]).view(2, 1, 2)).tolist()
    [[1, 0]]
    """
    best = probabilities[0].clone()
    winner = torch.zeros(best.shape, dtype=torch.int32, device=best.device)
    for number, at in enumerate(_slices(boxes, probabilities[1:]), start=1):
        own = probabilities[number][at]
        winner[at].masked_fill_(own > best[at], number)
        best[at] = torch.maximum(best[at], own)
    return winner


def object_scores(probabilities: Tensor, winner: Tensor, boxes: Boxes | None = None) -> tuple[Tensor, Tensor]:
    """How sure each object's mask is: the mean probability over the pixels where the object wins; 0 where it wins none.

    Args:
        probabilities: `[1 + N, H, W]`, background first.
        winner: int32 `[H, W]`, see `winners`.
        boxes: see `soft_aggregate_logits`.

    Returns:
        Scores float32 `[N]` in [0, 1], and the numbers of pixels int64 `[N]`.

    >>> object_scores(torch.tensor([[0.25], [0.75]]).view(2, 1, 1), torch.ones(1, 1).int())
    (tensor([0.7500]), tensor([1]))
    """
    count = len(probabilities) - 1
    if boxes is not None or 1 <= count <= _FEW:
        area = winner.new_zeros(count, dtype=torch.int64)
        total = torch.zeros_like(area)
        for number, at in enumerate(_slices(boxes, probabilities[1:])):
            mask = winner[at] == 1 + number
            area[number] = mask.sum()
            # whole numbers: their sum is the same in any order, on any device
            total[number] = (probabilities[1 + number][at] * mask).mul_(_PARTS).long().sum()
    else:  # one pass for all, which the CPU does on one thread
        numbers = winner.flatten().long()
        own = probabilities.flatten(1).gather(0, numbers[None])[0]  # [H W], each pixel's winning probability
        area = torch.bincount(numbers, minlength=1 + count)[1:]
        total = winner.new_zeros(1 + count, dtype=torch.int64).index_add(0, numbers, (own * _PARTS).long())[1:]
    return total.float() / area.clamp_min(1).float() / _PARTS, area


def segmentation_of(labels: Labels, object_ids: tuple[int, ...], *, frame_index: int) -> Segmentation:
    """The result of one frame.

    Args:
        labels: at the frame's own size.
        object_ids: the N ids, in the order of `labels`.
        frame_index: from 0.

    >>> labels = Labels.of(torch.tensor([[0.25], [0.75]]).view(2, 1, 1))
    >>> segmentation_of(labels, (7,), frame_index=0).scores
    {7: 0.75}
    """
    return Segmentation(
        frame_index=frame_index,
        ids=ids_of_winners(labels.winner, object_ids),
        probabilities=labels.probabilities,
        object_ids=object_ids,
        scores=dict(zip(object_ids, labels.scores.tolist(), strict=True)),
        present=dict(zip(object_ids, (labels.areas > 0).tolist(), strict=True)),
    )


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
    wins = _masks(winner, len(logs) - 1)
    against = logs[1:] - torch.where(wins, second, best)
    return torch.where(wins, against.clamp_min(LEAST_LOGIT), against)


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
        if not masks.object_ids:
            nothing = full.new_zeros(0, size.padded_height, size.padded_width)
            return cls((), full, void, nothing, torch.zeros_like(nothing, dtype=torch.bool).any(0))
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


def logits_at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits `[N, h, w]` at another size, bilinearly and not antialiased, `[N, H, W]`.

    >>> logits_at(torch.zeros(2, 4, 4), (8, 6)).shape
    torch.Size([2, 8, 6])
    """
    if not len(logits):
        return logits.new_zeros(0, *size)
    if logits.shape[1:] == size:
        return logits
    return F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def impose_answers(
    working: Tensor, full: Tensor, logits: Tensor, rows: list[int], size: WorkingSize, window: Window
) -> tuple[Tensor, Tensor]:
    """Put what a network answered to prompts in place of what was found: these objects have the pixels above 0, the
    others keep what is left.

    Args:
        working: `[1 + N, H', W']`, what was found, at the padded working size through the window.
        full: `[1 + N, H, W]`, the same at the frame's own size.
        logits: `[R, h, w]`, the answers, through the window.
        rows: R indices into the N objects.
        size: of the frame.
        window: what the network looked through.

    Returns:
        Both with the answers.
    """
    near = logits_at(logits, (size.padded_height, size.padded_width)).sigmoid()
    own = logits_at(logits, (window.height, window.width)).sigmoid()
    if not window.is_whole(size):
        own = window.paste(own, own.new_zeros(len(own), size.frame_height, size.frame_width))
    near, own = (torch.where(answer > 0.5, answer, torch.zeros_like(answer)) for answer in (near, own))
    nothing = [torch.zeros(answer.shape[1:], dtype=torch.bool, device=answer.device) for answer in (near, own)]
    return impose(working, near, nothing[0], rows), impose(full, own, nothing[1], rows)


def keep_near(probabilities: Tensor, winner: Tensor, places: Tensor, *, reach: int) -> tuple[Tensor, Tensor]:
    """Give regions that are far from an object's last place to the background (section 3.4.1).

    Args:
        probabilities: `[1 + N, H, W]`, sums to 1.
        winner: int32 `[H, W]`, see `winners`.
        places: bool `[N, H, W]`, where each object was seen last.
        reach: see `remove_false_positives`, px.

    Returns:
        Probabilities `[1 + N, H, W]`, which sum to 1, and their winners `[H, W]`; the arguments themselves where
        nothing is far.

    >>> found = torch.tensor([[0.1, 0.9, 0.1], [0.9, 0.1, 0.9]]).view(2, 1, 3)
    >>> near, winner = keep_near(found, winners(found), torch.tensor([[[True, False, False]]]), reach=0)
    >>> winner.tolist()
    [[1, 0, 0]]
    """
    masks = _masks(winner, len(probabilities) - 1)
    far = masks & ~remove_false_positives(masks, places, reach=reach)
    if not bool(far.any()):
        return probabilities, winner
    result = probabilities.clone()
    result[1:].masked_fill_(far, 0.0)
    result[0] = (1 - result[1:].sum(0)).clamp_min(0)
    return result, winners(result)


def last_places(masks: Tensor, before: Tensor | None) -> Tensor:
    """The pixels where each object was seen last: an object that is not seen now stays where it was.

    Args:
        masks: bool `[N, H, W]`, the objects in this frame.
        before: bool `[M, H, W]`, the places of the first M <= N objects until now.

    Returns:
        bool `[N, H, W]`.

    >>> last_places(torch.zeros(1, 1, 1).bool(), torch.ones(1, 1, 1).bool()).item()
    True
    """
    if before is None:
        return masks
    known, new = masks[: len(before)], masks[len(before) :]
    seen = known.flatten(1).any(1)[:, None, None]
    return torch.cat([known | (before & ~seen), new])


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
    box = bounding_box(masks.any(dim=0) if masks.ndim == 3 else masks)
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


def _slices(boxes: Boxes | None, maps: Tensor) -> list[tuple[slice, slice]]:
    """The place of each object in its map, of maps `[N, H, W]`."""
    if boxes is None:
        return [(slice(None), slice(None))] * len(maps)
    return [(slice(top, bottom), slice(left, right)) for top, bottom, left, right in boxes]


def _masks(winner: Tensor, count: int) -> Tensor:
    """The pixels that each of `count` objects wins, bool `[N, H, W]`."""
    return winner == torch.arange(1, count + 1, device=winner.device).view(-1, 1, 1)
