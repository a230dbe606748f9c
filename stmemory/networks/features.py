"""The record that travels from a query encoder to the read, the decoder and the memory encoder. No behaviour but indexing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["FrameFeatures"]


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
    """

    frame: Tensor
    key: Tensor
    value: Tensor
    stride4: Tensor
    stride8: Tensor
    stride16: Tensor

    def of_rows(self, video: Tensor) -> FrameFeatures:
        """Repeat for rows: row b belongs to frame `video[b]`.

        Args:
            video: `[B]` int64, indices into V.

        Returns:
            The same record with `B` in place of `V`.
        """
        return FrameFeatures(
            self.frame[video],
            self.key[video],
            self.value[video],
            self.stride4[video],
            self.stride8[video],
            self.stride16[video],
        )
