"""What training minimises: bootstrapped cross entropy and Dice on softly aggregated objects. Knows no network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["aggregate_logits", "score_loss", "segmentation_loss"]

_ABSENT = -20.0


def aggregate_logits(logits: Tensor, rows: Tensor, *, clips: int, objects: int) -> Tensor:
    """Soft aggregation (Oh et al. 2019) in the log domain, for many clips at once.

    With each object's probability p = sigmoid(logit), the background's is the product of all (1 - p), and the class
    scores are the log-odds of each; their softmax is what `stmemory.masks.soft_aggregate` gives.

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
        share: of the pixels of each clip that count, the hardest first, in (0, 1].

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
