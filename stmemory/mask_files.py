"""Masks of any kind as tensors: arrays, PIL images, image files.

Owns which images hold ids, and where 255 is void. Does not know objects (`masks.py`), nor how palette files are written
(`palette.py`).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stmemory.errors import MaskError
from stmemory.images import UNREADABLE

__all__ = ["read_mask"]

VOID = 255
GREY_MODES = ("P", "L", "1", "I", "F")


def read_mask(mask: object) -> tuple[Tensor, int | None]:
    """Turn a mask of any kind into a tensor, and say which id is void.

    Args:
        mask: an array, a tensor, a PIL image, or the path of an image file.

    Returns:
        bool, int64 or float32, of the mask's own shape; and the id that is void in it, None if none is.

    Raises:
        MaskError: it is of another kind; holds colours; is a JPEG, which blurs ids; or there is no such file.

    >>> read_mask(np.array([[0, 7, 255]], np.uint8))
    (tensor([[  0,   7, 255]]), 255)
    """
    palette = False
    if isinstance(mask, (str, os.PathLike)):
        if not Path(mask).is_file():
            raise MaskError(f"mask: no file {os.fspath(mask)!r}; pass the path of an image file")
        try:
            with Image.open(mask) as image:
                image.load()
        except UNREADABLE as error:
            raise MaskError(f"mask: expected the path of an image, got {os.fspath(mask)!r}: {error}") from error
        mask = image
    if isinstance(mask, Image.Image):
        mask = _image_of_ids(mask)
        palette = mask.mode == "P"
        mask = np.array(mask)
    if isinstance(mask, np.ndarray):
        if mask.dtype.kind not in "biuf":
            raise MaskError(f"mask: expected booleans, integers or floats, got an array of {mask.dtype}; convert it")
        byte, kind = mask.dtype == np.uint8, mask.dtype.kind
        # a copy in a type of torch's, which warns of read-only arrays and refuses foreign byte orders
        dtype = {"b": np.bool_, "f": np.float32}.get(kind, np.int64)
        values = torch.from_numpy(np.array(mask, dtype=dtype, order="C"))
    elif isinstance(mask, Tensor):
        if mask.is_complex():
            raise MaskError(f"mask: expected booleans, integers or floats, got a tensor of {mask.dtype}; convert it")
        byte = mask.dtype == torch.uint8
        kept = mask.dtype == torch.bool or mask.is_floating_point()
        values = mask.detach().to((mask.dtype if mask.dtype == torch.bool else torch.float32) if kept else torch.int64)
    else:
        raise MaskError(f"mask: expected an array, a tensor, a PIL image or a path, got {type(mask).__name__}")
    if palette:
        return values, VOID
    if byte and values.ndim == 2 and bool((values == VOID).any()):
        others = bool(((values != 0) & (values != VOID)).any())
        return (values, VOID) if others else (values.clamp(max=1), None)
    return values, None


def _image_of_ids(image: Image.Image) -> Image.Image:
    """The image if its values can be ids; grey stored as RGB, RGBA or LA becomes grey."""
    if image.format in ("JPEG", "MPO"):
        filename = getattr(image, "filename", "")
        name = f" {str(filename)!r}" if filename else ""
        raise MaskError(f"mask: expected ids, got the JPEG file{name}: JPEG blurs ids at their edges; save the mask as PNG")
    if image.mode in GREY_MODES or image.mode.startswith("I;16"):
        return image
    if image.mode in ("RGB", "RGBA", "LA"):
        channels = [np.array(channel) for channel in image.split()]
        opaque = image.mode == "RGB" or bool((channels.pop() == 255).all())
        if opaque and "transparency" not in image.info and all(bool((channel == channels[0]).all()) for channel in channels):
            return image.getchannel(0)
    raise MaskError(
        f"mask: expected a palette or grey image, whose values are ids, got mode {image.mode!r}; map its colours to ids, for "
        "example with np.unique(colours, axis=0, return_inverse=True)"
    )
