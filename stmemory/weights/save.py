"""Saving and publishing a module: its weights, its config and a card, to a folder or to the Hub."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from stmemory.errors import OptionError, WeightsError
from stmemory.memory.fusion import FusionCell
from stmemory.weights.card import card_text
from stmemory.weights.checkpoint import CARD, CONFIG, finish_save, read_config, write_checkpoint
from stmemory.weights.hub import fetch_if_there, is_repository, upload

if TYPE_CHECKING:
    from stmemory.networks.segmentation import SegmentationNetwork
    from stmemory.prediction.network import PredictionNetwork

__all__ = ["push_part", "save_network", "save_part"]


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
    from stmemory.networks.segmentation import SegmentationNetwork
    from stmemory.prediction.network import PredictionNetwork

    if isinstance(module, SegmentationNetwork | PredictionNetwork):
        kind = "network" if isinstance(module, SegmentationNetwork) else "prediction_network"
        config = dataclasses.asdict(module.config)
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


def _check_unchanged(network: SegmentationNetwork | PredictionNetwork) -> None:
    """Refuse a network that its config would not make again."""
    from stmemory.networks.segmentation import SegmentationNetwork
    from stmemory.prediction.network import PredictionNetwork

    with torch.device("meta"):
        fresh = (
            SegmentationNetwork(network.config)
            if isinstance(network, SegmentationNetwork)
            else PredictionNetwork(network.config)
        )
    expected, found = ({n: tuple(t.shape) for n, t in one.state_dict().items()} for one in (fresh, network))
    changed = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
    cells = [[cell.config() for cell in one.modules() if isinstance(cell, FusionCell)] for one in (fresh, network)]
    if changed or cells[0] != cells[1]:
        raise WeightsError(
            f"save: expected a network as its config makes it, got another ({changed[0] if changed else 'fusion'} "
            "...); save it before "
            "BatchNorm is folded, and its parts by themselves"
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
