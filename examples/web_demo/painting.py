"""Paint: what a person painted over a frame becomes ids, and ids become paint, in one colour an object.

Owns the objects' colours, which editor, overlay and timeline share. Knows no files, no sessions and no web page.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stmemory.errors import MaskError
from stmemory.io.drawing import colour_of_object
from stmemory.result import contours

__all__ = [
    "COLOURS",
    "OPAQUE",
    "Ids",
    "Picture",
    "changed_objects",
    "draw",
    "ids_of_layers",
    "layer_of_ids",
    "only",
    "resize_ids",
]

Ids = NDArray[np.uint8]  # [H, W], 0 = background
Picture = NDArray[np.uint8]  # [H, W, 3] RGB
Layer = NDArray[np.uint8]  # [H, W, 4] RGBA

# The DAVIS colours of the ids 1 to 6 at full strength. These are corners of the RGB cube, so that a mixture of two of
# them, as a soft brush leaves it where two objects touch, is never nearer to a third: no stray object appears along a
# contour.
COLOURS = tuple(colour_of_object(object_id, bright=True) for object_id in range(1, 7))
OPAQUE = 128  # least alpha that counts as paint: the brush has soft edges
_GLASS = 150  # alpha of paint that is shown over a frame; at least OPAQUE, so that it counts when it comes back
_FILL = 0.42  # strength of a colour inside a contour


def ids_of_layers(layers: Sequence[object], *, height: int, width: int) -> Ids:
    """Read what was painted.

    Args:
        layers: uint8 RGBA arrays `[H', W', 4]`, the last one on top; those of another size are resized.
        height: H of the ids.
        width: W of the ids.

    Returns:
        `[H, W]`: where a layer's alpha is 128 or more, the id of the nearest of `COLOURS`.

    Raises:
        MaskError: a layer is no such array.

    >>> red = np.array([[(250, 0, 0, 255), (250, 0, 0, 127)]], np.uint8)
    >>> ids_of_layers([red], height=1, width=2).tolist()
    [[1, 0]]
    """
    ids = np.zeros((height, width), np.uint8)
    colours = np.array(COLOURS, np.int32)
    for number, layer in enumerate(layers):
        if not isinstance(layer, np.ndarray) or layer.dtype != np.uint8 or layer.ndim != 3 or layer.shape[2] != 4:
            came = f"{layer.dtype} {layer.shape}" if isinstance(layer, np.ndarray) else type(layer).__name__
            raise MaskError(f"layer {number}: expected a uint8 RGBA array [H, W, 4], got {came}; paint again")
        painted = layer[..., 3] >= OPAQUE
        own = np.zeros(layer.shape[:2], np.uint8)
        distance = ((layer[painted][:, None, :3].astype(np.int32) - colours) ** 2).sum(2)  # [painted pixels, colours]
        own[painted] = 1 + distance.argmin(1)
        own = resize_ids(own, height=height, width=width)
        ids = np.where(own > 0, own, ids)
    return ids


def layer_of_ids(ids: Ids) -> Layer:
    """Paint ids as glass, so that the frame can be seen through them; `ids_of_layers` reads them back.

    Args:
        ids: `[H, W]`, 0 to 6.

    >>> layer_of_ids(np.array([[0, 2]], np.uint8)).tolist()
    [[[0, 0, 0, 0], [0, 255, 0, 150]]]
    """
    table = np.array([(0, 0, 0, 0), *((*colour, _GLASS) for colour in COLOURS)], np.uint8)
    layer: Layer = table[ids]
    return layer


def changed_objects(painted: Ids, shown: Ids) -> tuple[int, ...]:
    """Say which objects a person changed.

    Args:
        painted: `[H, W]`, as it came back.
        shown: `[H, W]`, as it was shown.

    >>> changed_objects(np.array([[1, 2, 2]], np.uint8), np.array([[1, 2, 3]], np.uint8))
    (2, 3)
    """
    other = painted != shown
    return tuple(sorted((set(np.unique(painted[other]).tolist()) | set(np.unique(shown[other]).tolist())) - {0}))


def only(ids: Ids, objects: Sequence[int]) -> Ids:
    """The ids of some objects, 0 elsewhere.

    >>> only(np.array([[1, 2, 3]], np.uint8), [3]).tolist()
    [[0, 0, 3]]
    """
    kept: Ids = np.where(np.isin(ids, list(objects)), ids, 0).astype(np.uint8)
    return kept


def resize_ids(ids: Ids, *, height: int, width: int) -> Ids:
    """Bring ids to another size; each pixel takes its nearest.

    >>> resize_ids(np.array([[1, 2]], np.uint8), height=1, width=4).tolist()
    [[1, 1, 2, 2]]
    """
    if ids.shape == (height, width):
        return ids
    return np.array(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST))


def draw(picture: Picture, ids: Ids) -> Picture:
    """Draw objects over a frame, tinted, with a solid contour that is wider on larger frames.

    Args:
        picture: uint8 RGB `[H, W, 3]`.
        ids: `[H, W]`, 0 to 6.

    Returns:
        uint8 RGB `[H, W, 3]`.

    >>> draw(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]], np.uint8)).tolist()
    [[[0, 0, 0], [255, 0, 0]]]
    """
    table = np.array([(0, 0, 0), *COLOURS], np.float32)
    shown, edge = ids > 0, contours(ids)
    for _ in range(min(ids.shape) // 480 + 1):
        wider = edge.copy()
        wider[1:] |= edge[:-1]
        wider[:-1] |= edge[1:]
        wider[:, 1:] |= edge[:, :-1]
        wider[:, :-1] |= edge[:, 1:]
        edge = wider
    strength = np.where(edge[shown], 1.0, _FILL)[:, None].astype(np.float32)
    drawn = picture.copy()
    under = picture[shown].astype(np.float32)
    drawn[shown] = np.rint(under + strength * (table[ids[shown]] - under)).astype(np.uint8)
    return drawn
