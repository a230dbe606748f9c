"""Grey frames as colour frames and back: by repeating a value three times, and by ITU-R BT.601's luma, Pillow's "L"."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from stmemory.errors import FrameError, OptionError, ShapeError
from stmemory.io.frames import iterate_frames
from stmemory.io.untrusted import read_array
from stmemory.types import FrameLike, GreyFrameLike, GreyVideoLike, VideoLike

__all__ = ["as_colour", "clip_frames", "of_channels"]


def as_colour(image: GreyFrameLike) -> FrameLike:
    """Give a grey image its value three times, so that `to_frame` takes it; anything else comes back as it is.

    Args:
        image: an array `[H, W]` or `[H, W, 1]`, or a tensor `[H, W]` or `[1, H, W]`.

    Returns:
        A view: `[H, W, 3]` or `[3, H, W]`.

    >>> as_colour(np.zeros((4, 6), np.uint8)).shape
    (4, 6, 3)
    """
    if isinstance(image, np.ndarray):
        grey = image[..., None] if image.ndim == 2 else image
        return np.broadcast_to(grey, (*grey.shape[:2], 3)) if grey.ndim == 3 and grey.shape[2] == 1 else image
    if isinstance(image, Tensor):
        tensor = image[None] if image.dim() == 2 else image
        return tensor.expand(3, -1, -1) if tensor.dim() == 3 and tensor.shape[0] == 1 else image
    return image


def clip_frames(source: GreyVideoLike) -> Iterator[Tensor]:
    """Read a clip of any kind, grey or in colour, one frame at a time.

    Args:
        source: a source of `iterate_frames`; and grey clips: an array `[T, H, W]` or `[T, H, W, 1]`, a tensor `[T, H,
            W]` or `[T, 1, H, W]`, an iterable of what `as_colour` takes; and the path of an `.npy` file with such an
            array, which is not read as a whole.

    Returns:
        Frames: float32 `[3, H, W]` in [0, 1], all of one size.

    Raises:
        ShapeError: the source or one of its frames is of another kind or shape.
        FrameError: it is empty, missing or damaged, has values out of range, or the size changes.

    >>> [frame.shape for frame in clip_frames(np.zeros((2, 4, 6), np.uint8))]
    [torch.Size([3, 4, 6]), torch.Size([3, 4, 6])]
    """
    if isinstance(source, (str, os.PathLike)):
        if Path(source).suffix.lower() != ".npy":
            return iterate_frames(source)
        source = _loaded(Path(source))
    if isinstance(source, (np.ndarray, Tensor)):
        return iterate_frames(_clip_as_colour(source))
    if isinstance(source, Iterable) and not isinstance(source, (Mapping, bytes)):
        return iterate_frames(
            [as_colour(image) for image in source] if isinstance(source, (list, tuple)) else map(as_colour, source)
        )
    return iterate_frames(source)  # which says what it is


def of_channels(frame: Tensor, channels: int) -> Tensor:
    """A colour frame as a network takes it.

    Args:
        frame: `[3, H, W]`.
        channels: 1 for grey, 3 for colour.

    Returns:
        `[channels, H, W]`; grey of a frame that is grey already is exactly its value.

    >>> import torch
    >>> of_channels(torch.full((3, 1, 2), 0.7), 1).tolist()
    [[[0.699999988079071, 0.699999988079071]]]
    """
    if channels == 3:
        return frame
    red, green, blue = frame[:1], frame[1:2], frame[2:]
    return (
        green + 0.299 * (red - green) + 0.114 * (blue - green)
    )  # the weights sum to 1: no rounding where all are equal


def _clip_as_colour(clip: np.ndarray | Tensor) -> VideoLike:
    """A grey clip with its values three times; others as they are."""
    if isinstance(clip, Tensor):
        tensor = clip[:, None] if clip.dim() == 3 else clip
        return tensor.expand(-1, 3, -1, -1) if tensor.dim() == 4 and tensor.shape[1] == 1 else clip
    grey = clip[..., None] if clip.ndim == 3 else clip
    return np.broadcast_to(grey, (*grey.shape[:3], 3)) if grey.ndim == 4 and grey.shape[3] == 1 else clip


def _loaded(path: Path) -> np.ndarray:
    """The array of a file, which stays on the disk until it is looked at."""
    if not path.exists():
        raise FrameError(f"no such file or folder: {str(path)!r}")
    try:
        clip = read_array(path)
    except OptionError as error:
        raise FrameError(str(error)) from error
    if clip.ndim not in (3, 4) or (clip.ndim == 4 and clip.shape[3] not in (1, 3)):
        raise ShapeError(
            f"{path}: expected one clip, [T, H, W] or [T, H, W, 3], got shape {clip.shape}; {_instead(clip)}"
        )
    return clip


def _instead(clip: np.ndarray) -> str:
    """What to do about an array that is no clip."""
    if clip.ndim not in (2, 4):
        return "save one clip with numpy.save"
    if clip.ndim == 2:
        return "a clip of one frame is array[None]"
    if clip.shape[1] in (1, 3):
        return "save it with its channels last, array.transpose(0, 2, 3, 1)"
    return "of many clips save one, such as array[:, 0]"
