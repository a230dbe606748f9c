"""Tracking jobs: what they leave behind, when they are stopped, broken off, resumed or refused."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stmemory.errors import FileError, FrameError, MaskError, OptionError, StmemoryError, WeightsError
from stmemory.io.palette import read_palette_png, write_palette_png
from stmemory.io.run_folder import held
from stmemory.io.video import OverlayWriter, iterate_timed_video
from stmemory.jobs.folder import TrackJob
from stmemory.jobs.track import JobReport, Stop, run_job, stop_on_signals
from stmemory.result import Segmentation

FRAMES, HEIGHT, WIDTH = 7, 16, 24


class FakeStream:
    """Answers with ids that depend on every frame seen, so that a frame lost or seen twice shows."""

    def __init__(self, frame_index: int = -1, memory: int = 0, fail_at: int | None = None) -> None:
        self.frame_index, self.memory, self.fail_at = frame_index, memory, fail_at
        self.last = self._result()

    def step(self, frame: Tensor, /) -> Segmentation:
        if self.frame_index + 1 == self.fail_at:
            raise RuntimeError("the power went off")
        self.frame_index += 1
        self.memory = (31 * self.memory + int(frame[0, 0, 0] * 255)) % 251
        self.last = self._result()
        return self.last

    def save(self, path: Path, /) -> None:
        path.write_text(json.dumps([self.frame_index, self.memory]))

    def _result(self) -> Segmentation:
        ids = torch.full((HEIGHT, WIDTH), self.memory, dtype=torch.int32)
        return Segmentation(self.frame_index, ids, torch.empty(0), (), {}, {})


class FakePredictor:
    """Makes such streams; `fail_at` is the frame at which the process dies."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at = fail_at

    def start(self, frame: Tensor, mask: Path, /) -> FakeStream:
        if not read_palette_png(mask).any():
            raise MaskError("mask: expected at least one object, got none")
        stream = FakeStream(fail_at=self.fail_at)
        stream.step(frame)
        return stream

    def resume(self, path: Path, /) -> FakeStream:
        frame_index, memory = json.loads(path.read_text())
        return FakeStream(frame_index, memory, self.fail_at)


@pytest.fixture(autouse=True, params=[0, 5], ids=["in turns", "overlapping"])
def spare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Every fact here holds on a machine that has processors to spare too, which reads ahead and writes behind."""
    number: int = request.param
    monkeypatch.setattr("stmemory.jobs.track.spare_processors", lambda: number)
    return number


@pytest.fixture
def job(tmp_path: Path) -> TrackJob:
    """Seven frames with names of their own, a mask, and a folder that does not exist yet."""
    (tmp_path / "clip").mkdir()
    for index in range(FRAMES):
        Image.new("RGB", (WIDTH, HEIGHT), (40 + index, 0, 0)).save(tmp_path / "clip" / f"shot-{index + 8}.png")
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[4:9, 4:9] = 1
    write_palette_png(tmp_path / "first.png", ids)
    return TrackJob(tmp_path / "clip", tmp_path / "first.png", tmp_path / "out", save_every=2)


def masks(folder: Path) -> dict[str, bytes]:
    """The masks' files, by name."""
    return {path.name: path.read_bytes() for path in sorted((folder / "masks").iterdir())}


def _wait_for(path: Path) -> None:
    """Until a mask that may be written behind is there."""
    until = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < until


def stop_at(part: str, done: int, job: TrackJob, **options: bool) -> JobReport:
    """Run a job and stop it once that many frames are through."""
    stop = Stop()

    def tell(now: str, through: int) -> None:
        stop.wanted = stop.wanted or (now == part and through >= done)

    return run_job(FakePredictor(), job, stop=stop, on_frame=tell, **options)


@pytest.fixture
def whole(job: TrackJob) -> dict[str, bytes]:
    """The masks of a run in one go, beside the job's own folder."""
    run_job(FakePredictor(), replace(job, out=job.out.with_name("whole")))
    return masks(job.out.with_name("whole"))


def test_a_finished_job_leaves_masks_and_its_record(job: TrackJob) -> None:
    """One mask a frame, named as the frame is, and no state."""
    report = run_job(FakePredictor(), job)

    assert JobReport(FRAMES, 0, finished=True) == report
    assert {"job.json", "masks"} == {path.name for path in job.out.iterdir()}
    assert sorted(f"shot-{index}.png" for index in range(8, 15)) == list(masks(job.out))


def test_masks_follow_the_natural_order(job: TrackJob) -> None:
    """Frame 9 comes before frame 10: each mask is that of the frame whose name it has."""
    run_job(FakePredictor(), job)
    expected = 0
    for index in range(FRAMES):
        expected = (31 * expected + 40 + index) % 251

        assert expected == int(read_palette_png(job.masks / f"shot-{index + 8}.png")[0, 0])


def test_other_sources_number_their_masks(job: TrackJob, tmp_path: Path) -> None:
    """Pages have no names, so their masks have numbers."""
    pages = [Image.new("RGB", (WIDTH, HEIGHT), (index, 9, 9)) for index in range(3)]
    pages[0].save(tmp_path / "clip.tif", save_all=True, append_images=pages[1:])
    run_job(FakePredictor(), replace(job, source=tmp_path / "clip.tif"))

    assert ["00000.png", "00001.png", "00002.png"] == list(masks(job.out))


def test_frames_of_the_same_stem_number_their_masks(job: TrackJob) -> None:
    """No mask overwrites another's because two frames differ in their endings only."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(job.source / "shot-8.bmp")
    run_job(FakePredictor(), job)

    assert [f"{index:05d}.png" for index in range(FRAMES + 1)] == list(masks(job.out))


def test_frames_can_be_limited(job: TrackJob) -> None:
    """A limit before the clip's end finishes the job and keeps its state; a limit at the end or beyond leaves none."""
    for frames in (FRAMES, FRAMES + 1):
        at_the_end = replace(job, out=job.out.with_name(str(frames)), frames=frames)
        assert JobReport(FRAMES, 0, finished=True) == run_job(FakePredictor(), at_the_end)
        assert not at_the_end.state.exists()

    assert JobReport(3, 0, finished=True, more=True) == run_job(FakePredictor(), replace(job, frames=3))
    assert job.state.exists()


@pytest.mark.parametrize("frames", [None, 5, 3], ids=["all", "more", "the same"])
def test_a_limited_job_goes_on(job: TrackJob, whole: dict[str, bytes], frames: int | None) -> None:
    """After a limit, --resume goes on to a larger one or to the end, with the masks of one go."""
    run_job(FakePredictor(), replace(job, frames=3))
    report = run_job(FakePredictor(), replace(job, frames=frames), resume=True)

    assert JobReport(frames or FRAMES, 3, finished=True, more=frames is not None) == report
    done = [f"shot-{index + 8}.png" for index in range(report.frames)]
    assert {name: whole[name] for name in done} == masks(job.out)


def test_a_state_is_saved_by_time_too(job: TrackJob) -> None:
    """A state is written once 30 seconds have passed since the last one, however few frames that is."""
    times = iter((0.0, 29.0, 31.0, 60.0, 61.5))  # the start, then after frames 1 to 4
    with pytest.raises(RuntimeError):
        run_job(FakePredictor(fail_at=4), replace(job, save_every=100), clock=lambda: next(times))

    assert 2 == json.loads(job.state.read_text())[0]


@pytest.mark.parametrize("done", range(1, FRAMES + 1))
def test_a_stopped_job_resumes_to_the_same_masks(job: TrackJob, whole: dict[str, bytes], done: int) -> None:
    """Wherever a job is stopped, resumed it gives the masks of one go, byte for byte."""
    first = stop_at("track", done, job)
    assert (False, True, done) == (first.finished, job.state.exists(), len(masks(job.out)))
    second = run_job(FakePredictor(), job, resume=True)

    assert JobReport(FRAMES, done, finished=True) == second
    assert whole == masks(job.out)
    assert not job.state.exists()


def test_a_job_stopped_while_skipping_loses_nothing(job: TrackJob, whole: dict[str, bytes]) -> None:
    """A second stop before the first new frame keeps the state."""
    stop_at("track", 5, job)
    stop_at("skip", 2, job, resume=True)
    run_job(FakePredictor(), job, resume=True)

    assert whole == masks(job.out)


def test_a_job_that_died_resumes_from_its_last_state(job: TrackJob, whole: dict[str, bytes]) -> None:
    """A process that dies loses the frames since the last state, which are tracked again."""
    with pytest.raises(RuntimeError):
        run_job(FakePredictor(fail_at=5), job)
    report = run_job(FakePredictor(), job, resume=True)

    assert JobReport(FRAMES, 4, finished=True) == report
    assert whole == masks(job.out)


def test_a_frame_that_cannot_be_used_ends_the_job_with_what_is_done(job: TrackJob, whole: dict[str, bytes]) -> None:
    """The report says why; the job can be ended there, or resumed once the frame is mended."""
    broken, bytes_before = job.source / "shot-12.png", (job.source / "shot-12.png").read_bytes()
    Image.new("RGB", (8, 8)).save(broken)
    report = run_job(FakePredictor(), job)
    assert isinstance(report.error, FrameError) and "shot-12.png" in str(report.error)
    assert (4, False) == (report.frames, report.finished)
    copy = shutil.copytree(job.out, job.out.with_name("copy"))
    assert run_job(FakePredictor(), replace(job, out=copy, frames=4), resume=True).finished
    broken.write_bytes(bytes_before)

    assert run_job(FakePredictor(), job, resume=True).finished
    assert whole == masks(job.out)


@pytest.mark.parametrize("state", [True, False], ids=["stopped", "finished"])
def test_masks_are_not_overwritten(job: TrackJob, state: bool) -> None:
    """A folder with masks is refused, and the message says how to go on."""
    stop_at("track", 3, job) if state else run_job(FakePredictor(), job)
    before = masks(job.out)
    with pytest.raises(OptionError, match="resume=True to go on, force=True" if state else "pass force=True"):
        run_job(FakePredictor(), job)

    assert before == masks(job.out)


def test_force_begins_anew(job: TrackJob) -> None:
    """Forced, a job deletes the masks, the state and the video of the one before."""
    stop_at("track", 5, job)
    job.overlay_path.write_bytes(b"old")
    run_job(FakePredictor(), replace(job, frames=2), force=True)

    assert ["shot-8.png", "shot-9.png"] == list(masks(job.out))
    assert not job.overlay_path.exists()
    assert 1 == json.loads(job.state.read_text())[0]


def test_force_deletes_only_what_the_job_before_wrote(job: TrackJob, tmp_path: Path) -> None:
    """A mask made by hand stays, whether the masks before had the frames' names or numbers."""
    run_job(FakePredictor(), job)
    (job.masks / "hand.png").write_bytes(b"by hand")
    pages = [Image.new("RGB", (WIDTH, HEIGHT), (index, 9, 9)) for index in range(3)]
    pages[0].save(tmp_path / "clip.tif", save_all=True, append_images=pages[1:])
    run_job(FakePredictor(), replace(job, source=tmp_path / "clip.tif"), force=True)
    assert ["00000.png", "00001.png", "00002.png", "hand.png"] == list(masks(job.out))
    run_job(FakePredictor(), replace(job, frames=1), force=True)

    assert ["hand.png", "shot-8.png"] == list(masks(job.out))
    assert b"by hand" == masks(job.out)["hand.png"]


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
@pytest.mark.parametrize("name", ["masks/hand.png", "masks/shot-8.png", "overlay.mp4"])
def test_files_of_no_job_are_never_deleted(job: TrackJob, name: str, force: bool) -> None:
    """Without a job's record in the folder even force=True is refused, and the message says what to do."""
    (job.out / name).parent.mkdir(parents=True)
    (job.out / name).write_bytes(b"by hand")
    (job.out / "job.json").write_text('{"another": "program\'s"}')
    with pytest.raises(OptionError, match="move it away, or choose another folder"):
        run_job(FakePredictor(), job, force=force)

    assert b"by hand" == (job.out / name).read_bytes()


def test_a_mask_by_hand_that_would_be_replaced_is_refused(job: TrackJob, tmp_path: Path) -> None:
    """A file by a name that only the new job writes is not the old job's to replace."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "clip.tif")
    run_job(FakePredictor(), replace(job, source=tmp_path / "clip.tif"))
    (job.masks / "shot-9.png").write_bytes(b"by hand")
    with pytest.raises(OptionError, match="did not write"):
        run_job(FakePredictor(), job, force=True)

    assert ["00000.png", "shot-9.png"] == list(masks(job.out))


def test_masks_of_frames_that_came_later_are_the_jobs_own(job: TrackJob) -> None:
    """Frames added before a job was resumed give masks that --force may delete."""
    stop_at("track", FRAMES, job)
    Image.new("RGB", (WIDTH, HEIGHT), (90, 0, 0)).save(job.source / "shot-99.png")
    run_job(FakePredictor(), replace(job), resume=True)
    assert "shot-99.png" in masks(job.out)
    run_job(FakePredictor(), replace(job, frames=1), force=True)

    assert ["shot-8.png"] == list(masks(job.out))


def test_what_is_read_is_never_where_is_written(job: TrackJob) -> None:
    """A mask or a clip inside OUT/masks, and the clip's own folder as OUT, are refused and stay, even forced."""
    run_job(FakePredictor(), job)
    before = masks(job.out)
    for change in (
        replace(job, mask=job.masks / "shot-8.png"),
        replace(job, source=job.masks),
        replace(job, source=job.overlay_path),
        replace(job, out=job.source),
    ):
        with pytest.raises(OptionError, match="another"):
            run_job(FakePredictor(), change, force=True)

    assert before == masks(job.out)


def test_out_is_a_folder(job: TrackJob) -> None:
    """An existing file as OUT is refused before anything is done."""
    with pytest.raises(OptionError, match="out: expected a folder"):
        run_job(FakePredictor(), replace(job, out=job.mask))


def test_a_mask_beside_the_frames_is_no_frame(job: TrackJob) -> None:
    """The first mask may lie in the source folder; it is passed over, in the count too."""
    inside = replace(job, mask=job.mask.rename(job.source / "a-first.png"), overlay=True)

    assert FRAMES == inside.total
    assert FRAMES == run_job(FakePredictor(), inside).frames
    assert sorted(f"shot-{index}.png" for index in range(8, 15)) == list(masks(job.out))
    assert FRAMES == pictures_in(job.overlay_path)


def test_a_folder_with_nothing_but_the_mask(job: TrackJob) -> None:
    """The mask alone is no clip."""
    alone = replace(job, source=job.mask.parent)
    with pytest.raises(FrameError, match="nothing but the masks"):
        run_job(FakePredictor(), alone)


def test_a_job_that_cannot_start_touches_nothing(job: TrackJob, tmp_path: Path) -> None:
    """Even forced, masks stay when the new job's first frame fails."""
    run_job(FakePredictor(), job)
    before = masks(job.out)
    write_palette_png(tmp_path / "empty.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(MaskError):
        run_job(FakePredictor(), replace(job, mask=tmp_path / "empty.png"), force=True)

    assert before == masks(job.out)


def test_nothing_to_resume(job: TrackJob) -> None:
    """Without a state there is nothing to resume, and the message says which of the cases it is."""
    with pytest.raises(OptionError, match="nothing to resume: no job was begun there"):
        run_job(FakePredictor(), job, resume=True)
    run_job(FakePredictor(), job)
    with pytest.raises(OptionError, match="nothing to resume: the job there is done"):
        run_job(FakePredictor(), job, resume=True)
    shutil.rmtree(job.out)
    with pytest.raises(RuntimeError):
        run_job(FakePredictor(fail_at=1), job)
    job.state.unlink()
    with pytest.raises(OptionError, match="nothing to resume: .* before a state was saved.*force=True"):
        run_job(FakePredictor(), job, resume=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [("frame", "first frame was"), ("size", "frame size was"), ("mask", "first mask was")],
)
def test_another_job_is_not_resumed(job: TrackJob, tmp_path: Path, change: str, told: str) -> None:
    """A state of another clip or mask is refused, saying what differs and what to do."""
    stop_at("track", 3, job)
    if change == "mask":
        write_palette_png(job.mask, np.ones((HEIGHT, WIDTH), np.uint8))
    else:
        size = (WIDTH, HEIGHT) if change == "frame" else (WIDTH + 2, HEIGHT)
        Image.new("RGB", size, (1, 2, 3)).save(job.source / "shot-8.png")
    with pytest.raises(OptionError, match=f"{told}.*force=True"):
        run_job(FakePredictor(), job, resume=True)


def test_a_clip_may_be_moved(job: TrackJob, whole: dict[str, bytes], tmp_path: Path) -> None:
    """A clip is known by its pixels, so that it resumes from another place."""
    stop_at("track", 3, job)
    moved = job.source.rename(tmp_path / "moved")
    run_job(FakePredictor(), replace(job, source=moved), resume=True)

    assert whole == masks(job.out)


@pytest.mark.parametrize("text", [None, "", "[1]", "{"], ids=["missing", "empty", "a list", "broken"])
def test_a_damaged_record_is_refused(job: TrackJob, text: str | None) -> None:
    """A job without a record that can be read is not resumed."""
    stop_at("track", 3, job)
    (job.out / "job.json").unlink() if text is None else (job.out / "job.json").write_text(text)
    with pytest.raises((WeightsError, OptionError), match="another folder"):
        run_job(FakePredictor(), job, resume=True)


def test_fewer_frames_than_are_done(job: TrackJob) -> None:
    """A limit below what is done is refused, for it would throw the state away."""
    stop_at("track", 5, job)
    with pytest.raises(OptionError, match="5 or more"):
        run_job(FakePredictor(), replace(job, frames=3), resume=True)

    assert job.state.exists()


@pytest.mark.parametrize(("frames", "save_every"), [(0, 1), (1, 0)], ids=["frames", "save_every"])
def test_numbers_below_one(job: TrackJob, frames: int, save_every: int) -> None:
    """Numbers of frames start at one."""
    with pytest.raises(OptionError, match="1 or more"):
        replace(job, frames=frames, save_every=save_every)


def pictures_in(path: Path) -> int:
    """Frames that a video shows."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_the_overlay_shows_every_frame(job: TrackJob) -> None:
    """The overlay has as many pictures as there are masks."""
    run_job(FakePredictor(), replace(job, overlay=True))

    assert FRAMES == pictures_in(job.overlay_path)


def test_the_overlay_of_a_video_has_its_times(job: TrackJob) -> None:
    """A clip of variable rate has an overlay that lasts as long."""
    times = [0.0, 0.1, 0.5, 0.6, 1.5]
    with OverlayWriter(job.source / "clip.mp4") as out:
        for index, moment in enumerate(times):
            out.write(np.full((HEIGHT, WIDTH, 3), 40 * index, np.uint8), time=moment)
    job = replace(job, source=job.source / "clip.mp4", overlay=True)
    run_job(FakePredictor(), job)

    np.testing.assert_allclose([moment for moment, _ in iterate_timed_video(job.overlay_path)], times, atol=0.002)


def test_a_job_goes_on_past_damage_if_it_is_asked_to(job: TrackJob) -> None:
    """A video that is cut off ends with an error, from which a job that skips damage goes on to the end."""
    clip = job.source / "clip.mkv"
    with av.open(str(clip), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(30):
            noise = np.random.default_rng(index).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        out.mux(stream.encode(None))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 7 // 10])
    job = replace(job, source=clip)
    broken = run_job(FakePredictor(), job)
    assert isinstance(broken.error, FrameError) and not broken.finished
    report = run_job(FakePredictor(), replace(job, damaged="skip"), resume=True)
    assert report.finished and report.frames == broken.frames
    with pytest.raises(OptionError, match="damaged"):
        replace(job, damaged="never")


@pytest.mark.parametrize(("part", "done"), [("track", 4), ("draw", 3)])
def test_an_overlay_that_was_stopped_is_drawn_whole(job: TrackJob, part: str, done: int) -> None:
    """Stopped while tracking or while drawing, there is no half video; resumed, there is a whole one."""
    job = replace(job, overlay=True)
    assert not stop_at(part, done, job).finished
    assert {"job.json", "masks", "state.safetensors"} == {path.name for path in job.out.iterdir()}
    run_job(FakePredictor(), job, resume=True)

    assert FRAMES == pictures_in(job.overlay_path)
    assert {"job.json", "masks", "overlay.mp4"} == {path.name for path in job.out.iterdir()}


def test_a_mask_that_is_gone_spoils_the_overlay_only(job: TrackJob) -> None:
    """An overlay that cannot be drawn is reported, and what was tracked stays."""
    job = replace(job, overlay=True)
    stop_at("draw", 1, job)
    (job.masks / "shot-10.png").unlink()
    report = run_job(FakePredictor(), job, resume=True)

    assert isinstance(report.error, StmemoryError)
    assert (FRAMES, False, True) == (report.frames, report.finished, job.state.exists())


def test_signals_ask_first_and_interrupt_then() -> None:
    """The first signal is a wish, the second an interruption; afterwards all is as before."""
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)]
    try:
        told: list[str] = []
        with stop_on_signals(lambda: told.append("stopping")) as stop:
            assert not stop.wanted
            signal.raise_signal(signal.SIGTERM)
            assert stop.wanted
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

        assert ["stopping"] == told
        assert [signal.default_int_handler, before[1]] == [
            signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGTERM),
        ]
    finally:
        signal.signal(signal.SIGINT, before[0])


def test_ignored_signals_stay_ignored() -> None:
    """A job started with nohup is not stopped by what it was told to ignore."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGINT)

        assert not stop.wanted
    finally:
        signal.signal(signal.SIGINT, before)


def test_two_jobs_do_not_write_into_one_folder(job: TrackJob) -> None:
    """One that begins while another is under way is refused, and loses the other no mask."""
    refused: list[str] = []

    def begin_another(part: str, done: int) -> None:
        if done == 3:
            _wait_for(job.mask_path(2))
            for options in ({"force": True}, {"resume": True}):
                with pytest.raises(OptionError, match="no other run writes into") as error:
                    run_job(FakePredictor(), replace(job, frames=2), **options)
                refused.append(str(error.value))

    assert run_job(FakePredictor(), job, on_frame=begin_another).finished
    assert 2 == len(refused)
    assert FRAMES == len(masks(job.out))
    assert {"masks", "job.json"} == {path.name for path in job.out.iterdir()}


@pytest.mark.parametrize("name", ["masks", "job.json", "state.safetensors", "overlay.mp4"])
def test_links_in_the_folder_are_not_followed(job: TrackJob, tmp_path: Path, name: str) -> None:
    """What a link names is neither replaced nor deleted, though the folder's own record speaks of it."""
    stop_at("track", 5, job)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "shot-9.png").write_bytes(b"years of work")
    shutil.rmtree(job.masks) if name == "masks" else (job.out / name).unlink(missing_ok=True)
    (job.out / name).symlink_to(photos)
    for options in ({"force": True}, {"resume": True}):
        with pytest.raises(OptionError, match="expected a place below"):
            run_job(FakePredictor(), job, **options)

    assert [b"years of work"] == [path.read_bytes() for path in photos.iterdir()]


@pytest.mark.parametrize("names", [3, "shot-8", [3], [["shot-8"]], {"shot-8": 1}])
def test_a_record_names_masks_by_texts(job: TrackJob, names: object) -> None:
    """One that does not is none of a job, so that nothing is deleted by it."""
    stop_at("track", 5, job)
    record = json.loads(job.record.read_text())
    job.record.write_text(json.dumps({**record, "mask_names": names}))
    before = masks(job.out)
    with pytest.raises(OptionError, match="no run is known to have written what is there"):
        run_job(FakePredictor(), job, force=True)

    assert before == masks(job.out)


def _writes_but(job: TrackJob, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the mask of one frame find a full disk."""
    write = Segmentation.save

    def save(result: Segmentation, path: Path) -> None:
        if path == job.mask_path(index):
            raise FileError(f"{path}: expected to write it, got a full disk; make room")
        write(result, path)

    monkeypatch.setattr(Segmentation, "save", save)


def test_a_mask_that_cannot_be_written_ends_the_job_and_is_made_again(
    job: TrackJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report counts the masks that are there; resumed, the job is as if it had gone through."""
    with monkeypatch.context() as patched:
        _writes_but(job, 5, patched)
        report = run_job(FakePredictor(), job)
    assert (5, False) == (report.frames, report.finished) and "full disk" in str(report.error)
    assert 5 == len(masks(job.out)) and job.state.exists()
    assert run_job(FakePredictor(), job, resume=True).finished
    assert FRAMES == len(masks(job.out))


def test_the_folder_is_held_until_nothing_is_written_any_more(
    job: TrackJob, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes], spare: int
) -> None:
    """An interruption in the middle of a step waits for the mask that is being written; the state there is goes on."""
    begun, write, was_held = threading.Event(), Segmentation.save, list[bool]()

    def save(result: Segmentation, path: Path) -> None:
        if path == job.mask_path(3):
            begun.set()
            time.sleep(0.2 if spare else 0)
            with pytest.raises(OptionError), held(job.out):
                pass
            was_held.append(True)
        write(result, path)

    class Interrupted(FakeStream):
        def step(self, frame: Tensor, /) -> Segmentation:
            if self.frame_index == 3:
                assert begun.wait(10)
                raise KeyboardInterrupt
            return super().step(frame)

    with monkeypatch.context() as patched:
        patched.setattr(Segmentation, "save", save)
        patched.setattr("test_job.FakeStream", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_job(FakePredictor(), job)
    assert [True] == was_held and job.mask_path(3).exists()
    assert run_job(FakePredictor(), job, resume=True).finished
    assert whole == masks(job.out)


def test_a_callback_that_fails_beside_a_mask_keeps_the_state_before(
    job: TrackJob, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes], spare: int
) -> None:
    """What the callback raises comes through, and no state is saved of a frame whose mask is not there."""

    def fail(part: str, done: int) -> None:
        if done == 4:
            raise ZeroDivisionError

    told: AbstractContextManager[object] = pytest.raises(ZeroDivisionError) if spare else nullcontext()
    with monkeypatch.context() as patched:
        _writes_but(job, 3, patched)
        with told:  # in turns the mask fails before the callback hears of its frame
            run_job(FakePredictor(), job, on_frame=fail)
    assert run_job(FakePredictor(), job, resume=True).finished
    assert whole == masks(job.out)


def test_masks_that_go_while_it_runs_are_missed(job: TrackJob) -> None:
    """A job whose folder is deleted under it does not say that it is finished, and names what is not there."""

    def delete(part: str, done: int) -> None:
        if done == 3:
            _wait_for(job.mask_path(2))
            shutil.rmtree(job.out)

    report = run_job(FakePredictor(), job, on_frame=delete)

    assert (FRAMES, False) == (report.frames, report.finished)
    assert "3 of them (shot-8.png, shot-9.png, shot-10.png)" in str(report.error)
    assert job.state.exists()


def test_masks_that_went_since_are_missed_before_more_is_done(job: TrackJob) -> None:
    """A job that lacks a mask is not resumed; put back, it is."""
    stop_at("track", 5, job)
    before = masks(job.out)
    (job.masks / "shot-10.png").unlink()
    report = run_job(FakePredictor(), job, resume=True)
    assert (5, False) == (report.frames, report.finished)
    assert "shot-10.png" in str(report.error)
    (job.masks / "shot-10.png").write_bytes(before["shot-10.png"])

    assert run_job(FakePredictor(), job, resume=True).finished


@pytest.mark.parametrize("change", ["removed", "added", "renamed"])
def test_frames_that_are_tracked_stay_what_they_are(job: TrackJob, change: str) -> None:
    """A frame that is removed, added or renamed among those that are tracked would make later ones count as others."""
    stop_at("track", 5, job)
    frame, before = job.source / "shot-10.png", masks(job.out)
    if change == "added":
        shutil.copyfile(frame, job.source / "shot-9b.png")
    else:
        frame.unlink() if change == "removed" else frame.rename(job.source / "shot-9b.png")
    with pytest.raises(OptionError, match="the first that differs was shot-10"):
        run_job(FakePredictor(), replace(job), resume=True)

    assert before == masks(job.out)


def test_later_frames_may_change(job: TrackJob, whole: dict[str, bytes]) -> None:
    """Frames that are not tracked yet may be removed and added before a job is resumed."""
    stop_at("track", 5, job)
    (job.source / f"shot-{FRAMES + 7}.png").unlink()
    run_job(FakePredictor(), replace(job), resume=True)

    assert {*whole} - {f"shot-{FRAMES + 7}.png"} == {*masks(job.out)}


def test_frames_of_the_longest_names_have_masks(job: TrackJob) -> None:
    """A name that a frame can have is one that its mask can have."""
    frame = job.source / "shot-8.png"
    frame.rename(job.source / ("shot-8" + "a" * 245 + ".png"))

    assert run_job(FakePredictor(), job).finished
    assert "shot-8" + "a" * 245 + ".png" in masks(job.out)
