"""Tiny training material, and the configuration of a tiny run, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stmemory.training.config import Phase, TrainingConfig
from stmemory.training.data.material import Item, Photo, pack

TINY = TrainingConfig(
    phases=(
        Phase(steps=2, size=32, frames=5, batch=1, capacity=3, frozen=4),
        Phase(steps=2, size=48, frames=6, batch=1, capacity=3, segment=2, gap=3),
    ),
    warmup=1,
    bootstrap_steps=4,
)


def save_still(folder: Path, name: str, *, images: str = "images", masks: str = "masks", seed: int = 0) -> None:
    """A noisy picture 80 x 64 with a bright rectangle, and its palette mask with id 1."""
    for each in (images, masks):
        (folder / each).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 90, (64, 80, 3), dtype=np.uint8)
    ids = np.zeros((64, 80), np.uint8)
    ids[15:45, 20 + 5 * (seed % 4) : 60] = 1
    pixels[ids == 1] = (240, 60 * (seed % 4), 20)
    Image.fromarray(pixels).save(folder / images / f"{name}.jpg", quality=95)
    mask = Image.frombytes("P", (80, 64), ids.tobytes())
    mask.putpalette([0, 0, 0, 255, 0, 0])
    mask.save(folder / masks / f"{name}.png")


def pack_tiny(root: Path) -> Path:
    """Three such pictures and a cut-out, packed: the path of the file."""
    for number in range(3):
        save_still(root / "things", str(number), seed=number)
    (root / "things" / "cutouts").mkdir()
    star = np.zeros((30, 30, 4), np.uint8)
    star[5:25, 5:25] = (20, 220, 40, 255)
    Image.fromarray(star).save(root / "things" / "cutouts" / "star.png")
    pack(root, root / "material.safetensors")
    return root / "material.safetensors"


class MadePictures:
    """Pictures that no codec had a hand in, the same everywhere: two photos, a background, a cut-out, a turning one, a
    video."""

    def __init__(self) -> None:
        kinds = ["photo"] * 2 + ["background"] + ["cutout"] * 11 + ["video"] * 5
        series = [-1] * 4 + [0] * 10 + [1] * 5
        self.items = tuple(
            Item(index, kind, index == 3, number, f"{kind}s/{index}")
            for index, (kind, number) in enumerate(zip(kinds, series, strict=True))
        )

    def photo(self, index: int) -> Photo:
        """Two rectangles, ids 1 and 2, on noise."""
        ids = np.zeros((60, 80), np.uint8)
        ids[10:40, 15:45] = 1
        ids[25:55, 50 + index % 5 : 75] = 2
        return Photo(self.pixels(index), torch.from_numpy(ids))

    def pixels(self, index: int) -> Tensor:
        """Noise with two brighter rectangles."""
        pixels = self._noise(index, 3, 120)
        pixels[0, 10:40, 15:45] += 90
        pixels[1, 25:55, 50 + index % 5 : 75] += 120
        return torch.from_numpy(pixels)

    def cutout(self, index: int) -> Tensor:
        """A noisy rectangle with a clear rim, wider from some sides."""
        pixels = self._noise(index, 4, 250)[:, :30, :40]
        pixels[3] = 0
        pixels[3, 4:26, 4 : 26 + index] = 255
        return torch.from_numpy(pixels.copy())

    def _noise(self, seed: int, channels: int, top: int) -> NDArray[np.uint8]:
        return np.random.default_rng(seed).integers(0, top, (channels, 60, 80), dtype=np.uint8)
