"""Mask readers: how each data set writes down which pixel belongs to which object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from stmemory.errors import MaskError
from stmemory.io.images import opened_image
from stmemory.io.palette import VOID, read_id_image
from stmemory.io.rle import LARGEST_MASK, decode_rle

__all__ = ["BinaryMask", "CocoMask", "IdMask", "MaskReader", "SbdMask", "VideoMasks"]


class MaskReader(Protocol):
    """A mask that has not been read yet."""

    def read(self, width: int, height: int) -> NDArray[np.uint8]:
        """Ids `[H, W]`, 0 = background; the size is that of its image.

        Raises:
            MaskError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class IdMask:
    """A palette or grey PNG whose values are ids, read as everywhere (`read_id_image`); void is background (DAVIS 2017,
    YouTube-VOS).

    A grey mask of nothing but 0 and 255 is one white object (DAVIS 2016), with smooth edges or without. In a video it
    is void, and the object is hidden, if another frame has ids.
    """

    path: Path
    video: VideoMasks | None = None

    def read(self, width: int, height: int) -> NDArray[np.uint8]:
        """See `MaskReader.read`."""
        ids, white = self._values()
        if ids.any() or (self.video and self.video.have_ids):
            return ids
        if white is not None:
            return white
        if self.video and not self.video.have_white:
            raise MaskError(f"{self.path.parent}: no frame of this video holds an object")
        return ids

    @property
    def has_ids(self) -> bool:
        """Whether the mask can be read and holds an object that is not white."""
        try:
            return bool(self._values()[0].any())
        except MaskError:
            return False

    @property
    def has_white(self) -> bool:
        """Whether the mask can be read and holds an object that is white alone."""
        try:
            return self._values()[1] is not None
        except MaskError:
            return False

    def _values(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Ids without void; and the white object, if 255 may be one."""
        found = read_id_image(self.path)
        if found.values.dtype not in (np.uint8, np.bool_):
            raise MaskError(
                f"{self.path}: expected a palette or grey PNG of ids, "
                f"got one of {found.values.dtype}; save it with 8 bits"
            )
        values = found.values.astype(np.uint8)
        white = (values == VOID).astype(np.uint8)
        return np.where(white, 0, values).astype(np.uint8), white if found.is_white else None


@dataclass(frozen=True)
class VideoMasks:
    """The masks of all frames of one video, which its `IdMask`s share.

    >>> VideoMasks(()).have_ids
    False
    """

    paths: tuple[Path, ...]

    @cached_property
    def have_ids(self) -> bool:
        """Whether any of them holds an object; read once, and only when it is asked for."""
        return any(IdMask(path).has_ids for path in self.paths)

    @cached_property
    def have_white(self) -> bool:
        """Whether any of them holds a white object alone."""
        return any(IdMask(path).has_white for path in self.paths)


@dataclass(frozen=True)
class BinaryMask:
    """A grey image of one object, bright on dark (ECSSD, MSRA10K, HKU-IS)."""

    path: Path

    def read(self, width: int, height: int) -> NDArray[np.uint8]:
        """See `MaskReader.read`."""
        with opened_image(self.path, MaskError) as image:
            return (np.asarray(image.convert("L")) >= 128).astype(np.uint8)


@dataclass(frozen=True)
class CocoMask:
    """Objects of COCO; later ones lie on top.

    Attributes:
        objects: the polygons of each, every one a list of x, y, x, y in pixels, or its RLE (see
            `stmemory.formats.decode_rle`).
        width, height: size of the image, pixels.
        name: name of the image, for messages.
    """

    objects: tuple[tuple[tuple[float, ...], ...] | Mapping[str, object], ...]
    width: int
    height: int
    name: str = ""

    def read(self, width: int, height: int) -> NDArray[np.uint8]:
        """See `MaskReader.read`."""
        if self.width * self.height > LARGEST_MASK:
            raise MaskError(
                f"{self.name}: expected a picture of at most {LARGEST_MASK:,} pixels, got {self.width}x{self.height}; "
                "correct the list of pictures"
            )
        canvas = Image.new("L", (self.width, self.height))
        for number, shape in enumerate(self.objects[: VOID - 1], 1):
            try:
                self._add(canvas, shape, number)
            except (TypeError, OverflowError, ValueError) as error:
                if isinstance(error, MaskError):
                    raise
                raise MaskError(
                    f"{self.name}: expected polygons of numbers x, y, x, y, got: {error}; correct the list of pictures"
                ) from error
        return np.array(canvas)

    def areas(self) -> list[int]:
        """Pixels of each object, whatever lies on it.

        Raises:
            MaskError: an RLE is damaged, or of another size than the image.
        """
        return [int(replace(self, objects=(shape,)).read(self.width, self.height).sum()) for shape in self.objects]

    def _add(
        self, canvas: Image.Image, shape: tuple[tuple[float, ...], ...] | Mapping[str, object], number: int
    ) -> None:
        if isinstance(shape, Mapping):
            try:
                mask = decode_rle(shape)
            except MaskError as error:
                raise MaskError(f"{self.name}: {error}") from error
            if mask.shape != (self.height, self.width):
                raise MaskError(
                    f"{self.name}: expected an RLE of {self.width}x{self.height}, got one of "
                    f"{mask.shape[1]}x{mask.shape[0]}"
                )
            canvas.paste(number, (0, 0), Image.fromarray(mask))
            return
        draw = ImageDraw.Draw(canvas)
        for polygon in shape:
            if len(polygon) >= 6:
                draw.polygon(list(zip(polygon[::2], polygon[1::2], strict=False)), fill=number)


@dataclass(frozen=True)
class SbdMask:
    """A MATLAB file whose `GTinst.Segmentation` holds ids (SBD); read with SciPy."""

    path: Path

    def read(self, width: int, height: int) -> NDArray[np.uint8]:
        """See `MaskReader.read`."""
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise MaskError(
                f"{self.path}: expected SciPy to read a .mat file, and it "
                "is not installed; pip install scipy, or stmemory[train]"
            ) from error
        try:
            values = np.asarray(loadmat(str(self.path))["GTinst"]["Segmentation"][0, 0])
        except Exception as error:  # damaged bytes make SciPy's reader raise nearly anything
            raise MaskError(f"{self.path}: expected GTinst.Segmentation of the SBD, got: {error!r}") from error
        return np.where(values == VOID, 0, values).astype(np.uint8)
