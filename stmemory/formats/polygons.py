"""Outlines of masks as polygons, and the text files of YOLO."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import MaskError, OptionError
from stmemory.formats.base import Labelled, MaskWriter, new_folder, spool_beside
from stmemory.io.files import whole_file
from stmemory.io.frames import to_frame
from stmemory.io.images import image_files, natural_order
from stmemory.io.palette import Ids
from stmemory.io.rle import LARGEST_MASK

__all__ = ["YoloWriter", "draw_polygon", "is_hole", "joined_rings", "polygon_points", "read_yolo", "rings_of"]

Points = NDArray[np.float64]  # [n, 2], x and y in px
MOST_CORNERS = 100_000  # of one polygon in a file


def rings_of(mask: NDArray[np.bool_]) -> list[Points]:
    """The outlines of a mask's regions and of the holes in them.

    Args:
        mask: `[H, W]`.

    Returns:
        Closed rings of corners `[n, 2]`, x and y in px from the top left, without the first corner again at the end.
        The inside is on the right of the way: regions go clockwise as they are seen, holes the other way round. Pixels
        that touch at a corner alone are of two regions.

    >>> [ring.tolist() for ring in rings_of(np.array([[False, True]]))]
    [[[1.0, 0.0], [2.0, 0.0], [2.0, 1.0], [1.0, 1.0]]]
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), np.bool_)
    padded[1:-1, 1:-1] = mask
    here, above, left = padded[1:, 1:], padded[:-1, 1:], padded[1:, :-1]
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}  # from each corner the steps that leave it
    for edges, start, step in (
        (here & ~above, (0, 0), (1, 0)),  # a top side goes right
        (~here & above, (1, 0), (-1, 0)),  # a bottom side goes left
        (~here & left, (0, 0), (0, 1)),  # a right side goes down
        (here & ~left, (0, 1), (0, -1)),  # a left side goes up
    ):
        for y, x in np.argwhere(edges).tolist():
            after.setdefault((x + start[0], y + start[1]), []).append(step)
    rings = []
    for begin in list(after):
        while after.get(begin):
            rings.append(_walk(after, begin))
    return rings


def is_hole(ring: Points) -> bool:
    """Whether a ring of `rings_of` goes round a hole.

    Args:
        ring: `[n, 2]`.

    >>> [is_hole(ring) for ring in rings_of(np.array([[True] * 3, [True, False, True], [True] * 3]))]
    [False, True]
    """
    x, y = ring[:, 0], ring[:, 1]
    return bool((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() < 0)


def joined_rings(rings: Sequence[Points]) -> Points:
    """One ring of several, for formats that have one polygon an object: lines of no width lead from one to the next and
    back.

    Args:
        rings: one or more, as `rings_of` gives them.

    >>> squares = [np.array([[x, 0], [x + 1, 0], [x + 1, 1], [x, 1]], np.float64) for x in (0, 4)]
    >>> len(joined_rings(squares))
    10
    """
    joined = [np.concatenate([ring, ring[:1]]) for ring in rings[1:]]
    back = [ring[:1] for ring in rings[-2:0:-1]]
    return np.concatenate([rings[0], rings[0][:1], *joined, *back]) if joined else rings[0]


def draw_polygon(mask: NDArray[np.bool_], points: Points) -> None:
    """Fill a polygon, over what is there. Where it runs over itself, an even number of times is outside.

    Args:
        mask: `[H, W]`, which is changed. What lies outside of it is left out.
        points: `[n, 2]`, x and y in px.

    >>> mask = np.zeros((2, 3), np.bool_)
    >>> draw_polygon(mask, np.array([[1, 0], [3, 0], [3, 1], [1, 1]], np.float64))
    >>> mask.astype(int).tolist()
    [[0, 1, 1], [0, 0, 0]]
    """
    height, width = mask.shape
    flips = np.zeros((height, width + 1), np.bool_)
    for (x0, y0), (x1, y1) in zip(points.tolist(), np.roll(points, -1, axis=0).tolist(), strict=True):
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        first, last = max(0, math.ceil(y0 - 0.5)), min(height, math.ceil(y1 - 0.5))  # rows whose centres it crosses
        if first >= last:
            continue
        rows = np.arange(first, last)
        crossing = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        flips[rows, np.ceil(crossing - 0.5).clip(0, width).astype(np.int64)] ^= True
    mask |= np.logical_xor.accumulate(flips, axis=1)[:, :width]


def polygon_points(values: object, *, name: str) -> Points:
    """The corners of a polygon that stands in a file as a flat list of x and y.

    Args:
        values: numbers.
        name: name of the frame, for the message.

    Returns:
        `[n, 2]`.

    Raises:
        MaskError: it is no list of at least three corners, or a number is not finite.

    >>> polygon_points([0, 0, 4, 0, 4, 2], name="00000").shape
    (3, 2)
    """
    numbers = values if isinstance(values, list) else []
    if (
        not 6 <= len(numbers) <= 2 * MOST_CORNERS
        or len(numbers) % 2
        or not all(isinstance(n, (int, float)) and abs(n) < 1e9 for n in numbers)
    ):
        raise MaskError(
            f"{name}: expected a polygon of three corners or more, as finite numbers x, y, x, y, ..., got another "
            "value; the file is damaged"
        )
    return np.array(numbers, np.float64).reshape(-1, 2)


def _walk(after: dict[tuple[int, int], list[tuple[int, int]]], begin: tuple[int, int]) -> Points:
    """Follow one ring, and take its steps away."""
    corners, place, way = list[tuple[int, int]](), begin, (0, 0)
    while True:
        steps, right = after[place], (-way[1], way[0])
        # where two ways lead on, the right turn keeps regions apart that touch at a corner alone
        if corners and place == begin and right not in steps:
            break
        step = right if right in steps else steps[0]
        steps.remove(step)
        if step != way:
            corners.append(place)
        place, way = (place[0] + step[0], place[1] + step[1]), step
    if _straight(corners[-1], corners[0], corners[1]):
        corners = corners[1:]
    return np.array(corners, np.float64)


def _straight(before: tuple[int, int], corner: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether no turn is made at a corner."""
    return (corner[0] - before[0]) * (after[1] - corner[1]) == (corner[1] - before[1]) * (after[0] - corner[0])


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
            f"{root / 'data.yaml'}: expected frames of 1 to {LARGEST_MASK:,} "
            f"pixels, got {size[0]} x {size[1]}; the file is damaged"
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
                f"{file}: line {number}: expected a polygon, got a box; a "
                "box says too little of a mask: use labels for segmentation"
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
