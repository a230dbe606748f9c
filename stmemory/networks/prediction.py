"""`PredictionNetwork`: all that is learned for video prediction (section 4.2). Remembers nothing of any video.

Our reading of the paper, which says no more than "we can remove the query encoder" and "6 convolutional and
deconvolutional layers": one encoder serves memory and query, and objects are one a video. How motion gets in is open
there. Here a template is a frame's features beside the context that the frame came after, so that the bank answers the
question that prediction asks: what followed when it looked like this?
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from stmemory.errors import ShapeError
from stmemory.memory.bank import MemoryBank
from stmemory.memory.fusion import FusionCell
from stmemory.memory.policy import UpdatePolicy
from stmemory.memory.read import ReadCache, SpaceTimeRead
from stmemory.networks.prediction_config import PredictionConfig
from stmemory.networks.prediction_layers import ConvGRU, Decoder, Encoder, KeyHead, Part
from stmemory.pretrained import ToPretrained

__all__ = ["PredictionNetwork", "PredictionState"]


@dataclass(eq=False)
class PredictionState:
    """All that is remembered of B videos; of constant size. Made by `PredictionNetwork.new_state`, changed by its
    `step`.

    Attributes:
        bank: rows are videos.
        context: `[B, Cf, h, w]`, what stands for all frames before the next one; None before the first.
        time: frames seen.
        cache: of the bank.
    """

    bank: MemoryBank
    context: Tensor | None = None
    time: int = 0
    cache: ReadCache = field(default_factory=ReadCache)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it; constant once the network has seen a frame."""
        context = 0 if self.context is None else self.context.numel() * self.context.element_size()
        return self.bank.nbytes + self.cache.nbytes + context

    def detach(self) -> None:
        """Cut the graph: truncated backpropagation through time."""
        self.bank.detach()
        self.cache.detach()
        self.context = None if self.context is None else self.context.detach()

    def fork(self) -> PredictionState:
        """A copy that goes its own way from here on, bit for bit as this one would."""
        twin = replace(
            self,
            bank=self.bank.fork(),
            context=None if self.context is None else self.context.clone(),
            cache=ReadCache(),
        )
        twin.cache.load_state_dict(
            self.cache.state_dict(self.bank), twin.bank
        )  # one filled anew may differ in the last bit
        return twin


class PredictionNetwork(ToPretrained, nn.Module):
    """Encoder, recurrent context, memory bank with fusion cell and space-time read, decoder, of one config.

    Args:
        config: what to build; weights are drawn at random.

    >>> network = PredictionNetwork(PredictionConfig.of("mini"))
    >>> state = network.new_state(capacity=4)
    >>> network.step(torch.rand(2, 1, 32, 32), state).shape  # the next frame
    torch.Size([2, 1, 32, 32])
    """

    default_weights: ClassVar[str] = "mini"

    def __init__(self, config: PredictionConfig) -> None:
        super().__init__()
        self.config = config
        features, clock = config.widths[-1], config.clock_channels
        self.encoder = Encoder(config.image_channels, config.widths, config.strides)
        self.decoder = Decoder(config.image_channels, config.widths, config.strides, skips=bool(config.skips))
        self.context = ConvGRU(features) if config.state == "convgru" else None
        recalls = config.memory == "bank"
        if recalls:
            scale = 1 / math.sqrt(config.key_channels)
            self.query = KeyHead(features + clock, config.key_channels, scale=scale)
            key = Part(slice(features, None), KeyHead(features + clock, config.key_channels, scale=scale))
            key.head.load_state_dict(self.query.state_dict())  # what looks alike is found from the first step on
            value = nn.Conv2d(config.template_channels, config.value_channels, 1)
            self.read = SpaceTimeRead(key, value, affinity="l2")
            self.fusion = FusionCell(
                config.template_channels,
                bottleneck=config.fusion_bottleneck or None,
                scale=1 / math.sqrt(config.template_channels),
            )
        known = (2 if config.state == "convgru" else 1) * features + recalls * config.value_channels
        self.mix = nn.Sequential(nn.Conv2d(known, features, 3, padding=1), nn.GroupNorm(8, features), nn.LeakyReLU(0.2))

    @property
    def stride(self) -> int:
        """Frames have sides that this divides."""
        return self.config.stride

    def new_state(self, capacity: int = 16, *, policy: str | UpdatePolicy = "most_similar") -> PredictionState:
        """What is remembered before the first frame: an empty bank of K slots that uses this network's fusion cell and
        keys."""
        if self.config.memory == "none":
            return PredictionState(MemoryBank(capacity, policy=policy))
        return PredictionState(MemoryBank(capacity, policy=policy, fusion=self.fusion, key=self.read.key))

    def step(self, frame: Tensor, state: PredictionState, *, write: bool = True) -> Tensor:
        """Take the videos one frame further: write it, remember it, recall, and say what comes next.

        Args:
            frame: `[B, C, H, W]` in [0, 1]; H and W multiples of `stride`. One that was predicted will do.
            state: of these B videos; changed.
            write: put the frame's template into the bank; the first frame's is written whatever this says. The context
                and the time go on without it.

        Returns:
            The next frame, `[B, C, H, W]`; not limited to [0, 1].

        Raises:
            ShapeError: the frame does not fit the network.
        """
        self._check(frame)
        features, finer = self.encoder(frame)  # [B, Cf, h, w]
        before = torch.zeros_like(features) if state.context is None else state.context
        context: Tensor = features if self.context is None else self.context(features, before)
        known = [features] if self.context is None else [features, context]
        if self.config.memory == "bank":
            if write or not state.bank.rows:
                template = torch.cat([features, before, self._clock(state.time, features)], 1)
                # autocast gives half precision, and the bank is of the weights' own
                state.bank.write(template.to(next(self.parameters()).dtype), frame=state.time)
            query: Tensor = self.query(torch.cat([context, self._clock(state.time + 1, features)], 1))
            recalled: Tensor = self.read(query, state.bank, state.cache)  # [B, Cv, h, w]
            known.append(recalled.to(features.dtype))
        state.context = context
        state.time += 1
        predicted: Tensor = self.decoder(self.mix(torch.cat(known, 1)), finer)
        return predicted

    def _clock(self, time: int, like: Tensor) -> Tensor:
        """The time as sines and cosines, `[B, clock_channels, h, w]`, of periods 4, 8, 16, ... frames."""
        pairs = self.config.clock_channels // 2
        angles = [2 * math.pi * time / 2 ** (2 + n) for n in range(pairs)]
        hands = [hand for angle in angles for hand in (math.sin(angle), math.cos(angle))]
        return like.new_tensor(hands)[None, :, None, None].expand(len(like), -1, *like.shape[2:])

    def _check(self, frame: Tensor) -> None:
        channels, stride = self.config.image_channels, self.stride
        if (
            frame.dim() != 4
            or frame.shape[1] != channels
            or frame.shape[2] % stride
            or frame.shape[3] % stride
            or 0 in frame.shape
        ):
            raise ShapeError(
                f"frame: expected [B, {channels}, H, W] with H and W multiples of {stride}, got {tuple(frame.shape)}; "
                "use FramePredictor, "
                "which takes any size"
            )
