"""The value encoder and the decoder of STCN, whose query encoder has STM's shape.

Source: Cheng, Tai and Tang, *Rethinking Space-Time Networks with Improved Memory Coverage for Efficient Video Object
Segmentation*, NeurIPS 2021. A memory key there is the query key of the memorised frame, whatever the object, so a
template is the object's value and that key side by side, and the heads of the memory only take it apart.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stmemory.networks.layers import FrameFeatures, ResidualBlock, check_masks, of_rows, upsample
from stmemory.networks.resnet import ImageNetNormalisation, ResNet18

__all__ = ["BlockAttention", "StcnDecoder", "StcnKey", "StcnMemoryEncoder", "StcnValue"]

_REDUCTION = 16


class BlockAttention(nn.Module):
    """Weigh channels, then places: `[B, C, H, W]` to the same shape.

    Source: Woo et al., *CBAM: Convolutional Block Attention Module*, ECCV 2018, section 3, with a bias in its 7x7
    convolution and without a norm there, as in STCN.

    >>> BlockAttention(32)(torch.rand(2, 32, 3, 5)).shape
    torch.Size([2, 32, 3, 5])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(channels, channels // _REDUCTION)
        self.widen = nn.Linear(channels // _REDUCTION, channels)
        self.place = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        pooled = torch.stack([features.mean((2, 3)), features.amax((2, 3))])  # [2, B, C]
        of_channels: Tensor = self.widen(torch.relu(self.narrow(pooled)))
        weighted = features * of_channels.sum(0).sigmoid()[:, :, None, None]
        maps = torch.cat([weighted.amax(1, keepdim=True), weighted.mean(1, keepdim=True)], 1)  # [B, 2, H, W]
        of_places: Tensor = self.place(maps)
        return weighted * of_places.sigmoid()


class StcnMemoryEncoder(nn.Module):
    """A frame, the object's mask and the mask of all other objects, to a template; the frame's own features join late.

    Template: `value_channels` of the object, then the query key of that very frame.

    >>> from stmemory.networks.stm import StmQueryEncoder
    >>> features = StmQueryEncoder(norm="batch", width=4, key_channels=8)(torch.rand(2, 3, 32, 32))
    >>> mask = torch.rand(2, 1, 32, 32)
    >>> StcnMemoryEncoder(width=4)(features, mask, 1 - mask, torch.arange(2)).shape
    torch.Size([2, 40, 2, 2])
    """

    def __init__(self, *, norm: str = "batch", width: int = 64) -> None:
        """Draw random weights.

        Args:
            norm: `"batch"` (STCN) or `"group"`.
            width: Channels of the stems of ResNet-18 and of the query encoder's ResNet-50; the value has 8 times as
                many, 512 by default.
        """
        super().__init__()
        self.normalise = ImageNetNormalisation()
        self.backbone = ResNet18(norm, in_channels=5, width=width)
        self.merge = ResidualBlock(4 * width + 16 * width, 8 * width)
        self.attend = BlockAttention(8 * width)
        self.refine = ResidualBlock(8 * width)

    def forward(self, features: FrameFeatures, mask: Tensor, others: Tensor, video: Tensor) -> Tensor:
        """Encode rows.

        Args:
            features: Of V frames; `frame`, `stride16` and `key` are used.
            mask: `[B, 1, H, W]`, each row's object, in [0, 1].
            others: `[B, 1, H, W]`, the sum of the same frame's other objects, in [0, 1].
            video: `[B]` int64, each row's frame.

        Returns:
            Templates `[B, 8 * width + Ck, h, w]`.

        Raises:
            ShapeError: A mask is not `[B, 1, H, W]` of the frame's own B, H and W.
        """
        check_masks(features, mask, others, video)
        stacked = torch.cat([of_rows(self.normalise(features.frame), video), mask, others], 1)  # [B, 5, H, W]
        of_object: Tensor = self.backbone(stacked)[2]  # [B, 4 * width, h, w]
        merged: Tensor = self.merge(torch.cat([of_object, of_rows(features.stride16, video)], 1))
        value: Tensor = self.refine(merged + self.attend(merged))  # [B, 8 * width, h, w]
        return torch.cat([value, of_rows(features.key, video)], 1)


class StcnKey(nn.Module):
    """Memory key: the frame's key, as it lies in the template. `[P, C, h, w]` to `[P, Ck, h, w]`."""

    def __init__(self, *, value_channels: int) -> None:
        super().__init__()
        self.value_channels = value_channels

    def forward(self, template: Tensor) -> Tensor:
        """See the class."""
        return template[:, self.value_channels :]


class StcnValue(nn.Module):
    """Memory value: what was encoded of the object, as it lies in the template. `[P, C, h, w]` to `[P, Cv, h, w]`."""

    def __init__(self, *, value_channels: int) -> None:
        super().__init__()
        self.value_channels = value_channels

    def forward(self, template: Tensor) -> Tensor:
        """See the class."""
        return template[:, : self.value_channels]


class _Enlarge(nn.Module):
    """Double the resolution of what is decoded so far, with the help of a skip."""

    def __init__(self, skip_channels: int, in_channels: int, channels: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(skip_channels, in_channels, 3, padding=1)
        self.block = ResidualBlock(in_channels, channels)

    def forward(self, skip: Tensor, coarse: Tensor, video: Tensor) -> Tensor:
        """Skips `[V, skip_channels, 2h, 2w]` and `[B, in_channels, h, w]` to `[B, channels, 2h, 2w]`."""
        fine = of_rows(self.skip(skip), video)  # once a frame, whatever the number of rows
        enlarged: Tensor = self.block(fine + upsample(coarse, 2))
        return enlarged


class StcnDecoder(nn.Module):
    """What was recalled, and the frame's own features, to the object's logits.

    >>> from stmemory.networks.stm import StmQueryEncoder
    >>> features = StmQueryEncoder(norm="batch", width=4, value_channels=8)(torch.rand(1, 3, 32, 48))
    >>> narrow = {"recalled_channels": 8, "value_channels": 8, "stride4_channels": 16, "stride8_channels": 32}
    >>> StcnDecoder(**narrow, channels=4)(torch.rand(1, 8, 2, 3), features, torch.tensor([0])).shape
    torch.Size([1, 32, 48])
    """

    def __init__(
        self,
        *,
        recalled_channels: int = 512,
        value_channels: int = 512,
        stride4_channels: int = 256,
        stride8_channels: int = 512,
        channels: int = 512,
    ) -> None:
        """Draw random weights.

        Args:
            recalled_channels: Cv, of the memory's values.
            value_channels: Channels of the query's value.
            stride4_channels: Channels of the skip at stride 4.
            stride8_channels: Channels of the skip at stride 8.
            channels: The decoder's own width at stride 16; half of it at strides 8 and 4.
        """
        super().__init__()
        self.mix = ResidualBlock(recalled_channels + value_channels, channels)
        self.up8 = _Enlarge(stride8_channels, channels, channels // 2)
        self.up4 = _Enlarge(stride4_channels, channels // 2, channels // 2)
        self.predict = nn.Conv2d(channels // 2, 1, 3, padding=1)

    def forward(self, recalled: Tensor, features: FrameFeatures, video: Tensor) -> Tensor:
        """Decode rows.

        Args:
            recalled: `[B, Cv, h, w]`, the first half of eq. 13's y.
            features: Of V frames; `value` is the second half of y, strides 4 and 8 are the skips.
            video: `[B]` int64, each row's frame.

        Returns:
            Logits `[B, H, W]`.
        """
        stride16: Tensor = self.mix(torch.cat([recalled, of_rows(features.value, video)], 1))  # [B, channels, h, w]
        stride8: Tensor = self.up8(features.stride8, stride16, video)
        stride4: Tensor = self.up4(features.stride4, stride8, video)
        logits: Tensor = self.predict(torch.relu(stride4))  # [B, 1, H/4, W/4]
        return upsample(logits, 4)[:, 0]
