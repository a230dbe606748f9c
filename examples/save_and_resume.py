"""Track with interruptions: stop at any time, and run the same command again to continue.

Usage: python save_and_resume.py CLIP MASK.png OUT
"""

import itertools
import sys
from pathlib import Path

from stmemory import VOSPredictor
from stmemory.io.frames import iterate_frames

EVERY = 50  # frames between two saves; frames after the last save are tracked again


def main(clip: str, first_mask: str, out: str, at_most: int | None = None) -> int:
    folder, state = Path(out), Path(out) / "stream.safetensors"
    predictor = VOSPredictor.from_pretrained()
    frames = iterate_frames(clip)
    if state.exists():
        stream = predictor.resume(state)  # the next masks are the same, bit for bit, as without the interruption
        frames = itertools.islice(frames, stream.frame_index + 1, None)
        print(f"continuing after frame {stream.frame_index}")
    else:
        stream = predictor.start(next(frames), first_mask)
        stream.last.save(folder / "00000.png")
    for frame in itertools.islice(frames, at_most):
        result = stream.step(frame)
        result.save(folder / f"{result.frame_index:05d}.png")  # an atomic write, even if this process is killed
        if result.frame_index % EVERY == 0:
            stream.save(state)  # a few MB, the same after ten frames and after ten hours
    stream.save(state)
    print(f"{stream.frame_index + 1} masks in {folder}")
    return stream.frame_index


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
