"""Milliseconds a frame and bytes of memory: stmemory beside STM, STCN and XMem, on the same frames of 854 x 480.

Usage: python peer_speed.py [--stm DIR] [--stcn DIR] [--xmem DIR] [--objects 1 3] [--frames 60] [--rounds 3]

DIR is your own checkout of github.com/seoungwugoh/STM (CC BY-NC-SA, for non-commercial use only),
github.com/hkchengrex/STCN or github.com/hkchengrex/XMem (both MIT by now). Install what its code imports, such as
torchvision; for STM also opencv-python, matplotlib and tqdm. It runs as it is, on the CPU, with random weights: its
masks mean nothing. Its memory is that of its evaluation script: every fifth frame; STM reads the last one too, XMem
condenses old ones. stmemory is the bundled lite with default options.

A time is the mean of the last 15 frames, the median of the rounds. Bytes are those after the last frame: of the memory
alone, but of stmemory all that a stream keeps, with a frame and its masks. STM and STCN grow with --frames.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ONE = Path(__file__).parent / "peers" / "one.py"


def measure(name: str, folder: str, objects: int, frames: int) -> dict[str, float]:
    """Milliseconds a frame, bytes and threads, from a process of its own: the modules of the checkouts share names."""
    command = [sys.executable, str(ONE), name, folder, str(objects), str(frames)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(ended.stderr.strip())
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def main(folders: dict[str, str], objects: list[int], *, frames: int = 60, rounds: int = 3) -> dict[str, list[float]]:
    """Measure all in turns, print the table, and give milliseconds and bytes of each of its rows."""
    if frames < 2 or rounds < 1:
        raise SystemExit(f"expected at least two frames and one round, got {frames} and {rounds}")
    rows: dict[tuple[str, int], list[dict[str, float]]]
    rows = {(name, number): [] for number in objects for name in ("stmemory", *folders)}
    for _ in range(rounds):
        for (name, number), runs in rows.items():
            runs.append(measure(name, folders.get(name, ""), number, frames))
    table = {}
    print(
        f"| network | objects | ms a frame | bytes of memory after {frames} frames | threads |\n|---|---|---|---|---|"
    )
    for (name, number), runs in rows.items():
        milliseconds, size = statistics.median(run["ms"] for run in runs), runs[-1]["bytes"]
        print(f"| {name} | {number} | {milliseconds:,.0f} | {size:,} | {runs[-1]['threads']} |")
        table[f"{name}, {number}"] = [milliseconds, size]
    return table


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    parser = argparse.ArgumentParser()
    for name in ("--stm", "--stcn", "--xmem"):
        parser.add_argument(name)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    given = vars(parser.parse_args())
    checkouts = {name: given.pop(name) for name in ("stm", "stcn", "xmem")}
    main({name: folder for name, folder in checkouts.items() if folder}, **given)
