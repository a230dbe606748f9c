"""Facts about losses, the unroll, and a training run that stops and goes on."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from pictures import TINY, pack_tiny

from stmemory.cli.train import main
from stmemory.errors import OptionError, WeightsError
from stmemory.networks.config import NetworkConfig
from stmemory.networks.lite import LiteTrunk
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.postprocess import soft_aggregate
from stmemory.training.config import Phase, TrainingConfig
from stmemory.training.data.material import Material
from stmemory.training.export import read_efficientnet_lite0
from stmemory.training.loop import Trainer
from stmemory.training.run_state import read_state, write_state
from stmemory.training.schedule import learning_rate
from stmemory.training.unroll import UnrollOptions, aggregate_logits, segmentation_loss, unroll


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Three photos of one bright rectangle each, and a cut-out."""
    return Material.load(pack_tiny(tmp_path_factory.mktemp("material")))


def test_aggregated_logits_are_soft_aggregation() -> None:
    """The softmax of the class scores is STM's soft aggregation, clip by clip, with absent objects at zero."""
    logits = torch.randn(3, 4, 5) * 3
    scores = aggregate_logits(logits, torch.tensor([0, 1, 3]), clips=2, objects=2)

    first = soft_aggregate(logits[:2].sigmoid())
    second = soft_aggregate(torch.stack([torch.zeros(4, 5), logits[2].sigmoid()]))
    torch.testing.assert_close(scores.softmax(1), torch.stack([first, second]), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("logit", "truth"), [(40.0, 0), (-40.0, 1)], ids=["surely there", "surely absent"])
def test_a_sure_mistake_can_be_unlearned(logit: float, truth: int) -> None:
    """However sure the network is, a wrong pixel has a loss of about its logit and a gradient that points back."""
    logits = torch.full((1, 1, 1), logit, requires_grad=True)
    loss, _ = segmentation_loss(
        aggregate_logits(logits, torch.tensor([0]), clips=1, objects=1), torch.full((1, 1, 1), truth), share=1.0
    )
    loss.backward()

    assert 40 < loss.item() < 60
    assert logits.grad is not None and 0.9 < float(logits.grad) * (1 if logit > 0 else -1) < 1.1


def test_loss_equals_a_slow_reference() -> None:
    """Cross entropy is the mean over the hardest share of each clip's pixels; Dice counts only objects that are
    there."""
    scores, target = torch.randn(2, 3, 4, 5), torch.randint(0, 2, (2, 4, 5))  # object 2 is never there
    cross_entropy, dice = segmentation_loss(scores, target, share=0.5)

    probabilities = scores.softmax(1)
    hardest, losses = [], []
    for clip in range(2):
        pixels = [-math.log(float(probabilities[clip, target[clip, y, x], y, x])) for y in range(4) for x in range(5)]
        hardest += sorted(pixels, reverse=True)[:10]
        overlap = float((probabilities[clip, 1] * (target[clip] == 1)).sum())
        size = float(probabilities[clip, 1].sum() + (target[clip] == 1).sum())
        losses.append(1 - (2 * overlap + 1) / (size + 1))
    assert pytest.approx(sum(hardest) / 20, rel=1e-4) == float(cross_entropy)
    assert pytest.approx(sum(losses) / 2, rel=1e-4) == float(dice)


def test_extreme_logits_have_finite_losses_and_gradients() -> None:
    """Certain and wrong is expensive, not infinite."""
    logits = torch.tensor([-1e4, 1e4]).view(2, 1, 1).requires_grad_()
    cross_entropy, dice = segmentation_loss(
        aggregate_logits(logits, torch.tensor([0, 1]), clips=1, objects=2), torch.ones(1, 1, 1).long(), share=1.0
    )
    torch.autograd.backward(cross_entropy + dice)

    assert bool(cross_entropy.isfinite()) and bool(dice.isfinite())
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


@pytest.mark.parametrize(
    "policy", ["oldest", "newest", "least_similar", "most_similar", "drop", "input_to_memory", "learned"]
)
def test_unroll_trains_everything(policy: str) -> None:
    """Over a clip long enough to fuse, every parameter of the network gets a finite gradient under every policy."""
    network = SegmentationNetwork(NetworkConfig.of("lite"))
    ids = torch.zeros(1, 6, 32, 32, dtype=torch.int64)
    ids[:, :, 4:20, 4:20], ids[:, :, 22:30, 8:30] = 1, 2
    result = unroll(
        network,
        torch.rand(1, 6, 3, 32, 32),
        ids,
        options=UnrollOptions(3, policy),
        generator=torch.Generator().manual_seed(0),
    )
    torch.autograd.backward(result.cross_entropy + result.dice)

    assert (1, 5, 3, 32, 32) == tuple(result.probabilities.shape)
    untouched = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    fusion_idle = policy == "drop"
    assert [n for n in untouched if not (fusion_idle and n.startswith("fusion."))] == []


def test_unroll_ignores_objects_that_are_not_in_the_first_frame() -> None:
    """An object that enters later is background to the loss, since nobody gave its mask."""
    network = SegmentationNetwork(NetworkConfig.of("lite"))
    ids = torch.zeros(1, 2, 32, 32, dtype=torch.int64)
    ids[:, :, 4:20, 4:20] = 1
    late = ids.clone()
    late[:, 1, 22:30, 8:30] = 2
    frames = torch.rand(1, 2, 3, 32, 32)
    losses = [
        unroll(network, frames, i, options=UnrollOptions(3), generator=torch.Generator().manual_seed(0)).dice
        for i in (ids, late)
    ]

    assert pytest.approx(float(losses[0].detach()), abs=1e-5) == float(losses[1].detach())


def test_an_interrupted_run_goes_on_exactly(material: Material, tmp_path: Path) -> None:
    """A run that stops in the middle of a phase and resumes has the losses and weights of one that never stopped."""
    whole = Trainer(TINY, material, tmp_path / "whole", workers=0)
    expected = [record["cross_entropy"] for record in whole.run(log_every=1)]

    halved = Trainer(TINY, material, tmp_path / "halved", workers=0)
    losses = [record["cross_entropy"] for record in halved.run(log_every=1, until=3)]
    again = Trainer(TINY, material, tmp_path / "halved", workers=0)
    assert again.resume()
    losses += [record["cross_entropy"] for record in again.run(log_every=1)]

    assert expected == losses
    assert 4 == again.step
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, again.average.state_dict()[name]), name
    logged = [json.loads(line)["step"] for line in (tmp_path / "halved" / "log.jsonl").read_text().splitlines()]
    assert [1, 2, 3, 4] == logged


def test_a_run_does_not_go_on_with_another_configuration(material: Material, tmp_path: Path) -> None:
    """Two runs are never mixed in one folder: the state says what it was made with."""
    for _ in Trainer(TINY, material, tmp_path, workers=0).run(until=1):
        pass
    other = Trainer(dataclasses.replace(TINY, seed=1), material, tmp_path, workers=0)
    with pytest.raises(OptionError, match="--init"):
        other.resume()


def test_a_run_goes_on_with_states_at_other_steps(material: Material, tmp_path: Path) -> None:
    """How often a run is saved decides nothing: it may change, and configurations written before it could be said go
    on."""
    Trainer(dataclasses.replace(TINY, save_every=1), material, tmp_path, workers=0).save()
    state = read_state(tmp_path / "state.pt")
    values = json.loads(state["config"])
    assert 1 == values.pop("save_every")
    assert Trainer(TINY, material, tmp_path, workers=0).resume()
    write_state(tmp_path / "state.pt", {**state, "config": json.dumps(values)})
    again = Trainer(dataclasses.replace(TINY, save_every=2), material, tmp_path, workers=0)
    assert again.resume()
    for record in again.run(log_every=1):
        if record["step"] == 3:
            break  # as if it were killed

    assert 2 == read_state(tmp_path / "state.pt")["step"]


def test_frozen_parts_keep_their_weights(material: Material, tmp_path: Path) -> None:
    """What a phase freezes does not move; what it does not freeze does."""
    trainer = Trainer(dataclasses.replace(TINY, phases=TINY.phases[:1]), material, tmp_path, workers=0)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    for _ in trainer.run(log_every=1):
        pass
    moved = {name for name, value in trainer.network.state_dict().items() if not torch.equal(value, before[name])}

    assert not any(name.startswith(("query_encoder.trunk.stem", "query_encoder.trunk.stages.2")) for name in moved)
    assert any(name.startswith("query_encoder.trunk.stages.3") for name in moved)
    assert not any("running" in name for name in moved)


def test_the_rate_warms_up_and_falls() -> None:
    """The learning rate rises linearly, then follows a cosine to its final share."""
    config = TrainingConfig(phases=(Phase(steps=100),), warmup=10, learning_rate=1.0, final_factor=0.1)
    rates = [learning_rate(config, step) for step in range(101)]

    assert [0.1, 0.2] == pytest.approx(rates[:2])
    assert 1.0 == pytest.approx(max(rates))
    assert 0.1 == pytest.approx(rates[-1])
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    "text",
    [
        '{"phase": 1}',
        "not json",
        "[1]",
        '{"phases": [{"size": 100}]}',
        '{"phases": []}',
        '{"phases": [{"frames": 5, "capacity": 4}]}',
        '{"phases": [{"frames": 5, "capacity": 2}]}',
        '{"phases": [{"segment": 1}]}',
        '{"phases": [{"gap": 0}]}',
        '{"preset": "large"}',
        '{"policy": "unknown"}',
        '{"optimiser": "sgd"}',
        '{"schedule": "plateau"}',
        '{"bad_data": "ignore"}',
        '{"temperature": 0}',
        '{"data": {"size": 64}}',
        '{"data": {"sizes": 64}}',
        '{"data": {"blur": 2}}',
        '{"sources": [{"path": "x"}]}',
        '{"sources": [{"root": "x", "weight": 0}]}',
        '{"sources": [{"root": "x", "layout": "cityscapes"}]}',
        '{"learning_rate": 0}',
        '{"ema": 1.0}',
        '{"warmup": -5}',
        '{"weight_decay": -1}',
        '{"final_factor": -3}',
        '{"bootstrap_steps": -10}',
        '{"save_every": 0}',
        '{"seed": 1.5}',
        '{"warmup": true}',
        '{"learning_rate": "fast"}',
        '{"learning_rate": NaN}',
        '{"phases": [{"frozen": -1}]}',
        '{"phases": [{"steps": 2.5}]}',
        '{"phases": [{"size": "large"}]}',
    ],
)
def test_a_bad_config_is_named(tmp_path: Path, text: str) -> None:
    """A configuration that names something unknown or impossible is refused."""
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(OptionError, match="expected"):
        TrainingConfig.load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    {
        '{"learning_rat": 1}': "learning_rat: expected the name of a setting, got one that does not exist; did you "
        "mean learning_rate?",
        '{"phases": [{"step": 3}]}': "phases[0].step: expected the name of a setting, got one that does not exist; "
        "did you mean steps?",
        '{"data": {"blurr": 0.5}}': "data.blurr: expected the name of a setting, got one that does not exist; did you "
        "mean blur?",
        '{"learning_rate": "1e-4"}': "learning_rate: expected a finite number, got '1e-4'",
        '{"learning_rate": Infinity}': "see TrainingConfig: expected JSON, got Infinity, which is no number; replace it",
        '{"phases": [{"size": "64"}]}': "phases[0].size: expected a whole number, got '64'",
        '{"phases": [{}, {"size": 0}]}': "phases[1].size: expected a multiple of 16, 16 or more, got 0",
        '{"phases": [{"frozen": 99}]}': "phases[0].frozen: expected 0 to 6, the parts of the trunk, got 99",
        '{"phases": [{"max_objects": 300}]}': "phases[0].max_objects: expected 1 to 50, got 300",
        '{"phases": {}}': "phases: expected a list, in [ and ], got {}",
        '{"sources": {"root": "x"}}': "sources: expected a list, in [ and ], got {'root': 'x'}",
        '{"sources": ["x"]}': "sources[0]: expected an object of settings, in { and }, got 'x'",
        '{"sources": [{"root": "x", "weight": '
        "Infinity}]}": "see TrainingConfig: expected JSON, got Infinity, which is no number; replace it",
        '{"schedule": "linear"}': "schedule: expected cosine or plateau, got 'linear'",
        '{"schedule": "plateau"}': "validate_every: expected above 0, since the schedule is plateau, got 0",
        '{"data": {"blur": "much"}}': "data.blur: expected a finite number, got 'much'",
        '{"data": {"blur": 2}}': "data.blur: expected a probability in [0, 1], got 2",
        '{"data": [1]}': "data: expected an object of settings, in { and }, got [1]",
        "[1]": "expected an object of settings, in { and }, got [1]",
    }.items(),
)
def test_a_bad_config_is_told_by_its_field(tmp_path: Path, text: str, said: str) -> None:
    """The place in the file, what was expected there, and what came; for a misspelt name, the nearest one."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(OptionError) as caught:
        TrainingConfig.load(tmp_path / "config.json")

    assert f"{tmp_path / 'config.json'}: {said}" == str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["lite_pretrain", "lite_between", "lite_finetune", "lite_policy", "lite_rules", "paper_pretrain", "paper_finetune"],
)
def test_the_configurations_in_the_repository_load(name: str) -> None:
    """Each is a configuration of one of the stages, and the second stages run in segments."""
    config = TrainingConfig.load(Path(__file__).parents[1] / "examples" / "training" / f"{name}.json")

    assert all(phase.segment > 0 for phase in config.phases) == (not name.endswith("pretrain"))


def test_bad_arguments_of_the_command_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What stmemory refuses is a sentence on stderr and exit code 2, not a traceback."""
    assert 2 == main(["run", str(tmp_path / "none.json"), "material", str(tmp_path)])
    assert "none.json" in capsys.readouterr().err


def test_a_config_survives_its_file(tmp_path: Path) -> None:
    """What is written beside the weights reads back equal."""
    (tmp_path / "config.json").write_text(TINY.to_json())

    assert TINY == TrainingConfig.load(tmp_path / "config.json")


def _published_lite() -> dict[str, torch.Tensor]:
    """A state with the names and shapes that the published EfficientNet-Lite0 has up to stride 16."""
    state: dict[str, torch.Tensor] = {}

    def add(conv: str, norm: str, shape: tuple[int, int, int, int]) -> None:
        state[f"{conv}.weight"] = torch.randn(shape)
        for field in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{field}"] = torch.rand(shape[0])
        state[f"{norm}.num_batches_tracked"] = torch.tensor(0)

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    before, kernels = 32, (3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5)
    for number, (channels, kernel) in enumerate(
        zip((16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112), kernels, strict=True)
    ):
        middle = before * (1 if number == 0 else 6)
        block = f"_blocks.{number}"
        if number:
            add(f"{block}._expand_conv", f"{block}._bn0", (middle, before, 1, 1))
        add(f"{block}._depthwise_conv", f"{block}._bn1", (middle, 1, kernel, kernel))
        add(f"{block}._project_conv", f"{block}._bn2", (channels, middle, 1, 1))
        before = channels
    return state


def test_published_imagenet_names_fill_the_trunk() -> None:
    """Every tensor of the trunk comes from the published file, and each published one is used once."""
    published = _published_lite()
    state = read_efficientnet_lite0(published)
    LiteTrunk().load_state_dict(state)

    assert len(published) == len(state)
    assert torch.equal(published["_blocks.5._depthwise_conv.weight"], state["stages.3.0.depthwise.conv.weight"])


def test_a_missing_imagenet_name_is_named() -> None:
    """A file without one of the layers is refused by name."""
    published = _published_lite()
    del published["_blocks.3._bn1.running_var"]
    with pytest.raises(WeightsError, match=r"_blocks\.3\._bn1\.running_var"):
        read_efficientnet_lite0(published)
