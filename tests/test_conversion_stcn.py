"""STCN's checkpoint under other names: the same network, proved against a slow reference of it.

The published file itself is not here. What stands in for it has exactly the names and shapes of the public code, and
random weights. What every conversion has in common (files that are refused, folders that are kept) is in
test_conversion.py.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from stcn_reference import ReferenceSTCN, listing, published_state, random_reference
from stm_reference import published_state as stm_published_state
from stm_reference import random_reference as random_stm
from tiny import moving_squares
from torch import Tensor

from stmemory.cli import main
from stmemory.errors import WeightsError
from stmemory.networks.config import NetworkConfig
from stmemory.networks.convert import convert_stcn, stcn_state
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.weights.pretrained import load_network, network_info

EXACT = {"atol": 1e-10, "rtol": 1e-10}  # both sides compute in float64, from the same float32 weights
TOP_K = 20


@pytest.fixture(scope="module")
def reference() -> ReferenceSTCN:
    """The reference with random weights."""
    return random_reference()


@pytest.fixture(scope="module")
def published(reference: ReferenceSTCN) -> dict[str, Tensor]:
    """Its state as STCN's authors publish theirs."""
    return published_state(reference)


@pytest.fixture(scope="module")
def checkpoint(published: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a file."""
    path = tmp_path_factory.mktemp("published") / "stcn.pth"
    torch.save(published, path)
    return path


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of the file."""
    folder = tmp_path_factory.mktemp("converted") / "stcn"
    assert 0 == main(["convert", "stcn", str(checkpoint), "-o", str(folder)])
    return folder


@pytest.fixture(scope="module")
def network(folder: Path) -> SegmentationNetwork:
    """The converted network in float64, reading as STCN does."""
    return copy.deepcopy(load_network(folder)).double().with_top_k(TOP_K)


def two_squares(frames: int = 6) -> tuple[Tensor, Tensor]:
    """Frames `[T, 3, 64, 96]` of noise over which two squares move, and the ids `[64, 96]` of the first.

    A frame has 24 memory cells, more than are read.
    """
    torch.manual_seed(0)
    return moving_squares(frames, (4, 36, 4, 40), (30, 60, 50, 90), height=64, width=96)


def of_each(ids: Tensor, objects: int) -> Tensor:
    """Masks `[N, H, W]` of the first N ids."""
    return torch.stack([ids == 1 + n for n in range(objects)]).double()


def test_the_reference_has_the_published_names_and_shapes(reference: ReferenceSTCN) -> None:
    """405 tensors, counted out from the architecture, and 54,434,180 parameters."""
    assert listing() == {name: tuple(tensor.shape) for name, tensor in reference.state_dict().items()}
    biases = 64 + 4 * 64 + 5 * 128 + 5 * 256  # 2,240, of the value encoder's convolutions: stem, stages, shortcuts
    # Key encoder and its heads 13,852,288, value encoder 21,699,395, decoder 18,880,257.
    assert 54_431_940 + biases == sum(parameter.numel() for parameter in reference.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [TOP_K, None])
@pytest.mark.parametrize("objects", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (80, 112)])
@pytest.mark.parametrize("memorised", [1, 3])
def test_every_part_equals_the_reference(
    reference: ReferenceSTCN,
    network: SegmentationNetwork,
    height: int,
    width: int,
    objects: int,
    memorised: int,
    top_k: int | None,
) -> None:
    """Key, value, what is recalled and the logits are those of STCN from the same weights."""
    network = network.with_top_k(top_k)
    frames = torch.rand(memorised + 1, 3, height, width).double()
    masks = torch.rand(memorised, objects, height, width).double()
    video, bank = torch.zeros(objects, dtype=torch.int64), network.new_bank(4)
    keys, values = list[Tensor](), list[Tensor]()
    with torch.no_grad():
        for frame, mask in zip(frames[:-1], masks, strict=True):
            key, own, stride16, stride8, stride4 = reference.encode_key(frame[None])
            value = reference.encode_value(frame[None], stride16, mask)
            features = network.encode_query(frame[None])
            ours = network.encode_memory(features, mask, mask.sum(0) - mask, video)
            found = (features.key, features.value, features.stride16, features.stride8, features.stride4)
            for expected, actual in zip((key, own, stride16, stride8, stride4), found, strict=True):
                torch.testing.assert_close(expected, actual, **EXACT)
            torch.testing.assert_close(key.expand(objects, -1, -1, -1), network.read.key(ours), **EXACT)
            torch.testing.assert_close(value, network.read.value(ours), **EXACT)
            keys.append(key)
            values.append(value)
            bank.write(ours)
        recalled, logits = reference.segment(frames[-1:], keys, values, top_k=top_k)
        features = network.encode_query(frames[-1:])
        ours = network.recall(features, bank, video)
        torch.testing.assert_close(recalled, ours, **EXACT)
        torch.testing.assert_close(logits, network.decode(ours, features, video), **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("objects", [1, 2])
@pytest.mark.parametrize("every", [1, 2], ids=["every frame", "every 2nd frame"])
def test_a_whole_video_equals_stcns_growing_memory(
    reference: ReferenceSTCN, network: SegmentationNetwork, every: int, objects: int
) -> None:
    """With more slots than frames nothing is fused, and the stream finds what STCN finds, in every frame."""
    frames, ids = two_squares()
    masks = of_each(ids, objects)
    ids = ids * (ids <= objects)
    options = TrackingOptions(
        memory_size=8, memory_every=every, top_k=TOP_K, short_side=None, zoom=1, write_gate=0, reach=None
    )
    stream = VOSPredictor(network, options=options).start(frames[0], ids)
    for number, expected in enumerate(reference.track(frames.double(), masks, every=every)):
        actual = stream.last if number == 0 else stream.step(frames[number])
        torch.testing.assert_close(expected.float(), actual.probabilities, atol=2e-6, rtol=0)  # results are float32
        assert torch.equal(expected.argmax(0).int(), actual.ids)
        assert set(range(1 + objects)) == set(actual.ids.unique().tolist()), "not seen is not memorised"
    kept = len(frames) if every == 1 else 4
    assert [kept] * objects == stream.bank.count.tolist()


def test_it_matters_what_is_memorised_and_how_much_is_read(reference: ReferenceSTCN) -> None:
    """The random weights read their memory: to keep every second frame only, or to read all cells, changes masks far
    more than the tolerance."""
    frames, ids = two_squares(4)
    masks = of_each(ids, 2)
    options = ({}, {"every": 2}, {"top_k": None})
    as_it_is, fewer, all_cells = (list(reference.track(frames.double(), masks, **given))[-1] for given in options)
    assert float((as_it_is - fewer).abs().max()) > 1e-3
    assert float((as_it_is - all_cells).abs().max()) > 1e-3


def test_a_predictor_is_made_from_the_folder_and_keeps_its_memory_small(folder: Path) -> None:
    """`from_pretrained` takes the folder; three slots take eight frames without growing."""
    frames, ids = two_squares(8)
    options = TrackingOptions(memory_size=3, memory_every=1, top_k=TOP_K, short_side=None, write_gate=0, reach=None)
    stream = VOSPredictor.from_pretrained(folder, options=options).start(frames[0], ids)
    sizes = set[int]()
    for frame in frames[1:]:
        stream.step(frame)
        sizes.add(stream.nbytes)
    assert 1 == len(sizes)
    assert [3, 3] == stream.bank.count.tolist()


def test_a_saved_stream_goes_on_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    """Bank, keys and values of the new preset are saved and resumed like those of the others."""
    frames, ids = two_squares(4)
    predictor = VOSPredictor.from_pretrained(folder, options=TrackingOptions(memory_size=2, top_k=TOP_K))
    stream = predictor.start(frames[0], ids)
    stream.step(frames[1])
    stream.save(tmp_path / "state")
    resumed = predictor.resume(tmp_path / "state")
    for frame in frames[2:]:
        assert torch.equal(stream.step(frame).probabilities, resumed.step(frame).probabilities)


def test_what_is_known_is_written_beside_the_weights(folder: Path) -> None:
    """Origin, licence, that the fusion cell is untrained, and how much of the memory STCN reads."""
    info = network_info(folder)
    assert NetworkConfig.of("stcn") == info.config
    assert "Cheng, Tai and Tang" in info.about["base_model"]
    assert "MIT" == info.about["licence"]
    assert any("top_k=20" in limit for limit in info.about["limits"])
    assert "stcn.pth" == info.about["converted from"]["file"]
    assert "untrained" in info.about["fusion cell"]
    assert "re-hosting" not in info.about
    assert "top_k=20" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_the_command_says_what_it_did(folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters, licence, the fusion cell, and how to go on as STCN does; info tells what the folder knows."""
    assert 0 == main(["convert", "stcn", str(checkpoint), "-o", str(folder)])
    said = capsys.readouterr().out
    parts = ("54,431,940 parameters", "licence MIT", "untrained", f"--weights {folder} --top-k 20")
    assert all(text in said for text in parts)
    assert 0 == main(["info", str(folder)])
    said = capsys.readouterr().out
    assert "MIT" in said and "top_k=20" in said


def test_the_biases_of_the_value_encoder_may_be_missing(published: dict[str, Tensor]) -> None:
    """Without them nothing is taken off the means; with some of them alone the others are missing."""
    biases = {
        name
        for name in published
        if name.startswith("value_encoder.")
        and name.endswith((".conv1.bias", ".conv2.bias", ".downsample.0.bias"))
        and ".fuser." not in name
    }
    assert 1 + 12 + 2 == len(biases)
    bare = {name: tensor for name, tensor in published.items() if name not in biases}
    mean = "memory_encoder.backbone.layer2.0.second.norm.running_mean"
    with_them, without = stcn_state(published), stcn_state(bare)
    assert with_them.keys() == without.keys()
    assert torch.equal(published["value_encoder.layer2.0.bn2.running_mean"], without[mean])
    assert torch.equal(without[mean] - published["value_encoder.layer2.0.conv2.bias"], with_them[mean])
    with pytest.raises(WeightsError, match=r"missing: value_encoder\.conv1\.bias"):
        stcn_state(bare | {"value_encoder.layer1.0.conv1.bias": torch.zeros(64)})


def test_weights_of_single_objects_see_no_others(published: dict[str, Tensor]) -> None:
    """Four channels in the first layer get a fifth of zeros, as STCN's scripts do."""
    name = "value_encoder.conv1.weight"
    state = stcn_state({**published, name: published[name][:, :4]})["memory_encoder.backbone.stem.conv.weight"]
    assert torch.equal(published[name][:, :4], state[:, :4])
    assert not state[:, 4:].any()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"decoder.pred.bias": None}, r"missing: decoder\.pred\.bias;"),
        ({"key_encoder.layer4.0.conv1.weight": torch.ones(1)}, r"unexpected: key_encoder\.layer4\.0\.conv1\.weight;"),
        ({"value_encoder.fuser.attention.ChannelGate.mlp.1.bias": None}, r"missing: .*ChannelGate\.mlp\.1\.bias;"),
        (
            {"key_comp.weight": torch.ones(256, 1024, 3, 3)},
            r"misshapen: key_comp\.weight \(256, 1024, 3, 3\) where \(512, 1024, 3, 3\)",
        ),
        (
            {"value_encoder.conv1.weight": torch.ones(64, 3, 7, 7)},
            r"misshapen: value_encoder\.conv1\.weight \(64, 3, 7, 7\) where \(64, 5, 7, 7\)",
        ),
        ({"value_encoder.conv1.weight": torch.ones(4)}, r"misshapen: value_encoder\.conv1\.weight \(4,\)"),
        ({"key_encoder.bn1.bias": torch.ones(64).long()}, r"not of floats: key_encoder\.bn1\.bias"),
    ],
    ids=["missing", "unexpected", "no attention", "misshapen", "stem", "flat stem", "integers"],
)
def test_names_that_do_not_fit_are_told(
    published: dict[str, Tensor], changes: dict[str, Tensor | None], told: str
) -> None:
    """What is missing, unexpected or misshapen is named."""
    changed = {name: tensor for name, tensor in {**published, **changes}.items() if tensor is not None}
    with pytest.raises(WeightsError, match=told):
        stcn_state(changed)


def test_a_checkpoint_of_stm_is_another_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error says whose names were expected, in one line; nothing is written."""
    torch.save(stm_published_state(random_stm()), tmp_path / "STM_weights.pth")
    assert 2 == main(["convert", "stcn", str(tmp_path / "STM_weights.pth"), "-o", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert said.startswith("stmemory: STCN: expected names such as") and "another network" in said
    assert not (tmp_path / "out").exists()


def test_code_in_a_file_is_refused(tmp_path: Path) -> None:
    """As for every conversion: nothing but tensors is read."""
    torch.save(torch.nn.Linear(1, 1), tmp_path / "stcn.pth")
    with pytest.raises(WeightsError, match="asks to run code"):
        convert_stcn(tmp_path / "stcn.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_config_is_plain(folder: Path) -> None:
    """The folder holds the files of every folder of weights."""
    assert ["README.md", "config.json", "model.safetensors"] == sorted(path.name for path in folder.iterdir())
    assert "stcn" == json.loads((folder / "config.json").read_text())["network"]["preset"]
