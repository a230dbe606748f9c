"""A clip on disk: how many frames it has, and any one of them, read as a stream. Holds one frame.

`stmemory.session` holds 32 for those who read backwards; with many sessions of large frames that is gigabytes, and
a person who moves a slider asks for one.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from painting import Picture
from PIL import Image

from stmemory.errors import FrameError
from stmemory.io.frames import count_frames
from stmemory.io.images import UNREADABLE, is_image_path, iterate_images
from stmemory.io.video import frame_rate, iterate_video

__all__ = ["Clip", "clip_ending", "shrink"]

LONGEST = 1280  # px, of the longer side of a frame that is shown in the page
MOST_PIXELS = 4096 * 2304  # of a frame: what a visitor sends must not take the server's memory
MOST_FRAMES = 20_000


class Clip:
    """One video file, or an image with pages.

    Args:
        path: the file. Its first frame is read at once.

    Attributes:
        path: the file.
        frames: how many it has; corrected when its true end is met.
        height: H of its frames.
        width: W of its frames.
        rate: frames per second.

    Raises:
        FrameError: it cannot be read, or its frames are too large or too many.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_size(path)
        self._next, self._coming = 0, self.pictures()
        first = next(self._coming, None)
        if first is None:
            raise FrameError(f"{path.name}: expected a clip with frames, got an empty one; choose another")
        self._last, self._next = first, 1
        self.height, self.width = first.shape[:2]
        # A recording of a browser states no length: it is decoded once to count.
        self.frames = count_frames(path) or sum(1 for _ in itertools.islice(self.pictures(), MOST_FRAMES + 1))
        if self.frames > MOST_FRAMES:
            raise FrameError(
                f"{path.name}: expected a clip of at most {MOST_FRAMES:,} frames, got more; cut it into parts"
            )
        self.rate = 25.0 if is_image_path(path) else min(frame_rate(path) or 25.0, 120.0)

    @property
    def shown_size(self) -> tuple[int, int]:
        """H and W of a frame as the page shows it."""
        scale = min(1.0, LONGEST / max(self.height, self.width))
        return max(1, round(self.height * scale)), max(1, round(self.width * scale))

    def pictures(self) -> Iterator[Picture]:
        """All frames from the first, uint8 RGB `[H, W, 3]`, one at a time.

        Raises:
            FrameError: the file is damaged or cut off, when that is met.
        """
        return iterate_images(self.path) if is_image_path(self.path) else iterate_video(self.path)

    def pictures_from(self, index: int) -> Iterator[Picture]:
        """The frames from one on; those before it are decoded and passed over.

        Raises:
            FrameError: the file is damaged or cut off, when that is met.
        """
        for place, picture in enumerate(self.pictures()):
            if place >= index:
                yield picture

    def picture(self, index: int) -> Picture:
        """One frame. A later one is reached from where the last call stood, an earlier one from the beginning.

        Raises:
            FrameError: there is no such frame, or the file is damaged before it.
        """
        if not 0 <= index < self.frames:
            raise FrameError(f"expected a frame from 0 to {self.frames - 1}, got {index}; choose one of those")
        if index < self._next - 1:
            self._next, self._coming = 0, self.pictures()
        while self._next <= index:
            found = next(self._coming, None)
            if found is None:
                self.frames = self._next
                raise FrameError(
                    f"expected a frame from 0 to {self.frames - 1}, got {index}; the clip is shorter than its header "
                    "says"
                )
            self._last, self._next = found, self._next + 1
        return self._last


def clip_ending(path: str | os.PathLike[str]) -> str:
    """The ending under which a clip is kept: that of its name, where it is one of letters and digits."""
    ending = Path(path).suffix.lower()
    return ending if ending[1:].isalnum() and ending.isascii() and len(ending) <= 6 else ".video"


def _check_size(path: Path) -> None:
    """Refuse a clip whose header states frames that are too large, before one is decoded."""
    if is_image_path(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of sizes that are refused here anyway
                with Image.open(path) as image:
                    width, height = image.size
        except UNREADABLE as error:
            raise FrameError(f"{path.name}: expected a clip, got a file that cannot be read; choose another") from error
    else:
        frame_rate(path)  # raises for all that is no media file
        import av

        with av.open(str(path)) as container:
            width, height = container.streams.video[0].width, container.streams.video[0].height
    if width * height > MOST_PIXELS:
        raise FrameError(
            f"{path.name}: expected frames of at most {MOST_PIXELS:,} pixels, got {width} x {height}; make the clip "
            "smaller"
        )


def shrink(picture: Picture, *, height: int, width: int) -> Picture:
    """A picture at the size at which it is shown."""
    if picture.shape[:2] == (height, width):
        return picture
    return np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
