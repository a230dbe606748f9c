"""Facts about the examples: each runs, and does what its first line says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from stmemory.evaluation.scenes import render_scene
from stmemory.io.palette import read_palette_png, write_palette_png
from stmemory.io.video import write_video
from stmemory.memory import MemoryBank

EXAMPLES = Path(__file__).parent.parent / "examples"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_short_and_tested_here() -> None:
    """An example fits on one screen, and none is without a test."""
    lengths = {path.stem: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}

    loaded = "".join(file.read_text() for file in Path(__file__).parent.glob("test_example*.py"))
    index = (EXAMPLES / "README.md").read_text()

    assert [] == [name for name in lengths if f'_load("{name}")' not in loaded]
    assert [] == [name for name in lengths if f"[{name}.py]({name}.py)" not in index]
    assert max(lengths.values()) <= 80


@pytest.mark.slow
def test_track_video_leaves_a_mask_a_frame_and_an_overlay(tmp_path: Path) -> None:
    """A clip of six frames gives six palette PNGs at its size, and a film."""
    pytest.importorskip("av")
    clip = list(render_scene(6, height=64, width=96))
    write_video(tmp_path / "clip.mp4", [frame for frame, _ in clip])
    write_palette_png(tmp_path / "first.png", clip[0][1])
    _load("track_video").main(str(tmp_path / "clip.mp4"), str(tmp_path / "first.png"), str(tmp_path / "out"))

    masks = sorted((tmp_path / "out" / "masks").glob("*.png"))
    assert [f"{index:05d}.png" for index in range(6)] == [mask.name for mask in masks]
    np.testing.assert_array_equal(clip[0][1], read_palette_png(masks[0]).numpy())
    assert (tmp_path / "out" / "overlay.mp4").stat().st_size > 0


def test_late_objects_enter_and_leave(capsys: pytest.CaptureFixture[str]) -> None:
    """The kite is tracked from its own frame on and until it is removed."""
    tracked = _load("late_objects").main()

    assert [(1,)] * 4 + [(1, 2)] * 4 + [(1,)] * 4 == tracked
    assert 11 == len(capsys.readouterr().out.splitlines())


def test_memory_in_your_model_holds_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    """After the first frame the bank and its cache hold the same bytes whatever comes."""
    sizes = _load("memory_in_your_model").main()

    assert 1 == len(sizes)
    assert "30 frames" in capsys.readouterr().out


def test_your_own_policy_spreads_templates_over_time() -> None:
    """It keeps the first frame that is pinned and the newest one, and no gap between is more than three times
    another."""
    bank = MemoryBank(6, policy=_load("write_your_own_policy").EvenlySpread())
    for frame in range(200):
        bank.write(torch.zeros(1, 1, 1), frame=frame, pinned=frame == 0)
        frames = [slot.frame for slot in bank.describe()]
        assert 0 == frames[0] and frame == frames[-1]
        gaps = np.diff(frames[:-1])  # the newest has only just come
        assert frame < 6 or max(gaps) <= 3 * min(gaps)


def test_your_own_policy_tracks(capsys: pytest.CaptureFixture[str]) -> None:
    """A predictor takes it, and it tracks about as well as the built-in ones."""
    found = _load("write_your_own_policy").main(8, height=64, width=96)

    assert ["evenly_spread", "least_similar", "drop"] == list(found)
    assert found["evenly_spread"] > found["least_similar"] - 5
    assert 3 == len(capsys.readouterr().out.splitlines())
