"""All that a stream remembers, as one record, and that record in a file. Knows no step: `stream.py` makes and changes
it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from stmemory.errors import BankError, FrameError
from stmemory.frames import WorkingSize
from stmemory.masks import LARGEST_ID, MAX_OBJECTS
from stmemory.memory.bank import MemoryBank
from stmemory.memory.discriminative import DiscriminativeMemory
from stmemory.memory.packing import packed, unpacked
from stmemory.memory.read import ReadCache
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.result import Segmentation
from stmemory.state_file import check_shapes, fill_memory, memory_tensors, read_state, write_state
from stmemory.window import Window

__all__ = ["FORMAT_VERSION", "StreamState", "load_state", "save_state"]

FORMAT_VERSION = 4  # 2 added the sums of the discriminative read, 3 the digest of every byte, 4 the window
_WITH_WINDOW = 4
_KIND = ("stmemory.stream", FORMAT_VERSION)


@dataclass(eq=False)
class StreamState:
    """What is kept from one frame of a video to the next. Nothing here grows with the video.

    Attributes:
        bank: the memory; row n belongs to `object_ids[n]`.
        cache: of the bank's keys and values.
        sums: of the discriminative read; row n belongs to `object_ids[n]`. Empty where the network has no such read.
        object_ids: the N ids being tracked.
        frame_index: of the last frame, from 0; -1 before the first.
        size: frame size and working size; None before the first frame.
        cut: whether an object was given at the frame's edge, see `is_cut`; all of the frame is looked at from then on.
        window: that the last frame was looked at through; None before the first frame.
        pixels: `[1, 3, H', W']`, the last frame through the window, at its padded working size.
        overview: `[1, 3, H', W']`, all of the last frame; None where windows are never smaller.
        probabilities: `[1 + N, H', W']`, what was found in the window.
        places: bool `[N, H', W']`, where in it each object was seen last.
        last: the last frame's result.
    """

    bank: MemoryBank
    cache: ReadCache = field(default_factory=ReadCache)
    sums: DiscriminativeMemory = field(default_factory=DiscriminativeMemory)
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
            + self.sums.nbytes
            + sum(t.numel() * t.element_size() for t in kept if t is not None)
        )

    def last_frame(self) -> tuple[Tensor, WorkingSize, Tensor]:
        """Pixels, size and probabilities of the last frame.

        Raises:
            FrameError: there was none.
        """
        if self.pixels is None or self.size is None or self.probabilities is None:
            raise FrameError("expected a stream that has seen a frame, got a new one; call step(frame, mask) first")
        return self.pixels, self.size, self.probabilities


def save_state(state: StreamState, path: str | Path, *, network: SegmentationNetwork, options: TrackingOptions) -> None:
    """Write a state, with the fingerprint of the weights and the options it belongs to. The file appears whole or not
    at all.

    Raises:
        FrameError: no frame was seen yet.
        OptionError: the path is no name of a file.
        FileError: the file cannot be written there.
    """
    pixels, size, probabilities = state.last_frame()
    tensors = memory_tensors(state.bank, state.cache) | {"pixels": pixels, "probabilities": probabilities}
    tensors |= {f"sums.{name}": t for name, t in state.sums.state_dict().items()}
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
    path: str | Path, *, bank: MemoryBank, network: SegmentationNetwork, options: TrackingOptions
) -> StreamState:
    """A state as it was when it was saved.

    Args:
        path: what `save_state` wrote.
        bank: an empty bank of the network's, to be filled.
        network: the very network that it was saved with.
        options: the very options.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or belongs to other weights or options.
    """

    def build(about: dict[str, Any], tensors: dict[str, Tensor]) -> StreamState:
        state = _state(about, tensors, bank)
        _check(state, network=network, options=options)
        return state

    return read_state(path, _KIND, build, since=3, network=network, options=options)


def _state(about: dict[str, Any], tensors: dict[str, Tensor], bank: MemoryBank) -> StreamState:
    state = StreamState(bank)
    fill_memory(state.bank, state.cache, tensors)
    state.sums.load_state_dict(
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


def _check(state: StreamState, *, network: SegmentationNetwork, options: TrackingOptions) -> None:
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
    enlarge = options.factor(size.frame_height, size.frame_width)
    if size != WorkingSize.of(size.frame_height, size.frame_width, options.short_side, network.stride, enlarge=enlarge):
        raise BankError(f"expected the sizes of a frame for these options, got {size}")
    if (
        state.window is None
        or not state.window.fits(size)
        or (state.overview is None and not state.window.is_whole(size))
    ):
        raise BankError(f"expected a window inside the frame, and all of the frame beside it, got {state.window}")
    if state.bank.rows != number or state.sums.rows != (number if network.config.appearance_channels else 0):
        raise BankError(f"expected a memory of {number} objects, got {state.bank.rows} and {state.sums.rows}")
    padded, frame = (size.padded_height, size.padded_width), (size.frame_height, size.frame_width)
    cells, config = (padded[0] // network.stride, padded[1] // network.stride), network.config
    slots = (number, state.bank.capacity)
    found = state.cache.state_dict(state.bank) | {f"bank.{name}": t for name, t in state.bank.state_dict().items()}
    found |= {f"sums.{name}": t for name, t in state.sums.state_dict().items()}
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
    sums = (number, 2 * config.appearance_channels + 1, 2 * config.appearance_channels + 2)
    expected = {
        "bank.templates": (*slots, config.template_channels, *cells),
        "bank.keys": (*slots, config.key_channels, *cells),
        "keys": (*slots, config.key_channels, *cells),
        "values": (*slots, config.value_channels, *cells),
        "seen": slots,
        "sums.given": sums,
        "sums.found": sums,
        "pixels": (1, 3, *padded),
        "overview": (1, 3, *padded),
        "probabilities": (1 + number, *padded),
        "places": (number, *padded),
        "last.ids": frame,
        "last.probabilities": (1 + number, *frame),
    }
    check_shapes(expected, found)
