"""A job's record, and what it allows: which folders are refused, which files an earlier job wrote and may be deleted.

Owns `job.json`. Whatever that does not say a job wrote is the user's, and is neither deleted nor replaced. Tracks nothing,
prints nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from stmemory.errors import OptionError, WeightsError
from stmemory.files import whole_file
from stmemory.job_folder import TrackJob, is_mask_name
from stmemory.video import OverlayWriter

__all__ = ["check_folder", "check_record", "clear_folder", "job_record", "write_record"]

FORMAT = "stmemory.job 1"
# Facts that a job may change and still be the same.
FREE = ("source", "mask_names", "frame_files")


def check_folder(job: TrackJob, *, resume: bool, force: bool) -> None:
    """Refuse what would end badly, before anything is done.

    Args:
        job: the job.
        resume: whether it is to go on from a saved state.
        force: whether masks that an earlier job wrote may go.

    Raises:
        OptionError: the folder is a file, or what is read lies where is written; there are masks already, or files that no job
            wrote; or there is nothing to resume.
        FrameError: an overlay is wanted, and PyAV is missing.

    >>> check_folder(TrackJob(Path("clip"), Path("0.png"), Path("no/such/folder")), resume=False, force=False)
    """
    if job.overlay:
        OverlayWriter(job.overlay_path)  # makes no file; raises when PyAV is missing
    _check_places(job)
    written = _written(job)
    if resume and not job.state.exists():
        case = "no job was begun there, or it ended before a state was saved; leave out --resume"
        if written is not None:
            done = "the job there is done" if (_recorded(job) or {}).get("done") else "the job there ended before a state was saved"
            case = f"{done}; leave out --resume, and pass --force to replace its masks"
        raise OptionError(f"{job.out}: nothing to resume: {case}")
    there = [*job.masks.glob("*.png"), *(path for path in (job.overlay_path, job.state) if path.exists())]
    if resume or not there:
        return
    if written is None:
        raise OptionError(
            f"{job.out}: expected an empty folder or one of a track job, got {there[0].relative_to(job.out)} without a job.json: "
            "no job is known to have written it, so even --force does not delete it; move it away, or pass another -o"
        )
    if not force and any(path.suffix == ".png" for path in there):
        hint = "--resume to go on, " if job.state.exists() else ""
        raise OptionError(f"{job.masks}: expected no masks yet, got some; pass {hint}--force to replace them, or another -o")
    names = job.mask_names
    hand_made = [path for path in there if path.suffix == ".png" and path not in written and is_mask_name(path.stem, names)]
    if hand_made:
        raise OptionError(
            f"{hand_made[0]}: expected only masks of the job before, got one that it did not write and this one would replace; "
            "move it away, or pass another -o"
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
        "source": job.source.name,
        "mask_names": job.mask_names,
        "frame_files": [file.name for file in job.files],
        "frame_size": list(first.shape[1:]),
        "first_frame": hashlib.sha256(first.mul(255).round().byte().numpy().tobytes()).hexdigest(),
        "first_mask": hashlib.sha256(job.mask.read_bytes()).hexdigest() if job.mask.is_file() else "",
    }


def clear_folder(job: TrackJob, record: Mapping[str, object]) -> None:
    """Delete what an earlier job wrote, all but the first mask, and write the record of this one.

    Masks by other names stay, and everything if there is no earlier job's record.

    Args:
        job: the job.
        record: what `job_record` gave.

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
    write_record(job, record)


def write_record(job: TrackJob, record: Mapping[str, object]) -> None:
    """Write a job's record; the file appears whole or not at all.

    Args:
        job: the job; its folder is there.
        record: what `job_record` gave.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_record(TrackJob(Path("clip"), Path("0.png"), Path(folder)), {"frame_size": [4, 6]})
    ...     json.loads(Path(folder, "job.json").read_text())
    {'frame_size': [4, 6]}
    """
    with whole_file(job.record) as part:
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def check_record(job: TrackJob, record: Mapping[str, object]) -> None:
    """Make sure that the job in the folder is this one.

    Args:
        job: the job.
        record: what `job_record` gave.

    Raises:
        WeightsError: the folder's record cannot be read.
        OptionError: it is of another clip or mask.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     job = TrackJob(Path("clip"), Path("0.png"), Path(folder))
    ...     clear_folder(job, {"format": FORMAT, "frame_size": [4, 6]})
    ...     check_record(job, {"format": FORMAT, "frame_size": [4, 6]})
    """
    old = _recorded(job)
    if old is None:
        raise WeightsError(f"{job.record}: expected the record of the job, got none that can be read; begin anew with another -o")
    other = [name for name in record if name not in FREE and old.get(name) != record[name]]
    if other:
        begun = "; ".join(f"{name.replace('_', ' ')} was {_short(old.get(name))}, is {_short(record[name])}" for name in other)
        raise OptionError(f"{job.out}: cannot resume another job: {begun}; run it as it was begun, or begin anew with --force")


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:8]}..." if len(text) == 64 else text


def _check_places(job: TrackJob) -> None:
    """Refuse a job that would write over what it reads."""
    if job.out.exists() and not job.out.is_dir():
        raise OptionError(f"-o: expected a folder for the masks, got the file {str(job.out)!r}; give the name of a folder")
    masks, out, source, mask = (path.resolve() for path in (job.masks, job.out, job.source, job.mask))
    if source == out and source.is_dir():
        raise OptionError(f"-o: expected another folder than the source's, got {str(job.out)!r} for both; name a new one")
    for name, path in (("the source", source), ("--mask", mask)):
        if path.is_relative_to(masks) or path == job.overlay_path.resolve():
            raise OptionError(f"{name}: {path} lies where the job writes its own files; move it elsewhere, or pass another -o")


def _recorded(job: TrackJob) -> dict[str, object] | None:
    """What `job.json` says; None where there is none of a job."""
    try:
        found: object = json.loads(job.record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def _written(job: TrackJob) -> list[Path] | None:
    """Masks in the folder that the job of its record wrote; None where no record says so."""
    old = _recorded(job)
    return None if old is None else [path for path in job.masks.glob("*.png") if is_mask_name(path.stem, old.get("mask_names"))]
