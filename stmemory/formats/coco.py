"""COCO: a JSON with a list of images and a list of annotations, each the RLE of one object in one image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stmemory.errors import MaskError
from stmemory.formats.document import categories_of, draw_rle, load_document, rows_in
from stmemory.formats.rle import box_of, encode_rle
from stmemory.formats.spool import spool_beside, write_list
from stmemory.formats.writer import Ids, Labelled, MaskWriter, object_ids_in
from stmemory.result import Segmentation

__all__ = ["CocoWriter", "read_coco", "to_coco"]


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
        file_names: for the name of a mask, that of its frame's file; others are called NAME.jpg.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with CocoWriter(f"{folder}/a.json") as out:
    ...         out.add(np.array([[0, 300]]), name="frame-1")
    ...     [(name, ids.tolist()) for name, ids in read_coco(f"{folder}/a.json")]
    [('frame-1', [[0, 300]])]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        categories: Mapping[int, str] | None = None,
        file_names: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(path)
        self._files = dict(file_names or {})
        self._categories = dict(categories or {})
        self._known: set[int] = set()
        self._annotations = 0
        self._part = self._whole(".json")
        self._spool = self._stack.enter_context(spool_beside(self.path))

    def _write(self, frame: Labelled) -> None:
        height, width = frame.ids.shape
        self._spool.append("images", [{"id": frame.index + 1, "file_name": self._files.get(frame.name, f"{frame.name}.jpg"), "height": height, "width": width}])
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
            rows = self._spool.rows("annotations")
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
            draw_rle(ids, object_id, segmentation, name=name)
        yield name, ids
