"""What a tracking job was given, as one line of text, so that a wrong clip or mask is seen at once. Prints nothing."""

from __future__ import annotations

from stmemory.job_folder import TrackJob, frames_of
from stmemory.masks import to_object_masks

__all__ = ["describe_job"]

MOST_OBJECTS = 8  # named one by one


def describe_job(job: TrackJob, *, device: object) -> str:
    """Say what was understood: the clip's length and size, the mask's objects with their pixels, and what is left out.

    Args:
        job: the job.
        device: where it is computed.

    Returns:
        One line.

    Raises:
        StmemoryError: the first frame or the first mask cannot be used.

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
    masks = to_object_masks(job.mask, height=height, width=width)
    known, total = job.source_frames, job.total
    limit = "" if job.frames is None else f"{total} of " if known is not None else f"at most {job.frames} frames, "
    length = f"{limit}{known:,} frame{'s' * (known != 1)} of " if known is not None else limit
    number = len(masks.object_ids)
    pixels = (masks.probabilities > 0.5).flatten(1).sum(1).tolist()
    named = [f"{object_id} ({count:,} px)" for object_id, count in zip(masks.object_ids, pixels, strict=True)]
    rest = ", ..." if number > MOST_OBJECTS else ""
    line = f"{job.source.resolve().name}: {length}{width} x {height}, {device}; "
    line += f"{job.mask.name}: {number} object{'s' * (number != 1)}: {', '.join(named[:MOST_OBJECTS])}{rest}"
    void = int(masks.void.sum())
    line += f"; 255 is void: {void:,} px ignored" if void else ""
    return line + (f"; {job.mask.name} lies among the frames and is not one of them" if job.mask_is_beside_frames else "")
