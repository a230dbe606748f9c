"""Names of `stmemory.job_record`, which moved."""

from collections.abc import Mapping

from stmemory.io import run_folder
from stmemory.jobs.folder import TrackJob
from stmemory.jobs.record import (
    check_folder,
    check_frames,
    check_later_masks,
    check_record,
    clear_folder,
    job_record,
    missing_masks,
)

__all__ = [
    "check_folder",
    "check_frames",
    "check_later_masks",
    "check_record",
    "clear_folder",
    "job_record",
    "missing_masks",
    "write_record",
]


def write_record(job: TrackJob, record: Mapping[str, object]) -> None:
    """Write a job's record, see `stmemory.io.run_folder.write_record`."""
    run_folder.write_record(job.record, record)
