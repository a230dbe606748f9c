"""Weights in and out: safetensors and a `config.json` in a folder, and the checkpoint that travels inside the package.

Builds no layers and unpickles nothing. A folder holds `config.json` (`format_version`, `network`, and what is known of the
weights under `about`) and `model.safetensors`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from stmemory.errors import OptionError, WeightsError
from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork

__all__ = [
    "FORMAT_VERSION",
    "NetworkInfo",
    "bundled_names",
    "fingerprint",
    "load_network",
    "network_info",
    "save_network",
    "tensors_digest",
]

FORMAT_VERSION = 1
_BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class NetworkInfo:
    """What is known of weights without loading them.

    Attributes:
        name: as it was asked for.
        folder: where they lie.
        config: of the network.
        nbytes: of the weights' file.
        about: licence, training and measured figures, as the folder's `config.json` states them.
    """

    name: str
    folder: Path
    config: NetworkConfig
    nbytes: int
    about: Mapping[str, Any] = field(default_factory=dict)


def bundled_names() -> tuple[str, ...]:
    """Names of the weights inside the package.

    >>> "lite" in bundled_names()
    True
    """
    return tuple(sorted(p.name for p in _BUNDLED.iterdir() if (p / "config.json").exists())) if _BUNDLED.exists() else ()


def load_network(name: str | Path | None = None) -> SegmentationNetwork:
    """A network with trained weights, in eval mode, float32, on the CPU.

    Args:
        name: a bundled name, or a folder that `save_network` wrote; None is `"lite"`.

    Raises:
        WeightsError: there are none, or they do not fit; missing, unexpected and misshapen names are listed.

    >>> load_network().config.preset
    'lite'
    """
    info = network_info(name)
    path = info.folder / "model.safetensors"
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: expected a whole safetensors file, got: {error}; copy or download it again") from error
    network = SegmentationNetwork(info.config)
    expected = network.state_dict()
    problems = {
        "missing": sorted(set(expected) - set(state)),
        "unexpected": sorted(set(state) - set(expected)),
        "misshapen": sorted(n for n in set(state) & set(expected) if state[n].shape != expected[n].shape),
    }
    if any(problems.values()):
        told = "; ".join(f"{kind}: {', '.join(names[:5])}{' ...' * (len(names) > 5)}" for kind, names in problems.items() if names)
        raise WeightsError(f"{path}: expected the weights of config.json beside it, got {told}; the two files belong to different networks")
    _check_finite(str(path), state)
    network.load_state_dict({n: t.to(expected[n].dtype) for n, t in state.items()})
    return network.eval()


def save_network(
    network: SegmentationNetwork, folder: str | Path, *, dtype: torch.dtype = torch.float32, about: Mapping[str, Any] | None = None
) -> None:
    """Write a network to a folder that `load_network` reads.

    Args:
        network: not folded, see `fold_batch_norm`.
        folder: made if it is not there; files in it are replaced.
        dtype: of the floats in the file.
        about: what to tell of the weights; plain JSON values.

    Raises:
        WeightsError: the network was folded, so its weights no longer fit its config, or has NaN weights.
    """
    state = network.state_dict()
    lost = sorted(set(SegmentationNetwork(network.config).state_dict()) ^ set(state))
    if lost:
        raise WeightsError(f"save_network: expected a network as its config makes it, got a folded one ({lost[0]} ...); save it before")
    _check_finite("save_network", state)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {n: (t.to(dtype) if t.is_floating_point() else t).detach().cpu().contiguous() for n, t in state.items()}
    (folder / "model.safetensors").write_bytes(save(state, metadata={"format": "pt"}))  # save_file() hides it from others
    document = {"format_version": FORMAT_VERSION, "network": dataclasses.asdict(network.config), "about": dict(about or {})}
    (folder / "config.json").write_text(json.dumps(document, indent=2) + "\n")


def network_info(name: str | Path | None = None) -> NetworkInfo:
    """What is known of weights, see `load_network`.

    Raises:
        WeightsError: there are none, or `config.json` is not understood.
    """
    wanted = "lite" if name is None else str(name)
    folder = _BUNDLED / wanted if wanted in bundled_names() else Path(wanted)
    path = folder / "config.json"
    if not path.exists() or not (folder / "model.safetensors").exists():
        raise WeightsError(
            f"weights {wanted!r}: expected one of {', '.join(bundled_names()) or 'no bundled names'} or a folder with "
            "config.json and model.safetensors, got neither"
        )
    try:
        document = json.loads(path.read_text())
        version = document["format_version"]
        if version > FORMAT_VERSION:
            raise WeightsError(f"{path}: expected format_version {FORMAT_VERSION} or older, got {version}; update stmemory")
        config = NetworkConfig.from_dict(document["network"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, OptionError):
            raise WeightsError(f"{path}: {error}") from error
        raise WeightsError(f"{path}: expected format_version and network, got: {error!r}; the file is not stmemory's") from error
    return NetworkInfo(wanted, folder, config, (folder / "model.safetensors").stat().st_size, document.get("about", {}))


def fingerprint(network: nn.Module) -> str:
    """A short name of a module's weights: equal weights, equal name. Saved streams carry it.

    >>> len(fingerprint(load_network()))
    16
    """
    return tensors_digest(network.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """A short name of named tensors: equal names and values, equal digest.

    >>> tensors_digest({"a": torch.zeros(1)}) == tensors_digest({"a": torch.ones(1)})
    False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _check_finite(what: str, state: Mapping[str, Tensor]) -> None:
    broken = [n for n, t in state.items() if t.is_floating_point() and not bool(t.isfinite().all())]
    if broken:
        raise WeightsError(f"{what}: expected finite weights, got NaN or infinity in {', '.join(broken[:5])}; use an earlier copy")


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
