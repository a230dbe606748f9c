"""The table of a comparison of predictors: Markdown for people, JSON for programs. Measures nothing, draws nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stmemory.evaluation.prediction import Cost
from stmemory.evaluation.prediction_metrics import FrameScores
from stmemory.evaluation.report import Circumstances

__all__ = ["PredictionResult", "prediction_document", "prediction_tables"]

_COSTS = ("steps", "parameters", "multiply-adds a frame", "state, bytes")


@dataclass(frozen=True)
class PredictionResult:
    """One predictor on one test.

    Attributes:
        name: of the predictor.
        test: of the clips.
        period: N of a recall set; None where there is none.
        clips: how many.
        scores: means over all frames that were not given.
        cost: None for predictors that learn nothing.
        steps: of training; None for those.
    """

    name: str
    test: str
    period: int | None
    clips: int
    scores: FrameScores
    cost: Cost | None = None
    steps: int | None = None


def prediction_tables(results: Sequence[PredictionResult]) -> str:
    """Markdown: for each test a line a predictor; for a recall set its MSE at each N, and the other measures at the
    largest.

    >>> scores = FrameScores(mse=2.0, mae=3.0, ssim=0.5, psnr=20.0, mse_per_value=0.1)
    >>> print(prediction_tables([PredictionResult("zeros", "moving", None, 8, scores)]))
    **moving**, 8 clips
    <BLANKLINE>
    | predictor | MSE | MAE | SSIM | PSNR | steps | parameters | multiply-adds a frame | state, bytes |
    |---|---|---|---|---|---|---|---|---|
    | zeros | 2.00 | 3.0 | 0.500 | 20.00 | - | - | - | - |
    <BLANKLINE>
    """
    parts = []
    for test in dict.fromkeys(result.test for result in results):
        rows = [result for result in results if result.test == test]
        parts.append(
            _by_period(test, rows)
            if rows[0].period is not None
            else _by_measure(f"**{test}**, {rows[0].clips} clips", rows)
        )
    return "\n".join(parts)


def prediction_document(
    results: Sequence[PredictionResult], circumstances: Circumstances, *, extra: Mapping[str, object] | None = None
) -> str:
    """All of it as JSON text."""
    document = {
        "circumstances": dataclasses.asdict(circumstances),
        **(extra or {}),
        "results": [dataclasses.asdict(result) for result in results],
    }
    return json.dumps(document, indent=2) + "\n"


def _by_period(test: str, rows: Sequence[PredictionResult]) -> str:
    periods = sorted({row.period for row in rows if row.period is not None})
    found = {(row.name, row.period): row for row in rows}
    table = [["MSE at N =", *map(str, periods)]]
    table += [
        [name, *(f"{found[name, n].scores.mse:.2f}" if (name, n) in found else "-" for n in periods)]
        for name in dict.fromkeys(row.name for row in rows)
    ]
    most = [row for row in rows if row.period == periods[-1]]
    return f"**{test}**, {rows[0].clips} clips at each N\n\n{_markdown(table)}\n" + _by_measure(
        f"**{test}, N = {periods[-1]}**", most
    )


def _by_measure(title: str, rows: Sequence[PredictionResult]) -> str:
    table = [["predictor", "MSE", "MAE", "SSIM", "PSNR", *_COSTS]]
    for row in rows:
        scores, cost = row.scores, row.cost
        costs = (
            ["-"] * 3
            if cost is None
            else [f"{cost.parameters:,}", f"{cost.multiply_adds / 1e6:.1f} M", f"{cost.state_bytes:,}"]
        )
        table.append(
            [
                row.name,
                f"{scores.mse:.2f}",
                f"{scores.mae:.1f}",
                f"{scores.ssim:.3f}",
                f"{scores.psnr:.2f}",
                "-" if row.steps is None else str(row.steps),
                *costs,
            ]
        )
    return f"{title}\n\n{_markdown(table)}"


def _markdown(table: Sequence[Sequence[str]]) -> str:
    head, *rows = (f"| {' | '.join(row)} |\n" for row in table)
    return head + "|" + "---|" * len(table[0]) + "\n" + "".join(rows)
