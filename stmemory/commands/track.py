"""`stmemory track`: objects through a video, from their first masks."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from stmemory.commands.options import Commands, add_compute_options, chosen_predictor, tracking_options
from stmemory.commands.words import DONE, FAILED, complain, end_line, say_at_once, teller

__all__ = ["add_to"]

SNAPSHOTS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}


def add_to(commands: Commands) -> None:
    """Offer the command."""
    track = commands.add_parser(
        "track", parents=[tracking_options()], help="track objects through a video, from their first masks"
    )
    source_help = "or a GIF, WebP or TIFF with pages, or a .npy with uint8 [T, H, W, 3]; or live: a camera, 0 or /dev/video0, or an address, rtsp://..."
    track.add_argument("source", metavar="VIDEO_OR_FOLDER", help=source_help)
    track.add_argument(
        "--mask",
        action="append",
        metavar="[FRAME:]MASK",
        help="ids of the first frame: a palette or grey image; with FRAME: of a later one, counted from 0, where "
        "objects enter or are corrected; "
        "or a folder of masks named like the frames; or masks of many frames in any format that export reads (.json, "
        ".xml, .npy, .npz, "
        "a video). "
        "May be given several times",
    )
    track.add_argument("-o", "--out", type=Path, help="folder; masks go to OUT/masks")
    track.add_argument("--overlay", action="store_true", help="also draw OUT/overlay.mp4")
    track.add_argument("--frames", type=int, metavar="N", help="stop after so many; --resume goes on")
    track.add_argument(
        "--damaged",
        choices=("error", "skip"),
        default="error",
        help="skip: go on past a damaged part of a video, leaving it out",
    )
    live = track.add_argument_group("cameras and streams")
    live.add_argument(
        "--snapshot",
        type=Path,
        metavar="FILE",
        help="write the first frame as an image on which to paint the mask, and end",
    )
    live.add_argument("--seconds", type=float, metavar="S", help="stop after so long")
    live.add_argument(
        "--reconnect",
        type=int,
        default=5,
        metavar="N",
        help="attempts to open a stream again that was lost (default: 5)",
    )
    begin = track.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on where a run of the same command stopped")
    begin.add_argument("--force", action="store_true", help="begin anew, deleting the masks that an earlier run wrote")
    add_compute_options(track)
    track.set_defaults(run=_track, usage_error=track.error)


def _track(arguments: argparse.Namespace) -> int:
    missing = [name for name, value in (("--mask", arguments.mask), ("-o/--out", arguments.out)) if not value]
    if missing and arguments.snapshot is None:
        arguments.usage_error(f"the following arguments are required: {', '.join(missing)}")
    if arguments.snapshot is not None:
        return _snapshot(arguments.source, arguments.snapshot)
    with tempfile.TemporaryDirectory(prefix="stmemory-masks-") as folder:  # for files of many masks
        return _track_with(arguments, Path(folder))


def _track_with(arguments: argparse.Namespace, folder: Path) -> int:
    from stmemory.inventory import usable_device
    from stmemory.job import run_job, stop_on_signals
    from stmemory.job_folder import TrackJob
    from stmemory.job_record import check_folder
    from stmemory.job_summary import describe_job
    from stmemory.live import is_live
    from stmemory.mask_schedule import masks_by_frame

    source = arguments.source if is_live(arguments.source) else Path(arguments.source)
    masks = masks_by_frame(arguments.mask, source, unpack_to=folder)
    job = TrackJob(
        source,
        masks,
        arguments.out,
        overlay=arguments.overlay,
        frames=arguments.frames,
        damaged=arguments.damaged,
        seconds=arguments.seconds,
        reconnect=arguments.reconnect,
    )
    check_folder(job, resume=arguments.resume, force=arguments.force)  # before the time that loading takes
    total, tellers = job.total, dict[str, Callable[[int], None]]()

    def tell(part: str, done: int) -> None:
        if part not in tellers:
            end_line(bool(tellers))
            tellers[part] = teller(total, part)
        tellers[part](done)

    described = describe_job(
        job, device=usable_device(arguments.device)
    )  # reads all masks, before the weights are loaded
    predictor = chosen_predictor(arguments)
    print(described, flush=True)
    with stop_on_signals(_say_finishing if job.live is not None else _say_stopping) as stop:
        report = run_job(predictor, job, resume=arguments.resume, force=arguments.force, stop=stop, on_frame=tell)
    end_line()
    print(f"{report.frames} masks in {job.masks}")
    if job.live is not None:
        print(
            f"{job.name}: {job.live.dropped} frames came too fast and were left out, {job.live.reconnections} "
            "reconnections"
        )
        if job.overlay and not report.finished:
            print(f"overlay in {job.overlay_path}")
    if report.finished:
        if job.overlay:
            print(f"overlay in {job.overlay_path}")
        if report.more:
            print(f"stopped after {report.frames} frames as asked; --resume goes on")
        for frame in report.unused:
            complain(
                f"the clip ended after {report.frames} frames: the mask of frame {frame}, {job.given[frame]}, was not "
                "used"
            )
        return FAILED if report.unused else DONE
    if job.live is not None:
        why = "" if report.error is None else f": {report.error}"
        complain(f"stopped after {report.frames} frames{why}; a live source cannot be resumed")
        return FAILED
    if report.error is None:
        complain(f"stopped after {report.frames} frames; the same command with --resume goes on from there")
    else:
        complain(f"stopped after {report.frames} frames: {report.error}")
        complain(f"once that is mended, --resume goes on; or end there, with --resume --frames {report.frames}")
    return FAILED


def _snapshot(source: str, file: Path) -> int:
    """Write the first frame of a clip or a live source."""
    from PIL import Image

    from stmemory.errors import FrameError
    from stmemory.files import whole_file
    from stmemory.frames import iterate_frames
    from stmemory.live import LiveSource, is_live

    if file.suffix.lower() not in SNAPSHOTS:
        raise FrameError(
            f"{file}: expected a name that ends with one of {', '.join(SNAPSHOTS)}, which lose nothing; choose one"
        )
    if is_live(source):
        with closing(LiveSource(source)) as live:
            frame = live.first()
    else:
        frame = next(iterate_frames(Path(source))).mul(255).round().byte().permute(1, 2, 0).numpy()
    with whole_file(file) as part:
        Image.fromarray(frame).save(part, format=SNAPSHOTS[file.suffix.lower()])
    print(
        f"first frame, {frame.shape[1]} x {frame.shape[0]}, in {file}; paint the objects' ids on an image of that size"
    )
    return DONE


def _say_finishing() -> None:
    """Answer the first ctrl-C during a live source."""
    say_at_once("stopping after this frame; press ctrl-C again to quit at once, which leaves the overlay as it is")


def _say_stopping() -> None:
    """Answer the first ctrl-C."""
    say_at_once(
        "stopping after this frame and saving; press ctrl-C again to quit without saving (frames since the last saved "
        "state are then lost)"
    )
