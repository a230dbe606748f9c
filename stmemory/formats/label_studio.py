"""Label Studio: tasks with brush masks in its own run-length code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import MaskError, OptionError
from stmemory.formats.base import DocumentWriter, Labelled, read_document
from stmemory.formats.coco import blank_ids
from stmemory.formats.polygons import draw_polygon, polygon_points
from stmemory.io.images import natural_order
from stmemory.io.palette import Ids
from stmemory.io.rle import LARGEST_MASK
from stmemory.io.untrusted import checked_name, shown, whole

__all__ = ["LabelStudioWriter", "decode_brush", "encode_brush", "is_label_studio", "read_label_studio"]

SIZES = (3, 4, 8, 16)  # bits of a run's length, as Label Studio writes them
_HEADER = 53  # bits
_LONGEST = 1 << 16  # of one run
_MOST_BITS = 1 + 2 + 16 + 8  # of one run


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Encode a mask; equals `label_studio_converter.brush.mask2rle` of 0 and 255, byte by byte.

    Args:
        mask: bool `[H, W]`.

    Returns:
        Bytes, as Label Studio's JSON has them under `rle`.

    Raises:
        MaskError: it is no such array, has no pixel, or more than 2**28.

    >>> encode_brush(np.array([[True]]))
    [0, 0, 0, 4, 57, 27, 252, 127, 224]
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or not 0 < mask.size <= LARGEST_MASK:
        raise MaskError(
            f"encode_brush: expected a bool array [H, W], got {mask.dtype} {mask.shape}; pass ids == object_id"
        )
    flat = mask.ravel()
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    runs, values = 4 * np.diff(edges), np.where(flat[edges[:-1]], 255, 0)
    parts = -(-runs // _LONGEST)  # runs above the longest are several
    last = np.zeros(int(parts.sum()), np.bool_)
    last[np.cumsum(parts) - 1] = True
    lengths = np.full(len(last), _LONGEST)
    lengths[last] = runs - (parts - 1) * _LONGEST
    long, values = np.repeat(parts > 1, parts), np.repeat(values, parts)
    which = np.where(long, 3, np.searchsorted([1 << size for size in SIZES], lengths))
    size = np.array(SIZES)[which]
    words = (((4 | which) << size | (lengths - 1)) << 8) | values
    used = 11 + size  # bits of each word
    places = np.arange(_MOST_BITS)
    bits = (words[:, None] >> (used[:, None] - 1 - places).clip(min=0) & 1).astype(np.uint8)[places < used[:, None]]
    header = 4 * flat.size
    for width, number in ((5, 7), *((4, size - 1) for size in SIZES)):
        header = header << width | number
    packed = np.packbits(
        np.concatenate([np.array([header >> place & 1 for place in reversed(range(_HEADER))], np.uint8), bits])
    )
    rest: list[int] = packed.tolist()
    return rest + [0] * ((_HEADER + len(bits)) % 8 == 0)  # as the converter does; readers stop before it


def decode_brush(rle: object, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode a mask.

    Args:
        rle: bytes as a list of whole numbers.
        size: H and W in px, which stand beside it.

    Returns:
        uint8 `[H, W]`: alpha, 0 where the brush was not.

    Raises:
        MaskError: it is no such list, has another size, ends too early, or the size is beyond 2**28 pixels.

    >>> decode_brush(encode_brush(np.array([[False, True]])), (1, 2)).tolist()
    [[0, 255]]
    """
    data = _bytes_of(rle)
    count = 4 * size[0] * size[1]
    if min(size) < 1 or count > 4 * LARGEST_MASK:
        raise MaskError(
            f"brush: expected a mask of 1 to {LARGEST_MASK:,} pixels, "
            f"got {size[0]} x {size[1]} (H x W); the file is damaged"
        )
    if len(data) < 7 or int.from_bytes(data[:4], "big") != count or data[4] >> 3 != 7:
        stated = int.from_bytes(data[:4], "big")
        raise MaskError(
            f"brush: expected {count} numbers of 8 bits, RGBA of {size[0]} x {size[1]} (H x W), got {stated} "
            "numbers; the file is damaged"
        )
    sizes = [(int.from_bytes(data[4:7], "big") >> shift & 15) + 1 for shift in (15, 11, 7, 3)]
    out = np.zeros(count, np.uint8)
    at, place = 0, _HEADER
    while at < count:
        head = _number(data, place, 3)
        bits = sizes[head & 3]
        length = _number(data, place + 3, bits) + 1
        place += 3 + bits
        numbers = 1 if head & 4 else length
        if at + length > count or place + 8 * numbers > 8 * len(data):
            raise MaskError(
                f"brush: expected {count} numbers, got a run of {length} "
                f"after {at} of them, or an early end; the file is damaged"
            )
        out[at : at + length] = _number(data, place, 8) if head & 4 else _numbers(data, place, numbers)
        place += 8 * numbers
        at += length
    alpha: NDArray[np.uint8] = out.reshape(*size, 4)[..., 3]
    return alpha


def _bytes_of(rle: object) -> bytes:
    try:
        if isinstance(rle, Sequence) and not isinstance(rle, str) and all(type(byte) is int for byte in rle):
            return bytes(rle)
    except ValueError:  # a number that is no byte
        pass
    raise MaskError(
        "brush: expected a list of whole numbers from 0 to 255 as rle, got another value; the file is damaged"
    )


def _number(data: bytes, place: int, bits: int) -> int:
    """The number of up to 16 bits that begins at a bit; bits beyond the end are 0."""
    piece = data[place >> 3 : (place >> 3) + 3].ljust(3, b"\0")
    return int.from_bytes(piece, "big") >> (24 - (place & 7) - bits) & ((1 << bits) - 1)


def _numbers(data: bytes, place: int, count: int) -> NDArray[np.uint8]:
    """Numbers of 8 bits each, from a bit on."""
    pieces = np.frombuffer(data, np.uint8, count=min(count + 1, len(data) - (place >> 3)), offset=place >> 3)
    bits = np.unpackbits(pieces)[place & 7 :][: 8 * count]
    return np.packbits(bits)


_MASKS = ("brushlabels", "brush", "polygonlabels", "polygon")


class LabelStudioWriter(DocumentWriter):
    """Writes one JSON of tasks to import into Label Studio: `data.image`, and a prediction with a brush region for each
    object. Any id.

    A region's label is the object's category, else `object 7` after its id; its text (`meta.text`) is `track_id 7`, so
    that `read_label_studio` gives the ids back also from what Label Studio exports. The labelling needs `<Image
    name="image" value="$image"/>` and `<BrushLabels name="tag" toName="image">` with these labels.

    Args:
        path: the JSON.
        categories: for an id, what the object is.
        file_names: for the name of a mask, that of its frame's file; others are called NAME.jpg.
        prefix: text before the file's name, so that Label Studio finds it: `/data/local-files/?d=clip/`, or a
            URL's beginning.
        annotations: write annotations, which count as done, instead of predictions.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with LabelStudioWriter(f"{folder}/a.json") as out:
    ...         out.add(np.array([[0, 300]]))
    ...     [(name, ids.tolist()) for name, ids in read_label_studio(f"{folder}/a.json")]
    [('00000', [[0, 300]])]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        categories: Mapping[int, str] | None = None,
        file_names: Mapping[str, str] | None = None,
        prefix: str = "",
        annotations: bool = False,
    ) -> None:
        super().__init__(path, ".json", categories=categories, file_names=file_names)
        self._prefix, self._annotations = prefix, annotations
        self._out = self._stack.enter_context(self._part.open("w", encoding="utf-8"))

    def _write(self, frame: Labelled) -> None:
        height, width = frame.ids.shape
        results = [self._region(frame, object_id) for object_id in frame.shown]
        scores = [frame.scores[object_id] for object_id in frame.shown if object_id in frame.scores]
        about: dict[str, object] = {} if self._annotations else {"model_version": "stmemory"}
        if scores and not self._annotations:
            about["score"] = sum(scores) / len(scores)
        task = {
            "data": {
                "image": self._prefix + self._file_of(frame),
                "frame": frame.name,
                "width": width,
                "height": height,
            },
            "annotations" if self._annotations else "predictions": [{**about, "result": results}],
        }
        self._out.write((",\n" if self.count else "[") + json.dumps(task))

    def _finish(self) -> None:
        self._out.write("]\n")
        self._out.flush()

    def _region(self, frame: Labelled, object_id: int) -> dict[str, object]:
        height, width = frame.ids.shape
        label = self._categories.get(object_id, f"object {object_id}")
        return {
            "id": f"object-{object_id}",
            "type": "brushlabels",
            "from_name": "tag",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": encode_brush(frame.ids == object_id), "brushlabels": [label]},
            "meta": {"text": [f"track_id {object_id}"]},
        } | ({"score": frame.scores[object_id]} if object_id in frame.scores else {})


def read_label_studio(path: str | os.PathLike[str]) -> Iterator[tuple[str, Ids]]:
    """Read the brush masks and polygons of a JSON that Label Studio exported, or `LabelStudioWriter` wrote.

    Of a task the last annotation counts that was not cancelled, or without one the last prediction. An object's id is
    that in a region's text `track_id 7`, or in its label `object 7`. Other regions differ by their label, and
    by their order among those of the same label in a task: they are numbered from 1 through the whole file, past the
    ids that are taken, so that the first "dog" is the same object in each frame. A brush's pixels are those with at
    least half of its largest alpha. Where regions overlap, the later one is on top. Boxes, ellipses and points are
    passed over, and so are tasks without marks.

    Args:
        path: the JSON. It is read when this is called, and held in memory while its frames are given out.

    Returns:
        Names of the images without folder, ending, and the eight characters that Label Studio puts before the name of
        an upload, in natural order; and ids int32 `[H, W]`.

    Raises:
        MaskError: the file cannot be read, is of another kind, or a mask in it is damaged.
    """
    name, document = os.fspath(path), read_document(path, "a JSON of Label Studio's tasks")
    if not is_label_studio(document):
        raise MaskError(
            f'{name}: expected a list of tasks with "data" and "annotations" or "predictions", got another JSON; '
            "export it as JSON, not as JSON-MIN"
        )
    tasks = (
        [(_task_name(task, name), task) for task in document if isinstance(task, dict)]
        if isinstance(document, list)
        else []
    )
    marked = [
        (stem, task, _regions(task, f"{name}: {stem}"))
        for stem, task in sorted(tasks, key=lambda pair: natural_order(pair[0]))
    ]
    found = [
        (stem, size, regions)
        for stem, task, regions in marked
        if (size := _size(task, regions, f"{name}: {stem}")) is not None
    ]
    if not found:
        raise MaskError(
            f"{name}: expected tasks with brush masks or polygons, "
            f"got {len(tasks)} without; mark objects with BrushLabels"
        )
    return _frames(found, name)


def is_label_studio(document: object) -> bool:
    """Say whether the values of a JSON are tasks of Label Studio.

    Args:
        document: what the JSON holds.

    >>> is_label_studio([{"data": {"image": "0.jpg"}, "predictions": []}]), is_label_studio({"images": []})
    (True, False)
    """
    rows = document if isinstance(document, list) else []
    return bool(rows) and all(
        isinstance(row, dict) and isinstance(row.get("data"), dict) and {"annotations", "predictions"} & {*row}
        for row in rows
    )


def _frames(found: list[tuple[str, tuple[int, int], list[dict[str, Any]]]], path: str) -> Iterator[tuple[str, Ids]]:
    keys = [_keys(regions) for _, _, regions in found]
    taken = {key for each in keys for key in each if isinstance(key, int)}
    others = dict.fromkeys(key for each in keys for key in each if not isinstance(key, int))
    free = (number for number in range(1, len(others) + len(taken) + 1) if number not in taken)
    numbers = dict(zip(others, free, strict=False))
    for (stem, size, regions), each in zip(found, keys, strict=True):
        ids = np.zeros(size, np.int32)
        for region, key in zip(regions, each, strict=True):
            ids[_mask_of(region, size, f"{path}: {stem}")] = key if isinstance(key, int) else numbers[key]
        yield stem, ids


def _keys(regions: list[dict[str, Any]]) -> list[int | tuple[str, int]]:
    """What each region of a task is known by: its id, or its label and how many with that label came before."""
    keys, before = list[int | tuple[str, int]](), dict[str, int]()
    for region in regions:
        meta = region.get("meta")
        texts = meta.get("text") if isinstance(meta, dict) else None
        text = " ".join(str(part) for part in texts) if isinstance(texts, list) else str(texts)
        label = region["label"]
        stated = re.search(r"\btrack_id[ :=]*([0-9]{1,10})\b", text) or re.fullmatch(r"object ([0-9]{1,10})", label)
        if stated is not None and 0 < int(stated[1]) < 2**31:
            keys.append(int(stated[1]))
            continue
        keys.append((label, before.get(label, 0)))
        before[label] = before.get(label, 0) + 1
    return keys


def _regions(task: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The regions of a task that are masks, each with its `label`."""
    done = [row for row in _rows(task.get("annotations"), where) if not row.get("was_cancelled")]
    chosen = (done or _rows(task.get("predictions"), where))[-1:]
    results = [row for one in chosen for row in _rows(one.get("result"), where)]
    values = [(row, row["value"] if isinstance(row.get("value"), dict) else {}) for row in results]
    # a plain <Brush> has its labels in a result of its own, of the same id
    beside = {str(row.get("id")): value["labels"] for row, value in values if "labels" in value}
    regions = list[dict[str, Any]]()
    for row, value in values:
        if row.get("type") in _MASKS and ("rle" in value or "points" in value):
            labels = next(
                (value[kind] for kind in ("brushlabels", "polygonlabels", "labels") if kind in value),
                beside.get(str(row.get("id")), []),
            )
            label = ", ".join(str(each) for each in labels) if isinstance(labels, list) else str(labels)
            regions.append({**row, "label": label})
    return regions


def _rows(rows: object, where: str) -> list[dict[str, Any]]:
    rows = [] if rows is None else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MaskError(
            f"{where}: expected a list of annotations and of their results, got {shown(rows)}; the file is damaged"
        )
    return rows


def _size(task: Mapping[str, Any], regions: list[dict[str, Any]], where: str) -> tuple[int, int] | None:
    """H and W of a task's image; None where nothing says it, since nothing is marked there."""
    about = {(row.get("original_height"), row.get("original_width")) for row in regions if _hashable(row)}
    data = task["data"]
    if not regions:
        about = (
            {(data.get("height"), data.get("width"))}
            if _hashable({"original_height": data.get("height"), "original_width": data.get("width")})
            else set()
        )
        if about in ({(None, None)}, set()):
            return None
    if len(about) != 1:
        raise MaskError(
            f"{where}: expected original_width and original_height of each region, the same for all, got "
            f"{len(about)} sizes; export it again"
        )
    height, width = about.pop()
    try:
        shape: tuple[int, int] = blank_ids({"height": height, "width": width}).shape
    except (OptionError, MemoryError) as error:
        raise MaskError(f"{where}: {error}") from error
    return shape


def _hashable(row: Mapping[str, object]) -> bool:
    return all(isinstance(row.get(side), int | float | str | None) for side in ("original_height", "original_width"))


def _mask_of(region: Mapping[str, Any], size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    if region.get("image_rotation") not in (None, 0, 0.0):
        raise MaskError(
            f"{where}: expected an image that is not turned, got image_rotation "
            f"{shown(region['image_rotation'])}; turn the image's file instead"
        )
    value = region["value"]
    try:
        if "rle" in value:
            alpha = decode_brush(value["rle"], size)
            return alpha >= max(1, (int(alpha.max()) + 1) // 2)
        corners = (
            [number for corner in value["points"] for number in corner] if isinstance(value["points"], list) else None
        )
        points = polygon_points(corners, name=where)
    except TypeError as error:
        raise MaskError(
            f"{where}: expected the corners of a polygon, got {shown(value['points'])}; the file is damaged"
        ) from error
    except MaskError as error:
        raise MaskError(str(error) if where in str(error) else f"{where}: {error}") from error
    mask = np.zeros(size, np.bool_)
    draw_polygon(mask, points / 100 * (size[1], size[0]))  # they are percentages
    return mask


def _task_name(task: Mapping[str, Any], where: str) -> str:
    """The name of a task's frame: as `LabelStudioWriter` left it, else of the image's file."""
    data = task["data"]
    try:
        if "frame" in data and isinstance(data["frame"], str):
            return checked_name(data["frame"], what=f"{where}: frame")
        images = (
            [data["image"]]
            if isinstance(data.get("image"), str)
            else [value for value in data.values() if isinstance(value, str)]
        )
        address = images[0] if images else f"task-{whole(task.get('id', 0), what=f'{where}: id')}"
        last = re.sub(r"^.*[?&]d=", "", address).split("?")[0].replace("\\", "/").replace("%20", " ").rsplit("/", 1)[-1]
        if "/upload/" in address:
            last = re.sub(r"^[0-9a-f]{8}-", "", last)
        return checked_name(Path(last).stem, what=f"{where}: image")
    except OptionError as error:
        raise MaskError(str(error)) from error
