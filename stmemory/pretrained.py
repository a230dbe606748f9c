"""The methods by which what is learned comes in and goes out. `weights` does the work, loaded when they are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import torch

from stmemory.errors import OptionError, WeightsError
from stmemory.hub import Where, fetch_if_there, is_repository, upload

if TYPE_CHECKING:
    from stmemory.memory.policy import UpdatePolicy

__all__ = ["BankFromPretrained", "FromPretrained", "ToPretrained"]


class FromPretrained:
    """Adds `from_pretrained` to an `nn.Module` that a checkpoint holds, whole or as a part.

    Attributes:
        default_weights: the bundled name that is taken where none is given.
    """

    default_weights: ClassVar[str] = "lite"

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
            where: `revision`, `cache_dir`, `token` and `local_files_only`, for repositories; see `stmemory.hub.Where`.

        Raises:
            WeightsError: there are no such weights, they are damaged, or hold no part of this kind.
            OptionError: the device is not there, or the dtype is no float.
        """
        from stmemory.weights import load_part

        return load_part(cls, name, device=device, dtype=dtype, where=where)


class ToPretrained(FromPretrained):
    """Adds `save_pretrained` and `push_to_hub` to what can be built again from its own config.

    Attributes:
        inherited: what holds of these weights and of all that is trained from them, such as the licence that they came
            with. It is written beside them unless `about` says otherwise.
    """

    inherited: Mapping[str, Any] = MappingProxyType({})

    def save_pretrained(
        self, folder: str | Path, *, dtype: torch.dtype = torch.float32, about: Mapping[str, Any] | None = None
    ) -> None:
        """Write `config.json`, `model.safetensors` and a model card, `README.md`, to a folder that `from_pretrained`
        reads.

        Args:
            folder: made if it is not there; files in it are replaced, but for a card that somebody has written to.
            dtype: of the floats in the file.
            about: what to tell of the weights, see `stmemory.card`; plain JSON values.

        Raises:
            WeightsError: a weight is NaN or infinite (in `dtype`), the network no longer fits its config, what is told
                of it is not of the form that `stmemory.card` gives, or nothing can be written there.
            OptionError: the dtype is no float.
        """
        from stmemory.saving import save_part

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
        from stmemory.card import CARD
        from stmemory.checkpoint import CONFIG
        from stmemory.saving import save_part

        if not (isinstance(repository, str) and is_repository(repository)):
            raise OptionError(f"push_to_hub: expected owner/name of a repository, got {repository!r}")
        if "re-hosting" in self.inherited:
            raise WeightsError(
                "push_to_hub: expected weights that may be published, got some with the condition: "
                f"{self.inherited['re-hosting']}"
            )
        with TemporaryDirectory() as folder:
            fetch_if_there(Path(folder), repository, (CARD, CONFIG), token=token, revision=revision)
            save_part(self, folder, dtype=dtype, about=about, name=repository)
            return upload(Path(folder), repository, private=private, token=token, revision=revision)


class BankFromPretrained:
    """Adds `from_pretrained` to a memory bank, which learns nothing itself and asks trained parts."""

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        capacity: int = 5,
        policy: str | UpdatePolicy = "least_similar",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **where: Unpack[Where],
    ) -> Self:
        """An empty bank with the trained fusion cell and memory keys of a network.

        Args:
            name: as for `FusionCell.from_pretrained`; the weights must be a network's.
            capacity: K, at least 2.
            policy: an `UpdatePolicy`, or its name or letter.
            device: where the parts are put; templates stay where they come from.
            dtype: what the parts are turned into.
            where: as for `FusionCell.from_pretrained`.

        Raises:
            WeightsError: there are no such weights, or they are damaged or of a fusion cell alone.
            OptionError: an argument is out of its range.
        """
        from stmemory.networks.segmentation import SegmentationNetwork
        from stmemory.weights import load_part

        network = load_part(SegmentationNetwork, name, device=device, dtype=dtype, where=where)
        new_bank: type[Any] = cls  # this class does not know the bank's own arguments
        bank: Self = new_bank(capacity, policy=policy, fusion=network.fusion, key=network.read.key)
        return bank
