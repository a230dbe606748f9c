"""Tensors as plain bytes, for pickles: torch hands tensors to other processes in shared memory, where a write in place
is seen by both."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Packed", "packed", "unpacked"]

Packed = dict[str, tuple[torch.dtype, tuple[int, ...], str, bytes]]


def packed(tensors: Mapping[str, Tensor]) -> Packed:
    """Tensors by name as dtype, shape, device and bytes; their graph is left behind.

    >>> unpacked(packed({"a": torch.tensor([True, False])}))
    {'a': tensor([ True, False])}
    """
    return {name: (t.dtype, tuple(t.shape), str(t.device), _bytes(t)) for name, t in tensors.items()}


def unpacked(known: Packed) -> dict[str, Tensor]:
    """The tensors that `packed` took, as new ones."""
    found = {}
    for name, (dtype, shape, device, content) in known.items():
        flat = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
        found[name] = flat.view(dtype).view(shape).to(device)
    return found


def _bytes(tensor: Tensor) -> bytes:
    content: bytes = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return content
