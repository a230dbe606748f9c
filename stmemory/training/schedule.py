"""Phases, learning rates, seeds, and the part of a clip that a step sees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.utils.deterministic

from stmemory.errors import StmemoryError
from stmemory.training.config import TrainingConfig

__all__ = [
    "Averaged",
    "Paced",
    "Plateau",
    "Window",
    "averaging",
    "hard_share",
    "learning_rate",
    "repeatable",
    "temperature",
]


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
        drops: number of times the error did not fall.
        phase: number of that phase; errors in another one are of other clips, and start over.

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
        config: configuration of the run.
        step: optimiser steps done.
        drops: number of times the validation error did not fall; only the schedule "plateau" looks at it.

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


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Have torch add gradients in a fixed order, on the CPU, for as long as the context lasts.

    Several objects share the features of one frame, so its gradient is a sum over them. With more than one thread torch
    adds in the order in which the threads come, which differs in the last bits from run to run; in a fixed order it is
    no slower. Elsewhere nothing changes: not all operations have such an order on CUDA.

    Args:
        device: where the arithmetic is done.

    >>> with repeatable(torch.device("cpu")):
    ...     torch.are_deterministic_algorithms_enabled()
    True
    """
    if device.type != "cpu":
        yield
        return
    details: Any = torch.utils.deterministic  # a module with properties, which its types do not know
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = details.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    details.fill_uninitialized_memory = False  # nothing here reads what was not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        details.fill_uninitialized_memory = filled


_DIVERGED = 100  # lost steps in a row, after which none will be kept again


class Window:
    """The steps since the last line of a log.

    Args:
        names: names of the losses that a step answers.

    >>> window = Window("loss")
    >>> window.add({"loss": 3.0}, seconds=0.5)
    >>> window.add({"lost": 1.0}, seconds=0.7)
    >>> window.record()
    {'seconds': 0.6, 'loss': 3.0, 'lost': 1.0}
    >>> window.add({"lost": 1.0}, seconds=0.7)
    >>> window.record()
    {'seconds': 0.7, 'lost': 1.0}
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._sums, self._row = self._empty(), 0

    def add(self, losses: Mapping[str, float], *, seconds: float) -> None:
        """Count a step.

        Args:
            losses: losses of the step; or `lost` alone, if it changed no weight.
            seconds: time that it took, with the wait for its clips, and without what is done between steps, such as
                validation.

        Raises:
            StmemoryError: so many steps in a row were lost that the run will learn nothing more.
        """
        for name, value in (*losses.items(), ("steps", 1.0), ("timed", 1.0), ("seconds", seconds)):
            self._sums[name] += value
        self._row = self._row + 1 if "lost" in losses else 0
        if self._row >= _DIVERGED:
            raise StmemoryError(
                f"expected gradients that are finite, got none in {self._row} steps, one after another: the run "
                "diverged; what was saved before stays, but begin again in another folder, with a lower learning_rate "
                "or a longer warmup"
            )

    @property
    def lost(self) -> int:
        """How many steps in a row were lost, up to the last one, in this window and before it."""
        return self._row

    def record(self) -> dict[str, float]:
        """Seconds a step, means of the losses over the steps that were not lost, if any, and how many were lost; and
        start over."""
        sums, self._sums = self._sums, self._empty()
        kept = sums["steps"] - sums["lost"]
        means = {
            name: sums[name] / kept for name in self._names if kept > 0
        }  # a mean of none is no number, least of all 0
        return {"seconds": sums["seconds"] / max(1.0, sums["timed"]), **means, "lost": sums["lost"]}

    def state_dict(self) -> dict[str, float]:
        """To go on from."""
        return {**self._sums, "row": float(self._row)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from there. Some states of earlier versions do not know how long their steps took: those are not in the
        mean."""
        timed = state.get("steps", 0.0) if "seconds" in state else 0.0
        self._sums = {**self._empty(), "timed": timed, **state}
        self._row = int(self._sums.pop("row", 0))

    def _empty(self) -> dict[str, float]:
        return dict.fromkeys((*self._names, "lost", "steps", "timed", "seconds"), 0.0)
