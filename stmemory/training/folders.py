"""Folders of pictures with masks, read when they are drawn. Knows neither layouts nor clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stmemory.errors import MaskError, OptionError
from stmemory.training.mask_readers import MaskReader
from stmemory.training.material import Item, Photo
from stmemory.training.picture_files import read_picture, shrunk

__all__ = ["FolderPictures", "Still"]

_LEAST = 16  # pixels of the largest object of a still as it is used; less is an error of whoever drew it


@dataclass(frozen=True)
class Still:
    """A picture with a mask.

    Attributes:
        picture: its file.
        mask: how to read its mask.
        video: name of the video that it is a frame of, or "".
    """

    picture: Path
    mask: MaskReader
    video: str = ""


class FolderPictures:
    """Pictures on a disk in the place of packed material; see `Pictures`.

    Args:
        root: the folder, which names begin after.
        stills: the pictures; frames of one video in order.
        skipped: files that cannot be used, a line each.
        notes: what else there is to tell about the folder, a line each.
        max_side: pictures are shrunk to this longer side when they are read, pixels.

    Raises:
        OptionError: there is no picture.
    """

    def __init__(
        self,
        root: Path,
        stills: Sequence[Still],
        *,
        skipped: Sequence[str] = (),
        notes: Sequence[str] = (),
        max_side: int = 640,
    ) -> None:
        if not stills:
            raise OptionError(
                f"{root}: expected pictures with masks, got none; check the layout. Of no use: {list(skipped[:3])}"
            )
        self.skipped, self.notes = tuple(skipped), tuple(notes)
        self._stills, self._max_side = tuple(stills), max_side
        numbers = {
            name: number for number, name in enumerate(dict.fromkeys(still.video for still in stills if still.video))
        }
        self.items = tuple(
            Item(
                index=index,
                kind="video" if still.video else "photo",
                drawn=False,
                series=numbers.get(still.video, -1),
                name=still.picture.relative_to(root).as_posix(),
            )
            for index, still in enumerate(stills)
        )

    def photo(self, index: int) -> Photo:
        """Read a picture and its mask: pixels uint8 [3, H, W] and ids uint8 [H, W].

        Raises:
            FrameError: the picture cannot be read.
            MaskError: the mask cannot be read, is of another size, or (of a still) holds no object of 16 pixels or more
                once it is shrunk.
        """
        still = self._stills[index]
        image = read_picture(still.picture)
        ids = still.mask.read(image.width, image.height)
        if ids.shape != (image.height, image.width):
            on_its_side = ids.shape == (image.width, image.height)
            raise MaskError(
                f"{still.picture}: expected a mask of the picture's size {image.width}x{image.height}, got "
                f"{ids.shape[1]}x{ids.shape[0]}"
                + ("; draw it on the picture as its EXIF orientation turns it" if on_its_side else "")
            )
        small = shrunk(image, self._max_side, Image.Resampling.BILINEAR)
        if small.size != image.size:
            ids = np.array(Image.fromarray(ids).resize(small.size, Image.Resampling.NEAREST))
        largest = int(np.bincount(ids.ravel(), minlength=2)[1:].max())
        if not still.video and largest < _LEAST:
            raise MaskError(
                f"{still.picture}: expected an object of {_LEAST} pixels or more, the largest has {largest} at "
                f"{small.width}x{small.height}"
            )
        return Photo(pixels=_tensor(small), ids=torch.from_numpy(ids))

    def pixels(self, index: int) -> Tensor:
        """Read a picture without its mask: uint8 [3, H, W].

        Raises:
            FrameError: it cannot be read.
        """
        return _tensor(shrunk(read_picture(self._stills[index].picture), self._max_side, Image.Resampling.BILINEAR))

    def cutout(self, index: int) -> Tensor:
        """There are none in folders of pictures with masks.

        Raises:
            OptionError: always.
        """
        raise OptionError(f"cutout: expected an item of kind cutout, got {self.items[index]}; draw from photo()")


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
