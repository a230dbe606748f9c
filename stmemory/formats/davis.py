"""DAVIS: a folder with one palette PNG a frame. The files themselves are those of `palette.py` and `mask_files.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from stmemory.errors import FrameError, MaskError
from stmemory.formats.writer import Ids, Labelled, MaskWriter, ids_of, new_file, new_folder
from stmemory.images import image_files
from stmemory.palette import write_palette_png

__all__ = ["DavisWriter", "read_davis", "write_named_palette_png"]


class DavisWriter(MaskWriter):
    """Writes `FOLDER/<frame>.png`, palette PNGs with the DAVIS colours. Ids 1 to 254: 255 is void in them.

    Args:
        path: the folder, new or empty.

    >>> import tempfile, numpy
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with DavisWriter(folder) as out:
    ...         out.add(numpy.array([[0, 7]]))
    ...     [(name, ids.tolist()) for name, ids in read_davis(folder)]
    [('00000', [[0, 7]])]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        new_folder(self.path)

    def _write(self, frame: Labelled) -> None:
        write_named_palette_png(self.path, frame)

    def _finish(self) -> None:
        pass


def read_davis(path: str | os.PathLike[str]) -> Iterator[tuple[str, Ids]]:
    """Read a folder of palette or grey PNGs, in natural order.

    Args:
        path: the folder. It is looked at when this is called.

    Returns:
        Names without endings, and ids int32 `[H, W]`. Void pixels (255) are background; a black and white mask is
        object 1.

    Raises:
        MaskError: the folder is missing or has no masks; one of them cannot be read.
        FrameError: the size changes.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise MaskError(f"{folder}: expected a folder of mask images, got none; check the path")
    try:
        files = image_files(folder)
    except FrameError as error:
        raise MaskError(str(error)) from error
    return _each(files)


def write_named_palette_png(folder: Path, frame: Labelled) -> None:
    """Write one frame as a palette PNG that has its name.

    Args:
        folder: where it goes.
        frame: the frame.

    Raises:
        MaskError: an id is above 254.
        OptionError: there is a file of that name already.
    """
    path = new_file(folder, frame)
    largest = int(frame.ids.max())
    if largest > 254:
        raise MaskError(
            f"{path}: a palette PNG holds the ids 1 to 254, since 255 is void in it, got {largest}; track it under "
            "another id, or "
            "write objects, youtube_vis or volume, which hold any id"
        )
    write_palette_png(path, frame.ids)


def _each(files: list[Path]) -> Iterator[tuple[str, Ids]]:
    shape = None
    for file in files:
        try:
            ids = ids_of(file)
        except MaskError as error:
            raise MaskError(str(error) if str(file) in str(error) else f"{file}: {error}") from error
        if shape not in (None, ids.shape):
            raise FrameError(
                f"{file}: expected the size of the masks before it, {shape} (H, W), got {ids.shape}; resize it with "
                "nearest neighbours"
            )
        shape = ids.shape
        yield file.stem, ids
