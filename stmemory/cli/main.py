"""The command line: finds the command, runs it, and turns errors into messages and exit codes.

Exit codes of all commands: 0 done, 1 something was skipped or failed (the last lines say what), 2 bad arguments,
130 interrupted. What a command needs is imported when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from stmemory.cli.benchmark import add_benchmark
from stmemory.cli.evaluate import add_evaluate, add_score
from stmemory.cli.output import BAD_ARGUMENTS, FAILED, INTERRUPTED, complain, warnings_said
from stmemory.cli.predict import add_predict
from stmemory.cli.track import add_demo, add_export, add_inspect, add_track
from stmemory.cli.train import add_train
from stmemory.cli.weights import add_convert, add_export_network, add_info
from stmemory.errors import StmemoryError

__all__ = ["main"]

_COMMANDS = (
    add_track,
    add_export,
    add_demo,
    add_predict,
    add_inspect,
    add_evaluate,
    add_score,
    add_benchmark,
    add_train,
    add_info,
    add_convert,
    add_export_network,
)


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
        with warnings_said():
            code: int = arguments.run(arguments)
    except BrokenPipeError:  # the reader of the output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # `FileError` among them
        complain(str(error))
        return FAILED
    except StmemoryError as error:
        complain(str(error))
        return BAD_ARGUMENTS
    except KeyboardInterrupt:
        complain("interrupted; what was saved before stays")
        return INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stmemory", description="Track any object through a video of any length.")
    parser.add_argument("--version", action="version", version=f"stmemory {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    return parser


def _version() -> str:
    try:
        return metadata.version("stmemory")
    except metadata.PackageNotFoundError:
        return "not installed as a package"
