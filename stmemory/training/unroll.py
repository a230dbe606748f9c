"""One clip through the network and its memory, frame by frame, with the network's own masks fed back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stmemory.memory.policy import UpdatePolicy
from stmemory.memory.read import ReadCache
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.losses import aggregate_logits, segmentation_loss

__all__ = ["UnrollOptions", "Unrolled", "unroll"]


@dataclass(frozen=True)
class UnrollOptions:
    """How a clip is run.

    Attributes:
        capacity: K of the bank.
        policy: its update policy.
        share: of the pixels that count in the cross entropy.
        own_masks: probability that the mask fed back is the network's own, not the truth.
    """

    capacity: int = 4
    policy: str | UpdatePolicy = "least_similar"
    share: float = 1.0
    own_masks: float = 0.9


@dataclass(frozen=True, eq=False)
class Unrolled:
    """What came of it: losses to minimise, and probabilities `[V, T - 1, 1 + N, H, W]` to look at (detached)."""

    cross_entropy: Tensor
    dice: Tensor
    probabilities: Tensor


def unroll(
    network: SegmentationNetwork, frames: Tensor, ids: Tensor, *, options: UnrollOptions, generator: torch.Generator
) -> Unrolled:
    """Track the objects of the first frames of V clips to their ends, writing every frame to memory.

    Args:
        network: in training mode or not.
        frames: `[V, T, 3, H, W]`, RGB in [0, 1]; H and W multiples of 16.
        ids: `[V, T, H, W]` int64, 0 is background, 1..N are objects; objects not in a clip's first frame are not tracked.
        options: see `UnrollOptions`.
        generator: draws when the truth is fed back.
    """
    clips, time = frames.shape[:2]
    objects = int(ids.max())
    wanted = torch.arange(1, objects + 1, device=ids.device)[None, :, None, None]
    truth = ids[:, :, None] == wanted[:, None]  # [V, T, N, H, W]
    rows = truth[:, 0].flatten(2).any(2).flatten().nonzero().squeeze(1)  # [B], clip * objects + object
    video = rows // objects
    target = torch.where((truth & truth[:, :1].flatten(3).any(3)[..., None, None]).any(2), ids, 0)  # [V, T, H, W]
    encoded = network.encode_query(frames.flatten(0, 1).contiguous(memory_format=torch.channels_last))
    bank, cache = network.new_bank(options.capacity, policy=options.policy), ReadCache()
    clip = torch.arange(clips, device=ids.device)
    cross_entropy, dice, seen = [], [], []
    for t in range(time):
        features = encoded.of_rows(clip * time + t)
        true_masks = truth[:, t].flatten(0, 1)[rows].to(frames.dtype)  # [B, H, W]
        masks = true_masks
        if t > 0:
            recalled = network.recall(features, bank, video, cache)
            logits = network.decode(recalled, features, video)
            scores = aggregate_logits(logits, rows, clips=clips, objects=objects)  # [V, 1 + N, H, W]
            losses = segmentation_loss(scores, target[:, t], share=options.share)
            cross_entropy.append(losses[0])
            dice.append(losses[1])
            probabilities = scores.softmax(1)
            seen.append(probabilities.detach())
            if float(torch.rand((), generator=generator)) < options.own_masks:
                masks = probabilities[:, 1:].flatten(0, 1)[rows]
        if t < time - 1:
            total = torch.zeros(clips, *masks.shape[1:], dtype=masks.dtype, device=masks.device).index_add(0, video, masks)
            template = network.encode_memory(features, masks, (total[video] - masks).clamp(0, 1), video)
            bank.write(template.float(), frame=t, pinned=t == 0)
    return Unrolled(torch.stack(cross_entropy).mean(), torch.stack(dice).mean(), torch.stack(seen, 1))
