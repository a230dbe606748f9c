"""Masks on later frames, on the command line and in jobs: objects that enter, corrections, what is refused, what
resumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import HEIGHT, WIDTH, boxes, clip, tiny_predictor

from stmemory.cli import main
from stmemory.errors import MaskError, OptionError
from stmemory.io.palette import read_palette_png, write_palette_png
from stmemory.jobs.folder import TrackJob
from stmemory.jobs.schedule import masks_by_frame
from stmemory.jobs.track import Stop, describe_job, run_job
from stmemory.predictor import VOSPredictor

FRAMES = clip(8)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Eight frames, whose names begin at 5."""
    (tmp_path / "clip").mkdir()
    for index, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / "clip" / f"{index + 5:04d}.png")
    return tmp_path / "clip"


@pytest.fixture
def mask(tmp_path: Path) -> Callable[..., Path]:
    """Writes the mask of `boxes` of the given ids, under that name."""

    def write(name: str, *ids: int) -> Path:
        write_palette_png(tmp_path / name, boxes(*ids) if ids else np.zeros((HEIGHT, WIDTH), np.int32))
        return tmp_path / name

    return write


def found(job: TrackJob, count: int = len(FRAMES)) -> list[list[list[int]]]:
    """The ids of all masks that a job left."""
    return [read_palette_png(job.mask_path(index)).tolist() for index in range(count)]


def expected(masks: Mapping[int, np.ndarray]) -> list[list[list[int]]]:
    """The ids of a stream that gets masks at frames."""
    stream = tiny_predictor().start(FRAMES[0], masks.get(0), allow_empty=True)
    return [
        stream.last.ids.tolist(),
        *(stream.step(FRAMES[t], masks.get(t)).ids.tolist() for t in range(1, len(FRAMES))),
    ]


def test_a_job_gives_each_mask_to_its_frame(frames: Path, mask: Callable[..., Path], tmp_path: Path) -> None:
    """Objects enter and are corrected where their masks are, as in a stream that gets them there."""
    masks = {0: mask("a.png", 3), 3: mask("b.png", 3, 9), 5: mask("c.png", 9)}
    job = TrackJob(frames, masks, tmp_path / "out")
    report = run_job(tiny_predictor(), job)

    assert (8, True, ()) == (report.frames, report.finished, report.unused)
    assert expected({0: boxes(3), 3: boxes(3, 9), 5: boxes(9)}) == found(job)
    assert boxes(3, 9).tolist() == found(job)[3]


@pytest.mark.parametrize("first", [None, ()], ids=["none", "background"])
def test_the_first_object_may_enter_late(
    frames: Path, mask: Callable[..., Path], tmp_path: Path, first: tuple[int, ...] | None
) -> None:
    """Frames before the first object are background, whether they have no mask or an empty one."""
    masks = {2: mask("late.png", 4)} if first is None else {0: mask("empty.png"), 2: mask("late.png", 4)}
    job = TrackJob(frames, masks, tmp_path / "out")
    run_job(tiny_predictor(), job)

    assert expected({2: boxes(4)}) == found(job)
    assert not np.any(found(job)[:2]) and boxes(4).tolist() == found(job)[2]


@pytest.mark.parametrize("stop_at", [1, 4])
def test_a_job_with_later_masks_resumes_to_the_same_masks(
    frames: Path, mask: Callable[..., Path], tmp_path: Path, stop_at: int
) -> None:
    """Stopped before and after a later mask, it goes on as in one go."""
    job = TrackJob(frames, {2: mask("late.png", 4), 6: mask("fix.png", 4, 8)}, tmp_path / "out")
    stop = Stop()

    def tell(part: str, done: int) -> None:
        stop.wanted = done >= stop_at

    assert not run_job(tiny_predictor(), job, stop=stop, on_frame=tell).finished
    assert run_job(tiny_predictor(), job, resume=True).finished
    assert expected({2: boxes(4), 6: boxes(4, 8)}) == found(job)


def test_masks_of_frames_to_come_may_be_added_when_a_job_goes_on(
    frames: Path, mask: Callable[..., Path], tmp_path: Path
) -> None:
    """Who sees an error stops, paints, and resumes with one mask more; the masks of frames that are done stay what they
    were."""
    begun = TrackJob(frames, {0: mask("a.png", 3), 2: mask("b.png", 9)}, tmp_path / "out", frames=4)
    run_job(tiny_predictor(), begun)
    for masks, told in (
        ({0: mask("a.png", 3)}, "mask of frame 2"),
        ({0: begun.given[0], 2: mask("c.png", 8)}, "mask of frame 2"),
    ):
        with pytest.raises(OptionError, match=told):
            run_job(tiny_predictor(), TrackJob(frames, masks, begun.out), resume=True)
    more = TrackJob(frames, {**begun.given, 5: mask("d.png", 12)}, begun.out)
    assert run_job(tiny_predictor(), more, resume=True).finished
    assert expected({0: boxes(3), 2: boxes(9), 5: boxes(12)}) == found(more)


@pytest.mark.parametrize("record", [["2"], {"x": 1, "2": [1]}, {"²": 0, "2": None}, 7, None], ids=str)
def test_a_damaged_record_of_masks_is_no_traceback(
    frames: Path, mask: Callable[..., Path], tmp_path: Path, record: object
) -> None:
    """Whatever stands in the record, the job is refused as another one."""
    job = TrackJob(frames, {0: mask("a.png", 3), 2: mask("b.png", 9)}, tmp_path / "out", frames=4)
    run_job(tiny_predictor(), job)
    job.record.write_text(json.dumps({**json.loads(job.record.read_text()), "later_masks": record}))
    with pytest.raises(OptionError, match="mask of frame 2"):
        run_job(tiny_predictor(), TrackJob(frames, job.mask, job.out), resume=True)


def test_masks_beyond_the_end_are_told(
    frames: Path, mask: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the length is known it is an error at once; where it is not, the command names the mask and exits with
    1."""
    with pytest.raises(MaskError, match="one of frame 8"):
        describe_job(TrackJob(frames, {0: mask("a.png", 3), 8: mask("b.png", 9)}, tmp_path / "out"), device="cpu")
    first, *rest = [Image.fromarray(frame) for frame in FRAMES[:2]]
    first.save(tmp_path / "clip.tif", save_all=True, append_images=rest)
    arguments = [
        "track",
        str(tmp_path / "clip.tif"),
        "--mask",
        str(tmp_path / "a.png"),
        "--mask",
        f"5:{tmp_path / 'b.png'}",
    ]
    assert 1 == main([*arguments, "-o", str(tmp_path / "out")])
    assert "b.png, was not used" in capsys.readouterr().err


def test_what_was_understood_names_the_masks(frames: Path, mask: Callable[..., Path], tmp_path: Path) -> None:
    """The line has the objects of each mask and its frame, and counts those that are too many."""
    masks = {number: mask(f"{number}.png", number + 1) for number in range(5)}
    line = describe_job(TrackJob(frames, masks, tmp_path / "out"), device="cpu")
    assert "0.png at frame 0: 1 object: 1 (" in line and "2.png at frame 2: 1 object: 3 (" in line
    assert line.endswith("2 more masks") and "3.png" not in line


def test_masks_are_checked_before_anything_is_done(frames: Path, mask: Callable[..., Path], tmp_path: Path) -> None:
    """A later mask of another size, one that is missing, and masks without any object are told with their files."""
    Image.new("L", (4, 4), 1).save(tmp_path / "small.png")
    for masks, told in (
        ({0: mask("a.png", 3), 4: tmp_path / "small.png"}, "small.png"),
        ({0: mask("a.png", 3), 4: tmp_path / "missing.png"}, "missing.png"),
        ({0: mask("none.png"), 3: mask("none.png")}, "at least one"),
    ):
        with pytest.raises(MaskError, match=told):
            describe_job(TrackJob(frames, masks, tmp_path / "out"), device="cpu")
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_masks_of_later_frames(frames: Path, mask: Callable[..., Path], tmp_path: Path) -> None:
    """`--mask PATH --mask FRAME:PATH` and a folder of masks named like the frames give the same masks."""
    (tmp_path / "masks").mkdir()
    first, late = mask("masks/0005.png", 3), mask("masks/0008.png", 3, 9)
    for out, masks in (("one", [str(first), f"3:{late}"]), ("other", [str(tmp_path / "masks")])):
        assert 0 == main(
            ["track", str(frames), *(part for each in masks for part in ("--mask", each)), "-o", str(tmp_path / out)]
        )
    one, other = (TrackJob(frames, first, tmp_path / name) for name in ("one", "other"))
    assert found(one) == found(other)
    assert [[0, 3], [0, 3, 9]] == [torch.unique(torch.tensor(found(one)[index])).tolist() for index in (0, 3)]


NAMES = {
    "as the frames": (["0005", "0007"], [0, 2]),
    "the same numbers": (["6", "000012"], [1, 7]),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_folder_of_masks_follows_the_frames_names(
    frames: Path, mask: Callable[..., Path], tmp_path: Path, case: str
) -> None:
    """By name, or by the same numbers written otherwise."""
    (tmp_path / "masks").mkdir()
    names, numbers = NAMES[case]
    files = [mask(f"masks/{name}.png", 1) for name in names]
    assert dict(zip(numbers, files, strict=True)) == masks_by_frame([str(tmp_path / "masks")], frames)


def test_a_folder_of_masks_of_a_video_counts_frames(mask: Callable[..., Path], tmp_path: Path) -> None:
    """A video's frames have no names: masks are numbered from 0. Hidden files and others are passed over."""
    (tmp_path / "masks").mkdir()
    files = {number: mask(f"masks/{number}.png", 1) for number in (10, 9)}
    (tmp_path / "masks" / "notes.txt").touch()
    (tmp_path / "masks" / ".0.png").touch()
    assert {9: files[9], 10: files[10]} == masks_by_frame([str(tmp_path / "masks")], tmp_path / "clip.mp4")
    assert [9, 10] == list(masks_by_frame([str(tmp_path / "masks")], tmp_path / "clip.mp4"))


def test_a_file_whose_name_looks_like_a_frame_is_a_file(
    mask: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`7:a.png` is the first frame's mask where there is a file of that name."""
    monkeypatch.chdir(tmp_path)
    mask("7:a.png", 1)
    assert {0: Path("7:a.png")} == masks_by_frame(["7:a.png"], Path("clip.mp4"))
    assert {7: Path("b.png")} == masks_by_frame(["7:b.png"], Path("clip.mp4"))


def test_masks_that_fit_no_frame_are_refused(frames: Path, mask: Callable[..., Path], tmp_path: Path) -> None:
    """Two masks of a frame, a name that no frame has, an empty folder, and masks among the frames."""
    (tmp_path / "masks").mkdir()
    (tmp_path / "empty").mkdir()
    mask("masks/0005.png", 1)
    with pytest.raises(OptionError, match="frame 0 has two"):
        masks_by_frame([str(tmp_path / "masks"), str(tmp_path / "a.png")], frames)
    mask("masks/0099.png", 1)
    for folder, told in (
        (tmp_path / "masks", "0099.png"),
        (tmp_path / "empty", "without any image"),
        (frames, "folder of their own"),
    ):
        with pytest.raises(MaskError, match=told):
            masks_by_frame([str(folder)], frames)
    with pytest.raises(OptionError, match="at least one"):
        masks_by_frame([], frames)


def test_masks_in_the_folder_of_the_frames_are_no_frames(
    frames: Path, mask: Callable[..., Path], tmp_path: Path
) -> None:
    """Each is passed over, and the line says so."""
    job = TrackJob(frames, {0: mask("clip/zero.png", 1), 2: mask("clip/two.png", 2)}, tmp_path / "out")
    assert len(FRAMES) == job.total
    assert "2 masks lie among the frames" in describe_job(job, device="cpu")


def test_a_predictor_starts_without_objects_only_when_asked() -> None:
    """A forgotten mask is an error; with `allow_empty` a stream watches until an object enters."""
    for nothing in (None, boxes(1) * 0):
        with pytest.raises(MaskError):
            tiny_predictor().start(FRAMES[0], nothing)
        stream = tiny_predictor().start(FRAMES[0], nothing, allow_empty=True)
        assert () == stream.object_ids and not bool(stream.last.ids.any())
    assert boxes(4).tolist() == stream.step(FRAMES[1], boxes(4)).ids.tolist()
    assert (3,) == tiny_predictor().start(FRAMES[0], boxes(3), allow_empty=True).object_ids


@pytest.mark.parametrize(
    ("chosen", "told"),
    [((), "cpu"), (("--dtype", "float16"), "cpu, float16"), (("--dtype", "auto"), "cpu, bfloat16")],
    ids=["default", "chosen", "auto"],
)
def test_the_first_line_says_what_is_computed_in(
    chosen: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it was chosen: also what `auto` comes to."""
    seen: list[object] = []

    def spy(job: TrackJob, *, device: object) -> None:
        seen.append(device)
        raise OptionError("enough")

    monkeypatch.setattr("stmemory.jobs.track.describe_job", spy)
    monkeypatch.setattr("stmemory.weights.devices.fast_dtype", lambda device: torch.bfloat16)
    np.save(tmp_path / "clip.npy", np.stack(FRAMES))
    write_palette_png(tmp_path / "first.png", boxes(4))
    command = ["track", str(tmp_path / "clip.npy"), "--mask", str(tmp_path / "first.png"), "-o", str(tmp_path / "o")]
    assert 2 == main([*command, *chosen])
    assert [told] == seen


def test_threads_and_dtype_reach_the_predictor(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--threads` sets torch's threads, `--dtype` what the network computes in, for `track` and for `demo`."""
    seen: list[object] = []

    def spy(name: object, **options: object) -> None:
        seen.append((torch.get_num_threads(), options["dtype"]))
        raise OptionError("enough")

    monkeypatch.setattr(VOSPredictor, "from_pretrained", spy)
    before = torch.get_num_threads()
    try:
        assert 2 == main(["demo", "--threads", "2", "--dtype", "bfloat16"])
        assert 2 == main(["demo", "--threads", "2", "--dtype", "auto"])
    finally:
        torch.set_num_threads(before)
    assert [2, 2] == [main(["demo"]), main(["demo", "--threads", "0"])]
    assert [(2, torch.bfloat16), (2, "auto"), (before, None)] == seen
