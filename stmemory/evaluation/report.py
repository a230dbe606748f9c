"""Reports of an evaluation: circumstances, JSON, Markdown and CSV tables."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from stmemory.evaluation.metrics import ObjectScores
from stmemory.evaluation.protocol import ClipResult, summarise
from stmemory.io.files import whole_file

__all__ = [
    "TABLES",
    "Circumstances",
    "as_json",
    "current_circumstances",
    "decimal",
    "json_text",
    "markdown_table",
    "table_of",
    "write_json",
    "write_tables",
]


@dataclass(frozen=True)
class Circumstances:
    """What a figure was measured with; without it the figure means little.

    Attributes:
        commit: the project's commit, with `-dirty` after it when files were changed; None outside a checkout.
        stmemory: version of this library, "unknown" when it is not installed.
        torch: version of torch.
        numpy: version of numpy.
        python: version of Python.
        device: name of the device, from the system.
        threads: threads of torch on the CPU.
        resolution: working short side in pixels; None for the frames' own size.
        seed: of whatever was drawn; None when nothing was.
    """

    commit: str | None
    stmemory: str
    torch: str
    numpy: str
    python: str
    device: str
    threads: int
    resolution: int | None
    seed: int | None


def current_circumstances(
    *, device: str | torch.device = "cpu", resolution: int | None = None, seed: int | None = None
) -> Circumstances:
    """The circumstances of this process.

    Args:
        device: where the network runs.
        resolution: working short side in pixels.
        seed: of whatever was drawn.

    >>> current_circumstances(resolution=480).resolution
    480
    """
    return Circumstances(
        commit=_commit(),
        stmemory=_version("stmemory"),
        torch=torch.__version__,
        numpy=np.__version__,
        python=platform.python_version(),
        device=_device_name(torch.device(device)),
        threads=torch.get_num_threads(),
        resolution=resolution,
        seed=seed,
    )


def as_json(
    results: Sequence[ClipResult], circumstances: Circumstances, *, extra: Mapping[str, object] | None = None
) -> str:
    """A whole report as JSON text; values per frame included, NaN written as null.

    Args:
        results: one per clip.
        circumstances: what they were measured with.
        extra: further entries at the top, such as the predictor's options.

    >>> json.loads(as_json([], current_circumstances()))["summary"]["clips"]
    0
    """
    report = {
        "circumstances": dataclasses.asdict(circumstances),
        **(extra or {}),
        "summary": dataclasses.asdict(summarise(results)),
        "clips": [
            dataclasses.asdict(result)
            | {"region": result.region, "boundary": result.boundary, "frames_per_second": result.frames_per_second}
            for result in results
        ],
    }
    return json_text(report)


def write_json(
    path: str | Path,
    results: Sequence[ClipResult],
    circumstances: Circumstances,
    *,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Write `as_json` to a file, making its folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(Path(folder) / "report.json", [], current_circumstances())
    """
    path = Path(path)
    text = as_json(results, circumstances, extra=extra)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def markdown_table(results: Sequence[ClipResult], circumstances: Circumstances | None = None) -> str:
    """A Markdown table with a line per clip, one with the means over all objects, and one with the circumstances.

    >>> print(markdown_table([]).splitlines()[0])
    | clip | objects | J&F | J | F | frames | frames/s |
    """
    lines = ["| clip | objects | J&F | J | F | frames | frames/s |", "|---|---:|---:|---:|---:|---:|---:|"]
    for result in results:
        shares = ((result.region + result.boundary) / 2, result.region, result.boundary)
        lines.append(_line(result.name, len(result.objects), shares, result.frames, result.frames_per_second))
    all_of, frames = summarise(results), sum(result.frames for result in results)
    shares = (all_of.mean, all_of.region, all_of.boundary)
    lines.append(_line("**all**", all_of.objects, shares, frames, all_of.frames_per_second))
    if circumstances is not None:
        size = "own size" if circumstances.resolution is None else f"short side {circumstances.resolution}"
        lines += [
            "",
            f"{circumstances.device}, {circumstances.threads} thread{'s' * (circumstances.threads != 1)}, torch "
            f"{circumstances.torch}, {size}"
            + (f", seed {circumstances.seed}" if circumstances.seed is not None else "")
            + (f", commit {circumstances.commit}" if circumstances.commit is not None else "")
            + ".",
        ]
    return "\n".join(lines) + "\n"


def _line(name: str, objects: int, shares: Sequence[float], frames: int, speed: float) -> str:
    scores = " | ".join(decimal(100 * share) for share in shares)
    return f"| {name} | {objects} | {scores} | {frames} | {decimal(speed)} |"


def decimal(value: float) -> str:
    """A number in a table, with one decimal; a dash where there is none.

    >>> decimal(2.04), decimal(math.nan)
    ('2.0', '-')
    """
    return "-" if math.isnan(value) else f"{value:.1f}"


def json_text(document: object) -> str:
    """A document as the text of a file; NaN, which JSON lacks, becomes null.

    >>> json_text({"J": math.nan})
    '{\\n  "J": null\\n}\\n'
    """
    return json.dumps(_without_nan(document), indent=2, allow_nan=False) + "\n"


def _without_nan(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(entry) for entry in value]
    return value


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _commit() -> str | None:
    """The checkout's commit; None for an installed copy, even one that lies inside another checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def _device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


MEASURES = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
TABLES = ("global_results.csv", "per-sequence_results.csv", "per-object_results.csv")


def write_tables(folder: str | Path, results: Sequence[ClipResult]) -> tuple[Path, ...]:
    """Write the three tables, each of them atomically.

    Args:
        folder: where they go.
        results: one per clip.

    Returns:
        The files.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in write_tables(folder, [])]
    ['global_results.csv', 'per-sequence_results.csv', 'per-object_results.csv']
    """
    paths = tuple(Path(folder) / name for name in TABLES)
    for path in paths:
        with whole_file(path) as part:
            part.write_bytes(table_of(path.name, results).encode())
    return paths


def table_of(name: str, results: Sequence[ClipResult]) -> str:
    """One of the tables as text: means over objects, three decimals, empty where there is nothing to score.

    Args:
        name: one of `TABLES`.
        results: one per clip.

    >>> table_of("global_results.csv", [])
    'J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay\\n,,,,,,\\n'
    """
    by_name = sorted(results, key=lambda result: result.name)
    objects = [scores for result in by_name for scores in result.objects]
    if name == TABLES[0]:
        return _text(MEASURES, [_means(objects)])
    if name == TABLES[1]:
        heads = ("Sequence", "Objects", *MEASURES)
        return _text(heads, [[result.name, str(len(result.objects)), *_means(result.objects)] for result in by_name])
    rows = [
        [f"{result.name}_{scores.object_id}", str(len(scores.region.per_frame)), *_means([scores])]
        for result in by_name
        for scores in result.objects
    ]
    return _text(("Sequence", "Frames", *MEASURES), rows)


def _means(objects: Sequence[ObjectScores]) -> list[str]:
    """Means over objects, in the order of `MEASURES`."""
    means = [
        math.fsum(getattr(getattr(scores, measure), value) for scores in objects) / len(objects)
        if objects
        else math.nan
        for measure in ("region", "boundary")
        for value in ("mean", "recall", "decay")
    ]
    return ["" if math.isnan(value) else f"{value:.3f}" for value in ((means[0] + means[3]) / 2, *means)]


def _text(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])
    return text.getvalue()
