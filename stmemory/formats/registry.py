"""Formats by name: reading, writing, and export of a run's masks."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.formats.base import MaskWriter, with_frames
from stmemory.formats.coco import CocoWriter, YouTubeVisWriter, read_coco, read_youtube_vis
from stmemory.formats.cvat import CvatWriter, read_cvat
from stmemory.formats.images import CutoutMovWriter, CutoutWriter, GifWriter, Mp4Writer
from stmemory.formats.label_studio import LabelStudioWriter, is_label_studio, read_label_studio
from stmemory.formats.mask_video import VIDEO_SUFFIXES, MaskVideoWriter, MatteWriter, read_mask_video
from stmemory.formats.pngs import (
    DavisWriter,
    ObjectsWriter,
    YouTubeVosWriter,
    is_objects_folder,
    read_davis,
    read_objects,
    read_youtube_vos,
)
from stmemory.formats.polygons import YoloWriter, read_yolo
from stmemory.formats.volume import VolumeWriter, read_volume
from stmemory.io.palette import Ids
from stmemory.io.untrusted import read_json
from stmemory.types import FrameLike, VideoLike

__all__ = [
    "FORMATS",
    "Format",
    "FormatOptions",
    "export",
    "frame_files",
    "guess_format",
    "is_track_folder",
    "new_writer",
    "read_masks",
]

Masks = Iterator[tuple[str, Ids]]


@dataclass(frozen=True)
class FormatOptions:
    """What some formats want to know.

    Attributes:
        video: name of the video, for `youtube_vos` and `youtube_vis`; None: "video" when written, the only one when
            read.
        rate: frames per second, for `gif` and all videos.
        categories: for an id, what the object is, for `youtube_vos`, `youtube_vis`, `coco`, `coco_polygons`, `yolo`,
            `cvat` and `label_studio`.
        size: H and W in px, for reading `yolo`, which does not say it.
        file_names: for the name of a mask, that of its frame's file, for `youtube_vis`, `coco`, `coco_polygons` and
            `label_studio`; others are called NAME.jpg.
        prefix: text before a file's name in `label_studio`, such as the beginning of a URL.
    """

    video: str | None = None
    rate: float = 25.0
    categories: Mapping[int, str] | None = None
    size: tuple[int, int] | None = None
    file_names: Mapping[str, str] | None = None
    prefix: str = ""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        title: as people write it.
        write: makes its writer.
        read: reads it; None for images that hold no ids.
        draws: whether the writer needs the frames.
    """

    title: str
    write: Callable[[Path, FormatOptions], MaskWriter]
    read: Callable[[Path, FormatOptions], Masks] | None = None
    draws: bool = False


FORMATS: Mapping[str, Format] = {
    "davis": Format("palette PNGs", lambda path, options: DavisWriter(path), lambda path, options: read_davis(path)),
    "objects": Format(
        "a folder of PNGs for each object",
        lambda path, options: ObjectsWriter(path),
        lambda path, options: read_objects(path),
    ),
    "youtube_vos": Format(
        "palette PNGs with meta.json",
        lambda path, options: YouTubeVosWriter(path, video=options.video or "video", categories=options.categories),
        lambda path, options: read_youtube_vos(path, video=options.video),
    ),
    "youtube_vis": Format(
        "JSON of a video",
        lambda path, options: YouTubeVisWriter(
            path, video=options.video or "video", categories=options.categories, file_names=options.file_names
        ),
        lambda path, options: read_youtube_vis(path, video=options.video),
    ),
    "coco": Format(
        "JSON of images",
        lambda path, options: CocoWriter(path, categories=options.categories, file_names=options.file_names),
        lambda path, options: read_coco(path),
    ),
    "coco_polygons": Format(
        "JSON of images, with outlines",
        lambda path, options: CocoWriter(
            path, categories=options.categories, polygons=True, file_names=options.file_names
        ),
        lambda path, options: read_coco(path),
    ),
    "yolo": Format(
        "YOLO segmentation labels",
        lambda path, options: YoloWriter(path, categories=options.categories),
        lambda path, options: read_yolo(path, size=options.size),
    ),
    "cvat": Format(
        "CVAT for images, XML",
        lambda path, options: CvatWriter(path, categories=options.categories),
        lambda path, options: read_cvat(path),
    ),
    "label_studio": Format(
        "Label Studio's tasks, with brush masks",
        lambda path, options: LabelStudioWriter(
            path, categories=options.categories, file_names=options.file_names, prefix=options.prefix
        ),
        lambda path, options: read_label_studio(path),
    ),
    "volume": Format(
        "a .npy [T, H, W]; .npz is read too",
        lambda path, options: VolumeWriter(path),
        lambda path, options: read_volume(path),
    ),
    "mask_video": Format(
        "grey video whose levels are ids, without loss",
        lambda path, options: MaskVideoWriter(path, rate=options.rate),
        lambda path, options: read_mask_video(path),
    ),
    "mp4": Format("overlay video", lambda path, options: Mp4Writer(path, rate=options.rate), draws=True),
    "gif": Format("overlay GIF", lambda path, options: GifWriter(path, rate=options.rate), draws=True),
    "cutouts": Format("RGBA PNGs", lambda path, options: CutoutWriter(path), draws=True),
    "object_cutouts": Format(
        "RGBA PNGs for each object", lambda path, options: CutoutWriter(path, per_object=True), draws=True
    ),
    "mov": Format("ProRes 4444 with alpha", lambda path, options: CutoutMovWriter(path, rate=options.rate), draws=True),
    "mov_lossless": Format(
        "PNG in a .mov, with alpha",
        lambda path, options: CutoutMovWriter(path, rate=options.rate, codec="png"),
        draws=True,
    ),
    "object_movs": Format(
        "ProRes 4444 with alpha for each object",
        lambda path, options: CutoutMovWriter(path, rate=options.rate, per_object=True),
        draws=True,
    ),
    "matte": Format("black and white video of all objects", lambda path, options: MatteWriter(path, rate=options.rate)),
    "object_mattes": Format(
        "black and white video of each object",
        lambda path, options: MatteWriter(path, rate=options.rate, per_object=True),
    ),
}


def new_writer(format: str, path: str | os.PathLike[str], *, options: FormatOptions | None = None) -> MaskWriter:
    """Make the writer of a format.

    Args:
        format: a key of `FORMATS`.
        path: path to write to.
        options: options of some formats.

    Raises:
        OptionError: there is no such format, or the writer cannot be made.

    >>> new_writer("avi", "a.avi")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    stmemory.errors.OptionError: format: expected one of davis, objects, youtube_vos, ..., got 'avi'
    """
    return _known(format).write(Path(path), options or FormatOptions())


def read_masks(
    path: str | os.PathLike[str], *, format: str | None = None, options: FormatOptions | None = None
) -> Masks:
    """Read masks from files of any format that holds ids.

    Args:
        path: a folder or file, or the output folder of `stmemory track`.
        format: a key of `FORMATS`; None recognises it, see `guess_format`.
        options: options of some formats.

    Returns:
        Names of the frames, and ids int32 `[H, W]`, each a mask for `predictor.track` or `predictor.start`.

    Raises:
        OptionError: there is no such format, it cannot be read back, or the path is not recognised.
        MaskError: the masks cannot be read. A generator's errors come when they are reached.

    >>> read_masks("no/such/folder")
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/folder: expected masks, got no such file or folder; check the path
    """
    path = Path(path)
    read = _known(format or guess_format(path)).read
    if read is None:
        readable = ", ".join(name for name in FORMATS if FORMATS[name].read)
        raise OptionError(f"format: expected one that holds ids ({readable}), got {format!r}, which is for looking at")
    return read(path / "masks" if is_track_folder(path) else path, options or FormatOptions())


def guess_format(path: Path) -> str:
    """Recognise a format by what lies at a path.

    A `.npy` or `.npz` is a volume; a video is of masks; a `.xml` is CVAT's; a `.json` with "videos" is YouTube-VIS, one
    with "images" COCO, a list of tasks Label Studio; a folder with `meta.json` and
    `Annotations` is YouTube-VOS; one with a folder `labels` of text files is YOLO; one with folders named by numbers is
    of objects; others, and the output of `stmemory track`, have palette PNGs.

    Args:
        path: a file or folder.

    Raises:
        OptionError: nothing is there, or a file of another kind.

    >>> guess_format(Path("."))
    'davis'
    """
    if path.is_dir():
        if (path / "Annotations").is_dir() and (path / "meta.json").is_file():
            return "youtube_vos"
        if any((path / "labels").glob("*.txt")):
            return "yolo"
        return "objects" if is_objects_folder(path) else "davis"
    if not path.exists():
        raise OptionError(f"{path}: expected masks, got no such file or folder; check the path")
    if path.suffix.lower() in (".npy", ".npz"):
        return "volume"
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return "mask_video"
    if path.suffix.lower() == ".xml":
        return "cvat"
    if path.suffix.lower() == ".json":
        return _json_format(path)
    raise OptionError(
        f"{path}: expected a folder of masks, a .json, a .xml, a "
        ".npy, a .npz or a video, got another file; name its format"
    )


def frame_files(path: str | os.PathLike[str]) -> dict[str, str]:
    """What the frames' files are called, of which a tracking job made masks.

    Args:
        path: the output folder of `stmemory track`.

    Returns:
        For the name of each mask that of its frame's file; nothing where that is not known, as of a video.

    >>> frame_files("no/such/folder")
    {}
    """
    folder = Path(path)
    if not is_track_folder(folder):
        return {}
    try:
        record: object = read_json(folder / "job.json")
    except (OSError, ValueError):
        return {}
    names = record.get("frame_files") if isinstance(record, dict) else None
    plain = (
        [name for name in names if isinstance(name, str) and re.fullmatch(r"[^/\\\0]+\.\w+", name)]
        if isinstance(names, list)
        else []
    )
    return {name.rpartition(".")[0]: name for name in plain}


def _json_format(path: Path) -> str:
    try:
        document: object = read_json(path)
    except OptionError as error:
        raise MaskError(str(error)) from error
    if isinstance(document, list) and is_label_studio(document):
        return "label_studio"
    if not isinstance(document, dict) or "annotations" not in document:
        raise MaskError(
            f'{path}: expected a JSON object with "annotations", or a list of Label Studio\'s tasks, got another; '
            "lists of results have no frames: pass the file of the split"
        )
    return "coco" if "images" in document else "youtube_vis"


def is_track_folder(path: Path) -> bool:
    """Say whether a folder is what a tracking job left.

    Args:
        path: the folder.

    >>> is_track_folder(Path("."))
    False
    """
    return (path / "job.json").is_file() and (path / "masks").is_dir()


def _known(name: str) -> Format:
    if name not in FORMATS:
        raise OptionError(f"format: expected one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name]


def export(
    masks: Iterator[tuple[str, Ids]],
    path: str | os.PathLike[str],
    *,
    format: str,
    frames: VideoLike | None = None,
    options: FormatOptions | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> int:
    """Write masks to another format.

    Args:
        masks: names and ids, from `read_masks` or one of the readers.
        path: path to write to.
        format: a key of `FORMATS`.
        frames: the clip, in any form that `iterate_frames` takes; formats that draw need it. See `with_frames` for
            which frame belongs to which mask.
        options: options of some formats.
        on_frame: called with the number of frames that are done, for progress.

    Returns:
        How many frames were written.

    Raises:
        OptionError: there is no such format, or the writer cannot be made.
        FrameError: frames are missing, or there are no masks.
        MaskError: the format cannot hold the ids.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(iter([("00000", np.array([[0, 7]], np.int32))]), f"{folder}/a.npy", format="volume")
    1
    """
    draws = format in FORMATS and FORMATS[format].draws
    if draws and frames is None:
        raise FrameError(f"{format}: expected the frames that it shows, got none; pass frames=CLIP")
    writer = new_writer(format, path, options=options)
    with writer:
        paired: Iterator[tuple[str, Ids, FrameLike | None]] = ((name, ids, None) for name, ids in masks)
        if draws and frames is not None:
            paired = iter(with_frames(masks, frames))
        for name, ids, frame in paired:
            writer.add(ids, name=name, frame=frame)
            if on_frame is not None:
                on_frame(writer.count)
    return writer.count
