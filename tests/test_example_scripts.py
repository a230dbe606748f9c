"""Facts about the examples that are whole scripts: files in, files out, on tiny clips."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from data_sets import CASES, write_data_set
from pictures import save_still
from PIL import Image
from test_examples import EXAMPLES, _load

from stmemory import VOSPredictor
from stmemory.errors import MaskError
from stmemory.evaluation.scenes import render_scene
from stmemory.io.palette import read_palette_png, write_palette_png
from stmemory.io.video import iterate_video

SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if "Usage: python" in path.read_text(encoding="utf-8"))


def frames_in(folder: Path, number: int, *, height: int = 64, width: int = 96) -> tuple[str, str]:
    """A rendered clip as a folder of images, and its first mask."""
    (folder / "clip").mkdir(parents=True)
    for index, (frame, ids) in enumerate(render_scene(number, height=height, width=width)):
        Image.fromarray(frame).save(folder / "clip" / f"{index:05d}.png")
        if index == 0:
            write_palette_png(folder / "first.png", ids)
    return str(folder / "clip"), str(folder / "first.png")


def tracked(clip: str, mask: str) -> list[list[list[int]]]:
    """Ids of every frame, from `track`."""
    return [result.ids.tolist() for result in VOSPredictor.from_pretrained().track(clip, mask)]


def masks_in(folder: Path) -> list[list[list[int]]]:
    """Ids of the palette PNGs of a folder, in order."""
    return [read_palette_png(path).tolist() for path in sorted(folder.glob("*.png"))]


@pytest.mark.slow
def test_several_videos_leave_the_masks_of_each(tmp_path: Path) -> None:
    """Two clips of different sizes and lengths give what each gives alone."""
    one, other = frames_in(tmp_path / "a", 4), frames_in(tmp_path / "b", 2, height=48, width=64)
    assert {0: 4, 1: 2} == _load("several_videos").main(str(tmp_path / "out"), *one, *other)
    assert [tracked(*one), tracked(*other)] == [masks_in(tmp_path / "out" / str(video)) for video in (0, 1)]


def test_sittings_give_the_masks_of_one_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped after two frames and again after one more, the masks are those of a clip tracked at once."""
    clip, mask = frames_in(tmp_path, 7)
    script = _load("save_and_resume")
    reached = [script.main(clip, mask, str(tmp_path / "out"), at_most) for at_most in (2, 1, None, None)]
    assert [2, 3, 6, 6] == reached
    assert tracked(clip, mask) == masks_in(tmp_path / "out")
    assert "continuing after frame 2" in capsys.readouterr().out


def test_a_folder_is_tracked_from_its_first_mask_on_with_late_objects(tmp_path: Path) -> None:
    """Masks stand under the names of their frames; the second object enters with its own, and comes back as it was
    given."""
    clip, _ = frames_in(tmp_path, 6)
    truth = [ids for _, ids in render_scene(6, height=64, width=96)]
    write_palette_png(tmp_path / "marked" / "00001.png", np.where(truth[1] == 1, 1, 0))
    write_palette_png(tmp_path / "marked" / "00003.png", np.where(truth[3] == 2, 2, 0))
    tracked_ids = _load("track_folder").main(clip, str(tmp_path / "marked"), str(tmp_path / "out"))
    assert {"00001": (1,), "00002": (1,), "00003": (1, 2), "00004": (1, 2), "00005": (1, 2)} == tracked_ids
    assert (truth[3] == 2).tolist() == (read_palette_png(tmp_path / "out" / "00003.png").numpy() == 2).tolist()
    write_palette_png(tmp_path / "marked" / "9.png", truth[0])
    with pytest.raises(SystemExit, match="expected names of frames, got 9"):
        _load("track_folder").main(clip, str(tmp_path / "marked"), str(tmp_path / "out"))


def test_sam2_drop_in_leaves_the_masks_of_track(tmp_path: Path) -> None:
    """The script of a SAM 2 user gives what `track` gives."""
    clip, mask = frames_in(tmp_path, 5)
    assert 5 == _load("sam2_drop_in").main(clip, mask, str(tmp_path / "out"))
    assert tracked(clip, mask) == masks_in(tmp_path / "out")


def test_webcam_takes_a_file_without_opencv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a source, a mask and a place for the overlay no OpenCV is imported, and the film has every frame, the first
    too."""
    pytest.importorskip("av")
    monkeypatch.setitem(sys.modules, "cv2", None)
    clip, mask = frames_in(tmp_path, 5)
    assert 5 == _load("webcam").main(["--source", clip, "--mask", mask, "--out", str(tmp_path / "film.mp4")])
    assert 5 == sum(1 for _ in iterate_video(tmp_path / "film.mp4"))


@pytest.mark.parametrize("arguments", [[], ["--source", "clip", "--mask", "m.png"]], ids=["camera", "nowhere to write"])
def test_webcam_says_that_opencv_is_missing(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install, and no traceback."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SystemExit, match="pip install opencv-python"):
        _load("webcam").main(arguments)


def stand_in(*, opens: bool = True, box: tuple[int, int, int, int] = (20, 10, 30, 40)) -> SimpleNamespace:
    """What the script uses of OpenCV: a camera of five BGR frames, a box whose inside is the object, q at the fourth
    picture."""
    pictures = iter([frame[..., ::-1] for frame, _ in render_scene(5, height=64, width=96)])
    keys = itertools.chain([-1, -1, -1, ord("q")])
    found: list[np.ndarray] = []

    def grab_cut(picture: np.ndarray, mask: np.ndarray, box: tuple[int, int, int, int], *_: object) -> None:
        mask[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 3

    def read() -> tuple[bool, np.ndarray | None]:
        picture = next(pictures, None) if opens else None
        return picture is not None, picture

    camera = SimpleNamespace(read=read)
    return SimpleNamespace(
        VideoCapture=lambda number: camera,
        selectROI=lambda title, picture: box,
        grabCut=grab_cut,
        GC_INIT_WITH_RECT=0,
        GC_FGD=1,
        GC_PR_FGD=3,
        imshow=lambda title, picture: found.append(picture),
        waitKey=lambda ms: next(keys),
        found=found,
    )


def test_webcam_follows_what_is_in_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for OpenCV: pictures are shown in its order of colours until q or until the camera ends."""
    cv2 = stand_in()
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    assert 4 == _load("webcam").main([])
    assert [(64, 96, 3)] * 4 == [picture.shape for picture in cv2.found]
    truth = [frame for frame, _ in render_scene(5, height=64, width=96)]
    corner = (slice(0, 4), slice(0, 4))
    assert np.abs(cv2.found[0][corner][..., ::-1].astype(int) - truth[0][corner]).max() <= 1


def test_webcam_says_that_a_camera_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to try."""
    monkeypatch.setitem(sys.modules, "cv2", stand_in(opens=False))
    with pytest.raises(SystemExit, match="camera 2 cannot be opened"):
        _load("webcam").main(["--source", "2"])


def test_webcam_says_that_no_box_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box of no size is no object: GrabCut, which would fail, is not asked."""
    cv2 = stand_in(box=(0, 0, 0, 0))
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    monkeypatch.delattr(cv2, "grabCut")
    with pytest.raises(MaskError, match="mark at least one pixel"):
        _load("webcam").main([])


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_without_arguments_say_their_usage(path: Path) -> None:
    """Not a traceback."""
    ended = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    )
    assert (1, 1, []) == (ended.returncode, ended.stderr.count("Usage: python "), re.findall("Traceback", ended.stderr))


def test_evaluate_davis_leaves_masks_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a tiny DAVIS: a score for each clip, a mask a frame, the three tables."""
    case = next(case for case in CASES if case.name == "davis2017" and case.split == "val")
    root = write_data_set(case, tmp_path / "DAVIS")
    mean = _load("evaluate_davis").main(str(root), str(tmp_path / "out"), "walk")
    assert 0 <= mean <= 1
    assert 12 == len(list((tmp_path / "out" / "Annotations" / "walk").glob("*.png")))
    assert 3 >= len(list((tmp_path / "out").glob("*.csv"))) >= 2
    assert f"J&F {100 * mean:.1f} over 2 objects of 1 clips" in capsys.readouterr().out


def test_training_on_images_leaves_weights_that_track(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps on three pictures move the weights, and the same command with more steps goes on."""
    for number in range(3):
        save_still(tmp_path / "pictures", str(number), seed=number)
    train = _load("train_on_your_images").main
    weights = train(str(tmp_path / "pictures"), str(tmp_path / "run"), 1, size=32, batch=1)
    predictor = VOSPredictor.from_pretrained(weights)
    clip, mask = frames_in(tmp_path, 3)
    assert 3 == len(list(predictor.track(clip, mask)))
    bundled = VOSPredictor.from_pretrained().network.state_dict()
    assert any(not value.equal(bundled[name]) for name, value in predictor.network.state_dict().items())
    assert f"weights: {weights}" in capsys.readouterr().out
