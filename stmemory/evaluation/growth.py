"""Memory and time over a long stream: measurement, the soak test, and the figure."""

from __future__ import annotations

import csv
import itertools
import json
import math
import mmap
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from stmemory.errors import FrameError, OptionError
from stmemory.evaluation.growing import GrowingPredictor
from stmemory.evaluation.report import Circumstances
from stmemory.evaluation.scenes import render_scene
from stmemory.io.files import whole_file
from stmemory.memory.slots import Slots
from stmemory.networks.config import NetworkConfig
from stmemory.predictor import VOSPredictor

__all__ = [
    "BankBytes",
    "GrowthLimit",
    "GrowthReport",
    "Slope",
    "block_slope",
    "draw_growth",
    "measure_growth",
    "resident_bytes",
    "slope_per_thousand",
    "soak",
    "soak_growing",
    "write_growth",
]

BLOCKS = 40  # that a slope is fitted through
FrameT = TypeVar("FrameT")


@dataclass(frozen=True)
class Slope:
    """A fitted line's steepness.

    Attributes:
        per_thousand: change per 1,000 frames, in the unit of what was fitted.
        standard_error: of `per_thousand`, as if the residuals were independent; NaN below three points.
    """

    per_thousand: float
    standard_error: float

    @property
    def is_zero(self) -> bool:
        """Whether it is at most two standard errors from zero; never true for NaN."""
        return abs(self.per_thousand) <= 2 * self.standard_error


@dataclass(frozen=True, eq=False)
class GrowthReport:
    """Memory and time of a long run, frame by frame.

    Attributes:
        bank_bytes: int64 [T], bytes of the memory bank after each step.
        process_bytes: int64 [T], resident memory of the whole process after each step.
        seconds: float64 [T], time of each step.
    """

    bank_bytes: NDArray[np.int64]
    process_bytes: NDArray[np.int64]
    seconds: NDArray[np.float64]

    @property
    def frames(self) -> int:
        """Steps taken."""
        return len(self.seconds)

    @property
    def first_bank_bytes(self) -> int:
        """Bytes of the bank after the first step."""
        return int(self.bank_bytes[0])

    @property
    def last_bank_bytes(self) -> int:
        """Bytes of the bank after the last step."""
        return int(self.bank_bytes[-1])

    @property
    def bank_is_constant(self) -> bool:
        """Whether the bank had the same bytes after every step."""
        return bool((self.bank_bytes == self.bank_bytes[0]).all())

    @property
    def process_slope(self) -> Slope:
        """Bytes of the process per 1,000 frames, over the second half, when caches have settled; see `block_slope`."""
        return block_slope(self.process_bytes[self.frames // 2 :])

    @property
    def seconds_slope(self) -> Slope:
        """Seconds per step per 1,000 frames, over the second half; see `block_slope`."""
        return block_slope(self.seconds[self.frames // 2 :])

    def as_dict(self) -> dict[str, float | int | bool]:
        """The figures without the arrays, for a report."""
        second_half = self.seconds[self.frames // 2 :]
        return {
            "frames": self.frames,
            "bank_bytes_first": self.first_bank_bytes,
            "bank_bytes_last": self.last_bank_bytes,
            "bank_is_constant": self.bank_is_constant,
            "process_bytes_middle": int(self.process_bytes[self.frames // 2]),
            "process_bytes_last": int(self.process_bytes[-1]),
            "process_bytes_per_1000_frames": self.process_slope.per_thousand,
            "process_bytes_standard_error": self.process_slope.standard_error,
            "process_slope_is_zero": self.process_slope.is_zero,
            "seconds_per_frame_median": float(np.median(second_half)),
            "seconds_per_1000_frames": self.seconds_slope.per_thousand,
            "seconds_standard_error": self.seconds_slope.standard_error,
            "seconds_slope_is_zero": self.seconds_slope.is_zero,
        }


def measure_growth(
    step: Callable[[FrameT], object],
    frames: Iterable[FrameT],
    *,
    steps: int,
    bank_bytes: Callable[[], int],
    on_step: Callable[[int], bool | None] | None = None,
    enough: Callable[[float, int], bool] | None = None,
) -> GrowthReport:
    """Step through a long video and record the memory and time of each step.

    Answers of `step` are dropped at once. The time to make a frame is not counted, and the records are allocated and
    touched before the first step, so that the measuring itself does not look like growth.

    Args:
        step: one step of a stream, as `stream.step`.
        frames: at least `steps` frames; make them lazily, or loop over a few.
        steps: steps to take.
        bank_bytes: bytes of the stream's memory bank now.
        on_step: called with the number of steps done, for progress; where it answers True, the run ends there.
        enough: called with the seconds of a step and the bank's bytes after it; where it says so, the run ends with
            that step.

    Raises:
        OptionError: `steps` is below 2.
        FrameError: there are fewer frames than steps.

    >>> report = measure_growth(len, ["frame"] * 8, steps=8, bank_bytes=lambda: 1024)
    >>> report.frames, report.last_bank_bytes, report.bank_is_constant
    (8, 1024, True)
    """
    if steps < 2:
        raise OptionError(f"steps: expected at least 2, got {steps}")
    report = GrowthReport(np.full(steps, -1, np.int64), np.full(steps, -1, np.int64), np.full(steps, -1.0))
    done = 0
    for frame in frames:
        began = time.perf_counter()
        step(frame)
        report.seconds[done] = time.perf_counter() - began
        report.bank_bytes[done] = bank_bytes()
        report.process_bytes[done] = resident_bytes()
        done += 1
        stopped = on_step is not None and on_step(done)
        if stopped or (
            enough is not None and enough(float(report.seconds[done - 1]), int(report.bank_bytes[done - 1]))
        ):
            return GrowthReport(report.bank_bytes[:done], report.process_bytes[:done], report.seconds[:done])
        if done == steps:
            return report
    raise FrameError(f"frames: expected at least {steps}, got {done}; loop over them, or take fewer steps")


def slope_per_thousand(values: NDArray[np.integer] | NDArray[np.floating]) -> Slope:
    """Least-squares line through values one frame apart.

    Args:
        values: [T], one per frame, T at least 1.

    >>> slope_per_thousand(np.array([1.0, 3.0, 5.0])).per_thousand
    2000.0
    """
    count = len(values)
    if count < 2:
        return Slope(0.0, math.nan)
    times = np.arange(count, dtype=np.float64) - (count - 1) / 2
    centred = np.asarray(values, dtype=np.float64) - float(np.mean(values))
    spread = float(times @ times)
    slope = float(times @ centred) / spread
    residuals = centred - slope * times
    error = math.sqrt(float(residuals @ residuals) / (count - 2) / spread) if count > 2 else math.nan
    return Slope(1000 * slope, 1000 * error)


def block_slope(values: NDArray[np.integer] | NDArray[np.floating], *, blocks: int = BLOCKS) -> Slope:
    """Least-squares line through the medians of blocks of neighbours.

    Neighbours are alike (a clip that repeats, a machine that is busy for a while), which a line through all of them
    would take for certainty. Blocks are long enough to be nearly independent, and their medians are not moved by single
    stalls.

    Args:
        values: [T], one per frame.
        blocks: how many; with fewer than three values each, the line goes through the values themselves.

    >>> round(block_slope(np.arange(120.0)).per_thousand, 6)
    1000.0
    """
    length = len(values) // blocks
    if length < 3:
        return slope_per_thousand(values)
    medians = np.median(np.asarray(values[: blocks * length], dtype=np.float64).reshape(blocks, length), axis=1)
    slope = slope_per_thousand(medians)
    return Slope(slope.per_thousand / length, slope.standard_error / length)


def resident_bytes() -> int:
    """Bytes of this process in memory now; without Linux, the most it ever had.

    >>> resident_bytes() > 0
    True
    """
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        import resource  # Unix only: importing it above would shut out systems that lack it

        # The unit of ru_maxrss is bytes on macOS and kibibytes elsewhere.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return pages * mmap.PAGESIZE


LOOP = 200  # frames rendered beforehand and shown again and again
POINTS = 200  # of each curve in the report
RECENT = 50  # steps whose median time is compared with the limit


@dataclass(frozen=True)
class GrowthLimit:
    """Where the run of a growing memory ends.

    Attributes:
        bank_bytes: most bytes of its bank.
        seconds: most seconds of a step, by the median of the last fifty.
    """

    bank_bytes: int
    seconds: float


@dataclass(frozen=True)
class BankBytes:
    """Bytes of a bank, computed from shapes before it runs. The length of the video is not among them.

    Attributes:
        rows: B, objects.
        slots: K.
        channels: C + Ck, of a template and its key.
        cells: h w.
        itemsize: bytes of a number.
        bookkeeping: bytes of everything else a row has: similarities, ages, flags, extents, logs of what was fused.
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
        empty.allocate(torch.empty(1, 0, 1, 1), torch.empty(1, 0, 1, 1))  # no features, so only the rest is left
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
        formula = f"B K (C + Ck) h w {self.itemsize} + B {self.bookkeeping}"
        return f"{formula} = {product} + {self.rows} x {self.bookkeeping} = {self.total:,}"


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
    frames = np.arange(1, report.frames + 1)
    curves = {
        "frame": frames,
        "bank_bytes": report.bank_bytes,
        "process_bytes": report.process_bytes,
        "seconds": report.seconds,
    }
    return {name: [float(value) for value in curve[::every]] for name, curve in curves.items()}


def _clip(
    frames: int, size: tuple[int, int], seed: int
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.uint8]], Iterator[NDArray[np.uint8]]]:
    """The first frame with its mask, and the frames after it, shown forth and back without end."""
    if frames < 2:
        raise OptionError(f"frames: expected 2 or more, got {frames}")
    loop = list(render_scene(min(frames + 1, LOOP), height=size[0], width=size[1], seed=seed))
    forth_and_back = [*range(1, len(loop)), *range(len(loop) - 2, -1, -1)]
    return loop[0], (loop[index][0] for index in itertools.cycle(forth_and_back))


def _finite(value: float | int | bool) -> float | int | bool | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


PLOT_POINTS = 250  # of each curve; each is the median of its part of the run
COLOURS = ("#0b6e99", "#d9622b")


def draw_growth(path: Path, runs: Mapping[str, GrowthReport], *, title: str = "") -> None:
    """Draw time per frame, bytes of the memory bank and bytes of the process as a PNG.

    Args:
        path: where it goes.
        runs: by name; the first is ours.
        title: what was measured with what.

    Raises:
        OptionError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError(
            "growth.png: expected matplotlib, which is not installed; pip install 'stmemory[plot]'"
        ) from error
    figure = Figure(figsize=(10, 3.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    for (name, report), colour in zip(runs.items(), COLOURS, strict=False):
        curves = (1000 * report.seconds, report.bank_bytes / 1e6, report.process_bytes / 1e6)
        for axis, values in zip(axes, curves, strict=True):
            frames, medians = _medians(values)
            axis.plot(frames, medians, color=colour, label=name, linewidth=1.6)
            if report.frames < max(other.frames for other in runs.values()):
                axis.plot(frames[-1:], medians[-1:], "x", color=colour)  # where it passed the limit
    for axis, label in zip(axes, ("time per frame, ms", "memory bank, MB", "process, MB"), strict=True):
        axis.set(xlabel="frame", title=label)
        highest = max(float(line.get_ydata().max()) for line in axis.get_lines())
        axis.set_ylim(
            0, 1.05 * highest or 1
        )  # matplotlib's margin is a share of the range, next to none for what is flat
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=8)
    with whole_file(path) as part:
        figure.savefig(part, format="png")


def _medians(values: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The last frame of each part of a run, and the median of that part."""
    parts = np.array_split(np.asarray(values, dtype=np.float64), min(PLOT_POINTS, len(values)))
    return np.cumsum([len(part) for part in parts]).astype(np.float64), np.array([np.median(part) for part in parts])
