"""Time and operations of each stage of a step, and what a machine can do: its rate, its memory, its CUDA graphs."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from stmemory.evaluation.growth import resident_bytes
from stmemory.networks.tracking import TrackingNetwork

__all__ = ["STAGES", "Clock", "Products", "Timeline", "matrix_rate", "peak_bytes", "replay_seconds", "watched"]

# In the order of a step; "fuse" is a part of writing that is counted by itself.
STAGES = ("prepare", "encode", "read", "decode", "aggregate", "memorise", "write", "fuse")


class Clock:
    """Marks in time: seconds on the CPU, events on CUDA, where reading the time would make the device wait.

    >>> clock = Clock(torch.device("cpu"))
    >>> clock.between([clock.mark(), clock.mark()])[0] >= 0
    True
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> Any:
        """The present moment, for `between`."""
        if self.device.type != "cuda":
            return time.perf_counter()
        make_event: Any = torch.cuda.Event
        event = make_event(enable_timing=True)
        event.record()
        return event

    def between(self, marks: Sequence[Any]) -> list[float]:
        """Seconds from each mark to the next; waits for the device."""
        pairs = list(itertools.pairwise(marks))
        if self.device.type != "cuda":
            return [float(end - begin) for begin, end in pairs]
        torch.cuda.synchronize(self.device)
        return [float(begin.elapsed_time(end)) / 1000 for begin, end in pairs]


@dataclass(eq=False)
class Timeline:
    """The stages of one step, as they began.

    Attributes:
        clock: source of the marks.
        stages: name of each stage that began.
        marks: when each began.
        rows: objects that were memorised.
        calls: the last call of each of the network's parts, `(module, arguments)` by stage.
    """

    clock: Clock
    stages: list[str] = field(default_factory=list)
    marks: list[Any] = field(default_factory=list)
    rows: int = 0
    calls: dict[str, tuple[nn.Module, tuple[Any, ...]]] = field(default_factory=dict)

    def begin(self, stage: str) -> None:
        """End the current stage and begin another."""
        self.stages.append(stage)
        self.marks.append(self.clock.mark())

    def seconds(self) -> dict[str, float]:
        """Seconds of each stage up to the last mark."""
        spent = dict.fromkeys(STAGES, 0.0)
        for stage, passed in zip(self.stages, self.clock.between(self.marks), strict=False):
            spent[stage] += passed
        return spent


@contextmanager
def watched(network: TrackingNetwork, clock: Clock) -> Iterator[Timeline]:
    """Follow one step of a stream of this network through its stages; the network is as before afterwards.

    Args:
        network: the network of the stream that makes the step.
        clock: what to measure with.

    >>> from stmemory.networks.config import NetworkConfig
    >>> from stmemory.networks.segmentation import SegmentationNetwork
    >>> network = SegmentationNetwork(NetworkConfig.of("lite"))
    >>> with watched(network, Clock(torch.device("cpu"))) as timeline:
    ...     features = network.encode_query(torch.zeros(1, 3, 32, 32))
    >>> timeline.stages
    ['prepare', 'encode', 'read', 'end']
    """
    timeline = Timeline(clock)
    handles = []
    for module, inside, after in network.stages():
        handles.append(module.register_forward_pre_hook(_entering(timeline, inside)))
        handles.append(module.register_forward_hook(_leaving(timeline, after)))
    try:
        timeline.begin("prepare")
        yield timeline
        timeline.begin("end")
    finally:
        for handle in handles:
            handle.remove()


class Products:
    """Counts the operations of convolutions, matrix products and attention, and times them, while it is entered.

    Counts are those of torch's `FlopCounterMode`, which has no place for a clock and takes operations apart: that would
    add up to a third to the measured time of small products.

    Attributes:
        operations: number of each stage's operations; a multiplication and an addition count as two.
        convolutions: number of operations of all convolutions.

    Args:
        timeline: timeline of the step that runs meanwhile.

    >>> with Products(Timeline(Clock(torch.device("cpu"))) ) as products:
    ...     product = torch.ones(3, 4) @ torch.ones(4, 5)
    >>> sum(products.operations.values())
    120
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.operations = dict.fromkeys(STAGES, 0)
        self.convolutions = 0
        self._marks: list[tuple[bool, Any, Any]] = []

        def dispatch(
            _: Any, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            return self._run(func, args, kwargs)

        # made here, since the base class has no types
        self._mode: Any = type("_Counting", (TorchDispatchMode,), {"__torch_dispatch__": dispatch})()

    def __enter__(self) -> Products:
        self._mode.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._mode.__exit__(*error)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """Run one operation; count and time it if it is a product."""
        kwargs, packet = kwargs or {}, func._overloadpacket
        formula: Any = _WHOLE.get(packet) or flop_registry.get(packet)
        if formula is None:
            return func(*args, **kwargs)
        began = self.timeline.clock.mark()
        out = func(*args, **kwargs)
        count, is_convolution = int(formula(*args, **kwargs, out_val=out)), "conv" in str(func)
        self._marks.append((is_convolution, began, self.timeline.clock.mark()))
        stage = self.timeline.stages[-1] if self.timeline.stages else STAGES[0]
        self.operations[stage] += count
        self.convolutions += count * is_convolution
        return out

    def seconds(self) -> tuple[float, float]:
        """Time of all products together, and of the convolutions among them."""
        spent = [(conv, self.timeline.clock.between(marks)[0]) for conv, *marks in self._marks]
        return sum(passed for _, passed in spent), sum(passed for conv, passed in spent if conv)


def _entering(timeline: Timeline, stage: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        timeline.calls[stage] = (module, arguments)
        timeline.begin(stage)

    return hook


def _leaving(timeline: Timeline, stage: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
    def hook(module: nn.Module, arguments: tuple[Any, ...], out: Tensor) -> None:
        if stage == "write" and timeline.stages[-1] == "memorise":
            timeline.rows += len(out)
        timeline.begin(stage)

    return hook


def _convolution(features: Tensor, weight: Tensor, *_: object, out_val: Tensor, **__: object) -> int:
    return 2 * out_val.numel() * weight[0].numel()


def _product(one: Tensor, other: Tensor, *_: object, out_val: Tensor, **__: object) -> int:
    return 2 * out_val.numel() * one.shape[-1]


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> int:
    """Two products: of queries and keys, and of their scores and values."""
    scores = query.shape[:-1].numel() * key.shape[-2]
    return 2 * scores * (query.shape[-1] + value.shape[-1])


# Operations that torch's registry counts by their parts alone; inference mode does not take them apart.
_WHOLE = {
    torch.ops.aten.conv2d: _convolution,
    torch.ops.aten.linear: _product,
    torch.ops.aten.matmul: _product,
    torch.ops.aten.scaled_dot_product_attention: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # some builds of torch are without oneDNN
    _WHOLE[torch.ops.mkldnn._linear_pointwise] = _product
if hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
    _WHOLE[torch.ops.mkldnn._convolution_pointwise] = _convolution


def matrix_rate(clock: Clock, dtype: torch.dtype, *, side: int = 2048) -> float:
    """Operations a second of one large matrix product: what this machine can do now, the ceiling of everything else.

    Args:
        clock: what to measure with; the product runs on its device.
        dtype: dtype of the matrices.
        side: number of rows and of columns.

    >>> matrix_rate(Clock(torch.device("cpu")), torch.float32, side=64) > 0
    True
    """
    one = torch.full((side, side), 0.5, dtype=dtype, device=clock.device)
    out = one @ one  # the first one also sets things up
    began = clock.mark()
    torch.mm(one, one, out=out)
    return 2 * side**3 / clock.between([began, clock.mark()])[0]


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most memory that was held during a call: by the device, or on the CPU by the whole process.

    Args:
        run: what to call.
        device: where it computes.

    >>> peak_bytes(lambda: torch.zeros(1 << 20), torch.device("cpu")) > 1 << 22
    True
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):  # without Linux, it is the most that the process ever held
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    run()
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return resident_bytes()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), resident_bytes())


def replay_seconds(timeline: Timeline, *, repeats: int = 20) -> dict[str, float]:
    """Seconds of the network's parts as CUDA graphs: without the time that Python needs to launch each kernel.

    Args:
        timeline: timeline of a step that was watched; its last calls are captured and replayed.
        repeats: number of replays in the mean.

    Returns:
        Seconds by stage; empty where the step did not run on CUDA.
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
