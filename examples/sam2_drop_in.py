"""A script for SAM 2's video predictor, with the import changed and a mask as prompt.

Usage: python sam2_drop_in.py CLIP MASK.png OUT
"""

import sys
from pathlib import Path

import numpy as np
import torch

from stmemory.io.palette import read_palette_png, write_palette_png
from stmemory.sam2 import VideoPredictor


def main(clip: str, first_mask: str, out: str) -> int:
    predictor = VideoPredictor.from_pretrained()  # was: SAM2VideoPredictor.from_pretrained("facebook/sam2-hiera-large")
    objects = read_palette_png(first_mask).numpy()

    with torch.inference_mode():
        state = predictor.init_state(clip)  # opens the clip; frames are read when they are needed
        for obj_id in np.unique(objects[objects > 0]).tolist():
            # Clicks and boxes, add_new_points_or_box, need SAM 2's own weights, or a prompter.
            predictor.add_new_mask(state, frame_idx=0, obj_id=obj_id, mask=objects == obj_id)

        frames = 0
        for frame_idx, obj_ids, mask_logits in predictor.propagate_in_video(state):
            ids = np.zeros((state["video_height"], state["video_width"]), np.uint8)
            for obj_id, logits in zip(obj_ids, mask_logits, strict=True):
                ids[(logits[0] > 0.0).cpu().numpy()] = obj_id  # masks do not overlap
            write_palette_png(Path(out) / f"{frame_idx:05d}.png", torch.from_numpy(ids))
            frames += 1
    print(f"{frames} masks in {out}")
    return frames


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
