"""Masks of any kind as tensors: arrays, PIL images, image files.

Owns where 255 is void. Which values of an image are ids is said by `palette.py`, what objects are by `masks.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stmemory.errors import MaskError
from stmemory.palette import VOID, IdImage, grey_ids, read_id_image

__all__ = ["read_mask"]


def read_mask(mask: object) -> tuple[Tensor, int | None]:
    """Turn a mask of any kind into a tensor, and say which id is void.

    Args:
        mask: an array, a tensor, a PIL image, or the path of an image file. Bytes `[H, W]` are read as `grey_ids` says,
            images as `read_id_image`.

    Returns:
        bool, int64 or float32, of the mask's own shape; and the id that is void in it, None if none is.

    Raises:
        MaskError: it is of another kind; holds colours; is a JPEG, which blurs ids; or there is no such file.

    >>> read_mask(np.array([[0, 7, 255]], np.uint8))
    (tensor([[  0,   7, 255]]), 255)
    """
    try:
        return _read(mask)
    except MaskError as error:
        raise MaskError(f"mask: {error}") from error


def _read(mask: object) -> tuple[Tensor, int | None]:
    found = None
    if isinstance(mask, (str, os.PathLike)):
        if not Path(mask).is_file():
            raise MaskError(f"no file {os.fspath(mask)!r}; pass the path of an image file")
        found = read_id_image(mask)
    elif isinstance(mask, Image.Image):
        found = read_id_image(mask)
    elif isinstance(mask, np.ndarray):
        if mask.dtype.kind not in "biuf":
            raise MaskError(f"expected booleans, integers or floats, got an array of {mask.dtype}; convert it")
        found = IdImage(grey_ids(mask) if mask.dtype == np.uint8 and mask.ndim == 2 else mask, palette=False)
    if found is not None:
        # a copy in a type of torch's, which warns of read-only arrays and refuses foreign byte orders
        dtype = {"b": np.bool_, "f": np.float32}.get(found.values.dtype.kind, np.int64)
        values = torch.from_numpy(np.array(found.values, dtype=dtype, order="C"))
        if found.palette:
            return values, VOID
        grey = found.is_bytes
    elif isinstance(mask, Tensor):
        if mask.is_complex():
            raise MaskError(f"expected booleans, integers or floats, got a tensor of {mask.dtype}; convert it")
        grey = mask.dtype == torch.uint8
        if grey and mask.ndim == 2:
            mask = torch.from_numpy(grey_ids(mask.detach().cpu().numpy())).to(mask.device)
        kept = mask.dtype == torch.bool or mask.is_floating_point()
        values = mask.detach().to((mask.dtype if mask.dtype == torch.bool else torch.float32) if kept else torch.int64)
    else:
        raise MaskError(f"expected an array, a tensor, a PIL image or a path, got {type(mask).__name__}")
    if grey and values.ndim == 2 and bool((values == VOID).any()):
        others = bool(((values != 0) & (values != VOID)).any())
        return (values, VOID) if others else (values.clamp(max=1), None)
    return values, None
