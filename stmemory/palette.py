"""Palette PNGs: id masks in the files that DAVIS and PASCAL VOC use. Does not know what an object or a void pixel is."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stmemory.errors import MaskError
from stmemory.files import whole_file
from stmemory.images import UNREADABLE

__all__ = ["davis_palette", "read_palette_png", "write_palette_png"]


def davis_palette() -> bytes:
    """Make the palette of DAVIS and PASCAL VOC: bits 0-2 of an id go to the top bits of R, G, B, bits 3-5 to the next, ...

    Returns:
        768 bytes: R, G, B of the ids 0 to 255.

    >>> list(davis_palette()[:12])
    [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        # bits 0, 3, 6 are red, 1, 4, 7 green, 2, 5 blue
        colours[:, bit % 3] |= ((ids >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours.tobytes()


def read_palette_png(path: str | os.PathLike[str]) -> Tensor:
    """Read the ids of a palette or grey image file.

    Args:
        path: an image of mode P, L, I;16 or 1.

    Returns:
        int32 `[H, W]`, as stored: 255 stays 255.

    Raises:
        MaskError: nothing is there, it cannot be read, or it holds colours instead of ids.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_palette_png(f"{folder}/a.png", torch.tensor([[0, 7]]))
    ...     read_palette_png(f"{folder}/a.png")
    tensor([[0, 7]], dtype=torch.int32)
    """
    try:
        with Image.open(path) as image:
            mode, ids = image.mode, np.array(image)
    except UNREADABLE as error:
        raise MaskError(f"{os.fspath(path)}: expected an image file, got one that cannot be read: {error}") from error
    if mode not in ("P", "L", "1", "I", "I;16"):
        raise MaskError(
            f"{os.fspath(path)}: expected a palette or grey image, whose values are ids, got mode {mode!r}; map its colours to "
            "ids first"
        )
    return torch.from_numpy(ids.astype(np.int32))


def write_palette_png(path: str | os.PathLike[str], ids: Tensor | NDArray[np.integer]) -> None:
    """Write ids as a PNG in the DAVIS palette. The file appears whole or not at all.

    Args:
        path: where it goes. Missing parent folders are made; a file that is there is replaced.
        ids: integers `[H, W]`, 0 to 255.

    Raises:
        MaskError: the ids are no integers `[H, W]`, or do not fit into a byte.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_palette_png(f"{folder}/a/0.png", torch.tensor([[0, 1]]))
    ...     with Image.open(f"{folder}/a/0.png") as image:
    ...         image.mode
    'P'
    """
    values = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "iu":
        raise MaskError(f"{os.fspath(path)}: expected integer ids [H, W], got {values.dtype} {values.shape}")
    if values.min() < 0 or values.max() > 255:
        raise MaskError(
            f"{os.fspath(path)}: a palette PNG holds the ids 0 to 255, got {values.min()} to {values.max()}; number the "
            "objects from 1, or store them whole with numpy.save(path, result.ids.cpu().numpy())"
        )
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette(davis_palette())
    with whole_file(path) as part:
        image.save(part, format="PNG")
