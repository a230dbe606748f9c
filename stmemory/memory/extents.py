"""Extents: the part of its positions that a template has. Outside of it is padding, which no equation sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from stmemory.errors import ShapeError

__all__ = ["are_within", "cells_in_use", "checked_extent", "inside", "slices_of", "whole_extent", "with_extents"]


def whole_extent(shape: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """The extent that is all of S, int64 `[d, 2]`: the first position and the end along each dimension.

    >>> whole_extent((30, 54)).tolist()
    [[0, 30], [0, 54]]
    """
    return torch.tensor([[0, length] for length in shape], dtype=torch.int64, device=device).view(-1, 2)


def checked_extent(extent: object, rows: int, shape: Sequence[int]) -> Tensor:
    """The extents that a user gave for R templates `[R, C, *S]`, int64 `[R, d, 2]` on their own device.

    Raises:
        ShapeError: they are of another kind or shape, or one is empty or not inside of S.
    """
    whole = isinstance(extent, Tensor) and not extent.is_floating_point() and not extent.is_complex()
    fits = isinstance(extent, Tensor) and extent.dtype != torch.bool and extent.shape == (rows, len(shape), 2)
    if isinstance(extent, Tensor) and whole and fits and are_within(extent, shape):
        return extent.to(torch.int64)
    came = f"{extent.dtype} {extent.tolist()}" if isinstance(extent, Tensor) else repr(extent)
    raise ShapeError(
        f"write: expected extents as whole numbers [{rows}, {len(shape)}, 2], each 0 <= first < end within "
        f"{tuple(shape)}, got {came}; None is all of it"
    )


def are_within(extent: Tensor, shape: Sequence[int]) -> bool:
    """Whether extents `[*, d, 2]` have a position each, and all of these are in S.

    >>> are_within(torch.tensor([[[0, 4]]]), (4,)), are_within(torch.tensor([[[2, 2]]]), (4,))
    (True, False)
    """
    begin, end = extent.unbind(-1)
    fine = (begin >= 0) & (begin < end) & (end <= torch.tensor(tuple(shape), device=end.device))
    return bool(fine.all())


def inside(extent: Tensor, shape: Sequence[int]) -> Tensor:
    """Which positions are in each extent: `[*, d, 2]` to bool `[*, *S]`.

    >>> inside(torch.tensor([[1, 3]]), (4,)).tolist()
    [False, True, True, False]
    """
    before = extent.shape[:-2]
    found = torch.ones(*before, *shape, dtype=torch.bool, device=extent.device)
    for dim, length in enumerate(shape):
        place = torch.arange(length, device=extent.device)
        along = (place >= extent[..., dim, :1]) & (place < extent[..., dim, 1:])  # [*, S_dim]
        found &= along.view(*before, *[length if other == dim else 1 for other in range(len(shape))])
    return found


def cells_in_use(extent: Tensor, valid: Tensor, shape: Sequence[int]) -> Tensor:
    """Which positions are part of a template, bool `[B, K, *S]`: those in the extents `[B, K, d, 2]` of valid slots
    `[B, K]`.

    >>> cells_in_use(torch.tensor([[[[1, 3]], [[0, 4]]]]), torch.tensor([[True, False]]), (4,)).sum(2).tolist()
    [[2, 0]]
    """
    return inside(extent, shape) & valid.view(*valid.shape, *[1] * len(shape))


def slices_of(extent: Tensor) -> Iterator[tuple[slice, ...]]:
    """An index of each extent of `[P, d, 2]`, for tensors `[*S]`; waits for the device.

    >>> list(slices_of(torch.tensor([[[1, 3], [0, 2]]])))
    [(slice(1, 3, None), slice(0, 2, None))]
    """
    for one in extent.tolist():
        yield tuple(slice(first, end) for first, end in one)


def with_extents(contents: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Contents of a bank that was saved before there were extents, with them; others as they are."""
    if "extent" in contents or not {"templates", "valid"} <= set(contents) or contents["valid"].dim() != 2:
        return contents
    whole = whole_extent(contents["templates"].shape[3:], contents["valid"].device)
    return {**contents, "extent": whole.expand(*contents["valid"].shape, *whole.shape)}
