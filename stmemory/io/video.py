"""Video files, by PyAV: read one frame at a time, and written as MP4, as `.mov` with transparency, or as lossless grey.

PyAV is imported when a video file is opened or written.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import FrameError, OptionError
from stmemory.io.decoder import BT601, BT709, decode_video, file_url, import_av, is_hd, open_video, rate_of, unreadable

__all__ = [
    "DAMAGED",
    "OverlayWriter",
    "count_video_frames",
    "frame_rate",
    "iterate_timed_video",
    "iterate_video",
    "scan_video_frames",
    "write_video",
]

Picture = NDArray[np.uint8]  # [H, W, 3] RGB, [H, W, 4] RGBA where a video has alpha, or [H, W] where it is grey

DAMAGED = ("error", "skip")
CLOCK = 90_000  # ticks a second of a video whose images have times


@dataclass(frozen=True)
class _Codec:
    """How images are stored: the encoder and its options, the container, the layout of pixels, and that of the
    images."""

    encoder: str
    options: Mapping[str, str]
    container: str
    pixels: str
    channels: int

    @property
    def is_yuv(self) -> bool:
        """Whether colours are converted, and sides have to be even."""
        return self.pixels.startswith("yuv")


CODECS: Mapping[str, _Codec] = {
    "h264": _Codec("libx264", {"crf": "20"}, "mp4", "yuv420p", 3),
    "prores": _Codec("prores_ks", {"profile": "4444"}, "mov", "yuva444p10le", 4),
    "png": _Codec("png", {}, "mov", "rgba", 4),
    "qtrle": _Codec("qtrle", {}, "mov", "argb", 4),
    "grey_png": _Codec("png", {}, "mov", "gray", 1),
    "grey_ffv1": _Codec("ffv1", {"level": "3"}, "matroska", "gray", 1),
}
_LAYOUTS = {1: "gray", 3: "rgb24", 4: "rgba"}
_SHAPES = {1: "[H, W], grey", 3: "[H, W, 3]", 4: "[H, W, 4]"}
_log = logging.getLogger(__name__)


def iterate_video(source: str | os.PathLike[str], *, damaged: str = "error") -> Iterator[Picture]:
    """Decode a video file, one frame at a time, turned and mirrored as its display matrix says.

    Decoders conceal damage and end early in silence; here both are errors, after the frames before them. Recordings
    that were joined are read through. A format that states no length, such as MPEG-TS, ends where it ends: a cut
    between its frames cannot be seen. Of several video streams the one that is marked as default or is the largest is
    read, as by ffmpeg; a cover image is none. Files are read from the disk alone, and no other file is opened that a
    playlist names.

    Args:
        source: a video file, which is opened once when this is called, so that a file that is no video is an error at
            once; or the address of a stream as text (`http://`, `rtsp://`, ...), which is handed to FFmpeg as it is.
        damaged: `"error"`; or `"skip"`, which leaves out the frames from a damage to the next whole key frame, and ends
            in silence where a file was cut off.

    Returns:
        uint8 RGB arrays `[H, W, 3]`.

    Raises:
        FrameError: PyAV is missing, the file is no video, it has no frames, or it is damaged or cut off.
        OptionError: `damaged` is neither of the two.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", [np.zeros((16, 32, 3), np.uint8)] * 3)
    ...     [picture.shape for picture in iterate_video(f"{folder}/a.mp4")]
    3
    [(16, 32, 3), (16, 32, 3), (16, 32, 3)]
    """
    return (picture for _, picture in iterate_timed_video(source, damaged=damaged))


def iterate_timed_video(source: str | os.PathLike[str], *, damaged: str = "error") -> Iterator[tuple[float, Picture]]:
    """Decode a video as `iterate_video` does, with the time of each frame.

    Args:
        source: see `iterate_video`.
        damaged: see `iterate_video`.

    Returns:
        Seconds from the first frame on, growing, through joints of recordings too; and uint8 RGB arrays `[H, W, 3]`.

    Raises:
        FrameError: see `iterate_video`.
        OptionError: see `iterate_video`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", [np.zeros((16, 32, 3), np.uint8)] * 3, rate=10)
    ...     [round(time, 3) for time, _ in iterate_timed_video(f"{folder}/a.mp4")]
    3
    [0.0, 0.1, 0.2]
    """
    if damaged not in DAMAGED:
        raise OptionError(f'damaged: expected "error" or "skip", got {damaged!r}')
    return decode_video(source, skip=damaged == "skip")


def count_video_frames(source: str | os.PathLike[str]) -> int | None:
    """Say how many frames a video's header states, without reading it.

    Args:
        source: see `iterate_video`.

    Returns:
        The number of frames, without those that an edit hides; or `None` where the header states none (Matroska and
        WebM state none).

    Raises:
        FrameError: PyAV is missing, or the file is no video.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", [np.zeros((16, 32, 3), np.uint8)] * 3)
    ...     count_video_frames(f"{folder}/a.mp4")
    3
    3
    """
    container, stream = open_video(source)
    with container:
        stated = int(stream.frames)
        hidden = sum(bool(entry.is_discard) for entry in getattr(stream, "index_entries", ()))
        return max(0, stated - hidden) or None


def scan_video_frames(source: str | os.PathLike[str]) -> int:
    """Count a video's frames by going through the whole file, without decoding it.

    Args:
        source: a video file.

    Returns:
        The number of frames; where a file is damaged, of those before the damage that are stored whole.

    Raises:
        FrameError: PyAV is missing, or the file is no video.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", [np.zeros((16, 32, 3), np.uint8)] * 3)
    ...     scan_video_frames(f"{folder}/a.mp4")
    3
    3
    """
    container, stream = open_video(source)
    count = 0
    with container:
        try:
            for packet in container.demux(stream):
                count += bool(packet.size) and not packet.is_discard
        except unreadable() as error:
            _log.info("%s: counted %d frames before it could not be read on: %s", source, count, error)
    return count


def frame_rate(source: str | os.PathLike[str]) -> float | None:
    """Say how many frames a second a video shows, on average.

    Args:
        source: see `iterate_video`.

    Returns:
        Frames per second, or `None` where the file does not state it, or states what cannot be.

    Raises:
        FrameError: PyAV is missing, or the file is no video.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", [np.zeros((16, 32, 3), np.uint8)] * 5, rate=12)
    ...     frame_rate(f"{folder}/a.mp4")
    5
    12.0
    """
    container, stream = open_video(source)
    with container:
        return rate_of(stream)


class OverlayWriter:
    """Writes images to an MP4 (H.264), or in another codec, one at a time; a context manager. Keeps no image.

    The size is that of the first image; in H.264 and ProRes an odd side is padded by one pixel (its edge repeated),
    as the codecs need, and colors are stored by BT.709 from 720 lines or 1280 columns on, else by BT.601, and the file
    says so. There is no sound. Leaving the `with` block, also by an error or ctrl-C, closes the file, so that what was
    written can be watched. Without any image no file is made. PyAV is needed: `pip install "av>=12"`.

    Args:
        path: path to write to. Missing parent folders are made; a file that is there is replaced.
        rate: images per second.
        alpha: without `codec`, whether images are RGBA, and the codec ProRes 4444.
        codec: `"h264"`, RGB images in an MP4; `"prores"` (ProRes 4444), or lossless `"png"` or `"qtrle"`, RGBA
            images in a `.mov`, which keep transparency; `"grey_png"` or `"grey_ffv1"`, grey images without loss in
            a `.mov` or a `.mkv`.
        comment: text that is stored in the file.

    Raises:
        OptionError: `rate` is not above 0, or there is no such codec.
        FrameError: PyAV is missing, or the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rate: float = 25.0,
        alpha: bool = False,
        codec: str | None = None,
        comment: str = "",
    ) -> None:
        if not 0 < rate < 1000:
            raise OptionError(f"rate: expected images per second above 0 and below 1000, got {rate}; 25 is usual")
        codec = codec or ("prores" if alpha else "h264")
        if codec not in CODECS:
            raise OptionError(f"codec: expected one of {', '.join(CODECS)}, got {codec!r}")
        self._av = import_av(f"writing {os.fspath(path)}")
        self._path = Path(path)
        self._rate = Fraction(rate).limit_denominator(1001)
        self._codec, self._comment = CODECS[codec], comment
        self._shape: tuple[int, ...] | None = None
        self._container: Any = None
        self._stream: Any = None
        self._ticks: int | None = None  # of the last image, where images have times
        self.count = 0

    def write(self, picture: Picture, *, time: float | None = None) -> None:
        """Append one image.

        Args:
            picture: uint8 RGB `[H, W, 3]`, RGBA `[H, W, 4]` or grey `[H, W]`, as the codec is, of the same size as the
                first one.
            time: seconds at which it is shown, growing; the same for all pictures: either each has a time, or none, and
                they follow at the rate.

        Raises:
            FrameError: it is no such array, its size changed, or the file cannot be written.
        """
        channels = self._codec.channels
        last = (channels,) if channels > 1 else ()
        if (
            not isinstance(picture, np.ndarray)
            or picture.dtype != np.uint8
            or picture.ndim < 2
            or picture.shape[2:] != last
        ):
            came = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise FrameError(
                f"image {self.count}: expected a uint8 array {_SHAPES[channels]}, got {came}; overlay() returns RGB"
            )
        if self._shape is None:
            self._open(picture, timed=time is not None)
        if picture.shape != self._shape:
            raise FrameError(
                f"image {self.count}: expected the size of the first one, {self._shape}, got {picture.shape}; resize "
                "it or start another video"
            )
        if (time is None) != (self._ticks is None):
            raise FrameError(f"image {self.count}: expected a time of each image or of none, got time {time}")
        frame = self._frame(picture)
        if time is not None and self._ticks is not None:
            self._ticks = max(round(time * CLOCK), self._ticks + 1)
            frame.pts, frame.time_base = self._ticks, Fraction(1, CLOCK)
        self._encode(frame)
        self.count += 1

    def close(self) -> None:
        """Finish the file. Further calls do nothing.

        Raises:
            FrameError: what is left of it cannot be written.
        """
        container, self._container = self._container, None
        if container is None:
            return
        try:
            with container:
                container.mux(self._stream.encode(None))
        except (OSError, self._av.error.FFmpegError) as error:
            raise FrameError(
                f"{self._path}: the end of the video was not written: {error}; is the disk full?"
            ) from error

    def _frame(self, picture: Picture) -> Any:
        """An image as the encoder takes it."""
        height, width = picture.shape[:2]
        layout = _LAYOUTS[self._codec.channels]
        if not self._codec.is_yuv:
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=layout)
            frame = frame if layout == self._codec.pixels else frame.reformat(format=self._codec.pixels)
            frame.color_range = 2  # all of 0 to 255
            return frame
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(even, format=layout)
        matrix = BT709 if is_hd(height, width) else BT601
        frame = frame.reformat(format=self._stream.pix_fmt, dst_colorspace=matrix)
        frame.colorspace, frame.color_range = matrix, 1  # 1 is the range of television, 16 to 235
        return frame

    def _open(self, picture: Picture, *, timed: bool) -> None:
        height, width = picture.shape[:2]
        codec = self._codec
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._container = self._av.open(file_url(self._path), "w", format=codec.container)
            if self._comment:
                self._container.metadata["comment"] = self._comment
            self._stream = self._container.add_stream(codec.encoder, rate=self._rate, options=dict(codec.options))
        except (OSError, ValueError, self._av.error.FFmpegError) as error:
            raise FrameError(
                f"{self._path}: expected a place for a video file, got: {error}; choose another path"
            ) from error
        odd = (height % 2, width % 2) if codec.is_yuv else (0, 0)
        self._stream.width, self._stream.height = width + odd[1], height + odd[0]
        self._stream.pix_fmt = codec.pixels
        context = self._stream.codec_context
        if codec.is_yuv:
            context.color_range, context.colorspace = 1, BT709 if is_hd(height, width) else BT601
            context.color_primaries = context.color_trc = 1 if is_hd(height, width) else 6
        else:
            context.color_range = 2
        if timed:
            context.time_base = Fraction(1, CLOCK)
            self._ticks = -1
        self._shape = picture.shape

    def _encode(self, frame: Any) -> None:
        if self._container is None:
            raise FrameError(f"{self._path}: expected an open video, got one that is closed; make a new OverlayWriter")
        try:
            self._container.mux(self._stream.encode(frame))
        except (OSError, self._av.error.FFmpegError) as error:
            raise FrameError(f"{self._path}: image {self.count} not written: {error}; is the disk full?") from error

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_video(path: str | os.PathLike[str], pictures: Iterable[Picture], *, rate: float = 25.0) -> int:
    """Write images to an MP4, one at a time, as `OverlayWriter` does.

    Args:
        path: path to write to.
        pictures: uint8 RGB arrays `[H, W, 3]`, all of one size.
        rate: images per second.

    Returns:
        How many were written.

    Raises:
        FrameError: PyAV is missing, an image cannot be used, or the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", (np.full((15, 16, 3), grey, np.uint8) for grey in (0, 99)))
    2
    """
    with OverlayWriter(path, rate=rate) as writer:
        for picture in pictures:
            writer.write(picture)
    return writer.count
