"""Facts about `stmemory benchmark prompts`: which prompts it makes of true masks, and what it counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import CASES, write_data_set
from PIL import Image
from tiny import tiny_network
from torch import Tensor

from stmemory.cli import main
from stmemory.evaluation.clips import find_clips
from stmemory.evaluation.prompts import box_of, inmost, measure_prompts
from stmemory.io.palette import write_palette_png
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt


class Known:
    """Answers boxes with the box, one click with nothing but 3 x 3 pixels, and takes away or adds 3 x 3 at others."""

    def __init__(self) -> None:
        self.asked: list[Prompt] = []

    def masks(self, frame: Tensor, prompts: Sequence[Prompt], last: Mapping[int, Tensor]) -> Tensor:
        (prompt,) = prompts
        self.asked.append(prompt)
        made = torch.zeros(1, *frame.shape[1:])
        if prompt.box is not None:
            left, top, right, bottom = (int(side) for side in prompt.box)
            made[0, top:bottom, left:right] = 1
        for x, y in prompt.points:
            made[0, int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] = 1
        return made


def test_the_inmost_pixel_is_the_farthest_from_the_edge() -> None:
    """In city blocks, as a slow search over all pixels finds it."""
    drawn = np.random.default_rng(0)
    for _ in range(20):
        mask = drawn.random((9, 12)) < 0.8
        outside = np.argwhere(~np.pad(mask, 1)) - 1
        depth = {(r, c): int(np.abs(outside - (r, c)).sum(1).min()) for r, c in np.argwhere(mask)}
        x, y = inmost(mask)
        assert max(depth.values()) == depth[int(y), int(x)]


def test_prompts_are_of_the_true_masks(tmp_path: Path) -> None:
    """A rectangle is found from its box; clicks lie on what is missing, the box itself is counted too."""
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / "walk" / name).mkdir(parents=True)
    truth = np.zeros((40, 60), np.uint8)
    truth[10:20, 10:30] = 3
    for number in range(2):
        Image.new("RGB", (60, 40)).save(tmp_path / "walk" / "JPEGImages" / f"{number:05d}.jpg")
        write_palette_png(tmp_path / "walk" / "Annotations" / f"{number:05d}.png", truth)
    prompter = Known()
    (score,) = measure_prompts(VOSPredictor(tiny_network(), prompter=prompter), find_clips(tmp_path))
    assert (10.0, 10.0, 30.0, 20.0) == box_of(truth == 3) == prompter.asked[0].box
    assert (1.0, 1.0) == (score.as_drawn, score.box)
    assert (9 / 200, 27 / 200) == pytest.approx((score.click, score.clicks))
    assert [1, 1, 2, 3] == [len(prompt.points) + (prompt.box is not None) for prompt in prompter.asked]
    assert all(truth[int(y), int(x)] == 3 for prompt in prompter.asked for x, y in prompt.points)


def test_the_command_prints_a_row_for_each_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And their mean."""
    root = write_data_set(CASES[0], tmp_path)
    assert 0 == main(["benchmark", "prompts", str(root)])
    lines = capsys.readouterr().out.splitlines()
    rows = np.array([[float(value) for value in line.split()[2:]] for line in lines[2:-1]])
    assert ["mean", str(len(rows))] == lines[-1].split()[:2] and len(rows) > 0
    np.testing.assert_allclose(rows.mean(0), [float(value) for value in lines[-1].split()[2:]], atol=0.11)
