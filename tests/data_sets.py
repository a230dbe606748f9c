"""Tiny copies of data sets in the layouts that they are unpacked into; two objects move over grey, the second enters
late."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stmemory.io.palette import write_palette_png

HEIGHT, WIDTH, FRAMES, LATE = 40, 56, 12, 5  # object 2 enters with frame 5


@dataclass(frozen=True)
class Case:
    """A data set on disk, and what is expected of it.

    Attributes:
        name: of the data set; empty for a folder of one's own.
        split: of it.
        annotated: positions of frames whose truth is there.
        counting: for each object the positions of the frames that count.
        number: of the first frame, in its file name.
        digits: of its file name.
    """

    name: str
    split: str
    annotated: tuple[int, ...]
    counting: dict[int, tuple[int, ...]]
    number: int = 0
    digits: int = 5


EACH, FIFTH = tuple(range(FRAMES)), (0, 5, 10)
CASES = (
    Case("", "", EACH, {1: tuple(range(1, 11)), 2: tuple(range(6, 11))}),
    Case("davis2016", "val", EACH, {1: tuple(range(1, 11))}),
    Case("davis2017", "val", EACH, {1: tuple(range(1, 11)), 2: tuple(range(6, 11))}),
    Case("davis2017", "test-dev", (0,), {}),
    Case("youtube2018", "val", (0, 5), {}),
    Case("youtube2019", "train", FIFTH, {1: (5, 10), 2: (10,)}),
    Case("longtime", "x1", (0, 3, 6, 11), {1: (3, 6), 2: ()}),
    Case("lvos1", "val", FIFTH, {1: (0, 5), 2: (5, 10)}, number=1, digits=8),
    Case("lvos2", "test", (0, 5), {}, number=1, digits=8),
    Case("mose", "train", EACH, {1: tuple(range(1, 11)), 2: tuple(range(6, 11))}),
    Case("mose", "val", (0,), {}),
)


def case_id(case: Case) -> str:
    """Name of a case in the tests."""
    return f"{case.name or 'folder'}-{case.split}".rstrip("-")


def truth_at(index: int) -> np.ndarray:
    """Object 1 from the start, moving to the right; object 2 below it from frame 5 on."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[4:16, 4 + 2 * index : 20 + 2 * index] = 1
    if index >= LATE:
        ids[22:36, 8:24] = 2
    return ids


def frame_at(index: int, *, seed: int = 0) -> np.ndarray:
    """A frame that holds its own number in its first pixel; the scenery is drawn."""
    frame = np.random.default_rng(seed).integers(60, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    frame[truth_at(index) == 1] = (220, 60, 40)
    frame[truth_at(index) == 2] = (40, 60, 220)
    frame[0, 0] = index
    return frame


def write_data_set(case: Case, root: Path, *, clips: tuple[str, ...] = ("walk",)) -> Path:
    """Write clips in a data set's layout, with the annotations that it gives away, and return its folder."""
    for seed, clip in enumerate(clips):
        frames, annotations = _places(case, root, clip)
        frames.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for index in range(FRAMES):
            Image.fromarray(frame_at(index, seed=seed)).save(frames / f"{stem(case, index)}.png")
            if index in case.annotated:
                truth = truth_at(index)
                if (case.name == "davis2017" and case.split == "test-dev") or (
                    case.name == "mose" and case.split == "val"
                ):
                    truth[22:36, 8:24] = 2  # all objects are in the first frame, where nothing else is given away
                elif case.split in ("val", "test") and case.name in ("youtube2018", "lvos2") and index == LATE:
                    truth[truth == 1] = 0  # the one that enters alone is given away
                write_palette_png(annotations / f"{stem(case, index)}.png", truth)
    _write_lists(case, root, clips)
    return root


def stem(case: Case, index: int) -> str:
    """Name of a frame without its ending."""
    return f"{index + case.number:0{case.digits}d}"


def annotation_of(case: Case, root: Path, index: int, clip: str = "walk") -> Path:
    """File of a frame's truth."""
    return _places(case, root, clip)[1] / f"{stem(case, index)}.png"


def frames_of(case: Case, root: Path, clip: str = "walk") -> Path:
    """Folder of a clip's frames."""
    return _places(case, root, clip)[0]


def _places(case: Case, root: Path, clip: str) -> tuple[Path, Path]:
    """Folders of a clip's frames and of its annotations."""
    if not case.name:
        return root / clip / "JPEGImages", root / clip / "Annotations"
    if case.name.startswith("davis"):
        return root / "JPEGImages" / "480p" / clip, root / "Annotations" / "480p" / clip
    valid = {"youtube2018": "valid", "mose": "valid"}
    below = root / (
        "long_video" if case.name == "longtime" else valid.get(case.name, "val") if case.split == "val" else case.split
    )
    return below / "JPEGImages" / clip, below / "Annotations" / clip


def _write_lists(case: Case, root: Path, clips: tuple[str, ...]) -> None:
    if case.name == "davis2017":
        (root / "ImageSets" / "2017").mkdir(parents=True)
        (root / "ImageSets" / "2017" / f"{case.split}.txt").write_text("\n".join(clips) + "\n")
    elif case.name == "davis2016":  # a line for each frame
        (root / "ImageSets" / "480p").mkdir(parents=True)
        lines = [
            f"/JPEGImages/480p/{clip}/{i:05d}.jpg /Annotations/480p/{clip}/{i:05d}.png"
            for clip in clips
            for i in range(FRAMES)
        ]
        (root / "ImageSets" / "480p" / f"{case.split}.txt").write_text("\n".join(lines) + "\n")
    elif case.name.startswith("youtube"):
        names = [stem(case, index) for index in FIFTH]
        objects = {"1": {"category": "cat", "frames": names}, "2": {"category": "dog", "frames": names[1:]}}
        folder = frames_of(case, root).parent.parent
        (folder / "meta.json").write_text(json.dumps({"videos": {clip: {"objects": objects} for clip in clips}}))
    elif case.name.startswith("lvos"):
        spans = {"1": (1, 11), "2": (6, 12)}  # the last is left out
        objects = {
            key: {"frame_range": {"start": str(a), "end": str(b), "frame_nums": "3"}} for key, (a, b) in spans.items()
        }
        folder = frames_of(case, root).parent.parent
        (folder / f"{case.split}_meta.json").write_text(
            json.dumps({"videos": {clip: {"objects": objects} for clip in clips}})
        )
