"""Several processes as one run: torch.distributed, as torchrun starts it. Each has a share of every batch."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stmemory.errors import OptionError
from stmemory.weights.devices import usable_device

__all__ = ["World"]


class World:
    """The processes of a run, all alike but for their number; a single one by default.

    Args:
        rank: number of this process.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def from_environment(cls, device: str) -> World:
        """Join the processes that torchrun started; without torchrun, be alone.

        Args:
            device: "cpu" meets over gloo; "cuda" over NCCL, each process on the GPU of its number on this machine.

        Raises:
            OptionError: a GPU is named by its number, or there are fewer than processes; or there is no such device.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        cuda, rank = device.partition(":")[0] == "cuda", int(os.environ.get("LOCAL_RANK", "0"))
        if cuda and device != "cuda":
            raise OptionError(
                f"device: expected cuda, of which each of the {size} "
                f"processes takes its own, got {device!r} for all of them"
            )
        if cuda and rank >= torch.cuda.device_count():
            raise OptionError(
                f"device: expected a GPU for each process of this machine, got {torch.cuda.device_count()} of them"
            )
        if cuda:
            torch.cuda.set_device(rank)
        usable_device(device)
        # Its functions have the group as a default argument. Imported after the group is made (an optimiser does), they
        # would keep it past `close`, with threads that abort the process if they still run while Python ends.
        importlib.import_module("torch.distributed.nn.functional")
        dist.init_process_group("nccl" if cuda else "gloo")
        return cls(dist.get_rank(), size)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def part(self, batch: int) -> range:
        """Which clips of a batch are this process's.

        Raises:
            OptionError: the batch cannot be shared evenly.

        >>> World(1, 2).part(8)
        range(4, 8)
        """
        if batch % self.size:
            raise OptionError(f"batch: expected a multiple of the {self.size} processes, got {batch} clips a step")
        each = batch // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of every process's values, of one shape."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether a flag is up in at least one process; all ask at the same place.

        >>> World().any(True, torch.device("cpu"))
        True
        """
        return flag if self.size == 1 else bool(self.mean(torch.tensor(float(flag), device=device)) > 0)

    def object_weights(self, counts: Tensor) -> Tensor:
        """Weights `[S]` that make the mean of the processes' means over `counts [S]` objects the mean over all
        objects."""
        if self.size == 1:
            return torch.ones_like(counts, dtype=torch.float32)
        return counts / self.mean(counts.float()).clamp_min(1 / self.size)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Put the mean of all processes' gradients into each; a parameter that no process used keeps none."""
        if self.size == 1:
            return
        used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=parameters[0].device)
        dist.all_reduce(used)
        shared = [p for p, count in zip(parameters, used.tolist(), strict=True) if count]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in shared])
        flat = self.mean(flat)
        for parameter, values in zip(shared, torch.split(flat, [p.numel() for p in shared]), strict=True):
            parameter.grad = values.view_as(parameter).clone()

    def gather(self, lines: Sequence[str]) -> list[str]:
        """The lines of all processes."""
        if self.size == 1:
            return list(lines)
        every: list[list[str]] = [[] for _ in range(self.size)]
        dist.all_gather_object(every, list(lines))
        return [line for one in every for line in one]

    def close(self) -> None:
        """Part from the others."""
        if self.size > 1:
            dist.destroy_process_group()
