"""Facts about ResNet-50 and STM's encoders and decoder, each beside a slow reference written from the description."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stmemory.errors import OptionError, ShapeError
from stmemory.networks.layers import FrameFeatures, fold_batch_norm
from stmemory.networks.resnet import ImageNetNormalisation, ResNet50
from stmemory.networks.stm import Refine, StmDecoder, StmMemoryEncoder, StmQueryEncoder

WIDTH = 4
NORMS = ["group", "batch"]
SIZES = [(16, 16), (48, 80), (112, 16)]
BLOCKS = 3 + 4 + 6
# Thirteen bottlenecks of a few channels magnify float32's rounding a thousandfold, so comparisons run in float64.
EXACT = {"atol": 1e-9, "rtol": 1e-9}


def _query_encoder(norm: str = "group") -> StmQueryEncoder:
    return StmQueryEncoder(norm=norm, width=WIDTH, key_channels=6, value_channels=10)


def _decoder() -> StmDecoder:
    return StmDecoder(
        recalled_channels=14, value_channels=10, stride4_channels=4 * WIDTH, stride8_channels=8 * WIDTH, channels=8
    )


def _randomise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# The reference: ResNet-50 version 1.5 and STM's layers, in plain functional calls over a state dict.


def _norm(features: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    if f"{name}.running_mean" in state:
        return F.batch_norm(features, state[f"{name}.running_mean"], state[f"{name}.running_var"], weight, bias)
    return F.group_norm(features, min(32, features.shape[1]), weight, bias)


def _bottleneck(features: Tensor, state: dict[str, Tensor], name: str, stride: int) -> Tensor:
    out = F.relu(_norm(F.conv2d(features, state[f"{name}.reduce.conv.weight"]), state, f"{name}.reduce.norm"))
    out = F.conv2d(out, state[f"{name}.spatial.conv.weight"], stride=stride, padding=1)
    out = F.relu(_norm(out, state, f"{name}.spatial.norm"))
    out = _norm(F.conv2d(out, state[f"{name}.expand.conv.weight"]), state, f"{name}.expand.norm")
    if f"{name}.shortcut.conv.weight" in state:
        features = F.conv2d(features, state[f"{name}.shortcut.conv.weight"], stride=stride)
        features = _norm(features, state, f"{name}.shortcut.norm")
    return F.relu(features + out)


def _stages(stride2: Tensor, state: dict[str, Tensor]) -> list[Tensor]:
    """Strides 4, 8 and 16 from the rectified stem."""
    features = F.max_pool2d(stride2, 3, stride=2, padding=1)
    skips = []
    for stage, blocks, stride in ((1, 3, 1), (2, 4, 2), (3, 6, 2)):
        for block in range(blocks):
            name = f"backbone.layer{stage}.{block}"
            features = _bottleneck(features, state, name, stride if block == 0 else 1)
        skips.append(features)
    return skips


def _normalised(frame: Tensor) -> Tensor:
    # float32 tensors on purpose: a network moved to float64 keeps the constants that float32 could hold.
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return torch.stack([(frame[:, channel] - mean[channel]) / deviation[channel] for channel in range(3)], dim=1)


def _memory_stem(frame: Tensor, mask: Tensor, others: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Three 7x7/2 convolutions, of the frame and of the two masks, added before the norm."""
    weight = state["backbone.stem.conv.weight"]
    total = F.conv2d(_normalised(frame), weight[:, :3], stride=2, padding=3)
    total = total + F.conv2d(mask, weight[:, 3:4], stride=2, padding=3)
    total = total + F.conv2d(others, weight[:, 4:5], stride=2, padding=3)
    return F.relu(_norm(total, state, "backbone.stem.norm"))


def _double_lines(features: Tensor) -> Tensor:
    """Bilinear x2 along the last dim: each new sample is 3/4 of the nearest old one and 1/4 of the next nearest."""
    left = torch.cat((features[..., :1], features[..., :-1]), dim=-1)
    right = torch.cat((features[..., 1:], features[..., -1:]), dim=-1)
    pairs = torch.stack((0.75 * features + 0.25 * left, 0.75 * features + 0.25 * right), dim=-1)
    return pairs.flatten(-2)


def _double(features: Tensor) -> Tensor:
    return _double_lines(_double_lines(features).transpose(-1, -2)).transpose(-1, -2)


def _convolve(features: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return F.conv2d(features, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)


def _residual(features: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    inner = _convolve(F.relu(features), state, f"{name}.first")
    return features + _convolve(F.relu(inner), state, f"{name}.second")


def _refine(skip: Tensor, coarse: Tensor, state: dict[str, Tensor], prefix: str = "") -> Tensor:
    fine = _residual(_convolve(skip, state, f"{prefix}skip"), state, f"{prefix}skip_block")
    return _residual(fine + _double(coarse), state, f"{prefix}block")


def _decode(recalled: Tensor, features: FrameFeatures, state: dict[str, Tensor]) -> Tensor:
    """Foreground probabilities `[B, H, W]`, by STM's softmax over background and foreground."""
    joined = torch.cat((recalled, features.value), dim=1)
    stride16 = _residual(_convolve(joined, state, "mix"), state, "mix_block")
    stride8 = _refine(features.stride8, stride16, state, "refine8.")
    stride4 = _refine(features.stride4, stride8, state, "refine4.")
    pair = _convolve(F.relu(stride4), state, "predict")
    return F.interpolate(pair, scale_factor=4, mode="bilinear", align_corners=False).softmax(dim=1)[:, 1]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_query_encoder_shapes(norm: str, height: int, width: int) -> None:
    """Key, value and skips have the sizes of strides 16, 16, 4, 8 and 16, also at odd multiples of 16."""
    features = _query_encoder(norm)(torch.rand(2, 3, height, width))
    cells = (height // 16, width // 16)
    assert (2, 6, *cells) == features.key.shape
    assert (2, 10, *cells) == features.value.shape
    assert (2, 16, height // 4, width // 4) == features.stride4.shape
    assert (2, 32, height // 8, width // 8) == features.stride8.shape
    assert (2, 64, *cells) == features.stride16.shape


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_rows_are_encoded_and_decoded_at_the_frames_size(height: int, width: int) -> None:
    """Three rows of two videos give three templates at stride 16 and three maps of logits at the frame's size."""
    features, video = _query_encoder()(torch.rand(2, 3, height, width)), torch.tensor([0, 0, 1])
    mask = torch.rand(3, 1, height, width)
    template = StmMemoryEncoder(width=WIDTH)(features, mask, 1 - mask, video)
    logits = _decoder()(torch.randn(3, 14, height // 16, width // 16), features, video)
    assert (3, 64, height // 16, width // 16) == template.shape
    assert (3, height, width) == logits.shape


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        # A bottleneck of c channels on n: n*c + 9*c*c + 4*c*c weights and 12*c of norm; its shortcut 4*n*c and 8*c.
        # Stem 9,536; stages 215,808 + 1,219,584 + 7,098,368.
        (lambda: ResNet50("batch"), 8_543_296),
        (lambda: ResNet50("group"), 8_543_296),
        # Two more 7x7 kernels for each of 64 channels: 6,272.
        (lambda: StmMemoryEncoder(), 8_549_568),
        # Key 9*1024*128 + 128 and value 9*1024*512 + 512.
        (lambda: StmQueryEncoder(), 14_442_176),
        # Mix 2,359,552; five residual blocks of 1,180,160; skips 1,179,904 and 590,080; prediction 4,610.
        (lambda: StmDecoder(), 10_034_946),
    ],
    ids=["resnet50-batch", "resnet50-group", "memory", "query", "decoder"],
)
def test_parameter_counts_are_those_of_the_definition(build: type[nn.Module], expected: int) -> None:
    """At full width each network has as many parameters as its definition says."""
    with torch.device("meta"):
        assert expected == _parameters(build())


def test_resnet50_parameters_follow_the_layer_formula() -> None:
    """The number of parameters to stride 16 is the sum of the formula over the thirteen bottlenecks and the stem."""
    total = 49 * 3 * 64 + 2 * 64
    entering = 64
    for channels, blocks in ((64, 3), (128, 4), (256, 6)):
        total += 4 * entering * channels + 8 * channels  # the shortcut of the stage's first bottleneck
        for _ in range(blocks):
            total += entering * channels + 13 * channels * channels + 12 * channels
            entering = 4 * channels
    with torch.device("meta"):
        assert total == _parameters(ResNet50("group"))


@pytest.mark.parametrize("norm", NORMS)
def test_query_encoder_equals_the_slow_reference(norm: str) -> None:
    """The query encoder is ResNet-50 1.5 on the normalised frame, and two 3x3 heads on its deepest features."""
    torch.manual_seed(0)
    encoder = _query_encoder(norm).eval().double()
    _randomise(encoder)
    state = encoder.state_dict()
    frame = torch.rand(2, 3, 48, 80, dtype=torch.float64)
    with torch.no_grad():
        features = encoder(frame)
    stem = F.conv2d(_normalised(frame), state["backbone.stem.conv.weight"], stride=2, padding=3)
    stride4, stride8, stride16 = _stages(F.relu(_norm(stem, state, "backbone.stem.norm")), state)
    torch.testing.assert_close(stride4, features.stride4, **EXACT)
    torch.testing.assert_close(stride8, features.stride8, **EXACT)
    torch.testing.assert_close(stride16, features.stride16, **EXACT)
    torch.testing.assert_close(_convolve(stride16, state, "key"), features.key, **EXACT)
    torch.testing.assert_close(_convolve(stride16, state, "value"), features.value, **EXACT)
    assert frame is features.frame


@pytest.mark.parametrize("norm", NORMS)
def test_memory_encoder_equals_three_added_convolutions(norm: str) -> None:
    """The first layer adds the convolutions of frame, mask and others before the norm; the stages follow."""
    torch.manual_seed(0)
    encoder = StmMemoryEncoder(norm=norm, width=WIDTH).eval().double()
    _randomise(encoder)
    state = encoder.state_dict()
    features = _query_encoder().double()(torch.rand(2, 3, 48, 80, dtype=torch.float64))
    mask, others = torch.rand(2, 2, 1, 48, 80, dtype=torch.float64)
    stem = _memory_stem(features.frame, mask, others, state)
    stacked = torch.cat((_normalised(features.frame), mask, others), dim=1)
    with torch.no_grad():
        torch.testing.assert_close(stem, encoder.backbone.stem(stacked), **EXACT)
        template = encoder(features, mask, others, torch.arange(2))
    torch.testing.assert_close(_stages(stem, state)[2], template, **EXACT)


def test_memory_encoder_uses_only_the_frame_of_the_features() -> None:
    """A template does not depend on the query's key, value or skips."""
    torch.manual_seed(0)
    encoder = StmMemoryEncoder(width=WIDTH)
    frame, mask = torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32)
    nothing = torch.empty(0)
    alone = FrameFeatures(frame, nothing, nothing, nothing, nothing, nothing)
    video = torch.tensor([0])
    assert torch.equal(encoder(alone, mask, 1 - mask, video), encoder(_query_encoder()(frame), mask, 1 - mask, video))


@pytest.mark.parametrize("norm", NORMS)
def test_rows_of_several_frames_equal_rows_of_one_frame_each(norm: str) -> None:
    """Five rows of two frames, in any order, give the templates and logits that each gives with its own frame alone."""
    query, memory = _query_encoder(norm).eval().double(), StmMemoryEncoder(norm=norm, width=WIDTH).eval().double()
    decoder, video = _decoder().double(), [1, 0, 0, 1, 0]
    frames = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    mask, recalled = torch.rand(5, 1, 32, 48).double(), torch.randn(5, 14, 2, 3).double()
    with torch.no_grad():
        features = query(frames)
        templates = memory(features, mask, 1 - mask, torch.tensor(video))
        logits = decoder(recalled, features, torch.tensor(video))
        for row, frame in enumerate(video):
            alone, first, one = query(frames[frame : frame + 1]), torch.tensor([0]), slice(row, row + 1)
            torch.testing.assert_close(memory(alone, mask[one], 1 - mask[one], first), templates[one], **EXACT)
            torch.testing.assert_close(decoder(recalled[one], alone, first), logits[one], **EXACT)


def test_refine_equals_the_slow_reference() -> None:
    """Refine is ResMM(ResFS(convFS(skip)) + the coarse map at twice its size)."""
    torch.manual_seed(0)
    refine = Refine(6, 8).double()
    skip = torch.randn(2, 6, 6, 10, dtype=torch.float64)
    coarse = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    video = torch.arange(2)
    torch.testing.assert_close(_refine(skip, coarse, refine.state_dict()), refine(skip, coarse, video), **EXACT)
    expected = _refine(skip[[1, 0, 1]], coarse[[0, 0, 1]], refine.state_dict())
    torch.testing.assert_close(expected, refine(skip, coarse[[0, 0, 1]], torch.tensor([1, 0, 1])), **EXACT)


def test_decoder_equals_the_slow_reference() -> None:
    """The sigmoid of the decoder's logits is the foreground of STM's softmax over two upsampled maps."""
    torch.manual_seed(0)
    decoder = _decoder().double()
    features = _query_encoder().double()(torch.rand(2, 3, 48, 80, dtype=torch.float64))
    recalled = torch.randn(2, 14, 3, 5, dtype=torch.float64)
    expected = _decode(recalled, features, decoder.state_dict())
    assert expected.std() > 1e-3
    torch.testing.assert_close(expected, decoder(recalled, features, torch.arange(2)).sigmoid(), **EXACT)


def test_logit_is_foreground_minus_background() -> None:
    """A decoder that always answers 1 for background and 3 for foreground has a logit of 2 everywhere."""
    decoder, features = _decoder(), _query_encoder()(torch.rand(1, 3, 32, 32))
    with torch.no_grad():
        decoder.predict.weight.zero_()
        decoder.predict.bias.copy_(torch.tensor([1.0, 3.0]))
        logits = decoder(torch.randn(1, 14, 2, 2), features, torch.tensor([0]))
    torch.testing.assert_close(torch.full((1, 32, 32), 2.0), logits)


def test_group_norm_frames_do_not_see_each_other() -> None:
    """With GroupNorm a frame is encoded alike, in training mode too, whatever else is in the batch."""
    torch.manual_seed(0)
    encoder = _query_encoder("group").train().double()
    frame = torch.rand(3, 3, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(encoder(frame[:1]).stride16, encoder(frame).stride16[:1], **EXACT)


@pytest.mark.parametrize("name", ["query", "memory"])
def test_folding_keeps_what_the_encoders_compute(name: str) -> None:
    """With BatchNorm folded, all 43 of them, the encoders give the same features."""
    torch.manual_seed(0)
    query, memory = _query_encoder("batch").eval(), StmMemoryEncoder(norm="batch", width=WIDTH).eval()
    encoder = query if name == "query" else memory
    _randomise(encoder)
    frame, mask = torch.rand(2, 3, 48, 80), torch.rand(2, 1, 48, 80)

    def encode() -> Tensor:
        with torch.no_grad():
            features = query(frame)
            return features.value if name == "query" else memory(features, mask, 1 - mask, torch.arange(2))

    expected = encode()
    assert 1 + 3 * BLOCKS + 3 == fold_batch_norm(encoder)
    torch.testing.assert_close(expected, encode(), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())


@pytest.mark.parametrize("build", [_query_encoder, lambda: StmMemoryEncoder(width=WIDTH), _decoder])
def test_folding_leaves_group_norm_networks_alone(build: type[nn.Module]) -> None:
    """Folding a network with GroupNorm folds nothing and changes no weight."""
    network = build().eval()
    _randomise(network)
    state = copy.deepcopy(network.state_dict())
    assert 0 == fold_batch_norm(network)
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(state[name], weight) for name, weight in network.state_dict().items())


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_reach_every_parameter(norm: str) -> None:
    """From logits, key and template a finite gradient, not zero, reaches every parameter and both masks."""
    torch.manual_seed(0)
    query, memory, decoder = _query_encoder(norm), StmMemoryEncoder(norm=norm, width=WIDTH), _decoder()
    features = query(torch.rand(2, 3, 48, 80))
    mask = torch.rand(2, 1, 48, 80, requires_grad=True)
    others = torch.rand(2, 1, 48, 80, requires_grad=True)
    template = memory(features, mask, others, torch.arange(2))
    logits = decoder(template[:, :14], features, torch.arange(2))
    (logits.square().mean() + features.key.square().mean() + template.square().mean()).backward()
    named = {"mask": mask, "others": others}
    for network in (query, memory, decoder):
        named |= {f"{type(network).__name__}.{name}": weight for name, weight in network.named_parameters()}
    silent = [
        name
        for name, weight in named.items()
        if weight.grad is None or not weight.grad.isfinite().all() or not weight.grad.any()
    ]
    assert [] == silent


def test_normalisation_constants_are_not_saved() -> None:
    """ImageNet's mean and deviation follow the network's dtype, but are no part of its weights."""
    normalise = ImageNetNormalisation()
    assert {} == normalise.state_dict()
    assert torch.float64 == normalise.double()(torch.rand(1, 3, 2, 2, dtype=torch.float64)).dtype


@pytest.mark.parametrize("norm", ["layer", "none", ""])
def test_unknown_norm_is_refused(norm: str) -> None:
    """A norm that ResNet-50 does not come with is refused by name."""
    with pytest.raises(OptionError, match=f"batch, group, got '{norm}'"):
        ResNet50(norm, width=WIDTH)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 4, 32, 32), (1, 3, 30, 32), (1, 3, 32, 40)])
def test_frames_that_do_not_fit_the_stride_are_refused(shape: tuple[int, ...]) -> None:
    """The query encoder refuses frames without rows, with other than three channels, or off the stride."""
    with pytest.raises(ShapeError, match=r"expected \[V, 3, H, W\]"):
        _query_encoder()(torch.rand(shape))


@pytest.mark.parametrize("shape", [(2, 32, 32), (1, 1, 32, 32), (2, 1, 2, 2), (2, 2, 32, 32)])
@pytest.mark.parametrize("name", ["mask", "others"])
def test_masks_of_another_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    """The memory encoder refuses a mask that is not one map a row at the frame's size, and says which."""
    features = _query_encoder()(torch.rand(2, 3, 32, 32))
    masks = {"mask": torch.rand(2, 1, 32, 32), "others": torch.rand(2, 1, 32, 32), name: torch.rand(shape)}
    with pytest.raises(ShapeError, match=f"^{name}: "):
        StmMemoryEncoder(width=WIDTH)(features, video=torch.arange(2), **masks)
