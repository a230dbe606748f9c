"""`stmemory evaluate`: score clips with true masks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stmemory.commands.options import Commands, chosen_predictor, tracking_options
from stmemory.commands.words import DONE, FAILED, complain

if TYPE_CHECKING:
    from stmemory.evaluation.protocol import ClipResult

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Offer the command."""
    evaluate = commands.add_parser("evaluate", parents=[tracking_options()], help="score clips with true masks, by the DAVIS protocol")
    evaluate.add_argument("root", type=Path, metavar="ROOT", help="folder in one of the layouts of DAVIS")
    evaluate.add_argument("clips", nargs="*", metavar="CLIP", help="names of clips (default: all)")
    evaluate.add_argument("-o", "--out", type=Path, metavar="OUT.json", help="report with the scores of every frame")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    from stmemory.errors import StmemoryError
    from stmemory.evaluation.clips import find_clips
    from stmemory.evaluation.protocol import evaluate_clip, summarise
    from stmemory.evaluation.report import current_circumstances, write_json

    clips = find_clips(arguments.root, names=arguments.clips or None)
    predictor, results, failed = chosen_predictor(arguments), list["ClipResult"](), list[str]()
    print(f"{'clip':<24}{'objects':>8}{'J':>8}{'F':>8}{'J&F':>8}{'frames/s':>10}")
    for clip in clips:
        try:
            result = evaluate_clip(predictor, clip)
        except StmemoryError as error:
            failed.append(clip.name)
            complain(f"skipped {clip.name}: {error}")
            continue
        results.append(result)
        print(_scores(clip.name, len(result.objects), result.region, result.boundary, result.frames_per_second), flush=True)
    mean = summarise(results)
    print(_scores("mean over objects", mean.objects, mean.region, mean.boundary, mean.frames_per_second))
    if arguments.out is not None:
        options = predictor.options
        circumstances = current_circumstances(device=predictor.device, resolution=options.short_side)
        extra = {"weights": str(arguments.weights or "lite"), "options": options.as_dict(), "skipped": failed}
        write_json(arguments.out, results, circumstances, extra=extra)
    return FAILED if failed else DONE


def _scores(name: str, objects: int, region: float, boundary: float, speed: float) -> str:
    mean = (region + boundary) / 2
    return f"{name:<24}{objects:>8}{100 * region:>8.1f}{100 * boundary:>8.1f}{100 * mean:>8.1f}{speed:>10.1f}"
