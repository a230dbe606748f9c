"""The files that a person takes home: a zip of the masks, and a film with the masks over the clip."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from clip import Clip
from painting import draw
from store import Store

from stmemory.io.files import whole_file
from stmemory.io.video import OverlayWriter

__all__ = ["draw_film", "zip_masks"]


def zip_masks(store: Store, frames: range, path: Path) -> Path:
    """Pack the masks of some frames, and say where."""
    with whole_file(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for frame in frames:
            archive.write(store.mask_path(frame), f"masks/{frame:05d}.png")
    return path


def draw_film(store: Store, clip: Clip, *, end: int, path: Path, stopped: Callable[[], bool]) -> Iterator[int]:
    """Draw the clip up to a frame, with the masks that there are.

    Args:
        store: of the masks.
        clip: what they belong to.
        end: the frame to end before.
        path: of the MP4, which appears whole.
        stopped: asked before each frame; once it is so, the film ends there.

    Returns:
        The number of frames drawn, after each.

    Raises:
        FrameError: PyAV is missing, or the clip is damaged.
    """
    with whole_file(path) as part, OverlayWriter(part, rate=clip.rate) as writer:
        for frame, picture in enumerate(clip.pictures()):
            if frame >= end or stopped():
                break
            ids = store.mask(frame)
            writer.write(picture if ids is None else draw(picture, ids))
            yield frame + 1
