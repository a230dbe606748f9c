"""Facts about whole runs: exact resumption wherever they stop, learned policies, what a run leaves, several
processes."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from pictures import TINY, pack_tiny, save_still
from PIL import Image
from tiny import tiny_network
from torch import nn

from stmemory.errors import OptionError, StmemoryError, WeightsError
from stmemory.memory.policy import LearnedPolicy
from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.training.__main__ import main
from stmemory.training.config import Phase, Source, TrainingConfig
from stmemory.training.data.material import Material
from stmemory.training.distributed import World
from stmemory.training.learner import Learner
from stmemory.training.loader import _begin_worker
from stmemory.training.loop import Trainer
from stmemory.training.run_state import without_scores
from stmemory.training.schedule import repeatable, temperature
from stmemory.weights import save_network
from stmemory.weights.tensors import load_policy, save_policy

LEARNED = dataclasses.replace(TINY, policy="learned", temperature=2.0, final_temperature=0.5)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny material in a file."""
    return pack_tiny(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def material(packed: Path) -> Material:
    """The same, loaded."""
    return Material.load(packed)


def _log(out: Path) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def _same(first: object, second: object) -> bool:
    """Whether two states are equal, bit for bit, whatever they are made of."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(_same(first[k], second[k]) for k in first)
        )
    if isinstance(first, list):
        return isinstance(second, list) and len(first) == len(second) and all(map(_same, first, second))
    return first == second


@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY, LEARNED], ids=["least_similar", "learned"])
def test_a_run_that_stops_at_every_step_is_a_run_that_never_stops(
    config: TrainingConfig, material: Material, tmp_path: Path
) -> None:
    """Log and state are those of an uninterrupted run, bit for bit, with lines of the log that span an interruption."""
    for _ in Trainer(config, material, tmp_path / "whole", workers=0).run(log_every=3, strip_every=2):
        pass
    for _ in range(4):
        trainer = Trainer(config, material, tmp_path / "parts", workers=0)
        assert trainer.resume() == (trainer.step > 0)
        for _ in trainer.run(log_every=3, strip_every=2, until=trainer.step + 1):
            pass

    assert _log(tmp_path / "whole") == _log(tmp_path / "parts")
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts")]
    assert all(state["window"].pop("seconds") == 0 for state in states)  # all steps are in the log
    assert _same(*states)
    assert ["00000002.png", "00000004.png"] == sorted(path.name for path in (tmp_path / "parts" / "strips").iterdir())


def test_a_run_that_is_killed_repeats_what_was_not_saved(material: Material, tmp_path: Path) -> None:
    """Steps after the last saved state are done again, and stand in the log once."""
    for _ in Trainer(TINY, material, tmp_path / "whole", workers=0).run(log_every=1):
        pass
    killed = Trainer(TINY, material, tmp_path / "killed", workers=0).run(log_every=1, save_every=2)
    for _ in range(3):
        next(killed)
    killed.close()
    assert 3 == len(_log(tmp_path / "killed"))
    again = Trainer(TINY, material, tmp_path / "killed", workers=0)
    assert again.resume()
    assert 2 == again.step
    for _ in again.run(log_every=1):
        pass

    assert _log(tmp_path / "whole") == _log(tmp_path / "killed")


def test_a_run_that_is_told_to_stop_saves_the_step_it_is_in(material: Material, tmp_path: Path) -> None:
    """Nothing is lost when a run is asked to end."""
    trainer = Trainer(TINY, material, tmp_path, workers=0)
    for _ in trainer.run(log_every=1):
        trainer.stop()
    again = Trainer(TINY, material, tmp_path, workers=0)

    assert again.resume()
    assert trainer.step == again.step < TINY.steps


def test_sums_over_the_rows_of_a_frame_repeat() -> None:
    """With two threads the gradient of three objects that share a frame has the same bits each time: a step can be done
    again."""
    threads, seen = torch.get_num_threads(), set()
    features = torch.zeros(2, 32, 40, 40, requires_grad=True)
    gradient = torch.randn(4, 32, 40, 40, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(2)
    try:
        for _ in range(50):  # without `repeatable`, some forty of these differ
            features.grad = None
            with repeatable(torch.device("cpu")):
                features[torch.tensor([0, 1, 1, 1])].backward(gradient)
            assert features.grad is not None
            seen.add(features.grad.numpy().tobytes())
    finally:
        torch.set_num_threads(threads)

    assert 1 == len(seen)


def test_steps_repeat_and_leave_torch_as_it_was(material: Material, tmp_path: Path) -> None:
    """The gradients of a step are added in a fixed order, and only they."""
    trainer, seen = Trainer(TINY, material, tmp_path, workers=0), []
    hook = next(trainer.network.fusion.parameters()).register_hook(
        lambda gradient: seen.append(torch.are_deterministic_algorithms_enabled())
    )
    for _ in trainer.run(log_every=1, until=1):
        assert not torch.are_deterministic_algorithms_enabled()
    hook.remove()

    assert {True} == set(seen)
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_a_lost_step_changes_nothing_and_is_counted(material: Material, tmp_path: Path) -> None:
    """A gradient that is not finite moves no weight and no average; the log counts the step and leaves it out of its
    means."""
    trainer = Trainer(TINY, material, tmp_path, workers=0)
    with torch.no_grad():
        for parameter in trainer.average.parameters():
            parameter.add_(1)  # so that following the network would show
    networks = (trainer.network, trainer.average)
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    weight = next(trainer.network.fusion.parameters())
    hook = weight.register_hook(lambda gradient: gradient * float("nan"))
    records = list(trainer.run(log_every=2, until=2))
    assert all(_same(old, dict(network.state_dict())) for old, network in zip(before, networks, strict=True))
    hook.remove()
    records += trainer.run(log_every=2)

    assert [2.0, 0.0] == [record["lost"] for record in records]
    assert ["seconds", "lost", "skipped"] == list(records[0])[3:]  # no losses: there are none
    assert all(torch.tensor(list(record.values())).isfinite().all() for record in records)


def test_a_run_that_diverged_ends_with_an_error(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred lost steps one after another are the end, also when an interruption lies between them; the state
    stays."""

    def lost(trainer: Trainer, *_: object, **__: object) -> tuple[dict[str, float], None]:
        trainer.step += 1
        return {"lost": 1.0} if trainer.step > 20 else {"cross_entropy": 1.0, "dice": 1.0, "norm": 1.0}, None

    monkeypatch.setattr(Trainer, "train_step", lost)
    config = dataclasses.replace(TINY, phases=(dataclasses.replace(TINY.phases[0], steps=500),))
    for _ in Trainer(config, material, tmp_path, workers=0).run(until=60):
        pass
    again = Trainer(config, material, tmp_path, workers=0)
    assert again.resume()
    with pytest.raises(StmemoryError, match="diverged"):
        for _ in again.run():
            pass

    assert 120 == again.step
    assert 100 == torch.load(tmp_path / "state.pt", weights_only=True)["step"]
    assert [False] * 2 + [True] * 9 == ["dice" not in record for record in _log(tmp_path)]


def test_a_learned_policy_is_trained(material: Material, tmp_path: Path) -> None:
    """Every weight of the policy has a gradient that is not zero, moves, and its average follows."""
    phase = Phase(
        steps=4, size=32, frames=8, batch=1, capacity=4, segment=4, frozen=4
    )  # with 3 slots there is nothing to choose
    config = dataclasses.replace(LEARNED, phases=(phase,), precision="float32")
    trainer = Trainer(config, material, tmp_path, workers=0)
    policy, average = trainer.learner.policy, trainer.learner.policy_average
    assert isinstance(policy, LearnedPolicy) and isinstance(average, LearnedPolicy)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    gradients = dict.fromkeys(before, 0.0)
    for _ in trainer.run(log_every=1):
        for name, parameter in policy.named_parameters():
            assert parameter.grad is not None, name
            gradients[name] += float(parameter.grad.abs().sum())

    # the last bias of each scorer is added to all slots alike, which a softmax does not see
    assert {"remove_score.2.bias", "into_score.2.bias"} >= {name for name, value in gradients.items() if value < 1e-12}
    weights = [name for name in before if name.endswith("weight")]
    assert not any(torch.equal(before[name], policy.state_dict()[name]) for name in weights)
    assert not any(torch.equal(before[name], average.state_dict()[name]) for name in weights)
    assert policy.temperature == temperature(trainer.config, trainer.step - 1)


def test_a_policy_can_be_trained_alone(material: Material, tmp_path: Path) -> None:
    """With a network factor of 0 the network stays what it was and has no gradients, which would be clipped with the
    policy's."""
    phase = Phase(steps=2, size=32, frames=8, batch=1, capacity=4, segment=4, frozen=6)
    trainer = Trainer(dataclasses.replace(LEARNED, phases=(phase,), network_factor=0.0), material, tmp_path, workers=0)
    policy = trainer.learner.policy
    assert isinstance(policy, LearnedPolicy)
    before = [{n: v.clone() for n, v in module.state_dict().items()} for module in (trainer.network, policy)]
    for _ in trainer.run(log_every=1):
        assert all(parameter.grad is None for parameter in trainer.network.parameters())

    assert _same(before[0], dict(trainer.network.state_dict()))
    assert not _same(before[1], dict(policy.state_dict()))


def test_the_temperature_falls_by_the_same_factor_each_step() -> None:
    """From the first to the last temperature, geometrically."""
    config = dataclasses.replace(LEARNED, temperature=8.0, final_temperature=0.5)

    assert pytest.approx([8.0, 4.0, 2.0, 1.0, 0.5]) == [temperature(config, step) for step in range(5)]


def test_an_exported_policy_tracks(packed: Path, tmp_path: Path) -> None:
    """`export` writes the averaged policy beside the weights, and `load_policy` gives it to a predictor."""
    (tmp_path / "config.json").write_text(LEARNED.to_json())
    (tmp_path / "about.json").write_text('{"licence": "none"}')
    run, out = tmp_path / "run", tmp_path / "weights"
    trainer = Trainer(LEARNED, Material.load(packed), run, workers=0)
    average = trainer.learner.policy_average
    assert isinstance(average, LearnedPolicy)
    average.load_state_dict(LearnedPolicy(seed=7).state_dict())
    run.mkdir()
    (run / "config.json").write_text(LEARNED.to_json())
    trainer.save()
    assert 0 == main(["export", str(run), str(out), "--about", str(tmp_path / "about.json")])

    policy = load_policy(out)
    assert _same(LearnedPolicy(seed=7).state_dict(), policy.state_dict())
    assert not policy.training
    predictor = VOSPredictor.from_pretrained(out, options=TrackingOptions(policy=policy, memory_size=3))
    mask = torch.zeros(32, 32, dtype=torch.int64)
    mask[8:20, 8:20] = 1
    assert 6 == sum(1 for _ in predictor.track(list(torch.rand(6, 3, 32, 32)), mask))
    about = json.loads((out / "config.json").read_text())["about"]
    assert json.loads(LEARNED.to_json()) == about["training"]["config"]
    assert Material.load(packed).fingerprint == about["training"]["material"]


def test_a_run_can_start_from_another(material: Material, tmp_path: Path) -> None:
    """The averages of another run, of network and policy, are what a run starts from; what is no state is named."""
    first = Trainer(LEARNED, material, tmp_path, workers=0)
    for _ in first.run(until=1):
        pass
    second = Trainer(dataclasses.replace(LEARNED, seed=9), material, tmp_path / "second", workers=0)
    second.start_from(tmp_path / "state.pt")

    assert _same(dict(first.average.state_dict()), dict(second.network.state_dict()))
    assert isinstance(first.learner.policy_average, LearnedPolicy) and isinstance(second.learner.policy, LearnedPolicy)
    assert _same(dict(first.learner.policy_average.state_dict()), dict(second.learner.policy.state_dict()))
    for name in ("config.json", "none.pt"):
        with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
            second.start_from(tmp_path / name)


def test_a_state_of_another_preset_is_told_in_a_line(material: Material, tmp_path: Path) -> None:
    """By the presets where the state says it, else by a few names of weights."""
    paper = dataclasses.replace(TINY, preset="paper")
    told = {"average": SegmentationNetwork(NetworkConfig.of("paper")).state_dict(), "config": paper.to_json()}
    torch.save(told, tmp_path / "told.pt")
    torch.save({"average": told["average"]}, tmp_path / "untold.pt")
    trainer = Trainer(TINY, material, tmp_path / "run", workers=0)
    with pytest.raises(
        WeightsError, match=r"told\.pt: expected the state of a run with preset 'lite', got one with 'paper'$"
    ):
        trainer.start_from(tmp_path / "told.pt")
    with pytest.raises(
        WeightsError, match=r"untold\.pt: .* with preset 'lite', got other weights; missing: .* and \d+ more"
    ) as caught:
        trainer.start_from(tmp_path / "untold.pt")

    assert len(str(caught.value)) < 1500


def test_a_run_can_start_from_weights(material: Material, tmp_path: Path) -> None:
    """Weights to track with, and the policy beside them, are what a run starts from; those of another preset are
    named."""
    network = SegmentationNetwork(NetworkConfig.of("lite"))
    save_network(network, tmp_path)
    save_policy(LearnedPolicy(seed=7), tmp_path)
    trainer = Trainer(LEARNED, material, tmp_path / "run", workers=0)
    trainer.start_from(tmp_path)

    assert _same(dict(network.state_dict()), dict(trainer.network.state_dict()))
    assert isinstance(trainer.learner.policy, LearnedPolicy)
    assert _same(LearnedPolicy(seed=7).state_dict(), dict(trainer.learner.policy.state_dict()))
    save_network(tiny_network(), tmp_path / "tiny")
    with pytest.raises(WeightsError, match="expected weights of preset 'lite', got those of 'tiny'"):
        trainer.start_from(str(tmp_path / "tiny"))


def test_a_run_can_start_from_weights_without_a_discriminative_read(material: Material, tmp_path: Path) -> None:
    """Older weights are taken over whole; the read that they lack begins with components of the clips' features, and
    adds no feature yet."""
    older = SegmentationNetwork(without_scores(NetworkConfig.of("lite")))
    save_network(older, tmp_path)
    trainer = Trainer(TINY, material, tmp_path / "run", workers=0)
    trainer.start_from(tmp_path)
    begun = dict(trainer.network.state_dict())

    assert _same(dict(older.state_dict()), {name: begun[name] for name in older.state_dict()})
    assert _same(begun, dict(trainer.average.state_dict()))
    assert not begun["decoder.cues.stride8.weight"].any() and not begun["decoder.cues.stride16.weight"].any()
    directions = begun["query_encoder.appearance.project.weight"].flatten(1)
    assert int(torch.linalg.matrix_rank(directions)) > 1
    again = Trainer(TINY, material, tmp_path / "again", workers=0)
    again.start_from(tmp_path)
    assert _same(begun, dict(again.network.state_dict()))


def test_a_policy_file_is_checked(tmp_path: Path) -> None:
    """What is missing, or is no policy, is named."""
    with pytest.raises(WeightsError, match=r"policy\.safetensors"):
        load_policy(tmp_path)
    (tmp_path / "policy.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match="save_policy"):
        load_policy(tmp_path)
    save_policy(LearnedPolicy(hidden=4), tmp_path / "other.safetensors")
    assert (tmp_path / "policy.safetensors").stat().st_mode == (
        tmp_path / "other.safetensors"
    ).stat().st_mode  # as open to others
    assert 4 == load_policy(tmp_path / "other.safetensors").remove_score[0].out_features


def test_a_plateau_lowers_the_rate(material: Material, tmp_path: Path) -> None:
    """Each validation that is no better than the best before divides the rate by ten, across an interruption too."""
    config = dataclasses.replace(
        TINY, schedule="plateau", validate_every=1, validation_clips=1, learning_rate=1e-12, warmup=1, optimiser="adam"
    )
    records = []
    for until in (2, 4):
        trainer = Trainer(config, material, tmp_path, workers=0)
        trainer.resume()
        records += list(trainer.run(log_every=1, until=until))

    best, rate, expected = float("inf"), 1e-12, []
    for record in records:
        expected.append(rate)
        rate, best = (rate, record["validation"]) if record["validation"] < best else (rate / 10, best)
    assert pytest.approx(expected) == [record["rate"] for record in records]
    assert rate < 1e-12


def test_strips_show_truth_and_prediction(material: Material, tmp_path: Path) -> None:
    """A strip has the clip's frames in two rows: as they are labelled, and as they were predicted."""
    for _ in Trainer(TINY, material, tmp_path, workers=0).run(strip_every=3, until=3):
        pass
    with Image.open(tmp_path / "strips" / "00000003.png") as strip:
        assert (6 * 48, 2 * 48) == strip.size


def test_tensorboard_gets_what_the_log_gets(material: Material, tmp_path: Path) -> None:
    """With the extra installed and asked for, there is an event file."""
    pytest.importorskip("tensorboard")
    for _ in Trainer(TINY, material, tmp_path, workers=0).run(log_every=1, until=1, tensorboard=True):
        pass

    assert 1 == len(list(tmp_path.glob("events.*")))


def test_tensorboard_that_is_not_installed_is_told(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking for it without the extra names the extra."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(OptionError, match=r"stmemory\[train\]"):
        next(Trainer(TINY, material, tmp_path, workers=0).run(until=1, tensorboard=True))


def _folder(root: Path) -> Path:
    """Four pictures, of which two can be used: one has no mask, one an empty one, one a mask of another size."""
    for number in range(5):
        save_still(root, str(number), seed=number)
    (root / "masks" / "2.png").unlink()
    Image.new("L", (80, 64)).save(root / "masks" / "3.png")
    Image.new("L", (8, 6), 1).save(root / "masks" / "4.png")
    return root


def test_bad_data_is_named_and_counted(tmp_path: Path) -> None:
    """A run on a folder goes on without its bad files, each named once, and the log says how many there are."""
    root = _folder(tmp_path / "data")
    config = dataclasses.replace(
        TINY, sources=(Source(str(root)),), phases=(dataclasses.replace(TINY.phases[0], steps=12, size=32),)
    )
    records = list(Trainer(config, None, tmp_path / "run", workers=2).run(log_every=12))
    lines = (tmp_path / "run" / "skipped.txt").read_text().splitlines()

    assert ["2.jpg", "3.jpg", "4.jpg"] == sorted(Path(line.split(":")[0]).name for line in lines)
    assert 3 == records[-1]["skipped"]


@pytest.mark.parametrize("missing", [True, False], ids=["no mask", "empty mask"])
def test_bad_data_is_refused_when_asked(tmp_path: Path, missing: bool) -> None:
    """With `bad_data="refuse"` the first bad file ends the run, by name."""
    root = _folder(tmp_path / "data")
    if not missing:
        (root / "images" / "2.jpg").unlink()
    config = dataclasses.replace(TINY, sources=(Source(str(root)),), bad_data="refuse")
    with pytest.raises((OptionError, ValueError), match=r"2\.jpg" if missing else r"[34]\.jpg"):
        for _ in Trainer(config, None, tmp_path / "run", workers=0).run():
            pass


@pytest.mark.parametrize("render", ["workers", "device"])
def test_bad_data_in_a_worker_process_is_one_line(
    render: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a worker could not use ends the command with the sentence that names it, and no traceback."""
    root = _folder(tmp_path / "data")
    (root / "images" / "2.jpg").unlink()
    config = dataclasses.replace(TINY, sources=(Source(str(root)),), bad_data="refuse", render=render)
    (tmp_path / "config.json").write_text(config.to_json())
    assert 2 == main(
        ["run", str(tmp_path / "config.json"), "-", str(tmp_path / "run"), "--imagenet", "none", "--workers", "1"]
    )
    said = capsys.readouterr().err.splitlines()

    assert 1 == len(said)
    assert said[0].startswith(f"stmemory: {root}") and "expected" in said[0]
    assert [] == multiprocessing.active_children()


def test_a_worker_process_ends_at_the_second_signal() -> None:
    """A terminal's or a scheduler's SIGTERM is for the run; another, which Python sends when it exits, ends a worker
    that was left."""
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.Process(target=_answer, args=(there,), daemon=True)
    worker.start()
    assert "ready" == here.recv()
    worker.terminate()
    here.send("still there?")
    assert "yes" == here.recv()
    worker.terminate()
    worker.join(timeout=60)

    assert -signal.SIGTERM == worker.exitcode


def _answer(pipe: Connection) -> None:
    """A worker process that answers once it has seen a signal, and waits for another."""
    _begin_worker(0)
    pipe.send("ready")
    while signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        time.sleep(0.01)
    pipe.recv()
    pipe.send("yes")
    pipe.recv()


def test_nothing_to_train_on_is_told(tmp_path: Path) -> None:
    """Neither material nor sources is an error."""
    with pytest.raises(OptionError, match="neither"):
        Trainer(TINY, None, tmp_path)


TWO = TrainingConfig(
    phases=(Phase(steps=2, size=32, frames=6, batch=2, capacity=3, segment=3, frozen=0),),
    warmup=1,
    bootstrap_steps=1,
    precision="float32",
    clip_norm=1e9,
)

GRADIENTS = """
import sys
import torch
from stmemory.training.config import TrainingConfig
from stmemory.training.loader import Feed
from stmemory.training.loop import Trainer
from stmemory.training.data.material import Material
from stmemory.training.distributed import World

torch.set_num_threads(1)
config, material, out = TrainingConfig.load(sys.argv[1]), Material.load(sys.argv[2]), sys.argv[3]
world = World.from_environment("cpu")
trainer = Trainer(config, material, None, world=world)
phase = config.phases[0]
feed = Feed(trainer.sources.clips(phase), (0, 1), batch=phase.batch, part=world.part(phase.batch))
losses, _ = trainer.train_step(feed[0], phase)
gradients = {name: p.grad for name, p in trainer.network.named_parameters() if p.grad is not None}
if world.first:
    torch.save({"gradients": gradients, "losses": losses, "clips": len(feed[0].frames)}, out)
world.close()
"""


def _environment() -> dict[str, str]:
    """This one, with this checkout first and one thread a process."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


def _torchrun(*arguments: str) -> None:
    """Run something in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(packed: Path, tmp_path: Path) -> None:
    """Each of two processes sees one clip of the batch; their gradients and losses are those of one that sees both."""
    (tmp_path / "config.json").write_text(TWO.to_json())
    (tmp_path / "step.py").write_text(GRADIENTS)
    arguments = [str(tmp_path / "step.py"), str(tmp_path / "config.json"), str(packed)]
    _torchrun(*arguments, str(tmp_path / "two.pt"))
    alone = subprocess.run([sys.executable, *arguments, str(tmp_path / "one.pt")], env=_environment())
    assert 0 == alone.returncode
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))

    assert (2, 1) == (one["clips"], two["clips"])
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-4)
    assert one["gradients"].keys() == two["gradients"].keys()
    for name, gradient in one["gradients"].items():
        # 16 cells for a regression with 353 unknowns: what is solved, in float32 sums, makes rounding a hundred times
        # as large
        torch.testing.assert_close(
            gradient, two["gradients"][name], rtol=1e-3, atol=5e-3 * float(gradient.abs().max()), msg=name
        )


@pytest.mark.slow
def test_torchrun_runs_the_command(packed: Path, tmp_path: Path) -> None:
    """`torchrun -m stmemory.training run` trains to the end, and one process writes the log: each line is there
    once."""
    ten = dataclasses.replace(TWO, phases=(dataclasses.replace(TWO.phases[0], steps=10),))
    (tmp_path / "config.json").write_text(ten.to_json())
    start = ["--init", str(_random_state(tmp_path)), "--workers", "0"]
    _torchrun(
        "-m", "stmemory.training", "run", str(tmp_path / "config.json"), str(packed), str(tmp_path / "run"), *start
    )
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)

    assert 10 == state["step"]
    assert [10] == [record["step"] for record in _log(tmp_path / "run")]


PARTS = """
import sys
import weakref
from pathlib import Path

import torch
import torch.distributed as dist
from stmemory.training.distributed import World

world = World.from_environment("cpu")
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # imports what could keep the group
group = weakref.ref(dist.group.WORLD)
world.close()
Path(sys.argv[1], str(world.rank)).write_text(str(group()))
"""


@pytest.mark.slow
def test_who_parts_from_the_others_has_none_of_their_threads(tmp_path: Path) -> None:
    """Nothing keeps the group after `close`: its threads would run while Python ends, which aborts the process now and
    then."""
    (tmp_path / "parts.py").write_text(PARTS)
    _torchrun(str(tmp_path / "parts.py"), str(tmp_path))
    assert ["None"] * 2 == [(tmp_path / f"{rank}").read_text() for rank in range(2)]


STOPS = """
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from stmemory.training.config import TrainingConfig
from stmemory.training.loop import Trainer
from stmemory.training.data.material import Material
from stmemory.training.distributed import World

torch.set_num_threads(1)
config, material, out = TrainingConfig.load(sys.argv[1]), Material.load(sys.argv[2]), Path(sys.argv[3])
world = World.from_environment("cpu")
steps = []


def run(name, stop_after):
    trainer = Trainer(config, material, out / name, workers=0, world=world)
    resumed = trainer.resume()
    if world.rank == 1 and stop_after == 0:
        trainer.stop()
    for record in trainer.run(log_every=1):
        if world.rank == 1 and record["step"] == stop_after:
            trainer.stop()
    dist.barrier()  # the first process has written the state
    steps.append((resumed, trainer.step))


run("whole", None)
run("parts", 0)
run("parts", 1)
run("parts", None)
(out / f"{world.rank}.txt").write_text(repr(steps))
world.close()
"""


@pytest.mark.slow
def test_a_stop_of_one_process_stops_all_and_all_go_on(packed: Path, tmp_path: Path) -> None:
    """A process that is stopped between two steps stops the others there too, with the same state; resumed, they end
    where whole runs end."""
    four = dataclasses.replace(
        TWO, phases=(dataclasses.replace(TWO.phases[0], steps=4),), precision="bfloat16", clip_norm=3.0
    )
    (tmp_path / "config.json").write_text(four.to_json())
    (tmp_path / "stops.py").write_text(STOPS)
    _torchrun(str(tmp_path / "stops.py"), str(tmp_path / "config.json"), str(packed), str(tmp_path))
    whole, parts = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts"))

    expected = [(False, 4), (False, 0), (False, 1), (True, 4)]
    assert [repr(expected)] * 2 == [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert _same(whole["network"], parts["network"]) and _same(whole["optimiser"], parts["optimiser"])
    assert _log(tmp_path / "whole") == _log(tmp_path / "parts")


def _random_state(folder: Path) -> Path:
    """A state to start from, so that no ImageNet weights are needed."""
    learner = Learner(TWO, torch.device("cpu"))
    torch.save({"average": learner.average.state_dict()}, folder / "init.pt")
    return folder / "init.pt"


def test_a_batch_that_cannot_be_shared_is_told() -> None:
    """Three clips for two processes are an error."""
    with pytest.raises(OptionError, match="multiple"):
        World(0, 2).part(3)


def test_clips_can_be_looked_at_before_training(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`clips` draws clips of the last phase, half as large, and says how long a frame took."""
    (tmp_path / "config.json").write_text(TINY.to_json())
    assert 0 == main(
        ["clips", str(tmp_path / "config.json"), str(packed), str(tmp_path / "clips.png"), "--number", "2"]
    )

    assert "2 clips of 6 frames at 48 px" in capsys.readouterr().out
    with Image.open(tmp_path / "clips.png") as sheet:
        assert (6 * 24, 2 * 24) == sheet.size


@pytest.mark.slow
@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_a_signal_ends_the_command_after_the_step(packed: Path, tmp_path: Path, number: signal.Signals) -> None:
    """The first signal, sent to the workers too, saves the state; the command says how to go on, and exits with 130."""
    config = dataclasses.replace(TINY, phases=(dataclasses.replace(TINY.phases[0], steps=500),))
    (tmp_path / "config.json").write_text(config.to_json())
    command = [
        sys.executable,
        "-m",
        "stmemory.training",
        "run",
        str(tmp_path / "config.json"),
        str(packed),
        str(tmp_path / "run"),
    ]
    command += ["--init", str(_random_state(tmp_path)), "--threads", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = subprocess.Popen(command, **pipes, text=True, env=_environment(), start_new_session=True)
    assert running.stdout is not None
    running.stdout.readline()  # ten steps are done
    os.killpg(running.pid, number)
    _, said = running.communicate()

    assert 130 == running.returncode
    assert "goes on from here" in said
    assert 10 <= torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] < 500


@pytest.fixture
def short_command(packed: Path, tmp_path: Path) -> list[str]:
    """A run of the command that needs no ImageNet weights."""
    (tmp_path / "config.json").write_text(TINY.to_json())
    return [
        "run",
        str(tmp_path / "config.json"),
        str(packed),
        str(tmp_path / "run"),
        "--imagenet",
        "none",
        "--workers",
        "0",
    ]


@pytest.mark.usefixtures("signals")
def test_a_second_signal_interrupts_the_step(
    short_command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ends the command in good order, with exit code 130 and a word, not the process; handlers are as before."""
    before = signal.getsignal(signal.SIGINT)

    def twice(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second signal did nothing")

    monkeypatch.setattr(Trainer, "train_step", twice)
    assert 130 == main(short_command)
    assert [
        "stopping after this step; the same command goes on from here",
        "stmemory: interrupted; what was saved before stays",
    ] == capfd.readouterr().err.splitlines()
    assert before == signal.getsignal(signal.SIGINT)


def test_a_signal_before_the_first_step_is_not_lost(short_command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops a run while it is being set up waits for no step."""
    monkeypatch.setattr(Trainer, "resume", lambda self: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(Trainer, "train_step", lambda *_, **__: pytest.fail("a step was done"))

    assert 130 == main(short_command)


def test_modules_of_a_run_are_known() -> None:
    """The optimiser holds every parameter once, the policy's among them."""
    learner = Learner(LEARNED, torch.device("cpu"))
    held = [p for group in learner.optimiser.param_groups for p in group["params"]]

    assert isinstance(learner.policy, nn.Module)
    assert sorted(map(id, held)) == sorted(map(id, learner.parameters()))
