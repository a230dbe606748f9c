"""The ablation as a table and as JSON. Measures nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stmemory.evaluation.ablation import RowResult
from stmemory.evaluation.protocol import summarise
from stmemory.evaluation.report import Circumstances, decimal, json_text
from stmemory.files import whole_file

__all__ = ["ablation_document", "ablation_table", "write_ablation"]


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
        extra: see `ablation_document`; `data set` and `frames` are told.

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
        told = "-" if not slots else str(slots[0]) if len(slots) == 1 else f"{slots[0]} to {slots[-1]}"
        few = f" ({len(row.results)} of {len(row.results) + len(row.skipped)} clips)" if row.skipped else ""
        lines.append(f"| {row.row.title}{few} | {scores} | {size} | {told} | {decimal(mean.frames_per_second)} |")
    return "\n".join([*lines, "", *_below(rows, circumstances, extra or {})]) + "\n"


def write_ablation(
    out: Path, rows: Sequence[RowResult], circumstances: Circumstances, *, extra: Mapping[str, object] | None = None
) -> tuple[Path, Path]:
    """Write `ablation.json` and `ablation.md` into a folder; each appears whole or not at all.

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
    yield f"{extra.get('data set', 'folder')}: {len(clips)} clips ({', '.join(clips)}), {objects} objects{first}; means over the objects."
    every = options.memory_every
    commits = "every frame" if every == 1 else f"one frame in {every}"
    yield f"Fixed memories: K = {options.memory_size}, {commits} committed (memory_every {every}; the paper commits every frame)."
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
        f"{circumstances.stmemory}"
        f"{', commit ' * bool(made_at)}{', '.join(made_at)}, {size}."
    )
