"""Trained weights by name: bundled, in a folder, or on the Hub; as a whole network or the part that is asked for.

Owns the rule which name means what. The folder's format is `checkpoint`'s, the transport `hub`'s.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stmemory.card import metrics_of, write_card
from stmemory.checkpoint import CONFIG, TENSORS, Checkpoint, read_checkpoint, read_tensors, write_checkpoint
from stmemory.errors import OptionError, WeightsError
from stmemory.hub import Where, download, is_repository
from stmemory.memory.fusion import FusionCell
from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork

__all__ = [
    "NetworkInfo",
    "bundled_names",
    "find_checkpoint",
    "fingerprint",
    "load_network",
    "load_part",
    "network_info",
    "place",
    "save_network",
    "save_part",
    "tensors_digest",
]

_BUNDLED = Path(__file__).parent / "bundled"
_Part = TypeVar("_Part")


@dataclass(frozen=True)
class NetworkInfo:
    """What is known of a network's weights without loading them.

    Attributes:
        name: as it was asked for.
        folder: where they lie.
        config: of the network.
        nbytes: of the weights' file.
        about: licence, data, training and measured figures, as the folder's `config.json` states them.
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
    return tuple(sorted(p.name for p in _BUNDLED.iterdir() if (p / CONFIG).exists())) if _BUNDLED.exists() else ()


def find_checkpoint(name: str | Path | None = None, where: Where | None = None) -> Checkpoint:
    """Find weights by name; those on the Hub are downloaded, or found in the cache.

    Args:
        name: a bundled name, a folder, or a repository `owner/name`, tried in that order; a `Path` is a folder; None is `"lite"`.
        where: for repositories.

    Raises:
        WeightsError: there are none of that name, or their `config.json` is not understood.
        OptionError: a revision of weights that are not on the Hub.

    >>> find_checkpoint("lite").kind
    'network'
    """
    wanted = "lite" if name is None else str(name)
    folder = _BUNDLED / wanted if wanted in bundled_names() else Path(wanted)
    if isinstance(name, str) and not folder.exists() and is_repository(name):
        return read_checkpoint(download(name, (CONFIG, TENSORS), where), wanted)
    if where and where.get("revision") is not None:
        raise OptionError(f"revision: expected none for weights that are not on the Hub, got {where['revision']!r} for {wanted!r}")
    if not wanted or not folder.is_dir():
        raise WeightsError(
            f"weights {wanted!r}: expected a bundled name ({', '.join(bundled_names()) or 'there are none'}), a folder with {CONFIG} and "
            f"{TENSORS}, or owner/name of a repository on the Hub, got none of them"
        )
    return read_checkpoint(folder, wanted)


def load_network(name: str | Path | None = None, *, where: Where | None = None) -> SegmentationNetwork:
    """A network with trained weights, in eval mode, float32, on the CPU; `SegmentationNetwork.from_pretrained` is the same.

    Args:
        name: see `find_checkpoint`.
        where: for repositories.

    Raises:
        WeightsError: there are none, or they do not fit; missing, unexpected and misshapen names are listed.

    >>> load_network().config.preset
    'lite'
    """
    return load_part(SegmentationNetwork, name, where=where)


def load_part(
    kind: type[_Part],
    name: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    where: Where | None = None,
) -> _Part:
    """A trained module of some kind: all that a checkpoint holds, or the first part of it that is of that kind.

    Args:
        kind: such as `SegmentationNetwork` or `FusionCell`.
        name: see `find_checkpoint`.
        device: where to put it; None is the CPU.
        dtype: what to turn it into; None is float32.
        where: for repositories.

    Raises:
        WeightsError: there are none, they do not fit, or hold nothing of that kind.
        OptionError: the device is not there, or the dtype is no float.

    >>> load_part(FusionCell).channels
    192
    """
    checkpoint = find_checkpoint(name, where)
    whole = _built(checkpoint)
    for module in whole.modules():
        if isinstance(module, kind):
            whole.load_state_dict(read_tensors(checkpoint, whole.state_dict()))
            place(whole.eval(), device=device, dtype=dtype)
            return module
    raise WeightsError(f"weights {checkpoint.name!r}: expected some that hold a {kind.__name__}, got a {checkpoint.kind} without one")


def save_network(
    network: SegmentationNetwork, folder: str | Path, *, dtype: torch.dtype = torch.float32, about: Mapping[str, Any] | None = None
) -> None:
    """Write a network to a folder that `load_network` reads; `network.save_pretrained` is the same. See `save_part`."""
    save_part(network, folder, dtype=dtype, about=about)


def save_part(
    module: object,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    about: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> None:
    """Write a module and its card to a folder that `from_pretrained` reads.

    Args:
        module: a `SegmentationNetwork` that is not folded (see `fold_batch_norm`), or a `FusionCell`.
        folder: made if it is not there; files in it are replaced, but for a card.
        dtype: of the floats in the file.
        about: what to tell of the weights, see `stmemory.card`.
        name: that the card's example loads them by; None is the folder's.

    Raises:
        WeightsError: the network was folded, so its weights no longer fit its config; a weight is NaN; or it is of another kind.
    """
    folder = Path(folder)
    if isinstance(module, SegmentationNetwork):
        kind, config, fresh = "network", dataclasses.asdict(module.config), SegmentationNetwork(module.config)
        lost = sorted(set(fresh.state_dict()) ^ set(module.state_dict()))
        if lost:
            raise WeightsError(f"save: expected a network as its config makes it, got a folded one ({lost[0]} ...); save it before")
    elif isinstance(module, FusionCell):
        kind, config = "fusion_cell", module.config()
    else:
        raise WeightsError(f"save: expected a SegmentationNetwork or a FusionCell, got {type(module).__name__}; save its state_dict() yourself")
    metrics_of(about or {})  # refused before anything is written
    write_checkpoint(folder, kind, config, module.state_dict(), dtype=dtype, about=about)
    write_card(folder, kind, about or {}, name=name or folder.name)


def network_info(name: str | Path | None = None, *, where: Where | None = None) -> NetworkInfo:
    """What is known of a network's weights, see `load_network`.

    Raises:
        WeightsError: there are none, `config.json` is not understood, or they are of a part alone.
    """
    checkpoint = find_checkpoint(name, where)
    config = _network_config(checkpoint)
    return NetworkInfo(checkpoint.name, checkpoint.folder, config, checkpoint.nbytes, checkpoint.about)


def place(module: nn.Module, *, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
    """Move a module; None leaves it where and what it is.

    Raises:
        OptionError: the device is not there, or the dtype is no float.

    >>> place(nn.Linear(1, 1), device="cpu", dtype=torch.bfloat16)
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise OptionError(f"dtype: expected torch.float32, torch.bfloat16 or torch.float16, got {dtype!r}")
    try:
        module.to(device=None if device is None else torch.device(device), dtype=dtype)
    except (AssertionError, RuntimeError) as error:  # torch without CUDA asserts
        raise OptionError(f"device: expected one that torch can use here, such as 'cpu', got {device!r}: {error}") from error


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


def _built(checkpoint: Checkpoint) -> nn.Module:
    """The module that a checkpoint describes, with random weights."""
    if checkpoint.kind == "network":
        return SegmentationNetwork(_network_config(checkpoint))
    try:
        return FusionCell(**checkpoint.config)
    except (TypeError, OptionError) as error:
        raise WeightsError(f"{checkpoint.folder / CONFIG}: expected the arguments of a FusionCell, got: {error}") from error


def _network_config(checkpoint: Checkpoint) -> NetworkConfig:
    if checkpoint.kind != "network":
        raise WeightsError(f"weights {checkpoint.name!r}: expected a network, got a {checkpoint.kind}; load it with its own from_pretrained")
    try:
        return NetworkConfig.from_dict(checkpoint.config)
    except OptionError as error:
        raise WeightsError(f"{checkpoint.folder / CONFIG}: {error}") from error


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
