"""`stmemory score`: score folders of predicted masks; runs no model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stmemory.commands.options import Commands, add_data_set_options, chosen_clips
from stmemory.commands.words import DONE, FAILED, complain, score_heads, score_line
from stmemory.files import out_folder

if TYPE_CHECKING:
    from stmemory.evaluation.protocol import ClipResult

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Offer the command."""
    score = commands.add_parser("score", help="score folders of predicted masks against true ones; runs no model")
    score.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="holds CLIP/00000.png ..., or is the OUT of an evaluation")
    add_data_set_options(score, "TRUTH")
    score.add_argument("-o", "--out", type=Path, help="folder for CSV tables like those of the DAVIS toolkit")
    score.set_defaults(run=_score)


def _score(arguments: argparse.Namespace) -> int:
    from stmemory.errors import OptionError, StmemoryError
    from stmemory.evaluation.mask_folders import predictions_of, score_clip
    from stmemory.evaluation.protocol import summarise
    from stmemory.evaluation.tables import write_tables

    if not arguments.predictions.is_dir():
        raise OptionError(f"PREDICTIONS: expected a folder with a folder of masks for each clip, got {str(arguments.predictions)!r}")
    if arguments.out is not None:
        out_folder(arguments.out)
    results, skipped = list["ClipResult"](), 0
    print(score_heads())
    for clip in chosen_clips(arguments):
        folder = predictions_of(arguments.predictions, clip)
        try:
            if folder is None:
                raise OptionError(f"{arguments.predictions}: expected a folder {clip.name} with its masks, got none; name the clips to score")
            result = score_clip(folder, clip)
        except StmemoryError as error:
            skipped += 1
            complain(f"skipped {clip.name}: {error}")
            continue
        results.append(result)
        print(score_line(clip.name, len(result.objects), result.region, result.boundary), flush=True)
    mean = summarise(results)
    print(score_line("mean over objects", mean.objects, mean.region, mean.boundary))
    if arguments.out is not None:
        tables = write_tables(arguments.out, results)
        print(f"tables: {', '.join(str(path) for path in tables)}")
    if skipped:
        complain(f"{skipped} of {skipped + len(results)} clips were skipped")
    return FAILED if skipped else DONE
