"""Pictures of a comparison of predictors: error over N, and clips beside what was predicted of them. Measures nothing.

The plot needs matplotlib (extra `plot`); the strips do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stmemory.errors import OptionError
from stmemory.evaluation.prediction_report import PredictionResult
from stmemory.files import whole_file

__all__ = ["draw_prediction_strips", "draw_recall"]

_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_LABEL = 110  # px on the left of a strip
_GAP = 2


def draw_recall(path: Path, results: Sequence[PredictionResult], *, title: str = "") -> None:
    """Draw MSE over N of each recall set, one curve a predictor: full lines for what was trained, dotted ones for the
    rest.

    Args:
        path: PNG.
        results: those without an N are left out.
        title: of the figure.

    Raises:
        OptionError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError(
            f"{path.name}: expected matplotlib, which is not installed; pip install 'stmemory[plot]'"
        ) from error
    recalled = [result for result in results if result.period is not None]
    tests = list(dict.fromkeys(result.test for result in recalled))
    figure = Figure(figsize=(7.6 * max(1, len(tests)), 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axis, test in zip(figure.subplots(1, max(1, len(tests)), squeeze=False)[0], tests, strict=False):
        rows = [result for result in recalled if result.test == test]
        for number, name in enumerate(dict.fromkeys(row.name for row in rows)):
            points = sorted((row.period or 0, row.scores.mse, row.cost is not None) for row in rows if row.name == name)
            style = "-" if points[0][2] else ":"
            axis.plot(
                [p[0] for p in points],
                [p[1] for p in points],
                style,
                marker=_MARKS[number % len(_MARKS)],
                ms=4,
                label=name,
            )
        axis.set(xlabel="N", ylabel="MSE a frame", title=test)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(title, fontsize=8)
    with whole_file(path) as part:
        figure.savefig(part, format="png")


def draw_prediction_strips(path: Path, rows: Mapping[str, Tensor], *, zoom: int = 2) -> None:
    """Draw clips below each other, frames from left to right, each with its name.

    Args:
        path: PNG.
        rows: `[T, C, H, W]` in [0, 1], C of 1 or 3; shorter ones end at the right, so that what was predicted stands
            under the truth.
        zoom: pixels of the picture for each of a frame.
    """
    longest = max(len(frames) for frames in rows.values())
    height, width = (zoom * side for side in next(iter(rows.values())).shape[2:])
    sheet = Image.new("RGB", (_LABEL + longest * (width + _GAP), len(rows) * (height + _GAP)), (60, 60, 60))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (name, frames) in enumerate(rows.items()):
        top = number * (height + _GAP)
        pen.text((6, top + height // 2), name, fill=(255, 255, 255), font=font, anchor="lm")
        for place, frame in enumerate(frames, longest - len(frames)):
            pixels = (255 * frame.clamp(0, 1)).byte().expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
            picture = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (_LABEL + place * (width + _GAP), top))
    with whole_file(path) as part:
        sheet.save(part, format="PNG")
