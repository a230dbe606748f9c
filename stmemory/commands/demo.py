"""`stmemory demo`: render a clip, track it, and leave a video to watch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stmemory.commands.options import (
    Commands,
    add_compute_options,
    add_scene_options,
    chosen_predictor,
    tracking_options,
)
from stmemory.commands.words import DONE, FAILED, end_line

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Offer the command."""
    demo = commands.add_parser(
        "demo", parents=[tracking_options()], help="render a clip, track it, and leave a video to watch"
    )
    demo.add_argument("-o", "--out", type=Path, default=Path("stmemory-demo"), help="folder (default: %(default)s)")
    add_scene_options(demo, frames=48, height=360, width=640)
    add_compute_options(demo)
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from stmemory.demo import run_demo

    size, total = (arguments.height, arguments.width), arguments.frames

    def tell(done: int) -> None:  # without a speed: this one would count rendering and drawing too
        print(f"\r{done} of {total} frames" if sys.stderr.isatty() else "", end="", file=sys.stderr, flush=True)

    print(f"rendering and tracking {total} frames of {size[1]} x {size[0]}", flush=True)
    report = run_demo(
        chosen_predictor(arguments), arguments.out, frames=total, size=size, seed=arguments.seed, on_frame=tell
    )
    end_line()
    print(report.describe())
    return DONE if report.bank_is_constant else FAILED
