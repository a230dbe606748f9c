"""Picture files: reads one as it is looked at, and shrinks it. Knows no masks and no folders."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from stmemory.images import image_to_rgb, opened_image

__all__ = ["read_picture", "shrunk"]


def read_picture(path: Path) -> Image.Image:
    """Read a picture as RGB, turned as its EXIF orientation says: masks are drawn on what people see, and tracking sees
    that too.

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
    """The picture with its longer side at most `side` pixels; never enlarged.

    Args:
        picture: of any mode that can be resampled so.
        side: pixels.
        resample: pictures that are packed once have the time for LANCZOS, those that are read anew for each clip have
            not.

    >>> shrunk(Image.new("RGB", (40, 20)), 10, Image.Resampling.BILINEAR).size
    (10, 5)
    """
    factor = side / max(picture.size)
    if factor >= 1:
        return picture
    return picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))), resample)
