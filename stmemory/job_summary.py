"""What a tracking job was given, as one line of text, so that a wrong clip or mask is seen at once. Prints nothing."""

from __future__ import annotations

from pathlib import Path

from stmemory.errors import MaskError, StmemoryError
from stmemory.job_folder import TrackJob, frames_of
from stmemory.masks import ObjectMasks, to_object_masks

__all__ = ["describe_job"]

MOST_OBJECTS = 8  # named one by one
MOST_MASKS = 3  # described one by one


def describe_job(job: TrackJob, *, device: object) -> str:
    """Say what was understood: the clip's length and size, the mask's objects with their pixels, and what is left out.

    Args:
        job: the job.
        device: where it is computed.

    Returns:
        One line.

    Raises:
        FrameError: the first frame cannot be used.
        MaskError: a mask cannot be used, none has an object, or one is of a frame that the clip does not have.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, value in (("clip.tif", 0), ("first.png", 7)):
    ...         Image.new("L", (6, 4), value).save(Path(folder) / name)
    ...     job = TrackJob(Path(folder, "clip.tif"), Path(folder, "first.png"), Path(folder, "out"))
    ...     describe_job(job, device="cpu")
    'clip.tif: 1 frame of 6 x 4, cpu; first.png: 1 object: 7 (24 px)'
    """
    height, width = next(frames_of(job)).shape[1:]
    last = max(job.given)
    if job.files and last >= len(job.files):
        raise MaskError(
            f"{job.given[last]}: expected a mask of a frame from 0 to {len(job.files) - 1}, got one of frame {last}; "
            "count from 0"
        )
    alone, lines, objects = list(job.given) == [0], list[str](), 0
    for frame, path in job.given.items():
        masks = _read(path, height, width, allow_empty=not alone)
        objects += len(masks.object_ids)
        if len(lines) < MOST_MASKS:
            lines.append((f"{path.name}" if alone else f"{path.name} at frame {frame}") + f": {_objects_in(masks)}")
    if not objects:
        raise MaskError(
            "masks: expected an object in at least one of them, got background only; mark objects with ids above 0"
        )
    known, total = job.source_frames, job.total
    limit = "" if job.frames is None else f"{total} of " if known is not None else f"at most {job.frames} frames, "
    length = f"{limit}{known:,} frame{'s' * (known != 1)} of " if known is not None else limit
    more = len(job.given) - len(lines)
    lines += [f"{more} more mask{'s' * (more != 1)}"] * (more > 0)
    if beside := job.masks_beside_frames:
        one = len(beside) == 1
        lines.append(
            f"{beside[0].name} lies among the frames and is not one of them"
            if one
            else f"{len(beside)} masks lie among the frames and are none of them"
        )
    return f"{job.name}: {length}{width} x {height}, {device}; {'; '.join(lines)}"


def _read(path: Path, height: int, width: int, *, allow_empty: bool) -> ObjectMasks:
    """A mask that is to be read when its frame is reached."""
    try:
        return to_object_masks(path, height=height, width=width, allow_empty=allow_empty)
    except StmemoryError as error:
        raise type(error)(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _objects_in(masks: ObjectMasks) -> str:
    number = len(masks.object_ids)
    pixels = (masks.probabilities > 0.5).flatten(1).sum(1).tolist()
    named = [f"{object_id} ({count:,} px)" for object_id, count in zip(masks.object_ids, pixels, strict=True)]
    line = (
        f"{number} object{'s' * (number != 1)}"
        + (": " if named else "")
        + ", ".join(named[:MOST_OBJECTS])
        + ", ..." * (number > MOST_OBJECTS)
    )
    void = int(masks.void.sum())
    return line + (f"; 255 is void: {void:,} px ignored" if void else "")
