"""Facts about the speed benchmark: what belongs to which stage, what is counted, what is told."""

from __future__ import annotations

import itertools
import json
import mmap
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import new_predictor
from torch.utils.flop_counter import FlopCounterMode

from stmemory.cli import main
from stmemory.errors import OptionError
from stmemory.evaluation.report import current_circumstances
from stmemory.evaluation.speed import (
    CaseSpeed,
    SpeedCase,
    SpeedReport,
    coloured_boxes,
    compare_speed,
    describe_speed,
    measure_speed,
    read_speed,
    speed_document,
    write_speed,
)
from stmemory.evaluation.stages import (
    STAGES,
    Clock,
    Products,
    Timeline,
    matrix_rate,
    peak_bytes,
    replay_seconds,
    watched,
)
from stmemory.networks.layers import _can_fuse, convolve

CPU = torch.device("cpu")


class Ticks:
    """A clock whose every mark is one second after the last."""

    device = CPU

    def __init__(self) -> None:
        self.now = 0.0

    def mark(self) -> float:
        self.now += 1
        return self.now

    def between(self, marks: list[float]) -> list[float]:
        return [end - begin for begin, end in itertools.pairwise(marks)]


def full_stream(objects: int, **options: Any) -> tuple[Any, Any, list[Any]]:
    """A predictor, a stream of it whose memory is full, and frames."""
    predictor = new_predictor(memory_size=3, **options)
    frames, mask = coloured_boxes(objects, 48, 64)
    stream = predictor.start(frames[0], mask)
    for frame in frames[1:6]:
        stream.step(frame)
    return predictor, stream, frames


def test_a_step_passes_through_its_stages_in_order() -> None:
    """With a full memory a step prepares, encodes, reads, decodes, aggregates, memorises, writes and fuses."""
    predictor, stream, frames = full_stream(2)
    with watched(predictor.network, Ticks()) as timeline:
        stream.step(frames[6])
    expected = [
        "prepare",
        "encode",
        "read",
        *("read", "decode", "decode", "aggregate") * 2,  # one object after the other
        *("memorise", "write") * 2,
        *("fuse", "write") * 2,
        "end",
    ]
    assert expected == timeline.stages
    assert len(expected) - 1 == sum(timeline.seconds().values())
    assert 2 == timeline.rows


def test_a_network_is_let_go_after_it_was_watched() -> None:
    """What runs after the step was watched is not seen, and neither is anything after an error."""
    predictor, stream, frames = full_stream(1)
    with pytest.raises(ZeroDivisionError), watched(predictor.network, Ticks()) as timeline:
        _ = 1 / 0
    stream.step(frames[6])
    assert ["prepare"] == timeline.stages


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_products_are_counted_as_torch_counts_them(mode: type) -> None:
    """Convolutions, matrix products and attention add up to what torch's own counter says, in inference mode too."""
    convolution, features = torch.nn.Conv2d(6, 8, 3, groups=2, padding=1), torch.randn(2, 6, 5, 7)
    rows = torch.randn(2, 3, 4, 16)

    def work() -> None:
        convolution(features)
        torch.mm(rows[0, 0], rows[0, 1].t())
        torch.bmm(rows[0], rows[1].transpose(1, 2))
        torch.nn.functional.linear(rows[0, 0], rows[0, 1])
        rows[0, 0] @ rows[0, 1].t()
        rows @ rows[0, 0].t()  # several matrices by one

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    with mode(), Products(Timeline(Clock(CPU))) as products:
        work()
    assert counter.get_total_flops() == products.operations["prepare"]
    assert 2 * 2 * 8 * 35 * 27 == products.convolutions
    assert all(spent > 0 for spent in products.seconds())


def test_products_are_counted_as_by_hand() -> None:
    """Two operations for each number of the result and each product in its sum."""
    convolution, features = torch.nn.Conv2d(6, 8, 3, padding=1), torch.randn(2, 6, 5, 7)
    with torch.inference_mode(), Products(Timeline(Clock(CPU))) as products:
        convolution(features)
        torch.randn(4, 3, 16) @ torch.randn(16, 5)
    assert 2 * (2 * 8 * 5 * 7) * (6 * 3 * 3) == products.convolutions
    assert products.convolutions + 2 * (4 * 3 * 5) * 16 == products.operations["prepare"]


@pytest.mark.skipif(not _can_fuse(torch.float32), reason="a build of torch without oneDNN")
def test_a_convolution_with_its_activation_counts_as_one_without() -> None:
    """What follows in the same pass adds no operations."""
    convolution, features = torch.nn.Conv2d(6, 8, 3, padding=1), torch.randn(2, 6, 5, 7)
    with torch.inference_mode(), Products(Timeline(Clock(CPU))) as products:
        convolve(convolution, features, "relu6")
    assert 2 * (2 * 8 * 5 * 7) * (6 * 3 * 3) == products.convolutions


def test_a_build_of_torch_without_onednn_can_be_measured() -> None:
    """Nothing names its operations before it is known that they are there."""
    script = (
        "import types, torch; torch.ops.mkldnn = types.SimpleNamespace(); import stmemory.evaluation.stages\n"
        "from stmemory.memory.attention import products; from stmemory.networks.layers import ConvNorm\n"
        "torch.inference_mode()(ConvNorm(1, 1, norm='none'))(torch.ones(1, 1, 3, 3))\n"
        "print(products(torch.ones(1, 3), torch.ones(1, 3)).item())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (0, "3.0\n") == (done.returncode, done.stdout), done.stderr


def test_attention_is_two_products() -> None:
    """Queries by keys, and scores by values."""
    query, key = torch.randn(1, 2, 5, 8), torch.randn(1, 2, 7, 8)
    with torch.inference_mode(), Products(Timeline(Clock(CPU))) as products:
        torch.nn.functional.scaled_dot_product_attention(query, key, key)
    assert 2 * 2 * (5 * 7 * 8) * 2 == sum(products.operations.values())


def test_boxes_are_where_the_mask_says() -> None:
    """Each object has a colour of its own and a quarter of its place, and moves little."""
    frames, mask = coloured_boxes(10, 480, 854)
    assert list(range(11)) == np.unique(mask).tolist()
    assert 10 == len({tuple(frames[0][mask == number].mean(0).astype(int)) for number in range(1, 11)})
    assert (480, 854, 3) == frames[-1].shape


@pytest.mark.parametrize(("objects", "height", "width"), [(0, 48, 64), (25, 480, 854), (20, 32, 32)], ids=str)
def test_boxes_need_room(objects: int, height: int, width: int) -> None:
    """Too many objects for a frame are refused."""
    with pytest.raises(OptionError, match="expected 1 to 24 objects with 16 pixels"):
        coloured_boxes(objects, height, width)


def test_cases_and_rounds_are_needed() -> None:
    """Nothing to measure is an error."""
    with pytest.raises(OptionError, match="at least one case and one round, got 0 and 3"):
        measure_speed(new_predictor(), [], rounds=3)


def test_every_case_is_measured_in_every_round() -> None:
    """Each case brings its objects, K and policy, and all of its stages have as many times as there are rounds."""
    cases = [SpeedCase(1, 2, "drop", 48, 64), SpeedCase(2, 3, "least_similar", 48, 64)]
    rounds: list[int] = []
    report = measure_speed(new_predictor(), cases, rounds=3, on_round=rounds.append)
    assert [1, 2, 3] == rounds
    assert cases == [speed.case for speed in report.cases]
    assert {(3,)} == {speed.stages[stage].shape for speed in report.cases for stage in STAGES} | {report.rates.shape}
    assert report.cases[1].operations["encode"] == report.cases[0].operations["encode"] > 0  # once a frame
    assert report.cases[1].operations["decode"] > report.cases[0].operations["decode"]
    assert (0, True) == (report.cases[0].operations["fuse"], report.cases[1].operations["fuse"] > 0)
    assert all(speed.convolution_operations <= sum(speed.operations.values()) for speed in report.cases)


def test_bfloat16_is_measured_as_such() -> None:
    """The network computes in the type that was asked for, and the ceiling is that type's."""
    report = measure_speed(new_predictor(), [SpeedCase(1, 2, "least_similar", 48, 64)], rounds=1, dtype=torch.bfloat16)
    assert "bfloat16" == report.dtype


class Event:
    """A CUDA event that happens when it is recorded, a millisecond after the last."""

    now = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.now += 1
        self.at = Event.now

    def elapsed_time(self, end: Event) -> float:
        return float(end.at - self.at)


def test_marks_on_cuda_are_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA time is told by events, and the device is waited for once, at the end."""
    waited: list[object] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    clock = Clock(torch.device("cuda"))
    marks = [clock.mark() for _ in range(3)]
    assert [] == waited
    assert [0.001, 0.001] == clock.between(marks)
    assert [torch.device("cuda")] == waited


def test_graphs_are_for_cuda_alone() -> None:
    """On the CPU there are none to replay."""
    assert {} == replay_seconds(Timeline(Clock(CPU)))


def test_the_rate_is_that_of_a_matrix_product() -> None:
    """2 n^3 operations in the time between two marks."""
    assert 2.0 * 8**3 == matrix_rate(Ticks(), torch.float32, side=8)


def test_peak_bytes_see_what_was_freed_again() -> None:
    """64 MiB that are gone at the end were there; of fresh pages, since the allocator may still hold some that earlier
    tests freed."""

    def touch() -> None:
        with mmap.mmap(-1, 2**26) as pages:
            pages.write(bytes([1]) * 2**26)

    before = peak_bytes(lambda: None, CPU)
    assert peak_bytes(touch, CPU) - before >= 0.8 * 2**26


def drawn_report() -> SpeedReport:
    """Times that are easy to divide: every stage takes 1, 2 and 3 seconds."""
    times = {stage: np.array([1.0, 2.0, 3.0]) for stage in STAGES}
    operations = dict.fromkeys(STAGES, 0) | {"encode": 400, "read": 200}
    speed = CaseSpeed(SpeedCase(objects=2), times, operations, 3.0, 400, 1.0, 1, 5_000_000, {"encode": 0.5})
    return SpeedReport((speed,), np.array([1000.0, 1000.0]), "float32")


def test_a_report_tells_shares_of_the_ceiling(tmp_path: Path) -> None:
    """Operations over the median time over the rate of a matrix product, for stages, products and convolutions."""
    document = speed_document(drawn_report(), current_circumstances(), extra={"rounds": 3})
    write_speed(tmp_path / "new" / "speed.json", document)
    read = read_speed(tmp_path / "new" / "speed.json")
    assert json.loads(json.dumps(document)) == read
    (case,) = read["cases"].values()
    assert {"median": 2.0, "spread": 1.0, "operations": 400, "share_of_ceiling": 0.2} == case["stages"]["encode"]
    assert (16.0, 600) == (case["stages"]["step"]["median"], case["stages"]["step"]["operations"])
    assert (0.2, 0.4) == (case["products"]["share_of_ceiling"], case["convolutions"]["share_of_ceiling"])
    told = "\n".join(describe_speed(read))
    assert "0.06 frames/s; convolutions alone at 40 % of the ceiling" in told
    assert "1 of 2 objects were memorised" in told and "encode as a CUDA graph: 500.00 ms" in told


def test_two_runs_are_compared_stage_by_stage() -> None:
    """A run of half the times is twice as fast; other circumstances are named."""
    ours, theirs = (speed_document(drawn_report(), current_circumstances()) for _ in range(2))
    for figures in next(iter(theirs["cases"].values()))["stages"].values():
        figures["median"] *= 2
    theirs["circumstances"] = theirs["circumstances"] | {"threads": 99}
    told = "\n".join(compare_speed(ours, theirs))
    assert "encode 2.00" in told and "step 2.00" in told
    assert "another threads" in told and "beside 99" in told
    assert "no case in common" in "\n".join(compare_speed(ours, theirs | {"cases": {}}))


def test_a_comparison_names_all_that_differs() -> None:
    """The dtype, the weights, the resolution and the options; not what cases bring themselves."""
    options = {
        "memory_size": 5,
        "policy": "drop",
        "top_k": None,
        "memory_every": 1,
        "short_side": 480,
        "write_gate": 0.5,
    }
    ours = speed_document(
        drawn_report(), current_circumstances(resolution=480), extra={"weights": "lite", "options": options}
    )
    other = options | {"memory_size": 9, "top_k": 4, "short_side": 360, "write_gate": 0.1}
    theirs = speed_document(
        drawn_report(), current_circumstances(resolution=360), extra={"weights": "mine", "options": other}
    )
    told = [line for line in compare_speed(ours, theirs | {"dtype": "bfloat16"}) if line.startswith("another")]
    expected = [
        "resolution: 480 beside 360",
        "dtype: float32 beside bfloat16",
        "weights: lite beside mine",
        "top_k: None beside 4",
    ]
    assert [f"another {what}" for what in expected] == told


@pytest.mark.parametrize("text", ["{", "[]", '{"cases": {}}'], ids=["no JSON", "a list", "another report"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    """What is no report of this benchmark is named."""
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(OptionError, match="expected a report of `stmemory benchmark speed`"):
        read_speed(tmp_path / "other.json")


@pytest.mark.slow
def test_the_command_writes_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints a table for every case, writes a report, and takes that report to compare with."""
    report = str(tmp_path / "speed.json")
    small = ["benchmark", "speed", "--sizes", "96x64", "--objects", "1", "--slots", "2", "3", "--rounds", "1"]
    assert 0 == main([*small, "-o", report])
    assert 0 == main([*small, "--rules", "drop", "least_similar", "--compare", report])
    said = capsys.readouterr().out
    assert "96 x 64, objects 1, K 3, drop" in said and "matrix product" in said and "step " in said


def test_a_case_given_twice_is_measured_once(tmp_path: Path) -> None:
    """Cases that are alike are merged."""
    arguments = [
        "--sizes",
        "96x64",
        "96x64",
        "--objects",
        "1",
        "1",
        "--rounds",
        "1",
        "-o",
        str(tmp_path / "speed.json"),
    ]
    told: list[list[SpeedCase]] = []

    def spy(predictor: object, cases: list[SpeedCase], **options: object) -> SpeedReport:
        told.append(cases)
        raise OptionError("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stmemory.evaluation.speed.measure_speed", spy)
        assert 2 == main(["benchmark", "speed", *arguments])
    assert [[SpeedCase(1, 5, "least_similar", 64, 96)]] == told


@pytest.mark.usefixtures("signals")
def test_an_interrupted_measurement_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the measuring after the round at hand, of which all cases have a part; the command exits with 130."""

    def rate(clock: Clock, dtype: torch.dtype) -> float:
        signal.raise_signal(signal.SIGINT)
        return 1e9

    monkeypatch.setattr("stmemory.evaluation.speed.matrix_rate", rate)
    report = tmp_path / "speed.json"
    assert 130 == main(
        ["benchmark", "speed", "--sizes", "96x64", "--objects", "1", "--slots", "2", "--rounds", "9", "-o", str(report)]
    )
    assert (1, True) == (read_speed(report)["rounds"], read_speed(report)["interrupted"])
    assert "stopped after 1 of 9 rounds" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["480p", "0x0", "854x0", "x480"])
def test_sizes_are_width_by_height(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Another form, and a frame without pixels, is refused with an example."""
    with pytest.raises(SystemExit):
        main(["benchmark", "speed", "--sizes", size])
    assert f"expected a size such as 854x480, got {size!r}" in capsys.readouterr().err


def test_passes_are_told_for_each_size_number_and_part(capsys: pytest.CaptureFixture[str]) -> None:
    """`stmemory benchmark passes` prints a line for each part of the network, both ways."""
    assert 0 == main(["benchmark", "passes", "--videos", "2", "3", "--sizes", "32x16", "--rounds", "1"])
    _, heads, *lines = capsys.readouterr().out.splitlines()
    assert ["encode", "decode", "memorise"] * 2 == [line.split()[3] for line in lines]
    assert ["2"] * 3 + ["3"] * 3 == [line.split()[4] for line in lines]
    assert all(float(line.split()[5]) > 0 for line in lines) and heads.endswith("ratio")
