"""Reports of prediction: tables, plots and strips, from the runs of a comparison."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from stmemory.errors import OptionError, WeightsError
from stmemory.evaluation.frame_metrics import FrameScores
from stmemory.evaluation.report import Circumstances, current_circumstances
from stmemory.io.files import whole_file
from stmemory.memory.policy import update_policy
from stmemory.prediction.baselines import RecurrentNetwork
from stmemory.prediction.evaluate import Cost, Forecaster, cost_of, forecast_with, measure, trivial_forecasts
from stmemory.prediction.network import PredictionNetwork
from stmemory.prediction.train import ClipSource, at_period, new_network
from stmemory.prediction.train_config import ClipSet, PredictionTraining
from stmemory.training.run_state import read_state

__all__ = [
    "Others",
    "PredictionResult",
    "Trained",
    "draw_prediction_strips",
    "draw_recall",
    "export",
    "load_trained",
    "prediction_document",
    "prediction_tables",
    "report",
]

_COSTS = ("steps", "parameters", "multiply-adds a frame", "state, bytes")


@dataclass(frozen=True)
class PredictionResult:
    """One predictor on one test.

    Attributes:
        name: name of the predictor.
        test: name of the test that the clips are from.
        period: N of a recall set; None where there is none.
        clips: number of clips.
        scores: means over all frames that were not given.
        cost: None for predictors that learn nothing.
        steps: steps of training; None for those.
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


_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_LABEL = 110  # px on the left of a strip
_GAP = 2


def draw_recall(path: Path, results: Sequence[PredictionResult], *, title: str = "") -> None:
    """Draw MSE over N of each recall set, one curve a predictor: full lines for what was trained, dotted ones for the
    rest.

    Args:
        path: PNG.
        results: those without an N are left out.
        title: title of the figure.

    Raises:
        OptionError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OptionError(
            f"{path.name}: expected matplotlib, which is not installed; pip install 'stmemory[plot]'"
        ) from error
    recalled = [result for result in results if result.period is not None]
    tests = list(dict.fromkeys(result.test for result in recalled))
    figure = Figure(figsize=(7.6 * max(1, len(tests)), 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axis, test in zip(figure.subplots(1, max(1, len(tests)), squeeze=False)[0], tests, strict=False):
        rows = [result for result in recalled if result.test == test]
        for number, name in enumerate(dict.fromkeys(row.name for row in rows)):
            points = sorted((row.period or 0, row.scores.mse, row.cost is not None) for row in rows if row.name == name)
            style = "-" if points[0][2] else ":"
            axis.plot(
                [p[0] for p in points],
                [p[1] for p in points],
                style,
                marker=_MARKS[number % len(_MARKS)],
                ms=4,
                label=name,
            )
        axis.set(xlabel="N", ylabel="MSE a frame", title=test)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle(title, fontsize=8)
    with whole_file(path) as part:
        figure.savefig(part, format="png")


def draw_prediction_strips(path: Path, rows: Mapping[str, Tensor], *, zoom: int = 2) -> None:
    """Draw clips below each other, frames from left to right, each with its name.

    Args:
        path: PNG.
        rows: `[T, C, H, W]` in [0, 1], C of 1 or 3; shorter ones end at the right, so that what was predicted stands
            under the truth.
        zoom: pixels of the image for each of a frame.
    """
    longest = max(len(frames) for frames in rows.values())
    height, width = (zoom * side for side in next(iter(rows.values())).shape[2:])
    sheet = Image.new("RGB", (_LABEL + longest * (width + _GAP), len(rows) * (height + _GAP)), (60, 60, 60))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (name, frames) in enumerate(rows.items()):
        top = number * (height + _GAP)
        pen.text((6, top + height // 2), name, fill=(255, 255, 255), font=font, anchor="lm")
        for place, frame in enumerate(frames, longest - len(frames)):
            pixels = (255 * frame.clamp(0, 1)).byte().expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
            picture = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (_LABEL + place * (width + _GAP), top))
    with whole_file(path) as part:
        sheet.save(part, format="PNG")


_MEAN_OF = 256  # clips of training that the data set's mean image is of
_DRAWN = 2  # clips of each test in the strips


@dataclass(frozen=True, eq=False)
class Trained:
    """A contender as far as it was trained.

    Attributes:
        name: name of the contender.
        network: network with averaged weights.
        steps: steps of training.
        capacity: K.
        policy: update policy of its bank.
    """

    name: str
    network: PredictionNetwork | RecurrentNetwork
    steps: int
    capacity: int
    policy: str

    @property
    def remembers(self) -> bool:
        """Whether it has a bank, so that its capacity means something."""
        return isinstance(self.network, PredictionNetwork) and self.network.config.memory == "bank"


@dataclass(frozen=True)
class Others:
    """What else to measure networks with a bank with.

    Attributes:
        capacities: each a K.
        policies: names of rules.

    Raises:
        OptionError: a capacity is below 2, or a policy is unknown or a learned one, whose weights are not at hand.
    """

    capacities: tuple[int, ...] = ()
    policies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(capacity < 2 for capacity in self.capacities):
            raise OptionError(
                "capacities: expected 2 slots or more each, got "
                f"{', '.join(map(str, self.capacities))}; leave the others out"
            )
        for policy in self.policies:
            if isinstance(update_policy(policy), nn.Module):
                raise OptionError(
                    f"policies: expected rules, got {policy!r}, whose weights would be random; leave it out"
                )


@dataclass(frozen=True)
class _Measuring:
    """How one test is measured.

    Attributes:
        strips: image that clips of it are drawn into.
        clips: number of clips that are measured.
        device: where.
    """

    strips: Path
    clips: int
    device: str


def load_trained(run: Path, name: str, *, device: str = "cpu") -> Trained:
    """Read a contender of a comparison from the last state that it left.

    Args:
        run: folder of the comparison.
        name: name of the contender.
        device: device to put it on.

    Raises:
        WeightsError: there is no such state, or it is damaged.
        OptionError: the comparison has no such contender.

    >>> load_trained(Path("no/such/run"), "ours")
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/run/config.json: expected the JSON of a comparison, see
    PredictionTraining, got: No such file or directory; check the path
    """
    config = PredictionTraining.load(run / "config.json")
    contender = config.contender(name)
    path = run / name / "state.pt"
    if not path.exists():
        raise WeightsError(f"{path}: expected a state of training, got no such file; stmemory train predict run")
    state = read_state(path, needs=("average", "step"))
    network = new_network(config, name).to(device).eval()
    network.load_state_dict(state["average"])
    return Trained(
        name, network, int(state["step"]), contender.capacity or config.capacity, contender.policy or config.policy
    )


def report(
    runs: Sequence[Path], out: Path, *, clips: int = 0, others: Others | None = None, device: str = "cpu"
) -> tuple[str, list[str]]:
    """Measure all that was trained in some comparisons, and predictors that learn nothing, on the tests of each.

    Args:
        runs: folders of comparisons.
        out: folder for `prediction.md`, `prediction.json`, `strips_TEST_NUMBER.png`, and `prediction.png` if there is a
            recall set and matplotlib is installed.
        clips: number of clips of each test; 0 for as many as the configuration says.
        others: measure networks with a bank at these memory sizes and under these policies too, whatever they were
            trained with.
        device: device to measure on.

    Returns:
        The Markdown, with a line if matplotlib is missing where a plot would be, and the contenders that have no state
        yet.

    Raises:
        OptionError: a folder holds no comparison or is named twice, or `clips` is below 0.

    >>> report([Path("no/such/run")], Path("report"))
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/run/config.json: expected the JSON of a comparison, see
    PredictionTraining, got: No such file or directory; check the path
    """
    if clips < 0:
        raise OptionError(f"clips: expected 0, for as many as the configuration says, or more, got {clips}; change it")
    results, missing, configs, labels = [], [], {}, _labels(runs)
    for label, run in zip(labels, runs, strict=True):
        config = PredictionTraining.load(run / "config.json")
        configs[label] = json.loads(config.to_json())
        names = [contender.name for contender in config.contenders]
        missing += [f"{label}/{name}" for name in names if not (run / name / "state.pt").exists()]
        trained = [load_trained(run, name, device=device) for name in names if f"{label}/{name}" not in missing]
        trained = [other for one in trained for other in (one, *_with(one, others or Others()))]
        mean = ClipSource(config.train, seed=config.seed).draw(range(_MEAN_OF)).frames.mean((0, 1))
        for number, test in enumerate(config.tests):
            how = _Measuring(out / f"strips_{label}_{number}.png", clips or config.test_clips, device)
            for result in _test(config, test, trained, mean.to(device), how):
                results.append(result if len(runs) == 1 else replace(result, test=f"{result.test} ({label})"))
    circumstances = current_circumstances(device=device, seed=configs[labels[0]]["seed"] if runs else None)
    machine = f"device {circumstances.device}, {circumstances.threads} threads, torch {circumstances.torch}"
    text = f"{prediction_tables(results)}\n{machine}, seed {circumstances.seed}\n"
    with whole_file(out / "prediction.md") as part:
        part.write_text(text, encoding="utf-8")
    with whole_file(out / "prediction.json") as part:
        part.write_text(
            prediction_document(results, circumstances, extra={"configs": configs, "missing": missing}),
            encoding="utf-8",
        )
    plot = out / "prediction.png"
    if all(result.period is None for result in results):
        return text, missing
    if importlib.util.find_spec("matplotlib") is None:
        plot.unlink(missing_ok=True)  # that of another report, whose table is gone
        return f'{text}no plot: it needs matplotlib: pip install "stmemory[plot]"\n', missing
    draw_recall(plot, results, title=f"{machine}, seed {circumstances.seed}")
    return text, missing


def export(run: Path, name: str, out: Path) -> int:
    """Write a network of ours with its averaged weights as a folder that `from_pretrained` reads; its step.

    Raises:
        OptionError: the contender is a baseline.
        WeightsError: it was not trained yet.

    >>> export(Path("no/such/run"), "ours", Path("weights"))
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/run/config.json: expected the JSON of a comparison, see
    PredictionTraining, got: No such file or directory; check the path
    """
    config = PredictionTraining.load(run / "config.json")
    trained = load_trained(run, name)
    if not isinstance(trained.network, PredictionNetwork):
        raise OptionError(
            f"export: expected a contender of kind ours or state_only, got {name!r}, a {config.contender(name).kind}"
        )
    about = {
        "training": {
            "steps": trained.steps,
            "capacity": trained.capacity,
            "policy": trained.policy,
            "config": config.learning_of(name),
        }
    }
    trained.network.save_pretrained(out, about=about)
    return trained.steps


def _labels(runs: Sequence[Path]) -> list[str]:
    """A name for each folder: the shortest ends of their paths that tell them apart, with _ for the separator."""
    parts = [run.resolve().parts for run in runs]
    for length in range(1, max(map(len, parts), default=0) + 1):
        labels = ["_".join(each[-length:]).strip("/") for each in parts]
        if len(set(labels)) == len(labels):
            return labels
    if runs:
        raise OptionError(f"runs: expected folders of different names, got {', '.join(map(str, runs))}; name each once")
    return []


def _with(trained: Trained, others: Others) -> Iterator[Trained]:
    """The same weights with other memory sizes and policies."""
    if not trained.remembers:
        return
    for capacity in others.capacities:
        if capacity != trained.capacity:
            yield replace(trained, name=f"{trained.name}, K = {capacity}", capacity=capacity)
    for policy in others.policies:
        if policy != trained.policy:
            yield replace(trained, name=f"{trained.name}, {policy}", policy=policy)


def _test(
    config: PredictionTraining, test: ClipSet, trained: Sequence[Trained], mean: Tensor, how: _Measuring
) -> Iterator[PredictionResult]:
    """Everybody on one test; for a recall set at each N."""
    number, device = how.clips, how.device
    periods: tuple[int | None, ...] = config.periods if test.kind != "moving" else (None,)
    sources = [
        ClipSource(test if period is None else at_period(test, period), test=True, seed=config.seed)
        for period in periods
    ]
    clips_at = [source.draw(range(number)) for source in sources]
    longest = max((found.frames for found in clips_at), key=lambda frames: frames.shape[1]).to(device)
    known = {one.name: one for one in trained}
    costs = {  # of a frame: the same at every N
        one.name: cost_of(one.network, _long(longest, one.capacity), capacity=one.capacity, policy=one.policy)
        for one in trained
    }
    drawn: dict[str, Tensor] = {}
    for period, found in zip(periods, clips_at, strict=True):
        frames, observed = found.frames.to(device), int(found.observed[0])
        forecasts: dict[str, Forecaster] = {
            one.name: forecast_with(one.network, capacity=one.capacity, policy=one.policy) for one in trained
        }
        forecasts |= trivial_forecasts(mean)
        for name, forecast in forecasts.items():
            scores, one = measure(forecast, frames, observed), known.get(name)
            label = f"{name}, K = {one.capacity}" if one and one.remembers and ", K = " not in name else name
            yield PredictionResult(
                label, test.kind, period, number, scores, costs.get(name), None if one is None else one.steps
            )
        if period is None or period == config.periods[len(config.periods) // 2]:
            for place in range(min(_DRAWN, number)):
                drawn[f"truth {place}"] = frames[place]
                wanted = frames.shape[1] - observed
                for name in (contender.name for contender in config.contenders if contender.name in known):
                    drawn[f"{name} {place}"] = forecasts[name](frames[place : place + 1, :observed], wanted)[0]
    draw_prediction_strips(how.strips, drawn)


def _long(frames: Tensor, capacity: int) -> Tensor:
    """A video that is longer than the memory, `[T, C, H, W]`: clips one after another."""
    return frames.flatten(0, 1)[: capacity + 2]
