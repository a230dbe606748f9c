"""Training one contender of a comparison: clips in, checkpoints and a log out. Resumes exactly where it stopped. Builds
no layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from stmemory.networks.prediction import PredictionNetwork
from stmemory.training.journal import Journal
from stmemory.training.learner import follow
from stmemory.training.prediction.baselines import RecurrentNetwork, matched, parameters
from stmemory.training.prediction.clips import Clips, ClipSource
from stmemory.training.prediction.config import PredictionTraining
from stmemory.training.prediction.roll import prediction_loss, roll, true_frames
from stmemory.training.repeatable import repeatable
from stmemory.training.run_state import expect_same, read_state, write_state
from stmemory.training.schedule import averaging, learning_rate
from stmemory.training.window import Window

__all__ = ["PredictionTrainer", "new_network", "true_probability"]

_NEEDS = ("network", "average", "optimiser", "step", "config")  # of a state, to go on from it


class PredictionTrainer:
    """One contender, and where in the schedule it is. Clips, weights and what is sampled depend on the seed and the
    step alone.

    Args:
        config: of the comparison.
        name: of the contender.
        out: folder of the comparison; this contender's is the one of its name in it, with `state.pt` and `log.jsonl`.
        device: where to train.

    Raises:
        OptionError: there is no contender of that name, or the clips cannot be made.
    """

    def __init__(self, config: PredictionTraining, name: str, out: Path, *, device: str = "cpu") -> None:
        self.config, self.contender, self.out, self.device = (
            config,
            config.contender(name),
            out / name,
            torch.device(device),
        )
        self.capacity = self.contender.capacity or config.capacity
        self.policy = self.contender.policy or config.policy
        self.network = new_network(config, name).to(self.device)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.source = ClipSource(config.train, seed=config.seed)
        self.step = 0
        self._window = Window("loss", "norm")
        self._stopping = False

    def stop(self) -> None:
        """Let `run` end after the step that it is in, with its state saved; before the first step, let it do none."""
        self._stopping = True

    def resume(self) -> bool:
        """Go on from `state.pt` if there is one; whether there was.

        Raises:
            OptionError: it was written by a run with another configuration.
            WeightsError: it is damaged, or something else.
        """
        path = self.out / "state.pt"
        if not path.exists():
            return False
        state, name = read_state(path, needs=_NEEDS), self.contender.name
        written = PredictionTraining.from_json(state["config"])
        before = written.learning_of(name) if name in [c.name for c in written.contenders] else None
        advice = f"train into another folder, or go on with that of {self.out.parent / 'config.json'}"
        expect_same(path, f"configuration that {name}", before, self.config.learning_of(name), advice=advice)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])
        self._window.load_state_dict(state.get("window", {}))
        return True

    def save(self) -> None:
        """Write `state.pt`, whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "window": self._window.state_dict(),
            "config": self.config.to_json(),
        }
        write_state(self.out / "state.pt", state)

    def run(self, *, log_every: int = 10, until: int | None = None) -> Iterator[dict[str, float]]:
        """Train to the end of the schedule, to a step, or until `stop`, after which it takes a new trainer; yields what
        it logs.

        Args:
            log_every: steps that a line of the log is the mean of; fewer at the end of the run.
            until: step to end at.
        """
        journal = Journal(self.out, step=self.step)
        last = self.config.steps if until is None else min(until, self.config.steps)
        while self.step < last and not self._stopping:
            since = perf_counter()
            used = {"rate": self._rate(), "true": true_probability(self.config, self.step)}
            losses = self.train_step()
            self._window.add(losses, seconds=perf_counter() - since)
            record: dict[str, float] = {}
            if self.step % log_every == 0 or self.step == self.config.steps:
                record = {"step": self.step, **used, **self._window.record()}
                journal.write(record)
            if self.step % self.config.save_every == 0 or self.step == last:
                self.save()
            if record:
                yield record
        if self.step % self.config.save_every and self.step != last:  # told to stop, at whatever moment
            self.save()
        journal.close()

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
