"""Score weights on DAVIS: J and F of every clip, masks and tables.

Usage: python evaluate_davis.py DAVIS_ROOT OUT [CLIP ...]

DAVIS_ROOT is the folder with JPEGImages, Annotations and ImageSets. `stmemory evaluate davis2017 --root DAVIS_ROOT -o
OUT` does the same, can be resumed, and uses several processes; this script shows the steps.
"""

import sys
from pathlib import Path

import torch

from stmemory import VOSPredictor
from stmemory.evaluation import evaluate_clip, find_data_set, summarise, write_tables
from stmemory.io.palette import write_palette_png


def main(root: str, out: str, *names: str) -> float:
    predictor = VOSPredictor.from_pretrained()
    results = []
    for clip in find_data_set("davis2017", root, split="val", names=names or None):

        def save(index: int, ids: torch.Tensor, folder: Path = Path(out) / "Annotations" / clip.name) -> None:
            write_palette_png(folder / f"{index:05d}.png", ids)

        # The predictor gets the true mask of the first frame; all others are only used for the comparison.
        results.append(evaluate_clip(predictor, clip, on_frame=save))
        one = results[-1]
        print(
            f"{one.name:<24} J {100 * one.region:5.1f}  F {100 * one.boundary:5.1f}  {one.frames_per_second:5.1f} "
            "frames/s"
        )
    summary = summarise(results)
    write_tables(Path(out), results)
    print(f"J&F {100 * summary.mean:.1f} over {summary.objects} objects of {summary.clips} clips")
    return summary.mean


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
