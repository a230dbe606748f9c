"""Which frame belongs to which mask, when masks are read back from files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stmemory.errors import FrameError
from stmemory.formats.writer import Ids
from stmemory.frames import iterate_frames
from stmemory.images import image_files

__all__ = ["with_frames"]


def with_frames(masks: Iterator[tuple[str, Ids]], frames: object) -> Iterator[tuple[str, Ids, object]]:
    """Give each mask its frame: by name, else by number, else in order. Holds one frame.

    Args:
        masks: names and ids.
        frames: a clip in any form that `iterate_frames` takes. In a folder of images a mask's frame has its name; if
            the first mask has no such frame, or the clip is no folder, a mask whose name is a number is of the frame
            with that number, from 0; masks with other names are of the frames in order.

    Returns:
        Names, ids and frames.

    Raises:
        FrameError: a mask has no frame; or as `iterate_frames`.

    >>> import numpy as np
    >>> masks = [("00001", np.zeros((1, 2), np.int32))]
    >>> [(name, int(frame[0, 0, 0])) for name, _, frame in with_frames(iter(masks), [np.full((1, 2, 3), grey, np.uint8) for grey in (0, 255)])]
    [('00001', 1)]
    """
    if isinstance(frames, str | Path) and Path(frames).is_dir():
        by_name = {file.stem: file for file in image_files(Path(frames))}
        return _by_name(masks, by_name, Path(frames))
    return _by_number(masks, frames)


def _by_name(
    masks: Iterator[tuple[str, Ids]], files: dict[str, Path], folder: Path
) -> Iterator[tuple[str, Ids, object]]:
    named = None
    for name, ids in masks:
        if named is None:
            named = name in files
            if not named:
                yield from _by_number(_again(name, ids, masks), folder)
                return
        if name not in files:
            raise FrameError(
                f"{folder}: expected a frame {name}, as its mask is called, got none; pass the folder that was "
                "segmented"
            )
        yield name, ids, files[name]


def _by_number(masks: Iterator[tuple[str, Ids]], frames: object) -> Iterator[tuple[str, Ids, object]]:
    clip = iterate_frames(frames)
    position, frame = -1, None
    for index, (name, ids) in enumerate(masks):
        wanted = int(name) if name.isdecimal() else index
        if wanted < position:
            raise FrameError(
                f"{name}: expected masks in the order of the frames, got this one after number {position}; number "
                "them all, or none"
            )
        while position < wanted:
            frame = next(clip, None)
            position += 1
            if frame is None:
                raise FrameError(
                    f"frames: expected one for the mask {name}, got only {position}; pass the clip that was segmented"
                )
        yield name, ids, frame


def _again(name: str, ids: Ids, rest: Iterator[tuple[str, Ids]]) -> Iterator[tuple[str, Ids]]:
    yield name, ids
    yield from rest
