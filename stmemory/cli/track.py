"""The commands track, export, demo and inspect."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from stmemory.cli.options import (
    Commands,
    add_compute_options,
    add_prompt_options,
    add_scene_options,
    chosen_predictor,
    chosen_prompts,
    tracking_options,
)
from stmemory.cli.output import DONE, FAILED, INTERRUPTED, complain, end_line, progress_on_stderr, say_at_once
from stmemory.io.files import out_folder

if TYPE_CHECKING:
    from stmemory.inspection import Inspector
    from stmemory.jobs.track import Stop
    from stmemory.prompts import Prompt
    from stmemory.types import FrameLike, MaskLike

__all__ = ["add_demo", "add_export", "add_inspect", "add_track"]

SNAPSHOTS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}


def add_track(commands: Commands) -> None:
    """Offer the command."""
    track = commands.add_parser(
        "track", parents=[tracking_options()], help="track objects through a video, from first masks, points or boxes"
    )
    source_help = (
        "or a GIF, WebP or TIFF with pages, or a .npy with uint8 [T, H, W, 3]; or live: a camera, 0 or /dev/video0, "
        "or an address, rtsp://..."
    )
    track.add_argument("source", metavar="VIDEO_OR_FOLDER", help=source_help)
    track.add_argument(
        "--mask",
        action="append",
        metavar="[FRAME:]MASK",
        help="ids of the first frame: a palette or grey image; with FRAME: of a later one, counted from 0, where "
        "objects enter or are corrected; or a folder of masks named like the frames; or masks of many frames in any "
        "format that export reads (.json, .xml, .npy, .npz, a video). "
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
        help="write the first frame as an image on which to paint the mask or look up pixels, and end",
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
    begin.add_argument("--force", action="store_true", help="begin again, deleting the masks that an earlier run wrote")
    add_prompt_options(track, frames=True)
    add_compute_options(track)
    track.set_defaults(run=_track, usage_error=track.error)


def _track(arguments: argparse.Namespace) -> int:
    given = [value for name in ("mask", "point", "not_point", "box") for value in getattr(arguments, name) or ()]
    wanted = (("--mask, --point or --box", given), ("-o/--out", arguments.out))
    missing = [name for name, value in wanted if not value]
    if missing and arguments.snapshot is None:
        arguments.usage_error(f"the following arguments are required: {', '.join(missing)}")
    if arguments.snapshot is not None:
        return _snapshot(arguments.source, arguments.snapshot)
    with tempfile.TemporaryDirectory(prefix="stmemory-masks-") as folder:  # for files of many masks
        return _track_with(arguments, Path(folder))


def _track_with(arguments: argparse.Namespace, folder: Path) -> int:
    from stmemory.io.live import is_live
    from stmemory.jobs.folder import TrackJob
    from stmemory.jobs.record import check_folder
    from stmemory.jobs.schedule import masks_by_frame
    from stmemory.jobs.track import describe_job, run_job, stop_on_signals
    from stmemory.weights.devices import fast_dtype, usable_device

    source = arguments.source if is_live(arguments.source) else Path(arguments.source)
    prompts = chosen_prompts(arguments)
    masks = masks_by_frame(arguments.mask, source, unpack_to=folder) if arguments.mask else None
    job = TrackJob(
        source,
        masks,
        arguments.out,
        overlay=arguments.overlay,
        frames=arguments.frames,
        damaged=arguments.damaged,
        seconds=arguments.seconds,
        reconnect=arguments.reconnect,
        prompts=prompts,
    )
    check_folder(job, resume=arguments.resume, force=arguments.force)  # before the time that loading takes
    total, shown = job.total, dict[str, Callable[[int], None]]()

    def show(part: str, done: int) -> None:
        if part not in shown:
            end_line(bool(shown))
            shown[part] = progress_on_stderr(total, part)
        shown[part](done)

    device, dtype = usable_device(arguments.device), arguments.compute_dtype
    chosen = str(fast_dtype(device)).removeprefix("torch.") if dtype == "auto" else dtype
    where = ", ".join([str(device), *([chosen] if chosen else [])])
    described = describe_job(job, device=where)  # reads all masks, before the weights are loaded
    predictor = chosen_predictor(arguments)
    print(described, flush=True)
    with stop_on_signals(_say_finishing if job.live is not None else _say_stopping) as stop:
        report = run_job(predictor, job, resume=arguments.resume, force=arguments.force, stop=stop, on_frame=show)
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
            what = (
                f"the mask of frame {frame}, {job.given[frame]}," if frame in job.given else f"prompts of frame {frame}"
            )
            complain(f"the clip ended after {report.frames} frames: {what} was not used")
        return FAILED if report.unused else DONE
    if job.live is not None:
        why = "" if report.error is None else f": {report.error}"
        complain(f"stopped after {report.frames} frames{why}; a live source cannot be resumed")
        return FAILED if report.error is not None else INTERRUPTED
    if report.error is None:
        complain(f"stopped after {report.frames} frames; the same command with --resume goes on from there")
        return INTERRUPTED
    complain(f"stopped after {report.frames} frames: {report.error}")
    complain(f"once that is mended, --resume goes on; or end there, with --resume --frames {report.frames}")
    return FAILED


def _snapshot(source: str, file: Path) -> int:
    """Write the first frame of a clip or a live source."""
    from PIL import Image

    from stmemory.errors import FrameError
    from stmemory.io.files import whole_file
    from stmemory.io.frames import iterate_frames
    from stmemory.io.live import LiveSource, is_live

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


def add_export(commands: Commands) -> None:
    """Offer the command."""
    export = commands.add_parser("export", help="write masks in another format; runs no model")
    export.add_argument(
        "masks", type=Path, metavar="MASKS", help="OUT of a track command, or masks of any format that holds ids"
    )
    export.add_argument("--to", required=True, metavar="FORMAT", help=f"one of {', '.join(_NAMES)}")
    export.add_argument("--from", dest="source", metavar="FORMAT", help="of MASKS; recognised by default")
    export.add_argument("-o", "--out", type=Path, required=True, help="a new folder, or a file, as the format is")
    export.add_argument(
        "--frames",
        type=Path,
        metavar="VIDEO_OR_FOLDER",
        help="the clip; for overlays and cut-outs, and for the names of files in coco, youtube_vis and label_studio",
    )
    export.add_argument(
        "--rate", type=float, help="frames per second, for gif and videos (default: that of the clip, else 25)"
    )
    prefix_help = "before the names of files in label_studio, such as /data/local-files/?d=clip/"
    export.add_argument("--prefix", default="", metavar="TEXT", help=prefix_help)
    export.add_argument(
        "--video", metavar="NAME", help="the video's name, for youtube_vos and youtube_vis, read or written"
    )
    export.add_argument(
        "--category",
        action="append",
        default=[],
        metavar="ID=NAME",
        help="what an object is, for formats that say so; may be given several times",
    )
    export.set_defaults(run=_export)


# Names alone, so that --help is quick; a test compares them with `stmemory.formats.FORMATS`.
_NAMES = (
    *("davis", "objects", "youtube_vos", "youtube_vis", "coco", "coco_polygons", "yolo", "cvat", "label_studio"),
    *("volume", "mask_video", "mp4", "gif", "cutouts", "object_cutouts"),
    *("mov", "mov_lossless", "object_movs", "matte", "object_mattes"),
)
_NAMING_FILES = ("youtube_vis", "coco", "coco_polygons", "label_studio")


def _export(arguments: argparse.Namespace) -> int:
    from stmemory.formats import FormatOptions, export, frame_files, read_masks
    from stmemory.io.frames import iterate_frames
    from stmemory.io.images import image_files, is_image_path
    from stmemory.io.video import frame_rate

    rate = arguments.rate
    if rate is None and arguments.frames is not None and not is_image_path(arguments.frames):
        rate = frame_rate(arguments.frames)
    size = None
    if arguments.frames is not None:
        shape = next(iterate_frames(arguments.frames)).shape
        size = (shape[1], shape[2])
    files = frame_files(arguments.masks)
    if arguments.to in _NAMING_FILES and arguments.frames is not None and arguments.frames.is_dir():
        files = {file.stem: file.name for file in image_files(arguments.frames)}
    options = FormatOptions(
        video=arguments.video,
        rate=25.0 if rate is None else rate,
        categories=_categories(arguments.category),
        size=size,
        file_names=files,
        prefix=arguments.prefix,
    )
    masks = read_masks(arguments.masks, format=arguments.source, options=options)
    count = export(
        masks,
        arguments.out,
        format=arguments.to,
        frames=arguments.frames,
        options=options,
        on_frame=progress_on_stderr(None, "export"),
    )
    end_line()
    print(f"{count} frames in {arguments.out}")
    return DONE


def _categories(named: list[str]) -> dict[int, str]:
    from stmemory.errors import OptionError

    found = dict[int, str]()
    for text in named:
        number, equals, name = text.partition("=")
        if not (equals and name and number.isascii() and number.isdecimal() and 0 < int(number) < 2**31):
            raise OptionError(f"category: expected an object's id and a name, such as 5=dog, got {text!r}")
        if int(number) in found:
            raise OptionError(f"category: object {number} has two names, {found[int(number)]!r} and {name!r}; give one")
        found[int(number)] = name
    return found


def add_demo(commands: Commands) -> None:
    """Offer the command."""
    demo = commands.add_parser(
        "demo", parents=[tracking_options()], help="render a clip, track it, and leave a video to watch"
    )
    demo.add_argument("-o", "--out", type=Path, default=Path("stmemory-demo"), help="folder (default: %(default)s)")
    add_scene_options(demo, frames=48, height=360, width=640)
    add_compute_options(demo)
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from stmemory.jobs.demo import run_demo

    size, total = (arguments.height, arguments.width), arguments.frames

    def show(done: int) -> None:  # without a speed: this one would count rendering and drawing too
        print(f"\r{done} of {total} frames" if sys.stderr.isatty() else "", end="", file=sys.stderr, flush=True)

    print(f"rendering and tracking {total} frames of {size[1]} x {size[0]}", flush=True)
    report = run_demo(
        chosen_predictor(arguments), arguments.out, frames=total, size=size, seed=arguments.seed, on_frame=show
    )
    end_line()
    print(report.describe())
    return DONE if report.bank_is_constant else FAILED


DEMO = 48  # frames of the rendered clip
SCENE = {"height": 360, "width": 640, "seed": 0}  # of the rendered clip


def add_inspect(commands: Commands) -> None:
    """Offer the command."""
    inspect = commands.add_parser(
        "inspect", parents=[tracking_options()], help="draw what the memory held, fused and read"
    )
    inspect.add_argument(
        "source", nargs="?", type=Path, metavar="VIDEO_OR_FOLDER", help="(default: the rendered demo clip)"
    )
    inspect.add_argument(
        "--mask", type=Path, metavar="FIRST.png", help="ids of its first frame: a palette or grey image"
    )
    inspect.add_argument("-o", "--out", type=Path, required=True, help="folder of the pictures and inspection.json")
    inspect.add_argument(
        "--at", type=_frames, metavar="FRAME[,FRAME]", help="frames whose reads are drawn (default: a few)"
    )
    inspect.add_argument(
        "--pixel",
        type=_pixel,
        action="append",
        metavar="X,Y",
        help="whose reads are drawn, repeatable; --point X,Y is the same (default: centre and edge)",
    )
    inspect.add_argument("--object", type=int, action="append", metavar="ID", help="repeatable (default: the first 16)")
    inspect.add_argument("--frames", type=int, help=f"stop after so many (default: all; {DEMO} of the rendered clip)")
    for name, default in SCENE.items():
        inspect.add_argument(f"--{name}", type=int, help=f"of the rendered clip (default: {default})")
    add_prompt_options(inspect, frames=False)
    inspect.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from stmemory.errors import OptionError, StmemoryError
    from stmemory.inspection import Inspector
    from stmemory.jobs.track import stop_on_signals

    bare = [place.numbers for place in arguments.point if place.object_id is None]  # as --pixel was called
    pixels = [*(arguments.pixel or ()), *((int(x), int(y)) for x, y in bare)]
    prompts = chosen_prompts(arguments).get(0, ())
    if (arguments.source is None) != (arguments.mask is None and not prompts):
        raise OptionError(
            "inspect: expected a video and --mask FIRST.png, --point or --box, or neither (the rendered clip), got "
            "one; add the other"
        )
    if arguments.frames is not None and arguments.frames < 1:
        raise OptionError(f"--frames: expected 1 or more, got {arguments.frames}")
    given = {name: value for name in SCENE if (value := getattr(arguments, name)) is not None}
    if arguments.source is not None and given:
        flags = ", ".join(f"--{name}" for name in given)
        raise OptionError(f"{flags}: expected with the rendered clip alone, got them with a video; leave them out")
    out_folder(arguments.out)
    clip, mask, total = _clip(arguments, prompts)
    if late := [frame for frame in arguments.at or () if total is not None and frame >= total]:
        raise OptionError(
            f"--at: expected frames of the clip, 0 to {total - 1 if total else 0}, got {late}; choose earlier ones"
        )
    predictor = chosen_predictor(arguments)
    stream = predictor.new_stream()
    inspector = Inspector(stream, at=arguments.at, points=pixels or None, objects=arguments.object)
    inspector.step(next(clip), mask, prompts=prompts or None)
    inspector.report()  # an object that is not there ends it here
    show, broken = progress_on_stderr(total, "inspect"), ""
    show(1)
    with stop_on_signals(_say_stopping_inspection) as stop:
        try:
            for _ in _follow(inspector, clip, stop):
                show(stream.frame_index + 1)
        except StmemoryError as error:
            broken = str(error)
    end_line()
    report = inspector.report()
    for path in report.save(arguments.out):
        print(path)
    if broken or stop.wanted:
        complain(
            f"stopped after {stream.frame_index + 1} frames; what came before is drawn" + f": {broken}" * bool(broken)
        )
    if missing := [frame for frame in arguments.at or () if frame not in report.moments]:
        complain(f"--at: the clip ended at frame {stream.frame_index}, before {missing}; what came before is drawn")
    return FAILED if broken else INTERRUPTED if stop.wanted else FAILED if missing else DONE


def _clip(
    arguments: argparse.Namespace, prompts: Sequence[Prompt]
) -> tuple[Iterator[FrameLike], MaskLike | None, int | None]:
    """The frames, the first mask, and how many frames there are, if that can be known."""
    from itertools import islice

    from stmemory.evaluation.scenes import render_scene
    from stmemory.jobs.demo import IDS
    from stmemory.jobs.folder import TrackJob, frames_of

    if arguments.source is None:
        total = arguments.frames or DEMO
        given = {name: getattr(arguments, name) for name in SCENE}
        size = {name: default if given[name] is None else given[name] for name, default in SCENE.items()}
        mask = IDS[next(render_scene(1, **size))[1]]
        return (frame for frame, _ in render_scene(total, **size)), mask, total
    job = TrackJob(arguments.source, arguments.mask, arguments.out, frames=arguments.frames, prompts=prompts)
    return iter(islice(frames_of(job), arguments.frames)), arguments.mask, job.total


def _follow(inspector: Inspector, clip: Iterator[FrameLike], stop: Stop) -> Iterator[None]:
    for frame in clip:
        inspector.step(frame)
        yield
        if stop.wanted:
            return


def _say_stopping_inspection() -> None:
    """Answer the first ctrl-C."""
    say_at_once("stopping after this frame and drawing what was seen; press ctrl-C again to quit at once")


def _frames(text: str) -> list[int]:
    """Frame numbers between commas."""
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"expected frame numbers from 0 on, such as 12 or 12,40, got {text!r}")
    return [int(part) for part in text.split(",")]


def _pixel(text: str) -> tuple[int, int]:
    """A pixel."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected a pixel as X,Y, such as 320,180, got {text!r}")
    return int(parts[0]), int(parts[1])
