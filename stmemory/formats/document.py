"""What the JSON files of COCO and YouTube-VIS share: reading the document, numbering categories, drawing an RLE or
polygons."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stmemory.errors import MaskError, OptionError
from stmemory.formats.polygons import draw_polygon, polygon_points
from stmemory.formats.rle import LARGEST_MASK, decode_rle
from stmemory.formats.writer import Ids
from stmemory.untrusted import checked_name, read_json, whole

__all__ = ["blank_ids", "categories_of", "draw_segmentation", "load_document", "rows_in", "stem_of"]


def categories_of(
    object_ids: Iterable[int], names: Mapping[int, str]
) -> tuple[dict[int, int], list[dict[str, object]]]:
    """Number the categories from 1, in the alphabet's order.

    Args:
        object_ids: the objects.
        names: for an id, what it is; others are an "object".

    Returns:
        For each object the number of its category, and the list of categories as COCO has it.

    >>> categories_of([7, 9], {9: "dog"})[0]
    {7: 2, 9: 1}
    """
    kinds = {object_id: names.get(object_id, "object") for object_id in object_ids}
    ordered = sorted(set(kinds.values())) or ["object"]
    numbers = {name: number for number, name in enumerate(ordered, start=1)}
    return {object_id: numbers[kind] for object_id, kind in kinds.items()}, [
        {"id": number, "name": name} for name, number in numbers.items()
    ]


def load_document(path: str | os.PathLike[str], key: str) -> dict[str, Any]:
    """Read a JSON file that holds an object with a certain key.

    Args:
        path: the file.
        key: that it must have.

    Raises:
        MaskError: it cannot be read, or has no such key.

    >>> load_document("no/such/file.json", "images")
    Traceback (most recent call last):
    stmemory.errors.MaskError: no/such/file.json: expected a JSON file with "images", got: No such file or directory
    """
    try:
        document: object = read_json(path)
    except OSError as error:
        raise MaskError(f'{os.fspath(path)}: expected a JSON file with "{key}", got: {error.strerror}') from error
    except OptionError as error:
        raise MaskError(f'{error} (a JSON file with "{key}" is wanted)') from error
    if not isinstance(document, dict) or key not in document:
        raise MaskError(
            f'{os.fspath(path)}: expected a JSON object with "{key}", got another; lists of results have no '
            "frames: pass the file of the split"
        )
    return document


def rows_in(document: Mapping[str, Any], key: str, path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The list of objects that stands under a key.

    Args:
        document: of a JSON file.
        key: where the list stands; a missing one is empty.
        path: of the file, for the message.

    Raises:
        MaskError: something else stands there.

    >>> rows_in({"images": [{"id": 1}]}, "images", "a.json")
    [{'id': 1}]
    """
    rows = document.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MaskError(
            f'{os.fspath(path)}: expected a list of objects in "{key}", got another value; the file is damaged'
        )
    return rows


def stem_of(file_name: object) -> str:
    """The name of a frame without folder and ending, whatever the platform that the file was written on.

    Args:
        file_name: as it stands in the file.

    Raises:
        OptionError: it is no name.

    >>> stem_of("walk/00000.jpg")
    '00000'
    """
    last = file_name.replace("\\", "/").rsplit("/", 1)[-1] if isinstance(file_name, str) else file_name
    return checked_name(Path(last).stem if isinstance(last, str) else last, what="file_name")


def blank_ids(row: Mapping[str, Any]) -> Ids:
    """A mask of background only, of the size that an entry of the file states.

    Args:
        row: with `height` and `width`.

    Returns:
        int32 `[H, W]`.

    Raises:
        OptionError: they are no whole numbers above 0, or too large for one frame.
        KeyError: one is missing.

    >>> blank_ids({"height": 1, "width": 2}).tolist()
    [[0, 0]]
    """
    height, width = (whole(row[side], what=side, least=1) for side in ("height", "width"))
    if height * width > LARGEST_MASK:
        raise OptionError(
            f"height, width: expected a frame of at most {LARGEST_MASK:,} pixels, got {width} x {height}; the file is "
            "damaged"
        )
    return np.zeros((height, width), np.int32)


def draw_segmentation(ids: Ids, object_id: int, segmentation: object, *, name: str) -> None:
    """Draw an object into a mask, over what is there.

    Args:
        ids: `[H, W]`, which is changed.
        object_id: its id.
        segmentation: its RLE, or a list of its polygons, as it stands in the file.
        name: of the frame, for the message.

    Raises:
        MaskError: it is damaged; its size is another; the id is below 1.

    >>> ids = np.zeros((1, 2), np.int32)
    >>> draw_segmentation(ids, 7, {"size": [1, 2], "counts": [1, 1]}, name="00000")
    >>> ids.tolist()
    [[0, 7]]
    """
    if isinstance(segmentation, dict):
        mask = decode_rle(segmentation)
    elif isinstance(segmentation, list):
        mask = np.zeros(ids.shape, np.bool_)
        for polygon in segmentation:
            draw_polygon(mask, polygon_points(polygon, name=name))
    else:
        raise MaskError(
            f"{name}: expected a segmentation of size and counts, an RLE, or polygons, got "
            f"{type(segmentation).__name__}; the file is damaged"
        )
    if mask.shape != ids.shape or not 0 < object_id < 2**31:
        raise MaskError(
            f"{name}: expected masks of {ids.shape} (H, W) and ids from 1 to 2**31 - 1, got {mask.shape} of "
            f"{object_id}; the file is damaged"
        )
    ids[mask] = object_id
