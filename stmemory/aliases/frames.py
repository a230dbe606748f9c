"""Names of `stmemory.frames`, which moved."""

from stmemory.io.frames import WorkingSize, count_frames, fit, iterate_frames, resize, restore, to_frame

__all__ = ["WorkingSize", "count_frames", "fit", "iterate_frames", "resize", "restore", "to_frame"]
