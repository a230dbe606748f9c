"""The DAVIS protocol, the growth benchmark, reports and rendered scenes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import mmap
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stmemory.errors import FrameError, MaskError, OptionError, ShapeError
from stmemory.evaluation import (
    ClipResult,
    current_circumstances,
    evaluate,
    evaluate_clip,
    find_clips,
    markdown_table,
    measure_growth,
    render_scene,
    resident_bytes,
    slope_per_thousand,
    summarise,
    write_json,
)

HEIGHT, WIDTH, FRAMES = 24, 32, 8


def truth_at(index: int) -> np.ndarray:
    """Object 1 from the start, moving; object 2 from frame 3; object 4 in the last two frames; a strip of void."""
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    ids[2:10, 2 + index : 10 + index] = 1
    if index >= 3:
        ids[14:22, 4:12] = 2
    if index >= FRAMES - 2:
        ids[14:22, 20:26] = 4
    ids[:, -2:] = 255
    return ids


def frame_at(index: int) -> np.ndarray:
    """A frame that holds its own number, so that a spy knows which one it was given."""
    return np.full((HEIGHT, WIDTH, 3), 10 * index, dtype=np.uint8)


def save_palette(path: Path, ids: np.ndarray) -> None:
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette(bytes(range(256)) * 3)
    image.save(path)


def write_clip(frames: Path, annotations: Path, *, length: int = FRAMES) -> None:
    frames.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for index in range(length):
        Image.fromarray(frame_at(index)).save(frames / f"{index:05}.png")
        save_palette(annotations / f"{index:05}.png", truth_at(index))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of one clip, folder per clip."""
    write_clip(tmp_path / "walk" / "JPEGImages", tmp_path / "walk" / "Annotations")
    return tmp_path


@dataclass
class Answer:
    ids: torch.Tensor


class Spy:
    """A predictor that notes all it is given and answers by a rule of its own; its streams are itself."""

    def __init__(self, answer=truth_at) -> None:
        self.answer = answer
        self.given: list[tuple[str, int, np.ndarray | None]] = []

    def start(self, frame: np.ndarray, mask: np.ndarray) -> Spy:
        self.given.append(("start", int(frame[0, 0, 0]) // 10, mask))
        return self

    def step(self, frame: np.ndarray, mask: np.ndarray | None = None, write: bool = True) -> Answer:
        index = int(frame[0, 0, 0]) // 10
        self.given.append(("step", index, mask))
        return Answer(torch.from_numpy(self.answer(index).astype(np.int32)))


class TestWhatThePredictorIsGiven:
    def test_is_each_frame_once_in_order(self, root: Path) -> None:
        """The stream starts with the first frame and is stepped with every other."""
        spy = Spy()
        evaluate(spy, find_clips(root))
        expected = [("start", 0)] + [("step", index) for index in range(1, FRAMES)]
        assert expected == [(call, index) for call, index, _ in spy.given]

    def test_is_no_true_mask_but_those_of_first_appearance(self, root: Path) -> None:
        """Masks come at the frames where objects enter, and hold the entering objects alone."""
        spy = Spy()
        evaluate(spy, find_clips(root))
        given = {index: mask for _, index, mask in spy.given if mask is not None}
        entering = {0: 1, 3: 2, FRAMES - 2: 4}
        assert set(entering) == set(given)
        for index, object_id in entering.items():
            assert np.array_equal(np.where(truth_at(index) == object_id, object_id, 0), given[index])

    def test_starts_where_the_first_object_is(self, root: Path) -> None:
        """Frames before the first object are not handed over."""
        for index in range(2):
            save_palette(root / "walk" / "Annotations" / f"{index:05}.png", np.zeros((HEIGHT, WIDTH)))
        spy = Spy()
        evaluate(spy, find_clips(root))
        assert ("start", 2) == spy.given[0][:2]


class TestScores:
    def test_of_a_perfect_predictor_are_one(self, root: Path) -> None:
        """The truth itself scores 1, whatever lies on the void."""
        (result,) = evaluate(Spy(lambda index: np.where(truth_at(index) == 255, 1, truth_at(index))), find_clips(root))
        assert (1.0, 1.0) == (result.region, result.boundary)

    def test_count_an_object_from_the_frame_after_its_first_to_the_last_but_one(self, root: Path) -> None:
        """The given frame and the last do not count; an object with no other frame has no score."""
        (result,) = evaluate(Spy(), find_clips(root))
        assert {1: FRAMES - 2, 2: FRAMES - 2 - 3} == {o.object_id: len(o.region.per_frame) for o in result.objects}

    def test_do_not_look_at_the_last_frame(self, root: Path) -> None:
        """A wrong last frame changes nothing, a wrong frame before it does."""
        for wrong, perfect in ((FRAMES - 1, True), (FRAMES - 2, False)):
            spy = Spy(lambda index, wrong=wrong: truth_at(index) * (index != wrong))
            (result,) = evaluate(spy, find_clips(root))
            assert perfect == (result.region == 1.0)

    def test_ignore_the_void_folder(self, root: Path) -> None:
        """Pixels marked in Void count for nothing."""
        extra = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        extra[12:14] = 1

        def answer(index: int) -> np.ndarray:
            return truth_at(index) | extra

        assert 1.0 > evaluate(Spy(answer), find_clips(root))[0].region
        (root / "walk" / "Void").mkdir()
        for index in range(FRAMES):
            Image.fromarray(extra * 255).save(root / "walk" / "Void" / f"{index:05}.png")
        assert 1.0 == evaluate(Spy(answer), find_clips(root))[0].region

    def test_of_a_silent_predictor_are_zero(self, root: Path) -> None:
        """Predicting nothing where something is scores 0."""
        (result,) = evaluate(Spy(lambda index: np.zeros((HEIGHT, WIDTH), dtype=np.uint8)), find_clips(root))
        assert (0.0, 0.0) == (result.region, result.boundary)

    def test_frames_without_annotation_are_stepped_but_not_scored(self, root: Path) -> None:
        """A missing annotation takes its frame out of the scores, not out of the video."""
        (root / "walk" / "Annotations" / "00002.png").unlink()
        spy = Spy()
        (result,) = evaluate(spy, find_clips(root))
        assert FRAMES == len(spy.given)
        assert FRAMES - 3 == len(result.objects[0].region.per_frame)

    def test_clips_and_frames_are_told_as_they_are_done(self, root: Path) -> None:
        """Callbacks see each clip's result and each frame's ids."""
        results, frames = [], []
        assert evaluate(Spy(), find_clips(root), on_clip=results.append) == results
        evaluate_clip(Spy(), find_clips(root)[0], on_frame=lambda index, ids: frames.append((index, ids.dtype)))
        assert [(index, np.int32) for index in range(FRAMES)] == frames

    def test_one_frame_gives_no_scores(self, tmp_path: Path) -> None:
        """A clip of one frame is started, and there is nothing to score."""
        write_clip(tmp_path / "still" / "JPEGImages", tmp_path / "still" / "Annotations", length=1)
        (result,) = evaluate(Spy(), find_clips(tmp_path))
        assert ((), 0) == (result.objects, result.frames)
        assert math.isnan(result.region)


class TestClips:
    def test_both_layouts_hold_the_same(self, root: Path, tmp_path: Path) -> None:
        """The official layout and a folder per clip give the same pixels and the same scores."""
        official = tmp_path / "official"
        write_clip(official / "JPEGImages" / "480p" / "walk", official / "Annotations" / "480p" / "walk")
        (first,), (second,) = find_clips(root, names=["walk"]), find_clips(official)
        assert ("walk", FRAMES) == (second.name, len(second))
        assert np.array_equal(first.truth(5), second.truth(5))
        assert np.array_equal(frame_at(5), second.frame(5))

    def test_grey_255_alone_means_object_one(self, root: Path) -> None:
        """Grey annotations of 0 and 255 are one object, not void."""
        for path in (root / "walk" / "Annotations").iterdir():
            Image.fromarray(np.where(np.array(Image.open(path)) == 1, 255, 0).astype(np.uint8)).save(path)
        (clip,) = find_clips(root)
        assert np.array_equal(truth_at(4) == 1, clip.truth(4))

    def test_255_in_a_palette_is_void(self, root: Path) -> None:
        """Palette annotations keep 255."""
        assert np.array_equal(truth_at(4), find_clips(root)[0].truth(4))

    def test_merged_objects_are_object_one(self, root: Path) -> None:
        """DAVIS 2016 counts the union of all objects; void stays void."""
        truth = truth_at(4)
        expected = np.where(truth == 255, 255, truth > 0)
        assert np.array_equal(expected, find_clips(root, merge_objects=True)[0].truth(4))

    def test_an_unknown_name_lists_the_known_ones(self, root: Path) -> None:
        """Asking for a clip that is not there names those that are."""
        with pytest.raises(OptionError, match=r"\(walk\), got run"):
            find_clips(root, names=["run"])


class TestBadClips:
    def test_no_object_at_all(self, root: Path) -> None:
        """A clip whose annotations are all empty is an error that names the clip."""
        for path in (root / "walk" / "Annotations").iterdir():
            save_palette(path, np.zeros((HEIGHT, WIDTH)))
        with pytest.raises(MaskError, match="clip walk"):
            evaluate(Spy(), find_clips(root))

    def test_no_frames(self, tmp_path: Path) -> None:
        """An empty clip is an error that names the clip."""
        write_clip(tmp_path / "void" / "JPEGImages", tmp_path / "void" / "Annotations", length=0)
        with pytest.raises(FrameError, match="clip void"):
            evaluate(Spy(), find_clips(tmp_path))

    @pytest.mark.parametrize(
        ("folder", "error"), [("JPEGImages", FrameError), ("Annotations", MaskError)], ids=["frame", "annotation"]
    )
    def test_a_truncated_file(self, root: Path, folder: str, error: type[Exception]) -> None:
        """A file that cannot be read is an error that names the file."""
        path = root / "walk" / folder / "00003.png"
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(error, match=r"00003\.png"):
            evaluate(Spy(), find_clips(root))

    def test_an_annotation_in_colours(self, root: Path) -> None:
        """An RGB annotation is refused, not guessed at."""
        colours = frame_at(1)
        colours[0, 0] = (200, 10, 10)  # grey that is stored as RGB is read
        Image.fromarray(colours).save(root / "walk" / "Annotations" / "00001.png")
        with pytest.raises(MaskError, match="00001.png: expected a palette or grey image.*'RGB'"):
            evaluate(Spy(), find_clips(root))

    def test_an_annotation_of_another_size(self, root: Path) -> None:
        """An annotation that does not fit its frame is an error."""
        save_palette(root / "walk" / "Annotations" / "00001.png", np.ones((HEIGHT, WIDTH + 1)))
        with pytest.raises(ShapeError, match="frame 1: expected an annotation"):
            evaluate(Spy(), find_clips(root))

    @pytest.mark.parametrize(
        ("written", "passed", "told"),
        [
            ("walk", "wlak", "got no such folder; check the spelling"),
            ("walk", "notes", "got a file; pass a folder"),
            ("walk", "walk", "got a clip itself; pass the folder that it lies in, and its name: {root} walk"),
            ("walk", "walk/JPEGImages", "got frames alone; pass the folder above"),
            ("mine/walk", "", "got a folder above one; pass {root}/mine"),
            ("DAVIS", "", "got a folder above one; pass {root}/DAVIS"),
            ("DAVIS", "DAVIS/JPEGImages/480p", "got frames alone; pass the folder above"),
            ("1080p", "DAVIS", "with another resolution; pass it: 1080p"),
            ("walk", "empty", "got none of these; put the frames"),
            ("bare", "bare", "expected true masks in Annotations beside JPEGImages, got none"),
        ],
        ids=[
            "typo",
            "file",
            "clip",
            "frames",
            "too-high",
            "above-davis",
            "inside-davis",
            "resolution",
            "empty",
            "no-annotations",
        ],
    )
    def test_a_folder_without_clips(self, tmp_path: Path, written: str, passed: str, told: str) -> None:
        """What the folder is in place of one with clips is told, and what to pass."""
        (tmp_path / "notes").write_text("mine")
        (tmp_path / "empty").mkdir()
        clip = {"DAVIS": "DAVIS/{}/480p/walk", "1080p": "DAVIS/{}/1080p/walk", "bare": "bare/walk/{}"}.get(
            written, f"{written}/{{}}"
        )
        write_clip(tmp_path / clip.format("JPEGImages"), tmp_path / clip.format("Annotations"), length=2)
        if written == "bare":
            shutil.rmtree(tmp_path / "bare" / "walk" / "Annotations")
        with pytest.raises(OptionError, match=re.escape(told.format(root=tmp_path))):
            find_clips(tmp_path / passed)

    @pytest.mark.parametrize("layout", ["{0}/{1}", "{1}/{0}", "{1}/480p/{0}"], ids=["clip-first", "flat", "davis"])
    def test_a_clip_without_annotations_is_among_the_others(self, tmp_path: Path, layout: str) -> None:
        """It is found, and its measurement is an error that says what is missing, before a frame is read."""
        for name in ("run", "walk"):
            write_clip(
                tmp_path / layout.format(name, "JPEGImages"), tmp_path / layout.format(name, "Annotations"), length=2
            )
        shutil.rmtree(tmp_path / layout.format("run", "Annotations"))
        run, walk = find_clips(tmp_path)
        assert ("run", "walk") == (run.name, walk.name)
        with pytest.raises(MaskError, match="clip run: expected a true mask in Annotations"):
            evaluate(Spy(), [run])

    def test_a_resolution_that_is_not_there(self, root: Path) -> None:
        """A layout without resolutions refuses one, in place of taking no notice."""
        with pytest.raises(OptionError, match="resolution: expected the name of a folder in"):
            find_clips(root, resolution="480p")

    def test_a_prediction_of_another_size(self, root: Path) -> None:
        """A prediction that does not fit its frame is an error, not a low score."""
        with pytest.raises(ShapeError, match="prediction"):
            evaluate(Spy(lambda index: truth_at(index)[:-1]), find_clips(root))


def test_what_is_not_known_is_not_told() -> None:
    """A table's last line leaves out a seed and a commit that there are none of, and one thread is one."""
    bare = dataclasses.replace(current_circumstances(), threads=1, seed=None, commit=None)
    told = markdown_table([], bare).splitlines()[-1]
    assert ", 1 thread, torch" in told and "None" not in told
    assert markdown_table([], dataclasses.replace(bare, threads=2, seed=5, commit="abc")).endswith(
        ", seed 5, commit abc.\n"
    )


class TestGrowth:
    def test_slope_equals_numpy_polyfit(self) -> None:
        """The fitted line and its standard error are those of an independent least-squares fit."""
        values = np.random.default_rng(3).normal(size=50).cumsum()
        coefficients, covariance = np.polyfit(np.arange(50), values, 1, cov=True)
        slope = slope_per_thousand(values)
        assert 1000 * coefficients[0] == pytest.approx(slope.per_thousand)
        assert 1000 * math.sqrt(covariance[0, 0]) == pytest.approx(slope.standard_error)

    def test_sees_a_bank_that_grows(self) -> None:
        """Bytes are read after every step, and their change is reported."""
        kept: list[int] = []
        report = measure_growth(kept.append, range(6), steps=6, bank_bytes=lambda: 8 * len(kept))
        assert (8, 48, False) == (report.first_bank_bytes, report.last_bank_bytes, report.bank_is_constant)
        assert [8, 16, 24, 32, 40, 48] == report.bank_bytes.tolist()

    def test_sees_a_process_that_grows(self) -> None:
        """A step that keeps four mebibytes a frame shows as about four thousand mebibytes per 1,000 frames."""
        kept: list[mmap.mmap] = []

        def leak(_: object) -> None:  # pages of its own: an allocator could serve an array from what was freed before
            block = mmap.mmap(-1, 2**22)
            block.write(b"x" * 2**22)
            kept.append(block)

        steps = 40
        report = measure_growth(leak, range(steps), steps=steps, bank_bytes=lambda: 0)
        for block in kept:
            block.close()
        assert 1000 * 2**22 == pytest.approx(report.process_slope.per_thousand, rel=0.2)

    def test_takes_no_more_frames_than_steps(self) -> None:
        """An endless source of frames is fine."""
        frames = itertools.count()
        measure_growth(lambda _: None, frames, steps=5, bank_bytes=lambda: 0)
        assert 5 == next(frames)

    def test_too_few_frames_are_an_error(self) -> None:
        """A source that ends early says how far it went."""
        with pytest.raises(FrameError, match="at least 9, got 4"):
            measure_growth(lambda _: None, range(4), steps=9, bank_bytes=lambda: 0)

    def test_figures_can_be_written_as_json(self) -> None:
        """The summary holds plain numbers only."""
        report = measure_growth(lambda _: None, range(6), steps=6, bank_bytes=lambda: 16)
        assert 16 == json.loads(json.dumps(report.as_dict()))["bank_bytes_last"]

    def test_resident_bytes_count_what_was_allocated(self) -> None:
        """Touching 64 MiB adds about 64 MiB."""
        before = resident_bytes()
        block = np.frombuffer(
            mmap.mmap(-1, 2**26), np.uint8
        )  # fresh pages: numpy may get back what an earlier test freed
        block[:] = 1
        assert 2**26 == pytest.approx(resident_bytes() - before, rel=0.2)
        assert block[0] == 1


class TestReport:
    def test_json_holds_scores_and_circumstances(self, root: Path) -> None:
        """A written report can be read back, with NaN as null."""
        results = [*evaluate(Spy(), find_clips(root)), ClipResult("none", (), 0, 0.0, HEIGHT, WIDTH)]
        path = root / "out" / "report.json"
        write_json(path, results, current_circumstances(resolution=480, seed=5), extra={"policy": "least_similar"})
        report = json.loads(path.read_text())
        assert (480, 5, torch.__version__) == tuple(report["circumstances"][k] for k in ("resolution", "seed", "torch"))
        assert ("least_similar", 2, 1.0) == (report["policy"], report["summary"]["clips"], report["summary"]["region"])
        assert report["clips"][1]["region"] is None

    def test_table_has_a_line_per_clip_and_one_for_all(self, root: Path) -> None:
        """The table shows percentages, and the means over all objects."""
        lines = markdown_table(evaluate(Spy(), find_clips(root)), current_circumstances()).splitlines()
        assert lines[2].startswith("| walk | 2 | 100.0 | 100.0 | 100.0 | 7 |")
        assert lines[3].startswith("| **all** | 2 | 100.0 |")
        assert f"torch {torch.__version__}" in lines[-1]

    def test_summary_counts_each_object_once(self, root: Path) -> None:
        """A clip with more objects weighs more."""
        (good,) = evaluate(Spy(), find_clips(root))
        (bad,) = evaluate(Spy(lambda index: truth_at(index) * 0), find_clips(root))
        one = ClipResult("one", bad.objects[:1], bad.frames, bad.seconds, HEIGHT, WIDTH)
        assert 2 / 3 == pytest.approx(summarise([good, one]).region)


class TestScene:
    def scene(self, frames: int, *, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return render_scene(frames, height=72, width=128, seed=seed)

    def test_is_the_same_for_the_same_seed_and_another_for_another(self) -> None:
        """Frames and ids are a function of the seed."""
        (frame, ids), (again, ids_again), (other, _) = (next(self.scene(1, seed=seed)) for seed in (0, 0, 1))
        assert np.array_equal(frame, again)
        assert np.array_equal(ids, ids_again)
        assert not np.array_equal(frame, other)

    def test_a_longer_clip_begins_with_the_shorter(self) -> None:
        """The length asked for changes nothing of a frame."""
        for (short, _), (long, _) in zip(self.scene(3), self.scene(1000), strict=False):
            assert np.array_equal(short, long)

    def test_shows_both_objects_whole_at_first_and_partly_hidden_later(self) -> None:
        """The post hides a good part of each object for a while within 48 frames."""
        areas = np.array([[(ids == 1).sum(), (ids == 2).sum()] for _, ids in self.scene(48)])
        assert (48, 2) == areas.shape
        assert (areas > 0).all()
        assert (areas.min(axis=0) < 0.8 * areas[0]).all()

    def test_ids_show_where_the_objects_are_drawn(self) -> None:
        """The ids fit the picture: in the upper third, the kite's pixels are red and those around it are blue."""
        frame, ids = next(self.scene(1))
        sky = frame[: frame.shape[0] // 3].astype(float)
        kite = ids[: frame.shape[0] // 3] == 2
        blueness = sky[..., 2] - sky[..., 0]
        assert blueness[kite].mean() + 60 < blueness[~kite].mean()

    def test_far_frames_are_as_good_as_near_ones(self) -> None:
        """Frame 100,000 still shows both objects, in contrast."""
        ((frame, ids),) = render_scene(1, height=72, width=128, first=100_000)
        assert [0, 1, 2] == np.unique(ids).tolist()
        assert frame.std() > 30

    def test_can_begin_anywhere(self) -> None:
        """A clip begun at frame 3 shows what the whole clip shows there."""
        *_, (frame, ids) = self.scene(4)
        ((begun, begun_ids),) = render_scene(1, height=72, width=128, first=3)
        assert np.array_equal(frame, begun)
        assert np.array_equal(ids, begun_ids)

    def test_wrong_numbers_are_refused_at_the_call(self) -> None:
        """Arguments are checked before the first frame is asked for."""
        with pytest.raises(OptionError, match="frames"):
            render_scene(-1)
        with pytest.raises(OptionError, match="at least 32"):
            render_scene(1, height=8, width=64)

    def test_no_frames_are_no_frames(self) -> None:
        """A clip of length 0 is empty."""
        assert [] == list(self.scene(0))
