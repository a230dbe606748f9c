"""The page of an evaluation: which frames are the worst, and what the page holds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from data_sets import CASES, FRAMES, truth_at, write_data_set
from PIL import Image

from stmemory.errors import OptionError
from stmemory.evaluation import ClipResult, ObjectScores, current_circumstances, find_data_set, score_clip, statistics
from stmemory.evaluation.page import worst_frames, write_page
from stmemory.evaluation.run_folder import RunFolder
from stmemory.io.palette import write_palette_png


def result_of(*values: float, first: int = 1) -> ClipResult:
    """A clip of one object with those J."""
    frames = tuple(range(first, first + len(values)))
    return ClipResult(
        "walk", (ObjectScores(1, statistics(values), statistics(values), frames),), len(values), 1.0, 40, 56
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.9, 0.2, 0.8), [(1, 0.9), (2, 0.2), (3, 0.8)]),
        ((0.9, 0.2, 0.1, 0.2, 0.9, 0.9, 0.5, 0.9), [(1, 0.9), (3, 0.1), (5, 0.9), (7, 0.5)]),
        ((), []),
    ],
    ids=["few", "rows", "none"],
)
def test_worst_frames_are_in_order_and_apart(values: tuple[float, ...], expected: list[tuple[int, float]]) -> None:
    """Of a row of bad frames the worst is taken; neighbours of it are not."""
    assert expected == worst_frames(result_of(*values), 4)


def test_worst_frames_are_means_over_the_objects_that_count() -> None:
    """An object that is not there yet does not count in a frame."""
    one, two = result_of(0.9, 0.3, 0.5).objects[0], result_of(0.1, first=3).objects[0]
    result = ClipResult("walk", (one, two), 3, 1.0, 40, 56)
    assert [(2, 0.3), (3, 0.3)] == worst_frames(result, 9)[1:]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib, the extra `plot`")
def test_the_page_has_curves_and_worst_frames(tmp_path: Path) -> None:
    """The index names two pictures a clip, and they are there; a clip without scores has none."""
    clips = find_data_set("davis2017", write_data_set(CASES[2], tmp_path / "data", clips=("run", "walk")))
    folder, results = RunFolder(tmp_path / "out"), []
    for clip in clips:
        for index in range(FRAMES):
            write_palette_png(folder.mask_of(clip, index), np.roll(truth_at(index), index // 2, axis=1))
        results.append(score_clip(folder.masks_of(clip.name), clip))
    results.append(ClipResult("still", (), 0, 0.0, 40, 56))
    index_file = write_page(folder, clips, results, current_circumstances(resolution=480))
    text = index_file.read_text()

    assert {f"{clip}{kind}.png" for clip in ("run", "walk") for kind in ("", "_worst")} | {"index.md"} == {
        p.name for p in folder.page.iterdir()
    }
    assert all(f"]({clip}{kind}.png)" in text for clip in ("run", "walk") for kind in ("", "_worst"))
    assert "| still | 0 | - | - | - |" in text and "short side 480" in text
    for picture in folder.page.glob("*.png"):
        with Image.open(picture) as image:
            assert np.array(image.convert("L")).std() > 5


def test_without_matplotlib_the_page_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OptionError, match=r"stmemory\[plot\]"):
        write_page(RunFolder(tmp_path), [], [], current_circumstances())


def test_without_ray_the_cluster_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    from stmemory.evaluation.workers import Setup, evaluate_on_cluster
    from stmemory.options import TrackingOptions

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"stmemory\[cluster\]"):
        evaluate_on_cluster(Setup(None, TrackingOptions()), [], RunFolder(tmp_path), print, address="local")
