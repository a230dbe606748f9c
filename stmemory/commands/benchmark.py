"""`stmemory benchmark`: measure this machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stmemory.commands.options import Commands, add_scene_options, chosen_predictor, tracking_options
from stmemory.commands.words import DONE, FAILED, complain, end_line, teller

if TYPE_CHECKING:
    from stmemory.evaluation.growth import GrowthReport
    from stmemory.predictor import VOSPredictor

__all__ = ["add_to"]

OBJECTS = 2  # of a rendered clip
FEW = 200  # frames below which caches and clocks that settle look like growth


def add_to(commands: Commands) -> None:
    """Offer the command."""
    benchmarks = commands.add_parser("benchmark", help="measure this machine").add_subparsers(required=True, metavar="WHAT")
    shared = [tracking_options()]
    growth = benchmarks.add_parser("growth", parents=shared, help="whether memory or time per frame grow in a long video")
    growth.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder: growth.json, growth.csv, growth.png")
    growth.add_argument(
        "--growing", type=int, default=5, metavar="N", help="beside it a memory that keeps every N-th frame; 0 for none (default: 5)"
    )
    growth.add_argument("--limit-mb", type=float, default=500, help="where that one ends, MB of its bank (default: %(default)s)")
    growth.add_argument("--limit-slower", type=float, default=5, help="or times our time per frame (default: %(default)s)")
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
    import numpy as np

    from stmemory.evaluation.growing import GrowingPredictor
    from stmemory.evaluation.report import current_circumstances
    from stmemory.evaluation.soak import BankBytes, GrowthLimit, soak, soak_growing, write_growth

    predictor = chosen_predictor(arguments)
    options, size = predictor.options, (arguments.height, arguments.width)
    tell = teller(arguments.frames, "ours")
    ours = soak(predictor, frames=arguments.frames, size=size, seed=arguments.seed, on_step=tell)
    end_line()
    runs = {f"{options.memory_size} slots (ours)": ours}
    if arguments.growing:
        limit = GrowthLimit(int(1e6 * arguments.limit_mb), arguments.limit_slower * float(np.median(ours.seconds)))
        growing = GrowingPredictor(predictor, every=arguments.growing)
        tell = teller(arguments.frames, "growing")
        found = soak_growing(growing, limit, frames=arguments.frames, size=size, seed=arguments.seed, on_step=tell)
        end_line()
        runs[f"every {arguments.growing}. frame kept (STM)"] = found
    formula = BankBytes.of(predictor.network.config, rows=OBJECTS, slots=options.memory_size, cells=_cells(predictor, size))
    print(f"{ours.frames} frames of {size[1]} x {size[0]}, {OBJECTS} objects")
    as_said = ours.bank_is_constant and formula.total == ours.last_bank_bytes
    print(f"our bank by formula: {formula} bytes; {'' if as_said else 'NOT '}equal at every frame")
    for name, report in runs.items():
        for line in _said(name, report):
            print(line)
    circumstances = current_circumstances(device=predictor.device, resolution=options.short_side, seed=arguments.seed)
    extra = {"weights": str(arguments.weights or "lite"), "options": options.as_dict(), "frame_size": list(size)}
    write_growth(arguments.out, runs, circumstances, extra=extra | {"bank_formula": str(formula)})
    title = (
        f"{size[1]} x {size[0]}, {OBJECTS} objects, {circumstances.device}, {circumstances.threads} threads, torch {circumstances.torch}"
    )
    drawn = _drawn(arguments.out / "growth.png", runs, title)
    print(f"report: {arguments.out / 'growth.json'}, growth.csv{', growth.png' * drawn}")
    if ours.frames < FEW:
        print(f"slopes from so few frames mean little: take {FEW} or more")
    return DONE if as_said else FAILED


def _said(name: str, report: GrowthReport) -> Iterator[str]:
    memory, seconds = report.process_slope, report.seconds_slope
    half = report.seconds[report.frames // 2 :]
    yield f"{name}: {report.frames} frames, {1000 * sorted(half)[len(half) // 2]:.1f} ms a frame (median of the second half)"
    yield f"  memory bank: {report.first_bank_bytes:,} bytes after the first, {report.last_bank_bytes:,} after the last"
    kibibytes = memory.per_thousand / 1024, memory.standard_error / 1024
    yield f"  process: {kibibytes[0]:+.1f} +- {kibibytes[1]:.1f} KiB per 1,000 frames: {_verdict(memory.is_zero)}"
    milliseconds = 1000 * seconds.per_thousand, 1000 * seconds.standard_error
    yield f"  time: {milliseconds[0]:+.3f} +- {milliseconds[1]:.3f} ms per frame per 1,000 frames: {_verdict(seconds.is_zero)}"


def _verdict(is_zero: bool) -> str:
    return "no slope, within two standard errors" if is_zero else "a slope, by more than two standard errors"


def _drawn(path: Path, runs: Mapping[str, GrowthReport], title: str) -> bool:
    """Draw the figure; say so where that cannot be."""
    from stmemory.errors import OptionError
    from stmemory.evaluation.growth_plot import draw_growth

    try:
        draw_growth(path, runs, title=title)
    except OptionError as error:
        complain(str(error))
        return False
    return True


def _cells(predictor: VOSPredictor, size: tuple[int, int]) -> int:
    """h w at the working size."""
    from stmemory.frames import WorkingSize

    stride = predictor.network.stride
    working = WorkingSize.of(*size, predictor.options.short_side, stride)
    return working.padded_height * working.padded_width // stride**2


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
