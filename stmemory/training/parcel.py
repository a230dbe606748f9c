"""Parcels: a record with many tensors as one block of bytes, to be sent to a process or a device at once. Knows no
clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

__all__ = ["Parcel", "with_tensors"]

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
