"""STM (Oh et al., ICCV 2019) as its paper and its published names describe it: slow, plain `torch.nn`, memory that
grows.

The modules carry the published attribute names, so that `published_state` has the names and shapes of
`STM_weights.pth`. Written from the description; shares nothing with the package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = {
    "res2": (64, 3, 1),
    "res3": (128, 4, 2),
    "res4": (256, 6, 2),
}  # middle channels, bottlenecks, stride of the first


class Listing(dict[str, tuple[int, ...]]):
    """Published names and their shapes, counted out from an architecture part by part."""

    def conv(self, name: str, out: int, into: int, size: int, *, bias: bool = True) -> None:
        """A convolution."""
        self[f"{name}.weight"] = (out, into, size, size)
        if bias:
            self[f"{name}.bias"] = (out,)

    def norm(self, name: str, channels: int) -> None:
        """A batch norm."""
        for field in ("weight", "bias", "running_mean", "running_var"):
            self[f"{name}.{field}"] = (channels,)
        self[f"{name}.num_batches_tracked"] = ()

    def res_block(self, name: str, out: int = 256, into: int = 256) -> None:
        """Two convolutions, and a third one where the number of channels changes."""
        self.conv(f"{name}.conv1", out, into, 3)
        self.conv(f"{name}.conv2", out, out, 3)
        if out != into:
            self.conv(f"{name}.downsample", out, into, 3)

    def resnet50(self, name: str, stages: Mapping[str, str]) -> None:
        """ResNet-50 to stride 16, whose stages have these names."""
        self.conv(f"{name}.conv1", 64, 3, 7, bias=False)
        self.norm(f"{name}.bn1", 64)
        entering = 64
        for stage, (middle, blocks, _) in STAGES.items():
            for number in range(blocks):
                block = f"{name}.{stages[stage]}.{number}"
                for which, out, into, size in (
                    (1, middle, entering, 1),
                    (2, middle, middle, 3),
                    (3, 4 * middle, middle, 1),
                ):
                    self.conv(f"{block}.conv{which}", out, into, size, bias=False)
                    self.norm(f"{block}.bn{which}", out)
                if number == 0:
                    self.conv(f"{block}.downsample.0", 4 * middle, entering, 1, bias=False)
                    self.norm(f"{block}.downsample.1", 4 * middle)
                entering = 4 * middle


def listing() -> Listing:
    """Every published name, without `module.`, and its shape."""
    found = Listing()
    for encoder in ("Encoder_M", "Encoder_Q"):
        for constant in ("mean", "std"):
            found[f"{encoder}.{constant}"] = (1, 3, 1, 1)
        found.resnet50(encoder, {stage: stage for stage in STAGES})
    found.conv("Encoder_M.conv1_m", 64, 1, 7, bias=False)
    found.conv("Encoder_M.conv1_o", 64, 1, 7, bias=False)
    for pair in ("KV_M_r4", "KV_Q_r4"):
        found.conv(f"{pair}.Key", 128, 1024, 3)
        found.conv(f"{pair}.Value", 512, 1024, 3)
    found.conv("Decoder.convFM", 256, 1024, 3)
    found.res_block("Decoder.ResMM")
    for refine, skip in (("RF3", 512), ("RF2", 256)):
        found.conv(f"Decoder.{refine}.convFS", 256, skip, 3)
        found.res_block(f"Decoder.{refine}.ResFS")
        found.res_block(f"Decoder.{refine}.ResMM")
    found.conv("Decoder.pred2", 2, 256, 3)
    return found


class Bottleneck(nn.Module):
    """A bottleneck of ResNet-50 as torchvision names it: the stride sits on the 3x3 convolution."""

    def __init__(self, entering: int, middle: int, stride: int, first: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(entering, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv2, self.bn2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = nn.Conv2d(middle, 4 * middle, 1, bias=False), nn.BatchNorm2d(4 * middle)
        if first:
            self.downsample = nn.Sequential(
                nn.Conv2d(entering, 4 * middle, 1, stride, bias=False), nn.BatchNorm2d(4 * middle)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut: Tensor = self.downsample(x) if hasattr(self, "downsample") else x
        return F.relu(shortcut + y)


class Encoder(nn.Module):
    """ResNet-50 to stride 16 on a normalised frame; with `masks`, two more 7x7 convolutions join the first."""

    mean: Tensor
    std: Tensor

    def __init__(self, masks: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        if masks:
            self.conv1_m, self.conv1_o = nn.Conv2d(1, 64, 7, 2, 3, bias=False), nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        entering = 64
        for name, (middle, blocks, stride) in STAGES.items():
            stage = nn.Sequential()
            for number in range(blocks):
                stage.append(Bottleneck(entering, middle, stride if number == 0 else 1, number == 0))
                entering = 4 * middle
            self.add_module(name, stage)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, frame: Tensor, mask: Tensor | None = None, others: Tensor | None = None) -> list[Tensor]:
        """Strides 4, 8 and 16 of frames `[B, 3, H, W]`, with masks `[B, H, W]`."""
        x = self.conv1((frame - self.mean) / self.std)
        if mask is not None and others is not None:
            x = x + self.conv1_m(mask[:, None]) + self.conv1_o(others[:, None])
        x = F.max_pool2d(F.relu(self.bn1(x)), 3, 2, 1)
        found = []
        for name in STAGES:
            x = self.get_submodule(name)(x)
            found.append(x)
        return found


class Heads(nn.Module):
    """Key and value of what an encoder made."""

    def __init__(self) -> None:
        super().__init__()
        self.Key, self.Value = nn.Conv2d(1024, 128, 3, padding=1), nn.Conv2d(1024, 512, 3, padding=1)


class ResBlock(nn.Module):
    """Rectified first, added to the input as it came."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(256, 256, 3, padding=1), nn.Conv2d(256, 256, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + inner


class Refine(nn.Module):
    """A skip and what was decoded so far, at twice its size."""

    def __init__(self, skip: int) -> None:
        super().__init__()
        self.convFS, self.ResFS, self.ResMM = nn.Conv2d(skip, 256, 3, padding=1), ResBlock(), ResBlock()

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        fine = self.ResFS(self.convFS(skip))
        refined: Tensor = self.ResMM(fine + _larger(coarse, 2))
        return refined


class Decoder(nn.Module):
    """To two maps, of the background and of the object, at the frame's size."""

    def __init__(self) -> None:
        super().__init__()
        self.convFM, self.ResMM = nn.Conv2d(1024, 256, 3, padding=1), ResBlock()
        self.RF3, self.RF2 = Refine(512), Refine(256)
        self.pred2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, joined: Tensor, stride8: Tensor, stride4: Tensor) -> Tensor:
        x = self.ResMM(self.convFM(joined))
        x = self.RF2(stride4, self.RF3(stride8, x))
        return _larger(self.pred2(F.relu(x)), 4)


class ReferenceSTM(nn.Module):
    """The whole of it, for one video."""

    def __init__(self) -> None:
        super().__init__()
        self.Encoder_M, self.Encoder_Q = Encoder(masks=True), Encoder(masks=False)
        self.KV_M_r4, self.KV_Q_r4 = Heads(), Heads()
        self.Decoder = Decoder()

    def memorise(self, frame: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Template, key and value `[N, c, h, w]` of objects `[N, H, W]` of a frame `[1, 3, H, W]`."""
        others = torch.stack(
            [masks[[m for m in range(len(masks)) if m != n]].sum(0).clamp(0, 1) for n in range(len(masks))]
        )
        template: Tensor = self.Encoder_M(frame.expand(len(masks), -1, -1, -1), masks, others)[2]
        return template, self.KV_M_r4.Key(template), self.KV_M_r4.Value(template)

    def recall(self, query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        """`[N, 512, h, w]` of a query key `[1, 128, h, w]` and lists of keys and values, one entry a memorised
        frame."""
        objects = []
        for n in range(len(keys[0])):
            key = torch.cat([k[n].flatten(1) for k in keys], 1)  # [128, T h w]
            value = torch.cat([v[n].flatten(1) for v in values], 1)
            weights = (key.T @ query[0].flatten(1) / 128**0.5).softmax(0)  # [T h w, h w]
            objects.append((value @ weights).view(-1, *query.shape[2:]))
        return torch.stack(objects)

    def decode(self, frame: Tensor, keys: list[Tensor], values: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What is recalled, the two maps `[N, 2, H, W]`, and the aggregated probabilities `[1 + N, H, W]`."""
        stride4, stride8, stride16 = self.Encoder_Q(frame)
        recalled = self.recall(self.KV_Q_r4.Key(stride16), keys, values)
        joined = torch.cat([recalled, self.KV_Q_r4.Value(stride16).expand(len(recalled), -1, -1, -1)], 1)
        maps: Tensor = self.Decoder(joined, *(s.expand(len(recalled), -1, -1, -1) for s in (stride8, stride4)))
        return recalled, maps, aggregated(maps.softmax(1)[:, 1])

    @torch.no_grad()
    def track(self, frames: Tensor, masks: Tensor, *, every: int = 1) -> Iterator[Tensor]:
        """Probabilities `[1 + N, H, W]` of each frame of `[T, 3, H, W]`, from the first masks `[N, H, W]`.

        Every n-th frame stays in memory for good; the last frame is there too, until the next.
        """
        found = torch.cat([1 - masks.sum(0, keepdim=True), masks])
        keys, values = list[Tensor](), list[Tensor]()
        yield found
        for number in range(1, len(frames)):
            _, key, value = self.memorise(frames[number - 1 : number], found[1:])
            now = ([*keys, key], [*values, value])
            found = self.decode(frames[number : number + 1], *now)[2]
            if (number - 1) % every == 0:
                keys, values = now
            yield found


def aggregated(objects: Tensor) -> Tensor:
    """Soft aggregation: the odds of the background and of each object, divided by their sum."""
    background = (1 - objects).prod(0, keepdim=True)
    p = torch.cat([background, objects]).clamp(1e-7, 1 - 1e-7)
    return torch.log(p / (1 - p)).softmax(0)


def draw_norms(network: nn.Module) -> None:
    """Statistics and weights of BatchNorm that do something, drawn at random."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)


def random_reference(seed: int = 2) -> ReferenceSTM:
    """A reference in float64 whose norms do something and whose masks neither vanish nor fill the frame."""
    torch.manual_seed(seed)
    network = ReferenceSTM()
    draw_norms(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked is not None
            module.num_batches_tracked.fill_(7)
    network = network.double().eval()
    frame, masks = torch.rand(1, 3, 48, 64).double(), torch.zeros(2, 48, 64).double()
    masks[0, :24, :32], masks[1, 24:, 32:] = 1, 1
    with torch.no_grad():
        for conv, factor in (
            (network.Encoder_M.conv1_m, 8),
            (network.Encoder_M.conv1_o, 8),
            (network.KV_M_r4.Key, 4),
            (network.KV_Q_r4.Key, 4),
            (network.Decoder.pred2, 30),
        ):
            conv.weight.mul_(factor)
        _, key, value = network.memorise(frame, masks)
        maps = network.decode(frame, [key], [value])[1]
        network.Decoder.pred2.bias[1] += (maps[:, 0] - maps[:, 1]).mean()
    return network


def published_state(network: nn.Module) -> dict[str, Tensor]:
    """Its state in float32 under the published names: `nn.DataParallel` puts `module.` before each."""
    state = network.state_dict()
    return {f"module.{name}": t.float() if t.is_floating_point() else t for name, t in state.items()}


def _larger(features: Tensor, factor: int) -> Tensor:
    return F.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)
