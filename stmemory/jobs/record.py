"""`job.json`, a job's record: which folders are refused, and which files an earlier job wrote and may be deleted.

Files that no record names are the user's, and are neither deleted nor replaced.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from stmemory.errors import OptionError, WeightsError
from stmemory.io.files import expect_folder
from stmemory.io.run_folder import expect_same, foreign_files, read_record, write_record
from stmemory.io.untrusted import expect_below
from stmemory.io.video import OverlayWriter
from stmemory.jobs.folder import TrackJob, is_mask_name
from stmemory.prompts import Prompt

__all__ = [
    "check_folder",
    "check_frames",
    "check_later_masks",
    "check_record",
    "clear_folder",
    "job_record",
    "missing_masks",
]

FORMAT = "stmemory.job 1"
# Facts that a job may change and still be the same.
FREE = ("source", "mask_names", "frame_files", "later_masks", "later_prompts")


def check_folder(job: TrackJob, *, resume: bool, force: bool) -> None:
    """Refuse what would end badly, before anything is done.

    Args:
        job: the job.
        resume: whether it is to go on from a saved state.
        force: whether masks that an earlier job wrote may go.

    Raises:
        OptionError: a live source is to be resumed; the folder is a file, what is read lies where is written, or a link
            leads out of the folder; there are masks already, or files that no job wrote; or there is nothing to resume.
        FrameError: an overlay is wanted, and PyAV is missing.

    >>> check_folder(TrackJob(Path("clip"), Path("0.png"), Path("no/such/folder")), resume=False, force=False)
    """
    if resume and job.is_live:
        raise OptionError(
            f"{job.name}: a live source cannot be resumed, since what it showed meanwhile is gone; begin again "
            "without resume=True, in another folder"
        )
    if job.overlay:
        OverlayWriter(job.overlay_path)  # makes no file; raises when PyAV is missing
    _check_places(job)
    written = _written(job)
    if resume and not job.state.exists():
        case = "no job was begun there, or it ended before a state was saved; leave out resume=True"
        if written is not None:
            done = (
                "the job there is done"
                if (_recorded(job) or {}).get("done")
                else "the job there ended before a state was saved"
            )
            case = f"{done}; leave out resume=True, and pass force=True to replace its masks"
        raise OptionError(f"{job.out}: nothing to resume: {case}")
    there = [*job.masks.glob("*.png"), *(path for path in (job.overlay_path, job.state) if path.exists())]
    if resume or not there:
        return
    if written is None:
        raise foreign_files(job.out, f"{there[0].relative_to(job.out)} without a job.json", of="a track job")
    if not force and any(path.suffix == ".png" for path in there):
        hint = "resume=True to go on, " if job.state.exists() else ""
        raise OptionError(
            f"{job.masks}: expected no masks yet, got some; pass "
            f"{hint}force=True to replace them, or choose another folder"
        )
    names = job.mask_names
    hand_made = [
        path for path in there if path.suffix == ".png" and path not in written and is_mask_name(path.stem, names)
    ]
    if hand_made:
        raise OptionError(
            f"{hand_made[0]}: expected only masks of the job before, got one that it did not write and this one would "
            "replace; move it away, or choose another folder"
        )


def job_record(job: TrackJob, first: Tensor) -> dict[str, object]:
    """Write down what makes a job the same job, beside the weights and options, which the saved stream carries.

    The clip is known by its first frame's pixels, so that it may be moved.

    Args:
        job: the job.
        first: its first frame, float `[3, H, W]` in [0, 1].

    >>> import torch
    >>> job = TrackJob(Path("clip.mp4"), Path("0.png"), Path("out"))
    >>> job_record(job, torch.zeros(3, 4, 6))["frame_size"]
    [4, 6]
    """
    return {
        "format": FORMAT,
        "source": job.name if job.is_live else Path(job.source).name,
        "mask_names": job.mask_names,
        "frame_files": [file.name for file in job.files],
        "frame_size": list(first.shape[1:]),
        "first_frame": hashlib.sha256(first.mul(255).round().byte().numpy().tobytes()).hexdigest(),
        "first_mask": _digest(job.given[0]) if 0 in job.given else "",
        "later_masks": {str(frame): _digest(path) for frame, path in job.given.items() if frame},
        "first_prompts": _said(job.prompted.get(0, ())),
        "later_prompts": {str(frame): _said(prompts) for frame, prompts in job.prompted.items() if frame},
    }


def clear_folder(job: TrackJob, record: Mapping[str, object]) -> None:
    """Delete what an earlier job wrote, all but the first mask, and write the record of this one.

    Masks by other names stay, and everything if there is no earlier job's record.

    Args:
        job: the job.
        record: record from `job_record`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clear_folder(TrackJob(Path("clip"), Path("0.png"), Path(folder)), {})
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['job.json', 'masks']
    """
    written = _written(job)
    for old in () if written is None else (job.state, job.overlay_path, *written):
        if old != job.mask_path(0):
            old.unlink(missing_ok=True)
    job.masks.mkdir(parents=True, exist_ok=True)
    write_record(job.record, record)


def check_record(job: TrackJob, record: Mapping[str, object]) -> None:
    """Make sure that the job in the folder is this one.

    Args:
        job: the job.
        record: record from `job_record`.

    Raises:
        WeightsError: the folder's record cannot be read.
        OptionError: it is of another clip, mask or prompts.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     job = TrackJob(Path("clip"), Path("0.png"), Path(folder))
    ...     clear_folder(job, {"format": FORMAT, "frame_size": [4, 6]})
    ...     check_record(job, {"format": FORMAT, "frame_size": [4, 6]})
    """
    old = _recorded(job)
    if old is None:
        raise WeightsError(
            f"{job.record}: expected the record of the job, got none that can be read; begin again in another folder"
        )
    before = {"first_prompts": {}, **old}  # a record of before there were prompts
    expect_same(job.out, "job", {name: before.get(name) for name in record}, record, free=FREE)


def check_later_masks(job: TrackJob, record: Mapping[str, object], *, done: int) -> None:
    """Make sure that the frames which are done got the masks and prompts that they would get now; those of frames to
    come may change.

    Args:
        job: the job; what `check_record` takes.
        record: record from `job_record`.
        done: number of frames that are done.

    Raises:
        OptionError: a mask or prompts of such a frame are others, came or went.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     job = TrackJob(Path("clip"), Path("0.png"), Path(folder))
    ...     clear_folder(job, {"format": FORMAT, "later_masks": {}})
    ...     check_later_masks(job, {"format": FORMAT, "later_masks": {"30": "the digest of a mask"}}, done=12)
    """
    for name, what in (("later_masks", "the mask"), ("later_prompts", "what was prompted")):
        old, new = (_done(facts.get(name), done) for facts in (_recorded(job) or {}, record))
        other = sorted(frame for frame in {*old, *new} if old.get(frame) != new.get(frame))
        if other:
            raise OptionError(
                f"{job.out}: {done} frames are done, and {what} of frame {other[0]} is not what it was; leave the "
                "masks and prompts of these frames as they were, or begin again with force=True"
            )


def _done(given: object, done: int) -> dict[int, object]:
    """What was given by frame, of frames that are done; what is in a record may be anything."""
    if not isinstance(given, dict):
        return {}
    return {
        int(frame): what for frame, what in given.items() if re.fullmatch(r"[0-9]{1,9}", frame) and int(frame) < done
    }


def _said(prompts: Sequence[Prompt]) -> dict[str, object]:
    """Prompts as plain JSON values, by the object's id: in the same words whatever the order they came in."""
    return {
        f"object_{prompt.object_id}": {
            "points": sorted(map(list, prompt.points)),
            "not_points": sorted(map(list, prompt.not_points)),
            "box": None if prompt.box is None else list(prompt.box),
        }
        for prompt in sorted(prompts, key=lambda one: one.object_id)
    }


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def check_frames(job: TrackJob, done: int) -> None:
    """Make sure that the frames that are tracked are still those of the folder, by their names.

    Args:
        job: the job; its record is there.
        done: frames that are tracked.

    Raises:
        OptionError: one was removed, added or renamed; the frames after it would be taken for others.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     job = TrackJob(Path("clip"), Path("0.png"), Path(folder))
    ...     clear_folder(job, {"format": FORMAT, "mask_names": None})
    ...     check_frames(job, 5)
    """
    before, now = (_recorded(job) or {}).get("mask_names"), job.mask_names
    before, now = (names[:done] if isinstance(names, list) else None for names in (before, now))
    if before == now:
        return
    first = next((old for old, new in zip(before or (), now or (), strict=False) if old != new), None)
    difference = f"the first that differs was {str(first)[:200]}" if first is not None else "their number differs"
    raise OptionError(
        f"{job.name}: expected the {done} frames that are tracked, got other ones ({difference}); put them back as "
        "they were to go on, or begin again in another folder"
    )


def missing_masks(job: TrackJob, done: int) -> OptionError | None:
    """Look whether the masks of the frames that are tracked are there.

    Args:
        job: the job.
        done: frames that are tracked.

    Returns:
        What to say of those that are not; None where none is missing.

    >>> missing_masks(TrackJob(Path("clip.mp4"), Path("0.png"), Path("no/such/folder")), 0) is None
    True
    """
    missing = [path.name for path in map(job.mask_path, range(done)) if not path.is_file()]
    if not missing:
        return None
    named = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
    return OptionError(
        f"{job.masks}: expected a mask of each of {done} frames that were tracked, got none for {len(missing)} of them "
        f"({named}): they were deleted since; put them back, or begin again with force=True"
    )


def _check_places(job: TrackJob) -> None:
    """Refuse a job that would write over what it reads, or elsewhere than into its folder."""
    expect_folder(job.out)
    for path in (job.masks, job.state, job.record, job.overlay_path):
        expect_below(path, job.out)
    masks, out = job.masks.resolve(), job.out.resolve()
    source = None if job.is_live else Path(job.source).resolve()
    if source is not None and source == out and source.is_dir():
        raise OptionError(
            f"out: expected another folder than the source's, got {str(job.out)!r} for both; name a new one"
        )
    read = [("the source", source)] if source is not None else []
    for name, path in (*read, *(("mask", mask.resolve()) for mask in job.given.values())):
        if path.is_relative_to(masks) or path == job.overlay_path.resolve():
            raise OptionError(
                f"{name}: {path} lies where the job writes its own files; move it elsewhere, or choose another folder"
            )


def _recorded(job: TrackJob) -> dict[str, object] | None:
    """What `job.json` says; None where there is none of a job."""
    found = read_record(job.record, FORMAT)
    return found if found is not None and _is_names(found.get("mask_names")) else None


def _is_names(names: object) -> bool:
    return names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))


def _written(job: TrackJob) -> list[Path] | None:
    """Masks in the folder that the job of its record wrote; None where no record says so."""
    old = _recorded(job)
    return (
        None
        if old is None
        else [path for path in job.masks.glob("*.png") if is_mask_name(path.stem, old.get("mask_names"))]
    )
