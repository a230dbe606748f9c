"""`TrackingOptions` and `PredictionOptions`: all that a user can choose about a task, each in one frozen record."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from stmemory.errors import OptionError
from stmemory.io.frames import WorkingSize
from stmemory.memory.policy import UpdatePolicy, update_policy
from stmemory.networks.tracking import TrackingNetwork

__all__ = ["PredictionOptions", "TrackingOptions", "ready_options"]

_FACTOR = 3.0  # times, by which frames are enlarged at most
_MEASURED = 120  # px, the shorter side from which on they are

_Options = TypeVar("_Options", "TrackingOptions", "PredictionOptions")


class _OwnInt(int):
    """A whole number that nobody chose: a default, which the network may replace by its own."""


class _OwnFloat(float):
    """A number that nobody chose: a default, which the network may replace by its own."""


class _OwnStr(str):
    """A name that nobody chose: a default, which the network may replace by its own."""


_POLICY = _OwnStr("least_similar")


@dataclass(frozen=True)
class _Bounds:
    """The numbers that an option may have, both ends included, and whether it may be None."""

    name: str
    least: float
    unit: str = ""
    most: float = math.inf
    whole: bool = False
    none: bool = False

    def check(self, options: object) -> None:
        """Refuse a value out of these bounds.

        Raises:
            OptionError: it is one, or no such number.
        """
        value = getattr(options, self.name)
        if value is None and self.none:
            return
        number = isinstance(value, int if self.whole else (int, float)) and not isinstance(value, bool)
        if number and self.least <= value <= self.most and value != math.inf:
            return
        kind = "a whole number" if self.whole else "a number"
        most = " or more" if self.most == math.inf else f" to {self.most:g}"
        raise OptionError(
            f"{type(options).__name__}: expected {self.name} as {kind}, {self.least:g}{self.unit}{most}"
            f"{', or None' * self.none}, got {value!r}; choose one in that range"
        )


@dataclass(frozen=True)
class TrackingOptions:
    """How videos are tracked.

    The defaults are those of the bundled weights. A network with other ones puts its own in place of what was not
    chosen, see `of_network`; `VOSPredictor.options` has what came of it.

    Attributes:
        memory_size: K, slots of each object; the paper uses 5.
        policy: update policy, by name, by the paper's letter, or an object.
        memory_every: commit every n-th frame to memory; between them the newest slot follows the video. 1 is the
            paper; 3 is as good with the bundled weights, and a quarter faster.
        short_side: frames whose shorter side is longer are shrunk to it for the network; None never resizes.
        enlarge: frames whose shorter side is shorter than `short_side` are enlarged to it for the network, but at most
            by this factor; time grows with its square. 1 leaves them as they are. None is 3, and 1 for frames whose
            shorter side is below 120 px, for which nothing was measured.
        zoom: while all objects are seen, the network looks through a window around them, at most that many times as
            closely as at the whole frame; it costs no time. Not where an object was given at the frame's edge. 1 always
            looks at the whole frame.
        top_k: read from that many best memory cells only, for each query cell; None reads from all.
        write_gate: memorise an object's frame only if its score is at least that; 0 memorises every frame in which the
            object is seen. A frame in which it is not seen is not memorised, unless the network
            says itself whether an object is there, as SAM 2 does: then its opinion is the score.
        reach: regions further than this share of the frame's short side from an object's last place are taken for false
            positives (section 3.4.1); None keeps every region.
        margin: an object that was memorised in the last frame is looked for within so many short sides of the window
            around its place there, and so much of a frame around it is memorised; one that is not seen is looked for in
            all of the window. None always looks at all of it, and memorises all. The smaller, the faster.

    Raises:
        OptionError: a value is out of its range.

    >>> TrackingOptions(policy="A", memory_size=3).memory_size
    3
    """

    # The memory: how large it is, and what it keeps.
    memory_size: int = _OwnInt(5)  # slots, 2 or more
    policy: str | UpdatePolicy = _POLICY  # name, letter or object
    memory_every: int = _OwnInt(3)  # frames, 1 or more

    # What the network sees of a frame.
    short_side: int | None = 480  # px, 16 or more
    enlarge: float | None = None  # times, 1 or more
    zoom: float = _OwnFloat(2.0)  # times, 1 or more

    # What is read, written and believed.
    top_k: int | None = None  # memory cells, 1 or more
    write_gate: float = _OwnFloat(0.5)  # score, 0 to 1
    reach: float | None = _OwnFloat(0.2)  # short sides of the frame, 0 or more
    margin: float | None = _OwnFloat(0.2)  # short sides of the window, 0 or more

    def __post_init__(self) -> None:
        update_policy(self.policy)  # raises for unknown names
        for bounds in _TRACKING:
            bounds.check(self)

    def of_network(self, own: Mapping[str, Any]) -> TrackingOptions:
        """The same, with a network's own values where none was chosen.

        Args:
            own: by name.

        >>> TrackingOptions(zoom=2.0).of_network({"zoom": 1.0, "memory_size": 7}).memory_size
        7
        >>> TrackingOptions(zoom=2.0).of_network({"zoom": 1.0}).zoom
        2.0
        """
        chosen: dict[str, Any] = {}
        for kind, plain in ((_OwnInt, int), (_OwnFloat, float), (_OwnStr, str)):
            for name, value in vars(self).items():
                if isinstance(value, kind):
                    chosen[name] = own.get(name, plain(value))
        return dataclasses.replace(self, **chosen) if chosen else self

    def factor(self, height: int, width: int) -> float:
        """The factor by which frames of that size are enlarged at most, see `enlarge`.

        >>> TrackingOptions().factor(240, 320), TrackingOptions().factor(48, 64)
        (3.0, 1.0)
        >>> TrackingOptions(enlarge=2).factor(48, 64)
        2.0
        """
        if self.enlarge is not None:
            return float(self.enlarge)
        return _FACTOR if min(height, width) >= _MEASURED else 1.0

    def working_size(self, network: TrackingNetwork, height: int, width: int) -> WorkingSize:
        """The size at which a network works on frames `[H, W]`."""
        return network.working_size(height, width, short_side=self.short_side, enlarge=self.factor(height, width))

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Plain values, the policy by its name; saved streams and reports hold these."""
        return _plain(self.of_network({}))


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

    memory_size: int = 16  # slots, 2 or more
    policy: str | UpdatePolicy = "most_similar"  # name, letter or object
    write_predictions: bool = True
    short_side: int | None = None  # px, 8 or more

    def __post_init__(self) -> None:
        update_policy(self.policy)  # raises for unknown names
        for bounds in _PREDICTION:
            bounds.check(self)
        if not isinstance(self.write_predictions, bool):
            raise OptionError(
                f"PredictionOptions: expected write_predictions as True or False, got {self.write_predictions!r}"
            )

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Plain values, the policy by its name; saved streams and reports hold these."""
        return _plain(self)


_TRACKING = (
    _Bounds("memory_size", 2, " slots", whole=True),
    _Bounds("memory_every", 1, whole=True),
    _Bounds("short_side", 16, " px", whole=True, none=True),
    _Bounds("enlarge", 1, none=True),
    _Bounds("zoom", 1),
    _Bounds("top_k", 1, whole=True, none=True),
    _Bounds("write_gate", 0, most=1),
    _Bounds("reach", 0, none=True),
    _Bounds("margin", 0, none=True),
)
_PREDICTION = (
    _Bounds("memory_size", 2, " slots", whole=True),
    _Bounds("short_side", 8, " px", whole=True, none=True),
)


def ready_options(options: _Options | None, default: _Options, device: torch.device) -> _Options:
    """The options with a learned policy copied, on the network's device, and in eval mode: in training mode it draws
    noise.

    Args:
        options: the user's; None is the default.
        default: options of the expected kind.
        device: the network's.

    Raises:
        OptionError: the options are of another kind.

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


def _plain(options: TrackingOptions | PredictionOptions) -> dict[str, str | int | float | None]:
    """The fields in their order, the policy by its name."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return values | {"policy": update_policy(options.policy).name}
