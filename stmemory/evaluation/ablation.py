"""The ablation of the memory: the same clips under each way to keep it, a row of scores each (tables 3 and 4 of the
paper).

Owns what is kept of a row, so that an interrupted run goes on: each is an evaluation's folder (`run_folder.py`), and
beside its scores lies how many bytes the memory took. What a row is stands in `ablation_rows.py`, the table in
`ablation_report.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.evaluation.ablation_rows import Row
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.growing import GrowingMemory, GrowingPredictor
from stmemory.evaluation.protocol import ClipResult
from stmemory.evaluation.report import current_circumstances
from stmemory.evaluation.run_folder import RunFolder
from stmemory.evaluation.worker import News, evaluate_and_tell
from stmemory.files import whole_file
from stmemory.predictor import VOSPredictor
from stmemory.run_lock import held
from stmemory.state_file import weights_of
from stmemory.stream import VOSStream
from stmemory.untrusted import expect_below, read_json, whole

__all__ = ["MemoryUse", "RowResult", "run_ablation"]


@dataclass(frozen=True)
class MemoryUse:
    """What the memory of one clip was at its end.

    Attributes:
        nbytes: of the bank, all objects together.
        objects: B.
        slots: K.
        commit: of the project when the clip was measured; None outside a checkout.
    """

    nbytes: int
    objects: int
    slots: int
    commit: str | None = None


@dataclass(frozen=True)
class RowResult:
    """What a row gave so far.

    Attributes:
        row: which.
        fingerprint: short name of its weights, a learned policy's after that.
        results: of the clips that are finished, in the order that was asked for.
        memory: of the same clips.
        skipped: why others could not be measured, by name.
    """

    row: Row
    fingerprint: str
    results: tuple[ClipResult, ...] = ()
    memory: tuple[MemoryUse, ...] = ()
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def bytes_per_object(self) -> float:
        """Bytes of the memory at a clip's end, the mean over all objects; NaN before there are any."""
        objects = sum(use.objects for use in self.memory)
        return sum(use.nbytes for use in self.memory) / objects if objects else float("nan")


def run_ablation(
    rows: Sequence[Row],
    clips: Sequence[Clip],
    out: Path,
    *,
    device: str | torch.device = "cpu",
    about: Mapping[str, object] | None = None,
    resume: bool = False,
    force: bool = False,
    on_begin: Callable[[int], None] | None = None,
    on_news: Callable[[Row, News], None] | None = None,
    on_row: Callable[[tuple[RowResult, ...]], None] | None = None,
) -> tuple[RowResult, ...]:
    """Evaluate clips under each row, one row after the other; what is finished is on disk before the next begins.

    Args:
        rows: ways to keep the memory.
        clips: what to measure on.
        out: a folder; each row gets one in it.
        device: where to compute.
        about: which clips they are, for the record: plain JSON values.
        resume: go on with the rows that are there, and begin the others.
        force: begin anew though there are some.
        on_begin: called with the number of frames that are left.
        on_news: called after every frame and every clip.
        on_row: called with all results so far after every row.

    Returns:
        A result for each row.

    Raises:
        OptionError: there are rows in the folder already, or rows of another ablation; there are no clips; or another
            run writes into the folder.
        WeightsError: there are no such weights.
    """
    if not clips or len({clip.name for clip in clips}) < len(clips):
        raise OptionError(
            f"clips: expected one or more, each once, got {', '.join(clip.name for clip in clips) or 'none'}"
        )
    todo = [_Work(row, out, clips, device, {**(about or {}), "clips": [clip.name for clip in clips]}) for row in rows]
    begun = [work for work in todo if work.folder.record.exists()]
    for work in begun or todo:
        work.folder.check(work.record, resume=resume, force=force)
    for work in todo:
        for place in (work.folder.path, work.folder.path / "memory"):
            expect_below(place, out)
    left, finished = 0, tuple[RowResult, ...]()
    with held(out):
        for work in todo:
            work.folder.begin(work.record, resume=resume and work in begun, force=force)
            left += sum(len(clip) for clip in clips if work.found(clip) is None)
        if on_begin is not None:
            on_begin(left)
        for work in todo:
            finished += (work.measure(on_news),)
            if on_row is not None:
                on_row(finished)
    return finished


class _Work:
    """A row and its folder."""

    def __init__(
        self, row: Row, out: Path, clips: Sequence[Clip], device: str | torch.device, about: Mapping[str, object]
    ) -> None:
        self.row, self.clips, self.device = row, clips, device
        self.folder = RunFolder(out / row.name)
        here = current_circumstances()
        self.fingerprint = weights_of(row.network(), row.options)
        self.record = {
            **about,
            "weights": self.fingerprint,
            "options": row.options.as_dict(),
            "growing": row.every,
            **({} if row.scored else {"scored": False}),
            "device": torch.device(device).type,
            "threads": here.threads if torch.device(device).type == "cpu" else None,
            "versions": {"stmemory": here.stmemory, "torch": here.torch},
        }

    def found(self, clip: Clip) -> tuple[ClipResult, MemoryUse] | None:
        """What is known of a clip; None where it must be measured."""
        result = self.folder.result_of(clip)
        try:
            use = _use_from(read_json(self._use_of(clip)))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None if result is None else (result, use)

    def measure(self, on_news: Callable[[Row, News], None] | None) -> RowResult:
        """Measure what is not there yet."""
        predictor, skipped = _Watched(self.row, self.device), {}

        def tell(news: News) -> None:
            if on_news is not None:
                on_news(self.row, news)

        def told(name: str, done: int) -> None:
            tell(News(name, done))

        for clip in self.clips:
            if self.found(clip) is not None:
                continue
            news = evaluate_and_tell(predictor, clip, self.folder, on_frame=functools.partial(told, clip.name))
            if news.error is not None:
                skipped[clip.name] = news.error
                self.folder.clear(clip.name)
            else:
                with whole_file(self._use_of(clip)) as part:
                    part.write_text(json.dumps(dataclasses.asdict(predictor.use())) + "\n", encoding="utf-8")
            tell(news)
        there = [found for clip in self.clips if (found := self.found(clip)) is not None]
        return RowResult(
            self.row, self.fingerprint, tuple(one for one, _ in there), tuple(two for _, two in there), skipped
        )

    def _use_of(self, clip: Clip) -> Path:
        return self.folder.path / "memory" / f"{clip.name}.json"


def _use_from(fields: Mapping[str, Any]) -> MemoryUse:
    """What was written of a clip's memory.

    Raises:
        OptionError: a count is none.
        KeyError, TypeError: something is missing, or of another kind.
    """
    commit = fields.get("commit") if isinstance(fields, Mapping) else None
    numbers = {name: whole(fields[name], what=name, most=2**62) for name in ("nbytes", "objects", "slots")}
    return MemoryUse(**numbers, commit=commit if isinstance(commit, str) else None)


class _Watched:
    """A predictor that remembers its last stream, to look at the memory when the clip is over."""

    def __init__(self, row: Row, device: str | torch.device) -> None:
        predictor = VOSPredictor(row.network(), options=row.options, device=device)
        if not row.scored:
            predictor.network.discriminate = None
        self._predictor = predictor if row.every is None else GrowingPredictor(predictor, every=row.every)
        self._commit = current_circumstances().commit
        self._stream: VOSStream | GrowingMemory | None = None

    def start(self, frame: NDArray[np.uint8], mask: NDArray[np.int32], /) -> VOSStream | GrowingMemory:
        """See `VOSPredictor.start`."""
        self._stream = self._predictor.start(frame, mask)
        return self._stream

    def use(self) -> MemoryUse:
        """Of the last clip."""
        if self._stream is None:
            return MemoryUse(0, 0, 0, self._commit)
        bank = self._stream.bank
        return MemoryUse(bank.nbytes, bank.rows, bank.capacity, self._commit)
