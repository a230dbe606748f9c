"""The `lite` preset's layers: EfficientNet-Lite0 to stride 16, a light memory encoder and a narrow decoder.

One trunk pass a frame serves the query, the memory encoder and the decoder, so one more object costs only the light
parts.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from stmemory.networks.layers import ConvNorm, FrameFeatures, ResidualBlock, of_rows

__all__ = [
    "CUES",
    "LiteAppearance",
    "LiteCues",
    "LiteDecoder",
    "LiteKey",
    "LiteMemoryEncoder",
    "LiteQueryEncoder",
    "LiteTrunk",
    "LiteValue",
]

# EfficientNet-Lite0 (Tan and Le, Apache-2.0) to stride 16: expansion, channels, blocks, stride, kernel of each stage.
STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5))
STEM = 32
STRIDE4, STRIDE8, STRIDE16 = 24, 40, 112  # channels after stages 1, 2 and 4
_STRIP = 8 << 20  # bytes of an expanded part that are held at once
# an object's score, that of its rivals, where its last mask was about, the surroundings of that, and the others' last
# masks
CUES = 5
_AROUND = 9  # cells of stride 8, the side of what counts as around a cell
_FAR = 4.0  # deviations
_TRUST = 5.0  # logits that a score adds, before it is learned how far to trust it
_MEAN, _SCALE = 127 / 255, 128 / 255  # of the ImageNet weights


class _InvertedResidual(nn.Module):
    """MBConv without squeeze and excitation: expand 1x1, depthwise, project 1x1; a shortcut where the shapes allow."""

    def __init__(self, in_channels: int, channels: int, *, expansion: int, stride: int, kernel_size: int) -> None:
        super().__init__()
        middle = in_channels * expansion
        self.expand = ConvNorm(in_channels, middle, 1, activation="relu6") if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(middle, middle, kernel_size, stride=stride, groups=middle, activation="relu6")
        self.project = ConvNorm(middle, channels, 1, activation="none")
        self.shortcut = stride == 1 and in_channels == channels
        self.stride, self.border = stride, -(-(kernel_size // 2) // stride)

    def forward(self, features: Tensor) -> Tensor:
        """`[V, Cin, H, W]` to `[V, C, H/stride, W/stride]`."""
        middle = self.depthwise.conv.in_channels * features.shape[-1] * features.element_size()  # bytes of one row
        rows = max(1, _STRIP // (middle * self.stride)) * self.stride  # of the input
        small = rows >= features.shape[-2] or features.shape[-2] % self.stride
        if small or torch.is_grad_enabled() or torch.compiler.is_compiling():
            out: Tensor = self.project(self.depthwise(self.expand(features)))
        else:
            strips = [self._strip(features, top, rows) for top in range(0, features.shape[-2], rows)]
            out = torch.cat(strips, 2)
        return features + out if self.shortcut else out

    def _strip(self, features: Tensor, top: int, rows: int) -> Tensor:
        """The output of some rows of the input: as from the whole, without all of the expanded part at once."""
        height, border = features.shape[-2], self.border * self.stride
        first, last = max(0, top - border), min(height, top + rows + border)
        expanded: Tensor = self.depthwise(self.expand(features[:, :, first:last]))
        begin = (top - first) // self.stride  # rows that saw the strip's edge in place of their neighbours go
        out: Tensor = self.project(expanded[:, :, begin : begin + (min(height, top + rows) - top) // self.stride])
        return out


class LiteTrunk(nn.Module):
    """EfficientNet-Lite0 to its eleventh block: RGB `[V, 3, H, W]` in [0, 1] to features at strides 4, 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM, 3, stride=2, activation="relu6")
        stages, before = [], STEM
        for expansion, channels, blocks, stride, kernel_size in STAGES:
            stage = nn.Sequential()
            for block in range(blocks):
                step = stride if block == 0 else 1
                stage.append(
                    _InvertedResidual(before, channels, expansion=expansion, stride=step, kernel_size=kernel_size)
                )
                before = channels
            stages.append(stage)
        self.stages = nn.ModuleList(stages)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-3  # that of the ImageNet weights

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features `[V, 24, H/4, W/4]`, `[V, 40, H/8, W/8]`, `[V, 112, H/16, W/16]`."""
        features: Tensor = self.stem((frame - _MEAN) / _SCALE)
        stride4 = self.stages[1](self.stages[0](features))
        stride8 = self.stages[2](stride4)
        stride16 = self.stages[4](self.stages[3](stride8))
        return stride4, stride8, stride16


class LiteAppearance(nn.Module):
    """The trunk's features at strides 4, 8 and 16 as E channels at stride 8, and beside them what is around each cell.

    Args:
        channels: E.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(STRIDE4 + STRIDE8 + STRIDE16, channels, 1)
        border = _AROUND // 2
        self.around = nn.Conv2d(
            channels, channels, _AROUND, padding=border, padding_mode="replicate", groups=channels, bias=False
        )
        nn.init.constant_(self.around.weight, 1 / _AROUND**2)

    def forward(self, stride4: Tensor, stride8: Tensor, stride16: Tensor) -> Tensor:
        """`[V, 2 E, H/8, W/8]` of the trunk's features; values beyond +-4 are cut off."""
        weight, fine = self.project.weight, torch.cat([nn.functional.avg_pool2d(stride4, 2), stride8], 1)
        coarse = nn.functional.conv2d(
            stride16, weight[:, fine.shape[1] :]
        )  # before it is enlarged: a quarter of the work, and the same
        own = (nn.functional.conv2d(fine, weight[:, : fine.shape[1]], self.project.bias) + _double(coarse)).clamp(
            -_FAR, _FAR
        )
        around: Tensor = self.around(own)
        return torch.cat([own, around], 1)

    @staticmethod
    def stacked(stride4: Tensor, stride8: Tensor, stride16: Tensor) -> Tensor:
        """All of the trunk's features at stride 8, `[V, 176, H/8, W/8]`."""
        return torch.cat([nn.functional.avg_pool2d(stride4, 2), stride8, _double(stride16)], 1)

    @torch.no_grad()
    def start_from(self, samples: Tensor) -> None:
        """Begin with the principal components of the trunk's features, each feature in units of its own deviation.

        Args:
            samples: `[P, 176]`, of cells of many frames, see `stacked`.
        """
        mean, deviation = samples.mean(0), samples.std(0).clamp_min(1e-6)
        _, vectors = torch.linalg.eigh(((samples - mean) / deviation).double().t().cov())
        directions = vectors.flip(1).t()[: self.project.out_channels].float()  # [E, 176], the widest first
        spread = (((samples - mean) / deviation) @ directions.t()).std(0).mean()
        weight = directions / spread / deviation
        self.project.weight.copy_(weight[:, :, None, None])
        if self.project.bias is not None:
            self.project.bias.copy_(-weight @ mean)


class LiteQueryEncoder(nn.Module):
    """Trunk, query key and query value of eq. 13: frames `[V, 3, H, W]` to `FrameFeatures`."""

    def __init__(self, *, key_channels: int, query_channels: int, appearance_channels: int = 0) -> None:
        super().__init__()
        self.appearance = LiteAppearance(appearance_channels) if appearance_channels else None
        self.trunk = LiteTrunk()
        self.key = nn.Conv2d(STRIDE16, key_channels, 1)
        self.value = nn.Conv2d(STRIDE16, query_channels, 1)

    def forward(self, frame: Tensor) -> FrameFeatures:
        """See the class."""
        stride4, stride8, stride16 = self.trunk(frame)
        appearance = None if self.appearance is None else self.appearance(stride4, stride8, stride16)
        return FrameFeatures(frame, self.key(stride16), self.value(stride16), stride4, stride8, stride16, appearance)


class LiteMemoryEncoder(nn.Module):
    """Merges the masks with the trunk's features at strides 4, 8 and 16; the frame's own key travels beside the result.

    Template: `object_channels` that say what is where, then the `key_channels` of the query key of that very frame.
    """

    def __init__(self, *, object_channels: int) -> None:
        super().__init__()
        self.masks = nn.Conv2d(2, 16, 5, stride=2, padding=2)
        widths = (16, object_channels // 4, object_channels // 2, object_channels)
        self.down = nn.ModuleList([nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths)])
        self.image = nn.ModuleList(
            [nn.Conv2d(c, b, 1) for c, b in zip((STRIDE4, STRIDE8, STRIDE16), widths[1:], strict=True)]
        )
        self.mix = nn.ModuleList([ResidualBlock(b) for b in widths[1:]])

    def forward(self, features: FrameFeatures, mask: Tensor, others: Tensor, video: Tensor) -> Tensor:
        """Templates of B objects.

        Args:
            features: features of V frames.
            mask: `[B, 1, H, W]` in [0, 1], the object.
            others: `[B, 1, H, W]`, all other objects of the frame together.
            video: `[B]` int64, each row's frame.

        Returns:
            `[B, object_channels + key_channels, h, w]`.
        """
        merged: Tensor = self.masks(torch.cat([mask, others], 1) * 2 - 1)
        for down, image, mix, skip in zip(
            self.down, self.image, self.mix, (features.stride4, features.stride8, features.stride16), strict=True
        ):
            merged = mix(down(torch.relu_(merged)).add_(of_rows(image(skip), video)))
        return torch.cat([merged, of_rows(features.key, video)], 1)


class LiteKey(nn.Module):
    """Memory key: the frame's key plus what the object part adds, nothing at first. `[P, C, h, w]` to `[P, Ck, h,
    w]`."""

    def __init__(self, *, object_channels: int, key_channels: int) -> None:
        super().__init__()
        self.object_channels = object_channels
        self.correction = nn.Conv2d(object_channels, key_channels, 1)
        nn.init.zeros_(self.correction.weight)
        if self.correction.bias is not None:
            nn.init.zeros_(self.correction.bias)

    def forward(self, template: Tensor) -> Tensor:
        """See the class."""
        correction: Tensor = self.correction(template[:, : self.object_channels])
        return template[:, self.object_channels :] + correction


class LiteValue(nn.Module):
    """Memory value of the object part alone. `[P, C, h, w]` to `[P, Cv, h, w]`."""

    def __init__(self, *, object_channels: int, value_channels: int) -> None:
        super().__init__()
        self.object_channels = object_channels
        self.project = nn.Conv2d(object_channels, value_channels, 1)

    def forward(self, template: Tensor) -> Tensor:
        """See the class."""
        value: Tensor = self.project(template[:, : self.object_channels])
        return value


class LiteCues(nn.Module):
    """What the discriminative read and the last frame say of an object, as features for the decoder at strides 8 and
    16; nothing at first."""

    def __init__(self, *, wide: int, middle: int) -> None:
        super().__init__()
        self.begin = nn.Conv2d(CUES, 16, 3, padding=1)
        self.stride8 = nn.Conv2d(16, middle, 1)
        self.stride16 = nn.Conv2d(16, wide, 3, stride=2, padding=1)
        for end in (self.stride8, self.stride16):
            nn.init.zeros_(end.weight)
            if end.bias is not None:
                nn.init.zeros_(end.bias)

    def forward(self, cues: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, 5, H/8, W/8]`, see `LiteDecoder.forward`, to `[B, middle, H/8, W/8]` and `[B, wide, H/16, W/16]`."""
        features = torch.relu_(self.begin(((cues - 0.5) * 4).clamp(-_FAR, _FAR)))
        return self.stride8(features), self.stride16(features)


class LiteDecoder(nn.Module):
    """Recalled values to one logit a pixel, through strides 16, 8 and 4 with the trunk's features as skips."""

    def __init__(self, *, value_channels: int, query_channels: int, channels: int, scored: bool = False) -> None:
        super().__init__()
        wide, middle, narrow = channels, channels * 2 // 3, channels // 3
        self.cues = LiteCues(wide=wide, middle=middle) if scored else None
        self.trust = nn.Parameter(torch.tensor(_TRUST)) if scored else None
        self.begin = nn.Conv2d(value_channels + query_channels, wide, 3, padding=1)
        self.mix16 = ResidualBlock(wide)
        self.down8 = nn.Conv2d(wide, middle, 1)
        self.skip8 = nn.Conv2d(STRIDE8, middle, 1)
        self.mix8 = ResidualBlock(middle)
        self.down4 = nn.Conv2d(middle, narrow, 1)
        self.skip4 = nn.Conv2d(STRIDE4, narrow, 1)
        self.mix4 = ResidualBlock(narrow)
        self.end = nn.Conv2d(narrow, 1, 3, padding=1)
        if self.end.bias is not None:
            nn.init.constant_(self.end.bias, -2.0)  # most of a frame is background

    def forward(self, recalled: Tensor, features: FrameFeatures, video: Tensor, cues: Tensor | None = None) -> Tensor:
        """Logits of B objects.

        Args:
            recalled: `[B, Cv, h, w]`, the first part of eq. 13; the query value is the second.
            features: features of V frames.
            video: `[B]` int64, each row's frame.
            cues: `[B, 5, H/8, W/8]`: each row's score in the discriminative read, the best score of its rivals, where
                its mask was about in the last frame, the mean of that mask around each cell, and the masks of all
                others. None in a network without that read.

        Returns:
            `[B, H, W]`.
        """
        x: Tensor = self.begin(torch.cat([recalled, of_rows(features.value, video)], 1))
        found8, found16 = (None, None) if self.cues is None or cues is None else self.cues(cues.to(x.dtype))
        x = self.mix16(x if found16 is None else x + found16)
        x = _double(self.down8(x)) + of_rows(self.skip8(features.stride8), video)
        x = self.mix8(x if found8 is None else x + found8)
        x = self.mix4(_double(self.down4(x)) + of_rows(self.skip4(features.stride4), video))
        logits: Tensor = self.end(torch.relu_(x))
        if self.trust is not None and cues is not None:
            logits = logits + self.trust * _double((cues[:, :1] - 0.5).clamp(-0.6, 0.6)).to(logits.dtype)
        return nn.functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)[:, 0]


def _double(features: Tensor) -> Tensor:
    return nn.functional.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
