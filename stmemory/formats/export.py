"""From one format to another: reads masks from files, gives each its frame where one is drawn, writes. Holds one
frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from stmemory.errors import FrameError
from stmemory.formats.pairing import with_frames
from stmemory.formats.registry import FORMATS, FormatOptions, new_writer
from stmemory.formats.writer import Ids

__all__ = ["export"]


def export(
    masks: Iterator[tuple[str, Ids]],
    path: str | os.PathLike[str],
    *,
    format: str,
    frames: object = None,
    options: FormatOptions | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> int:
    """Write masks to another format.

    Args:
        masks: names and ids, from `read_masks` or one of the readers.
        path: where the format goes.
        format: a key of `FORMATS`.
        frames: the clip, in any form that `iterate_frames` takes; formats that draw need it. See `with_frames` for
            which frame belongs to which mask.
        options: what some formats want to know.
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
        raise FrameError(
            f"{format}: expected the frames that it shows, got none; pass frames, on the command line --frames CLIP"
        )
    writer = new_writer(format, path, options=options)
    with writer:
        paired: Iterator[tuple[str, Ids, object]] = (
            with_frames(masks, frames) if draws else ((name, ids, None) for name, ids in masks)
        )
        for name, ids, frame in paired:
            writer.add(ids, name=name, frame=frame)
            if on_frame is not None:
                on_frame(writer.count)
    return writer.count
