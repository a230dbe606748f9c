"""Layers that networks share, and the features of a frame."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from stmemory.errors import OptionError, ShapeError
from stmemory.memory.attention import multiplies_bfloat16

__all__ = [
    "ConvNorm",
    "FrameFeatures",
    "ResidualBlock",
    "check_masks",
    "convolve",
    "fold_batch_norm",
    "keep_large_buffers",
    "of_rows",
    "upsample",
    "use_channels_last",
]


# Of a frame for each unknown of the discriminative read; with fewer it is left out, see docs/pages/limits.md.
_CELLS = 2.5


@dataclass(frozen=True, eq=False)
class FrameFeatures:
    """What a query encoder makes of `V` frames, once, whatever the number of objects.

    Attributes:
        frame: `[V, 3, H, W]`, RGB in [0, 1]; H and W are multiples of 16.
        key: `[V, Ck, h, w]`, the query key of eq. 13; `h = H / 16`.
        value: `[V, Cq, h, w]`, the query value of eq. 13.
        stride4: `[V, C4, H/4, W/4]`, a skip for the decoder.
        stride8: `[V, C8, H/8, W/8]`, a skip for the decoder.
        stride16: `[V, C16, h, w]`, the deepest features.
        appearance: `[V, D, H/8, W/8]`, what the discriminative read compares; None in a network without one.
    """

    frame: Tensor
    key: Tensor
    value: Tensor
    stride4: Tensor
    stride8: Tensor
    stride16: Tensor
    appearance: Tensor | None = None

    @property
    def can_discriminate(self) -> bool:
        """Whether a frame has cells enough for the discriminative read: a regression with one unknown for each channel
        and a constant."""
        if self.appearance is None:
            return False
        channels, height, width = self.appearance.shape[1:]
        return height * width >= _CELLS * (channels + 1)

    def of_rows(self, video: Tensor) -> FrameFeatures:
        """Repeat for rows: row b belongs to frame `video[b]`.

        Args:
            video: `[B]` int64, indices into V.

        Returns:
            The same record with `B` in place of `V`.
        """
        return self.changed(lambda tensor: of_rows(tensor, video))

    def detach(self) -> FrameFeatures:
        """The same record without its graph."""
        return self.changed(Tensor.detach)

    def changed(self, change: Callable[[Tensor], Tensor]) -> FrameFeatures:
        """The same record with a change to every map."""
        return FrameFeatures(
            frame=change(self.frame),
            key=change(self.key),
            value=change(self.value),
            stride4=change(self.stride4),
            stride8=change(self.stride8),
            stride16=change(self.stride16),
            appearance=None if self.appearance is None else change(self.appearance),
        )


def of_rows(features: Tensor, video: Tensor) -> Tensor:
    """What belongs to each row: `features [V, ...]` at `video [B]`, as `[B, ...]`. Those of a single frame are not
    copied.

    >>> import torch
    >>> of_rows(torch.ones(1, 2), torch.zeros(3, dtype=torch.int64)).shape
    torch.Size([3, 2])
    """
    rows = video.shape[0]  # not len(), which `torch.export` takes for a fixed number
    return features.expand(rows, *features.shape[1:]) if features.shape[0] == 1 else features[video]


def upsample(features: Tensor, factor: int) -> Tensor:
    """`[B, C, h, w]` to `[B, C, factor h, factor w]`, bilinear between the middles of pixels."""
    return nn.functional.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)


def check_masks(features: FrameFeatures, mask: Tensor, others: Tensor, video: Tensor) -> None:
    """Refuse masks that a memory encoder cannot lay over its frames.

    Args:
        features: features of V frames.
        mask: expected as `[B, 1, H, W]`, each row's object.
        others: expected as `[B, 1, H, W]`, all other objects.
        video: `[B]` int64, each row's frame.

    Raises:
        ShapeError: a mask is not `[B, 1, H, W]` of the frame's own B, H and W.
    """
    rows, (height, width) = video.shape[0], features.frame.shape[2:]
    for name, given in (("mask", mask), ("others", others)):
        if given.shape != (rows, 1, height, width):
            raise ShapeError(
                f"{name}: expected {(rows, 1, height, width)}, got {tuple(given.shape)}; "
                "give one map a row, of the frame's size"
            )


_GROUPS = 32
_LARGEST_KEPT = (32 << 20) - (1 << 16)  # bytes
_NORMS = ("batch", "group", "none")
_ACTIVATIONS = ("relu", "relu6", "none")
_FUSED: dict[str, tuple[str, list[float]]] = {"relu": ("relu", []), "relu6": ("hardtanh", [0.0, 6.0])}  # in oneDNN
_AFTER: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.ReLU6: "relu6"}


class ConvNorm(nn.Module):
    """A convolution without bias, its normalisation, and an activation: `[B, Cin, H, W]` to `[B, Cout, H', W']`.

    Padding keeps `H' = ceil(H / stride)`.

    Args:
        in_channels: Cin.
        out_channels: Cout.
        kernel_size: odd.
        stride: stride of the convolution.
        groups: groups of the convolution; `in_channels` makes it depthwise.
        norm: `"batch"`, `"group"` (32 groups, or one channel a group below that) or `"none"` (then the convolution has
            a bias).
        activation: `"relu"`, `"relu6"` or `"none"`.

    Raises:
        OptionError: an unknown norm or activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        for name, given, known in (("norm", norm, _NORMS), ("activation", activation, _ACTIVATIONS)):
            if given not in known:
                raise OptionError(f"ConvNorm: expected {name} in {', '.join(known)}, got {given!r}; choose one of them")
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=norm == "none",
        )
        self.norm = _norm(norm, out_channels)
        self.activation = _activation(activation)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        norm = self.norm
        if isinstance(norm, nn.BatchNorm2d) and not norm.training and torch.is_grad_enabled():
            out: Tensor = self.activation(self._folded(features, norm))  # a pass over the features less, forth and back
        else:
            known = _AFTER.get(type(self.activation)) if isinstance(norm, nn.Identity) else None
            out = convolve(self.conv, features, known) if known else self.activation(norm(self.conv(features)))
        return out

    def _folded(self, features: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """Convolution and BatchNorm with fixed statistics as one convolution; its weights' gradients go on to both."""
        conv = self.conv
        if norm.running_mean is None or norm.running_var is None:
            out: Tensor = norm(conv(features))
            return out
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight, bias = conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
        if conv.groups == conv.in_channels == conv.out_channels > 1 and features.device.type == "cpu":
            kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else features.dtype
            depthwise: Callable[..., Tensor] = _Depthwise.apply
            return depthwise(
                features.to(kind), weight.to(kind), bias.to(kind), conv.stride[0], conv.kernel_size[0] // 2
            )
        return nn.functional.conv2d(features, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose gradients are worked out in float32: in bfloat16 the CPU takes five times as long
    for them."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, stride: int, border: int) -> Tensor:
        """`[B, C, H, W]` and `[C, 1, k, k]` to `[B, C, H/stride, W/stride]`."""
        ctx.save_for_backward(features, weight)
        ctx.how = stride, border
        return nn.functional.conv2d(features, weight, bias, stride, border, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """Of features, weight and bias."""
        (features, weight), (stride, border) = ctx.saved_tensors, ctx.how
        wanted = list(ctx.needs_input_grad[:3])
        exact, kind = gradient.float(), features.dtype
        backward = torch.ops.aten.convolution_backward
        found = backward(
            exact,
            features.float(),
            weight.float(),
            [len(weight)],
            [stride] * 2,
            [border] * 2,
            [1, 1],
            False,
            [0, 0],
            len(weight),
            wanted,
        )
        of_features, of_weight, of_bias = (None if one is None else one.to(kind) for one in found)
        return of_features, of_weight, of_bias, None, None


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, activation first (STM's ResBlock): `[B, Cin, H, W]` to `[B, C, H, W]`.

    Args:
        in_channels: Cin.
        channels: C; with another number than Cin the shortcut is a 3x3 convolution (STCN's ResBlock). None is Cin.
    """

    def __init__(self, in_channels: int, channels: int | None = None) -> None:
        super().__init__()
        channels = in_channels if channels is None else channels
        self.first = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        same = channels == in_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.second(convolve(self.first, torch.relu(features), "relu"))
        kept: Tensor = self.shortcut(features)
        return out.add_(kept) if out.dtype == kept.dtype else kept + out  # they differ under autocast


def convolve(convolution: nn.Conv2d, features: Tensor, activation: str) -> Tensor:
    """A convolution and its activation, in one pass where oneDNN computes both: on the CPU, in inference mode. The
    result is the same but for rounding.

    Args:
        convolution: any; one with hooks, of another class or with other padding than zeros is called as it is.
        features: `[B, Cin, H, W]`.
        activation: `"relu"`, `"relu6"` or `"none"`.

    >>> convolve(nn.Conv2d(3, 8, 1), torch.rand(1, 3, 4, 5), "relu").shape
    torch.Size([1, 8, 4, 5])
    """
    if activation in _FUSED and _is_fused(convolution, features):
        name, bounds = _FUSED[activation]
        where = [list(pair) for pair in (convolution.padding, convolution.stride, convolution.dilation)]
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
            features, convolution.weight, convolution.bias, *where, convolution.groups, name, bounds, ""
        )
        return fused
    out: Tensor = convolution(features)
    if activation not in _FUSED:
        return out
    return torch.relu_(out) if activation == "relu" else nn.functional.relu6(out, inplace=True)


def _is_fused(convolution: nn.Conv2d, features: Tensor) -> bool:
    """Whether oneDNN computes this convolution together with what follows."""
    plain = type(features) is Tensor and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")
    if not (plain and torch.is_inference_mode_enabled()):  # which leaves out tracing and forward derivatives too
        return False
    hooked = convolution._forward_hooks or convolution._forward_pre_hooks  # of pruning, for one, which sets the weight
    known = type(convolution) is nn.Conv2d and convolution.padding_mode == "zeros" and not hooked
    fits = known and features.dtype == convolution.weight.dtype and features.device.type == "cpu"
    return fits and features.numel() > 0 and bool(torch.backends.mkldnn.enabled) and _can_fuse(features.dtype)


@functools.cache
def _can_fuse(dtype: torch.dtype) -> bool:
    """Whether this build of torch, on this processor, has oneDNN's convolution with an activation, and it does what it
    should."""
    if dtype != torch.float32 and not (dtype == torch.bfloat16 and multiplies_bfloat16()):
        return False
    try:
        one = torch.ones(1, 1, 1, 1, device="cpu", dtype=dtype)
        how = (-one.flatten(), [0, 0], [1, 1], [1, 1], 1)
        found = [torch.ops.mkldnn._convolution_pointwise(8 * one, one, *how, *after, "") for after in _FUSED.values()]
        return [answer.item() for answer in found] == [7.0, 6.0]  # 8 - 1, at most 6
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False


def fold_batch_norm(network: nn.Module) -> int:
    """Fold every `ConvNorm`'s BatchNorm into its convolution, in place, for inference.

    Args:
        network: network in eval mode.

    Returns:
        How many were folded. A second call folds none.

    Raises:
        OptionError: the network is in training mode, where BatchNorm computes something else.

    >>> fold_batch_norm(ConvNorm(3, 8).eval())
    1
    """
    if network.training:
        raise OptionError(
            "fold_batch_norm: expected a network in eval mode, got one in training mode; call eval() first"
        )
    folded = 0
    for module in network.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            conv, norm = module.conv, module.norm
            if norm.running_mean is None or norm.running_var is None:
                continue
            weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            conv.weight, conv.bias = weight, bias
            module.norm = nn.Identity()
            folded += 1
    return folded


def use_channels_last(network: nn.Module) -> None:
    """Lay out the weights of 2-d convolutions with channels innermost, in place: a quarter faster on CPUs and tensor
    cores.

    >>> use_channels_last(ConvNorm(3, 8))
    """
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def keep_large_buffers() -> None:
    """Make the allocator of Linux keep buffers up to 32 MiB for the next frame; costs nothing, and changes no result.

    glibc gives a large buffer back to the system at once, to be cleared and mapped again at the next frame, until it
    has seen one of that size freed; above 32 MiB it never learns. The one here is not touched, so it takes no memory.
    """
    torch.empty(_LARGEST_KEPT, dtype=torch.uint8, device="cpu")  # whatever the default device is


def _norm(name: str, channels: int) -> nn.Module:
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "group":
        return nn.GroupNorm(min(_GROUPS, channels), channels)
    return nn.Identity()


def _activation(name: str) -> nn.Module:
    if name == "relu":
        return nn.ReLU(inplace=True)
    if name == "relu6":
        return nn.ReLU6(inplace=True)
    return nn.Identity()
