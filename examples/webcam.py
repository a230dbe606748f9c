"""Track an object in front of a camera for hours, with constant memory.

A camera needs OpenCV, pip install opencv-python:

    python webcam.py [--source 1]

Draw a box around the object and press Enter; q ends. This reads a file instead of a camera, and needs no OpenCV:

    python webcam.py --source clip.mp4 --mask first.png --out overlay.mp4
"""

import argparse
import itertools
from contextlib import nullcontext

import numpy as np

from stmemory import VOSPredictor
from stmemory.io.frames import iterate_frames
from stmemory.io.video import OverlayWriter


def from_camera(cv2, number):
    camera = cv2.VideoCapture(number)
    while (answer := camera.read())[0]:
        yield np.ascontiguousarray(answer[1][..., ::-1])  # OpenCV returns BGR


def from_box(cv2, frame):
    picture, mask = np.ascontiguousarray(frame[..., ::-1]), np.zeros(frame.shape[:2], np.uint8)
    box, models = cv2.selectROI("draw a box, press Enter", picture), np.zeros((2, 1, 65))
    if all(box[2:]):  # without a box the mask is empty, which start() reports
        cv2.grabCut(picture, mask, box, *models, 5, cv2.GC_INIT_WITH_RECT)
    return (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)  # the object that GrabCut found inside the box


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--source", default="0", help="number of a camera, or a video file or folder of images, with --mask"
    )
    parser.add_argument("--mask", help="the objects of the first frame; without it you draw a box")
    parser.add_argument("--out", help="write the overlay to this MP4 instead of showing it")
    given = parser.parse_args(arguments)
    camera, cv2 = given.source.isdecimal(), None
    camera or given.mask or parser.error("--source: expected --mask FIRST.png with a file")
    if camera or not given.out:
        try:
            import cv2
        except ImportError:
            raise SystemExit(
                "OpenCV is missing: pip install opencv-python, or give a file as --source, --mask and --out"
            ) from None
    frames = from_camera(cv2, int(given.source)) if camera else iterate_frames(given.source)
    if (first := next(frames, None)) is None:
        raise SystemExit(
            f"camera {given.source} cannot be opened or gives no picture: try another --source; another program may "
            "have it"
        )
    stream = VOSPredictor.from_pretrained().start(first, given.mask or from_box(cv2, first))
    with OverlayWriter(given.out) if given.out else nullcontext() as film:
        for index, frame in enumerate(itertools.chain([first], frames)):
            picture = (stream.step(frame) if index else stream.last).overlay(frame)
            if film:
                film.write(picture)
            elif cv2.imshow("stmemory: q ends", picture[..., ::-1]) or cv2.waitKey(1) == ord("q"):  # imshow gives None
                break
    print(f"{stream.frame_index + 1} frames, {stream.nbytes / 1e6:.1f} MB remembered")
    return stream.frame_index + 1


if __name__ == "__main__":
    main()
