"""Folders of predicted mask images, paired with the true ones and scored without running a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import MaskError, OptionError, ShapeError
from stmemory.evaluation.clips import Clip, is_black_and_white
from stmemory.evaluation.protocol import ClipResult, check_clip, new_scores
from stmemory.io.images import natural_order
from stmemory.io.palette import read_id_image

__all__ = [
    "MaskPairs",
    "find_mask_clips",
    "is_mask_root",
    "pair_masks",
    "predictions_of",
    "predictions_of_one",
    "score_clip",
]

Ids = NDArray[np.int32]
_MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class MaskPairs:
    """Which predicted mask is of which true one.

    Attributes:
        files: predicted masks, by the position of the true one in the clip.
        missing: names of the files of true masks without a prediction, in order.
        extra: names of the files of predictions without a true mask, in order.
    """

    files: dict[int, Path]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    def __str__(self) -> str:
        said = f"matched {len(self.files)} of {len(self.files) + len(self.missing)} true masks"
        if self.missing:
            said += f"; no prediction for {_named(self.missing)}"
        return said + (f"; no true mask for {_named(self.extra)}" if self.extra else "")


def is_mask_root(root: str | Path) -> bool:
    """Whether a folder has masks, or folders of masks, and no clips of frames beside masks; see `find_mask_clips`.

    Args:
        root: the folder.

    >>> is_mask_root("no/such/folder")
    False
    """
    root = Path(root)
    if not root.is_dir() or (root / "JPEGImages").is_dir() or any(root.glob("*/JPEGImages")):
        return False
    return bool(_masks_in(root)) or any(_masks_in(folder) for folder in root.iterdir() if folder.is_dir())


def find_mask_clips(root: str | Path, *, names: Sequence[str] | None = None, every_frame: bool = False) -> list[Clip]:
    """True masks without frames, as clips: a folder of masks is one, a folder of such folders has one in each.

    Args:
        root: the folder.
        names: the clips wanted, in the order wanted; all by default.
        every_frame: whether objects also count in the frame that first shows them, which a tracker is given, and in the
            last one, which the toolkit of DAVIS leaves out.

    Raises:
        OptionError: it has no masks, or lacks a clip that was named.

    >>> find_mask_clips("no/such/folder")
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/folder: expected true masks, or a folder of them for each clip, got neither;
    check the spelling
    """
    root = Path(root)
    if not is_mask_root(root):
        raise OptionError(
            f"{root}: expected true masks, or a folder of them for each clip, got neither; check the spelling"
        )
    folders = (
        {root.resolve().name: root}
        if _masks_in(root)
        else {path.name: path for path in sorted(root.iterdir()) if path.is_dir() and _masks_in(path)}
    )
    missing = [name for name in names or () if name not in folders]
    if missing:
        raise OptionError(f"names: expected clips of {root} ({', '.join(folders)}), got {', '.join(missing)}")
    clips = []
    for name in folders if names is None else names:
        masks = tuple(_masks_in(folders[name]))
        # there are no frames, and nothing that scores reads any
        clips.append(Clip(name, masks, masks, (None,) * len(masks), count_given=every_frame, count_last=every_frame))
    return clips


def predictions_of(root: str | Path, clip: Clip) -> Path | None:
    """Folder of a clip's predictions: `ROOT/CLIP`, or `ROOT/Annotations/CLIP` as `stmemory evaluate` writes it.

    Args:
        root: folder of the predictions.
        clip: what they are of.

    Returns:
        The folder; None where there is none.

    >>> predictions_of("no/such/folder", Clip("walk", (), (), ())) is None
    True
    """
    places = (Path(root) / "Annotations" / clip.name, Path(root) / clip.name)
    return next((place for place in places if place.is_dir()), None)


def predictions_of_one(root: str | Path, clip: Clip) -> Path | None:
    """Folder of the predictions of the only clip: ROOT itself, `ROOT/masks` as `stmemory track` writes it, or as
    `predictions_of`.

    Args:
        root: folder of the predictions.
        clip: what they are of.

    Returns:
        The folder; None where there is none.

    >>> predictions_of_one("no/such/folder", Clip("walk", (), (), ())) is None
    True
    """
    places = (Path(root), Path(root) / "masks")
    return next((place for place in places if place.is_dir() and _masks_in(place)), None) or predictions_of(root, clip)


def pair_masks(folder: str | Path, clip: Clip) -> MaskPairs:
    """Find the prediction of each true mask: by name without ending, or, where no name is the same, by the number that
    it is.

    Args:
        folder: holds the predictions, PNG, BMP, TIFF or WebP.
        clip: the truth.

    Raises:
        MaskError: two predictions have one name.

    >>> print(pair_masks("no/such/folder", Clip("walk", (), (Path("0.png"), Path("1.png")), ())))
    matched 0 of 2 true masks; no prediction for 0.png, 1.png
    """
    found: dict[str, Path] = {}
    for file in _masks_in(Path(folder)):
        if file.stem in found:
            raise MaskError(f"{file}: expected one mask of each name, got {found[file.stem].name} too; take one away")
        found[file.stem] = file
    true = [(index, path) for index, path in enumerate(clip.annotation_paths) if path is not None]
    keys = {path: path.stem for _, path in true}
    if not any(stem in found for stem in keys.values()):
        numbers = {int(stem): file for stem, file in found.items() if stem.isdecimal()}
        if len(numbers) == len(found) and all(stem.isdecimal() for stem in keys.values()):
            found = {str(number): file for number, file in numbers.items()}
            keys = {path: str(int(stem)) for path, stem in keys.items()}
    files = {index: found[keys[path]] for index, path in true if keys[path] in found}
    missing = tuple(path.name for index, path in true if index not in files)
    used = set(files.values())
    return MaskPairs(files, missing, tuple(file.name for file in found.values() if file not in used))


def score_clip(folder: str | Path, clip: Clip, *, matched_only: bool = False) -> ClipResult:
    """Score the masks of a folder against a clip's truth; the clip's frames are not read.

    Args:
        folder: holds a palette or grey image for every frame that counts, see `pair_masks`.
        clip: the truth.
        matched_only: leave out frames without a prediction, instead of raising.

    Returns:
        The scores; its seconds are 0, since nothing was run.

    Raises:
        FrameError: the clip has no frames.
        MaskError: a mask is missing, cannot be read or holds colours; no annotation shows an object, or none is left to
            score.
        ShapeError: a mask is not of the annotation's size.

    >>> score_clip("no/such/folder", Clip("empty", (), (), ()))
    Traceback (most recent call last):
    stmemory.errors.FrameError: clip empty: expected at least one frame, got none
    """
    check_clip(clip)
    folder = Path(folder)
    pairs = pair_masks(folder, clip)
    seen: list[int] = []
    sequence, frames, shape = new_scores(clip), 0, (0, 0)
    missing: list[str] = []
    for index, path in enumerate(clip.annotation_paths):
        truth = clip.truth(index)
        if path is None or truth is None:
            continue
        new = clip.entering(truth, index, seen)
        counting = clip.counting(index, seen, new)
        seen += new
        shape = (truth.shape[0], truth.shape[1])
        if not counting:
            continue
        file = pairs.files.get(index)
        if file is None:
            missing.append(f"{path.stem}.png")
            continue
        predicted = _read(file, clip)
        if predicted.shape != truth.shape:
            raise ShapeError(
                f"{file}: expected the size of {path}, {truth.shape}, got {predicted.shape}; score at the frame's "
                "own size"
            )
        frames += 1
        sequence.add(predicted, truth, object_ids=counting, void=clip.void(index), frame=index)
    if missing and not (matched_only and frames):
        raise MaskError(
            f"{folder}: expected a mask for each of {frames + len(missing)} frames that count, got none for "
            f"{len(missing)} of them, the first {missing[0]}; predict them too"
        )
    if not seen:
        raise MaskError(f"clip {clip.name}: expected an object in at least one annotation, got none")
    return ClipResult(clip.name, sequence.scores(), frames, 0.0, *shape)


def _read(file: Path, clip: Clip) -> Ids:
    """Predicted ids [H, W]; where the truth has one object only, whatever is not 0 is that object."""
    found = read_id_image(file)
    ids, one = found.ids, clip.binary or clip.merge_objects or is_black_and_white(found)
    return (ids > 0).astype(np.int32) if one else ids


def _masks_in(folder: Path) -> list[Path]:
    """A folder's masks in natural order; JPEGs hold none."""
    if not folder.is_dir():
        return []
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in _MASK_ENDINGS and file.name[0] != "." and file.is_file()
    ]
    return sorted(files, key=lambda file: natural_order(file.name))


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
