"""The command line: arguments in, words out. Contains no logic; the arguments are listed in `arguments.py`.

Exit codes: 0 done, 1 something was skipped or failed (said which), 2 bad arguments. What a command needs is imported when it
runs, so that `--help` is quick and the core stays free of the rest.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stmemory.arguments import command_parser
from stmemory.errors import StmemoryError

if TYPE_CHECKING:
    from stmemory.evaluation.davis import ClipResult
    from stmemory.predictor import VOSPredictor

__all__ = ["main"]

DONE, FAILED, BAD_ARGUMENTS = 0, 1, 2
FEW = 200  # frames below which caches and clocks that settle look like growth


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
    runs = {"track": _track, "demo": _demo, "info": _info, "evaluate": _evaluate, "growth": _growth}
    arguments = command_parser(runs).parse_args(argv)
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
    from stmemory.job_folder import TrackJob
    from stmemory.job_record import check_folder
    from stmemory.job_summary import describe_job

    job = TrackJob(arguments.source, arguments.mask, arguments.out, overlay=arguments.overlay, frames=arguments.frames)
    check_folder(job, resume=arguments.resume, force=arguments.force)  # before the time that loading takes
    total, tellers = job.total, dict[str, Callable[[int], None]]()

    def tell(part: str, done: int) -> None:
        if part not in tellers:
            _end_line(bool(tellers))
            tellers[part] = _teller(total, part)
        tellers[part](done)

    predictor = _predictor(arguments)
    print(describe_job(job, device=predictor.device), flush=True)
    with stop_on_signals(_say_stopping) as stop:
        report = run_job(predictor, job, resume=arguments.resume, force=arguments.force, stop=stop, on_frame=tell)
    _end_line()
    print(f"{report.frames} masks in {job.masks}")
    if report.finished:
        if job.overlay:
            print(f"overlay in {job.overlay_path}")
        if report.more:
            print(f"stopped after {report.frames} frames as asked; --resume goes on")
        return DONE
    if report.error is None:
        _complain(f"stopped after {report.frames} frames; the same command with --resume goes on from there")
    else:
        _complain(f"stopped after {report.frames} frames: {report.error}")
        _complain(f"once that is mended, --resume goes on; or end there, with --resume --frames {report.frames}")
    return FAILED


def _demo(arguments: argparse.Namespace) -> int:
    from stmemory.demo import run_demo

    size, total = (arguments.height, arguments.width), arguments.frames

    def tell(done: int) -> None:  # without a speed: this one would count rendering and drawing too
        print(f"\r{done} of {total} frames" if sys.stderr.isatty() else "", end="", file=sys.stderr, flush=True)

    print(f"rendering and tracking {total} frames of {size[1]} x {size[0]}", flush=True)
    report = run_demo(_predictor(arguments), arguments.out, frames=total, size=size, seed=arguments.seed, on_frame=tell)
    _end_line()
    print(report.describe())
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
    if report.frames < FEW:
        print(f"slopes from so few frames mean little: take {FEW} or more")
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


def _say_stopping() -> None:
    """Answer the first ctrl-C at once. Past Python's buffers: a signal may come in the midst of writing to them."""
    line = "stopping after this frame and saving; press ctrl-C again to quit without saving (frames since the last saved state "
    os.write(2, f"{os.linesep * sys.stderr.isatty()}{line}are then lost){os.linesep}".encode())


def _complain(message: str) -> None:
    print(f"stmemory: {message}", file=sys.stderr)


def _scores(name: str, objects: int, region: float, boundary: float, speed: float) -> str:
    mean = (region + boundary) / 2
    return f"{name:<24}{objects:>8}{100 * region:>8.1f}{100 * boundary:>8.1f}{100 * mean:>8.1f}{speed:>10.1f}"
