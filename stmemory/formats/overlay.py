"""Overlays to look at: an MP4, or a GIF that stays small. The drawing is `Segmentation.overlay`, the MP4 `video.py`."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stmemory.errors import OptionError
from stmemory.formats.writer import Labelled, MaskWriter
from stmemory.result import Segmentation
from stmemory.video import OverlayWriter

__all__ = ["GifWriter", "Mp4Writer"]


class Mp4Writer(MaskWriter):
    """Writes an MP4 with the objects over the frames; `add` needs `frame`. Needs PyAV (the extra `video`).

    Args:
        path: the MP4.
        rate: frames per second.
        opacity: of the colour inside the contour, 0 to 1.

    Raises:
        FrameError: PyAV is missing.
        OptionError: `rate` or `opacity` is out of range.
    """

    draws = True

    def __init__(self, path: str | os.PathLike[str], *, rate: float = 25.0, opacity: float = 0.5) -> None:
        super().__init__(path)
        self._opacity = _checked(opacity)
        OverlayWriter(path, rate=rate)  # makes no file; raises before anything else does
        self._video = OverlayWriter(self._whole(".mp4"), rate=rate)
        self._stack.callback(self._video.close)

    def _write(self, frame: Labelled) -> None:
        self._video.write(_drawn(frame, self._opacity))

    def _finish(self) -> None:
        self._video.close()


class GifWriter(MaskWriter):
    """Writes a GIF with the objects over the frames; `add` needs `frame`. Bounded in size, however long the video is.

    At most `most_frames` are kept, in memory and in the file: when there are more, every second one goes, and the
    others are shown twice as long.

    Args:
        path: the GIF.
        rate: frames per second of the video.
        longest_side: in px; larger frames are shrunk to it.
        most_frames: an even number.
        opacity: of the colour inside the contour, 0 to 1.

    Raises:
        OptionError: an option is out of range.
    """

    draws = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rate: float = 25.0,
        longest_side: int = 480,
        most_frames: int = 120,
        opacity: float = 0.5,
    ) -> None:
        super().__init__(path)
        if not 0 < rate < 1000:
            raise OptionError(f"rate: expected frames per second above 0 and below 1000, got {rate}; 25 is usual")
        if longest_side < 1 or most_frames < 2 or most_frames % 2:
            raise OptionError(
                f"expected longest_side of 1 px or more and most_frames even, got {longest_side} and {most_frames}"
            )
        self._rate, self._longest, self._most, self._opacity = rate, longest_side, most_frames, _checked(opacity)
        self._kept: list[Image.Image] = []
        self._step = 1
        self._part = self._whole(".gif")

    def _write(self, frame: Labelled) -> None:
        if frame.index % self._step:
            return
        if len(self._kept) == self._most:
            del self._kept[1::2]
            self._step *= 2  # this frame's index, `most` steps, is still a multiple
        picture = Image.fromarray(_drawn(frame, self._opacity))
        picture.thumbnail((self._longest, self._longest), Image.Resampling.LANCZOS)
        # the method that keeps the colours of small objects: cutting at the median loses them among those of the
        # background
        self._kept.append(picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))

    def _finish(self) -> None:
        # hundredths of a second are what a GIF counts in; browsers slow down what is shown for less than two
        milliseconds = max(20, 10 * round(100 * self._step / self._rate))
        self._kept[0].save(
            self._part, format="GIF", save_all=True, append_images=self._kept[1:], duration=milliseconds, loop=0
        )


def _drawn(frame: Labelled, opacity: float) -> NDArray[np.uint8]:
    found = Segmentation(frame.index, torch.from_numpy(frame.ids), torch.empty(0), (), {}, {})
    return found.overlay(frame.picture, opacity=opacity)


def _checked(opacity: float) -> float:
    if not 0 <= opacity <= 1:
        raise OptionError(f"opacity: expected 0 to 1, got {opacity}; 0 draws the contours alone")
    return opacity
