"""Image files, read one at a time and checked before they are decoded, and the names of the images in a folder."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stmemory.errors import FrameError, MaskError, OptionError, StmemoryError
from stmemory.io.untrusted import read_array

__all__ = [
    "MOST_PIXELS",
    "MOST_PIXELS_IN_ALL",
    "UNREADABLE",
    "check_cost",
    "count_images",
    "image_files",
    "image_to_rgb",
    "is_address",
    "is_image_path",
    "iterate_images",
    "natural_order",
    "opened_image",
    "read_picture",
    "shrunk",
]

JPEG_SUFFIXES = (".jpg", ".jpeg")
FOLDER_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PAGE_SUFFIXES = (*FOLDER_SUFFIXES, ".gif", ".apng")
ARRAY_SUFFIX = ".npy"
# Files are known by their content. Other kinds are not opened, whatever their names: Pillow starts a program to read
# PostScript.
FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "DIB", "PPM", "TGA", "JPEG2000")
# What Pillow raises on a damaged file depends on the format; warnings are raised where the host turns them into errors.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,
)
# A few bytes can state any size, and all of it is allocated when the pixels are decoded: 12 bytes a pixel, held twice,
# as a frame.
# Masks that are written as runs or polygons cost 4 bytes a pixel, and may have four times as many:
# `formats.rle.LARGEST_MASK`.
MOST_PIXELS = 2**26  # of one image: 8192 x 8192, twice an 8K frame
MOST_PIXELS_IN_ALL = 2**36  # of all pages of a file: 33,000 frames of 1920 x 1080
MOST_PAGES = 2**15  # of a TIFF, since the time to find one grows with the number of those before it


def iterate_images(path: str | os.PathLike[str]) -> Iterator[NDArray[np.uint8]]:
    """Read a folder's images in natural order (`2.png` before `10.png`), or the pages of one image file.

    A folder's jpg, jpeg, png, bmp, webp, tif and tiff files count, the first page of each; hidden files and all others
    are passed over. A GIF, APNG, WebP or TIFF file may have many pages. EXIF orientation is applied. A `.npy` holds an
    array uint8 `[T, H, W, 3]`, RGB, which is not read into memory as a whole.

    Args:
        path: a folder, an image file or a `.npy`. It is checked when this is called.

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
    if _is_array(path):
        return (np.array(image) for image in _stored_images(path))
    return _pages(path, _count_pages(path))


def count_images(path: str | os.PathLike[str]) -> int:
    """Count what `iterate_images` would read, without reading it.

    Args:
        path: a folder, an image file or a `.npy`.

    Returns:
        The number of image files in the folder, or of pages or images in the file.

    Raises:
        FrameError: the folder has no images, or the file cannot be opened.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (4, 2)).save(Path(folder) / "a.png")
    ...     count_images(folder)
    1
    """
    path = Path(path)
    if path.is_dir():
        return len(image_files(path))
    return len(_stored_images(path)) if _is_array(path) else _count_pages(path)


def is_address(path: object) -> bool:
    """Say whether a text is the address of a stream, such as `rtsp://camera/1`, rather than a path.

    Args:
        path: path or address from a user. A `Path` is never an address: it has lost a slash.

    >>> is_address("http://host/clip.mp4"), is_address("clip.mp4"), is_address("C:\\\\clip.mp4")
    (True, False, False)
    """
    return isinstance(path, str) and re.match(r"(?!file:)[a-z][a-z0-9+.-]+://", path, re.IGNORECASE) is not None


def is_image_path(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is read as images: it is a folder, or its name ends as that of an image file or of an array
    does.

    Args:
        path: a path at which something is.

    Returns:
        False for what is read as a video, addresses among it.

    Raises:
        FrameError: nothing is at the path.

    >>> is_image_path(".")
    True
    """
    if is_address(path):
        return False
    if not Path(path).exists():
        raise FrameError(f"no such file or folder: {os.fspath(path)!r}")
    return Path(path).is_dir() or Path(path).suffix.lower() in (*PAGE_SUFFIXES, ARRAY_SUFFIX)


@contextmanager
def opened_image(
    path: str | os.PathLike[str], error: type[FrameError] | type[MaskError] = FrameError
) -> Iterator[Image.Image]:
    """Open an image file, and turn whatever Pillow raises until it is closed into one error that names the file.

    Args:
        path: path of a PNG, JPEG, GIF, TIFF, WebP, BMP, PPM, TGA or JPEG 2000 file; its content decides, not its name.
        error: class of the errors.

    Yields:
        The image, whose pixels are not decoded yet, and whose first page is not too large to be.

    Raises:
        FrameError: or `error`: there is no such file, it is of another kind, damaged, or has more than 67 million
            pixels.

    >>> with opened_image("no/such.png") as image:  # doctest: +ELLIPSIS
    ...     pass
    Traceback (most recent call last):
    stmemory.errors.FrameError: no/such.png: expected an image file, got one that cannot be read: [Errno 2] No such file
    ...
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            check_cost(image, error)
            yield image
    except StmemoryError as wrong:
        text = str(wrong)
        raise type(wrong)(text if os.fspath(path) in text else f"{os.fspath(path)}: {text}") from wrong
    except UNREADABLE as wrong:
        reason = str(wrong) if isinstance(wrong, OSError) and str(wrong) else f"damaged data ({wrong!r})"
        raise error(
            f"{os.fspath(path)}: expected an image file, got one that cannot be read: {reason}; save it again"
        ) from wrong


def check_cost(image: Image.Image, error: type[FrameError] | type[MaskError] = FrameError, *, pages: int = 1) -> None:
    """Refuse an image whose pixels would take too much memory or time, before they are decoded.

    Args:
        image: a PIL image.
        error: class of the error.
        pages: to be decoded, all taken to be of this size.

    Raises:
        FrameError: or `error`: one page has more than `MOST_PIXELS`, or all of them more than `MOST_PIXELS_IN_ALL`.

    >>> check_cost(Image.new("L", (640, 480)))
    """
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise error(
            f"expected an image of at most {MOST_PIXELS // 10**6} million pixels, got one that says it is {width} x "
            f"{height}; shrink it, or decode it yourself and pass an array"
        )
    if width * height * pages > MOST_PIXELS_IN_ALL:
        raise error(
            f"expected at most {MOST_PIXELS_IN_ALL // 10**9} billion pixels in one file, got one that says it has "
            f"{pages} pages of {width} x {height}; split it, or decode it yourself and pass its frames one at a time"
        )


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
            "frame: expected a PIL image of 8 bits a channel, got "
            f"mode {image.mode!r}; scale it to [0, 255] and convert it "
            'to "L" or "RGB" first (a plain conversion would clip its values)'
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the direct way to RGB warns
    return np.array(image.convert("RGB"))


def image_files(folder: Path, *, without: Collection[Path] = ()) -> list[Path]:
    """List a folder's image files in natural order; hidden files are passed over.

    Masks may lie beside frames: where there are JPEGs, which hold no masks, files of other kinds with the name of a
    JPEG are left out.

    Args:
        folder: a folder.
        without: files that are left out, too: masks that were named.

    Raises:
        FrameError: it has no images; or beside JPEGs it has palette or grey images of other names, which look like
            masks.

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
    if without and files:
        masks = {mask.resolve() for mask in without}
        files = [file for file in files if file.resolve() not in masks]
        if not files:
            raise FrameError(
                f"{folder}: expected a folder with frames, got one with nothing but the masks that were named; name "
                "the folder of the frames"
            )
    jpegs = {file.stem for file in files if file.suffix.lower() in JPEG_SUFFIXES}
    if jpegs:
        files = [file for file in files if file.suffix.lower() in JPEG_SUFFIXES or file.stem not in jpegs]
        others = sorted(file for file in files if file.suffix.lower() not in JPEG_SUFFIXES)
        if others and _looks_like_a_mask(others[0]):
            raise FrameError(
                f"{folder}: expected frames of one kind, got {len(jpegs)} JPEGs and "
                f"{len(others)} others, of which {others[0].name} looks like a mask; give "
                "masks the names of their frames, or move them to a folder of their own"
            )
    if not files:
        raise FrameError(f"{folder}: expected a folder with images ({', '.join(FOLDER_SUFFIXES)}), got one without any")

    return sorted(files, key=lambda file: natural_order(file.name))


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A key to sort names by, with numbers in them as numbers.

    Args:
        name: name of a file.

    >>> sorted(["10.png", "9.png"], key=natural_order)
    ['9.png', '10.png']
    """
    # split puts the digits at the odd places, so text is only ever compared with text
    pieces = re.split(r"([0-9]+)", name.lower())
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name


def _looks_like_a_mask(file: Path) -> bool:
    """Whether a file has a palette or is grey, by its header; a damaged file does not."""
    try:
        with opened_image(file) as image:
            return image.mode in ("1", "L", "P") or image.mode.startswith("I")
    except FrameError:
        return False


def _is_array(path: Path) -> bool:
    return path.suffix.lower() == ARRAY_SUFFIX and not path.is_dir()


def _stored_images(path: Path) -> NDArray[np.uint8]:
    """The images of a `.npy`, which are read when they are looked at."""
    try:
        array = read_array(path)
    except OptionError as error:
        raise FrameError(f"{error}, as uint8 [T, H, W, 3]") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or array.size == 0:
        hint = "store uint8 RGB; floats and other orders go to Python, as an array or a tensor"
        hint = "repeat grey three times" if array.ndim == 3 else hint
        raise FrameError(
            f"{path}: expected an array of images, uint8 [T, H, W, 3], got {array.dtype} {array.shape}; {hint}"
        )
    if array.shape[1] * array.shape[2] > MOST_PIXELS:
        most, size = MOST_PIXELS // 10**6, f"{array.shape[2]} x {array.shape[1]}"
        raise FrameError(f"{path}: expected images of at most {most} million pixels, got {size}; shrink them")
    return array


def _count_pages(path: Path) -> int:
    with opened_image(path) as image:
        if image.format == "TIFF":
            pages = _count_tiff_pages(image)
        else:
            # a phone's MPO file holds depth maps and previews behind its photograph: they are no frames
            pages = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
        check_cost(image, pages=pages)
        return pages


def _count_tiff_pages(image: Image.Image) -> int:
    for page in range(MOST_PAGES):
        try:
            image.seek(page)
        except EOFError:
            image.seek(0)
            return page
    raise FrameError(f"expected a TIFF of at most {MOST_PAGES} pages, got one that has more; split it")


def _pages(path: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    page = 0
    try:
        with opened_image(path) as image:
            for page in range(count):
                image.seek(page)
                check_cost(image, pages=count)
                yield image_to_rgb(ImageOps.exif_transpose(image))
    except FrameError as error:
        if page == 0:
            raise
        raise FrameError(f"{error} (after {page} of its {count} pages)") from error


def read_picture(path: Path) -> Image.Image:
    """Read an image as RGB, turned as its EXIF orientation says: masks are drawn on the turned image, and tracking sees
    it too.

    Raises:
        FrameError: it cannot be read, or is not of 8 bits a channel.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (40, 20), 7).save(Path(folder) / "a.png")
    ...     read_picture(Path(folder) / "a.png").getpixel((0, 0))
    (7, 7, 7)
    """
    with opened_image(path) as image:
        return Image.fromarray(image_to_rgb(ImageOps.exif_transpose(image)))


def shrunk(picture: Image.Image, side: int, resample: Image.Resampling) -> Image.Image:
    """The image with its longer side at most `side` pixels; never enlarged.

    Args:
        picture: an image of a mode that `resample` can handle.
        side: pixels.
        resample: LANCZOS for images that are packed once; a faster one for those read again for each clip.

    >>> shrunk(Image.new("RGB", (40, 20)), 10, Image.Resampling.BILINEAR).size
    (10, 5)
    """
    factor = side / max(picture.size)
    if factor >= 1:
        return picture
    return picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))), resample)
