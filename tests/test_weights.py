"""Facts about weights in folders and inside the package: what is written is read, and nothing else is taken for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import CONFIG, boxes, clip, tiny_network

from stmemory.networks.config import NetworkConfig
from stmemory.predictor import VOSPredictor
from stmemory.weights import bundled_names, fingerprint, load_network, network_info, save_network, tensors_digest


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """A network comes back with its config and every weight, bit for bit, in eval mode."""
    network = tiny_network().train()
    save_network(network, tmp_path / "deep" / "tiny", about={"licence": "none"})
    loaded = load_network(tmp_path / "deep" / "tiny")
    assert CONFIG == loaded.config and not loaded.training
    assert fingerprint(network) == fingerprint(loaded)
    assert {"licence": "none"} == network_info(tmp_path / "deep" / "tiny").about


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
    """Version, network and what is known of the weights; nothing else."""
    save_network(tiny_network(), tmp_path)
    assert {"format_version", "network", "about"} == set(json.loads((tmp_path / "config.json").read_text()))
