"""A folder of weights: `config.json` and `model.safetensors`, written atomically and read strictly,
without a pickle.

`config.json` holds `format_version`, the config of the module under the name of its kind, `sha256` of the other file,
and what is known of the weights under `about`. `model.safetensors` has the SHA-256 of the config among its words.

The rename of `config.json` alone decides which weights a folder holds. The other files that belong to it wait beside it
under names that begin with `.next.`, and take theirs after it. Who reads a folder in between, or after a process was
killed there, finds the weights of `config.json` under one of the two names; the next save renames what was left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from stmemory.errors import OptionError, WeightsError
from stmemory.io.files import rename_file, whole_file
from stmemory.io.untrusted import read_json
from stmemory.weights.tensors import tensor_bytes, words_of

__all__ = [
    "CARD",
    "CONFIG",
    "FORMAT_VERSION",
    "KINDS",
    "TENSORS",
    "Checkpoint",
    "differences",
    "finish_save",
    "listed",
    "read_config",
    "read_tensors",
    "write_checkpoint",
]

FORMAT_VERSION = 1
KINDS = ("network", "prediction_network", "fusion_cell")
CARD = "README.md"
CONFIG = "config.json"
TENSORS = "model.safetensors"
_KEYS = {"format_version", "sha256", "card", "about"}
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_CONFIG_DIGEST = "config_sha256"
_NEXT = ".next."  # begins the name of a file that waits for the rename of config.json
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Checkpoint:
    """What a folder says of the weights in it.

    Attributes:
        name: as it was asked for.
        folder: where they lie.
        kind: one of `KINDS`.
        config: of the module, as it was written.
        sha256: of the weights' file as it must be, lower-case hexadecimal.
        about: licence, data, training and measured figures, see `stmemory.weights.card`.
        card: SHA-256 of the card that was written beside them; None if none was.
    """

    name: str
    folder: Path
    kind: str
    config: Mapping[str, Any]
    sha256: str
    about: Mapping[str, Any] = field(default_factory=dict)
    card: str | None = None

    @property
    def nbytes(self) -> int:
        """Of the weights' file."""
        waiting = self.folder / (_NEXT + TENSORS)
        path = waiting if waiting.is_file() and _sha256(waiting) == self.sha256 else self.folder / TENSORS
        return path.stat().st_size


def read_config(folder: Path, name: str) -> Checkpoint:
    """Read `config.json` to the last key; no tensor is read, nor need there be any yet.

    Args:
        folder: that `write_checkpoint` wrote.
        name: for messages.

    Raises:
        WeightsError: the file is missing or not understood.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise WeightsError(
            f"weights {name!r}: expected {CONFIG} and {TENSORS} in {folder}, got no {CONFIG}{_hint(folder)}"
        )
    try:
        document = read_json(path)
        version = document["format_version"]
        if version > FORMAT_VERSION:
            raise WeightsError(
                f"{path}: expected format_version {FORMAT_VERSION} or older, got {version}; update stmemory"
            )
        kinds = sorted(set(document) - _KEYS)
        if len(kinds) != 1 or kinds[0] not in KINDS:
            raise WeightsError(
                f"{path}: expected {', '.join(sorted(_KEYS))} and one of {', '.join(KINDS)}, got "
                f"{', '.join(sorted(document))}; the file is not stmemory's, or of another version"
            )
        config, about, sha256, card = document[kinds[0]], document["about"], document["sha256"], document.get("card")
        typed = (
            isinstance(config, dict)
            and isinstance(about, dict)
            and isinstance(sha256, str)
            and isinstance(card, str | None)
        )
        if not typed or type(version) is not int or version < 1:
            raise WeightsError(
                f"{path}: expected a whole format_version above 0, dicts and digests, got others; the file is damaged"
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: expected format_version, sha256, about and a config, got: {error!r}; the file is damaged or not "
            "stmemory's: take a folder or repository that save_pretrained or push_to_hub of stmemory wrote"
        ) from error
    return Checkpoint(name, folder, kinds[0], config, sha256, about, card)


def read_tensors(checkpoint: Checkpoint, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by name, on the CPU, in the dtypes of the expected ones.

    Args:
        checkpoint: where they are.
        expected: a state of the module that is to take them; names and shapes must be exactly its own.

    Raises:
        WeightsError: names are missing, unexpected or misshapen (they are listed); the file is damaged, is another one
            than `config.json` was written for, or holds NaN.
    """
    path = checkpoint.folder / TENSORS
    try:
        content = _content(checkpoint)
        tensors = load(content)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path}: expected the weights beside {CONFIG}, got no such file{_hint(checkpoint.folder)}"
        ) from error
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path}: expected a whole safetensors file, got: {error}{_nature(path)}; copy or download it again"
        ) from error
    if problem := differences(tensors, expected):
        raise WeightsError(
            f"{path}: expected the weights of {CONFIG} beside it, got {problem}; the two files belong to different "
            "networks"
        )
    _check_finite(str(path), tensors)
    digest = hashlib.sha256(content).hexdigest()
    # the second look is for a save of both files since config.json was read
    known = checkpoint if digest == checkpoint.sha256 else read_config(checkpoint.folder, checkpoint.name)
    if digest != known.sha256:
        raise WeightsError(
            f"{path}: expected the file that {CONFIG} beside it was written for, sha256 {checkpoint.sha256}, got "
            f"{digest}: another or a damaged one; copy or download both again"
        )
    written_config = words_of(content).get(_CONFIG_DIGEST)  # none in files of earlier versions
    if written_config is not None and written_config != _config_digest(known.kind, known.config):
        raise WeightsError(
            f"{path.parent / CONFIG}: expected the configuration that the weights beside it were written with, got "
            "another: the file was changed or is damaged; copy or download both again"
        )
    return {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}


def differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """How named tensors differ from others in names, shapes and kind, in words; empty where they do not.

    >>> differences({"a": torch.ones(2)}, {"a": torch.ones(3), "b": torch.ones(1)})
    'missing: b; misshapen: a (2,) where (3,) belongs'
    """
    both = set(found) & set(expected)
    problems = {
        "missing": set(expected) - both,
        "unexpected": set(found) - both,
        "misshapen": {
            f"{name} {tuple(found[name].shape)} where {tuple(expected[name].shape)} belongs"
            for name in both
            if found[name].shape != expected[name].shape
        },
        "not of floats": {
            name for name in both if expected[name].is_floating_point() > found[name].is_floating_point()
        },
    }
    return "; ".join(f"{kind}: {listed(names)}" for kind, names in problems.items() if names)


def listed(names: Iterable[str]) -> str:
    """The first five names in order, and how many more there are.

    >>> listed("gfedcba")
    'a, b, c, d, e and 2 more'
    """
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + f" and {len(ordered) - 5} more" * (len(ordered) > 5)


def write_checkpoint(
    folder: Path,
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    words: tuple[Mapping[str, Any], str | None] = ({}, None),
) -> None:
    """Write a folder of weights atomically: after an interruption it holds the old weights or the new ones.

    Args:
        folder: made if it is not there; files in it are replaced.
        kind: one of `KINDS`.
        config: plain JSON values.
        tensors: by name.
        dtype: of the floats in the file.
        words: what is known of the weights, plain JSON values, and the text of their card; None leaves the card that is
            there.

    Raises:
        WeightsError: a weight is NaN or infinite, or is so in `dtype`; what is known of them is no JSON; or nothing can
            be written.
        OptionError: the dtype is no float that safetensors and torch both read.
    """
    if dtype not in _FLOATS:
        raise OptionError(f"dtype: expected one of {', '.join(map(str, _FLOATS))}, got {dtype!r}")
    stored = {n: (t.detach().to(dtype) if t.is_floating_point() else t) for n, t in tensors.items()}
    _check_finite(f"{folder}, in {dtype}", stored)
    try:
        words_beside = {"format": "pt", _CONFIG_DIGEST: _config_digest(kind, config)}
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"config: expected plain JSON values, got: {error}; use strings, numbers, lists and dicts"
        ) from error
    content = tensor_bytes(stored, words_beside)
    about, card = words
    digest, of_card = (
        hashlib.sha256(content).hexdigest(),
        None if card is None else hashlib.sha256(card.encode()).hexdigest(),
    )
    document = {
        "format_version": FORMAT_VERSION,
        kind: dict(config),
        "sha256": digest,
        "card": of_card,
        "about": dict(about),
    }
    try:
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"about: expected plain JSON values, got: {error}; use strings, numbers, lists and dicts"
        ) from error
    waiting = {TENSORS: content} if card is None else {TENSORS: content, CARD: card.encode()}
    try:
        for name, data in waiting.items():
            with whole_file(folder / (_NEXT + name)) as part:
                part.write_bytes(data)
        with whole_file(folder / CONFIG) as part:
            part.write_text(text, encoding="utf-8")
        for name in waiting:
            rename_file(folder / (_NEXT + name), folder / name)
    except OSError as error:
        raise WeightsError(f"{folder}: expected a folder to write to, got: {error}; choose another") from error


def finish_save(folder: Path) -> None:
    """Give the files that wait for their names what a save that was killed did not, where they belong to `config.json`;
    remove the others.

    Raises:
        WeightsError: the folder cannot be written to.

    >>> finish_save(Path("no/such/folder"))
    """
    waiting = [name for name in (TENSORS, CARD) if (folder / (_NEXT + name)).is_file()]
    if not waiting:
        return
    wanted: dict[str, str | None] = {}
    with suppress(WeightsError):
        known = read_config(folder, str(folder))
        wanted = {TENSORS: known.sha256, CARD: known.card}
    try:
        for name in waiting:
            path, own = folder / (_NEXT + name), folder / name
            by_hand = name == CARD and own.is_file() and own.stat().st_mtime > path.stat().st_mtime
            if _sha256(path) == wanted.get(name) and not by_hand:
                rename_file(path, own)
            else:
                path.unlink()
    except OSError as error:
        raise WeightsError(f"{folder}: expected a folder to write to, got: {error}; choose another") from error


def _content(checkpoint: Checkpoint) -> bytes:
    """The weights' file that `config.json` was written for, if one of those in the folder is; else the one that has its
    name."""
    content: bytes | None = None
    for name in (TENSORS, _NEXT + TENSORS, TENSORS):  # the second took the name of the first while this looked
        try:
            found = (checkpoint.folder / name).read_bytes()
        except FileNotFoundError:
            continue
        if hashlib.sha256(found).hexdigest() == checkpoint.sha256:
            return found
        content = found if name == TENSORS else content
    return (checkpoint.folder / TENSORS).read_bytes() if content is None else content


def _config_digest(kind: str, config: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration, however its file is laid out."""
    return hashlib.sha256(json.dumps({kind: dict(config)}, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_finite(what: str, tensors: Mapping[str, Tensor]) -> None:
    broken = [n for n, t in tensors.items() if t.is_floating_point() and not bool(t.isfinite().all())]
    if broken:
        raise WeightsError(
            f"{what}: expected finite weights, got NaN or infinity in {', '.join(broken[:5])}; use an earlier copy"
        )


def _hint(folder: Path) -> str:
    """What to do about a folder that holds weights of another kind."""
    if not folder.is_dir():
        return "; there is no such folder"
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    if not pickles:
        return "; a folder of stmemory's holds both"
    if "state.pt" in pickles:  # what training leaves
        commands = "`stmemory train export`, or of a comparison `stmemory train predict export`"
        return f" but state.pt, a state of training; write its weights first: {commands}"
    return (
        f" but {pickles[0]}, a pickle, which can run code and is never loaded; convert it first with `stmemory convert`"
    )


def _nature(path: Path) -> str:
    """What a file is that is not safetensors, by its first bytes."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        start = file.read(64)
    for mark, kind in (
        (b"PK\x03\x04", "it is a pickle of torch.save, which is never loaded here"),
        (b"\x80", "it is a pickle, which is never loaded here"),
        (b"version https://git-lfs", "it is a pointer of Git LFS; run `git lfs pull`"),
        (b"<", "it is a web page"),
    ):
        if start.startswith(mark):
            return f" ({kind})"
    return ""
