"""Which mask belongs to which frame of a clip, where a user names files: of one frame each, or of many; and folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from stmemory.errors import MaskError, OptionError
from stmemory.formats.mask_video import VIDEO_SUFFIXES
from stmemory.formats.registry import FormatOptions, guess_format, is_track_folder, read_masks
from stmemory.io.frames import iterate_frames
from stmemory.io.images import ARRAY_SUFFIX, image_files, is_image_path
from stmemory.io.palette import Ids

__all__ = ["masks_by_frame"]

FILES_OF_MANY = (".json", ".xml", ARRAY_SUFFIX, ".npz", *VIDEO_SUFFIXES)
NUMBERED = ("volume", "mask_video")  # formats without names, in which a mask's place is the frame's number


def masks_by_frame(named: Sequence[str], source: Path | str, *, unpack_to: Path | None = None) -> dict[int, Path]:
    """Find the frame of each mask that a user named.

    | text                  | masks                                                                        |
    |-----------------------|------------------------------------------------------------------------------|
    | `PATH` of an image    | the first frame's                                                            |
    | `PATH` of a folder    | one for each of its images, of the frame with the same name without ending   |
    | `PATH` of many masks  | all that have an object: of the frames with their names, or by number        |
    | `FRAME:PATH`          | that of the frame with this number, from 0: the image, or the one of many    |

    Many masks are in a file or folder of a format that `read_masks` recognises: a `.json`, `.xml`, `.npy`, `.npz` or
    video, a folder of objects, labels of YOLO, a YouTube-VOS data set, or what a job left. They are written as images
    to `unpack_to`, for one frame each.

    Names that are numbers fit frames whose names are the same numbers; where the clip is no folder, or its frames are
    not named by numbers, they are the numbers of the frames, from 0. In volumes and videos of masks the place is always
    the number of the frame.

    Args:
        named: texts as in the table.
        source: the clip: a folder of images, or a file; text for a live source.
        unpack_to: an empty folder, to be kept as long as the masks are needed; None refuses files of many masks.

    Returns:
        Files by the frame's number, sorted.

    Raises:
        OptionError: none is named, two are of one frame, or there is nowhere to unpack to.
        MaskError: a folder has no masks, is that of the frames, or has a name in it that fits no frame; or many masks
            cannot be read.

    >>> masks_by_frame(["first.png", "30:late.png"], Path("clip.mp4"))
    {0: PosixPath('first.png'), 30: PosixPath('late.png')}
    """
    found: dict[int, Path] = {}
    folders = list[tuple[Path, int | None]]()
    for text in named:
        marked = None if Path(text).exists() else re.fullmatch(r"([0-9]{1,9}):(.+)", text)
        frame, path = (None, Path(text)) if marked is None else (int(marked[1]), Path(marked[2]))
        if path.is_dir() or (path.is_file() and path.suffix.lower() in FILES_OF_MANY):
            folders.append((path, frame))
        else:
            _put(found, frame or 0, path)
    for place, (path, frame) in enumerate(folders):
        names = _frame_names(Path(source), path, set(found.values()))
        if path.is_dir() and not _is_format(path):
            masks = _in_folder(path, names)
        elif unpack_to is None:
            raise OptionError(
                f"{path}: expected an image or a folder of images, got a file of many masks, and nowhere to "
                "unpack it to; pass unpack_to"
            )
        else:
            masks = _unpacked(path, source, names, unpack_to / str(place) / path.name, frame)
        chosen = [(number, mask) for number, mask in masks if frame in (None, number)]
        if not chosen:
            raise MaskError(
                f"{path}: expected a mask of frame {frame} with an object "
                "in it, got none; check the number, which is counted from 0"
            )
        for number, mask in chosen:
            _put(found, number, mask)
    if not found:
        raise OptionError("masks: expected at least one, got none; name the first frame's mask")
    return dict(sorted(found.items()))


def _put(found: dict[int, Path], frame: int, path: Path) -> None:
    if frame in found:
        raise OptionError(
            f"masks: frame {frame} has two, {found[frame]} and {path}; "
            "name one mask for each frame, FRAME:PATH for later ones"
        )
    found[frame] = path


def _frame_names(source: Path, folder: Path, masks: set[Path]) -> list[str]:
    """Names of the clip's frames without endings, where they are files of a folder."""
    if not source.is_dir():
        return []
    if source.resolve() == folder.resolve():
        raise MaskError(
            f"{folder}: the masks lie among the frames, so that they cannot be distinguished; move the "
            "masks to a folder of their own"
        )
    return [file.stem for file in image_files(source, without=masks)]


def _images_in(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file()]
    return [file for file in files if file.suffix.lower() != ARRAY_SUFFIX and is_image_path(file)]


def _is_format(folder: Path) -> bool:
    """Whether a folder holds masks otherwise than as images named like the frames."""
    return not _images_in(folder) and (is_track_folder(folder) or guess_format(folder) != "davis")


def _in_folder(folder: Path, names: list[str]) -> list[tuple[int, Path]]:
    """The masks of a folder, each with the number of its frame."""
    files = _images_in(folder)
    if not files:
        raise MaskError(
            f"{folder}: expected masks, got a folder without any image; "
            "name them as the frames are named, such as 00012.png"
        )
    return list(zip(_placed([file.name for file in files], names, folder), files, strict=True))


def _unpacked(
    path: Path, source: Path | str, names: list[str], folder: Path, only: int | None
) -> list[tuple[int, Path]]:
    """The masks of a file of many that have an object, each written as an image, with the number of its frame.

    `only`: the frame that is wanted, of which the one mask of a file is. Where places are numbers the masks after it
    are not read.
    """
    format = guess_format(path)
    size = None
    if format == "yolo":
        shape = next(iterate_frames(source)).shape
        size = (shape[1], shape[2])
    folder.mkdir(parents=True)
    stems, files, numbered = list[str](), dict[int, Path](), format in NUMBERED
    for index, (name, ids) in enumerate(read_masks(path, format=format, options=FormatOptions(size=size))):
        numbered = numbered and name == f"{index:05d}"
        stems.append(name)
        if ids.any() and (not numbered or only in (None, index) or index == 0):
            files[index] = _written(folder, index, ids)
        if numbered and index == only:
            break
    if only is not None and len(stems) == 1:
        places = [only]
    else:
        places = list(range(len(stems))) if numbered else _placed([f"{stem}.png" for stem in stems], names, path)
    if not files:
        wanted = "at least one frame" if only is None else f"frame {only}"
        raise MaskError(f"{path}: expected an object in {wanted}, got background only; mark objects with ids above 0")
    return [(places[index], file) for index, file in files.items()]


def _written(folder: Path, index: int, ids: Ids) -> Path:
    """Write ids to an image that `read_id_image` takes as they are: of 16 bits, and of 32 where these do not hold
    them."""
    large = int(ids.max()) >= 1 << 16
    path = folder / f"{index:05d}.{'tif' if large else 'png'}"
    Image.fromarray(ids if large else ids.astype(np.uint16)).save(path)
    return path


def _placed(files: list[str], names: list[str], where: Path) -> list[int]:
    """The number of the frame of each mask, by its name with an ending."""
    stems = [Path(file).stem for file in files]
    by_name = {name: number for number, name in enumerate(names)}
    if not any(stem in by_name for stem in stems):
        numbered = (
            names and all(name.isdecimal() for name in names) and len({int(name) for name in names}) == len(names)
        )
        by_number = {int(name): number for name, number in by_name.items()} if numbered else None
        if all(stem.isdecimal() and len(stem) < 10 for stem in stems):
            placed = [int(stem) if by_number is None else by_number.get(int(stem), -1) for stem in stems]
            if all(number >= 0 for number in placed):
                return placed
    strange = sorted(file for file, stem in zip(files, stems, strict=True) if stem not in by_name)
    if strange:
        like = f"such as {names[0]}.png" if names else "by the frames' numbers from 0, such as 00012.png"
        raise MaskError(
            f"{where / strange[0]}: expected a mask with the name of "
            f"a frame, {like}; rename it, or move it to another folder"
        )
    return [by_name[stem] for stem in stems]
