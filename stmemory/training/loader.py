"""Batches of clips for a run, rendered ahead in worker processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from time import perf_counter
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stmemory.errors import OptionError, StmemoryError
from stmemory.training.synthesis.clips import Clips, render_clip
from stmemory.training.synthesis.render import ClipPlan

__all__ = ["Batch", "ClipTimes", "Feed", "Parcel", "load", "render_batch", "rendered", "time_clips", "with_tensors"]

Record = TypeVar("Record")

_ALIGNED = 16  # bytes; a tensor of any type may begin there


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the block: its first byte, its type and its shape."""

    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + self.dtype.itemsize * torch.Size(self.shape).numel()


@dataclass(frozen=True, eq=False)
class Parcel(Generic[Record]):
    """A record whose tensors lie in one block of memory.

    A worker hands each tensor to another process as a file of its own, and of those a process may have only so many
    open; a device takes each in a transfer of its own. A parcel is one of either.

    Attributes:
        block: uint8 [bytes].

    Example:
        >>> parcel = Parcel.of((torch.arange(3), "three"))
        >>> parcel.block.shape, parcel.opened(torch.device("cpu"))
        (torch.Size([32]), (tensor([0, 1, 2]), 'three'))
    """

    block: Tensor
    _outline: Any

    @classmethod
    def of(cls, record: Record) -> Parcel[Record]:
        """Pack a tensor, or a tuple or dataclass of such, of tensors and of anything else."""
        chunks: list[Tensor] = []
        used = 0

        def place(tensor: Tensor) -> Any:
            nonlocal used
            room = _Place(used, tensor.dtype, tuple(tensor.shape))
            chunks.append(tensor.contiguous().view(-1).view(torch.uint8))
            chunks.append(torch.zeros(-room.stop % _ALIGNED, dtype=torch.uint8))
            used = room.stop + len(chunks[-1])
            return room

        outline = with_tensors(record, place)
        return cls(torch.cat(chunks) if chunks else torch.zeros(0, dtype=torch.uint8), outline)

    def opened(self, device: torch.device) -> Record:
        """The record, its tensors on a device, as views of one block there; a GPU fetches that while others go on."""
        block = self.block
        if device.type == "cuda":
            block = block.pin_memory()
        block = block.to(device, non_blocking=True)
        record: Record = _unpacked(self._outline, block)
        return record


def with_tensors(record: Any, change: Callable[[Tensor], Any]) -> Any:
    """The record with something else in the place of each tensor in it, in tuples and dataclasses at any depth.

    Example:
        >>> with_tensors((torch.ones(2), ("a", torch.ones(1))), lambda tensor: tensor * 2)
        (tensor([2., 2.]), ('a', tensor([2.])))
    """
    if isinstance(record, Tensor):
        return change(record)
    if isinstance(record, tuple):
        return tuple(with_tensors(part, change) for part in record)
    if is_dataclass(record) and not isinstance(record, type):
        return replace(
            record, **{field.name: with_tensors(getattr(record, field.name), change) for field in fields(record)}
        )
    return record


def _unpacked(outline: Any, block: Tensor) -> Any:
    """The outline with tensors in their places."""
    if isinstance(outline, _Place):
        return block[outline.start : outline.stop].view(outline.dtype).view(outline.shape)
    if isinstance(outline, tuple):
        return tuple(_unpacked(part, block) for part in outline)
    if is_dataclass(outline) and not isinstance(outline, type):
        return replace(
            outline, **{field.name: _unpacked(getattr(outline, field.name), block) for field in fields(outline)}
        )
    return outline


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
        clips: source of clips.
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
        feed: settings of the run's feed.
        workers: processes.
        device: device to render on; None renders where clips are drawn.
        pin: put what was rendered there into pinned memory, for a GPU to fetch.

    Raises:
        StmemoryError: what the clips raised, in this process, when their batch is asked for.

    >>> from stmemory.training.synthesis.render import Look
    >>> from stmemory.training.synthesis.render import Film, Scene
    >>> class Still:
    ...     def draw(self, index):
    ...         frames = torch.full((2, 3, 32, 32), index, dtype=torch.uint8)
    ...         film = Film(frames, torch.ones(2, 32, 32, dtype=torch.uint8))
    ...         table = torch.arange(256, dtype=torch.uint8)
    ...         return ClipPlan(Scene(film, (), 32, "made"), table, Look(torch.ones(2, 3)))
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
    """Render clips one after the other, on the device of their tensors: their images differ in size.

    >>> from stmemory.training.synthesis.render import Look
    >>> from stmemory.training.synthesis.render import Film, Scene
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
        device: device to render on. On CUDA it is done on a stream of its own, beside what the caller has queued.
        ahead: render the next batch in a thread while the caller works on this one; else when it is asked for.

    >>> from stmemory.training.synthesis.render import Look
    >>> from stmemory.training.synthesis.render import Film, Scene
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


@dataclass(frozen=True)
class ClipTimes:
    """How long clips took.

    Attributes:
        clips: number of clips.
        drawn: seconds to draw and pack them, on the CPU, in one process.
        sent: bytes that a worker sent for them.
        rendered: seconds to send them to the device and render them there.
        made: bytes of the rendered clips.
        device: what rendered.
    """

    clips: int
    drawn: float
    sent: int
    rendered: float
    made: int
    device: str

    def __str__(self) -> str:
        """A line of each, and what a run gets."""
        draws, renders = self.clips / self.drawn, self.clips / self.rendered
        return (
            f"drawing:   {draws:7.2f} clips/s by a worker of one thread, {self.sent / self.clips / 2**20:.2f} MiB a "
            "clip to send\n"
            f"rendering: {renders:7.2f} clips/s on {self.device}, {self.made / self.clips / 2**20:.2f} MiB a clip "
            "when rendered\n"
            f"a run that renders on its device gets up to {draws:.2f} clips/s from each worker; "
            f"where the workers render, and {self.device} is like one, {self.clips / (self.drawn + self.rendered):.2f}"
        )


def time_clips(clips: Clips, number: int, device: torch.device) -> ClipTimes:
    """Draw clips and render them on a device, after one of each that does not count.

    Args:
        clips: source of clips.
        number: number of clips, 1 or more.
        device: device to render on.

    Raises:
        OptionError: the number is below 1.

    >>> from stmemory.training.synthesis.render import Look
    >>> from stmemory.training.synthesis.render import ClipPlan, Film, Scene
    >>> class Still:
    ...     def draw(self, index):
    ...         frames = torch.full((2, 3, 32, 32), index, dtype=torch.uint8)
    ...         film = Film(frames, torch.ones(2, 32, 32, dtype=torch.uint8))
    ...         table = torch.arange(256, dtype=torch.uint8)
    ...         return ClipPlan(Scene(film, (), 32, "made"), table, Look(torch.ones(2, 3)))
    >>> time_clips(Still(), 3, torch.device("cpu")).made // 3  # 2 frames of 32 x 32, with 3 colours and an id
    8192
    """
    if number < 1:
        raise OptionError(f"number: expected 1 or more clips to time, got {number}")
    render_batch(Parcel.of((clips.draw(0),)).opened(device))
    since = perf_counter()
    parcels = [Parcel.of((clips.draw(index),)) for index in range(number)]
    drawn, made = perf_counter() - since, 0
    _finish(device)
    since = perf_counter()
    for parcel in parcels:
        batch = render_batch(parcel.opened(device))
        made += batch.frames.numel() + batch.ids.numel()
    _finish(device)
    sent = sum(parcel.block.numel() for parcel in parcels)
    return ClipTimes(number, drawn, sent, perf_counter() - since, made, str(device))


def _finish(device: torch.device) -> None:
    """Wait until the device has done what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
