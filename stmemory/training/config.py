"""`TrainingConfig`: all that decides what a training run makes, and readers of JSON records that check it."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from stmemory.errors import OptionError
from stmemory.io.untrusted import parse_json, shown
from stmemory.memory.policy import update_policy
from stmemory.networks.config import NetworkConfig
from stmemory.training.data.folders import LAYOUTS
from stmemory.training.synthesis.clips import ClipConfig

__all__ = [
    "Phase",
    "Source",
    "TrainingConfig",
    "check_types",
    "check_values",
    "read_json",
    "read_list",
    "read_record",
    "read_records",
]

_Record = TypeVar("_Record")
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "dict[str, Any]": (Mapping,),
    "Mapping[str, Any]": (Mapping,),
}
_OBJECT = "an object of settings, in { and }"
_WORDS = {
    "int": "a whole number",
    "float": "a finite number",
    "str": "text",
    "bool": "true or false",
    "dict[str, Any]": _OBJECT,
    "Mapping[str, Any]": _OBJECT,
}


def check_types(record: Any) -> None:
    """Refuse a field of a dataclass that is not of its type, where that is int, float, str, bool or a mapping; an int
    is a float.

    Args:
        record: a dataclass whose annotations are not evaluated.

    Raises:
        OptionError: a field is of another type; true and false are no numbers, and neither are NaN and infinity.

    >>> check_types(dataclasses.make_dataclass("Phase", [("steps", "int")])(2.5))
    Traceback (most recent call last):
    stmemory.errors.OptionError: Phase.steps: expected a whole number, got 2.5
    """
    for each in dataclasses.fields(record):
        _check_type(str(each.type), getattr(record, each.name), f"{type(record).__name__}.{each.name}")


def check_values(record: object, checks: Sequence[tuple[str, bool, str]]) -> None:
    """Refuse a record of which a field is out of its range.

    Args:
        record: of any kind.
        checks: name of a field, whether it is fine, and what was expected of it.

    Raises:
        OptionError: a field is not fine.

    >>> phase = dataclasses.make_dataclass("Phase", ["steps"])(0)
    >>> check_values(phase, [("steps", phase.steps >= 1, "1 or more")])
    Traceback (most recent call last):
    stmemory.errors.OptionError: Phase.steps: expected 1 or more, got 0
    """
    for name, fine, expected in checks:
        if not fine:
            raise OptionError(f"{type(record).__name__}.{name}: expected {expected}, got {getattr(record, name)!r}")


def read_record(kind: type[_Record], values: object, where: str = "") -> _Record:
    """Make a dataclass of a JSON object; what is wrong is told by its place in the file.

    Args:
        kind: of the record.
        values: its fields; those that are not there keep their defaults.
        where: the object's place in the file, such as `phases[0]`; empty for the file's own.

    Raises:
        OptionError: it is no object, a name does not exist, or a value is of another type or out of its range.

    >>> read_record(dataclasses.make_dataclass("Phase", [("steps", "int", 5)]), {"step": 3}, "phases[0]")
    Traceback (most recent call last):
    stmemory.errors.OptionError: phases[0].step: expected the name of a setting, got one that does not exist; did you
    mean steps?
    """
    known: Any = kind
    if not isinstance(values, Mapping):
        raise OptionError(f"{where}{': ' * bool(where)}expected {_OBJECT}, got {shown(values)}")
    inside, types = where and f"{where}.", {field.name: str(field.type) for field in dataclasses.fields(known)}
    for name, value in values.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, 1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(types)}"
            raise OptionError(f"{inside}{name}: expected the name of a setting, got one that does not exist; {advice}")
        _check_type(types[name], value, f"{inside}{name}")
    own = kind.__name__
    try:
        return kind(**values)
    except OptionError as error:
        said = str(error)
        if said.startswith(f"{own}."):
            raise OptionError(f"{inside}{said.removeprefix(f'{own}.')}") from error
        if said.startswith(f"{own}: ") and where:
            raise OptionError(f"{where}: {said.removeprefix(f'{own}: ')}") from error
        raise
    except (TypeError, ValueError) as error:  # of values inside of values
        raise OptionError(f"{where or own}: expected values of the types that are documented, got: {error}") from error


def read_json(text: str, *, see: str) -> Any:
    """The values of a JSON text, see `parse_json`.

    Args:
        text: all of it.
        see: the record that says what belongs there.

    Raises:
        OptionError: it is no JSON.

    >>> read_json("{", see="TrainingConfig")
    Traceback (most recent call last):
    stmemory.errors.OptionError: see TrainingConfig: expected JSON, got something else: Expecting property name enclosed
    in double quotes: line 1 column 2 (char 1); the file is damaged or of another kind
    """
    try:
        return parse_json(text)
    except OptionError as error:
        raise OptionError(f"see {see}: {error}") from error


def read_records(kind: type[_Record], values: object, where: str) -> tuple[_Record, ...]:
    """Make dataclasses of a JSON list of objects, see `read_record`.

    Raises:
        OptionError: it is no list, or one of them is wrong.

    >>> phase = dataclasses.make_dataclass("Phase", [("steps", "int", 5)])
    >>> [each.steps for each in read_records(phase, [{"steps": 3}, {}], "phases")]
    [3, 5]
    """
    return tuple(
        read_record(kind, value, f"{where}[{number}]") for number, value in enumerate(read_list(values, where))
    )


def read_list(values: object, where: str) -> list[Any]:
    """A list as it is.

    Args:
        values: from JSON.
        where: its place in the file.

    Raises:
        OptionError: it is something else.

    >>> read_list({"root": "mine"}, "sources")
    Traceback (most recent call last):
    stmemory.errors.OptionError: sources: expected a list, in [ and ], got {'root': 'mine'}
    """
    if not isinstance(values, list):
        raise OptionError(f"{where}: expected a list, in [ and ], got {shown(values)}")
    return values


def _check_type(kind: str, value: object, name: str) -> None:
    fine = kind not in _TYPES or (isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool)))
    if not fine or (kind in _TYPES and isinstance(value, float) and not math.isfinite(value)):
        raise OptionError(f"{name}: expected {_WORDS[kind]}, got {shown(value)}")


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
        memory_every: every so-manieth frame is committed to memory, as `TrackingOptions.memory_every` does.
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
        layout: how it is laid out, see `stmemory.training.data.folders`.
        weight: how often a clip comes from it, relative to the others; the packed material has a weight of 1.
        split: of the layouts that have some: "train", "val".
        validation_split: what a run that validates does so on. Where the layout has no splits, or not this one, about
            one picture or video in twenty is held out of the training, by a hash of its name; "" always does that.
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
        preset: of the network.
        phases: one after another under a single learning rate schedule.
        policy: update policy of the unroll; "learned" is trained with the network.
        sources: folders to make clips from, with the packed material if that is given.
        optimiser: "adamw", or "adam" as in the paper.
        schedule: "cosine", or "plateau" as in the paper: a tenth whenever the validation error did not fall.
        validate_every: steps between two validations; 0 never validates.
        validation_clips: made for it, as in the run but of another seed.
        learning_rate: at the top of the schedule.
        trunk_factor: what the pre-trained trunk's rate is multiplied with.
        network_factor: what the whole network's rate is multiplied with; 0 trains a learned policy alone.
        policy_factor: what a learned policy's rate is multiplied with.
        matching_factor: what the rate of all but the discriminative read and what it brings is multiplied with; 0
            trains that alone.
        score_factor: what the rate of the discriminative read's part in the decoder is multiplied with.
        projection_factor: what that of its projection and its four numbers is multiplied with; 0 leaves them as they
            begin.
        score_weight: of the loss of the discriminative read alone.
        damage: probability that something goes wrong with an object's masks on their way to the memory.
        zoom: probability that a clip is seen through a window around its objects, as in tracking.
        temperature: of a learned policy's Gumbel-Softmax, at the first step.
        final_temperature: at the last one.
        weight_decay: of the optimiser.
        warmup: steps of linear warm-up; the schedule follows.
        final_factor: last over top learning rate of the cosine.
        clip_norm: gradients are clipped to that norm.
        bootstrap_steps: over which the share of hardest pixels falls from 1 to 0.25.
        own_masks: probability that the network's own mask is fed back.
        ema: decay of the averaged weights, which are the ones saved.
        precision: of the network's arithmetic in training, "bfloat16" (autocast) or "float32".
        bad_data: "skip" draws another picture where one cannot be used, and names it in the log; "refuse" ends the run.
        render: who makes the pixels of the clips that the workers draw: "device", the one that trains; "workers"
            themselves; or "auto", which is the device on CUDA and the workers elsewhere.
        save_every: steps between two states; a run may go on with another one.
        seed: of weights, clips and draws.
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
                f"TrainingConfig.data.{name}: expected a setting of clips that phases do not have, got one of phases; "
                "put it there"
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
                "3 <= capacity < frames - 1, "
                f"got capacity {last.capacity} and {last.frames} frames; use longer clips or fewer slots"
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

    def to_json(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """From what `to_json` wrote; what it does not name keeps its default.

        Raises:
            OptionError: the text is not JSON, or names something that does not exist.
        """
        values = read_json(text, see=cls.__name__)
        if isinstance(values, dict):
            for name, kind in (("phases", Phase), ("sources", Source)):
                if name in values:
                    values[name] = read_records(kind, values[name], name)
        return read_record(cls, values)

    @classmethod
    def load(cls, path: str | Path) -> TrainingConfig:
        """From a JSON file, see `from_json`.

        Raises:
            OptionError: the file is missing, is not JSON, or names something that does not exist.
        """
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise OptionError(
                f"{path}: expected the JSON of a run, see TrainingConfig, got: {error.strerror or error}; check the "
                "path"
            ) from error
        except UnicodeDecodeError as error:
            raise OptionError(
                f"{path}: expected the JSON of a run, see TrainingConfig, got a file that is no text; check the path"
            ) from error
        except OptionError as error:
            raise OptionError(f"{path}: {error}") from error
