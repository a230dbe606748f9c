"""Single frames of data sets that lie in folders, in the words of their protocols: whole images, resized without
smoothing.

Owns reading and resizing. Which files make a clip is said by `folders.py` and `human36m.py`.

The data sets' public loaders resize with OpenCV, which does not smooth before it makes images smaller. So does this:
torch's `interpolate` without antialiasing takes the same samples with the same weights, where Pillow's `resize` would
not.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stmemory.errors import FrameError, OptionError
from stmemory.images import image_to_rgb, opened_image

__all__ = ["check_number", "check_split", "read_frames", "resize"]


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
