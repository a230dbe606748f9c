"""Facts about the segmentation network: its config, its presets and the layers of `lite`."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import pytest
import torch
from stm_reference import draw_norms
from torch import Tensor, nn
from torch.nn import functional as F

from stmemory.errors import OptionError
from stmemory.memory import DiscriminativeMemory, ReadCache
from stmemory.networks import lite
from stmemory.networks.config import PRESETS, NetworkConfig
from stmemory.networks.layers import FrameFeatures, fold_batch_norm
from stmemory.networks.segmentation import SegmentationNetwork

SMALL = {
    "template_channels": 64,
    "key_channels": 8,
    "value_channels": 12,
    "query_channels": 10,
    "decoder_channels": 12,
    "fusion_bottleneck": 8,
}
SMALL_OF = {"stcn": SMALL | {"template_channels": 56, "value_channels": 48}}  # a template is value and key
STCN = dataclasses.asdict(NetworkConfig.of("stcn"))
SIZES = [(16, 16), (48, 80), (112, 32)]
EXACT = {"atol": 1e-9, "rtol": 1e-9}
VIDEO = torch.tensor([1, 0, 0, 1, 0])


def small(preset: str) -> SegmentationNetwork:
    """A preset with few channels, seeded, in eval mode and float64."""
    torch.manual_seed(0)
    sizes = SMALL_OF.get(preset, SMALL)
    network = SegmentationNetwork(dataclasses.replace(NetworkConfig.of(preset), **sizes)).eval().double()
    draw_norms(network)
    return network


def drawn(rows: int, frames: int, height: int = 32, width: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, masks and the masks of all others, in float64."""
    mask = torch.rand(rows, height, width, dtype=torch.float64)
    return torch.rand(frames, 3, height, width, dtype=torch.float64), mask, 1 - mask


def frame_of(features: FrameFeatures, index: int) -> FrameFeatures:
    return features.of_rows(torch.tensor([index]))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# The config.


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("lite", ("efficientnet_lite0", "batch", "l2", 192, 64, 128)),
        ("paper", ("resnet50", "group", "dot", 1024, 128, 512)),
        ("stm", ("resnet50", "batch", "dot", 1024, 128, 512)),
        ("stcn", ("resnet50_resnet18", "batch", "l2", 576, 64, 512)),
    ],
)
def test_presets_are_as_described(preset: str, expected: tuple[object, ...]) -> None:
    """Each preset has the backbone, norm, affinity and channels (C, Ck, Cv) of its description."""
    config = NetworkConfig.of(preset)
    assert preset == config.preset
    actual = (config.backbone, config.norm, config.affinity)
    assert expected == (*actual, config.template_channels, config.key_channels, config.value_channels)


def test_stm_is_paper_with_batch_norm() -> None:
    """Nothing but the norm (and the name) tells the two apart."""
    assert NetworkConfig.of("stm") == dataclasses.replace(NetworkConfig.of("paper"), preset="stm", norm="batch")


def test_lite_is_the_default() -> None:
    """A config without arguments is the `lite` preset."""
    assert NetworkConfig() == NetworkConfig.of("lite")


def test_an_unknown_preset_lists_the_known_ones() -> None:
    """The error names all presets and what was asked for."""
    with pytest.raises(OptionError, match="a preset of lite, paper, stm, stcn, got 'huge'"):
        NetworkConfig.of("huge")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_config_survives_json(preset: str) -> None:
    """What was saved beside the weights comes back equal."""
    config = NetworkConfig.of(preset)
    assert config == NetworkConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config))))


def test_unknown_and_missing_keys_are_named() -> None:
    """A file of another version is an error that says which keys differ."""
    values = dataclasses.asdict(NetworkConfig()) | {"colour": 1}
    del values["norm"]
    with pytest.raises(OptionError, match=r"unknown keys \['colour'\], missing keys \['norm'\]"):
        NetworkConfig.from_dict(values)


def test_files_of_before_have_no_discriminative_read() -> None:
    """A config that was written before there was one describes the network that it described then."""
    values = dataclasses.asdict(NetworkConfig())
    for name in ("appearance_channels", "pinned_bias"):
        del values[name]
    assert dataclasses.replace(NetworkConfig(), appearance_channels=0, pinned_bias=False) == NetworkConfig.from_dict(
        values
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("key_channels", "64"),
        ("key_channels", 64.0),
        ("key_channels", True),
        ("norm", 1),
        ("fusion_scale", "1"),
        ("norm", None),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: object) -> None:
    """Neither text nor booleans pass for numbers; the error says which type was expected."""
    with pytest.raises(OptionError, match=f"NetworkConfig.{name}: expected"):
        NetworkConfig.from_dict(dataclasses.asdict(NetworkConfig()) | {name: value})


def test_a_whole_number_passes_for_a_float() -> None:
    """JSON writers may drop the fraction of 1.0."""
    assert 1.0 == NetworkConfig.from_dict(dataclasses.asdict(NetworkConfig()) | {"fusion_scale": 1}).fusion_scale


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vgg"}, r"backbone in \('resnet50', 'resnet50_resnet18', 'efficientnet_lite0'\), got 'vgg'"),
        ({"norm": "layer"}, r"norm in \('group', 'batch'\), got 'layer'"),
        ({"affinity": "cosine"}, r"affinity in \('dot', 'l2'\), got 'cosine'"),
        ({"value_channels": 0}, "value_channels >= 1, got 0"),
        ({"fusion_bottleneck": -1}, "fusion_bottleneck >= 0, got -1"),
        ({"norm": "group"}, "norm 'batch' with efficientnet_lite0, .* got 'group'"),
        ({"backbone": "resnet50", "template_channels": 1000}, "template_channels that 16 divides .* got 1000"),
        ({"backbone": "resnet50"}, "appearance_channels 0 with resnet50, .* got 176"),
        (STCN | {"value_channels": 500}, "value_channels that 16 divides .* got 500 and 512"),
        (STCN | {"decoder_channels": 5}, "even decoder_channels .* got 512 and 5"),
        (STCN | {"template_channels": 512}, "template_channels as the sum of .* got 512, 64 and 512"),
        (STCN | {"appearance_channels": 176}, "appearance_channels 0 with resnet50_resnet18, .* got 176"),
        ({"appearance_channels": -1}, "appearance_channels >= 0, got -1"),
        ({"key_channels": 192}, "template_channels above key_channels .* got 192 and 192"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_values_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    """The error names the value, its range and what came."""
    with pytest.raises(OptionError, match=message):
        NetworkConfig(**options)


# The network as a whole.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        # Of these the discriminative read: projection 176 * 176 + 176 and its 9 x 9 context, score path, trust; pinned
        # bias; 4 numbers.
        ("lite", (760_640, 503_216, 452_162, 24_769, 609_120, 2_349_911)),
        # Heads 9*1024*(128 + 512) + 640; fusion 3 * (2048*256 + 256 + 9*256*1024 + 1024).
        ("paper", (14_442_176, 8_549_568, 10_034_946, 5_898_880, 8_654_592, 47_580_162)),
        ("stm", (14_442_176, 8_549_568, 10_034_946, 5_898_880, 8_654_592, 47_580_162)),
        # Fusion 3 * (1152*256 + 256 + 9*256*576 + 576).
        ("stcn", (13_852_288, 21_699_395, 18_880_257, 0, 4_868_544, 59_300_484)),
    ],
)
def test_parameter_counts(preset: str, expected: tuple[int, ...]) -> None:
    """Query encoder, memory encoder, decoder, read heads, fusion cell, and all: 2.3 million for `lite`, 59.3 for
    `stcn`, 47.6 for the others."""
    with torch.device("meta"):
        network = SegmentationNetwork(NetworkConfig.of(preset))
    parts = (network.query_encoder, network.memory_encoder, network.decoder, network.read, network.fusion, network)
    assert expected == tuple(parameters(part) for part in parts)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_shapes_from_frame_to_logits(preset: str, height: int, width: int) -> None:
    """Two frames and five rows have the shapes of the design at every boundary, at odd multiples of the stride too."""
    network, (frames, mask, others) = small(preset), drawn(5, 2, height, width)
    channels, of_values = network.config.template_channels, network.config.value_channels
    cells = (height // network.stride, width // network.stride)
    with torch.no_grad():
        features = network.encode_query(frames)
        template = network.encode_memory(features, mask, others, VIDEO)
        bank = network.new_bank(3, policy="A")
        for _ in range(4):
            bank.write(template)
        recalled = network.recall(features, bank, VIDEO)
        logits = network.decode(recalled, features, VIDEO)
    assert ((2, 8, *cells), (2, 10, *cells)) == (features.key.shape, features.value.shape)
    assert (height // 4, width // 4) == features.stride4.shape[2:]
    assert (height // 8, width // 8) == features.stride8.shape[2:]
    assert ((5, channels, *cells), (5, 3, channels, *cells), (5, 3, 8, *cells)) == (
        template.shape,
        bank.templates.shape,
        bank.keys.shape,
    )
    assert ((5, of_values, *cells), (5, height, width)) == (recalled.shape, logits.shape)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_rows_of_several_frames_equal_frame_by_frame(preset: str) -> None:
    """Two frames with five rows in any order give what each row gives with its own frame and bank alone."""
    network, (frames, mask, others) = small(preset), drawn(5, 2)
    with torch.no_grad():
        features = network.encode_query(frames)
        templates = network.encode_memory(features, mask, others, VIDEO)
        bank = network.new_bank(3)
        bank.write(templates)
        recalled = network.recall(features, bank, VIDEO, ReadCache())
        logits = network.decode(recalled, features, VIDEO)
        for row, frame in enumerate(VIDEO.tolist()):
            alone, first = network.encode_query(frames[frame : frame + 1]), torch.tensor([0])
            template = network.encode_memory(alone, mask[row : row + 1], others[row : row + 1], first)
            own = network.new_bank(3)
            own.write(template)
            recalled_alone = network.recall(alone, own, first)
            torch.testing.assert_close(template, templates[row : row + 1], **EXACT)
            torch.testing.assert_close(recalled_alone, recalled[row : row + 1], **EXACT)
            torch.testing.assert_close(network.decode(recalled_alone, alone, first), logits[row : row + 1], **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "folds"),
    [
        ("lite", 1 + 2 + 3 * 10),
        ("stm", 2 * (1 + 3 * 13 + 3)),
        ("stcn", 1 + 3 * 13 + 3 + 1 + 2 * 6 + 2),
        ("paper", 0),
    ],
)
def test_folding_keeps_what_the_network_computes(preset: str, folds: int) -> None:
    """With every BatchNorm in its convolution, key, template and logits are the same, and fewer numbers are kept."""
    network, (frames, mask, others) = small(preset), drawn(5, 2)

    def everything() -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            features = network.encode_query(frames)
            template = network.encode_memory(features, mask, others, VIDEO)
            return features.key, template, network.decode(template[:, : network.config.value_channels], features, VIDEO)

    expected = everything()
    assert folds == fold_batch_norm(network)
    for before, after in zip(expected, everything(), strict=True):
        torch.testing.assert_close(before, after, **EXACT)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_reach_every_parameter(preset: str) -> None:
    """Over five frames with three slots, the last logits send a gradient to every weight, the fusion cell's too."""
    network, video = small(preset), torch.tensor([0, 0])
    bank, sums = network.new_bank(3, policy="A"), DiscriminativeMemory()
    for part in (network.decoder.cues.stride8, network.decoder.cues.stride16) if network.discriminate else ():
        nn.init.normal_(part.weight)  # from the zeros that training begins with, no gradient goes on
    for frame in range(5):
        frames, mask, others = drawn(2, 1, 48, 48)
        features = network.encode_query(frames)
        bank.write(network.encode_memory(features, mask, others, video), frame=frame, pinned=frame == 0)
        network.learn(sums, features, mask, others, video, frame=frame, given=frame == 0)
    cues = network.cues(features, sums, (mask, others), video)
    network.decode(network.recall(features, bank, video), features, video, cues).square().sum().backward()
    silent = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.isfinite().all() or not weight.grad.any()
    ]
    assert [] == silent


@pytest.mark.parametrize(("given", "expected"), [(0.0, 1 / math.sqrt(64)), (1.0, 1.0), (0.3, 0.3)])
def test_fusion_scale_of_zero_is_one_over_root_c(given: float, expected: float) -> None:
    """The config's 0 stands for 1 / sqrt(C); other values are themselves."""
    config = dataclasses.replace(NetworkConfig(), **SMALL, fusion_scale=given)
    assert expected == SegmentationNetwork(config).fusion.scale


def test_fusion_bottleneck_of_zero_is_none() -> None:
    """The config's 0 stands for one convolution each."""
    config = dataclasses.replace(NetworkConfig(), **SMALL | {"fusion_bottleneck": 0})
    assert [1, 1, 1] == [len(part) for part in SegmentationNetwork(config).fusion.children()]


def test_a_new_bank_shares_what_the_network_learned() -> None:
    """The bank fuses with the network's cell and compares its keys, so the read computes none."""
    network = small("lite")
    bank = network.new_bank(4, policy="D")
    assert (4, "most_similar") == (bank.capacity, bank.policy.name)
    assert bank.fusion is network.fusion and bank.key is network.read.key


# The layers of `lite`.


def test_trunk_equals_the_slow_reference() -> None:
    """The trunk is EfficientNet-Lite0's stem and first eleven blocks, in plain functional calls over its weights."""
    trunk = small("lite").query_encoder.trunk
    state = trunk.state_dict()

    def layer(features: Tensor, name: str, *, stride: int = 1, rectify: bool = True) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        groups, padding = features.shape[1] // weight.shape[1], weight.shape[-1] // 2
        features = F.conv2d(features, weight, stride=stride, padding=padding, groups=groups)
        mean, variance, gain, bias = (
            state[f"{name}.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        shape = (1, -1, 1, 1)
        features = (features - mean.view(shape)) / (variance.view(shape) + 1e-3).sqrt() * gain.view(shape) + bias.view(
            shape
        )
        return features.clamp(0, 6) if rectify else features

    frames = torch.rand(2, 3, 48, 80, dtype=torch.float64)
    features = layer((frames * 255 - 127) / 128, "stem", stride=2)
    outputs, widths = [], []
    # Stage by stage: (expansion, blocks, stride), from the table of the paper on EfficientNet.
    for stage, (expansion, blocks, stride) in enumerate([(1, 1, 1), (6, 2, 2), (6, 2, 2), (6, 3, 2), (6, 3, 1)]):
        for block in range(blocks):
            name = f"stages.{stage}.{block}"
            out = features if expansion == 1 else layer(features, f"{name}.expand")
            assert expansion * features.shape[1] == out.shape[1]
            out = layer(out, f"{name}.depthwise", stride=stride if block == 0 else 1)
            out = layer(out, f"{name}.project", rectify=False)
            features = out if block == 0 else features + out
        outputs.append(features)
        widths.append(features.shape[1])
    assert [16, 24, 40, 80, 112] == widths
    with torch.no_grad():
        for expected, actual in zip((outputs[1], outputs[2], outputs[4]), trunk(frames), strict=True):
            torch.testing.assert_close(expected, actual, **EXACT)


def test_key_of_an_untrained_memory_is_the_frames_own() -> None:
    """Before training, a template's key is the query key of its very frame, so a frame finds itself in memory."""
    network, (frames, mask, others) = small("lite"), drawn(5, 2)
    with torch.no_grad():
        features = network.encode_query(frames)
        template = network.encode_memory(features, mask, others, VIDEO)
        assert torch.equal(features.key[VIDEO], network.read.key(template))
        nn.init.ones_(network.read.key.correction.weight)
        assert not torch.equal(features.key[VIDEO], network.read.key(template))


def test_value_is_of_the_object_alone() -> None:
    """What is recalled does not depend on the key that travels in the template."""
    network = small("lite")
    template = torch.randn(2, 64, 3, 3, dtype=torch.float64)
    changed = template.clone()
    changed[:, 64 - 8 :] += 1
    with torch.no_grad():
        assert torch.equal(network.read.value(template), network.read.value(changed))
        changed[:, 0] += 1
        assert not torch.equal(network.read.value(template), network.read.value(changed))


@pytest.mark.parametrize("which", ["mask", "others", "frame"])
def test_templates_see_frame_and_both_masks(which: str) -> None:
    """A template changes with the object's mask, with the others' masks, and with the frame."""
    network, (frames, mask, others) = small("lite"), drawn(1, 1)
    given = {"frame": frames, "mask": mask, "others": others}
    changed = copy.copy(given) | {which: 1 - given[which]}
    first = torch.tensor([0])
    with torch.no_grad():
        one, other = (
            network.encode_memory(network.encode_query(g["frame"]), g["mask"], g["others"], first)[:, :56]
            for g in (given, changed)
        )
    assert float((one - other).abs().max()) > 1e-3


def test_an_untrained_lite_decoder_says_background() -> None:
    """Most of a frame is background, and before training nearly all logits say so."""
    torch.manual_seed(0)
    network, first = SegmentationNetwork(NetworkConfig.of("lite")).eval(), torch.tensor([0])
    with torch.no_grad():
        features = network.encode_query(torch.rand(1, 3, 64, 64))
        logits = network.decode(torch.randn(1, 128, 4, 4), features, first)
    assert -3.0 < float(logits.mean()) < -1.0


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("height", [8, 30, 36])
def test_strips_equal_the_whole(stride: int, kernel_size: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without grad a block whose expanded part is large is worked out in strips of rows, as if it were in one."""
    block = lite._InvertedResidual(4, 6, expansion=3, stride=stride, kernel_size=kernel_size).eval()
    features = torch.randn(2, 4, height, 10)
    expected = block(features)
    for rows in (1, 2, 5, 16):
        monkeypatch.setattr(lite, "_STRIP", rows * 12 * 10)
        with torch.no_grad():
            torch.testing.assert_close(expected.detach(), block(features))


def test_appearance_is_the_projection_of_all_features() -> None:
    """Projected apart or stacked, the trunk's features give the same: a 1 x 1 convolution and bilinear enlarging
    commute."""
    torch.manual_seed(0)
    part = lite.LiteAppearance(6).double()
    stride4, stride8, stride16 = (
        torch.randn(2, c, s, s, dtype=torch.float64) for c, s in ((24, 24), (40, 12), (112, 6))
    )
    own = part.project(lite.LiteAppearance.stacked(stride4, stride8, stride16)).clamp(-4, 4)
    around = F.conv2d(F.pad(own, (4, 4, 4, 4), mode="replicate"), part.around.weight, groups=6)
    torch.testing.assert_close(torch.cat([own, around], 1), part(stride4, stride8, stride16), **EXACT)


def test_principal_components_have_one_unit_of_spread() -> None:
    """What `start_from` leaves projects the samples to directions without correlation, the widest first."""
    torch.manual_seed(0)
    part, mixing = lite.LiteAppearance(5), torch.randn(176, 176)
    samples = torch.randn(4000, 176) @ mixing + 3
    part.start_from(samples)
    with torch.no_grad():
        found = part.project(samples.t()[None, :, :, None])[0, :, :, 0]
    covariance = found.cov()
    assert bool((covariance.diagonal().diff() < 1e-4).all())
    torch.testing.assert_close(torch.diag(covariance.diagonal()), covariance, atol=1e-2, rtol=0)
    torch.testing.assert_close(torch.tensor(1.0), found.std(1).mean(), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.zeros(5), found.mean(1), atol=1e-3, rtol=0)
