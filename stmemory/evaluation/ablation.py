"""The ablation: rows of policies and settings, their runs, and the report."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.growing import GrowingMemory, GrowingPredictor
from stmemory.evaluation.protocol import ClipResult, summarise
from stmemory.evaluation.report import Circumstances, current_circumstances, decimal, json_text
from stmemory.evaluation.run_folder import RunFolder
from stmemory.evaluation.workers import ClipUpdate, measure_clip
from stmemory.io.files import whole_file
from stmemory.io.run_folder import held
from stmemory.io.untrusted import expect_below, read_json, whole
from stmemory.memory.policy import LearnedPolicy, update_policy
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.state import weights_of
from stmemory.stream import VOSStream
from stmemory.weights.pretrained import load_network

__all__ = [
    "GROWING",
    "MATCHING",
    "RULES",
    "MemoryUse",
    "Row",
    "RowResult",
    "ablation_document",
    "ablation_rows",
    "ablation_table",
    "run_ablation",
    "shortened",
    "write_ablation",
]

RULES = ("A", "B", "C", "D", "drop", "I2M", "learned")
GROWING = "growing"
MATCHING = "matching"  # the default rule without the discriminative read


@dataclass(frozen=True)
class Row:
    """One way to keep the memory.

    Attributes:
        name: the paper's letter or a policy's name, or `GROWING`; also the name of the row's folder.
        options: how to track; the policy is the row's.
        weights: see `VOSPredictor.from_pretrained`.
        revision: of a repository.
        every: which frames the growing memory keeps for ever; None for a fixed number of slots.
        scored: whether the network's discriminative read is used, if it has one.
    """

    name: str
    options: TrackingOptions
    weights: str | None = None
    revision: str | None = None
    every: int | None = None
    scored: bool = True

    def network(self) -> SegmentationNetwork:
        """Load its weights.

        Raises:
            WeightsError: there are no such weights.
        """
        return load_network(self.weights, where={} if self.revision is None else {"revision": self.revision})

    @property
    def title(self) -> str:
        """The row in words.

        >>> Row("A", TrackingOptions(policy="A")).title, Row("growing", TrackingOptions(), every=5).title
        ('A: oldest', 'growing: frames 0, 5, 10, ... kept (STM)')
        """
        if self.every is not None:
            return (
                f"{self.name}: "
                + ("every frame" if self.every == 1 else f"frames 0, {self.every}, {2 * self.every}, ...")
                + " kept (STM)"
            )
        if not self.scored:
            return f"{self.name}: {update_policy(self.options.policy).name} without the discriminative read"
        policy = update_policy(self.options.policy).name
        return self.name if self.name == policy else f"{self.name}: {policy}"


def ablation_rows(
    options: TrackingOptions,
    *,
    rules: Sequence[str] = RULES,
    learned: LearnedPolicy | None = None,
    growing: int = 5,
    weights: str | None = None,
    weights_by_rule: Mapping[str, str] | None = None,
) -> tuple[Row, ...]:
    """The rows of an ablation.

    Args:
        options: how to track, but for the policy.
        rules: policies, by name or letter; `MATCHING` is the policy of the options without the discriminative read.
        learned: the policy of the row "learned", which is left out without one: untrained it would mean nothing.
        growing: the upper reference keeps every n-th frame for ever; 0 leaves it out.
        weights: of all rows.
        weights_by_rule: other weights of some rows, by their names, such as those trained under each rule.

    Raises:
        OptionError: a rule is unknown or stands there twice; weights are for a row that there is not.

    >>> [row.name for row in ablation_rows(TrackingOptions(), rules=("A", "drop"), weights_by_rule={"A": "mine"})]
    ['A', 'drop', 'growing']
    """
    rows = []
    for rule in rules:
        if rule == MATCHING:
            rows.append(Row(rule, options, weights, scored=False))
        elif update_policy(rule).name == "learned":
            if learned is not None:
                rows.append(Row(rule, dataclasses.replace(options, policy=learned), weights))
        else:
            rows.append(Row(rule, dataclasses.replace(options, policy=rule), weights))
    if growing:
        rows.append(Row(GROWING, options, weights, every=growing))
    names = [row.name for row in rows]
    policies = [update_policy(row.options.policy).name for row in rows if row.every is None and row.scored]
    if not rows or len(set(policies)) < len(policies) or len(set(names)) < len(names):
        raise OptionError(f"rules: expected one or more, each once, got {', '.join(names) or 'none'}")
    other = dict(weights_by_rule or {})
    if strangers := [name for name in other if name not in names]:
        raise OptionError(f"weights of a rule: expected one of {', '.join(names)}, got {', '.join(strangers)}")
    return tuple(dataclasses.replace(row, weights=other.get(row.name, row.weights)) for row in rows)


def shortened(clip: Clip, frames: int) -> Clip:
    """The clip's first frames, with their annotations.

    Raises:
        OptionError: less than two frames.

    >>> from pathlib import Path
    >>> shortened(Clip("walk", (Path("0.jpg"),) * 9, (None,) * 9, (None,) * 9), 4).annotation_paths
    (None, None, None, None)
    """
    if frames < 2:
        raise OptionError(f"frames: expected 2 or more, got {frames}")
    return dataclasses.replace(
        clip,
        frame_paths=clip.frame_paths[:frames],
        annotation_paths=clip.annotation_paths[:frames],
        void_paths=clip.void_paths[:frames],
    )


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
    """Results of a row so far.

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
    on_news: Callable[[Row, ClipUpdate], None] | None = None,
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
        force: begin again though there are some, and delete them.
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
        """The results of a clip; None where it must be measured."""
        result = self.folder.result_of(clip)
        try:
            use = _use_from(read_json(self._use_of(clip)))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None if result is None else (result, use)

    def measure(self, on_news: Callable[[Row, ClipUpdate], None] | None) -> RowResult:
        """Measure what is not there yet."""
        predictor, skipped = _Watched(self.row, self.device), {}

        def on_update(update: ClipUpdate) -> None:
            if on_news is not None:
                on_news(self.row, update)

        for clip in self.clips:
            if self.found(clip) is not None:
                continue
            update = measure_clip(predictor, clip, self.folder, on_update=on_update)
            if update.error is not None:
                skipped[clip.name] = update.error
                self.folder.clear(clip.name)
            else:
                with whole_file(self._use_of(clip)) as part:
                    part.write_text(json.dumps(dataclasses.asdict(predictor.use())) + "\n", encoding="utf-8")
            on_update(update)
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
        network = row.network()
        if not row.scored:
            network.discriminate = None
        predictor = VOSPredictor(network, options=row.options, device=device)
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


def ablation_document(
    rows: Sequence[RowResult], circumstances: Circumstances, *, extra: Mapping[str, object] | None = None
) -> dict[str, object]:
    """All of it as plain JSON values: means of each row, and of each of its clips.

    Args:
        rows: what was measured.
        circumstances: what with.
        extra: further entries at the top, such as the data set.

    >>> from stmemory.evaluation.report import current_circumstances
    >>> ablation_document([], current_circumstances())["rows"]
    []
    """
    return {"circumstances": dataclasses.asdict(circumstances), **(extra or {}), "rows": [_row(row) for row in rows]}


def ablation_table(
    rows: Sequence[RowResult], circumstances: Circumstances, *, extra: Mapping[str, object] | None = None
) -> str:
    """A Markdown table with a line for each row, and below it what it was measured with.

    Args:
        rows: what was measured.
        circumstances: what with.
        extra: see `ablation_document`; its `data set` and `frames` are named.

    >>> from stmemory.evaluation.report import current_circumstances
    >>> print(ablation_table([], current_circumstances()).splitlines()[0])
    | memory | J | F | J&F | bytes an object at the end | slots at the end | frames/s |
    """
    lines = [
        "| memory | J | F | J&F | bytes an object at the end | slots at the end | frames/s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        mean = summarise(row.results)
        scores = " | ".join(decimal(100 * value) for value in (mean.region, mean.boundary, mean.mean))
        size = "-" if math.isnan(row.bytes_per_object) else f"{round(row.bytes_per_object):,}"
        slots = sorted({use.slots for use in row.memory})
        count = "-" if not slots else str(slots[0]) if len(slots) == 1 else f"{slots[0]} to {slots[-1]}"
        few = f" ({len(row.results)} of {len(row.results) + len(row.skipped)} clips)" if row.skipped else ""
        lines.append(f"| {row.row.title}{few} | {scores} | {size} | {count} | {decimal(mean.frames_per_second)} |")
    return "\n".join([*lines, "", *_below(rows, circumstances, extra or {})]) + "\n"


def write_ablation(
    out: Path, rows: Sequence[RowResult], circumstances: Circumstances, *, extra: Mapping[str, object] | None = None
) -> tuple[Path, Path]:
    """Write `ablation.json` and `ablation.md` into a folder, each of them atomically.

    >>> import tempfile
    >>> from stmemory.evaluation.report import current_circumstances
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in write_ablation(Path(folder), [], current_circumstances())]
    ['ablation.json', 'ablation.md']
    """
    document = json_text(ablation_document(rows, circumstances, extra=extra))
    texts = {"ablation.json": document, "ablation.md": ablation_table(rows, circumstances, extra=extra)}
    for name, text in texts.items():
        with whole_file(out / name) as part:
            part.write_text(text, encoding="utf-8")
    return out / "ablation.json", out / "ablation.md"


def _row(row: RowResult) -> dict[str, object]:
    mean = summarise(row.results)
    return {
        "name": row.row.name,
        "title": row.row.title,
        "weights": row.row.weights or "lite",
        "fingerprint": row.fingerprint,
        "options": row.row.options.as_dict()
        | ({} if row.row.every is None else {"memory_size": None, "policy": None, "memory_every": row.row.every}),
        "region": mean.region,
        "boundary": mean.boundary,
        "mean": mean.mean,
        "bytes_per_object": row.bytes_per_object,
        "frames_per_second": mean.frames_per_second,
        "clips": [
            {
                "name": result.name,
                "objects": len(result.objects),
                "region": result.region,
                "boundary": result.boundary,
                "frames": result.frames,
                "seconds": result.seconds,
                **{f"memory_{name}": value for name, value in dataclasses.asdict(use).items()},
            }
            for result, use in zip(row.results, row.memory, strict=True)
        ],
        "skipped": dict(row.skipped),
    }


def _below(rows: Sequence[RowResult], circumstances: Circumstances, extra: Mapping[str, object]) -> Iterator[str]:
    """What the numbers were measured on and with."""
    if not rows:
        return
    options = rows[0].row.options
    clips = sorted({result.name for row in rows for result in row.results})
    objects = max(summarise(row.results).objects for row in rows)
    frames = extra.get("frames")
    first = f", the first {frames} frames of each" if frames else ""
    data_set = extra.get("data set", "folder")
    yield f"{data_set}: {len(clips)} clips ({', '.join(clips)}), {objects} objects{first}; means over the objects."
    every = options.memory_every
    commits = "every frame" if every == 1 else f"one frame in {every}"
    paper = "the paper commits every frame"
    yield f"Fixed memories: K = {options.memory_size}, {commits} committed (memory_every {every}; {paper})."
    networks = {row.fingerprint.partition("-")[0]: row.row.weights or "lite" for row in reversed(rows)}
    if len(networks) == 1:
        yield "Weights of all rows: " + "".join(f"{name} ({fingerprint})." for fingerprint, name in networks.items())
    else:
        yield (
            "Weights: "
            + "; ".join(f"{row.row.name} {row.row.weights or 'lite'} ({row.fingerprint})" for row in rows)
            + "."
        )
    size = "own size" if circumstances.resolution is None else f"short side {circumstances.resolution}"
    made_at = sorted({use.commit for row in rows for use in row.memory if use.commit})
    threads = f"{circumstances.threads} thread{'s' * (circumstances.threads != 1)}"
    yield (
        f"{circumstances.device}, {threads}, torch {circumstances.torch}, Python {circumstances.python}, stmemory "
        f"{circumstances.stmemory}{', commit ' * bool(made_at)}{', '.join(made_at)}, {size}."
    )
