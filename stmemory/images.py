"""Image files: a folder of images, or one image with its pages, as uint8 RGB arrays, one at a time.

Owns which files are images, their order, and how PIL images become RGB. Does not know videos (`video.py`), nor tensors,
ranges and sizes (`frames.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stmemory.errors import FrameError

__all__ = ["UNREADABLE", "count_images", "image_files", "image_to_rgb", "is_image_path", "iterate_images", "natural_order"]

FOLDER_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PAGE_SUFFIXES = (*FOLDER_SUFFIXES, ".gif", ".apng")
# What Pillow raises on a damaged file depends on the format.
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, EOFError, Image.DecompressionBombError)


def iterate_images(path: str | os.PathLike[str]) -> Iterator[NDArray[np.uint8]]:
    """Read a folder's images in natural order (`2.png` before `10.png`), or the pages of one image file.

    A folder's jpg, jpeg, png, bmp, webp, tif and tiff files count, the first page of each; hidden files and all others are
    passed over. A GIF, APNG, WebP or TIFF file may have many pages. EXIF orientation is applied.

    Args:
        path: a folder, or an image file. It is checked when this is called.

    Returns:
        uint8 RGB arrays `[H, W, 3]`. A damaged file gives the pages before the damage, then raises.

    Raises:
        FrameError: the folder has no images, or a file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, grey in (("10.png", 10), ("9.png", 9)):
    ...         Image.new("RGB", (4, 2), (grey, grey, grey)).save(Path(folder) / name)
    ...     [(image.shape, int(image[0, 0, 0])) for image in iterate_images(folder)]
    [((2, 4, 3), 9), ((2, 4, 3), 10)]
    """
    path = Path(path)
    if path.is_dir():
        return (next(_pages(file, 1)) for file in image_files(path))
    return _pages(path, _count_pages(path))


def count_images(path: str | os.PathLike[str]) -> int:
    """Count what `iterate_images` would read, without reading it.

    Args:
        path: a folder, or an image file.

    Returns:
        The number of image files in the folder, or of pages in the file.

    Raises:
        FrameError: the folder has no images, or the file cannot be opened.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (4, 2)).save(Path(folder) / "a.png")
    ...     count_images(folder)
    1
    """
    path = Path(path)
    return len(image_files(path)) if path.is_dir() else _count_pages(path)


def is_image_path(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is read as images: it is a folder, or its name ends as an image file's does.

    Args:
        path: a path at which something is.

    Returns:
        False for what is read as a video.

    Raises:
        FrameError: nothing is at the path.

    >>> is_image_path(".")
    True
    """
    if not Path(path).exists():
        raise FrameError(f"no such file or folder: {os.fspath(path)!r}")
    return Path(path).is_dir() or Path(path).suffix.lower() in PAGE_SUFFIXES


def image_to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Turn a PIL image of any 8-bit mode into RGB by `.convert("RGB")`: grey is repeated, transparency is dropped.

    Args:
        image: a PIL image.

    Returns:
        uint8 `[H, W, 3]`.

    Raises:
        FrameError: the image holds 16-bit, 32-bit or float values, which `.convert` would clip to white in silence.

    >>> image_to_rgb(Image.new("L", (2, 1), 7)).tolist()
    [[[7, 7, 7], [7, 7, 7]]]
    """
    if image.mode[0] in "IF":
        raise FrameError(
            f"frame: expected a PIL image of 8 bits a channel, got mode {image.mode!r}; scale it to [0, 255] and convert it "
            'to "L" or "RGB" first (a plain conversion would clip its values)'
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the direct way to RGB warns
    return np.array(image.convert("RGB"))


def image_files(folder: Path) -> list[Path]:
    """List a folder's image files in natural order; hidden files are passed over.

    Args:
        folder: a folder.

    Raises:
        FrameError: it has no images.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("10.png", "9.png", "notes.txt"):
    ...         (Path(folder) / name).touch()
    ...     [file.name for file in image_files(Path(folder))]
    ['9.png', '10.png']
    """
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in FOLDER_SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    if not files:
        raise FrameError(f"{folder}: expected a folder with images ({', '.join(FOLDER_SUFFIXES)}), got one without any")

    return sorted(files, key=lambda file: natural_order(file.name))


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A key to sort names by, with numbers in them as numbers.

    Args:
        name: of a file.

    >>> sorted(["10.png", "9.png"], key=natural_order)
    ['9.png', '10.png']
    """
    # split puts the digits at the odd places, so text is only ever compared with text
    pieces = re.split(r"([0-9]+)", name.lower())
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name


def _count_pages(path: Path) -> int:
    try:
        with Image.open(path) as image:
            # a phone's MPO file holds depth maps and previews behind its photograph: they are no frames
            return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    except UNREADABLE as error:
        raise FrameError(f"{path}: expected an image file, got one that cannot be read: {error}") from error


def _pages(path: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    page = 0
    try:
        with Image.open(path) as image:
            for page in range(count):
                image.seek(page)
                yield image_to_rgb(ImageOps.exif_transpose(image))
    except FrameError as error:
        raise FrameError(f"{path}: {error}") from error
    except UNREADABLE as error:
        raise FrameError(f"{path}: expected a whole image file, got one that broke after {page} pages: {error}") from error
