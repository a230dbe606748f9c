"""`SegmentationNetwork`: the whole network of video object segmentation. It remembers nothing of a video."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn, Self

import torch
from torch import Tensor, nn

from stmemory.errors import OptionError
from stmemory.io.frames import WorkingSize
from stmemory.memory.bank import MemoryBank
from stmemory.memory.discriminative import DiscriminativeMemory, DiscriminativeRead, rival_scores
from stmemory.memory.fusion import FusionCell
from stmemory.memory.policy import UpdatePolicy
from stmemory.memory.read import ReadCache, SpaceTimeRead
from stmemory.networks.config import NetworkConfig
from stmemory.networks.layers import FrameFeatures, fold_batch_norm, of_rows, use_channels_last
from stmemory.networks.lite import LiteDecoder, LiteKey, LiteMemoryEncoder, LiteQueryEncoder, LiteValue
from stmemory.networks.parts import Part
from stmemory.networks.stcn import StcnDecoder, StcnKey, StcnMemoryEncoder, StcnValue
from stmemory.networks.stm import StmDecoder, StmMemoryEncoder, StmQueryEncoder
from stmemory.networks.tracking import Found, Given, Memory, Template
from stmemory.weights.devices import place_to_compute
from stmemory.weights.pretrained import Pretrained

__all__ = ["SegmentationNetwork"]

_CHUNK = 4  # objects decoded at a time, so that many objects need no more working memory than these
_NOWHERE = -20.0  # logit of an object where it is not looked for


class SegmentationNetwork(Pretrained, nn.Module):
    """Query encoder, memory encoder, space-time read, fusion cell and decoder of one config; a `TrackingNetwork`.

    Frames come in groups of V (one for each video), objects in B rows; `video [B]` says which frame a row belongs to.

    Args:
        config: what to build; weights are drawn at random (see `stmemory.weights.pretrained` for trained ones).

    >>> import torch
    >>> network = SegmentationNetwork(NetworkConfig.of("lite"))
    >>> network.encode_query(torch.rand(1, 3, 64, 96)).key.shape
    torch.Size([1, 64, 4, 6])
    """

    kind: ClassVar[str] = "network"
    config_type: ClassVar[type[NetworkConfig]] = NetworkConfig
    config: NetworkConfig
    read: SpaceTimeRead
    margin: float | None = None  # see with_margin

    stride = 16
    takes_prompts = False
    aggregation = "soft"

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        build = {"efficientnet_lite0": _lite, "resnet50": _stm, "resnet50_resnet18": _stcn}[config.backbone]
        self.query_encoder, self.memory_encoder, key, value, self.decoder = build(config)
        self.read = SpaceTimeRead(key, value, affinity=config.affinity, pinned_bias=config.pinned_bias)
        self.discriminate = DiscriminativeRead() if config.appearance_channels else None
        self.fusion = FusionCell(
            config.template_channels,
            kernel_size=config.fusion_kernel,
            bottleneck=config.fusion_bottleneck or None,
            scale=config.fusion_scale or 1 / math.sqrt(config.template_channels),
        )

    def new_bank(self, capacity: int = 5, *, policy: str | UpdatePolicy = "least_similar") -> MemoryBank:
        """An empty bank that borrows this network's fusion cell and memory keys, and a policy that is given as an
        object: their parameters stay where they are, and are listed there alone."""
        borrow = ("fusion", "key") if isinstance(policy, str) else ("fusion", "key", "policy")
        return MemoryBank(capacity, policy=policy, fusion=self.fusion, key=self.read.key, borrow=borrow)

    def forward(self, *given: object, **named: object) -> NoReturn:
        """One call cannot segment a video.

        Raises:
            OptionError: always; names the methods to call.
        """
        raise OptionError(
            "SegmentationNetwork: a network cannot be called as a whole; use VOSPredictor(network=network) to track, "
            "or encode_query(frame), recall(features, bank, video), decode(recalled, features, video) and "
            "encode_memory(features, mask, others, video) one after another"
        )

    def encode_query(self, frame: Tensor) -> FrameFeatures:
        """Encode frames once, whatever the number of objects.

        Args:
            frame: `[V, 3, H, W]`, RGB in [0, 1]; H and W multiples of 16.
        """
        features: FrameFeatures = self.query_encoder(frame)
        return features

    def encode_memory(self, features: FrameFeatures, mask: Tensor, others: Tensor, video: Tensor) -> Tensor:
        """Make templates of objects.

        Args:
            features: features of V frames.
            mask: `[B, H, W]` in [0, 1], each row's object.
            others: `[B, H, W]` in [0, 1], all other objects of the same frame.
            video: `[B]` int64, each row's frame.

        Returns:
            `[B, C, h, w]`.
        """
        template: Tensor = self.memory_encoder(features, mask[:, None], others[:, None], video)
        return template

    def recall(
        self,
        features: FrameFeatures,
        bank: MemoryBank,
        video: Tensor,
        cache: ReadCache | None = None,
        *,
        row: int | None = None,
    ) -> Tensor:
        """The space-time read, `[B, Cv, h, w]`: what the bank's rows hold for each cell of their frames, or a single
        row of it."""
        recalled: Tensor = self.read(of_rows(features.key, video), bank, cache, row=row)
        return recalled

    def cues(
        self, features: FrameFeatures, memory: DiscriminativeMemory, last: tuple[Tensor, Tensor], video: Tensor
    ) -> Tensor | None:
        """What helps the decoder beside what was recalled; None in a network without a discriminative read.

        Args:
            features: features of V frames.
            memory: memory of B rows.
            last: masks of the frame before `[B, H, W]` in [0, 1], each row's object, and all other objects of its
                video.
            video: `[B]` int64, each row's frame.

        Returns:
            `[B, 5, H/8, W/8]`: each row's score, the best score of its rivals, the largest value of its last mask
            within 5 x 5 cells (the mask itself would teach the decoder to copy it), the mean of that mask over 15 x 15
            cells, and the others' last masks.
        """
        if self.discriminate is None or features.appearance is None:
            return None
        mask, others = (nn.functional.avg_pool2d(m.float()[:, None], 8)[:, 0] for m in last)
        return self._cues(features.appearance, memory, (mask, others), video)

    def _cues(
        self, appearance: Tensor, memory: DiscriminativeMemory, last: tuple[Tensor, Tensor], video: Tensor
    ) -> Tensor | None:
        """What `cues` returns, for masks `[B, H/8, W/8]`."""
        if self.discriminate is None:
            return None
        own: Tensor = self.discriminate(appearance, memory, video)
        mask, others = last
        near = nn.functional.avg_pool2d(mask[:, None], 15, stride=1, padding=7)[:, 0]
        about = nn.functional.max_pool2d(mask[:, None], 5, stride=1, padding=2)[:, 0]
        return torch.stack([own, rival_scores(own, video), about, near, others], 1)

    def learn(
        self,
        memory: DiscriminativeMemory,
        features: FrameFeatures,
        mask: Tensor,
        others: Tensor,
        video: Tensor,
        *,
        rows: Sequence[int] | None = None,
        frame: int = 0,
        given: bool = False,
    ) -> None:
        """Add what a frame says of objects to the sums of the discriminative read; nothing in a network without one.

        Args:
            memory: where to.
            features: features of V frames.
            mask: `[R, H, W]` in [0, 1], each row's object.
            others: `[R, H, W]` in [0, 1], all other objects of the same frame.
            video: `[R]` int64, each row's frame.
            rows: see `DiscriminativeMemory.write`.
            frame: see there.
            given: see there.
        """
        if self.discriminate is None or features.appearance is None:
            return
        mask, others = (nn.functional.avg_pool2d(m.float()[:, None], 8)[:, 0] for m in (mask, others))
        self.discriminate.memorise(
            memory, features.appearance, mask, others, video, rows=rows, frame=frame, given=given
        )

    def decode(self, recalled: Tensor, features: FrameFeatures, video: Tensor, cues: Tensor | None = None) -> Tensor:
        """Logits `[B, H, W]` of objects, from `recalled [B, Cv, h, w]`, the features of V frames, and what `cues`
        gave."""
        logits: Tensor = (
            self.decoder(recalled, features, video) if cues is None else self.decoder(recalled, features, video, cues)
        )
        return logits

    @property
    def name(self) -> str:
        """Its preset's."""
        return self.config.preset

    @property
    def tracking(self) -> Mapping[str, Any]:
        """The defaults of `TrackingOptions` are those of `lite`; the others look at whole frames, as their papers."""
        return {} if self.config.appearance_channels else {"margin": None}

    def _twin(self) -> Self:
        """Another module of the same parts."""
        same = copy.copy(self)
        same._modules = dict(self._modules)
        return same

    def ready(self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """See `TrackingNetwork.ready`; BatchNorm is folded into the copy."""
        network = copy.deepcopy(self).eval().requires_grad_(False)
        fold_batch_norm(network)
        use_channels_last(network)
        place_to_compute(network, device=device, dtype=dtype)
        return network

    def with_top_k(self, top_k: int | None) -> Self:
        """See `TrackingNetwork.with_top_k`; itself where it reads from as many already."""
        if self.read.top_k == top_k:
            return self
        same = self._twin()
        same.read = copy.copy(self.read)
        same.read.top_k = top_k
        return same

    def with_margin(self, margin: float | None) -> Self:
        """See `TrackingNetwork.with_margin`; itself where it has that margin already."""
        if self.margin == margin:
            return self
        same = self._twin()
        same.margin = margin
        return same

    def working_size(self, height: int, width: int, *, short_side: int | None, enlarge: float) -> WorkingSize:
        """See `WorkingSize.of`."""
        return WorkingSize.of(height, width, short_side, self.stride, enlarge=enlarge)

    def new_beside(self) -> DiscriminativeMemory:
        """Empty sums of the discriminative read; they stay empty in a network without one."""
        return DiscriminativeMemory()

    def features_are_finite(self, features: FrameFeatures) -> Tensor:
        """Whether the squared features of a frame sum to a finite value, bool `[]`, so that the sums of the
        discriminative read stay finite; a tensor, so that nothing waits for the device here."""
        if features.appearance is None:
            return torch.ones((), dtype=torch.bool, device=features.key.device)
        return features.appearance.float().square().sum().isfinite()  # no product of two is larger

    def segment(
        self,
        features: FrameFeatures,
        memory: Memory,
        given: Sequence[Given],
        *,
        frame: int,
        last: Tensor | None,
        size: WorkingSize,
    ) -> Found:
        """See `TrackingNetwork.segment`: recall, cues and decode. What is given is left to the stream."""
        rows = memory.bank.rows
        if not rows:
            nothing = torch.zeros(0, *features.frame.shape[2:], dtype=torch.float32, device=features.key.device)
            return Found((), nothing)
        cues = self._cues_of_last(features, memory, last)
        if self.margin is None or last is None:
            return self._look_everywhere(features, memory, cues)
        whole, parts = Part.whole(features.frame), []
        found = features.key.new_full((rows, *features.frame.shape[2:]), _NOWHERE, dtype=torch.float32)
        for row in range(rows):
            of_row = None if cues is None else cues[row : row + 1]
            part = self._last_part(features, memory, last[1 + row], row=row, frame=frame)
            logits = self._look(features, memory, row, part, of_row)
            if part != whole and not bool((logits > 0).any()):  # it is not there: it may be anywhere
                part = whole
                logits = self._look(features, memory, row, part, of_row)
            part.of(found[row], 1).copy_(logits)
            parts.append(part.box)
        return Found(tuple(range(rows)), found, boxes=tuple(parts))

    def _cues_of_last(self, features: FrameFeatures, memory: Memory, last: Tensor | None) -> Tensor | None:
        """The cues of all rows, of the probabilities `[1 + N, H', W']` of the last frame."""
        sums = memory.beside
        if features.appearance is None or not features.can_discriminate or last is None:
            return None
        if not isinstance(sums, DiscriminativeMemory):
            return None
        masks = nn.functional.avg_pool2d(last[1:, None], 8)[:, 0]  # [B, H'/8, W'/8]
        others = (masks.sum(0) - masks).clamp(0, 1)
        return self._cues(features.appearance, sums, (masks, others), _of_one_video(len(masks), features))

    def _look_everywhere(self, features: FrameFeatures, memory: Memory, cues: Tensor | None) -> Found:
        """All objects, in all of the frame, several at a time."""
        rows = memory.bank.rows
        video = _of_one_video(rows, features)
        recalled = self.recall(features, memory.bank, video, memory.cache)
        parts = [slice(start, start + _CHUNK) for start in range(0, rows, _CHUNK)]
        decoded = [self.decode(recalled[p], features, video[p], None if cues is None else cues[p]) for p in parts]
        return Found(tuple(range(rows)), torch.cat([logits.float() for logits in decoded]))

    def _last_part(self, features: FrameFeatures, memory: Memory, mask: Tensor, *, row: int, frame: int) -> Part:
        """The surroundings of an object's mask `[H', W']` in the frame before, if it was memorised there; else all of
        the frame."""
        slots = memory.bank.describe(row)
        known = bool(slots) and slots[-1].frame == frame - 1
        part = Part.around(mask, self._cells(features)) if known else None
        return part or Part.whole(features.frame)

    def _look(self, features: FrameFeatures, memory: Memory, row: int, part: Part, cues: Tensor | None) -> Tensor:
        """Logits of one object in a part of the frame, `[H, W]` of that part."""
        seen, video = part.features(features), _of_one_video(1, features)
        recalled = self.recall(seen, memory.bank, video, memory.cache, row=row)
        return self.decode(recalled, seen, video, None if cues is None else part.of(cues, 8))[0].float()

    def _cells(self, features: FrameFeatures) -> int:
        """The margin, in cells."""
        return round((self.margin or 0.0) * min(features.key.shape[2:]))

    def revise(
        self, features: FrameFeatures, memory: Memory, given: Sequence[Given], *, frame: int, size: WorkingSize
    ) -> None:
        """Nothing: masks are taken as they are."""

    def template(
        self,
        features: FrameFeatures,
        found: Found | None,
        rows: Sequence[int],
        mask: Tensor,
        others: Tensor,
        *,
        given: bool,
    ) -> Template:
        """See `TrackingNetwork.template`, and `encode_memory`. Of what was given, and of what may leave
        the frame, all of the frame is memorised: an object that is lost is told from the rest by that."""
        mask, others = mask.to(features.key.dtype), others.to(features.key.dtype)
        if self.margin is None or given:
            return Template(self.encode_memory(features, mask, others, _of_one_video(len(rows), features)))
        parts, values = [], features.key.new_zeros(len(rows), self.config.template_channels, *features.key.shape[2:])
        for number in range(len(rows)):
            part = Part.around(mask[number], self._cells(features), leaving=True) or Part.whole(features.frame)
            own, rest = (part.of(maps[number : number + 1], 1) for maps in (mask, others))
            template = self.encode_memory(part.features(features), own, rest, _of_one_video(1, features))
            part.of(values[number : number + 1], 16).copy_(template)
            parts.append(part.extent)
        return Template(values, torch.tensor(parts, device=features.key.device))

    def memorise_beside(
        self,
        features: FrameFeatures,
        found: Found | None,
        rows: Sequence[int],
        mask: Tensor,
        others: Tensor,
        *,
        memory: Memory,
        frame: int,
        given: bool,
    ) -> None:
        """See `TrackingNetwork.memorise_beside`, and `learn`."""
        sums, dtype = memory.beside, features.key.dtype
        if not isinstance(sums, DiscriminativeMemory):
            raise OptionError(f"memory: expected one of new_beside(), got {type(sums).__name__}")
        first, video = not sums.rows, _of_one_video(len(rows), features)
        self.learn(
            sums,
            features,
            mask.to(dtype),
            others.to(dtype),
            video,
            rows=None if first else rows,
            frame=frame,
            given=given,
        )
        if first and sums.rows:
            sums.add_rows(memory.bank.rows - sums.rows)

    def state_shapes(self, rows: int, slots: int, size: WorkingSize) -> dict[str, tuple[int, ...]]:
        """See `TrackingNetwork.state_shapes`."""
        config = self.config
        cells = (size.padded_height // self.stride, size.padded_width // self.stride)
        shapes: dict[str, tuple[int, ...]] = {
            "bank.templates": (rows, slots, config.template_channels, *cells),
            "bank.keys": (rows, slots, config.key_channels, *cells),
            "bank.extent": (rows, slots, 2, 2),
            "keys": (rows, slots, config.key_channels, *cells),
            "values": (rows, slots, config.value_channels, *cells),
            "seen": (rows, slots),
        }
        if config.appearance_channels:
            sums = (rows, 2 * config.appearance_channels + 1, 2 * config.appearance_channels + 2)
            shapes |= {"sums.given": sums, "sums.found": sums}
        return shapes

    def stages(self) -> Sequence[tuple[nn.Module, str, str]]:
        """See `TrackingNetwork.stages`."""
        return (
            (self.query_encoder, "encode", "read"),
            (self.read, "read", "decode"),
            (self.decoder, "decode", "aggregate"),
            (self.memory_encoder, "memorise", "write"),
            (self.fusion, "fuse", "write"),
        )


def _of_one_video(rows: int, features: FrameFeatures) -> Tensor:
    """Each row's frame among those of `features`, int64 `[rows]`: all 0, since a stream passes one frame."""
    return torch.zeros(rows, dtype=torch.int64, device=features.key.device)


def _lite(config: NetworkConfig) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module, nn.Module]:
    of_object = config.template_channels - config.key_channels
    return (
        LiteQueryEncoder(
            key_channels=config.key_channels,
            query_channels=config.query_channels,
            appearance_channels=config.appearance_channels,
        ),
        LiteMemoryEncoder(object_channels=of_object),
        LiteKey(object_channels=of_object, key_channels=config.key_channels),
        LiteValue(object_channels=of_object, value_channels=config.value_channels),
        LiteDecoder(
            value_channels=config.value_channels,
            query_channels=config.query_channels,
            channels=config.decoder_channels,
            scored=config.appearance_channels > 0,
        ),
    )


def _stm(config: NetworkConfig) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module, nn.Module]:
    width = config.template_channels // 16
    return (
        StmQueryEncoder(
            norm=config.norm, width=width, key_channels=config.key_channels, value_channels=config.query_channels
        ),
        StmMemoryEncoder(norm=config.norm, width=width),
        nn.Conv2d(config.template_channels, config.key_channels, 3, padding=1),
        nn.Conv2d(config.template_channels, config.value_channels, 3, padding=1),
        StmDecoder(
            recalled_channels=config.value_channels,
            value_channels=config.query_channels,
            stride4_channels=4 * width,
            stride8_channels=8 * width,
            channels=config.decoder_channels,
        ),
    )


def _stcn(config: NetworkConfig) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module, nn.Module]:
    width = config.value_channels // 8
    return (
        StmQueryEncoder(
            norm=config.norm, width=width, key_channels=config.key_channels, value_channels=config.query_channels
        ),
        StcnMemoryEncoder(norm=config.norm, width=width),
        StcnKey(value_channels=config.value_channels),
        StcnValue(value_channels=config.value_channels),
        StcnDecoder(
            recalled_channels=config.value_channels,
            value_channels=config.query_channels,
            stride4_channels=4 * width,
            stride8_channels=8 * width,
            channels=config.decoder_channels,
        ),
    )
