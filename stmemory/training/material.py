"""Material: a packed file of training pictures, held in memory as compressed bytes. Decodes; makes no clips."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stmemory.errors import OptionError, StmemoryError
from stmemory.tensor_file import read_tensor_file
from stmemory.training.packing import FORMAT, KINDS, PackReport, pack
from stmemory.untrusted import whole

__all__ = ["Item", "Material", "PackReport", "Photo", "Pictures", "pack"]


@dataclass(frozen=True)
class Item:
    """One packed picture, not decoded.

    Attributes:
        index: its place in the material.
        kind: "photo", "cutout", "background" or "video" (one frame of one).
        drawn: clip art, emoji or a render, not a photograph.
        series: number of the video or of the turning object it is part of, or -1.
        name: path below the packed tree, for messages and credits.
    """

    index: int
    kind: str
    drawn: bool
    series: int
    name: str

    @property
    def natural(self) -> bool:
        """A photograph, or cut out of one."""
        return not self.drawn

    @property
    def source(self) -> str:
        """The folder it came from, without the last `images` or `cutouts`."""
        parts = Path(self.name).parts[:-1]
        return "/".join(parts[:-1] if parts and parts[-1] in ("images", "cutouts") else parts)


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture with instances.

    Attributes:
        pixels: uint8 [3, H, W], RGB.
        ids: uint8 [H, W], 0 = background, 1..N = instances.
    """

    pixels: Tensor
    ids: Tensor


class Pictures(Protocol):
    """What clips are made of: pictures of known kinds, decoded on demand. `Material` is packed, `FolderPictures` are
    files."""

    @property
    def items(self) -> tuple[Item, ...]:
        """All pictures, not decoded."""
        ...

    def photo(self, index: int) -> Photo:
        """Decode a photo or a video frame with its mask."""
        ...

    def pixels(self, index: int) -> Tensor:
        """Decode a photo, video frame or background without its mask: uint8 [3, H, W]."""
        ...

    def cutout(self, index: int) -> Tensor:
        """Decode a cut-out: uint8 [4, H, W], RGB and straight alpha."""
        ...


class Material:
    """All pictures of a packed file, decoded one at a time on demand.

    Holds no open file and no decoder state, so processes can share it.
    """

    def __init__(self, blobs: Tensor, offsets: Tensor, items: tuple[Item, ...]) -> None:
        """Use `Material.load`.

        Args:
            blobs: uint8 [bytes], picture and mask of each item one after the other.
            offsets: int64 [2 * items + 1], where each blob begins.
            items: what the blobs are.
        """
        self.items = items
        self._blobs = blobs.numpy()
        self._offsets = offsets.tolist()

    @classmethod
    def load(cls, path: str | Path) -> Material:
        """Read a file written by `pack` into memory.

        Raises:
            OptionError: there is no such file, it was not written by `pack`, or it is damaged by as little as one bit.
                Files of earlier versions have no digest, and load unless their parts do not fit each other.
        """
        try:
            file = read_tensor_file(path, "material for training")
            if file.about and not (file.whole and file.about.get("format") == FORMAT):
                raise OptionError(
                    "expected its digest, got a file without; it is damaged, or of a later version: pack the pictures "
                    "again"
                )
            tensors = file.tensors
            table, names = tensors["table"].tolist(), bytes(tensors["names"].numpy()).decode().split("\n")
            items = tuple(
                Item(index, KINDS[whole(kind, what="kind", most=len(KINDS) - 1)], bool(drawn), series, name)
                for index, ((kind, drawn, series), name) in enumerate(zip(table, names, strict=True))
            )
            blobs, offsets = tensors["blobs"], tensors["offsets"]
            if blobs.dtype != torch.uint8 or offsets.shape != (2 * len(items) + 1,) or offsets.is_floating_point():
                raise OptionError(
                    f"blobs, offsets: expected bytes, and whole numbers for {len(items)} pictures, got {blobs.dtype}, "
                    f"{tuple(offsets.shape)}"
                )
            if int(offsets[0]) < 0 or int(offsets[-1]) > len(blobs) or bool((offsets.diff() < 0).any()):
                raise OptionError("offsets: expected rising numbers within the file, got others")
            return cls(blobs, offsets, items)
        except (StmemoryError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise OptionError(
                f"path: expected a file written by stmemory.training.pack, got {str(path)!r} ({error})"
            ) from error

    def __len__(self) -> int:
        """Number of items."""
        return len(self.items)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all pictures, of their names and of what they are: the same for the same material, wherever its
        file lies."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(f"{item.kind} {item.drawn:d} {item.series} {item.name}\n".encode())
        digest.update(np.array(self._offsets, dtype="<i8").tobytes())
        digest.update(self._blobs.data)
        return digest.hexdigest()

    def photo(self, index: int) -> Photo:
        """Decode a photo or a video frame: pixels uint8 [3, H, W] and ids uint8 [H, W]."""
        self._expect(index, "photo", "video")
        with Image.open(io.BytesIO(self._blob(2 * index + 1))) as opened:
            ids = torch.from_numpy(np.array(opened))
        return Photo(pixels=self.pixels(index), ids=ids)

    def pixels(self, index: int) -> Tensor:
        """Decode a photo, video frame or background without its mask: uint8 [3, H, W]."""
        self._expect(index, "photo", "video", "background")
        return self._decode(index, "RGB")

    def cutout(self, index: int) -> Tensor:
        """Decode a cut-out: uint8 [4, H, W], RGB and straight (not premultiplied) alpha."""
        self._expect(index, "cutout")
        return self._decode(index, "RGBA")

    def _decode(self, index: int, mode: str) -> Tensor:
        with Image.open(io.BytesIO(self._blob(2 * index))) as opened:
            values = np.array(opened.convert(mode))
        return torch.from_numpy(values).permute(2, 0, 1).contiguous()

    def _blob(self, number: int) -> bytes:
        return self._blobs[self._offsets[number] : self._offsets[number + 1]].tobytes()

    def _expect(self, index: int, *kinds: str) -> None:
        if not 0 <= index < len(self.items):
            raise OptionError(f"index: expected 0..{len(self.items) - 1}, got {index}")
        if self.items[index].kind not in kinds:
            raise OptionError(f"index: expected an item of kind {' or '.join(kinds)}, got {self.items[index]}")
