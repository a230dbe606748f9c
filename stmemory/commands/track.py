"""`stmemory track`: objects through a video, from their first masks."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from stmemory.commands.options import Commands, add_compute_options, chosen_predictor, tracking_options
from stmemory.commands.words import DONE, FAILED, complain, end_line, say_at_once, teller

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Offer the command."""
    track = commands.add_parser("track", parents=[tracking_options()], help="track objects through a video, from their first masks")
    track.add_argument("source", type=Path, metavar="VIDEO_OR_FOLDER", help="or a GIF, WebP or TIFF with pages, or a .npy")
    track.add_argument(
        "--mask",
        action="append",
        required=True,
        metavar="[FRAME:]MASK",
        help="ids of the first frame: a palette or grey image; with FRAME: of a later one, counted from 0, where objects enter or are corrected; "
        "or a folder of masks named like the frames; or masks of many frames in any format that export reads (.json, .xml, .npy, .npz, "
        "a video). "
        "May be given several times",
    )
    track.add_argument("-o", "--out", type=Path, required=True, help="folder; masks go to OUT/masks")
    track.add_argument("--overlay", action="store_true", help="also draw OUT/overlay.mp4")
    track.add_argument("--frames", type=int, metavar="N", help="stop after so many; --resume goes on")
    track.add_argument("--damaged", choices=("error", "skip"), default="error", help="skip: go on past a damaged part of a video, leaving it out")
    begin = track.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on where a run of the same command stopped")
    begin.add_argument("--force", action="store_true", help="begin anew, deleting the masks that an earlier run wrote")
    add_compute_options(track)
    track.set_defaults(run=_track)


def _track(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="stmemory-masks-") as folder:  # for files of many masks
        return _track_with(arguments, Path(folder))


def _track_with(arguments: argparse.Namespace, folder: Path) -> int:
    from stmemory.inventory import usable_device
    from stmemory.job import run_job, stop_on_signals
    from stmemory.job_folder import TrackJob
    from stmemory.job_record import check_folder
    from stmemory.job_summary import describe_job
    from stmemory.mask_schedule import masks_by_frame

    masks = masks_by_frame(arguments.mask, arguments.source, unpack_to=folder)
    job = TrackJob(
        arguments.source,
        masks,
        arguments.out,
        overlay=arguments.overlay,
        frames=arguments.frames,
        damaged=arguments.damaged,
    )
    check_folder(job, resume=arguments.resume, force=arguments.force)  # before the time that loading takes
    total, tellers = job.total, dict[str, Callable[[int], None]]()

    def tell(part: str, done: int) -> None:
        if part not in tellers:
            end_line(bool(tellers))
            tellers[part] = teller(total, part)
        tellers[part](done)

    described = describe_job(job, device=usable_device(arguments.device))  # reads all masks, before the weights are loaded
    predictor = chosen_predictor(arguments)
    print(described, flush=True)
    with stop_on_signals(_say_stopping) as stop:
        report = run_job(predictor, job, resume=arguments.resume, force=arguments.force, stop=stop, on_frame=tell)
    end_line()
    print(f"{report.frames} masks in {job.masks}")
    if report.finished:
        if job.overlay:
            print(f"overlay in {job.overlay_path}")
        if report.more:
            print(f"stopped after {report.frames} frames as asked; --resume goes on")
        for frame in report.unused:
            complain(f"the clip ended after {report.frames} frames: the mask of frame {frame}, {job.given[frame]}, was not used")
        return FAILED if report.unused else DONE
    if report.error is None:
        complain(f"stopped after {report.frames} frames; the same command with --resume goes on from there")
    else:
        complain(f"stopped after {report.frames} frames: {report.error}")
        complain(f"once that is mended, --resume goes on; or end there, with --resume --frames {report.frames}")
    return FAILED


def _say_stopping() -> None:
    """Answer the first ctrl-C."""
    say_at_once(
        "stopping after this frame and saving; press ctrl-C again to quit without saving (frames since the last saved state are then lost)"
    )
