"""Video files: reads one frame at a time, and writes an MP4, or a ProRes `.mov` with transparency.

Owns everything that touches PyAV, which is imported only when a video file is opened or written. Image files are read by
`images.py`; tensors and sizes are those of `frames.py`, drawings those of `result.py`.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import FrameError, OptionError
from stmemory.images import is_address

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

Picture = NDArray[np.uint8]  # [H, W, 3] RGB, or [H, W, 4] RGBA where a video has alpha

# A stated length is rounded by some muxers, so a video counts as cut off only when more than this is missing.
SLACK_SECONDS = 0.5
# What a file may be. A playlist or a list of files (hls, dash, concat, sdp, ...) makes FFmpeg open whatever it names.
CONTAINERS = (
    "3g2,3gp,aac,amv,apng,asf,asf_o,av1,avi,avs2,avs3,bink,cavsvideo,dirac,dnxhd,dv,dxa,evc,ffm,film_cpk,flic,flv,gif,gxf,h261,h263,h264,"
    "hevc,ivf,ivr,live_flv,m4a,m4v,matroska,mj2,mjpeg,mjpeg_2000,mlv,mov,mp3,mp4,mpeg,mpegts,mpegvideo,mpjpeg,msnwctcp,mtv,mv,mxf,nsv,nut,"
    "nuv,obu,ogg,pva,rm,roq,rpl,smk,smush,swf,thp,tmv,ty,vc1,vc1test,vivo,vmd,vvc,webm,wtv,yuv4mpegpipe"
)
DAMAGED = ("error", "skip")
# Colors are told apart by the matrix that players take where a file names none: BT.709 from this size on, BT.601 below.
HD_LINES, HD_COLUMNS = 720, 1280
BT601, BT709 = 5, 1
CLOCK = 90_000  # ticks a second of a video whose pictures have times
JOINT_PACKETS = 4  # after a damaged packet, in which a joint of two recordings would show
LEFT_OUT = 3  # packets at least that are left out after damage: the container reports it a packet or two early

_log = logging.getLogger(__name__)


def iterate_video(source: str | os.PathLike[str], *, damaged: str = "error") -> Iterator[Picture]:
    """Decode a video file, one frame at a time, turned and mirrored as its display matrix says.

    Decoders conceal damage and end early in silence; here both are errors, after the frames before them. Recordings that were joined
    are read through. A format that states no length, such as MPEG-TS, ends where it ends: a cut between its frames cannot be seen.
    Of several video streams the one that is marked as default or is the largest is read, as by ffmpeg; a cover picture is none.
    Files are read from the disk alone, and no other file is opened that a playlist names.

    Args:
        source: a video file, which is opened once when this is called, so that a file that is no video is an error at once; or the
            address of a stream as text (`http://`, `rtsp://`, ...), which is handed to FFmpeg as it is.
        damaged: `"error"`; or `"skip"`, which leaves out the frames from a damage to the next whole key frame, and ends in silence where
            a file was cut off.

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
    container, stream = _open_video(source)
    step = 1 / (_rate_of(stream) or 25.0)
    if is_address(source):  # a camera may be asked once
        return _growing(_Decoder(source, damaged == "skip").frames((container, stream)), step)
    container.close()
    return _growing(_reopened(source, damaged == "skip"), step)


def count_video_frames(source: str | os.PathLike[str]) -> int | None:
    """Say how many frames a video's header states, without reading it.

    Args:
        source: see `iterate_video`.

    Returns:
        The number of frames, without those that an edit hides; or `None` where the header states none (Matroska and WebM state none).

    Raises:
        FrameError: PyAV is missing, or the file is no video.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_video(f"{folder}/a.mp4", [np.zeros((16, 32, 3), np.uint8)] * 3)
    ...     count_video_frames(f"{folder}/a.mp4")
    3
    3
    """
    container, stream = _open_video(source)
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
    container, stream = _open_video(source)
    count = 0
    with container:
        try:
            for packet in container.demux(stream):
                count += bool(packet.size) and not packet.is_discard
        except _unreadable() as error:
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
    container, stream = _open_video(source)
    with container:
        return _rate_of(stream)


class OverlayWriter:
    """Writes pictures to an MP4 (H.264) one at a time; a context manager. Keeps no picture.

    The size is that of the first picture; an odd side is padded by one pixel (its edge repeated), as the codec needs. Colors are stored
    by BT.709 from 720 lines or 1280 columns on, else by BT.601, and the file says so. There is no sound.
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
        self._ticks: int | None = None  # of the last picture, where pictures have times
        self.count = 0

    def write(self, picture: Picture, *, time: float | None = None) -> None:
        """Append one picture.

        Args:
            picture: uint8 RGB `[H, W, 3]`, with alpha RGBA `[H, W, 4]`, of the same size as the first one.
            time: seconds at which it is shown, growing; the same for all pictures: either each has a time, or none, and they follow at
                the rate.

        Raises:
            FrameError: it is no such array, its size changed, or the file cannot be written.
        """
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != self._channels:
            came = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise FrameError(f"picture {self.count}: expected a uint8 array [H, W, {self._channels}], got {came}; overlay() returns RGB")
        if self._shape is None:
            self._open(picture, timed=time is not None)
        if picture.shape != self._shape:
            raise FrameError(
                f"picture {self.count}: expected the size of the first one, {self._shape}, got {picture.shape}; resize it or "
                "start another video"
            )
        if (time is None) != (self._ticks is None):
            raise FrameError(f"picture {self.count}: expected a time of each picture or of none, got time {time}")
        height, width = picture.shape[:2]
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(even, format="rgba" if self._channels == 4 else "rgb24")
        matrix = BT709 if _is_hd(height, width) else BT601
        frame = frame.reformat(format=self._stream.pix_fmt, dst_colorspace=matrix)
        frame.colorspace, frame.color_range = matrix, 1  # 1 is the range of television, 16 to 235
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
            raise FrameError(f"{self._path}: the end of the video was not written: {error}; is the disk full?") from error

    def _open(self, picture: Picture, *, timed: bool) -> None:
        height, width, alpha = *picture.shape[:2], self._channels == 4
        codec, settings = ("prores_ks", {"profile": "4444"}) if alpha else ("libx264", {"crf": "20"})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._container = self._av.open(_file_url(self._path), "w", format="mov" if alpha else "mp4")
            self._stream = self._container.add_stream(codec, rate=self._rate, options=settings)
        except (OSError, ValueError, self._av.error.FFmpegError) as error:
            raise FrameError(f"{self._path}: expected a place for a video file, got: {error}; choose another path") from error
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuva444p10le" if alpha else "yuv420p"
        told = self._stream.codec_context
        told.color_range, told.colorspace = 1, BT709 if _is_hd(height, width) else BT601
        told.color_primaries = told.color_trc = 1 if _is_hd(height, width) else 6
        if timed:
            told.time_base = Fraction(1, CLOCK)
            self._ticks = -1
        self._shape = picture.shape

    def _encode(self, frame: Any) -> None:
        if self._container is None:
            raise FrameError(f"{self._path}: expected an open video, got one that is closed; make a new OverlayWriter")
        try:
            self._container.mux(self._stream.encode(frame))
        except (OSError, self._av.error.FFmpegError) as error:
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


def _unreadable() -> tuple[type[Exception], ...]:
    """What PyAV raises on a file that is damaged, deleted or of another kind."""
    return (OSError, ValueError, LookupError, EOFError, ArithmeticError, MemoryError, importlib.import_module("av").error.FFmpegError)


def _file_url(path: str | os.PathLike[str]) -> str:
    """A path as FFmpeg takes it, whatever is in it: it takes `a:b.mp4` for the protocol `a`."""
    return f"file:{os.path.abspath(path)}"


def _open_video(source: str | os.PathLike[str]) -> tuple[Any, Any]:
    """A container and its stream of frames."""
    av = _import_av(f"reading the video {os.fspath(source)}")
    allowed = {} if is_address(source) else {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    name = os.fspath(source) if is_address(source) else _file_url(source)
    try:
        container = av.open(name, container_options=allowed, metadata_errors="replace")
    except _unreadable() as error:
        hint = "" if is_address(source) else "; playlists and lists of files are not opened, pass the video itself"
        raise FrameError(f"{os.fspath(source)}: not a video that PyAV can read: {error}{hint}") from error
    streams = [stream for stream in container.streams.video if stream.codec_context is not None and not _marks(stream) & 0x400]
    if not streams:
        cover = " but a cover picture" if container.streams.video else ""
        container.close()
        raise FrameError(f"{os.fspath(source)}: expected a video, got a file without a video stream{cover}")
    return container, max(streams, key=lambda stream: stream.width * stream.height + 5_000_000 * (_marks(stream) & 1))


def _reopened(source: str | os.PathLike[str], skip: bool) -> Iterator[tuple[float | None, Picture]]:
    yield from _Decoder(source, skip).frames(_open_video(source))


def _rate_of(stream: Any) -> float | None:
    """Frames per second; None where the file states none, or what cannot be."""
    return next((float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate and 0 < rate < 1000), None)


def _marks(stream: Any) -> int:
    """A stream's disposition: 1 is the default one, 0x400 an attached picture; 0 where PyAV (before 14) does not say."""
    marks = getattr(stream, "disposition", 0)
    return int(getattr(marks, "value", marks))


class _Decoder:
    """Goes through one video once."""

    def __init__(self, source: str | os.PathLike[str], skip: bool) -> None:
        self.source, self.skip = source, skip
        self.count, self.reached, self._duration = 0, 0.0, 0
        self._base = Fraction(0)  # seconds a tick of the stream
        self._errors = _unreadable()
        self._limit: int | None = None  # time of the damage, in ticks of the stream; None where it is not known

    def frames(self, opened: tuple[Any, Any]) -> Iterator[tuple[float | None, Picture]]:
        """Time, if it is known, and picture of each frame."""
        container, stream = opened
        self._base = stream.time_base or Fraction(0)
        with container:
            yield from self._packets(container, stream)
            missing = "" if self.skip or is_address(self.source) else _missing(Path(self.source), stream, self.reached)
        if missing:
            raise self._broken(missing)
        if not self.count:
            raise FrameError(f"{os.fspath(self.source)}: expected a video with frames, got an empty one")

    def _packets(self, container: Any, stream: Any) -> Iterator[tuple[float | None, Picture]]:
        coming, packets, wait = deque[Any](), container.demux(stream), 0
        while True:
            try:
                packet = coming.popleft() if coming else next(packets, None)
                if packet is not None and packet.is_corrupt:
                    coming.extend(itertools.islice(packets, JOINT_PACKETS - len(coming)))
            except self._errors as error:
                if not self.skip:
                    raise self._broken(str(error)) from error
                _log.warning("%s: ends after %d frames, where it cannot be read on: %s", self.source, self.count, error)
                return
            if packet is None:
                return
            self._duration = packet.duration or self._duration
            damage = "a packet is damaged" if packet.is_corrupt and not _is_joint(packet, coming) else ""
            if wait and packet.size:  # left out, up to a key frame that is surely whole
                wait = LEFT_OUT if damage else max(1, wait - 1) if wait > 1 or not packet.is_keyframe else 0
                if wait:
                    continue
            if damage:
                self._limit = packet.pts
            else:
                damage = yield from self._decoded(packet.decode, packet.pts)
            if not damage:
                continue
            yield from self._held(stream)
            if not self.skip:
                raise self._broken(damage)
            _log.warning("%s: left out what follows frame %d, up to a key frame: %s", self.source, self.count, damage)
            stream.codec_context.flush_buffers()
            wait = LEFT_OUT

    def _decoded(self, decode: Callable[[], Iterable[Any]], at: int | None) -> Generator[tuple[float | None, Picture], None, str]:
        """The frames that a packet gives; returns what is wrong with it, and "" if nothing is."""
        self._limit = at
        try:
            for frame in decode():
                if frame.is_corrupt:
                    self._limit = frame.pts
                    return "a frame is damaged"
                yield self._taken(frame)
        except self._errors as error:
            return str(error) or type(error).__name__
        return ""

    def _held(self, stream: Any) -> Iterator[tuple[float | None, Picture]]:
        """The frames before the damage that the decoder still holds."""
        try:
            for frame in stream.codec_context.decode(None):
                if frame.is_corrupt or frame.pts is None or self._limit is None or frame.pts >= self._limit:
                    return
                yield self._taken(frame)
        except self._errors:
            return

    def _taken(self, frame: Any) -> tuple[float | None, Picture]:
        picture = _picture(frame)
        self.count += 1
        duration = getattr(frame, "duration", 0) or self._duration  # PyAV knows that of frames from 15 on
        time = None if frame.pts is None else float(frame.pts * self._base)
        self.reached = (time or 0.0) + float(duration * self._base)
        return time, picture

    def _broken(self, damage: str) -> FrameError:
        return FrameError(
            f"{os.fspath(self.source)}: expected a whole video, got one that broke after {self.count} frames were read: {damage}; copy or "
            'encode it again, or read it with damaged="skip", which leaves out the gap'
        )


def _growing(frames: Iterator[tuple[float | None, Picture]], step: float) -> Iterator[tuple[float, Picture]]:
    """Times from 0 on; where they go back, as at the joint of two recordings, the second goes on from the first."""
    shift, last = 0.0, None
    for time, picture in frames:
        if last is None:
            now, shift = 0.0, -(time or 0.0)
        elif time is None:
            now = last + step
        elif time + shift > last:
            now = time + shift
        else:
            now = last + step
            shift = now - time
        last = now
        yield now, picture


def _is_joint(packet: Any, coming: Iterable[Any]) -> bool:
    """Whether a packet counts as damaged only since another recording follows: its clock starts again, or leaps with a key frame."""
    last = packet.dts
    for each in coming:
        if last is not None and each.dts is not None:
            leap = float((each.dts - last) * each.time_base)
            if leap < 0 or (leap > 1 and each.is_keyframe):
                return True
        last = each.dts if each.dts is not None else last
    return False


def _picture(frame: Any) -> Picture:
    """A frame as RGB, as players show it."""
    told = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: 9, 10: 9}.get(int(frame.colorspace))
    matrix = told or (BT709 if _is_hd(frame.height, frame.width) else BT601)
    options = {} if frame.format.is_rgb else {"src_colorspace": matrix}
    picture: Picture = frame.reformat(format="rgb24", **options).to_ndarray()
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return _displayed(picture, np.frombuffer(bytes(data), np.int32))
    return picture


def _displayed(picture: Picture, matrix: NDArray[np.int32]) -> Picture:
    """A picture turned and mirrored by the nearest multiple of 90 degrees; as it is by a matrix that would hide it."""
    across, turned, back, down = (int(matrix[place]) for place in (0, 1, 3, 4))  # x' = across x + back y, y' = turned x + down y
    if abs(turned) + abs(back) > abs(across) + abs(down):
        picture, across, down = picture.transpose(1, 0, 2), back, turned
    if not across or not down:
        return picture if picture.flags.c_contiguous else picture.transpose(1, 0, 2)
    return np.ascontiguousarray(picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _is_hd(height: int, width: int) -> bool:
    return height >= HD_LINES or width >= HD_COLUMNS


def _missing(path: Path, stream: Any, reached: float) -> str:
    """Say what a video's own header promises beyond its end; empty if nothing."""
    try:
        size = path.stat().st_size
        cut = _boxes_end(path, size) > size
    except OSError as error:
        return f"it cannot be read on: {error}"
    if cut or any(entry.pos + entry.size > size for entry in getattr(stream, "index_entries", ())):
        return "the file is cut off"
    stated = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if stated is None:
        return ""
    hours, minutes, seconds = (float(part) for part in stated.groups())
    promised = 3600 * hours + 60 * minutes + seconds
    return f"it ends at {reached:.2f} s of {promised:.2f} s" if promised - reached > SLACK_SECONDS else ""


def _boxes_end(path: Path, size: int) -> int:
    """Where an MP4 or MOV ends, by the sizes of its boxes; 0 for other files."""
    place = 0
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if not place and kind not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
                return 0
            if length == 0:  # to the end of the file
                return size
            place += int.from_bytes(head[8:16], "big") if length == 1 else max(8, length)
            if length == 1 and int.from_bytes(head[8:16], "big") < 16:
                return 0
    return place
