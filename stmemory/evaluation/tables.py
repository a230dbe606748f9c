"""Tables: scores as the CSV files that the DAVIS toolkit writes, and a few more columns. Holds no times and no
circumstances.

Equal scores give equal files, byte for byte, wherever and in whatever order they were measured.

    global_results.csv          J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay      over all objects
    per-sequence_results.csv    the same for each clip, over its objects
    per-object_results.csv      the same for each object, CLIP_ID, over the frames that count
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from stmemory.evaluation.protocol import ClipResult
from stmemory.evaluation.scores import ObjectScores
from stmemory.files import whole_file

__all__ = ["TABLES", "table_of", "write_tables"]

MEASURES = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
TABLES = ("global_results.csv", "per-sequence_results.csv", "per-object_results.csv")


def write_tables(folder: str | Path, results: Sequence[ClipResult]) -> tuple[Path, ...]:
    """Write the three tables; each file appears whole or not at all.

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
        math.fsum(values) / len(objects) if objects else math.nan
        for measure in ([scores.region for scores in objects], [scores.boundary for scores in objects])
        for values in (
            [each.mean for each in measure],
            [each.recall for each in measure],
            [each.decay for each in measure],
        )
    ]
    return ["" if math.isnan(value) else f"{value:.3f}" for value in ((means[0] + means[3]) / 2, *means)]


def _text(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])
    return text.getvalue()
