"""Masks as palette PNGs: the layouts of DAVIS and YouTube-VOS, and one file for each object."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.formats.base import Labelled, MaskWriter, ids_of, new_file, new_folder, spool_beside, write_list
from stmemory.io.files import whole_file
from stmemory.io.images import image_files, natural_order
from stmemory.io.palette import Ids, read_id_image, write_palette_png
from stmemory.io.untrusted import checked_name, expect_below, read_json

__all__ = [
    "DavisWriter",
    "ObjectsWriter",
    "YouTubeVosWriter",
    "is_objects_folder",
    "object_folders",
    "read_davis",
    "read_object_masks",
    "read_objects",
    "read_youtube_vos",
    "write_named_palette_png",
]


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
    return _each_davis(files)


def write_named_palette_png(folder: Path, frame: Labelled) -> None:
    """Write one frame as a palette PNG that has its name.

    Args:
        folder: folder to write to.
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
            "another id, or write objects, youtube_vis or volume, which hold any id"
        )
    write_palette_png(path, frame.ids)


def _each_davis(files: list[Path]) -> Iterator[tuple[str, Ids]]:
    shape = None
    for file in files:
        try:
            ids = ids_of(file)
        except MaskError as error:
            raise MaskError(str(error) if str(file) in str(error) else f"{file}: {error}") from error
        if shape not in (None, ids.shape):
            raise FrameError(
                f"{file}: expected the size of the masks before it, {shape} "
                f"(H, W), got {ids.shape}; resize it with nearest neighbours"
            )
        shape = ids.shape
        yield file.stem, ids


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
            f"{os.fspath(path)}: expected folders named by object ids, "
            "such as 001, with mask images, got none; check the path"
        )
    return _each_object_mask(folders, sorted(files, key=natural_order), files)


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


def _each_object_mask(
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
                    "with nearest neighbours"
                )
            shape = mask.shape
            masks[object_id] = mask
        yield name, masks


def _mask_in(file: Path) -> NDArray[np.bool_]:
    """All that is not 0; in a palette file 255 is void for others, but here it can only be the object."""
    mask: NDArray[np.bool_] = read_id_image(file).ids != 0
    return mask


def _combined(masks: dict[int, NDArray[np.bool_]]) -> Ids:
    ids = np.zeros(next(iter(masks.values())).shape, np.int32)
    for object_id, mask in sorted(masks.items()):
        ids[mask] = object_id
    return ids


class YouTubeVosWriter(MaskWriter):
    """Writes `ROOT/Annotations/VIDEO/<frame>.png` and, at the end, the video's entry in `ROOT/meta.json`.

    Other videos in `meta.json` stay, so that one folder can be filled video by video. Ids 1 to 254.

    Args:
        path: ROOT; for the layout of the data set it is called `train` or `valid`. Frames are not copied: they belong
            into `ROOT/JPEGImages/VIDEO`.
        video: the video's name; its folder of annotations must be new or empty.
        categories: for an id, what the object is; others are an "object".

    >>> import numpy, tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with YouTubeVosWriter(root, video="walk", categories={7: "dog"}) as out:
    ...         out.add(numpy.array([[0, 7]]))
    ...     json.loads(Path(root, "meta.json").read_text())
    {'videos': {'walk': {'objects': {'7': {'category': 'dog', 'frames': ['00000']}}}}}
    """

    def __init__(
        self, path: str | os.PathLike[str], *, video: str = "video", categories: Mapping[int, str] | None = None
    ) -> None:
        super().__init__(path)
        if checked_name(video, what="video").startswith("."):
            raise OptionError(
                f"video: expected the name of a folder that is not hidden, got {video!r}; name it without the point"
            )
        self._video, self._categories = video, dict(categories or {})
        self._meta = self.path / "meta.json"
        _other_videos(self._meta, video)  # an unreadable one is an error now, not when all the work is done
        expect_below(self.path / "Annotations" / video, self.path)
        self._folder = new_folder(self.path / "Annotations" / video)
        self._spool = self._stack.enter_context(spool_beside(self._meta))
        self._known: set[int] = set()

    def _write(self, frame: Labelled) -> None:
        write_named_palette_png(self._folder, frame)
        for object_id in frame.shown:
            self._known.add(object_id)
            self._spool.append(str(object_id), [frame.name])

    def _finish(self) -> None:
        with whole_file(self._meta) as part, part.open("w", encoding="utf-8") as out:
            out.write('{"videos": {')
            for name, entry in _other_videos(self._meta, self._video).items():
                out.write(f"{json.dumps(name)}: {json.dumps(entry)}, ")
            out.write(f'{json.dumps(self._video)}: {{"objects": {{')
            for number, object_id in enumerate(sorted(self._known)):
                category = json.dumps(self._categories.get(object_id, "object"))
                out.write(f'{", " * bool(number)}"{object_id}": {{"category": {category}, "frames": ')
                write_list(out, (row[0] for row in self._spool.rows(str(object_id))))
                out.write("}")
            out.write("}}}}")


def read_youtube_vos(path: str | os.PathLike[str], *, video: str | None = None) -> Iterator[tuple[str, Ids]]:
    """Read a video's annotations. A data set whose masks are to be scored is read by `find_data_set` instead.

    Args:
        path: the folder with `meta.json` and `Annotations`.
        video: its name; None takes the only one.

    Returns:
        Names without endings, and ids int32 `[H, W]`, as `read_davis` gives them.

    Raises:
        OptionError: there is no such video, or more than one and none named.
        MaskError: it has no masks, or one of them cannot be read.
        FrameError: the size changes.
    """
    folder = Path(path) / "Annotations"
    names = sorted(each.name for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    if video is None and len(names) == 1:
        video = names[0]
    if video not in names:
        there = ", ".join(names[:9]) + (", ..." if len(names) > 9 else "")
        raise OptionError(f"video: expected one of {folder} ({there or 'which has none'}), got {video!r}; name it")
    return read_davis(folder / str(video))


def _other_videos(meta: Path, video: str) -> dict[str, object]:
    """What a `meta.json` says of other videos; nothing where there is none."""
    if not meta.exists():
        return {}
    try:
        videos = dict(read_json(meta)["videos"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f'{meta}: expected {{"videos": {{...}}}}, got {error!r}; move it away, or write to another folder'
        ) from error
    return {str(name): entry for name, entry in videos.items() if name != video}
