"""Whatever cannot be used ends in an error that says what was expected, what came and what to do; never in a wrong
mask.

And after an error in the middle of a video the stream is in the state it was in, and goes on.
"""

from __future__ import annotations

import errno
import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import HEIGHT, WIDTH, boxes, clip, new_predictor, state_of, tiny_network, tiny_predictor

from stmemory.errors import FileError, FrameError, MaskError, OptionError, ShapeError, StmemoryError, WeightsError
from stmemory.memory import LearnedPolicy
from stmemory.networks.config import NetworkConfig
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.stream import VOSStream
from stmemory.weights import save_network
from stmemory.weights.pretrained import load_network, network_info, tensors_digest
from stmemory.weights.tensors import read_tensor_file, save_bank, write_tensor_file

FRAMES = clip(8)
MASK = boxes(3, 9)
NAN = FRAMES[0] / np.float32(255)
NAN[5, 5, 1] = np.nan
DARK = FRAMES[0] / np.float32(255)
DARK[0, 0, 0] = -np.inf

BAD_FRAMES: dict[str, tuple[object, type[StmemoryError]]] = {
    "NaN": (NAN, FrameError),
    "infinite": (DARK, FrameError),
    "floats to 255": (FRAMES[0].astype(np.float32), FrameError),
    "negative floats": (FRAMES[0] / np.float32(-255), FrameError),
    "grey": (FRAMES[0, :, :, 0], ShapeError),
    "grey with a channel": (FRAMES[0, :, :, :1], ShapeError),
    "RGBA": (np.dstack([FRAMES[0], FRAMES[0, :, :, :1]]), ShapeError),
    "channels first": (FRAMES[0].transpose(2, 0, 1), ShapeError),
    "channels last tensor": (torch.from_numpy(FRAMES[0]), ShapeError),
    "a clip": (FRAMES[:2], ShapeError),
    "no pixels": (FRAMES[0, :0], ShapeError),
    "16-bit": (FRAMES[0].astype(np.uint16), ShapeError),
    "booleans": (FRAMES[0] > 100, ShapeError),
    "nothing": (None, ShapeError),
    "a list": (FRAMES[0].tolist(), ShapeError),
    "no such file": ("nowhere/frame.png", FrameError),
    "16-bit image": (Image.new("I;16", (WIDTH, HEIGHT)), FrameError),
}
NEGATIVE = MASK.copy()
NEGATIVE[0, 0] = -1
SOFT_NAN = np.full((1, HEIGHT, WIDTH), np.nan, np.float32)

BAD_MASKS: dict[str, object] = {
    "another size": boxes(3, height=40),
    "transposed": MASK.T,
    "one pixel too wide": np.pad(MASK, ((0, 0), (0, 1))),
    "negative id": NEGATIVE,
    "id above int32": MASK.astype(np.int64) * 2**31,
    "300 objects": np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 301,
    "201 objects": np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 202,
    "stack of 300": np.ones((300, HEIGHT, WIDTH), bool),
    "colours": FRAMES[0],
    "RGB image": Image.fromarray(FRAMES[0]),
    "float ids": MASK.astype(np.float32),
    "NaN": SOFT_NAN,
    "strings": MASK.astype(str),
    "a list": MASK.tolist(),
    "a number": 3,
    "no such file": "nowhere/mask.png",
    "one dimension": MASK[0],
}


def assert_says(error: pytest.ExceptionInfo[Exception], *words: str) -> None:
    """What was expected, what came, and the words; a missing file speaks for itself."""
    text = str(error.value)
    assert "no file" in text or "no such file" in text or ("expected" in text and "got" in text), text
    for word in words:
        assert word in text, text


def assert_says_what_to_do(error: pytest.ExceptionInfo[Exception]) -> None:
    """After what was expected and what came there is a part that says what to do, or what is wrong in detail."""
    assert_says(error)
    came = str(error.value).split("got", 1)[1]
    assert ";" in came or ":" in came or "?" in came, str(error.value)


@pytest.mark.parametrize(("frame", "kind"), BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_bad_frames_are_errors_and_leave_the_stream_alone(
    frame: object, kind: type[StmemoryError], tmp_path: Path
) -> None:
    """As a first frame, and in the middle, where the stream then goes on as one that never saw it."""
    predictor = tiny_predictor()
    with pytest.raises(kind) as error:
        predictor.start(frame, MASK)
    assert_says(error, "frame")
    hurt, well = (predictor.start(FRAMES[0], MASK) for _ in range(2))
    before = state_of(hurt, tmp_path)
    with pytest.raises(kind):
        hurt.step(frame)
    assert before == state_of(hurt, tmp_path)
    assert torch.equal(well.step(FRAMES[1]).probabilities, hurt.step(FRAMES[1]).probabilities)


@pytest.mark.parametrize("mask", BAD_MASKS.values(), ids=BAD_MASKS)
def test_bad_masks_are_errors_and_leave_the_stream_alone(mask: object, tmp_path: Path) -> None:
    """For the first frame, a later one, a correction and new objects: each an error, and the state stays the same."""
    predictor = tiny_predictor()
    with pytest.raises(MaskError) as error:
        predictor.start(FRAMES[0], mask)
    assert_says(error, "mask")
    stream = predictor.start(FRAMES[0], boxes(500))
    stream.step(FRAMES[1])
    before = state_of(stream, tmp_path)
    for act in (lambda: stream.step(FRAMES[2], mask), lambda: stream.correct(mask), lambda: stream.add_objects(mask)):
        with pytest.raises(MaskError):
            act()
        assert before == state_of(stream, tmp_path)


EMPTY_MASKS: dict[str, object] = {
    "background": np.zeros((HEIGHT, WIDTH), np.uint8),
    "no stack": np.zeros((0, HEIGHT, WIDTH), bool),
    "empty stack": np.zeros((2, HEIGHT, WIDTH), bool),
    "never above one half": np.full((HEIGHT, WIDTH), 0.4, np.float32),
}


@pytest.mark.parametrize("mask", EMPTY_MASKS.values(), ids=EMPTY_MASKS)
def test_a_mask_without_objects_is_an_error_or_says_nothing(mask: object, tmp_path: Path) -> None:
    """It cannot begin a video, correct or add; in a later step it is as no mask at all, which is documented."""
    predictor = tiny_predictor()
    with pytest.raises(MaskError) as error:
        predictor.start(FRAMES[0], mask)
    assert_says_what_to_do(error)
    one, other = (predictor.start(FRAMES[0], MASK) for _ in range(2))
    for act in (one.correct, one.add_objects):
        before = state_of(one, tmp_path)
        with pytest.raises(MaskError) as error:
            act(mask)
        assert_says_what_to_do(error)
        assert before == state_of(one, tmp_path)
    assert torch.equal(one.step(FRAMES[1]).probabilities, other.step(FRAMES[1], mask).probabilities)


def test_a_video_without_a_mask_is_an_error() -> None:
    """Nothing would be tracked, so neither `start` nor `track` begins."""
    for act in (lambda: tiny_predictor().start(FRAMES[0], None), lambda: tiny_predictor().track(FRAMES, None)):
        with pytest.raises(MaskError) as error:
            act()
        assert_says_what_to_do(error)


@pytest.mark.parametrize(
    "source",
    [[], (), FRAMES[:0], torch.zeros(0, 3, 8, 8), iter([])],
    ids=["list", "tuple", "array", "tensor", "generator"],
)
def test_an_empty_video_is_an_error_when_it_is_given(source: object) -> None:
    """`track` says so at once, not at the first result."""
    with pytest.raises((FrameError, ShapeError)) as error:
        tiny_predictor().track(source, MASK)
    assert_says_what_to_do(error)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    """As is one that is not there."""
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(FrameError) as error:
            tiny_predictor().track(path, MASK)
        assert_says(error, str(path))


@pytest.mark.parametrize(
    "source", [None, 5, FRAMES[0], {"frames": FRAMES}, b"frames"], ids=["None", "int", "one frame", "dict", "bytes"]
)
def test_what_is_no_video_is_an_error(source: object) -> None:
    """The message lists what is taken."""
    with pytest.raises(ShapeError) as error:
        tiny_predictor().track(source, MASK)
    assert_says(error, "frames")


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH + 1), (HEIGHT - 1, WIDTH), (WIDTH, HEIGHT), (1, 1)], ids=str)
def test_a_size_that_changes_is_an_error(size: tuple[int, int], tmp_path: Path) -> None:
    """The results before it are handed out, the message says both sizes, and a stream stays as it was."""
    odd = clip(1, *size)[0]
    predictor, results = tiny_predictor(), []
    with pytest.raises(FrameError) as error:
        for result in predictor.track([FRAMES[0], FRAMES[1], odd, FRAMES[2]], MASK):
            results.append(result)
    assert 2 == len(results)
    assert_says(error, f"{HEIGHT} x {WIDTH}", f"{size[0]} x {size[1]}")
    stream = predictor.start(FRAMES[0], MASK)
    before = state_of(stream, tmp_path)
    with pytest.raises(FrameError) as error:
        stream.step(odd)
    assert_says_what_to_do(error)
    assert before == state_of(stream, tmp_path)


def test_a_generator_that_raises_raises_through() -> None:
    """Its own error arrives after the results before it, and a stream that it fed goes on."""

    class CableError(Exception):
        """Of the user's own."""

    def camera() -> Iterator[np.ndarray]:
        yield from FRAMES[:3]
        raise CableError("unplugged")

    predictor, results = tiny_predictor(), []
    with pytest.raises(CableError, match="unplugged"):
        for result in predictor.track(camera(), MASK):
            results.append(result)
    assert [0, 1, 2] == [result.frame_index for result in results]
    frames = camera()
    stream = predictor.start(next(frames), MASK)
    with pytest.raises(CableError):
        for frame in frames:
            stream.step(frame)
    well = predictor.start(FRAMES[0], MASK)
    for frame in FRAMES[1:3]:
        well.step(frame)
    assert torch.equal(well.step(FRAMES[3]).probabilities, stream.step(FRAMES[3]).probabilities)


def test_a_generator_that_raises_at_once_raises_through() -> None:
    """Before any frame the error comes from `track` itself."""

    def camera() -> Iterator[np.ndarray]:
        raise OSError("no camera")
        yield

    with pytest.raises(OSError, match="no camera"):
        tiny_predictor().track(camera(), MASK)


def test_a_truncated_video_is_an_error_after_its_whole_frames(tmp_path: Path) -> None:
    """Decoders end early in silence; here the masks before the cut are handed out, then the cut is an error."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "cut.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in clip(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    data = (tmp_path / "cut.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    results = []
    with pytest.raises(FrameError) as error:
        for result in tiny_predictor().track(tmp_path / "cut.mkv", MASK):
            results.append(result)
    assert_says(error, "cut.mkv")
    assert 0 < len(results) < 60


def test_a_file_that_is_no_video_is_an_error(tmp_path: Path) -> None:
    """Text called clip.mp4 is an error when it is given."""
    pytest.importorskip("av")
    (tmp_path / "clip.mp4").write_text("not a video")
    with pytest.raises(FrameError) as error:
        tiny_predictor().track(tmp_path / "clip.mp4", MASK)
    assert "clip.mp4: not a video that PyAV can read" in str(error.value)


def test_a_damaged_image_in_a_folder_is_an_error_when_it_is_reached(tmp_path: Path) -> None:
    """The results before it are handed out, and the message names the file."""
    for index in range(3):
        Image.fromarray(FRAMES[index]).save(tmp_path / f"{index}.png")
    data = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(data[: len(data) // 2])
    results = tiny_predictor().track(tmp_path, MASK)
    assert 0 == next(results).frame_index
    with pytest.raises(FrameError) as error:
        next(results)
    assert_says(error, "1.png")


def test_more_than_200_objects_in_all_are_an_error(tmp_path: Path) -> None:
    """150 and 60 more are refused, with the stream as it was; 150 and 50 are tracked."""
    first = np.arange(24 * 32).reshape(24, 32) % 151
    frame = clip(1, 24, 32)[0]
    stream = tiny_predictor(memory_size=2).start(frame, first)
    before = state_of(stream, tmp_path)
    for act in (stream.add_objects, stream.correct, lambda mask: stream.step(frame, mask)):
        with pytest.raises(MaskError) as error:
            act(np.arange(24 * 32).reshape(24, 32) % 61 + 1000)
        assert_says(error, "200", "211", "remove_objects")
    assert before == state_of(stream, tmp_path)
    assert 200 == len(stream.add_objects(np.arange(24 * 32).reshape(24, 32) % 50 + 1000).object_ids)


def test_wrong_ids_are_errors(tmp_path: Path) -> None:
    """Adding what is tracked, removing what is not, and looking at new objects without writing are told by their
    ids."""
    stream = tiny_predictor().start(FRAMES[0], MASK)
    before = state_of(stream, tmp_path)
    for act, said in (
        (lambda: stream.add_objects(boxes(9, 20)), "[9]"),
        (lambda: stream.remove_objects([3, 77]), "[77]"),
        (lambda: stream.step(FRAMES[1], boxes(20), write=False), "(20,)"),
    ):
        with pytest.raises(MaskError) as error:
            act()
        assert_says(error, said)
        assert before == state_of(stream, tmp_path)


def test_nothing_can_be_done_before_the_first_frame(tmp_path: Path) -> None:
    """Correcting, adding and saving say that a frame must come first."""
    stream = VOSStream(tiny_predictor().network, TrackingOptions())
    for act in (
        lambda: stream.correct(MASK),
        lambda: stream.add_objects(MASK),
        lambda: stream.save(tmp_path / "state"),
    ):
        with pytest.raises(FrameError) as error:
            act()
        assert_says(error, "step(frame, mask)")
    with pytest.raises(MaskError):
        stream.remove_objects([1])
    assert [] == list(tmp_path.iterdir())


def test_a_network_that_gives_nan_is_an_error(tmp_path: Path) -> None:
    """NaN would be background in silence; instead it is said, and the stream stays as it was."""
    predictor = new_predictor()
    stream = predictor.start(FRAMES[0], MASK)
    before = stream.frame_index, stream.last.ids.clone(), stream.describe()
    predictor.network.decoder.end.bias.fill_(float("nan"))
    with pytest.raises(WeightsError) as error:
        stream.step(FRAMES[1])
    assert_says_what_to_do(error)
    assert (before[0], before[2]) == (stream.frame_index, stream.describe())
    assert torch.equal(before[1], stream.last.ids)


# Weights.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with weights of the tiny network."""
    save_network(tiny_network(), tmp_path / "weights")
    return tmp_path / "weights"


def damage_config(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    """A function that changes what `config.json` holds."""

    def change_file(folder: Path) -> None:
        document = json.loads((folder / "config.json").read_text())
        change(document)
        (folder / "config.json").write_text(json.dumps(document))

    return change_file


def damage_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """A function that changes what `model.safetensors` holds."""

    def change_file(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return change_file


def cut(name: str, keep: float) -> Callable[[Path], object]:
    """A function that keeps the first part of a file."""

    def change_file(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return change_file


def no_longer_finite(tensors: dict[str, torch.Tensor]) -> None:
    """One NaN."""
    tensors["decoder.end.weight"].view(-1)[0] = torch.nan


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "config cut": (cut("config.json", 0.5), "config.json"),
    "config empty": (cut("config.json", 0.0), "config.json"),
    "config no text": (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json"),
    "config a list": (lambda folder: (folder / "config.json").write_text("[1, 2]"), "config.json"),
    "config of others": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
        "bert",
    ),
    "config newer": (damage_config(lambda d: d.update(format_version=99)), "99"),
    "config version a text": (damage_config(lambda d: d.update(format_version="new")), "config.json"),
    "network no dict": (damage_config(lambda d: d.update(network=3)), "config.json"),
    "unknown key": (damage_config(lambda d: d["network"].update(attention=8)), "attention"),
    "missing key": (damage_config(lambda d: d["network"].pop("key_channels")), "key_channels"),
    "unknown key above": (damage_config(lambda d: d.update(sharded=True)), "sharded"),
    "kind unknown": (damage_config(lambda d: d.update(upscaler=d.pop("network"))), "upscaler"),
    "another type": (damage_config(lambda d: d["network"].update(key_channels="4")), "key_channels"),
    "out of range": (damage_config(lambda d: d["network"].update(affinity="cosine")), "cosine"),
    "another network": (damage_config(lambda d: d["network"].update(value_channels=16)), "misshapen"),
    "weights cut": (cut("model.safetensors", 0.5), "model.safetensors"),
    "weights almost whole": (cut("model.safetensors", 0.999), "model.safetensors"),
    "weights empty": (cut("model.safetensors", 0.0), "model.safetensors"),
    "weights a pickle": (
        lambda folder: (folder / "model.safetensors").write_bytes(pickle.dumps({"a": 1})),
        "safetensors",
    ),
    "weights of torch.save": (
        lambda folder: torch.save({"a": 1}, folder / "model.safetensors"),
        "a pickle of torch.save",
    ),
    "weights a pointer": (
        lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs"),
        "git lfs pull",
    ),
    "weights a web page": (lambda folder: (folder / "model.safetensors").write_text("<!doctype html>"), "a web page"),
    "weights a pickle beside": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "convert it first",
    ),
    "weights of another run": (damage_tensors(lambda t: t["decoder.end.bias"].add_(1e-3)), "sha256"),
    "weight missing": (damage_tensors(lambda t: t.pop("decoder.end.bias")), "missing: decoder.end.bias"),
    "weight unexpected": (damage_tensors(lambda t: t.update(extra=torch.ones(1))), "unexpected: extra"),
    "weight misshapen": (
        damage_tensors(lambda t: t.update({"decoder.end.bias": torch.ones(2)})),
        "misshapen: decoder.end.bias",
    ),
    "weight NaN": (damage_tensors(no_longer_finite), "decoder.end.weight"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_weights_are_errors(damage: Callable[[Path], object], said: str, folder: Path) -> None:
    """Each way in which a folder can be broken is a `WeightsError` that names the place."""
    damage(folder)
    with pytest.raises(WeightsError) as error:
        VOSPredictor.from_pretrained(folder)
    assert_says(error, said, str(folder))


@pytest.mark.parametrize("name", ["huge", "nowhere/at/all", ""], ids=["name", "path", "empty"])
def test_weights_that_are_not_there_are_errors(name: str) -> None:
    """The message lists the names that there are."""
    for load in (load_network, network_info):
        with pytest.raises(WeightsError) as error:
            load(name)
        assert_says(error, "lite")


def test_weights_that_could_not_be_loaded_again_are_not_written(tmp_path: Path) -> None:
    """A folded network and one with NaN are refused before a file is made."""
    broken = tiny_network()
    with torch.no_grad():
        broken.decoder.end.bias.fill_(torch.nan)
    for network in (tiny_predictor().network, broken):
        with pytest.raises(WeightsError) as error:
            save_network(network, tmp_path / "weights")
        assert_says_what_to_do(error)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "values",
    [{"backbone": "vgg"}, {"norm": "layer"}, {"affinity": "cosine"}, {"key_channels": 0}, {"template_channels": 64}],
    ids=str,
)
def test_networks_that_do_not_exist_are_errors(values: dict[str, object]) -> None:
    """A config out of its range names the field."""
    with pytest.raises(OptionError) as error:
        NetworkConfig(**values)
    assert_says(error, next(iter(values)))


# Saved streams.


def flip_a_bit(path: Path) -> None:
    """In the last tensor's values, where no header tells."""
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(bytes(data))


def rewrite(change: Callable[[dict[str, object], dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """A function that changes what a state says of itself, or its tensors."""

    def change_file(path: Path) -> None:
        file = read_tensor_file(path, "a stream")
        about = json.loads(file.about["about"])
        change(about, file.tensors)
        write_tensor_file(path, file.tensors, {"about": json.dumps(about)})

    return change_file


def lose_the_digest(path: Path) -> None:
    """The same file without what says that it is whole."""
    save_file(load_file(path), path, metadata={"about": read_tensor_file(path, "a stream").about["about"]})


def write_bank(path: Path) -> None:
    """A file of stmemory's, but a bank's."""
    save_bank(tiny_predictor().start(FRAMES[0], MASK).bank, path)


STATE_DAMAGES: dict[str, Callable[[Path], object]] = {
    "not there": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "one bit": flip_a_bit,
    "text": lambda path: path.write_text("a stream"),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"format": "stmemory.stream"})),
    "plain safetensors": lambda path: save_file({"pixels": torch.zeros(1)}, path),
    "a bank": write_bank,
    "a list": lambda path: save_file({"a": torch.zeros(1)}, path, metadata={"about": "[1]"}),
    "newer": rewrite(lambda about, tensors: about.update(version=99)),
    "no version": rewrite(lambda about, tensors: about.pop("version")),
    "no weights": rewrite(lambda about, tensors: about.pop("weights")),
    "no digest": lose_the_digest,
    "an earlier version": rewrite(lambda about, tensors: about.update(version=2)),
    "no ids": rewrite(lambda about, tensors: about.pop("object_ids")),
    "ids of others": rewrite(lambda about, tensors: about.update(object_ids=[1])),
    "ids that are words": rewrite(lambda about, tensors: about.update(object_ids=["a"])),
    "ids beyond int32": rewrite(lambda about, tensors: about.update(object_ids=[2**40])),
    "a frame that is a word": rewrite(lambda about, tensors: about.update(frame_index="7")),
    "a frame before the first": rewrite(lambda about, tensors: about.update(frame_index=-1)),
    "scores that are words": rewrite(lambda about, tensors: about.update(scores=["high"])),
    "options that are a word": rewrite(lambda about, tensors: about.update(options="x")),
    "deep words": lambda path: write_tensor_file(path, {"pixels": torch.zeros(1)}, {"about": "[" * 100_000}),
    "no size": rewrite(lambda about, tensors: about.update(size={})),
    "a size that is no whole number": rewrite(
        lambda about, tensors: about.update(size={**about["size"], "frame_height": 48.0})
    ),
    "a size that is not the tensors'": rewrite(
        lambda about, tensors: about.update(size={**about["size"], "padded_width": 128})
    ),
    "tensors of another shape": rewrite(
        lambda about, tensors: tensors.update(probabilities=tensors["probabilities"][:1])
    ),
    "numbers where flags belong": rewrite(
        lambda about, tensors: tensors.update({"bank.valid": tensors["bank.valid"].float()})
    ),
    "tensor lost": rewrite(lambda about, tensors: tensors.pop("pixels")),
    "bank lost": rewrite(lambda about, tensors: tensors.pop("bank.templates")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", STATE_DAMAGES.values(), ids=STATE_DAMAGES)
def test_damaged_states_are_errors(damage: Callable[[Path], object], tmp_path: Path) -> None:
    """No damage, however small, gives a stream that goes on with other masks; the message names the file."""
    predictor, path = tiny_predictor(), tmp_path / "state"
    stream = predictor.start(FRAMES[0], MASK)
    stream.step(FRAMES[1])
    stream.save(path)
    damage(path)
    with pytest.raises(WeightsError) as error:
        predictor.resume(path)
    assert_says(error, str(path))


def test_states_of_earlier_versions_go_on(tmp_path: Path) -> None:
    """A file as version 2 wrote it, with a digest of its tensors alone, gives the same masks; damaged, it is
    refused."""
    predictor, path = tiny_predictor(), tmp_path / "state"
    stream = predictor.start(FRAMES[0], MASK)
    stream.step(FRAMES[1])
    stream.save(path)
    file = read_tensor_file(path, "a stream")
    about = {**json.loads(file.about["about"]), "version": 2, "digest": tensors_digest(file.tensors)}
    save_file(file.tensors, path, metadata={"about": json.dumps(about)})
    assert torch.equal(stream.step(FRAMES[2]).probabilities, predictor.resume(path).step(FRAMES[2]).probabilities)
    for damaged in ({**about, "frame_index": "1"}, {**about, "object_ids": ["a", "b"]}, {**about, "digest": "0" * 16}):
        save_file(file.tensors, path, metadata={"about": json.dumps(damaged)})
        with pytest.raises(WeightsError, match="state"):
            predictor.resume(path)


@pytest.mark.parametrize("path", [io.BytesIO(), None, 3], ids=["buffer", "None", "number"])
def test_a_stream_is_saved_to_a_file_by_name(path: object) -> None:
    """What is no name of a file is refused, for saving and for resuming."""
    stream = tiny_predictor().start(FRAMES[0], MASK)
    for use in (stream.save, tiny_predictor().resume):
        with pytest.raises(OptionError, match="name of a file"):
            use(path)


@pytest.mark.parametrize(
    "options",
    [
        {"memory_size": 4},
        {"policy": "oldest"},
        {"memory_every": 2},
        {"top_k": 3},
        {"short_side": 32},
        {"write_gate": 0.3},
        {"reach": 0.5},
    ],
    ids=str,
)
def test_a_state_of_other_options_is_an_error(options: dict[str, object], tmp_path: Path) -> None:
    """The message names the option, what it was and what it is."""
    tiny_predictor().start(FRAMES[0], MASK).save(tmp_path / "state")
    with pytest.raises(WeightsError) as error:
        tiny_predictor(**options).resume(tmp_path / "state")
    name, value = next(iter(options.items()))
    assert f"{name} " in str(error.value) and repr(value) in str(error.value)


def test_a_state_of_other_weights_is_an_error(tmp_path: Path) -> None:
    """Also where only the learned policy's weights differ."""
    tiny_predictor().start(FRAMES[0], MASK).save(tmp_path / "state")
    with pytest.raises(WeightsError) as error:
        tiny_predictor(seed=1).resume(tmp_path / "state")
    assert_says_what_to_do(error)
    tiny_predictor(policy=LearnedPolicy(seed=1)).start(FRAMES[0], MASK).save(tmp_path / "state")
    with pytest.raises(WeightsError):
        tiny_predictor(policy=LearnedPolicy(seed=2)).resume(tmp_path / "state")
    assert 0 == tiny_predictor(policy=LearnedPolicy(seed=1)).resume(tmp_path / "state").frame_index


def test_a_save_that_fails_leaves_the_state_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of a write costs the new state, not the old one, and leaves no part behind."""
    stream = tiny_predictor().start(FRAMES[0], MASK)
    before = state_of(stream, tmp_path)
    stream.step(FRAMES[1])

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileError, match="state: .* No space left"):
        stream.save(tmp_path / "state")
    assert before == (tmp_path / "state").read_bytes()
    assert ["state"] == [file.name for file in tmp_path.iterdir()]
