"""`TrainingConfig`: all that decides what a run makes, in one frozen record that is saved beside its weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from stmemory.errors import OptionError
from stmemory.memory.registry import update_policy
from stmemory.networks.config import NetworkConfig

__all__ = ["Phase", "TrainingConfig"]


@dataclass(frozen=True)
class Phase:
    """One part of the curriculum.

    Attributes:
        steps: optimiser steps.
        size: side of the square clips, px, a multiple of 16.
        frames: T.
        batch: clips a step.
        capacity: K; below `frames - 1`, so that slots are fused in every clip.
        max_objects: most tracked objects a clip.
        frozen: parts of the `lite` trunk (stem, five stages) that keep their weights, from the first; 0 trains all.
    """

    steps: int = 1000
    size: int = 224
    frames: int = 6
    batch: int = 8
    capacity: int = 4
    max_objects: int = 3
    frozen: int = 3

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.max_objects) < 1 or self.size % 16 or self.frames < 2 or self.capacity < 2:
            raise OptionError(
                f"Phase: expected steps, batch, max_objects >= 1, size a multiple of 16, frames and capacity >= 2, got {self}"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """One run.

    Attributes:
        preset: of the network.
        phases: one after another under a single learning rate schedule.
        policy: update policy of the unroll.
        learning_rate: at the top of the schedule (AdamW).
        trunk_factor: what the pre-trained trunk's rate is multiplied with.
        weight_decay: of AdamW.
        warmup: steps of linear warm-up; a cosine to `final_factor` follows.
        final_factor: last over top learning rate.
        clip_norm: gradients are clipped to that norm.
        bootstrap_steps: over which the share of hardest pixels falls from 1 to 0.25.
        own_masks: probability that the network's own mask is fed back.
        ema: decay of the averaged weights, which are the ones saved.
        seed: of weights, clips and draws.
        data: further `ClipConfig` fields.

    Raises:
        OptionError: a value is out of its range, or the policy is a learned one.
    """

    preset: str = "lite"
    phases: tuple[Phase, ...] = (Phase(),)
    policy: str = "least_similar"
    learning_rate: float = 6e-4
    trunk_factor: float = 0.25
    weight_decay: float = 0.01
    warmup: int = 100
    final_factor: float = 0.02
    clip_norm: float = 3.0
    bootstrap_steps: int = 1500
    own_masks: float = 0.9
    ema: float = 0.998
    seed: int = 0
    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        NetworkConfig.of(self.preset)  # raises for unknown names
        if isinstance(update_policy(self.policy), nn.Module):
            raise OptionError(f"TrainingConfig: expected a policy without weights, got {self.policy!r}, which this loop does not train")
        checks = (
            ("phases", len(self.phases) >= 1, "one or more"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("trunk_factor", self.trunk_factor >= 0, "0 or more"),
            ("clip_norm", self.clip_norm > 0, "above 0"),
            ("own_masks", 0 <= self.own_masks <= 1, "0 to 1"),
            ("ema", 0 <= self.ema < 1, "0 to below 1"),
            ("seed", self.seed >= 0, "0 or more"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise OptionError(f"TrainingConfig: expected {name} of {expected}, got {getattr(self, name)}")

    @property
    def steps(self) -> int:
        """Of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[int, Phase]:
        """The phase that a step (from 0) belongs to, and its number."""
        for number, phase in enumerate(self.phases):
            if step < phase.steps:
                return number, phase
            step -= phase.steps
        return len(self.phases) - 1, self.phases[-1]

    def to_json(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def load(cls, path: str | Path) -> TrainingConfig:
        """From a JSON file; what it does not name keeps its default.

        Raises:
            OptionError: the file is missing, is not JSON, or names something that does not exist.
        """
        try:
            values: dict[str, Any] = dict(json.loads(Path(path).read_text()))
            phases = tuple(Phase(**phase) for phase in values.pop("phases", [{}]))
            return cls(phases=phases, **values)
        except (OSError, ValueError, TypeError) as error:
            raise OptionError(f"TrainingConfig: expected a JSON file of its fields at {path}, got: {error}") from error
