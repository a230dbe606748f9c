"""The growth benchmark: does a stream's memory, or its time per frame, grow with the video?

Owns the measuring of a long run and the lines fitted to it. Does not build streams or frames, and draws no plots.
"""

from __future__ import annotations

import math
import mmap
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import FrameError, OptionError

__all__ = ["GrowthReport", "Slope", "block_slope", "measure_growth", "resident_bytes", "slope_per_thousand"]

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
    """What a long run took, frame by frame.

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
    """Step through a long video and write down what each step took.

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
    """Bytes of this process in memory now; where the system does not tell (not Linux), the most it ever had.

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
