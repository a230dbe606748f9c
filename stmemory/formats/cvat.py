"""CVAT's XML: written as images 1.1, with run lengths for each object in each image; read as that or as video 1.1."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import MaskError, OptionError
from stmemory.formats.base import DocumentWriter, Labelled
from stmemory.formats.polygons import draw_polygon, polygon_points
from stmemory.io.palette import Ids
from stmemory.io.rle import LARGEST_MASK, box_of

__all__ = ["CvatWriter", "read_cvat"]

MOST_BYTES = 1 << 30


class CvatWriter(DocumentWriter):
    """Writes one XML in CVAT's format for images 1.1; a mask's attribute `track_id` is the object's id. Any id.

    Args:
        path: the XML.
        categories: for an id, what the object is: CVAT's label; others are an "object".

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with CvatWriter(f"{folder}/a.xml") as out:
    ...         out.add(np.array([[0, 300]]))
    ...     [(name, ids.tolist()) for name, ids in read_cvat(f"{folder}/a.xml")]
    [('00000', [[0, 300]])]
    """

    def __init__(self, path: str | os.PathLike[str], *, categories: Mapping[int, str] | None = None) -> None:
        for label in (categories or {}).values():
            _check_text(label)
        super().__init__(path, ".xml", categories=categories)

    def _write(self, frame: Labelled) -> None:
        height, width = frame.ids.shape
        _check_text(frame.name)
        lines = [
            f'  <image id="{frame.index}" name={quoteattr(frame.name + ".jpg")} width="{width}" height="{height}">'
        ]
        self._known.update(frame.shown)
        for object_id in frame.shown:
            label = self._categories.get(object_id, "object")
            mask = frame.ids == object_id
            left, top, across, down = box_of(mask)
            runs = ", ".join(map(str, _runs(mask[top : top + down, left : left + across])))
            place = f'left="{left}" top="{top}" width="{across}" height="{down}" z_order="0"'
            lines.append(f'    <mask label={quoteattr(label)} source="auto" occluded="0" rle="{runs}" {place}>')
            lines.append(f'      <attribute name="track_id">{object_id}</attribute>\n    </mask>')
        self._spool.append("images", ["\n".join([*lines, "  </image>\n"])])

    def _finish(self) -> None:
        attribute = (
            "<attribute><name>track_id</name><mutable>False</mutable><input_type>text</input_type>"
            "<default_value></default_value><values></values></attribute>"
        )
        labels = "".join(
            f"<label><name>{quoteattr(name)[1:-1]}</name><type>mask</type><attributes>{attribute}</attributes></label>"
            for name in sorted({self._categories.get(object_id, "object") for object_id in self._known})
        )
        task = f"<size>{self.count}</size><mode>annotation</mode><labels>{labels}</labels>"
        with self._part.open("w", encoding="utf-8") as out:
            out.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
            out.write(f"  <meta><task>{task}</task></meta>\n")
            for row in self._spool.rows("images"):
                out.write(row[0])
            out.write("</annotations>\n")


def read_cvat(path: str | os.PathLike[str]) -> Iterator[tuple[str, Ids]]:
    """Read the masks and polygons of CVAT's XML, for images 1.1 or for video 1.1.

    An object's id is its attribute `track_id`; of a video's track its number plus 1; others are numbered from 1 in each
    image, past the ids that are taken. Where objects overlap, the one with the highest `z_order` is on top, at a tie
    the later. The file is held in memory while its frames are given out.

    Args:
        path: the XML. It is read when this is called.

    Returns:
        Names of the images without folder and ending, of a video's frames their numbers; ids int32 `[H, W]`.

    Raises:
        MaskError: the file cannot be read, or a mask in it is damaged.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise MaskError(
                f"{path}: expected annotations of at most {MOST_BYTES >> 20} MB, got more; export the task in parts"
            )
        text = path.read_text(encoding="utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:  # which could make a small file a huge one
            raise MaskError(
                f"{path}: expected CVAT's XML, got one with definitions of its own; export it again from CVAT"
            )
        root = ElementTree.fromstring(text)
    except OSError as error:
        raise MaskError(f"{path}: expected CVAT's XML, got: {error.strerror}") from error
    except (ValueError, ElementTree.ParseError, RecursionError) as error:
        raise MaskError(f"{path}: expected CVAT's XML, got: {error}") from error
    tracks = root.findall("track")
    if tracks:
        return _frames_of_tracks(root, tracks, path)
    images = root.findall("image")
    if root.tag != "annotations" or not images:
        raise MaskError(
            f"{path}: expected annotations with images or tracks, got "
            f"{root.tag!r} without; export it as CVAT for images 1.1"
        )
    return _images(images, path)


def _images(images: list[ElementTree.Element], path: Path) -> Iterator[tuple[str, Ids]]:
    for image in images:
        name = Path(image.get("name", "").replace("\\", "/")).stem or image.get("id", "image")
        yield (
            name,
            _drawn(
                [(shape, _track_id(shape)) for shape in image],
                _size(image.get("height"), image.get("width"), path),
                f"{path}: {name}",
            ),
        )


def _frames_of_tracks(
    root: ElementTree.Element, tracks: list[ElementTree.Element], path: Path
) -> Iterator[tuple[str, Ids]]:
    size = _size(root.findtext(".//original_size/height"), root.findtext(".//original_size/width"), path)
    shapes: dict[int, list[tuple[ElementTree.Element, int | None]]] = {}
    for number, track in enumerate(tracks):
        own = _whole(track.get("id", str(number)), str(path)) + 1
        if not 0 < own < 2**31:
            raise MaskError(
                f"{path}: expected tracks numbered from 0 to {2**31 - 2}, got {own - 1}; the file is damaged"
            )
        for shape in track:
            if shape.get("outside") != "1":
                inner = _track_id(shape)
                shapes.setdefault(_whole(shape.get("frame"), str(path)), []).append(
                    (shape, own if inner is None else inner)
                )
    for frame in sorted(shapes):
        yield f"{frame:05d}", _drawn(shapes[frame], size, f"{path}: frame {frame}")


def _drawn(shapes: list[tuple[ElementTree.Element, int | None]], size: tuple[int, int], where: str) -> Ids:
    taken = {object_id for _, object_id in shapes}
    free = (number for number in itertools.count(1) if number not in taken)
    ids = np.zeros(size, np.int32)
    for shape, object_id in sorted(shapes, key=lambda pair: _whole(pair[0].get("z_order", "0"), where)):
        if shape.tag not in ("mask", "polygon"):
            continue
        mask = _mask_of(shape, size, where) if shape.tag == "mask" else _polygon_of(shape, size, where)
        ids[mask] = next(free) if object_id is None else object_id
    return ids


def _mask_of(shape: ElementTree.Element, size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    left, top, across, down = (_whole(shape.get(name), where) for name in ("left", "top", "width", "height"))
    runs = [_whole(text, where) for text in (shape.get("rle") or "").split(",")]
    if not (0 <= left and 0 <= top and 0 < across and 0 < down and left + across <= size[1] and top + down <= size[0]):
        raise MaskError(
            f"{where}: expected a mask within {size[0]} x {size[1]} (H x W), got one at {left}, {top} of {across} x "
            f"{down}; the file is damaged"
        )
    if min(runs) < 0 or sum(runs) != across * down:
        raise MaskError(
            f"{where}: expected run lengths of {across * down} pixels, got {sum(runs)}; the file is damaged"
        )
    mask = np.zeros(size, np.bool_)
    mask[top : top + down, left : left + across] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(down, across)
    return mask


def _polygon_of(shape: ElementTree.Element, size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    try:
        corners = [float(number) for corner in (shape.get("points") or "").split(";") for number in corner.split(",")]
    except ValueError as error:
        raise MaskError(
            f"{where}: expected the points of a polygon, got {shape.get('points')!r:.60}; the file is damaged"
        ) from error
    mask = np.zeros(size, np.bool_)
    draw_polygon(mask, polygon_points(corners, name=where))
    return mask


def _check_text(text: str) -> None:
    if not text.isprintable():
        raise OptionError(f"name: expected printable characters, which XML can hold, got {text!r}; name it otherwise")


def _runs(mask: NDArray[np.bool_]) -> list[int]:
    """Run lengths of a mask, row by row, beginning with one of pixels that are not in it."""
    flat = np.concatenate([[False], mask.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    lengths: list[int] = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    return lengths


def _track_id(shape: ElementTree.Element) -> int | None:
    for attribute in shape.findall("attribute"):
        text = (attribute.text or "").strip()
        if (
            attribute.get("name") == "track_id"
            and text.isascii()
            and text.isdecimal()
            and 0 < int(text[:11]) < 2**31
            and len(text) < 11
        ):
            return int(text)
    return None


def _size(height: str | None, width: str | None, path: Path) -> tuple[int, int]:
    size = (_whole(height, str(path)), _whole(width, str(path)))
    if min(size) < 1 or size[0] * size[1] > LARGEST_MASK:
        raise MaskError(
            f"{path}: expected images of 1 to {LARGEST_MASK:,} pixels, got {size[0]} x {size[1]}; the file is damaged"
        )
    return size


def _whole(text: str | None, where: str) -> int:
    digits = (text or "").strip()
    if not digits.removeprefix("-").isdecimal() or not digits.isascii() or len(digits) > 10:
        raise MaskError(f"{where}: expected a whole number, got {text!r:.40}; the file is damaged")
    return int(digits)
