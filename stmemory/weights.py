"""Trained weights by name: bundled, in a folder, or on the Hub; as a whole network or the part that is asked for.

Owns the rule which name means what. The folder's format is `checkpoint`'s, the transport `hub`'s.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stmemory.checkpoint import CONFIG, TENSORS, Checkpoint, read_config, read_tensors
from stmemory.errors import OptionError, WeightsError
from stmemory.hub import Where, checked, download, is_repository
from stmemory.memory.fusion import FusionCell
from stmemory.networks.config import NetworkConfig
from stmemory.networks.prediction import PredictionNetwork
from stmemory.networks.prediction_config import PredictionConfig
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.pretrained import ToPretrained

__all__ = [
    "NetworkInfo",
    "bundled_names",
    "find_checkpoint",
    "fingerprint",
    "load_network",
    "load_part",
    "network_info",
    "place",
    "place_to_compute",
    "tensors_digest",
]

_log = logging.getLogger(__name__)
_BUNDLED = Path(__file__).parent / "bundled"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_Part = TypeVar("_Part")
# What the weights of a kind are for, so that those of another kind can be told for what they are.
_USES = {
    "network": "it segments; for VOSPredictor or SegmentationNetwork",
    "prediction_network": "it predicts frames; for FramePredictor or PredictionNetwork",
    "fusion_cell": "for FusionCell alone",
}


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
        name: a bundled name, a folder, or a repository `owner/name`, tried in that order; a `Path` is a folder; None is
            `"lite"`.
        where: for repositories.

    Raises:
        WeightsError: there are none of that name, or their `config.json` is not understood.
        OptionError: a revision of weights that are not on the Hub.

    >>> find_checkpoint("lite").kind
    'network'
    """
    where = checked(where)
    wanted = "lite" if name is None else str(name)
    folder = _BUNDLED / wanted if wanted in bundled_names() else Path(wanted).expanduser()
    if isinstance(name, str) and is_repository(name) and not _is_there(folder):
        return _on_the_hub(name, where)
    if where.get("revision") is not None:
        raise OptionError(
            f"revision: expected none for weights that are not on the Hub, got {where['revision']!r} for {wanted!r}"
        )
    if not wanted or not folder.is_dir():
        found = "a file, pass its folder" if wanted and folder.is_file() else "none of them; check the spelling"
        raise WeightsError(
            f"weights {wanted!r}: expected a bundled name ({', '.join(bundled_names()) or 'there are none'}), a "
            f"folder with {CONFIG} and "
            f"{TENSORS}, or owner/name of a repository on the Hub (a str, its revision apart), got {found}"
        )
    return read_config(folder, wanted)


def load_network(name: str | Path | None = None, *, where: Where | None = None) -> SegmentationNetwork:
    """A network with trained weights, in eval mode, float32, on the CPU; `SegmentationNetwork.from_pretrained` is the
    same.

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
    name: str | Path | Checkpoint | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    where: Where | None = None,
) -> _Part:
    """A trained module of some kind: all that a checkpoint holds, or the first part of it that is of that kind.

    Args:
        kind: such as `SegmentationNetwork` or `FusionCell`.
        name: see `find_checkpoint`; or what that gave. None is the `default_weights` of the kind, where it has some.
        device: where to put it; None is the CPU.
        dtype: what to turn it into; None is float32.
        where: for repositories.

    Raises:
        WeightsError: there are none, they do not fit, or hold nothing of that kind.
        OptionError: the device is not there, or the dtype is no float.

    >>> load_part(FusionCell).channels
    192
    """
    if name is None:
        name = getattr(kind, "default_weights", None)
    checkpoint = name if isinstance(name, Checkpoint) else find_checkpoint(name, where)
    with torch.device("meta"):  # shapes are compared before anything is allocated
        blank = _built(checkpoint).float()  # built in torch's default dtype, which is the host program's business
    if not any(isinstance(module, kind) for module in blank.modules()):
        raise WeightsError(
            f"weights {checkpoint.name!r}: expected some that hold a {kind.__name__}, got a {checkpoint.kind} "
            f"({_USES[checkpoint.kind]}); take others, or load these as what they are"
        )
    tensors = read_tensors(checkpoint, blank.state_dict())
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn and thrown away
        whole = _built(checkpoint).float()
    whole.load_state_dict(tensors)
    place(whole.eval(), device=device, dtype=dtype)
    _log.info(
        "weights %s: a %s from %s, revision %s",
        checkpoint.name,
        checkpoint.kind,
        checkpoint.folder,
        (where or {}).get("revision") or "none asked for",
    )
    for module in whole.modules():
        if isinstance(module, ToPretrained):
            module.inherited = _inherited(checkpoint)
    return next(module for module in whole.modules() if isinstance(module, kind))


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
    if dtype is not None and dtype not in _DTYPES:  # of float8 alone torch can compute nothing
        raise OptionError(
            f"dtype: expected torch.float32, torch.bfloat16, torch.float16 or torch.float64, got {dtype!r}; choose "
            "one of them"
        )
    try:
        module.to(device=None if device is None else torch.device(device), dtype=dtype)
    except (AssertionError, RuntimeError, TypeError) as error:  # torch without CUDA asserts
        raise OptionError(
            f"device: expected one that torch can use here, such as 'cpu', got {device!r}: {error}"
        ) from error


def place_to_compute(module: nn.Module, *, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
    """Move a module that is to compute; None leaves it where and what it is.

    Raises:
        OptionError: the device is not there or holds shapes alone, or the dtype is no float.

    >>> place_to_compute(nn.Linear(1, 1), device="cpu", dtype=torch.bfloat16)
    """
    place(module, device=device, dtype=dtype)
    if any(parameter.is_meta for parameter in module.parameters()):
        raise OptionError("device: expected one that computes, such as 'cpu', got 'meta', which holds shapes alone")


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


def _on_the_hub(name: str, where: Where) -> Checkpoint:
    """Download the config, and the weights only if it is understood, of the same commit."""
    try:
        folder = download(name, (CONFIG,), where)
        checkpoint = read_config(folder, name)
        download(name, (TENSORS,), {**where, "revision": folder.name})
    except WeightsError as error:
        raise WeightsError(f"{error} (taken for a repository, since there is no folder {name} here)") from error
    return checkpoint


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for a path
        return False


def _built(checkpoint: Checkpoint) -> nn.Module:
    """The module that a checkpoint describes, with random weights."""
    path = checkpoint.folder / CONFIG
    if checkpoint.kind != "fusion_cell":
        try:
            if checkpoint.kind == "network":
                return SegmentationNetwork(_network_config(checkpoint))
            return PredictionNetwork(PredictionConfig.from_dict(checkpoint.config))
        except (
            RuntimeError,
            OptionError,
            TypeError,
            OverflowError,
        ) as error:  # a key of another version, or a size that nobody can allocate
            raise WeightsError(
                f"{path}: expected the config of a {checkpoint.kind} that can be built, got: {error}"
            ) from error
    known, given = FusionCell(1).config(), checkpoint.config
    kinds: dict[str, tuple[type, ...]] = {"bottleneck": (int, type(None)), "scale": (float, int)}
    if set(known) != set(given) or any(type(given[name]) not in kinds.get(name, (int,)) for name in known):
        raise WeightsError(
            f"{path}: expected a fusion_cell with {', '.join(known)}, all numbers, got {dict(given)}; the file is "
            "damaged"
        )
    try:
        return FusionCell(**given)
    except (RuntimeError, OptionError, TypeError, OverflowError) as error:
        raise WeightsError(f"{path}: expected the config of a fusion cell that can be built, got: {error}") from error


def _network_config(checkpoint: Checkpoint) -> NetworkConfig:
    if checkpoint.kind != "network":
        raise WeightsError(
            f"weights {checkpoint.name!r}: expected a network, got a {checkpoint.kind} ({_USES[checkpoint.kind]})"
        )
    try:
        return NetworkConfig.from_dict(checkpoint.config)
    except OptionError as error:
        raise WeightsError(f"{checkpoint.folder / CONFIG}: {error}") from error


def _inherited(checkpoint: Checkpoint) -> dict[str, Any]:
    """What holds of all that is trained from these weights: figures do not, licences do."""
    kept = {name: checkpoint.about[name] for name in ("licence", "re-hosting") if name in checkpoint.about}
    return {**kept, "base_model": checkpoint.name}


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
