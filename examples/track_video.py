"""Track objects through a video and write palette PNGs and an overlay.

Usage: python track_video.py CLIP FIRST_MASK.png OUT
"""

import sys
from pathlib import Path

from stmemory import VOSPredictor
from stmemory.io.frames import iterate_frames
from stmemory.io.video import OverlayWriter


def main(clip: str, first_mask: str, out: str) -> None:
    folder, frames = Path(out), 0
    predictor = VOSPredictor.from_pretrained()  # bundled weights, no network needed
    with OverlayWriter(folder / "overlay.mp4") as overlay:
        # The clip is read twice in parallel: for tracking, and for drawing. Neither copy is held in memory.
        for frame, result in zip(iterate_frames(clip), predictor.track(clip, first_mask), strict=True):
            result.save(folder / "masks" / f"{result.frame_index:05d}.png")
            overlay.write(result.overlay(frame))
            frames += 1
            lost = [object_id for object_id, seen in result.present.items() if not seen]
            if lost:
                print(f"frame {result.frame_index}: not seen: {lost}")
    print(f"{frames} masks in {folder / 'masks'}, overlay in {folder / 'overlay.mp4'}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
