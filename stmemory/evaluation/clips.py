"""Clips on disk: frames, true masks, pixels to ignore, and which frames count."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.io.images import image_to_rgb, opened_image
from stmemory.io.palette import VOID as VOID_ID
from stmemory.io.palette import IdImage, Ids, object_ids_in, read_id_image

__all__ = ["VOID_ID", "Clip", "find_clips", "is_black_and_white", "open_clip"]

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Clip:
    """One clip on disk; pixels are read when asked for.

    Attributes:
        name: the clip's folder name.
        frame_paths: one image per frame, in order.
        annotation_paths: palette or grey PNG per frame, None where there is none.
        void_paths: mask of pixels to ignore (not zero) per frame, None where there is none.
        stray_paths: annotations of which there is no frame; a clip that has some cannot be measured.
        merge_objects: all objects count as object 1, as DAVIS 2016 has it.
        ignore_void: pixels of id 255 count for nothing; else they are background, as in the toolkit of DAVIS.
        listed: for each object the frames that the data set lists for it: it enters at the first of them that shows it,
            and counts in those after it. None: it enters where it is first seen, and counts after that and before the
            last annotation.
        count_given: an object counts in the frame whose mask is given, too, as in the toolkit of LVOS.
        count_last: an object counts in the last annotated frame, too, which the toolkit of DAVIS leaves out.
        held_out: the truth is a server's, and the annotations are the masks to be given alone: nothing counts.
        asked: frames whose predicted masks are asked for; None for all.
    """

    name: str
    frame_paths: tuple[Path, ...]
    annotation_paths: tuple[Path | None, ...]
    void_paths: tuple[Path | None, ...]
    stray_paths: tuple[Path, ...] = ()
    merge_objects: bool = False
    ignore_void: bool = True
    listed: Mapping[int, tuple[int, ...]] | None = None
    count_given: bool = False
    count_last: bool = False
    held_out: bool = False
    asked: frozenset[int] | None = None

    def __len__(self) -> int:
        return len(self.frame_paths)

    @functools.cached_property
    def binary(self) -> bool:
        """Whether 255 means object 1, not void: so in grey annotations whose first that is not empty holds nothing
        else.

        Raises:
            MaskError: an annotation before that cannot be read.
        """
        for path in self.annotation_paths:
            if path is not None:
                found = read_id_image(path)
                if found.ids.any():
                    return is_black_and_white(found)
        return False

    @functools.cached_property
    def last_annotated(self) -> int:
        """Position of the last frame with an annotation; -1 where there is none."""
        return max((index for index, path in enumerate(self.annotation_paths) if path is not None), default=-1)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Frame as uint8 RGB [H, W, 3].

        Raises:
            FrameError: the file cannot be read.
        """
        with opened_image(self.frame_paths[index]) as image:
            return image_to_rgb(image)

    def truth(self, index: int) -> Ids | None:
        """True ids int32 [H, W], 0 = background, 255 = void; None where the frame has no annotation.

        Raises:
            MaskError: the file cannot be read, or is neither a palette nor a grey image.
        """
        path = self.annotation_paths[index]
        return None if path is None else self.as_ids(read_id_image(path).ids)

    def as_ids(self, labels: Ids) -> Ids:
        """Labels [H, W] of a file, the clip's own or a prediction for it, as ids of the clip's objects."""
        if self.binary:
            return (labels > 0).astype(np.int32)
        return np.where(labels == VOID_ID, labels, labels > 0).astype(np.int32) if self.merge_objects else labels

    def void(self, index: int) -> NDArray[np.bool_] | None:
        """Pixels to ignore, bool [H, W]; None where the frame has no such mask.

        Raises:
            MaskError: the file cannot be read, or is neither a palette nor a grey image.
        """
        path = self.void_paths[index]
        if path is None:
            return None
        ignored: NDArray[np.bool_] = read_id_image(path).ids != 0
        return ignored

    def entering(self, truth: Ids | None, index: int, seen: Sequence[int]) -> list[int]:
        """Objects that enter with a frame: shown by its truth [H, W], and not seen before."""
        shown = () if truth is None else object_ids_in(truth, void=VOID_ID)
        new = [object_id for object_id in shown if object_id not in seen]
        if self.listed is None:
            return new
        return [object_id for object_id in new if object_id in self.listed and index >= self.listed[object_id][0]]

    def counting(self, index: int, seen: Sequence[int], new: Sequence[int]) -> list[int]:
        """Objects that count in an annotated frame.

        Args:
            index: of the frame.
            seen: objects that entered before it.
            new: objects that enter with it.
        """
        known = [] if self.held_out else [*seen, *new] if self.count_given else list(seen)
        if self.listed is None:
            return known if index < self.last_annotated or self.count_last else []
        return [object_id for object_id in known if index in self.listed[object_id]]


def find_clips(
    root: str | Path, *, names: Sequence[str] | None = None, resolution: str | None = None, merge_objects: bool = False
) -> list[Clip]:
    """Clips under a folder of your own, by name: `CLIP/JPEGImages`, `JPEGImages/480p/CLIP` or `JPEGImages/CLIP`.

    Beside `JPEGImages` lies `Annotations` in the same way, and `Void` if there are pixels to ignore. A clip without
    annotations is among them, and cannot be measured.

    Args:
        root: the folder that holds the clips.
        names: the clips wanted, in the order wanted; all by default.
        resolution: subfolder of the layout of DAVIS; by default 480p where there is one.
        merge_objects: count all objects of a clip as one (DAVIS 2016).

    Raises:
        OptionError: the folder holds no clips, none with annotations, or lacks one that was named, or that resolution.

    >>> find_clips("no/such/folder")
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/folder: expected a folder with CLIP/JPEGImages, JPEGImages/CLIP or
    JPEGImages/480p/CLIP, got no such folder; check the spelling
    """
    root = Path(root)
    flat = (root / "JPEGImages").is_dir()
    if resolution is not None and not (flat and (root / "JPEGImages" / resolution).is_dir()):
        raise OptionError(
            f"resolution: expected the name of a folder in {root / 'JPEGImages'}, got {resolution!r}; leave it out "
            "for other layouts"
        )
    if flat:
        below = Path(resolution or "480p") if (root / "JPEGImages" / (resolution or "480p")).is_dir() else Path()
        folders = {
            clip.name: (clip, root / "Annotations" / below / clip.name, root / "Void" / below / clip.name)
            for clip in (root / "JPEGImages" / below).iterdir()
        }
    else:
        folders = {
            frames.parent.name: (frames, frames.parent / "Annotations", frames.parent / "Void")
            for frames in root.glob("*/JPEGImages")
        }
    found = {name: parts for name, parts in sorted(folders.items()) if parts[0].is_dir()}
    if not found or all(_holds_folders(parts[0]) and not _holds_images(parts[0]) for parts in found.values()):
        raise OptionError(
            f"{root}: expected a folder with CLIP/JPEGImages, JPEGImages/CLIP or JPEGImages/480p/CLIP, got "
            f"{_instead(root)}"
        )
    if not any(parts[1].is_dir() for parts in found.values()):
        first = next(iter(found.values()))[1]
        raise OptionError(
            f"{root}: expected true masks in Annotations beside JPEGImages, got none; put them there, as "
            f"{first}/00000.png"
        )
    missing = [name for name in names or () if name not in found]
    if missing:
        raise OptionError(f"names: expected clips of {root} ({', '.join(found)}), got {', '.join(missing)}")
    return [
        open_clip(
            name, frames=found[name][0], annotations=found[name][1], void=found[name][2], merge_objects=merge_objects
        )
        for name in (found if names is None else names)
    ]


def open_clip(
    name: str, *, frames: Path, annotations: Path, void: Path | None = None, merge_objects: bool = False
) -> Clip:
    """The clip of two or three folders; an annotation is of the frame whose name it has.

    Args:
        name: of the clip.
        frames: folder of its frames.
        annotations: folder of its true masks.
        void: folder of pixels to ignore.
        merge_objects: see `Clip`.

    >>> len(open_clip("empty", frames=Path("no/such"), annotations=Path("no/such")))
    0
    """
    paths = frames.iterdir() if frames.is_dir() else ()
    frame_paths = tuple(path for path in sorted(paths) if path.suffix.lower() in _IMAGE_ENDINGS and path.name[0] != ".")
    masks = {path.stem: path for path in sorted(annotations.glob("*.png")) if path.name[0] != "."}
    ignored = {} if void is None else {path.stem: path for path in void.glob("*.png")}
    stems = [path.stem for path in frame_paths]
    stray = tuple(masks[stem] for stem in sorted(set(masks) - set(stems)))
    annotated, voids = tuple(masks.get(stem) for stem in stems), tuple(ignored.get(stem) for stem in stems)
    return Clip(name, frame_paths, annotated, voids, stray, merge_objects)


def _instead(root: Path) -> str:
    """What a folder is that holds no clips, and what to do."""
    if not root.exists():
        return "no such folder; check the spelling"
    if not root.is_dir():
        return "a file; pass a folder"
    frames, place = root / "JPEGImages", root.resolve()
    if _holds_images(frames):
        return f"a clip itself; pass the folder that it lies in, and its name: {place.parent} {place.name}"
    if "JPEGImages" in place.parts[-2:]:
        return "frames alone; pass the folder above JPEGImages and Annotations, or for one clip the folder above that"
    if sizes := [path.name for path in sorted(frames.glob("*")) if _holds_folders(path)]:
        return f"the layout of DAVIS with another resolution; pass it: {', '.join(sizes)}"
    if deeper := [
        path.parent for path in sorted(root.glob("*/JPEGImages")) if _holds_folders(path)
    ]:  # DAVIS/JPEGImages/480p
        return f"a folder above one; pass {deeper[0]}"
    if deeper := [path.parent.parent for path in sorted(root.glob("*/*/JPEGImages"))]:  # mine/CLIP/JPEGImages
        return f"a folder above one; pass {deeper[0]}"
    return "none of these; put the frames of each clip there"


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in _IMAGE_ENDINGS for path in folder.iterdir())


def _holds_folders(folder: Path) -> bool:
    return folder.is_dir() and any(path.is_dir() for path in folder.iterdir())


def is_black_and_white(found: IdImage) -> bool:
    """Whether annotations hold nothing but 0 and 255, and no palette, so that 255 may be the object of the clip; images
    of 16 bits too, unlike `IdImage.is_white`.

    >>> is_black_and_white(IdImage(np.array([[0, 255]], np.uint16), palette=False))
    True
    """
    return not found.palette and not object_ids_in(found.ids, void=VOID_ID)
