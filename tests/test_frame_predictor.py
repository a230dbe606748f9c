"""The contract of frame prediction: memory of a constant size, streams that go on bit for bit, looks ahead that change
nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from test_bad_input import BAD_FRAMES, assert_says, assert_says_what_to_do, flip_a_bit, rewrite
from tiny import PREDICTION_CONFIG, boxes, clip, same, tiny_prediction_network, tiny_predictor
from torch import Tensor

from stmemory.errors import FrameError, OptionError, ShapeError, StmemoryError, WeightsError
from stmemory.memory import LearnedPolicy
from stmemory.memory.policy import policy_names
from stmemory.options import PredictionOptions, TrackingOptions
from stmemory.prediction.network import PredictionNetwork, PredictionState
from stmemory.prediction.predictor import FramePredictor
from stmemory.prediction.stream import FrameStream
from stmemory.predictor import VOSPredictor

SIDE = 16
KINDS: dict[str, dict[str, object]] = {
    "bank and state": {},
    "no state": {"state": "none"},
    "no memory": {"memory": "none"},
    "colour": {"image_channels": 3, "skips": 1},
}


def predictor_of(
    dtype: torch.dtype | None = None, options: dict[str, object] | None = None, **changes: object
) -> FramePredictor:
    """A predictor with a tiny network of random weights and three slots."""
    chosen = PredictionOptions(**{"memory_size": 3, **(options or {})})
    return FramePredictor(tiny_prediction_network(**changes), options=chosen, dtype=dtype)


def grey_clip(frames: int, height: int = SIDE, width: int = SIDE, *, seed: int = 0) -> np.ndarray:
    """Random frames, uint8 `[T, H, W]`."""
    return clip(frames, height, width, seed=seed)[..., 0]


def after(predictor: FramePredictor, frames: np.ndarray) -> FrameStream:
    """A stream that has seen these frames."""
    stream = predictor.start()
    for frame in frames:
        stream.step(frame)
    return stream


def state_of(stream: FrameStream, folder: Path) -> bytes:
    """All that a stream remembers, as the bytes of its file."""
    stream.save(folder / "state")
    return (folder / "state").read_bytes()


def assert_same(expected: list[Tensor], actual: list[Tensor]) -> None:
    """Bit for bit, and of predictions that differ from each other, so that this means something."""
    assert len(expected) == len(actual)
    assert all(torch.equal(one, other) for one, other in zip(expected, actual, strict=True))
    assert len(expected) == len({tensor.numpy().tobytes() for tensor in expected})


# The network's step, against one that is written from its equations.


def in_double(**changes: object) -> PredictionNetwork:
    """A network in double precision: random weights make large values of small differences."""
    return copy.deepcopy(tiny_prediction_network(**changes)).double()


def slow_read(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """Eq. 13 for one video, cell by cell: softmax of negative squared distances over sqrt(Ck), over all cells of all
    slots in use."""
    channels, height, width = query.shape
    recalled = torch.zeros(len(values[0]), height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            places = [(slot, v, u) for slot in range(len(keys)) for v in range(height) for u in range(width)]
            scores = [
                -float(((query[:, y, x] - keys[s][:, v, u]) ** 2).sum()) / math.sqrt(channels) for s, v, u in places
            ]
            weights = [math.exp(score - max(scores)) for score in scores]
            for weight, (s, v, u) in zip(weights, places, strict=True):
                recalled[:, y, x] += weight / sum(weights) * values[s][:, v, u]
    return recalled


def slow_clock(time: int, height: int, width: int) -> Tensor:
    """Sine and cosine of the time, of periods 4 and 8 frames, in every cell."""
    hands = [hand(2 * math.pi * time / period) for period in (4, 8) for hand in (math.sin, math.cos)]
    return torch.tensor(hands, dtype=torch.float64)[:, None, None].expand(-1, height, width)


@torch.inference_mode()
def slow_predictions(network: PredictionNetwork, frames: Tensor) -> list[Tensor]:
    """One video `[T, C, H, W]` with a slot for every frame: no bank, no cache, no batch."""
    templates: list[Tensor] = []
    context = torch.zeros(network.config.widths[-1], *(side // network.stride for side in frames.shape[2:])).double()
    predicted = []
    for time, frame in enumerate(frames):
        features, finer = network.encoder(frame[None])
        template = torch.cat([features[0], context, slow_clock(time, *context.shape[1:])])
        templates.append(template)
        context = features[0] if network.context is None else network.context(features, context[None])[0]
        query = network.query(torch.cat([context, slow_clock(time + 1, *context.shape[1:])])[None])[0]
        keys = [network.read.key(one[None])[0] for one in templates]
        values = [network.read.value(one[None])[0] for one in templates]
        known = [features[0]] + ([] if network.context is None else [context]) + [slow_read(query, keys, values)]
        predicted.append(network.decoder(network.mix(torch.cat(known)[None]), finer)[0])
    return predicted


@pytest.mark.parametrize("changes", [{}, {"state": "none", "skips": 1}], ids=["with a state", "without a state"])
def test_a_step_is_what_its_equations_say(changes: dict[str, object]) -> None:
    """Template: features, the context before, the time; query: the context after, one frame later; then eq. 13, mix and
    decoder."""
    network = in_double(**changes)
    frames = torch.rand(4, 1, SIDE, SIDE).double()
    state = network.new_state(8)
    with torch.inference_mode():
        fast = [network.step(frame[None], state)[0] for frame in frames]
    for expected, actual in zip(slow_predictions(network, frames), fast, strict=True):
        torch.testing.assert_close(expected, actual, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
@torch.inference_mode()
def test_videos_in_one_step_are_predicted_as_each_alone(changes: dict[str, object]) -> None:
    """Rows of a batch do not touch each other, though the policy chooses for each on its own."""
    network = in_double(**changes)
    videos = torch.rand(3, 8, network.config.image_channels, SIDE, SIDE).double()
    together = network.new_state(3)
    alone = [network.new_state(3) for _ in videos]
    for time in range(8):
        predicted = network.step(videos[:, time], together)
        for row, state in enumerate(alone):
            torch.testing.assert_close(
                network.step(videos[row : row + 1, time], state)[0], predicted[row], rtol=1e-5, atol=1e-5
            )


@torch.inference_mode()
def test_without_writing_the_bank_stays_and_the_rest_goes_on() -> None:
    """Time and context follow the frames; the first frame is written all the same, since there must be something to
    read."""
    network, state = tiny_prediction_network(), None
    state = network.new_state(3)
    network.step(torch.rand(1, 1, SIDE, SIDE), state, write=False)
    before, context = {name: t.clone() for name, t in state.bank.contents().items()}, state.context
    network.step(torch.rand(1, 1, SIDE, SIDE), state, write=False)
    assert same(before, state.bank.contents())
    assert 2 == state.time and not torch.equal(context, state.context)


@torch.inference_mode()
def test_a_fork_goes_its_own_way() -> None:
    """It predicts bit for bit what the other would, and changes nothing of it."""
    network, frames = tiny_prediction_network(), torch.rand(12, 1, 1, SIDE, SIDE)
    one: PredictionState = network.new_state(3)
    for frame in frames[:5]:
        network.step(frame, one)
    other = one.fork()
    assert one.nbytes == other.nbytes
    expected = [network.step(frame, other)[0] for frame in frames[5:]]
    assert_same(expected, [network.step(frame, one)[0] for frame in frames[5:]])


# Streams.


@pytest.mark.slow
@pytest.mark.parametrize("policy", [*policy_names()])
def test_a_stream_is_as_large_after_300_frames_as_after_one(policy: str) -> None:
    """At every one of 300 frames the bytes are those of the shapes: bank, cache, context and one prediction; slots stay
    where they are."""
    config, slots, cells = PREDICTION_CONFIG, 3, (SIDE // 4) ** 2
    features = config.template_channels + config.key_channels + config.value_channels
    expected = (
        slots * (4 * cells * features + (4 + 8) * slots + 2 + 4 * 8 + 4 * 8 + 8 * 8 + 8)
        + 1
        + 4 * cells * config.widths[-1]
        + 4 * SIDE**2
    )
    stream, frames = predictor_of(options={"policy": policy}).start(), grey_clip(10)
    for time in range(300):
        stream.step(frames[time % 10])
        assert expected == stream.nbytes
        if time == 20:
            places = {name: tensor.data_ptr() for name, tensor in stream.bank.contents().items()}
    assert places == {name: tensor.data_ptr() for name, tensor in stream.bank.contents().items()}
    assert 299 == stream.frame_index and 300 == stream.last.frame_index


def test_a_saved_stream_holds_what_nbytes_counts(tmp_path: Path) -> None:
    """The tensors of the file are as many bytes as the stream says."""
    stream = after(predictor_of(), grey_clip(7))
    stream.save(tmp_path / "state")
    with safe_open(tmp_path / "state", framework="pt") as file:
        tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    assert stream.nbytes == sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize(
    "options", [{}, {"policy": "learned"}, {"write_predictions": False}, {"short_side": 8}], ids=str
)
@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_a_stream_saved_in_the_middle_goes_on_bit_for_bit(
    changes: dict[str, object], options: dict[str, object], tmp_path: Path
) -> None:
    """Resumed by a predictor built anew, after the first frame and later, steps and looks ahead are the same, bit for
    bit."""
    frames = grey_clip(9)
    stream, expected = predictor_of(options=options, **changes).start(), []
    for index, frame in enumerate(frames):
        expected.append(stream.step(frame).pixels)
        if index in (0, 5):
            stream.save(tmp_path / f"state{index}")
    expected += [prediction.pixels for prediction in stream.foresee(4)][1:]
    for index in (0, 5):
        again = predictor_of(options=options, **changes).resume(tmp_path / f"state{index}")
        assert torch.equal(expected[index], again.last.pixels)
        actual = [again.step(frame).pixels for frame in frames[index + 1 :]] + [p.pixels for p in again.foresee(4)][1:]
        assert_same(expected[index + 1 :], actual)


@pytest.mark.parametrize("write", [True, False], ids=["writes predictions", "freezes the bank"])
@pytest.mark.parametrize("size", [(16, 16), (13, 18)], ids=str)
def test_a_look_ahead_changes_nothing(write: bool, size: tuple[int, int], tmp_path: Path) -> None:
    """The stream's state is the same to the last bit, before, between and after; a step in between does not change what
    was foreseen."""
    stream = after(predictor_of(options={"write_predictions": write}), grey_clip(6, *size))
    before = state_of(stream, tmp_path)
    expected = [prediction.pixels for prediction in stream.foresee(6)]
    assert before == state_of(stream, tmp_path)
    assert torch.equal(expected[0], stream.last.pixels)
    looking = stream.foresee(6)
    actual = [next(looking).pixels]
    assert before == state_of(stream, tmp_path)
    stream.step(grey_clip(7, *size)[6])
    assert_same(expected, actual + [prediction.pixels for prediction in looking])


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_looking_ahead_is_stepping_on_ones_own_predictions(changes: dict[str, object]) -> None:
    """What `foresee` gives is what a stream gives that is shown its own predictions, bit for bit; odd sizes too."""
    predictor = predictor_of(**changes)
    stream = after(predictor, grey_clip(4, 13, 18))
    expected = list(stream.foresee(5))
    shown = [stream.last] + [stream.step(expected[step].pixels) for step in range(4)]
    assert [p.frame_index for p in expected] == [p.frame_index for p in shown] == [4, 5, 6, 7, 8]
    assert_same([p.pixels for p in expected], [p.pixels for p in shown])


def test_a_frozen_bank_predicts_otherwise() -> None:
    """`write_predictions` has an effect, but on the first two frames: the first is seen before, the second made of it
    has no other past."""
    ahead = [
        [p.pixels for p in predictor_of(options={"write_predictions": w}).predict(grey_clip(5), steps=4)]
        for w in (True, False)
    ]
    assert torch.equal(ahead[0][0], ahead[1][0]) and not torch.equal(ahead[0][1], ahead[1][1])


def test_streams_interleave_without_touching_each_other() -> None:
    """Two videos in turns by one predictor give what each gives alone."""
    predictor, clips = predictor_of(), [grey_clip(8, seed=seed) for seed in (0, 1)]
    alone = [[p.pixels for p in map(after(predictor, frames[:1]).step, frames[1:])] for frames in clips]
    streams = [after(predictor, frames[:1]) for frames in clips]
    turns = [
        [stream.step(frames[time]).pixels for stream, frames in zip(streams, clips, strict=True)]
        for time in range(1, 8)
    ]
    for video in (0, 1):
        assert_same(alone[video], [turn[video] for turn in turns])


def test_predicting_is_watching_and_looking_ahead() -> None:
    """`predict` gives what a stream's `foresee` gives after the clip; one frame is a clip."""
    predictor = predictor_of()
    for number in (1, 5):
        expected = [p.pixels for p in after(predictor, grey_clip(number)).foresee(3)]
        predictions = list(predictor.predict(grey_clip(number), steps=3))
        assert [number, number + 1, number + 2] == [p.frame_index for p in predictions]
        assert_same(expected, [p.pixels for p in predictions])
    assert 10 == len(list(predictor.predict(grey_clip(2))))


def test_predictions_are_frames() -> None:
    """Of the frames' own size, in [0, 1], float32; grey or RGB as the network is, and always RGB as a picture."""
    for channels in (1, 3):
        predictor = predictor_of(image_channels=channels)
        predictor.network.decoder.layers[-1].weight.mul_(20)  # far outside
        found = [next(predictor.predict(clip(3, 13, 18, seed=seed), 1)) for seed in range(4)]
        assert {(channels, 13, 18)} == {tuple(p.pixels.shape) for p in found} and {torch.float32} == {
            p.pixels.dtype for p in found
        }
        assert {0.0} == {p.pixels.min().item() for p in found} and {1.0} == {p.pixels.max().item() for p in found}
        assert ((13, 18, 3), np.uint8) == (found[0].picture().shape, found[0].picture().dtype)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_predictions_are_saved_as_pictures(channels: int, mode: str, tmp_path: Path) -> None:
    """A PNG of the network's own kind that holds the picture's values."""
    prediction = next(predictor_of(image_channels=channels).predict(clip(2, 13, 18)))
    prediction.save(tmp_path / "deep" / "0.png")
    with Image.open(tmp_path / "deep" / "0.png") as image:
        assert mode == image.mode
        assert np.array_equal(prediction.picture(), np.array(image.convert("RGB")))


def test_what_lies_beyond_the_edge_is_black() -> None:
    """Other sizes are padded and cropped, never resized: a frame gives what it gives inside of black at the right and
    bottom."""
    predictor, frames = predictor_of(), grey_clip(1, 13, 14)
    whole = np.pad(frames, ((0, 0), (0, 3), (0, 2)))
    assert torch.equal(next(predictor.predict(whole)).pixels[:, :13, :14], next(predictor.predict(frames)).pixels)


def test_frames_are_shrunk_only_where_it_is_asked_for() -> None:
    """With `short_side` the memory is that of the shrunk frame, and predictions have the frame's own size."""
    streams = [after(predictor_of(options={"short_side": side}), grey_clip(3, 32, 40)) for side in (None, 16)]
    assert [(8, 10), (4, 5)] == [tuple(stream.bank.templates.shape[3:]) for stream in streams]
    assert [(1, 32, 40)] * 2 == [tuple(stream.last.pixels.shape) for stream in streams]
    assert 3 == len({prediction.pixels.numpy().tobytes() for prediction in streams[1].foresee(3)})


def test_a_prediction_is_the_users_own() -> None:
    """Whoever draws on it changes nothing of the stream."""
    stream = after(predictor_of(), grey_clip(3))
    expected = stream.last.pixels.clone()
    with torch.inference_mode():
        stream.last.pixels.zero_()
        next(stream.foresee()).pixels.zero_()
    assert torch.equal(expected, stream.last.pixels)


def forms(grey: np.ndarray) -> dict[str, object]:
    """The same grey clip in all the ways that a user may have it."""
    tensor = torch.from_numpy(grey)
    return {
        "array": grey,
        "array with a channel": grey[..., None],
        "RGB array": np.stack([grey] * 3, -1),
        "floats": grey / np.float32(255),
        "tensor": tensor,
        "tensor with a channel": tensor[:, None],
        "RGB tensor": tensor[:, None].expand(-1, 3, -1, -1),
        "list": list(grey),
        "tuple of tensors": tuple(tensor),
        "generator": (frame for frame in grey),
        "pictures": [Image.fromarray(frame) for frame in grey],
        "read-only": np.broadcast_to(grey, grey.shape),
    }


@pytest.mark.parametrize("form", forms(grey_clip(1)))
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_clips_come_in_any_form(form: str, channels: int) -> None:
    """All give the same predictions, bit for bit."""
    predictor, grey = predictor_of(image_channels=channels), grey_clip(4)
    expected = [p.pixels for p in predictor.predict(grey, steps=2)]
    assert_same(expected, [p.pixels for p in predictor.predict(forms(grey)[form], steps=2)])


@pytest.mark.parametrize("kind", ["npy", "folder", "gif"])
def test_clips_come_from_files(kind: str, tmp_path: Path) -> None:
    """An array in a file, a folder of pictures, pages of a picture."""
    predictor, grey = predictor_of(), grey_clip(3)
    pictures = [Image.fromarray(frame) for frame in grey]
    path = tmp_path / f"clip.{kind}"
    if kind == "npy":
        np.save(path, grey)
    elif kind == "folder":
        path.mkdir()
        for index, picture in enumerate(pictures):
            picture.save(path / f"{index}.png")
    else:
        pictures[0].save(path, save_all=True, append_images=pictures[1:])
    expected, actual = (list(predictor.predict(source, 2)) for source in (grey, path))
    for one, other in zip(expected, actual, strict=True):
        torch.testing.assert_close(one.pixels, other.pixels)


def test_colour_becomes_grey_as_pillow_makes_it() -> None:
    """Y = 0.299 R + 0.587 G + 0.114 B, within Pillow's rounding."""
    colour = clip(1)[0]
    with torch.inference_mode():
        stream = predictor_of().start()
        seen: list[Tensor] = []
        stream.network.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        stream.step(colour)
    expected = np.array(Image.fromarray(colour).convert("L"), np.float32) / 255
    torch.testing.assert_close(torch.from_numpy(expected), seen[0][0, 0], rtol=0, atol=0.6 / 255)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_other_dtypes_are_computed_in(dtype: torch.dtype, tmp_path: Path) -> None:
    """Memory is of that type, predictions are float32; saved and resumed bit for bit."""
    frames = grey_clip(8)
    predictor = predictor_of(dtype=dtype)
    stream = after(predictor, frames[:5])
    assert {dtype} == {
        stream.bank.templates.dtype,
        stream.bank.keys.dtype,
    } and torch.float32 == stream.last.pixels.dtype
    stream.save(tmp_path / "state")
    expected = [stream.step(frame).pixels for frame in frames[5:]]
    again = predictor.resume(tmp_path / "state")
    assert_same(expected, [again.step(frame).pixels for frame in frames[5:]])


def test_predicting_draws_no_random_numbers() -> None:
    """Whoever seeds torch gets the same numbers, also with a learned policy in training mode, which is copied."""
    policy = LearnedPolicy(seed=1).train()
    predictor, before = predictor_of(options={"policy": policy}), torch.get_rng_state()
    list(predictor.predict(grey_clip(8), steps=4))
    assert torch.equal(before, torch.get_rng_state()) and policy.training


def test_the_slots_can_be_told() -> None:
    """Which frames they hold, oldest first; nothing before the first frame, and of a network without a memory."""
    stream = predictor_of(options={"policy": "drop"}).start()
    assert [] == stream.describe()
    for frame in grey_clip(5):
        stream.step(frame)
    assert [2, 3, 4] == [slot.frame for slot in stream.describe()]
    assert [] == after(predictor_of(memory="none"), grey_clip(3)).describe()


# What cannot be used.

# A grey frame is welcome here.
BAD = {name: case for name, case in BAD_FRAMES.items() if "grey" not in name}


@pytest.mark.parametrize(("frame", "kind"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("channels", [1, 3])
def test_bad_frames_are_errors_and_leave_the_stream_alone(
    frame: object, kind: type[StmemoryError], channels: int, tmp_path: Path
) -> None:
    """As a first frame, in a clip, and in the middle, where the stream then goes on as one that never saw it."""
    predictor, frames = predictor_of(image_channels=channels), clip(3)
    with pytest.raises(kind) as error:
        predictor.start().step(frame)
    assert_says(error, "frame")
    with pytest.raises(kind):
        predictor.predict([frame])
    with pytest.raises(kind):
        list(predictor.predict([frames[0], frame]))
    stream = after(predictor, frames[:2])
    before = state_of(stream, tmp_path)
    with pytest.raises(kind):
        stream.step(frame)
    assert before == state_of(stream, tmp_path)


def test_a_frame_of_another_size_is_an_error(tmp_path: Path) -> None:
    """The message names the frame and both sizes; the stream stays as it was."""
    stream = after(predictor_of(), grey_clip(2))
    before = state_of(stream, tmp_path)
    for size in ((16, 12), (20, 16)):
        with pytest.raises(FrameError) as error:
            stream.step(grey_clip(1, *size)[0])
        assert_says(error, "frame 2", "16 x 16", f"{size[0]} x {size[1]}")
    assert before == state_of(stream, tmp_path)
    with pytest.raises(FrameError, match="frame 1"):
        list(predictor_of().predict([grey_clip(1)[0], grey_clip(1, 20, 16)[0]]))


@pytest.mark.parametrize(
    "source",
    [[], (), np.zeros((0, 8, 8), np.uint8), torch.zeros(0, 1, 8, 8), iter([]), "nowhere.mp4", "nowhere.npy", "nowhere"],
    ids=["list", "tuple", "array", "tensor", "generator", "video", "npy", "folder"],
)
def test_an_empty_video_is_an_error_at_the_call(source: object) -> None:
    """Not at the first frame that is asked for."""
    with pytest.raises(FrameError) as error:
        predictor_of().predict(source)
    assert_says(error)


@pytest.mark.parametrize(
    "source",
    [
        None,
        3,
        {"frames": []},
        b"clip",
        np.zeros((8, 8), np.uint8),
        np.zeros((2, 2, 8, 8, 3), np.uint8),
        torch.zeros(2, 2, 8, 8),
    ],
    ids=["nothing", "number", "dict", "bytes", "one frame", "many clips", "two channels"],
)
def test_what_is_no_clip_is_an_error_at_the_call(source: object) -> None:
    """It says what was expected and what came."""
    with pytest.raises(ShapeError) as error:
        predictor_of().predict(source)
    assert_says_what_to_do(error)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda path: np.save(path, np.zeros((20, 5, 8, 8), np.uint8)), "array[:, 0]"),
        (lambda path: np.save(path, np.zeros((8, 8), np.uint8)), "(8, 8)"),
        (lambda path: np.save(path, np.array([{}], object), allow_pickle=True), "numpy.save"),
        (lambda path: path.write_bytes(b"\x93NUMPY"), "numpy.save"),
        (lambda path: path.write_text("text"), "numpy.save"),
        (lambda path: path.write_bytes(b""), "numpy.save"),
    ],
    ids=["many clips", "one frame", "pickled", "cut", "text", "empty"],
)
def test_array_files_of_another_kind_are_errors(content: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    """The message names the file; nothing is unpickled."""
    content(tmp_path / "clip.npy")
    with pytest.raises((FrameError, ShapeError)) as error:
        predictor_of().predict(tmp_path / "clip.npy")
    assert_says(error, "clip.npy", said)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, "3", None], ids=repr)
def test_steps_are_whole_numbers(steps: int) -> None:
    """Said at the call, before the clip is looked at."""
    predictor = predictor_of()
    for act in (lambda: predictor.predict(None, steps=steps), lambda: after(predictor, grey_clip(1)).foresee(steps)):
        with pytest.raises(OptionError) as error:
            act()
        assert_says(error, "steps", repr(steps))


@pytest.mark.parametrize(
    "values",
    [
        {"memory_size": 1},
        {"memory_size": 2.0},
        {"memory_size": True},
        {"policy": "best"},
        {"write_predictions": 1},
        {"short_side": 4},
    ],
    ids=str,
)
def test_options_out_of_range_are_errors(values: dict[str, object]) -> None:
    """They name the option."""
    with pytest.raises(OptionError) as error:
        PredictionOptions(**values)
    assert_says(error, next(iter(values)).split("_")[0])


def test_a_network_of_the_other_task_is_an_error() -> None:
    """At once, not at the first frame; it says which predictor takes it."""
    kinds = (FramePredictor, VOSPredictor)
    networks = (tiny_prediction_network(), tiny_predictor().network)
    for kind, other, network, wrong in zip(kinds, kinds[::-1], networks, networks[::-1], strict=True):
        with pytest.raises(OptionError) as error:
            kind(wrong)
        assert_says(error, type(network).__name__, type(wrong).__name__, other.__name__)


def test_options_of_the_other_task_are_errors() -> None:
    """Each predictor takes its own."""
    with pytest.raises(OptionError, match="PredictionOptions"):
        FramePredictor(tiny_prediction_network(), options=TrackingOptions())


def test_nothing_can_be_done_before_the_first_frame(tmp_path: Path) -> None:
    """Looking ahead and saving say that a frame must come first."""
    stream = predictor_of().start()
    for act in (lambda: stream.last, lambda: stream.foresee(), lambda: stream.save(tmp_path / "state")):
        with pytest.raises(FrameError) as error:
            act()
        assert_says(error, "step(frame)")
    assert [] == list(tmp_path.iterdir()) and -1 == stream.frame_index


def test_a_network_that_gives_nan_is_an_error() -> None:
    """NaN would be black in silence; instead it is said."""
    network = copy.deepcopy(tiny_prediction_network())
    network.decoder.layers[-1].bias.fill_(torch.nan)
    with pytest.raises(WeightsError) as error:
        FramePredictor(network).predict(grey_clip(1))
    assert_says_what_to_do(error)


STATE_DAMAGES: dict[str, Callable[[Path], object]] = {
    "not there": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "one bit": flip_a_bit,
    "text": lambda path: path.write_text("a stream"),
    "newer": rewrite(lambda about, tensors: about.update(version=99)),
    "no time": rewrite(lambda about, tensors: about.pop("time")),
    "no size": rewrite(lambda about, tensors: about.update(size={})),
    "tensor lost": rewrite(lambda about, tensors: tensors.pop("context")),
    "bank lost": rewrite(lambda about, tensors: tensors.pop("bank.templates")),
}


@pytest.mark.parametrize("damage", STATE_DAMAGES.values(), ids=STATE_DAMAGES)
def test_damaged_states_are_errors(damage: Callable[[Path], object], tmp_path: Path) -> None:
    """The message names the file."""
    predictor, path = predictor_of(), tmp_path / "state"
    after(predictor, grey_clip(3)).save(path)
    damage(path)
    with pytest.raises(WeightsError) as error:
        predictor.resume(path)
    assert_says(error, str(path))


def test_a_state_belongs_to_its_weights_and_options(tmp_path: Path) -> None:
    """Other weights, a learned policy's too, other options, and a state of the other task are told."""
    path = tmp_path / "state"
    after(predictor_of(), grey_clip(3)).save(path)
    for other, said in (
        (predictor_of(seed=1), "weights"),
        (predictor_of(options={"memory_size": 4}), "memory_size 3"),
        (predictor_of(options={"policy": "oldest"}), "'most_similar'"),
        (predictor_of(options={"write_predictions": False}), "write_predictions True"),
    ):
        with pytest.raises(WeightsError, match=f"expected .*{said}"):
            other.resume(path)
    with pytest.raises(WeightsError, match=r"expected a stmemory\.stream .* got stmemory\.frame_stream"):
        tiny_predictor().resume(path)
    tiny_predictor().start(clip(1)[0], boxes(3)).save(path)
    with pytest.raises(WeightsError, match=r"expected a stmemory\.frame_stream .* got stmemory\.stream"):
        predictor_of().resume(path)


def test_the_default_weights_are_mini() -> None:
    """Each kind of network has its own."""
    assert ("mini", "lite") == (PredictionNetwork.default_weights, type(tiny_predictor().network).default_weights)
