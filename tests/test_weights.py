"""Facts about weights in folders and inside the package: what is written is read, and nothing else is taken for it."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIG, boxes, clip, tiny_network, tiny_prediction_network

from stmemory.errors import OptionError, WeightsError
from stmemory.memory import FusionCell, SpaceTimeRead
from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.prediction.network import PredictionNetwork
from stmemory.prediction.predictor import FramePredictor
from stmemory.predictor import VOSPredictor
from stmemory.weights import load_part, push_part, save_network, save_part
from stmemory.weights.card import card_text, metrics_of
from stmemory.weights.pretrained import (
    bundled_names,
    find_checkpoint,
    fingerprint,
    load_network,
    network_info,
    tensors_digest,
)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """A network comes back with its config and every weight, bit for bit, in eval mode."""
    network = tiny_network().train()
    save_network(network, tmp_path / "deep" / "tiny", about={"licence": "none"})
    loaded = load_network(tmp_path / "deep" / "tiny")
    assert CONFIG == loaded.config and not loaded.training
    assert fingerprint(network) == fingerprint(loaded)
    assert {"licence": "none"} == network_info(tmp_path / "deep" / "tiny").about


@pytest.mark.parametrize(
    "changes",
    [{}, {"image_channels": 3, "skips": 1, "state": "none"}, {"memory": "none"}],
    ids=["grey", "colour", "no memory"],
)
def test_a_prediction_network_is_saved_and_loaded(changes: dict[str, object], tmp_path: Path) -> None:
    """It comes back with its config and every weight, bit for bit, in eval mode."""
    network = tiny_prediction_network(**changes)
    network.save_pretrained(tmp_path, about={"licence": "MIT"})
    loaded = PredictionNetwork.from_pretrained(tmp_path)
    assert network.config == loaded.config and not loaded.training
    assert fingerprint(network) == fingerprint(loaded)
    assert ("prediction_network", {"licence": "MIT"}) == (
        find_checkpoint(tmp_path).kind,
        find_checkpoint(tmp_path).about,
    )
    assert {"licence": "MIT", "base_model": str(tmp_path)} == loaded.inherited


def test_parts_of_a_prediction_network_are_loaded(tmp_path: Path) -> None:
    """Its fusion cell and its read; without a memory it has neither."""
    network = tiny_prediction_network()
    network.save_pretrained(tmp_path / "bank")
    assert fingerprint(network.fusion) == fingerprint(load_part(FusionCell, tmp_path / "bank"))
    assert fingerprint(network.read) == fingerprint(load_part(SpaceTimeRead, tmp_path / "bank"))
    tiny_prediction_network(memory="none").save_pretrained(tmp_path / "none")
    with pytest.raises(WeightsError, match="hold a FusionCell, got a prediction_network"):
        load_part(FusionCell, tmp_path / "none")


def test_weights_for_another_task_are_told_for_what_they_are(tmp_path: Path) -> None:
    """Whatever asks for weights says what came, and what loads it."""
    tiny_prediction_network().save_pretrained(tmp_path / "prediction")
    tiny_network().save_pretrained(tmp_path / "segmentation")
    for load in (
        VOSPredictor.from_pretrained,
        SegmentationNetwork.from_pretrained,
        network_info,
    ):
        with pytest.raises(WeightsError, match="got a prediction_network .it predicts frames; for FramePredictor"):
            load(tmp_path / "prediction")
    for load in (PredictionNetwork.from_pretrained, FramePredictor.from_pretrained):
        with pytest.raises(WeightsError, match="got a network .it segments; for VOSPredictor"):
            load(tmp_path / "segmentation")


@pytest.mark.parametrize(
    "change",
    [
        {"widths": [8, 8]},
        {"widths": "8"},
        {"strides": [2, 1, 2, 1, 1, 1.0]},
        {"state": "lstm"},
        {"depth": 2},
        {"image_channels": True},
    ],
    ids=str,
)
def test_a_prediction_networks_config_is_strict(change: dict[str, object], tmp_path: Path) -> None:
    """Another type, another size and another key are errors that name the file."""
    tiny_prediction_network().save_pretrained(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    document["prediction_network"].update(change)
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(WeightsError, match=f"{tmp_path}.*{next(iter(change))}"):
        PredictionNetwork.from_pretrained(tmp_path)


def test_weights_of_another_prediction_network_are_refused(tmp_path: Path) -> None:
    """What is missing, and what has another shape, is listed."""
    tiny_prediction_network().save_pretrained(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    document["prediction_network"].update(state="none")
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(WeightsError, match=r"unexpected: context.*misshapen: mix.0.weight"):
        PredictionNetwork.from_pretrained(tmp_path)


def test_half_precision_files_are_loaded_as_float32(tmp_path: Path) -> None:
    """A float16 file is about half as large, and its weights are those within float16's rounding."""
    network = tiny_network()
    for name, dtype in (("whole", torch.float32), ("half", torch.float16)):
        save_network(network, tmp_path / name, dtype=dtype)
    loaded = load_network(tmp_path / "half")
    assert {torch.float32} == {p.dtype for p in loaded.parameters()}
    for name, weight in network.state_dict().items():
        torch.testing.assert_close(weight, loaded.state_dict()[name], rtol=1e-3, atol=1e-6)
    assert 0.55 > network_info(tmp_path / "half").nbytes / network_info(tmp_path / "whole").nbytes


def test_saving_twice_replaces(tmp_path: Path) -> None:
    """The folder holds the last network that was saved."""
    for seed in (0, 1):
        save_network(tiny_network(seed), tmp_path)
    assert fingerprint(tiny_network(1)) == fingerprint(load_network(tmp_path))


def test_a_loaded_network_tracks_as_the_saved_one(tmp_path: Path) -> None:
    """Masks are the same bit for bit."""
    save_network(tiny_network(), tmp_path)
    one, other = VOSPredictor(tiny_network()), VOSPredictor.from_pretrained(tmp_path)
    for expected, actual in zip(one.track(clip(4), boxes(3)), other.track(clip(4), boxes(3)), strict=True):
        assert torch.equal(expected.probabilities, actual.probabilities)


def test_the_bundled_weights_are_lite_by_default() -> None:
    """`None` and `"lite"` are the same; the file is below 10 MB and the config is the preset."""
    info = network_info()
    assert "lite" in bundled_names()
    assert network_info("lite").folder == info.folder
    assert NetworkConfig.of("lite") == info.config == load_network().config
    assert info.nbytes < 10_000_000
    assert info.about


def test_fingerprints_tell_weights_apart() -> None:
    """Equal weights, equal fingerprint; one weight that differs by the smallest step gives another."""
    network = tiny_network()
    before = fingerprint(network)
    assert before == fingerprint(tiny_network()) != fingerprint(tiny_network(1))
    with torch.no_grad():
        weight = next(network.parameters()).flatten()
        weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    assert before != fingerprint(network)


@pytest.mark.parametrize(
    "other",
    [{"a": torch.ones(2)}, {"b": torch.zeros(2)}, {"a": torch.zeros(2), "b": torch.zeros(1)}],
    ids=["value", "name", "more"],
)
def test_digests_tell_tensors_apart(other: dict[str, torch.Tensor]) -> None:
    """Another value, another name, one tensor more: another digest."""
    assert tensors_digest({"a": torch.zeros(2)}) != tensors_digest(other)


def test_a_config_file_is_plain_json(tmp_path: Path) -> None:
    """Version, network, the other file's digest and what is known of the weights; nothing else."""
    save_network(tiny_network(), tmp_path)
    assert {"format_version", "network", "sha256", "card", "about"} == set(
        json.loads((tmp_path / "config.json").read_text())
    )


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("bottleneck", [None, 3], ids=["one layer", "bottleneck"])
def test_a_fusion_cell_alone_is_saved_and_loaded(dims: int, bottleneck: int | None, tmp_path: Path) -> None:
    """It comes back with its arguments and every weight."""
    cell = FusionCell(6, spatial_dims=dims, kernel_size=1, bottleneck=bottleneck, scale=0.5)
    save_part(cell, tmp_path, about={"licence": "MIT"})
    loaded = load_part(FusionCell, tmp_path)
    assert cell.config() == loaded.config() and fingerprint(cell) == fingerprint(loaded) and not loaded.training
    assert {"licence": "MIT"} == find_checkpoint(tmp_path).about


def test_a_fusion_cell_loads_and_saves_itself(tmp_path: Path) -> None:
    """`FusionCell.from_pretrained` and `save_pretrained` are `load_part` and `save_part` for it."""
    FusionCell.from_pretrained().save_pretrained(tmp_path, about={"licence": "MIT"})
    assert fingerprint(load_part(FusionCell)) == fingerprint(FusionCell.from_pretrained(tmp_path))
    assert "MIT" == find_checkpoint(tmp_path).about["licence"]


def test_a_fusion_cell_is_no_network(tmp_path: Path) -> None:
    """What it does not hold cannot be loaded from it; the message says what it is."""
    save_part(FusionCell(4), tmp_path)
    for load in (
        load_network,
        network_info,
        partial(load_part, SpaceTimeRead),
        VOSPredictor.from_pretrained,
    ):
        with pytest.raises(WeightsError, match="fusion_cell"):
            load(tmp_path)


def test_parts_of_the_bundled_weights() -> None:
    """Without a name, each part is the bundled network's."""
    network = load_network()
    assert fingerprint(network.fusion) == fingerprint(load_part(FusionCell))
    assert fingerprint(network.read) == fingerprint(load_part(SpaceTimeRead, "lite"))
    assert fingerprint(network) == fingerprint(SegmentationNetwork.from_pretrained())
    bank = SegmentationNetwork.from_pretrained().new_bank(2)
    bank.write(torch.zeros(1, network.config.template_channels, 3, 4))
    assert (1, 2, network.config.key_channels, 3, 4) == tuple(bank.keys.shape)


def test_parts_are_loaded_in_the_dtype_that_is_asked_for() -> None:
    """Half the bytes; an integer is refused, as is a device that is not there."""
    assert {torch.bfloat16} == {p.dtype for p in load_part(FusionCell, dtype=torch.bfloat16).parameters()}
    with pytest.raises(OptionError, match="dtype"):
        load_part(FusionCell, dtype=torch.int32)
    with pytest.raises(OptionError, match="device"):
        load_part(FusionCell, device="nowhere")


def test_what_could_not_be_loaded_again_is_not_written(tmp_path: Path) -> None:
    """A weight that is NaN, and words about it that are no JSON, are refused before anything is written."""
    cell = FusionCell(4)
    with pytest.raises(WeightsError, match="JSON"):
        save_part(cell, tmp_path / "new", about={"when": object()})
    with torch.no_grad():
        next(cell.parameters()).fill_(torch.nan)
    with pytest.raises(WeightsError, match="NaN"):
        save_part(cell, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_card_is_written_anew_until_somebody_writes_to_it(tmp_path: Path) -> None:
    """Its example has the folder's name, its licence is that of the last save; what somebody writes over it stays."""
    tiny_network().save_pretrained(tmp_path / "mine", about={"licence": "MIT"})
    card = tmp_path / "mine" / "README.md"
    assert "from_pretrained('mine')" in card.read_text() and "license: mit" in card.read_text()
    tiny_network().save_pretrained(tmp_path / "mine", about={"licence": "Apache-2.0"})
    assert "license: apache-2.0" in card.read_text()
    card.write_text("by hand")
    tiny_network(1).save_pretrained(tmp_path / "mine")
    assert "by hand" == card.read_text()


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({}, []),
        ({"licence": "MIT"}, ["license: mit"]),
        ({"licence": "CC-BY-NC-SA-4.0"}, ["license: cc-by-nc-sa-4.0"]),
        ({"licence": "ask me first"}, ["license: other", "license_name: ask-me-first"]),
    ],
    ids=["none", "known", "non-commercial", "words"],
)
def test_licences_in_the_header_of_a_card(about: dict[str, str], expected: list[str]) -> None:
    """Names that the Hub knows are given as it writes them, others in words."""
    header = card_text("network", about, name="x").split("---")[1].splitlines()
    assert expected == [line for line in header if line.startswith("license")]


@pytest.mark.parametrize(
    "metrics",
    [{"J": 1.0}, [{"dataset": "d", "metric": "m"}], [{"dataset": "d", "metric": "m", "value": "high"}], [3], 3],
    ids=["dict", "no value", "words", "number", "no list"],
)
def test_figures_of_another_form_are_errors(metrics: object, tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(WeightsError, match="metrics"):
        metrics_of({"metrics": metrics})
    with pytest.raises(WeightsError, match="metrics"):
        tiny_network().save_pretrained(tmp_path / "new", about={"metrics": metrics})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_every_float_can_be_saved(dtype: torch.dtype, tmp_path: Path) -> None:
    """And is loaded as float32 again."""
    cell = FusionCell(4)
    save_part(cell, tmp_path, dtype=dtype)
    for expected, actual in zip(cell.parameters(), load_part(FusionCell, tmp_path).parameters(), strict=True):
        assert torch.equal(expected.to(dtype).float(), actual)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, "float16", None], ids=str)
def test_what_is_no_float_for_weights_is_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(OptionError, match="dtype"):
        save_part(FusionCell(4), tmp_path / "new", dtype=dtype)
    assert not (tmp_path / "new").exists()


def test_weights_too_large_for_a_format_leave_the_earlier_ones(tmp_path: Path) -> None:
    """1e6 is infinite in float16: it is refused, and the folder still loads."""
    cell = FusionCell(4)
    save_part(cell, tmp_path)
    before = fingerprint(load_part(FusionCell, tmp_path))
    with torch.no_grad():
        next(cell.parameters()).fill_(1e6)
    with pytest.raises(WeightsError, match="float16.*NaN or infinity"):
        save_part(cell, tmp_path, dtype=torch.float16)
    assert before == fingerprint(load_part(FusionCell, tmp_path))


@pytest.mark.parametrize(
    "cell",
    [FusionCell(12, bottleneck=8), FusionCell(12, bottleneck=4, scale=3.0), FusionCell(12)],
    ids=["narrower", "another scale", "one layer"],
)
def test_a_network_with_another_cell_is_not_saved(cell: FusionCell, tmp_path: Path) -> None:
    """Its config would make another network again."""
    network = tiny_network()
    network.fusion = cell
    with pytest.raises(WeightsError, match="as its config makes it.*fusion"):
        network.save_pretrained(tmp_path / "new")


@pytest.mark.parametrize(
    "change",
    [
        {"scale": "1"},
        {"scale": None},
        {"scale": float("inf")},
        {"scale": True},
        {"channels": 4.0},
        {"channels": 10**9},
        {"kernel_size": 4},
        {"depth": 2},
    ],
    ids=str,
)
def test_a_cells_config_is_strict(change: dict[str, object], tmp_path: Path) -> None:
    """Another type, another size and another key are errors that name the file."""
    save_part(FusionCell(4), tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    document["fusion_cell"].update(change)
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(WeightsError, match=str(tmp_path)):
        load_part(FusionCell, tmp_path)
    del document["fusion_cell"]["scale"]
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(WeightsError, match="scale"):
        load_part(FusionCell, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"revison": "main"},
        {"torch_dtype": torch.float16},
        {"revision": 3},
        {"revision": ""},
        {"local_files_only": "no"},
    ],
    ids=str,
)
def test_misspelt_options_are_refused(options: dict[str, object]) -> None:
    """For bundled weights too, where they would change nothing."""
    for load in (SegmentationNetwork.from_pretrained, VOSPredictor.from_pretrained):
        with pytest.raises(OptionError, match=next(iter(options))):
            load(None, **options)


def test_a_licence_is_inherited_and_figures_are_not(tmp_path: Path) -> None:
    """What is trained from weights keeps their conditions, until `about` says otherwise."""
    metric = {"dataset": "d", "metric": "J", "value": 1.0}
    tiny_network().save_pretrained(tmp_path / "a", about={"licence": "MIT", "metrics": [metric]})
    again = SegmentationNetwork.from_pretrained(tmp_path / "a")
    again.save_pretrained(tmp_path / "b")
    save_part(again.fusion, tmp_path / "c", about={"licence": "BSD-3-Clause"})
    assert {"licence": "MIT", "base_model": str(tmp_path / "a")} == find_checkpoint(tmp_path / "b").about
    assert "BSD-3-Clause" == find_checkpoint(tmp_path / "c").about["licence"]


def test_weights_that_must_not_be_published_are_not_pushed(tmp_path: Path) -> None:
    """The condition travels with them, and what is loaded from them."""
    tiny_network().save_pretrained(tmp_path, about={"re-hosting": "never"})
    network = SegmentationNetwork.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="never"):
        network.push_to_hub("someone/else")
    with pytest.raises(WeightsError, match="never"):
        push_part(network.fusion, "someone/else")
    save_part(network.fusion, tmp_path / "cell")
    assert "never" == find_checkpoint(tmp_path / "cell").about["re-hosting"]


@pytest.mark.parametrize("name", ["lite", "a/b/c", "", Path("a/b")], ids=str)
def test_names_of_no_repository_are_not_pushed_to(name: str) -> None:
    """Before anything is made on the Hub."""
    with pytest.raises(OptionError, match="owner/name"):
        tiny_network().push_to_hub(name)


@pytest.mark.parametrize(
    "about", [{"license": "MIT"}, ["MIT"], {"metrics": [{"dataset": 3, "metric": "J", "value": 1.0}]}], ids=str
)
def test_words_of_another_form_are_errors(about: dict[str, object], tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(WeightsError, match="about"):
        save_part(FusionCell(4), tmp_path / "new", about=about)
    assert not (tmp_path / "new").exists()


def test_a_file_in_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    """When saving, and when the weights' file is given in place of its folder."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WeightsError, match="expected a folder to write to"):
        save_part(FusionCell(4), tmp_path / "file")
    assert "mine" == (tmp_path / "file").read_text()
    save_part(FusionCell(4), tmp_path / "cell")
    with pytest.raises(WeightsError, match="a file, pass its folder"):
        load_part(FusionCell, tmp_path / "cell" / "model.safetensors")


def test_loading_and_saving_draw_no_random_numbers(tmp_path: Path) -> None:
    """The generator of whoever calls is where it was."""
    before = torch.random.get_rng_state()
    SegmentationNetwork.from_pretrained().save_pretrained(tmp_path)
    load_part(FusionCell)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_part_is_put_on_the_device_that_is_asked_for() -> None:
    """The meta device stands for one that is not the CPU."""
    assert "meta" == load_part(FusionCell, device="meta").f[-1].weight.device.type
    bank = SegmentationNetwork.from_pretrained(device="meta", dtype=torch.bfloat16).new_bank(5)
    assert isinstance(bank.fusion, FusionCell)
    assert ("meta", torch.bfloat16) == (bank.fusion.f[-1].weight.device.type, bank.fusion.f[-1].weight.dtype)


def test_weights_know_the_configuration_that_they_were_written_with(tmp_path: Path) -> None:
    """A number of config.json that changes no shape, changed, is an error; words about the weights may change, and
    earlier files have no digest."""
    tiny_network().save_pretrained(tmp_path)
    file, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps({**whole, "about": {"licence": "MIT"}}))
    assert fingerprint(tiny_network()) == fingerprint(load_network(tmp_path))
    changed = {**whole, "network": {**whole["network"], "affinity": "dot"}}
    assert changed != whole
    file.write_text(json.dumps(changed))
    with pytest.raises(
        WeightsError, match=r"config\.json: expected the configuration that the weights beside it were written with"
    ):
        load_network(tmp_path)
    save_file(load_file(weights), weights)
    file.write_text(json.dumps({**changed, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}))
    assert "dot" == load_network(tmp_path).config.affinity
