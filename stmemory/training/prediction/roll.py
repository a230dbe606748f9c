"""One pass of a prediction network over clips: which frames it is given, what it says of the next, and how wrong that
is. Learns nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from stmemory.evaluation.prediction import Predicts
from stmemory.training.prediction.clips import Clips

__all__ = ["prediction_loss", "roll", "true_frames"]


def roll(network: Predicts, frames: Tensor, given: Tensor, *, capacity: int, policy: str) -> Tensor:
    """Predict frames 1 to T - 1, each from those before it: the true one where it is given, else the network's own.

    Args:
        network: whose.
        frames: `[B, T, C, H, W]` in [0, 1].
        given: `[B, T]` bool; frame 0 always is.
        capacity: K.
        policy: of the bank.

    Returns:
        `[B, T - 1, C, H, W]`, not limited to [0, 1]; gradients go through a frame that was predicted and then taken in.

    >>> from stmemory.networks.prediction import PredictionNetwork, PredictionConfig
    >>> network = PredictionNetwork(PredictionConfig.of("mini"))
    >>> roll(network, torch.rand(1, 4, 1, 32, 32), torch.tensor([[True, True, False, False]]), capacity=2, policy="drop").shape
    torch.Size([1, 3, 1, 32, 32])
    """
    state, predicted = network.new_state(capacity, policy=policy), [frames[:, 0]]
    for time in range(frames.shape[1] - 1):
        own = predicted[-1].clamp(0, 1)
        predicted.append(network.step(torch.where(given[:, time, None, None, None], frames[:, time], own), state))
    return torch.stack(predicted[1:], 1)


def true_frames(clips: Clips, probability: float, generator: torch.Generator) -> Tensor:
    """Scheduled sampling (Bengio et al. 2015): which frames are given, `[B, T]` bool; those observed always are.

    >>> clips = Clips(torch.zeros(1, 4, 1, 8, 8), torch.tensor([2]))
    >>> true_frames(clips, 0.0, torch.Generator()).tolist()
    [[True, True, False, False]]
    """
    rows, length = clips.frames.shape[:2]
    lucky = torch.rand(rows, length, generator=generator) < probability
    return lucky | (torch.arange(length) < clips.observed[:, None])


def prediction_loss(predicted: Tensor, clips: Clips, *, unknown_weight: float, absolute_weight: float = 0.0) -> Tensor:
    """Squared error and a share of the absolute one, mean over pixels and over frames 1 to T - 1, weighted.

    Args:
        predicted: `[B, T - 1, C, H, W]`.
        clips: the truth.
        unknown_weight: of frames that are not after those observed.
        absolute_weight: of the absolute error.

    >>> clips = Clips(torch.zeros(1, 3, 1, 8, 8), torch.tensor([2]))
    >>> prediction_loss(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 8, 8), clips, unknown_weight=0.0).item()
    0.0
    """
    off = predicted.float() - clips.frames[:, 1:]
    error = (off.square() + absolute_weight * off.abs()).mean((2, 3, 4))  # [B, T - 1]
    later = torch.arange(1, clips.frames.shape[1], device=error.device) >= clips.observed[:, None].to(error.device)
    weight = torch.where(later, 1.0, unknown_weight)
    return (error * weight).sum() / weight.sum()
