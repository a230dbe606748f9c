"""STM's checkpoint under other names: the same network, proved against a slow reference of it; and every file that is
refused.

The published file itself is not here. What stands in for it has exactly its names and shapes, and random weights.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from stm_reference import ReferenceSTM, listing, published_state, random_reference
from tiny import moving_squares, tiny_network
from torch import Tensor

from stmemory.cli import main
from stmemory.errors import WeightsError
from stmemory.memory.policy import policy_names
from stmemory.networks.config import NetworkConfig
from stmemory.networks.convert import convert_stm, read_tensors, stm_state
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.weights import save_network
from stmemory.weights.pretrained import fingerprint, load_network, network_info

EXACT = {"atol": 1e-10, "rtol": 1e-10}  # both sides compute in float64, from the same float32 weights


@pytest.fixture(scope="module")
def reference() -> ReferenceSTM:
    """The reference with random weights that float32 holds."""
    network = random_reference()
    network.load_state_dict({name.removeprefix("module."): t for name, t in published_state(network).items()})
    return network


@pytest.fixture(scope="module")
def published(reference: ReferenceSTM) -> dict[str, Tensor]:
    """Its state as STM's authors publish theirs."""
    return published_state(reference)


@pytest.fixture(scope="module")
def checkpoint(published: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a file, in the format of the torch of 2019."""
    path = tmp_path_factory.mktemp("published") / "STM_weights.pth"
    torch.save(published, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of the file."""
    folder = tmp_path_factory.mktemp("converted") / "stm"
    assert 0 == main(["convert", "stm", str(checkpoint), "-o", str(folder)])
    return folder


@pytest.fixture(scope="module")
def converted(folder: Path) -> SegmentationNetwork:
    """The converted network."""
    return load_network(folder)


@pytest.fixture(scope="module")
def network(converted: SegmentationNetwork) -> SegmentationNetwork:
    """The same in float64."""
    return copy.deepcopy(converted).double()


def two_squares(frames: int = 5) -> tuple[Tensor, Tensor]:
    """Frames `[T, 3, 48, 64]` of noise over which two squares move, and the ids `[48, 64]` of the first."""
    return moving_squares(frames, (4, 28, 4, 30), (20, 44, 36, 60))


def test_the_reference_has_the_published_names_and_shapes(reference: ReferenceSTM) -> None:
    """558 tensors, counted out from the architecture, and 38,925,570 parameters."""
    assert listing() == {name: tuple(tensor.shape) for name, tensor in reference.state_dict().items()}
    # Encoders 8,549,568 and 8,543,296, two pairs of heads of 5,898,880, decoder 10,034,946.
    assert 38_925_570 == sum(parameter.numel() for parameter in reference.parameters())


def test_every_published_tensor_is_used_once(published: dict[str, Tensor]) -> None:
    """All but the four constants comes back under our names, and our names are the network's without its fusion
    cell."""
    state = stm_state(published)
    with torch.device("meta"):
        expected = {
            n: t.shape
            for n, t in SegmentationNetwork(NetworkConfig.of("stm")).state_dict().items()
            if "fusion." not in n
        }
    constants = sum(t.numel() for n, t in published.items() if n.endswith((".mean", ".std")))

    assert expected == {name: tensor.shape for name, tensor in state.items()}
    assert 12 == constants
    assert sum(t.numel() for t in published.values()) - constants == sum(t.numel() for t in state.values())
    assert sum(
        float(t.double().sum()) for n, t in published.items() if not n.endswith((".mean", ".std"))
    ) == pytest.approx(sum(float(t.double().sum()) for t in state.values()))


@pytest.mark.slow
@pytest.mark.parametrize("objects", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (48, 80), (96, 64)])
@pytest.mark.parametrize("memorised", [1, 3])
def test_every_part_equals_the_reference(
    reference: ReferenceSTM, network: SegmentationNetwork, height: int, width: int, objects: int, memorised: int
) -> None:
    """Template, key, value, what is recalled and the logits are those of STM from the same weights."""
    frames = torch.rand(memorised + 1, 3, height, width).double()
    masks = torch.rand(memorised, objects, height, width).double()  # they overlap, so the others are clamped
    video, bank = torch.zeros(objects, dtype=torch.int64), network.new_bank(4)
    keys, values = list[Tensor](), list[Tensor]()
    with torch.no_grad():
        for frame, mask in zip(frames[:-1], masks, strict=True):
            template, key, value = reference.memorise(frame[None], mask)
            others = (mask.sum(0) - mask).clamp(0, 1)
            ours = network.encode_memory(network.encode_query(frame[None]), mask, others, video)
            torch.testing.assert_close(template, ours, **EXACT)
            torch.testing.assert_close(key, network.read.key(ours), **EXACT)
            torch.testing.assert_close(value, network.read.value(ours), **EXACT)
            keys.append(key)
            values.append(value)
            bank.write(ours)
        recalled, maps, _ = reference.decode(frames[-1:], keys, values)
        features = network.encode_query(frames[-1:])
        ours = network.recall(features, bank, video)
        torch.testing.assert_close(recalled, ours, **EXACT)
        torch.testing.assert_close(maps[:, 1] - maps[:, 0], network.decode(ours, features, video), **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2], ids=["every frame", "every 2nd frame"])
def test_a_whole_video_equals_stms_growing_memory(
    reference: ReferenceSTM, network: SegmentationNetwork, every: int
) -> None:
    """With more slots than frames nothing is fused, and the stream finds what STM finds, in every frame."""
    frames, ids = two_squares()
    masks = torch.stack([ids == 1, ids == 2]).double()
    options = TrackingOptions(memory_size=8, memory_every=every, short_side=None, write_gate=0, reach=None)
    predictor = VOSPredictor(network, options=options)
    stream = predictor.start(frames[0], ids)
    for number, expected in enumerate(reference.track(frames.double(), masks, every=every)):
        actual = stream.last if number == 0 else stream.step(frames[number])
        torch.testing.assert_close(expected.float(), actual.probabilities, atol=2e-6, rtol=0)  # results are float32
        assert torch.equal(expected.argmax(0).int(), actual.ids)
        assert {0, 1, 2} == set(actual.ids.unique().tolist()), "an object that is not seen would not be memorised"
    kept = len(frames) if every == 1 else 3
    assert [kept, kept] == stream.bank.count.tolist()


def test_it_matters_what_is_memorised(reference: ReferenceSTM) -> None:
    """The random weights read their memory: to keep every second frame only changes masks far more than the
    tolerance."""
    frames, ids = two_squares()
    masks = torch.stack([ids == 1, ids == 2]).double()
    pair = (list(reference.track(frames.double(), masks, every=every))[-1] for every in (1, 2))
    assert float(torch.sub(*pair).abs().max()) > 1e-3


@pytest.mark.parametrize("policy", policy_names())
def test_converted_weights_run_in_constant_memory_under_every_policy(
    converted: SegmentationNetwork, policy: str
) -> None:
    """Three slots take eight frames without growing, and each holds a frame's template within 1e-4 although no cell was
    trained."""
    frames, ids = two_squares(8)
    options = TrackingOptions(memory_size=3, policy=policy, short_side=None, write_gate=0, reach=None)
    predictor = VOSPredictor(converted, options=options)
    stream, seen, sizes = predictor.start(frames[0], ids), list[Tensor](), set[int]()
    write = stream.bank.write

    def note(template: Tensor, **options: object) -> None:
        seen.extend(template.clone())
        write(template, **options)  # the bank's own options

    stream.bank.write = note  # looks on
    seen.extend(stream.bank.templates[:, 0].clone())
    for frame in frames[1:]:
        stream.step(frame)
        sizes.add(stream.nbytes)
    assert 1 == len(sizes)
    assert [3, 3] == stream.bank.count.tolist()
    written = torch.stack(seen).flatten(1)
    for template in stream.bank.templates.flatten(0, 1).flatten(1):
        assert float(((written - template).norm(dim=1) / template.norm()).min()) < 1e-4


def test_a_predictor_is_made_from_the_folder(folder: Path, converted: SegmentationNetwork) -> None:
    """`from_pretrained` takes the folder, and finds what the network finds."""
    frames, ids = two_squares(3)
    one, other = VOSPredictor.from_pretrained(folder), VOSPredictor(converted)
    for expected, actual in zip(other.track(frames, ids), one.track(frames, ids), strict=True):
        assert torch.equal(expected.probabilities, actual.probabilities)


def test_what_is_known_is_written_beside_the_weights(folder: Path, checkpoint: Path) -> None:
    """Origin, licence, the file with its digest, and that the fusion cell is untrained."""
    info = network_info(folder)
    assert NetworkConfig.of("stm") == info.config
    assert {"base_model", "licence", "limits", "re-hosting", "converted from", "fusion cell"} == set(info.about)
    assert "Oh et al." in info.about["base_model"]
    assert "CC-BY-NC-SA-4.0" == info.about["licence"] and "non-commercial" in info.about["limits"][0]
    assert {"file": "STM_weights.pth", "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()} == info.about[
        "converted from"
    ]
    assert "untrained" in info.about["fusion cell"]


@pytest.mark.slow
def test_the_same_file_makes_the_same_weights(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Converted again, also over itself, all but the card's name for the folder is the same, and no random number was
    used up."""
    before = torch.random.get_rng_state()
    convert_stm(checkpoint, tmp_path)
    convert_stm(checkpoint, tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    one, other = (json.loads((place / "config.json").read_text()) for place in (folder, tmp_path))
    assert {**one, "card": None} == {**other, "card": None}


@pytest.mark.slow
def test_other_weights_are_replaced_by_force_alone(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of other weights, or half of one, is left as it is, and told; --force replaces it, but for a card that
    somebody wrote."""
    save_network(tiny_network(), tmp_path / "other")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("mine")
    for name in ("other", "half", "file"):
        assert 2 == main(["convert", "stm", str(checkpoint), "-o", str(tmp_path / name)])
        assert name in capsys.readouterr().err
    assert fingerprint(tiny_network()) == fingerprint(load_network(tmp_path / "other"))
    assert "{}" == (tmp_path / "half" / "config.json").read_text()
    assert "mine" == (tmp_path / "file").read_text()
    (tmp_path / "other" / "README.md").write_text("what I found out about it")
    assert 0 == main(["convert", "stm", str(checkpoint), "-o", str(tmp_path / "other"), "--force"])
    assert fingerprint(load_network(folder)) == fingerprint(load_network(tmp_path / "other"))
    assert "what I found out about it" == (tmp_path / "other" / "README.md").read_text()


@pytest.mark.slow
def test_the_command_says_what_it_did(folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters, licence, the fusion cell, and how to go on; info tells what the folder knows."""
    assert 0 == main(["convert", "stm", str(checkpoint), "-o", str(folder)])
    said = capsys.readouterr().out
    assert all(text in said for text in ("38,925,570 parameters", "non-commercial", "untrained", f"--weights {folder}"))
    assert 0 == main(["info", str(folder)])
    assert "CC-BY-NC-SA-4.0" in capsys.readouterr().out


def without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def without_constants(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith((".mean", ".std"))}


@pytest.mark.parametrize(
    "change", [without_prefix, without_counters, without_constants], ids=lambda change: change.__name__
)
def test_what_does_not_matter_may_differ(
    published: dict[str, Tensor], change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    """The prefix of DataParallel, the counters that old torch did not write, and the constants may be missing."""
    expected, actual = stm_state(published), stm_state(change(published))
    assert set(expected) == set(actual)
    assert all(
        torch.equal(expected[name], actual[name]) for name in expected if not name.endswith("num_batches_tracked")
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"module.Decoder.pred2.bias": None}, r"missing: Decoder\.pred2\.bias;"),
        ({"module.Encoder_M.conv1_o.weight": None}, r"missing: Encoder_M\.conv1_o\.weight;"),
        ({"module.Encoder_Q.res5.0.conv1.weight": torch.ones(1)}, r"unexpected: Encoder_Q\.res5\.0\.conv1\.weight;"),
        ({"KV_M_r4.Key.weight": torch.ones(1)}, r"unexpected: .* more"),
        (
            {"module.KV_M_r4.Key.weight": torch.ones(64, 1024, 3, 3)},
            r"misshapen: KV_M_r4\.Key\.weight \(64, 1024, 3, 3\) where \(128, 1024, 3, 3\)",
        ),
        (
            {"module.Encoder_M.conv1_m.weight": torch.ones(64, 3, 7, 7)},
            r"misshapen: Encoder_M\.conv1_m\.weight \(64, 3, 7, 7\) where \(64, 1, 7, 7\)",
        ),
        ({"module.Encoder_Q.bn1.bias": torch.ones(64).long()}, r"not of floats: Encoder_Q\.bn1\.bias"),
        (
            {"module.Encoder_Q.std": torch.full((1, 3, 1, 1), 0.5)},
            r"Encoder_Q\.std to be ImageNet's .* got \[0\.5, 0\.5, 0\.5\]",
        ),
        ({"module.Encoder_M.mean": torch.ones(2)}, r"Encoder_M\.mean to be ImageNet's"),
    ],
    ids=[
        "missing",
        "missing of the stem",
        "unexpected",
        "half a prefix",
        "misshapen",
        "misshapen of the stem",
        "integers",
        "std",
        "mean",
    ],
)
def test_names_that_do_not_fit_are_told(
    published: dict[str, Tensor], changes: dict[str, Tensor | None], told: str
) -> None:
    """What is missing, unexpected, misshapen or of other constants is named."""
    changed = {name: tensor for name, tensor in {**published, **changes}.items() if tensor is not None}
    with pytest.raises(WeightsError, match=told):
        stm_state(changed)


class Runs:
    """A pickle of this makes a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def write_code(path: Path) -> None:
    torch.save({"module.Encoder_M.conv1.weight": Runs(path.with_name("ran"))}, path)


def write_plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Runs(path.with_name("ran")), protocol=2))


def write_newer_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Runs(path.with_name("ran")), protocol=5))


def write_network(path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), path)


def write_truncated(path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"module.Encoder_M.conv1.weight": torch.ones(64, 3, 7, 7)}, buffer)
    path.write_bytes(buffer.getvalue()[:-100])


def write_resnet(path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7), "fc.bias": torch.ones(1000)}, path)


def write_few(path: Path) -> None:
    torch.save({"module.Encoder_M.conv1.weight": torch.ones(64, 3, 7, 7)}, path)


def write_wrapped(path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"a": torch.ones(1)}}, path)


REFUSED = [
    (lambda path: None, "nothing there"),
    (lambda path: path.mkdir(), "a folder"),
    (lambda path: path.write_bytes(b""), "download it again"),
    (lambda path: path.write_text("<html>not found</html>"), "download it again"),
    (write_truncated, "download it again"),
    (write_code, "asks to run code"),
    (write_plain_pickle, "asks to run code"),
    (write_newer_pickle, "download it again"),
    (write_network, "asks to run code"),
    (lambda path: torch.save([torch.ones(1)], path), "got a list"),
    (lambda path: torch.save({}, path), "got an empty one"),
    (write_wrapped, "got others: epoch, state_dict"),
    (write_resnet, "another network"),
    (write_few, "missing: Decoder.RF2.ResFS.conv1.bias"),
]


@pytest.mark.parametrize(
    ("write", "told"),
    REFUSED,
    ids=[
        "none",
        "folder",
        "empty",
        "page",
        "truncated",
        "code",
        "pickle",
        "newer-pickle",
        "network",
        "list",
        "nothing",
        "wrapped",
        "resnet",
        "few",
    ],
)
def test_other_files_are_refused(
    write: Callable[[Path], object], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no checkpoint of STM exits with 2 and one line that says why; nothing is run and nothing is written."""
    write(tmp_path / "file.pth")
    assert 2 == main(["convert", "stm", str(tmp_path / "file.pth"), "-o", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert said.startswith("stmemory: ") and told in said and 1 == len(said.splitlines())
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_cut_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    """Wherever a file ends too early, the error is ours."""
    path = tmp_path / ("file.safetensors" if kind == "safetensors" else "file.pth")
    tensors = {"a": torch.arange(6.0), "b": torch.ones(2, 2)}
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    found = read_tensors(path)
    assert ["a", "b"] == sorted(found) and torch.equal(tensors["a"], found["a"])
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="download it again|empty"):
            read_tensors(path)


def test_a_kind_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    """Only checkpoints that are known can be converted."""
    with pytest.raises(SystemExit) as caught:
        main(["convert", "xmem", "file.pth", "-o", "out"])
    assert 2 == caught.value.code
    assert "stm" in capsys.readouterr().err


def test_not_a_number_is_refused(published: dict[str, Tensor], tmp_path: Path) -> None:
    """A checkpoint with NaN leaves no folder of weights."""
    broken = {**published, "module.Decoder.pred2.bias": torch.full((2,), torch.nan)}
    torch.save(broken, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match=r"decoder\.predict\.bias"):
        convert_stm(tmp_path / "nan.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_config_is_plain(folder: Path) -> None:
    """The folder holds the files of every folder of weights."""
    assert ["README.md", "config.json", "model.safetensors"] == sorted(path.name for path in folder.iterdir())
    assert "stm" == json.loads((folder / "config.json").read_text())["network"]["preset"]
