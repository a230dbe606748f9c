"""Cameras and network streams: frames as they come, late ones left out, with reconnection after a loss.

A thread reads through PyAV into a short queue.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import FrameError, OptionError
from stmemory.io.decoder import VideoDecoder, open_video, shown_address
from stmemory.io.images import is_address

__all__ = ["LiveSource", "is_live"]

Picture = NDArray[np.uint8]  # [H, W, 3] RGB

HELD = 2  # frames in the queue; more would only be older
POLL_SECONDS = 0.1  # between two looks at whether to stop
LONGEST_WAIT = 30.0  # seconds between two attempts to connect
STALL_SECONDS = 15.0  # without data count as a loss
MOST_ATTEMPTS = 1_000_000
_log = logging.getLogger(__name__)


def is_live(source: str | os.PathLike[str]) -> bool:
    """Say whether a source can be read only once, as it comes: an address, a camera or a named pipe.

    Args:
        source: a path, an address as text, or the number of a camera as text; a file or folder of that name goes first.

    >>> is_live("rtsp://camera/1"), is_live("clip.mp4")
    (True, False)
    """
    text = os.fspath(source)
    if is_address(text):
        return True
    try:
        mode = os.stat(text).st_mode
    except (OSError, ValueError):
        return _camera_number(text) is not None or text.startswith("/dev/video")
    return stat.S_ISFIFO(mode) or text.startswith("/dev/video")


class LiveSource:
    """Reads a camera, a network stream or a named pipe; a context manager, and an iterable of its frames.

    A camera or stream does not wait: at most two frames are held, and where they come faster than they are taken the
    older one is left out and counted. What does wait, a pipe or a stream that states its duration (a file behind
    `http://`), loses none. Where a stream is lost or ends, it is opened again after 0.5 s, then 1 s, 2 s and so on up
    to 30 s, as often as `reconnect` says; each frame that comes resets the count. The thread that reads ends with
    `close`, with the `with` block or with the process.

    Args:
        source: `0` or `"0"` for the first camera, `"/dev/video0"`, an address such as `"rtsp://..."`, or the path of a
            named pipe.
        reconnect: attempts to connect again; 0: the stream's end is the end.

    Attributes:
        dropped: frames that were left out so far.
        reconnections: number of times that the stream was opened again so far.

    Raises:
        OptionError: `reconnect` is not a whole number from 0 to 1,000,000.
        FrameError: the source is no address, camera or pipe, or an address has another protocol than those for video.

    >>> LiveSource("clip.mp4")
    Traceback (most recent call last):
    stmemory.errors.FrameError: clip.mp4: expected a camera, an address or a named pipe; a file is read by
    iterate_frames()
    """

    def __init__(self, source: int | str | os.PathLike[str], *, reconnect: int = 5) -> None:
        if isinstance(reconnect, bool) or not isinstance(reconnect, int) or not 0 <= reconnect <= MOST_ATTEMPTS:
            raise OptionError(f"reconnect: expected 0 to {MOST_ATTEMPTS} attempts, got {reconnect!r}; 5 is usual")
        text = str(source) if isinstance(source, int) else os.fspath(source)
        if not is_live(text):
            raise FrameError(
                f"{text}: expected a camera, an address or a named pipe; a file is read by iterate_frames()"
            )
        self.name = shown_address(text)
        self.dropped, self.reconnections = 0, 0
        self._address, self._format = _opened_as(text)
        self._attempts = reconnect
        self._waits = self._format is None and not is_address(text)  # a pipe
        self._coming = deque[tuple[float, Picture]]()
        self._changed = threading.Condition()
        self._ended, self._closed = False, False
        self._error: Exception | None = None
        self._reader: threading.Thread | None = None
        self._first: Picture | None = None
        self._begun, self._time = 0.0, 0.0

    @property
    def time(self) -> float:
        """Seconds between the arrival of the first frame and that of the frame that was given last."""
        return self._time

    def first(self, stop: Callable[[], bool] = lambda: False) -> Picture:
        """The first frame, once it is there; it stays the same, and `frames` begins with it.

        Args:
            stop: see `frames`.

        Raises:
            FrameError: see `frames`.
        """
        if self._first is None:
            taken = self._take(stop)
            if taken is None:
                raise FrameError(f"{self.name}: expected frames, got none before it ended; is it sending?")
            self._begun, self._first = taken
        return self._first

    def frames(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Picture]:
        """Frames from the first one on, then as they come.

        Args:
            stop: asked ten times a second while no frame comes; the frames end where it says True.

        Yields:
            uint8 RGB arrays `[H, W, 3]`.

        Raises:
            FrameError: PyAV is missing, the source cannot be opened, or it was lost and no attempt to open it again
                succeeded.
        """
        self._time = 0.0
        yield self.first(stop)
        while (taken := self._take(stop)) is not None:
            moment, picture = taken
            self._time = moment - self._begun
            yield picture

    def __iter__(self) -> Iterator[Picture]:
        return self.frames()

    def close(self) -> None:
        """End the reading. Further calls do nothing."""
        with self._changed:
            self._closed = True
            self._coming.clear()
            self._changed.notify_all()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(2 * POLL_SECONDS)  # it may hang in the network; it ends with the process at the latest

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, stop: Callable[[], bool]) -> tuple[float, Picture] | None:
        """Arrival and image of the next frame; None where there is no more."""
        if self._reader is None and not self._closed:
            self._reader = threading.Thread(target=self._read, name=f"stmemory reads {self.name}", daemon=True)
            self._reader.start()
        while not stop():
            with self._changed:
                if not self._coming and not self._ended and not self._closed:
                    self._changed.wait(POLL_SECONDS)
                if self._coming:
                    self._changed.notify_all()
                    return self._coming.popleft()
                if self._error is not None:
                    raise self._error
                if self._ended or self._closed:
                    return None
        return None

    def _read(self) -> None:
        try:
            self._sessions()
        except Exception as error:  # raised again in the thread that takes the frames
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _sessions(self) -> None:
        """Read until there is no more, opening again what was lost."""
        failed, any_frame = 0, False
        while not self._closed:
            lost = ""
            try:
                for picture, reason in self._session():
                    lost = reason
                    if picture is not None:
                        self._put(picture)
                        failed, any_frame = 0, True
                    if self._closed:
                        return
            except FrameError as error:
                if not any_frame or self._waits:
                    raise
                lost = str(error)
            if self._waits or (not self._attempts and not lost):
                return
            if failed >= self._attempts:
                attempts = f"{failed} attempts to open it again failed" if failed else "it was not to be opened again"
                raise FrameError(
                    f"{self.name}: the stream was lost, and {attempts}: {lost or 'it ended'}; is it still sending?"
                )
            pause = min(0.5 * 2 ** min(failed, 10), LONGEST_WAIT)
            failed += 1
            _log.warning(
                "%s: lost (%s); attempt %d of %d in %g s", self.name, lost or "it ended", failed, self._attempts, pause
            )
            self._wait(pause)
            self.reconnections += not self._closed

    def _session(self) -> Iterator[tuple[Picture | None, str]]:
        """The images of one connection; at last None and why it was lost, "" where it ended."""
        container, stream = open_video(
            self._address, form=self._format, timeout=STALL_SECONDS if is_address(self._address) else None
        )
        if is_address(self._address) and container.duration:
            self._waits = True
        decoder = VideoDecoder(self._address, skip=not self._waits)
        for _, picture in decoder.frames((container, stream)):
            yield picture, ""
        yield None, decoder.ended_by

    def _put(self, picture: Picture) -> None:
        with self._changed:
            while self._waits and len(self._coming) >= HELD and not self._closed:
                self._changed.wait(POLL_SECONDS)
            if self._closed:
                return
            if len(self._coming) >= HELD:
                self._coming.popleft()
                self.dropped += 1
                if self.dropped == 1 or self.dropped % 1000 == 0:
                    _log.info("%s: frames come faster than they are taken: %d left out so far", self.name, self.dropped)
            self._coming.append((time.monotonic(), picture))
            self._changed.notify_all()

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._closed and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))


def _camera_number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,3}", text) and not Path(text).exists() else None


def _opened_as(text: str) -> tuple[str, str | None]:
    """What FFmpeg opens, and as what format."""
    number = _camera_number(text)
    if is_address(text):
        return text, None
    if number is None and not text.startswith("/dev/video"):
        return text, None
    devices: dict[str, tuple[str, Any]] = {
        "linux": (f"/dev/video{number}", "v4l2"),
        "darwin": (str(number), "avfoundation"),
    }
    if sys.platform not in devices:
        raise FrameError(
            f"camera {text}: expected Linux or macOS, got {sys.platform}; read it with OpenCV, and pass its frames"
        )
    name, form = devices[sys.platform]
    name = name if number is not None else text
    if sys.platform == "linux" and not Path(name).exists():
        there = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        raise FrameError(f"camera {text}: expected the device {name}, got none; cameras of this machine: {there}")
    return name, form
