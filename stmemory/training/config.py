"""`TrainingConfig`: all settings of a training run."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stmemory.errors import OptionError
from stmemory.io.records import check_types, check_values, load_record, parse_record, read_record
from stmemory.memory.policy import update_policy
from stmemory.networks.config import NetworkConfig
from stmemory.training.data.folders import LAYOUTS
from stmemory.training.synthesis.clips import ClipConfig

__all__ = ["Phase", "Source", "TrainingConfig"]

_CHOICES = {
    "optimiser": ("adamw", "adam"),
    "schedule": ("cosine", "plateau"),
    "precision": ("bfloat16", "float32"),
    "bad_data": ("skip", "refuse"),
    "render": ("auto", "device", "workers"),
}
_OF_PHASES = {"size", "frames", "gap", "max_objects"}
_MOST_OBJECTS = 50  # of a clip
_PARTS = 6  # of the trunk of `lite`


@dataclass(frozen=True)
class Phase:
    """One part of the curriculum.

    Attributes:
        steps: optimiser steps.
        size: side of the square clips, px, a multiple of 16.
        frames: T.
        batch: clips a step.
        capacity: K; slots are fused in a clip when there is room for two beside the first, and fewer than its `frames -
            1`.
        max_objects: most tracked objects a clip.
        frozen: parts of the `lite` trunk (stem, five stages) that keep their weights, from the first; 0 trains all, 6
            none.
        segment: frames after which the graph is cut (truncated backpropagation, section 3.4.2); 0 keeps a clip whole.
            The gradients of a clip's segments are added up, and one optimiser step follows: all of a clip sees the same
            weights, and a run is only ever interrupted between clips, with no bank to save.
        gap: most frames of motion between two frames of a clip; each clip draws its own from 1 to here.
        memory_every: every n-th frame is committed to memory, as `TrackingOptions.memory_every` does.
    """

    steps: int = 1000
    size: int = 224
    frames: int = 6
    batch: int = 8
    capacity: int = 4
    max_objects: int = 3
    frozen: int = 3
    segment: int = 0
    gap: int = 1
    memory_every: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        checks = (
            ("steps", self.steps >= 1, "1 or more"),
            ("size", self.size >= 16 and self.size % 16 == 0, "a multiple of 16, 16 or more"),
            ("frames", self.frames >= 2, "2 or more"),
            ("batch", self.batch >= 1, "1 or more"),
            ("capacity", self.capacity >= 2, "2 or more"),
            ("max_objects", 1 <= self.max_objects <= _MOST_OBJECTS, f"1 to {_MOST_OBJECTS}"),
            ("frozen", 0 <= self.frozen <= _PARTS, f"0 to {_PARTS}, the parts of the trunk"),
            ("segment", self.segment == 0 or self.segment >= 2, "0 (all of the clip), or 2 frames and more"),
            ("gap", self.gap >= 1, "1 or more"),
            ("memory_every", self.memory_every >= 1, "1 or more"),
        )
        check_values(self, checks)

    @property
    def fuses(self) -> bool:
        """Whether slots are fused in every clip: the first is pinned, a pair needs two more, and they must run out."""
        return 3 <= self.capacity < -(-(self.frames - 1) // self.memory_every)


@dataclass(frozen=True)
class Source:
    """A folder to make clips from, beside the packed material or instead of it.

    Attributes:
        root: the folder.
        layout: layout of the folder, see `stmemory.training.data.folders`.
        weight: how often a clip comes from it, relative to the others; the packed material has a weight of 1.
        split: split of the layouts that have some: "train", "val".
        validation_split: what a run that validates does so on. Where the layout has no splits, or not this one, about
            one image or video in twenty is held out of the training, by a hash of its name; "" always does that.
    """

    root: str = ""
    layout: str = "stills"
    weight: float = 1.0
    split: str = "train"
    validation_split: str = "val"

    def __post_init__(self) -> None:
        check_types(self)
        check_values(
            self, (("layout", self.layout in LAYOUTS, " or ".join(LAYOUTS)), ("weight", self.weight > 0, "above 0"))
        )


@dataclass(frozen=True)
class TrainingConfig:
    """One run.

    Attributes:
        preset: preset of the network.
        phases: one after another under a single learning rate schedule.
        policy: update policy of the unroll; "learned" is trained with the network.
        sources: folders to make clips from, with the packed material if that is given.
        optimiser: "adamw", or "adam" as in the paper.
        schedule: "cosine", or "plateau" as in the paper: a tenth whenever the validation error did not fall.
        validate_every: steps between two validations; 0 never validates.
        validation_clips: made for it, as in the run but of another seed.
        learning_rate: at the top of the schedule.
        trunk_factor: factor of the pre-trained trunk's learning rate.
        network_factor: factor of the whole network's rate; 0 trains a learned policy alone.
        policy_factor: factor of a learned policy's rate.
        matching_factor: what the rate of all but the discriminative read and what it brings is multiplied with; 0
            trains that alone.
        score_factor: what the rate of the discriminative read's part in the decoder is multiplied with.
        projection_factor: what that of its projection and its four numbers is multiplied with; 0 leaves them as they
            begin.
        score_weight: weight of the loss of the discriminative read alone.
        damage: probability that something goes wrong with an object's masks on their way to the memory.
        zoom: probability that a clip is seen through a window around its objects, as in tracking.
        temperature: temperature of a learned policy's Gumbel-Softmax, at the first step.
        final_temperature: at the last one.
        weight_decay: weight decay of the optimiser.
        warmup: steps of linear warm-up; the schedule follows.
        final_factor: last over top learning rate of the cosine.
        clip_norm: gradients are clipped to that norm.
        bootstrap_steps: over which the share of hardest pixels falls from 1 to 0.25.
        own_masks: probability that the network's own mask is fed back.
        ema: decay of the averaged weights, which are the ones saved.
        precision: precision of the network's arithmetic in training, "bfloat16" (autocast) or "float32".
        bad_data: "skip" draws another image where one cannot be used, and names it in the log; "refuse" ends the run.
        render: who makes the pixels of the clips that the workers draw: "device", the one that trains; "workers"
            themselves; or "auto", which is the device on CUDA and the workers elsewhere.
        save_every: steps between two states; a run may go on with another one.
        seed: seed of weights, clips and draws.
        data: further `ClipConfig` fields.

    Raises:
        OptionError: a value is out of its range or unknown, or no slot is ever fused in the last phase.
    """

    preset: str = "lite"
    phases: tuple[Phase, ...] = (Phase(),)
    policy: str = "least_similar"
    sources: tuple[Source, ...] = ()
    optimiser: str = "adamw"
    schedule: str = "cosine"
    validate_every: int = 0
    validation_clips: int = 8
    learning_rate: float = 6e-4
    trunk_factor: float = 0.25
    network_factor: float = 1.0
    policy_factor: float = 1.0
    matching_factor: float = 1.0
    score_factor: float = 1.0
    projection_factor: float = 0.0
    score_weight: float = 0.5
    damage: float = 0.0
    zoom: float = 0.0
    temperature: float = 1.0
    final_temperature: float = 0.2
    weight_decay: float = 0.01
    warmup: int = 100
    final_factor: float = 0.02
    clip_norm: float = 3.0
    bootstrap_steps: int = 1500
    own_masks: float = 0.9
    ema: float = 0.998
    precision: str = "bfloat16"
    bad_data: str = "skip"
    render: str = "auto"
    save_every: int = field(default=100, compare=False)  # decides nothing of what is learned
    seed: int = 0
    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self)
        NetworkConfig.of(self.preset)  # raises for unknown names
        update_policy(self.policy)
        for name in _OF_PHASES & set(self.data):
            raise OptionError(
                f"TrainingConfig.data.{name}: expected a setting of clips "
                "that phases do not have, got one of phases; put it there"
            )
        read_record(ClipConfig, self.data, "TrainingConfig.data")
        checks = (
            ("phases", len(self.phases) >= 1, "one or more"),
            *((name, getattr(self, name) in choices, " or ".join(choices)) for name, choices in _CHOICES.items()),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("trunk_factor", self.trunk_factor >= 0, "0 or more"),
            ("network_factor", self.network_factor >= 0, "0 or more"),
            ("policy_factor", self.policy_factor >= 0, "0 or more"),
            ("matching_factor", self.matching_factor >= 0, "0 or more"),
            ("score_factor", self.score_factor >= 0, "0 or more"),
            ("projection_factor", self.projection_factor >= 0, "0 or more"),
            ("score_weight", self.score_weight >= 0, "0 or more"),
            ("damage", 0 <= self.damage <= 1, "0 to 1"),
            ("zoom", 0 <= self.zoom <= 1, "0 to 1"),
            ("temperature", self.temperature > 0, "above 0"),
            ("final_temperature", self.final_temperature > 0, "above 0"),
            ("validate_every", self.validate_every >= 0, "0 or more"),
            (
                "validate_every",
                self.validate_every > 0 or self.schedule != "plateau",
                "above 0, since the schedule is plateau",
            ),
            ("validation_clips", self.validation_clips > 0, "above 0"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("warmup", self.warmup >= 0, "0 or more"),
            ("final_factor", 0 <= self.final_factor <= 1, "0 to 1"),
            ("bootstrap_steps", self.bootstrap_steps >= 0, "0 or more"),
            ("save_every", self.save_every >= 1, "1 or more"),
            ("clip_norm", self.clip_norm > 0, "above 0"),
            ("own_masks", 0 <= self.own_masks <= 1, "0 to 1"),
            ("ema", 0 <= self.ema < 1, "0 to below 1"),
            ("seed", self.seed >= 0, "0 or more"),
        )
        check_values(self, checks)
        last = self.phases[-1]
        if not last.fuses:
            raise OptionError(
                f"TrainingConfig.phases[{len(self.phases) - 1}]: expected the last phase to fuse slots in every clip, "
                f"3 <= capacity < frames - 1, got capacity {last.capacity} and {last.frames} frames; use longer clips "
                "or fewer slots"
            )

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

    def decisive(self) -> dict[str, Any]:
        """What the weights depend on, as JSON has it; the rest may change within a run."""
        values: dict[str, Any] = json.loads(self.to_json())
        return {each.name: values[each.name] for each in dataclasses.fields(self) if each.compare}

    def to_json(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """From what `to_json` wrote; what it does not name keeps its default.

        Raises:
            OptionError: the text is not JSON, or names something that does not exist.
        """
        return parse_record(cls, text)

    @classmethod
    def load(cls, path: str | Path) -> TrainingConfig:
        """From a JSON file, see `from_json`.

        Raises:
            OptionError: the file is missing, is not JSON, or names something that does not exist.
        """
        return load_record(cls, path, what="a run")
