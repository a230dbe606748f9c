"""An evaluation's output folder: what lies where, what it is of, and which clips are finished.

    OUT/run.json                     what is evaluated and how; written first
    OUT/Annotations/CLIP/00000.png   predicted masks, palette PNGs by the frames' names
    OUT/clips/CLIP.json              scores of a clip, written when all its masks are there: the clip is finished
    OUT/*.csv, OUT/report.json       written when the run ends; OUT/page, OUT/submission.zip if wanted

Files that `run.json` does not say a run wrote are the user's, and are not deleted.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stmemory.errors import OptionError
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.metrics import ObjectScores, statistics
from stmemory.evaluation.protocol import ClipResult
from stmemory.evaluation.report import TABLES
from stmemory.io.files import expect_folder, whole_file
from stmemory.io.run_folder import expect_same, foreign_files, read_record, write_record
from stmemory.io.untrusted import checked_name, expect_below, parse_json, read_json, whole

__all__ = ["RunFolder"]

FORMAT = "stmemory.evaluation 1"
# Facts that a run may change and still be the same.
FREE = ("source", "clips")
_FOLDERS = ("Annotations", "clips", "page", "submission.zip", "report.json", *TABLES)


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        path: of the folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path:
    ...     folder = RunFolder(Path(path))
    ...     folder.begin({"split": "val", "clips": []}, resume=False, force=False)
    ...     sorted(file.name for file in folder.path.iterdir())
    ['run.json']
    """

    path: Path

    @property
    def record(self) -> Path:
        """File of the run's record."""
        return self.path / "run.json"

    @property
    def page(self) -> Path:
        """Folder of the page of plots."""
        return self.path / "page"

    @property
    def submission(self) -> Path:
        """File for a server."""
        return self.path / "submission.zip"

    @property
    def finished(self) -> tuple[str, ...]:
        """Names of the clips whose scores are on disk: what an interrupted run kept."""
        return tuple(sorted(file.stem for file in (self.path / "clips").glob("*.json")))

    def masks_of(self, clip: str) -> Path:
        """Folder of a clip's predicted masks.

        Raises:
            OptionError: the clip's name is not that of a folder.
        """
        return self.path / "Annotations" / _checked(clip)

    def mask_of(self, clip: Clip, index: int) -> Path:
        """File of a frame's predicted mask."""
        return self.masks_of(clip.name) / f"{clip.frame_paths[index].stem}.png"

    def check(self, record: Mapping[str, object], *, resume: bool, force: bool) -> None:
        """Refuse what would end badly, before anything is done; changes nothing.

        Args:
            record: what is evaluated and how, plain JSON values; `clips` are its names.
            resume: go on with the run in the folder.
            force: begin again though there is one.

        Raises:
            OptionError: there are results already, or files that no run wrote; there is nothing to resume, or the run
                there is another one; a clip has a name that no folder can have, or a link leads out of the folder.
        """
        expect_folder(self.path)
        for name in (*_FOLDERS, "run.json"):
            expect_below(self.path / name, self.path)
        old = self._recorded()
        for clip in (*_clips_of(record), *_clips_of(old or {})):
            expect_below(self.masks_of(clip), self.path)
        if old is None:
            there = [
                name
                for name in ("run.json", "Annotations", "clips", "page", "report.json", *TABLES)
                if (self.path / name).exists()
            ]
            if there:
                found = "a run.json that cannot be read" if there[0] == "run.json" else f"{there[0]} without a run.json"
                raise foreign_files(self.path, found, of="an evaluation")
            if resume:
                raise OptionError(
                    f"{self.path}: nothing to resume: no evaluation was begun there; leave out resume=True"
                )
            return
        if resume:
            new = parse_json(json.dumps({"format": FORMAT, **record}))
            expect_same(self.path, "evaluation", old, new, free=FREE)
        elif not force:
            done = len(self.finished)
            raise OptionError(
                f"{self.path}: expected no evaluation yet, got one with {done} finished clip{'s' * (done != 1)}; pass "
                "resume=True to go on, force=True to begin again, or choose another folder"
            )

    def begin(self, record: Mapping[str, object], *, resume: bool, force: bool) -> None:
        """Make the folder ready: check it, delete what an earlier run wrote if that is forced, and write the record.

        Raises:
            OptionError: see `check`.
        """
        self.check(record, resume=resume, force=force)
        old = self._recorded()
        clips = _clips_of(old or {})
        if not resume and old is not None:
            for clip in clips:
                self.clear(clip)
            pages = [self.page / f"{clip}{ending}.png" for clip in clips for ending in ("", "_worst")]
            _remove((*pages, self.page / "index.md"), self.page)
            for name in (*TABLES, "report.json", "submission.zip"):
                (self.path / name).unlink(missing_ok=True)
            clips = []
        both = sorted({*clips, *_clips_of(record)})
        write_record(self.record, {"format": FORMAT, **record, "clips": both})

    def clear(self, clip: str) -> None:
        """Delete a clip's masks and scores, whole or half written; what else lies in their folder stays.

        Raises:
            OptionError: the run's record does not name the clip, or a link leads out of the folder.
        """
        if clip not in _clips_of(self._recorded() or {}):
            raise OptionError(
                f"{self.path}: expected a run whose record names the clip {clip}, got another; nothing of it was "
                "deleted"
            )
        result, masks = self._result(clip), self.masks_of(clip)
        for place in (result, masks):
            expect_below(place, self.path)
        result.unlink(missing_ok=True)
        _remove(
            result.parent.glob(f".{glob.escape(result.name)}.[0-9]*"), None
        )  # a process that was killed leaves its part
        _remove((*masks.glob("*.png"), *masks.glob(".*.png.[0-9]*")), masks)

    def finish(self, clip: Clip, result: ClipResult) -> None:
        """Write a clip's scores: from now on it is finished."""
        document: dict[str, Any] = {"files": _files_digest(clip), "result": dataclasses.asdict(result)}
        for scores in document["result"]["objects"]:
            for measure in ("region", "boundary"):
                scores[measure] = scores[measure]["per_frame"]
        with whole_file(self._result(clip.name)) as part:
            part.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")

    def result_of(self, clip: Clip) -> ClipResult | None:
        """A finished clip's scores, just as they were; None for others, and where a mask of it is missing.

        Raises:
            OptionError: the clip's files are not those that were measured.
        """
        try:
            document = read_json(self._result(clip.name))
            found = _result_from(document["result"], clip.name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # not finished, or damaged: it is done again
        if document.get("files") != _files_digest(clip):
            raise OptionError(
                f"{clip.name}: expected the frames and annotations that the finished run measured, got other files; "
                "begin again with force=True"
            )
        wanted = range(len(clip)) if clip.asked is None else clip.asked
        return found if all(self.mask_of(clip, index).is_file() for index in wanted) else None

    def write_submission(self, clips: Sequence[Clip], inside: str) -> Path:
        """Pack the masks for a server.

        Args:
            clips: whose masks.
            inside: folder inside the zip; empty for none.

        Returns:
            The file; equal masks give equal bytes.
        """
        with whole_file(self.submission) as part, zipfile.ZipFile(part, "w") as archive:
            for clip in clips:
                for file in sorted(self.masks_of(clip.name).glob("*.png")):
                    if file.name[0] == ".":
                        continue
                    expect_below(file, self.path)  # a link would put another file into the archive
                    name = "/".join(filter(None, (inside, clip.name, file.name)))
                    archive.writestr(zipfile.ZipInfo(name), file.read_bytes())
        return self.submission

    def _result(self, clip: str) -> Path:
        return self.path / "clips" / f"{_checked(clip)}.json"

    def _recorded(self) -> dict[str, Any] | None:
        """What `run.json` says; None where there is none of an evaluation, or where its clips are no names."""
        found = read_record(self.record, FORMAT)
        return found if found is not None and _are_names(found.get("clips")) else None


def _checked(clip: str) -> str:
    """A clip's name, which files and folders are called by."""
    return checked_name(clip, what="clip", ending="_worst.png")


def _are_names(clips: object) -> bool:
    try:
        return isinstance(clips, list) and all(_checked(clip) == clip for clip in clips)
    except OptionError:
        return False


def _clips_of(record: Mapping[str, object]) -> list[str]:
    """Names of the clips of a record."""
    clips = record.get("clips")
    return [_checked(clip) for clip in clips] if isinstance(clips, list | tuple) else []


def _remove(files: Iterable[Path], folder: Path | None) -> None:
    """Remove files, never folders, and the folder that they lay in if nothing else is in it."""
    for file in files:
        if file.is_file() or file.is_symlink():
            file.unlink(missing_ok=True)
    with suppress(OSError):
        if folder is not None:
            folder.rmdir()


def _files_digest(clip: Clip) -> str:
    """A short name of a clip's files: names and sizes of frames, names and bytes of true masks, which are small."""
    digest = hashlib.sha256()
    for path in (*clip.frame_paths, *clip.annotation_paths, *clip.void_paths):
        digest.update(b"-" if path is None else f"{path.name} {path.stat().st_size}\n".encode())
    for path in (*clip.annotation_paths, *clip.void_paths):
        digest.update(b"" if path is None else path.read_bytes())
    return digest.hexdigest()[:16]


def _result_from(fields: Mapping[str, Any], clip: str) -> ClipResult:
    """A result as `finish` wrote it.

    Raises:
        ValueError: it says something else, or is of another clip.
        KeyError, TypeError, AttributeError: something is missing, or of another kind.
    """
    objects = tuple(
        ObjectScores(
            whole(scores["object_id"], what="object_id", least=1),
            statistics(_shares(scores["region"])),
            statistics(_shares(scores["boundary"])),
            tuple(whole(frame, what="frames") for frame in scores["frames"]),
        )
        for scores in fields["objects"]
    )
    pairs = all(
        len(one.region.per_frame) == len(one.boundary.per_frame) and len(one.frames) in (0, len(one.region.per_frame))
        for one in objects
    )
    numbers = {name: whole(fields[name], what=name) for name in ("frames", "height", "width")}
    if fields["name"] != clip or not pairs:
        raise OptionError(f"expected the scores of {clip}, got others")
    return ClipResult(**{**fields, **numbers, "objects": objects, "seconds": float(fields["seconds"])})


def _shares(values: Sequence[object]) -> list[float]:
    """Scores of single frames, 0 to 1."""
    found = [float(value) for value in values if isinstance(value, int | float)]
    if len(found) < len(values) or not all(0 <= value <= 1 for value in found):
        raise OptionError("expected scores from 0 to 1, got others")
    return found
