"""Track a folder of frames, with masks for the frames in which objects enter.

Usage: python track_folder.py FRAMES MASKS OUT

FRAMES contains 00000.jpg, 00001.jpg, ...; MASKS contains a palette PNG for each frame that has a mask: 00000.png, and
for an object that enters later 00012.png. New ids add objects at that frame; existing ids correct their objects.
"""

import sys
from pathlib import Path

from stmemory import VOSPredictor
from stmemory.io.images import image_files


def main(frames: str, masks: str, out: str) -> dict[str, tuple[int, ...]]:
    marked = {path.stem: path for path in image_files(Path(masks))}
    files = image_files(Path(frames))  # in natural order
    if unknown := sorted(set(marked) - {file.stem for file in files}):
        raise SystemExit(f"{masks}: expected names of frames, got {', '.join(unknown)}")
    predictor, stream, tracked = VOSPredictor.from_pretrained(), None, {}
    for file in files:
        if stream is not None:
            result = stream.step(file, marked.get(file.stem))
        elif file.stem in marked:
            stream = predictor.start(file, marked[file.stem])
            result = stream.last
        else:
            continue  # no mask so far
        result.save(Path(out) / f"{file.stem}.png")
        tracked[file.stem] = result.object_ids
    print(f"{len(tracked)} masks of {len(files)} frames, objects at the end: {stream.object_ids}")
    return tracked


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
