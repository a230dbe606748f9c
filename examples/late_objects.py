"""Add an object later, correct one and remove one, in a stream that gets one frame at a time."""

import numpy as np

from stmemory import VOSPredictor
from stmemory.evaluation.scenes import render_scene


def main(frames: int = 12) -> list[tuple[int, ...]]:
    # (frame, true ids): in place of a camera and a person who draws masks.
    clip = list(render_scene(frames, height=96, width=160))
    predictor = VOSPredictor.from_pretrained()

    frame, truth = clip[0]
    stream = predictor.start(frame, np.where(truth == 1, 1, 0))  # only the ball
    tracked = [stream.object_ids]
    for index, (frame, truth) in enumerate(clip[1:], start=1):
        if index == 4:  # the kite enters: pass its mask with the frame; 0 says nothing about the ball
            stream.step(frame, np.where(truth == 2, 2, 0))
        else:
            stream.step(frame)
        if index == 6:  # a person corrects the ball in the last frame; the correction is pinned
            stream.correct(np.where(truth == 1, 1, 0))
        if index == 8:
            stream.remove_objects([2])
        tracked.append(stream.object_ids)
        print(index, stream.last.scores, f"{stream.bank.nbytes:,} bytes")
    return tracked


if __name__ == "__main__":
    main()
