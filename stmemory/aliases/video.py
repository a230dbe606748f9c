"""Names of `stmemory.video`, which moved."""

from stmemory.io.video import (
    DAMAGED,
    OverlayWriter,
    count_video_frames,
    frame_rate,
    iterate_timed_video,
    iterate_video,
    scan_video_frames,
    write_video,
)

__all__ = [
    "DAMAGED",
    "OverlayWriter",
    "count_video_frames",
    "frame_rate",
    "iterate_timed_video",
    "iterate_video",
    "scan_video_frames",
    "write_video",
]
