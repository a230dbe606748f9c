"""The arguments of the command line: names, kinds, defaults and their help. Runs nothing, prints nothing by itself."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

__all__ = ["command_parser"]


def command_parser(runs: Mapping[str, Callable[[argparse.Namespace], int]]) -> argparse.ArgumentParser:
    """Make the parser of all commands.

    Args:
        runs: what runs each command, by its name; ends up as `run` of what is parsed.

    >>> command_parser({}).parse_args(["info", "lite"]).name
    'lite'
    """
    parser = argparse.ArgumentParser(prog="stmemory", description="Track any object through a video of any length.")
    parser.add_argument("--version", action="version", version=f"stmemory {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = _common_options()

    track = commands.add_parser("track", parents=[common], help="track objects through a video, from their first masks")
    track.add_argument("source", type=Path, metavar="VIDEO_OR_FOLDER", help="or a GIF, WebP or TIFF with pages")
    track.add_argument("--mask", type=Path, required=True, metavar="FIRST.png", help="its ids: a palette or grey image")
    track.add_argument("-o", "--out", type=Path, required=True, help="folder; masks go to OUT/masks")
    track.add_argument("--overlay", action="store_true", help="also draw OUT/overlay.mp4")
    track.add_argument("--frames", type=int, metavar="N", help="stop after so many; --resume goes on")
    begin = track.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on where a run of the same command stopped")
    begin.add_argument("--force", action="store_true", help="begin anew, deleting the masks that an earlier run wrote")
    track.set_defaults(run=runs.get("track"))

    demo = commands.add_parser("demo", parents=[common], help="render a clip, track it, and leave a video to watch")
    demo.add_argument("-o", "--out", type=Path, default=Path("stmemory-demo"), help="folder (default: %(default)s)")
    _scene_options(demo, frames=48, height=360, width=640)
    demo.set_defaults(run=runs.get("demo"))

    info = commands.add_parser("info", help="versions, devices, and what is known of weights")
    info.add_argument("name", nargs="?", help="bundled name or folder of weights (default: all that are bundled)")
    info.set_defaults(run=runs.get("info"))

    evaluate = commands.add_parser("evaluate", parents=[common], help="score clips with true masks, by the DAVIS protocol")
    evaluate.add_argument("root", type=Path, metavar="ROOT", help="folder in one of the layouts of DAVIS")
    evaluate.add_argument("clips", nargs="*", metavar="CLIP", help="names of clips (default: all)")
    evaluate.add_argument("-o", "--out", type=Path, metavar="OUT.json", help="report with the scores of every frame")
    evaluate.set_defaults(run=runs.get("evaluate"))

    benchmarks = commands.add_parser("benchmark", help="measure this machine").add_subparsers(required=True, metavar="WHAT")
    growth = benchmarks.add_parser("growth", parents=[common], help="whether memory or time per frame grow in a long video")
    growth.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.json", help="report")
    _scene_options(growth, frames=1000, height=240, width=432)
    growth.set_defaults(run=runs.get("growth"))
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
        ("--short-side", _whole_or_none, "px that larger frames are shrunk to; none never resizes (default: 480)"),
        ("--top-k", _whole_or_none, "read from so many memory cells only (default: none, all)"),
        ("--write-gate", float, "least score of what is memorised, 0 to 1 (default: 0.5)"),
        ("--reach", _number_or_none, "share of the short side beyond which regions are false; none keeps all (default: 0.25)"),
    ):
        group.add_argument(flag, type=kind, default=argparse.SUPPRESS, help=meaning)
    return common


def _whole_or_none(text: str) -> int | None:
    try:
        return None if text.lower() == "none" else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number or none, got {text!r}") from error


def _number_or_none(text: str) -> float | None:
    try:
        return None if text.lower() == "none" else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number or none, got {text!r}") from error


def _version() -> str:
    try:
        return metadata.version("stmemory")
    except metadata.PackageNotFoundError:
        return "not installed as a package"
