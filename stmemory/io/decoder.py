"""Decoding of videos by PyAV: what may be opened, which stream is read, what is damage, how a frame is turned."""

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
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import FrameError
from stmemory.io.images import is_address

__all__ = [
    "BT601",
    "BT709",
    "VideoDecoder",
    "decode_video",
    "file_url",
    "import_av",
    "is_hd",
    "open_video",
    "rate_of",
    "shown_address",
    "unreadable",
]

Picture = NDArray[np.uint8]  # [H, W, 3] RGB

# A stated length is rounded by some muxers, so a video counts as cut off only when more than this is missing.
SLACK_SECONDS = 0.5
# What a file may be. A playlist or a list of files (hls, dash, concat, sdp, ...) makes FFmpeg open whatever it names.
CONTAINERS = (
    "3g2,3gp,aac,amv,apng,asf,asf_o,av1,avi,avs2,avs3,bink,cavsvideo,dirac,dnxhd,dv,dxa,evc,ffm,film_cpk,flic,flv,"
    "gif,gxf,h261,h263,h264,hevc,ipu,ivf,ivr,kux,live_flv,m4a,m4v,matroska,mj2,mjpeg,mjpeg_2000,mov,mp3,mp4,"
    "mpeg,mpegts,mpegvideo,mpjpeg,msnwctcp,mtv,mv,mxf,nsv,nut,nuv,obu,ogg,pva,rm,roq,rpl,smk,smush,swf,thp,tmv,ty,"
    "vc1,vc1test,vivo,vmd,vvc,webm,webp,wtv,yuv4mpegpipe"
)
# What an address may begin with, and what FFmpeg needs below that: no `file`, so that what a server sends opens no file
# of this machine.
PROTOCOLS = ("rtsp", "rtsps", "http", "https", "udp", "rtp", "tcp", "srt", "rtmp")
BELOW = ("tls", "crypto", "httpproxy", "rtmps", "tcp")
STREAMS = "rtsp,rtp,sdp,hls,dash"  # what an address may be beside `CONTAINERS`
# The matrix that players take where a file names none: BT.709 from this size on, BT.601 below.
HD_LINES, HD_COLUMNS = 720, 1280
BT601 = 5
BT709 = 1
JOINT_PACKETS = 4  # after a damaged packet, in which a joint of two recordings would show
LEFT_OUT = 3  # packets at least that are left out after damage: the container reports it a packet or two early

_log = logging.getLogger(__name__)


def import_av(purpose: str) -> ModuleType:
    """Import PyAV.

    Args:
        purpose: purpose that it is needed for, for the message.

    Raises:
        FrameError: it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise FrameError(f'{purpose} needs PyAV, which is not installed; run: pip install "av>=12"') from error


def unreadable() -> tuple[type[Exception], ...]:
    """What PyAV raises on a file that is damaged, deleted or of another kind."""
    return (
        OSError,
        ValueError,
        LookupError,
        EOFError,
        ArithmeticError,
        MemoryError,
        importlib.import_module("av").error.FFmpegError,
    )


def file_url(path: str | os.PathLike[str]) -> str:
    """A path as FFmpeg takes it, whatever is in it: it takes `a:b.mp4` for the protocol `a`."""
    return f"file:{os.path.abspath(path)}"


def shown_address(source: str | os.PathLike[str]) -> str:
    """A source for messages and records: an address without its user's name and password.

    >>> shown_address("rtsp://me:secret@camera/1")
    'rtsp://camera/1'
    """
    text = os.fspath(source)
    return re.sub(r"^([^:/]+://)[^/?#]*@", r"\1", text) if is_address(text) else text


def open_video(
    source: str | os.PathLike[str], *, form: str | None = None, timeout: float | None = None
) -> tuple[Any, Any]:
    """Open a video, and choose its stream of frames.

    Args:
        source: a file, or an address as text.
        form: the format of a camera, as FFmpeg names it; then `source` is the device.
        timeout: seconds without data after which opening and reading end; None waits.

    Returns:
        The container, which is to be closed, and the stream.

    Raises:
        FrameError: PyAV is missing, it is no video, or the address has another protocol than those of `PROTOCOLS`.
    """
    shown = shown_address(source)
    av = import_av(f"reading the video {shown}")
    name, options = (os.fspath(source), dict[str, str]()) if form else _how_to_open(source, shown)
    try:
        container = av.open(name, format=form, container_options=options, metadata_errors="replace", timeout=timeout)
    except unreadable() as error:
        hint = (
            "" if form or is_address(source) else "; playlists and lists of files are not opened, pass the video itself"
        )
        raise FrameError(
            f"{shown}: not a video that PyAV can read: {str(error).replace(os.fspath(source), shown)}{hint}"
        ) from error
    streams = [
        stream for stream in container.streams.video if stream.codec_context is not None and not _marks(stream) & 0x400
    ]
    if not streams:
        cover = " but a cover image" if container.streams.video else ""
        container.close()
        raise FrameError(f"{shown}: expected a video, got a file without a video stream{cover}")
    return container, max(streams, key=lambda stream: stream.width * stream.height + 5_000_000 * (_marks(stream) & 1))


def _how_to_open(source: str | os.PathLike[str], shown: str) -> tuple[str, dict[str, str]]:
    """What FFmpeg is given for a file or an address, and what that may lead it to open."""
    if not is_address(source):
        return file_url(source), {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    protocol = os.fspath(source).split("://", 1)[0].lower()
    if protocol not in PROTOCOLS:
        raise FrameError(
            f"{shown}: expected an address that begins with one of "
            f"{', '.join(PROTOCOLS)}, got {protocol}; pass a file as a path"
        )
    return os.fspath(source), {
        "protocol_whitelist": ",".join((*PROTOCOLS, *BELOW)),
        "format_whitelist": f"{CONTAINERS},{STREAMS}",
    }


def decode_video(source: str | os.PathLike[str], *, skip: bool) -> Iterator[tuple[float, Picture]]:
    """Decode a video; see `iterate_timed_video`.

    Args:
        source: a file, which is opened once when this is called; or an address, which is opened then and not again.
        skip: whether to go on past damage.

    Raises:
        FrameError: see `iterate_timed_video`.
    """
    container, stream = open_video(source)
    step = 1 / (rate_of(stream) or 25.0)
    if is_address(source):  # a camera may be asked once
        return _growing(VideoDecoder(source, skip).frames((container, stream)), step)
    container.close()
    return _growing(_reopened(source, skip), step)


def _reopened(source: str | os.PathLike[str], skip: bool) -> Iterator[tuple[float | None, Picture]]:
    yield from VideoDecoder(source, skip).frames(open_video(source))


def rate_of(stream: Any) -> float | None:
    """Frames per second; None where the file states none, or what cannot be."""
    return next((float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate and 0 < rate < 1000), None)


def _marks(stream: Any) -> int:
    """A stream's disposition: 1 is the default one, 0x400 an attached image; 0 where PyAV (before 14) does not
    say."""
    marks = getattr(stream, "disposition", 0)
    return int(getattr(marks, "value", marks))


class VideoDecoder:
    """Goes through one video once.

    Args:
        source: for messages.
        skip: whether to go on past damage.

    Attributes:
        count: frames that were given.
        ended_by: what broke off the reading where damage is skipped; "" where nothing did.
    """

    def __init__(self, source: str | os.PathLike[str], skip: bool) -> None:
        self.source, self.shown, self.skip = source, shown_address(source), skip
        self.count, self.reached, self._duration = 0, 0.0, 0
        self._base = Fraction(0)  # seconds a tick of the stream
        self._errors = unreadable()
        self.ended_by = ""  # what broke off the reading where damage is skipped
        self._limit: int | None = None  # time of the damage, in ticks of the stream; None where it is not known

    def frames(self, opened: tuple[Any, Any]) -> Iterator[tuple[float | None, Picture]]:
        """Time, if it is known, and image of each frame."""
        container, stream = opened
        self._base = stream.time_base or Fraction(0)
        with container:
            yield from self._packets(container, stream)
            missing = (
                ""
                if self.skip or is_address(self.source) or Path(self.source).is_fifo()
                else _missing(Path(self.source), stream, self.reached)
            )
        if missing:
            raise self._broken(missing)
        if not self.count:
            raise FrameError(f"{self.shown}: expected a video with frames, got an empty one")

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
                self.ended_by = str(error).replace(os.fspath(self.source), self.shown) or type(error).__name__
                _log.warning(
                    "%s: ends after %d frames, where it cannot be read on: %s", self.shown, self.count, self.ended_by
                )
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
            _log.warning("%s: left out what follows frame %d, up to a key frame: %s", self.shown, self.count, damage)
            stream.codec_context.flush_buffers()
            wait = LEFT_OUT

    def _decoded(
        self, decode: Callable[[], Iterable[Any]], at: int | None
    ) -> Generator[tuple[float | None, Picture], None, str]:
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
            f"{self.shown}: expected a whole video, got one that broke "
            f"after {self.count} frames were read: {damage}; copy or "
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
    """Whether a packet counts as damaged only since another recording follows: its clock starts again, or leaps with a
    key frame."""
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
    named = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: 9, 10: 9}.get(int(frame.colorspace))
    matrix = named or (BT709 if is_hd(frame.height, frame.width) else BT601)
    # PyAV before 17 passes over a source matrix to which no other stands opposite
    options = {} if frame.format.is_rgb else {"src_colorspace": matrix, "dst_colorspace": BT601}
    picture: Picture = frame.reformat(format="rgb24", **options).to_ndarray()
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return _displayed(picture, np.frombuffer(bytes(data), np.int32))
    return picture


def _displayed(picture: Picture, matrix: NDArray[np.int32]) -> Picture:
    """An image turned and mirrored by the nearest multiple of 90 degrees; as it is by a matrix that would hide it."""
    across, turned, back, down = (
        int(matrix[place]) for place in (0, 1, 3, 4)
    )  # x' = across x + back y, y' = turned x + down y
    if abs(turned) + abs(back) > abs(across) + abs(down):
        picture, across, down = picture.transpose(1, 0, 2), back, turned
    if not across or not down:
        return picture if picture.flags.c_contiguous else picture.transpose(1, 0, 2)
    return np.ascontiguousarray(picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def is_hd(height: int, width: int) -> bool:
    """Whether players take a video of this size, which names no matrix, for BT.709.

    >>> is_hd(720, 960), is_hd(480, 640)
    (True, False)
    """
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
