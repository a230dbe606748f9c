"""`PredictedFrame`: one frame that was not seen yet, and what a user does with it. Knows no networks."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stmemory.files import png_path, whole_file

__all__ = ["PredictedFrame"]


@dataclass(frozen=True, eq=False)
class PredictedFrame:
    """A prediction, at the size of the video's own frames.

    The tensor is made in inference mode: `clone()` it to change it in place or to use it in autograd.

    Attributes:
        frame_index: which frame of the video it stands for, from 0.
        pixels: float32 `[C, H, W]` in [0, 1]: grey with C = 1, RGB with C = 3, as the network is made.

    >>> import torch
    >>> PredictedFrame(3, torch.ones(1, 2, 4)).picture().shape
    (2, 4, 3)
    """

    frame_index: int
    pixels: Tensor

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.pixels.shape[1:]))
        return f"PredictedFrame(frame {self.frame_index}, {size} (H x W), {'grey' if len(self.pixels) == 1 else 'RGB'})"

    def picture(self) -> NDArray[np.uint8]:
        """As uint8 RGB `[H, W, 3]`; grey has its value three times."""
        values = np.rint(self.pixels.permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a PNG, grey or RGB. The file appears whole or not at all.

        Args:
            path: where it goes, `.png`. Missing parent folders are made; a file that is there is replaced.

        Raises:
            OptionError: the name has another ending than `.png`; or it is no name of a file.
            FileError: the file cannot be written there.
        """
        picture = self.picture()
        with whole_file(png_path(path, "for another format take picture(), and write that")) as part:
            Image.fromarray(picture if len(self.pixels) == 3 else picture[:, :, 0]).save(part, format="PNG")
