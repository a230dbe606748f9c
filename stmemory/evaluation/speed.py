"""The speed benchmark: rows of settings, several streams at once, and the report."""

from __future__ import annotations

import colorsys
import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.evaluation.report import Circumstances
from stmemory.evaluation.stages import STAGES, Clock, Products, matrix_rate, peak_bytes, replay_seconds, watched
from stmemory.io.files import whole_file
from stmemory.io.untrusted import read_json
from stmemory.networks.layers import keep_large_buffers
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.predictor import VOSPredictor

__all__ = [
    "CaseSpeed",
    "PassSpeed",
    "SpeedCase",
    "SpeedReport",
    "coloured_boxes",
    "compare_speed",
    "describe_speed",
    "measure_passes",
    "measure_speed",
    "read_speed",
    "speed_document",
    "write_speed",
]

FRAMES = 8  # of the clip, shown forth and back
COUNTED = 3  # steps in which operations are timed one by one, apart from the rounds


@dataclass(frozen=True)
class SpeedCase:
    """What is measured.

    Attributes:
        objects: N.
        memory_size: K.
        policy: update policy.
        height: H of the frames.
        width: W of the frames.
    """

    objects: int = 1
    memory_size: int = 5
    policy: str = "least_similar"
    height: int = 480
    width: int = 854

    @property
    def name(self) -> str:
        """The case in words."""
        return f"{self.width} x {self.height}, objects {self.objects}, K {self.memory_size}, {self.policy}"


@dataclass(frozen=True, eq=False)
class CaseSpeed:
    """What a case took.

    Attributes:
        case: what was measured.
        stages: seconds of each stage, by name, float64 [R] for R rounds.
        operations: of convolutions and matrix products in each stage of one step; a multiply-add counts as two.
        product_seconds: the time of those operations in one step, measured one by one.
        convolution_operations: those of the convolutions alone.
        convolution_seconds: their time.
        memorised: objects memorised in one step; all, if the case means anything.
        peak_bytes: the most memory held during a step, of the device, or of the process on the CPU.
        replayed: seconds of parts of the network as CUDA graphs; empty on other devices.
    """

    case: SpeedCase
    stages: dict[str, NDArray[np.float64]]
    operations: dict[str, int]
    product_seconds: float
    convolution_operations: int
    convolution_seconds: float
    memorised: int
    peak_bytes: int
    replayed: dict[str, float]

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Whole steps, float64 [R]."""
        whole: NDArray[np.float64] = np.sum(list(self.stages.values()), axis=0)
        return whole


@dataclass(frozen=True, eq=False)
class SpeedReport:
    """All cases of one run.

    Attributes:
        cases: what each took.
        rates: operations a second of a large matrix product, one a round, float64 [R].
        dtype: that the networks computed in.
    """

    cases: tuple[CaseSpeed, ...]
    rates: NDArray[np.float64]
    dtype: str


def measure_speed(
    predictor: VOSPredictor,
    cases: Sequence[SpeedCase],
    *,
    rounds: int = 11,
    dtype: torch.dtype | Literal["auto"] | None = None,
    on_round: Callable[[int], bool | None] | None = None,
) -> SpeedReport:
    """Step a stream of every case once a round, so that a machine that slows down for a while slows all of them.

    Memory is full before the first round, and the write gate is open: every object is memorised at every step. A round
    is as many steps as come to one commit (`memory_every`), and reports their mean: policy and fusion have the share in
    it that they have in a video.

    Args:
        predictor: whose network and options are used; each case brings its own memory size and policy.
        cases: at least one.
        rounds: of each case.
        dtype: see `VOSPredictor`.
        on_round: called with the number of rounds done, for progress; where it answers True, that was the last.

    Raises:
        OptionError: there are no cases or no rounds, or more objects than a frame has room for.

    >>> report = measure_speed(VOSPredictor.from_pretrained(), [SpeedCase(height=64, width=96)], rounds=2)
    >>> report.cases[0].seconds.shape
    (2,)
    """
    if rounds < 1 or not cases:
        raise OptionError(f"speed: expected at least one case and one round, got {len(cases)} and {rounds}")
    runners = [_Runner(predictor, case, dtype) for case in cases]
    clock = runners[0].clock
    weight = next(runners[0].predictor.network.parameters())
    for runner in runners:
        for _ in range(runner.case.memory_size + 2):
            runner.steps()
    rates, spent = [], [dict[str, list[float]]((stage, []) for stage in STAGES) for _ in cases]
    for done in range(rounds):
        rates.append(matrix_rate(clock, weight.dtype))
        for runner, seconds in zip(runners, spent, strict=True):
            for stage, passed in runner.watch().items():
                seconds[stage].append(passed)
        if on_round is not None and on_round(done + 1):
            break
    found = [runner.conclude(seconds) for runner, seconds in zip(runners, spent, strict=True)]
    return SpeedReport(tuple(found), np.array(rates), str(weight.dtype).removeprefix("torch."))


def coloured_boxes(objects: int, height: int, width: int) -> tuple[list[NDArray[np.uint8]], NDArray[np.uint8]]:
    """A short clip of boxes of different colours that move a little, and the mask of its first frame.

    Args:
        objects: N, at most 24.
        height: H.
        width: W.

    Returns:
        The frames uint8 `[H, W, 3]`, and the mask uint8 `[H, W]` with ids 1 to N.

    Raises:
        OptionError: the boxes have no room.

    >>> frames, mask = coloured_boxes(3, 48, 64)
    >>> len(frames), np.unique(mask).tolist()
    (8, [0, 1, 2, 3])
    """
    columns = max(1, int(np.ceil(np.sqrt(objects * width / height))))
    tall, wide = height // max(1, -(-objects // columns)), width // columns
    if not 1 <= objects <= 24 or min(tall, wide) < 16:
        raise OptionError(
            f"speed: expected 1 to 24 objects with 16 pixels each way, got {objects} in {width} x {height}"
        )
    noise = np.random.default_rng(0).integers(0, 40, (height, width, 3))
    ground = (90 + noise + np.linspace(0, 60, width)[None, :, None]).astype(np.uint8)
    frames, mask = [ground.copy() for _ in range(FRAMES)], np.zeros((height, width), np.uint8)
    for number in range(objects):
        top, left = (number // columns) * tall + tall // 4, (number % columns) * wide + wide // 4
        colour = [int(255 * part) for part in colorsys.hsv_to_rgb(number / objects, 1.0, 0.5 + 0.5 * (number % 2))]
        for shift, frame in enumerate(frames):
            frame[top : top + tall // 2, left + shift // 2 : left + shift // 2 + wide // 2] = colour
        mask[top : top + tall // 2, left : left + wide // 2] = number + 1
    return frames, mask


class _Runner:
    """A stream that shows the clip of its case forth and back."""

    def __init__(self, predictor: VOSPredictor, case: SpeedCase, dtype: torch.dtype | Literal["auto"] | None) -> None:
        options = dataclasses.replace(
            predictor.options, memory_size=case.memory_size, policy=case.policy, write_gate=0.0
        )
        self.case, self.every = case, options.memory_every
        self.predictor = VOSPredictor(predictor.network, options=options, dtype=dtype)
        self.clock = Clock(self.predictor.device)
        frames, mask = coloured_boxes(case.objects, case.height, case.width)
        self.stream = self.predictor.start(frames[0], mask)
        self._frames = [*frames[1:], *frames[-2::-1]]

    def step(self) -> None:
        self.stream.step(self._frames[self.stream.frame_index % len(self._frames)])

    def steps(self) -> None:
        """As many as come to one commit."""
        for _ in range(self.every):
            self.step()

    def watch(self) -> dict[str, float]:
        """Seconds of each stage in a step, the mean of these."""
        mean = dict.fromkeys(STAGES, 0.0)
        for _ in range(self.every):
            with watched(self.predictor.network, self.clock) as timeline:
                self.step()
            for stage, passed in timeline.seconds().items():
                mean[stage] += passed / self.every
        return mean

    def conclude(self, seconds: dict[str, list[float]]) -> CaseSpeed:
        """Count what the rounds did not, in a mean step too."""
        spent: list[NDArray[np.float64]] = []
        for _ in range(COUNTED):
            mean, operations, convolutions = np.zeros(2), dict.fromkeys(STAGES, 0), 0
            for _ in range(self.every):
                with watched(self.predictor.network, self.clock) as timeline, Products(timeline) as products:
                    self.step()
                mean += np.array(products.seconds()) / self.every
                convolutions += products.convolutions
                for stage, counted in products.operations.items():
                    operations[stage] += counted
            spent.append(mean)
        product_seconds, convolution_seconds = np.median(spent, axis=0).tolist()
        return CaseSpeed(
            case=self.case,
            stages={stage: np.array(passed) for stage, passed in seconds.items()},
            operations={stage: counted // self.every for stage, counted in operations.items()},
            product_seconds=product_seconds,
            convolution_operations=convolutions // self.every,
            convolution_seconds=convolution_seconds,
            memorised=timeline.rows,
            peak_bytes=peak_bytes(self.steps, self.predictor.device),
            replayed=replay_seconds(timeline),
        )


def speed_document(
    report: SpeedReport, circumstances: Circumstances, *, extra: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """All figures as plain values, for a file.

    Args:
        report: what `measure_speed` gave.
        circumstances: what it was measured with.
        extra: further entries, such as the options.

    >>> from stmemory.evaluation.report import current_circumstances
    >>> report = SpeedReport((), np.array([3e11]), "float32")
    >>> speed_document(report, current_circumstances())["matrix_product_per_second"]
    {'median': 300000000000.0, 'spread': 0.0}
    """
    return {
        "circumstances": dataclasses.asdict(circumstances),
        **(extra or {}),
        "dtype": report.dtype,
        "matrix_product_per_second": _middle(report.rates),
        "cases": {speed.case.name: _figures(speed, float(np.median(report.rates))) for speed in report.cases},
    }


def write_speed(path: Path, document: Mapping[str, Any]) -> None:
    """Write what `speed_document` gave as JSON; makes the folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_speed(Path(folder) / "new" / "speed.json", {"cases": {}})
    ...     (Path(folder) / "new" / "speed.json").read_text().split()
    ['{', '"cases":', '{}', '}']
    """
    with whole_file(path) as part:
        part.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_speed(path: Path) -> dict[str, Any]:
    """What `write_speed` wrote.

    Raises:
        OptionError: the file is of another kind.
    """
    try:
        document: dict[str, Any] = read_json(path)
        if {"circumstances", "cases", "matrix_product_per_second"} <= set(document):
            for _ in compare_speed(document, document):
                pass  # all that is read of it is there
            return document
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise OptionError(
            f"{path}: expected a report of `stmemory benchmark speed`, got: {error!r}; write it again"
        ) from error
    raise OptionError(f"{path}: expected a report of `stmemory benchmark speed`, got another kind of file")


def describe_speed(document: Mapping[str, Any]) -> Iterator[str]:
    """The figures as lines of text: a table of stages for each case.

    Args:
        document: what `speed_document` gave.

    >>> list(describe_speed({"matrix_product_per_second": {"median": 3e11}, "dtype": "float32", "cases": {}}))
    ['one matrix product (float32): 300 GFLOP/s, the ceiling of all that follows']
    """
    rate = document["matrix_product_per_second"]["median"]
    yield f"one matrix product ({document['dtype']}): {rate / 1e9:.0f} GFLOP/s, the ceiling of all that follows"
    for name, case in document["cases"].items():
        yield f"\n{name}"
        yield f"  {'stage':<12}{'ms':>9}{'spread':>9}{'GFLOP':>9}{'of ceiling':>12}"
        for stage in (*STAGES, "step"):
            figures = case["stages"][stage]
            share = f"{100 * figures['share_of_ceiling']:.0f} %" if figures["operations"] else "-"
            yield (
                f"  {stage:<12}{1000 * figures['median']:>9.1f}{1000 * figures['spread']:>9.1f}"
                f"{figures['operations'] / 1e9:>9.2f}{share:>12}"
            )
        yield (
            f"  {case['frames_per_second']:.2f} frames/s; convolutions alone at "
            f"{100 * case['convolutions']['share_of_ceiling']:.0f} % "
            f"of the ceiling, with matrix products and attention {100 * case['products']['share_of_ceiling']:.0f} %; "
            f"peak memory {case['peak_bytes'] / 1e6:.0f} MB"
        )
        for stage, seconds in case["replayed"].items():
            yield f"  {stage} as a CUDA graph: {1000 * seconds:.2f} ms"
        if case["memorised"] < case["objects"]:
            few = f"{case['memorised']} of {case['objects']} objects were memorised"
            yield f"  {few}: the network lost the others, so this means little"


def compare_speed(document: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """How many times faster this run is than another, stage by stage, as lines of text.

    Args:
        document: this run.
        other: the run that it is compared with; cases that both have are compared.

    >>> of = {"commit": "a", "device": "cpu", "threads": 1, "torch": "2"}
    >>> run = {"circumstances": of, "matrix_product_per_second": {"median": 3e11}, "cases": {}}
    >>> list(compare_speed(run, run))[0]
    'a beside a; above 1 the first is faster; matrix product 1.00'
    """
    rates = [run["matrix_product_per_second"]["median"] for run in (document, other)]
    commits = [run["circumstances"]["commit"] for run in (document, other)]
    yield f"{commits[0]} beside {commits[1]}; above 1 the first is faster; matrix product {rates[0] / rates[1]:.2f}"
    settings = [_circumstances(run) for run in (document, other)]
    for key in dict.fromkeys([*settings[0], *settings[1]]):
        if settings[0].get(key) != settings[1].get(key):
            yield f"another {key}: {settings[0].get(key)} beside {settings[1].get(key)}"
    shared = [name for name in document["cases"] if name in other["cases"]]
    for name in shared:
        ours, theirs = (run["cases"][name]["stages"] for run in (document, other))
        ratios = ", ".join(f"{stage} {_ratio(theirs[stage], ours[stage])}" for stage in (*STAGES, "step"))
        yield f"  {name}: {ratios}"
    if not shared:
        yield "no case in common: give both runs the same objects, sizes, K and policies"


def _circumstances(run: Mapping[str, Any]) -> dict[str, object]:
    """Settings that have to be equal where times are compared."""
    brought = (
        "memory_size",
        "policy",
        "write_gate",
        "short_side",
    )  # the cases have them; it is open; it is the resolution
    options = {key: value for key, value in run.get("options", {}).items() if key not in brought}
    settings = {key: run.get(key) for key in ("dtype", "weights")}
    return (
        {key: run["circumstances"].get(key) for key in ("device", "threads", "torch", "resolution")}
        | settings
        | options
    )


def _ratio(above: Mapping[str, float], below: Mapping[str, float]) -> str:
    return f"{above['median'] / below['median']:.2f}" if below["median"] and above["median"] else "-"


def _figures(speed: CaseSpeed, ceiling: float) -> dict[str, Any]:
    stages: dict[str, Any] = {}
    for name, seconds, operations in (
        *((stage, speed.stages[stage], speed.operations[stage]) for stage in STAGES),
        ("step", speed.seconds, sum(speed.operations.values())),
    ):
        median = float(np.median(seconds))
        stages[name] = _middle(seconds) | {
            "operations": operations,
            "share_of_ceiling": _share(operations, median, ceiling),
        }
    return {
        "objects": speed.case.objects,
        "stages": stages,
        "frames_per_second": 1 / stages["step"]["median"],
        "products": {
            "seconds": speed.product_seconds,
            "share_of_ceiling": _share(sum(speed.operations.values()), speed.product_seconds, ceiling),
        },
        "convolutions": {
            "operations": speed.convolution_operations,
            "seconds": speed.convolution_seconds,
            "share_of_ceiling": _share(speed.convolution_operations, speed.convolution_seconds, ceiling),
        },
        "memorised": speed.memorised,
        "peak_bytes": speed.peak_bytes,
        "replayed": speed.replayed,
    }


def _share(operations: int, seconds: float, ceiling: float) -> float:
    share = operations / seconds / ceiling if seconds else 0.0
    return share if math.isfinite(share) else 0.0


def _middle(values: NDArray[np.float64]) -> dict[str, float]:
    """The median, and between which values the middle half lies, as one width."""
    low, middle, high = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    return {"median": middle, "spread": high - low}


@dataclass(frozen=True)
class PassSpeed:
    """A part of the network on the frames of several videos, one object in each.

    Attributes:
        part: `"encode"`, `"decode"` or `"memorise"`.
        videos: V.
        together: seconds of one pass with all frames, median of the rounds.
        apart: seconds of a pass for each frame, all added up, median of the rounds.
    """

    part: str
    videos: int
    together: float
    apart: float


@torch.inference_mode()
def measure_passes(
    network: SegmentationNetwork, videos: Sequence[int], *, height: int, width: int, rounds: int = 7
) -> list[PassSpeed]:
    """Time the network's parts both ways, in turns.

    Args:
        network: in eval mode.
        videos: numbers of videos, 1 or more.
        height: H at the working size, a multiple of 16.
        width: W, the same.
        rounds: of each; one more goes before them uncounted.

    >>> from stmemory.networks.config import NetworkConfig
    >>> network = SegmentationNetwork(NetworkConfig.of("lite")).eval()
    >>> [speed.part for speed in measure_passes(network, [2], height=32, width=32, rounds=1)]
    ['encode', 'decode', 'memorise']
    """
    keep_large_buffers()  # as every stream does
    weight = next(network.parameters())
    clock, found = Clock(weight.device), []
    for number in videos:
        frames = torch.rand(number, 3, height, width, device=weight.device, dtype=weight.dtype)
        masks, video = torch.rand_like(frames[:, 0]), torch.arange(number, device=weight.device)
        cells = (network.config.value_channels, height // network.stride, width // network.stride)
        recalled = torch.rand(number, *cells, device=weight.device, dtype=weight.dtype)
        both, single, one = network.encode_query(frames), network.encode_query(frames[:1]), video[:1]
        parts: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "encode": (lambda: network.encode_query(frames), lambda: network.encode_query(frames[:1])),
            "decode": (
                lambda: network.decode(recalled, both, video),
                lambda: network.decode(recalled[:1], single, one),
            ),
            "memorise": (
                lambda: network.encode_memory(both, masks, masks, video),
                lambda: network.encode_memory(single, masks[:1], masks[:1], one),
            ),
        }
        for part, (together, apart) in parts.items():
            seconds = [_once(clock, together, apart, number) for _ in range(rounds + 1)][1:]
            whole, split = (statistics.median(column) for column in zip(*seconds, strict=True))
            found.append(PassSpeed(part, number, whole, split))
    return found


def _once(
    clock: Clock, together: Callable[[], object], apart: Callable[[], object], number: int
) -> tuple[float, float]:
    marks = [clock.mark()]
    together()
    marks.append(clock.mark())
    for _ in range(number):
        apart()
    marks.append(clock.mark())
    whole, split = clock.between(marks)
    return whole, split
