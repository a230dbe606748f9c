"""The command line: arguments in, words out. Contains no logic.

Exit codes: 0 done, 1 something was skipped or failed (said which), 2 bad arguments. What a command needs is imported when it
runs, so that `--help` is quick and the core stays free of the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stmemory.errors import StmemoryError

if TYPE_CHECKING:
    from stmemory.evaluation.davis import ClipResult
    from stmemory.predictor import VOSPredictor

__all__ = ["main"]

DONE, FAILED, BAD_ARGUMENTS = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its arguments; None takes those of the process.

    Returns:
        The exit code.

    Raises:
        SystemExit: with code 2 for arguments that cannot be parsed, 0 for `--help`.

    >>> main(["track", "no/such/video", "--mask", "0.png", "-o", "no/such/folder"])
    2
    """
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except StmemoryError as error:
        _complain(str(error))
        return BAD_ARGUMENTS
    except OSError as error:
        _complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        _complain("interrupted")
        return FAILED
    return code


def _track(arguments: argparse.Namespace) -> int:
    from stmemory.job import run_job, stop_on_signals
    from stmemory.job_folder import TrackJob, check_folder

    job = TrackJob(arguments.source, arguments.mask, arguments.out, overlay=arguments.overlay, frames=arguments.frames)
    check_folder(job, resume=arguments.resume, force=arguments.force)  # before the time that loading takes
    total, tellers = job.total, dict[str, Callable[[int], None]]()

    def tell(part: str, done: int) -> None:
        if part not in tellers:
            _end_line(bool(tellers))
            tellers[part] = _teller(total, part)
        tellers[part](done)

    predictor = _predictor(arguments)
    with stop_on_signals() as stop:
        report = run_job(predictor, job, resume=arguments.resume, force=arguments.force, stop=stop, on_frame=tell)
    _end_line()
    print(f"{report.frames} masks in {job.masks}")
    if report.finished:
        if job.overlay:
            print(f"overlay in {job.overlay_path}")
        return DONE
    _complain(f"stopped after {report.frames} frames; the same command with --resume goes on from there")
    if report.error is not None:
        _complain(f"{report.error} (or end there, with --resume --frames {report.frames})")
    return FAILED


def _demo(arguments: argparse.Namespace) -> int:
    from stmemory.demo import run_demo

    size = (arguments.height, arguments.width)
    report = run_demo(
        _predictor(arguments),
        arguments.out,
        frames=arguments.frames,
        size=size,
        seed=arguments.seed,
        on_frame=_teller(arguments.frames, "track"),
    )
    _end_line()
    equal = "equal after every frame" if report.bank_is_constant else "NOT equal after every frame"
    print(f"J {100 * report.region:.1f}   F {100 * report.boundary:.1f}   {report.frames_per_second:.1f} frames/s")
    print(f"memory bank: {report.first_bytes:,} bytes after the first frame, {report.last_bytes:,} after the last, {equal}")
    print(f"video: {report.video}")
    print(f"contact sheet: {report.sheet}")
    if report.video.suffix == ".webp":
        print('(an animated WebP, since PyAV is not installed; for an MP4: pip install "stmemory[video]")')
    return DONE if report.bank_is_constant else FAILED


def _info(arguments: argparse.Namespace) -> int:
    from stmemory.inventory import devices, versions, weights_facts
    from stmemory.weights import bundled_names

    for name, version in versions().items():
        print(f"{name:<12}{version}")
    for device in devices():
        print(f"{'device':<12}{device}")
    for weights in [arguments.name] if arguments.name else bundled_names():
        facts = weights_facts(weights)
        print(f"\nweights {facts.name}: preset {facts.preset}, {facts.parameters:,} parameters, {facts.nbytes / 1e6:.1f} MB")
        print(f"  memory of one object at 480p: {facts.object_bytes / 1e6:.1f} MB, whatever the length of the video")
        for name, value in facts.about.items():
            if not isinstance(value, dict):
                print(f"  {name}: {value}")
            elif not any(isinstance(entry, (dict, list)) for entry in value.values()):
                print(f"  {name}: {', '.join(f'{key} {entry}' for key, entry in value.items())}")
    return DONE


def _evaluate(arguments: argparse.Namespace) -> int:
    from stmemory.evaluation.clips import find_clips
    from stmemory.evaluation.davis import evaluate_clip, summarise
    from stmemory.evaluation.report import current_circumstances, write_json

    clips = find_clips(arguments.root, names=arguments.clips or None)
    predictor, results, failed = _predictor(arguments), list["ClipResult"](), list[str]()
    print(f"{'clip':<24}{'objects':>8}{'J':>8}{'F':>8}{'J&F':>8}{'frames/s':>10}")
    for clip in clips:
        try:
            result = evaluate_clip(predictor, clip)
        except StmemoryError as error:
            failed.append(clip.name)
            _complain(f"skipped {clip.name}: {error}")
            continue
        results.append(result)
        print(_scores(clip.name, len(result.objects), result.region, result.boundary, result.frames_per_second), flush=True)
    mean = summarise(results)
    print(_scores("mean over objects", mean.objects, mean.region, mean.boundary, mean.frames_per_second))
    if arguments.out is not None:
        options = predictor.options
        circumstances = current_circumstances(device=predictor.device, resolution=options.short_side)
        extra = {"weights": str(arguments.weights or "lite"), "options": options.as_dict(), "skipped": failed}
        write_json(arguments.out, results, circumstances, extra=extra)
    return FAILED if failed else DONE


def _growth(arguments: argparse.Namespace) -> int:
    from stmemory.evaluation.report import current_circumstances
    from stmemory.evaluation.soak import soak, write_growth

    predictor = _predictor(arguments)
    size = (arguments.height, arguments.width)
    teller = _teller(arguments.frames, "track")
    report = soak(predictor, frames=arguments.frames, size=size, seed=arguments.seed, on_step=teller)
    _end_line()
    memory, seconds = report.process_slope, report.seconds_slope
    print(f"{report.frames} frames of {size[1]} x {size[0]}")
    print(f"memory bank: {report.first_bank_bytes:,} bytes after the first, {report.last_bank_bytes:,} after the last")
    kibibytes = memory.per_thousand / 1024, memory.standard_error / 1024
    print(f"process: {kibibytes[0]:+.1f} +- {kibibytes[1]:.1f} KiB per 1,000 frames (second half)")
    milliseconds = 1000 * seconds.per_thousand, 1000 * seconds.standard_error
    print(f"time: {milliseconds[0]:+.3f} +- {milliseconds[1]:.3f} ms per frame per 1,000 frames (second half)")
    options = predictor.options
    circumstances = current_circumstances(device=predictor.device, resolution=options.short_side, seed=arguments.seed)
    extra = {"weights": str(arguments.weights or "lite"), "options": options.as_dict(), "frame_size": list(size)}
    write_growth(arguments.out, report, circumstances, extra=extra)
    print(f"report: {arguments.out}")
    return DONE if report.bank_is_constant else FAILED


def _predictor(arguments: argparse.Namespace) -> VOSPredictor:
    from stmemory.inventory import usable_device
    from stmemory.options import TrackingOptions
    from stmemory.predictor import VOSPredictor

    names = ("memory_size", "policy", "memory_every", "short_side", "top_k", "write_gate", "reach")
    # what was not given keeps the default that TrackingOptions states
    options = TrackingOptions(**{name: getattr(arguments, name) for name in names if hasattr(arguments, name)})
    return VOSPredictor.from_pretrained(arguments.weights, options=options, device=usable_device(arguments.device))


def _teller(total: int | None, part: str) -> Callable[[int], None]:
    """Write progress to stderr when it is due."""
    from stmemory.progress import Progress

    progress = Progress(total, live=sys.stderr.isatty(), label=part)

    def tell(done: int) -> None:
        print(progress.line(done) or "", end="", file=sys.stderr, flush=True)

    return tell


def _end_line(wanted: bool = True) -> None:
    """Leave the line that a live progress bar draws on."""
    if wanted and sys.stderr.isatty():
        print(file=sys.stderr)


def _complain(message: str) -> None:
    print(f"stmemory: {message}", file=sys.stderr)


def _scores(name: str, objects: int, region: float, boundary: float, speed: float) -> str:
    mean = (region + boundary) / 2
    return f"{name:<24}{objects:>8}{100 * region:>8.1f}{100 * boundary:>8.1f}{100 * mean:>8.1f}{speed:>10.1f}"


def _int_or_none(text: str) -> int | None:
    return None if text == "none" else int(text)


def _float_or_none(text: str) -> float | None:
    return None if text == "none" else float(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stmemory", description="Track any object through a video of any length.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = _common_options()

    track = commands.add_parser("track", parents=[common], help="track objects through a video, from their first masks")
    track.add_argument("source", type=Path, metavar="VIDEO_OR_FOLDER", help="or a GIF, WebP or TIFF with pages")
    track.add_argument("--mask", type=Path, required=True, metavar="FIRST.png", help="its ids: a palette or grey image")
    track.add_argument("-o", "--out", type=Path, required=True, help="folder; masks go to OUT/masks")
    track.add_argument("--overlay", action="store_true", help="also draw OUT/overlay.mp4")
    track.add_argument("--frames", type=int, metavar="N", help="stop after so many")
    begin = track.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on where an interrupted run of the same command stopped")
    begin.add_argument("--force", action="store_true", help="begin anew, deleting the masks that are in OUT")
    track.set_defaults(run=_track)

    demo = commands.add_parser("demo", parents=[common], help="render a clip, track it, and leave a video to watch")
    demo.add_argument("-o", "--out", type=Path, default=Path("stmemory-demo"), help="folder (default: %(default)s)")
    _scene_options(demo, frames=48, height=360, width=640)
    demo.set_defaults(run=_demo)

    info = commands.add_parser("info", help="versions, devices, and what is known of weights")
    info.add_argument("name", nargs="?", help="bundled name or folder of weights (default: all that are bundled)")
    info.set_defaults(run=_info)

    evaluate = commands.add_parser("evaluate", parents=[common], help="score clips with true masks, by the DAVIS protocol")
    evaluate.add_argument("root", type=Path, metavar="ROOT", help="folder in one of the layouts of DAVIS")
    evaluate.add_argument("clips", nargs="*", metavar="CLIP", help="names of clips (default: all)")
    evaluate.add_argument("-o", "--out", type=Path, metavar="OUT.json", help="report with the scores of every frame")
    evaluate.set_defaults(run=_evaluate)

    benchmarks = commands.add_parser("benchmark", help="measure this machine").add_subparsers(required=True, metavar="WHAT")
    growth = benchmarks.add_parser("growth", parents=[common], help="whether memory or time per frame grow in a long video")
    growth.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.json", help="report")
    _scene_options(growth, frames=1000, height=240, width=432)
    growth.set_defaults(run=_growth)
    return parser


def _scene_options(parser: argparse.ArgumentParser, *, frames: int, height: int, width: int) -> None:
    for name, default, meaning in (
        ("frames", frames, "frames of the rendered clip"),
        ("height", height, "px"),
        ("width", width, "px"),
        ("seed", 0, "of its scenery"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")


def _common_options() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("how to track")
    group.add_argument("--weights", metavar="NAME", help="bundled name or folder (default: lite)")
    group.add_argument("--device", help="such as cuda (default: cpu)")
    for flag, kind, meaning in (
        ("--memory-size", int, "slots of each object (default: 5)"),
        ("--policy", str, "update policy, by name or the paper's letter (default: least_similar)"),
        ("--memory-every", int, "commit every n-th frame to memory (default: 1)"),
        ("--short-side", _int_or_none, "px that larger frames are shrunk to; none never resizes (default: 480)"),
        ("--top-k", _int_or_none, "read from so many memory cells only (default: none, all)"),
        ("--write-gate", float, "least score of what is memorised, 0 to 1 (default: 0.5)"),
        ("--reach", _float_or_none, "share of the short side beyond which regions are false; none keeps all (default: 0.25)"),
    ):
        group.add_argument(flag, type=kind, default=argparse.SUPPRESS, help=meaning)
    return common
