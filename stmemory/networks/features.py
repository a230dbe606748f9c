"""The record that travels from a query encoder to the read, the decoder and the memory encoder. No behaviour but
indexing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["FrameFeatures", "of_rows"]


@dataclass(frozen=True, eq=False)
class FrameFeatures:
    """What a query encoder makes of `V` frames, once, whatever the number of objects.

    Attributes:
        frame: `[V, 3, H, W]`, RGB in [0, 1]; H and W are multiples of 16.
        key: `[V, Ck, h, w]`, the query key of eq. 13; `h = H / 16`.
        value: `[V, Cq, h, w]`, the query value of eq. 13.
        stride4: `[V, C4, H/4, W/4]`, a skip for the decoder.
        stride8: `[V, C8, H/8, W/8]`, a skip for the decoder.
        stride16: `[V, C16, h, w]`, the deepest features.
        appearance: `[V, D, H/8, W/8]`, what the discriminative read compares; None in a network without one.
    """

    frame: Tensor
    key: Tensor
    value: Tensor
    stride4: Tensor
    stride8: Tensor
    stride16: Tensor
    appearance: Tensor | None = None

    def of_rows(self, video: Tensor) -> FrameFeatures:
        """Repeat for rows: row b belongs to frame `video[b]`.

        Args:
            video: `[B]` int64, indices into V.

        Returns:
            The same record with `B` in place of `V`.
        """
        return self._changed(lambda tensor: of_rows(tensor, video))

    def detach(self) -> FrameFeatures:
        """The same record without its graph."""
        return self._changed(Tensor.detach)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> FrameFeatures:
        return FrameFeatures(
            frame=change(self.frame),
            key=change(self.key),
            value=change(self.value),
            stride4=change(self.stride4),
            stride8=change(self.stride8),
            stride16=change(self.stride16),
            appearance=None if self.appearance is None else change(self.appearance),
        )


def of_rows(features: Tensor, video: Tensor) -> Tensor:
    """What belongs to each row: `features [V, ...]` at `video [B]`, as `[B, ...]`. Those of a single frame are not
    copied.

    >>> import torch
    >>> of_rows(torch.ones(1, 2), torch.zeros(3, dtype=torch.int64)).shape
    torch.Size([3, 2])
    """
    return features.expand(len(video), *features.shape[1:]) if len(features) == 1 else features[video]
