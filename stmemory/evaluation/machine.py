"""What a machine can do, whatever runs on it: its rate, its memory, its CUDA graphs. Knows no streams and no stages of
its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stmemory.evaluation.growth import resident_bytes
from stmemory.evaluation.stages import Clock, Timeline

__all__ = ["matrix_rate", "peak_bytes", "replay_seconds"]


def matrix_rate(clock: Clock, dtype: torch.dtype, *, side: int = 2048) -> float:
    """Operations a second of one large matrix product: what this machine can do now, the ceiling of all the rest.

    Args:
        clock: what to measure with; the product runs on its device.
        dtype: of the matrices.
        side: rows and columns.

    >>> matrix_rate(Clock(torch.device("cpu")), torch.float32, side=64) > 0
    True
    """
    one = torch.full((side, side), 0.5, dtype=dtype, device=clock.device)
    out = one @ one  # the first one also sets things up
    began = clock.mark()
    torch.mm(one, one, out=out)
    return 2 * side**3 / clock.between([began, clock.mark()])[0]


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most memory that was held while something ran: of the device, or of the whole process on the CPU.

    Args:
        run: what runs.
        device: where.

    >>> peak_bytes(lambda: torch.zeros(1 << 20), torch.device("cpu")) > 1 << 22
    True
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):  # elsewhere than on Linux it is the most that the process ever held
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    run()
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return resident_bytes()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), resident_bytes())


def replay_seconds(timeline: Timeline, *, repeats: int = 20) -> dict[str, float]:
    """Seconds of the network's parts as CUDA graphs: what is left of them once Python does not launch each kernel.

    Args:
        timeline: of a step that was watched; its last calls are captured and replayed.
        repeats: replays that the mean is taken of.

    Returns:
        By stage; empty where the step did not run on CUDA.
    """
    found: dict[str, float] = {}
    clock = timeline.clock
    if clock.device.type != "cuda":
        return found
    for stage in ("encode", "decode", "memorise"):
        if stage not in timeline.calls:
            continue
        module, arguments = timeline.calls[stage]
        with torch.inference_mode():
            make_stream: Any = torch.cuda.Stream
            side = make_stream(clock.device)
            side.wait_stream(torch.cuda.current_stream(clock.device))
            with torch.cuda.stream(side):  # a capture must not be the first to load kernels
                module(*arguments)
            torch.cuda.current_stream(clock.device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                module(*arguments)
            began = clock.mark()
            for _ in range(repeats):
                graph.replay()
            found[stage] = clock.between([began, clock.mark()])[0] / repeats
    return found
