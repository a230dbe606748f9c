"""The file of a saved stream, whatever it streams: tensors and words, bound to weights and options, with a digest of
every byte.

Never unpickles. What the tensors mean is told by who saves them: `stream_file.py`, `frame_stream.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from stmemory.errors import BankError, StmemoryError, WeightsError
from stmemory.memory.bank import MemoryBank
from stmemory.memory.policy import UpdatePolicy
from stmemory.memory.read import ReadCache
from stmemory.tensor_file import TensorFile, read_tensor_file, write_tensor_file
from stmemory.weights import fingerprint, tensors_digest

__all__ = ["StreamOptions", "check_shapes", "fill_memory", "memory_tensors", "read_state", "weights_of", "write_state"]

_State = TypeVar("_State")
_BEFORE = {"enlarge": 1.0, "zoom": 1.0}  # options that did not exist when a file was written, as they were then


class StreamOptions(Protocol):
    """What a state belongs to beside the weights; `TrackingOptions` and `PredictionOptions` are such."""

    @property
    def policy(self) -> str | UpdatePolicy:
        """The bank's, whose weights count too where it has some."""

    def as_dict(self) -> Mapping[str, str | int | float | None]:
        """Plain values."""


def write_state(
    path: str | Path,
    kind: tuple[str, int],
    tensors: Mapping[str, Tensor],
    about: Mapping[str, object],
    *,
    network: nn.Module,
    options: StreamOptions,
) -> None:
    """Write a state, with a digest of all of it. The file appears whole or not at all.

    Args:
        path: where it goes.
        kind: name and version of the format.
        tensors: by name.
        about: plain JSON values.
        network: whose weights it belongs to.
        options: that it belongs to.

    Raises:
        OptionError: the path is no name of a file.
        FileError: the file cannot be written there.
    """
    told = {
        "format": kind[0],
        "version": kind[1],
        "weights": weights_of(network, options),
        "options": options.as_dict(),
    }
    write_tensor_file(path, tensors, {"about": json.dumps({**told, **about})})


def read_state(
    path: str | Path,
    kind: tuple[str, int],
    build: Callable[[dict[str, Any], dict[str, Tensor]], _State],
    *,
    since: int,
    network: nn.Module,
    options: StreamOptions,
) -> _State:
    """What `write_state` wrote, put together again.

    Args:
        path: of the file.
        kind: name of the format, and the newest version that is understood.
        build: makes the state of what was told and the tensors; LookupError, TypeError, ValueError and BankError say
            that something is missing or wrong.
        since: the version from which on files have a digest of every byte; those before have one of the tensors.
        network: the very network that it was saved with.
        options: the very options.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or belongs to other weights or options.
        OptionError: the path is no name of a file.
    """
    device = next(network.parameters()).device
    file = read_tensor_file(path, "a stream that stream.save() wrote")
    tensors = {name: tensor.to(device) for name, tensor in file.tensors.items()}
    about = _words(path, kind, file)
    try:
        _check_digest(path, about, file, since)
        _check_belongs(path, about, weights_of(network, options), options.as_dict())
        return build(about, tensors)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, StmemoryError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"{path}: expected all that a stream remembers, got: {error!r}; start the video anew"
        ) from error


def memory_tensors(bank: MemoryBank, cache: ReadCache) -> dict[str, Tensor]:
    """All that a bank and its cache hold, by name; copies nothing."""
    tensors = {f"bank.{name}": t for name, t in bank.state_dict().items()}
    return tensors | {f"cache.{name}": t for name, t in cache.state_dict(bank).items()}


def fill_memory(bank: MemoryBank, cache: ReadCache, tensors: Mapping[str, Tensor]) -> None:
    """Take over what `memory_tensors` gave, among others.

    Raises:
        BankError: the bank is of another capacity or kind.
    """
    bank.load_state_dict(_part(tensors, "bank."))
    cache.load_state_dict(_part(tensors, "cache."), bank)


def check_shapes(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors of other shapes, as a file may have them that was not written here; those that are not there do
    not count.

    Raises:
        BankError: names the first of them.

    >>> check_shapes({"a": (1, 2)}, {"a": nn.Linear(2, 1).weight})
    """
    for name, shape in expected.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise BankError(f"expected {name} of shape {shape}, got {tuple(tensors[name].shape)}")


def weights_of(network: nn.Module, options: StreamOptions) -> str:
    """Short names of all weights that what a stream gives depends on: the network's, and after it those of a policy
    that was given.

    >>> from stmemory.memory.learned import LearnedPolicy
    >>> from stmemory.options import PredictionOptions
    >>> len(weights_of(nn.Linear(1, 1), PredictionOptions())), len(weights_of(nn.Linear(1, 1), PredictionOptions(policy=LearnedPolicy())))
    (16, 33)
    """
    policy = options.policy
    return fingerprint(network) + ("-" + fingerprint(policy) if isinstance(policy, nn.Module) else "")


def _words(path: str | Path, kind: tuple[str, int], file: TensorFile) -> dict[str, Any]:
    """What a file says of itself, when it is of this kind."""
    try:
        about = json.loads(file.about.get("about", "{}"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path}: expected a stream that stream.save() wrote, got a damaged one ({error}); start the video anew"
        ) from error
    found, version = (about.get("format"), about.get("version")) if isinstance(about, dict) else (None, None)
    if found != kind[0] or type(version) is not int or not 1 <= version <= kind[1]:
        raise WeightsError(
            f"{path}: expected a {kind[0]} of version {kind[1]} or older, got {found or 'another file'} of version "
            f"{version or 'unknown'}; pass what stream.save() of such a stream wrote, or update stmemory"
        )
    words: dict[str, Any] = about
    return words


def _check_digest(path: str | Path, about: dict[str, Any], file: TensorFile, since: int) -> None:
    """Refuse a file that lost its digest, or of an earlier version whose tensors are not those that were saved."""
    fine = file.whole if about["version"] >= since else about["digest"] == tensors_digest(file.tensors)
    if not fine:
        raise WeightsError(
            f"{path}: expected a stream with the digest of what was saved, got another; the file is damaged, start "
            "the video anew"
        )


def _check_belongs(path: str | Path, about: dict[str, Any], weights: str, ours: Mapping[str, object]) -> None:
    if about["weights"] != weights:
        raise WeightsError(
            f"{path}: expected the weights it was saved with ({about['weights']}), got {weights}; load those"
        )
    theirs = {**{name: value for name, value in _BEFORE.items() if name in ours}, **about["options"]}
    changed = {
        name: (theirs.get(name), ours.get(name))
        for name in sorted({*ours, *theirs})
        if theirs.get(name) != ours.get(name)
    }
    if changed:
        told = ", ".join(f"{name} {then!r} (now {now!r})" for name, (then, now) in changed.items())
        raise WeightsError(f"{path}: expected the options it was saved with: {told}; build the predictor with those")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
