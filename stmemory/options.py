"""`TrackingOptions` and `PredictionOptions`: all that a user can choose about a task, each in one frozen record. Knows
no network."""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from stmemory.errors import OptionError
from stmemory.memory.policy import UpdatePolicy, update_policy

__all__ = ["PredictionOptions", "TrackingOptions", "ready_options"]

_FACTOR, _MEASURED = 3.0, 120  # by which frames are enlarged at most, and the shorter side, px, from which on

_Options = TypeVar("_Options", "TrackingOptions", "PredictionOptions")


@dataclass(frozen=True)
class TrackingOptions:
    """How videos are tracked.

    Attributes:
        memory_size: K, slots a object; the paper uses 5.
        policy: update policy, by name, by the paper's letter, or an object.
        memory_every: commit every n-th frame to memory; between them the newest slot follows the video. 1 is the
            paper; 3 is as good with the bundled weights, and a quarter faster.
        short_side: frames whose shorter side is longer, px, are shrunk to it for the network; None never resizes.
        enlarge: frames whose shorter side is shorter than `short_side` are enlarged to it for the network, but at most
            by this factor; time grows with its square. 1 leaves them as they are. None is 3, and 1 for frames whose
            shorter side is below 120 px, for which nothing was measured.
        zoom: while all objects are seen, the network looks through a window around them, at most that many times as
            closely as at the whole frame; it costs no time. Not where an object was given at the frame's edge. 1 always
            looks at the whole frame.
        top_k: read from that many best memory cells only, for each query cell; None reads from all.
        write_gate: memorise an object's frame only if its score is at least that, in [0, 1]; 0 memorises every frame in
            which the object is seen. A frame in which it is not seen is never memorised.
        reach: regions further than this share of the frame's short side from an object's last place are taken for false
            positives (section 3.4.1); None keeps every region.

    Raises:
        OptionError: a value is out of its range.

    >>> TrackingOptions(policy="A", memory_size=3).memory_size
    3
    """

    memory_size: int = 5
    policy: str | UpdatePolicy = "least_similar"
    memory_every: int = 3
    short_side: int | None = 480
    enlarge: float | None = None
    zoom: float = 2.0
    top_k: int | None = None
    write_gate: float = 0.5
    reach: float | None = 0.2

    def __post_init__(self) -> None:
        update_policy(self.policy)  # raises for unknown names
        for name in ("memory_size", "memory_every", "short_side", "enlarge", "zoom", "top_k", "write_gate", "reach"):
            value, whole = getattr(self, name), name not in ("enlarge", "zoom", "write_gate", "reach")
            fine = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not fine and not (value is None and name in ("short_side", "enlarge", "top_k", "reach")):
                raise OptionError(
                    f"TrackingOptions: expected {name} as a {'whole ' * whole}number, got {value!r}; convert it"
                )
        checks = (
            ("memory_size", self.memory_size >= 2, "2 slots or more"),
            ("memory_every", self.memory_every >= 1, "1 or more"),
            ("short_side", self.short_side is None or self.short_side >= 16, "16 px or more, or None"),
            (
                "enlarge",
                self.enlarge is None or 1 <= self.enlarge < math.inf,
                "1 or more, or None, which chooses by the frames",
            ),
            ("zoom", 1 <= self.zoom < math.inf, "1 or more"),
            ("top_k", self.top_k is None or self.top_k >= 1, "1 or more, or None"),
            ("write_gate", 0 <= self.write_gate <= 1, "0 to 1"),
            ("reach", self.reach is None or 0 <= self.reach < math.inf, "0 or more, or None, which keeps every region"),
        )
        for name, fine, expected in checks:
            if not fine:
                raise OptionError(
                    f"TrackingOptions: expected {name} of {expected}, got {getattr(self, name)}; choose one in that "
                    "range"
                )

    def factor(self, height: int, width: int) -> float:
        """By how much frames of that size are enlarged at most, see `enlarge`.

        >>> TrackingOptions().factor(240, 320), TrackingOptions().factor(48, 64), TrackingOptions(enlarge=2).factor(48, 64)
        (3.0, 1.0, 2.0)
        """
        if self.enlarge is not None:
            return float(self.enlarge)
        return _FACTOR if min(height, width) >= _MEASURED else 1.0

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Plain values, the policy by its name; what saved streams and reports carry."""
        return {
            "memory_size": self.memory_size,
            "policy": update_policy(self.policy).name,
            "memory_every": self.memory_every,
            "short_side": self.short_side,
            "enlarge": self.enlarge,
            "zoom": self.zoom,
            "top_k": self.top_k,
            "write_gate": self.write_gate,
            "reach": self.reach,
        }


@dataclass(frozen=True)
class PredictionOptions:
    """How frames are predicted.

    Attributes:
        memory_size: K, slots of the video.
        policy: update policy, by name, by the paper's letter, or an object.
        write_predictions: memorise the network's own predictions too while it runs ahead of the video; without it the
            bank stays as the last seen frame left it, and only the recurrent state goes on.
        short_side: frames whose shorter side is longer, px, are shrunk to it for the network, and predictions enlarged
            again; None never resizes. Time grows with the square of the pixels.

    Raises:
        OptionError: a value is out of its range.

    >>> PredictionOptions(policy="A").as_dict()
    {'memory_size': 16, 'policy': 'oldest', 'write_predictions': True, 'short_side': None}
    """

    memory_size: int = 16
    policy: str | UpdatePolicy = "most_similar"
    write_predictions: bool = True
    short_side: int | None = None

    def __post_init__(self) -> None:
        update_policy(self.policy)  # raises for unknown names
        checks = (
            ("memory_size", type(self.memory_size) is int and self.memory_size >= 2, "2 slots or more"),
            ("write_predictions", type(self.write_predictions) is bool, "True or False"),
            (
                "short_side",
                self.short_side is None or (type(self.short_side) is int and self.short_side >= 8),
                "8 px or more, or None",
            ),
        )
        for name, fine, expected in checks:
            if not fine:
                raise OptionError(
                    f"PredictionOptions: expected {name} of {expected}, got {getattr(self, name)!r}; choose one of "
                    "those"
                )

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Plain values, the policy by its name; what saved streams and reports carry."""
        policy = update_policy(self.policy).name
        return {
            "memory_size": self.memory_size,
            "policy": policy,
            "write_predictions": self.write_predictions,
            "short_side": self.short_side,
        }


def ready_options(options: _Options | None, default: _Options, device: torch.device) -> _Options:
    """The options with a learned policy copied, on the network's device, and in eval mode: in training mode it draws
    noise.

    Args:
        options: what a user chose; None is the default.
        default: of the kind that is wanted.
        device: of the network.

    Raises:
        OptionError: they are of another kind.

    >>> ready_options(None, TrackingOptions(), torch.device("cpu")).memory_size
    5
    """
    if options is None:
        return default
    if not isinstance(options, type(default)):
        name = type(default).__name__
        raise OptionError(f"options: expected {name}, got {type(options).__name__}; write options={name}(...)")
    policy = update_policy(options.policy)
    if not isinstance(policy, nn.Module):
        return options
    return dataclasses.replace(options, policy=copy.deepcopy(policy).to(device).eval().requires_grad_(False))
