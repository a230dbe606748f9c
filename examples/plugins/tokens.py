"""A token memory in a vision transformer: before its last layer each frame's tokens attend to those of K frames in the
past."""

import torch
from torch import Tensor, nn

from stmemory.memory import FusionCell, MemoryBank, memory_tokens


class RememberingTower(nn.Module):
    """Frames `[B, 3, H, W]` in, tokens `[B, L, C]` out; all that is remembered is in the bank, which the caller
    owns."""

    def __init__(self, channels: int = 32, *, size: tuple[int, int] = (32, 48), patch: int = 8) -> None:
        super().__init__()
        cells = size[0] // patch * (size[1] // patch)  # L
        self.patches = nn.Conv2d(3, channels, patch, stride=patch)
        self.places = nn.Parameter(0.02 * torch.randn(1, cells, channels))
        self.first, self.last = (
            nn.TransformerEncoderLayer(channels, 4, 2 * channels, batch_first=True) for _ in range(2)
        )
        self.recall = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.fusion = FusionCell(channels, spatial_dims=1, kernel_size=1)  # tokens have no neighbours

    def new_bank(self, slots: int = 4) -> MemoryBank:
        return MemoryBank(slots, policy="least_similar", fusion=self.fusion)

    def forward(self, frame: Tensor, bank: MemoryBank) -> Tensor:
        tokens = self.first(self.patches(frame).flatten(2).transpose(1, 2) + self.places)  # [B, L, C]
        seen = tokens
        if bank.rows:
            memory, empty = memory_tokens(bank)  # [B, K L, C], and where it holds nothing [B, K L]
            tokens = tokens + self.recall(tokens, memory, memory, key_padding_mask=empty, need_weights=False)[0]
        bank.write(seen.transpose(1, 2))  # a template is [B, C, L]
        return self.last(tokens)


def main(frames: int = 40) -> list[int]:
    torch.manual_seed(0)
    tower = RememberingTower().eval()
    bank, sizes = tower.new_bank(), []
    with torch.inference_mode():
        for _ in range(frames):
            tokens = tower(torch.rand(2, 3, 32, 48), bank)
            sizes.append(bank.nbytes)
    print(f"{frames} frames of {tokens.shape[1]} tokens, bytes held: {set(sizes)}")
    return sizes


if __name__ == "__main__":
    main()
