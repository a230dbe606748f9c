"""Facts about what a run resumes with: its window, its state, what it says of earlier versions' states and of damaged ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import TINY, pack_tiny
from torch import Tensor

from stmemory.errors import WeightsError
from stmemory.training.config import Phase
from stmemory.training.feed import Batch
from stmemory.training.loop import Trainer
from stmemory.training.material import Material
from stmemory.training.run_state import read_state, write_state

THREES = dataclasses.replace(TINY, phases=tuple(dataclasses.replace(phase, steps=3) for phase in TINY.phases))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny material in a file."""
    return pack_tiny(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def material(packed: Path) -> Material:
    """The same, loaded."""
    return Material.load(packed)


def log_of(out: Path) -> list[dict[str, float]]:
    """The lines of a log."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that learn nothing and take 0.5 s by a clock of ours, and validations that take 100."""
    now = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    def train_step(self: Trainer, batch: Batch, phase: Phase, *, predict: bool = False) -> tuple[dict[str, float], Tensor | None]:
        pass_time(0.5)
        self.step += 1
        return {"cross_entropy": 1.0, "dice": 2.0, "norm": 3.0}, None

    monkeypatch.setattr("stmemory.training.loop.perf_counter", lambda: now)
    monkeypatch.setattr(Trainer, "train_step", train_step)
    monkeypatch.setattr(Trainer, "_validate", lambda self, phase: pass_time(100) or {"validation": 0.5})


@pytest.mark.usefixtures("half_a_second")
def test_the_log_says_how_long_a_step_took(material: Material, tmp_path: Path) -> None:
    """Seconds a step are those of steps alone, in lines that span two phases, an interruption and a validation."""
    config = dataclasses.replace(THREES, validate_every=5, validation_clips=1)
    for until in (1, 6):
        trainer = Trainer(config, material, tmp_path, workers=0)
        trainer.resume()
        for _ in trainer.run(log_every=2, until=until):
            pass

    assert [0.5] * 3 == [record["seconds"] for record in log_of(tmp_path) if "seconds" in record]


def test_states_of_earlier_versions_are_gone_on_from(material: Material, tmp_path: Path) -> None:
    """A state without the seconds of its window gives the same log as one with them, and seconds of the steps since."""
    logs = []
    for name in ("now", "earlier"):
        out = tmp_path / name
        for _ in Trainer(TINY, material, out, workers=0).run(log_every=2, until=1):
            pass
        if name == "earlier":
            state = read_state(out / "state.pt")
            state["window"] = {key: state["window"][key] for key in ("cross_entropy", "dice", "norm", "lost", "steps")}
            write_state(out / "state.pt", state)
        again = Trainer(TINY, material, out, workers=0)
        assert again.resume()
        for _ in again.run(log_every=2):
            pass
        logs.append(log_of(out))

    assert all(record.pop("seconds") > 0 for log in logs for record in log)
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "damaged or foreign"),
        (b"{}", "damaged or foreign"),
        ([1, 2], "without average"),
        ({"average": {}}, "without network"),
        (5000, "damaged or foreign"),
    ],
    ids=["missing", "empty", "JSON", "a list", "another state", "cut short"],
)
def test_a_state_that_cannot_be_read_is_told(content: bytes | dict[str, Any] | list[int] | int | None, said: str, tmp_path: Path) -> None:
    """Missing, damaged and foreign states are errors that name the file and what is wrong with it."""
    path = tmp_path / "state.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict | list):
        torch.save(content, path)
    elif content is not None:
        write_state(path, {"average": {"weight": torch.ones(5000)}})
        path.write_bytes(path.read_bytes()[:content])
    with pytest.raises(WeightsError, match=rf"state\.pt: expected the state.*{said}"):
        read_state(path, needs=("average", "network"))
