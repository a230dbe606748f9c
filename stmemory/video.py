"""Video files: reads one frame at a time, and writes an MP4, or a ProRes `.mov` with transparency.

Owns everything that touches PyAV, which is imported only when a video file is opened or written. Does not know image files
(`images.py`), tensors and sizes (`frames.py`), nor what is drawn on a frame (`result.py`).
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import FrameError, OptionError

__all__ = ["OverlayWriter", "count_video_frames", "frame_rate", "iterate_video", "write_video"]

Picture = NDArray[np.uint8]  # [H, W, 3] RGB, or [H, W, 4] RGBA where a video has alpha

# A stated length is rounded by some muxers, so a video counts as cut off only when more than this is missing.
SLACK_SECONDS = 0.5

# Kinds of files that hold their pictures themselves. A playlist or a list of files, which FFmpeg reads too, makes it open what it names.
_MEDIA = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,live_flv,kux,asf,mxf,rm,nut,dv,gif,apng,webp,avif,gxf,nsv,wtv,"
    "ivf,obu,av1,h261,h263,h264,hevc,vvc,vc1,m4v,dirac,cavsvideo,dnxhd,mjpeg,mjpeg_2000,mpjpeg,yuv4mpegpipe,swf,bink,smk,roq,flic,amv,ipu"
)
_LOCAL_MEDIA = {"format_whitelist": _MEDIA, "protocol_whitelist": "file"}


def iterate_video(path: str | os.PathLike[str]) -> Iterator[Picture]:
    """Decode a video file, one frame at a time. Its rotation mark is honoured.

    Decoders conceal damage and end early in silence; here both are errors, after the frames before them. A format that states
    no length, such as MPEG-TS, ends where it ends: a cut between its frames cannot be told.

    Args:
        path: a video file. It is opened once when this is called, so that a file that is no video is an error at once.

    Returns:
        uint8 RGB arrays `[H, W, 3]`.

    Raises:
        FrameError: PyAV is missing, the file is no video, it has no frames, or it is damaged or cut off.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", [np.zeros((16, 32, 3), np.uint8)] * 3)
    ...     [picture.shape for picture in iterate_video(f"{folder}/a.mp4")]
    3
    [(16, 32, 3), (16, 32, 3), (16, 32, 3)]
    """
    with _open_video(Path(path)):
        return _decode(Path(path))


def count_video_frames(path: str | os.PathLike[str]) -> int | None:
    """Say how many frames a video's header states, without decoding it.

    Args:
        path: a video file.

    Returns:
        The number of frames, or `None` where the header states none (Matroska and WebM state none).

    Raises:
        FrameError: PyAV is missing, or the file is no video.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", [np.zeros((16, 32, 3), np.uint8)] * 3)
    ...     count_video_frames(f"{folder}/a.mp4")
    3
    3
    """
    with _open_video(Path(path)) as container:
        return int(container.streams.video[0].frames) or None


def frame_rate(path: str | os.PathLike[str]) -> float | None:
    """Say how many frames a second a video file shows.

    Args:
        path: a video file.

    Returns:
        Frames per second, or `None` where the file does not state it.

    Raises:
        FrameError: PyAV is missing, or the file is no video.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", [np.zeros((16, 32, 3), np.uint8)] * 5, rate=12)
    ...     frame_rate(f"{folder}/a.mp4")
    5
    12.0
    """
    with _open_video(Path(path)) as container:
        rate = container.streams.video[0].average_rate
        return float(rate) if rate else None


class OverlayWriter:
    """Writes pictures to an MP4 (H.264) one at a time; a context manager. Keeps no picture.

    The size is that of the first picture; an odd side is padded by one pixel (its edge repeated), as the codec needs.
    Leaving the `with` block, also by an error or ctrl-C, closes the file, so that what was written can be watched. Without
    any picture no file is made. PyAV is needed: `pip install "av>=12"`.

    Args:
        path: where the MP4 goes. Missing parent folders are made; a file that is there is replaced.
        rate: pictures per second.
        alpha: write RGBA pictures to a `.mov` in ProRes 4444, which keeps transparency, instead.

    Raises:
        OptionError: `rate` is not above 0.
        FrameError: PyAV is missing, or the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, rate: float = 25.0, alpha: bool = False) -> None:
        if not 0 < rate < 1000:
            raise OptionError(f"rate: expected pictures per second above 0 and below 1000, got {rate}; 25 is usual")
        self._av = _import_av(f"writing {os.fspath(path)}")
        self._path = Path(path)
        self._rate = Fraction(rate).limit_denominator(1001)
        self._channels = 4 if alpha else 3
        self._shape: tuple[int, ...] | None = None
        self._container: Any = None
        self._stream: Any = None
        self.count = 0

    def write(self, picture: Picture) -> None:
        """Append one picture.

        Args:
            picture: uint8 RGB `[H, W, 3]`, with alpha RGBA `[H, W, 4]`, of the same size as the first one.

        Raises:
            FrameError: it is no such array, its size changed, or the file cannot be written.
        """
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != self._channels:
            came = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise FrameError(f"picture {self.count}: expected a uint8 array [H, W, {self._channels}], got {came}; overlay() returns RGB")
        if self._shape is None:
            self._open(picture)
        if picture.shape != self._shape:
            raise FrameError(
                f"picture {self.count}: expected the size of the first one, {self._shape}, got {picture.shape}; resize it or "
                "start another video"
            )
        height, width = picture.shape[:2]
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._encode(self._av.VideoFrame.from_ndarray(even, format="rgba" if self._channels == 4 else "rgb24"))
        self.count += 1

    def close(self) -> None:
        """Finish the file. Further calls do nothing."""
        container, self._container = self._container, None
        if container is None:
            return
        with container:
            container.mux(self._stream.encode(None))

    def _open(self, picture: Picture) -> None:
        height, width, alpha = *picture.shape[:2], self._channels == 4
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._container = self._av.open(os.fspath(self._path), "w", format="mov" if alpha else "mp4")
        except (OSError, self._av.error.FFmpegError) as error:
            raise FrameError(f"{self._path}: expected a place for a video file, got: {error}; choose another path") from error
        codec, settings = ("prores_ks", {"profile": "4444"}) if alpha else ("libx264", {"crf": "20"})
        self._stream = self._container.add_stream(codec, rate=self._rate, options=settings)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuva444p10le" if alpha else "yuv420p"
        self._shape = picture.shape

    def _encode(self, frame: Any) -> None:
        if self._container is None:
            raise FrameError(f"{self._path}: expected an open video, got one that is closed; make a new OverlayWriter")
        try:
            self._container.mux(self._stream.encode(frame))
        except self._av.error.FFmpegError as error:
            raise FrameError(f"{self._path}: picture {self.count} not written: {error}; is the disk full?") from error

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def write_video(path: str | os.PathLike[str], pictures: Iterable[Picture], *, rate: float = 25.0) -> int:
    """Write pictures to an MP4, one at a time, as `OverlayWriter` does.

    Args:
        path: where the MP4 goes.
        pictures: uint8 RGB arrays `[H, W, 3]`, all of one size.
        rate: pictures per second.

    Returns:
        How many were written.

    Raises:
        FrameError: PyAV is missing, a picture cannot be used, or the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", (np.full((15, 16, 3), grey, np.uint8) for grey in (0, 99)))
    2
    """
    with OverlayWriter(path, rate=rate) as writer:
        for picture in pictures:
            writer.write(picture)
    return writer.count


def _import_av(purpose: str) -> ModuleType:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise FrameError(f'{purpose} needs PyAV, which is not installed; run: pip install "av>=12"') from error


def _open_video(path: Path) -> Any:
    av = _import_av(f"reading the video {path}")
    try:
        container = av.open(os.fspath(path), options=_LOCAL_MEDIA)
    except (OSError, av.error.FFmpegError) as error:
        raise FrameError(f"{path}: not a video that PyAV can read: {error}; a playlist, or another list of files, is none: pass the files themselves") from error
    if not container.streams.video:
        container.close()
        raise FrameError(f"{path}: expected a video, got a file without a video stream")
    return container


def _decode(path: Path) -> Iterator[Picture]:
    av = _import_av(f"reading the video {path}")
    count, reached = 0, 0.0
    with _open_video(path) as container:
        stream = container.streams.video[0]
        try:
            for packet in container.demux(stream):
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise _broken(path, count, "a frame is damaged")
                    picture: Picture = frame.to_ndarray(format="rgb24")
                    yield np.rot90(picture, k=round(getattr(frame, "rotation", 0) / 90))
                    count += 1
                    reached = (frame.time or 0.0) + float((frame.duration or 0) * (frame.time_base or 0))
                if packet.is_corrupt:
                    raise _broken(path, count, "a packet is damaged")
        except av.error.FFmpegError as error:
            raise _broken(path, count, str(error)) from error
        missing = _missing(path, stream, reached)
    if missing:
        raise _broken(path, count, missing)
    if not count:
        raise FrameError(f"{path}: expected a video with frames, got an empty one")


def _broken(path: Path, count: int, damage: str) -> FrameError:
    return FrameError(
        f"{path}: expected a whole video, got one that broke after {count} frames were read: {damage}; copy or encode it anew"
    )


def _missing(path: Path, stream: Any, reached: float) -> str:
    """Say what a video's own header promises beyond its end; empty if nothing."""
    size = path.stat().st_size
    if any(entry.pos + entry.size > size for entry in getattr(stream, "index_entries", ())):
        return "the file is cut off"
    stated = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if stated is None:
        return ""
    hours, minutes, seconds = (float(part) for part in stated.groups())
    promised = 3600 * hours + 60 * minutes + seconds
    return f"it ends at {reached:.2f} s of {promised:.2f} s" if promised - reached > SLACK_SECONDS else ""
