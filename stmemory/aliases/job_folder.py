"""Names of `stmemory.job_folder`, which moved."""

from stmemory.jobs.folder import TrackJob, frames_of, is_mask_name, pictures_of

__all__ = ["TrackJob", "frames_of", "is_mask_name", "pictures_of"]
