"""`stmemory convert`: other people's checkpoints into folders of weights."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from stmemory.commands.options import Commands
from stmemory.commands.words import DONE

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Offer the command."""
    convert = commands.add_parser("convert", help="turn other people's checkpoints into folders of weights")
    convert.add_argument("kind", choices=["stm"], help="whose: stm is the published checkpoint of STM (Oh et al. 2019)")
    convert.add_argument(
        "file", type=Path, metavar="STM_weights.pth", help="as its authors publish it; read without running code"
    )
    convert.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="for --weights and from_pretrained"
    )
    convert.add_argument("--force", action="store_true", help="replace other weights that the folder holds")
    convert.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    from stmemory.conversion import convert_stm

    done = convert_stm(arguments.file, arguments.out, force=arguments.force)
    print(f"{done.parameters:,} parameters of {done.source.name} (sha256 {done.sha256[:16]}...) in {done.folder}")
    print("licence CC BY-NC-SA 4.0: non-commercial use only, and never re-host them")
    print("the fusion cell is untrained: it leaves templates as they are until you train it")
    print(f"use: stmemory track VIDEO --mask FIRST.png -o OUT --weights {shlex.quote(str(done.folder))}")
    return DONE
