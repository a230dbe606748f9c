"""Layouts and protocols of data sets: which clips are found, what a predictor is given, which frames count."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import (
    CASES,
    FRAMES,
    HEIGHT,
    LATE,
    WIDTH,
    Case,
    annotation_of,
    case_id,
    frames_of,
    truth_at,
    write_data_set,
)

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.evaluation import Clip, evaluate_clip, find_clips, find_data_set
from stmemory.io.palette import write_palette_png

each_case = pytest.mark.parametrize("case", CASES, ids=case_id)


def clips_of(case: Case, root: Path) -> list[Clip]:
    """What is found of a case."""
    return find_data_set(case.name, root, split=case.split) if case.name else find_clips(root)


@dataclass
class Answer:
    ids: torch.Tensor


class Spy:
    """A predictor that notes the bytes of all it is given, and answers with the truth; its streams are itself."""

    def __init__(self) -> None:
        self.given: list[tuple[str, int, np.ndarray | None]] = []

    def start(self, frame: np.ndarray, mask: np.ndarray) -> Spy:
        self.given.append(("start", int(frame[0, 0, 0]), mask.copy()))
        return self

    def step(self, frame: np.ndarray, mask: np.ndarray | None = None) -> Answer:
        index = int(frame[0, 0, 0])
        self.given.append(("step", index, None if mask is None else mask.copy()))
        return Answer(torch.from_numpy(truth_at(index).astype(np.int32)))

    @property
    def masks(self) -> dict[int, np.ndarray]:
        """The masks that were given, by frame."""
        return {index: mask for _, index, mask in self.given if mask is not None}


@each_case
class TestEachProtocol:
    def test_finds_the_clip(self, case: Case, tmp_path: Path) -> None:
        """A split has its clips, with all their frames and the annotations that are there."""
        (clip,) = clips_of(case, write_data_set(case, tmp_path))
        found = tuple(index for index, path in enumerate(clip.annotation_paths) if path is not None)

        assert ("walk", FRAMES, case.annotated, ()) == (clip.name, len(clip), found, clip.stray_paths)

    def test_gives_the_masks_of_first_appearance_and_no_others(self, case: Case, tmp_path: Path) -> None:
        """Each frame is given once, in order; each object's mask once, where it enters, with no other object in it."""
        (clip,) = clips_of(case, write_data_set(case, tmp_path))
        spy = Spy()
        evaluate_clip(spy, clip)
        shown = [index for index in case.annotated if index >= LATE]
        if case.name == "davis2016":
            expected = {0: [1]}
        elif not shown:  # all objects in the first frame, or one
            expected = {0: [1, 2]}
        else:
            expected = {0: [1], shown[0]: [2]}

        assert [("start" if index == 0 else "step", index) for index in range(FRAMES)] == [
            call[:2] for call in spy.given
        ]
        assert expected == {index: sorted(set(np.unique(mask).tolist()) - {0}) for index, mask in spy.masks.items()}
        for index, objects in expected.items():
            truth = clip.truth(index)
            assert truth is not None
            assert np.array_equal(np.where(np.isin(truth, objects), truth, 0), spy.masks[index])

    def test_gives_nothing_that_other_truth_could_change(self, case: Case, tmp_path: Path) -> None:
        """Whatever the truth is elsewhere, the predictor is given the same: no other true pixel reaches it."""
        write_data_set(case, tmp_path)
        honest, blinded = Spy(), Spy()
        evaluate_clip(honest, clips_of(case, tmp_path)[0])
        rng = np.random.default_rng(0)
        for index in case.annotated:
            file = annotation_of(case, tmp_path, index)
            noise = rng.integers(0, 3 if index > max(honest.masks) else 2, (HEIGHT, WIDTH), dtype=np.uint8)
            if index not in honest.masks:
                write_palette_png(file, noise)
            elif index:  # the object that enters stays, the others are noise around it
                write_palette_png(file, np.where(honest.masks[index] > 0, honest.masks[index], noise).astype(np.uint8))
        evaluate_clip(blinded, clips_of(case, tmp_path)[0])

        assert [call[:2] for call in honest.given] == [call[:2] for call in blinded.given]
        assert set(honest.masks) == set(blinded.masks)
        assert all(np.array_equal(mask, blinded.masks[index]) for index, mask in honest.masks.items())

    def test_counts_its_frames(self, case: Case, tmp_path: Path) -> None:
        """Objects count in the frames that the protocol says, and in no others."""
        (clip,) = clips_of(case, write_data_set(case, tmp_path))
        result = evaluate_clip(Spy(), clip)

        counted = {scores.object_id: scores.frames for scores in result.objects}
        assert {key: frames for key, frames in case.counting.items() if frames} == counted


class TestDataSets:
    def test_youtube_objects_enter_where_the_list_says(self, tmp_path: Path) -> None:
        """An object that an annotation shows before the list names it does not enter there."""
        case = next(case for case in CASES if case_id(case) == "youtube2019-train")
        write_data_set(case, tmp_path)
        early = truth_at(0)
        early[22:36, 8:24] = 2
        write_palette_png(annotation_of(case, tmp_path, 0), early)
        spy = Spy()
        evaluate_clip(spy, clips_of(case, tmp_path)[0])

        assert [0, 5] == sorted(spy.masks)

    def test_youtube_can_be_run_at_full_frame_rate(self, tmp_path: Path) -> None:
        """With all frames the clips come from the folder of all frames, the annotations from the usual one."""
        case = next(case for case in CASES if case_id(case) == "youtube2018-val")
        write_data_set(case, tmp_path)
        shutil.copytree(frames_of(case, tmp_path), tmp_path / "valid_all_frames" / "JPEGImages" / "walk")
        for index in range(FRAMES):
            if index % 5:
                (frames_of(case, tmp_path) / f"{index:05d}.png").unlink()

        assert [3] == [len(clip) for clip in clips_of(case, tmp_path)]
        assert [FRAMES] == [len(clip) for clip in find_data_set("youtube2018", tmp_path, all_frames=True)]

    def test_davis_2016_takes_the_list_of_2017s_folder_too(self, tmp_path: Path) -> None:
        """A folder of DAVIS 2017 with `ImageSets/2016` serves for 2016."""
        write_data_set(CASES[2], tmp_path, clips=("run", "walk"))
        (tmp_path / "ImageSets" / "2016").mkdir()
        (tmp_path / "ImageSets" / "2016" / "val.txt").write_text("walk\n")
        (clip,) = find_data_set("davis2016", tmp_path)

        truth = clip.truth(LATE)
        assert truth is not None
        assert np.array_equal(truth_at(LATE) > 0, truth == 1)

    def test_void_is_background_in_davis(self, tmp_path: Path) -> None:
        """The toolkit of DAVIS does not leave void pixels out: what is predicted on them is wrong."""
        case = CASES[2]
        write_data_set(case, tmp_path)
        void = truth_at(4)
        void[4:6] = np.where(void[4:6] == 1, 255, 0)
        write_palette_png(annotation_of(case, tmp_path, 4), void)
        (clip,) = clips_of(case, tmp_path)
        result = evaluate_clip(Spy(), clip)

        assert 10 / 12 == pytest.approx(result.objects[0].region.per_frame[3])

    def test_a_listed_clip_without_files_is_told(self, tmp_path: Path) -> None:
        """A name in the list that has no folder is a clip without frames, which cannot be measured."""
        write_data_set(CASES[2], tmp_path)
        (tmp_path / "ImageSets" / "2017" / "val.txt").write_text("walk\nrun\n")
        run, _ = clips_of(CASES[2], tmp_path)
        with pytest.raises(FrameError, match="clip run: expected at least one frame"):
            evaluate_clip(Spy(), run)

    def test_an_annotation_without_a_frame_is_told(self, tmp_path: Path) -> None:
        """A frame that is missing is an error that names the annotation."""
        (frames_of(CASES[2], write_data_set(CASES[2], tmp_path)) / "00007.png").unlink()
        with pytest.raises(MaskError, match=r"none for 1 of them, the first .*00007\.png"):
            evaluate_clip(Spy(), clips_of(CASES[2], tmp_path)[0])

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"name": "davis2018"}, "expected one of davis2016"),
            ({"split": "test"}, "expected one of val, train, test-dev of DAVIS 2017"),
            ({"split": "train"}, "ImageSets/2017/train.txt"),
            ({"resolution": "1080p"}, "JPEGImages/1080p"),
            ({"names": ["run"]}, r"\(walk\), got run"),
            ({"all_frames": True}, "youtube2018"),
        ],
        ids=["name", "split", "list", "resolution", "clip", "all-frames"],
    )
    def test_what_is_not_there_is_told(self, tmp_path: Path, options: dict[str, object], told: str) -> None:
        """Names, splits, files and clips that are not there are errors that say what there is."""
        write_data_set(CASES[2], tmp_path)
        arguments = {"name": "davis2017", "root": tmp_path, **options}
        with pytest.raises(OptionError, match=told):
            find_data_set(**arguments)  # one call for all cases

    @pytest.mark.parametrize("text", ["", "{}", '{"videos": 3}', '{"videos": {"a": {"objects": {"x": {}}}}}'], ids=str)
    def test_a_damaged_list_is_told(self, tmp_path: Path, text: str) -> None:
        """A `meta.json` that is not one is an error that names the file."""
        case = next(case for case in CASES if case_id(case) == "youtube2019-train")
        write_data_set(case, tmp_path)
        (tmp_path / "train" / "meta.json").write_text(text)
        with pytest.raises(OptionError, match=r"meta\.json"):
            clips_of(case, tmp_path)
