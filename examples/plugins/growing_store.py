"""A growing key-value store, as STM, STCN and XMem hold one, capped: the same two methods on a bank of K slots."""

import math

import torch
from torch import Tensor

from stmemory.memory import MemoryBank, space_time_read


class GrowingStore:
    """What such models hold: one frame more of keys and values at each `add`."""

    def __init__(self) -> None:
        self.keys, self.values = torch.empty(0), torch.empty(0)  # [B, Ck, T h w] and [B, Cv, T h w] after T frames

    def add(self, key: Tensor, value: Tensor) -> None:
        self.keys = torch.cat([self.keys, key.flatten(2)], 2)
        self.values = torch.cat([self.values, value.flatten(2)], 2)

    def read(self, query: Tensor) -> Tensor:
        scores = self.keys.transpose(1, 2) @ query.flatten(2) / math.sqrt(query.shape[1])
        return (self.values @ scores.softmax(1)).unflatten(2, query.shape[2:])  # [B, Cv, h, w]

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class CappedStore:
    """The same in constant memory: key and value of a frame, side by side, are one template; the first is kept for
    good."""

    def __init__(self, slots: int, key_channels: int) -> None:
        self.channels = key_channels
        self.bank = MemoryBank(slots, policy="least_similar", key=lambda template: template[:, :key_channels])

    def add(self, key: Tensor, value: Tensor) -> None:
        self.bank.write(torch.cat([key, value], 1), pinned=self.bank.rows == 0)

    def read(self, query: Tensor) -> Tensor:
        values = self.bank.templates[:, :, self.channels :]  # [B, K, Cv, h, w]
        recalled = space_time_read(query.flatten(2), self.bank.keys.flatten(3), values.flatten(3), self.bank.valid)
        return recalled.unflatten(2, query.shape[2:])  # [B, Cv, h, w]


def main(frames: int = 60) -> None:
    growing, capped = GrowingStore(), CappedStore(slots=5, key_channels=16)
    for frame in range(frames):
        key, value = torch.randn(2, 16, 6, 8), torch.randn(2, 32, 6, 8)  # of two objects
        for store in (growing, capped):
            store.add(key, value)
        if frame % 20 == 4:
            far = (growing.read(key) - capped.read(key)).abs().max()
            print(
                f"frame {frame}: growing {growing.nbytes:,} bytes, capped {capped.bank.nbytes:,}, read-outs differ by "
                f"{far:.1e}"
            )


if __name__ == "__main__":
    main()
