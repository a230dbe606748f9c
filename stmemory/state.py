"""A stream in a file: all that a stream remembers, written and read with checks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from stmemory.errors import BankError, FrameError, StmemoryError, WeightsError
from stmemory.io.frames import WorkingSize
from stmemory.io.masks import LARGEST_ID, MAX_OBJECTS
from stmemory.memory.bank import MemoryBank
from stmemory.memory.packing import packed, unpacked
from stmemory.memory.policy import UpdatePolicy
from stmemory.memory.read import ReadCache
from stmemory.networks.tracking import Beside, Memory, TrackingNetwork
from stmemory.options import TrackingOptions
from stmemory.result import Segmentation
from stmemory.weights.pretrained import HasState, fingerprint, tensors_digest
from stmemory.weights.tensors import TensorFile, read_tensor_file, write_tensor_file
from stmemory.window import Window

__all__ = [
    "FORMAT_VERSION",
    "StreamNetwork",
    "StreamOptions",
    "StreamState",
    "check_shapes",
    "fill_memory",
    "load_state",
    "memory_tensors",
    "read_state",
    "save_state",
    "weights_of",
    "write_state",
]

_State = TypeVar("_State")
_BEFORE = {
    "enlarge": 1.0,
    "zoom": 1.0,
    "margin": None,
}  # options that did not exist when a file was written, as they were then


class StreamNetwork(HasState, Protocol):
    """The network of a stream of any kind."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As of a module."""


class StreamOptions(Protocol):
    """Options that a state is saved with: `TrackingOptions` or `PredictionOptions`."""

    @property
    def policy(self) -> str | UpdatePolicy:
        """The bank's, whose weights count too where it has some."""

    def as_dict(self) -> Mapping[str, str | int | float | None]:
        """Plain values."""


def write_state(
    path: str | Path,
    kind: tuple[str, int],
    tensors: Mapping[str, Tensor],
    about: Mapping[str, object],
    *,
    network: HasState,
    options: StreamOptions,
) -> None:
    """Write a state, with a digest of all of it. The file is written atomically.

    Args:
        path: the file.
        kind: name and version of the format.
        tensors: by name.
        about: plain JSON values.
        network: the network of the stream.
        options: the options of the stream.

    Raises:
        OptionError: the path is no name of a file.
        FileError: the file cannot be written there.
    """
    header = {
        "format": kind[0],
        "version": kind[1],
        "weights": weights_of(network, options),
        "options": options.as_dict(),
    }
    write_tensor_file(path, tensors, {"about": json.dumps({**header, **about})})


def read_state(
    path: str | Path,
    kind: tuple[str, int],
    build: Callable[[dict[str, Any], dict[str, Tensor]], _State],
    *,
    since: int,
    network: StreamNetwork,
    options: StreamOptions,
) -> _State:
    """Read a state that `write_state` wrote.

    Args:
        path: of the file.
        kind: name of the format, and the newest version that is understood.
        build: makes the state from the file's JSON values and tensors; LookupError, TypeError, ValueError and BankError
            say that something is missing or wrong.
        since: first version whose files have a digest of every byte; earlier ones have one of the tensors.
        network: the network that it was saved with.
        options: the options that it was saved with.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or belongs to other weights or options.
        OptionError: the path is no name of a file.
    """
    device = next(network.parameters()).device
    file = read_tensor_file(path, "a stream that stream.save() wrote")
    tensors = {name: tensor.to(device) for name, tensor in file.tensors.items()}
    about = _words(path, kind, file)
    try:
        _check_digest(path, about, file, since)
        _check_belongs(path, about, weights_of(network, options), options.as_dict())
        return build(about, tensors)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, StmemoryError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"{path}: expected all that a stream remembers, got: {error!r}; start the video again"
        ) from error


def memory_tensors(bank: MemoryBank, cache: ReadCache) -> dict[str, Tensor]:
    """The tensors of a bank and its cache, by name, without a copy."""
    tensors = {f"bank.{name}": t for name, t in bank.contents().items()}
    return tensors | {f"cache.{name}": t for name, t in cache.state_dict(bank).items()}


def fill_memory(bank: MemoryBank, cache: ReadCache, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors that `memory_tensors` returned, out of all of a file's.

    Raises:
        BankError: the bank is of another capacity or kind.
    """
    bank.load_contents(_part(tensors, "bank."))
    cache.load_state_dict(_part(tensors, "cache."), bank)


def check_shapes(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors of other shapes, which a foreign file may have; missing ones are not looked at.

    Raises:
        BankError: names the first of them.

    >>> check_shapes({"a": (1, 2)}, {"a": nn.Linear(2, 1).weight})
    """
    for name, shape in expected.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise BankError(f"expected {name} of shape {shape}, got {tuple(tensors[name].shape)}")


def weights_of(network: HasState, options: StreamOptions) -> str:
    """Fingerprints of all weights that a stream's results depend on: the network's, then those of a learned policy.

    >>> from stmemory.memory.policy import LearnedPolicy
    >>> from stmemory.options import PredictionOptions
    >>> network, learned = nn.Linear(1, 1), PredictionOptions(policy=LearnedPolicy())
    >>> len(weights_of(network, PredictionOptions())), len(weights_of(network, learned))
    (16, 33)
    """
    policy = options.policy
    return fingerprint(network) + ("-" + fingerprint(policy) if isinstance(policy, nn.Module) else "")


def _words(path: str | Path, kind: tuple[str, int], file: TensorFile) -> dict[str, Any]:
    """The JSON header of a file of this kind."""
    try:
        about = json.loads(file.about.get("about", "{}"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path}: expected a stream that stream.save() wrote, got a damaged one ({error}); start the video again"
        ) from error
    found, version = (about.get("format"), about.get("version")) if isinstance(about, dict) else (None, None)
    if found != kind[0] or type(version) is not int or not 1 <= version <= kind[1]:
        raise WeightsError(
            f"{path}: expected a {kind[0]} of version {kind[1]} or older, got {found or 'another file'} of version "
            f"{version or 'unknown'}; pass what stream.save() of such a stream wrote, or update stmemory"
        )
    words: dict[str, Any] = about
    return words


def _check_digest(path: str | Path, about: dict[str, Any], file: TensorFile, since: int) -> None:
    """Refuse a file that lost its digest, or of an earlier version whose tensors are not those that were saved."""
    fine = file.whole if about["version"] >= since else about["digest"] == tensors_digest(file.tensors)
    if not fine:
        raise WeightsError(
            f"{path}: expected a stream with the digest of what was saved, got another; the file is damaged, start "
            "the video again"
        )


def _check_belongs(path: str | Path, about: dict[str, Any], weights: str, ours: Mapping[str, object]) -> None:
    if about["weights"] != weights:
        raise WeightsError(
            f"{path}: expected the weights it was saved with ({about['weights']}), got {weights}; load those, "
            "and compute in the dtype of then: in another one they are others"
        )
    theirs = {**{name: value for name, value in _BEFORE.items() if name in ours}, **about["options"]}
    changed = {
        name: (theirs.get(name), ours.get(name))
        for name in sorted({*ours, *theirs})
        if theirs.get(name) != ours.get(name)
    }
    if changed:
        differences = ", ".join(f"{name} {then!r} (now {now!r})" for name, (then, now) in changed.items())
        raise WeightsError(
            f"{path}: expected the options it was saved with: {differences}; build the predictor with those"
        )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


FORMAT_VERSION = 5  # 2: sums of the discriminative read, 3: digest of every byte, 4: window, 5: extents
_WITH_WINDOW = 4
_KIND = ("stmemory.stream", FORMAT_VERSION)


@dataclass(eq=False)
class StreamState:
    """Everything kept from one frame of a video to the next. Nothing here grows with the video.

    Attributes:
        bank: the memory; row n belongs to `object_ids[n]`.
        cache: of the bank's keys and values.
        beside: what the network remembers beside the bank; row n belongs to `object_ids[n]`.
        object_ids: the N ids being tracked.
        frame_index: of the last frame, from 0; -1 before the first.
        size: frame size and working size; None before the first frame.
        cut: whether an object was given at the frame's edge, see `is_cut`; all of the frame is looked at from then on.
        window: the window of the last frame; None before the first frame.
        pixels: `[1, 3, H', W']`, the last frame through the window, at its padded working size.
        overview: `[1, 3, H', W']`, all of the last frame; None where windows are never smaller.
        probabilities: `[1 + N, H', W']`, of the last frame in the window.
        places: bool `[N, H', W']`, where in it each object was seen last.
        last: the last frame's result.
    """

    bank: MemoryBank
    beside: Beside
    cache: ReadCache = field(default_factory=ReadCache)
    object_ids: tuple[int, ...] = ()
    frame_index: int = -1
    size: WorkingSize | None = None
    cut: bool = False
    window: Window | None = None
    pixels: Tensor | None = None
    overview: Tensor | None = None
    probabilities: Tensor | None = None
    places: Tensor | None = None
    last: Segmentation | None = None

    def __getstate__(self) -> dict[str, Any]:
        names = ("pixels", "overview", "probabilities", "places")
        tensors = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        state: dict[str, Any] = {**vars(self), **dict.fromkeys(names), "last": None}
        if self.last is not None:
            tensors |= {"last.ids": self.last.ids, "last.probabilities": self.last.probabilities}
            state["last"] = {name: value for name, value in vars(self.last).items() if not isinstance(value, Tensor)}
        return state | {"packed": packed(tensors)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        tensors, last = unpacked(state["packed"]), state["last"]
        found = {
            name.removeprefix("last."): tensors.pop(name)
            for name in ("last.ids", "last.probabilities")
            if name in tensors
        }
        vars(self).update({name: value for name, value in state.items() if name != "packed"} | tensors)
        self.last = None if last is None else Segmentation(**{**last, **found})

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        kept = [self.pixels, self.overview, self.probabilities, self.places]
        if self.last is not None:
            kept += [self.last.ids, self.last.probabilities]
        return (
            self.bank.nbytes
            + self.cache.nbytes
            + self.beside.nbytes
            + sum(t.numel() * t.element_size() for t in kept if t is not None)
        )

    @property
    def memory(self) -> Memory:
        """What is remembered for the network."""
        return Memory(self.bank, self.beside, self.cache)

    def last_frame(self) -> tuple[Tensor, WorkingSize, Tensor]:
        """Pixels, size and probabilities of the last frame.

        Raises:
            FrameError: there was none.
        """
        if self.pixels is None or self.size is None or self.probabilities is None:
            raise FrameError("expected a stream that has seen a frame, got a new one; call step(frame, mask) first")
        return self.pixels, self.size, self.probabilities


def save_state(state: StreamState, path: str | Path, *, network: TrackingNetwork, options: TrackingOptions) -> None:
    """Write a state, with the fingerprint of the weights and the options it belongs to. The file is
    written atomically.

    Raises:
        FrameError: no frame was seen yet.
        OptionError: the path is no name of a file.
        FileError: the file cannot be written there.
    """
    pixels, size, probabilities = state.last_frame()
    tensors = memory_tensors(state.bank, state.cache) | {"pixels": pixels, "probabilities": probabilities}
    tensors |= {f"sums.{name}": t for name, t in state.beside.state_dict().items()}
    tensors |= {name: t for name in ("overview", "places") if (t := getattr(state, name)) is not None}
    about: dict[str, object] = {
        "frame_index": state.frame_index,
        "object_ids": state.object_ids,
        "size": dataclasses.asdict(size),
    }
    about |= {"window": dataclasses.asdict(state.window or Window.whole(size)), "cut": state.cut}
    if state.last is not None:
        tensors |= {"last.ids": state.last.ids, "last.probabilities": state.last.probabilities}
        about |= {"scores": list(state.last.scores.values()), "present": list(state.last.present.values())}
    write_state(path, _KIND, tensors, about, network=network, options=options)


def load_state(
    path: str | Path, *, bank: MemoryBank, network: TrackingNetwork, options: TrackingOptions
) -> StreamState:
    """A state as it was when it was saved.

    Args:
        path: what `save_state` wrote.
        bank: an empty bank of the network's, to be filled.
        network: the network that it was saved with.
        options: the options that it was saved with.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or belongs to other weights or options.
    """

    def build(about: dict[str, Any], tensors: dict[str, Tensor]) -> StreamState:
        state = _state(about, tensors, bank, network.new_beside())
        _check(state, network=network, options=options)
        return state

    return read_state(path, _KIND, build, since=3, network=network, options=options)


def _state(about: dict[str, Any], tensors: dict[str, Tensor], bank: MemoryBank, beside: Beside) -> StreamState:
    state = StreamState(bank, beside)
    fill_memory(state.bank, state.cache, tensors)
    state.beside.load_state_dict(
        {name.removeprefix("sums."): t for name, t in tensors.items() if name.startswith("sums.")}
    )
    state.object_ids = tuple(about["object_ids"])
    state.frame_index, state.size = about["frame_index"], WorkingSize(**about["size"])
    newer = about["version"] >= _WITH_WINDOW
    state.window, state.cut = (
        (Window(**about["window"]), bool(about["cut"])) if newer else (Window.whole(state.size), False)
    )
    state.pixels, state.probabilities = tensors["pixels"], tensors["probabilities"]
    state.overview, state.places = tensors.get("overview"), tensors.get("places")
    if "last.ids" in tensors:
        scores = dict(zip(state.object_ids, about["scores"], strict=True))
        present = dict(zip(state.object_ids, about["present"], strict=True))
        ids, probabilities = tensors["last.ids"], tensors["last.probabilities"]
        state.last = Segmentation(state.frame_index, ids, probabilities, state.object_ids, scores, present)
    return state


def _check(state: StreamState, *, network: TrackingNetwork, options: TrackingOptions) -> None:
    """Refuse a state whose parts do not fit each other: files of earlier versions have no digest of their header.

    Raises:
        BankError: says which part.
    """
    ids, size, number = state.object_ids, state.size, len(state.object_ids)
    if not all(type(i) is int and 1 <= i <= LARGEST_ID for i in ids) or len(set(ids)) != number or number > MAX_OBJECTS:
        raise BankError(f"expected object_ids from 1 to {LARGEST_ID}, each once, got {ids}")
    if type(state.frame_index) is not int or state.frame_index < 0:
        raise BankError(f"expected a frame_index of 0 or more, got {state.frame_index!r}")
    if size is None or not all(type(side) is int for side in dataclasses.astuple(size)):
        raise BankError(f"expected sizes in whole pixels, got {size}")
    frame = (size.frame_height, size.frame_width)
    if size != options.working_size(network, *frame):
        raise BankError(f"expected the sizes of a frame for these options, got {size}")
    if (
        state.window is None
        or not state.window.fits(size)
        or (state.overview is None and not state.window.is_whole(size))
    ):
        raise BankError(f"expected a window inside the frame, and all of the frame beside it, got {state.window}")
    shapes = network.state_shapes(number, state.bank.capacity, size)
    beside = number if any(name.startswith("sums.") for name in shapes) else 0
    if state.bank.rows != number or state.beside.rows != beside:
        raise BankError(f"expected a memory of {number} objects, got {state.bank.rows} and {state.beside.rows}")
    padded = (size.padded_height, size.padded_width)
    found = state.cache.state_dict(state.bank) | {f"bank.{name}": t for name, t in state.bank.contents().items()}
    found |= {f"sums.{name}": t for name, t in state.beside.state_dict().items()}
    for name in ("pixels", "overview", "probabilities", "places"):
        found |= {} if getattr(state, name) is None else {name: getattr(state, name)}
    if state.last is not None:
        found |= {"last.ids": state.last.ids, "last.probabilities": state.last.probabilities}
        if not all(type(score) in (int, float) for score in state.last.scores.values()) or not all(
            type(seen) is bool for seen in state.last.present.values()
        ):
            raise BankError(
                f"expected a score and a presence of each object, got {state.last.scores} and {state.last.present}"
            )
    expected = {
        **shapes,
        "pixels": (1, 3, *padded),
        "overview": (1, 3, *padded),
        "probabilities": (1 + number, *padded),
        "places": (number, *padded),
        "last.ids": frame,
        "last.probabilities": (1 + number, *frame),
    }
    check_shapes(expected, found)
