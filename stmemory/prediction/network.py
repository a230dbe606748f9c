"""The video prediction network: encoder, memory, recurrent layers, decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from stmemory.errors import ShapeError
from stmemory.memory.bank import MemoryBank
from stmemory.memory.fusion import FusionCell
from stmemory.memory.policy import UpdatePolicy
from stmemory.memory.read import ReadCache, SpaceTimeRead
from stmemory.prediction.config import PredictionConfig
from stmemory.weights.pretrained import Pretrained

__all__ = ["ConvGRU", "Decoder", "Encoder", "KeyHead", "Part", "PredictionNetwork", "PredictionState"]

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
        strides: strides of each convolution.
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
        widths: widths of the encoder.
        strides: strides of the encoder.
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
        scale: scale of the read, so that the weights begin as squared distances.
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
        channels: the channels that the head sees.
        head: a layer for these channels.
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


@dataclass(eq=False)
class PredictionState:
    """All that is remembered of B videos; of constant size. Made by `PredictionNetwork.new_state`, changed by its
    `step`.

    Attributes:
        bank: rows are videos.
        context: `[B, Cf, h, w]`, what stands for all frames before the next one; None before the first.
        time: frames seen.
        cache: cache of the bank.
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
        )  # one filled again may differ in the last bit
        return twin


class PredictionNetwork(Pretrained, nn.Module):
    """Encoder, recurrent context, memory bank with fusion cell and space-time read, decoder, of one config.

    Args:
        config: what to build; weights are drawn at random.

    >>> network = PredictionNetwork(PredictionConfig.of("mini"))
    >>> state = network.new_state(capacity=4)
    >>> network.step(torch.rand(2, 1, 32, 32), state).shape  # the next frame
    torch.Size([2, 1, 32, 32])
    """

    kind: ClassVar[str] = "prediction_network"
    config_type: ClassVar[type[PredictionConfig]] = PredictionConfig
    config: PredictionConfig
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
        return PredictionState(
            MemoryBank(capacity, policy=policy, fusion=self.fusion, key=self.read.key, borrow=("fusion", "key"))
        )

    def step(self, frame: Tensor, state: PredictionState, *, write: bool = True) -> Tensor:
        """Take the videos one frame further: write it, remember it, recall, and say what comes next.

        Args:
            frame: `[B, C, H, W]` in [0, 1]; H and W multiples of `stride`. One that was predicted will do.
            state: state of these B videos; changed.
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
                "use FramePredictor, which takes any size"
            )
