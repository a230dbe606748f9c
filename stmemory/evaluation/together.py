"""Whether frames of several videos go through the network faster in one pass than one by one. Tracks nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from stmemory.evaluation.stages import Clock
from stmemory.networks.layers import keep_large_buffers
from stmemory.networks.segmentation import SegmentationNetwork

__all__ = ["PassSpeed", "measure_passes"]


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
