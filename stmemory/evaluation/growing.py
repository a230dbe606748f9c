"""A memory that never forgets, STM's rule: the upper reference for a fixed number of slots.

Same network, same step, same read; every n-th frame is kept for ever, and the last frame beside them (Oh et al. 2019).
Not for use: its memory and its time per frame grow with the video, which is what it shows.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from stmemory.errors import OptionError
from stmemory.memory.bank import MemoryBank
from stmemory.predictor import VOSPredictor
from stmemory.result import Segmentation
from stmemory.state import StreamState
from stmemory.types import FrameLike, MaskLike

__all__ = ["GrowingMemory", "GrowingPredictor"]

_FIRST = 3  # slots of the first frame: one to pin, two to write to
_PAIRS = ("similarity", "compared")  # tensors with a slot in two dimensions


class GrowingPredictor:
    """A predictor whose streams never forget; `start` as that of `VOSPredictor`, for `evaluate_clip` among others.

    Args:
        predictor: whose network and options are used; memory size and policy have no say.
        every: keep every n-th frame for ever; 5 is STM's.

    Raises:
        OptionError: `every` is below 1.

    >>> import numpy as np
    >>> frame, mask = np.zeros((32, 48, 3), np.uint8), np.ones((32, 48), np.uint8)
    >>> stream = GrowingPredictor(VOSPredictor.from_pretrained(), every=1).start(frame, mask)
    >>> for _ in range(7):
    ...     result = stream.step(frame)
    >>> stream.bank.count.tolist()
    [8]
    """

    def __init__(self, predictor: VOSPredictor, *, every: int = 5) -> None:
        if every < 1:
            raise OptionError(
                f"GrowingPredictor: expected to keep every n-th frame with n >= 1, got {every}; 5 is STM's"
            )
        options = dataclasses.replace(predictor.options, memory_size=_FIRST, policy="drop", memory_every=every)
        self.predictor = VOSPredictor(predictor.network, options=options)

    def start(self, frame: FrameLike, mask: MaskLike) -> GrowingMemory:
        """Begin a video; see `VOSPredictor.start`."""
        memory = GrowingMemory(self.predictor)
        memory.step(frame, mask)
        return memory


class GrowingMemory:
    """One video, and a bank that gets one more slot whenever it is full. Made by `GrowingPredictor.start`.

    Args:
        predictor: whose network and options are used.
    """

    def __init__(self, predictor: VOSPredictor) -> None:
        self._network = predictor.network
        self._state = StreamState(self._network.new_bank(_FIRST, policy="drop"), self._network.new_beside())
        self._stream = predictor.new_stream(self._state)

    @property
    def bank(self) -> MemoryBank:
        """All that was kept; another object after it grew."""
        return self._state.bank

    def step(self, frame: FrameLike, mask: MaskLike | None = None) -> Segmentation:
        """Segment the next frame and memorise it; see `VOSStream.step`. Nothing that was kept goes or changes."""
        if self.bank.rows and bool((self.bank.valid.all(1) & ~self.bank.contents()["provisional"]).any()):
            self._grow()
        return self._stream.step(frame, mask)

    def _grow(self) -> None:
        """One more slot for every row, empty; what is known of the others stays, in the cache too."""
        old, cached = self.bank, self._state.cache.state_dict(self.bank)
        wide = self._network.new_bank(old.capacity + 1, policy="drop")
        wide.load_contents(
            {name: t if name == "provisional" else _wider(name, t) for name, t in old.contents().items()}
        )
        self._state.bank = wide
        self._state.cache.load_state_dict({name: _wider(name, t) for name, t in cached.items()}, wide)


def _wider(name: str, tensor: Tensor) -> Tensor:
    """`[B, K, ...]` with one more slot at the end, `[B, K + 1, ...]`."""
    if name in _PAIRS:
        return torch.nn.functional.pad(tensor, (0, 1, 0, 1))
    if name == "extent":  # that of an empty slot means nothing, but lies in the template
        return torch.cat([tensor, tensor[:, :1]], 1)
    empty = -1 if name in ("log", "seen") else 0
    return torch.cat([tensor, tensor.new_full((len(tensor), 1, *tensor.shape[2:]), empty)], 1)
