"""A frame as the memory saw it: attention of chosen cells over the slots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stmemory.errors import BankError, OptionError, ShapeError
from stmemory.io.drawing import contours
from stmemory.io.frames import WorkingSize
from stmemory.memory.bank import MemoryBank
from stmemory.memory.read import SpaceTimeRead
from stmemory.memory.slots import SlotInfo

__all__ = [
    "Moment",
    "ObjectMoment",
    "Point",
    "Thumbnail",
    "attention_of",
    "cells_of",
    "check_point",
    "interesting_points",
    "memory_keys",
    "slot_attention",
    "thumbnail",
]


def memory_keys(read: SpaceTimeRead, bank: MemoryBank) -> Tensor:
    """The keys that the read compares queries with.

    Args:
        read: the read.
        bank: the memory, of B rows.

    Returns:
        `[B, K, Ck, *S]`, the bank's own tensor where it keeps these keys; those of empty slots mean nothing.

    Raises:
        BankError: nothing was written to the bank yet.

    >>> read, bank = SpaceTimeRead(torch.nn.Conv2d(8, 4, 1), torch.nn.Conv2d(8, 6, 1)), MemoryBank(3)
    >>> bank.write(torch.rand(2, 8, 5, 7))
    >>> memory_keys(read, bank).shape
    torch.Size([2, 3, 4, 5, 7])
    """
    if not bank.rows:
        raise BankError("memory_keys: expected a bank with a template, got an empty one; write() first")
    if bank.key is read.key:
        return bank.keys
    keys: Tensor = read.key(bank.templates.flatten(0, 1))  # [B K, Ck, *S]
    return keys.view(bank.rows, bank.capacity, *keys.shape[1:])


def slot_attention(
    query: Tensor,
    keys: Tensor,
    valid: Tensor,
    *,
    affinity: str = "dot",
    scale: float | None = None,
    top_k: int | None = None,
) -> Tensor:
    """The weights of eq. 13: softmax of the affinity over all cells of all slots in use, as `space_time_read` computes
    it.

    The weighted sum of the values with these weights is what the read recalls. They are `m` times the memory's cells,
    so ask for the query cells that you mean to look at.

    Args:
        query: `[B, Ck, m]`, or `[1, Ck, m]` for all rows: the cells in question.
        keys: `[B, K, Ck, n]`, see `memory_keys`.
        valid: bool `[B, K]`, the slots in use, or `[B, K, n]`, the cells in use, see `MemoryBank.cells`.
        affinity: see `SpaceTimeRead`.
        scale: see `SpaceTimeRead`.
        top_k: see `SpaceTimeRead`.

    Returns:
        `[B, m, K, n]`, float32 (float64 for such queries); sums to 1 over K and n. Zeros for a row without any slot in
        use.

    Raises:
        ShapeError: the shapes do not fit.

    >>> weights = slot_attention(torch.rand(1, 4, 6), torch.rand(2, 3, 4, 5), torch.ones(2, 3).bool())
    >>> weights.shape, weights.sum((2, 3)).allclose(torch.ones(2, 6))
    (torch.Size([2, 6, 3, 5]), True)
    """
    fits = query.dim() == 3 and keys.dim() == 4 and valid.shape in (keys.shape[:2], (*keys.shape[:2], keys.shape[3]))
    if not fits or query.shape[0] not in (1, len(keys)) or query.shape[1] != keys.shape[2]:
        raise ShapeError(
            "slot_attention: expected query [B or 1, Ck, m], keys [B, K, Ck, n] and valid [B, K] or [B, K, n], got "
            f"{tuple(query.shape)}, {tuple(keys.shape)} and {tuple(valid.shape)}; flatten the cells"
        )
    rows, slots, channels, cells = keys.shape
    scale = 1 / math.sqrt(channels) if scale is None else scale
    valid = valid if valid.dim() == 3 else valid[:, :, None]  # [B, K, n or 1]
    with torch.autocast(query.device.type, enabled=False):
        wide = torch.promote_types(query.dtype, torch.float32)
        keys = keys.to(wide).masked_fill(~valid[:, :, None], 0.0)  # what an empty slot holds may be anything
        scores = torch.einsum("bcm,bkcn->bmkn", query.to(wide).expand(rows, -1, -1), keys)
        if affinity == "l2":  # without |q|^2, which is the same for all of a query's scores
            scores = 2 * scores - keys.square().sum(2)[:, None]
        hidden = ~valid[:, None].expand_as(scores)
        flat = (scores * scale).masked_fill(hidden, torch.finfo(wide).min).flatten(2)  # [B, m, K n]
        if top_k is None or top_k >= slots * cells:
            weights = flat.softmax(2)
        else:
            best, where = flat.topk(top_k, dim=2)
            weights = torch.zeros_like(flat).scatter(2, where, best.softmax(2))
        return weights.view_as(scores).masked_fill(hidden, 0.0)


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
        valid: bool `[K, n]`, the cells in use.
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
    seen &= (y < mask.shape[0])[:, None] & (x < mask.shape[1])[None]  # the padding belongs to no object
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
