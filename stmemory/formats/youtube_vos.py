"""YouTube-VOS: palette PNGs in `Annotations/VIDEO`, and `meta.json`, which lists each object's frames.

The layouts in which data sets come for evaluation are those of `evaluation/layouts.py`, which reads what is written
here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from stmemory.errors import OptionError
from stmemory.files import whole_file
from stmemory.formats.davis import read_davis, write_named_palette_png
from stmemory.formats.spool import spool_beside, write_list
from stmemory.formats.writer import Ids, Labelled, MaskWriter, new_folder
from stmemory.untrusted import checked_name, expect_below, read_json

__all__ = ["YouTubeVosWriter", "read_youtube_vos"]


class YouTubeVosWriter(MaskWriter):
    """Writes `ROOT/Annotations/VIDEO/<frame>.png` and, at the end, the video's entry in `ROOT/meta.json`.

    Other videos in `meta.json` stay, so that one folder can be filled video by video. Ids 1 to 254.

    Args:
        path: ROOT; for the layout of the data set it is called `train` or `valid`. Frames are not copied: they belong
            into `ROOT/JPEGImages/VIDEO`.
        video: the video's name; its folder of annotations must be new or empty.
        categories: for an id, what the object is; others are an "object".

    >>> import numpy, tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with YouTubeVosWriter(root, video="walk", categories={7: "dog"}) as out:
    ...         out.add(numpy.array([[0, 7]]))
    ...     json.loads(Path(root, "meta.json").read_text())
    {'videos': {'walk': {'objects': {'7': {'category': 'dog', 'frames': ['00000']}}}}}
    """

    def __init__(
        self, path: str | os.PathLike[str], *, video: str = "video", categories: Mapping[int, str] | None = None
    ) -> None:
        super().__init__(path)
        if checked_name(video, what="video").startswith("."):
            raise OptionError(
                f"video: expected the name of a folder that is not hidden, got {video!r}; name it without the point"
            )
        self._video, self._categories = video, dict(categories or {})
        self._meta = self.path / "meta.json"
        _other_videos(self._meta, video)  # an unreadable one is told before the work, not after it
        expect_below(self.path / "Annotations" / video, self.path)
        self._folder = new_folder(self.path / "Annotations" / video)
        self._spool = self._stack.enter_context(spool_beside(self._meta))
        self._known: set[int] = set()

    def _write(self, frame: Labelled) -> None:
        write_named_palette_png(self._folder, frame)
        for object_id in frame.shown:
            self._known.add(object_id)
            self._spool.append(str(object_id), [frame.name])

    def _finish(self) -> None:
        with whole_file(self._meta) as part, part.open("w", encoding="utf-8") as out:
            out.write('{"videos": {')
            for name, entry in _other_videos(self._meta, self._video).items():
                out.write(f"{json.dumps(name)}: {json.dumps(entry)}, ")
            out.write(f'{json.dumps(self._video)}: {{"objects": {{')
            for number, object_id in enumerate(sorted(self._known)):
                category = json.dumps(self._categories.get(object_id, "object"))
                out.write(f'{", " * bool(number)}"{object_id}": {{"category": {category}, "frames": ')
                write_list(out, (row[0] for row in self._spool.rows(str(object_id))))
                out.write("}")
            out.write("}}}}")


def read_youtube_vos(path: str | os.PathLike[str], *, video: str | None = None) -> Iterator[tuple[str, Ids]]:
    """Read a video's annotations. A data set whose masks are to be scored is read by `find_data_set` instead.

    Args:
        path: the folder with `meta.json` and `Annotations`.
        video: its name; None takes the only one.

    Returns:
        Names without endings, and ids int32 `[H, W]`, as `read_davis` gives them.

    Raises:
        OptionError: there is no such video, or more than one and none named.
        MaskError: it has no masks, or one of them cannot be read.
        FrameError: the size changes.
    """
    folder = Path(path) / "Annotations"
    names = sorted(each.name for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    if video is None and len(names) == 1:
        video = names[0]
    if video not in names:
        told = ", ".join(names[:9]) + (", ..." if len(names) > 9 else "")
        raise OptionError(f"video: expected one of {folder} ({told or 'which has none'}), got {video!r}; name it")
    return read_davis(folder / str(video))


def _other_videos(meta: Path, video: str) -> dict[str, object]:
    """What a `meta.json` says of other videos; nothing where there is none."""
    if not meta.exists():
        return {}
    try:
        videos = dict(read_json(meta)["videos"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f'{meta}: expected {{"videos": {{...}}}}, got {error!r}; move it away, or write to another folder'
        ) from error
    return {str(name): entry for name, entry in videos.items() if name != video}
