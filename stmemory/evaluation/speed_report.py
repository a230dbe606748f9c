"""The speed benchmark in words and in a file: tables, JSON, and the ratios of two runs. Measures nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.evaluation.report import Circumstances
from stmemory.evaluation.speed import CaseSpeed, SpeedReport
from stmemory.evaluation.stages import STAGES
from stmemory.files import whole_file
from stmemory.untrusted import read_json

__all__ = ["compare_speed", "describe_speed", "read_speed", "speed_document", "write_speed"]


def speed_document(
    report: SpeedReport, circumstances: Circumstances, *, extra: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """All figures as plain values, for a file.

    Args:
        report: what `measure_speed` gave.
        circumstances: what it was measured with.
        extra: further entries, such as the options.

    >>> from stmemory.evaluation.report import current_circumstances
    >>> speed_document(SpeedReport((), np.array([3e11]), "float32"), current_circumstances())["matrix_product_per_second"]
    {'median': 300000000000.0, 'spread': 0.0}
    """
    return {
        "circumstances": dataclasses.asdict(circumstances),
        **(extra or {}),
        "dtype": report.dtype,
        "matrix_product_per_second": _middle(report.rates),
        "cases": {speed.case.name: _figures(speed, float(np.median(report.rates))) for speed in report.cases},
    }


def write_speed(path: Path, document: Mapping[str, Any]) -> None:
    """Write what `speed_document` gave as JSON; makes the folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_speed(Path(folder) / "new" / "speed.json", {"cases": {}})
    ...     (Path(folder) / "new" / "speed.json").read_text().split()
    ['{', '"cases":', '{}', '}']
    """
    with whole_file(path) as part:
        part.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_speed(path: Path) -> dict[str, Any]:
    """What `write_speed` wrote.

    Raises:
        OptionError: the file is of another kind.
    """
    try:
        document: dict[str, Any] = read_json(path)
        if {"circumstances", "cases", "matrix_product_per_second"} <= set(document):
            for _ in compare_speed(document, document):
                pass  # all that is read of it is there
            return document
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise OptionError(
            f"{path}: expected a report of `stmemory benchmark speed`, got: {error!r}; write it again"
        ) from error
    raise OptionError(f"{path}: expected a report of `stmemory benchmark speed`, got another kind of file")


def describe_speed(document: Mapping[str, Any]) -> Iterator[str]:
    """The figures as lines of text: a table of stages for each case.

    Args:
        document: what `speed_document` gave.

    >>> list(describe_speed({"matrix_product_per_second": {"median": 3e11}, "dtype": "float32", "cases": {}}))
    ['one matrix product (float32): 300 GFLOP/s, the ceiling of all that follows']
    """
    rate = document["matrix_product_per_second"]["median"]
    yield f"one matrix product ({document['dtype']}): {rate / 1e9:.0f} GFLOP/s, the ceiling of all that follows"
    for name, case in document["cases"].items():
        yield f"\n{name}"
        yield f"  {'stage':<12}{'ms':>9}{'spread':>9}{'GFLOP':>9}{'of ceiling':>12}"
        for stage in (*STAGES, "step"):
            figures = case["stages"][stage]
            share = f"{100 * figures['share_of_ceiling']:.0f} %" if figures["operations"] else "-"
            yield (
                f"  {stage:<12}{1000 * figures['median']:>9.1f}{1000 * figures['spread']:>9.1f}"
                f"{figures['operations'] / 1e9:>9.2f}{share:>12}"
            )
        yield (
            f"  {case['frames_per_second']:.2f} frames/s; convolutions alone at "
            f"{100 * case['convolutions']['share_of_ceiling']:.0f} % "
            f"of the ceiling, with matrix products and attention {100 * case['products']['share_of_ceiling']:.0f} %; "
            f"peak memory {case['peak_bytes'] / 1e6:.0f} MB"
        )
        for stage, seconds in case["replayed"].items():
            yield f"  {stage} as a CUDA graph: {1000 * seconds:.2f} ms"
        if case["memorised"] < case["objects"]:
            yield f"  {case['memorised']} of {case['objects']} objects were memorised: the network lost the others, so this means little"


def compare_speed(document: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """How many times faster this run is than another, stage by stage, as lines of text.

    Args:
        document: this run.
        other: the run that it is compared with; cases that both have are told.

    >>> of = {"commit": "a", "device": "cpu", "threads": 1, "torch": "2"}
    >>> run = {"circumstances": of, "matrix_product_per_second": {"median": 3e11}, "cases": {}}
    >>> list(compare_speed(run, run))[0]
    'a beside a; above 1 the first is faster; matrix product 1.00'
    """
    rates = [run["matrix_product_per_second"]["median"] for run in (document, other)]
    commits = [run["circumstances"]["commit"] for run in (document, other)]
    yield f"{commits[0]} beside {commits[1]}; above 1 the first is faster; matrix product {rates[0] / rates[1]:.2f}"
    told = [_circumstances(run) for run in (document, other)]
    for key in dict.fromkeys([*told[0], *told[1]]):
        if told[0].get(key) != told[1].get(key):
            yield f"another {key}: {told[0].get(key)} beside {told[1].get(key)}"
    shared = [name for name in document["cases"] if name in other["cases"]]
    for name in shared:
        ours, theirs = (run["cases"][name]["stages"] for run in (document, other))
        ratios = ", ".join(f"{stage} {_ratio(theirs[stage], ours[stage])}" for stage in (*STAGES, "step"))
        yield f"  {name}: {ratios}"
    if not shared:
        yield "no case in common: give both runs the same objects, sizes, K and policies"


def _circumstances(run: Mapping[str, Any]) -> dict[str, object]:
    """What has to be alike where times are compared."""
    brought = ("memory_size", "policy", "write_gate", "short_side")  # by the cases; always open; told as the resolution
    options = {key: value for key, value in run.get("options", {}).items() if key not in brought}
    settings = {key: run.get(key) for key in ("dtype", "weights")}
    return (
        {key: run["circumstances"].get(key) for key in ("device", "threads", "torch", "resolution")}
        | settings
        | options
    )


def _ratio(above: Mapping[str, float], below: Mapping[str, float]) -> str:
    return f"{above['median'] / below['median']:.2f}" if below["median"] and above["median"] else "-"


def _figures(speed: CaseSpeed, ceiling: float) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    for name, seconds, operations in (
        *((stage, speed.stages[stage], speed.operations[stage]) for stage in STAGES),
        ("step", speed.seconds, sum(speed.operations.values())),
    ):
        median = float(np.median(seconds))
        stages[name] = _middle(seconds) | {
            "operations": operations,
            "share_of_ceiling": _share(operations, median, ceiling),
        }
    return {
        "objects": speed.case.objects,
        "stages": stages,
        "frames_per_second": 1 / stages["step"]["median"],
        "products": {
            "seconds": speed.product_seconds,
            "share_of_ceiling": _share(sum(speed.operations.values()), speed.product_seconds, ceiling),
        },
        "convolutions": {
            "operations": speed.convolution_operations,
            "seconds": speed.convolution_seconds,
            "share_of_ceiling": _share(speed.convolution_operations, speed.convolution_seconds, ceiling),
        },
        "memorised": speed.memorised,
        "peak_bytes": speed.peak_bytes,
        "replayed": speed.replayed,
    }


def _share(operations: int, seconds: float, ceiling: float) -> float:
    share = operations / seconds / ceiling if seconds else 0.0
    return share if math.isfinite(share) else 0.0


def _middle(values: NDArray[np.float64]) -> dict[str, float]:
    """The median, and between which values the middle half lies, as one width."""
    low, middle, high = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    return {"median": middle, "spread": high - low}
