"""Where in a frame an object is looked for and memorised: a rectangle of cells around its last place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from stmemory.io.masks import bounding_box
from stmemory.networks.layers import FrameFeatures

__all__ = ["Part"]

_CELL = 16  # px
_SIZES, _STEP = 6, 4  # of parts along each side, at most; cells between two of them, at least
_MOST = 0.7  # of a frame: a part that is larger than this is all of it


@dataclass(frozen=True)
class Part:
    """A rectangle of cells of stride 16; ends are excluded.

    >>> import torch
    >>> mask = torch.zeros(64, 96)
    >>> mask[16:30, 40:50] = 1
    >>> Part.around(mask, 1)
    Part(top=0, bottom=4, left=1, right=5)
    """

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def whole(cls, frame: Tensor) -> Self:
        """All cells of a frame `[*, H, W]`."""
        return cls(0, frame.shape[-2] // _CELL, 0, frame.shape[-1] // _CELL)

    @classmethod
    def around(cls, mask: Tensor, margin: int, *, leaving: bool = False) -> Self | None:
        """The cells that a mask `[H, W]` in [0, 1] touches with 0.5 or more, and at least so many more on each side.

        Args:
            mask: of the object.
            margin: cells.
            leaving: give all of the frame for an object at its edge.

        Returns:
            The rectangle, of one of few sizes; None where the mask is empty.
        """
        there = nn.functional.max_pool2d(mask[None], _CELL)[0] >= 0.5  # [h, w]
        box = bounding_box(there)
        if box is None:
            return None
        (top, bottom, left, right), (height, width) = box, there.shape
        if leaving and (top == 0 or bottom == height or left == 0 or right == width):
            return cls.whole(mask)
        top, bottom = _widened(top, bottom, margin, height)
        left, right = _widened(left, right, margin, width)
        if (bottom - top) * (right - left) > _MOST * height * width:
            return cls.whole(mask)
        return cls(top, bottom, left, right)

    @property
    def extent(self) -> list[list[int]]:
        """The extent of its template, `[2, 2]`, see `MemoryBank.write`."""
        return [[self.top, self.bottom], [self.left, self.right]]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Its top, bottom, left and right, px."""
        return self.top * _CELL, self.bottom * _CELL, self.left * _CELL, self.right * _CELL

    def of(self, maps: Tensor, stride: int) -> Tensor:
        """The part of maps `[*, H / stride, W / stride]`; copies nothing."""
        at = _CELL // stride
        return maps[..., self.top * at : self.bottom * at, self.left * at : self.right * at]

    def features(self, features: FrameFeatures) -> FrameFeatures:
        """The part of the features of frames, as if there were no more of them."""
        width = features.frame.shape[-1]
        return features.changed(lambda maps: self.of(maps, width // maps.shape[-1]))


def _widened(first: int, end: int, margin: int, length: int) -> tuple[int, int]:
    """A span with a margin, of a multiple of a sixth of what there is, and of four cells at least: the library of the
    convolutions prepares itself for every size anew, which takes time, and memory that it keeps."""
    first, end = max(0, first - margin), min(length, end + margin)
    step = max(_STEP, -(-length // _SIZES))
    whole = min(length, -(-(end - first) // step) * step)
    first = min(max(0, first - (whole - (end - first)) // 2), length - whole)
    return first, first + whole
