"""Clips to predict from files: the fixed test set of Moving MNIST, and the KTH actions.

Owns their layouts. Human3.6M, which has two protocols, is `human36m.py`. Nothing is fetched; each set has to be had
already.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stmemory.errors import FrameError, OptionError
from stmemory.sequences.frame_files import check_number, check_split, read_frames, resize
from stmemory.sequences.pictures import check_least
from stmemory.untrusted import read_array

__all__ = ["Kth", "MovingMnistFile"]

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
                "it if clips "
                "come first, or say how many frames it has"
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
                "many; unpack the "
                "data set again, or ask for fewer frames"
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
            f"{folder}: expected a folder of videos as person01_boxing_d1_uncomp, got no such folder; unpack the data "
            "set"
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
