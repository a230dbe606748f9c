"""A job's output folder: what lies where, what it refuses, and the record that makes a job the same job.

    OUT/masks/00000.png ...    one palette PNG a frame; a folder's frames keep their own names
    OUT/overlay.mp4            if wanted
    OUT/job.json               what is tracked, and how; written when the first mask is there
    OUT/state.safetensors      the stream, saved now and then and when the job stops; gone when the job is done

Owns these files' names and `job.json`. Tracks nothing, draws nothing, prints nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stmemory.errors import OptionError, WeightsError
from stmemory.frames import count_frames
from stmemory.images import image_files
from stmemory.video import OverlayWriter

__all__ = ["TrackJob", "check_folder", "check_record", "clear_folder", "job_record"]

FORMAT = "stmemory.job 1"


@dataclass(frozen=True)
class TrackJob:
    """What is tracked, and into which folder.

    Attributes:
        source: a video, a folder of images or a multi-page image.
        mask: the first frame's mask, an image file.
        out: the output folder.
        overlay: also draw `overlay.mp4` (needs the extra `video`).
        frames: frames at most; None for all.
        save_every: frames between two saved states.

    Raises:
        OptionError: `frames` or `save_every` is below 1.
    """

    source: Path
    mask: Path
    out: Path
    overlay: bool = False
    frames: int | None = None
    save_every: int = 100

    def __post_init__(self) -> None:
        for name, value in (("frames", self.frames), ("save_every", self.save_every)):
            if value is not None and value < 1:
                raise OptionError(f"{name}: expected 1 or more, got {value}")

    @property
    def masks(self) -> Path:
        """Folder of the masks."""
        return self.out / "masks"

    @property
    def state(self) -> Path:
        """File of the saved stream."""
        return self.out / "state.safetensors"

    @property
    def overlay_path(self) -> Path:
        """File of the overlay video."""
        return self.out / "overlay.mp4"

    @property
    def total(self) -> int | None:
        """Frames to do, where that can be known without reading them."""
        known = count_frames(self.source)
        return self.frames if known is None else min(known, self.frames or known)

    def mask_path(self, index: int) -> Path:
        """File of one frame's mask; frames of a folder give it their own name."""
        return self.masks / f"{self._stems[index] if self._stems else format(index, '05d')}.png"

    @functools.cached_property
    def _stems(self) -> tuple[str, ...]:
        """A folder's file names without their endings; empty for other sources, or where two would be the same."""
        stems = tuple(file.stem for file in image_files(self.source)) if self.source.is_dir() else ()
        return stems if len(set(stems)) == len(stems) else ()


def check_folder(job: TrackJob, *, resume: bool, force: bool) -> None:
    """Refuse what would end badly, before anything is done.

    Args:
        job: the job.
        resume: whether it is to go on from a saved state.
        force: whether masks that are there may go.

    Raises:
        OptionError: there are masks already, or nothing to resume.
        FrameError: an overlay is wanted, and PyAV is missing.

    >>> check_folder(TrackJob(Path("clip"), Path("0.png"), Path("no/such/folder")), resume=False, force=False)
    """
    if job.overlay:
        OverlayWriter(job.overlay_path)  # makes no file; raises when PyAV is missing
    if resume and not job.state.exists():
        raise OptionError(
            f"{job.out}: nothing to resume, for it has no {job.state.name}: the job is done, or ended before a state was saved; "
            "leave out --resume, and pass --force to replace masks that are there"
        )
    if not resume and not force and next(job.masks.glob("*.png"), None) is not None:
        hint = "--resume to go on, " if job.state.exists() else ""
        raise OptionError(f"{job.masks}: expected no masks yet, got some; pass {hint}--force to replace them, or another -o")


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
        "frame_size": list(first.shape[1:]),
        "first_frame": hashlib.sha256(first.mul(255).round().byte().numpy().tobytes()).hexdigest(),
        "first_mask": hashlib.sha256(job.mask.read_bytes()).hexdigest() if job.mask.is_file() else "",
    }


def clear_folder(job: TrackJob, record: Mapping[str, object]) -> None:
    """Delete what an earlier job left, all but the first mask, and write the record of this one.

    Args:
        job: the job.
        record: what `job_record` gave.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clear_folder(TrackJob(Path("clip"), Path("0.png"), Path(folder)), {})
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['job.json', 'masks']
    """
    for old in (job.state, job.overlay_path, *job.masks.glob("*.png")):
        if old != job.mask_path(0):
            old.unlink(missing_ok=True)
    job.masks.mkdir(parents=True, exist_ok=True)
    (job.out / "job.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


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
    ...     clear_folder(job, {"frame_size": [4, 6]})
    ...     check_record(job, {"frame_size": [4, 6]})
    """
    path = job.out / "job.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: expected the record of the job, got {error}; begin anew with --force") from error
    old = before if isinstance(before, dict) else {}
    other = [name for name in record if name != "source" and old.get(name) != record[name]]
    if other:
        begun = "; ".join(f"{name.replace('_', ' ')} was {_short(old.get(name))}, is {_short(record[name])}" for name in other)
        raise OptionError(f"{job.out}: cannot resume another job: {begun}; run it as it was begun, or begin anew with --force")


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:8]}..." if len(text) == 64 else text
