"""YouTube-VIS: one JSON a video, each object's masks as a list of COCO RLEs, null where it is absent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stmemory.errors import MaskError, OptionError
from stmemory.formats.document import blank_ids, categories_of, draw_segmentation, load_document, rows_in, stem_of
from stmemory.formats.rle import box_of, encode_rle
from stmemory.formats.spool import column, spool_beside, write_list
from stmemory.formats.writer import Ids, Labelled, MaskWriter
from stmemory.untrusted import whole

__all__ = ["YouTubeVisWriter", "read_youtube_vis"]


class YouTubeVisWriter(MaskWriter):
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
        super().__init__(path)
        self._files = dict(file_names or {})
        self._video, self._categories = video, dict(categories or {})
        self._size: tuple[int, ...] = ()
        self._known: set[int] = set()
        self._part = self._whole(".json")
        self._spool = self._stack.enter_context(spool_beside(self.path))

    def _write(self, frame: Labelled) -> None:
        self._size = frame.ids.shape
        self._spool.append("names", [f"{self._video}/{self._files.get(frame.name, f'{frame.name}.jpg')}"])
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
        told = ", ".join(list(videos)[:9]) + (", ..." if len(videos) > 9 else "")
        raise OptionError(
            f"video: expected one of {os.fspath(path)} ({told or 'which has none'}), got {video!r}; name it"
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
    return _each(names, blank, masks)


def _name_of(video: Mapping[str, Any]) -> str:
    """The folder in a video's file names; its id where they have none."""
    names = video.get("file_names")
    folder = Path(str(names[0])).parent.as_posix() if isinstance(names, list) and names else "."
    return str(video.get("id")) if folder == "." else folder


def _each(names: list[str], blank: Ids, masks: dict[int, list[object]]) -> Iterator[tuple[str, Ids]]:
    for index, name in enumerate(names):
        ids = blank.copy()
        for object_id, rows in sorted(masks.items()):
            if rows[index] is not None:
                draw_segmentation(ids, object_id, rows[index], name=name)
        yield name, ids
