"""`ClipReader`: the frames of a clip by number, in any order and more than once, few held at a time. Knows no masks, no
streams."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stmemory.errors import ShapeError
from stmemory.frames import count_frames, iterate_frames, to_frame
from stmemory.images import image_files, is_image_path
from stmemory.video import scan_video_frames

__all__ = ["ClipReader"]

_HELD = 32  # frames of a file that are held for one who reads backwards, so that it is read again for every 32nd alone


class ClipReader:
    """Reads any frame of a clip.

    Folders, arrays and lists are read where the frame lies. A video or an image with pages is read from its beginning
    when an earlier frame is asked for; the 32 frames before that one are then held (uint8), for the next questions.

    Args:
        source: a path, an array `[T, H, W, 3]`, a tensor `[T, 3, H, W]`, a sequence of images, or an array-like or a
            data set as `iterate_frames` takes it; no generator, which can be read only once.

    Raises:
        ShapeError: the source is of another kind.
        FrameError: it is empty or cannot be opened.

    >>> import numpy as np
    >>> reader = ClipReader(np.zeros((5, 4, 6, 3), np.uint8))
    >>> reader.count, reader.read(4).shape, reader.read(5)
    (5, torch.Size([3, 4, 6]), None)
    """

    def __init__(self, source: object) -> None:
        self._source = source
        self._pictures: Any = None  # has a length, and gives an image by its number
        if isinstance(source, (str, os.PathLike)):
            if is_image_path(source) and Path(source).is_dir():
                self._pictures = image_files(Path(source))
        elif hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, (bytes, Mapping)):
            self._pictures = source
        else:
            raise ShapeError(
                f"clip: expected a path, an array, a tensor or a list of images, got {type(source).__name__}; what "
                "can be read only "
                "once goes to VOSPredictor.track, a camera to VOSPredictor.start and step"
            )
        iterate_frames(source)  # checks it
        self._count: int | None = None if self._pictures is None else len(self._pictures)
        self._frames: Iterator[Tensor] = iter(())
        self._next = 0  # the number of what `_frames` gives next
        self._last: tuple[int, Tensor] | None = None
        self._held: dict[int, Tensor] = {}  # uint8
        self._rewind()

    @property
    def count(self) -> int:
        """Frames of the clip. A video is gone through for it once, without decoding, since headers do not know or are
        wrong.

        Once the end of the clip was read it is exact; a video that is damaged has fewer frames than it says before
        that.
        """
        if self._count is None:
            path = str(self._source) if isinstance(self._source, os.PathLike) else self._source
            known = isinstance(path, str) and not is_image_path(path)
            self._count = (
                scan_video_frames(path) if known and isinstance(path, str) else count_frames(self._source) or 0
            )
        return self._count

    def read(self, index: int) -> Tensor | None:
        """A frame: float32 `[3, H, W]` in [0, 1]; None where the clip has no such frame.

        Args:
            index: from 0.

        Raises:
            FrameError: the file is damaged, or the frame cannot be used.
            ShapeError: the frame is of another kind or shape.
        """
        if index < 0:
            return None
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        if self._pictures is not None:
            if index >= len(self._pictures):
                return None
            self._last = (index, to_frame(self._pictures[index]))
            return self._last[1]
        if index in self._held:
            return self._held[index].float() / 255
        backwards = index < self._next
        if backwards:
            self._rewind()
        last: deque[tuple[int, Tensor]] = deque(maxlen=_HELD)
        while self._next <= index:
            frame = next(self._frames, None)
            if frame is None:
                self._count = self._next
                return None
            self._last = (self._next, frame)
            self._next += 1
            if backwards:  # files hold bytes, so nothing is lost
                last.append((self._last[0], (frame * 255).round().to(torch.uint8)))
        self._held = dict(last)
        return self._last[1] if self._last is not None else None

    def _rewind(self) -> None:
        self._frames, self._next, self._last, self._held = iter(()), 0, None, {}
        if self._pictures is None:
            self._frames = iterate_frames(self._source)
