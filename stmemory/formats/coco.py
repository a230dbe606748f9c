"""COCO: a JSON with a list of images and a list of annotations, each the RLE or the polygons of one object in one
image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import MaskError, OptionError
from stmemory.formats.document import blank_ids, categories_of, draw_segmentation, load_document, rows_in, stem_of
from stmemory.formats.polygons import is_hole, joined_rings, rings_of
from stmemory.formats.rle import box_of, encode_rle
from stmemory.formats.spool import spool_beside, write_list
from stmemory.formats.writer import Ids, Labelled, MaskWriter, object_ids_in
from stmemory.result import Segmentation
from stmemory.untrusted import whole

__all__ = ["CocoWriter", "read_coco", "to_coco"]


def to_coco(result: Segmentation) -> list[dict[str, object]]:
    """The objects that are seen in a frame, as COCO's annotations.

    Args:
        result: of one frame.

    Returns:
        For each present object: `image_id` (the frame's index), `category_id` 1, `track_id` (the object's id),
        `segmentation` (RLE), `bbox` (x, y, width, height in px), `area` (px), `iscrowd` 0 and, where the result has it,
        `score`.

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
    """Writes one JSON in COCO's instances format, with `track_id`, the object's id, in each annotation, and its `score`
    where the result has one. Any id.

    Masks wait in files beside the JSON until the last frame, so memory does not grow.

    Args:
        path: the JSON.
        categories: for an id, what the object is; others are an "object".
        polygons: write outlines instead of RLEs, for tools that know no other. Exact: corners lie between pixels, a
            line of no width leads to each hole.
        file_names: for the name of a mask, that of its frame's file; others are called NAME.jpg.

    >>> import tempfile, numpy as np
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
        polygons: bool = False,
        file_names: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(path)
        self._polygons = polygons
        self._files = dict(file_names or {})
        self._categories = dict(categories or {})
        self._known: set[int] = set()
        self._annotations = 0
        self._part = self._whole(".json")
        self._spool = self._stack.enter_context(spool_beside(self.path))

    def _write(self, frame: Labelled) -> None:
        height, width = frame.ids.shape
        self._spool.append(
            "images",
            [
                {
                    "id": frame.index + 1,
                    "file_name": self._files.get(frame.name, f"{frame.name}.jpg"),
                    "height": height,
                    "width": width,
                }
            ],
        )
        self._known.update(frame.shown)
        for object_id in frame.shown:
            self._annotations += 1
            score = {"score": frame.scores[object_id]} if object_id in frame.scores else {}
            row = _annotation(frame.ids, object_id, polygons=self._polygons) | score
            self._spool.append("annotations", [self._annotations, frame.index + 1, row])

    def _finish(self) -> None:
        numbers, categories = categories_of(self._known, self._categories)
        with self._part.open("w", encoding="utf-8") as out:
            out.write(f'{{"info": {{}}, "licenses": [], "categories": {json.dumps(categories)}, "images": ')
            write_list(out, (row[0] for row in self._spool.rows("images")))
            out.write(', "annotations": ')
            rows = self._spool.rows("annotations")
            write_list(
                out,
                (
                    {"id": number, "image_id": image, "category_id": numbers[rest["track_id"]], **rest}
                    for number, image, rest in rows
                ),
            )
            out.write("}")


def read_coco(path: str | os.PathLike[str]) -> Iterator[tuple[str, Ids]]:
    """Read the frames of a COCO JSON in the order of its images.

    An object's id is its `track_id`, which may stand in the annotation's `attributes`, as CVAT writes it; else the
    annotation's `id`. Where objects overlap, the highest id is on top. The file is held in memory while its frames are
    given out, since JSON cannot be read in parts.

    Args:
        path: the JSON. It is read when this is called.

    Returns:
        Names of the images without folder and ending, and ids int32 `[H, W]`.

    Raises:
        MaskError: the file cannot be read, says what cannot be, or a mask in it is damaged.
    """
    document = load_document(path, "images")
    images = rows_in(document, "images", path)
    masks: dict[str, list[dict[str, Any]]] = {}
    for row in rows_in(document, "annotations", path):
        masks.setdefault(_key(row.get("image_id")), []).append(row)
    return _each(images, masks)


def _annotation(ids: Ids, object_id: int, *, polygons: bool = False) -> dict[str, object]:
    mask = ids == object_id
    segmentation: object = _polygons(mask) if polygons else encode_rle(mask)
    return {
        "track_id": object_id,
        "segmentation": segmentation,
        "bbox": box_of(mask),
        "area": int(mask.sum()),
        "iscrowd": 0,
    }


def _polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    rings = rings_of(mask)
    whole = [joined_rings(rings)] if any(is_hole(ring) for ring in rings) else rings
    return [ring.ravel().tolist() for ring in whole]


def _id_of(row: Mapping[str, Any]) -> int:
    attributes = row.get("attributes")
    inner = attributes.get("track_id") if isinstance(attributes, dict) else None
    found = row["track_id"] if "track_id" in row else row["id"] if inner is None else inner
    return whole(found, what="the id of an object", least=1)


def _key(image_id: object) -> str:
    """What an image is found by: numbers and texts, which JSON tells apart, stay apart."""
    return repr(image_id)


def _each(images: list[dict[str, Any]], masks: Mapping[str, list[dict[str, Any]]]) -> Iterator[tuple[str, Ids]]:
    for image in images:
        try:
            name, ids = stem_of(image["file_name"]), blank_ids(image)
            rows = [(_id_of(row), row["segmentation"]) for row in masks.get(_key(image["id"]), ())]
        except (KeyError, OptionError, MemoryError) as error:
            raise MaskError(
                "images: expected file_name, height, width, and the segmentation of each annotation, got "
                f"{f'no {error}' if isinstance(error, KeyError) else error}; is it COCO?"
            ) from error
        for object_id, segmentation in sorted(rows, key=lambda pair: pair[0]):
            draw_segmentation(ids, object_id, segmentation, name=name)
        yield name, ids
