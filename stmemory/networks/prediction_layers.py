"""The layers of video prediction: six convolutions down, six deconvolutions up, a recurrent state. Knows no memory and
no video."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ConvGRU", "Decoder", "Encoder", "KeyHead", "Part"]

_GROUPS = 8  # GroupNorm, since statistics of a batch change while a network rolls out on its own frames
_SLOPE = 0.2
# where the update gate starts: a state that mostly shows the last frame is one that comes again when the frame does
_UPDATE = 1.0
_WAVES = (0.5, 1.0, 2.0)  # of a position's code, along each side
_COARSE = 4  # cells a side of the whole
_SHARPNESS = (4.0, 32.0, 4.0)  # where the weights of looks, whole and place start


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
        if isinstance(self.gates.bias, Tensor):
            nn.init.constant_(self.gates.bias[:channels], _UPDATE)

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        """See the class."""
        update, reset = self.gates(torch.cat([features, state], 1)).sigmoid().chunk(2, 1)
        candidate: Tensor = self.candidate(torch.cat([features, reset * state], 1)).tanh()
        after: Tensor = (1 - update) * state + update * candidate
        return after


class KeyHead(nn.Module):
    """Contexts `[P, Cf, h, w]` to keys `[P, Ck, h, w]` in three parts: what it looks like here, what on the whole, and
    where "here" is.

    The whole finds the moment, the place finds the same cell of it: so a read is sharp before anything is learned. The
    first two parts have length one in each cell; each is weighed by a learned number.

    Args:
        inputs: Cf.
        channels: Ck, above 12, which the place takes.
        scale: of the read, so that the weights begin as squared distances.
    """

    def __init__(self, inputs: int, channels: int, *, scale: float) -> None:
        super().__init__()
        looks = (channels - 4 * len(_WAVES)) // 2
        self.looks = nn.Conv2d(inputs, looks, 3, padding=1)
        self.whole = nn.Linear(inputs * _COARSE**2, channels - 4 * len(_WAVES) - looks)
        self.weights = nn.Parameter(torch.tensor(_SHARPNESS).div(scale).sqrt())

    def forward(self, context: Tensor) -> Tensor:
        """See the class."""
        looks, whole, place = self.weights
        here: Tensor = nn.functional.normalize(self.looks(context), dim=1)
        moment: Tensor = nn.functional.normalize(
            self.whole(nn.functional.adaptive_avg_pool2d(context, _COARSE).flatten(1)), dim=1
        )
        height, width = context.shape[2:]
        code = _places(height, width, context)
        parts = [
            looks * here,
            (whole * moment)[:, :, None, None].expand(-1, -1, height, width),
            (place * code).expand(len(context), -1, -1, -1),
        ]
        return torch.cat(parts, 1)


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


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of each cell's place, `[1, 12, h, w]`."""
    rows, columns = (torch.arange(n, device=like.device, dtype=like.dtype) / n for n in (height, width))
    waves = [
        hand(2 * math.pi * wave * axis)
        for wave in _WAVES
        for axis in (rows[:, None].expand(height, width), columns[None].expand(height, width))
        for hand in (torch.sin, torch.cos)
    ]
    return torch.stack(waves)[None]
