"""COCO: a JSON with a list of images and a list of annotations, each the RLE of one object in one image."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stmemory.errors import MaskError
from stmemory.formats.rle import box_of, decode_rle, encode_rle
from stmemory.formats.spool import Spool, write_list
from stmemory.formats.writer import Ids, Labelled, MaskWriter, object_ids_in
from stmemory.result import Segmentation

__all__ = ["CocoWriter", "categories_of", "dict_in", "load_document", "read_coco", "rows_in", "to_coco"]


def to_coco(result: Segmentation) -> list[dict[str, object]]:
    """The objects that are seen in a frame, as COCO's annotations.

    Args:
        result: of one frame.

    Returns:
        For each present object: `image_id` (the frame's index), `category_id` 1, `track_id` (the object's id), `segmentation` (RLE),
        `bbox` (x, y, width, height in px), `area` (px), `iscrowd` 0 and, where the result has it, `score`.

    >>> import torch
    >>> found = Segmentation(0, torch.tensor([[0, 7]]).int(), torch.eye(2)[:, None], (7,), {7: 1.0}, {7: True})
    >>> to_coco(found)[0]["segmentation"]
    {'size': [1, 2], 'counts': '11'}
    """
    ids: Ids = result.ids.detach().cpu().numpy()
    return [
        {"image_id": result.frame_index, "category_id": 1, **_annotation(ids, object_id)}
        | ({"score": result.scores[object_id]} if object_id in result.scores else {})
        for object_id in object_ids_in(ids)
    ]


class CocoWriter(MaskWriter):
    """Writes one JSON in COCO's instances format, with `track_id`, the object's id, in each annotation. Any id.

    Masks wait in files beside the JSON until the last frame, so memory does not grow.

    Args:
        path: the JSON.
        categories: for an id, what the object is; others are an "object".

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with CocoWriter(f"{folder}/a.json") as out:
    ...         out.add(np.array([[0, 300]]), name="frame-1")
    ...     [(name, ids.tolist()) for name, ids in read_coco(f"{folder}/a.json")]
    [('frame-1', [[0, 300]])]
    """

    def __init__(self, path: str | os.PathLike[str], *, categories: Mapping[int, str] | None = None) -> None:
        super().__init__(path)
        self._categories = dict(categories or {})
        self._known: set[int] = set()
        self._annotations = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self._whole(".json")
        self._spool = Spool(Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.parent))))

    def _write(self, frame: Labelled) -> None:
        height, width = frame.ids.shape
        self._spool.append("images", [{"id": frame.index + 1, "file_name": f"{frame.name}.jpg", "height": height, "width": width}])
        self._known.update(frame.shown)
        for object_id in frame.shown:
            self._annotations += 1
            self._spool.append("annotations", [self._annotations, frame.index + 1, _annotation(frame.ids, object_id)])

    def _finish(self) -> None:
        numbers, categories = categories_of(self._known, self._categories)
        with self._part.open("w", encoding="utf-8") as out:
            out.write(f'{{"info": {{}}, "licenses": [], "categories": {json.dumps(categories)}, "images": ')
            write_list(out, (row[0] for row in self._spool.rows("images")))
            out.write(', "annotations": ')
            rows = ((number, image, dict_in(rest)) for number, image, rest in self._spool.rows("annotations"))
            write_list(out, ({"id": number, "image_id": image, "category_id": numbers[rest["track_id"]], **rest} for number, image, rest in rows))
            out.write("}")


def read_coco(path: str | os.PathLike[str]) -> Iterator[tuple[str, Ids]]:
    """Read the frames of a COCO JSON whose annotations are RLEs, in the order of its images.

    An object's id is its `track_id`, else the annotation's `id`. Where objects overlap, the highest id is on top. The file is held
    in memory while its frames are given out, since JSON cannot be read in parts.

    Args:
        path: the JSON. It is read when this is called.

    Returns:
        Names of the images without folder and ending, and ids int32 `[H, W]`.

    Raises:
        MaskError: the file cannot be read, or has polygons instead of RLEs.
    """
    document = load_document(path, "images")
    images = rows_in(document, "images", path)
    masks: dict[object, list[dict[str, Any]]] = {}
    for row in rows_in(document, "annotations", path):
        masks.setdefault(row.get("image_id"), []).append(row)
    return _each(images, masks)


def categories_of(object_ids: Iterable[int], names: Mapping[int, str]) -> tuple[dict[int, int], list[dict[str, object]]]:
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
    return {object_id: numbers[kind] for object_id, kind in kinds.items()}, [{"id": number, "name": name} for name, number in numbers.items()]


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
        document: object = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise MaskError(f'{os.fspath(path)}: expected a JSON file with "{key}", got: {error.strerror}') from error
    except ValueError as error:
        raise MaskError(f'{os.fspath(path)}: expected a JSON file with "{key}", got: {error}') from error
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
        raise MaskError(f'{os.fspath(path)}: expected a list of objects in "{key}", got another value; the file is damaged')
    return rows


def dict_in(value: object) -> dict[str, Any]:
    """A value of a JSON file that must be an object.

    Args:
        value: the value.

    Raises:
        MaskError: it is something else, such as a polygon.

    >>> dict_in({"size": [1, 2]})
    {'size': [1, 2]}
    """
    if not isinstance(value, dict):
        raise MaskError(f"segmentation: expected an RLE with size and counts, got {type(value).__name__}; polygons must be drawn first")
    return value


def _annotation(ids: Ids, object_id: int) -> dict[str, object]:
    mask = ids == object_id
    return {"track_id": object_id, "segmentation": encode_rle(mask), "bbox": box_of(mask), "area": int(mask.sum()), "iscrowd": 0}


def _each(images: list[dict[str, Any]], masks: Mapping[object, list[dict[str, Any]]]) -> Iterator[tuple[str, Ids]]:
    for image in images:
        try:
            name, size = Path(str(image["file_name"])).stem, (int(image["height"]), int(image["width"]))
            rows = sorted((int(row.get("track_id", row["id"])), row["segmentation"]) for row in masks.get(image["id"], ()))
        except (KeyError, TypeError, ValueError) as error:
            raise MaskError(
                f"images: expected file_name, height, width, and the segmentation of each annotation, got {error!r}; is it COCO?"
            ) from error
        ids = np.zeros(size, np.int32)
        for object_id, segmentation in rows:
            mask = decode_rle(dict_in(segmentation))
            if mask.shape != size or object_id < 1:
                raise MaskError(f"{name}: expected masks of {size} (H, W) and ids above 0, got {mask.shape} of {object_id}; the file is damaged")
            ids[mask] = object_id
        yield name, ids
