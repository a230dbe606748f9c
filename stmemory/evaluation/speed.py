"""The speed benchmark: the stages of a step, for numbers of objects, memory sizes, policies and sizes of frames.

Owns the cases, the clip that they track and the rounds. Does not know how a stage is measured (`stages.py`) or told.
"""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.evaluation.machine import matrix_rate, peak_bytes, replay_seconds
from stmemory.evaluation.stages import STAGES, Clock, Products, watched
from stmemory.predictor import VOSPredictor

__all__ = ["CaseSpeed", "SpeedCase", "SpeedReport", "coloured_boxes", "measure_speed"]

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
    dtype: torch.dtype | None = None,
    on_round: Callable[[int], bool | None] | None = None,
) -> SpeedReport:
    """Step a stream of every case once a round, so that a machine that slows down for a while slows all of them.

    Memory is full before the first round, and the write gate is open: every object is memorised at every step. A round
    is as many steps as come to one commit (`memory_every`), and tells their mean: policy and fusion have the share in
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

    def __init__(self, predictor: VOSPredictor, case: SpeedCase, dtype: torch.dtype | None) -> None:
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
