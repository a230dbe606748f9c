"""Facts about `examples/training/rigid_clips.py`, where pybullet is installed: what it writes is material for
training."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from stmemory.io.palette import read_palette_png
from stmemory.training.data.folders import open_folder
from stmemory.training.synthesis.clips import ClipConfig, ClipSource

pytest.importorskip("pybullet", reason="needs pybullet, which nothing else here does", exc_type=ImportError)

FRAMES = 3


@pytest.fixture
def rigid(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example, with clips of three small frames."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "examples" / "training"))
    module = importlib.import_module("rigid_clips")
    for name, value in (("FRAMES", FRAMES), ("WIDTH", 56), ("HEIGHT", 32)):
        monkeypatch.setattr(module, name, value)
    return module


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos of noise."""
    folder = tmp_path / "photos" / "images"
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(drawn.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder.parent


def test_two_clips_open_as_a_source(rigid: ModuleType, photos: Path, tmp_path: Path) -> None:
    """The layout is DAVIS', every frame has its mask, and training makes clips of it."""
    out = tmp_path / "out"
    rigid.main(["--material", str(photos), "--clips", "2", "--jobs", "1", "-o", str(out)])
    pictures = open_folder(out, layout="davis")

    assert 2 * FRAMES == len(pictures.items)
    assert () == pictures.skipped
    assert (2, 3, 16, 16) == tuple(ClipSource(pictures, ClipConfig(size=16, frames=2), seed=0).clip(0).frames.shape)


def test_a_clip_depends_on_its_seed_and_number_alone(rigid: ModuleType, photos: Path, tmp_path: Path) -> None:
    """A clip that is missing is made again, the same; one that is there stays untouched."""
    first, second = tmp_path / "first", tmp_path / "second"
    command = ["--material", str(photos), "--jobs", "1", "--seed", "5"]
    rigid.main([*command, "--clips", "2", "-o", str(first)])
    rigid.main([*command, "--first", "1", "--clips", "1", "-o", str(second)])
    files = sorted(path.relative_to(second) for path in second.rglob("*.*") if path.is_file())
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    rigid.main([*command, "--clips", "2", "-o", str(first)])

    assert 2 * FRAMES == len(files)
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    assert before == {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    assert 0 < read_palette_png(sorted(first.rglob("*.png"))[0]).max() < 20
