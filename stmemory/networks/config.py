"""`NetworkConfig`: all that a segmentation network is built from, in one frozen record."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from stmemory.errors import OptionError
from stmemory.io.records import read_record

__all__ = ["PRESETS", "NetworkConfig"]

BACKBONES = ("resnet50", "resnet50_resnet18", "efficientnet_lite0")


@dataclass(frozen=True)
class NetworkConfig:
    """What a `SegmentationNetwork` is built from; saved beside its weights.

    Attributes:
        preset: the name it started from, for people.
        backbone: `"resnet50"` (separate query and memory encoders, as STM and the paper), `"resnet50_resnet18"` (a
            lighter memory encoder, which takes the query encoder's features in, as STCN) or `"efficientnet_lite0"` (one
            shared trunk).
        norm: `"group"` or `"batch"`; efficientnet_lite0 has `"batch"` alone.
        template_channels: C; 16 times the stem's width with resnet50, Ck + Cv with resnet50_resnet18.
        key_channels: Ck.
        value_channels: Cv, recalled from memory; 8 times the stems' width with resnet50_resnet18.
        query_channels: Cq, the query value that stands beside it in eq. 13.
        decoder_channels: width of the decoder at stride 16.
        affinity: `"dot"` or `"l2"`.
        fusion_kernel: kernel size of the fusion cell's convolutions.
        fusion_bottleneck: its middle channels; 0 for none.
        fusion_scale: factor in eq. 3; 1.0 is the paper's equation, 0.0 stands for 1 / sqrt(C).
        appearance_channels: E of the discriminative read, which compares 2 E features; 0 leaves it out.
            efficientnet_lite0 alone has it.
        pinned_bias: whether the space-time read learns how much more a pinned slot counts.

    Raises:
        OptionError: a value is out of its range.
    """

    preset: str = "lite"
    backbone: str = "efficientnet_lite0"
    norm: str = "batch"
    template_channels: int = 192
    key_channels: int = 64
    value_channels: int = 128
    query_channels: int = 64
    decoder_channels: int = 96
    affinity: str = "l2"
    fusion_kernel: int = 3
    fusion_bottleneck: int = 96
    fusion_scale: float = 0.0
    appearance_channels: int = 176
    pinned_bias: bool = True

    def __post_init__(self) -> None:
        for name, known in (("backbone", BACKBONES), ("norm", ("group", "batch")), ("affinity", ("dot", "l2"))):
            if getattr(self, name) not in known:
                raise OptionError(f"NetworkConfig: expected {name} in {known}, got {getattr(self, name)!r}")
        for name, value in dataclasses.asdict(self).items():
            least = 0 if name in ("fusion_bottleneck", "appearance_channels") else 1
            if type(value) is int and value < least:
                raise OptionError(f"NetworkConfig: expected {name} >= {least}, got {value}")
        if self.fusion_kernel % 2 == 0 or not math.isfinite(self.fusion_scale):
            raise OptionError(
                "NetworkConfig: expected an odd fusion_kernel and a finite "
                f"fusion_scale, got {self.fusion_kernel}, {self.fusion_scale}"
            )
        lite = self.backbone == "efficientnet_lite0"
        if lite and self.norm != "batch":
            raise OptionError(
                f"NetworkConfig: expected norm 'batch' with efficientnet_lite0, which has no other, got {self.norm!r}"
            )
        if self.backbone == "resnet50" and self.template_channels % 16:
            raise OptionError(
                f"NetworkConfig: expected template_channels that 16 divides (16 times the stem of a resnet50), got "
                f"{self.template_channels}"
            )
        if self.backbone == "resnet50_resnet18":
            if self.value_channels % 16 or self.decoder_channels % 2:
                raise OptionError(
                    "NetworkConfig: expected value_channels that 16 divides and even decoder_channels with "
                    f"resnet50_resnet18, got {self.value_channels} and {self.decoder_channels}"
                )
            if self.template_channels != self.key_channels + self.value_channels:
                raise OptionError(
                    "NetworkConfig: expected template_channels as the sum of key_channels and value_channels with "
                    f"resnet50_resnet18, whose template is the two side by side, got {self.template_channels}, "
                    f"{self.key_channels} and {self.value_channels}"
                )
        if not lite and self.appearance_channels:
            raise OptionError(
                f"NetworkConfig: expected appearance_channels 0 with {self.backbone}, which has no discriminative "
                f"read, got {self.appearance_channels}"
            )
        if lite and self.template_channels <= self.key_channels:
            raise OptionError(
                "NetworkConfig: expected template_channels above key_channels (the frame's key is a part of a lite "
                f"template), got {self.template_channels} and {self.key_channels}"
            )

    @classmethod
    def of(cls, preset: str) -> NetworkConfig:
        """A preset by name.

        Raises:
            OptionError: there is no such preset.

        >>> NetworkConfig.of("paper").template_channels
        1024
        """
        if preset not in PRESETS:
            raise OptionError(f"NetworkConfig: expected a preset of {', '.join(PRESETS)}, got {preset!r}")
        return PRESETS[preset]

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> NetworkConfig:
        """From what `dataclasses.asdict` gave.

        Raises:
            OptionError: a key is unknown or missing, or a value has another type.
        """
        return read_record(cls, {**_BEFORE, **values}, cls.__name__, complete=True)


_BEFORE: dict[str, object] = {
    "appearance_channels": 0,
    "pinned_bias": False,
}  # of files that were written before there were these

_PAPER = NetworkConfig(
    preset="paper",
    backbone="resnet50",
    norm="group",
    template_channels=1024,
    key_channels=128,
    value_channels=512,
    query_channels=512,
    decoder_channels=256,
    affinity="dot",
    fusion_bottleneck=256,
    fusion_scale=1.0,
    appearance_channels=0,
    pinned_bias=False,
)

PRESETS = {
    "lite": NetworkConfig(),
    "paper": _PAPER,
    "stm": dataclasses.replace(_PAPER, preset="stm", norm="batch"),
    "stcn": dataclasses.replace(
        _PAPER,
        preset="stcn",
        backbone="resnet50_resnet18",
        norm="batch",
        template_channels=576,
        key_channels=64,
        decoder_channels=512,
        affinity="l2",
    ),
}
