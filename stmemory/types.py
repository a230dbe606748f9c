"""Types of what users pass in: a frame, a clip, and a mask, each in every form that the library takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

__all__ = [
    "ClipLike",
    "FrameLike",
    "GreyFrameLike",
    "GreyVideoLike",
    "IndexedFrames",
    "MaskArrayLike",
    "MaskLike",
    "SupportsArray",
    "VideoLike",
]

_Array_co = TypeVar("_Array_co", bound=np.ndarray[Any, np.dtype[Any]], covariant=True)
_Number: TypeAlias = np.integer[Any] | np.floating[Any]
_FrameArray: TypeAlias = np.ndarray[tuple[int, int, int], np.dtype[_Number]]  # [H, W, 3]
_ClipArray: TypeAlias = np.ndarray[tuple[int, int, int, int], np.dtype[_Number]]  # [T, H, W, 3]
_GreyFrame: TypeAlias = np.ndarray[tuple[int, int], np.dtype[_Number]]  # [H, W]
_GreyClip: TypeAlias = np.ndarray[tuple[int, int, int], np.dtype[_Number]]  # [T, H, W]
_MaskShape: TypeAlias = tuple[int, int] | tuple[int, int, int]
_MaskArray: TypeAlias = np.ndarray[_MaskShape, np.dtype[np.bool_ | _Number]]  # [H, W] or [N, H, W]


class SupportsArray(Protocol[_Array_co]):
    """An object that becomes an array by `numpy.asarray`, such as those of JAX."""

    def __array__(self) -> _Array_co:
        """The array."""
        ...


class IndexedFrames(Protocol):
    """A collection with a length that gives an image by its number, such as a `torch.utils.data.Dataset`."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def __getitem__(self, index: int, /) -> FrameLike:
        """One image, from 0."""
        ...


FrameLike: TypeAlias = str | os.PathLike[str] | Image.Image | Tensor | _FrameArray | SupportsArray[_FrameArray]
"""One image: what `stmemory.io.frames.to_frame` takes.

A path of an image file, a PIL image, a tensor `[3, H, W]`, an array `[H, W, 3]`, or what becomes such an array. Arrays
of booleans or of two dimensions are errors of a type checker, where it knows these.
"""

GreyFrameLike: TypeAlias = FrameLike | _GreyFrame
"""One image, grey or in colour: what `stmemory.FrameStream.step` takes; grey arrays are `[H, W]` or `[H, W, 1]`."""

ClipLike: TypeAlias = str | os.PathLike[str] | Tensor | _ClipArray | SupportsArray[_ClipArray] | IndexedFrames
"""A clip that can be read more than once: what `stmemory.session.ClipReader` takes."""

VideoLike: TypeAlias = ClipLike | Iterable[FrameLike]
"""A clip: what `stmemory.io.frames.iterate_frames` takes.

A path or an address, a tensor `[T, 3, H, W]`, an array `[T, H, W, 3]` or what becomes one, a list, a generator, a
`LiveSource` or another iterable of frames, or what has a length and gives an image by its number.
"""

GreyVideoLike: TypeAlias = VideoLike | _GreyClip | Iterable[GreyFrameLike]
"""A clip, grey or in colour: what `stmemory.FramePredictor.predict` takes; grey arrays are `[T, H, W]` or
`[T, H, W, 1]`."""

MaskArrayLike: TypeAlias = Tensor | _MaskArray | Image.Image | Sequence[Sequence[int | float]]
"""The mask of one object: what `stmemory.session.ClipSession.give` takes, `[H, W]`."""

MaskLike: TypeAlias = str | os.PathLike[str] | Image.Image | Tensor | _MaskArray
"""The mask of one frame: what `stmemory.io.masks.to_object_masks` takes.

A path of an image file, a PIL image, or booleans, integers or floats `[H, W]` or `[N, H, W]` as an array or a tensor.
A list, a generator or an array of four dimensions is an error of a type checker; a path and a tensor may be a mask and
a video, so these are checked when they are read.
"""
