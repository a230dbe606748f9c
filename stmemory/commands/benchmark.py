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
