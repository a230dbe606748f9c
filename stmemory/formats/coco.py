"""JSON documents of masks: COCO and YouTube-VIS."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import MaskError, OptionError
from stmemory.formats.base import DocumentWriter, Labelled, column, read_document, write_list
from stmemory.formats.polygons import draw_polygon, is_hole, joined_rings, polygon_points, rings_of
from stmemory.io.palette import Ids
from stmemory.io.rle import LARGEST_MASK, box_of, decode_rle, encode_rle
from stmemory.io.untrusted import checked_name, whole
from stmemory.result import coco_annotation

__all__ = [
    "CocoWriter",
    "YouTubeVisWriter",
    "blank_ids",
    "categories_of",
    "draw_segmentation",
    "load_document",
    "read_coco",
    "read_youtube_vis",
    "rows_in",
    "stem_of",
]


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
        key: key that it must have.

    Raises:
        MaskError: it cannot be read, or has no such key.

    >>> load_document("no/such/file.json", "images")
    Traceback (most recent call last):
    stmemory.errors.MaskError: no/such/file.json: expected a JSON file with "images", got: No such file or directory
    """
    document = read_document(path, f'a JSON file with "{key}"')
    if not isinstance(document, dict) or key not in document:
        raise MaskError(
            f'{os.fspath(path)}: expected a JSON object with "{key}", got another; lists of results have no '
            "frames: pass the file of the split"
        )
    return document


def rows_in(document: Mapping[str, Any], key: str, path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The list of objects that stands under a key.

    Args:
        document: document of a JSON file.
        key: where the list stands; a missing one is empty.
        path: path of the file, for the message.

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
        row: row with `height` and `width`.

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
            f"height, width: expected a frame of at most {LARGEST_MASK:,} "
            f"pixels, got {width} x {height}; the file is damaged"
        )
    return np.zeros((height, width), np.int32)


def draw_segmentation(ids: Ids, object_id: int, segmentation: object, *, name: str) -> None:
    """Draw an object into a mask, over what is there.

    Args:
        ids: `[H, W]`, which is changed.
        object_id: its id.
        segmentation: its RLE, or a list of its polygons, as it stands in the file.
        name: name of the frame, for the message.

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


class CocoWriter(DocumentWriter):
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
        super().__init__(path, ".json", categories=categories, file_names=file_names)
        self._polygons, self._annotations = polygons, 0

    def _write(self, frame: Labelled) -> None:
        height, width = frame.ids.shape
        image = {"id": frame.index + 1, "file_name": self._file_of(frame), "height": height, "width": width}
        self._spool.append("images", [image])
        self._known.update(frame.shown)
        for object_id in frame.shown:
            self._annotations += 1
            score = {"score": frame.scores[object_id]} if object_id in frame.scores else {}
            mask = frame.ids == object_id
            row = coco_annotation(mask, object_id) | score
            if self._polygons:
                row["segmentation"] = _polygons(mask)
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
    return _each_image(images, masks)


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
    """The key of an image: a number and a text are different ids in JSON."""
    return repr(image_id)


def _each_image(images: list[dict[str, Any]], masks: Mapping[str, list[dict[str, Any]]]) -> Iterator[tuple[str, Ids]]:
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


class YouTubeVisWriter(DocumentWriter):
    """Writes a JSON with one video; an annotation's `id` is the object's id. Any id.

    Masks wait in files beside the JSON until the last frame, so memory does not grow.

    Args:
        path: the JSON.
        video: the video's name, which file names begin with.
        categories: for an id, what the object is; others are an "object".
        file_names: for the name of a mask, that of its frame's file; others are called NAME.jpg.

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with YouTubeVisWriter(f"{folder}/a.json") as out:
    ...         out.add(np.array([[0, 0]]))
    ...         out.add(np.array([[0, 300]]))
    ...     json.loads(Path(folder, "a.json").read_text())["annotations"][0]["bboxes"]
    ...     [(name, ids.tolist()) for name, ids in read_youtube_vis(f"{folder}/a.json")]
    [None, [1, 0, 1, 1]]
    [('00000', [[0, 0]]), ('00001', [[0, 300]])]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        video: str = "video",
        categories: Mapping[int, str] | None = None,
        file_names: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(path, ".json", categories=categories, file_names=file_names)
        self._video, self._size = video, (0, 0)

    def _write(self, frame: Labelled) -> None:
        self._size = frame.ids.shape
        self._spool.append("names", [f"{self._video}/{self._file_of(frame)}"])
        self._known.update(frame.shown)
        for object_id in frame.shown:
            mask = frame.ids == object_id
            self._spool.append(str(object_id), [frame.index, encode_rle(mask), box_of(mask), int(mask.sum())])

    def _finish(self) -> None:
        numbers, categories = categories_of(self._known, self._categories)
        shape = {"height": self._size[0], "width": self._size[1], "length": self.count}
        with self._part.open("w", encoding="utf-8") as out:
            out.write(f'{{"info": {{}}, "licenses": [], "categories": {json.dumps(categories)}, "videos": [')
            out.write(f'{json.dumps({"id": 1, **shape})[:-1]}, "file_names": ')
            write_list(out, (row[0] for row in self._spool.rows("names")))
            out.write('}], "annotations": [')
            for place, object_id in enumerate(sorted(self._known)):
                head = {"id": object_id, "video_id": 1, "category_id": numbers[object_id], "iscrowd": 0, **shape}
                out.write(", " * bool(place) + json.dumps(head)[:-1])
                for number, key in enumerate(("segmentations", "bboxes", "areas"), start=1):
                    out.write(f', "{key}": ')
                    write_list(out, column(self._spool.rows(str(object_id)), number, self.count))
                out.write("}")
            out.write("]}")


def read_youtube_vis(path: str | os.PathLike[str], *, video: str | None = None) -> Iterator[tuple[str, Ids]]:
    """Read a video of a YouTube-VIS JSON, with compressed or plain run lengths. Where objects overlap, the highest id
    is on top.

    The file is held in memory while its frames are given out, since JSON cannot be read in parts.

    Args:
        path: the JSON of a split (not a list of results, which has no sizes). It is read when this is called.
        video: the folder in the video's file names, or its id where they have none; None takes the only video.

    Returns:
        Names of the frames without folder and ending; ids int32 `[H, W]`, those of the annotations.

    Raises:
        MaskError: the file cannot be read, or a mask in it is damaged.
        OptionError: there is no such video, or more than one and none named.
    """
    document = load_document(path, "videos")
    videos = {_name_of(row): row for row in rows_in(document, "videos", path)}
    if video is None and len(videos) == 1:
        video = next(iter(videos))
    if video not in videos:
        there = ", ".join(list(videos)[:9]) + (", ..." if len(videos) > 9 else "")
        raise OptionError(
            f"video: expected one of {os.fspath(path)} ({there or 'which has none'}), got {video!r}; name it"
        )
    chosen = videos[video]
    tracks = [row for row in rows_in(document, "annotations", path) if row.get("video_id") == chosen.get("id")]
    try:
        names = [stem_of(name) for name in chosen["file_names"]]
        blank = blank_ids(chosen)
        masks = {whole(row["id"], what="the id of an object", least=1): list(row["segmentations"]) for row in tracks}
    except (KeyError, TypeError, OptionError, MemoryError) as error:
        raise MaskError(
            f"{os.fspath(path)}: expected file_names, height, width, and segmentations of each annotation, got "
            f"{f'no {error}' if isinstance(error, KeyError) else error}; is it YouTube-VIS?"
        ) from error
    short = [object_id for object_id, rows in masks.items() if len(rows) != len(names)]
    if short:
        raise MaskError(
            f"{os.fspath(path)}: expected {len(names)} segmentations of each object, one a frame, got other of "
            f"{short[0]}; the file is damaged"
        )
    return _each_video_frame(names, blank, masks)


def _name_of(video: Mapping[str, Any]) -> str:
    """The folder in a video's file names; its id where they have none."""
    names = video.get("file_names")
    folder = Path(str(names[0])).parent.as_posix() if isinstance(names, list) and names else "."
    return str(video.get("id")) if folder == "." else folder


def _each_video_frame(names: list[str], blank: Ids, masks: dict[int, list[object]]) -> Iterator[tuple[str, Ids]]:
    for index, name in enumerate(names):
        ids = blank.copy()
        for object_id, rows in sorted(masks.items()):
            if rows[index] is not None:
                draw_segmentation(ids, object_id, rows[index], name=name)
        yield name, ids
