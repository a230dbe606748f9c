"""The contract of a stream: memory of a constant size, streams that do not touch each other, states that go on bit for
bit."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny import CONFIG, HEIGHT, WIDTH, bank_of, boxes, clip, new_predictor, same, tiny_predictor

from stmemory.errors import FrameError, StmemoryError
from stmemory.memory.policy import policy_names
from stmemory.predictor import VOSPredictor
from stmemory.result import Segmentation
from stmemory.stream import VOSStream

OPTIONS = {
    **{name: {"policy": name} for name in policy_names()},
    "memory_every=3": {"memory_every": 3},
    "input_to_memory every 3": {"policy": "input_to_memory", "memory_every": 3},
    "top_k": {"top_k": 4},
    "two slots": {"memory_size": 2},
    "gate": {"write_gate": 0.6},
    "reach": {"reach": 0.1},
    "resized": {"short_side": 32},
}
ALL_KINDS = ("least_similar", "learned", "memory_every=3", "top_k", "reach")


def bank_bytes(objects: int, slots: int, cells: int) -> int:
    """Bytes of a bank, from the shapes alone: templates, keys, similarities, flags, numbers, extents, log,
    provisional."""
    features = 4 * cells * (CONFIG.template_channels + CONFIG.key_channels)
    return objects * (slots * (features + (4 + 8) * slots + 2 * 1 + 4 * 8 + 4 * 8 + 8 * 8) + 1)


def stream_bytes(objects: int, slots: int, frame: tuple[int, int], padded: tuple[int, int]) -> int:
    """Bytes of a stream from its second frame on, from the shapes alone."""
    pixels, inside = frame[0] * frame[1], padded[0] * padded[1]
    cells = inside // 256
    cache = objects * slots * (4 * cells * CONFIG.value_channels + 8)
    features = 2 * CONFIG.appearance_channels
    sums = objects * (
        4 * 4 * (features + 1) * (features + 2) + 4 * 8
    )  # given and found, now and before; two counts, two frames
    last_frame = inside * (2 * 3 * 4 + (1 + objects) * 4 + objects)  # frame and window, probabilities, places
    result = pixels * (4 + (1 + objects) * 4)
    return bank_bytes(objects, slots, cells) + cache + sums + last_frame + result


@pytest.mark.parametrize(
    ("policy", "memory_every"),
    [*((name, 1) for name in policy_names()), ("least_similar", 4), ("newest", 3), ("input_to_memory", 4)],
)
def test_a_stream_is_as_large_after_200_frames_as_its_shapes_say(policy: str, memory_every: int) -> None:
    """At every one of 200 steps the bytes of bank and stream are those of a formula that knows no time."""
    predictor = new_predictor(policy=policy, memory_every=memory_every, memory_size=4)
    for stage in predictor.network.query_encoder.trunk.stages:
        del stage[1:]  # the first block of each stage will do, and is faster
    frames = clip(10, 16, 32)
    stream = predictor.start(frames[0], boxes(3, 9, height=16, width=32))
    for step in range(200):
        stream.step(frames[step % 10])
        assert bank_bytes(2, 4, 2) == stream.bank.nbytes
        assert stream_bytes(2, 4, (16, 32), (16, 32)) == stream.nbytes
    assert [4, 4] == stream.bank.count.tolist()


def test_a_saved_stream_holds_what_nbytes_counts(tmp_path: Path) -> None:
    """The tensors of the file are as many bytes as the stream says, and the file's size is the same 100 frames
    later."""
    frames, sizes = clip(4), []
    stream = tiny_predictor().start(frames[0], boxes(3))
    for step in range(150):
        stream.step(frames[step % 4])
        if step in (120, 149):
            stream.save(tmp_path / "state")
            with safe_open(tmp_path / "state", framework="pt") as file:
                tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
            assert stream.nbytes == sum(t.numel() * t.element_size() for t in tensors)
            sizes.append((tmp_path / "state").stat().st_size // 100)
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("size", [(1, 1), (15, 17), (33, 50), (48, 64), (65, 31)], ids=str)
def test_odd_sizes_come_back_at_their_own(size: tuple[int, int]) -> None:
    """Masks are of the frame's size whatever it is, and the stream is as large as the padded size says."""
    height, width = size
    frames, mask = clip(4, height, width), np.full((height, width), 5)
    mask[: height // 2] = 0
    padded = (-(-height // 16) * 16, -(-width // 16) * 16)
    stream = tiny_predictor().start(frames[0], mask)
    assert mask.tolist() == stream.last.ids.tolist()
    for frame in frames[1:]:
        result = stream.step(frame)
        assert (size, (2, *size)) == (tuple(result.ids.shape), tuple(result.probabilities.shape))
        assert stream_bytes(1, 5, size, padded) == stream.nbytes


def test_a_large_frame_is_remembered_at_its_working_size() -> None:
    """With `short_side` the bank is as large as the shrunk frame says, and masks are of the frame's own size."""
    stream = tiny_predictor(short_side=32).start(clip(1, 96, 160)[0], boxes(3, height=96, width=160))
    result = stream.step(clip(2, 96, 160)[1])
    assert (96, 160) == tuple(result.ids.shape)
    assert stream_bytes(1, 5, (96, 160), (32, 64)) == stream.nbytes


def test_objects_bring_their_bytes_and_take_them_away() -> None:
    """Two objects more are as many bytes more as the formula says, and are gone when they are removed."""
    frames = clip(6)
    stream = tiny_predictor().start(frames[0], boxes(3))
    for number, ids in ((1, ()), (3, (7, 9)), (2, (3,)), (0, (7, 9))):
        if number == 3:
            stream.add_objects(boxes(*ids))
        else:
            stream.remove_objects(ids)
        stream.step(frames[1])
        assert (0 if number == 0 else bank_bytes(number, 5, 12)) == stream.bank.nbytes
        assert stream_bytes(number, 5, (HEIGHT, WIDTH), (HEIGHT, WIDTH)) == stream.nbytes


def events(
    predictor: VOSPredictor, *, seed: int = 0, resume_after: int | None = None, folder: Path | None = None
) -> Iterator[Segmentation]:
    """A video with a late object, corrections, a look without writing and a removal; saved and resumed after one
    frame."""
    frames = clip(16, seed=seed)
    stream = predictor.start(frames[0], boxes(3, 9))
    yield stream.last
    for index in range(1, 16):
        if resume_after == index - 1 and folder is not None:
            stream.save(folder / "state")
            stream = predictor.resume(folder / "state")
        if index == 4:
            yield stream.step(frames[index], boxes(700, 3))
        elif index == 7:
            yield stream.step(frames[index], write=False)
        else:
            yield stream.step(frames[index])
        if index in (6, 9):
            yield stream.correct(boxes(9))
        elif index == 12:
            stream.remove_objects([3])
            yield stream.last


def assert_same(expected: list[Segmentation], actual: list[Segmentation]) -> None:
    """Bit for bit."""
    assert len(expected) == len(actual)
    for one, other in zip(expected, actual, strict=True):
        assert (one.frame_index, one.object_ids) == (other.frame_index, other.object_ids)
        assert (one.scores, one.present) == (other.scores, other.present)
        assert torch.equal(one.probabilities, other.probabilities) and torch.equal(one.ids, other.ids)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_stream_saved_in_the_middle_goes_on_bit_for_bit(options: dict[str, object], tmp_path: Path) -> None:
    """Resumed after frame 8 by a predictor built anew, every later mask and score is the same, bit for bit."""
    expected = list(events(tiny_predictor(**options)))
    assert (
        len({result.ids.numpy().tobytes() for result in expected}) > 10
    )  # masks that differ, so that equality means something
    assert_same(expected, list(events(new_predictor(**options), resume_after=8, folder=tmp_path)))


def test_a_stream_can_be_saved_at_any_frame(tmp_path: Path) -> None:
    """Also right after the first frame, a new object, a correction, a removal and a frame that was not memorised."""
    predictor = tiny_predictor()
    expected = list(events(predictor))
    for resume_after in (0, 4, 6, 7, 12):
        assert_same(expected, list(events(predictor, resume_after=resume_after, folder=tmp_path)))


def test_a_half_precision_stream_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """bfloat16 states are saved and resumed as they are."""
    predictor = tiny_predictor(dtype=torch.bfloat16)
    assert_same(list(events(predictor)), list(events(predictor, resume_after=8, folder=tmp_path)))


@pytest.mark.parametrize("options", [OPTIONS[n] for n in ALL_KINDS], ids=ALL_KINDS)
def test_streams_interleave_without_touching_each_other(options: dict[str, object]) -> None:
    """Two videos tracked in turns by one predictor give what each gives alone."""
    predictor = tiny_predictor(**options)
    alone = [list(events(predictor, seed=seed)) for seed in (0, 1)]
    turns = list(zip(*(events(predictor, seed=seed) for seed in (0, 1)), strict=True))
    for video in (0, 1):
        assert_same(alone[video], [turn[video] for turn in turns])


# Of other sizes, lengths and numbers of objects; the second ends after its first frame, the third has no object of the
# first's.
MANY = (
    (clip(9), boxes(3, 9)),
    (clip(1, 33, 50, seed=1), boxes(5, height=33, width=50)),
    (clip(6, seed=2), boxes(700)),
    (clip(12, 80, 65, seed=3), boxes(1, 2, 3, height=80, width=65)),
)


@pytest.mark.parametrize("options", [OPTIONS[n] for n in ALL_KINDS], ids=ALL_KINDS)
def test_videos_tracked_together_are_tracked_as_each_alone(options: dict[str, object]) -> None:
    """`track_many` gives what `track` gives of each video, bit for bit, in turns, and goes on when one ends."""
    predictor = tiny_predictor(**options)
    together: list[list[Segmentation]] = [[] for _ in MANY]
    order = []
    for video, result in predictor.track_many((frames for frames, _ in MANY), [mask for _, mask in MANY]):
        together[video].append(result)
        order.append((result.frame_index, video))
    for (frames, mask), results in zip(MANY, together, strict=True):
        assert_same(list(predictor.track(frames, mask)), results)
    assert sorted(order) == order


def test_no_videos_have_no_results() -> None:
    """`track_many` of nothing is an empty iterator."""
    assert [] == list(tiny_predictor().track_many([], []))


@pytest.mark.parametrize(
    ("videos", "masks", "told"),
    [
        ([clip(2), clip(2)], [boxes(3)], "MaskError: track_many: expected a first mask for each of 2 videos, got 1"),
        ([clip(2), clip(2)], [boxes(3), boxes(3) * 0], "MaskError: video 1: mask: expected at least one object"),
        ([clip(2), iter(())], [boxes(3), boxes(3)], "FrameError: video 1: frames: expected at least one frame"),
        ([5, clip(2)], [boxes(3), boxes(3)], "ShapeError: video 0: frames: expected a path"),
        ("clip.mp4", [boxes(3)], "ShapeError: videos: expected several, as a list, got 'clip.mp4'"),
        ([clip(2)], "first.png", "ShapeError: first_masks: expected several, as a list"),
    ],
    ids=["too few masks", "empty mask", "empty video", "no video", "one path", "one mask"],
)
def test_track_many_checks_all_videos_when_it_is_called(
    videos: Iterable[object], masks: Iterable[object], told: str
) -> None:
    """A video or a mask that cannot be used is an error before anything is tracked, and the error names it."""
    with pytest.raises(StmemoryError) as caught:
        tiny_predictor().track_many(videos, masks)
    assert f"{type(caught.value).__name__}: {caught.value}".startswith(told)


def test_a_video_that_breaks_later_is_named() -> None:
    """The frames before it are handed out, then the error says which video it was."""
    results = tiny_predictor().track_many([clip(3), [clip(1)[0], clip(1, 16, 16)[0]]], [boxes(3), boxes(9)])
    assert [(0, 0), (1, 0), (0, 1)] == [
        (video, next_one.frame_index) for video, next_one in itertools.islice(results, 3)
    ]
    with pytest.raises(FrameError, match="^video 1: frame 1: expected the size"):
        next(results)


def test_tracking_leaves_the_global_random_numbers_alone() -> None:
    """Whoever seeds torch gets the same numbers whether or not a video was tracked in between."""
    predictor = tiny_predictor(policy="least_similar")
    before = torch.get_rng_state()
    list(predictor.track(clip(8), boxes(3)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_memory_is_of_the_networks_type_and_results_are_float32(dtype: torch.dtype) -> None:
    """Templates and keys are kept in the type that is computed in; probabilities are float32 and sum to 1."""
    stream = tiny_predictor(dtype=dtype).start(clip(1)[0], boxes(3, 9))
    for frame in clip(9)[1:]:
        result = stream.step(frame)
        assert (torch.float32, torch.int32) == (result.probabilities.dtype, result.ids.dtype)
        torch.testing.assert_close(torch.ones(HEIGHT, WIDTH), result.probabilities.sum(0))
    assert {dtype} == {stream.bank.templates.dtype, stream.bank.keys.dtype}
    assert {torch.device("cpu")} == {tensor.device for tensor in bank_of(stream).values()}


def test_memory_stays_where_it_is() -> None:
    """Once the bank is full, fifty steps write into the very same tensors."""
    stream = tiny_predictor().start(clip(1)[0], boxes(3))
    frames = clip(8)
    for frame in frames:
        stream.step(frame)
    before = {name: tensor.data_ptr() for name, tensor in stream.bank.contents().items()}
    for step in range(50):
        stream.step(frames[step % 8])
    assert before == {name: tensor.data_ptr() for name, tensor in stream.bank.contents().items()}


def test_looking_without_writing_changes_nothing_in_the_bank() -> None:
    """`write=False` gives the mask that a writing step gives, and leaves every tensor of the bank as it was."""
    looking, writing = (tiny_predictor().start(clip(1)[0], boxes(3, 9)) for _ in range(2))
    before = bank_of(looking)
    looked, written = looking.step(clip(2)[1], write=False), writing.step(clip(2)[1])
    assert torch.equal(written.probabilities, looked.probabilities)
    assert same(before, bank_of(looking)) and not same(before, bank_of(writing))
    looking.step(clip(3)[2], boxes(3), write=False)
    assert same(before, bank_of(looking))
    assert 2 == looking.frame_index


def slots_of(stream: VOSStream, object_id: int) -> list[int]:
    """The frames in an object's slots, oldest first."""
    return [slot.frame for slot in stream.describe()[object_id]]


def test_the_newest_slot_follows_the_video() -> None:
    """With `memory_every=3` the newest slot is always the last frame's, and only every third frame stays."""
    stream = tiny_predictor(memory_every=3, memory_size=6).start(clip(1)[0], boxes(3))
    seen = [slots_of(stream, 3)]
    for frame in clip(9)[1:]:
        stream.step(frame)
        seen.append(slots_of(stream, 3))
    assert [[0], [0, 1], [0, 2], [0, 3], [0, 3, 4], [0, 3, 5], [0, 3, 6], [0, 3, 6, 7], [0, 3, 6, 8]] == seen


@pytest.mark.parametrize("memory_size", [2, 3, 4, 5, 8])
def test_pins_leave_room_and_the_first_template_stays(memory_size: int) -> None:
    """After ten corrections K - 2 slots are pinned at most, at least one, and the first is as it was."""
    stream = tiny_predictor(memory_size=memory_size).start(clip(1)[0], boxes(3))
    first = stream.bank.templates[0, stream.describe()[3][0].slot].clone()
    for index, frame in enumerate(clip(21)[1:]):
        stream.step(frame, boxes(3, 5) if index == 0 else boxes(3) if index % 2 else None)
        pins = [slot for slot in stream.describe()[3] if slot.pinned]
        assert 1 <= len(pins) <= max(1, memory_size - 2)
        assert 0 == pins[0].frame
    assert max(1, memory_size - 2) == len(pins)
    assert [0, *range(20, 0, -2)[: memory_size - 3][::-1]] == [slot.frame for slot in pins] or memory_size < 4
    assert torch.equal(first, stream.bank.templates[0, pins[0].slot])


def test_new_objects_leave_the_pinned_templates_of_others_alone() -> None:
    """Rows that are added do not change what the other rows hold."""
    stream = tiny_predictor().start(clip(1)[0], boxes(3, 9))
    stream.step(clip(2)[1])
    before = bank_of(stream)
    stream.add_objects(boxes(20, 21, 22))
    after = {name: tensor[:2] for name, tensor in bank_of(stream).items()}
    assert (3, 9, 20, 21, 22) == stream.object_ids
    assert same(before, after)
    first = before["templates"][:, 0]
    for frame in clip(12)[2:]:
        stream.step(frame)
    assert torch.equal(first, stream.bank.templates[:2, 0]) and stream.bank.pinned[:2, 0].all()


def test_removing_an_object_leaves_the_memory_of_others_alone() -> None:
    """What the other rows hold moves up, unchanged."""
    stream = tiny_predictor().start(clip(1)[0], boxes(3, 9, 4))
    for frame in clip(8)[1:]:
        stream.step(frame)
    before = bank_of(stream)
    stream.remove_objects([4])  # ids are sorted: rows 3, 4, 9
    assert (3, 9) == stream.object_ids
    assert same({name: tensor[[0, 2]] for name, tensor in before.items()}, bank_of(stream))


def test_two_hundred_objects_are_tracked() -> None:
    """200 objects on tiny frames are tracked one by one, and their masks come back as they were given."""
    mask = np.arange(24 * 32).reshape(24, 32) % 201
    stream = tiny_predictor(memory_size=3).start(clip(1, 24, 32)[0], mask)
    assert mask.tolist() == stream.last.ids.tolist()
    for frame in clip(4, 24, 32)[1:]:
        result = stream.step(frame)
    assert tuple(range(1, 201)) == result.object_ids
    assert (201, 24, 32) == tuple(result.probabilities.shape)
    assert stream_bytes(200, 3, (24, 32), (32, 32)) == stream.nbytes
    assert {True} == set(stream.bank.pinned[:, 0].tolist())
