"""Facts about the session and SAM 2's method names over it: what a script of a SAM 2 user gets, frame by frame."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import HEIGHT, WIDTH, boxes, clip, tiny_predictor

from stmemory.errors import FrameError, MaskError, OptionError, ShapeError
from stmemory.postprocess import mask_logits, soft_aggregate, winners
from stmemory.result import Segmentation
from stmemory.sam2 import NOTHING, InferenceState, Output, VideoPredictor
from stmemory.session import ClipReader, ClipSession

FRAMES = clip(10)
LEFT, RIGHT = boxes(1, 2) == 1, boxes(1, 2) == 2


def predictor() -> VideoPredictor:
    """SAM 2's names over the tiny network."""
    return VideoPredictor(tiny_predictor())


def state_with(*prompts: tuple[int, Hashable, object], frames: object = FRAMES) -> InferenceState:
    """A clip with masks given: frame, object, mask."""
    state = predictor().init_state(frames)
    for frame_idx, obj_id, mask in prompts:
        predictor().add_new_mask(state, frame_idx, obj_id, mask)
    return state


def alone(
    start: int, masks: dict[int, object], *, way: int = 1, frames: np.ndarray = FRAMES
) -> dict[int, Segmentation]:
    """What a stream gives that begins at a frame and gets masks at frames, by frame."""
    order = range(start, len(frames)) if way == 1 else range(start, -1, -1)
    stream = tiny_predictor().start(frames[start], masks[start])
    return {start: stream.last} | {t: stream.step(frames[t], masks.get(t)) for t in order if t != start}


def ids_of(output: Output, numbers: dict[Hashable, int]) -> list[list[int]]:
    """The logits of a frame as ids: an object is where its logit is above 0, and no two are in one place."""
    _, obj_ids, logits = output
    masks = logits[:, 0] > 0
    assert int(masks.sum(0).max()) <= 1
    return sum(mask.int() * numbers[obj_id] for obj_id, mask in zip(obj_ids, masks, strict=True)).tolist()


def assert_follows(expected: dict[int, Segmentation], outputs: Iterable[Output], numbers: dict[Hashable, int]) -> None:
    """The same frames in the same order, the same ids, and the logits of the same probabilities."""
    outputs = list(outputs)
    assert list(expected) == [frame_idx for frame_idx, _, _ in outputs]
    for output, result in zip(outputs, expected.values(), strict=True):
        assert result.ids.tolist() == ids_of(output, numbers)
        by_id = dict(zip(result.object_ids, mask_logits(result.probabilities), strict=True))
        for obj_id, logits in zip(output[1], output[2][:, 0], strict=True):
            number = numbers[obj_id]
            assert torch.equal(by_id.get(number, torch.full((HEIGHT, WIDTH), NOTHING)), logits)


@pytest.mark.parametrize("source", ["array", "tensor", "list", "folder", "pages"])
def test_a_script_gets_what_track_gives(source: str, tmp_path: Path) -> None:
    """One mask on frame 0, then propagation: frame by frame the masks of `VOSPredictor.track`, whatever the clip is."""
    small = FRAMES[:5]
    clips: dict[str, object] = {"array": small, "tensor": torch.from_numpy(small).movedim(-1, 1), "list": list(small)}
    (tmp_path / "folder").mkdir()
    for number, frame in enumerate(small):
        Image.fromarray(frame).save(tmp_path / "folder" / f"{number}.png")
    first, *rest = [Image.fromarray(frame) for frame in small]
    first.save(tmp_path / "clip.tiff", save_all=True, append_images=rest)
    clips |= {"folder": tmp_path / "folder", "pages": str(tmp_path / "clip.tiff")}
    state = state_with((0, 7, LEFT), frames=clips[source])
    expected = {result.frame_index: result for result in tiny_predictor().track(small, LEFT * 1)}
    assert_follows(expected, predictor().propagate_in_video(state), {7: 1})
    assert (5, HEIGHT, WIDTH, [7]) == tuple(
        state[name] for name in ("num_frames", "video_height", "video_width", "obj_ids")
    )


def test_names_of_objects_are_free() -> None:
    """Ids may be 0, numpy numbers or words, and come back in the order in which they were named."""
    state = state_with((0, "kite", RIGHT), (0, 0, LEFT))
    outputs = predictor().propagate_in_video(state)
    assert_follows(alone(0, {0: LEFT * 2 + RIGHT * 1}), outputs, {"kite": 1, 0: 2})
    assert ["kite", 0] == state.obj_ids


def test_masks_on_later_frames_enter_there() -> None:
    """A late object and a correction are given before propagation; the stream gets each at its frame."""
    state = state_with((4, 2, RIGHT), (0, 1, LEFT), (7, 1, RIGHT))
    numbers: dict[Hashable, int] = {2: 1, 1: 2}
    expected = alone(0, {0: LEFT * 2, 4: RIGHT * 1, 7: RIGHT * 2})
    assert_follows(expected, predictor().propagate_in_video(state), numbers)
    assert_follows(expected, predictor().propagate_in_video(state), numbers)  # a second time


def test_reverse_goes_backwards_from_a_frame() -> None:
    """From frame 6 down to 0 the masks are those of a stream that sees the clip turned round."""
    state = state_with((6, 1, LEFT))
    assert_follows(alone(6, {6: LEFT * 1}, way=-1), predictor().propagate_in_video(state, reverse=True), {1: 1})
    assert_follows(alone(6, {6: LEFT * 1}), predictor().propagate_in_video(state), {1: 1})


def test_pages_are_read_backwards_too(tmp_path: Path) -> None:
    """Frames of a file that must be read from its beginning come backwards bit for bit, few held at a time."""
    many = clip(80, 8, 8)
    images = [Image.fromarray(frame) for frame in many]
    images[0].save(tmp_path / "clip.tiff", save_all=True, append_images=images[1:])
    reader, direct = ClipReader(tmp_path / "clip.tiff"), ClipReader(many)
    for index in (*range(79, -1, -1), 0, 1, 2, 40, 3, 79):
        one, other = direct.read(index), reader.read(index)
        assert one is not None and other is not None and torch.equal(one, other)
        assert len(reader._held) <= 32
    assert reader.read(80) is None and direct.read(80) is None


def test_before_its_first_mask_nothing_is_known_of_an_object() -> None:
    """Frames asked for before the earliest mask come with -1024 everywhere."""
    state = state_with((3, 1, LEFT))
    outputs = list(predictor().propagate_in_video(state, start_frame_idx=1, max_frame_num_to_track=3))
    assert [1, 2, 3, 4] == [frame_idx for frame_idx, _, _ in outputs]
    assert [True, True, False, False] == [bool((logits == NOTHING).all()) for _, _, logits in outputs]


@pytest.mark.parametrize(
    ("start", "most", "reverse", "expected"),
    [
        (None, None, False, list(range(2, 10))),
        (None, 3, False, [2, 3, 4, 5]),
        (5, 0, False, [5]),
        (8, 9, False, [8, 9]),
        (None, None, True, [2, 1, 0]),
        (9, 4, True, [9, 8, 7, 6, 5]),
        (0, None, True, []),
    ],
    ids=["all", "three more", "one", "to the end", "back", "four back", "back from 0"],
)
def test_the_frames_that_are_handed_out(
    start: int | None, most: int | None, reverse: bool, expected: list[int]
) -> None:
    """As in SAM 2: the start and that many frames more, and nothing backwards from frame 0."""
    outputs = predictor().propagate_in_video(state_with((2, 1, LEFT)), start, most, reverse)
    assert expected == [frame_idx for frame_idx, _, _ in outputs]


def test_propagation_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces a clip gives what it gives at once, and each frame is read once."""
    state = state_with((0, 1, LEFT))
    read, original = [], ClipReader.read
    monkeypatch.setattr(ClipReader, "read", lambda reader, index: (read.append(index), original(reader, index))[1])
    pieces = [*predictor().propagate_in_video(state, 0, 3), *predictor().propagate_in_video(state, 4)]
    assert_follows(alone(0, {0: LEFT * 1}), pieces, {1: 1})
    assert sorted(read) == read


def test_the_last_frame_is_corrected_where_it_is() -> None:
    """A mask for the frame just seen corrects the stream, as `VOSStream.correct` does, and the next frame follows from
    it."""
    state = state_with((0, 1, LEFT))
    *_, before = predictor().propagate_in_video(state, max_frame_num_to_track=4)
    frame_idx, obj_ids, logits = predictor().add_new_mask(state, 4, 1, RIGHT)
    stream = tiny_predictor().start(FRAMES[0], LEFT * 1)
    for frame in FRAMES[1:5]:
        stream.step(frame)
    expected = [stream.correct(RIGHT * 1), *(stream.step(frame) for frame in FRAMES[5:])]
    assert (4, 4, [1]) == (before[0], frame_idx, obj_ids)
    assert torch.equal(torch.from_numpy(RIGHT), logits[0, 0] > 0)
    assert_follows(dict(enumerate(expected, start=4)), predictor().propagate_in_video(state, 4), {1: 1})


def test_a_mask_on_a_frame_that_was_passed_changes_what_follows() -> None:
    """In the midst of a propagation: the next frames are those of a stream that had the mask all along."""
    state = state_with((0, 1, LEFT))
    outputs = predictor().propagate_in_video(state)
    for _ in range(6):
        next(outputs)
    predictor().add_new_mask(state, 3, 2, RIGHT)
    expected = alone(0, {0: LEFT * 1, 3: RIGHT * 2})
    assert_follows({t: expected[t] for t in range(6, 10)}, outputs, {1: 1, 2: 2})


def absent_at(frame: int) -> list[Segmentation]:
    """The frames of a stream in which object 1 was said to be absent from one, from that one on."""
    stream = tiny_predictor().start(FRAMES[0], LEFT * 1)
    for each in FRAMES[1 : frame + 1]:
        stream.step(each)
    return [stream.correct(absent=[1]), *(stream.step(each) for each in FRAMES[frame + 1 :])]


@pytest.mark.parametrize("ahead", [0, 2], ids=["the last frame", "a frame that was passed"])
def test_an_empty_mask_says_that_an_object_is_absent(ahead: int) -> None:
    """The clip goes on as a stream that was told so at that frame, whether it was there or beyond."""
    state = state_with((0, 1, LEFT))
    list(predictor().propagate_in_video(state, max_frame_num_to_track=4 + ahead))
    _, obj_ids, logits = predictor().add_new_mask(state, 4, 1, LEFT & RIGHT)
    assert [1] == obj_ids and not bool((logits > 0).any())
    assert_follows(dict(enumerate(absent_at(4), start=4)), predictor().propagate_in_video(state, 4), {1: 1})


def test_an_absence_is_taken_back_by_a_mask_and_by_clearing() -> None:
    """What is said last of an object in a frame counts."""
    state = state_with((0, 1, LEFT), (4, 1, LEFT & RIGHT), (4, 1, RIGHT))
    assert_follows(alone(0, {0: LEFT * 1, 4: RIGHT * 1}), predictor().propagate_in_video(state), {1: 1})
    predictor().add_new_mask(state, 4, 1, LEFT & RIGHT)
    assert_follows(dict(enumerate(absent_at(4), start=4)), predictor().propagate_in_video(state, 4), {1: 1})
    predictor().clear_all_prompts_in_frame(state, 4, 1)
    assert_follows(alone(0, {0: LEFT * 1}), predictor().propagate_in_video(state), {1: 1})


def test_a_session_needs_a_mask_of_an_absent_object() -> None:
    """An object that has no mask in another frame cannot be absent; before its first mask its absence says nothing."""
    session = ClipSession(tiny_predictor(), FRAMES)
    session.give(3, 1, LEFT)
    for frame_index, object_id in ((3, 1), (2, 7)):
        with pytest.raises(MaskError, match="mask of it in another frame"):
            session.mark_absent(frame_index, object_id)
    session.mark_absent(2, 1)
    expected = alone(3, {3: LEFT * 1})[5]
    found = session.segment(5)
    assert found is not None and torch.equal(expected.ids, found.ids)
    backwards = session.segment(2, backwards=True)
    assert backwards is not None and not backwards.present[1] and [3] == session.given_frames


def test_a_mask_that_is_taken_back_is_forgotten() -> None:
    """After `clear_all_prompts_in_frame` a clip gives what it gives without that mask; the object's id stays."""
    state = state_with((0, 1, LEFT), (3, 1, RIGHT), (5, 2, RIGHT))
    list(predictor().propagate_in_video(state))
    cleared = predictor().clear_all_prompts_in_frame(state, 3, 1)
    assert cleared is not None and (3, [1, 2]) == cleared[:2] and bool((cleared[2] == NOTHING).all())
    assert predictor().clear_all_prompts_in_frame(state, 5, 2, need_output=False) is None
    assert_follows(alone(0, {0: LEFT * 1}), predictor().propagate_in_video(state), {1: 1, 2: 2})


def test_removing_in_the_middle_goes_on_with_the_others() -> None:
    """The others' masks are those of a stream that removed the object there; a second pass never sees it."""
    state = state_with((0, 1, LEFT), (0, 2, RIGHT), (8, 2, LEFT))
    outputs = predictor().propagate_in_video(state)
    for _ in range(4):
        next(outputs)
    left, changed = predictor().remove_object(state, 2)
    assert ([1], [0, 8]) == (left, [frame_idx for frame_idx, _ in changed])
    assert torch.equal(torch.from_numpy(LEFT), changed[0][1][0, 0] > 0) and bool((changed[1][1] == NOTHING).all())
    stream = tiny_predictor().start(FRAMES[0], LEFT * 1 + RIGHT * 2)
    for frame in FRAMES[1:4]:
        stream.step(frame)
    stream.remove_objects([2])
    assert_follows({t: stream.step(FRAMES[t]) for t in range(4, 10)}, outputs, {1: 1})
    assert_follows(alone(0, {0: LEFT * 1}), predictor().propagate_in_video(state), {1: 1})


def test_removing_the_last_object_ends_the_propagation() -> None:
    """Nothing is left to track; an unknown object is an error only where that is asked for."""
    state = state_with((0, 1, LEFT))
    outputs = predictor().propagate_in_video(state)
    next(outputs)
    assert ([], []) == predictor().remove_object(state, 1)
    assert [] == list(outputs)
    assert ([], []) == predictor().remove_object(state, 1)
    with pytest.raises(MaskError, match="obj_id: expected one of"):
        predictor().remove_object(state, 1, strict=True)


def test_reset_forgets_all_but_the_clip() -> None:
    """After `reset_state` ids and masks are gone, and the clip can be used anew."""
    state = state_with((0, 1, LEFT), (2, 5, RIGHT))
    list(predictor().propagate_in_video(state, max_frame_num_to_track=1))
    predictor().reset_state(state)
    assert [] == state.obj_ids
    predictor().add_new_mask(state, 0, 9, RIGHT)
    assert_follows(alone(0, {0: RIGHT * 1}), predictor().propagate_in_video(state), {9: 1})


def test_what_is_given_comes_back_at_once() -> None:
    """`add_new_mask` gives the masks of its frame; where two overlap, the later is on top."""
    state = state_with((0, 1, LEFT))
    both = LEFT | RIGHT
    output = predictor().add_new_mask(state, 0, 2, both)
    assert (both * 2).tolist() == ids_of(output, {1: 1, 2: 2})
    again = predictor().add_new_mask(state, 0, 1, LEFT)
    assert (LEFT * 1 + RIGHT * 2).tolist() == ids_of(again, {1: 1, 2: 2})


@pytest.mark.parametrize("kind", ["bool", "uint8 255", "float", "logits", "tensor"])
def test_masks_of_any_kind_of_number(kind: str) -> None:
    """Booleans, integers that are not 0, floats of 0.5 and more, arrays and tensors are the same mask."""
    masks = {
        "bool": LEFT,
        "uint8 255": LEFT.astype(np.uint8) * 255,
        "float": LEFT * 0.5,
        "logits": np.where(LEFT, 5.0, -5.0),
    }
    mask = torch.from_numpy(LEFT) if kind == "tensor" else masks[kind]
    assert torch.equal(torch.from_numpy(LEFT), predictor().add_new_mask(state_with(), 0, 1, mask)[2][0, 0] > 0)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_logits_are_above_zero_where_the_object_wins(count: int) -> None:
    """Against a slow reference: the log of a probability over the largest of the others; ties are won as in
    `winners`."""
    found = soft_aggregate(torch.rand(count, 6, 7))
    found[:, 0, 0] = 1 / (1 + count)  # all the same: the background wins
    found[:, 0, 1] = torch.tensor([0.0, *[1 / count] * count])  # the first object wins
    logits = mask_logits(found)
    assert ((winners(found) == torch.arange(1, count + 1).view(-1, 1, 1)) == (logits > 0)).all()
    for number in range(count):
        others = torch.cat([found[: number + 1], found[number + 2 :]]).amax(0)
        expected = found[number + 1].clamp_min(1e-7).log() - others.clamp_min(1e-7).log()
        torch.testing.assert_close(expected, logits[number], atol=2e-4, rtol=1e-5)
    if count == 1:
        inside = found[:, 1:]
        torch.testing.assert_close(inside[1].logit(), mask_logits(inside)[0], atol=1e-4, rtol=1e-4)


def test_memory_does_not_grow_with_the_clip() -> None:
    """After many frames the state holds one stream of constant size and one given mask."""
    state = state_with((0, 1, LEFT), frames=np.concatenate([FRAMES] * 4))
    sizes = set()
    for frame_idx, _, _ in predictor().propagate_in_video(state):
        run = state.session._run
        assert run is not None
        sizes |= {run.stream.nbytes} if frame_idx else set()
    assert 1 == len(sizes) and [0] == state.session.given_frames


def test_it_runs_under_autocast() -> None:
    """Scripts wrap their calls in autocast and inference mode: it works there, masks and all."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = list(predictor().propagate_in_video(state_with((0, 1, LEFT))))
    assert [torch.float32] * 10 == [logits.dtype for _, _, logits in outputs]


ERRORS = {
    "no masks": (lambda p, s: p.propagate_in_video(s), MaskError, "call add_new_mask first"),
    "no such frame": (
        lambda p, s: p.add_new_mask(s, 10, 1, LEFT),
        FrameError,
        "frame 10: expected a frame of the clip",
    ),
    "negative": (lambda p, s: p.add_new_mask(s, -1, 1, LEFT), FrameError, "frame -1: expected a frame"),
    "empty mask": (lambda p, s: p.add_new_mask(s, 0, 1, LEFT * False), MaskError, "expected at least one object"),
    "size": (lambda p, s: p.add_new_mask(s, 0, 1, LEFT[1:]), MaskError, "expected the frame's size"),
    "stack": (lambda p, s: p.add_new_mask(s, 0, 1, LEFT[None]), MaskError, "each object's mask by itself"),
    "colours": (
        lambda p, s: p.add_new_mask(s, 0, 1, np.zeros((HEIGHT, WIDTH, 3))),
        MaskError,
        "as numbers .H, W., got float64",
    ),
    "no mask": (lambda p, s: p.add_new_mask(s, 0, 1, None), MaskError, "got NoneType"),
    "path": (lambda p, s: p.add_new_mask(s, 0, 1, "mask.png"), MaskError, "got str"),
    "no number": (
        lambda p, s: p.add_new_mask(s, 0.5, 1, LEFT),
        FrameError,
        "expected a whole number from 0 on, got 0.5",
    ),
    "unknown object": (lambda p, s: p.clear_all_prompts_in_frame(s, 0, 4), MaskError, "expected one of"),
    "generator": (lambda p, s: p.init_state(iter(FRAMES)), ShapeError, "VOSPredictor.start"),
    "missing": (lambda p, s: p.init_state("nowhere.mp4"), FrameError, "no such file"),
    "name": (lambda p, s: s["images"], OptionError, "expected num_frames"),
}


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS)
def test_errors_say_what_to_do(
    case: tuple[Callable[[VideoPredictor, InferenceState], object], type[Exception], str],
) -> None:
    """What cannot be done is refused when it is called, and leaves the state as it was."""
    call, kind, told = case
    state = state_with()
    with pytest.raises(kind, match=told):
        call(predictor(), state)
    assert ([], []) == (state.obj_ids, state.session.given_frames)


def test_a_start_beyond_the_clip_is_refused_when_called() -> None:
    """Not at the first `next`."""
    with pytest.raises(FrameError, match="start_frame_idx: expected a frame of the clip, got 10 of 10"):
        predictor().propagate_in_video(state_with((0, 1, LEFT)), 10)


def test_import_stmemory_leaves_it_alone() -> None:
    """Whoever does not use SAM 2's names does not load them."""
    code = "import sys, stmemory; sys.exit(any(name in sys.modules for name in ('stmemory.sam2', 'stmemory.session')))"
    assert 0 == subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode


def test_a_negative_number_of_frames_is_refused() -> None:
    """It would give nothing in silence."""
    with pytest.raises(OptionError, match="reverse=True goes back"):
        predictor().propagate_in_video(state_with((0, 1, LEFT)), 3, -2)


def test_indices_may_be_numpys() -> None:
    """And come back as Python's."""
    state = predictor().init_state(FRAMES)
    output = predictor().add_new_mask(state, np.int64(7), np.int64(3), LEFT)
    found = [output, *predictor().propagate_in_video(state), *predictor().propagate_in_video(state, np.int64(8))]
    assert [(7, int), (7, int), (8, int), (9, int), (8, int), (9, int)] == [
        (frame_idx, type(frame_idx)) for frame_idx, _, _ in found
    ]


def test_a_session_answers_frames_in_any_order() -> None:
    """Whatever was asked before, a frame's masks are those of its stream."""
    session = ClipSession(tiny_predictor(), FRAMES)
    session.give(2, 5, LEFT)
    forward, back = alone(2, {2: LEFT * 5}), alone(2, {2: LEFT * 5}, way=-1)
    for index in (9, 4, 4, 5, 2):
        found = session.segment(index)
        assert (
            found is not None
            and index == found.frame_index
            and torch.equal(forward[index].probabilities, found.probabilities)
        )
    for index in (1, 0, 2):
        found = session.segment(index, backwards=True)
        assert found is not None and torch.equal(back[index].probabilities, found.probabilities)
    assert (None, None) == (session.segment(1), session.segment(3, backwards=True))
    with pytest.raises(FrameError, match="frame 12: expected a frame of the clip, which has 10 frames, got none"):
        session.segment(12)
    with pytest.raises(FrameError, match="frame -1: expected"):
        session.segment(-1)


@pytest.mark.parametrize("object_id", [0, -1, 1.5, "kite", True, 2**31])
def test_a_session_takes_whole_ids_above_0(object_id: int) -> None:
    """Others are refused when they are given, and leave the session as it was."""
    session = ClipSession(tiny_predictor(), FRAMES)
    with pytest.raises(MaskError, match="object_id: expected a whole number from 1"):
        session.give(0, object_id, LEFT)
    assert [] == session.given_frames
