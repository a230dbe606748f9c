"""`stmemory benchmark`: measure this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from stmemory.commands.options import Commands, add_scene_options, chosen_predictor, tracking_options
from stmemory.commands.words import DONE, FAILED, end_line, teller

__all__ = ["add_to"]

FEW = 200  # frames below which caches and clocks that settle look like growth


def add_to(commands: Commands) -> None:
    """Offer the command."""
    benchmarks = commands.add_parser("benchmark", help="measure this machine").add_subparsers(required=True, metavar="WHAT")
    shared = [tracking_options()]
    growth = benchmarks.add_parser("growth", parents=shared, help="whether memory or time per frame grow in a long video")
    growth.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.json", help="report")
    add_scene_options(growth, frames=1000, height=240, width=432)
    growth.set_defaults(run=_growth)
    speed = benchmarks.add_parser("speed", parents=shared, help="where the time of a step goes")
    speed.add_argument("-o", "--out", type=Path, metavar="OUT.json", help="report")
    speed.add_argument("--compare", type=Path, metavar="OTHER.json", help="report of another run, to print ratios")
    speed.add_argument("--objects", type=int, nargs="+", default=[1, 3, 10], metavar="N", help="(default: 1 3 10)")
    speed.add_argument("--slots", type=int, nargs="+", metavar="K", help="memory sizes (default: that of --memory-size)")
    speed.add_argument("--rules", nargs="+", metavar="POLICY", help="policies (default: that of --policy)")
    speed.add_argument("--sizes", type=_size, nargs="+", default=[(854, 480)], metavar="WxH", help="of frames (default: 854x480)")
    speed.add_argument("--rounds", type=int, default=11, help="steps of each case (default: %(default)s)")
    speed.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="(default: %(default)s)")
    speed.set_defaults(run=_speed)


def _growth(arguments: argparse.Namespace) -> int:
    from stmemory.evaluation.report import current_circumstances
    from stmemory.evaluation.soak import soak, write_growth

    predictor = chosen_predictor(arguments)
    size = (arguments.height, arguments.width)
    tell = teller(arguments.frames, "track")
    report = soak(predictor, frames=arguments.frames, size=size, seed=arguments.seed, on_step=tell)
    end_line()
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


def _speed(arguments: argparse.Namespace) -> int:
    import torch

    from stmemory.evaluation.report import current_circumstances
    from stmemory.evaluation.speed import SpeedCase, measure_speed
    from stmemory.evaluation.speed_report import compare_speed, describe_speed, read_speed, speed_document, write_speed

    other = None if arguments.compare is None else read_speed(arguments.compare)  # before the time that measuring takes
    predictor = chosen_predictor(arguments)
    options = predictor.options
    cases = [
        SpeedCase(objects=objects, memory_size=slots, policy=rule, height=height, width=width)
        for width, height in arguments.sizes
        for slots in arguments.slots or [options.memory_size]
        for rule in arguments.rules or [str(options.as_dict()["policy"])]
        for objects in arguments.objects
    ]
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[arguments.dtype]
    tell = teller(arguments.rounds * len(cases), "measure")
    report = measure_speed(
        predictor, cases, rounds=arguments.rounds, dtype=dtype, on_round=lambda done: tell(done * len(cases))
    )
    end_line()
    circumstances = current_circumstances(device=predictor.device, resolution=options.short_side, seed=0)
    extra = {"weights": str(arguments.weights or "lite"), "options": options.as_dict(), "rounds": arguments.rounds}
    document = speed_document(report, circumstances, extra=extra)
    for line in describe_speed(document):
        print(line)
    if other is not None:
        for line in compare_speed(document, other):
            print(line)
    if arguments.out is not None:
        write_speed(arguments.out, document)
        print(f"report: {arguments.out}")
    return DONE if all(speed.memorised == speed.case.objects for speed in report.cases) else FAILED


def _size(text: str) -> tuple[int, int]:
    """Width and height."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a size such as 854x480, got {text!r}")
    return int(width), int(height)
