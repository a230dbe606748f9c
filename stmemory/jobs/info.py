"""What is installed here, and what a set of weights is and needs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stmemory.io.frames import WorkingSize
from stmemory.memory.discriminative import DiscriminativeMemory
from stmemory.memory.slots import Slots
from stmemory.networks.config import NetworkConfig
from stmemory.networks.sam2 import Sam2Network
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.prediction.network import PredictionNetwork
from stmemory.weights.foreign import ForeignWeights, load_foreign
from stmemory.weights.hub import Where
from stmemory.weights.pretrained import find_weights, load_part

__all__ = ["WeightsFacts", "object_bytes", "versions", "video_bytes", "weights_facts"]

STRIDE = SegmentationNetwork.stride


@dataclass(frozen=True)
class WeightsFacts:
    """What can be said of weights.

    Attributes:
        name: as it was asked for.
        kind: what they are of, such as `"network"`.
        preset: preset of the network; None for a part alone.
        frames: what a network that predicts takes, such as `"32 x 32, grey"`; None for others.
        parameters: numbers that were learned.
        nbytes: bytes of the file.
        object_bytes: bytes that one object takes in memory, at 480 x 854 with default options; the length of the video
            has no say. None where nothing is tracked.
        video_bytes: bytes that one video of such `frames` takes in memory, with default options, whatever its length.
            None where nothing is predicted.
        about: licence, data and measured figures, as the weights' own `config.json` states them; see
            `stmemory.weights.card`.
    """

    name: str
    kind: str
    preset: str | None
    frames: str | None
    parameters: int
    nbytes: int
    object_bytes: int | None
    video_bytes: int | None
    about: Mapping[str, Any]


def versions() -> dict[str, str]:
    """Versions of what matters here, by name.

    >>> sorted(versions())
    ['numpy', 'python', 'stmemory', 'torch']
    """
    found = {"python": platform.python_version()}
    for name in ("stmemory", "torch", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def weights_facts(name: str | Path | None = None, *, where: Where | None = None) -> WeightsFacts:
    """Find out about weights; they are loaded, so their facts can be read.

    Args:
        name: see `stmemory.weights.pretrained.find_checkpoint`.
        where: for repositories on the Hub.

    Raises:
        WeightsError: there are no such weights, or they cannot be loaded.

    >>> weights_facts("lite").preset
    'lite'
    """
    found = find_weights(name, where)
    if isinstance(found, ForeignWeights):
        return _foreign_facts(found)
    module = load_part(nn.Module, found)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    preset = frames = object_takes = video_takes = None
    if isinstance(module, SegmentationNetwork):
        size = WorkingSize.of(480, 854, TrackingOptions().short_side, STRIDE)
        preset, object_takes = module.config.preset, object_bytes(module.config, size)
    elif isinstance(module, PredictionNetwork):
        config = module.config
        preset, video_takes = config.preset, video_bytes(module)
        frames = f"{config.image_side} x {config.image_side}, {'grey' if config.image_channels == 1 else 'RGB'}"
    return WeightsFacts(
        found.name, found.kind, preset, frames, parameters, found.nbytes, object_takes, video_takes, found.about
    )


def _foreign_facts(weights: ForeignWeights) -> WeightsFacts:
    """Facts of a network of transformers; its frames are of one size, whatever those of the video."""
    network: Sam2Network = load_foreign(weights)
    pointers = network.new_beside()
    pointers.write(
        torch.empty(1, int(network.model.hidden_dim)), rows=[0], of=1, frame=0, position=torch.empty(0), given=True
    )
    slots = Slots(int(network.tracking["memory_size"]))
    template = torch.empty(1, *network.template_shape, device="meta")
    slots.allocate(template, None)
    tensors = sum(path.stat().st_size for path in weights.folder.glob("*.safetensors"))
    return WeightsFacts(
        weights.name,
        "network",
        weights.model_type,
        None,
        sum(parameter.numel() for parameter in network.parameters()),
        tensors,
        slots.nbytes + pointers.nbytes,
        None,
        {},
    )


def object_bytes(config: NetworkConfig, size: WorkingSize, *, memory_size: int = 5) -> int:
    """Bytes that one object takes in the bank, in the cache of its values and in the sums, worked out from the shapes.

    They are about `4 K (C + Ck + Cv) h w`, the sums of the discriminative read, and the bookkeeping of the slots.

    Args:
        config: configuration of the network.
        size: working size of the frames.
        memory_size: K.

    >>> object_bytes(NetworkConfig.of("lite"), WorkingSize.of(480, 854, 480, 16)) // 2**20
    13
    """
    cells = (size.padded_height // STRIDE, size.padded_width // STRIDE)
    # tensors on the meta device have shapes and no memory
    template, key, values = (
        torch.empty(1, channels, *cells, device="meta")
        for channels in (config.template_channels, config.key_channels, config.value_channels)
    )
    slots = Slots(memory_size)
    slots.allocate(template, key)
    versions_seen = memory_size * torch.int64.itemsize
    sums, width = DiscriminativeMemory(), 2 * config.appearance_channels + 1
    if config.appearance_channels:
        sums.write(torch.empty(1, width, width + 1, device="cpu"))
    return slots.nbytes + memory_size * values.numel() * values.element_size() + versions_seen + sums.nbytes


def video_bytes(network: PredictionNetwork) -> int:
    """Bytes that one video of the network's own size takes from its first frame on, which is tried.

    >>> from stmemory.prediction.config import PredictionConfig
    >>> video_bytes(PredictionNetwork(PredictionConfig.of("mini"))) < 2**20
    True
    """
    weight, config = next(network.parameters()), network.config
    state = network.new_state()
    with torch.inference_mode():
        network.step(weight.new_zeros(1, config.image_channels, config.image_side, config.image_side), state)
    return state.nbytes
