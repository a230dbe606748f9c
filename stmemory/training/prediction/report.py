"""From the folders of a comparison to its table, plot and strips, and to weights that can be loaded. Trains nothing,
measures by others."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from stmemory.errors import OptionError, WeightsError
from stmemory.evaluation.prediction import Forecaster, cost_of, forecast_with, measure, trivial_forecasts
from stmemory.evaluation.prediction_plot import draw_prediction_strips, draw_recall
from stmemory.evaluation.prediction_report import PredictionResult, prediction_document, prediction_tables
from stmemory.evaluation.report import current_circumstances
from stmemory.files import whole_file
from stmemory.memory.registry import update_policy
from stmemory.networks.prediction import PredictionNetwork
from stmemory.training.prediction.baselines import RecurrentNetwork
from stmemory.training.prediction.clips import ClipSource, at_period
from stmemory.training.prediction.config import ClipSet, PredictionTraining
from stmemory.training.prediction.loop import new_network
from stmemory.training.run_state import read_state

__all__ = ["Others", "Trained", "export", "load_trained", "report"]

_MEAN_OF = 256  # clips of training that the data set's mean picture is of
_DRAWN = 2  # clips of each test in the strips


@dataclass(frozen=True, eq=False)
class Trained:
    """A contender as far as it was trained.

    Attributes:
        name: of the contender.
        network: with averaged weights.
        steps: of training.
        capacity: K.
        policy: of its bank.
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
                f"capacities: expected 2 slots or more each, got {', '.join(map(str, self.capacities))}; leave the "
                "others out"
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
        strips: picture that clips of it are drawn into.
        clips: how many are measured.
        device: where.
    """

    strips: Path
    clips: int
    device: str


def load_trained(run: Path, name: str, *, device: str = "cpu") -> Trained:
    """Read a contender of a comparison from the last state that it left.

    Args:
        run: folder of the comparison.
        name: of the contender.
        device: where to put it.

    Raises:
        WeightsError: there is no such state, or it is damaged.
        OptionError: the comparison has no such contender.

    >>> load_trained(Path("no/such/run"), "ours")
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/run/config.json: expected the JSON of a comparison, got: No such file or
    directory; check the path
    """
    config = PredictionTraining.load(run / "config.json")
    contender = config.contender(name)
    path = run / name / "state.pt"
    if not path.exists():
        raise WeightsError(
            f"{path}: expected a state of training, got no such file; python -m stmemory.training predict run"
        )
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
        clips: of each test; 0 for as many as the configuration says.
        others: measure networks with a bank at these memory sizes and under these policies too, whatever they were
            trained with.
        device: where to measure.

    Returns:
        The Markdown, with a line if matplotlib is missing where a plot would be, and the contenders that have no state
        yet.

    Raises:
        OptionError: a folder holds no comparison or is named twice, or `clips` is below 0.

    >>> report([Path("no/such/run")], Path("report"))
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/run/config.json: expected the JSON of a comparison, got: No such file or
    directory; check the path
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
    told = f"device {circumstances.device}, {circumstances.threads} threads, torch {circumstances.torch}, seed {circumstances.seed}"
    text = f"{prediction_tables(results)}\n{told}\n"
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
    draw_recall(plot, results, title=told)
    return text, missing


def export(run: Path, name: str, out: Path) -> int:
    """Write a network of ours with its averaged weights as a folder that `from_pretrained` reads; its step.

    Raises:
        OptionError: the contender is a baseline.
        WeightsError: it was not trained yet.

    >>> export(Path("no/such/run"), "ours", Path("weights"))
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/run/config.json: expected the JSON of a comparison, got: No such file or
    directory; check the path
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
