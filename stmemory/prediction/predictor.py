"""`FramePredictor`: a network and options, ready to predict frames of any number of videos.

What is remembered of a video is in its `FrameStream`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from stmemory.errors import FrameError, OptionError
from stmemory.io.grey import clip_frames
from stmemory.options import PredictionOptions, ready_options
from stmemory.prediction.network import PredictionNetwork
from stmemory.prediction.stream import FrameStream, PredictedFrame, checked_steps, load_frame_state
from stmemory.types import GreyVideoLike
from stmemory.weights.devices import place_to_compute
from stmemory.weights.hub import Where
from stmemory.weights.pretrained import load_part

__all__ = ["FramePredictor"]


class FramePredictor:
    """Predicts what comes next in videos, from memory that does not grow with them.

    Args:
        network: trained; it is copied.
        options: options of prediction.
        device: device to compute on; None keeps the network's.
        dtype: type to compute in; None keeps the network's (float32 for loaded weights).

    Raises:
        OptionError: the network is of another kind, the device is not there, or the dtype is no float.

    >>> import numpy as np
    >>> from stmemory.prediction.config import PredictionConfig
    >>> predictor = FramePredictor(PredictionNetwork(PredictionConfig.of("mini")))  # or .from_pretrained(...)
    >>> for prediction in predictor.predict(np.zeros((6, 40, 50), np.uint8), steps=2):
    ...     print(prediction)
    PredictedFrame(frame 6, 40 x 50 (H x W), grey)
    PredictedFrame(frame 7, 40 x 50 (H x W), grey)
    """

    def __init__(
        self,
        network: PredictionNetwork,
        *,
        options: PredictionOptions | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(network, PredictionNetwork):
            raise OptionError(
                "network: expected a PredictionNetwork, got "
                f"{type(network).__name__}; VOSPredictor takes those that segment"
            )
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        place_to_compute(self.network, device=device, dtype=dtype)
        self.options = ready_options(options, PredictionOptions(), self.device)

    def __repr__(self) -> str:
        config, weight = self.network.config, next(self.network.parameters())
        return f"FramePredictor({config.preset}, {weight.dtype}, {weight.device}, {self.options.as_dict()})"

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        options: PredictionOptions | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **where: Unpack[Where],
    ) -> FramePredictor:
        """A predictor with trained weights.

        Args:
            name: a bundled name, a folder, or a repository `owner/name` on the Hugging Face Hub; None is the bundled
                `"mini"`, which needs no connection.
            options: how to predict.
            device: where to compute, `"cpu"` by default.
            dtype: what to compute in, float32 by default.
            where: `revision`, `cache_dir`, `token` and `local_files_only`, for repositories; see
                `stmemory.weights.hub.Where`.

        Raises:
            WeightsError: there are no such weights, or they cannot be loaded.
            OptionError: the device is not there, or the dtype is no float.
        """
        return cls(load_part(PredictionNetwork, name, where=where), options=options, device=device, dtype=dtype)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    def predict(self, frames: GreyVideoLike, steps: int = 10) -> Iterator[PredictedFrame]:
        """Watch a clip to its end, and predict the frames after it.

        Args:
            frames: a video in any form that `iterate_frames` takes, or grey: an array `[T, H, W]`, a tensor `[T, H, W]`
                or `[T, 1, H, W]`; or the path of an `.npy` file with such an array.
            steps: number of frames to predict, 1 or more.

        Returns:
            That many predictions, as they are computed: the clip is read when the first is asked for.

        Raises:
            FrameError: the video is empty or cannot be read; a frame cannot be used (then when it is reached).
            ShapeError: the frames are of another kind or shape.
            OptionError: `steps` is no whole number above 0. It and the first frame are checked when this is called.
        """
        checked_steps(steps)
        source = clip_frames(frames)
        first = next(source, None)
        if first is None:
            raise FrameError("frames: expected at least one frame, got none; check where they come from")
        stream = self.start()
        stream.step(first)
        return _follow(stream, source, steps)

    def start(self) -> FrameStream:
        """Begin a video: `stream.step(frame)` gives a prediction of the frame after, `stream.foresee(steps)` looks
        further ahead."""
        return FrameStream(self.network, self.options)

    def resume(self, path: str | Path) -> FrameStream:
        """Go on with a stream that `FrameStream.save` wrote, bit for bit.

        Raises:
            WeightsError: the file is missing, damaged or of another kind, or belongs to other weights or options.
        """
        return FrameStream(
            self.network, self.options, load_frame_state(path, network=self.network, options=self.options)
        )


def _follow(stream: FrameStream, rest: Iterator[Tensor], steps: int) -> Iterator[PredictedFrame]:
    for frame in rest:
        stream.step(frame)
    yield from stream.foresee(steps)
