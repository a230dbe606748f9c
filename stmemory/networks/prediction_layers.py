"""The layers of video prediction: six convolutions down, six deconvolutions up, a recurrent state. Knows no memory and no video."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ConvGRU", "Decoder", "Encoder", "Part"]

_GROUPS = 8  # GroupNorm, since statistics of a batch change while a network rolls out on its own frames
_SLOPE = 0.2


class Encoder(nn.Module):
    """Frames `[B, C, H, W]` to features `[B, Cf, h, w]`, and those before each stride of 2, for a decoder with skips.

    Args:
        image_channels: C.
        widths: channels of each convolution; the last is Cf.
        strides: of each convolution.
    """

    def __init__(self, image_channels: int, widths: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        before = (image_channels, *widths[:-1])
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride=s, padding=1), nn.GroupNorm(_GROUPS, o), nn.LeakyReLU(_SLOPE))
            for i, o, s in zip(before, widths, strides, strict=True)
        )

    def forward(self, frame: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See the class; the finer features go with the decoder's layers, coarsest first."""
        features, all_features = frame, []
        for layer in self.layers:
            all_features.append(features)
            features = layer(features)
        return features, all_features[:0:-1]  # without the frame itself


class Decoder(nn.Module):
    """Features `[B, Cf, h, w]` to frames `[B, C, H, W]`: the encoder mirrored, the last layer linear.

    Args:
        image_channels: C.
        widths: of the encoder.
        strides: of the encoder.
        skips: add the encoder's features of the same size to what goes up.
    """

    def __init__(self, image_channels: int, widths: Sequence[int], strides: Sequence[int], *, skips: bool) -> None:
        super().__init__()
        after = (image_channels, *widths[:-1])
        self.skips = skips
        self.layers = nn.ModuleList()
        for o, i, s in zip(reversed(after), reversed(widths), reversed(strides), strict=True):
            up = nn.ConvTranspose2d(i, o, 3, stride=s, padding=1, output_padding=s - 1)
            last = len(self.layers) == len(widths) - 1
            self.layers.append(up if last else nn.Sequential(up, nn.GroupNorm(_GROUPS, o), nn.LeakyReLU(_SLOPE)))

    def forward(self, features: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """See the class; `finer` as the encoder gave it."""
        for number, layer in enumerate(self.layers):
            features = layer(features)
            if self.skips and number < len(finer):
                features = features + finer[number]
        return features


class ConvGRU(nn.Module):
    """A recurrent state with convolutional gates: features and state, both `[B, C, h, w]`, to the next state.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.candidate = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        """See the class."""
        update, reset = self.gates(torch.cat([features, state], 1)).sigmoid().chunk(2, 1)
        candidate: Tensor = self.candidate(torch.cat([features, reset * state], 1)).tanh()
        after: Tensor = (1 - update) * state + update * candidate
        return after


class Part(nn.Module):
    """A head that looks at some channels only: `[B, C, h, w]` to what it makes of them.

    Args:
        channels: which.
        head: of them.
    """

    def __init__(self, channels: slice, head: nn.Module) -> None:
        super().__init__()
        self.channels, self.head = channels, head

    def forward(self, template: Tensor) -> Tensor:
        """See the class."""
        made: Tensor = self.head(template[:, self.channels])
        return made
