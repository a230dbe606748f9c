"""`stmemory export`: tracked masks, or those of another tool, in another format; runs no model."""

from __future__ import annotations

import argparse
from pathlib import Path

from stmemory.commands.options import Commands
from stmemory.commands.words import DONE, end_line, teller

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Offer the command."""
    export = commands.add_parser("export", help="write masks in another format; runs no model")
    export.add_argument(
        "masks", type=Path, metavar="MASKS", help="OUT of a track command, or masks of any format that holds ids"
    )
    export.add_argument("--to", required=True, metavar="FORMAT", help=f"one of {', '.join(_NAMES)}")
    export.add_argument("--from", dest="source", metavar="FORMAT", help="of MASKS; recognised by default")
    export.add_argument("-o", "--out", type=Path, required=True, help="a new folder, or a file, as the format is")
    export.add_argument(
        "--frames",
        type=Path,
        metavar="VIDEO_OR_FOLDER",
        help="the clip; for overlays and cut-outs, and for the names of files in coco, youtube_vis and label_studio",
    )
    export.add_argument(
        "--rate", type=float, help="frames per second, for gif and videos (default: that of the clip, else 25)"
    )
    prefix_help = "before the names of files in label_studio, such as /data/local-files/?d=clip/"
    export.add_argument("--prefix", default="", metavar="TEXT", help=prefix_help)
    export.add_argument(
        "--video", metavar="NAME", help="the video's name, for youtube_vos and youtube_vis, read or written"
    )
    export.add_argument(
        "--category",
        action="append",
        default=[],
        metavar="ID=NAME",
        help="what an object is, for formats that say so; may be given several times",
    )
    export.set_defaults(run=_export)


# Names alone, so that --help is quick; a test compares them with `stmemory.formats.FORMATS`.
_NAMES = (
    *("davis", "objects", "youtube_vos", "youtube_vis", "coco", "coco_polygons", "yolo", "cvat", "label_studio"),
    *("volume", "mask_video", "mp4", "gif", "cutouts", "object_cutouts"),
    *("mov", "mov_lossless", "object_movs", "matte", "object_mattes"),
)
_NAMING_FILES = ("youtube_vis", "coco", "coco_polygons", "label_studio")


def _export(arguments: argparse.Namespace) -> int:
    from stmemory.formats import FormatOptions, export, frame_files, read_masks
    from stmemory.frames import iterate_frames
    from stmemory.images import image_files, is_image_path
    from stmemory.video import frame_rate

    rate = arguments.rate
    if rate is None and arguments.frames is not None and not is_image_path(arguments.frames):
        rate = frame_rate(arguments.frames)
    size = None
    if arguments.frames is not None:
        shape = next(iterate_frames(arguments.frames)).shape
        size = (shape[1], shape[2])
    files = frame_files(arguments.masks)
    if arguments.to in _NAMING_FILES and arguments.frames is not None and arguments.frames.is_dir():
        files = {file.stem: file.name for file in image_files(arguments.frames)}
    options = FormatOptions(
        video=arguments.video,
        rate=25.0 if rate is None else rate,
        categories=_categories(arguments.category),
        size=size,
        file_names=files,
        prefix=arguments.prefix,
    )
    masks = read_masks(arguments.masks, format=arguments.source, options=options)
    count = export(
        masks,
        arguments.out,
        format=arguments.to,
        frames=arguments.frames,
        options=options,
        on_frame=teller(None, "export"),
    )
    end_line()
    print(f"{count} frames in {arguments.out}")
    return DONE


def _categories(named: list[str]) -> dict[int, str]:
    from stmemory.errors import OptionError

    found = dict[int, str]()
    for text in named:
        number, equals, name = text.partition("=")
        if not (equals and name and number.isascii() and number.isdecimal() and 0 < int(number) < 2**31):
            raise OptionError(f"category: expected an object's id and a name, such as 5=dog, got {text!r}")
        if int(number) in found:
            raise OptionError(f"category: object {number} has two names, {found[int(number)]!r} and {name!r}; give one")
        found[int(number)] = name
    return found
