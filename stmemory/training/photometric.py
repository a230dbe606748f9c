"""Photometric change: exposure, colour, blur and noise that drift over a clip. Never moves a pixel's label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from stmemory.training.motion import walk

__all__ = ["Look", "degrade", "draw_look"]

_REACH = 3  # pixels on either side that a blur may take from


@dataclass(frozen=True, eq=False)
class Look:
    """What a camera does to the colours of T frames.

    Attributes:
        colour: float32 [T, 3], what each channel is multiplied with.
        gamma: float32 [T], the exponent of all of them; None leaves them.
        grey: whether the clip has no colour.
        taps: float32 [T, 7], the kernel of a blur along each axis; None is sharp.
        noise: standard deviation, in steps of 8 bits; 0 is none.
        noise_seed: of that noise.
    """

    colour: Tensor
    gamma: Tensor | None = None
    grey: bool = False
    taps: Tensor | None = None
    noise: float = 0.0
    noise_seed: int = 0


def draw_look(rng: Generator, length: int, *, blur: float, grey: float) -> Look:
    """Drifting gain, gamma and colour; sometimes blur, noise or greyscale.

    Args:
        rng: the only source of chance.
        length: T.
        blur: probability that the clip is out of focus, more in some frames than in others.
        grey: probability that the clip has no colour.

    Example:
        >>> draw_look(np.random.default_rng(0), 2, blur=0.0, grey=0.0).colour.shape
        torch.Size([2, 3])
    """
    drift = walk(rng, length, 5) * rng.choice([0.002, 0.01, 0.03])
    gain = (drift[:, :1] + rng.normal(0, 0.12)).clamp(-0.5, 0.4).exp()
    colour = gain * (drift[:, 1:4] + torch.from_numpy(rng.normal(0, 0.05, 3).astype(np.float32))).clamp(-0.3, 0.3).exp()
    gamma = (drift[:, 4] + rng.normal(0, 0.12)).clamp(-0.5, 0.5).exp()
    bends = rng.random() < 0.5
    without_colour = rng.random() < grey
    taps = None
    if rng.random() < blur:
        sigma = (rng.uniform(0.3, 1.2) + walk(rng, length, 1)[:, 0] * 0.2).clamp(0.2, 1.8)
        kernel = (-0.5 * (torch.arange(-_REACH, _REACH + 1) / sigma[:, None]).square()).exp()
        taps = kernel / kernel.sum(1, keepdim=True)
    noise, seed = 0.0, 0
    if rng.random() < 0.5:
        seed = int(rng.integers(2**62))
        noise = math.exp(rng.uniform(0, math.log(9)))
    return Look(colour, gamma if bends else None, without_colour, taps, noise, seed)


def degrade(frames: Tensor, look: Look) -> Tensor:
    """What a camera makes of frames, on their device.

    Args:
        frames: float32 [T, 3, H, W] in [0, 1].
        look: on the same device. Its noise comes from that device's generator: the same on all CPUs, other values of
            the same strength on a GPU.

    Returns:
        uint8 [T, 3, H, W].

    Example:
        >>> degrade(torch.full((2, 3, 8, 8), 0.5), Look(torch.ones(2, 3))).unique()
        tensor([128], dtype=torch.uint8)
    """
    frames = (frames * look.colour[:, :, None, None]).clamp_(1e-4, 1)
    if look.gamma is not None:
        frames = frames.pow(look.gamma[:, None, None, None])
    if look.grey:
        frames = frames.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    if look.taps is not None:
        frames = _blurred(frames, look.taps)
    scaled = frames * 255
    if look.noise:
        scaled = scaled + _noise(scaled, look.noise_seed) * look.noise
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _noise(like: Tensor, seed: int) -> Tensor:
    """Normal noise of that tensor's shape, on its device."""
    generator = torch.Generator(device=like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=generator, device=like.device)


def _blurred(frames: Tensor, taps: Tensor) -> Tensor:
    """Blurred along both axes, one after the other, with one kernel [T, 7] per frame."""
    channels = frames.shape[1]
    blurred = []
    for frame, kernel in zip(frames, taps, strict=True):
        stack = F.pad(frame[:, None], (_REACH,) * 4, mode="replicate")
        rows = F.conv2d(stack, kernel.view(1, 1, -1, 1))
        blurred.append(F.conv2d(rows, kernel.view(1, 1, 1, -1)).view(channels, *frames.shape[2:]))
    return torch.stack(blurred)
