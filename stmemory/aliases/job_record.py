"""Names of `stmemory.job_record`, which moved."""

from stmemory.jobs.record import (
    check_folder,
    check_frames,
    check_later_masks,
    check_record,
    clear_folder,
    job_record,
    missing_masks,
    write_record,
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
