"""Schedules: how the learning rate, the hard pixels and the policy's temperature change over a run. Remembers
nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from stmemory.training.config import TrainingConfig

__all__ = ["Averaged", "Paced", "Plateau", "averaging", "hard_share", "learning_rate", "temperature"]


class Paced(Protocol):
    """What the learning rate depends on; a `TrainingConfig` has it."""

    @property
    def steps(self) -> int:
        """Of the whole run."""

    @property
    def warmup(self) -> int:
        """Steps."""

    @property
    def learning_rate(self) -> float:
        """The highest."""

    @property
    def final_factor(self) -> float:
        """The last one's share of it."""

    @property
    def schedule(self) -> str:
        """Its name: cosine or plateau."""


class Averaged(Protocol):
    """What the averaging of weights depends on."""

    @property
    def ema(self) -> float:
        """Decay in the long run."""


@dataclass(frozen=True)
class Plateau:
    """What was seen of the validation error, for the schedule "plateau".

    Attributes:
        best: the least error so far in a phase.
        drops: how often the error did not fall.
        phase: number of that phase; errors in another one are of other clips, and begin anew.

    >>> Plateau().after(0.3, 0).after(0.4, 0).after(0.9, 1)
    Plateau(best=0.9, drops=1, phase=1)
    """

    best: float = math.inf
    drops: int = 0
    phase: int = 0

    def after(self, error: float, phase: int) -> Plateau:
        """With one more error, of the clips of a phase."""
        best = self.best if phase == self.phase else math.inf
        return Plateau(error, self.drops, phase) if error < best else Plateau(best, self.drops + 1, phase)


def learning_rate(config: Paced, step: int, *, drops: int = 0) -> float:
    """Of the step (from 0): linear warm-up, then a cosine, or a level that validation lowers.

    Args:
        config: of the run.
        step: optimiser steps done.
        drops: how often the validation error did not fall; only the schedule "plateau" looks at it.

    >>> config = TrainingConfig(warmup=10, learning_rate=1.0, schedule="plateau", validate_every=5)
    >>> learning_rate(config, 0), learning_rate(config, 500, drops=2)
    (0.1, 0.01)
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.schedule == "plateau":
        return config.learning_rate / math.pow(10, drops)
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.learning_rate * (config.final_factor + (1 - config.final_factor) * cosine)


def hard_share(config: TrainingConfig, step: int) -> float:
    """Share of the pixels that count in the cross entropy.

    >>> hard_share(TrainingConfig(bootstrap_steps=100), 50)
    0.625
    """
    return 1 - 0.75 * min(1.0, step / max(1, config.bootstrap_steps))


def temperature(config: TrainingConfig, step: int) -> float:
    """Of the Gumbel-Softmax of a learned policy: falls by the same factor each step, from `temperature` to
    `final_temperature`.

    >>> round(temperature(TrainingConfig(temperature=4.0, final_temperature=1.0), 500), 6)
    2.0
    """
    done = min(1.0, step / max(1, config.steps))
    return config.temperature * math.pow(config.final_temperature / config.temperature, done)


def averaging(config: Averaged, step: int) -> float:
    """Decay of the averaged weights after so many steps: a short memory at first.

    >>> averaging(TrainingConfig(ema=0.998), 10)
    0.5
    """
    return min(config.ema, step / (step + 10))
