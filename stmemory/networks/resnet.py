"""ResNet-50 and ResNet-18 to stride 16, and ImageNet's normalisation of frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stmemory.errors import OptionError
from stmemory.networks.layers import ConvNorm

__all__ = ["ImageNetNormalisation", "ResNet18", "ResNet50"]

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_NORMS = ("batch", "group")
_EXPANSION = 4


class ImageNetNormalisation(nn.Module):
    """Frames `[B, 3, H, W]`, RGB in [0, 1], to zero mean and unit deviation over ImageNet. Holds nothing learned.

    The constants are buffers, so that they follow the network's device and dtype; they are not saved.

    >>> red, green, blue = ImageNetNormalisation()(torch.zeros(1, 3, 1, 1)).flatten().tolist()
    >>> round(red, 3)  # -0.485 / 0.229
    -2.118
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def forward(self, frame: Tensor) -> Tensor:
        """See the class."""
        return (frame - self.mean) / self.std


class ResNet50(nn.Module):
    """ResNet-50 without its last stage and classifier: a 7x7/2 stem, a 3x3/2 max pool, and 3, 4 and 6 bottlenecks.

    This is version 1.5 (a stage's stride sits on the 3x3 convolution), the shape of torchvision's `resnet50` with
    `norm="batch"` and of timm's `resnet50_gn` with `norm="group"`. Source: He et al., CVPR 2016; section 3.4.1 for
    GroupNorm.

    Attributes:
        channels: What comes out at strides 4, 8 and 16: `4`, `8` and `16` times `width`.

    >>> network = ResNet50("group", width=8)
    >>> network.channels
    (32, 64, 128)
    >>> [tuple(features.shape) for features in network(torch.zeros(1, 3, 48, 80))]
    [(1, 32, 12, 20), (1, 64, 6, 10), (1, 128, 3, 5)]
    """

    def __init__(self, norm: str, in_channels: int = 3, *, width: int = 64) -> None:
        """Draw random weights.

        Args:
            norm: `"group"` (the paper) or `"batch"` (STM).
            in_channels: 3 for a frame; more if maps come stacked onto it.
            width: Channels of the stem, 64 in ResNet-50. With `"group"`, a power of two or a multiple of 32.

        Raises:
            OptionError: `norm` is neither of the two.
        """
        super().__init__()
        _check_norm(norm)
        self.channels = (4 * width, 8 * width, 16 * width)
        self.stem = ConvNorm(in_channels, width, 7, stride=2, norm=norm)
        self.layer1 = _stage(width, width, blocks=3, stride=1, norm=norm)
        self.layer2 = _stage(4 * width, 2 * width, blocks=4, stride=2, norm=norm)
        self.layer3 = _stage(8 * width, 4 * width, blocks=6, stride=2, norm=norm)
        _draw(self)

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the three stages.

        Args:
            frame: `[B, in_channels, H, W]`, normalised already (`ImageNetNormalisation`).

        Returns:
            `[B, 4 * width, H/4, W/4]`, `[B, 8 * width, H/8, W/8]` and `[B, 16 * width, H/16, W/16]`, all rectified;
            sizes round up.
        """
        return _three_stages(self, frame)


class ResNet18(nn.Module):
    """ResNet-18 without its last stage and classifier: a 7x7/2 stem, a 3x3/2 max pool, and three stages of two blocks.

    Source: He et al., CVPR 2016; STCN's value encoder.

    Attributes:
        channels: What comes out at strides 4, 8 and 16: once, twice and four times `width`.

    >>> network = ResNet18("batch", in_channels=5, width=8)
    >>> [tuple(features.shape) for features in network(torch.zeros(1, 5, 48, 80))]
    [(1, 8, 12, 20), (1, 16, 6, 10), (1, 32, 3, 5)]
    """

    def __init__(self, norm: str, in_channels: int = 3, *, width: int = 64) -> None:
        """Draw random weights.

        Args:
            norm: `"group"` or `"batch"` (STCN).
            in_channels: 3 for a frame; more if maps come stacked onto it.
            width: Channels of the stem, 64 in ResNet-18. With `"group"`, a power of two or a multiple of 32.

        Raises:
            OptionError: `norm` is neither of the two.
        """
        super().__init__()
        _check_norm(norm)
        self.channels = (width, 2 * width, 4 * width)
        self.stem = ConvNorm(in_channels, width, 7, stride=2, norm=norm)
        self.layer1 = _basic_stage(width, width, stride=1, norm=norm)
        self.layer2 = _basic_stage(width, 2 * width, stride=2, norm=norm)
        self.layer3 = _basic_stage(2 * width, 4 * width, stride=2, norm=norm)
        _draw(self)

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the three stages: `[B, in_channels, H, W]` to features at strides 4, 8 and 16, as in `ResNet50`."""
        return _three_stages(self, frame)


def _check_norm(norm: str) -> None:
    if norm not in _NORMS:
        raise OptionError(f"norm: expected one of {', '.join(_NORMS)}, got {norm!r}; choose one of them")


def _draw(network: nn.Module) -> None:
    """Draw the weights of the convolutions, for rectified features."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _three_stages(network: ResNet18 | ResNet50, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Stem, max pool and the three stages."""
    stride2: Tensor = network.stem(frame)  # [B, width, H/2, W/2]
    stride4: Tensor = network.layer1(F.max_pool2d(stride2, 3, stride=2, padding=1))
    stride8: Tensor = network.layer2(stride4)
    stride16: Tensor = network.layer3(stride8)
    return stride4, stride8, stride16


class _Basic(nn.Module):
    """Two 3x3 convolutions, the first with the stride, around a shortcut."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, norm: str) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, channels, 3, stride=stride, norm=norm)
        self.second = ConvNorm(channels, channels, 3, norm=norm, activation="none")
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = ConvNorm(in_channels, channels, 1, stride=stride, norm=norm, activation="none")

    def forward(self, features: Tensor) -> Tensor:
        residual: Tensor = self.second(self.first(features))  # [B, channels, H', W']
        shortcut: Tensor = self.shortcut(features)
        return torch.relu(residual + shortcut)


class _Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3 with the stride, 1x1 to `4 * channels`, around a shortcut."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, norm: str) -> None:
        super().__init__()
        out_channels = _EXPANSION * channels
        self.reduce = ConvNorm(in_channels, channels, 1, norm=norm)
        self.spatial = ConvNorm(channels, channels, 3, stride=stride, norm=norm)
        self.expand = ConvNorm(channels, out_channels, 1, norm=norm, activation="none")
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = ConvNorm(in_channels, out_channels, 1, stride=stride, norm=norm, activation="none")

    def forward(self, features: Tensor) -> Tensor:
        residual: Tensor = self.expand(self.spatial(self.reduce(features)))  # [B, 4 * channels, H', W']
        shortcut: Tensor = self.shortcut(features)
        return torch.relu(residual + shortcut)


def _stage(in_channels: int, channels: int, *, blocks: int, stride: int, norm: str) -> nn.Sequential:
    first = _Bottleneck(in_channels, channels, stride=stride, norm=norm)
    others = (_Bottleneck(_EXPANSION * channels, channels, stride=1, norm=norm) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


def _basic_stage(in_channels: int, channels: int, *, stride: int, norm: str) -> nn.Sequential:
    first = _Basic(in_channels, channels, stride=stride, norm=norm)
    return nn.Sequential(first, _Basic(channels, channels, stride=1, norm=norm))
