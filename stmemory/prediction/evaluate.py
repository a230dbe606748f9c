"""Measuring what predicts video: trained networks and predictors that learn nothing, on the same clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stmemory.evaluation.frame_metrics import FrameScores, score_frames

__all__ = ["Cost", "Forecaster", "Predicts", "cost_of", "forecast_with", "measure", "trivial_forecasts"]

Forecaster = Callable[
    [Tensor, int], Tensor
]  # frames [B, n, C, H, W] that are given, and how many more are wanted: [B, m, C, H, W]


class Predicts(Protocol):
    """A network that takes videos a frame at a time; `PredictionNetwork` is one."""

    def new_state(self, capacity: int, *, policy: str) -> Any:
        """What is remembered before the first frame; it has `nbytes`."""
        ...

    def step(self, frame: Tensor, state: Any) -> Tensor:
        """The next frame `[B, C, H, W]`."""
        ...


@dataclass(frozen=True)
class Cost:
    """What a network takes.

    Attributes:
        parameters: numbers that are learned.
        multiply_adds: operations of the last step of a video, whose memory is full: half of what
            `torch.utils.flop_counter` counts, which are products of matrices, convolutions and attention, and nothing
            that is done number by number.
        state_bytes: all that is remembered of one video then.
    """

    parameters: int
    multiply_adds: int
    state_bytes: int


def forecast_with(network: Predicts, *, capacity: int, policy: str) -> Forecaster:
    """What a network foresees: it takes the frames that are given, then its own, limited to [0, 1]."""

    def forecast(given: Tensor, wanted: int) -> Tensor:
        state, found = network.new_state(capacity, policy=policy), []
        with torch.no_grad():
            for time in range(given.shape[1]):
                predicted = network.step(given[:, time], state)
            found.append(predicted.clamp(0, 1))
            for _ in range(wanted - 1):
                found.append(network.step(found[-1], state).clamp(0, 1))
        return torch.stack(found, 1)

    return forecast


def trivial_forecasts(mean_picture: Tensor) -> dict[str, Forecaster]:
    """Predictors that learn next to nothing, by name; what is not better than these is not worth its price.

    Args:
        mean_picture: `[C, H, W]`, of the training set.

    >>> trivial = trivial_forecasts(torch.zeros(1, 2, 2))
    >>> trivial["copy last"](torch.rand(3, 4, 1, 2, 2), 5).shape
    torch.Size([3, 5, 1, 2, 2])
    """

    def standing(picture: Callable[[Tensor], Tensor]) -> Forecaster:
        return lambda given, wanted: picture(given)[:, None].expand(-1, wanted, -1, -1, -1)

    return {
        "copy last": standing(lambda given: given[:, -1]),
        "mean of inputs": standing(lambda given: given.mean(1)),
        "zeros": standing(lambda given: torch.zeros_like(given[:, 0])),
        "data-set mean": standing(lambda given: mean_picture.to(given).expand_as(given[:, 0])),
    }


def measure(forecast: Forecaster, frames: Tensor, observed: int, *, batch: int = 32) -> FrameScores:
    """Scores of the frames that are not given.

    Args:
        forecast: whose.
        frames: `[B, T, C, H, W]` in [0, 1].
        observed: frames of each clip that are given, 1 to T - 1.
        batch: clips at a time.

    >>> frames = torch.zeros(3, 4, 1, 8, 8)
    >>> measure(trivial_forecasts(frames[0, 0])["zeros"], frames, 2).mse
    0.0
    """
    wanted = frames.shape[1] - observed
    predicted = torch.cat([forecast(part[:, :observed], wanted) for part in torch.split(frames, batch)])
    return score_frames(predicted, frames[:, observed:])


def cost_of(network: nn.Module, frames: Tensor, *, capacity: int, policy: str) -> Cost:
    """Parameters, work and memory of one video.

    Args:
        network: a `Predicts`.
        frames: `[T, C, H, W]`, more than `capacity` of them.
        capacity: K.
        policy: update policy of the bank.
    """
    predicts: Any = network
    state = predicts.new_state(capacity, policy=policy)
    with torch.no_grad():
        for frame in frames[:-1, None]:
            predicts.step(frame, state)
        with FlopCounterMode(display=False) as counter:
            predicts.step(frames[-1:], state)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, counter.get_total_flops() // 2, state.nbytes)
