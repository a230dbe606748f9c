"""The encoders and the decoder of STM, which the paper keeps (section 3.4.1).

Source: Oh et al., *Video Object Segmentation using Space-Time Memory Networks*, ICCV 2019. The memory's own key and
value heads are not here: `SpaceTimeRead` has them, since it decides when a slot's key and value are computed again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stmemory.errors import ShapeError
from stmemory.networks.layers import FrameFeatures, ResidualBlock, check_masks, upsample
from stmemory.networks.resnet import ImageNetNormalisation, ResNet50

__all__ = ["Refine", "StmDecoder", "StmMemoryEncoder", "StmQueryEncoder"]

_STRIDE = 16


class StmQueryEncoder(nn.Module):
    """Frames to everything that is computed once a frame, whatever the number of objects.

    >>> features = StmQueryEncoder(width=4, key_channels=8, value_channels=16)(torch.rand(1, 3, 48, 80))
    >>> features.key.shape, features.stride4.shape
    (torch.Size([1, 8, 3, 5]), torch.Size([1, 16, 12, 20]))
    """

    def __init__(
        self, *, norm: str = "group", width: int = 64, key_channels: int = 128, value_channels: int = 512
    ) -> None:
        """Draw random weights.

        Args:
            norm: `"group"` (the paper) or `"batch"` (STM).
            width: Channels of ResNet-50's stem; the skips have 4, 8 and 16 times as many.
            key_channels: Ck.
            value_channels: Channels of the query's value, Cv in STM.
        """
        super().__init__()
        self.normalise = ImageNetNormalisation()
        self.backbone = ResNet50(norm, width=width)
        self.key = nn.Conv2d(16 * width, key_channels, 3, padding=1)
        self.value = nn.Conv2d(16 * width, value_channels, 3, padding=1)

    def forward(self, frame: Tensor) -> FrameFeatures:
        """Encode frames.

        Args:
            frame: `[V, 3, H, W]`, RGB in [0, 1]; H and W are multiples of 16.

        Returns:
            The record of `V` frames: key and value of eq. 13, and the features at strides 4, 8 and 16.

        Raises:
            ShapeError: `frame` is not `[V, 3, H, W]` with H and W multiples of 16.
        """
        if frame.dim() != 4 or frame.shape[1] != 3 or frame.shape[2] % _STRIDE or frame.shape[3] % _STRIDE:
            raise ShapeError(
                f"frame: expected [V, 3, H, W] with H and W multiples of {_STRIDE}, got {tuple(frame.shape)}; "
                "pad frames first with frames.fit()"
            )
        stride4, stride8, stride16 = self.backbone(self.normalise(frame))
        key: Tensor = self.key(stride16)  # [V, Ck, h, w]
        value: Tensor = self.value(stride16)  # [V, Cq, h, w]
        return FrameFeatures(frame, key, value, stride4, stride8, stride16)


class StmMemoryEncoder(nn.Module):
    """A frame, the object's mask and the mask of all other objects, to a template.

    STM adds three 7x7/2 convolutions (of the frame and of the two masks) before the first norm. That sum is one
    convolution over the five stacked channels, red, green, blue, mask, others, and is computed as such.

    >>> frame, mask = torch.rand(2, 3, 32, 32), torch.rand(2, 1, 32, 32)
    >>> features = StmQueryEncoder(width=4)(frame)
    >>> StmMemoryEncoder(width=4)(features, mask, 1 - mask, torch.arange(2)).shape
    torch.Size([2, 64, 2, 2])
    """

    def __init__(self, *, norm: str = "group", width: int = 64) -> None:
        """Draw random weights.

        Args:
            norm: `"group"` (the paper) or `"batch"` (STM).
            width: Channels of ResNet-50's stem; the template has `C = 16 * width`, 1024 by default.
        """
        super().__init__()
        self.normalise = ImageNetNormalisation()
        self.backbone = ResNet50(norm, in_channels=5, width=width)

    def forward(self, features: FrameFeatures, mask: Tensor, others: Tensor, video: Tensor) -> Tensor:
        """Encode rows.

        Args:
            features: Of V frames; only `frame` `[V, 3, H, W]` is used.
            mask: `[B, 1, H, W]`, each row's object, in [0, 1].
            others: `[B, 1, H, W]`, the sum of the same frame's other objects, in [0, 1].
            video: `[B]` int64, each row's frame.

        Returns:
            Templates `[B, C, h, w]`.

        Raises:
            ShapeError: A mask is not `[B, 1, H, W]` of the frame's own B, H and W.
        """
        check_masks(features, mask, others, video)
        stacked = torch.cat((self.normalise(features.frame)[video], mask, others), dim=1)  # [B, 5, H, W]
        template: Tensor = self.backbone(stacked)[2]  # [B, C, h, w]
        return template


class Refine(nn.Module):
    """Double the resolution of what is decoded so far, with the help of a skip: STM's refinement module."""

    def __init__(self, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(skip_channels, channels, 3, padding=1)
        self.skip_block = ResidualBlock(channels)
        self.block = ResidualBlock(channels)

    def forward(self, skip: Tensor, coarse: Tensor, video: Tensor) -> Tensor:
        """Add the upsampled map to the skip and refine the sum.

        Args:
            skip: `[V, skip_channels, 2h, 2w]`; worked on once a frame, whatever the number of rows.
            coarse: `[B, channels, h, w]`.
            video: `[B]` int64, each row's frame.

        Returns:
            `[B, channels, 2h, 2w]`.
        """
        fine: Tensor = self.skip_block(self.skip(skip))[video]  # [B, channels, 2h, 2w]
        refined: Tensor = self.block(fine + upsample(coarse, 2))
        return refined


class StmDecoder(nn.Module):
    """What was recalled, and the frame's own features, to the object's logits.

    >>> features = StmQueryEncoder(width=4, value_channels=8)(torch.rand(1, 3, 32, 48))
    >>> narrow = {"recalled_channels": 8, "value_channels": 8, "stride4_channels": 16, "stride8_channels": 32}
    >>> StmDecoder(**narrow, channels=4)(torch.rand(1, 8, 2, 3), features, torch.tensor([0])).shape
    torch.Size([1, 32, 48])
    """

    def __init__(
        self,
        *,
        recalled_channels: int = 512,
        value_channels: int = 512,
        stride4_channels: int = 256,
        stride8_channels: int = 512,
        channels: int = 256,
    ) -> None:
        """Draw random weights.

        Args:
            recalled_channels: Cv, of the memory's values.
            value_channels: Channels of the query's value.
            stride4_channels: Channels of the skip at stride 4.
            stride8_channels: Channels of the skip at stride 8.
            channels: The decoder's own width.
        """
        super().__init__()
        self.mix = nn.Conv2d(recalled_channels + value_channels, channels, 3, padding=1)
        self.mix_block = ResidualBlock(channels)
        self.refine8 = Refine(stride8_channels, channels)
        self.refine4 = Refine(stride4_channels, channels)
        self.predict = nn.Conv2d(channels, 2, 3, padding=1)

    def forward(self, recalled: Tensor, features: FrameFeatures, video: Tensor) -> Tensor:
        """Decode rows.

        Args:
            recalled: `[B, Cv, h, w]`, the first half of eq. 13's y.
            features: Of V frames; `value` is the second half of y, strides 4 and 8 are the skips.
            video: `[B]` int64, each row's frame.

        Returns:
            Logits `[B, H, W]`, foreground minus background: their sigmoid is the foreground's share in STM's softmax
            over the two.
        """
        joined = torch.cat((recalled, features.value[video]), dim=1)  # [B, Cv + Cq, h, w]
        stride16: Tensor = self.mix_block(self.mix(joined))
        stride8: Tensor = self.refine8(features.stride8, stride16, video)
        stride4: Tensor = self.refine4(features.stride4, stride8, video)
        pair: Tensor = self.predict(torch.relu(stride4))  # [B, 2, H/4, W/4]: background, foreground
        # Upsampling is linear, so the difference of the two maps may be taken before it, at half the work.
        return upsample(pair[:, 1:] - pair[:, :1], 4)[:, 0]
