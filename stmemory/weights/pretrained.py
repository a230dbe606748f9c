"""`from_pretrained` and `save_pretrained` of networks: bundled weights, folders, and repositories of the Hub."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar, Unpack

import torch
from torch import Tensor, nn

from stmemory.errors import OptionError, WeightsError
from stmemory.lazy import by_name
from stmemory.memory.fusion import FusionCell
from stmemory.weights.card import card_text
from stmemory.weights.checkpoint import (
    CARD,
    CONFIG,
    TENSORS,
    Checkpoint,
    finish_save,
    read_config,
    read_tensors,
    write_checkpoint,
)
from stmemory.weights.devices import place
from stmemory.weights.foreign import ForeignWeights, foreign_weights, load_foreign
from stmemory.weights.hub import Where, checked, download, fetch_if_there, is_repository, upload

if TYPE_CHECKING:
    from stmemory.networks.config import NetworkConfig
    from stmemory.networks.segmentation import SegmentationNetwork

__all__ = [
    "HasState",
    "NetworkInfo",
    "Pretrained",
    "bundled_names",
    "commit_of",
    "find_checkpoint",
    "find_weights",
    "fingerprint",
    "load_network",
    "load_part",
    "load_tracking_network",
    "network_info",
    "push_part",
    "save_network",
    "save_part",
    "tensors_digest",
]


class Pretrained:
    """Adds `from_pretrained`, `save_pretrained` and `push_to_hub` to an `nn.Module` that is built from its own config.

    Attributes:
        kind: the key of the config in `config.json`, see `stmemory.weights.checkpoint`.
        config_type: the class of `config`.
        default_weights: the bundled name that is taken where none is given.
        config: what the module is built from.
        inherited: what holds of these weights and of all that is trained from them, such as the licence that they came
            with. It is written beside them unless `about` says otherwise.
    """

    kind: ClassVar[str]
    config_type: ClassVar[type[Any]]
    default_weights: ClassVar[str] = "lite"
    config: Any
    inherited: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **where: Unpack[Where],
    ) -> Self:
        """Load trained weights, strictly, in eval mode.

        Args:
            name: a bundled name, a folder that `save_pretrained` wrote, or a repository `owner/name` on the Hugging
                Face Hub; None is the bundled `default_weights`, which need no connection.
            device: where to put them, the CPU by default.
            dtype: what to turn them into, float32 by default.
            where: `revision`, `cache_dir`, `token` and `local_files_only`, for repositories; see
                `stmemory.weights.hub.Where`.

        Raises:
            WeightsError: there are no such weights, they are damaged, or hold no part of this kind.
            OptionError: the device is not there, or the dtype is no float.
        """

        return load_part(cls, name, device=device, dtype=dtype, where=where)

    def save_pretrained(
        self, folder: str | Path, *, dtype: torch.dtype = torch.float32, about: Mapping[str, Any] | None = None
    ) -> None:
        """Write `config.json`, `model.safetensors` and a model card, `README.md`, to a folder that `from_pretrained`
        reads.

        Args:
            folder: made if it is not there; files in it are replaced, except a card that was edited.
            dtype: of the floats in the file.
            about: what is known of the weights, see `stmemory.weights.card`; plain JSON values.

        Raises:
            WeightsError: a weight is NaN or infinite (in `dtype`), the network no longer fits its config, `about`
                is not of the form that `stmemory.weights.card` gives, or nothing can be written there.
            OptionError: the dtype is no float.
        """
        save_part(self, folder, dtype=dtype, about=about)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        about: Mapping[str, Any] | None = None,
    ) -> str:
        """Commit what `save_pretrained` writes to a repository on the Hugging Face Hub, which is made if there is none.

        Args:
            repository: `owner/name`.
            private: whether a repository made here is.
            token: with the right to write; None takes the one that was logged in with.
            revision: branch to commit to; None is the main one.
            dtype: of the floats in the file.
            about: as for `save_pretrained`.

        Returns:
            The commit's address.

        Raises:
            WeightsError: the weights cannot be saved, came with a licence that forbids it, or the Hub refuses or cannot
                be reached.
            OptionError: the name is not of a repository.
        """
        return push_part(self, repository, private=private, token=token, revision=revision, dtype=dtype, about=about)


_log = logging.getLogger(__name__)
_BUNDLED = Path(__file__).parents[1] / "bundled"
_Part = TypeVar("_Part")
# The class of each kind of weights; this room knows no layers.
_NETWORKS = {
    "network": ("stmemory.networks.segmentation", "SegmentationNetwork"),
    "prediction_network": ("stmemory.prediction.network", "PredictionNetwork"),
}
# What the weights of a kind are for, for the message that refuses another kind.
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
    return _checkpoint_at(_place_of(name, where))


def find_weights(name: str | Path | None = None, where: Where | None = None) -> Checkpoint | ForeignWeights:
    """Find weights by name, of our own or of another library that its `config.json` tells by a model type, see
    `stmemory.weights.foreign`; those on the Hub are downloaded, or found in the cache.

    Args:
        name: see `find_checkpoint`.
        where: for repositories.

    Raises:
        WeightsError: there are none of that name, or their `config.json` is not understood.
        OptionError: a revision of our own weights that are not on the Hub.

    >>> find_weights("lite").name
    'lite'
    """
    at = _place_of(name, where)
    return foreign_weights(at.name, at.folder, at.where if at.on_the_hub else None) or _checkpoint_at(at)


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
    network: SegmentationNetwork = load_part(_network_class("network"), name, where=where)
    return network


def load_tracking_network(name: str | Path | None = None, *, where: Where | None = None) -> Any:
    """A network to track with, of any kind: a `SegmentationNetwork`, or one of another library's that its `config.json`
    tells by a model type, see `stmemory.weights.foreign`.

    Args:
        name: see `find_checkpoint`.
        where: for repositories.

    Raises:
        WeightsError: there are none, they do not fit, or the library that they need is missing.

    >>> load_tracking_network("lite").name
    'lite'
    """
    found = find_weights(name, where)
    if isinstance(found, ForeignWeights):
        return load_foreign(found)
    return load_part(_network_class("network"), found, where=where)


def commit_of(name: str | Path | None, where: Where | None = None) -> str | None:
    """The commit that weights of a repository are of; None for others, of a folder that is named like one too.

    Raises:
        WeightsError: there are no such weights.

    >>> commit_of("lite") is None
    True
    """
    found = find_weights(name, where)
    if isinstance(found, ForeignWeights):
        return found.revision
    folder = found.folder
    return folder.name if isinstance(name, str) and is_repository(name) and folder != Path(name) else None


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
        if isinstance(module, Pretrained | FusionCell):
            vars(module)["inherited"] = _inherited(checkpoint)
    return next(module for module in whole.modules() if isinstance(module, kind))


def save_network(
    network: SegmentationNetwork,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    about: Mapping[str, Any] | None = None,
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
    """Write a module and its card to a folder that `from_pretrained` reads. After an interruption it holds the old
    weights or the new ones.

    Args:
        module: a `SegmentationNetwork` that is not folded (see `fold_batch_norm`), a `PredictionNetwork`, or a
            `FusionCell`.
        folder: made if it is not there; files in it are replaced, except a card that was edited.
        dtype: of the floats in the file.
        about: what is known of the weights, see `stmemory.weights.card`.
        name: that the card's example loads them by; None is the folder's.

    Raises:
        WeightsError: the weights no longer fit their config, as after `fold_batch_norm`; one is NaN; it is a module of
            another kind; `about` is not of the form that `stmemory.weights.card` gives; or the folder cannot be
            written.
        OptionError: the dtype is no float.
    """
    if isinstance(module, Pretrained) and isinstance(module, nn.Module):
        kind, config = module.kind, dataclasses.asdict(module.config)
        _check_unchanged(module)
    elif isinstance(module, FusionCell):
        kind, config = "fusion_cell", module.config()
    else:
        came = f"got {type(module).__name__}; save its state_dict() yourself"
        raise WeightsError(f"save: expected a SegmentationNetwork, a PredictionNetwork or a FusionCell, {came}")
    folder, known = Path(folder), about or {}
    if not isinstance(known, Mapping):
        raise WeightsError(f"about: expected a dict, got {type(known).__name__}; see stmemory.weights.card")
    known = {**getattr(module, "inherited", {}), **known}
    text = card_text(kind, known, name=name or folder.resolve().name)
    finish_save(folder)
    card = None if _card_by_hand(folder) else text
    write_checkpoint(folder, kind, config, module.state_dict(), dtype=dtype, words=(known, card))


def push_part(
    module: object,
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    about: Mapping[str, Any] | None = None,
) -> str:
    """Commit what `save_part` writes to a repository on the Hugging Face Hub, which is made if there is none.

    `network.push_to_hub` is the same.

    Args:
        module: as for `save_part`.
        repository: `owner/name`.
        private: whether a repository that is made here is private.
        token: with the right to write; None takes the one that was logged in with.
        revision: branch to commit to; None is the main one.
        dtype: of the floats in the file.
        about: as for `save_part`.

    Returns:
        The commit's address.

    Raises:
        WeightsError: the weights cannot be saved, came with a license that forbids it, or the Hub refuses or cannot be
            reached.
        OptionError: the name is not of a repository.

    >>> push_part(FusionCell(4), "cell")
    Traceback (most recent call last):
    stmemory.errors.OptionError: repository: expected owner/name, got 'cell'
    """
    if not (isinstance(repository, str) and is_repository(repository)):
        raise OptionError(f"repository: expected owner/name, got {repository!r}")
    condition = getattr(module, "inherited", {}).get("re-hosting")
    if condition is not None:
        raise WeightsError(f"push: expected weights that may be published, got some with the condition: {condition}")
    with TemporaryDirectory() as folder:
        fetch_if_there(Path(folder), repository, (CARD, CONFIG), token=token, revision=revision)
        save_part(module, folder, dtype=dtype, about=about, name=repository)
        return upload(Path(folder), repository, private=private, token=token, revision=revision)


def network_info(name: str | Path | None = None, *, where: Where | None = None) -> NetworkInfo:
    """What is known of a network's weights, see `load_network`.

    Raises:
        WeightsError: there are none, `config.json` is not understood, or they are of a part alone.
    """
    checkpoint = find_checkpoint(name, where)
    config = _network_config(checkpoint)
    return NetworkInfo(checkpoint.name, checkpoint.folder, config, checkpoint.nbytes, checkpoint.about)


class HasState(Protocol):
    """What has named tensors, as a module."""

    def state_dict(self) -> Mapping[str, Any]:
        """Them."""


def fingerprint(network: HasState) -> str:
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


def _check_unchanged(network: Any) -> None:
    """Refuse a network that its config would not make again."""
    with torch.device("meta"):
        fresh: nn.Module = _network_class(network.kind)(network.config)
    expected, found = ({n: tuple(t.shape) for n, t in one.state_dict().items()} for one in (fresh, network))
    changed = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
    cells = [[cell.config() for cell in one.modules() if isinstance(cell, FusionCell)] for one in (fresh, network)]
    if changed or cells[0] != cells[1]:
        raise WeightsError(
            f"save: expected a network as its config makes it, got another ({changed[0] if changed else 'fusion'} "
            "...); a predictor folds the BatchNorm of its copy: save the network that it was made from"
        )


def _card_by_hand(folder: Path) -> bool:
    """Whether a folder has a card that is not as it was written here."""
    path = folder / CARD
    if not path.is_file():
        return False
    try:
        return read_config(folder, str(folder)).card != hashlib.sha256(path.read_bytes()).hexdigest()
    except WeightsError:  # nothing to compare with: it may be edited
        return True


@dataclass(frozen=True)
class _Place:
    """A folder where weights are looked for. That of a repository holds its config so far; `where` then has the commit
    that the rest is taken from."""

    name: str
    folder: Path
    where: Where
    on_the_hub: bool = False


def _place_of(name: str | Path | None, where: Where | None) -> _Place:
    """Where weights of that name are to be; the config of a repository is downloaded."""
    where = checked(where)
    wanted = "lite" if name is None else str(name)
    folder = _BUNDLED / wanted if wanted in bundled_names() else Path(wanted).expanduser()
    if not (isinstance(name, str) and is_repository(name) and not _is_there(folder)):
        return _Place(wanted, folder, where)
    with _taken_for_a_repository(name):
        folder = download(name, (CONFIG,), where)
    return _Place(name, folder, {**where, "revision": folder.name}, on_the_hub=True)


def _checkpoint_at(at: _Place) -> Checkpoint:
    """Weights of our own; those of a repository are downloaded only if its config is understood."""
    if at.on_the_hub:
        with _taken_for_a_repository(at.name):
            checkpoint = read_config(at.folder, at.name)
            download(at.name, (TENSORS,), at.where)
        return checkpoint
    if at.where.get("revision") is not None:
        raise OptionError(
            f"revision: expected none for weights that are not on the Hub, got {at.where['revision']!r} for {at.name!r}"
        )
    if not at.name or not at.folder.is_dir():
        found = "a file, pass its folder" if at.name and at.folder.is_file() else "none of them; check the spelling"
        raise WeightsError(
            f"weights {at.name!r}: expected a bundled name ({', '.join(bundled_names()) or 'there are none'}), a "
            f"folder with {CONFIG} and {TENSORS}, or owner/name of a repository on the Hub (a str, its revision "
            f"apart), got {found}"
        )
    return read_config(at.folder, at.name)


@contextmanager
def _taken_for_a_repository(name: str) -> Iterator[None]:
    """Say in errors that there is no such folder."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{error} (taken for a repository, since there is no folder {name} here)") from error


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for a path
        return False


def _built(checkpoint: Checkpoint) -> nn.Module:
    """The module that a checkpoint describes, with random weights."""
    path = checkpoint.folder / CONFIG
    if checkpoint.kind != "fusion_cell":
        network = _network_class(checkpoint.kind)
        try:
            built: nn.Module = network(network.config_type.from_dict(checkpoint.config))
            return built
        except (
            RuntimeError,
            OptionError,
            TypeError,
            OverflowError,
        ) as error:  # a key of another version, or a size that cannot be allocated
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


def _network_class(kind: str) -> Any:
    return by_name(*_NETWORKS[kind])


def _network_config(checkpoint: Checkpoint) -> NetworkConfig:
    if checkpoint.kind != "network":
        raise WeightsError(
            f"weights {checkpoint.name!r}: expected a network, got a {checkpoint.kind} ({_USES[checkpoint.kind]})"
        )
    try:
        config: NetworkConfig = _network_class("network").config_type.from_dict(checkpoint.config)
    except OptionError as error:
        raise WeightsError(f"{checkpoint.folder / CONFIG}: {error}") from error
    return config


def _inherited(checkpoint: Checkpoint) -> dict[str, Any]:
    """What holds of all that is trained from these weights: figures do not, licences do."""
    kept = {name: checkpoint.about[name] for name in ("licence", "re-hosting") if name in checkpoint.about}
    return {**kept, "base_model": checkpoint.name}


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
