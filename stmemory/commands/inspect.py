"""`stmemory inspect`: track a clip and draw what its memory held, fused and read."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stmemory.commands.options import Commands, chosen_predictor, tracking_options
from stmemory.commands.words import DONE, FAILED, complain, end_line, say_at_once, teller
from stmemory.files import out_folder

if TYPE_CHECKING:
    from stmemory.inspection import Inspector
    from stmemory.job import Stop

__all__ = ["add_to"]

DEMO = 48  # frames of the rendered clip
SCENE = {"height": 360, "width": 640, "seed": 0}  # of the rendered clip


def add_to(commands: Commands) -> None:
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
        "--point", type=_point, action="append", metavar="X,Y", help="pixel (default: centre and edge)"
    )
    inspect.add_argument("--object", type=int, action="append", metavar="ID", help="repeatable (default: the first 16)")
    inspect.add_argument("--frames", type=int, help=f"stop after so many (default: all; {DEMO} of the rendered clip)")
    for name, default in SCENE.items():
        inspect.add_argument(f"--{name}", type=int, help=f"of the rendered clip (default: {default})")
    inspect.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from stmemory.errors import OptionError, StmemoryError
    from stmemory.inspection import Inspector
    from stmemory.job import stop_on_signals
    from stmemory.stream import VOSStream

    if (arguments.source is None) != (arguments.mask is None):
        raise OptionError(
            "inspect: expected a video and --mask FIRST.png, or neither (the rendered clip), got one; add the other"
        )
    if arguments.frames is not None and arguments.frames < 1:
        raise OptionError(f"--frames: expected 1 or more, got {arguments.frames}")
    given = {name: value for name in SCENE if (value := getattr(arguments, name)) is not None}
    if arguments.source is not None and given:
        flags = ", ".join(f"--{name}" for name in given)
        raise OptionError(f"{flags}: expected with the rendered clip alone, got them with a video; leave them out")
    out_folder(arguments.out)
    clip, mask, total = _clip(arguments)
    if late := [frame for frame in arguments.at or () if total is not None and frame >= total]:
        raise OptionError(
            f"--at: expected frames of the clip, 0 to {total - 1 if total else 0}, got {late}; choose earlier ones"
        )
    predictor = chosen_predictor(arguments)
    stream = VOSStream(predictor.network, predictor.options)
    inspector = Inspector(stream, at=arguments.at, points=arguments.point, objects=arguments.object)
    inspector.step(next(clip), mask)
    inspector.report()  # an object that is not there ends it here
    tell, broken = teller(total, "inspect"), ""
    tell(1)
    with stop_on_signals(_say_stopping) as stop:
        try:
            for _ in _follow(inspector, clip, stop):
                tell(stream.frame_index + 1)
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
    return FAILED if broken or stop.wanted or missing else DONE


def _clip(arguments: argparse.Namespace) -> tuple[Iterator[object], object, int | None]:
    """The frames, the first mask, and how many frames there are, if that can be known."""
    from itertools import islice

    from stmemory.demo import IDS
    from stmemory.evaluation.scenes import render_scene
    from stmemory.job_folder import TrackJob, frames_of

    if arguments.source is None:
        total = arguments.frames or DEMO
        given = {name: getattr(arguments, name) for name in SCENE}
        size = {name: default if given[name] is None else given[name] for name, default in SCENE.items()}
        mask = IDS[next(render_scene(1, **size))[1]]
        return (frame for frame, _ in render_scene(total, **size)), mask, total
    job = TrackJob(arguments.source, arguments.mask, arguments.out, frames=arguments.frames)
    return iter(islice(frames_of(job), arguments.frames)), arguments.mask, job.total


def _follow(inspector: Inspector, clip: Iterator[object], stop: Stop) -> Iterator[None]:
    for frame in clip:
        inspector.step(frame)
        yield
        if stop.wanted:
            return


def _say_stopping() -> None:
    """Answer the first ctrl-C."""
    say_at_once("stopping after this frame and drawing what was seen; press ctrl-C again to quit at once")


def _frames(text: str) -> list[int]:
    """Frame numbers between commas."""
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"expected frame numbers from 0 on, such as 12 or 12,40, got {text!r}")
    return [int(part) for part in text.split(",")]


def _point(text: str) -> tuple[int, int]:
    """A pixel."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected a pixel as X,Y, such as 320,180, got {text!r}")
    return int(parts[0]), int(parts[1])
