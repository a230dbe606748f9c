"""Predictions on disk: folders of mask PNGs against true masks, scored without running any model.

Owns where a clip's predictions lie and how their labels are read. Which frames and objects count is the clip's affair.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import MaskError, ShapeError
from stmemory.evaluation.clips import Clip, object_ids_in, read_labels
from stmemory.evaluation.protocol import ClipResult, check_clip, new_scores

__all__ = ["predictions_of", "score_clip"]

Ids = NDArray[np.int32]


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


def score_clip(folder: str | Path, clip: Clip) -> ClipResult:
    """Score the masks of a folder against a clip's truth; the clip's frames are not read.

    Args:
        folder: holds a palette or grey PNG for every frame that counts, by the name of the frame.
        clip: the truth.

    Returns:
        The scores; its seconds are 0, since nothing was run.

    Raises:
        FrameError: the clip has no frames.
        MaskError: a mask is missing, cannot be read or holds colours; no annotation shows an object.
        ShapeError: a mask is not of the annotation's size.

    >>> score_clip("no/such/folder", Clip("empty", (), (), ()))
    Traceback (most recent call last):
    stmemory.errors.FrameError: clip empty: expected at least one frame, got none
    """
    check_clip(clip)
    folder = Path(folder)
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
        file = folder / f"{path.stem}.png"
        if not file.is_file():
            missing.append(file.name)
            continue
        predicted = _read(file, clip)
        if predicted.shape != truth.shape:
            raise ShapeError(f"{file}: expected the size of {path}, {truth.shape}, got {predicted.shape}; score at the frame's own size")
        frames += 1
        sequence.add(predicted, truth, object_ids=counting, void=clip.void(index), frame=index)
    if missing:
        raise MaskError(
            f"{folder}: expected a mask for each of {frames + len(missing)} frames that count, got none for {len(missing)} of them, "
            f"the first {missing[0]}; predict them too"
        )
    if not seen:
        raise MaskError(f"clip {clip.name}: expected an object in at least one annotation, got none")
    return ClipResult(clip.name, sequence.scores(), frames, 0.0, *shape)


def _read(file: Path, clip: Clip) -> Ids:
    """Predicted ids [H, W]; where the truth has one object only, whatever is not 0 is that object."""
    labels, is_palette = read_labels(file)
    one = clip.binary or clip.merge_objects or (not is_palette and not object_ids_in(labels))
    return (labels > 0).astype(np.int32) if one else labels
