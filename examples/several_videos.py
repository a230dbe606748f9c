"""Track several videos at once, in turns.

Usage: python several_videos.py OUT CLIP_0 MASK_0.png CLIP_1 MASK_1.png ...
"""

import sys
from pathlib import Path

from stmemory import VOSPredictor


def main(out: str, *clips_and_masks: str) -> dict[int, int]:
    clips, masks = clips_and_masks[::2], clips_and_masks[1::2]
    predictor = VOSPredictor.from_pretrained()  # one network for all
    frames = dict.fromkeys(range(len(clips)), 0)
    # One frame of each video in turn. Sizes and lengths may differ, and clips may be cameras or generators.
    for video, result in predictor.track_many(clips, masks):
        result.save(Path(out) / str(video) / f"{result.frame_index:05d}.png")
        frames[video] += 1
    for video, clip in enumerate(clips):
        print(f"{clip}: {frames[video]} masks in {Path(out) / str(video)}")
    return frames


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
