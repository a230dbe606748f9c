"""The figure of the growth benchmark: time per frame and memory over the frame number. Needs matplotlib; measures
nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.evaluation.growth import GrowthReport
from stmemory.files import whole_file

__all__ = ["draw_growth"]

POINTS = 250  # of each curve; each is the median of its part of the run
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
    parts = np.array_split(np.asarray(values, dtype=np.float64), min(POINTS, len(values)))
    return np.cumsum([len(part) for part in parts]).astype(np.float64), np.array([np.median(part) for part in parts])
