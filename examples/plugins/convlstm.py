"""A ConvLSTM that predicts the next frame, with a bank beside its state: what the state forgot can be read again."""

import torch
from torch import Tensor, nn

from stmemory.memory import FusionCell, MemoryBank, ReadCache, SpaceTimeRead


class RememberingConvLSTM(nn.Module):
    """A frame `[B, 3, H, W]` and the state in, the next frame and the next state out. The caller owns state, bank and
    cache."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(
            3 + 2 * hidden, 4 * hidden, 3, padding=1
        )  # of the frame, the hidden state and what was recalled
        self.read = SpaceTimeRead(nn.Conv2d(hidden, 8, 1), nn.Conv2d(hidden, hidden, 1))
        self.fusion = FusionCell(hidden)
        self.head = nn.Conv2d(hidden, 3, 1)

    def new_memory(self, slots: int = 5) -> tuple[MemoryBank, ReadCache]:
        return MemoryBank(slots, policy="least_similar", fusion=self.fusion, key=self.read.key), ReadCache()

    def new_state(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        zeros = frame.new_zeros(len(frame), self.hidden, *frame.shape[2:])
        return zeros, zeros

    def forward(
        self, frame: Tensor, state: tuple[Tensor, Tensor], bank: MemoryBank, cache: ReadCache
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, cell = state  # [B, hidden, H, W] each
        recalled = self.read(self.read.key(hidden), bank, cache) if bank.rows else torch.zeros_like(hidden)
        keep, write, show, new = self.gates(torch.cat([frame, hidden, recalled], 1)).chunk(4, 1)
        cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
        hidden = show.sigmoid() * cell.tanh()
        bank.write(hidden)
        return self.head(hidden), (hidden, cell)


def main(frames: int = 40) -> list[int]:
    torch.manual_seed(0)
    model = RememberingConvLSTM().eval()
    (bank, cache), frame, sizes = model.new_memory(), torch.rand(2, 3, 16, 24), []
    state = model.new_state(frame)
    with torch.inference_mode():
        for _ in range(frames):
            frame, state = model(frame, state, bank, cache)  # rolled out: its own prediction comes next
            sizes.append(bank.nbytes + cache.nbytes)
    print(f"{frames} frames, bytes held: {set(sizes)}")
    return sizes


if __name__ == "__main__":
    main()
