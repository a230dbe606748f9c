"""The soak test: our bank and a memory that never forgets, over as many frames as one likes. Measures nothing itself
(`growth.py`)."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.evaluation.growing import GrowingPredictor
from stmemory.evaluation.growth import GrowthReport, measure_growth
from stmemory.evaluation.report import Circumstances
from stmemory.evaluation.scenes import render_scene
from stmemory.files import whole_file
from stmemory.memory.slots import Slots
from stmemory.networks.config import NetworkConfig
from stmemory.predictor import VOSPredictor

__all__ = ["BankBytes", "GrowthLimit", "soak", "soak_growing", "write_growth"]

LOOP = 200  # frames rendered beforehand and shown again and again
POINTS = 200  # of each curve in the report
RECENT = 50  # steps whose median time is compared with the limit


@dataclass(frozen=True)
class GrowthLimit:
    """When a memory that grows has been seen enough of.

    Attributes:
        bank_bytes: of its bank, at most.
        seconds: of a step, at most, by the median of the last fifty.
    """

    bank_bytes: int
    seconds: float


@dataclass(frozen=True)
class BankBytes:
    """What a bank takes, worked out from shapes before it runs. The length of the video is not among them.

    Attributes:
        rows: B, objects.
        slots: K.
        channels: C + Ck, of a template and its key.
        cells: h w.
        itemsize: bytes of a number.
        bookkeeping: bytes of everything else a row has: similarities, ages, flags, logs of what was fused.
    """

    rows: int
    slots: int
    channels: int
    cells: int
    itemsize: int
    bookkeeping: int

    @classmethod
    def of(cls, config: NetworkConfig, *, rows: int, slots: int, cells: int, itemsize: int = 4) -> BankBytes:
        """From a network's config.

        >>> BankBytes.of(NetworkConfig.of("lite"), rows=2, slots=5, cells=405).features
        4147200
        """
        empty = Slots(slots)
        empty.allocate(torch.empty(1, 0, 1), torch.empty(1, 0, 1))  # no features, so only the rest is left
        return cls(rows, slots, config.template_channels + config.key_channels, cells, itemsize, empty.nbytes)

    @property
    def features(self) -> int:
        """Bytes of templates and keys."""
        return self.rows * self.slots * self.channels * self.cells * self.itemsize

    @property
    def total(self) -> int:
        """Bytes of the bank."""
        return self.features + self.rows * self.bookkeeping

    def __str__(self) -> str:
        product = f"{self.rows} x {self.slots} x {self.channels} x {self.cells} x {self.itemsize}"
        return f"B K (C + Ck) h w {self.itemsize} + B {self.bookkeeping} = {product} + {self.rows} x {self.bookkeeping} = {self.total:,}"


def soak(
    predictor: VOSPredictor,
    *,
    frames: int,
    size: tuple[int, int] = (240, 432),
    seed: int = 0,
    on_step: Callable[[int], bool | None] | None = None,
) -> GrowthReport:
    """Step a stream through a long clip: a rendered one, shown forth and back so that nothing ever jumps.

    Args:
        predictor: what tracks.
        frames: steps, at least 2.
        size: H and W of the frames.
        seed: of the scenery.
        on_step: called with the number of steps done, for progress; where it answers True, the run ends there.

    Raises:
        OptionError: a number is out of its range.

    >>> soak(VOSPredictor.from_pretrained(), frames=4, size=(64, 96)).bank_is_constant
    True
    """
    first, pictures = _clip(frames, size, seed)
    stream = predictor.start(*first)
    return measure_growth(stream.step, pictures, steps=frames, bank_bytes=lambda: stream.bank.nbytes, on_step=on_step)


def soak_growing(
    predictor: GrowingPredictor,
    limit: GrowthLimit,
    *,
    frames: int,
    size: tuple[int, int] = (240, 432),
    seed: int = 0,
    on_step: Callable[[int], bool | None] | None = None,
) -> GrowthReport:
    """The same clip for a memory that never forgets, until it passes a limit.

    Args:
        predictor: what tracks.
        limit: where the run ends, if not at the end of the clip.
        frames: steps, at least 2.
        size: H and W of the frames.
        seed: of the scenery.
        on_step: called with the number of steps done, for progress; where it answers True, the run ends there.

    Raises:
        OptionError: a number is out of its range.

    >>> growing = GrowingPredictor(VOSPredictor.from_pretrained(), every=1)
    >>> soak_growing(growing, GrowthLimit(50_000, 60.0), frames=9, size=(64, 96)).frames < 9
    True
    """
    first, pictures = _clip(frames, size, seed)
    memory = predictor.start(*first)
    recent: list[float] = []

    def enough(seconds: float, bank_bytes: int) -> bool:
        recent[:] = [*recent[1 - RECENT :], seconds]
        return bank_bytes > limit.bank_bytes or (len(recent) == RECENT and float(np.median(recent)) > limit.seconds)

    return measure_growth(
        memory.step, pictures, steps=frames, bank_bytes=lambda: memory.bank.nbytes, on_step=on_step, enough=enough
    )


def write_growth(
    folder: Path,
    runs: Mapping[str, GrowthReport],
    circumstances: Circumstances,
    *,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Write `growth.json`, with curves thinned to some two hundred points, and `growth.csv` with every frame; makes the
    folder.

    Args:
        folder: where they go.
        runs: by name; the first is ours.
        circumstances: what they were measured with.
        extra: further entries, such as the options.

    >>> import tempfile
    >>> from stmemory.evaluation.report import current_circumstances
    >>> report = GrowthReport(np.array([8, 8]), np.array([9, 9]), np.array([0.5, 0.5]))
    >>> with tempfile.TemporaryDirectory() as name:
    ...     write_growth(Path(name), {"ours": report}, current_circumstances())
    ...     json.loads((Path(name) / "growth.json").read_text())["growth"]["ours"]["bank_bytes_last"]
    8
    """
    document = {
        "circumstances": asdict(circumstances),
        **(extra or {}),
        "growth": {
            name: {key: _finite(value) for key, value in report.as_dict().items()} for name, report in runs.items()
        },
        "curves": {name: _curves(report) for name, report in runs.items()},
    }
    with whole_file(folder / "growth.json") as part:
        part.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with whole_file(folder / "growth.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["memory", "frame", "seconds", "bank_bytes", "process_bytes"])
        for name, report in runs.items():
            columns = (report.seconds.round(6).tolist(), report.bank_bytes.tolist(), report.process_bytes.tolist())
            table.writerows((name, frame, *values) for frame, values in enumerate(zip(*columns, strict=True), 1))


def _curves(report: GrowthReport) -> dict[str, list[float]]:
    every = max(1, report.frames // POINTS)
    curves: tuple[NDArray[np.int64] | NDArray[np.float64], ...] = (
        report.bank_bytes,
        report.process_bytes,
        report.seconds,
    )
    names = ("bank_bytes", "process_bytes", "seconds")
    return {"frame": [float(frame) for frame in range(1, report.frames + 1, every)]} | {
        name: [float(value) for value in curve[::every]] for name, curve in zip(names, curves, strict=True)
    }


def _clip(
    frames: int, size: tuple[int, int], seed: int
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.uint8]], Iterator[NDArray[np.uint8]]]:
    """The first frame with its mask, and the frames after it, shown forth and back without end."""
    if frames < 2:
        raise OptionError(f"frames: expected 2 or more, got {frames}")
    loop = list(render_scene(min(frames + 1, LOOP), height=size[0], width=size[1], seed=seed))
    return loop[0], (loop[index][0] for index in _to_and_fro(len(loop)))


def _to_and_fro(count: int) -> Iterator[int]:
    """1, 2 ... count - 1 ... 2, 1, 0, 1, 2 ..."""
    return itertools.cycle([*range(1, count), *range(count - 2, -1, -1)])


def _finite(value: float | int | bool) -> float | int | bool | None:
    return value if math.isfinite(value) else None  # JSON has no NaN
