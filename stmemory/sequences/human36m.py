"""Clips to predict from Human3.6M, by two protocols whose figures cannot be compared.

Owns which images make a clip, and what is cut out of them. Both read the public image dumps, 1000 x 1000 and every
fifth frame:

    S1_Walking_1.54138969_000001.jpg      subject, action and its number, camera, frame of the video at 50 a second

| | `Human36mMim` | `Human36mOpenStl` |
|---|---|---|
| who | MIM, and Table 5 of the paper | STRPM, OpenSTL |
| what is seen | the middle half, 128 x 128, RGB | the whole image, 256 x 256, BGR |
| actions | Walking alone | all |
| rate | every 10th frame of the video, 5 a second | every 5th, 10 a second |
| test | subjects 9 and 11, never seen in training | a list, of the same videos as that for training |

The data set is licensed to each person who registers for it; none of it comes with this library.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stmemory.errors import FrameError
from stmemory.sequences.frame_files import check_number, check_split, read_frames, resize
from stmemory.sequences.pictures import check_least

__all__ = ["Human36mMim", "Human36mOpenStl"]

_NAME = re.compile(r"(?P<video>(?P<subject>S\d+)_(?P<action>[A-Za-z]+)(?:_\d+)?\.\d+)_(?P<frame>\d+)\.jpg")
_STORED_EVERY = 5  # frames of the video between two images of the dumps

_MIM_SUBJECTS = {"train": ("S1", "S5", "S6", "S7", "S8"), "test": ("S9", "S11")}
_MIM_ACTION = "Walking"
_MIM_INTERVAL = 2  # images between two frames of a clip
_MIM_STARTS = {"train": 10, "test": 5}  # images between the beginnings of two clips

_OPENSTL_STEP = 5  # frames of the video between two frames of a clip


@dataclass(frozen=True)
class _Image:
    """An image of the dumps."""

    path: Path
    video: str
    frame: int


class Human36mMim:
    """Human3.6M as MIM has it, 4 frames to 4: `clip(index)` is float32 [T, 3, 128, 128] in [0, 1], RGB.

    The middle half of each image is brought to 128 x 128. Clips are of the action Walking: every second image, from
    every tenth one for training and every fifth for the test, as long as none is missing. Its tables have MSE divided
    by 10 and MAE by 100: `FRAME_PROTOCOLS["mim"]` of `stmemory.evaluation.prediction_metrics`.

    Source: the public loader of Wang et al., "Memory In Memory", CVPR 2019.
    """

    def __init__(self, root: str | os.PathLike[str], *, split: str = "train", frames: int = 8, size: int = 128) -> None:
        """List the images; none is opened.

        Args:
            root: folder with the images, in it or in folders below.
            split: train or test.
            frames: T.
            size: H = W in pixels.

        Raises:
            FrameError: there are no images of the split, or too few for a clip.
            OptionError: there is no such split, or a number is out of its range.
        """
        check_split(split)
        check_least(frames=(frames, 1), size=(size, 1))
        self.frames = frames
        self.size = (3, size, size)
        self._images = _mim_images(Path(root), split)
        self._starts = _mim_starts(self._images, frames, _MIM_STARTS[split])
        if not self._starts:
            raise FrameError(
                f"{os.fspath(root)}: expected clips of {frames} of every second image, got {len(self._images)} images "
                "of "
                f"{_MIM_ACTION} and no {(frames - 1) * _MIM_INTERVAL + 1} in a row; unpack the data set again"
            )

    def __len__(self) -> int:
        """How many clips there are."""
        return len(self._starts)

    def clip(self, index: int) -> Tensor:
        """The clip of that number: float32 [T, 3, H, W] in [0, 1], RGB.

        Raises:
            OptionError: there is none of that number.
            FrameError: an image of it is damaged, differs in size, or was cropped or reduced before.
        """
        check_number(index, len(self))
        first = self._starts[index]
        images = self._images[first : first + self.frames * _MIM_INTERVAL : _MIM_INTERVAL]
        whole = read_frames(image.path for image in images)
        height, width = whole.shape[-2:]
        if min(height, width) < 2 * self.size[1]:
            raise FrameError(
                f"{images[0].path}: expected a whole image, of which the middle half is {self.size[1]} x "
                f"{self.size[1]} or larger, "
                f"got {width} x {height}; unpack the original images of 1000 x 1000"
            )
        # Some cameras have 1002 rows: a quarter from the top, rounded down, and one from the bottom, rounded up.
        middle = whole[..., height // 4 : -height // 4, width // 4 : -width // 4]
        return resize(middle.float(), self.size[1]).round() / 255  # OpenCV gives back bytes


class Human36mOpenStl:
    """Human3.6M as OpenSTL has it, 4 frames to 4: `clip(index)` is float32 [T, 3, 256, 256] in [0, 1], BGR.

    Whole images at 256 x 256. Clips are those of a list, a line each, `images/S1_Walking.54138969_,26,96`: what the
    names of the images begin with, the first frame, and a number that is not used. OpenSTL publishes `train.txt` and
    `test.txt`. The channels are blue, green, red, since it reads them with OpenCV. Its tables have plain sums:
    `FRAME_PROTOCOLS["openstl"]`.

    Source: the public loader of Tan et al., "OpenSTL", NeurIPS 2023, after STRPM, CVPR 2022.
    """

    def __init__(self, root: str | os.PathLike[str], *, split: str = "train", frames: int = 8, size: int = 256) -> None:
        """Read the list; no image is opened.

        Args:
            root: folder with `train.txt`, `test.txt` and `images`.
            split: train or test.
            frames: T.
            size: H = W in pixels; images of another size are resized with cubic weights.

        Raises:
            FrameError: there is no list, it is empty, or a line of it is none of a clip.
            OptionError: there is no such split, or a number is out of its range.
        """
        check_split(split)
        check_least(frames=(frames, 1), size=(size, 1))
        self.frames = frames
        self.size = (3, size, size)
        self._root = Path(root)
        self._clips = _listed(self._root / f"{split}.txt")

    def __len__(self) -> int:
        """How many clips the list has."""
        return len(self._clips)

    def clip(self, index: int) -> Tensor:
        """The clip of that number: float32 [T, 3, H, W] in [0, 1], BGR.

        Raises:
            OptionError: there is none of that number.
            FrameError: an image of it is missing or damaged, or they differ in size.
        """
        check_number(index, len(self))
        prefix, begin = self._clips[index]
        numbers = range(begin, begin + self.frames * _OPENSTL_STEP, _OPENSTL_STEP)
        frames = read_frames(self._root / f"{prefix}{number:06d}.jpg" for number in numbers).flip(1)
        return resize(frames.float(), self.size[1], cubic=True).clamp(0, 255).round() / 255


def _mim_images(root: Path, split: str) -> list[_Image]:
    """The images of the split, in the order of their names."""
    if not root.is_dir():
        raise FrameError(
            f"{root}: expected a folder with the images of Human3.6M, got no such folder; unpack the data set"
        )
    found = []
    for path in sorted(root.rglob("*.jpg"), key=lambda path: path.name):
        name = _NAME.fullmatch(path.name)
        if name and name["subject"] in _MIM_SUBJECTS[split] and name["action"] == _MIM_ACTION:
            found.append(_Image(path, name["video"], int(name["frame"])))
    if not found:
        raise FrameError(
            f"{root}: expected images as S1_Walking_1.54138969_000001.jpg, of {', '.join(_MIM_SUBJECTS[split])}, got "
            "none; "
            "unpack those subjects' images into it"
        )
    return found


def _mim_starts(images: list[_Image], frames: int, stride: int) -> list[int]:
    """Where clips begin in the list of images: every so many in each video, if none is missing up to the clip's last
    frame."""
    starts, first, reach = [], 0, _MIM_INTERVAL * (frames - 1)
    while first + reach + _MIM_INTERVAL - 1 < len(images):
        begin, end = images[first], images[first + reach]
        if begin.video != end.video:
            first += 1
            continue
        if end.frame - begin.frame == _STORED_EVERY * reach:
            starts.append(first)
        first += stride
    return starts


def _listed(file: Path) -> list[tuple[str, int]]:
    """What the names of each clip's images begin with, and the number of its first frame."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FrameError(
            f"{file}: expected OpenSTL's list of clips, got one that cannot be read: {error}; fetch it again"
        ) from error
    clips = []
    for number, line in enumerate(lines, start=1):
        fields = line.strip().split(",")
        if fields == [""]:
            continue
        if len(fields) < 2 or not fields[1].isdecimal():
            raise FrameError(
                f"{file}, line {number}: expected a clip as images/S1_Walking.54138969_,26,96, got {line!r}; fetch "
                "the list again"
            )
        clips.append((fields[0], int(fields[1])))
    if not clips:
        raise FrameError(f"{file}: expected a list of clips, got an empty one; fetch it again")
    return clips
