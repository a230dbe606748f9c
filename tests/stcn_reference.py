"""STCN (Cheng et al., NeurIPS 2021) as its paper and its public code describe it: slow, plain `torch.nn`, memory that
grows.

The modules carry the published attribute names, so that the state has the names and shapes of `stcn.pth`. Written from
the description; shares nothing with the package.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from stm_reference import STAGES, Bottleneck, Listing, aggregated, draw_norms
from torch import Tensor, nn
from torch.nn import functional as F

BASIC_STAGES = {"layer1": (64, 1), "layer2": (128, 2), "layer3": (256, 2)}  # channels, stride of the first of two
NAMES_OF_STAGES = {"res2": "res2", "res3": "layer2", "res4": "layer3"}  # in STM, in STCN
TOP_K = 20


def listing() -> Listing:
    """Every published name and its shape."""
    found = Listing()
    found.resnet50("key_encoder", NAMES_OF_STAGES)
    found.conv("value_encoder.conv1", 64, 5, 7)
    found.norm("value_encoder.bn1", 64)
    entering = 64
    for stage, (channels, stride) in BASIC_STAGES.items():
        for number in range(2):
            block = f"value_encoder.{stage}.{number}"
            for which, into in ((1, entering), (2, channels)):
                found.conv(f"{block}.conv{which}", channels, into, 3)
                found.norm(f"{block}.bn{which}", channels)
            if number == 0 and stride == 2:
                found.conv(f"{block}.downsample.0", channels, entering, 1)
                found.norm(f"{block}.downsample.1", channels)
            entering = channels
    found.res_block("value_encoder.fuser.block1", 512, 1024 + 256)
    for layer, out, into in ((1, 32, 512), (3, 512, 32)):
        found[f"value_encoder.fuser.attention.ChannelGate.mlp.{layer}.weight"] = (out, into)
        found[f"value_encoder.fuser.attention.ChannelGate.mlp.{layer}.bias"] = (out,)
    found.conv("value_encoder.fuser.attention.SpatialGate.spatial.conv", 1, 2, 7)
    found.res_block("value_encoder.fuser.block2", 512, 512)
    found.conv("key_proj.key_proj", 64, 1024, 3)
    found.conv("key_comp", 512, 1024, 3)
    found.res_block("decoder.compress", 512, 1024)
    for name, skip, into in (("up_16_8", 512, 512), ("up_8_4", 256, 256)):
        found.conv(f"decoder.{name}.skip_conv", into, skip, 3)
        found.res_block(f"decoder.{name}.out_conv", 256, into)
    found.conv("decoder.pred", 1, 256, 3)
    return found


class KeyEncoder(nn.Module):
    """ResNet-50 to stride 16 on a normalised frame."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        entering = 64
        for name, (middle, blocks, stride) in STAGES.items():
            stage = nn.Sequential()
            for number in range(blocks):
                stage.append(Bottleneck(entering, middle, stride if number == 0 else 1, number == 0))
                entering = 4 * middle
            self.add_module(NAMES_OF_STAGES[name], stage)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Strides 4, 8 and 16."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        found = []
        for name in NAMES_OF_STAGES.values():
            x = self.get_submodule(name)(x)
            found.append(x)
        return found


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, with biases although a norm follows each."""

    def __init__(self, entering: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(entering, channels, 3, stride, 1), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, 1, 1), nn.BatchNorm2d(channels)
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(entering, channels, 1, stride), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut: Tensor = self.downsample(x) if hasattr(self, "downsample") else x
        return F.relu(shortcut + y)


class ResBlock(nn.Module):
    """Rectified first, added to the input, which a convolution brings to another number of channels."""

    def __init__(self, entering: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        if entering != channels:
            self.downsample = nn.Conv2d(entering, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        shortcut: Tensor = self.downsample(x) if hasattr(self, "downsample") else x
        return shortcut + inner


class ChannelGate(nn.Module):
    """One perceptron on the mean and on the largest value of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 512))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        mean, largest = self.mlp(F.avg_pool2d(x, size)), self.mlp(F.max_pool2d(x, size))
        return x * torch.sigmoid(mean + largest).view(*x.shape[:2], 1, 1)


class SpatialGate(nn.Module):
    """One 7x7 convolution over the largest and the mean value of each place."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential()
        self.spatial.add_module("conv", nn.Conv2d(2, 1, 7, padding=3))

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([x.max(1).values, x.mean(1)], 1)
        return x * torch.sigmoid(self.spatial(maps))


class Attention(nn.Module):
    """CBAM: channels, then places."""

    def __init__(self) -> None:
        super().__init__()
        self.ChannelGate, self.SpatialGate = ChannelGate(), SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        weighted: Tensor = self.SpatialGate(self.ChannelGate(x))
        return weighted


class Fuser(nn.Module):
    """The value encoder's features and the key encoder's, together."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.attention, self.block2 = ResBlock(1280, 512), Attention(), ResBlock(512, 512)

    def forward(self, x: Tensor, stride16: Tensor) -> Tensor:
        x = self.block1(torch.cat([x, stride16], 1))
        fused: Tensor = self.block2(x + self.attention(x))
        return fused


class ValueEncoder(nn.Module):
    """ResNet-18 to stride 16 on a normalised frame, the object's mask and that of all others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(5, 64, 7, 2, 3), nn.BatchNorm2d(64)
        entering = 64
        for name, (channels, stride) in BASIC_STAGES.items():
            blocks = BasicBlock(entering, channels, stride), BasicBlock(channels, channels, 1)
            self.add_module(name, nn.Sequential(*blocks))
            entering = channels
        self.fuser = Fuser()

    def forward(self, frame: Tensor, stride16: Tensor, mask: Tensor, others: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(torch.cat([frame, mask, others], 1)))), 3, 2, 1)
        for name in BASIC_STAGES:
            x = self.get_submodule(name)(x)
        value: Tensor = self.fuser(x, stride16)
        return value


class KeyProjection(nn.Module):
    """Features to keys."""

    def __init__(self) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(1024, 64, 3, padding=1)


class Upsample(nn.Module):
    """A skip and what was decoded so far, at twice its size."""

    def __init__(self, skip: int, entering: int) -> None:
        super().__init__()
        self.skip_conv, self.out_conv = nn.Conv2d(skip, entering, 3, padding=1), ResBlock(entering, 256)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        finer: Tensor = self.out_conv(self.skip_conv(skip) + _larger(coarse, 2))
        return finer


class Decoder(nn.Module):
    """To one map of logits for each object, at the frame's size."""

    def __init__(self) -> None:
        super().__init__()
        self.compress, self.up_16_8, self.up_8_4 = ResBlock(1024, 512), Upsample(512, 512), Upsample(256, 256)
        self.pred = nn.Conv2d(256, 1, 3, padding=1)

    def forward(self, joined: Tensor, stride8: Tensor, stride4: Tensor) -> Tensor:
        x = self.up_8_4(stride4, self.up_16_8(stride8, self.compress(joined)))
        return _larger(self.pred(F.relu(x)), 4)


class ReferenceSTCN(nn.Module):
    """The whole of it, for one video. Frames `[1, 3, H, W]` are in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.key_encoder, self.value_encoder = KeyEncoder(), ValueEncoder()
        self.key_proj, self.key_comp = KeyProjection(), nn.Conv2d(1024, 512, 3, padding=1)
        self.decoder = Decoder()

    def encode_key(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Key, value of the query, and features at strides 16, 8 and 4 of a frame."""
        stride4, stride8, stride16 = self.key_encoder(normalised(frame))
        return self.key_proj.key_proj(stride16), self.key_comp(stride16), stride16, stride8, stride4

    def encode_value(self, frame: Tensor, stride16: Tensor, masks: Tensor) -> Tensor:
        """Values `[N, 512, h, w]` of objects `[N, H, W]` of a frame."""
        found = []
        for n, mask in enumerate(masks):
            others = sum((other for m, other in enumerate(masks) if m != n), torch.zeros_like(mask))
            found.append(self.value_encoder(normalised(frame), stride16, mask[None, None], others[None, None]))
        return torch.cat(found)

    def match(self, query: Tensor, keys: list[Tensor], values: list[Tensor], top_k: int | None) -> Tensor:
        """`[N, 512, h, w]` of a query key `[1, 64, h, w]`, from the best cells of memorised frames: keys `[1, 64, h,
        w]`, which all objects share, and values `[N, 512, h, w]`."""
        memory = torch.cat([key[0].flatten(1) for key in keys], 1)  # [64, T h w]
        asked = query[0].flatten(1)  # [64, h w]
        distances = (memory[:, :, None] - asked[:, None, :]).square().sum(0)  # [T h w, h w]
        scores = -distances / 64**0.5
        if top_k is not None:
            least = scores.sort(0, descending=True).values[min(top_k, len(scores)) - 1]
            scores = scores.masked_fill(scores < least, -torch.inf)
        weights = scores.softmax(0)  # one for all objects
        contents = torch.cat([value.flatten(2) for value in values], 2)  # [N, 512, T h w]
        return torch.stack([content @ weights for content in contents]).unflatten(2, query.shape[2:])

    def segment(
        self, frame: Tensor, keys: list[Tensor], values: list[Tensor], *, top_k: int | None = TOP_K
    ) -> tuple[Tensor, Tensor]:
        """What is recalled, and logits `[N, H, W]`."""
        query, own, _, stride8, stride4 = self.encode_key(frame)
        recalled = self.match(query, keys, values, top_k)
        joined = torch.cat([recalled, own.expand(len(recalled), -1, -1, -1)], 1)
        logits: Tensor = self.decoder(joined, stride8, stride4)
        return recalled, logits[:, 0]

    @torch.no_grad()
    def track(self, frames: Tensor, masks: Tensor, *, every: int = 1, top_k: int | None = TOP_K) -> Iterator[Tensor]:
        """Probabilities `[1 + N, H, W]` of each frame of `[T, 3, H, W]`, from the first masks `[N, H, W]`.

        Every n-th frame stays in memory for good; the last frame is there too, until the next (`--include_last`).
        """
        found = aggregated(masks)
        keys, values = list[Tensor](), list[Tensor]()
        yield found
        for number in range(1, len(frames)):
            before = frames[number - 1 : number]
            key, _, stride16, _, _ = self.encode_key(before)
            now = ([*keys, key], [*values, self.encode_value(before, stride16, found[1:])])
            found = aggregated(self.segment(frames[number : number + 1], *now, top_k=top_k)[1].sigmoid())
            if (number - 1) % every == 0:
                keys, values = now
            yield found


def normalised(frame: Tensor) -> Tensor:
    """By ImageNet's mean and deviation, as float32 holds them."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (frame - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)


def random_reference(seed: int = 4) -> ReferenceSTCN:
    """A reference in float64 of weights that float32 holds, whose norms and biases do something, whose read is neither
    flat nor of one cell alone, and whose masks neither vanish nor fill the frame."""
    torch.manual_seed(seed)
    network = ReferenceSTCN()
    draw_norms(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked is not None
            module.num_batches_tracked.fill_(7)
    network = network.double().eval()
    frame, masks = torch.rand(1, 3, 64, 96).double(), torch.zeros(2, 64, 96).double()
    masks[0, :32, :48], masks[1, 32:, 48:] = 1, 1
    with torch.no_grad():
        network.value_encoder.conv1.weight[:, 3:].mul_(8)
        network.decoder.pred.weight.mul_(30)
        key, _, stride16, _, _ = network.encode_key(frame)
        network.key_proj.key_proj.weight.mul_(0.5 / key.std())
        key = network.encode_key(frame)[0]
        logits = network.segment(frame, [key], [network.encode_value(frame, stride16, masks)])[1]
        network.decoder.pred.bias.sub_(logits.mean())
        for name, tensor in network.state_dict().items():
            if name.endswith((".bias", "running_mean")):
                tensor.copy_((tensor * 1024).round() / 1024)  # the difference of two is exact in float32
            elif tensor.is_floating_point():
                tensor.copy_(tensor.float())
    return network


def published_state(network: ReferenceSTCN) -> dict[str, Tensor]:
    """Its state in float32, as `stcn.pth` has it."""
    return {name: t.float() if t.is_floating_point() else t for name, t in network.state_dict().items()}


def _larger(features: Tensor, factor: int) -> Tensor:
    return F.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)
