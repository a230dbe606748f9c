"""Mask readers: how each data set writes down which pixel belongs to which object. Knows no folders."""

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
from stmemory.formats.rle import LARGEST_MASK, decode_rle
from stmemory.images import UNREADABLE

__all__ = ["BinaryMask", "CocoMask", "IdMask", "MaskReader", "SbdMask", "VideoMasks"]

_VOID = 255
_JPEG = ("JPEG", "MPO", "JPEG2000")
_INSTEAD = "save ids 1..N as PNG, without smoothing"
_ADVICE = {mode: "; save it with 8 bits" for mode in ("I;16", "I;16B", "I;16L", "I")}
_COUNTED = 50  # objects are numbered up to here at the most, and greys are not


class MaskReader(Protocol):
    """A mask that has not been read yet."""

    def read(self, width: int, height: int) -> NDArray[np.uint8]:
        """Ids `[H, W]`, 0 = background; the size is that of its picture.

        Raises:
            MaskError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class IdMask:
    """A palette or grey PNG whose values are ids; 255 is void and counts as background (DAVIS 2017, YouTube-VOS).

    A mask of nothing but 0 and 255 is refused: it may be one white object (DAVIS 2016), or void alone. In a video it is void, and the
    object is hidden, if another frame has ids; if none has, each frame is refused. JPEG is refused, and so is
    a grey mask that looks smoothed: 3 ids or more lie above 50, and more than three in four of all ids nowhere fill 3 x 3 pixels.
    Objects that are numbered 1 to 50 never look like that.
    """

    path: Path
    video: VideoMasks | None = None

    def read(self, width: int, height: int) -> NDArray[np.uint8]:
        """See `MaskReader.read`."""
        ids, has_void = self._values()
        if ids.any() or (self.video and self.video.have_ids):
            return ids
        if has_void:
            raise MaskError(
                f"{self.path}: expected objects with the ids 1 to N, got a mask of 0 and 255 only, and 255 is void; "
                "if white is an object, save it as 1"
            )
        if self.video:
            raise MaskError(f"{self.path.parent}: no frame of this video holds an object")
        return ids

    @property
    def has_ids(self) -> bool:
        """Whether the mask can be read and holds an object."""
        try:
            return bool(self._values()[0].any())
        except MaskError:
            return False

    def _values(self) -> tuple[NDArray[np.uint8], bool]:
        """Ids, and whether there is void."""
        image = _opened(self.path)
        if image.format in _JPEG:
            raise MaskError(f"{self.path}: expected a PNG of ids, got JPEG data, which blurs ids at their edges; {_INSTEAD}")
        if image.mode not in ("P", "L", "1"):
            raise MaskError(f"{self.path}: expected a palette or grey PNG of ids, got mode {image.mode}{_ADVICE.get(image.mode, '')}")
        values = np.array(image.convert("L") if image.mode == "1" else image, dtype=np.uint8)
        if image.mode == "1":
            values = (values > 0).astype(np.uint8)
        if image.mode == "L" and _looks_smoothed(values):
            raise MaskError(
                f"{self.path}: expected objects with the ids 1 to N, got {len(np.unique(values))} greys, most of them as thin lines: "
                f"it looks like a mask with smoothed edges or of JPEG; {_INSTEAD}"
            )
        void = values == _VOID
        return np.where(void, 0, values).astype(np.uint8), bool(void.any())


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


@dataclass(frozen=True)
class BinaryMask:
    """A grey picture of one object, bright on dark (ECSSD, MSRA10K, HKU-IS)."""

    path: Path

    def read(self, width: int, height: int) -> NDArray[np.uint8]:
        """See `MaskReader.read`."""
        return (np.asarray(_opened(self.path).convert("L")) >= 128).astype(np.uint8)


@dataclass(frozen=True)
class CocoMask:
    """Objects of COCO; later ones lie on top.

    Attributes:
        objects: of each its polygons, every one a list of x, y, x, y in pixels, or its RLE (see `stmemory.formats.decode_rle`).
        width, height: of the picture, pixels.
        name: of the picture, for messages.
    """

    objects: tuple[tuple[tuple[float, ...], ...] | Mapping[str, object], ...]
    width: int
    height: int
    name: str = ""

    def read(self, width: int, height: int) -> NDArray[np.uint8]:
        """See `MaskReader.read`."""
        if self.width * self.height > LARGEST_MASK:
            raise MaskError(f"{self.name}: expected a picture of at most {LARGEST_MASK:,} pixels, got {self.width}x{self.height}; correct the list of pictures")
        canvas = Image.new("L", (self.width, self.height))
        for number, shape in enumerate(self.objects[: _VOID - 1], 1):
            try:
                self._add(canvas, shape, number)
            except (TypeError, OverflowError, ValueError) as error:
                if isinstance(error, MaskError):
                    raise
                raise MaskError(f"{self.name}: expected polygons of numbers x, y, x, y, got: {error}; correct the list of pictures") from error
        return np.array(canvas)

    def areas(self) -> list[int]:
        """Pixels of each object, whatever lies on it.

        Raises:
            MaskError: an RLE is damaged, or of another size than the picture.
        """
        return [int(replace(self, objects=(shape,)).read(self.width, self.height).sum()) for shape in self.objects]

    def _add(self, canvas: Image.Image, shape: tuple[tuple[float, ...], ...] | Mapping[str, object], number: int) -> None:
        if isinstance(shape, Mapping):
            try:
                mask = decode_rle(shape)
            except MaskError as error:
                raise MaskError(f"{self.name}: {error}") from error
            if mask.shape != (self.height, self.width):
                raise MaskError(f"{self.name}: expected an RLE of {self.width}x{self.height}, got one of {mask.shape[1]}x{mask.shape[0]}")
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
            raise MaskError(f"{self.path}: expected SciPy to read a .mat file, and it is not installed; pip install scipy, or stmemory[train]") from error
        try:
            values = np.asarray(loadmat(str(self.path))["GTinst"]["Segmentation"][0, 0])
        except Exception as error:  # damaged bytes make SciPy's reader raise nearly anything
            raise MaskError(f"{self.path}: expected GTinst.Segmentation of the SBD, got: {error!r}") from error
        return np.where(values == _VOID, 0, values).astype(np.uint8)


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except UNREADABLE as error:
        raise MaskError(f"{path}: expected a mask picture, got one that cannot be read: {error}") from error


def _looks_smoothed(values: NDArray[np.uint8]) -> bool:
    """Whether the values of a grey mask `[H, W]` are greys of edges rather than ids; see `IdMask`."""
    ids = np.bincount(values.ravel(), minlength=256) > 0
    ids[[0, _VOID]] = False
    if ids[_COUNTED + 1 :].sum() < 3:
        return False
    middle = values[:, 1:-1]
    rows = (values[:, :-2] == middle) & (middle == values[:, 2:])  # three in a row are alike
    columns = (middle[:-2] == middle[1:-1]) & (middle[1:-1] == middle[2:])
    filled = np.bincount(middle[1:-1][rows[:-2] & rows[1:-1] & rows[2:] & columns], minlength=256) > 0
    return int((ids & filled).sum()) * 4 < int(ids.sum())
