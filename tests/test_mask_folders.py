"""Folders of predicted masks against true ones: scores, tables, and what is said of masks that cannot be scored."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import CASES, FRAMES, annotation_of, case_id, truth_at, write_data_set
from PIL import Image

from stmemory.cli import main
from stmemory.errors import MaskError, OptionError, ShapeError
from stmemory.evaluation import find_clips, find_data_set, score_clip, write_tables
from stmemory.evaluation.mask_folders import find_mask_clips, pair_masks, predictions_of
from stmemory.io.palette import write_palette_png

FOLDER, DAVIS16, DAVIS17 = CASES[0], CASES[1], CASES[2]


def predict(folder: Path, *, answer: Callable[[int], np.ndarray] = truth_at) -> Path:
    """Write a mask for each frame."""
    for index in range(FRAMES):
        write_palette_png(folder / f"{index:05d}.png", answer(index))
    return folder


def moved(index: int) -> np.ndarray:
    """The truth, four pixels too far to the left."""
    return np.roll(truth_at(index), -4, axis=1)


def test_scores_are_those_of_the_frames_that_count(tmp_path: Path) -> None:
    """J of a square that is a quarter of its width off is 12 * 12 of 12 * 20, in each frame that counts and no
    other."""
    (clip,) = find_clips(write_data_set(FOLDER, tmp_path / "truth"))
    result = score_clip(predict(tmp_path / "walk", answer=moved), clip)

    assert [(1, tuple(range(1, 11))), (2, tuple(range(6, 11)))] == [
        (scores.object_id, scores.frames) for scores in result.objects
    ]
    assert {12 / 20} == {round(value, 12) for scores in result.objects for value in scores.region.per_frame}


@pytest.mark.parametrize("grey", [False, True], ids=["palette", "grey"])
def test_one_object_is_whatever_is_not_background(tmp_path: Path, grey: bool) -> None:
    """For DAVIS 2016 all predicted objects are one, whether their pixels are 1 and 2 or 255."""
    (clip,) = find_data_set("davis2016", write_data_set(DAVIS16, tmp_path / "truth"))
    folder = predict(tmp_path / "walk")
    if grey:
        for index in range(FRAMES):
            Image.fromarray(np.where(truth_at(index) > 0, 255, 0).astype(np.uint8)).save(folder / f"{index:05d}.png")

    assert [(1, 1.0, 1.0)] == [(s.object_id, s.region.mean, s.boundary.mean) for s in score_clip(folder, clip).objects]


def test_missing_masks_are_counted(tmp_path: Path) -> None:
    """Masks that are not there are an error with their number and the first; those that do not count may be missing."""
    (clip,) = find_clips(write_data_set(FOLDER, tmp_path / "truth"))
    folder = predict(tmp_path / "walk")
    for index in (0, FRAMES - 1):
        (folder / f"{index:05d}.png").unlink()
    assert 10 == score_clip(folder, clip).frames
    for index in (4, 7):
        (folder / f"{index:05d}.png").unlink()
    with pytest.raises(MaskError, match=r"each of 10 frames that count, got none for 2 of them, the first 00004\.png"):
        score_clip(folder, clip)


def test_a_mask_of_another_size_is_told(tmp_path: Path) -> None:
    """A mask that does not fit the truth is an error that names the file."""
    (clip,) = find_clips(write_data_set(FOLDER, tmp_path / "truth"))
    folder = predict(tmp_path / "walk")
    write_palette_png(folder / "00003.png", truth_at(3)[1:])
    with pytest.raises(ShapeError, match=r"00003\.png: expected the size"):
        score_clip(folder, clip)


def test_tables_hold_the_means_over_objects(tmp_path: Path) -> None:
    """Three decimals; a row for each object, for each clip, and one for all, in which each object counts once."""
    truth = write_data_set(DAVIS17, tmp_path / "truth", clips=("run", "walk"))
    annotation_of(DAVIS17, truth, 0, "run").unlink()  # object 1 of run enters a frame later
    clips = find_data_set("davis2017", truth)
    results = [score_clip(predict(tmp_path / clip.name, answer=moved), clip) for clip in clips]
    tables = [list(csv.reader(path.read_text().splitlines())) for path in write_tables(tmp_path / "out", results)]

    assert ["J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"] == tables[0][0]
    assert ["0.600", "1.000", "0.000"] == tables[0][1][1:4]
    assert [["run", "2"], ["walk", "2"]] == [row[:2] for row in tables[1][1:]]
    assert [["run_1", "9"], ["run_2", "5"], ["walk_1", "10"], ["walk_2", "5"]] == [row[:2] for row in tables[2][1:]]
    reverse = [path.read_bytes() for path in write_tables(tmp_path / "back", results[::-1])]
    assert reverse == [path.read_bytes() for path in write_tables(tmp_path / "out", results)]


def test_the_command_scores_what_it_can_and_names_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clips without masks or with broken ones are named and counted, exit code 1; the others are scored."""
    truth = write_data_set(DAVIS17, tmp_path / "truth", clips=("jump", "run", "walk"))
    for clip in ("jump", "walk"):
        predict(tmp_path / "masks" / clip)
    (tmp_path / "masks" / "jump" / "00002.png").write_bytes(b"no image")
    arguments = ["score", str(tmp_path / "masks"), "davis2017"]
    code = main([*arguments, "--root", str(truth), "-o", str(tmp_path / "out")])
    said = capsys.readouterr()

    assert 1 == code
    assert "skipped jump: " in said.err and "skipped run: " in said.err and "2 of 3 clips were skipped" in said.err
    assert "walk                           2   100.0   100.0   100.0" in said.out
    assert 0 == main([*arguments, "walk", "--root", str(truth)])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["score", "no/such", "."], "PREDICTIONS"),
        (["score", ".", "davis2017"], "--root"),
        (["score", ".", ".", "--split", "val"], "--split"),
        (["score", ".", "davis", "--root", "."], "expected one of davis2016"),
    ],
    ids=["predictions", "no-root", "no-data-set", "unknown"],
)
def test_bad_arguments_of_the_command(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be meant exits with 2 and a line that says what was expected."""
    assert 2 == main(arguments)
    assert told in capsys.readouterr().err


def test_folders_of_masks_are_scored_without_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two folders of masks give the scores of the same clip with frames, and the line says what was matched."""
    (clip,) = find_clips(write_data_set(FOLDER, tmp_path / "framed"))
    framed = score_clip(predict(tmp_path / "found", answer=moved), clip)
    (bare,) = find_mask_clips(predict(tmp_path / "true"))
    assert framed.objects == score_clip(tmp_path / "found", bare).objects

    assert 0 == main(["score", str(tmp_path / "found"), str(tmp_path / "true"), "-o", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert f"true: matched {FRAMES} of {FRAMES} true masks; {framed.frames} frames counted" in said
    assert "true                           2    60.0" in said and (tmp_path / "out").is_dir()


def test_masks_without_a_match_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing prediction skips the clip, or with `--matched-only` the frame; both, and predictions without truth, are
    named."""
    found, true = predict(tmp_path / "found"), predict(tmp_path / "true")
    (found / "00004.png").unlink()
    write_palette_png(found / "00099.png", truth_at(0))
    assert 1 == main(["score", str(found), str(true)])
    said = capsys.readouterr()
    expected = (
        f"true: matched {FRAMES - 1} of {FRAMES} true masks; no prediction for 00004.png; no true mask for 00099.png"
    )
    assert expected in said.out and "skipped true" in said.err
    assert 0 == main(["score", str(found), str(true), "--matched-only"])
    said = capsys.readouterr()
    assert f"{expected}; 9 frames counted" in said.out and "100.0" in said.out


def test_every_frame_counts_the_first_and_the_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--every-frame` an object counts from the frame that first shows it to the last; elsewhere it is refused."""
    found, true = predict(tmp_path / "found", answer=moved), predict(tmp_path / "true")
    (clip,) = find_mask_clips(true, every_frame=True)
    result = score_clip(found, clip)
    assert [(1, tuple(range(FRAMES))), (2, tuple(range(5, FRAMES)))] == [
        (scores.object_id, scores.frames) for scores in result.objects
    ]
    assert 0 == main(["score", str(found), str(true), "--every-frame"])
    assert f"{FRAMES} frames counted" in capsys.readouterr().out
    assert 2 == main(["score", str(found), str(write_data_set(FOLDER, tmp_path / "framed")), "--every-frame"])
    assert "--every-frame" in capsys.readouterr().err


def test_folders_of_clips_of_masks_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each folder is a clip; one without predictions is skipped, and predictions without truth are named."""
    for clip in ("run", "walk"):
        predict(tmp_path / "true" / clip)
    for clip in ("walk", "jump"):
        predict(tmp_path / "found" / clip)
    assert 1 == main(["score", str(tmp_path / "found"), str(tmp_path / "true")])
    said = capsys.readouterr()
    assert "skipped run" in said.err and "no true masks for jump" in said.out and "walk: matched" in said.out
    assert 0 == main(["score", str(tmp_path / "found"), str(tmp_path / "true"), "walk"])
    assert 2 == main(["score", str(tmp_path / "found"), str(tmp_path / "true"), "swim"])
    with pytest.raises(OptionError, match="neither"):
        find_mask_clips(tmp_path)


def test_objects_under_other_ids_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A score of 0 since the predictions number the objects otherwise is not left without a word."""
    found, true = (
        predict(tmp_path / "found", answer=lambda index: np.where(truth_at(index) == 1, 7, truth_at(index))),
        predict(tmp_path / "true"),
    )
    assert 0 == main(["score", str(found), str(true)])
    assert "no pixel of object 1 was found; do the predictions have other ids" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["masks", "Annotations/true", "true"])
def test_predictions_of_one_clip_may_lie_where_commands_leave_them(place: str, tmp_path: Path) -> None:
    """The OUT of `track` and of `evaluate` are taken as they are."""
    predict(tmp_path / "true")
    predict(tmp_path / "out" / place)
    assert 0 == main(["score", str(tmp_path / "out"), str(tmp_path / "true")])


def test_masks_are_matched_by_number_where_no_name_is_the_same(tmp_path: Path) -> None:
    """`7.bmp` is of `00007.png`; where a name is the same names alone count; two files of one name are an error."""
    (clip,) = find_mask_clips(predict(tmp_path / "true"))
    (tmp_path / "found").mkdir()
    for index in range(FRAMES):
        Image.fromarray(truth_at(index).astype(np.uint8)).save(tmp_path / "found" / f"{index}.bmp")
    pairs = pair_masks(tmp_path / "found", clip)
    assert [f"{index}.bmp" for index in range(FRAMES)] == [pairs.files[index].name for index in range(FRAMES)]
    assert {1.0} == {scores.region.mean for scores in score_clip(tmp_path / "found", clip).objects}
    write_palette_png(tmp_path / "found" / "00003.png", truth_at(3))
    assert [3] == list(pair_masks(tmp_path / "found", clip).files)
    write_palette_png(tmp_path / "found" / "5.png", truth_at(5))
    with pytest.raises(MaskError, match="one mask of each name"):
        pair_masks(tmp_path / "found", clip)


PUBLISHED = Path(__file__).parents[2] / "shared" / "eval"
# J-Mean and F-Mean of STM's published masks, by the official toolkit.
OFFICIAL = {
    "blackswan": (0.962, 0.998),
    "car-shadow": (0.968, 0.997),
    "dog": (0.952, 0.982),
    "drift-straight": (0.944, 0.951),
}


@pytest.mark.skipif(not (PUBLISHED / "stm_predictions").is_dir(), reason="needs masks that are not ours to give away")
@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_published_masks_score_what_the_official_toolkit_says(name: str) -> None:
    """J and F of a method's published masks equal the official figures to the third decimal."""
    (clip,) = find_clips(PUBLISHED / "davis2016", names=[name])
    folder = predictions_of(PUBLISHED / "stm_predictions", clip)
    assert folder is not None
    result = score_clip(folder, clip)

    assert OFFICIAL[name] == (round(result.region, 3), round(result.boundary, 3))


def test_cases_cover_each_data_set() -> None:
    """Every data set in the table is tested."""
    from stmemory.evaluation import DATA_SETS

    assert set(DATA_SETS) == {case.name for case in CASES if case.name}, [case_id(case) for case in CASES]
