"""Cutting: draws pictures from the material and cuts objects out of them.

Sources are drawn in proportion to the square root of their size, so that a large one does not drown the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from stmemory.errors import MaskError, OptionError
from stmemory.training.data.material import Item, Photo, Pictures

__all__ = ["Cutout", "Cutter", "Pool", "Tint", "box_of", "resized", "shrunk_shape"]

_USEFUL = 500  # pixels of an instance that is cut out of a photo; smaller ones are blurred when they are shown larger
_LEAST = 16  # pixels of one that is cut out all the same when photo after photo has no larger one
_ATTEMPTS = 20
_TURNING = (
    9  # sides from which on an object turns in clips: from fewer, all around, it would jump by 45 degrees and more
)


@dataclass(frozen=True, eq=False)
class Tint:
    """How far the colours of a cut-out are pulled to those of what it is put on.

    Attributes:
        own: float32 [3], its mean colour.
        strength: 0 leaves it, 1 would give it the other's mean colour.
    """

    own: Tensor
    strength: float


@dataclass(frozen=True, eq=False)
class Cutout:
    """An object cut out of an image.

    Attributes:
        views: float32 [sides, 4, h, w], premultiplied RGB and alpha in [0, 1]; more than one side, in order, of an
            object that turns.
        name: source it came from.
        tint: change still to be made to its colours, when it is put on something.
    """

    views: Tensor
    name: str
    tint: Tint | None = None

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.views.shape[-1] / self.views.shape[-2]


class Pool:
    """Items of one kind, drawn first by source and then evenly within it."""

    def __init__(self, items: Iterable[Item]) -> None:
        """Group the items by source."""
        groups: dict[str, list[Item]] = defaultdict(list)
        for item in items:
            groups[item.source].append(item)
        self._groups = list(groups.values())
        weights = np.sqrt([len(group) for group in self._groups])
        self._cumulated = np.cumsum(weights) / weights.sum() if len(weights) else weights

    def __bool__(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self._groups)

    def draw(self, rng: Generator) -> Item:
        """One item."""
        number = min(int(np.searchsorted(self._cumulated, rng.random())), len(self._groups) - 1)
        group = self._groups[number]
        return group[int(rng.integers(len(group)))]


class Cutter:
    """Draws photos, backgrounds, videos and cut-outs from a material."""

    def __init__(self, material: Pictures) -> None:
        """Sort the material's items into pools.

        Raises:
            OptionError: there is neither something to cut an object from nor a video.
        """
        self.material = material
        of_kind = {
            kind: [i for i in material.items if i.kind == kind] for kind in ("photo", "cutout", "background", "video")
        }
        self.photos = Pool(of_kind["photo"])
        self.backgrounds = Pool(of_kind["background"])
        self._natural = Pool(of_kind["photo"] + [item for item in of_kind["cutout"] if item.natural])
        self._drawn = Pool([item for item in of_kind["cutout"] if item.drawn])
        if not self.has_objects and not of_kind["video"]:
            raise OptionError("material: expected photos with masks, cut-outs or videos, got none; pack some into it")
        series: dict[int, list[int]] = defaultdict(list)
        for item in material.items:
            if item.series >= 0:
                series[item.series].append(item.index)
        self._series = dict(series)
        self.videos = [series[number] for number in dict.fromkeys(item.series for item in of_kind["video"])]

    @property
    def has_objects(self) -> bool:
        """Whether there is anything to cut out."""
        return bool(self._natural) or bool(self._drawn)

    def cut(self, rng: Generator, *, natural: float, side: float) -> Cutout:
        """Cut one object out.

        Args:
            rng: the only source of chance.
            natural: probability of a photographed object.
            side: longer side at which it will be shown, pixels; larger images are shrunk to about that.

        Raises:
            FrameError, MaskError: a photo cannot be used, or 20 of them have no instance worth cutting out.
        """
        pool = self._natural if (rng.random() < natural and self._natural) or not self._drawn else self._drawn
        largest, smaller = 0, None
        for _ in range(_ATTEMPTS):
            item = pool.draw(rng)
            if item.kind == "cutout":
                return Cutout(views=_bordered(resized(self._views(rng, item), side)), name=item.name)
            photo = self.material.photo(item.index)
            areas = torch.bincount(photo.ids.flatten(), minlength=2)
            areas[0] = 0
            useful = (areas >= _USEFUL).nonzero()[:, 0].tolist()
            if useful:
                number = useful[int(rng.integers(len(useful)))]
                return Cutout(views=_bordered(resized(_instance(photo, number), side)), name=item.name)
            if int(areas.max()) > largest:
                largest, smaller = int(areas.max()), Cutout(_instance(photo, int(areas.argmax())), item.name)
        if smaller is None or largest < _LEAST:
            raise MaskError(
                f"{item.name}: expected an object of {_LEAST} pixels or more to cut out, the largest in it and "
                f"{_ATTEMPTS - 1} other draws has {largest}; leave such pictures out"
            )
        return Cutout(views=_bordered(resized(smaller.views, side)), name=smaller.name)

    def background(self, rng: Generator) -> Tensor:
        """An image to put objects on: uint8 [3, H, W], or float32 in [0, 1] when there is none; any photo will do."""
        pool = self.backgrounds if (rng.random() < 0.6 and self.backgrounds) or not self.photos else self.photos
        if not pool:
            return torch.from_numpy(rng.random((3, 4, 4)).astype(np.float32))
        return self.material.pixels(pool.draw(rng).index)

    def _views(self, rng: Generator, item: Item) -> Tensor:
        """The sides of a turning object in order, or the single picture: premultiplied [sides, 4, h, w]."""
        numbers = [item.index]
        series = self._series.get(item.series, [])
        if len(series) >= _TURNING and rng.random() < 0.5:
            first = series.index(item.index)
            numbers = [series[(first + step) % len(series)] for step in range(6)]
        views = [_premultiplied(self.material.cutout(number)) for number in numbers]
        height, width = (max(view.shape[dim] for view in views) for dim in (1, 2))
        return torch.stack([_centred(view, height, width) for view in views])


def box_of(mask: Tensor) -> tuple[float, float, float, float]:
    """Centre x, y and half width, half height of a mask [H, W] that is not empty, pixels.

    Example:
        >>> box_of(torch.eye(4)[:3] > 0)
        (1.5, 1.5, 1.5, 1.5)
    """
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    top, bottom, left, right = (int(edge) for edge in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    return (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2


def shrunk_shape(height: int, width: int, side: float) -> tuple[int, int]:
    """Height and width that `resized` gives to an image.

    Example:
        >>> shrunk_shape(40, 20, 10), shrunk_shape(40, 20, 80)
        ((10, 5), (40, 20))
    """
    factor = side / max(height, width)
    return (height, width) if factor > 0.8 else (max(2, round(height * factor)), max(2, round(width * factor)))


def resized(picture: Tensor, side: float) -> Tensor:
    """The images [number, C, h, w] shrunk, antialiased, so that their longer side is about `side`; never enlarged.

    Example:
        >>> resized(torch.zeros(1, 3, 40, 20), 10).shape
        torch.Size([1, 3, 10, 5])
    """
    shape = shrunk_shape(picture.shape[-2], picture.shape[-1], side)
    if shape == tuple(picture.shape[-2:]):
        return picture
    return F.interpolate(picture, size=shape, mode="bilinear", antialias=True, align_corners=False)


def _instance(photo: Photo, number: int) -> Tensor:
    """One instance of a photo with a soft edge: premultiplied [1, 4, h, w]."""
    mask = photo.ids == number
    rows, columns = mask.any(1).nonzero()[:, 0].tolist(), mask.any(0).nonzero()[:, 0].tolist()
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    soft = F.avg_pool2d(F.pad(mask[box].float(), (1, 1, 1, 1))[None], 3, 1)  # [1, h, w]
    alpha = ((soft - 0.3) / 0.6).clamp(0, 1)  # a little inside the mask, so that no rim of the old background is seen
    return torch.cat([photo.pixels[(slice(None), *box)].float().div_(255) * alpha, alpha])[None]


def _premultiplied(picture: Tensor) -> Tensor:
    """Straight uint8 [4, h, w] to premultiplied float32 in [0, 1]."""
    values = picture.float().div_(255)
    return torch.cat([values[:3] * values[3:], values[3:]])


def _centred(view: Tensor, height: int, width: int) -> Tensor:
    """The view in the middle of an empty canvas [4, height, width]."""
    down, right = height - view.shape[1], width - view.shape[2]
    return F.pad(view, (right // 2, right - right // 2, down // 2, down - down // 2))


def _bordered(views: Tensor) -> Tensor:
    """An empty rim of a pixel, so that edges fall off softly when sampled."""
    return F.pad(views, (1, 1, 1, 1))
