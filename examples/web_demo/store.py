"""What a session has on disk of each frame: its paint and its mask. Knows no clip and no order of events.

FOLDER/painted/00012.png    what was painted on a frame, at the size at which it was shown
FOLDER/painted/00012.gone   the objects that were painted away there
FOLDER/masks/00012.png      what was found in a frame: a palette PNG, at the frame's own size
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from painting import Ids, only

from stmemory.io.palette import read_palette_png, write_palette_png

__all__ = ["Painting", "Store"]


@dataclass(frozen=True, eq=False)
class Painting:
    """What was painted on a frame.

    Attributes:
        ids: `[H', W']`, 0 where nothing was.
        there: the objects in `ids`.
        gone: those of which nothing was left.
    """

    ids: Ids
    there: tuple[int, ...]
    gone: tuple[int, ...]


class Store:
    """Paint and masks by frame, in files alone, so that memory does not grow with the clip.

    Args:
        folder: where they lie; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._painted, self._masks = folder / "painted", folder / "masks"

    @property
    def painted(self) -> list[int]:
        """The frames that were painted on."""
        return sorted(int(file.stem) for file in self._painted.glob("*.png"))

    def painting(self, frame: int) -> Painting | None:
        """What was painted on a frame; None where nothing was."""
        path = self._painted / f"{frame:05d}.png"
        if not path.exists():
            return None
        ids = _read(path)
        gone = path.with_suffix(".gone").read_text(encoding="utf-8")
        return Painting(ids, tuple(set(np.unique(ids).tolist()) - {0}), tuple(int(i) for i in gone.split("-") if i))

    def paint(self, frame: int, ids: Ids, objects: Sequence[int]) -> None:
        """Take paint; what an earlier one said of other objects stays.

        Args:
            frame: its index.
            ids: `[H', W']` of all objects that are seen there.
            objects: those that this is meant to say; one without a pixel is gone.
        """
        before = self.painting(frame)
        given = set(objects) | ({*before.there, *before.gone} if before else set())
        there = set(np.unique(ids).tolist())
        path = self._painted / f"{frame:05d}.png"
        path.unlink(missing_ok=True)
        self._painted.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".gone").write_text("-".join(str(i) for i in sorted(given - there)), encoding="utf-8")
        write_palette_png(path, only(ids, sorted(given)))  # last: where there is a PNG there is all of it

    def put_back(self, frame: int, painting: Painting | None) -> None:
        """Make the paint of a frame again what it was.

        Args:
            frame: its index.
            painting: what `painting` said of it.
        """
        if painting is None:
            for path in (self._painted / f"{frame:05d}.png", self._painted / f"{frame:05d}.gone"):
                path.unlink(missing_ok=True)
        else:
            self.put_back(frame, None)
            self.paint(frame, painting.ids, [*painting.there, *painting.gone])

    def mask(self, frame: int) -> Ids | None:
        """What was found in a frame, `[H, W]`; None where nothing is known."""
        path = self.mask_path(frame)
        return _read(path) if path.exists() else None

    def keep_mask(self, frame: int, ids: Ids) -> None:
        """Write what was found in a frame, `[H, W]`."""
        write_palette_png(self.mask_path(frame), ids)

    def mask_path(self, frame: int) -> Path:
        """Where a frame's mask lies, if it has one."""
        return self._masks / f"{frame:05d}.png"

    def forget_masks(self, *, but: range) -> None:
        """Remove the masks of all frames but some."""
        for mask in self._masks.glob("*.png"):
            if int(mask.stem) not in but:
                mask.unlink()


def _read(path: Path) -> Ids:
    return read_palette_png(path).numpy().astype(np.uint8)
