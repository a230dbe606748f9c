"""Clips through the network and its memory, frame by frame, and the losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stmemory.io.frames import WorkingSize
from stmemory.memory.discriminative import DiscriminativeMemory
from stmemory.memory.policy import UpdatePolicy
from stmemory.memory.read import ReadCache
from stmemory.networks.layers import FrameFeatures
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.damage import Damage, damaged, draw_damage
from stmemory.training.views import Views, carried, draw_views, seen_through
from stmemory.window import Window

__all__ = ["UnrollOptions", "Unrolled", "Unroller", "aggregate_logits", "score_loss", "segmentation_loss", "unroll"]

_ABSENT = -20.0


def aggregate_logits(logits: Tensor, rows: Tensor, *, clips: int, objects: int) -> Tensor:
    """Soft aggregation (Oh et al. 2019) in the log domain, for many clips at once.

    With each object's probability p = sigmoid(logit), the background's is the product of all (1 - p), and the class
    scores are the log-odds of each; their softmax is what `stmemory.postprocess.soft_aggregate` gives.

    Args:
        logits: `[B, H, W]`, one row an object.
        rows: `[B]` int64, `clip * objects + object`.
        clips: number of clips V.
        objects: most objects a clip, N; those without a row count as absent.

    Returns:
        `[V, 1 + N, H, W]` class scores, background first.

    >>> aggregate_logits(torch.zeros(1, 2, 2), torch.tensor([1]), clips=1, objects=2).shape
    torch.Size([1, 3, 2, 2])
    """
    logits = logits.float()
    full = logits.new_full((clips * objects, *logits.shape[1:]), _ABSENT).index_put((rows,), logits)
    full = full.view(clips, objects, *logits.shape[1:])
    log_background = nn.functional.logsigmoid(-full).sum(1, keepdim=True).clamp(-15, -1e-6)
    background = log_background - (-torch.expm1(log_background)).clamp_min(1e-7).log()
    return torch.cat([background, full], 1)


def segmentation_loss(scores: Tensor, target: Tensor, *, share: float) -> tuple[Tensor, Tensor]:
    """Cross entropy over the hardest pixels, and the mean Dice loss of the objects that are there.

    Args:
        scores: `[V, 1 + N, H, W]`, see `aggregate_logits`.
        target: `[V, H, W]` int64, 0 is background.
        share: share of the pixels of each clip that count, the hardest first, in (0, 1].

    Returns:
        Both losses, scalars.

    >>> easy = torch.tensor([9.0, -9.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    >>> bool(segmentation_loss(easy, torch.zeros(1, 4, 4).long(), share=1.0)[0] < 1e-3)
    True
    """
    per_pixel = nn.functional.cross_entropy(scores, target, reduction="none").flatten(1)  # [V, H W]
    kept = max(1, int(share * per_pixel.shape[1]))
    cross_entropy = per_pixel.topk(kept, dim=1).values.mean() if share < 1 else per_pixel.mean()
    probabilities = scores.softmax(1)[:, 1:]
    truth = nn.functional.one_hot(target, scores.shape[1]).movedim(-1, 1)[:, 1:].to(probabilities.dtype)
    overlap = (probabilities * truth).sum((2, 3))
    size = (probabilities + truth).sum((2, 3))
    there = truth.flatten(2).any(2)
    dice = 1 - (2 * overlap + 1) / (size + 1)
    return cross_entropy, (dice * there).sum() / there.sum().clamp_min(1)


def score_loss(scores: Tensor, mask: Tensor) -> Tensor:
    """Cross entropy of the discriminative read's scores, object and background counting one half each.

    Args:
        scores: `[B, h, w]`, about 1 on the object and 0 elsewhere.
        mask: `[B, h, w]` in [0, 1].

    Returns:
        A scalar, the mean over the rows whose object is there; 0 where none is.

    >>> mask = torch.tensor([[[1.0, 0.0, 0.0]]])
    >>> bool(score_loss(mask, mask) < score_loss(1 - mask, mask))
    True
    """
    per_cell = nn.functional.binary_cross_entropy_with_logits(
        8 * (scores.float() - 0.5), mask.float(), reduction="none"
    )
    inside, outside = mask.float(), 1 - mask.float()
    found = (per_cell * inside).sum((1, 2)) / inside.sum((1, 2)).clamp_min(1e-6)
    rest = (per_cell * outside).sum((1, 2)) / outside.sum((1, 2)).clamp_min(1e-6)
    there = inside.sum((1, 2)) > 0
    return (0.5 * (found + rest) * there).sum() / there.sum().clamp_min(1)


@dataclass(frozen=True)
class UnrollOptions:
    """How a clip is run.

    Attributes:
        capacity: K of the bank.
        policy: its update policy.
        share: share of the pixels that count in the cross entropy.
        own_masks: probability that the mask fed back is the network's own, not the truth.
        memory_every: every n-th frame is committed, as in tracking; between them the newest slot follows the
            clip.
        damage: probability that something goes wrong with an object's masks on their way to the memory, see
            `draw_damage`.
        through_time: whether gradients go on through the masks that are fed back.
        length: T of the clip, over which damage and views are drawn; 0 is that of the first segment.
        zoom: probability that a clip is seen through a window around its objects, see `draw_views`.
    """

    capacity: int = 4
    policy: str | UpdatePolicy = "least_similar"
    share: float = 1.0
    own_masks: float = 0.9
    memory_every: int = 1
    damage: float = 0.0
    length: int = 0
    through_time: bool = True
    zoom: float = 0.0


@dataclass(frozen=True, eq=False)
class Unrolled:
    """What came of a segment: losses to minimise, means over its L frames with a prediction, and something to look at.

    Attributes:
        cross_entropy: scalar.
        dice: scalar.
        probabilities: `[V, L, 1 + N, H, W]`, detached; L is one less than the frames in the segment with the given
            masks. Of what the windows show.
        scores: scalar, the loss of the discriminative read alone; 0 in a network without one.
        windows: windows of the L frames of each of the V clips; none where no clip is seen through one.
    """

    cross_entropy: Tensor
    dice: Tensor
    probabilities: Tensor
    scores: Tensor
    windows: tuple[tuple[Window, ...], ...] = ()

    @property
    def length(self) -> int:
        """L."""
        return self.probabilities.shape[1]

    def ids(self, clip: int) -> Tensor:
        """Who wins each pixel of a clip's whole frames, uint8 `[L, H, W]`; outside of a window it is the background."""
        found = self.probabilities[clip]
        if self.windows:
            size = _size(found)
            found = torch.stack([w.put_back(p, size) for w, p in zip(self.windows[clip], found, strict=True)])
        return found.argmax(1).to(torch.uint8)


class Unroller:
    """V clips on their way: the bank, and the last frame, which is written with the next one. Truncated
    backpropagation, section 3.4.2.

    Each call of `advance` takes the next frames of the clips. Gradients stay inside one call: what the bank holds when
    it returns is carried on without its graph, so a clip costs the memory of its longest segment, whatever its length.
    The last frame of a segment is written by the next call, so that its template is learned too.

    Args:
        network: network in training mode or not.
        options: see `UnrollOptions`.
        generator: draws when the truth is fed back, damage and views.
        weigh: turns the numbers of visible objects in S frames `[S]` into factors on their means of objects' losses
            `[S]`; see `World.object_weights`. None is 1.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        *,
        options: UnrollOptions,
        generator: torch.Generator,
        weigh: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.network, self.options, self.generator, self.weigh = network, options, generator, weigh
        self.bank = network.new_bank(options.capacity, policy=options.policy)
        self.sums = DiscriminativeMemory()
        self.time = 0  # frames seen
        self._damages: tuple[Damage | None, ...] = ()  # of the rows
        self._views: Views | None = None  # None where all clips are seen whole
        self._through: tuple[Window, ...] = ()  # the windows of the masks that were fed back, [V]
        self._rows = torch.zeros(0, dtype=torch.int64)  # [B], clip * objects + object
        self._objects = 0  # N
        self._pending: tuple[FrameFeatures, Tensor] | None = (
            None  # the last frame [V, ...] and the masks [B, H, W] fed back
        )
        self._fed = torch.zeros(0)  # these masks without their graph

    def advance(self, frames: Tensor, ids: Tensor) -> Unrolled:
        """Track the objects of the clips' first frames through their next S frames, writing every frame to memory.

        Args:
            frames: `[V, S, 3, H, W]`, RGB in [0, 1]; H and W multiples of 16; S at least 2 in the first call.
            ids: `[V, S, H, W]` int64, 0 is background, 1..N are objects; objects not in a clip's first frame are not
                tracked.
        """
        clips, length = frames.shape[:2]
        if self.time == 0:
            self._begin(ids[:, 0], self.options.length or length, clips)
        rows, objects = self._rows, self._objects
        video, number = rows // objects, rows % objects + 1
        clip = torch.arange(clips, device=ids.device)
        tracked = torch.zeros(clips, 256, dtype=torch.int64, device=ids.device).index_put((video, number), number)
        target = tracked[clip[:, None, None, None], ids]  # [V, S, H, W]
        windows: tuple[tuple[Window, ...], ...] = ()
        if self._views is not None:
            windows = self._views.advance(target > 0)
            frames, ids = seen_through(frames, ids, windows, self._views.size)
            target = tracked[clip[:, None, None, None], ids]
        # the graph of the segment before is cut; from here the key head learns from all that is remembered
        self.bank.rekey()
        encoded = self.network.encode_query(frames.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        visible = (ids[video] == number[:, None, None, None]).flatten(2).any(2).sum(0)  # [S]
        weights = torch.ones_like(visible, dtype=torch.float32) if self.weigh is None else self.weigh(visible)
        cache = ReadCache()  # a new one: values that were cached in the segment before have no graph to their weights
        cross_entropy, dice, seen, scored = [], [], [], []
        for t in range(length):
            features = encoded.of_rows(clip * length + t)
            masks = (ids[video, t] == number[:, None, None]).to(frames.dtype)  # [B, H, W]
            if windows:
                self._turn(tuple(of_clip[t] for of_clip in windows))
            if self.time > 0:
                self._write()
                recalled = self.network.recall(features, self.bank, video, cache)
                cues = self.network.cues(features, self.sums, self._last_masks(), video)  # [B, 5, H/8, W/8] or None
                logits = self.network.decode(recalled, features, video, cues)
                if cues is not None:
                    scored.append(
                        score_loss(cues[:, 0], nn.functional.avg_pool2d(masks[:, None], 8)[:, 0]) * weights[t]
                    )
                scores = aggregate_logits(logits, rows, clips=clips, objects=objects)  # [V, 1 + N, H, W]
                losses = segmentation_loss(scores, target[:, t], share=self.options.share)
                cross_entropy.append(losses[0])
                dice.append(losses[1] * weights[t])
                probabilities = scores.softmax(1)
                seen.append(probabilities.detach())
                if float(torch.rand((), generator=self.generator)) < self.options.own_masks:
                    masks = (probabilities if self.options.through_time else probabilities.detach())[:, 1:].flatten(
                        0, 1
                    )[rows]
                masks = damaged(masks, self._damages, self.time)
            self._pending, self._fed = (features, masks), masks.detach()
            self.time += 1
        self._cut()
        of_scores = torch.stack(scored).mean() if scored else frames.new_zeros(())
        return Unrolled(
            torch.stack(cross_entropy).mean(),
            torch.stack(dice).mean(),
            torch.stack(seen, 1),
            of_scores,
            tuple(of_clip[length - len(seen) :] for of_clip in windows),
        )

    def _begin(self, first: Tensor, frames: int, clips: int) -> None:
        """Learn from the first masks `[V, H, W]` of clips of T frames which objects there are."""
        self._objects = int(first.max())
        wanted = torch.arange(1, self._objects + 1, device=first.device)[None, :, None, None]
        self._rows = (first[:, None] == wanted).flatten(2).any(2).flatten().nonzero().squeeze(1)
        self._damages = draw_damage(len(self._rows), frames, self.options.damage, self.generator)
        views = draw_views(clips, frames, self.options.zoom, self.generator)
        self._views = Views(views, _size(first)) if any(view is not None for view in views) else None

    def _turn(self, windows: tuple[Window, ...]) -> None:
        """Have what was fed back of the frame before as the windows `[V]` of this one show it.

        The frame that is not written yet stays as it is: its features are those of its own window.
        """
        if self._views is not None and self.time > 0 and windows != self._through:
            clips = (self._rows // self._objects).tolist()
            self._fed = carried(self._fed, clips, self._through, windows, self._views.size)
        self._through = windows

    def _last_masks(self) -> tuple[Tensor, Tensor]:
        """What was fed back of the frame before this one, without its graph: each object's mask, and those of all
        others."""
        return self._fed, _others(self._fed, self._rows // self._objects)

    def _write(self) -> None:
        """Put the frame before this one into the bank."""
        if self._pending is None:
            return
        features, masks = self._pending
        video = self._rows // self._objects
        others, frame = _others(masks, video), self.time - 1
        template = self.network.encode_memory(features, masks, others, video)
        committed = frame % self.options.memory_every == 0
        self.bank.write(template.float(), frame=frame, pinned=frame == 0, provisional=not committed)
        if committed:
            self.network.learn(self.sums, features, masks, others, video, frame=frame, given=frame == 0)

    def _cut(self) -> None:
        """Keep what is remembered, without its graph."""
        self.bank.detach()
        self.sums.detach()
        if self._pending is not None:
            features, masks = self._pending
            self._pending = features.detach(), masks.detach()


def _size(maps: Tensor) -> WorkingSize:
    """Of maps `[*, H, W]`, whose sides are multiples of the stride."""
    return WorkingSize.of(maps.shape[-2], maps.shape[-1], None, 16)


def _others(masks: Tensor, video: Tensor) -> Tensor:
    """For each of the masks `[B, H, W]` all others of its video together."""
    total = masks.new_zeros(int(video.max()) + 1, *masks.shape[1:]).index_add(0, video, masks)
    return (total[video] - masks).clamp(0, 1)


def unroll(
    network: SegmentationNetwork, frames: Tensor, ids: Tensor, *, options: UnrollOptions, generator: torch.Generator
) -> Unrolled:
    """Track the objects of the first frames of V clips to their ends with gradients through all of it; see `Unroller`.

    Args:
        network: network in training mode or not.
        frames: `[V, T, 3, H, W]`, RGB in [0, 1]; H and W multiples of 16.
        ids: `[V, T, H, W]` int64, see `Unroller.advance`.
        options: see `UnrollOptions`.
        generator: draws when the truth is fed back, damage and views.
    """
    return Unroller(network, options=options, generator=generator).advance(frames, ids)
