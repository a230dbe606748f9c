"""Which mask belongs to which frame of a clip, where a user names files: of one frame each, or a folder named like the frames."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from stmemory.errors import MaskError, OptionError
from stmemory.images import image_files, is_image_path

__all__ = ["masks_by_frame"]


def masks_by_frame(named: Sequence[str], source: Path | str) -> dict[int, Path]:
    """Find the frame of each mask that a user named.

    | text                  | masks                                                                        |
    |-----------------------|------------------------------------------------------------------------------|
    | `PATH` of a file      | the first frame's                                                            |
    | `FRAME:PATH`          | that of the frame with this number, from 0                                   |
    | `PATH` of a folder    | one for each of its images, of the frame with the same name without ending   |

    In a folder, names that are numbers fit frames whose names are the same numbers; where the clip is no folder, or its frames are not
    named by numbers, they are the numbers of the frames, from 0.

    Args:
        named: texts as in the table.
        source: the clip: a folder of images, or a file; text for a live source.

    Returns:
        Files by the frame's number, sorted.

    Raises:
        OptionError: none is named, or two are of one frame.
        MaskError: a folder has no masks, is that of the frames, or has a name in it that fits no frame.

    >>> masks_by_frame(["first.png", "30:late.png"], Path("clip.mp4"))
    {0: PosixPath('first.png'), 30: PosixPath('late.png')}
    """
    found: dict[int, Path] = {}
    folders = list[Path]()
    for text in named:
        marked = re.fullmatch(r"([0-9]{1,9}):(.+)", text)
        if Path(text).is_dir():
            folders.append(Path(text))
        elif marked is None or Path(text).is_file():
            _put(found, 0, Path(text))
        else:
            _put(found, int(marked[1]), Path(marked[2]))
    for folder in folders:
        names = _frame_names(Path(source), folder, set(found.values()))
        for frame, path in _in_folder(folder, names):
            _put(found, frame, path)
    if not found:
        raise OptionError("masks: expected at least one, got none; name the first frame's mask")
    return dict(sorted(found.items()))


def _put(found: dict[int, Path], frame: int, path: Path) -> None:
    if frame in found:
        raise OptionError(f"masks: frame {frame} has two, {found[frame]} and {path}; name one mask for each frame, FRAME:PATH for later ones")
    found[frame] = path


def _frame_names(source: Path, folder: Path, masks: set[Path]) -> list[str]:
    """Names of the clip's frames without endings, where they are files of a folder."""
    if not source.is_dir():
        return []
    if source.resolve() == folder.resolve():
        raise MaskError(f"{folder}: the masks lie among the frames, so that neither can be told from the other; move the masks to a folder of their own")
    return [file.stem for file in image_files(source, without=masks)]


def _in_folder(folder: Path, names: list[str]) -> list[tuple[int, Path]]:
    """The masks of a folder, each with the number of its frame."""
    files = [file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file() and is_image_path(file)]
    if not files:
        raise MaskError(f"{folder}: expected masks, got a folder without any image; name them as the frames are named, such as 00012.png")
    by_name = {name: number for number, name in enumerate(names)}
    if not any(file.stem in by_name for file in files):
        numbered = names and all(name.isdecimal() for name in names) and len({int(name) for name in names}) == len(names)
        by_number = {int(name): number for name, number in by_name.items()} if numbered else None
        if all(file.stem.isdecimal() and len(file.stem) < 10 for file in files):
            order = sorted(files, key=lambda file: int(file.stem))
            placed = [(int(file.stem) if by_number is None else by_number.get(int(file.stem), -1), file) for file in order]
            if all(number >= 0 for number, _ in placed):
                return placed
    strange = sorted(file.name for file in files if file.stem not in by_name)
    if strange:
        like = f"such as {names[0]}.png" if names else "by the frames' numbers from 0, such as 00012.png"
        raise MaskError(f"{folder / strange[0]}: expected a mask with the name of a frame, {like}; rename it, or move it to another folder")
    return [(by_name[file.stem], file) for file in files]
