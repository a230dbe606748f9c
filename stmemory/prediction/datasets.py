"""Data sets for prediction in folders: Moving MNIST, KTH, Human3.6M."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stmemory.errors import FrameError, OptionError
from stmemory.io.images import image_to_rgb, opened_image
from stmemory.io.untrusted import read_array
from stmemory.prediction.synthetic import check_least

__all__ = [
    "Human36mMim",
    "Human36mOpenStl",
    "Kth",
    "MovingMnistFile",
    "check_number",
    "check_split",
    "read_frames",
    "resize",
]


def read_frames(files: Iterable[Path]) -> Tensor:
    """Read the frames of a clip.

    Args:
        files: images of one size, one or more.

    Returns:
        uint8 [T, 3, H, W], RGB.

    Raises:
        FrameError: a file is missing or damaged, or has another size than the first.
    """
    frames: list[Tensor] = []
    for file in files:
        if not file.is_file():
            raise FrameError(f"{file}: expected a frame of a clip, got no such file; unpack the data set again")
        with opened_image(file) as image:
            frame = torch.from_numpy(np.ascontiguousarray(image_to_rgb(image).transpose(2, 0, 1)))
        if frames and frame.shape != frames[0].shape:
            expected, came = ("{1} x {0}".format(*some.shape[1:]) for some in (frames[0], frame))
            raise FrameError(
                f"{file}: expected {expected} like the first frame of its clip, got {came}; unpack it again"
            )
        frames.append(frame)
    return torch.stack(frames)


def resize(frames: Tensor, size: int, *, cubic: bool = False) -> Tensor:
    """Bring frames to `size` x `size` as OpenCV does: linear or cubic weights (a = -0.75), no smoothing, no rounding.

    Args:
        frames: float [T, C, H, W] on any scale.
        size: pixels.
        cubic: cubic in place of linear; values may then leave the range of the input.

    Returns:
        Of the same dtype, [T, C, size, size].

    >>> resize(torch.tensor([[[[0.0, 4.0], [0.0, 4.0]]]]), 1).item()
    2.0
    """
    if frames.shape[-2:] == (size, size):
        return frames
    return F.interpolate(
        frames, size=(size, size), mode="bicubic" if cubic else "bilinear", align_corners=False, antialias=False
    )


def check_split(split: str) -> None:
    """Check that a split is one of the two that these data sets have.

    Raises:
        OptionError: it is not.

    >>> check_split("validation")
    Traceback (most recent call last):
    stmemory.errors.OptionError: split: expected 'train' or 'test', got 'validation'
    """
    if split not in ("train", "test"):
        raise OptionError(f"split: expected 'train' or 'test', got {split!r}")


def check_number(index: int, clips: int) -> None:
    """Check that there is a clip of that number.

    Raises:
        OptionError: there is not.

    >>> check_number(3, 3)
    Traceback (most recent call last):
    stmemory.errors.OptionError: clip: expected a number in 0..2, got 3
    """
    if not 0 <= index < clips:
        raise OptionError(f"clip: expected a number in 0..{clips - 1}, got {index}")


KTH_ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
_FAST = ("jogging", "running")  # so short that the protocol lets their clips overlap
_FAST_STRIDE = 3
_PERSONS = {"train": range(1, 17), "test": range(17, 26)}


class MovingMnistFile:
    """The clips of a file laid out as `mnist_test_seq.npy`: uint8 [T, N, H, W], 20 frames of 10000 clips of 64 x 64.

    Fashion-MNIST's `fmnist_test_seq.npy` has the same layout. The file is not read into memory.
    """

    def __init__(self, path: str | os.PathLike[str], *, frames: int = 20) -> None:
        """Look at the file's header.

        Args:
            path: the npy file.
            frames: T, of which the file has to be.

        Raises:
            FrameError: there is no such file, or it holds something else.
        """
        self._path = Path(path)
        stored = self._open()
        if stored.dtype != np.uint8 or stored.ndim != 4 or len(stored) != frames or 0 in stored.shape:
            raise FrameError(
                f"{path}: expected uint8 [T, N, H, W] with T = {frames}, got {stored.dtype} {stored.shape}; transpose "
                "it if clips come first, or say how many frames it has"
            )
        self.frames = frames
        self.size = (1, int(stored.shape[2]), int(stored.shape[3]))
        self._number = int(stored.shape[1])

    def __len__(self) -> int:
        """N."""
        return self._number

    def clip(self, index: int) -> Tensor:
        """The clip of that number: float32 [T, 1, H, W] in [0, 1].

        Raises:
            OptionError: there is none of that number.
        """
        check_number(index, len(self))
        return torch.from_numpy(np.array(self._open()[:, index, None])).float() / 255

    def _open(self) -> NDArray[np.uint8]:
        """The file's array, mapped. It is not kept open, so that clips can be sent to other processes."""
        try:
            stored: NDArray[np.uint8] = read_array(self._path)
        except OptionError as error:
            raise FrameError(f"{self._path}: expected an npy file of clips, uint8 [T, N, H, W]; {error}") from error
        return stored


class Kth:
    """The KTH actions as PredRNN, E3D-LSTM and OpenSTL cut them: `clip(index)` is float32 [T, 1, H, W] in [0, 1].

        ROOT/boxing/person01_boxing_d1_uncomp/image_0001.jpg

    Persons 1 to 16 are for training, 17 to 25 for the test. Clips are taken from the end of each video backwards,
    without overlap; those of jogging and running every 3 frames. A clip of which a frame is missing, as between the
    runs of a person, is no clip. Frames are the first channel, resized. Published figures show 10 frames and ask for 20
    or 40 (`frames=30` or `frames=50`); PredRNN trains with 10 and 10.

    Sources: Schuldt et al., "Recognizing Human Actions", ICPR 2004; the loader of OpenSTL.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        split: str = "train",
        frames: int = 30,
        size: int = 128,
        actions: Sequence[str] = KTH_ACTIONS,
    ) -> None:
        """List the files; none is opened.

        Args:
            root: folder with the six actions in it.
            split: train or test.
            frames: T, 3 or more.
            size: H = W in pixels.
            actions: those wanted.

        Raises:
            FrameError: an action or its frames are not there, or a frame has a name that says no number.
            OptionError: there is no such split or action, or a number is out of its range.
        """
        check_split(split)
        check_least(frames=(frames, _FAST_STRIDE), size=(size, 1))
        self.frames = frames
        self.size = (1, size, size)
        self._clips: list[list[Path]] = []
        for action in actions:
            if action not in KTH_ACTIONS:
                raise OptionError(f"actions: expected some of {', '.join(KTH_ACTIONS)}, got {action!r}")
            stride = _FAST_STRIDE if action in _FAST else frames
            for folder in _kth_videos(Path(root) / action, split):
                files = _kth_frames(folder)
                self._clips += [
                    [files[number] for number in span] for span in _kth_spans(sorted(files), frames, stride)
                ]
        if not self._clips:
            raise FrameError(
                f"{os.fspath(root)}: expected clips of {frames} frames of the {split} persons, got no video of so "
                "many; unpack the data set again, or ask for fewer frames"
            )

    def __len__(self) -> int:
        """How many clips there are."""
        return len(self._clips)

    def clip(self, index: int) -> Tensor:
        """The clip of that number: float32 [T, 1, H, W] in [0, 1].

        Raises:
            OptionError: there is none of that number.
            FrameError: a frame of it is damaged, or they differ in size.
        """
        check_number(index, len(self))
        return resize(read_frames(self._clips[index])[:, :1].float(), self.size[1]) / 255


def _kth_videos(folder: Path, split: str) -> list[Path]:
    """The folders of a split's videos of one action, by name."""
    if not folder.is_dir():
        raise FrameError(
            f"{folder}: expected a folder of videos as "
            "person01_boxing_d1_uncomp, got no such folder; unpack the data set"
        )
    found = {path: re.match(r"person(\d\d)_", path.name) for path in folder.iterdir() if path.is_dir()}
    return sorted(path for path, name in found.items() if name and int(name[1]) in _PERSONS[split])


def _kth_frames(folder: Path) -> dict[int, Path]:
    """The frames of a video by their numbers."""
    found = {}
    for file in folder.iterdir():
        if file.name.startswith("image"):
            number = re.match(r"image.(\d{4})", file.name)
            if not number:
                raise FrameError(
                    f"{file}: expected a name as image_0001.jpg, got one without a number of four digits; rename it"
                )
            found[int(number[1])] = file
    if not found:
        raise FrameError(f"{folder}: expected frames as image_0001.jpg, got none; unpack the data set again")
    return found


def _kth_spans(numbers: Sequence[int], frames: int, stride: int) -> list[range]:
    """Numbers of the frames of each clip, in order of time: taken from the last frame backwards, whole ones alone."""
    spans, last = [], len(numbers) - 1
    while last >= frames - 1:
        first = last - frames + 1
        if numbers[last] - numbers[first] == frames - 1:
            spans.append(range(numbers[first], numbers[last] + 1))
            last -= stride
        else:
            last -= 1
    return spans[::-1]


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
    by 10 and MAE by 100: `FRAME_PROTOCOLS["mim"]` of `stmemory.evaluation.frame_metrics`.

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
                f"of {_MIM_ACTION} and no {(frames - 1) * _MIM_INTERVAL + 1} in a row; unpack the data set again"
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
                f"{self.size[1]} or larger, got {width} x {height}; unpack the original images of 1000 x 1000"
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
            "none; unpack those subjects' images into it"
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
                f"{file}, line {number}: expected a clip as "
                f"images/S1_Walking.54138969_,26,96, got {line!r}; fetch the list again"
            )
        clips.append((fields[0], int(fields[1])))
    if not clips:
        raise FrameError(f"{file}: expected a list of clips, got an empty one; fetch it again")
    return clips
