"""A page of an evaluation, by matplotlib (extra `plot`): J over time, the worst frames of each clip, and an index."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image

from stmemory.errors import OptionError, StmemoryError
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.protocol import ClipResult
from stmemory.evaluation.report import Circumstances, markdown_table
from stmemory.evaluation.run_folder import RunFolder
from stmemory.io.drawing import Tile, contact_sheet, draw_outline
from stmemory.io.files import whole_file
from stmemory.io.palette import davis_palette, read_palette_png
from stmemory.result import Segmentation

__all__ = ["worst_frames", "write_page"]

WORST = 4  # frames shown of a clip


def write_page(
    folder: RunFolder, clips: Sequence[Clip], results: Sequence[ClipResult], circumstances: Circumstances
) -> Path:
    """Draw the curves and the worst frames of each clip that has scores, and write the index.

    Args:
        folder: of the finished run; the page goes to `OUT/page`.
        clips: what was measured on.
        results: the scores.
        circumstances: what they were measured with.

    Returns:
        The index, a Markdown file.

    Raises:
        OptionError: matplotlib is missing.
    """
    figures = _matplotlib()
    by_name = {clip.name: clip for clip in clips}
    parts = ["# Evaluation\n", markdown_table(results, circumstances)]
    for result in sorted(results, key=lambda result: (result.region + result.boundary, result.name)):  # the worst first
        if not result.objects:
            continue
        _draw_curves(figures, result, folder.page / f"{result.name}.png")
        parts.append(f"## {result.name}\n\n![J over time]({result.name}.png)\n")
        try:
            sheet = _draw_worst(folder, by_name[result.name], result)
        except StmemoryError as error:  # files that went since
            parts.append(f"No frames: {error}\n")
            continue
        with whole_file(folder.page / f"{result.name}_worst.png") as part:
            sheet.save(part, format="PNG")
        parts.append(f"![worst frames]({result.name}_worst.png)\n")
    index = folder.page / "index.md"
    with whole_file(index) as part:
        part.write_text("\n".join(parts), encoding="utf-8")
    return index


def worst_frames(result: ClipResult, count: int = WORST) -> list[tuple[int, float]]:
    """Frames with the least J, mean over the objects that count there: positions and values, in the order of time.

    Worst frames come in rows; of each row only the worst is taken, so that they show different mistakes.

    Args:
        result: of a clip.
        count: frames at most.

    >>> worst_frames(ClipResult("empty", (), 0, 0.0, 0, 0))
    []
    """
    values: dict[int, list[float]] = {}
    for scores in result.objects:
        for frame, value in zip(scores.frames, scores.region.per_frame, strict=True):
            values.setdefault(frame, []).append(value)
    means = {frame: sum(each) / len(each) for frame, each in values.items()}
    apart = len(means) // (2 * count)
    chosen: list[int] = []
    for frame in sorted(means, key=lambda frame: (means[frame], frame)):
        if len(chosen) < count and all(abs(frame - other) > apart for other in chosen):
            chosen.append(frame)
    return [(frame, means[frame]) for frame in sorted(chosen)]


def _draw_curves(figures: ModuleType, result: ClipResult, path: Path) -> None:
    """J of each object over the frames that count."""
    colours = np.frombuffer(davis_palette(), np.uint8).reshape(256, 3) / 255
    figure = figures.Figure(figsize=(9, 3), layout="constrained")
    axes = figure.add_subplot()
    for scores in result.objects:
        label = f"object {scores.object_id}: J {100 * scores.region.mean:.1f}, F {100 * scores.boundary.mean:.1f}"
        axes.plot(
            scores.frames,
            scores.region.per_frame,
            label=label,
            color=tuple(colours[scores.object_id % 256]),
            linewidth=1.5,
        )
    axes.set(title=result.name, xlabel="frame", ylabel="J", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    if len(result.objects) <= 10:
        axes.legend(loc="lower left", fontsize="small")
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=100)


def _draw_worst(folder: RunFolder, clip: Clip, result: ClipResult) -> Image.Image:
    """The worst frames: the prediction in colours, the truth as a dashed line."""
    tiles = []
    for index, region in worst_frames(result):
        ids, truth = read_palette_png(folder.mask_of(clip, index)), clip.truth(index)
        frame = clip.frame(index)
        picture = Segmentation(index, ids, torch.empty(0), (), {}, {}).overlay(frame)
        tiles.append(
            Tile(picture if truth is None else draw_outline(picture, truth), f"frame {index}", f"J {100 * region:.1f}")
        )
    return contact_sheet(
        tiles, title=f"{clip.name}: worst frames", notes=("Colours are the prediction, dashed lines the truth.",)
    )


def _matplotlib() -> ModuleType:
    try:
        return importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise OptionError(
            f'page: expected matplotlib to be installed, got {error}; run: pip install "stmemory[plot]"'
        ) from error
