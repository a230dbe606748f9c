"""Memory inspection: the weights of the read, what happened to slots, what is kept, what is drawn, and the command."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import HEIGHT, WIDTH, boxes, clip, new_predictor, tiny_predictor
from torch import Tensor, nn

from stmemory.cli import main
from stmemory.errors import BankError, FrameError, MaskError, OptionError, ShapeError
from stmemory.evaluation import render_scene
from stmemory.inspection import Inspector, inspect, memory_keys, slot_attention
from stmemory.inspection.history import COLUMNS, KINDS, OUTCOMES, Change, History, RowState, compare, row_state
from stmemory.inspection.inspector import MOST_OBJECTS
from stmemory.inspection.moments import cells_of, interesting_points
from stmemory.inspection.timeline import draw_timeline
from stmemory.io.frames import WorkingSize
from stmemory.io.palette import write_palette_png
from stmemory.memory import MemoryBank, SlotInfo, SpaceTimeRead, space_time_read
from stmemory.predictor import VOSPredictor
from stmemory.result import Segmentation
from stmemory.stream import VOSStream

ROWS, SLOTS, CHANNELS, CELLS, QUERIES = 2, 3, 4, 5, 6
DIFFERENTLY_FULL = torch.tensor([[True, True, False], [True, False, False]])


def new_inspector(predictor: VOSPredictor, **options: object) -> Inspector:
    """Of a new stream."""
    return Inspector(VOSStream(predictor.network, predictor.options), **options)


def run(inspector: Inspector, frames: int, *ids: int) -> Inspector:
    """Take it through a random clip."""
    for index, frame in enumerate(clip(frames)):
        inspector.step(frame, None if index else boxes(*ids))
    return inspector


def slowly(query: Tensor, keys: Tensor, valid: Tensor, affinity: str, scale: float, top_k: int | None) -> Tensor:
    """The weights `[m, K, n]` of one row, a query cell and a score at a time."""
    weights = torch.zeros(query.shape[1], *valid.shape, keys.shape[2], dtype=query.dtype)
    for m in range(query.shape[1]):
        scores = {}
        for k in range(len(valid)):
            for n in range(keys.shape[2]):
                q, key = query[:, m].tolist(), keys[k, :, n].tolist()
                near = sum(a * b for a, b in zip(q, key, strict=True))
                far = sum((a - b) ** 2 for a, b in zip(q, key, strict=True))
                if valid[k]:
                    scores[k, n] = scale * (near if affinity == "dot" else -far)
        best = sorted(scores, key=lambda place: -scores[place])[:top_k]
        total = sum(math.exp(scores[place]) for place in best)
        for k, n in best:
            weights[m, k, n] = math.exp(scores[k, n]) / total
    return weights


@pytest.mark.parametrize("top_k", [None, 1, 3, SLOTS * CELLS, 1000])
@pytest.mark.parametrize("scale", [None, 1.0], ids=["scaled", "eq13"])
@pytest.mark.parametrize("affinity", ["dot", "l2"])
def test_attention_is_that_of_the_read(affinity: str, scale: float | None, top_k: int | None) -> None:
    """The weights are those of the loops, and the values weighted with them are what the read recalls."""
    sizes = ((CHANNELS, QUERIES), (SLOTS, CHANNELS, CELLS), (SLOTS, 7, CELLS))
    query, keys, values = (torch.randn(ROWS, *size).double() for size in sizes)
    how = {"affinity": affinity, "scale": scale, "top_k": top_k}
    actual = slot_attention(query, keys, DIFFERENTLY_FULL, **how)
    for row in range(ROWS):
        known = top_k if top_k is None or top_k < SLOTS * CELLS else None
        expected = slowly(
            query[row], keys[row], DIFFERENTLY_FULL[row], affinity, scale or 1 / math.sqrt(CHANNELS), known
        )
        torch.testing.assert_close(expected, actual[row])
    recalled = torch.einsum("bmkn,bkcn->bcm", actual, values)
    torch.testing.assert_close(space_time_read(query, keys, values, DIFFERENTLY_FULL, **how), recalled)
    cells = (torch.rand(ROWS, SLOTS, CELLS) > 0.3) & DIFFERENTLY_FULL[:, :, None]  # parts of templates
    of_cells = slot_attention(query, keys, cells, **how)
    assert 0.0 == float(of_cells.transpose(1, 2).masked_select(~cells[:, :, None]).abs().sum())
    recalled = torch.einsum("bmkn,bkcn->bcm", of_cells, values)
    torch.testing.assert_close(space_time_read(query, keys, values, cells, **how), recalled)


def test_attention_of_extremes() -> None:
    """Scores of any size give no NaN, empty slots count for nothing whatever they hold, and a row without a slot gets
    zeros."""
    query, keys = torch.full((1, CHANNELS, QUERIES), 1e6), torch.full((ROWS, SLOTS, CHANNELS, CELLS), -1e6)
    keys[:, 2] = torch.nan
    valid = torch.tensor([[True, True, False], [False, False, False]])
    weights = slot_attention(query, keys, valid)

    torch.testing.assert_close(torch.full((QUERIES, 2, CELLS), 0.1), weights[0, :, :2])
    assert 0.0 == float(weights[0, :, 2].abs().sum()) == float(weights[1].abs().sum())


def test_attention_needs_shapes_that_fit() -> None:
    """What does not fit is told with its shapes."""
    with pytest.raises(ShapeError, match=r"\(1, 4, 6\)"):
        slot_attention(torch.rand(1, CHANNELS, QUERIES), torch.rand(ROWS, SLOTS, 9, CELLS), DIFFERENTLY_FULL)


@pytest.mark.parametrize("shared", [True, False], ids=["keys-of-the-bank", "keys-of-the-read"])
def test_memory_keys_are_those_of_the_read(shared: bool) -> None:
    """With these keys the weights times the read's values are what the read recalls of a bank."""
    read = SpaceTimeRead(nn.Conv2d(6, CHANNELS, 1), nn.Conv2d(6, 7, 1))
    bank = MemoryBank(SLOTS, key=read.key if shared else None)
    with torch.no_grad():
        with pytest.raises(BankError, match="write"):
            memory_keys(read, bank)
        for _ in range(2):
            bank.write(torch.rand(ROWS, 6, 2, 3))
        query = torch.rand(1, CHANNELS, 2, 3)
        weights = slot_attention(query.flatten(2), memory_keys(read, bank).flatten(3), bank.valid)
        values = read.value(bank.templates.flatten(0, 1)).view(ROWS, SLOTS, 7, 6)
        recalled = torch.einsum("bmkn,bkcn->bcm", weights, values).view(ROWS, 7, 2, 3)
        torch.testing.assert_close(read(query, bank), recalled)


class Told(MemoryBank):
    """A bank of one row, and what each write did to it, told by comparing before and after."""

    def tell(self, frame: int, *, pinned: bool = False, provisional: bool = False) -> Change:
        """Write a random template."""
        before = row_state(self, 0)
        self.write(torch.rand(1, 4, 3, 3), frame=frame, pinned=pinned, provisional=provisional)
        return compare(before, row_state(self, 0), frame=frame)


def test_changes_of_a_queue() -> None:
    """Free slots fill; then the oldest that is not pinned is dropped."""
    bank = Told(3, policy="drop")
    told = [bank.tell(frame, pinned=frame == 0) for frame in range(5)]

    assert [("pinned", 0), ("stored", 1), ("stored", 2), ("stored", 1), ("stored", 2)] == [
        (c.outcome, c.slot) for c in told
    ]
    assert [None, None, None, "dropped", "dropped"] == [change.fate for change in told]
    assert [1, 2] == [change.left.frame for change in told if change.left is not None]


def test_changes_of_distillation() -> None:
    """Rule A fuses what goes into all others that are not pinned; input to memory fuses the new one and stores
    nothing."""
    bank = Told(4, policy="A")
    *_, last = (bank.tell(frame, pinned=frame == 0) for frame in range(5))
    assert ("stored", 1, "fused", (2, 3)) == (last.outcome, last.slot, last.fate, last.into)
    bank = Told(3, policy="input_to_memory")
    *_, last = (bank.tell(frame, pinned=frame == 0) for frame in range(4))
    assert ("distilled", None, None, (1, 2)) == (last.outcome, last.slot, last.fate, last.into)


def test_changes_however_often_frames_were_fused() -> None:
    """Rule A fuses each frame into a slot in more and more ways; changes are told, and frames counted once, all the
    same."""
    bank, history = Told(4, policy="A"), History(4, first=0)
    for frame in range(200):
        change = bank.tell(frame, pinned=frame == 0)
        history.add(change, row_state(bank, 0))
        if frame > 4:
            assert ("stored", "fused", 2) == (change.outcome, change.fate, len(change.into))
    assert 1 == history.inside.max()
    assert [1, 1, 197, 197] == sorted(history.inside.sum(1).tolist())  # the first, the newest, and two with all but two


def test_changes_between_commits() -> None:
    """A provisional template gives way to the next, which is told as replaced, not as dropped."""
    bank = Told(3)
    told = [bank.tell(0, pinned=True), *(bank.tell(frame, provisional=frame % 3 != 0) for frame in (1, 2, 3))]
    assert ["pinned", "provisional", "provisional", "stored"] == [change.outcome for change in told]
    assert [None, None, "replaced", "replaced"] == [change.fate for change in told]


def test_changes_by_hand() -> None:
    """A slot that was emptied or unpinned is told, and a moment without a change has the outcome it is given."""
    bank = Told(3)
    for frame in range(3):
        bank.tell(frame, pinned=frame == 0)
    before = row_state(bank, 0)
    assert Change(3, "gate") == compare(before, row_state(bank, 0), frame=3, missed="gate")
    bank.drop(2)
    bank.unpin(0)
    assert Change(3, "unwritten", unpinned=(0,), freed=(2,)) == compare(before, row_state(bank, 0), frame=3)


def slot(number: int, frame: int, **more: int) -> SlotInfo:
    """A slot's record."""
    known = {"age": 0, "pinned": False, "frames_inside": 1, "fused_frames": (), **more}
    return SlotInfo(slot=number, frame=frame, **known)


@pytest.mark.parametrize("frames", [10, COLUMNS, COLUMNS + 1, 5000], ids=str)
def test_history_keeps_all_in_the_same_bytes(frames: int) -> None:
    """However long the video, no write, fusion or frame inside is lost, and the bytes stay equal."""
    history = History(2, first=0)
    held = history.nbytes
    history.add(Change(0, "pinned", 0), RowState({0: slot(0, 0, pinned=True)}, (1, 0), False))
    for frame in range(1, frames):
        into = (1,) if frame % 2 else ()
        state = RowState({1: slot(1, frame)}, (1, frame), False)
        change = Change(frame, "stored", 0, slot(0, frame - 1), "fused", into)
        history.add(change, state, before=state, share=np.array([0.25, 0.75]))
    used = history.columns

    assert held == history.nbytes
    assert frames == history.outcomes.sum() == history.writes.sum() and used <= COLUMNS
    assert 0 == history.drops.sum()
    assert (frames // 2, frames - 1) == (history.fusions.sum(), history.reads.sum())
    assert [[1, frames // 2]] == [history.inside.sum(1).tolist()]  # slot 0 has the last frame, slot 1 every other one
    assert 1 == history.inside[0, used - 1]
    assert frames - 1 == history.origin[1, used - 1]
    np.testing.assert_allclose(0.75 * (frames - 1), history.kinds[list(KINDS).index("newest")].sum())


def test_history_refuses_the_past() -> None:
    """A frame before the first is an error."""
    with pytest.raises(OptionError, match="frame 5"):
        History(2, first=5).add(Change(4, "stored"), RowState({}, (0, 0), False))


def test_the_inspector_changes_nothing() -> None:
    """Masks and memory are those of a stream that nobody watches, bit for bit."""
    predictor = tiny_predictor(memory_size=3)
    inspector = new_inspector(predictor)
    plain = VOSStream(predictor.network, predictor.options)
    for index, frame in enumerate(clip(8)):
        mask = None if index else boxes(3, 9)
        expected, actual = plain.step(frame, mask), inspector.step(frame, mask)
        assert torch.equal(expected.probabilities, actual.probabilities)
    inspector.report()
    assert torch.equal(plain.bank.templates, inspector.stream.bank.templates)


def test_the_history_is_what_describe_tells() -> None:
    """After each frame the last column holds what `describe()` tells, and the frames inside are as many as it
    counts."""
    inspector = new_inspector(tiny_predictor(memory_size=3))
    for index, frame in enumerate(clip(12)):
        inspector.step(frame, None if index else boxes(3, 9))
        histories = inspector.report().histories
        for object_id, slots in inspector.stream.describe().items():
            for info in slots:
                history = histories[object_id]
                assert (info.frame, info.frames_inside) == (
                    history.origin[info.slot, index],
                    history.size[info.slot, index],
                )
                assert info.frames_inside == history.inside[info.slot].sum()
                assert 1 == history.inside[info.slot, info.frame]
                assert all(history.inside[info.slot, f] for f in info.fused_frames)


def test_shares_and_weights_are_of_one_read() -> None:
    """A frame's shares are the weights of its object's cells, and each sum to 1."""
    report = run(new_inspector(tiny_predictor(memory_size=3), at=[5]), 7, 3, 9).report()
    for object_id, history in report.histories.items():
        weights = report.weights(5, object_id)
        if history.reads[5]:
            np.testing.assert_allclose(weights.sum((1, 2)), history.share[:, 5], rtol=1e-5)
            np.testing.assert_allclose(1.0, history.kinds[:, 5].sum(), rtol=1e-5)
        np.testing.assert_allclose(1.0, report.weights(5, object_id, (0, 0)).sum(), rtol=1e-5)


def test_weights_are_what_the_stream_read() -> None:
    """The kept keys are those that the frame met: the weights times their values are what the network recalled."""
    predictor = tiny_predictor(memory_size=3)
    inspector = run(new_inspector(predictor, at=[6]), 6, 3)
    network, bank, frame = predictor.network, inspector.stream.bank, clip(7)[6]
    with torch.inference_mode():
        features = network.encode_query(torch.from_numpy(frame).permute(2, 0, 1)[None] / 255)
        recalled = network.recall(features, bank, torch.zeros(1, dtype=torch.int64))[0]  # [Cv, h, w]
        values = network.read.value(bank.templates[0]).clone()  # [K, Cv, h, w]
    inspector.step(frame)
    report = inspector.report()
    for y, x in ((0, 0), (1, 3)):
        weights = torch.from_numpy(report.weights(6, 3, (16 * x + 3, 16 * y + 5)))
        torch.testing.assert_close(
            recalled[:, y, x], torch.einsum("khw,kchw->c", weights, values), atol=1e-4, rtol=1e-4
        )


@pytest.mark.slow
def test_what_is_kept_is_bounded() -> None:
    """The inspector's bytes are the same after 40 frames and after 400."""
    inspector = new_inspector(tiny_predictor(memory_size=3))
    sizes = {}
    for index, frame in enumerate(np.tile(clip(40), (10, 1, 1, 1))):
        inspector.step(frame, None if index else boxes(3, 9))
        sizes[index] = inspector.nbytes
    assert max(sizes[i] for i in range(40, 400)) <= max(sizes[i] for i in range(40)) * 1.25
    assert {256, 399} <= set(inspector.report().moments) and len(inspector.report().moments) <= 5


def test_a_refused_step_leaves_the_report_as_it_was() -> None:
    """Whatever a step's error, what is told afterwards is what was told before, and the next step goes on."""
    inspector = run(new_inspector(tiny_predictor(memory_size=3)), 5, 3)
    before = json.dumps(inspector.report().as_dict(), sort_keys=True)
    frame = clip(6)[5]
    for refused in (
        lambda: inspector.step(frame, boxes(7), write=False),
        lambda: inspector.step(frame, np.zeros((2, 2), np.uint8)),
    ):
        with pytest.raises((MaskError, ShapeError)):
            refused()
        assert before == json.dumps(inspector.report().as_dict(), sort_keys=True)
    inspector.step(frame)
    assert 6 == inspector.report().histories[3].outcomes.sum()


def test_corrections_and_objects_that_come_and_go_are_seen() -> None:
    """What is done to the stream between two steps stands in the histories: pins, new objects, removed ones."""
    inspector = run(new_inspector(tiny_predictor(memory_size=4)), 5, 3)
    inspector.stream.correct(boxes(3))
    inspector.stream.add_objects(np.where(boxes(3, 7) == 7, 7, 0))
    for frame in clip(8)[5:]:
        inspector.step(frame)
    inspector.stream.remove_objects([3])
    inspector.step(clip(9)[8])
    report = inspector.report()

    assert [3, 7] == sorted(report.histories)
    assert 2 == report.histories[3].outcomes[list(OUTCOMES).index("pinned")].sum()
    assert (7, 8) == (report.histories[3].last, report.histories[7].last)
    assert [7] == list(report.slots)
    assert report.timeline().width > 0 and report.slot_sheet().width > 0


def test_a_stream_without_objects_is_drawn(tmp_path: Path) -> None:
    """A memory that was emptied, or whose objects all left, is drawn as it was before."""
    inspector = run(new_inspector(tiny_predictor(memory_size=3)), 5, 3, 7)
    for info in inspector.stream.describe()[3]:
        inspector.stream.bank.drop(info.slot, row=0)
    inspector.step(clip(6)[5])
    assert [7] == list(inspector.report().moments[5].objects)
    inspector.stream.remove_objects([3, 7])
    inspector.step(clip(7)[6])
    report = inspector.report()

    assert {} == report.slots and [3, 7] == sorted(report.histories)
    assert 4 <= len(report.save(tmp_path))


def test_only_the_objects_asked_for() -> None:
    """Named objects alone are kept; with none named, the first 16."""
    many = np.zeros((HEIGHT, WIDTH), np.int32)
    for number in range(20):
        many[(number // 8) * 16 : (number // 8) * 16 + 12, (number % 8) * 8 : (number % 8) * 8 + 6] = number + 1
    for chosen, expected in (((2, 4), [2, 4]), (None, list(range(1, MOST_OBJECTS + 1)))):
        inspector = new_inspector(tiny_predictor(memory_size=2), objects=chosen)
        inspector.step(clip(1)[0], many)
        inspector.step(clip(2)[1])
        assert expected == sorted(inspector.report().histories)
        assert set(expected) == set(inspector.report().moments[1].objects)


def test_a_resumed_stream_can_be_watched(tmp_path: Path) -> None:
    """Of frames before the inspector came nothing is drawn but their numbers."""
    predictor = tiny_predictor(memory_size=3)
    run(new_inspector(predictor), 5, 3).stream.save(tmp_path / "state")
    inspector = Inspector(predictor.resume(tmp_path / "state"))
    for frame in clip(7)[5:]:
        inspector.step(frame)
    report = inspector.report()

    assert 5 == report.histories[3].first
    assert 0 == report.histories[3].origin[0, 0] and 0 not in report.thumbnails
    assert 4 <= len(report.save(tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"objects": [8]}, MaskError, "8"),
        ({"points": [(WIDTH, 0)]}, OptionError, f"{WIDTH},0"),
        ({"points": [(0, -1)]}, OptionError, "0,-1"),
        ({"at": [-1]}, OptionError, "-1"),
        ({"at": range(40)}, OptionError, "16"),
    ],
    ids=["unknown-object", "point-right-of-it", "point-above-it", "negative-frame", "too-many-frames"],
)
def test_bad_questions(options: dict[str, object], kind: type[Exception], told: str) -> None:
    """What cannot be looked at is told before or at the first frame."""
    with pytest.raises(kind, match=told):
        run(new_inspector(tiny_predictor(memory_size=3), **options), 1, 3).report()


def test_bad_questions_to_a_report() -> None:
    """A frame that was not kept, an object that was not there and a point outside are told with what there is."""
    with pytest.raises(FrameError, match="step"):
        new_inspector(tiny_predictor()).report()
    with pytest.raises(FrameError, match=r"0 to 2, got \[9\]"):
        inspect(tiny_predictor(), clip(3), boxes(3), at=[1, 9])
    with pytest.raises(MaskError, match="never appeared"):
        inspect(tiny_predictor(), clip(3), boxes(3), objects=[4])
    report = inspect(tiny_predictor(), clip(3), boxes(3), at=[0, 1])
    for call, kind in (((2, 3), FrameError), ((1, 4), MaskError), ((0, 3), MaskError)):
        with pytest.raises(kind, match="attention: expected"):
            report.attention(*call)
    with pytest.raises(OptionError, match=f"0,{HEIGHT}"):
        report.attention(1, 3, points=[(0, HEIGHT)])


@pytest.mark.parametrize("size", [(48, 64), (50, 70), (100, 140)], ids=["whole-cells", "padded", "shrunk"])
def test_points_and_cells(size: tuple[int, int]) -> None:
    """Each pixel lies in a cell of the grid, and an object's cells lie in the object."""
    predictor = new_predictor(memory_size=3, short_side=64, zoom=1)
    report = inspect(predictor, clip(2, *size), boxes(3, height=size[0], width=size[1]), at=[1])
    moment = report.moments[1]
    rows, columns = moment.query.shape[1:]
    assert (0, 0) == moment.cell_of((0, 0))
    row, column = moment.cell_of((size[1] - 1, size[0] - 1))
    assert row in (rows - 1, rows - 2) and column in (columns - 1, columns - 2)
    mask = torch.from_numpy(boxes(3, height=size[0], width=size[1])) == 3
    found = cells_of(mask, moment.size, (rows, columns)).tolist()
    seen = {r * columns + c for y, x in np.argwhere(mask.numpy()) for r, c in [moment.cell_of((int(x), int(y)))]}
    assert found and set(found) <= seen


def test_cells_of_something_small() -> None:
    """An object between the middles of cells has the cell of its first pixel; one without pixels has none."""
    mask = torch.zeros(48, 64, dtype=torch.bool)
    size = WorkingSize.of(48, 64, None, 16)
    assert [] == cells_of(mask, size, (3, 4)).tolist()
    mask[18, 34] = True
    assert [6] == cells_of(mask, size, (3, 4)).tolist()


def test_points_of_any_mask() -> None:
    """A ring's centre lies on the ring, a full frame has points, an empty one has none."""
    ring = np.zeros((9, 9), np.bool_)
    ring[1:8, 1:8] = True
    ring[3:6, 3:6] = False
    assert all(ring[y, x] for x, y in interesting_points(ring))
    assert 2 == len(interesting_points(np.ones((4, 6), np.bool_)))
    assert () == interesting_points(np.zeros((4, 6), np.bool_))


@pytest.mark.parametrize("frames", [1, 12, 300, 3000], ids=str)
def test_a_timeline_fits_a_page(frames: int) -> None:
    """Whatever the length, the picture is no wider than 1,560 px."""
    history = History(3, first=0)
    for frame in range(frames):
        fate = ("fused", (1,)) if frame % 3 else ("dropped", ())
        state = RowState({2: slot(2, frame)}, (0, 0, frame), False)
        history.add(Change(frame, "stored", 2, slot(2, frame), *fate), state, score=0.5)
    assert draw_timeline({5: history}, gate=0.5).width <= 1560


def test_the_json_says_what_is_drawn(tmp_path: Path) -> None:
    """The numbers of every picture stand in the JSON."""
    report = inspect(tiny_predictor(memory_size=3), clip(6), boxes(3, 9), at=[2, 4])
    files = report.save(tmp_path)
    told = json.loads((tmp_path / "inspection.json").read_text())
    names = {
        "timeline.png",
        "slots.png",
        "inspection.json",
        *(f"attention_{t:05d}_object_{i}.png" for t in (2, 4) for i in (3, 9)),
    }

    assert names == {path.name for path in tmp_path.iterdir()} == {path.name for path in files}
    assert {"3", "9"} == set(told["objects"])
    assert report.histories[3].origin[:, :6].tolist() == told["objects"]["3"]["columns"]["origin"]
    for read in told["attention"]:
        assert math.isclose(1.0, sum(part["share"] for part in read["slots"]), abs_tol=1e-4)
        for part in read["slots"]:
            assert math.isclose(part["share"], sum(weight for _, _, weight in part["weights"]), abs_tol=1e-4)
    with Image.open(tmp_path / "timeline.png") as image:
        assert "RGB" == image.mode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short clip as `clip/0.png ...` with `first.png` beside it."""
    folder = tmp_path_factory.mktemp("inspect")
    (folder / "clip").mkdir()
    for index, (frame, ids) in enumerate(render_scene(5, height=64, width=96)):
        Image.fromarray(frame).save(folder / "clip" / f"{index}.png")
        if index == 0:
            write_palette_png(folder / "first.png", ids)
    return folder


@pytest.mark.slow
def test_the_command_draws_a_clip(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Chosen frames, points and objects are drawn, and every file is named."""
    arguments = ["inspect", str(folder / "clip"), "--mask", str(folder / "first.png"), "-o", str(tmp_path / "out")]
    assert 0 == main([*arguments, "--at", "2,4", "--point", "20,30", "--point", "0,0", "--object", "2"])
    said = capsys.readouterr().out.splitlines()

    expected = {
        "timeline.png",
        "slots.png",
        "attention_00002_object_2.png",
        "attention_00004_object_2.png",
        "inspection.json",
    }
    assert expected == {path.name for path in (tmp_path / "out").iterdir()} == {Path(line).name for line in said}
    told = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert [None, [20, 30], [0, 0]] == [read["point"] for read in told["attention"] if read["frame"] == 2]


@pytest.mark.slow
def test_the_command_draws_the_demo_clip(tmp_path: Path) -> None:
    """Without a video the rendered clip is drawn, with the demo's ids."""
    assert 0 == main(["inspect", "-o", str(tmp_path), "--frames", "4", "--height", "64", "--width", "96"])
    assert {"5", "6"} == set(json.loads((tmp_path / "inspection.json").read_text())["objects"])


@pytest.mark.slow
def test_a_clip_that_breaks_is_drawn_as_far_as_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What came before a frame that cannot be used is drawn, and the command exits with 1."""
    (tmp_path / "clip").mkdir()
    for index, (frame, ids) in enumerate(render_scene(4, height=64, width=96)):
        Image.fromarray(frame if index < 3 else frame[:32]).save(tmp_path / "clip" / f"{index}.png")
        write_palette_png(tmp_path / "first.png", ids)
    assert 1 == main(
        ["inspect", str(tmp_path / "clip"), "--mask", str(tmp_path / "first.png"), "-o", str(tmp_path / "out")]
    )
    assert "stopped after 3 frames" in capsys.readouterr().err
    assert (tmp_path / "out" / "timeline.png").exists()


@pytest.mark.usefixtures("signals")
def test_an_interrupted_inspection_is_drawn(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the tracking after the frame at hand; what was seen is drawn, and the command exits with 130."""
    step = Inspector.step

    def interrupted(self: Inspector, frame: object, mask: object = None, **rest: object) -> Segmentation:
        if self.stream.frame_index == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, frame, mask, **rest)

    monkeypatch.setattr(Inspector, "step", interrupted)
    assert 130 == main(
        ["inspect", str(folder / "clip"), "--mask", str(folder / "first.png"), "-o", str(tmp_path), "--at", "1,4"]
    )
    assert 2 == json.loads((tmp_path / "inspection.json").read_text())["objects"]["1"]["last_frame"]
    assert "stopped after 3 frames" in (said := capsys.readouterr().err) and "before [4]" in said


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["--at", "5"], "0 to 4"),
        (["--point", "96,0"], "point"),
        (["--object", "9"], "9"),
        (["--frames", "0"], "--frames"),
        (["--frames", "2", "--at", "3"], "0 to 1"),
        (["--mask", "none.png"], "none.png"),
        (["--height", "64", "--seed", "0"], "--height, --seed: expected with the rendered clip alone"),
        (["-o", "{folder}/first.png"], "got the file"),
        (["-o", "{folder}/first.png/out"], "lies in the file"),
        (["-o", "{folder}/new.json"], "name of a folder"),
    ],
    ids=[
        "frame",
        "point",
        "object",
        "no-frames",
        "frame-after-the-end",
        "no-mask",
        "scene",
        "file",
        "in-a-file",
        "json",
    ],
)
def test_bad_arguments(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], told: str
) -> None:
    """What cannot be drawn exits with 2, is told, and leaves nothing behind."""
    arguments = ["inspect", str(folder / "clip"), "--mask", str(folder / "first.png"), "-o", str(tmp_path / "out")]
    assert 2 == main([*arguments, *(text.format(folder=folder) for text in changes)])
    assert told in capsys.readouterr().err
    assert {"clip", "first.png"} == {path.name for path in folder.iterdir()}
    assert not (tmp_path / "out").exists()


def test_a_video_needs_its_mask(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A video without a mask, or a mask without a video, is told."""
    for given in ([str(folder / "clip")], ["--mask", str(folder / "first.png")]):
        assert 2 == main(["inspect", *given, "-o", str(tmp_path / "out")])
        assert "--mask FIRST.png" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--at=x", "--at=1,,2", "--point=1", "--point=a,b"], ids=str)
def test_arguments_that_cannot_be_parsed(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no frame or pixel shows what is one."""
    with pytest.raises(SystemExit) as caught:
        main(["inspect", "-o", "out", flag])
    assert 2 == caught.value.code
    assert "such as" in capsys.readouterr().err


def test_a_record_follows_a_resumed_stream(tmp_path: Path) -> None:
    """A record kept with a saved stream goes on from there as if nothing had come between."""
    predictor, frames = tiny_predictor(), clip(9)
    inspector = run(new_inspector(predictor), 5, 1, 2)
    inspector.stream.save(tmp_path / "stream")
    record = inspector.follow(inspector.stream)
    for frame in frames[:3]:  # what is taken back
        inspector.step(frame)
    again = record.follow(predictor.resume(tmp_path / "stream"))
    for frame in frames[5:]:
        again.step(frame)
    expected = run(new_inspector(predictor), 9, 1, 2).report().histories
    got = again.report().histories

    for object_id, history in expected.items():
        for name in ("origin", "outcomes", "fusions", "share"):
            np.testing.assert_array_equal(getattr(history, name), getattr(got[object_id], name), err_msg=name)
    assert 5 == sum(record.follow(predictor.resume(tmp_path / "stream")).report().histories[1].outcomes.sum(0))
    with pytest.raises(FrameError, match="at frame 4"):
        record.follow(inspector.stream)
