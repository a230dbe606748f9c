"""`FrameStream`: one video whose next frames are predicted, and the predicted frame."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stmemory.errors import BankError, FrameError, OptionError, WeightsError
from stmemory.io.files import png_path, whole_file
from stmemory.io.frames import WorkingSize, check_unmoved, next_frame, restore, to_frame
from stmemory.io.grey import as_colour, of_channels
from stmemory.memory.bank import MemoryBank
from stmemory.memory.slots import SlotInfo
from stmemory.memory.undo import Steps
from stmemory.networks.layers import keep_large_buffers
from stmemory.options import PredictionOptions
from stmemory.prediction.network import PredictionNetwork, PredictionState
from stmemory.state import check_shapes, fill_memory, memory_tensors, read_state, write_state
from stmemory.types import GreyFrameLike

__all__ = ["FORMAT_VERSION", "FrameStream", "FrameStreamState", "PredictedFrame", "checked_steps", "load_frame_state"]


@dataclass(frozen=True, eq=False)
class PredictedFrame:
    """A prediction, at the size of the video's own frames.

    The tensor is made in inference mode: `clone()` it to change it in place or to use it in autograd.

    Attributes:
        frame_index: which frame of the video it stands for, from 0.
        pixels: float32 `[C, H, W]` in [0, 1]: grey with C = 1, RGB with C = 3, as the network is made.

    >>> import torch
    >>> PredictedFrame(3, torch.ones(1, 2, 4)).picture().shape
    (2, 4, 3)
    """

    frame_index: int
    pixels: Tensor

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.pixels.shape[1:]))
        return f"PredictedFrame(frame {self.frame_index}, {size} (H x W), {'grey' if len(self.pixels) == 1 else 'RGB'})"

    def picture(self) -> NDArray[np.uint8]:
        """As uint8 RGB `[H, W, 3]`; grey has its value three times."""
        values = np.rint(self.pixels.permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a PNG, grey or RGB. The file is written atomically.

        Args:
            path: path of the file, `.png`. Missing parent folders are made; a file that is there is replaced.

        Raises:
            OptionError: the name has another ending than `.png`; or it is no name of a file.
            FileError: the file cannot be written there.
        """
        picture = self.picture()
        with whole_file(png_path(path, "for another format take picture(), and write that")) as part:
            Image.fromarray(picture if len(self.pixels) == 3 else picture[:, :, 0]).save(part, format="PNG")


FORMAT_VERSION = 2  # 2 added the digest of every byte
_KIND = ("stmemory.frame_stream", FORMAT_VERSION)
_NOT_FINITE = "expected finite values from the network, got NaN or infinity; use dtype=torch.float32, or other weights"


@dataclass(frozen=True, eq=False)
class FrameStreamState:
    """What is kept from one frame of a video to the next. Nothing here grows with the video.

    Attributes:
        memory: the network's: bank, context and time.
        size: size of the frames; None before the first.
        ahead: `[1, C, H', W']` in [0, 1], the prediction of the next frame at its padded working size; None before the
            first.
    """

    memory: PredictionState
    size: WorkingSize | None = None
    ahead: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return self.memory.nbytes + (0 if self.ahead is None else self.ahead.numel() * self.ahead.element_size())

    def seen(self) -> tuple[Tensor, WorkingSize]:
        """The last prediction, and the size of the frames.

        Raises:
            FrameError: no frame was seen yet.
        """
        if self.ahead is None or self.size is None:
            raise FrameError("expected a stream that has seen a frame, got a new one; call step(frame) first")
        return self.ahead, self.size


class FrameStream:
    """One video: made by `FramePredictor.start` or `FramePredictor.resume`. The only thing that changes from frame to
    frame.

    What it holds does not grow with the video: the bank, a cache of its keys and values, the recurrent context and the
    last prediction.

    Args:
        network: network in eval mode; shared by all streams.
        options: options of prediction.
        state: state of another stream; None begins a new video.
    """

    def __init__(
        self, network: PredictionNetwork, options: PredictionOptions, state: FrameStreamState | None = None
    ) -> None:
        self.network, self.options = network, options
        self._state = FrameStreamState(_new_memory(network, options)) if state is None else state
        self._steps = Steps()
        self._began = next(network.parameters()).new_empty(0)
        keep_large_buffers()

    def __repr__(self) -> str:
        return f"FrameStream(frame {self.frame_index}, {self.bank!r})"

    @property
    def bank(self) -> MemoryBank:
        """The memory, of one row. Look, but write through the stream."""
        return self._state.memory.bank

    @property
    def frame_index(self) -> int:
        """Of the last frame that was seen, from 0; -1 before the first."""
        return self._state.memory.time - 1

    @property
    def last(self) -> PredictedFrame:
        """What the last step said of the frame to come.

        Raises:
            FrameError: no frame was seen yet.
        """
        ahead, size = self._state.seen()
        return _frame(ahead, size, self._state.memory.time)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept from one frame to the next; constant from the first frame on."""
        return self._state.nbytes

    def describe(self) -> list[SlotInfo]:
        """What the slots hold, oldest first; nothing before the first frame, or of a network without a memory."""
        return self.bank.describe() if self.bank.rows else []

    def save(self, path: str | Path) -> None:
        """Write all that is remembered to a file that `FramePredictor.resume` reads; the predictions go on bit for bit.

        Raises:
            FrameError: the stream has not seen a frame yet.
        """
        memory, (ahead, size) = self._state.memory, self._state.seen()
        tensors = memory_tensors(memory.bank, memory.cache) | {"ahead": ahead}
        if memory.context is not None:
            tensors["context"] = memory.context
        about = {"time": memory.time, "size": dataclasses.asdict(size)}
        write_state(path, _KIND, tensors, about, network=self.network, options=self.options)

    def step(self, frame: GreyFrameLike) -> PredictedFrame:
        """Take the video one frame further: remember the frame, and say what comes next. It happens, or after any error
        it did not.

        Args:
            frame: the next frame, of any kind that `to_frame` takes, or grey: an array `[H, W]`, a tensor `[H, W]` or
                `[1, H, W]`; of the same size as those before. A `PredictedFrame`'s `pixels` will do.

        Returns:
            The frame after it.

        Raises:
            FrameError: the frame cannot be used, or its size changed.
            ShapeError: the frame is of another kind or shape.
            WeightsError: the network gave NaN or infinity.
            OptionError: the network was moved or cast since the stream began. After any of these the stream is as it
                was before.
        """
        check_unmoved(next(self.network.parameters()), self._began)
        image = of_channels(to_frame(as_colour(frame)), self.network.config.image_channels)
        like, index = next(self.network.parameters()), self.frame_index + 1
        short_side, stride = self.options.short_side, self.network.stride
        pixels, size = next_frame(image, self._state.size, index=index, short_side=short_side, stride=stride, like=like)
        before, memory = self._state, self._state.memory
        known = dict(vars(memory))

        def work() -> PredictedFrame:
            ahead = _ahead(self.network, memory, pixels, size)
            self._state = dataclasses.replace(before, size=size, ahead=ahead)
            return self.last

        def restore() -> None:
            vars(memory).update(known)
            self._state = before

        with torch.inference_mode():  # what was written in it is put back in it
            return self._steps.take(work, (memory.bank, memory.cache), restore)

    def foresee(self, steps: int = 10) -> Iterator[PredictedFrame]:
        """Look ahead: each prediction is taken for the frame that came, on a copy of the memory. The stream stays as it
        is.

        Args:
            steps: number of frames ahead, 1 or more.

        Returns:
            That many predictions as they are computed, the first of which is `last`. They go on from the memory as it
            is when this is called, whatever the stream sees later.

        Raises:
            FrameError: no frame was seen yet.
            OptionError: `steps` is no whole number above 0.
            WeightsError: the network gave NaN (when it is reached).
        """
        steps, (ahead, size) = checked_steps(steps), self._state.seen()
        return self._roll_out(ahead, self._state.memory.fork(), size, steps)

    def _roll_out(
        self, ahead: Tensor, memory: PredictionState, size: WorkingSize, steps: int
    ) -> Iterator[PredictedFrame]:
        yield _frame(ahead, size, memory.time)
        dtype = next(self.network.parameters()).dtype
        for _ in range(steps - 1):
            ahead = _ahead(self.network, memory, ahead.to(dtype), size, write=self.options.write_predictions)
            yield _frame(ahead, size, memory.time)


def checked_steps(steps: int) -> int:
    """The same, when it can be a number of frames.

    Raises:
        OptionError: it cannot.

    >>> checked_steps(3)
    3
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise OptionError(f"steps: expected a whole number of frames, 1 or more, got {steps!r}; 10 is usual")
    return steps


def load_frame_state(path: str | Path, *, network: PredictionNetwork, options: PredictionOptions) -> FrameStreamState:
    """A state as it was when `FrameStream.save` wrote it.

    Args:
        path: path of the file.
        network: the very network that it was saved with.
        options: the very options.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or belongs to other weights or options.
    """

    def build(about: dict[str, Any], tensors: dict[str, Tensor]) -> FrameStreamState:
        memory = _new_memory(network, options)
        fill_memory(memory.bank, memory.cache, tensors)
        memory.context, memory.time = tensors["context"], about["time"]
        state = FrameStreamState(memory, WorkingSize(**about["size"]), tensors["ahead"])
        _check(state, tensors, network=network, options=options)
        return state

    return read_state(path, _KIND, build, since=2, network=network, options=options)


def _check(
    state: FrameStreamState, tensors: dict[str, Tensor], *, network: PredictionNetwork, options: PredictionOptions
) -> None:
    """Refuse a state whose parts do not fit each other: files of earlier versions have no digest of their header.

    Raises:
        BankError: says which part.
    """
    size, memory, config = state.size, state.memory, network.config
    if (
        type(memory.time) is not int
        or memory.time < 1
        or size is None
        or not all(type(side) is int for side in dataclasses.astuple(size))
    ):
        raise BankError(f"expected a time of 1 or more and sizes in whole pixels, got {memory.time!r} and {size}")
    if size != WorkingSize.of(size.frame_height, size.frame_width, options.short_side, network.stride):
        raise BankError(f"expected the sizes of a frame for these options, got {size}")
    if memory.bank.rows != (config.memory == "bank"):
        raise BankError(f"expected a memory of one video, got {memory.bank.rows}")
    cells = (size.padded_height // network.stride, size.padded_width // network.stride)
    slots = (1, memory.bank.capacity)
    expected = {
        "bank.templates": (*slots, config.template_channels, *cells),
        "bank.keys": (*slots, config.key_channels, *cells),
        "cache.keys": (*slots, config.key_channels, *cells),
        "cache.values": (*slots, config.value_channels, *cells),
        "cache.seen": slots,
        "context": (1, config.widths[-1], *cells),
        "ahead": (1, config.image_channels, size.padded_height, size.padded_width),
    }
    check_shapes(expected, tensors)


def _new_memory(network: PredictionNetwork, options: PredictionOptions) -> PredictionState:
    return network.new_state(options.memory_size, policy=options.policy)


@torch.inference_mode()
def _ahead(
    network: PredictionNetwork, memory: PredictionState, pixels: Tensor, size: WorkingSize, *, write: bool = True
) -> Tensor:
    """One step of the network: pixels `[1, C, H', W']` go into the memory, the next frame comes out, padded as they
    are."""
    try:
        predicted = network.step(pixels, memory, write=write).float().clamp(0, 1)
    except BankError as error:  # a template that is not finite
        raise WeightsError(f"{_NOT_FINITE} ({error})") from error
    if not bool(predicted.sum().isfinite()):  # within [0, 1], or NaN
        raise WeightsError(_NOT_FINITE)
    predicted[..., size.height :, :] = 0
    predicted[..., size.width :] = 0
    return predicted


@torch.inference_mode()
def _frame(ahead: Tensor, size: WorkingSize, time: int) -> PredictedFrame:
    """A prediction `[1, C, H', W']` as a user gets it, who may change it."""
    return PredictedFrame(time, restore(ahead, size)[0].clone())
