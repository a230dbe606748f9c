"""`VOSPredictor`: a network and options, ready for any number of videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Unpack, overload

import torch
from torch import Tensor, nn

from stmemory.errors import FrameError, MaskError, OptionError, ShapeError, StmemoryError
from stmemory.io.frames import iterate_frames, to_frame
from stmemory.io.masks import to_object_masks
from stmemory.networks.tracking import TrackingNetwork
from stmemory.options import TrackingOptions, ready_options
from stmemory.prompter import SelfPrompter
from stmemory.prompts import Prompt, Prompter, PromptsLike
from stmemory.result import Segmentation
from stmemory.state import StreamState, load_state
from stmemory.stream import VOSStream
from stmemory.types import FrameLike, MaskLike, VideoLike
from stmemory.weights.devices import fast_dtype
from stmemory.weights.hub import Where
from stmemory.weights.pretrained import load_tracking_network

__all__ = ["VOSPredictor"]


class VOSPredictor:
    """Tracks objects through videos, given their masks, points or boxes where they first appear.

    Args:
        network: trained; it is copied. A `SegmentationNetwork`, or another `TrackingNetwork`.
        options: how to track.
        device: where to compute; None keeps the network's.
        dtype: what to compute in; None keeps the network's (float32 for loaded weights). `"auto"` is
            bfloat16 on a CPU with instructions for it, else float32, see `stmemory.weights.devices.fast_dtype`: masks
            then depend on the processor.
        prompter: makes masks of points and boxes for a network that takes masks alone: another predictor whose network
            takes them, or any `Prompter`. None: `lite` prompts itself.

    Raises:
        OptionError: the network is of another kind, the device is not there, or the dtype is no float.

    >>> import numpy as np
    >>> predictor = VOSPredictor.from_pretrained()
    >>> mask = np.zeros((48, 64), np.uint8)
    >>> mask[10:30, 20:40] = 7
    >>> for result in predictor.track(np.zeros((3, 48, 64, 3), np.uint8), mask):
    ...     print(result.frame_index, result.object_ids, tuple(result.ids.shape))
    0 (7,) (48, 64)
    1 (7,) (48, 64)
    2 (7,) (48, 64)
    """

    def __init__(
        self,
        network: TrackingNetwork,
        *,
        options: TrackingOptions | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | Literal["auto"] | None = None,
        prompter: VOSPredictor | Prompter | None = None,
    ) -> None:
        if not (isinstance(network, nn.Module) and hasattr(network, "segment")):
            raise OptionError(
                f"network: expected a SegmentationNetwork or another TrackingNetwork, got {type(network).__name__}; a "
                "video model of transformers goes into stmemory.networks.sam2.Sam2Network, one that predicts frames to "
                "FramePredictor"
            )
        if dtype == "auto":
            dtype = fast_dtype(device or next(network.parameters()).device)
        ready = network.ready(device=device, dtype=dtype)
        own = ready_options(options, TrackingOptions(), next(ready.parameters()).device)
        self.options = own.of_network(ready.tracking)
        self.network: TrackingNetwork = ready.with_top_k(self.options.top_k).with_margin(
            self.options.margin
        )  # shared by streams
        self.prompter = _prompter(prompter) or SelfPrompter.of(self.network, self.options)

    def __repr__(self) -> str:
        weight = next(self.network.parameters())
        return f"VOSPredictor({self.network.name}, {weight.dtype}, {weight.device}, {self.options.as_dict()})"

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        options: TrackingOptions | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | Literal["auto"] | None = None,
        prompter: str | Path | VOSPredictor | Prompter | None = None,
        **where: Unpack[Where],
    ) -> VOSPredictor:
        """A predictor with trained weights.

        Args:
            name: a bundled name, a folder, or a repository `owner/name` on the Hugging Face Hub; None is the bundled
                `"lite"`, which needs no connection. Weights of SAM 2, EdgeTAM and their kin for transformers are
                recognised by their `config.json`; they need the extra `sam2`.
            options: how to track.
            device: where to compute, `"cpu"` by default.
            dtype: what to compute in, float32 by default; `"auto"` as of the class.
            prompter: as of the class, or the name of its weights, which are loaded with `where` but its revision.
            where: `revision`, `cache_dir`, `token` and `local_files_only`, for repositories; see
                `stmemory.weights.hub.Where`.

        Raises:
            WeightsError: there are no such weights, or they cannot be loaded.
            OptionError: the device is not there, or the dtype is no float.
        """
        network = load_tracking_network(name, where=where)
        if isinstance(prompter, str | Path):
            prompter = cls.from_pretrained(prompter, device=device, dtype=dtype, **_anywhere(where))
        return cls(network, options=options, device=device, dtype=dtype, prompter=prompter)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    @overload
    def track(
        self,
        frames: VideoLike,
        first_mask: MaskLike,
        *,
        prompts: PromptsLike | None = None,
        channels: str = "rgb",
        value_range: tuple[float, float] | None = None,
    ) -> Iterator[Segmentation]: ...

    @overload
    def track(
        self,
        frames: VideoLike,
        first_mask: None = None,
        *,
        prompts: PromptsLike,
        channels: str = "rgb",
        value_range: tuple[float, float] | None = None,
    ) -> Iterator[Segmentation]: ...

    def track(
        self,
        frames: VideoLike,
        first_mask: MaskLike | None = None,
        *,
        prompts: PromptsLike | None = None,
        channels: str = "rgb",
        value_range: tuple[float, float] | None = None,
    ) -> Iterator[Segmentation]:
        """Track the objects of the first frame to the end of the video.

        Args:
            frames: a video in any form that `iterate_frames` takes.
            first_mask: the first frame's, in any form that `to_object_masks` takes; None where there are prompts.
            prompts: points and boxes of objects in the first frame: one `Prompt` or several.
            channels: order of the colours in arrays and tensors: `"rgb"`, or `"bgr"` as OpenCV has them.
            value_range: what is black and what is white in arrays and tensors, such as `(0, 65535)`; None: uint8, or
                floats in [0, 1].

        Returns:
            One result a frame, the first included, as they are computed. Nothing is kept of those that were handed out.

        Raises:
            FrameError: the video is empty or cannot be read; a frame cannot be used (then when it is reached).
            ShapeError: the frames are of another kind or shape.
            MaskError: the mask or a prompt cannot be used. The first frame and what is given of it are checked when
                this is called.
            OptionError: there are prompts, and neither the network nor a prompter takes them.
        """
        return _follow(*self._open(frames, first_mask, channels, value_range, prompts))

    def track_many(
        self, videos: Iterable[VideoLike], first_masks: Iterable[MaskLike]
    ) -> Iterator[tuple[int, Segmentation]]:
        """Track several videos at once, in turns: a frame of each, then the next frame of each, until the last one
        ends.

        Every result is that of `track` on the video alone, bit for bit. Videos may differ in size, length and number of
        objects; one that has ended is passed over.

        Args:
            videos: each in any form that `iterate_frames` takes.
            first_masks: each video's first mask, in any form that `to_object_masks` takes.

        Returns:
            `(index, result)`, where `index` counts the videos from 0, as they are computed. Nothing is kept of those
            that were handed out. What is remembered is the sum of what each video alone needs.

        Raises:
            MaskError: a mask cannot be used, or there are not as many masks as videos.
            FrameError: a video is empty or cannot be read; a frame cannot be used (then when it is reached, for all
                videos: streams of one's own go on without the one that broke).
            ShapeError: frames are of another kind or shape. All first frames and masks are checked when this is called.
                An error names the video by its index.

        >>> import numpy as np
        >>> short, long = np.zeros((1, 48, 64, 3), np.uint8), np.zeros((2, 32, 32, 3), np.uint8)
        >>> masks = np.ones((48, 64), bool), np.ones((32, 32), bool)
        >>> results = VOSPredictor.from_pretrained().track_many([short, long], masks)
        >>> [(index, result.frame_index) for index, result in results]
        [(0, 0), (1, 0), (1, 1)]
        """
        for name, given in (("videos", videos), ("first_masks", first_masks)):
            if isinstance(given, (str, Path)) or not isinstance(given, Iterable):
                raise ShapeError(
                    f"{name}: expected several, as a list, got {given!r}; one video goes to track(), or is a list of "
                    "one"
                )
        clips, masks = list(videos), list(first_masks)
        if len(clips) != len(masks):
            raise MaskError(
                f"track_many: expected a first mask for each of {len(clips)} videos, got {len(masks)}; give one for "
                "each"
            )
        opened = []
        for index, (frames, mask) in enumerate(zip(clips, masks, strict=True)):
            with _naming(index):
                opened.append(_follow(*self._open(frames, mask)))
        return _in_turns(opened)

    def _open(
        self,
        frames: VideoLike,
        first_mask: MaskLike | None,
        channels: str = "rgb",
        value_range: tuple[float, float] | None = None,
        prompts: PromptsLike | None = None,
    ) -> tuple[VOSStream, Iterator[Tensor]]:
        """A stream that has seen the first frame of a video, and the frames after it."""
        source = iterate_frames(frames, channels=channels, value_range=value_range)
        first = next(source, None)
        if first is None:
            raise FrameError("frames: expected at least one frame, got none; check where they come from")
        return self.start(first, first_mask, prompts=prompts), source

    def start(
        self,
        frame: FrameLike,
        mask: MaskLike | None = None,
        *,
        prompts: PromptsLike | None = None,
        allow_empty: bool = False,
    ) -> VOSStream:
        """Begin a video; `stream.last` is the first frame's result, `stream.step(frame)` gives the next.

        Args:
            frame: the first frame, of any kind that `to_frame` takes.
            mask: its mask, of any kind that `to_object_masks` takes; None where there are prompts.
            prompts: points and boxes of objects: one `Prompt` or several.
            allow_empty: take a mask without objects, or nothing: they enter later, by `stream.step(frame, mask)`.

        Raises:
            FrameError: the frame cannot be used.
            ShapeError: the frame is of another kind or shape.
            MaskError: the mask or a prompt cannot be used.
            OptionError: there are prompts, and neither the network nor a prompter takes them.
        """
        if allow_empty or prompts:
            pixels = to_frame(frame)
            if (
                mask is not None
                and not to_object_masks(
                    mask, height=pixels.shape[1], width=pixels.shape[2], allow_empty=True
                ).object_ids
            ):
                mask = None
        elif mask is None and not prompts:
            raise MaskError(
                "mask: expected the objects of the first frame, got None; mark at least one pixel with an id above 0, "
                "or give prompts=Prompt(object_id, points=...)"
            )
        stream = self.new_stream()
        stream.step(frame, mask, prompts=prompts)
        return stream

    def resume(self, path: str | Path) -> VOSStream:
        """Go on with a stream that `VOSStream.save` wrote, bit for bit.

        Raises:
            WeightsError: the file is missing, damaged or of another kind, or belongs to other weights or options.
        """
        bank = self.network.new_bank(self.options.memory_size, policy=self.options.policy)
        state = load_state(path, bank=bank, network=self.network, options=self.options)
        return self.new_stream(state)

    def new_stream(self, state: StreamState | None = None) -> VOSStream:
        """A stream that has not seen a frame yet; `step` takes its first one with the objects there, if any.

        Args:
            state: what another stream remembered, and this one goes on with; None begins a new video.

        >>> VOSPredictor.from_pretrained().new_stream().frame_index
        -1
        """
        return VOSStream(self.network, self.options, state, prompter=self.prompter)


class _PredictorPrompts:
    """Makes masks with a predictor whose network takes points."""

    def __init__(self, predictor: VOSPredictor) -> None:
        self.predictor = predictor

    def masks(self, frame: Tensor, prompts: Sequence[Prompt], last: Mapping[int, Tensor]) -> Tensor:
        """See `Prompter.masks`; what was found before is not looked at.

        Raises:
            MaskError: a prompt says only what is not the object.
        """
        if alone := [prompt.object_id for prompt in prompts if not prompt.points and prompt.box is None]:
            raise MaskError(
                f"prompts: expected a point of objects {alone} or a box, got points that are not of them alone; "
                "another network makes the mask here, which does not know what was found: add a point of the object"
            )
        result = self.predictor.start(frame, prompts=prompts).last
        return torch.stack([(result.ids == prompt.object_id).float() for prompt in prompts])


def _prompter(given: VOSPredictor | Prompter | None) -> Prompter | None:
    """What makes masks of prompts.

    Raises:
        OptionError: it is a predictor whose network takes masks alone, or of another kind.
    """
    if isinstance(given, VOSPredictor):
        if not given.network.takes_prompts and given.prompter is not None:
            return given.prompter
        if not given.network.takes_prompts:
            raise OptionError(
                f"prompter: expected a predictor whose network takes points, got {given.network.name}, which takes "
                "masks alone; give one of SAM 2's weights"
            )
        return _PredictorPrompts(given)
    if given is not None and not hasattr(given, "masks"):
        raise OptionError(f"prompter: expected a predictor or a Prompter, got {type(given).__name__}")
    return given


def _anywhere(where: Where) -> Where:
    """Where to look for other weights: all but the revision, which is that of one repository."""
    others: Where = {**where}
    others.pop("revision", None)
    return others


def _follow(stream: VOSStream, rest: Iterator[Tensor]) -> Iterator[Segmentation]:
    yield stream.last
    for frame in rest:
        yield stream.step(frame)


def _in_turns(videos: list[Iterator[Segmentation]]) -> Iterator[tuple[int, Segmentation]]:
    running = dict(enumerate(videos))
    while running:
        for index, results in list(running.items()):
            with _naming(index):
                result = next(results, None)
            if result is None:
                del running[index]
            else:
                yield index, result


@contextmanager
def _naming(index: int) -> Iterator[None]:
    """Say in errors which of several videos they are about."""
    try:
        yield
    except StmemoryError as error:
        raise type(error)(f"video {index}: {error}") from error
