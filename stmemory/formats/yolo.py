"""YOLO segmentation labels: a text file a frame, each line a class and a polygon in shares of width and height;
`data.yaml` names the classes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from stmemory.errors import MaskError, OptionError
from stmemory.files import whole_file
from stmemory.formats.polygons import draw_polygon, joined_rings, polygon_points, rings_of
from stmemory.formats.rle import LARGEST_MASK
from stmemory.formats.spool import spool_beside
from stmemory.formats.writer import Ids, Labelled, MaskWriter, new_folder
from stmemory.frames import to_frame
from stmemory.images import image_files, natural_order

__all__ = ["YoloWriter", "read_yolo"]

MOST_BYTES = 1 << 26  # of one label file


class YoloWriter(MaskWriter):
    """Writes `ROOT/labels/<frame>.txt` and, at the end, `ROOT/data.yaml`. Any id.

    YOLO has classes and no identities. Objects with a category are of that class; each other object is of a class of
    its own, named `object 7` after its id, so that `read_yolo` gives the ids back. Frames are not copied: they belong
    into `ROOT/images`.

    An object is one line: its regions and holes are one polygon, joined by lines of no width. Corners lie between
    pixels.

    Args:
        path: ROOT, new or empty.
        categories: for an id, what the object is.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with YoloWriter(root) as out:
    ...         out.add(np.array([[0, 7]]))
    ...     Path(root, "labels", "00000.txt").read_text()
    ...     [(name, ids.tolist()) for name, ids in read_yolo(root)]
    '0 0.5 0.0 1.0 0.0 1.0 1.0 0.5 1.0\\n'
    [('00000', [[0, 7]])]
    """

    def __init__(self, path: str | os.PathLike[str], *, categories: Mapping[int, str] | None = None) -> None:
        super().__init__(path)
        self._categories = dict(categories or {})
        self._labels = new_folder(new_folder(self.path) / "labels")
        self._spool = self._stack.enter_context(spool_beside(self.path / "data.yaml"))
        self._known: set[str] = set()
        self._size = (0, 0)

    def _write(self, frame: Labelled) -> None:
        height, width = self._size = frame.ids.shape
        rows = []
        for object_id in frame.shown:
            kind = self._categories.get(object_id, f"object {object_id}")
            self._known.add(kind)
            shares = joined_rings(rings_of(frame.ids == object_id)) / (width, height)
            rows.append([kind, " ".join(repr(share) for share in shares.ravel().tolist())])
        self._spool.append("frames", [frame.name, rows])

    def _finish(self) -> None:
        # classes are numbered when all are known
        numbers = {
            kind: number for number, kind in enumerate(sorted(self._known, key=lambda kind: natural_order(kind)))
        }
        for name, rows in self._spool.rows("frames"):
            with whole_file(self._labels / f"{name}.txt") as part:
                part.write_text("".join(f"{numbers[kind]} {shares}\n" for kind, shares in rows), encoding="utf-8")
        # not YOLO's own: `read_yolo` needs it, others pass it over
        size = f"frame_size: [{self._size[0]}, {self._size[1]}]"
        lines = [
            "path: .",
            "train: images",
            "val: images",
            size,
            "names:",
            *(f"  {number}: {json.dumps(kind)}" for kind, number in numbers.items()),
        ]
        with whole_file(self.path / "data.yaml") as part:
            part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_yolo(path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> Iterator[tuple[str, Ids]]:
    """Read the label files of a folder, in natural order.

    A line of a class named `object 7` is object 7, see `YoloWriter`. Other lines have no identity: they are numbered
    from 1 in the order in which they stand in their file, past the ids that are taken. Where objects overlap, the later
    line is on top. Lines with a box instead of a polygon are refused.

    Args:
        path: the folder with `labels`, and `data.yaml` if there is one; or the folder of the label files itself.
        size: H and W in px; None takes that of the first image in `images` beside `labels`, else the `frame_size` that
            `YoloWriter` leaves in `data.yaml`.

    Returns:
        Names without endings, and ids int32 `[H, W]`.

    Raises:
        MaskError: there are no labels, or a line cannot be read (when it is reached).
        OptionError: the size is not known.
    """
    root = Path(path)
    labels = root / "labels" if (root / "labels").is_dir() else root
    files = sorted(labels.glob("*.txt"), key=lambda file: natural_order(file.name)) if labels.is_dir() else []
    if not files:
        raise MaskError(f"{labels}: expected label files such as 00000.txt, got none; name the folder that has them")
    root = labels.parent if labels.name == "labels" else labels
    about = _text_of(root / "data.yaml") if (root / "data.yaml").is_file() else ""
    known = size or _size_in(root, about)
    names = _class_names(about)
    return ((file.stem, _ids(file, names, known)) for file in files)


def _size_in(root: Path, about: str) -> tuple[int, int]:
    if (root / "images").is_dir():
        shape = to_frame(image_files(root / "images")[0]).shape
        return shape[1], shape[2]
    stated = re.search(r"^frame_size: \[([0-9]{1,6}), ([0-9]{1,6})\]$", about, re.MULTILINE)
    if stated is None:
        raise OptionError(
            f"{root}: labels have no size, and there are no images beside them; pass the size, or the frames"
        )
    size = (int(stated[1]), int(stated[2]))
    if not 0 < size[0] * size[1] <= LARGEST_MASK:
        raise MaskError(
            f"{root / 'data.yaml'}: expected frames of 1 to {LARGEST_MASK:,} pixels, got {size[0]} x {size[1]}; the "
            "file is damaged"
        )
    return size


def _text_of(file: Path) -> str:
    if file.stat().st_size > MOST_BYTES:
        raise MaskError(
            f"{file}: expected a file of labels, got one of more than {MOST_BYTES >> 20} MB; is it another file?"
        )
    return file.read_text(encoding="utf-8", errors="replace")


def _class_names(text: str) -> dict[int, str]:
    """The classes that a `data.yaml` names, as this library and Ultralytics write them: a number and a name a line."""
    found = re.findall(r"^\s+([0-9]{1,6}):\s*[\"']?(.*?)[\"']?\s*$", text, re.MULTILINE)
    return {int(number): name for number, name in found}


def _ids(file: Path, names: dict[int, str], size: tuple[int, int]) -> Ids:
    rows = list[tuple[int, list[float]]]()
    for number, line in enumerate(_text_of(file).splitlines(), start=1):
        try:
            words = line.split()
            kind, shares = words[0] if words else "", words[1:]
            if kind:
                rows.append((int(kind), [float(share) for share in shares]))
        except ValueError as error:
            raise MaskError(
                f"{file}: line {number}: expected a class and numbers, got {line[:40]!r}; is it a label file?"
            ) from error
        if kind and len(shares) == 4:
            raise MaskError(
                f"{file}: line {number}: expected a polygon, got a box; a box says too little of a mask: use labels "
                "for segmentation"
            )
    named = [_id_named(names.get(kind, "")) for kind, _ in rows]
    taken = set(named)
    free = (number for number in range(1, len(rows) + len(taken) + 1) if number not in taken)
    ids = np.zeros(size, np.int32)
    for object_id, (_, numbers) in zip(named, rows, strict=True):
        mask = np.zeros(size, np.bool_)
        draw_polygon(mask, polygon_points(numbers, name=str(file)) * (size[1], size[0]))
        ids[mask] = next(free) if object_id is None else object_id
    return ids


def _id_named(kind: str) -> int | None:
    """The id in the name of a class of one object, see `YoloWriter`."""
    match = re.fullmatch(r"object ([0-9]{1,10})", kind)
    return int(match[1]) if match is not None and 0 < int(match[1]) < 2**31 else None
