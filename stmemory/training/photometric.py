"""Photometric change: exposure, colour, blur and noise that drift over a clip. Never moves a pixel's label."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from stmemory.training.motion import walk

__all__ = ["degrade"]

_REACH = 3  # pixels on either side that a blur may take from


def degrade(rng: Generator, frames: Tensor, *, blur: float, grey: float) -> Tensor:
    """Drifting gain, gamma and colour; sometimes blur, noise or greyscale.

    Args:
        rng: the only source of chance.
        frames: float32 [T, 3, H, W] in [0, 1].
        blur: probability that the clip is out of focus, more in some frames than in others.
        grey: probability that the clip has no colour.

    Returns:
        uint8 [T, 3, H, W].

    Example:
        >>> degrade(np.random.default_rng(0), torch.full((2, 3, 8, 8), 0.5), blur=0.0, grey=0.0).shape
        torch.Size([2, 3, 8, 8])
    """
    length = frames.shape[0]
    drift = walk(rng, length, 5) * rng.choice([0.002, 0.01, 0.03])
    gain = (drift[:, :1] + rng.normal(0, 0.12)).clamp(-0.5, 0.4).exp()
    colour = gain * (drift[:, 1:4] + torch.from_numpy(rng.normal(0, 0.05, 3).astype(np.float32))).clamp(-0.3, 0.3).exp()
    gamma = (drift[:, 4] + rng.normal(0, 0.12)).clamp(-0.5, 0.5).exp()
    frames = (frames * colour[:, :, None, None]).clamp_(1e-4, 1)
    if rng.random() < 0.5:
        frames = frames.pow(gamma[:, None, None, None])
    if rng.random() < grey:
        frames = frames.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    if rng.random() < blur:
        sigma = (rng.uniform(0.3, 1.2) + walk(rng, length, 1)[:, 0] * 0.2).clamp(0.2, 1.8)
        frames = _blurred(frames, sigma)
    scaled = frames * 255
    if rng.random() < 0.5:
        seed = int(rng.integers(2**62))
        noise = torch.randn(scaled.shape, generator=torch.Generator().manual_seed(seed))
        scaled = scaled + noise * math.exp(rng.uniform(0, math.log(9)))
    return scaled.round_().clamp_(0, 255).to(torch.uint8) if scaled.is_contiguous() else scaled.round().clamp(0, 255).byte()


def _blurred(frames: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with one sigma per frame, in pixels; both axes one after the other."""
    length, channels = frames.shape[:2]
    offsets = torch.arange(-_REACH, _REACH + 1)
    kernel = (-0.5 * (offsets / sigma[:, None]).square()).exp()
    kernel = kernel / kernel.sum(1, keepdim=True)  # [T, 7]
    blurred = []
    for frame, taps in zip(frames, kernel, strict=True):
        stack = F.pad(frame[:, None], (_REACH,) * 4, mode="replicate")
        rows = F.conv2d(stack, taps.view(1, 1, -1, 1))
        blurred.append(F.conv2d(rows, taps.view(1, 1, 1, -1)).view(channels, *frames.shape[2:]))
    return torch.stack(blurred)
