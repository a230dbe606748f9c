"""`VOSPredictor`: a network and options, ready for any number of videos."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from stmemory.errors import FrameError, MaskError, OptionError, ShapeError, StmemoryError
from stmemory.io.frames import iterate_frames, to_frame
from stmemory.io.masks import to_object_masks
from stmemory.networks.layers import fold_batch_norm, use_channels_last
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions, ready_options
from stmemory.result import Segmentation
from stmemory.state import load_state
from stmemory.stream import VOSStream
from stmemory.types import FrameLike, MaskLike, VideoLike
from stmemory.weights.devices import place_to_compute
from stmemory.weights.hub import Where
from stmemory.weights.pretrained import load_network

__all__ = ["VOSPredictor"]


class VOSPredictor:
    """Tracks objects through videos, given their masks where they first appear.

    Args:
        network: trained; it is copied, and BatchNorm is folded into the copy.
        options: how to track.
        device: where to compute; None keeps the network's.
        dtype: what to compute in; None keeps the network's (float32 for loaded weights).

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
        network: SegmentationNetwork,
        *,
        options: TrackingOptions | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(network, SegmentationNetwork):
            raise OptionError(
                f"network: expected a SegmentationNetwork, got {type(network).__name__}; FramePredictor takes those "
                "that predict frames"
            )
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        fold_batch_norm(self.network)
        use_channels_last(self.network)
        place_to_compute(self.network, device=device, dtype=dtype)
        self.options = ready_options(options, TrackingOptions(), self.device)
        self.network.read.top_k = self.options.top_k  # streams then share this very network

    def __repr__(self) -> str:
        config, weight = self.network.config, next(self.network.parameters())
        return f"VOSPredictor({config.preset}, {weight.dtype}, {weight.device}, {self.options.as_dict()})"

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        options: TrackingOptions | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **where: Unpack[Where],
    ) -> VOSPredictor:
        """A predictor with trained weights.

        Args:
            name: a bundled name, a folder, or a repository `owner/name` on the Hugging Face Hub; None is the bundled
                `"lite"`, which needs no connection.
            options: how to track.
            device: where to compute, `"cpu"` by default.
            dtype: what to compute in, float32 by default.
            where: `revision`, `cache_dir`, `token` and `local_files_only`, for repositories; see
                `stmemory.weights.hub.Where`.

        Raises:
            WeightsError: there are no such weights, or they cannot be loaded.
            OptionError: the device is not there, or the dtype is no float.
        """
        return cls(load_network(name, where=where), options=options, device=device, dtype=dtype)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    def track(
        self,
        frames: VideoLike,
        first_mask: MaskLike,
        *,
        channels: str = "rgb",
        value_range: tuple[float, float] | None = None,
    ) -> Iterator[Segmentation]:
        """Track the objects of the first frame's mask to the end of the video.

        Args:
            frames: a video in any form that `iterate_frames` takes.
            first_mask: the first frame's, in any form that `to_object_masks` takes.
            channels: order of the colours in arrays and tensors: `"rgb"`, or `"bgr"` as OpenCV has them.
            value_range: what is black and what is white in arrays and tensors, such as `(0, 65535)`; None: uint8, or
                floats in [0, 1].

        Returns:
            One result a frame, the first included, as they are computed. Nothing is kept of those that were handed out.

        Raises:
            FrameError: the video is empty or cannot be read; a frame cannot be used (then when it is reached).
            ShapeError: the frames are of another kind or shape.
            MaskError: the mask cannot be used. The first frame and the mask are checked when this is called.
        """
        return _follow(*self._open(frames, first_mask, channels, value_range))

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
        first_mask: MaskLike,
        channels: str = "rgb",
        value_range: tuple[float, float] | None = None,
    ) -> tuple[VOSStream, Iterator[Tensor]]:
        """A stream that has seen the first frame of a video, and the frames after it."""
        source = iterate_frames(frames, channels=channels, value_range=value_range)
        first = next(source, None)
        if first is None:
            raise FrameError("frames: expected at least one frame, got none; check where they come from")
        return self.start(first, first_mask), source

    def start(self, frame: FrameLike, mask: MaskLike | None, *, allow_empty: bool = False) -> VOSStream:
        """Begin a video; `stream.last` is the first frame's result, `stream.step(frame)` gives the next.

        Args:
            frame: the first frame, of any kind that `to_frame` takes.
            mask: its mask, of any kind that `to_object_masks` takes.
            allow_empty: take a mask without objects, or None: they enter later, by `stream.step(frame, mask)`.

        Raises:
            FrameError: the frame cannot be used.
            ShapeError: the frame is of another kind or shape.
            MaskError: the mask cannot be used.
        """
        if allow_empty:
            pixels = to_frame(frame)
            if (
                mask is not None
                and not to_object_masks(
                    mask, height=pixels.shape[1], width=pixels.shape[2], allow_empty=True
                ).object_ids
            ):
                mask = None
        elif mask is None:
            raise MaskError(
                "mask: expected the objects of the first frame, got None; mark at least one pixel with an id above 0"
            )
        stream = VOSStream(self.network, self.options)
        stream.step(frame, mask)
        return stream

    def resume(self, path: str | Path) -> VOSStream:
        """Go on with a stream that `VOSStream.save` wrote, bit for bit.

        Raises:
            WeightsError: the file is missing, damaged or of another kind, or belongs to other weights or options.
        """
        bank = self.network.new_bank(self.options.memory_size, policy=self.options.policy)
        state = load_state(path, bank=bank, network=self.network, options=self.options)
        return VOSStream(self.network, self.options, state)


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
