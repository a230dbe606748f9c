"""An evaluation's output folder: what lies where, what it is of, and which clips are finished.

    OUT/run.json                     what is evaluated and how; written first
    OUT/Annotations/CLIP/00000.png   predicted masks, palette PNGs by the frames' names
    OUT/clips/CLIP.json              scores of a clip, written when all its masks are there: the clip is finished
    OUT/*.csv, OUT/report.json       written when the run ends; OUT/page, OUT/submission.zip if wanted

Owns these names, and what is refused or deleted. Whatever `run.json` does not say a run wrote is the user's. Measures nothing.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stmemory.errors import OptionError
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.protocol import ClipResult
from stmemory.evaluation.scores import ObjectScores, statistics
from stmemory.evaluation.tables import TABLES
from stmemory.files import whole_file

__all__ = ["RunFolder"]

FORMAT = "stmemory.evaluation 1"
# Facts that a run may change and still be the same.
FREE = ("source", "clips")


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
        """Folder of a clip's predicted masks."""
        return self.path / "Annotations" / clip

    def mask_of(self, clip: Clip, index: int) -> Path:
        """File of a frame's predicted mask."""
        return self.masks_of(clip.name) / f"{clip.frame_paths[index].stem}.png"

    def check(self, record: Mapping[str, object], *, resume: bool, force: bool) -> None:
        """Refuse what would end badly, before anything is done; changes nothing.

        Args:
            record: what is evaluated and how, plain JSON values; `clips` are its names.
            resume: go on with the run in the folder.
            force: begin anew though there is one.

        Raises:
            OptionError: there are results already, or files that no run wrote; there is nothing to resume, or the run there is
                another one.
        """
        if self.path.exists() and not self.path.is_dir():
            raise OptionError(f"-o: expected a folder for the results, got the file {str(self.path)!r}; give the name of a folder")
        old = self._recorded()
        if old is None:
            there = [name for name in ("run.json", "Annotations", "clips", "page", "report.json", *TABLES) if (self.path / name).exists()]
            if there:
                found = "a run.json that cannot be read" if there[0] == "run.json" else f"{there[0]} without a run.json"
                raise OptionError(
                    f"{self.path}: expected an empty folder or one of an evaluation, got {found}: no run is known to have written "
                    "what is there, so even --force does not delete it; move it away, or pass another -o"
                )
            if resume:
                raise OptionError(f"{self.path}: nothing to resume: no evaluation was begun there; leave out --resume")
            return
        if resume:
            other = _differences(old, json.loads(json.dumps({"format": FORMAT, **record})))
            if other:
                raise OptionError(
                    f"{self.path}: cannot resume another evaluation: {'; '.join(other)}; run it as it was begun, or begin anew "
                    "with --force"
                )
        elif not force:
            done = len(self.finished)
            raise OptionError(
                f"{self.path}: expected no evaluation yet, got one with {done} finished clip{'s' * (done != 1)}; pass --resume to go on, --force to "
                "begin anew, or another -o"
            )

    def begin(self, record: Mapping[str, object], *, resume: bool, force: bool) -> None:
        """Make the folder ready: check it, delete what an earlier run wrote if that is forced, and write the record.

        Raises:
            OptionError: see `check`.
        """
        self.check(record, resume=resume, force=force)
        old = self._recorded() or {}
        clips = [str(clip) for clip in old.get("clips", [])]
        if not resume:
            for clip in clips:
                self.clear(clip)
            shutil.rmtree(self.page, ignore_errors=True)
            for name in (*TABLES, "report.json", "submission.zip"):
                (self.path / name).unlink(missing_ok=True)
            clips = []
        wanted = record.get("clips")
        wanted = [str(clip) for clip in wanted] if isinstance(wanted, (list, tuple)) else []
        both = sorted({*clips, *wanted})
        with whole_file(self.record) as part:
            part.write_text(json.dumps({"format": FORMAT, **record, "clips": both}, indent=2) + "\n", encoding="utf-8")

    def clear(self, clip: str) -> None:
        """Delete a clip's masks and scores, whole or half written."""
        result = self._result(clip)
        for file in (result, *result.parent.glob(f".{glob.escape(result.name)}.*")):  # a process that was killed leaves its part
            file.unlink(missing_ok=True)
        shutil.rmtree(self.masks_of(clip), ignore_errors=True)

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
            document = json.loads(self._result(clip.name).read_text(encoding="utf-8"))
            found = _result_from(document["result"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not finished, or damaged: it is done again
        if document.get("files") != _files_digest(clip):
            raise OptionError(
                f"{clip.name}: expected the frames and annotations that the finished run measured, got other files; begin anew "
                "with --force"
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
                    name = "/".join(filter(None, (inside, clip.name, file.name)))
                    archive.writestr(zipfile.ZipInfo(name), file.read_bytes())
        return self.submission

    def _result(self, clip: str) -> Path:
        return self.path / "clips" / f"{clip}.json"

    def _recorded(self) -> dict[str, Any] | None:
        """What `run.json` says; None where there is none of an evaluation."""
        try:
            found: object = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What two records say differently, in words."""
    told = []
    for name in sorted({*old, *new} - set(FREE)):
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
            told += [f"{key.replace('_', ' ')} was {before.get(key)}, is {now.get(key)}" for key in keys]
        elif before != now:
            told.append(f"{name.replace('_', ' ')} was {before}, is {now}")
    return told


def _files_digest(clip: Clip) -> str:
    """A short name of a clip's files: names and sizes of frames, names and bytes of true masks, which are small."""
    digest = hashlib.sha256()
    for path in (*clip.frame_paths, *clip.annotation_paths, *clip.void_paths):
        digest.update(b"-" if path is None else f"{path.name} {path.stat().st_size}\n".encode())
    for path in (*clip.annotation_paths, *clip.void_paths):
        digest.update(b"" if path is None else path.read_bytes())
    return digest.hexdigest()[:16]


def _result_from(fields: Mapping[str, Any]) -> ClipResult:
    """A result as `finish` wrote it."""
    objects = tuple(
        ObjectScores(scores["object_id"], statistics(scores["region"]), statistics(scores["boundary"]), tuple(scores["frames"]))
        for scores in fields["objects"]
    )
    return ClipResult(**{**fields, "objects": objects})
