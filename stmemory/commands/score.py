"""`stmemory score`: score folders of predicted masks; runs no model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stmemory.commands.options import Commands, add_data_set_options, chosen_clips
from stmemory.commands.words import DONE, FAILED, complain, score_heads, score_line
from stmemory.files import out_folder

if TYPE_CHECKING:
    from stmemory.evaluation.clips import Clip
    from stmemory.evaluation.protocol import ClipResult

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Offer the command."""
    score = commands.add_parser("score", help="score folders of predicted masks against true ones; runs no model")
    score.add_argument(
        "predictions",
        type=Path,
        metavar="PREDICTIONS",
        help="holds CLIP/00000.png ..., or is the OUT of an evaluation; or 00000.png ... of one clip, or the OUT of "
        "track",
    )
    add_data_set_options(score, "TRUTH")
    group = score.add_argument_group(
        "true masks without frames", "TRUTH holds 00000.png ... of one clip, or CLIP/00000.png ..."
    )
    group.add_argument(
        "--every-frame",
        action="store_true",
        help="count the first frame of each object, which a tracker is given, and the last one, too",
    )
    score.add_argument(
        "--matched-only",
        action="store_true",
        help="leave out true masks without a prediction, instead of skipping the clip",
    )
    score.add_argument("-o", "--out", type=Path, help="folder for CSV tables like those of the DAVIS toolkit")
    score.set_defaults(run=_score)


def _score(arguments: argparse.Namespace) -> int:
    from stmemory.errors import OptionError, StmemoryError
    from stmemory.evaluation.mask_folders import (
        find_mask_clips,
        is_mask_root,
        pair_masks,
        predictions_of,
        predictions_of_one,
        score_clip,
    )
    from stmemory.evaluation.protocol import summarise
    from stmemory.evaluation.tables import write_tables

    if not arguments.predictions.is_dir():
        raise OptionError(
            f"PREDICTIONS: expected a folder with a folder of masks for each clip, got {str(arguments.predictions)!r}"
        )
    if arguments.out is not None:
        out_folder(arguments.out)
    of_data_set = any((arguments.root, arguments.split, arguments.resolution, arguments.all_frames))
    bare = not of_data_set and is_mask_root(arguments.what)
    if arguments.every_frame and not bare:
        raise OptionError(
            "--every-frame: expected a folder of true masks without frames, got clips with frames, whose data "
            "set says what counts; leave it out"
        )
    clips = (
        find_mask_clips(arguments.what, names=arguments.clips or None, every_frame=arguments.every_frame)
        if bare
        else chosen_clips(arguments)
    )
    results, skipped = list["ClipResult"](), 0
    print(score_heads())
    for clip in clips:
        folder = (predictions_of_one if bare and len(clips) == 1 else predictions_of)(arguments.predictions, clip)
        said = ""
        try:
            if folder is None:
                raise OptionError(
                    f"{arguments.predictions}: expected a folder {clip.name} with its masks, got none; name the "
                    "clips to score"
                )
            pairs = pair_masks(folder, clip)
            said = f"  {clip.name}: {pairs}" if bare or (arguments.matched_only and pairs.missing) else ""
            result = score_clip(folder, clip, matched_only=arguments.matched_only)
        except StmemoryError as error:
            skipped += 1
            if said:
                print(said, flush=True)
            complain(f"skipped {clip.name}: {error}")
            continue
        results.append(result)
        print(score_line(clip.name, len(result.objects), result.region, result.boundary), flush=True)
        if said:
            print(f"{said}; {result.frames} frame{'s' * (result.frames != 1)} counted", flush=True)
        if bare and (never := [str(scores.object_id) for scores in result.objects if scores.region.mean == 0]):
            complain(
                f"{clip.name}: no pixel of object {', '.join(never)} was found; do the predictions have other ids "
                "than the truth?"
            )
    mean = summarise(results)
    print(score_line("mean over objects", mean.objects, mean.region, mean.boundary))
    if bare and (unknown := _without_truth(arguments.predictions, clips, all_of_them=not arguments.clips)):
        print(f"no true masks for {', '.join(unknown)}")
    if arguments.out is not None:
        tables = write_tables(arguments.out, results)
        print(f"tables: {', '.join(str(path) for path in tables)}")
    if skipped:
        complain(f"{skipped} of {skipped + len(results)} clips were skipped")
    return FAILED if skipped else DONE


def _without_truth(predictions: Path, clips: list[Clip], *, all_of_them: bool) -> list[str]:
    """Folders of predictions that are of none of the clips."""
    from stmemory.evaluation.mask_folders import is_mask_root

    root = predictions / "Annotations" if (predictions / "Annotations").is_dir() else predictions
    if len(clips) == 1 or not all_of_them:
        return []
    known = {clip.name for clip in clips}
    return sorted(
        folder.name
        for folder in root.iterdir()
        if folder.is_dir() and folder.name not in known and is_mask_root(folder)
    )
