"""Images of object ids: the palette of DAVIS, one reader with one rule for 255, and the writer of palette PNGs."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stmemory.errors import MaskError
from stmemory.io.files import whole_file
from stmemory.io.images import opened_image
from stmemory.types import MaskLike

__all__ = [
    "VOID",
    "IdImage",
    "davis_palette",
    "grey_ids",
    "object_ids_in",
    "read_id_image",
    "read_mask",
    "read_palette_png",
    "write_palette_png",
]

Ids = NDArray[np.int32]  # [H, W], 0 = background

VOID = 255
_WHITE = 255
_COUNTED = 50  # objects are numbered up to here at the most, and greys are not
_JPEG = ("JPEG", "MPO", "JPEG2000")
_SMOOTHED = (
    "it looks like a mask with smoothed edges, or of a JPEG; save ids "
    "1 to N as PNG without smoothing, or pass an array of booleans"
)


@dataclass(frozen=True, eq=False)
class IdImage:
    """What an image or an array of ids holds, and what 255 means in it.

    | values                         | 255                                                            |
    |--------------------------------|----------------------------------------------------------------|
    | palette                        | void                                                           |
    | greys or an array of 8 bits    | void beside other ids; alone, as in a black and white mask, it |
    |                                | is the one object (`is_white`)                                 |
    | integers of more bits          | an id                                                          |

    Readers that know more than one image (a clip whose other frames have ids, a folder of one object) decide by
    `ids`, `void_id` and `is_white`.

    Attributes:
        values: `[H, W]`; bool, integers, or float32 for an image of floats. Of a black and white mask with smooth edges
            0 and 255, the white part.
        palette: whether the values are numbers of colours.
        name: name of the file, for messages; empty where there is none.
    """

    values: NDArray[np.generic]
    palette: bool
    name: str = ""

    @property
    def ids(self) -> Ids:
        """The values as ids, int32 `[H, W]`: 255 stays 255, true is 1.

        Raises:
            MaskError: the image is one of floats.
        """
        if self.values.dtype.kind == "f":
            raise MaskError(
                f"{self.name or 'mask'}: expected a palette or grey image, whose values are ids, got an image of "
                "floats (mode 'F'); save it with integers"
            )
        return self.values.astype(np.int32)

    @property
    def is_white(self) -> bool:
        """Whether 255 is the one object: the values are bytes without a palette, and 0 and 255 alone."""
        if self.palette or self.values.dtype != np.uint8 or self.values.ndim != 2:
            return False
        marked = self.values[self.values != 0]
        return len(marked) > 0 and bool((marked == _WHITE).all())

    @property
    def void_id(self) -> int | None:
        """The id that is void: 255 in a palette image, and in bytes where it stands beside other ids; else none."""
        if self.palette:
            return VOID
        is_byte = self.values.dtype == np.uint8 and self.values.ndim == 2
        return VOID if is_byte and not self.is_white and bool((self.values == VOID).any()) else None


def davis_palette() -> bytes:
    """Make the palette of DAVIS and PASCAL VOC: bits 0-2 of an id go to the top bits of R, G, B, bits 3-5 to the next,
    ...

    Returns:
        768 bytes: R, G, B of the ids 0 to 255.

    >>> list(davis_palette()[:12])
    [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        # bits 0, 3, 6 are red, 1, 4, 7 green, 2, 5 blue
        colours[:, bit % 3] |= ((ids >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours.tobytes()


def read_id_image(source: str | os.PathLike[str] | Image.Image) -> IdImage:
    """Read an image whose values are ids, and decide by what is there which of them are.

    - A palette image holds numbers of colours, 0 is background and 255 void. Where 0 is not black, or not used, black
      is background, and what had the number 0 gets that of black.
    - A palette of the greys 0 to 255 in order is a grey image; so is one that shows a black and white mask with smooth
      edges.
    - A grey image is read by `grey_ids`; grey that is stored as RGB, RGBA or LA, too.
    - Images of 1, 16 and 32 bits are taken as they are.

    Args:
        source: an image, or the path of its file.

    Raises:
        MaskError: there is no such file, or it is damaged; it holds colours, or is a JPEG, which blurs ids; its colours
            are dithered, or its edges smoothed; or as `grey_ids`.

    >>> read_id_image(Image.new("L", (2, 1), 7)).values.tolist()
    [[7, 7]]
    """
    if isinstance(source, Image.Image):
        return _ids_in(source)
    with opened_image(source, MaskError) as image:
        image.load()
        return replace(_ids_in(image), name=os.fspath(source))


def grey_ids(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Distinguish ids from the greys of a painted mask.

    Greys look painted where three or more lie above 50, more than three in four of all greys nowhere fill 3 x 3 pixels,
    and most of their pixels lie between two others. If nothing but black and white fills 3 x 3 pixels then, it is a
    black and white mask with smooth edges, and 128 and more is white. Objects that are numbered 1 to 50 never look like
    that.

    Args:
        values: `[H, W]`.

    Returns:
        The values as they are; 0 and 255 for a black and white mask with smooth edges.

    Raises:
        MaskError: edges are smoothed, and there is more than black and white; or beside 255, which is then void, there
            are only greys above 50, so that it may be a painted object.

    >>> edge = np.repeat(np.array([[0, 0, 0, 0, 40, 90, 130, 180, 230, 255, 255, 255]], np.uint8), 4, axis=0)
    >>> grey_ids(edge)[0].tolist()
    [0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255]
    """
    counts = np.bincount(values.ravel(), minlength=256)
    greys = np.flatnonzero(counts[1:_WHITE]) + 1
    painted = bool(counts[_WHITE]) and len(greys) > 0 and int(greys[0]) > _COUNTED
    if not painted and int((greys > _COUNTED).sum()) < 3:
        return values
    filled = _filled(values)
    if _thin_and_between(values, greys, filled):
        if counts[_WHITE] and not filled[greys].any():
            return np.where(values >= 128, _WHITE, 0).astype(np.uint8)
        raise MaskError(
            f"expected ids, got {len(greys)} greys, most of them in thin lines: {_SMOOTHED} such as mask > 127"
        )
    if painted:
        listed = ", ".join(str(grey) for grey in greys[:4]) + (", ..." if len(greys) > 4 else "")
        raise MaskError(
            f"expected ids, got the greys {listed} and 255, and 255 is void beside other "
            "ids: is it an object that was painted white? Number the objects 1 to N; or "
            "pass int64, in which 255 is an id; if 255 is void, save the mask with a palette"
        )
    return values


def read_palette_png(path: str | os.PathLike[str]) -> Tensor:
    """Read the ids of a palette or grey image file; see `read_id_image`.

    Args:
        path: an image of mode P, L, I;16 or 1, or of grey that is stored as RGB.

    Returns:
        int32 `[H, W]`: 255 stays 255.

    Raises:
        MaskError: nothing is there, it cannot be read, or it holds something else than ids.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_palette_png(f"{folder}/a.png", torch.tensor([[0, 7]]))
    ...     read_palette_png(f"{folder}/a.png")
    tensor([[0, 7]], dtype=torch.int32)
    """
    return torch.from_numpy(read_id_image(path).ids)


def write_palette_png(path: str | os.PathLike[str], ids: Tensor | NDArray[np.integer]) -> None:
    """Write ids as a PNG in the DAVIS palette, atomically.

    Args:
        path: the file. Missing parent folders are made; a file that is there is replaced.
        ids: integers `[H, W]`, 0 to 255.

    Raises:
        MaskError: the ids are no integers `[H, W]`, or do not fit into a byte.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_palette_png(f"{folder}/a/0.png", torch.tensor([[0, 1]]))
    ...     with Image.open(f"{folder}/a/0.png") as image:
    ...         image.mode
    'P'
    """
    values = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "iu":
        raise MaskError(f"{os.fspath(path)}: expected integer ids [H, W], got {values.dtype} {values.shape}")
    if values.min() < 0 or values.max() > 255:
        raise MaskError(
            f"{os.fspath(path)}: a palette PNG holds the ids 0 to 255, got {values.min()} to {values.max()}; number "
            "the objects from 1, or store them whole with numpy.save(path, result.ids.cpu().numpy())"
        )
    image = Image.fromarray(values.astype(np.uint8))
    image.putpalette(davis_palette())
    with whole_file(path) as part:
        image.save(part, format="PNG")


def _ids_in(image: Image.Image) -> IdImage:
    """The ids of an image that is loaded."""
    if image.format in _JPEG:
        filename = getattr(image, "filename", "")
        name = f" {str(filename)!r}" if filename else ""
        raise MaskError(
            f"expected ids, got the {image.format} file{name}: JPEG blurs ids at their edges; save the mask as PNG"
        )
    if image.mode == "P":
        return _ids_in_palette(image)
    if image.mode == "L":
        return IdImage(grey_ids(np.array(image)), palette=False)
    if image.mode in ("1", "I", "F") or image.mode.startswith("I;16"):
        return IdImage(np.array(image), palette=False)
    if image.mode in ("RGB", "RGBA", "LA"):
        channels = [np.array(channel) for channel in image.split()]
        opaque = image.mode == "RGB" or bool((channels.pop() == 255).all())
        if (
            opaque
            and "transparency" not in image.info
            and all(bool((channel == channels[0]).all()) for channel in channels)
        ):
            return IdImage(grey_ids(channels[0]), palette=False)
    raise MaskError(
        f"expected a palette or grey image, whose values are ids, got mode {image.mode!r}; map its colours to ids, for "
        "example with np.unique(colours, axis=0, return_inverse=True)"
    )


def _ids_in_palette(image: Image.Image) -> IdImage:
    indices = np.array(image)
    colours = np.array(image.getpalette("RGB") or (), np.uint8).reshape(-1, 3)
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    known = used[used < len(colours)]
    shown = colours[known]
    davis = np.frombuffer(davis_palette(), np.uint8).reshape(-1, 3)
    if len(known) == len(used) and np.array_equal(shown, davis[known]):
        return IdImage(indices, palette=True)
    if len(known) == len(used) and bool((shown == shown[:, :1]).all()):
        greys = np.unique(shown[:, 0])
        if len(colours) == 256 and np.array_equal(colours, np.repeat(np.arange(256)[:, None], 3, axis=1)):
            return IdImage(grey_ids(indices), palette=False)
        shades = colours[:, 0][np.minimum(indices, len(colours) - 1)]
        if (
            int((greys > _COUNTED).sum()) >= 4
            and greys[-1] == _WHITE
            and _thin_and_between(shades, greys[1:-1], _filled(shades))
        ):
            return IdImage(grey_ids(shades), palette=False)
    black = known[~shown.any(axis=1)]
    if len(black) and black[0] != 0:
        free = int(black[0]) if black[0] != VOID else int(np.setdiff1d(np.arange(1, VOID), used)[0])
        background, zero = np.isin(indices, black), indices == 0
        indices = np.where(background, 0, np.where(zero, free, indices)).astype(np.uint8)
    objects = np.setdiff1d(np.unique(indices), (0, VOID))
    if (len(objects) >= 8 and _thin_and_between(indices, objects, _filled(indices))) or _speckled(indices):
        raise MaskError(
            f"expected ids, got {len(objects)} colours in thin lines or single pixels: it is dithered, or {_SMOOTHED}"
        )
    return IdImage(indices, palette=True)


def _filled(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the 256 values fill 3 x 3 pixels somewhere."""
    middle = values[:, 1:-1]
    rows = (values[:, :-2] == middle) & (middle == values[:, 2:])  # three in a row are alike
    columns = (middle[:-2] == middle[1:-1]) & (middle[1:-1] == middle[2:])
    found: NDArray[np.bool_] = np.bincount(middle[1:-1][rows[:-2] & rows[1:-1] & rows[2:] & columns], minlength=256) > 0
    return found


def _thin_and_between(values: NDArray[np.uint8], those: NDArray[np.integer], filled: NDArray[np.bool_]) -> bool:
    """Whether more than three in four of those values fill no 3 x 3 pixels, and most of their pixels have two other
    values beside them."""
    thin = those[~filled[those]]
    if 4 * len(thin) <= 3 * len(those):
        return False
    flags = np.zeros(256, bool)
    flags[thin] = True
    theirs = flags[values]
    height, width = values.shape
    lowest, highest = (
        np.full(values.shape, 255, np.uint8),
        np.zeros(values.shape, np.uint8),
    )  # of neighbours that differ
    around = np.pad(values, 1, mode="edge")
    for y, x in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)):
        beside = around[y : y + height, x : x + width]
        other = beside != values
        np.minimum(lowest, beside, out=lowest, where=other)
        np.maximum(highest, beside, out=highest, where=other)
    return 2 * int((theirs & (lowest < highest)).sum()) > int(theirs.sum())


def _speckled(ids: NDArray[np.uint8]) -> bool:
    """Whether more than a quarter of what is marked, and 16 pixels at least, are pixels alone among others."""
    alone = np.ones(ids.shape, bool)
    alike = ids[1:] == ids[:-1]
    alone[1:] &= ~alike
    alone[:-1] &= ~alike
    alike = ids[:, 1:] == ids[:, :-1]
    alone[:, 1:] &= ~alike
    alone[:, :-1] &= ~alike
    single = int((alone & (ids > 0)).sum())
    return single >= 16 and 4 * single > int((ids > 0).sum())


def read_mask(mask: MaskLike) -> tuple[Tensor, int | None]:
    """Turn a mask of any kind into a tensor, and say which id is void.

    Args:
        mask: an array, a tensor, a PIL image, or the path of an image file. Bytes `[H, W]` are read as `grey_ids` says,
            images as `read_id_image`.

    Returns:
        bool, int64 or float32, of the mask's own shape; and the id that is void in it, None if none is, see `IdImage`.
        A mask of 0 and 255 alone comes as 0 and 1.

    Raises:
        MaskError: it is of another kind; holds colours; is a JPEG, which blurs ids; or there is no such file.

    >>> read_mask(np.array([[0, 7, 255]], np.uint8))
    (tensor([[  0,   7, 255]]), 255)
    """
    try:
        found, device = _id_image(mask)
        if found is None and isinstance(mask, Tensor):
            return _as_mask_tensor(mask.detach()), None
    except MaskError as error:
        raise MaskError(f"mask: {error}") from error
    if found is None:
        raise MaskError(
            f"mask: expected an array, a tensor, a PIL image or a path, got {type(mask).__name__}; masks of later "
            "frames go into stream.step(frame, mask)"
        )
    # a copy in a type of torch's, which warns of read-only arrays and refuses foreign byte orders
    dtype = {"b": np.bool_, "f": np.float32}.get(found.values.dtype.kind, np.int64)
    values = torch.from_numpy(np.array(found.values, dtype=dtype, order="C")).to(device)
    return (values.clamp(max=1), None) if found.is_white else (values, found.void_id)


def _id_image(mask: MaskLike) -> tuple[IdImage | None, torch.device]:
    """A mask as an image of ids, and its device; no image for tensors of other kinds than bytes `[H, W]`."""
    here = torch.device("cpu")
    if isinstance(mask, (str, os.PathLike)):
        if not Path(mask).is_file():
            raise MaskError(f"no file {os.fspath(mask)!r}; pass the path of an image file")
        return read_id_image(mask), here
    if isinstance(mask, Image.Image):
        return read_id_image(mask), here
    if isinstance(mask, Tensor):
        if mask.is_complex():
            raise MaskError(f"expected booleans, integers or floats, got a tensor of {mask.dtype}; convert it")
        if mask.dtype != torch.uint8 or mask.ndim != 2:
            return None, mask.device
        return IdImage(grey_ids(mask.detach().cpu().numpy()), palette=False), mask.device
    if isinstance(mask, np.ndarray):
        if mask.dtype.kind not in "biuf":
            raise MaskError(f"expected booleans, integers or floats, got an array of {mask.dtype}; convert it")
        values: NDArray[Any] = mask
        return IdImage(
            grey_ids(values) if values.dtype == np.uint8 and values.ndim == 2 else values, palette=False
        ), here
    return None, here


def _as_mask_tensor(mask: Tensor) -> Tensor:
    """A tensor as bool, int64 or float32."""
    if mask.dtype == torch.bool:
        return mask
    return mask.to(torch.float32 if mask.is_floating_point() else torch.int64)


def object_ids_in(ids: Ids, *, void: int | None = None) -> tuple[int, ...]:
    """List the ids that a mask shows, without 0, sorted.

    Args:
        ids: `[H, W]`, 0 or more.
        void: an id that is no object, as 255 in data sets; None where every id is one.

    >>> object_ids_in(np.array([[0, 300, 7]], np.int32)), object_ids_in(np.array([[0, 255, 7]], np.int32), void=255)
    ((7, 300), (7,))
    """
    # counting is ten times as fast as sorting; ids that are far apart would need a long table
    near = ids.min(initial=0) >= 0 and ids.max(initial=0) < 1 << 16
    found = np.flatnonzero(np.bincount(ids.ravel())) if near else np.unique(ids)
    return tuple(int(i) for i in found if i > 0 and i != void)
