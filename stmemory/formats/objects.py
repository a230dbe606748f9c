"""Per-object folders, as SAM 2's tools and SA-V have them: `FOLDER/<object id>/<frame>.png`, black and white."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stmemory.errors import FrameError, MaskError
from stmemory.files import whole_file
from stmemory.formats.writer import Ids, Labelled, MaskWriter, new_file, new_folder
from stmemory.images import image_files, natural_order
from stmemory.palette import read_id_image

__all__ = ["ObjectsWriter", "is_objects_folder", "object_folders", "read_object_masks", "read_objects"]


class ObjectsWriter(MaskWriter):
    """Writes `FOLDER/<object id, three digits or more>/<frame>.png`, PNGs of one bit. Any id.

    Each object has a mask, if an empty one, in each frame from its first on; frames before the first object of all
    leave no file.

    Args:
        path: the folder, new or empty.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with ObjectsWriter(folder) as out:
    ...         out.add(np.array([[0, 300]]))
    ...     [path.name for path in Path(folder).iterdir()], [(name, ids.tolist()) for name, ids in read_objects(folder)]
    (['300'], [('00000', [[0, 300]])])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._known: set[int] = set()  # of objects, not of frames
        new_folder(self.path)

    def _write(self, frame: Labelled) -> None:
        self._known.update(frame.tracked)
        for object_id in sorted(self._known):
            path = new_file(self.path / f"{object_id:03d}", frame)
            with whole_file(path) as part:
                Image.fromarray(frame.ids == object_id).save(part, format="PNG")

    def _finish(self) -> None:
        if not self._known:
            raise MaskError(
                f"{self.path}: expected at least one object, got frames of background only; no file was made"
            )


def read_objects(path: str | os.PathLike[str]) -> Iterator[tuple[str, Ids]]:
    """Read per-object folders as one mask a frame. Where objects overlap, the one of the highest id is on top.

    `read_object_masks` gives them uncombined.

    Args:
        path: the folder. It is looked at when this is called.

    Returns:
        Names without endings, in natural order, and ids int32 `[H, W]`.

    Raises:
        MaskError: there are no such folders, or a mask cannot be read.
        FrameError: the size changes.
    """
    return ((name, _combined(masks)) for name, masks in read_object_masks(path))


def read_object_masks(path: str | os.PathLike[str]) -> Iterator[tuple[str, dict[int, NDArray[np.bool_]]]]:
    """Read per-object folders, objects apart, so that they may overlap.

    Args:
        path: the folder. It is looked at when this is called.

    Returns:
        Names without endings, in natural order; and for each object that has a file of that name its mask, bool `[H,
        W]`: all that is not 0.

    Raises:
        MaskError: there are no such folders, or a mask cannot be read.
        FrameError: the size changes.
    """
    folders = object_folders(Path(path))
    files: dict[str, Path] = {}
    for folder in folders.values():
        try:
            files |= {file.stem: file for file in image_files(folder)}
        except FrameError:
            continue  # an object without masks
    if not files:
        raise MaskError(
            f"{os.fspath(path)}: expected folders named by object ids, such as 001, with mask images, got none; check "
            "the path"
        )
    return _each(folders, sorted(files, key=natural_order), files)


def object_folders(path: Path) -> dict[int, Path]:
    """Find the folders of objects, by id in rising order.

    Args:
        path: the folder that holds them.

    >>> object_folders(Path("no/such/folder"))
    {}
    """
    if not path.is_dir():
        return {}
    found = {
        int(folder.name): folder for folder in path.iterdir() if folder.is_dir() and re.fullmatch("[0-9]+", folder.name)
    }
    return {object_id: found[object_id] for object_id in sorted(found) if object_id > 0}


def is_objects_folder(path: Path) -> bool:
    """Say whether a folder holds folders of objects.

    Args:
        path: the folder.

    >>> is_objects_folder(Path("."))
    False
    """
    return bool(object_folders(path))


def _each(
    folders: dict[int, Path], names: list[str], files: dict[str, Path]
) -> Iterator[tuple[str, dict[int, NDArray[np.bool_]]]]:
    shape = None
    for name in names:
        masks = {}
        for object_id, folder in folders.items():
            file = folder / files[name].name
            if not file.is_file():
                continue
            mask = _mask_in(file)
            if shape not in (None, mask.shape):
                raise FrameError(
                    f"{file}: expected the size of the masks before it, {shape} (H, W), got {mask.shape}; resize it "
                    "with nearest "
                    "neighbours"
                )
            shape = mask.shape
            masks[object_id] = mask
        yield name, masks


def _mask_in(file: Path) -> NDArray[np.bool_]:
    """All that is not 0; in a palette file 255 is void for others, but here it can only be the object."""
    values = read_id_image(file).values
    if values.dtype.kind == "f":
        raise MaskError(f"{file}: expected a black and white mask, got an image of floats; save it with 8 bits")
    return values.astype(np.bool_)


def _combined(masks: dict[int, NDArray[np.bool_]]) -> Ids:
    ids = np.zeros(next(iter(masks.values())).shape, np.int32)
    for object_id, mask in sorted(masks.items()):
        ids[mask] = object_id
    return ids
