"""What is kept of one frame to tell later where it was read from: the frame, and for each object keys and slots as they
were.

Owns these records, the cells and points of a frame, and the attention of a point. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stmemory.errors import OptionError
from stmemory.frames import WorkingSize
from stmemory.inspection.attention import slot_attention
from stmemory.memory.read import SpaceTimeRead
from stmemory.memory.slots import SlotInfo
from stmemory.result import contours

__all__ = [
    "Moment",
    "ObjectMoment",
    "Point",
    "Thumbnail",
    "attention_of",
    "cells_of",
    "check_point",
    "interesting_points",
    "thumbnail",
]

LONGEST = 400  # px, of a thumbnail's longer side
MOST_CELLS = 128  # of an object, that stand for all of its cells

Point = tuple[int, int]  # x and y in pixels of the frame


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A frame made small, with what was found in it.

    Attributes:
        frame: its index.
        picture: uint8 RGB `[H', W', 3]`.
        ids: int32 `[H', W']`.
    """

    frame: int
    picture: NDArray[np.uint8]
    ids: NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.picture.nbytes + self.ids.nbytes


@dataclass(frozen=True, eq=False)
class ObjectMoment:
    """One object's memory as one frame read it.

    Attributes:
        keys: `[K, Ck, n]`.
        valid: bool `[K]`.
        slots: those in use, by slot number.
        origins: thumbnails of the slots' frames, by frame; a frame that the inspector did not see is missing.
        cells: int64 `[m]`, query cells that stand for the object, at most 128; none where it was not seen.
        points: where to look by default: the object's centre, and the point of its contour that is furthest from it;
            where it is not seen, those of the last frame that showed it, or the frame's middle.
    """

    keys: Tensor
    valid: Tensor
    slots: Mapping[int, SlotInfo]
    origins: Mapping[int, Thumbnail]
    cells: Tensor
    points: tuple[Point, ...]


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame and the memories that it read.

    Attributes:
        frame: its index.
        size: sizes of the window that it was looked at through.
        query: `[Ck, h, w]`, its key.
        picture: the window, made small, with what was found in it.
        objects: by id.
        corner: the window's first column and row in the frame, px.
        frame_size: the frame's height and width, px.
    """

    frame: int
    size: WorkingSize
    query: Tensor
    picture: Thumbnail
    objects: Mapping[int, ObjectMoment]
    corner: Point
    frame_size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept, thumbnails of slots apart."""
        keys = sum(part.keys.nbytes + part.valid.nbytes for part in self.objects.values())
        return self.query.nbytes + self.picture.nbytes + keys

    def in_window(self, point: Point) -> Point:
        """A pixel of the frame as a pixel of the window; of one outside, the nearest."""
        x, y = point[0] - self.corner[0], point[1] - self.corner[1]
        return min(max(x, 0), self.size.frame_width - 1), min(max(y, 0), self.size.frame_height - 1)

    def cell_of(self, point: Point) -> tuple[int, int]:
        """Row and column of the query cell that a pixel of the frame lies in."""
        x, y = self.in_window(point)
        rows, columns = self.query.shape[1:]
        down = (y + 0.5) * self.size.height / self.size.frame_height / self.size.padded_height
        across = (x + 0.5) * self.size.width / self.size.frame_width / self.size.padded_width
        return min(rows - 1, int(down * rows)), min(columns - 1, int(across * columns))


def check_point(point: Point, height: int, width: int) -> None:
    """Make sure that a point lies in the frame.

    Raises:
        OptionError: it does not.

    >>> check_point((63, 47), 48, 64)
    """
    x, y = point
    if not (0 <= x < width and 0 <= y < height):
        raise OptionError(
            f"point: expected x in 0..{width - 1} and y in 0..{height - 1}, got {x},{y}; x counts from the left, y "
            "from the top"
        )


def thumbnail(frame: Tensor, ids: Tensor, *, frame_index: int) -> Thumbnail:
    """Make a frame small.

    Args:
        frame: `[3, H, W]` in [0, 1].
        ids: `[H, W]`.
        frame_index: its index.

    >>> thumbnail(torch.zeros(3, 600, 800), torch.zeros(600, 800).int(), frame_index=0).ids.shape
    (300, 400)
    """
    height, width = ids.shape
    shrink = min(1.0, LONGEST / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    pixels = (frame.permute(1, 2, 0).cpu().numpy() * 255 + 0.5).astype(np.uint8)
    picture = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    small = Image.fromarray(ids.cpu().numpy().astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    return Thumbnail(frame_index, picture, np.asarray(small))


def interesting_points(mask: NDArray[np.bool_]) -> tuple[Point, ...]:
    """Where to look at an object by default.

    Args:
        mask: `[H, W]`, its pixels.

    Returns:
        The pixel of the object that is nearest to its centre of mass, and the pixel of its contour that is furthest
        from that one; nothing for an object without pixels.

    >>> mask = np.zeros((9, 12), np.bool_)
    >>> mask[2:7, 1:10] = True
    >>> interesting_points(mask)
    ((5, 4), (1, 2))
    """
    inside = np.argwhere(mask)  # [P, 2], y and x
    if len(inside) == 0:
        return ()
    centre = inside[np.square(inside - inside.mean(0)).sum(1).argmin()]
    edge = np.argwhere(contours(mask.astype(np.uint8)) & mask)
    edge = edge if len(edge) else inside  # the object fills the frame
    far = edge[np.square(edge - centre).sum(1).argmax()]
    return tuple((int(x), int(y)) for y, x in (centre, far))


def cells_of(mask: Tensor, size: WorkingSize, grid: tuple[int, int]) -> Tensor:
    """Query cells that stand for an object.

    Args:
        mask: bool `[H, W]` at the frame's own size.
        size: the frame's sizes.
        grid: h and w.

    Returns:
        int64 `[m]`, indices into the h w cells whose middle lies in the object, at most 128, evenly chosen; for an
        object that covers no middle, the cell of its first pixel. Empty for an object without pixels.

    >>> cells_of(torch.ones(32, 48).bool(), WorkingSize.of(32, 48, None, 16), (2, 3)).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    rows, columns = grid
    stride = size.padded_height // rows, size.padded_width // columns
    y = (torch.arange(rows) * stride[0] + stride[0] // 2) * size.frame_height // size.height
    x = (torch.arange(columns) * stride[1] + stride[1] // 2) * size.frame_width // size.width
    mask = mask.cpu()
    seen = mask[y.clamp(max=mask.shape[0] - 1)][:, x.clamp(max=mask.shape[1] - 1)]
    seen &= (y < mask.shape[0])[:, None] & (x < mask.shape[1])[None]  # the padding is nobody's
    cells = seen.flatten().nonzero().squeeze(1)
    if len(cells) == 0 and bool(mask.any()):
        top, left = mask.nonzero()[0].tolist()
        row = top * size.height // size.frame_height // stride[0]
        cells = torch.tensor([row * columns + left * size.width // size.frame_width // stride[1]])
    return cells[torch.linspace(0, len(cells) - 1, min(len(cells), MOST_CELLS)).round().long()] if len(cells) else cells


def attention_of(moment: Moment, object_id: int, cells: Tensor, *, read: SpaceTimeRead) -> NDArray[np.float32]:
    """Where query cells read from, the mean over them, `[K, h, w]`; sums to 1.

    Args:
        moment: the frame.
        object_id: whose memory.
        cells: int64 `[m]`, indices into the h w cells, one or more.
        read: the network's; its affinity, scale and top-k count.
    """
    part = moment.objects[object_id]
    query = moment.query.flatten(1)[None, :, cells.to(moment.query.device)]  # [1, Ck, m]
    weights = slot_attention(
        query, part.keys[None], part.valid[None], affinity=read.affinity, scale=read.scale, top_k=read.top_k
    )
    mean = weights[0].mean(0).float().view(len(part.valid), *moment.query.shape[1:])
    heat: NDArray[np.float32] = mean.cpu().numpy()
    return heat
