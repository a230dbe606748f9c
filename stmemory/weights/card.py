"""Model cards: what is known of weights, as a page for people with the header that the Hub reads. Measures nothing.

What is known comes as `about`, plain JSON values; all of it is optional:

- `licence`: an SPDX name such as `"Apache-2.0"`, or words.
- `data`: what the weights were trained on, in words, or a list of them.
- `base_model`: what they started from.
- `metrics`: a list of `{"dataset": ..., "metric": ..., "value": ..., "how": ...}`, with how the figure can be had
  again.
- `limits`: what they cannot do, in words, or a list of them.
- anything else, such as `training`, is kept in `config.json` and not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stmemory.errors import WeightsError
from stmemory.weights.checkpoint import CARD

__all__ = ["CARD", "Metric", "card_text", "metrics_of"]

# The licences that the Hub knows by name; any other is shown as it is written.
_LICENCES = [
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "gpl-3.0",
    "lgpl-3.0",
    "agpl-3.0",
]
# Task, its name, and how the Hub lists it: it knows no task that is video prediction.
_TASKS = {
    "network": ("mask-generation", "Video Object Segmentation"),
    "prediction_network": ("video-prediction", "Video Prediction"),
    "fusion_cell": ("mask-generation", "Video Object Segmentation"),
}
_TAGS = ["memory-network", "pytorch"]


@dataclass(frozen=True)
class Metric:
    """One measured figure.

    Attributes:
        dataset: what it was measured on.
        metric: its name, such as J&F.
        value: in the unit that the name implies; J and F in per cent, MSE and MAE as sums over a frame.
        how: command, options and device.
    """

    dataset: str
    metric: str
    value: float
    how: str = ""


def metrics_of(about: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The measured figures among what is known.

    Raises:
        WeightsError: one is not of the form that this module's text gives.

    >>> metrics_of({"metrics": [{"dataset": "DAVIS 2016 val", "metric": "J&F", "value": 75.5}]})[0].value
    75.5
    """
    try:
        metrics = tuple(Metric(**dict(entry)) for entry in about.get("metrics", ()))
    except (TypeError, ValueError) as error:
        raise WeightsError(
            'about["metrics"]: expected a list of entries with dataset, metric, value and perhaps how, got '
            f"{about['metrics']!r}: {error}"
        ) from error
    for metric in metrics:
        words = (metric.dataset, metric.metric, metric.how)
        if type(metric.value) not in (int, float) or not all(isinstance(word, str) for word in words):
            raise WeightsError(
                f'about["metrics"]: expected a float as value and strings beside it, got {metric}; use float() and '
                "str()"
            )
    return metrics


def card_text(kind: str, about: Mapping[str, Any], *, name: str) -> str:
    """The page.

    Args:
        kind: of the checkpoint, one of `stmemory.weights.checkpoint.KINDS`.
        about: see this module's text.
        name: by which the example loads the weights.

    Raises:
        WeightsError: what is known is not of the form that this module's text gives.

    >>> card_text("fusion_cell", {"licence": "MIT"}, name="cell").splitlines()[1:3]
    ['library_name: stmemory', 'license: mit']
    """
    if "license" in about:
        raise WeightsError(
            f'about: expected "licence", got "license" ({about["license"]!r}); '
            "the header for the Hub is written from it"
        )
    metrics, title = metrics_of(about), name.rsplit("/", 1)[-1]
    licence = str(about.get("licence", "not stated"))
    parts = [f"---\n{_header(title, kind, about, metrics)}\n---\n", f"# {title}\n", f"{_WHAT[kind]}\n"]
    parts.append(f"```python\n{_EXAMPLES[kind].format(name=name)}```\n")
    parts.append(f"## Licence\n\n{licence}\n")
    for key, heading in (("base_model", "Starts from"), ("data", "Trained on"), ("limits", "Limits")):
        if about.get(key):
            parts.append(f"## {heading}\n\n{_words(about[key])}\n")
    if metrics:
        lines = [f"| {_cell(m.dataset)} | {_cell(m.metric)} | {m.value:g} | {_cell(m.how)} |" for m in metrics]
        parts.append(
            "\n".join(["## Measured\n", "| data | metric | value | how |", "|---|---|---:|---|", *lines]) + "\n"
        )
    return "\n".join(parts)


def _header(title: str, kind: str, about: Mapping[str, Any], metrics: tuple[Metric, ...]) -> str:
    """The part that the Hub reads, YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    task, task_name = _TASKS[kind]
    results = [
        EvalResult(
            task_type=task,
            task_name=task_name,
            dataset_type=_slug(metric.dataset),
            dataset_name=metric.dataset,
            metric_type=_slug(metric.metric),
            metric_name=metric.metric,
            metric_value=metric.value,
        )
        for metric in metrics
    ]
    licence = about.get("licence")
    known = licence is not None and str(licence).lower() in _LICENCES
    data = ModelCardData(
        library_name="stmemory",
        license=None if licence is None else str(licence).lower() if known else "other",
        license_name=None if licence is None or known else _slug(str(licence)),
        pipeline_tag=task if task == "mask-generation" else None,
        tags=[_slug(task_name), *_TAGS],
        model_name=title if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml()).strip()


def _words(told: object) -> str:
    return "\n".join(f"- {entry}" for entry in told) if isinstance(told, (list, tuple)) else str(told)


def _cell(words: str) -> str:
    """Words that may stand in a table."""
    return words.replace("|", "\\|").replace("\n", " ")


def _slug(words: str) -> str:
    """Lower-case letters and digits with hyphens between.

    >>> _slug("DAVIS-2016 val, J&F")
    'davis-2016-val-j-f'
    """
    kept = "".join(letter if letter.isalnum() and letter.isascii() else " " for letter in words.lower())
    return "-".join(kept.split())


_WHAT = {
    "network": (
        "Weights for stmemory, which tracks objects through a video of any length in memory "
        "that does not grow, by the method of *Space Time Recurrent Memory Network* (Nguyen and Li, arXiv 2109.06474)."
    ),
    "prediction_network": (
        "Weights for stmemory, which predicts the next frames of a video of any length from memory "
        "that does not grow, by the method of *Space Time Recurrent Memory Network* (Nguyen and Li, arXiv 2109.06474)."
    ),
    "fusion_cell": (
        "A fusion cell for the memory bank of stmemory: it distils one template into another "
        "(eq. 3-10 of *Space Time Recurrent Memory Network*, Nguyen and Li, arXiv 2109.06474)."
    ),
}

_EXAMPLES = {
    "network": """\
import numpy as np
from stmemory import VOSPredictor

predictor = VOSPredictor.from_pretrained({name!r})
frames = np.zeros((3, 64, 96, 3), np.uint8)  # or a video's path
first_mask = np.zeros((64, 96), np.uint8)
first_mask[20:40, 30:60] = 1
for result in predictor.track(frames, first_mask):
    print(result.frame_index, result.ids.shape)
""",
    "prediction_network": """\
import numpy as np
from stmemory import FramePredictor

predictor = FramePredictor.from_pretrained({name!r})
frames = np.zeros((10, 64, 64, 3), np.uint8)  # or a video's path
for prediction in predictor.predict(frames, steps=5):
    print(prediction.frame_index, prediction.picture().shape)
""",
    "fusion_cell": """\
import torch
from stmemory import FusionCell, MemoryBank

cell = FusionCell.from_pretrained({name!r})
bank = MemoryBank(4, fusion=cell)
with torch.inference_mode():
    for frame in range(10):
        bank.write(torch.randn(1, cell.channels, *[8] * cell.spatial_dims), frame=frame)
""",
}
