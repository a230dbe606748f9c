"""The soak test: a stream over as many frames as one likes, and what it took. Measures nothing itself (`growth.py`)."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.evaluation.growth import GrowthReport, measure_growth
from stmemory.evaluation.report import Circumstances
from stmemory.evaluation.scenes import render_scene
from stmemory.predictor import VOSPredictor

__all__ = ["soak", "write_growth"]

LOOP = 200  # frames rendered beforehand and shown again and again
POINTS = 200  # of each curve in the report


def soak(
    predictor: VOSPredictor,
    *,
    frames: int,
    size: tuple[int, int] = (240, 432),
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> GrowthReport:
    """Step a stream through a long clip: a rendered one, shown forth and back so that nothing ever jumps.

    Args:
        predictor: what tracks.
        frames: steps, at least 2.
        size: H and W of the frames.
        seed: of the scenery.
        on_step: called with the number of steps done, for progress.

    Raises:
        OptionError: a number is out of its range.

    >>> soak(VOSPredictor.from_pretrained(), frames=4, size=(64, 96)).bank_is_constant
    True
    """
    if frames < 2:
        raise OptionError(f"frames: expected 2 or more, got {frames}")
    loop = list(render_scene(min(frames + 1, LOOP), height=size[0], width=size[1], seed=seed))
    stream = predictor.start(*loop[0])
    pictures = (loop[index][0] for index in _to_and_fro(len(loop)))
    return measure_growth(stream.step, pictures, steps=frames, bank_bytes=lambda: stream.bank.nbytes, on_step=on_step)


def write_growth(
    path: Path, report: GrowthReport, circumstances: Circumstances, *, extra: Mapping[str, object] | None = None
) -> None:
    """Write the figures, and curves thinned to some two hundred points, as JSON; makes the folder.

    Args:
        path: where it goes.
        report: what `soak` gave.
        circumstances: what it was measured with.
        extra: further entries, such as the options.

    >>> import tempfile
    >>> from stmemory.evaluation.report import current_circumstances
    >>> report = GrowthReport(np.array([8, 8]), np.array([9, 9]), np.array([0.5, 0.5]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_growth(Path(folder) / "growth.json", report, current_circumstances())
    ...     json.loads((Path(folder) / "growth.json").read_text())["growth"]["bank_bytes_last"]
    8
    """
    every = max(1, report.frames // POINTS)
    document = {
        "circumstances": asdict(circumstances),
        **(extra or {}),
        "growth": {name: _finite(value) for name, value in report.as_dict().items()},
        "curves": {
            "frame": list(range(0, report.frames, every)),
            "bank_bytes": _thin(report.bank_bytes, every),
            "process_bytes": _thin(report.process_bytes, every),
            "seconds": _thin(report.seconds, every),
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _to_and_fro(count: int) -> Iterator[int]:
    """1, 2 ... count - 1 ... 2, 1, 0, 1, 2 ..."""
    return itertools.cycle([*range(1, count), *range(count - 2, -1, -1)])


def _thin(values: NDArray[np.int64] | NDArray[np.float64], every: int) -> list[float]:
    thinned: list[float] = values[::every].tolist()
    return thinned


def _finite(value: float | int | bool) -> float | int | bool | None:
    return value if math.isfinite(value) else None  # JSON has no NaN
