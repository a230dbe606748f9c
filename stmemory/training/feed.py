"""Feeds: the batches of a run, made by processes of their own. Which clips a step sees depends on its number alone."""

from __future__ import annotations

import signal
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stmemory.training.clips import Clips

__all__ = ["Batch", "Feed", "load"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Clips side by side.

    Attributes:
        frames: uint8 `[V, T, 3, H, W]`.
        ids: uint8 `[V, T, H, W]`.
        skipped: one line for each file that could not be used while these clips were made.
    """

    frames: Tensor
    ids: Tensor
    skipped: tuple[str, ...] = ()


class Feed(Dataset[Batch]):
    """The batches of steps `first .. end - 1`.

    Args:
        clips: where clips come from.
        steps: first step, and the one after the last.
        batch: clips a step, of all processes together.
        part: those of them that are wanted here.
    """

    def __init__(self, clips: Clips, steps: tuple[int, int], *, batch: int, part: range) -> None:
        self.clips, self.steps, self.batch, self.part = clips, steps, batch, part

    def __len__(self) -> int:
        return self.steps[1] - self.steps[0]

    def __getitem__(self, item: int) -> Batch:
        if not 0 <= item < len(self):
            raise IndexError(item)
        start = (self.steps[0] + item) * self.batch
        made = [self.clips.clip(start + number) for number in self.part]
        skipped = [line for clip in made for line in clip.skipped]
        return Batch(torch.stack([c.frames for c in made]), torch.stack([c.ids for c in made]), tuple(skipped))


def load(feed: Feed, *, workers: int) -> DataLoader[Batch]:
    """The batches one after the other, made ahead by processes; 0 makes them here, when they are asked for."""
    return DataLoader(
        feed,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_begin_worker,
    )


def _begin_worker(worker: int) -> None:
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # these are for the run, which ends its workers when it is done with them
        signal.signal(number, signal.SIG_IGN)
