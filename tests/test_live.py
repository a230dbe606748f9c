"""Cameras, network streams and pipes: what is left out, what is lost and opened again, and what a job of one leaves
behind."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_predictor

from stmemory.cli import main
from stmemory.errors import FrameError, OptionError
from stmemory.io.decoder import PROTOCOLS, open_video
from stmemory.io.frames import iterate_frames
from stmemory.io.live import LiveSource, is_live
from stmemory.io.palette import write_palette_png
from stmemory.jobs.folder import TrackJob
from stmemory.jobs.record import check_folder
from stmemory.jobs.track import Stop, run_job

FRAMES, HEIGHT, WIDTH = 12, 32, 48
PIECE = 188 * 8  # bytes
CUT = b"CUT"
LONG = 300


def film(path: Path, frames: int = FRAMES) -> bytes:
    """A film, all of key frames, that grows brighter."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "mpeg2video" if path.suffix == ".ts" else "libx264", rate=25, options={"g": "1", "bf": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frames):
            picture = np.full((HEIGHT, WIDTH, 3), min(20 + 15 * index, 250), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


@contextmanager
def serving(*answers: bytes, pause: float = 0.0) -> Iterator[str]:
    """An address that answers each connection with the next text, in chunks, and is gone after the last; `CUT` at its
    end breaks it off."""
    left = list(answers)

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not left:
                self.send_error(404)
                return
            text = left.pop(0)
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with suppress(OSError):
                for begin in range(0, len(text), PIECE):
                    piece = text[begin : begin + PIECE]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    time.sleep(pause)
                if not text.endswith(CUT):
                    self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/live.ts"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def ts(tmp_path: Path) -> bytes:
    """An MPEG-TS."""
    return film(tmp_path / "film.ts")


@pytest.fixture
def long_ts(tmp_path: Path) -> bytes:
    """One that is longer than what FFmpeg looks at before it says what a stream is."""
    return film(tmp_path / "long.ts", LONG)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """A mask of the first frame."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[4:20, 8:30] = 3
    write_palette_png(tmp_path / "first.png", ids)
    return tmp_path / "first.png"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are opened again without waiting."""
    monkeypatch.setattr("stmemory.io.live.LONGEST_WAIT", 0.01)


@pytest.mark.parametrize("address", ["rtsp://camera/1", "http://host/a", "srt://host:1", "/dev/video7", "7"])
def test_addresses_and_cameras_are_live(address: str) -> None:
    """Addresses and cameras can be read once."""
    assert is_live(address)


def test_a_file_named_by_a_number_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies at the path goes before the camera of that number."""
    (tmp_path / "0").mkdir()
    monkeypatch.chdir(tmp_path)

    assert not is_live("0")


@pytest.mark.parametrize("protocol", ["concat", "subfile", "ftp", "gopher", "data"])
def test_other_protocols_are_refused(protocol: str) -> None:
    """An address begins with a protocol of the list, whoever opens it."""
    with pytest.raises(FrameError, match="begins with one of"):
        open_video(f"{protocol}://host/clip.ts")


def test_what_a_server_sends_opens_no_file(tmp_path: Path, ts: bytes) -> None:
    """A playlist that a server sends cannot name a file of this machine."""
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{tmp_path / 'film.ts'}\n#EXT-X-ENDLIST\n".encode()
    with serving(playlist) as address, pytest.raises(FrameError):
        list(LiveSource(address.replace(".ts", ".m3u8"), reconnect=0))


def test_a_password_is_not_shown() -> None:
    """Names for messages and records are without the user and the password."""
    with pytest.raises(FrameError) as caught:
        list(LiveSource("http://me:secret@127.0.0.1:1/live.ts"))

    assert "secret" not in str(caught.value) and "127.0.0.1:1/live.ts" in str(caught.value)
    assert "rtsp://camera/1" == TrackJob("rtsp://me:secret@camera/1", Path("0.png"), Path("out")).name


def test_an_address_keeps_its_slashes() -> None:
    """A job's source is text where it is an address."""
    job = TrackJob("rtsp://camera/1", Path("0.png"), Path("out"))

    assert ("rtsp://camera/1", True) == (job.source, job.is_live)


def test_a_stream_gives_its_frames(ts: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is room none is left out; the end is the end where the stream is not to be opened again."""
    monkeypatch.setattr("stmemory.io.live.HELD", FRAMES)
    with serving(ts) as address, LiveSource(address, reconnect=0) as source:
        found = [picture.shape for picture in source]

    assert ([(HEIGHT, WIDTH, 3)] * FRAMES, 0) == (found, source.dropped)


def test_late_frames_are_left_out_and_counted(ts: bytes) -> None:
    """A slow consumer gets the newest frames; the others are counted."""
    with serving(ts) as address, LiveSource(address, reconnect=0) as source:
        frames = iter(source)
        next(frames)
        time.sleep(0.5)
        rest = list(frames)

    assert FRAMES - 1 == len(rest) + source.dropped
    assert source.dropped > 0 and rest[-1].mean() > 150


@pytest.mark.usefixtures("at_once")
def test_a_lost_stream_is_opened_again(ts: bytes, long_ts: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that breaks in the middle goes on with the next connection; the loss is logged, and the last one is an
    error."""
    caplog.set_level(logging.WARNING)
    with serving(long_ts[: len(long_ts) * 9 // 10] + CUT, ts) as address, LiveSource(address, reconnect=2) as source:
        count = 0
        with pytest.raises(FrameError, match="2 attempts"):
            for _ in source:
                count += 1

    assert LONG * 9 // 10 - 5 + FRAMES <= count + source.dropped < LONG + FRAMES
    assert source.reconnections == 3
    assert any("attempt 1 of 2" in record.getMessage() for record in caplog.records)


def test_a_stream_that_was_never_there_is_an_error_at_once() -> None:
    """Nothing is tried again where no frame ever came."""
    source = LiveSource("http://127.0.0.1:1/live.ts", reconnect=1000)
    with pytest.raises(FrameError, match="PyAV"):
        source.first()

    assert 0 == source.reconnections


def test_a_film_behind_an_address_loses_no_frame(tmp_path: Path) -> None:
    """What states its duration waits for who reads it, and ends."""
    with serving(film(tmp_path / "film.mkv")) as address, LiveSource(address) as source:
        found = 0
        for _ in source:
            time.sleep(0.02)
            found += 1

    assert (FRAMES, 0) == (found, source.dropped)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_loses_no_frame(tmp_path: Path, ts: bytes) -> None:
    """A pipe waits, and its end is the end."""
    os.mkfifo(pipe := tmp_path / "pipe.ts")
    writer = threading.Thread(target=pipe.write_bytes, args=(ts,), daemon=True)
    writer.start()
    with LiveSource(pipe) as source:
        found = 0
        for _ in source:
            time.sleep(0.02)
            found += 1
    writer.join()

    assert (FRAMES, 0) == (found, source.dropped)


def test_nothing_waits_for_a_closed_source(ts: bytes) -> None:
    """`close` ends the frames and the thread."""
    with serving(ts * 50, pause=0.01) as address:
        source = LiveSource(address)
        frames = source.frames()
        next(frames)
        source.close()

        assert [] == list(frames)


def test_a_live_source_is_what_track_takes(ts: bytes, mask: Path) -> None:
    """`track` takes a live source as any iterable of images."""
    with serving(ts, pause=0.1) as address, LiveSource(address, reconnect=0) as source:
        results = list(tiny_predictor().track(source, mask))

    assert FRAMES == len(results) + source.dropped


@pytest.mark.parametrize("reconnect", [-1, True, 2.5])
def test_attempts_are_a_whole_number(reconnect: int) -> None:
    """The number of attempts is checked."""
    with pytest.raises(OptionError, match="reconnect"):
        LiveSource("http://host/live.ts", reconnect=reconnect)


def test_seconds_are_of_live_sources() -> None:
    """A file has its end."""
    with pytest.raises(OptionError, match="a file has its end"):
        TrackJob(Path("clip.mp4"), Path("0.png"), Path("out"), seconds=3)


def test_a_live_job_cannot_be_resumed(tmp_path: Path) -> None:
    """A live source is refused for `resume`, and the message says why."""
    job = TrackJob("rtsp://camera/1", Path("0.png"), tmp_path / "out")
    with pytest.raises(OptionError, match="live source cannot be resumed"):
        check_folder(job, resume=True, force=False)


@pytest.mark.parametrize("how", ["frames", "seconds", "stop"])
def test_a_live_job_that_ends_early_leaves_finished_files(long_ts: bytes, mask: Path, tmp_path: Path, how: str) -> None:
    """Masks and overlay of the frames that came are there, and no state."""
    stop = Stop()

    def after_four(part: str, done: int) -> None:
        stop.wanted = how == "stop" and done >= 4

    limits: dict[str, dict[str, float]] = {"frames": {"frames": 4}, "seconds": {"seconds": 0.3}, "stop": {}}
    with serving(long_ts * 4, pause=0.002) as address:
        job = TrackJob(address, mask, tmp_path / "out", overlay=True, **limits[how])
        report = run_job(tiny_predictor(), job, stop=stop, on_frame=after_four)

    assert how != "stop" if report.finished else how == "stop"
    assert report.error is None and (how == "seconds" or report.frames == 4)
    assert report.frames == len(list(job.masks.glob("*.png"))) == len(list(iterate_frames(job.overlay_path)))
    assert not job.state.exists() and not job.overlay_path.with_name("overlay.part.mp4").exists()


@pytest.mark.usefixtures("at_once")
def test_the_command_tracks_a_stream(
    ts: bytes,
    long_ts: bytes,
    mask: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stream that is lost for good leaves what came before, says the losses, and ends with 1."""
    monkeypatch.setattr("stmemory.cli.track.chosen_predictor", lambda arguments: tiny_predictor())
    with serving(long_ts[: len(long_ts) // 2] + CUT, ts) as address:
        code = main(["track", address, "--mask", str(mask), "-o", str(tmp_path / "out"), "--reconnect", "1"])
    said = capsys.readouterr()

    assert 1 == code
    assert "reconnections" in said.out and "attempt 1 of 1" in said.err and "cannot be resumed" in said.err
    assert (tmp_path / "out" / "masks" / "00000.png").exists()


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_a_snapshot_is_the_first_frame(ts: bytes, tmp_path: Path, kind: str) -> None:
    """The first frame is written to paint on, and nothing is tracked."""
    with serving(ts, pause=0.02) as address:
        assert 0 == main(
            ["track", address if kind == "stream" else str(tmp_path / "film.ts"), "--snapshot", str(tmp_path / "a.png")]
        )
    with Image.open(tmp_path / "a.png") as image:
        assert (WIDTH, HEIGHT) == image.size


def test_a_snapshot_loses_nothing(tmp_path: Path) -> None:
    """JPEG, on which ids would be smeared, is refused."""
    assert 2 == main(["track", "clip.mp4", "--snapshot", str(tmp_path / "a.jpg")])


def test_a_camera_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path, mask: Path) -> None:
    """The number of a camera that is missing is an error, not a traceback."""
    assert 2 == main(["track", "987", "--mask", str(mask), "-o", str(tmp_path / "out")])
    assert "camera 987" in capsys.readouterr().err


def test_the_protocols_are_those_of_video() -> None:
    """Nothing that opens other files is on the list."""
    assert not {"file", "concat", "subfile", "pipe", "data", "fd"} & set(PROTOCOLS)
