"""The memory bank in your own model: a recurrent denoiser that reads earlier frames from constant memory."""

import torch
from torch import Tensor, nn

from stmemory.memory import FusionCell, MemoryBank, ReadCache, SpaceTimeRead


class Denoiser(nn.Module):
    """Turns noisy frames into clean ones; all state is in the bank, which the caller owns."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, channels, 4, stride=4)
        self.read = SpaceTimeRead(nn.Conv2d(channels, 8, 1), nn.Conv2d(channels, channels, 1))
        self.fusion = FusionCell(channels)
        self.decoder = nn.ConvTranspose2d(2 * channels, 3, 4, stride=4)

    def new_bank(self) -> MemoryBank:
        return MemoryBank(5, policy="least_similar", fusion=self.fusion, key=self.read.key)

    def forward(self, frame: Tensor, bank: MemoryBank, cache: ReadCache) -> Tensor:
        features = self.encoder(frame)  # [B, C, H/4, W/4]
        bank.write(features)
        recalled = self.read(self.read.key(features), bank, cache)  # [B, C, H/4, W/4]
        return self.decoder(torch.cat([features, recalled], 1))  # [B, 3, H, W]


def main(frames: int = 30) -> set[int]:
    torch.manual_seed(0)
    model = Denoiser().eval()
    bank, cache, sizes = model.new_bank(), ReadCache(), set()
    with torch.inference_mode():
        for _ in range(frames):
            model(torch.rand(2, 3, 32, 48), bank, cache)
            sizes.add(bank.nbytes + cache.nbytes)
    print(f"{frames} frames, bytes held: {sizes}")
    return sizes


if __name__ == "__main__":
    main()
