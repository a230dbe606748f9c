"""Facts about the growth benchmark: slopes, the formula of the bank's bytes, and the memory that never forgets."""

from __future__ import annotations

import csv
import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CONFIG, boxes, clip, new_predictor

from stmemory.cli import main
from stmemory.cli.benchmark import _every
from stmemory.errors import OptionError
from stmemory.evaluation import growth
from stmemory.evaluation.growing import GrowingPredictor
from stmemory.evaluation.growth import (
    BankBytes,
    GrowthLimit,
    GrowthReport,
    Slope,
    block_slope,
    measure_growth,
    slope_per_thousand,
    soak,
    soak_growing,
    write_growth,
)
from stmemory.evaluation.report import current_circumstances

STEPS = 23


def test_a_slope_through_blocks_is_that_of_their_medians() -> None:
    """Forty blocks of equal length, each by its median; what is left over at the end does not count."""
    values = np.random.default_rng(0).normal(size=417).cumsum()
    medians = np.median(values[:400].reshape(40, 10), axis=1)
    coefficients = np.polyfit(np.arange(40) * 10, medians, 1)
    assert 1000 * coefficients[0] == pytest.approx(block_slope(values).per_thousand)
    assert slope_per_thousand(values[:100]) == block_slope(values[:100])


def test_noise_that_hangs_together_is_no_slope() -> None:
    """Flat noise with a memory of ten frames passes for flat as often as two standard errors promise, by blocks
    alone."""
    drawn = np.random.default_rng(1)
    by_blocks = by_frames = 0
    for _ in range(200):
        white = drawn.normal(size=4100)
        values = np.convolve(white, 0.9 ** np.arange(100))[100:4100]
        by_blocks += block_slope(values).is_zero
        by_frames += slope_per_thousand(values).is_zero
    assert by_blocks >= 180 > 120 > by_frames


@pytest.mark.parametrize(
    ("slope", "expected"), [((0, 0), True), ((2, 1), True), ((-2.1, 1), False), ((0, np.nan), False)], ids=str
)
def test_zero_is_within_two_standard_errors(slope: tuple[float, float], expected: bool) -> None:
    """A constant has slope zero without error; where no error is known nothing is claimed."""
    assert expected is Slope(*slope).is_zero


def test_a_run_ends_where_it_is_told_enough() -> None:
    """The step that passes the limit is the last one, and the report is as long as the run."""
    kept: list[int] = []
    report = measure_growth(
        kept.append,
        range(99),
        steps=50,
        bank_bytes=lambda: len(kept),
        enough=lambda seconds, size: seconds >= 0 and size == 7,
    )
    assert (7, [1, 2, 3, 4, 5, 6, 7]) == (report.frames, report.bank_bytes.tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("ids", "slots", "size"), [((1,), 2, (16, 16)), ((3, 9), 5, (48, 64)), ((1, 2, 3), 4, (33, 50))], ids=str
)
def test_the_banks_bytes_are_those_of_the_formula(
    ids: tuple[int, ...], slots: int, size: tuple[int, int], dtype: torch.dtype
) -> None:
    """To the byte, for any number of objects, slots and cells, at every frame."""
    cells = -(-size[0] // 16) * -(-size[1] // 16)
    formula = BankBytes.of(CONFIG, rows=len(ids), slots=slots, cells=cells, itemsize=dtype.itemsize)
    frames = clip(slots + 3, *size)
    stream = new_predictor(memory_size=slots, dtype=dtype).start(frames[0], boxes(*ids, height=size[0], width=size[1]))
    for frame in frames[1:]:
        assert formula.total == stream.bank.nbytes
        stream.step(frame)
    assert f"= {formula.total:,}" in str(formula)


@pytest.mark.parametrize("every", [1, 5])
def test_a_growing_memory_keeps_every_nth_frame_and_the_last(every: int) -> None:
    """STM's rule: the first frame, every n-th, and the one before the present; none goes, none is fused."""
    frames = clip(STEPS + 1)
    memory = GrowingPredictor(new_predictor(), every=every).start(frames[0], boxes(3, 9))
    for step in range(1, STEPS + 1):
        memory.step(frames[step])
        expected = sorted({*range(0, step + 1, every), step})
        for row in range(2):
            slots = memory.bank.describe(row)
            assert expected == sorted(slot.frame for slot in slots)
            assert all(slot.frames_inside == 1 for slot in slots)


def test_growing_changes_no_number() -> None:
    """A memory that grows slot by slot gives what one that had all the room from the first frame on gives."""
    frames = clip(STEPS + 1)
    memory = GrowingPredictor(new_predictor(), every=2).start(frames[0], boxes(3, 9))
    roomy = new_predictor(memory_size=STEPS, policy="drop", memory_every=2).start(frames[0], boxes(3, 9))
    for frame in frames[1:]:
        assert torch.equal(roomy.step(frame).probabilities, memory.step(frame).probabilities)


def test_objects_may_enter_a_growing_memory() -> None:
    """A later object gets rows of its own, and the memory goes on growing."""
    frames = clip(12)
    memory = GrowingPredictor(new_predictor(), every=1).start(frames[0], boxes(3))
    for step, frame in enumerate(frames[1:], 1):
        memory.step(frame, boxes(0, 8) if step == 6 else None)
    assert [12, 6] == memory.bank.count.tolist()


def test_a_growing_memory_keeps_some_frames() -> None:
    """Every zeroth frame is none."""
    with pytest.raises(OptionError, match="n >= 1, got 0"):
        GrowingPredictor(new_predictor(), every=0)


@pytest.mark.parametrize(
    ("limit", "expected"), [(GrowthLimit(8_000, 60.0), 60), (GrowthLimit(10**9, 0.0), 50)], ids=["bytes", "time"]
)
def test_a_soak_of_a_growing_memory_ends_at_its_limit(limit: GrowthLimit, expected: int) -> None:
    """It ends with the first frame beyond the bytes, or once fifty steps tell that it is too slow."""
    report = soak_growing(GrowingPredictor(new_predictor(), every=1), limit, frames=60, size=(32, 48))
    if expected == 50:
        assert expected == report.frames
    else:
        assert report.frames < expected
        assert report.bank_bytes[-2] <= limit.bank_bytes < report.bank_bytes[-1]
    assert not report.bank_is_constant


def test_a_run_ends_where_progress_says_so() -> None:
    """What tells the progress may stop the run, and the steps taken until then are reported."""
    report = soak(new_predictor(), frames=60, size=(32, 48), on_step=lambda done: done == 4)
    assert (4, True) == (report.frames, report.bank_is_constant)
    growing = GrowingPredictor(new_predictor(), every=1)
    assert (
        3
        == soak_growing(
            growing, GrowthLimit(10**9, 60.0), frames=60, size=(32, 48), on_step=lambda done: done == 3
        ).frames
    )


def test_a_soak_needs_frames() -> None:
    """Both kinds say how many they want."""
    for run in (
        lambda: soak(new_predictor(), frames=1),
        lambda: soak_growing(GrowingPredictor(new_predictor()), GrowthLimit(1, 1.0), frames=1),
    ):
        with pytest.raises(OptionError, match="expected 2 or more, got 1"):
            run()


def test_the_table_has_every_frame_of_every_run(tmp_path: Path) -> None:
    """growth.csv has a line a frame, growth.json at most some two hundred points a curve."""
    long = GrowthReport(np.arange(1000), np.arange(1000), np.arange(1000) / 1e3)
    short = GrowthReport(np.arange(3), np.arange(3), np.arange(3) / 1e3)
    write_growth(tmp_path, {"ours": long, "other": short}, current_circumstances(), extra={"note": 1})
    with (tmp_path / "growth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"memory": "other", "frame": "3", "seconds": "0.002", "bank_bytes": "2", "process_bytes": "2"} == rows[-1]
    assert 1003 == len(rows)
    document = json.loads((tmp_path / "growth.json").read_text())
    assert (200, 3, 1) == (
        len(document["curves"]["ours"]["seconds"]),
        len(document["curves"]["other"]["frame"]),
        document["note"],
    )


SMALL = ["benchmark", "growth", "--frames", "8", "--height", "64", "--width", "96"]


@pytest.mark.slow
def test_the_command_writes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It tells the formula, both memories and how sure their slopes are, and leaves a table and a report; few frames
    are said to be few."""
    assert 0 == main([*SMALL, "-o", str(tmp_path), "--growing", "1"])
    said = capsys.readouterr().out
    assert "= 247,662 bytes; equal at every frame" in said
    assert "5 slots (ours): 8 frames" in said and "every frame kept (STM): 8 frames" in said
    assert "slopes from so few frames mean little" in said
    report = json.loads((tmp_path / "growth.json").read_text())
    ours, growing = report["growth"].values()
    assert (True, False) == (ours["bank_is_constant"], growing["bank_is_constant"])
    assert torch.__version__ == report["circumstances"]["torch"]
    assert (tmp_path / "growth.csv").is_file()


def test_too_few_frames_for_a_slope_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line through two points has no error, so neither a slope nor none is claimed."""
    assert 0 == main([*SMALL, "-o", str(tmp_path), "--growing", "0", "--frames", "3"])
    said = capsys.readouterr().out
    assert 2 == said.count("too few frames to tell")
    assert "standard errors" not in said


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("at", [2, 10], ids=["ours", "growing"])
def test_an_interrupted_run_is_written(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the measuring after the step at hand; what was measured is written, and the exit code is 130."""
    steps: list[int] = []

    def interrupting() -> int:
        steps.append(1)
        if len(steps) == at:
            signal.raise_signal(signal.SIGINT)
        return 1

    monkeypatch.setattr(growth, "resident_bytes", interrupting)
    assert 130 == main([*SMALL, "-o", str(tmp_path), "--growing", "1"])
    report = json.loads((tmp_path / "growth.json").read_text())
    assert True is report["interrupted"]
    assert [2] * (at == 2) + [8, 2] * (at == 10) == [run["frames"] for run in report["growth"].values()]
    assert "stopped after 2 frames" in capsys.readouterr().err


def test_our_run_is_written_before_the_growing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine runs out of memory in the other run, ours is not lost."""

    def full(*arguments: object, **options: object) -> GrowthReport:
        raise MemoryError

    monkeypatch.setattr("stmemory.evaluation.growth.soak_growing", full)
    with pytest.raises(MemoryError):
        main([*SMALL, "-o", str(tmp_path)])
    assert ["5 slots (ours)"] == list(json.loads((tmp_path / "growth.json").read_text())["growth"])


@pytest.mark.parametrize(
    "flag", ["--growing=-1", "--growing=x", "--limit-mb=0", "--limit-mb=nan", "--limit-slower=-2", "--limit-slower=x"]
)
def test_limits_out_of_range_are_refused(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is measured, with what was expected."""
    with pytest.raises(SystemExit) as caught:
        main([*SMALL, "-o", str(tmp_path / "new"), flag])
    assert 2 == caught.value.code
    assert f"got {flag.partition('=')[2]!r}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, "every frame"),
        (2, "every 2nd frame"),
        (5, "every 5th frame"),
        (12, "every 12th frame"),
        (23, "every 23rd frame"),
    ],
)
def test_frames_are_counted_in_words(number: int, expected: str) -> None:
    """As one says it."""
    assert expected == _every(number)


def test_without_matplotlib_the_figure_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is written all the same, and the extra is named."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert 0 == main([*SMALL, "-o", str(tmp_path), "--growing", "0"])
    assert "pip install 'stmemory[plot]'" in capsys.readouterr().err
    assert ["growth.csv", "growth.json"] == sorted(path.name for path in tmp_path.iterdir())


def test_the_figure_is_a_picture(tmp_path: Path) -> None:
    """With matplotlib there is a PNG of both runs."""
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    from stmemory.evaluation.growth import draw_growth

    runs = {
        "a": GrowthReport(np.ones(9), np.ones(9), np.ones(9)),
        "b": GrowthReport(np.arange(5), np.ones(5), np.ones(5)),
    }
    draw_growth(tmp_path / "new" / "growth.png", runs, title="a title")
    assert b"\x89PNG" == (tmp_path / "new" / "growth.png").read_bytes()[:4]


def test_a_flat_curve_on_top_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the highest value there is room, also where values are nearly alike."""
    figures = pytest.importorskip("matplotlib.figure", reason="the extra `plot` is not installed")
    from stmemory.evaluation.growth import draw_growth

    drawn: list[Any] = []
    savefig = figures.Figure.savefig
    monkeypatch.setattr(
        figures.Figure, "savefig", lambda self, *a, **more: (drawn.append(self), savefig(self, *a, **more))
    )
    draw_growth(tmp_path / "growth.png", {"a": GrowthReport(np.full(9, 4e6), 3e6 - np.arange(9), np.zeros(9))})
    assert [(0, 1), (0, pytest.approx(4.2)), (0, pytest.approx(3.15))] == [axis.get_ylim() for axis in drawn[0].axes]
