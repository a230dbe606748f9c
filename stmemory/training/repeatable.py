"""Arithmetic that repeats: on the CPU the same step gives the same bits, however its threads are scheduled. Trains
nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic

__all__ = ["repeatable"]


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Have torch add gradients in a fixed order, on the CPU, for as long as the context lasts.

    Several objects share the features of one frame, so its gradient is a sum over them. With more than one thread torch
    adds in the order in which the threads come, which differs in the last bits from run to run; in a fixed order it is
    no slower. Elsewhere nothing changes: not all operations have such an order on CUDA.

    Args:
        device: where the arithmetic is done.

    >>> with repeatable(torch.device("cpu")):
    ...     torch.are_deterministic_algorithms_enabled()
    True
    """
    if device.type != "cpu":
        yield
        return
    details: Any = torch.utils.deterministic  # a module with properties, which its types do not know
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = details.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    details.fill_uninitialized_memory = False  # nothing here reads what was not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        details.fill_uninitialized_memory = filled
