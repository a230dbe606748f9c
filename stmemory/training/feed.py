"""Feeds: the batches of a run, drawn by processes of their own. Which clips a step sees depends on its number alone.

What is drawn is rendered by these processes too, or by the device that trains, ahead of the step that needs it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stmemory.errors import StmemoryError
from stmemory.training.clips import Clips, render_clip
from stmemory.training.parcel import Parcel
from stmemory.training.plan import ClipPlan

__all__ = ["Batch", "Feed", "load", "render_batch", "rendered"]

Plans = tuple[ClipPlan, ...]
Whole = TypeVar("Whole")


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

    def to(self, device: torch.device) -> Batch:
        """The same on a device; from pinned memory a GPU fetches it while others go on."""
        return replace(
            self, frames=self.frames.to(device, non_blocking=True), ids=self.ids.to(device, non_blocking=True)
        )

    def pin_memory(self) -> Batch:
        """The same in pinned memory; what a `DataLoader` that pins asks for."""
        return replace(self, frames=self.frames.pin_memory(), ids=self.ids.pin_memory())


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
        return render_batch(self.draw(item))

    def draw(self, item: int) -> Plans:
        """The clips of a batch, not yet rendered."""
        if not 0 <= item < len(self):
            raise IndexError(item)
        start = (self.steps[0] + item) * self.batch
        return tuple(self.clips.draw(start + number) for number in self.part)

    def parcel(self, item: int) -> Parcel[Plans]:
        """The plans of a batch, packed to be sent."""
        return Parcel.of(self.draw(item))


class _Answers(Dataset[Whole | StmemoryError]):
    """What is made of each item, or what is wrong with its data: raised in a worker, an error would arrive as a
    traceback in a text."""

    def __init__(self, make: Callable[[int], Whole], length: int) -> None:
        self.make, self.length = make, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> Whole | StmemoryError:
        try:
            return self.make(item)
        except StmemoryError as error:
            return error


class _Arriving(Generic[Whole]):
    """What the processes of a loader make; they begin with this. An error that comes in its place ends them, and is
    raised here."""

    def __init__(self, loader: Iterable[Whole | StmemoryError]) -> None:
        self._left: Iterator[Whole | StmemoryError] | None = iter(loader)

    def __iter__(self) -> Iterator[Whole]:
        return self

    def __next__(self) -> Whole:
        if self._left is None:
            raise StopIteration
        made = next(self._left)
        if isinstance(made, StmemoryError):
            self._left = None  # else the error's traceback would keep the processes alive, and the command from ending
            raise made
        return made


def load(feed: Feed, *, workers: int, device: torch.device | None = None, pin: bool = False) -> Iterable[Batch]:
    """The batches one after the other, made ahead by processes; 0 makes them here, when they are asked for.

    Args:
        feed: of the run.
        workers: processes.
        device: where to render; None renders where clips are drawn.
        pin: put what was rendered there into pinned memory, for a GPU to fetch.

    Raises:
        StmemoryError: what the clips raised, in this process, when their batch is asked for.

    >>> from stmemory.training.photometric import Look
    >>> from stmemory.training.plan import Film, Scene
    >>> class Still:
    ...     def draw(self, index):
    ...         film = Film(torch.full((2, 3, 32, 32), index, dtype=torch.uint8), torch.ones(2, 32, 32, dtype=torch.uint8))
    ...         return ClipPlan(Scene(film, (), 32, "made"), torch.arange(256, dtype=torch.uint8), Look(torch.ones(2, 3)))
    >>> feed = Feed(Still(), (3, 5), batch=2, part=range(2))
    >>> [batch.frames.shape for batch in load(feed, workers=0, device=torch.device("cpu"))]
    [torch.Size([2, 2, 3, 32, 32]), torch.Size([2, 2, 3, 32, 32])]
    """
    ahead = 2 if workers else None
    if device is None:
        made = _Answers(feed.__getitem__, len(feed))
        batches = DataLoader(
            made,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=ahead,
            worker_init_fn=_begin_worker,
            pin_memory=pin,
        )
        return _Arriving(batches)
    drawn = _Answers(feed.parcel, len(feed))
    parcels = DataLoader(
        drawn, batch_size=None, num_workers=workers, prefetch_factor=ahead, worker_init_fn=_begin_worker
    )
    return rendered(_Arriving(parcels), device, ahead=device.type == "cuda")


def render_batch(plans: Sequence[ClipPlan]) -> Batch:
    """Render clips one after the other, on the device of their tensors: their pictures differ in size.

    >>> from stmemory.training.photometric import Look
    >>> from stmemory.training.plan import Film, Scene
    >>> film = Film(torch.full((2, 3, 16, 16), 128, dtype=torch.uint8), torch.ones(2, 16, 16, dtype=torch.uint8))
    >>> plan = ClipPlan(Scene(film, (), 16, "made"), torch.arange(256, dtype=torch.uint8), Look(torch.ones(2, 3)))
    >>> render_batch([plan, plan]).ids.shape
    torch.Size([2, 2, 16, 16])
    """
    made = [render_clip(plan) for plan in plans]
    skipped = tuple(line for clip in made for line in clip.skipped)
    return Batch(torch.stack([clip.frames for clip in made]), torch.stack([clip.ids for clip in made]), skipped)


def rendered(parcels: Iterable[Parcel[Plans]], device: torch.device, *, ahead: bool) -> Iterator[Batch]:
    """The batches of parcels, rendered on a device.

    Args:
        parcels: what was drawn.
        device: where to render. On CUDA it is done on a stream of its own, beside what the caller has queued.
        ahead: render the next batch in a thread while the caller works on this one; else when it is asked for.

    >>> from stmemory.training.photometric import Look
    >>> from stmemory.training.plan import Film, Scene
    >>> film = Film(torch.full((2, 3, 16, 16), 128, dtype=torch.uint8), torch.ones(2, 16, 16, dtype=torch.uint8))
    >>> plan = ClipPlan(Scene(film, (), 16, "made"), torch.arange(256, dtype=torch.uint8), Look(torch.ones(2, 3)))
    >>> [len(batch.frames) for batch in rendered([Parcel.of((plan,))] * 2, torch.device("cpu"), ahead=True)]
    [1, 1]
    """
    upcoming = iter(parcels)  # here, since the processes of a DataLoader must begin in the main thread
    new_stream: Callable[[torch.device], torch.cuda.Stream] = torch.cuda.Stream
    stream = new_stream(device) if device.type == "cuda" else None

    def following() -> Batch | None:
        with nullcontext() if stream is None else torch.cuda.stream(stream), torch.no_grad():  # both are of a thread
            parcel = next(upcoming, None)
            return None if parcel is None else render_batch(parcel.opened(device))

    if not ahead:
        while (batch := following()) is not None:
            yield _arrived(batch, stream)
        return
    with _render_thread(stream) as thread:
        waiting = thread.submit(following)
        while (batch := waiting.result()) is not None:
            arrived = _arrived(batch, stream)
            waiting = thread.submit(following)
            yield arrived


def _render_thread(stream: torch.cuda.Stream | None) -> ThreadPoolExecutor:
    """A thread on the device of a stream: a new one begins on the first GPU, whichever is that of its process."""
    if stream is None:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="render")
    return ThreadPoolExecutor(
        max_workers=1, thread_name_prefix="render", initializer=torch.cuda.set_device, initargs=(stream.device,)
    )


def _arrived(batch: Batch, stream: torch.cuda.Stream | None) -> Batch:
    """The batch for use on the current stream: that waits, on the device, for what was queued on the other one so
    far."""
    if stream is not None:
        current = torch.cuda.current_stream(stream.device)
        current.wait_stream(stream)
        for tensor in (batch.frames, batch.ids):
            tensor.record_stream(current)  # or its memory might be given away while a step still reads it
    return batch


def _begin_worker(worker: int) -> None:
    torch.set_num_threads(1)
    # The first of each is for the run, which ends its workers when it is done with them. When it was ended by an error,
    # it may not have done so, and Python sends them SIGTERM as it exits, and waits: those who ignored that would keep
    # it forever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
