"""Facts about the layers that every network is built from."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from allocations import allocations
from torch import Tensor, nn
from torch.nn import functional as F

from stmemory.errors import OptionError
from stmemory.networks.layers import ConvNorm, ResidualBlock, _can_fuse, convolve, fold_batch_norm, keep_large_buffers


def _randomise(network: nn.Module) -> None:
    """Give every norm statistics and affine weights that a wrong fold would not survive."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.5)


def _group_norm_slowly(features: Tensor, groups: int, weight: Tensor, bias: Tensor) -> Tensor:
    """Each row's each group of channels to zero mean and unit variance, then weight and bias a channel."""
    out = torch.empty_like(features)
    size = features.shape[1] // groups
    for row in range(features.shape[0]):
        for group in range(groups):
            one = features[row, group * size : (group + 1) * size]
            centred = one - one.sum() / one.numel()
            out[row, group * size : (group + 1) * size] = centred / ((centred**2).sum() / one.numel() + 1e-5).sqrt()
    return out * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (5, 9), (1, 1), (7, 2)], ids=["even", "odd", "one", "mixed"])
def test_padding_keeps_size_over_stride(kernel_size: int, stride: int, height: int, width: int) -> None:
    """A ConvNorm's output has the input's size over the stride, rounded up."""
    layer = ConvNorm(3, 4, kernel_size, stride=stride, norm="batch").eval()
    expected = (2, 4, math.ceil(height / stride), math.ceil(width / stride))
    assert expected == layer(torch.randn(2, 3, height, width)).shape


@pytest.mark.parametrize(("norm", "biased"), [("batch", False), ("group", False), ("none", True)])
def test_convolution_has_a_bias_only_without_norm(norm: str, biased: bool) -> None:
    """A convolution that a norm follows has no bias, one that none follows has."""
    assert biased == (ConvNorm(3, 4, norm=norm).conv.bias is not None)


@pytest.mark.parametrize(("channels", "groups"), [(4, 4), (32, 32), (64, 32), (1024, 32)])
def test_group_norm_has_32_groups_or_one_channel_a_group(channels: int, groups: int) -> None:
    """GroupNorm has 32 groups, and as many groups as channels where there are fewer than 32."""
    norm = ConvNorm(1, channels, 1, norm="group").norm
    assert isinstance(norm, nn.GroupNorm)
    assert (groups, channels, 1e-5) == (norm.num_groups, norm.num_channels, norm.eps)


def test_group_norm_layer_equals_the_slow_reference() -> None:
    """A ConvNorm with GroupNorm is convolution, normalisation of each group in each row, then ReLU."""
    torch.manual_seed(0)
    layer = ConvNorm(3, 64, 3, stride=2, norm="group")
    _randomise(layer)
    frame = torch.randn(2, 3, 9, 7)
    convolved = F.conv2d(frame, layer.conv.weight, stride=2, padding=1)
    normed = _group_norm_slowly(convolved, 32, layer.norm.weight, layer.norm.bias)
    torch.testing.assert_close(normed.clamp(min=0), layer(frame), atol=1e-5, rtol=1e-5)


def test_batch_norm_layer_equals_the_slow_reference() -> None:
    """A ConvNorm with BatchNorm in eval mode normalises each channel by its stored mean and variance."""
    torch.manual_seed(0)
    layer = ConvNorm(3, 8, 3, norm="batch").eval()
    _randomise(layer)
    frame = torch.randn(2, 3, 5, 7)
    expected = F.conv2d(frame, layer.conv.weight, padding=1)
    for channel in range(8):
        deviation = (layer.norm.running_var[channel] + 1e-5).sqrt()
        scaled = (expected[:, channel] - layer.norm.running_mean[channel]) / deviation
        expected[:, channel] = scaled * layer.norm.weight[channel] + layer.norm.bias[channel]
    torch.testing.assert_close(expected.clamp(min=0), layer(frame), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("relu", [0.0, 0.5, 9.0]), ("relu6", [0.0, 0.5, 6.0]), ("none", [-2.0, 0.5, 9.0])],
    ids=["relu", "relu6", "none"],
)
def test_activation_follows_its_name(activation: str, expected: list[float]) -> None:
    """ReLU clips below zero, ReLU6 also above six, and none clips nothing."""
    layer = ConvNorm(1, 1, 1, norm="none", activation=activation)
    with torch.no_grad():
        layer.conv.weight.fill_(1.0)
        layer.conv.bias.zero_()
        assert expected == layer(torch.tensor([-2.0, 0.5, 9.0]).view(1, 1, 1, 3)).flatten().tolist()


def test_grouped_convolution_sees_its_own_channel_only() -> None:
    """With as many groups as channels, a channel's output does not depend on the other channels."""
    torch.manual_seed(0)
    layer = ConvNorm(4, 4, 3, groups=4, norm="batch", activation="none").eval()
    frame = torch.randn(1, 4, 6, 6)
    changed = frame.clone()
    changed[:, 1:] += 1.0
    torch.testing.assert_close(layer(frame)[:, 0], layer(changed)[:, 0], atol=0, rtol=0)
    assert (layer(frame)[:, 1:] != layer(changed)[:, 1:]).any()


def test_residual_block_equals_its_definition_and_keeps_its_input() -> None:
    """A residual block is x + second(relu(first(relu(x)))), and leaves x as it was."""
    torch.manual_seed(0)
    block = ResidualBlock(4)
    features = torch.randn(2, 4, 5, 3)
    kept = features.clone()
    inner = F.conv2d(features.clamp(min=0), block.first.weight, block.first.bias, padding=1)
    outer = F.conv2d(inner.clamp(min=0), block.second.weight, block.second.bias, padding=1)
    torch.testing.assert_close(features + outer, block(features))
    assert torch.equal(kept, features)


@pytest.mark.slow
def test_large_buffers_are_kept_on_the_cpu() -> None:
    """Under a default device that is not the CPU, the buffer that teaches the allocator comes from it all the same."""
    with torch.device("meta"):
        assert 32 * 2**20 - 2**16 in allocations(keep_large_buffers)


@pytest.mark.parametrize("activation", ["relu", "relu6", "none"])
def test_folding_keeps_the_output(activation: str) -> None:
    """A network computes the same with its BatchNorms folded, and then has none left."""
    torch.manual_seed(0)
    network = nn.Sequential(
        ConvNorm(3, 8, 3, stride=2, activation=activation),
        ConvNorm(8, 8, 5, groups=8, activation=activation),
        ConvNorm(8, 4, 1, activation=activation),
    ).eval()
    _randomise(network)
    frame = torch.randn(2, 3, 11, 13)
    with torch.no_grad():
        expected = network(frame)
        assert 3 == fold_batch_norm(network)
        torch.testing.assert_close(expected, network(frame), atol=0.05, rtol=0.01)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_folding_twice_folds_none_the_second_time() -> None:
    """A second fold finds nothing to do and changes no weight."""
    network = nn.Sequential(ConvNorm(3, 8), ConvNorm(8, 4)).eval()
    _randomise(network)
    assert 2 == fold_batch_norm(network)
    state = copy.deepcopy(network.state_dict())
    assert 0 == fold_batch_norm(network)
    assert all(torch.equal(state[name], weight) for name, weight in network.state_dict().items())


@pytest.mark.parametrize("norm", ["group", "none"])
def test_folding_leaves_other_norms_alone(norm: str) -> None:
    """Networks without BatchNorm keep every layer and every weight."""
    network = nn.Sequential(ConvNorm(3, 8, norm=norm), ResidualBlock(8), ConvNorm(8, 4, norm=norm)).eval()
    _randomise(network)
    layers, state = str(network), copy.deepcopy(network.state_dict())
    assert 0 == fold_batch_norm(network)
    assert layers == str(network)
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(state[name], weight) for name, weight in network.state_dict().items())


def test_folding_in_training_mode_is_refused() -> None:
    """In training mode BatchNorm uses the batch's own statistics, so folding would change the function; nothing is
    folded."""
    network = nn.Sequential(ConvNorm(3, 8), ConvNorm(8, 4))
    with pytest.raises(
        OptionError, match=r"expected a network in eval mode, got one in training mode; call eval\(\) first"
    ):
        fold_batch_norm(network)
    assert 2 == fold_batch_norm(network.eval())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "layer"}, "expected norm in batch, group, none, got 'layer'"),
        ({"norm": ""}, "expected norm in batch, group, none, got ''"),
        ({"activation": "gelu"}, "expected activation in relu, relu6, none, got 'gelu'"),
    ],
    ids=["norm", "empty", "activation"],
)
def test_unknown_names_are_refused(options: dict[str, str], message: str) -> None:
    """A ConvNorm lists the norms or activations that it knows."""
    with pytest.raises(OptionError, match=message):
        ConvNorm(3, 4, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("activation", ["relu", "relu6", "none"])
@pytest.mark.parametrize(("groups", "stride", "bias"), [(1, 1, True), (4, 2, False)], ids=["dense", "depthwise"])
def test_a_convolution_with_its_activation_is_one_after_the_other(
    dtype: torch.dtype, activation: str, groups: int, stride: int, bias: bool
) -> None:
    """But for rounding, in the same layout, of one image and of several."""
    convolution = nn.Conv2d(4, 8, 3, padding=1, stride=stride, groups=groups, bias=bias).to(dtype)
    after = {"relu": F.relu, "relu6": F.relu6, "none": torch.clone}[activation]
    for images in (1, 2):
        features = (6 * torch.randn(images, 4, 9, 7)).to(dtype).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected, found = after(convolution(features)), convolve(convolution, features, activation)
        torch.testing.assert_close(expected, found)
        assert expected.stride() == found.stride()


def _passes(module: nn.Module, features: Tensor) -> int:
    """How many convolutions a call computes together with what follows."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        module(features)
    return sum(event.count for event in seen.key_averages() if event.key == "mkldnn::_convolution_pointwise")


@pytest.mark.skipif(not _can_fuse(torch.float32), reason="a build of torch without oneDNN")
def test_a_layer_computes_its_activation_in_the_same_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch can do so, a folded layer and a residual block call one operation for both; not where a
    derivative or a hook wants them apart, or oneDNN is switched off."""
    layer, block, features = ConvNorm(4, 4, activation="relu6").eval(), ResidualBlock(4), torch.rand(1, 4, 6, 6)
    fold_batch_norm(layer)
    with torch.inference_mode():
        assert (1, 1) == (_passes(layer, features), _passes(block, features))
        with monkeypatch.context() as patched:
            patched.setattr(torch.backends.mkldnn, "enabled", False)
            assert 0 == _passes(block, features)
    with torch.no_grad():
        assert 0 == _passes(block, features)
    called: list[object] = []
    block.first.register_forward_hook(lambda *call: called.append(call))
    with torch.inference_mode():
        assert 0 == _passes(block, features) and 1 == len(called)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_derivatives_go_through_a_convolution_with_its_activation() -> None:
    """Without grad too: the tangent is that of all of a block, not of its shortcut alone."""
    block, features = ResidualBlock(4), torch.rand(1, 4, 6, 6)
    with torch.no_grad():
        tangent = torch.func.jvp(block, (features,), (torch.ones_like(features),))[1]
        step = (block(features + 1e-2) - block(features - 1e-2)) / 2e-2
    torch.testing.assert_close(step, tangent, atol=0.05, rtol=0.01)


def test_no_rows_are_convolved_to_no_rows() -> None:
    """An empty batch is one more shape."""
    with torch.inference_mode():
        assert convolve(nn.Conv2d(3, 8, 1), torch.rand(0, 3, 4, 5), "relu").shape == (0, 8, 4, 5)
