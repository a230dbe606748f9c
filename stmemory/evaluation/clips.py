"""Clips on disk: frames, true masks and pixels to ignore, in the folder layouts of DAVIS.

Owns the layouts and the reading of annotations. Does not know predictors or scores.

Layouts, found by themselves (`CLIP` is a folder, `Void` is optional):

    ROOT/CLIP/JPEGImages/00000.jpg        ROOT/JPEGImages/480p/CLIP/00000.jpg
    ROOT/CLIP/Annotations/00000.png       ROOT/Annotations/480p/CLIP/00000.png
    ROOT/CLIP/Void/00000.png              ROOT/Void/480p/CLIP/00000.png
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.images import UNREADABLE

__all__ = ["Clip", "VOID_ID", "find_clips", "object_ids_in"]

Ids = NDArray[np.int32]
VOID_ID = 255
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Clip:
    """One clip on disk; pixels are read when asked for.

    Attributes:
        name: the clip's folder name.
        frame_paths: one image per frame, in order.
        annotation_paths: palette or grey PNG per frame, None where there is none.
        void_paths: mask of pixels to ignore (not zero) per frame, None where there is none.
        merge_objects: all objects count as object 1, as DAVIS 2016 has it.
        binary: grey annotations whose 255 means object 1, not void.
    """

    name: str
    frame_paths: tuple[Path, ...]
    annotation_paths: tuple[Path | None, ...]
    void_paths: tuple[Path | None, ...]
    merge_objects: bool = False
    binary: bool = False

    def __len__(self) -> int:
        return len(self.frame_paths)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Frame as uint8 RGB [H, W, 3].

        Raises:
            FrameError: the file cannot be read.
        """
        path = self.frame_paths[index]
        try:
            with Image.open(path) as image:
                return np.array(image.convert("RGB"))
        except UNREADABLE as error:
            raise FrameError(f"{path}: expected an image that can be read, got {error}; replace the file") from error

    def truth(self, index: int) -> Ids | None:
        """True ids int32 [H, W], 0 = background, 255 = void; None where the frame has no annotation.

        Raises:
            MaskError: the file cannot be read, or is neither a palette nor a grey image.
        """
        path = self.annotation_paths[index]
        if path is None:
            return None
        ids, _ = _read_labels(path)
        if self.binary:
            ids = (ids > 0).astype(np.int32)
        elif self.merge_objects:
            ids = np.where(ids == VOID_ID, ids, ids > 0).astype(np.int32)
        return ids

    def void(self, index: int) -> NDArray[np.bool_] | None:
        """Pixels to ignore, bool [H, W]; None where the frame has no such mask.

        Raises:
            MaskError: the file cannot be read, or is neither a palette nor a grey image.
        """
        path = self.void_paths[index]
        if path is None:
            return None
        ignored: NDArray[np.bool_] = _read_labels(path)[0] != 0
        return ignored


def find_clips(
    root: str | Path, *, names: Sequence[str] | None = None, resolution: str = "480p", merge_objects: bool = False
) -> list[Clip]:
    """Clips under a folder in either layout, by name; only those with annotations in the folder-per-clip layout.

    Args:
        root: the folder that holds the clips.
        names: the clips wanted, in the order wanted; all by default.
        resolution: subfolder of the official layout.
        merge_objects: count all objects of a clip as one (DAVIS 2016).

    Raises:
        OptionError: the folder holds no clips, or lacks one that was named.

    >>> find_clips("no/such/folder")
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/folder: expected CLIP/JPEGImages or JPEGImages/480p/CLIP, found neither
    """
    root = Path(root)
    official = root / "JPEGImages" / resolution
    if official.is_dir():
        folders = {
            clip.name: (clip, root / "Annotations" / resolution / clip.name, root / "Void" / resolution / clip.name)
            for clip in official.iterdir()
        }
    else:
        folders = {
            frames.parent.name: (frames, frames.parent / "Annotations", frames.parent / "Void")
            for frames in root.glob("*/JPEGImages")
        }
    found = {name: parts for name, parts in sorted(folders.items()) if parts[0].is_dir() and parts[1].is_dir()}
    if not found:
        raise OptionError(f"{root}: expected CLIP/JPEGImages or JPEGImages/{resolution}/CLIP, found neither")
    missing = [name for name in names or () if name not in found]
    if missing:
        raise OptionError(f"names: expected clips of {root} ({', '.join(found)}), got {', '.join(missing)}")
    return [_clip(name, *found[name], merge_objects) for name in (found if names is None else names)]


def object_ids_in(ids: Ids) -> list[int]:
    """Objects of an id map [H, W], ascending, background and void left out.

    >>> object_ids_in(np.array([[0, 255], [7, 2]], dtype=np.int32))
    [2, 7]
    """
    return [int(object_id) for object_id in np.unique(ids) if object_id not in (0, VOID_ID)]


def _clip(name: str, frames: Path, annotations: Path, void: Path, merge_objects: bool) -> Clip:
    """The clip of three folders; whether 255 is an object shows in the first annotation that is not empty."""
    frame_paths = tuple(path for path in sorted(frames.iterdir()) if path.suffix.lower() in _IMAGE_ENDINGS)
    annotation_paths = _beside(frame_paths, annotations)
    binary = False
    for path in _present(annotation_paths):
        ids, is_palette = _read_labels(path)
        if ids.any():
            binary = not is_palette and not object_ids_in(ids)
            break
    return Clip(name, frame_paths, annotation_paths, _beside(frame_paths, void), merge_objects, binary)


def _beside(frame_paths: Sequence[Path], folder: Path) -> tuple[Path | None, ...]:
    """For each frame the PNG of the same stem in `folder`, or None."""
    stems = {path.stem: path for path in folder.glob("*.png")}
    return tuple(stems.get(path.stem) for path in frame_paths)


def _present(paths: Iterable[Path | None]) -> Iterator[Path]:
    return (path for path in paths if path is not None)


def _read_labels(path: Path) -> tuple[Ids, bool]:
    """Label values int32 [H, W] as stored, and whether the file has a palette."""
    try:
        with Image.open(path) as image:
            mode, labels = image.mode, np.array(image.convert("L") if image.mode == "1" else image)
    except UNREADABLE as error:
        raise MaskError(f"{path}: expected a PNG that can be read, got {error}; replace the file") from error
    if mode not in ("P", "L", "1"):
        raise MaskError(f"{path}: expected a palette or grey PNG, got mode {mode}; convert the labels")
    return labels.astype(np.int32), mode == "P"
