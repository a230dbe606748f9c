"""Training and comparing prediction networks: baselines, what is given and weighed, exact resume, the table."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from stmemory.errors import OptionError, ShapeError, WeightsError
from stmemory.io.run_folder import held
from stmemory.prediction.baselines import ConvLSTM, RecurrentNetwork, SpatiotemporalLSTM, matched, parameters
from stmemory.prediction.config import PREDICTION_PRESETS, PredictionConfig
from stmemory.prediction.evaluate import cost_of, forecast_with, measure, trivial_forecasts
from stmemory.prediction.network import PredictionNetwork
from stmemory.prediction.report import report
from stmemory.prediction.train import (
    Clips,
    ClipSource,
    PredictionTrainer,
    new_network,
    prediction_loss,
    roll,
    true_frames,
    true_probability,
)
from stmemory.prediction.train_config import ClipSet, Contender, PredictionTraining
from stmemory.training.__main__ import main
from stmemory.training.schedule import learning_rate

EXAMPLES = Path(__file__).parents[1] / "examples" / "training"
KINDS = ("ours", "state_only", "convlstm", "predrnn")
NETWORK = {
    "image_side": 16,
    "widths": (8, 8, 8, 8, 16, 24),
    "key_channels": 16,
    "value_channels": 16,
    "fusion_bottleneck": 8,
}
REPEATING = ClipSet(kind="repeating", glyphs=30, size=16, frames=5, observed=0, least=2, most=2, digits=1)
TINY = PredictionTraining(
    network=NETWORK,
    contenders=tuple(Contender(kind, kind) for kind in KINDS),
    train=REPEATING,
    tests=(replace(REPEATING, kind="moving", observed=2), REPEATING),
    periods=(2, 3),
    test_clips=2,
    steps=4,
    batch=2,
    capacity=2,
    warmup=1,
    unknown_weight=0.5,
    save_every=2,
)


def losses_of(trainer: PredictionTrainer, steps: int) -> list[dict[str, float]]:
    """What some steps answer."""
    return [trainer.train_step() for _ in range(steps)]


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("preset", sorted(PREDICTION_PRESETS))
def test_baselines_are_as_large_as_ours(preset: str, kind: str) -> None:
    """A baseline has as many parameters as ours, within 3 %, and state only has a state that is no narrower."""
    config = PredictionConfig.of(preset)
    with torch.device("meta"):
        count = parameters(PredictionNetwork(config))
        found = matched(config, kind, count)

    assert abs(parameters(found) / count - 1) <= 0.03
    if isinstance(found, PredictionNetwork):
        assert found.config.memory == "none"
        assert found.config.widths[-1] >= config.widths[-1]


def test_a_baseline_that_cannot_be_matched_is_refused() -> None:
    """A number of parameters that no width comes near is an error that names the nearest."""
    with pytest.raises(OptionError, match="within 3 %, got"):
        matched(PredictionConfig.of("mini"), "convlstm", 1000)


def test_convlstm_follows_its_equations() -> None:
    """The four gates at once give what the equations give one by one."""
    layer, x, h, c = ConvLSTM(3, 2), torch.randn(2, 3, 4, 4), torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 4)
    hidden, cell = layer(x, h, c)

    def gate(number: int) -> Tensor:
        part = slice(2 * number, 2 * number + 2)
        weight, bias = layer.gates.weight[part], layer.gates.bias[part]
        return conv2d(x, weight[:, :3], bias, padding=1) + conv2d(h, weight[:, 3:], padding=1)

    i, f, o, g = (gate(number) for number in range(4))
    expected = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
    torch.testing.assert_close(cell, expected)
    torch.testing.assert_close(hidden, torch.sigmoid(o) * torch.tanh(expected))


def test_spatiotemporal_lstm_follows_its_equations() -> None:
    """The layer gives what PredRNN's equations give gate by gate."""
    layer = SpatiotemporalLSTM(3, 2)
    x, h, c, m = torch.randn(2, 3, 4, 4), *(torch.randn(2, 2, 4, 4) for _ in range(3))
    hidden, cell, flow = layer(x, h, c, m)

    def w(convolution: torch.nn.Conv2d, number: int, given: Tensor) -> Tensor:
        part = slice(2 * number, 2 * number + 2)
        bias = None if convolution.bias is None else convolution.bias[part]
        return conv2d(given, convolution.weight[part], bias, padding=convolution.kernel_size[0] // 2)

    g = torch.tanh(w(layer.of_input, 0, x) + w(layer.of_hidden, 0, h))
    i = torch.sigmoid(w(layer.of_input, 1, x) + w(layer.of_hidden, 1, h))
    f = torch.sigmoid(w(layer.of_input, 2, x) + w(layer.of_hidden, 2, h) + 1)
    expected_cell = f * c + i * g
    g = torch.tanh(w(layer.of_input, 3, x) + w(layer.of_flow, 0, m))
    i = torch.sigmoid(w(layer.of_input, 4, x) + w(layer.of_flow, 1, m))
    f = torch.sigmoid(w(layer.of_input, 5, x) + w(layer.of_flow, 2, m) + 1)
    expected_flow = f * m + i * g
    both = torch.cat([expected_cell, expected_flow], 1)
    o = torch.sigmoid(w(layer.of_input, 6, x) + w(layer.of_hidden, 3, h) + w(layer.of_both, 0, both))
    torch.testing.assert_close(cell, expected_cell)
    torch.testing.assert_close(flow, expected_flow)
    torch.testing.assert_close(hidden, o * torch.tanh(w(layer.last, 0, both)))


def test_the_flow_of_predrnn_runs_in_zigzag() -> None:
    """The flow goes up through the layers of a frame, and from the last layer to the first of the next frame."""
    network = RecurrentNetwork(replace(TINY.network_of(), widths=(8,) * 6), "predrnn", 4).eval()
    state, met = network.new_state(), []
    for layer in network.layers:
        layer.register_forward_hook(lambda _, given, found: met.append((given[3], found[2])))
    for _ in range(2):
        network.step(torch.rand(1, 1, 16, 16), state)

    assert [True] * 3 == [before[1] is after[0] for before, after in itertools.pairwise(met)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_contender_has_one_interface(kind: str) -> None:
    """Each steps to a frame of the same size, with a state of constant bytes that can go two ways and refuses odd
    sizes."""
    network = new_network(TINY, kind).eval()
    state = network.new_state(2, policy="drop")
    with torch.no_grad():
        sizes = []
        for _ in range(4):
            predicted = network.step(torch.rand(2, 1, 16, 16), state)
            sizes.append(state.nbytes)
        frame, twin = torch.rand(2, 1, 16, 16), state.fork()
        first = network.step(frame, state)
        torch.testing.assert_close(network.step(frame, twin), first)

    assert (2, 1, 16, 16) == predicted.shape
    assert len(set(sizes[1:])) == 1 and sizes[-1] > 0
    with pytest.raises(ShapeError):
        network.step(torch.rand(2, 1, 18, 18), state)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_resumed_run_equals_one_that_was_never_stopped(kind: str, tmp_path: Path) -> None:
    """A run that stops half-way and goes on has the same losses and weights, to the last bit."""
    whole, first = (PredictionTrainer(TINY, kind, tmp_path / name) for name in ("whole", "parts"))
    expected = losses_of(whole, 4)
    found = losses_of(first, 2)
    first.save()
    second = PredictionTrainer(TINY, kind, tmp_path / "parts")

    assert second.resume()
    assert expected == found + losses_of(second, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole.average.parameters(), second.average.parameters(), strict=True))


def test_a_run_of_another_configuration_is_not_continued(tmp_path: Path) -> None:
    """What the weights depend on must be the same; tests and other contenders may change."""
    PredictionTrainer(TINY, "ours", tmp_path).save()

    assert PredictionTrainer(replace(TINY, test_clips=3, contenders=(Contender(),)), "ours", tmp_path).resume()
    with pytest.raises(OptionError, match="another run of ours: learning rate was"):
        PredictionTrainer(replace(TINY, learning_rate=1.0), "ours", tmp_path).resume()


def test_stopping_saves_after_the_step(tmp_path: Path) -> None:
    """`stop` ends a run after its step, with a state on disk and a log up to there."""
    trainer = PredictionTrainer(TINY, "convlstm", tmp_path)
    for _ in trainer.run(log_every=1):
        trainer.stop()
    again = PredictionTrainer(TINY, "convlstm", tmp_path)

    assert again.resume() and 1 == again.step
    again.stop()  # before its first step
    assert [] == list(again.run(log_every=1))
    assert [1] == [json.loads(line)["step"] for line in (tmp_path / "convlstm" / "log.jsonl").read_text().splitlines()]


def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that are NaN are counted as a lost step."""
    trainer = PredictionTrainer(TINY, "convlstm", tmp_path)
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("nan")))

    assert {"lost": 1.0} == trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))


def test_the_log_says_what_a_step_was_done_with(tmp_path: Path) -> None:
    """Rate and probability of true frames in a line of the log are those of its last step, not of the next one."""
    records = list(PredictionTrainer(TINY, "convlstm", tmp_path).run(log_every=1))

    assert [learning_rate(TINY, step) for step in range(4)] == [record["rate"] for record in records]
    assert [true_probability(TINY, step) for step in range(4)] == [record["true"] for record in records]


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 2), (1.0, 4)], ids=["none", "all"])
def test_observed_frames_are_always_given(probability: float, expected: int) -> None:
    """Scheduled sampling decides about frames that were not promised, and about no others."""
    given = true_frames(Clips(torch.zeros(3, 4, 1, 8, 8), torch.tensor([2, 2, 2])), probability, torch.Generator())

    assert [expected] * 3 == given.sum(1).tolist()
    assert bool(given[:, :2].all())


def test_rolling_takes_own_frames_where_none_is_given() -> None:
    """A frame that is not given has no influence; the network sees its own one, limited to [0, 1]."""
    network = new_network(TINY, "convlstm")
    frames, given = torch.rand(2, 4, 1, 16, 16), torch.tensor([[True, True, False, False]] * 2)
    other = frames.clone()
    other[:, 2:] = 0.5
    found = roll(network, frames, given, capacity=2, policy="drop")

    torch.testing.assert_close(roll(network, other, given, capacity=2, policy="drop"), found)
    with torch.no_grad():
        foreseen = forecast_with(network, capacity=2, policy="drop")(frames[:, :2], 2)
    torch.testing.assert_close(foreseen, found[:, 1:].detach().clamp(0, 1))


def test_frames_that_nothing_tells_of_weigh_less() -> None:
    """The loss is the weighted mean of squared and absolute error."""
    clips = Clips(torch.zeros(1, 3, 1, 2, 2), torch.tensor([2]))
    predicted = torch.tensor([1.0, 0.5]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 2, 2)

    torch.testing.assert_close(
        prediction_loss(predicted, clips, unknown_weight=0.25, absolute_weight=1.0),
        torch.tensor((0.25 * 2 + 0.75) / 1.25),
    )


def test_tests_show_digits_that_training_does_not() -> None:
    """Training and test clips of one set are different, and each is the same again."""
    train, test, again = (ClipSource(REPEATING, test=which).draw(range(4)).frames for which in (False, True, True))

    assert torch.equal(test, again)
    assert not torch.equal(train, test)


@pytest.mark.parametrize(
    ("kind", "test", "expected"), [("repeating", False, 3), ("vanishing", False, 3), ("vanishing", True, 6)]
)
def test_all_that_can_be_known_is_predicted(kind: str, test: bool, expected: int) -> None:
    """In a cycle of N pictures N + 1 frames are given; behind a curtain tests begin when it opens."""
    clips = ClipSource(replace(REPEATING, kind=kind, frames=12), test=test).draw(range(2))

    assert [expected] * 2 == clips.observed.tolist()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("predict_*.json")), ids=lambda path: path.stem)
def test_examples_load(path: Path) -> None:
    """Every committed configuration can be read, and written and read again."""
    config = PredictionTraining.load(path)

    assert config == PredictionTraining.from_json(config.to_json())
    assert "ours" in [contender.kind for contender in config.contenders]


@pytest.mark.parametrize(
    "text",
    [
        '{"stepz": 5}',
        '{"steps": 0}',
        "[",
        '{"contenders": [{"name": "a/b"}]}',
        '{"contenders": [{"capacity": 1}]}',
        '{"contenders": [{"capacity": -3}]}',
        '{"network": {"depth": 3}}',
        '{"policy": "learned"}',
        '{"periods": []}',
        '{"periods": [0]}',
        '{"periods": [2.5]}',
        '{"tests": []}',
        '{"warmup": -3}',
        '{"weight_decay": -1}',
        '{"final_factor": -1}',
        '{"seed": 1.5}',
        '{"train": {"frames": 8.0}}',
        '{"train": {"kind": "repeating", "observed": -1}}',
    ],
)
def test_bad_configurations_are_refused(text: str) -> None:
    """What cannot be meant is an error of ours."""
    with pytest.raises(OptionError):
        PredictionTraining.from_json(text)


def test_trivial_predictors() -> None:
    """Each says what its name says."""
    frames = torch.rand(3, 4, 1, 8, 8)
    found = {name: forecast(frames, 2)[:, 1] for name, forecast in trivial_forecasts(frames[0, 0]).items()}

    assert torch.equal(found["copy last"], frames[:, -1])
    torch.testing.assert_close(found["mean of inputs"], frames.mean(1))
    assert not found["zeros"].any()
    assert torch.equal(found["data-set mean"], frames[:1, 0].expand(3, 1, 8, 8))
    assert 0.0 == measure(trivial_forecasts(frames[0, 0])["copy last"], frames[:, :1].expand(-1, 4, -1, -1, -1), 2).mse


def test_multiply_adds_are_those_of_the_layers() -> None:
    """For a network of convolutions alone the count is the sum over its layers of weights times places."""
    network = new_network(TINY, "convlstm")
    expected = 0

    def count(layer: torch.nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
        nonlocal expected
        places = given[0] if isinstance(layer, torch.nn.ConvTranspose2d) else found
        expected += layer.get_parameter("weight").numel() * places.shape[2] * places.shape[3]

    cost = cost_of(network, torch.rand(4, 1, 16, 16), capacity=2, policy="drop")
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    network.step(torch.rand(1, 1, 16, 16), network.new_state())

    assert expected == cost.multiply_adds
    assert parameters(network) == cost.parameters


def test_commands_train_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`predict run` trains what it is asked for; `predict report` writes table, plot and strips, and names what is not
    trained."""
    pytest.importorskip("matplotlib")
    (tmp_path / "config.json").write_text(replace(TINY, steps=2).to_json())
    run, out = tmp_path / "run", tmp_path / "out"

    assert 0 == main(
        ["predict", "run", str(tmp_path / "config.json"), "-o", str(run), "--only", "ours", "convlstm", "--turns", "1"]
    )
    assert 1 == main(["predict", "report", str(run), "-o", str(out), "--capacities", "4", "--policies", "drop"])
    said = capsys.readouterr().out
    table = (out / "prediction.md").read_text()
    results = json.loads((out / "prediction.json").read_text())["results"]
    assert "not trained yet, left out: run/predrnn" in said
    assert (
        "| predictor | MSE | MAE | SSIM | PSNR | steps | parameters | multiply-adds a frame | state, bytes |" in table
    )
    assert "| MSE at N = | 2 | 3 |" in table
    rows = [
        "ours, K = 2",
        "ours, K = 4",
        "ours, drop, K = 2",
        "convlstm",
        "copy last",
        "mean of inputs",
        "zeros",
        "data-set mean",
    ]
    assert rows == [result["name"] for result in results if result["test"] == "moving"]
    assert {"prediction.png", "strips_run_0.png", "strips_run_1.png"} <= {file.name for file in out.iterdir()}
    assert 2 == main(["predict", "export", str(run), "convlstm", str(tmp_path / "weights")])


def test_one_run_at_a_time_trains_a_contender(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second one of the same folder is refused; other contenders of the comparison may be trained meanwhile."""
    (tmp_path / "config.json").write_text(replace(TINY, steps=1).to_json())
    run = ["predict", "run", str(tmp_path / "config.json"), "-o", str(tmp_path / "run"), "--only"]
    with held(tmp_path / "run" / "ours"):
        assert 2 == main([*run, "ours"])
        assert "no other run writes into" in capsys.readouterr().err
        assert 0 == main([*run, "convlstm"])

    assert [] == list((tmp_path / "run").rglob(".lock"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"batches": 3}', "batches: expected the name of a setting, got one that does not exist; did you mean batch?"),
        ('{"tests": [{"size": "32"}]}', "tests[0].size: expected a whole number, got '32'"),
        ('{"train": {"size": 18}}', "train.size: expected a multiple of 4, 16 or more, got 18"),
        ('{"contenders": {}}', "contenders: expected a list, in [ and ], got {}"),
        (
            '{"contenders": [{"network": 3}]}',
            "contenders[0].network: expected an object of settings, in { and }, got 3",
        ),
    ],
)
def test_a_bad_comparison_is_told_by_its_field(text: str, said: str) -> None:
    """The place in the file, what was expected there, and what came."""
    with pytest.raises(OptionError) as caught:
        PredictionTraining.from_json(text)

    assert said == str(caught.value)


def test_the_last_steps_of_a_comparison_are_logged(tmp_path: Path) -> None:
    """Three steps give a line, of the third; where a run is interrupted makes none."""
    for until in (1, 3):
        trainer = PredictionTrainer(replace(TINY, steps=3), "convlstm", tmp_path)
        trainer.resume()
        for _ in trainer.run(until=until):
            pass

    assert [3] == [json.loads(line)["step"] for line in (tmp_path / "convlstm" / "log.jsonl").read_text().splitlines()]


def test_a_report_without_matplotlib_has_no_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has all the rest, the plot of an earlier report is gone, and the command names the extra and fails for
    nothing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run, out = tmp_path / "run", tmp_path / "out"
    config = replace(TINY, steps=1, contenders=(Contender(),), test_clips=2)
    assert any(test.kind != "moving" for test in config.tests)
    (tmp_path / "config.json").write_text(config.to_json())
    out.mkdir()
    (out / "prediction.png").write_bytes(b"of another time")
    assert 0 == main(["predict", "run", str(tmp_path / "config.json"), "-o", str(run)])
    assert 0 == main(["predict", "report", str(run), "-o", str(out)])

    assert 'no plot: it needs matplotlib: pip install "stmemory[plot]"' == capsys.readouterr().out.splitlines()[-1]
    assert ["prediction.json", "prediction.md", "strips_run_0.png", "strips_run_1.png"] == sorted(
        file.name for file in out.iterdir()
    )
    assert "matplotlib" not in (out / "prediction.md").read_text()


def test_comparisons_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Two folders of one name have configurations, rows and strips of their own; one that is named twice is refused."""
    pytest.importorskip("matplotlib")
    runs = [tmp_path / name / "run" for name in ("A", "B")]
    for seed, run in enumerate(runs):
        run.mkdir(parents=True)
        (run / "config.json").write_text(
            replace(TINY, contenders=(Contender(),), tests=TINY.tests[:1], seed=seed).to_json()
        )
    _, missing = report(runs, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "prediction.json").read_text())

    assert ["A_run/ours", "B_run/ours"] == missing
    assert {"A_run": 0, "B_run": 1} == {label: config["seed"] for label, config in document["configs"].items()}
    assert {"moving (A_run)", "moving (B_run)"} == {result["test"] for result in document["results"]}
    assert ["strips_A_run_0.png", "strips_B_run_0.png"] == sorted(
        path.name for path in (tmp_path / "out").glob("strips_*")
    )
    with pytest.raises(OptionError, match="name each once"):
        report([runs[0], tmp_path / "A" / ".." / "A" / "run"], tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["-o", "FILE"], "-o: expected a folder"),
        (["-o", "FILE/out"], "-o: expected a folder"),
        (["--clips", "-1"], "clips"),
        (["--capacities", "1"], "capacities"),
        (["--policies", "learned"], "random"),
        (["--policies", "best"], "policy"),
    ],
    ids=" ".join,
)
def test_a_report_that_cannot_be_is_refused_before_the_work(
    changes: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and a word about what is wrong, with nothing loaded, measured or written."""
    monkeypatch.setattr("stmemory.prediction.report.PredictionTraining.load", lambda path: pytest.fail("work was done"))
    (tmp_path / "file").write_text("mine")
    command = ["predict", "report", str(tmp_path / "run"), "-o", str(tmp_path / "out")]

    assert 2 == main([*command, *(word.replace("FILE", str(tmp_path / "file")) for word in changes)])
    assert said in capsys.readouterr().err
    assert ["file"] == [file.name for file in tmp_path.iterdir()]


def test_a_folder_of_training_is_no_folder_of_weights(tmp_path: Path) -> None:
    """Who passes it as weights hears that they have to be exported."""
    PredictionTrainer(TINY, "ours", tmp_path).save()
    with pytest.raises(WeightsError, match="predict export"):
        PredictionNetwork.from_pretrained(tmp_path / "ours")


def test_reporting_what_is_no_comparison_is_refused(tmp_path: Path) -> None:
    """A folder without a configuration is named."""
    with pytest.raises(OptionError, match="config.json"):
        report([tmp_path], tmp_path / "out")
    with pytest.raises(WeightsError, match="predict run"):
        (tmp_path / "config.json").write_text(TINY.to_json())
        from stmemory.prediction.report import load_trained

        load_trained(tmp_path, "ours")


def test_an_untrained_read_finds_what_followed() -> None:
    """In a cycle of 4 pictures a fresh network already attends to what followed the present picture, at the same
    place."""
    network = PredictionNetwork(PredictionConfig.of("mini")).eval()
    frames = (
        ClipSource(ClipSet(kind="repeating", glyphs=30, frames=8, observed=0, least=4, most=4)).draw(range(2)).frames
    )
    state = network.new_state(16, policy="drop")
    with torch.no_grad():
        for time in range(8):
            network.step(frames[:, time], state)
        query, keys = (
            network.query(state.context).flatten(2),
            state.bank.keys[:, :8].flatten(3),
        )  # [B, Ck, m], [B, 8, Ck, n]
    far = (query[:, None, :, :, None] - keys[:, :, :, None, :]).square().sum(2)  # [B, 8, m, n]
    attention = (-far / 32**0.5).transpose(1, 2).flatten(2).softmax(2).view(2, -1, 8, 64)
    where = torch.arange(64)

    assert bool((attention[:, where, 4, where] + attention[:, where, 0, where] > 0.9).all())


def test_keys_without_room_for_the_place_are_refused() -> None:
    """Twelve channels of a key tell the place, and both other parts want one."""
    with pytest.raises(OptionError, match="14 or more"):
        replace(PredictionConfig.of("mini"), key_channels=13)
