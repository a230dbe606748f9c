"""What the library logs, and that it shows nothing by itself."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import boxes, clip, tiny_predictor

import stmemory.stream
from stmemory.errors import BankError, WeightsError
from stmemory.jobs.folder import TrackJob
from stmemory.jobs.track import run_job
from stmemory.memory.bank import MemoryBank
from stmemory.networks.tracking import Template
from stmemory.weights.pretrained import load_network


@pytest.fixture
def job(tmp_path: Path) -> TrackJob:
    """Five frames and a mask."""
    (tmp_path / "clip").mkdir()
    for index, frame in enumerate(clip(5)):
        pixels = frame if frame.dtype == np.uint8 else (frame * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "clip" / f"{index}.png")
    Image.fromarray(boxes(1).astype(np.uint8)).save(tmp_path / "first.png")
    return TrackJob(tmp_path / "clip", tmp_path / "first.png", tmp_path / "out")


def test_loaded_weights_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The name and the folder of the weights are told."""
    with caplog.at_level(logging.INFO, "stmemory"):
        load_network()

    assert any("weights lite" in record.getMessage() and "bundled" in record.getMessage() for record in caplog.records)


def test_warnings_are_not_shown_unasked() -> None:
    """Python shows warnings of loggers without a handler; the library has one that shows nothing."""
    code = "import logging, stmemory; logging.getLogger('stmemory.io.video').warning('a frame is gone')"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "" == shown.stderr + shown.stdout


def test_a_callback_that_raises_leaves_a_state_to_resume_from(job: TrackJob, caplog: pytest.LogCaptureFixture) -> None:
    """What `on_frame` raises comes through; the job goes on from the frame after, and says so in the log."""

    def third(part: str, done: int) -> None:
        if done == 3:
            raise KeyError("the window was closed")

    with pytest.raises(KeyError, match="the window was closed"):
        run_job(tiny_predictor(), job, on_frame=third)
    with caplog.at_level(logging.INFO, "stmemory"):
        report = run_job(tiny_predictor(), job, resume=True)

    assert (5, 3, True) == (report.frames, report.resumed_at, report.finished)
    assert any("resumed after 3 frames" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("value", "error"), [(1.0, BankError), (float("nan"), WeightsError)], ids=["finite", "NaN"])
def test_only_a_template_that_is_not_finite_is_the_networks_fault(
    value: float, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else the bank refuses is said as the bank says it."""

    def refuse(*_: object, **__: object) -> None:
        raise BankError("write: refused")

    bank = tiny_predictor().network.new_bank(3)
    monkeypatch.setattr(MemoryBank, "write", refuse)
    with pytest.raises(error, match="write: refused"):
        stmemory.stream._store(bank, Template(torch.full((1, 4, 2, 2), value)), frame=0, pinned=False)
