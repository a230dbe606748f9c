"""A step of a stream happens whole or not at all, and what another process gets of a stream is its own."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from tiny import boxes, clip, new_predictor, state_of, tiny_network, tiny_prediction_network

import stmemory
from stmemory.errors import BankError, WeightsError
from stmemory.memory import LearnedPolicy, MemoryBank
from stmemory.memory.undo import Steps
from stmemory.options import PredictionOptions, TrackingOptions
from stmemory.prediction.predictor import FramePredictor
from stmemory.prediction.stream import FrameStream
from stmemory.predictor import VOSPredictor
from stmemory.stream import VOSStream
from stmemory.weights import save_network

FRAMES = clip(9)
PACKAGE = str(Path(stmemory.__file__).parent)


def begun() -> VOSStream:
    """A stream of two objects whose bank is full, with a correction in it."""
    stream = new_predictor(memory_size=3, memory_every=2).start(FRAMES[0], boxes(3, 9))
    for frame in FRAMES[1:5]:
        stream.step(frame)
    return stream


ACTIONS: dict[str, Callable[[VOSStream], object]] = {
    "step": lambda stream: stream.step(FRAMES[5]),
    "step with a new object": lambda stream: stream.step(FRAMES[5], boxes(4)),
    "correct": lambda stream: stream.correct(boxes(3, 7)),
    "add objects": lambda stream: stream.add_objects(boxes(5, 6)),
    "remove an object": lambda stream: stream.remove_objects([3]),
    "remove all": lambda stream: stream.remove_objects([3, 9]),
}
each_action = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)


class Stop:
    """Raises ctrl-C's exception at the n-th line of the library that is run; counts them."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.lines = at, 0

    def __enter__(self) -> Stop:
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, _: object) -> Callable[[FrameType, str, object], object] | None:
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, frame: FrameType, event: str, _: object) -> Callable[[FrameType, str, object], object]:
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                raise KeyboardInterrupt
        return self._line


@each_action
def test_an_interrupt_anywhere_leaves_no_half(action: Callable[[VOSStream], object], tmp_path: Path) -> None:
    """Stopped at any line, a stream is, to the last bit, as it was before or as it is after; taken again, the step
    gives the same."""
    first = begun()
    before, stream = state_of(first, tmp_path), copy.deepcopy(first)
    with Stop() as whole:
        action(stream)
    after = state_of(stream, tmp_path)
    seen = set()
    for at in sorted({int(line) for line in np.linspace(1, whole.lines, 15)}):
        stream = copy.deepcopy(first)
        with pytest.raises(KeyboardInterrupt), Stop(at):
            action(stream)
        found = state_of(stream, tmp_path)
        assert found in (before, after), f"line {at} of {whole.lines}"
        seen.add(found)
        if found == before:
            action(stream)
            assert after == state_of(stream, tmp_path)
    assert before in seen and before != after


@pytest.mark.parametrize("part", ["encode_query", "recall", "decode", "encode_memory", "learn"])
def test_no_memory_left_costs_a_stream_nothing(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of torch in any part of the network leaves the stream as it was, sums of the discriminative read among
    it."""
    stream = begun()
    before = state_of(stream, tmp_path)

    def no_memory(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory")

    with monkeypatch.context() as full:
        full.setattr(type(stream.network), part, no_memory)
        with pytest.raises(RuntimeError, match="out of memory"):
            stream.step(FRAMES[5], boxes(3, 7))
    assert before == state_of(stream, tmp_path)
    other = begun()
    assert torch.equal(other.step(FRAMES[5]).probabilities, stream.step(FRAMES[5]).probabilities)


def test_what_is_put_back_goes_on_after_a_second_interrupt() -> None:
    """An interrupt while changes are put back delays that to the next step, which begins from what was before."""
    values, steps, stops = [1], Steps(), [KeyboardInterrupt]

    def restore() -> None:
        if stops:
            raise stops.pop()
        values[:] = [1]

    def half() -> None:
        values[0] = 5
        raise MemoryError

    with pytest.raises(KeyboardInterrupt):
        steps.take(half, (), restore)
    steps.take(lambda: values.append(values[0] + 1), (), restore)
    assert [1, 2] == values


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["template", "appearance"])
def test_what_is_not_finite_is_not_memorised(
    part: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template or a feature that is NaN or infinite is an error, and the stream goes on without that frame."""
    stream = begun()
    before = state_of(stream, tmp_path)
    network = type(stream.network)
    encode_memory, encode_query = network.encode_memory, network.encode_query

    def broken_template(self: object, *given: object) -> torch.Tensor:
        template: torch.Tensor = encode_memory(self, *given).clone()
        template[-1, 0, 0, 0] = value
        return template

    def broken_features(self: object, frame: torch.Tensor) -> object:
        features = encode_query(self, frame)
        appearance = features.appearance.clone()
        appearance[0, 0, 0, 0] = value
        return dataclasses.replace(features, appearance=appearance)

    with monkeypatch.context() as broken:
        if part == "template":
            broken.setattr(network, "encode_memory", broken_template)
        else:
            broken.setattr(network, "encode_query", broken_features)
        for use in (lambda: stream.step(FRAMES[5]), lambda: stream.correct(boxes(3))):
            with pytest.raises(WeightsError, match="NaN or infinity; use dtype"):
                use()
            assert before == state_of(stream, tmp_path)
    assert 5 == stream.step(FRAMES[5]).frame_index


def frame_stream() -> FrameStream:
    """A stream of predictions that has seen four frames."""
    stream = FramePredictor(tiny_prediction_network(), options=PredictionOptions(memory_size=3)).start()
    for frame in FRAMES[:4, :16, :16]:
        stream.step(frame)
    return stream


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_step_of_a_prediction_happens_or_does_not(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN of the network, and no memory left, leave a stream of predictions as it was."""
    stream = frame_stream()
    stream.save(tmp_path / "before")
    layer = type(getattr(stream.network, part))
    forward = layer.forward

    def not_finite(self: object, *given: object) -> object:
        made = forward(self, *given)
        return (made[0] * float("nan"), made[1]) if isinstance(made, tuple) else made * float("nan")

    def no_memory(*_: object) -> None:
        raise RuntimeError("out of memory")

    for broken, kind in ((not_finite, WeightsError), (no_memory, RuntimeError)):
        with monkeypatch.context() as patch:
            patch.setattr(layer, "forward", broken)
            with pytest.raises(kind):
                stream.step(FRAMES[4, :16, :16])
        stream.save(tmp_path / "now")
        assert (tmp_path / "before").read_bytes() == (tmp_path / "now").read_bytes()
    expected = frame_stream().step(FRAMES[4, :16, :16]).pixels
    assert torch.equal(expected, stream.step(FRAMES[4, :16, :16]).pixels)


# Other processes.


def over_the_wire(what: object) -> object:
    """What a spawned process would get: pickled as multiprocessing does with torch in the process."""
    return ForkingPickler.loads(bytes(ForkingPickler.dumps(what)))


@pytest.mark.parametrize(
    "travel",
    [over_the_wire, copy.deepcopy, lambda what: pickle.loads(pickle.dumps(what))],
    ids=["wire", "copy", "pickle"],
)
def test_a_stream_that_is_handed_over_shares_no_memory(travel: Callable[[object], VOSStream], tmp_path: Path) -> None:
    """The copy goes on with the same masks, and the stream that was copied knows nothing of it."""
    stream = begun()
    before = state_of(stream, tmp_path)
    other = travel(stream)
    assert before == state_of(other, tmp_path)
    ahead = other.step(FRAMES[5], boxes(4)).probabilities
    other.remove_objects([3])
    assert before == state_of(stream, tmp_path)
    assert torch.equal(ahead, stream.step(FRAMES[5], boxes(4)).probabilities)


def test_a_bank_that_is_handed_over_shares_no_memory() -> None:
    """An empty bank travels, and a full one; what is written to the copy is not written to the bank."""
    bank = MemoryBank(3)
    assert 0 == over_the_wire(bank).rows
    with torch.no_grad():
        bank.write(torch.ones(1, 2, 3))
        other = over_the_wire(bank)
        other.write(torch.full((1, 2, 3), 2.0))
    assert [1] == bank.count.tolist() and [2] == other.count.tolist()
    assert not bank.templates.is_shared()


# The host program's default dtype.


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float64], ids=str)
def default(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Another default dtype, as programs have it that hold language models."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def tracked(predictor: VOSPredictor, folder: Path) -> bytes:
    """All that is remembered of a clip in which objects come, are corrected and go."""
    stream = predictor.start(FRAMES[0], boxes(3, 9))
    for frame in FRAMES[1:6]:
        stream.step(frame)
    stream.step(FRAMES[6], boxes(4))
    stream.correct(boxes(3))
    path = folder / "half way"
    stream.save(path)
    stream = predictor.resume(path)
    stream.remove_objects([9])
    stream.step(FRAMES[7].astype(np.float32) / 255)
    return state_of(stream, folder)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of the tiny network."""
    folder = tmp_path_factory.mktemp("weights")
    save_network(tiny_network(), folder)
    return folder


@pytest.fixture(scope="module")
def usual(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What is remembered where the default is float32, by policy."""
    folder = tmp_path_factory.mktemp("usual")
    return {policy: tracked(predictor_of(weights, policy), folder) for policy in ("least_similar", "learned")}


def predictor_of(weights: Path, policy: str) -> VOSPredictor:
    chosen = TrackingOptions(
        reach=None,
        write_gate=0.0,
        memory_every=1,
        memory_size=3,
        policy=LearnedPolicy() if policy == "learned" else policy,
    )
    return VOSPredictor.from_pretrained(weights, options=chosen)


@pytest.mark.parametrize("policy", ["least_similar", "learned"])
def test_masks_do_not_follow_the_default_dtype(
    policy: str, usual: dict[str, bytes], weights: Path, default: torch.dtype, tmp_path: Path
) -> None:
    """Loaded weights, all that is remembered, and a stream that is resumed are the same bit for bit under any
    default."""
    predictor = predictor_of(weights, policy)
    assert {torch.float32} == {t.dtype for t in predictor.network.state_dict().values() if t.is_floating_point()}
    assert usual[policy] == tracked(predictor, tmp_path)


def test_predictions_do_not_follow_the_default_dtype(default: torch.dtype) -> None:
    """Loaded weights predict the same under any default."""
    found = FramePredictor.from_pretrained().start().step(FRAMES[0, :32, :32]).pixels
    torch.set_default_dtype(torch.float32)
    assert torch.equal(FramePredictor.from_pretrained().start().step(FRAMES[0, :32, :32]).pixels, found)


def test_a_bank_that_memory_cannot_hold_is_an_error() -> None:
    """A capacity that is out of all reason is told at the first write, and by a stream's first step."""
    bank = MemoryBank(10**9)
    with pytest.raises(BankError, match="memory_size"):
        bank.write(torch.rand(1, 4, 8, 8))
    assert 0 == bank.rows
    with pytest.raises(BankError, match="memory_size"):
        new_predictor(memory_size=10**9).start(FRAMES[0], boxes(3))
