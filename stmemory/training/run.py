"""`Run`: what every training does between its steps: go on from a state, log, save, validate and stop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import torch

from stmemory.training.distributed import World
from stmemory.training.run_state import Journal, read_state, write_state
from stmemory.training.schedule import Window
from stmemory.training.synthesis.clips import Clip

__all__ = ["Run", "Step"]


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the optimiser, done.

    Attributes:
        losses: losses by name; or `lost` alone, if it changed no weight.
        about: further entries of a line of the log, such as the learning rate of the step.
        last: number of steps after which its part of the schedule ends; it is logged and saved then.
        skipped: files of no use that were met; None for a training without files.
        strip: a clip, and what was predicted of it, to draw.
        validate: measures the averaged weights: the error, and files of no use that were met; None if it is not due.
    """

    losses: Mapping[str, float]
    about: Mapping[str, float]
    last: int
    skipped: Sequence[str] | None = None
    strip: tuple[Clip, Clip] | None = None
    validate: Callable[[], tuple[float, Sequence[str]]] | None = None


class Run(ABC):
    """A training that can stop after any step and go on from there, with the same result.

    Args:
        out: folder for `state.pt` (to resume from) and what `Journal` leaves.
        losses: names of the losses that a step answers.
        device: device to train on.
        world: the processes that train together; None is this one alone.
    """

    needs: ClassVar[tuple[str, ...]]  # of a state, to go on from it

    def __init__(self, out: Path, losses: Sequence[str], *, device: torch.device, world: World | None = None) -> None:
        self.out, self.device, self.world = out, device, world or World()
        self.step = 0
        self._window = Window(*losses)
        self._skipped: tuple[str, ...] | None = ()  # files of no use so far; None where a state does not say
        self._stopping = False

    @abstractmethod
    def _learned(self) -> dict[str, Any]:
        """What to save of this training, beside its step and its log."""

    @abstractmethod
    def _restore(self, state: Mapping[str, Any], path: Path) -> None:
        """Take over what `_learned` gave, after a check that it is of this training."""

    @abstractmethod
    def _expect_free(self) -> None:
        """Refuse a folder without a state that holds something else."""

    @property
    def lost(self) -> int:
        """How many of the last steps in a row changed no weight."""
        return self._window.lost

    def stop(self) -> None:
        """Let `run` end after the step that it is in, with its state saved; before the first step, let it do none."""
        self._stopping = True

    def resume(self) -> bool:
        """Go on from `state.pt` if there is one; whether there was.

        Raises:
            OptionError: it was written by a run with another configuration or with other material; or there is none
                yet, but the `config.json` of another run or of exported weights.
            WeightsError: it is damaged, or something else.
        """
        path = self.out / "state.pt"
        if not path.exists():
            self._expect_free()
            return False
        state = read_state(path, needs=self.needs)
        self._restore(state, path)
        self.step = int(state["step"])
        self._window.load_state_dict(state.get("window", {}))
        return True

    def save(self) -> None:
        """Write `state.pt`, atomically."""
        if self.world.first:
            state = {**self._learned(), "step": self.step, "window": self._window.state_dict()}
            write_state(self.out / "state.pt", state)

    def _follow(
        self, steps: Iterator[Step], journal: Journal | None, *, last: int, log_every: int, save_every: int
    ) -> Iterator[dict[str, float]]:
        """Do steps up to the last one or until `stop`; log, save and yield what they answer."""
        met, saved = list[str](), self.step  # files of no use that the first process does not know of
        while not self._stops():
            since = perf_counter()
            if (done := next(steps, None)) is None:
                break
            self._window.add(done.losses, seconds=perf_counter() - since)
            met += done.skipped or ()
            saves = self.step % save_every == 0 or self.step in (done.last, last)
            record = dict[str, float]()
            if self.step % log_every == 0 or self.step == done.last:  # not at `last`: a resumed run logs as a whole one
                record = {"step": self.step, **done.about, **self._window.record()}
            if done.validate is not None:
                error, more = done.validate()
                record = {"step": self.step, **record, "validation": error}
                met += more
            if record or saves:  # at other steps the processes need not wait for each other
                known, met = self._note(journal, met), []
                record |= {"skipped": known} if record and done.skipped is not None else {}
            if journal is not None and record:
                journal.write(record)
            if journal is not None and done.strip is not None:
                journal.strip(self.step, *done.strip)
            if saves:
                self.save()
                saved = self.step
            if record:
                yield record
        if self.step != saved:
            self._note(journal, met)
            self.save()
        if journal is not None:
            journal.close()

    def _stops(self) -> bool:
        """Whether this process or another one was asked to stop."""
        self._stopping = self.world.any(self._stopping, self.device)
        return self._stopping

    def _note(self, journal: Journal | None, met: Sequence[str]) -> int:
        """List the files of no use that all processes met; how many are known by now, to the first process."""
        every = self.world.gather(met)
        if journal is None:
            return 0
        known, self._skipped = journal.skip(every), journal.skipped
        return known
