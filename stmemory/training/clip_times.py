"""Timing of clips: how fast they are drawn, and how fast a device renders them, so that it can be seen who waits for
whom."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import torch

from stmemory.errors import OptionError
from stmemory.training.clips import Clips
from stmemory.training.feed import render_batch
from stmemory.training.parcel import Parcel

__all__ = ["ClipTimes", "time_clips"]


@dataclass(frozen=True)
class ClipTimes:
    """How long clips took.

    Attributes:
        clips: how many.
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
        clips: where they come from.
        number: how many, 1 or more.
        device: where to render.

    Raises:
        OptionError: the number is below 1.

    >>> from stmemory.training.photometric import Look
    >>> from stmemory.training.plan import ClipPlan, Film, Scene
    >>> class Still:
    ...     def draw(self, index):
    ...         film = Film(torch.full((2, 3, 32, 32), index, dtype=torch.uint8), torch.ones(2, 32, 32, dtype=torch.uint8))
    ...         return ClipPlan(Scene(film, (), 32, "made"), torch.arange(256, dtype=torch.uint8), Look(torch.ones(2, 3)))
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
