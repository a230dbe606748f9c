"""What writers and readers of masks share: the protocol, documents, folders, and the pairing of masks with frames."""

from __future__ import annotations

import functools
import itertools
import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, final

import numpy as np
import torch
from torch import Tensor

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.io.files import whole_file
from stmemory.io.frames import iterate_frames, to_frame
from stmemory.io.images import image_files
from stmemory.io.palette import Ids, object_ids_in, read_mask
from stmemory.io.untrusted import checked_name, read_json
from stmemory.result import Segmentation
from stmemory.types import FrameLike, MaskLike, VideoLike

__all__ = [
    "DocumentWriter",
    "Labelled",
    "MaskWriter",
    "Spool",
    "column",
    "ids_of",
    "new_file",
    "new_folder",
    "read_document",
    "spool_beside",
    "with_frames",
    "write_list",
]


@dataclass(frozen=True, eq=False)
class Labelled:
    """One frame on its way into a file.

    Attributes:
        index: index of the frame among those added, from 0.
        name: name of its file, without an ending.
        ids: int32 `[H, W]`, 0 = background.
        shown: the objects that have a pixel in `ids`, sorted.
        tracked: the objects that the result knows of, seen or not, sorted; those shown are among them.
        picture: float32 `[3, H, W]` in [0, 1]; None where the format draws none.
        scores: confidence of each object's mask, where it is known.
        result: the result that was added, where it was one and not ids alone.
    """

    index: int
    name: str
    ids: Ids
    shown: tuple[int, ...]
    tracked: tuple[int, ...]
    picture: Tensor | None
    scores: Mapping[int, float] = field(default_factory=dict)
    result: Segmentation | None = None


class MaskWriter(ABC):
    """Takes results one at a time and keeps none; a context manager.

    At the end of the `with` block the complete file is put in its place. An error or ctrl-C inside the block leaves no
    part of a file, and what was at the path before; in a folder, the complete files stay.

    Args:
        path: a file, which is replaced if it is there; or a folder, which must be new or empty.
    """

    draws = False  # whether frames are needed

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.count = 0
        self._shape: tuple[int, ...] | None = None
        self._open = True
        self._stack = ExitStack()  # what is to be finished or thrown away

    @final
    def add(self, masks: Segmentation | MaskLike, *, name: str | None = None, frame: FrameLike | None = None) -> None:
        """Append one frame's masks.

        Args:
            masks: a `Segmentation`; or ids, integers `[H, W]`, as an array, a tensor, a PIL image or a path.
            name: name of the frame's file, without an ending; None numbers from `00000` on, a `Segmentation` by its
                `frame_index`.
            frame: the frame itself, of any kind that `to_frame` takes; only formats that draw need it.

        Raises:
            FrameError: the size changed, or the frame is missing, of another size, or cannot be used.
            MaskError: the ids cannot be used, or the format cannot hold them.
            OptionError: the name cannot be a file's, is that of a file which is there, or the writer is closed.
        """
        if not self._open:
            raise OptionError(f"{self.path}: expected an open writer, got one that is closed; make a new one")
        ids = ids_of(masks)
        number = masks.frame_index if isinstance(masks, Segmentation) else self.count
        name = f"{number:05d}" if name is None else name
        if checked_name(name, what="name", ending=".png").startswith("."):
            raise OptionError(f"name: expected the name of a file that is not hidden, such as '00012', got {name!r}")
        if self._shape not in (None, ids.shape):
            raise FrameError(
                f"{name}: expected masks of the size of those before, "
                f"{self._shape} (H, W), got {ids.shape}; write them to another file"
            )
        picture = self._picture(frame, name, ids) if self.draws else None
        known = masks.object_ids if isinstance(masks, Segmentation) else ()
        shown = object_ids_in(ids)
        scores = masks.scores if isinstance(masks, Segmentation) else {}
        result = masks if isinstance(masks, Segmentation) else None
        self._write(Labelled(self.count, name, ids, shown, tuple(sorted({*known, *shown})), picture, scores, result))
        self._shape = ids.shape
        self.count += 1

    @final
    def close(self) -> None:
        """Put the file in its place. Further calls do nothing.

        Raises:
            FrameError: nothing was added; no file is made.
        """
        if not self._open:
            return
        self._open = False
        with self._stack:
            if not self.count:
                raise FrameError(f"{self.path}: expected at least one frame, got none; no file was made")
            self._finish()

    @abstractmethod
    def _write(self, frame: Labelled) -> None:
        """Write one frame, which has been checked."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what comes after the last frame; what `_stack` holds is closed after that."""

    @final
    def _whole(self, *endings: str) -> Path:
        """Where to write the file, which has one of these endings and appears when it is complete."""
        if self.path.is_dir():  # an error now, not when all the work is done
            raise OptionError(f"{self.path}: expected the name of a file, got a folder; name a file in it")
        if self.path.suffix.lower() not in endings:  # other programs, and `guess_format`, go by it
            wanted = " or ".join(endings)
            raise OptionError(
                f"{self.path}: expected a name that ends in {wanted}, got "
                f"{self.path.name!r}; add it, or choose another format"
            )
        return self._stack.enter_context(whole_file(self.path))

    @final
    def _picture(self, frame: FrameLike | None, name: str, ids: Ids) -> Tensor:
        if frame is None:
            raise FrameError(
                f"{name}: {type(self).__name__} draws the frame, and got none; pass add(result, frame=frame)"
            )
        picture = to_frame(frame).cpu()
        if picture.shape[1:] != ids.shape:
            raise FrameError(
                f"{name}: expected a frame of the masks' size, {ids.shape} (H, W), got {tuple(picture.shape[1:])}; "
                "pass the frame that was segmented"
            )
        return picture

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._open = False
            self._stack.__exit__(kind, error, trace)


class DocumentWriter(MaskWriter):
    """A writer of one document about all frames. Rows can wait in files beside it, so that memory does not grow.

    Args:
        path: the document.
        ending: the ending that its name must have.
        categories: for an id, what the object is.
        file_names: for the name of a mask, that of its frame's file; others are called NAME.jpg.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        ending: str,
        *,
        categories: Mapping[int, str] | None = None,
        file_names: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(path)
        self._categories, self._files = dict(categories or {}), dict(file_names or {})
        self._known = set[int]()  # the objects that were shown
        self._part = self._whole(ending)

    @final
    @functools.cached_property
    def _spool(self) -> Spool:
        return self._stack.enter_context(spool_beside(self.path))

    @final
    def _file_of(self, frame: Labelled) -> str:
        """The name of the frame's file."""
        return self._files.get(frame.name, f"{frame.name}.jpg")


def read_document(path: str | os.PathLike[str], wanted: str) -> object:
    """The values of a JSON file of masks.

    Args:
        path: the file.
        wanted: what it should be, for the message.

    Raises:
        MaskError: it cannot be read.

    >>> read_document("no/such/file.json", "a JSON file")
    Traceback (most recent call last):
    stmemory.errors.MaskError: no/such/file.json: expected a JSON file, got: No such file or directory
    """
    try:
        document: object = read_json(path)
    except OSError as error:
        raise MaskError(f"{os.fspath(path)}: expected {wanted}, got: {error.strerror}") from error
    except OptionError as error:
        raise MaskError(f"{error} ({wanted} is wanted)") from error
    return document


def ids_of(masks: Segmentation | MaskLike) -> Ids:
    """Take the ids of one frame out of whatever holds them.

    Args:
        masks: a `Segmentation`; or ids, integers or booleans `[H, W]`, of any kind that `read_mask` takes.

    Returns:
        int32 `[H, W]`, 0 = background. Void pixels (255 in a palette image, or beside other ids in bytes) are
        background.

    Raises:
        MaskError: there are no ids, or they are negative or above int32.

    >>> ids_of(np.array([[0, 300]])).tolist()
    [[0, 300]]
    """
    if isinstance(masks, Segmentation):
        found: Ids = masks.ids.detach().cpu().numpy().astype(np.int32)
        return found
    values, void = read_mask(masks)
    if values.ndim != 2 or values.numel() == 0 or values.is_floating_point():
        raise MaskError(
            f"masks: expected a Segmentation, or integer ids [H, W], got {values.dtype} {tuple(values.shape)}; soft "
            "maps become ids by argmax"
        )
    if void is not None:
        values = values.masked_fill(values == void, 0)
    if values.dtype != torch.bool and (int(values.min()) < 0 or int(values.max()) >= 2**31):
        raise MaskError(
            f"masks: expected ids from 0 to {2**31 - 1}, got "
            f"{int(values.min())} to {int(values.max())}; 0 is background"
        )
    ids: Ids = values.cpu().numpy().astype(np.int32)
    return ids


def new_file(folder: Path, frame: Labelled) -> Path:
    """Where a frame's PNG goes.

    Args:
        folder: folder of the PNGs.
        frame: the frame.

    Raises:
        OptionError: there is a file of that name already.

    >>> new_file(Path("no/such/folder"), Labelled(0, "00000", np.zeros((1, 2), np.int32), (), (), None)).as_posix()
    'no/such/folder/00000.png'
    """
    path = folder / f"{frame.name}.png"
    if path.exists():
        raise OptionError(f"{path}: expected a name for each frame, got {frame.name!r} twice; name them apart")
    return path


def new_folder(path: Path) -> Path:
    """Make a folder, or take one that is there and empty.

    Args:
        path: path of the folder.

    Raises:
        OptionError: it is a file, or something is in it.

    >>> new_folder(Path("."))
    Traceback (most recent call last):
    stmemory.errors.OptionError: .: expected a new folder or an empty one, got one with files in it; delete it, or name
    another
    """
    if path.exists() and not path.is_dir():
        raise OptionError(f"{path}: expected a folder, got a file; name another")
    if path.is_dir() and any(path.iterdir()):
        raise OptionError(
            f"{path}: expected a new folder or an empty one, got one with files in it; delete it, or name another"
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


class Spool:
    """Appends rows to named files in a folder, and reads them back.

    Args:
        folder: an empty folder; its maker removes it.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spool = Spool(Path(folder))
    ...     spool.append("7", [0, "a"])
    ...     list(spool.rows("7")), list(spool.rows("8"))
    ([[0, 'a']], [])
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, name: str, row: object) -> None:
        """Append a row, which JSON can hold. No file is kept open, since there may be many."""
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self, name: str) -> Iterator[list[Any]]:
        """Read the rows of a name, in order; none if nothing was appended."""
        path = self._folder / name
        if path.exists():
            with path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)


@contextmanager
def spool_beside(path: Path) -> Iterator[Spool]:
    """A spool in a hidden folder beside a file that is being written; the folder is removed at the end.

    Args:
        path: path of the file. Missing parent folders are made.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with spool_beside(Path(folder, "a.json")) as spool:
    ...         spool.append("7", [0, "a"])
    ...     list(Path(folder).iterdir())
    []
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem[:20]}.", dir=path.parent) as folder:
        yield Spool(Path(folder))


def column(rows: Iterable[list[Any]], place: int, length: int) -> Iterator[object]:
    """One value of each row, at the position that its first value says; None in between.

    Args:
        rows: each begins with its position, rising.
        place: place of the value in the row.
        length: length of the whole.

    >>> list(column([[1, "a"], [3, "b"]], 1, 5))
    [None, 'a', None, 'b', None]
    """
    at = 0
    for row in rows:
        position: int = row[0]
        yield from itertools.repeat(None, position - at)
        yield row[place]
        at = position + 1
    yield from itertools.repeat(None, length - at)


def write_list(out: TextIO, items: Iterable[object]) -> None:
    """Write a JSON list, item by item.

    Args:
        out: an open file.
        items: what JSON can hold.

    >>> import sys
    >>> write_list(sys.stdout, [1, None])
    [1, null]
    """
    out.write("[")
    for number, item in enumerate(items):
        out.write((", " if number else "") + json.dumps(item))
    out.write("]")


def with_frames(masks: Iterator[tuple[str, Ids]], frames: VideoLike) -> Iterator[tuple[str, Ids, FrameLike]]:
    """Give each mask its frame: by name, else by number, else in order. Holds one frame.

    Args:
        masks: names and ids.
        frames: a clip in any form that `iterate_frames` takes. In a folder of images a mask's frame has its name; if
            the first mask has no such frame, or the clip is no folder, a mask whose name is a number is of the frame
            with that number, from 0; masks with other names are of the frames in order.

    Returns:
        Names, ids and frames.

    Raises:
        FrameError: a mask has no frame; or as `iterate_frames`.

    >>> import numpy as np
    >>> masks = [("00001", np.zeros((1, 2), np.int32))]
    >>> clip = [np.full((1, 2, 3), grey, np.uint8) for grey in (0, 255)]
    >>> [(name, int(frame[0, 0, 0])) for name, _, frame in with_frames(iter(masks), clip)]
    [('00001', 1)]
    """
    if isinstance(frames, str | Path) and Path(frames).is_dir():
        by_name = {file.stem: file for file in image_files(Path(frames))}
        return _by_name(masks, by_name, Path(frames))
    return _by_number(masks, frames)


def _by_name(
    masks: Iterator[tuple[str, Ids]], files: dict[str, Path], folder: Path
) -> Iterator[tuple[str, Ids, FrameLike]]:
    named = None
    for name, ids in masks:
        if named is None:
            named = name in files
            if not named:
                yield from _by_number(_again(name, ids, masks), folder)
                return
        if name not in files:
            raise FrameError(
                f"{folder}: expected a frame {name}, as its mask is "
                "called, got none; pass the folder that was segmented"
            )
        yield name, ids, files[name]


def _by_number(masks: Iterator[tuple[str, Ids]], frames: VideoLike) -> Iterator[tuple[str, Ids, FrameLike]]:
    clip = iterate_frames(frames)
    position, frame = -1, torch.empty(0)  # before the first frame
    for index, (name, ids) in enumerate(masks):
        wanted = int(name) if name.isdecimal() else index
        if wanted < position:
            raise FrameError(
                f"{name}: expected masks in the order of the frames, got "
                f"this one after number {position}; number them all, or none"
            )
        while position < wanted:
            following = next(clip, None)
            position += 1
            if following is None:
                raise FrameError(
                    f"frames: expected one for the mask {name}, got only {position}; pass the clip that was segmented"
                )
            frame = following
        yield name, ids, frame


def _again(name: str, ids: Ids, rest: Iterator[tuple[str, Ids]]) -> Iterator[tuple[str, Ids]]:
    yield name, ids
    yield from rest
