"""Points and boxes in jobs, on the command line, in sessions and under SAM 2's names; the masks are made by a prompter
of these tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import HEIGHT, WIDTH, boxes, clip, new_predictor, tiny_network
from torch import Tensor

from stmemory.cli import main
from stmemory.cli.options import Place, _place
from stmemory.errors import FrameError, MaskError, OptionError, StmemoryError
from stmemory.io.palette import read_palette_png, write_palette_png
from stmemory.jobs.folder import TrackJob
from stmemory.jobs.track import Stop, describe_job, run_job
from stmemory.options import TrackingOptions
from stmemory.postprocess import mask_logits
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt
from stmemory.result import Segmentation
from stmemory.sam2 import NOTHING, InferenceState, VideoPredictor
from stmemory.session import ClipSession

FRAMES = clip(8)
CLICK, BOX = Prompt(3, points=[(20, 24)]), Prompt(9, box=(40, 10, 60, 30))
REFINED = Prompt(3, points=[(20, 24), (24, 20)], not_points=[(12, 24)])
LEFT = boxes(1, 2) == 1


class Squares:
    """A prompter whose mask is the box, and the square around each point less those around the others; it remembers
    what it was told of the objects as they were found before."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def masks(self, frame: Tensor, prompts: Sequence[Prompt], last: Mapping[int, Tensor]) -> Tensor:
        self.seen.append(sorted(last))
        made = torch.zeros(len(prompts), *frame.shape[1:])
        for mask, prompt in zip(made, prompts, strict=True):
            if prompt.box is not None:
                left, top, right, bottom = map(int, prompt.box)
                mask[top:bottom, left:right] = 1
            for places, value in ((prompt.points, 1), (prompt.not_points, 0)):
                for x, y in places:
                    mask[max(0, int(y) - 6) : int(y) + 6, max(0, int(x) - 6) : int(x) + 6] = value
        return made


def predictor(prompter: Squares | None = None) -> VOSPredictor:
    """The tiny network with that prompter; every frame in which an object is seen is memorised."""
    options = TrackingOptions(reach=None, write_gate=0.0, memory_every=1, enlarge=1)
    return VOSPredictor(tiny_network(), options=options, prompter=prompter or Squares())


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """The frames of the clip, as images."""
    (tmp_path / "clip").mkdir()
    for index, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / "clip" / f"{index:05d}.png")
    return tmp_path / "clip"


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """A mask of object 5."""
    write_palette_png(tmp_path / "mask.png", np.where(LEFT, 5, 0).astype(np.int32))
    return tmp_path / "mask.png"


def found(job: TrackJob) -> list[list[list[int]]]:
    """The ids of all masks that a job left."""
    return [read_palette_png(job.mask_path(index)).tolist() for index in range(len(FRAMES))]


def test_a_job_gives_prompts_and_masks_to_their_frames(frames: Path, mask: Path, tmp_path: Path) -> None:
    """As a stream gets them: one object by a click and one by a mask in the first frame, a box in a later one."""
    job = TrackJob(frames, mask, tmp_path / "out", prompts={0: [CLICK], 4: [BOX]})
    assert run_job(predictor(), job).finished
    stream = predictor().start(FRAMES[0], LEFT * 5, prompts=CLICK)
    expected = [stream.last.ids.tolist()]
    expected += [stream.step(FRAMES[t], prompts=BOX if t == 4 else None).ids.tolist() for t in range(1, len(FRAMES))]
    assert expected == found(job)
    assert {3, 5} == {value for row in found(job)[0] for value in row} - {0}


def test_a_job_by_prompts_alone_says_what_it_understood(frames: Path, mask: Path, tmp_path: Path) -> None:
    """Objects with their points and boxes, beside masks; later frames with their numbers."""
    alone = describe_job(TrackJob(frames, None, tmp_path / "out", prompts=[REFINED, BOX]), device="cpu")
    assert "clip: 8 frames of 64 x 48, cpu; prompts: 2 objects: 3 (3 points), 9 (a box)" == alone
    both = describe_job(TrackJob(frames, mask, tmp_path / "out", prompts={2: [CLICK]}), device="cpu")
    assert "mask.png at frame 0: 1 object: 5" in both and "prompts at frame 2: 1 object: 3 (1 point)" in both


@pytest.mark.parametrize("stop_at", [1, 5])
def test_a_stopped_job_goes_on_to_the_same_masks(frames: Path, tmp_path: Path, stop_at: int) -> None:
    """Stopped before and after a later prompt; the points may be named in another order."""
    given = {0: [REFINED], 3: [BOX]}
    whole = TrackJob(frames, None, tmp_path / "whole", prompts=given)
    run_job(predictor(), whole)
    job, stop = TrackJob(frames, None, tmp_path / "out", prompts=given), Stop()

    def tell(part: str, done: int) -> None:
        stop.wanted = done >= stop_at

    assert not run_job(predictor(), job, stop=stop, on_frame=tell).finished
    turned = Prompt(3, points=REFINED.points[::-1], not_points=REFINED.not_points)
    again = TrackJob(frames, None, job.out, prompts={0: [turned], 3: [BOX]})
    assert run_job(predictor(), again, resume=True).finished
    assert found(whole) == found(job)


OTHERS = {
    "moved": ({0: [Prompt(3, points=[(21, 24)])], 2: [BOX]}, "object 3"),
    "a point more": ({0: [Prompt(3, points=[(20, 24), (22, 24)])], 2: [BOX]}, "object 3"),
    "as a box": ({0: [Prompt(3, box=(14, 18, 26, 30))], 2: [BOX]}, "object 3"),
    "another object": ({0: [Prompt(4, points=[(20, 24)])], 2: [BOX]}, "object 4 was None"),
    "one more": ({0: [CLICK, Prompt(4, points=[(50, 40)])], 2: [BOX]}, "object 4 was None"),
    "another later one": ({0: [CLICK], 2: [Prompt(9, box=(40, 10, 60, 31))]}, "prompted of frame 2"),
    "no later one": ({0: [CLICK]}, "prompted of frame 2"),
}


@pytest.mark.parametrize(("prompts", "told"), OTHERS.values(), ids=OTHERS)
def test_another_prompt_is_another_job(
    frames: Path, tmp_path: Path, prompts: dict[int, list[Prompt]], told: str
) -> None:
    """A run is resumed with what was prompted, of the frames that are done; nothing is changed by a refusal."""
    job = TrackJob(frames, None, tmp_path / "out", prompts={0: [CLICK], 2: [BOX]}, frames=4)
    run_job(predictor(), job)
    record = job.record.read_bytes()
    with pytest.raises(OptionError, match=told):
        run_job(predictor(), TrackJob(frames, None, job.out, prompts=prompts), resume=True)
    assert record == job.record.read_bytes()


def test_a_mask_in_place_of_prompts_is_another_job(frames: Path, mask: Path, tmp_path: Path) -> None:
    """And the other way round; prompts of frames to come may be added."""
    run_job(predictor(), TrackJob(frames, None, tmp_path / "out", prompts=[CLICK], frames=4))
    with pytest.raises(OptionError, match="first mask was .*object 3 was"):
        run_job(predictor(), TrackJob(frames, mask, tmp_path / "out"), resume=True)
    more = TrackJob(frames, None, tmp_path / "out", prompts={0: [CLICK], 6: [BOX]})
    assert run_job(predictor(), more, resume=True).finished
    assert any(9 in row for row in found(more)[6])


def test_a_record_of_before_there_were_prompts_is_resumed(frames: Path, mask: Path, tmp_path: Path) -> None:
    """A job with masks alone goes on; with prompts it is another."""
    job = TrackJob(frames, mask, tmp_path / "out", frames=4)
    run_job(predictor(), job)
    record = json.loads(job.record.read_text())
    job.record.write_text(json.dumps({name: fact for name, fact in record.items() if "prompts" not in name}))
    with pytest.raises(OptionError, match="object 3 was None"):
        run_job(predictor(), TrackJob(frames, mask, job.out, prompts=[CLICK]), resume=True)
    assert run_job(predictor(), TrackJob(frames, mask, job.out), resume=True).finished


BAD = {
    "neither": (None, {}, OptionError, "masks or prompts of frames from 0 on"),
    "outside": (None, {0: [Prompt(3, points=[(WIDTH + 1, 3)])]}, MaskError, "outside the frame"),
    "outside, later": (None, {0: [CLICK], 2: [Prompt(3, box=(0, 0, 9, HEIGHT + 1))]}, MaskError, "outside the frame"),
    "both": ("mask.png", {0: [Prompt(5, points=[(3, 3)])]}, MaskError, r"\[5\] are in the mask of frame 0 too"),
    "beyond the end": (None, {0: [CLICK], 8: [BOX]}, MaskError, "from 0 to 7, got one of frame 8"),
    "before the start": (None, {-1: [CLICK]}, OptionError, "from 0 on"),
    "two of one": (None, {0: [CLICK, REFINED]}, MaskError, r"several of \[3\]"),
}


@pytest.mark.parametrize(("name", "prompts", "kind", "told"), BAD.values(), ids=BAD)
def test_what_cannot_be_tracked_is_told_before_weights_are_loaded(
    frames: Path,
    mask: Path,
    tmp_path: Path,
    name: str | None,
    prompts: dict[int, list[Prompt]],
    kind: type[StmemoryError],
    told: str,
) -> None:
    """By the description of the job, which runs no network."""
    with pytest.raises(kind, match=told):
        describe_job(
            TrackJob(frames, name and tmp_path / name, tmp_path / "out", prompts=prompts),
            device="cpu",
        )


def test_prompts_for_a_network_of_masks_alone_touch_nothing(frames: Path, tmp_path: Path) -> None:
    """Without a prompter the job ends before its folder is made, and says what would help."""
    with pytest.raises(OptionError, match="takes masks alone.*prompter="):
        run_job(new_predictor(scored=False), TrackJob(frames, None, tmp_path / "out", prompts=[CLICK]))
    assert not (tmp_path / "out").exists()


def test_what_a_prompter_does_not_find_names_its_frame(frames: Path, tmp_path: Path) -> None:
    """A later prompt without an answer ends the job there, with the masks before it."""
    nothing = Prompt(9, points=[(20, 24)], not_points=[(20, 24)])
    job = TrackJob(frames, None, tmp_path / "out", prompts={0: [CLICK], 5: [nothing]})
    report = run_job(predictor(), job)
    assert (5, False) == (report.frames, report.finished)
    assert r"frame 5: prompts: nothing was found of [9]" in str(report.error)


@pytest.mark.parametrize(
    ("flag", "text", "expected"),
    [
        ("--point", "7:320,180", Place(0, 7, (320.0, 180.0))),
        ("--not-point", "12:7:3.5,.5", Place(12, 7, (3.5, 0.5))),
        ("--box", "7:1,2,30,40.25", Place(0, 7, (1.0, 2.0, 30.0, 40.25))),
        ("--point", "7:-1,2", Place(0, 7, (-1.0, 2.0))),
    ],
    ids=["point", "later frame", "box", "left of the frame"],
)
def test_texts_of_points_and_boxes(flag: str, text: str, expected: Place) -> None:
    """ID:X,Y and ID:X0,Y0,X1,Y1, with FRAME: before it or without; numbers are checked against the frame later."""
    assert expected == _place(flag, text, frames=True)


MALFORMED = [
    *(
        "--point=7",
        "--point=7:3",
        "--point=7:3,4,5",
        "--point=3,4",
        "--point=a:3,4",
        "--point=7:3;4",
        "--point=7:nan,4",
    ),
    *("--not-point=7:3,", "--box=7:1,2,3", "--box=7:1,2,3,4,5", "--box=1,2,3,4", "--point=1:2:3:4,5", "--point="),
]


@pytest.mark.parametrize("flag", MALFORMED)
def test_malformed_points_and_boxes(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They exit with 2, and show what is well formed."""
    with pytest.raises(SystemExit) as caught:
        main(["track", "clip", "-o", "out", flag])
    assert 2 == caught.value.code
    said = capsys.readouterr().err
    assert f"argument {flag.split('=')[0]}: expected ID:X" in said and "such as 7:" in said and "FRAME:ID:X" in said


UNUSABLE = {
    "no area": (["--box", "7:5,5,5,9"], "x0 < x1 and y0 < y1"),
    "turned round": (["--box", "7:9,9,2,2"], "x0 < x1 and y0 < y1"),
    "outside": (["--point", "7:65,3"], "(65, 3), which is outside the frame"),
    "below 0": (["--point", "7:-1,3"], "(-1, 3), which is outside the frame"),
    "object 0": (["--point", "0:5,5"], "object_id from 1"),
    "only what it is not": (["--not-point", "7:5,5"], "expected a point of the object or a box"),
    "two boxes": (["--box", "7:1,1,5,5", "--box", "7:2,2,6,6"], "--box: expected one of an object in a frame, got 2"),
    "a prompter alone": (["--mask", "mask.png", "--prompter", "sam"], "--prompter: expected with --point or --box"),
    "no such prompter": (["--point", "7:5,5", "--prompter", "no/such/folder"], "no/such/folder"),
}


@pytest.mark.parametrize(("flags", "told"), UNUSABLE.values(), ids=UNUSABLE)
def test_points_and_boxes_that_cannot_be_used(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    """They exit with 2, are told, and leave no folder."""
    assert 2 == main(["track", str(frames), "-o", str(tmp_path / "out"), *flags])
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_run_needs_a_mask_or_prompts(frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither is named, with all that would do."""
    with pytest.raises(SystemExit) as caught:
        main(["track", str(frames)])
    assert 2 == caught.value.code
    assert "arguments are required: --mask, --point or --box, -o/--out" in capsys.readouterr().err


def same(one: Segmentation | None, other: Segmentation | None) -> bool:
    """Whether two results are equal bit for bit."""
    assert one is not None and other is not None
    return one.object_ids == other.object_ids and torch.equal(one.probabilities, other.probabilities)


def new_session(prompter: Squares | None = None) -> ClipSession:
    return ClipSession(predictor(prompter), FRAMES)


def test_a_session_gives_prompts_to_their_frames() -> None:
    """As a stream gets them, with masks in the same frames and others; a second time through as well."""
    session = new_session()
    session.give_prompts(2, CLICK)
    session.give(2, 5, LEFT)
    session.give_prompts(4, BOX)
    assert [2, 4] == session.given_frames and (CLICK, None, BOX) == (
        session.prompt(2, 3),
        session.prompt(2, 5),
        session.prompt(4, 9),
    )
    for _ in range(2):
        stream = predictor().start(FRAMES[2], LEFT * 5, prompts=CLICK)
        assert session.segment(1) is None and same(stream.last, session.segment(2))
        for t in range(3, 7):
            assert same(stream.step(FRAMES[t], prompts=BOX if t == 4 else None), session.segment(t))


def test_a_session_knows_the_answer_to_prompts_at_once() -> None:
    """Of a frame that was not segmented, from the frame alone; its masks belong to it; each is computed once."""
    prompter = Squares()
    session = new_session(prompter)
    session.give(0, 5, LEFT)
    session.give(4, 7, boxes(7) == 7)
    assert [] == prompter.seen
    session.give_prompts(4, CLICK)
    expected = predictor().start(FRAMES[4], boxes(7), prompts=CLICK).last
    for _ in range(2):
        known = session.known(4)
        assert same(expected, known) and known is not None and 4 == known.frame_index
    assert [[]] == prompter.seen
    session.take_back(4, 3)
    after = session.known(4)
    assert after is not None and (7,) == after.object_ids and session.known(5) is None


def test_the_frame_that_was_segmented_last_is_corrected_where_it_is() -> None:
    """As by `VOSStream.correct`; the next frame goes on from there, and a new object enters there."""
    session, stream = new_session(), predictor().start(FRAMES[0], LEFT * 3)
    session.give(0, 3, LEFT)
    session.segment(2)
    stream.step(FRAMES[1]), stream.step(FRAMES[2])
    for prompt in (REFINED, BOX):
        session.give_prompts(2, prompt)
        assert same(stream.correct(prompts=prompt), session.known(2))
    assert same(stream.step(FRAMES[3]), session.segment(3))


def test_a_correction_of_a_passed_frame_is_one_when_it_is_gone_through_again() -> None:
    """A tracked object is found first and then corrected, by what was found of it; in a frame that was never segmented
    it is not."""
    prompter = Squares()
    session = new_session(prompter)
    session.give(0, 3, LEFT)
    session.segment(5)
    session.give_prompts(3, CLICK)
    assert [[3]] == prompter.seen  # the prompter was shown what was found of object 3
    stream = predictor().start(FRAMES[0], LEFT * 3)
    for t in range(1, 4):
        stream.step(FRAMES[t])
    stream.correct(prompts=CLICK)
    assert same(stream.last, session.known(3))
    assert same(stream.step(FRAMES[4]), session.segment(4))
    ahead = new_session()
    ahead.give(0, 3, LEFT)
    ahead.give_prompts(3, CLICK)
    stream = predictor().start(FRAMES[0], LEFT * 3)
    for t in range(1, 5):
        assert same(stream.step(FRAMES[t], prompts=CLICK if t == 3 else None), ahead.segment(t))


class Erasers(Squares):
    """Squares on top of what was found before."""

    def masks(self, frame: Tensor, prompts: Sequence[Prompt], last: Mapping[int, Tensor]) -> Tensor:
        made = super().masks(frame, prompts, last)
        for mask, prompt in zip(made, prompts, strict=True):
            if prompt.object_id in last:
                mask += (last[prompt.object_id] >= 0.5).float()
                for x, y in prompt.not_points:
                    mask[max(0, int(y) - 6) : int(y) + 6, max(0, int(x) - 6) : int(x) + 6] = 0
        return made.clamp(max=1)


def test_what_a_tracked_object_is_not_is_enough_to_correct_it() -> None:
    """Of a frame that was segmented, last or before; it says nothing where the object is not tracked."""
    session, wrong = new_session(Erasers()), Prompt(3, not_points=[(12, 24)])
    session.give(0, 3, LEFT)
    with pytest.raises(MaskError, match="does not say where it is"):
        session.give_prompts(4, wrong)
    session.segment(4)
    stream = predictor(Erasers()).start(FRAMES[0], LEFT * 3)
    for t in range(1, 5):
        stream.step(FRAMES[t])
    expected = stream.correct(prompts=wrong)
    for _ in range(2):  # where it is, and gone through again
        session.give_prompts(4, wrong)
        assert same(expected, session.known(4))
        session.segment(6)
    with pytest.raises(MaskError, match="does not say where it is"):
        session.give_prompts(0, wrong)
    backwards = session.segment(0, backwards=True)
    assert backwards is not None and bool(torch.equal(torch.from_numpy(LEFT), backwards.ids == 3))


def test_backwards_a_session_prompts_too() -> None:
    """From the latest frame down, prompts of frames on the way among them."""
    session = new_session()
    session.give_prompts(6, CLICK)
    session.give_prompts(3, BOX)
    stream = predictor().start(FRAMES[6], prompts=CLICK)
    for t in range(5, 0, -1):
        assert same(stream.step(FRAMES[t], prompts=BOX if t == 3 else None), session.segment(t, backwards=True))
    session.give_prompts(5, REFINED)  # passed: corrected on the same way
    stream = predictor().start(FRAMES[6], prompts=CLICK)
    stream.step(FRAMES[5])
    assert same(stream.correct(prompts=REFINED), session.known(5))


def test_what_is_said_last_of_an_object_counts() -> None:
    """A mask in place of prompts, prompts in place of a mask or of an absence, and these in place of prompts."""
    session = new_session()
    session.give_prompts(0, CLICK)
    session.give(0, 3, LEFT)
    assert session.prompt(0, 3) is None and same(predictor().start(FRAMES[0], LEFT * 3).last, session.segment(0))
    session.give_prompts(0, REFINED)
    session.segment(1)
    assert REFINED == session.prompt(0, 3)
    assert same(predictor().start(FRAMES[0], prompts=REFINED).last, session.segment(0))
    session.give_prompts(4, CLICK)
    session.mark_absent(4, 3)
    assert session.prompt(4, 3) is None
    gone = session.segment(4)
    assert gone is not None and not gone.present[3]
    session.give_prompts(4, CLICK)
    back = session.segment(4)
    assert back is not None and back.present[3]
    session.give(4, 3, LEFT & False)
    gone = session.segment(4)
    assert gone is not None and not gone.present[3] and [0] == session.given_frames


def test_an_object_by_prompts_is_removed_with_them() -> None:
    """`remove` names its frames, and the others go on; `take_back` leaves the object where it was said elsewhere."""
    session = new_session()
    session.give_prompts(0, CLICK)
    session.give_prompts(0, BOX)
    session.give_prompts(3, CLICK)
    session.segment(2)
    session.take_back(3, 3)
    assert [0] == session.given_frames
    assert [0] == session.remove(3)
    result = session.segment(3)
    assert result is not None and (9,) == result.object_ids
    session.clear()
    assert [] == session.given_frames and session.known(0) is None


NOWHERE = Prompt(3, points=[(20, 24)], not_points=[(20, 24)])  # of which `Squares` finds nothing


@pytest.mark.parametrize("where", ["before", "at", "passed", "ahead"])
def test_prompts_that_cannot_be_answered_change_nothing(where: str) -> None:
    """Wherever the stream is, the session answers as it did."""
    session, twin = new_session(), new_session()
    for one in (session, twin):
        one.give_prompts(1, CLICK)
        one.mark_absent(5, 3)
        one.segment(3)
    frame_index = {"before": 0, "at": 3, "passed": 2, "ahead": 5}[where]
    with pytest.raises(MaskError, match=r"nothing was found of \[3\]"):
        session.give_prompts(frame_index, NOWHERE)
    assert [1] == session.given_frames
    for t in (3, 4, 5, 6, 2):
        assert same(twin.segment(t), session.segment(t))


SESSION_ERRORS = {
    "frame": (lambda s: s.give_prompts(8, CLICK), FrameError, "frame 8"),
    "outside": (lambda s: s.give_prompts(0, Prompt(3, points=[(0, HEIGHT + 1)])), MaskError, "outside the frame"),
    "several": (lambda s: s.give_prompts(0, [CLICK, BOX]), MaskError, "expected one Prompt"),
    "nothing said": (lambda s: s.segment(0), MaskError, "a mask or prompts"),
    "absent": (lambda s: s.mark_absent(0, 3), MaskError, "in another frame than 0, or prompts"),
}


@pytest.mark.parametrize(("call", "kind", "told"), SESSION_ERRORS.values(), ids=SESSION_ERRORS)
def test_errors_of_a_session(call: Callable[[ClipSession], object], kind: type[StmemoryError], told: str) -> None:
    """What cannot be done is told, and nothing is kept of it."""
    session = new_session()
    with pytest.raises(kind, match=told):
        call(session)
    assert [] == session.given_frames


def test_a_session_of_masks_alone_refuses_prompts() -> None:
    """When they are given, wherever the stream is."""
    session = ClipSession(new_predictor(scored=False), FRAMES)
    for _ in range(2):
        with pytest.raises(OptionError, match="takes masks alone"):
            session.give_prompts(0, CLICK)
        session.give(0, 5, LEFT)
        session.segment(0)
    assert [0] == session.given_frames and session.prompt(0, 3) is None


def shim() -> tuple[VideoPredictor, InferenceState]:
    made = VideoPredictor(predictor())
    return made, made.init_state(FRAMES)


def test_points_and_a_box_under_the_names_of_sam2() -> None:
    """The answer is handed out at once, for all objects of the frame, and propagation gives what `track` gives."""
    video, state = shim()
    first = video.add_new_points_or_box(state, 0, "a", points=np.array([[20, 24]], np.float32), labels=[1])
    frame_idx, obj_ids, logits = video.add_new_points_or_box(state, frame_idx=0, obj_id="b", box=[40, 10, 60, 30])
    assert (0, ["a"], (1, 1, HEIGHT, WIDTH)) == (first[0], first[1], tuple(first[2].shape))
    assert (0, ["a", "b"], (2, 1, HEIGHT, WIDTH)) == (frame_idx, obj_ids, tuple(logits.shape))
    prompts = [Prompt(1, points=[(20, 24)]), Prompt(2, box=(40, 10, 60, 30))]
    results = list(predictor().track(FRAMES, prompts=prompts))
    outputs = list(video.propagate_in_video(state))
    assert torch.equal(mask_logits(results[0].probabilities), logits[:, 0])
    assert len(results) == len(outputs)
    for result, output in zip(results, outputs, strict=True):
        assert torch.equal(mask_logits(result.probabilities), output[2][:, 0])


def test_objects_that_a_frame_says_nothing_of_are_unknown_there() -> None:
    """A click on a frame that was not tracked yet answers for its own objects alone."""
    video, state = shim()
    video.add_new_points_or_box(state, 0, 1, [[20, 24]], [1])
    _, obj_ids, logits = video.add_new_points(state, 5, 2, [[50, 20]], [1])
    assert [1, 2] == obj_ids and bool((logits[0] == NOTHING).all()) and bool((logits[1] > 0).any())


WAYS: dict[str, tuple[list[dict[str, object]], Prompt]] = {
    "arrays": (
        [{"points": np.array([[20.0, 24.0], [5, 6]]), "labels": np.array([1, 0], np.int32)}],
        Prompt(1, [(20, 24)], [(5, 6)]),
    ),
    "tensors with a batch": (
        [{"points": torch.tensor([[[20.0, 24.0]]]), "labels": torch.tensor([[1]])}],
        Prompt(1, [(20, 24)]),
    ),
    "shares": (
        [{"points": [[0.25, 0.5]], "labels": [1], "normalize_coords": False, "box": [0.125, 0.25, 0.5, 1.0]}],
        Prompt(1, [(16, 24)], box=(8, 12, 32, 48)),
    ),
    "a box of two corners": ([{"box": torch.tensor([[40, 10], [60, 30]])}], Prompt(1, box=(40, 10, 60, 30))),
    "cleared": (
        [{"points": [[20, 24]], "labels": [1]}, {"points": [[22, 24]], "labels": [1]}],
        Prompt(1, [(22, 24)]),
    ),
    "added": (
        [
            {"points": [[20, 24]], "labels": [1], "box": [10, 10, 30, 30]},
            {"points": [[28, 12]], "labels": [0], "clear_old_points": False},
            {"points": [[22, 24]], "labels": [1], "clear_old_points": False},
        ],
        Prompt(1, [(20, 24), (22, 24)], [(28, 12)], (10, 10, 30, 30)),
    ),
    "added to nothing": ([{"points": [[20, 24]], "labels": [1], "clear_old_points": False}], Prompt(1, [(20, 24)])),
}


@pytest.mark.parametrize(("calls", "expected"), WAYS.values(), ids=WAYS)
def test_points_in_the_ways_of_sam2(calls: list[dict[str, object]], expected: Prompt) -> None:
    """What a script gives, and the prompt that it is."""
    video, state = shim()
    for call in calls:
        video.add_new_points_or_box(state, 0, "it", **call)
    assert expected == state.session.prompt(0, 1)


def test_points_replace_a_mask_and_a_mask_replaces_points() -> None:
    """As in SAM 2, whether old points are to be cleared or not."""
    video, state = shim()
    video.add_new_mask(state, 0, 7, LEFT)
    video.add_new_points_or_box(state, 0, 7, [[50, 20]], [1], clear_old_points=False)
    assert Prompt(1, [(50, 20)]) == state.session.prompt(0, 1)
    _, _, logits = video.add_new_mask(state, 0, 7, LEFT)
    assert state.session.prompt(0, 1) is None and torch.equal(torch.from_numpy(LEFT), logits[0, 0] > 0)
    cleared = video.clear_all_prompts_in_frame(state, 0, 7)
    assert cleared is not None and bool((cleared[2] == NOTHING).all())


def test_a_click_after_propagation_refines_and_the_next_frame_follows() -> None:
    """On a frame that was passed; it is found again and corrected, and propagation goes on from it."""
    video, state = shim()
    video.add_new_mask(state, 0, 7, LEFT)
    list(video.propagate_in_video(state))
    _, _, logits = video.add_new_points_or_box(state, 4, 7, [[20, 24]], [1])
    stream = predictor().start(FRAMES[0], LEFT * 1)
    for t in range(1, 5):
        stream.step(FRAMES[t])
    assert torch.equal(mask_logits(stream.correct(prompts=Prompt(1, [(20, 24)])).probabilities), logits[:, 0])
    _, _, logits = next(video.propagate_in_video(state, start_frame_idx=5))
    assert torch.equal(mask_logits(stream.step(FRAMES[5]).probabilities), logits[:, 0])


SHIM_ERRORS: dict[str, tuple[dict[str, object], str]] = {
    "nothing": ({}, "expected points with labels, or a box"),
    "no labels": ({"points": [[1, 2]]}, "got one of the two"),
    "no points": ({"labels": [1]}, "got one of the two"),
    "too few labels": ({"points": [[1, 2], [3, 4]], "labels": [1]}, r"got \[2, 2\] and \[1\]"),
    "three numbers": ({"points": [[1, 2, 3], [3, 4, 5]], "labels": [1, 1, 1]}, r"got \[2, 3\]"),
    "corners": ({"points": [[1, 2], [3, 4]], "labels": [2, 3]}, "a box goes to box="),
    "a box later": (
        {"box": [1, 2, 3, 4], "clear_old_points": False},
        "box: expected clear_old_points=True",
    ),
    "three sides": ({"box": [1, 2, 3]}, "expected 4 numbers"),
    "no area": ({"box": [5, 5, 5, 9]}, "x0 < x1 and y0 < y1"),
    "words": ({"points": [["a", "b"]], "labels": [1]}, "points: expected numbers"),
    "outside": ({"points": [[100, 2]], "labels": [1]}, "outside the frame"),
    "px as shares": ({"points": [[20, 24]], "labels": [1], "normalize_coords": False}, "outside the frame"),
    "none of it": ({"points": [[1, 2]], "labels": [0]}, "expected a point of the object"),
}


@pytest.mark.parametrize(("call", "told"), SHIM_ERRORS.values(), ids=SHIM_ERRORS)
def test_points_that_cannot_be_used(call: dict[str, object], told: str) -> None:
    """They are told, and no object is named by them."""
    video, state = shim()
    with pytest.raises(MaskError, match=told):
        video.add_new_points_or_box(state, 0, 7, **call)
    names: list[Hashable] = []
    assert (names, []) == (state.obj_ids, state.session.given_frames)
