"""Weights of other libraries, recognised by `model_type` in `config.json`: SAM 2 and its kin for transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stmemory.errors import OptionError, WeightsError
from stmemory.io.untrusted import read_json
from stmemory.lazy import by_name
from stmemory.weights.checkpoint import CONFIG
from stmemory.weights.hub import Where, download_matching

__all__ = ["FOREIGN", "ForeignWeights", "foreign_weights", "load_foreign"]

_SAM2 = ("stmemory.networks.sam2", "load_sam2")
# The loader of each model type; this room knows no layers.
FOREIGN: Mapping[str, tuple[str, str]] = dict.fromkeys(("sam2_video", "edgetam_video", "sam3_tracker_video"), _SAM2)
_FILES = ("*.json", "*.safetensors")


@dataclass(frozen=True)
class ForeignWeights:
    """Where weights of another library lie.

    Attributes:
        name: as it was asked for.
        model_type: one of `FOREIGN`.
        folder: that holds `config.json` and the tensors.
        revision: the commit, of a repository; None for a folder.
    """

    name: str
    model_type: str
    folder: Path
    revision: str | None = None

    def settings(self) -> dict[str, Any]:
        """What the files beside the weights say of how images are prepared, such as `image_mean`."""
        found: dict[str, Any] = {}
        for file in ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"):
            if (self.folder / file).is_file():
                words = _words(self.folder / file)
                for part in (words, *(words.get(key) for key in ("image_processor", "video_processor"))):
                    found |= part if isinstance(part, dict) else {}
        return found


def foreign_weights(name: str, folder: Path, where: Where | None = None) -> ForeignWeights | None:
    """Weights of another library in a folder; those of a repository are downloaded, their tensors as safetensors alone.

    Args:
        name: as it was asked for.
        folder: that may hold them; of a repository the one in the cache that holds its `config.json`.
        where: for a repository, with the commit as its revision; None for a folder.

    Returns:
        Them; None where the folder holds weights of our own, or nothing.

    Raises:
        WeightsError: they are of a model type that cannot be tracked with, or their tensors cannot be had from the Hub.

    >>> foreign_weights("runs/mine", Path("runs/mine")) is None
    True
    """
    kind = _model_type(folder, name) if _is_folder(folder) else None
    if kind is None:
        return None
    if where is None:
        return ForeignWeights(name, kind, folder)
    folder = download_matching(name, _FILES, where)
    return ForeignWeights(name, kind, folder, folder.name)


def load_foreign(weights: ForeignWeights) -> Any:
    """The network of weights of another library, by the loader of their model type.

    Args:
        weights: where they lie.

    Raises:
        WeightsError: the library that they need is missing, or they do not fit.
    """
    return by_name(*FOREIGN[weights.model_type])(weights)


def _model_type(folder: Path, name: str) -> str | None:
    """The model type that a folder's `config.json` states; None where it is our own, or not there."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    words = _words(path)
    kind = words.get("model_type")
    if kind is None or "format_version" in words:
        return None
    if not isinstance(kind, str) or kind not in FOREIGN:
        raise WeightsError(
            f"weights {name!r}: expected weights of stmemory, or of a model for transformers of type "
            f"{', '.join(FOREIGN)}, got type {kind!r}; take a video model, such as SAM 2's of type sam2_video"
        )
    return str(kind)


def _words(path: Path) -> dict[str, Any]:
    """A JSON object of a file; empty where it holds none, which others complain of."""
    try:
        words = read_json(path)
    except (OSError, OptionError):
        return {}
    return words if isinstance(words, dict) else {}


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long for a path
        return False
