"""Facts about video files as people have them: turned, joined, damaged, of variable rate, with several streams, under
odd names."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stmemory.errors import FrameError, OptionError
from stmemory.io import decoder as video_decoder
from stmemory.io.frames import count_frames, iterate_frames
from stmemory.io.images import is_image_path
from stmemory.io.video import (
    OverlayWriter,
    count_video_frames,
    iterate_timed_video,
    iterate_video,
    scan_video_frames,
    write_video,
)
from stmemory.session import ClipReader

av = pytest.importorskip("av")

CORNER = np.zeros((64, 96, 3), np.uint8)
CORNER[:32, :48] = (220, 30, 30)  # red at the top left alone
ONE, LAST = 1 << 16, 1 << 30


def noisy(count: int) -> list[NDArray[np.uint8]]:
    """Pictures that grow brighter by 8, with noise so that packets have some length."""
    noise = np.random.default_rng(0).integers(0, 40, (count, 64, 96, 3))
    return [(noise[index] + 8 * index).astype(np.uint8) for index in range(count)]


def encode(
    path: Path,
    pictures: list[NDArray[np.uint8]],
    *,
    format: str | None = None,
    b_frames: int = 2,
    times: list[float] | None = None,
) -> None:
    """Write H.264 with a key frame every six frames."""
    with av.open(str(path), "w", format=format) as out:
        stream = out.add_stream(
            "libx264", rate=10, options={"g": "6", "keyint_min": "6", "sc_threshold": "0", "bf": str(b_frames)}
        )
        stream.width, stream.height, stream.pix_fmt = pictures[0].shape[1], pictures[0].shape[0], "yuv420p"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[index]), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def greys(path: Path, **options: Any) -> list[int]:
    """Which of the pictures of `noisy` a video shows."""
    return [round((float(picture.mean()) - 19.5) / 8) for picture in iterate_video(path, **options)]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((ONE, 0, 0, ONE), CORNER),
        ((-ONE, 0, 0, ONE), CORNER[:, ::-1]),
        ((ONE, 0, 0, -ONE), CORNER[::-1]),
        ((-ONE, 0, 0, -ONE), CORNER[::-1, ::-1]),
        ((0, ONE, -ONE, 0), np.rot90(CORNER, -1)),
        ((0, -ONE, ONE, 0), np.rot90(CORNER)),
        ((0, ONE, ONE, 0), CORNER.transpose(1, 0, 2)),
        ((0, -ONE, -ONE, 0), CORNER[::-1, ::-1].transpose(1, 0, 2)),
        ((0, 0, 0, 0), CORNER),
    ],
    ids=[
        "as it is",
        "mirrored",
        "upside down",
        "180",
        "90 clockwise",
        "90 back",
        "transposed",
        "transversed",
        "nothing",
    ],
)
def test_a_video_is_turned_and_mirrored_as_players_show_it(
    matrix: tuple[int, ...], expected: NDArray[np.uint8], tmp_path: Path
) -> None:
    """All eight turns and mirrors of a display matrix, and one that is zero, which leaves the frame as it is."""
    path = tmp_path / "a.mp4"
    write_video(path, [CORNER] * 2)
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4 + 4 + 20 + 16
    a, b, c, d = matrix
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, LAST)
    path.write_bytes(data)
    shown = next(iterate_video(path))

    assert expected.shape == shown.shape
    assert np.abs(shown.astype(int) - expected).mean() < 10


def test_the_largest_stream_is_the_video(tmp_path: Path) -> None:
    """Of two video streams the larger one is read, wherever it stands."""
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        streams = [out.add_stream("libx264", rate=10) for _ in range(2)]
        for stream, size in zip(streams, (32, 64), strict=True):
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for stream in streams:
            out.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(np.zeros((stream.height, stream.width, 3), np.uint8), format="rgb24")
                )
            )
            out.mux(stream.encode(None))
    assert [(64, 64, 3)] == [picture.shape for picture in iterate_video(tmp_path / "a.mkv")]


def test_frames_are_counted_where_no_header_states_them(tmp_path: Path) -> None:
    """A Matroska file states no number; a reader of clips knows it all the same."""
    encode(tmp_path / "a.mkv", noisy(12))
    assert (None, 12, 12) == (
        count_video_frames(tmp_path / "a.mkv"),
        scan_video_frames(tmp_path / "a.mkv"),
        ClipReader(tmp_path / "a.mkv").count,
    )


def test_frames_that_an_edit_hides_are_not_counted(tmp_path: Path) -> None:
    """An MP4 that was trimmed without encoding has as many frames as can be read."""
    path = tmp_path / "a.mp4"
    encode(path, noisy(12))
    data = bytearray(path.read_bytes())
    at = data.find(b"elst") + 4
    assert (0, 1) == struct.unpack(">II", data[at : at + 8])
    begin = struct.unpack(">i", data[at + 12 : at + 16])[0]
    tick = scale(data) // 10
    data[at + 12 : at + 16] = struct.pack(">i", begin + 8 * tick)  # frames 0 to 7 are before the beginning
    path.write_bytes(data)

    assert 4 == len(list(iterate_video(path)))
    assert 4 == scan_video_frames(path) == ClipReader(path).count


def scale(data: bytearray) -> int:
    """Ticks a second of an MP4's track."""
    at = data.find(b"mdhd") + 4
    found: int = struct.unpack(">I", data[at + 12 : at + 16])[0]
    return found


def test_a_count_that_was_wrong_is_mended_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the end of a clip was met, its length is known."""
    encode(tmp_path / "a.mkv", noisy(5))
    monkeypatch.setattr("stmemory.session.scan_video_frames", lambda path: 9)
    reader = ClipReader(tmp_path / "a.mkv")
    assert 9 == reader.count
    assert reader.read(6) is None
    assert 5 == reader.count


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (480, 640)], ids=["HD", "SD"])
@pytest.mark.parametrize("alpha", [False, True], ids=["mp4", "mov"])
def test_colours_are_written_as_players_take_them(height: int, width: int, alpha: bool, tmp_path: Path) -> None:
    """The file names its matrix, which is BT.709 for HD and BT.601 below, and the colors come back."""
    picture = np.full((height, width, 4 if alpha else 3), 255, np.uint8)
    picture[..., :3] = (30, 180, 40)
    with OverlayWriter(tmp_path / "a.mov", alpha=alpha) as out:
        out.write(picture)
    with av.open(str(tmp_path / "a.mov")) as container:
        shown = next(container.decode(video=0))
        assert {1} if height == 720 else {5, 6} >= {int(shown.colorspace)}
    assert (
        np.abs(next(iterate_video(tmp_path / "a.mov"))[height // 2, width // 2].astype(int) - (30, 180, 40)).max() <= 6
    )


def test_untagged_hd_is_read_as_players_read_it(tmp_path: Path) -> None:
    """A file that names no matrix is BT.709 from 720 lines on, and BT.601 below."""
    for name, height, matrix in (("hd.mkv", 720, 1), ("sd.mkv", 480, 5)):
        with av.open(str(tmp_path / name), "w") as out:
            stream = out.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 640, height, "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.full((height, 640, 3), (30, 180, 40), np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=matrix)
            frame.colorspace = 2  # not named
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        assert np.abs(next(iterate_video(tmp_path / name))[50, 50].astype(int) - (30, 180, 40)).max() <= 6


def counters(data: bytes) -> list[int]:
    """Of the packets of a stream's video, 0 to 15 in turns."""
    return [data[i + 3] & 15 for i in range(0, len(data), 188) if ((data[i + 1] & 31) << 8 | data[i + 2]) == 0x100]


def test_recordings_that_were_joined_are_read_through(tmp_path: Path) -> None:
    """Two MPEG-TS segments one after the other give the frames of both, and times that grow."""
    for frames in range(13, 30):
        encode(tmp_path / "a.ts", noisy(frames), format="mpegts")
        data = (tmp_path / "a.ts").read_bytes()
        if (counters(data)[-1] + 1) % 16 != counters(data)[0]:  # so that a packet is marked as damaged at the joint
            break
    (tmp_path / "b.ts").write_bytes(data * 2)

    assert [*range(frames)] * 2 == greys(tmp_path / "b.ts")
    times = [time for time, _ in iterate_timed_video(tmp_path / "b.ts")]
    np.testing.assert_allclose(times, np.arange(2 * frames) / 10, atol=0.01)


def with_a_hole(path: Path, *, frames: int = 40) -> None:
    """An MPEG-TS recording of which packets in the middle are lost."""
    encode(path, noisy(frames)[:20] + noisy(20), format="mpegts")
    data = path.read_bytes()
    packets = len(data) // 188
    path.write_bytes(data[: packets // 2 * 188] + data[(packets // 2 + 9) * 188 :])


def test_damage_in_the_middle_is_an_error_after_all_frames_before_it(tmp_path: Path) -> None:
    """What the decoder still holds is given too; the error names the way past the damage."""
    with_a_hole(tmp_path / "a.ts")
    shown = []
    with pytest.raises(FrameError, match=r"broke after \d+ frames.*skip") as caught:
        for picture in iterate_video(tmp_path / "a.ts"):
            shown.append(round((float(picture.mean()) - 19.5) / 8))
    assert [*range(len(shown))] == shown and len(shown) >= 15
    assert f"after {len(shown)} frames" in str(caught.value)


def test_damage_can_be_skipped(tmp_path: Path) -> None:
    """Frames before the damage, and those from a whole key frame after it on, are given; a cut at the end is no error
    then."""
    with_a_hole(tmp_path / "a.ts")
    shown = greys(tmp_path / "a.ts", damaged="skip")
    assert 25 <= len(shown) < 40
    assert [*range(15)] == shown[:15] and [*range(10, 20)] == shown[-10:]
    assert len(shown) == len(list(iterate_frames(tmp_path / "a.ts", damaged="skip")))

    encode(tmp_path / "b.mkv", noisy(20))
    data = (tmp_path / "b.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(FrameError, match="broke after"):
        greys(tmp_path / "b.mkv")
    shown = greys(tmp_path / "b.mkv", damaged="skip")
    assert [*range(8)] == shown[:8] and sorted(
        set(shown)
    ) == shown  # of the last ones, one may be lost that later ones do not need


def test_damaged_takes_two_words() -> None:
    """Another word is an error that names both."""
    with pytest.raises(OptionError, match='"error" or "skip"'):
        iterate_video("a.mp4", damaged="ignore")


def test_pictures_keep_their_times(tmp_path: Path) -> None:
    """A clip of variable rate comes back with its times, and a video that is written with them lasts as long."""
    times = [0.0, 0.1, 0.15, 0.6, 0.65, 1.4, 1.5]
    encode(tmp_path / "a.mkv", noisy(7), times=times)
    timed = list(iterate_timed_video(tmp_path / "a.mkv"))
    np.testing.assert_allclose([time for time, _ in timed], times, atol=0.002)
    with OverlayWriter(tmp_path / "b.mp4") as out:
        for time, picture in timed:
            out.write(picture, time=time)
        with pytest.raises(FrameError, match="a time of each image or of none"):
            out.write(timed[0][1])
    np.testing.assert_allclose([time for time, _ in iterate_timed_video(tmp_path / "b.mp4")], times, atol=0.002)


@pytest.mark.parametrize("name", ["concat:a.mp4", "http:a.mp4", "pipe:1", "file:a.mp4", "a b%03d#?.mp4", "-i.mp4"])
def test_a_file_may_have_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that FFmpeg takes for a protocol are names of files, read and written."""
    monkeypatch.chdir(tmp_path)
    write_video(name, [CORNER] * 2)
    assert [name] == os.listdir()
    assert 2 == len(list(iterate_frames(name))) == count_frames(name)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{0}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", PLAYLIST),
        ("a.mp4", PLAYLIST),
        ("b.mp4", "ffconcat version 1.0\nfile {0}\n"),
        ("a.sdp", "v=0\nm=video 5004 RTP/AVP 96\n"),
    ],
    ids=["playlist", "playlist as mp4", "list of files", "session"],
)
def test_a_file_opens_no_other_file(name: str, content: str, tmp_path: Path) -> None:
    """A playlist or a list of files is no video, whatever its name, so nothing that it names is read."""
    write_video(tmp_path / "private.mp4", [CORNER] * 2)
    (tmp_path / name).write_text(content.format("private.mp4"))
    for read in (iterate_video, count_video_frames, scan_video_frames, iterate_frames):
        with pytest.raises(FrameError, match="not a video that PyAV can read"):
            read(tmp_path / name)


@pytest.mark.parametrize("address", ["http://host/a.mp4?x=//y", "rtsp://user:word@camera:554/1", "RTMP://host/live"])
def test_an_address_is_passed_on_as_it_is(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of a stream reaches FFmpeg unharmed, once, and without the limits of files."""
    write_video(tmp_path / "a.mp4", [CORNER] * 2)
    opened, real = [], av.open

    def fake(name: str, **options: Any) -> Any:
        opened.append((name, options["container_options"]))
        return real(str(tmp_path / "a.mp4"))

    monkeypatch.setattr(av, "open", fake)
    assert not is_image_path(address)
    assert 2 == len(list(iterate_frames(address)))
    [(named, allowed)] = opened
    assert address == named
    assert "file" not in allowed["protocol_whitelist"].split(",") and "concat" not in allowed["format_whitelist"].split(
        ","
    )


def test_a_video_that_is_deleted_while_it_is_read_is_an_error_of_ours(tmp_path: Path) -> None:
    """A file that goes away names itself."""
    write_video(tmp_path / "a.mp4", [CORNER] * 30)
    frames = iterate_frames(tmp_path / "a.mp4")
    next(frames)
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(FrameError, match=r"a\.mp4"):
        list(frames)


def test_a_video_whose_end_cannot_be_written_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What FFmpeg raises when a file is closed becomes an error that names the file."""
    writer = OverlayWriter(tmp_path / "a.mp4")
    writer.write(CORNER)

    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            raise OSError(28, "No space left on device")

        def mux(self, packets: object) -> None:
            pass

    inner, writer._container = writer._container, Full()
    with pytest.raises(FrameError, match=r"a\.mp4: the end of the video was not written.*No space"):
        writer.close()
    inner.close()
    writer.close()  # is closed by now


def test_boxes_of_an_mp4_tell_where_it_ends(tmp_path: Path) -> None:
    """Where PyAV lists no packets, the sizes that the file itself states show that it was cut."""
    path = tmp_path / "a.mp4"
    write_video(path, [CORNER] * 5)
    size = path.stat().st_size
    assert size == video_decoder._boxes_end(path, size)
    path.write_bytes(path.read_bytes()[:-100])
    assert size == video_decoder._boxes_end(path, size - 100)
    (tmp_path / "b.mkv").write_bytes(b"\x1aE\xdf\xa3" + bytes(60))
    assert 0 == video_decoder._boxes_end(tmp_path / "b.mkv", 64)


def iterate_nothing() -> Iterator[NDArray[np.uint8]]:
    """No picture."""
    yield from ()


def test_no_picture_leaves_no_file(tmp_path: Path) -> None:
    """A video without pictures is not made."""
    assert 0 == write_video(tmp_path / "a.mp4", iterate_nothing())
    assert [] == os.listdir(tmp_path)
