"""Facts about the web demo's parts that need no gradio: paint, the clip, a session with its corrections, and its
folder."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import HEIGHT, WIDTH, boxes, clip, new_predictor, tiny_predictor
from tiny_sam2 import tiny_model

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.io.palette import read_palette_png
from stmemory.io.video import iterate_video, write_video
from stmemory.networks.sam2 import Sam2Network
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "web_demo"))

import page
from clicks import MOST_CLICKS, Click, Clicks, place_of
from painting import COLOURS, changed_objects, draw, ids_of_layers, layer_of_ids
from session import Session
from sessions import Sessions
from track import MOST_STATES, Track

pytest.importorskip("av", reason="the demo reads and writes videos")
FRAMES = 14


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A short random clip."""
    write_video(tmp_path / "film.mp4", clip(FRAMES))
    return tmp_path / "film.mp4"


@pytest.fixture
def session(tmp_path: Path, film: Path) -> Session:
    """With that clip open."""
    opened = Session(tiny_predictor(), tmp_path / "session")
    opened.open(film)
    return opened


def ids_of(*ids: int) -> NDArray[np.uint8]:
    """Bars, as painted."""
    return boxes(*ids).astype(np.uint8)


def masks_of(session: Session) -> dict[int, NDArray[np.int32]]:
    """All masks that a session has on disk."""
    return {int(path.stem): read_palette_png(path).numpy() for path in sorted((session.folder / "masks").glob("*.png"))}


class Discs:
    """Makes masks of points: what was known, with a disc at each point of the object and a hole at each that is not."""

    def __init__(self) -> None:
        self.asked: list[Prompt] = []

    def masks(self, frame: torch.Tensor, prompts: Sequence[Prompt], last: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """See `Prompter.masks`."""
        self.asked += prompts
        rows, columns = (torch.arange(side) for side in frame.shape[1:])
        found = []
        for prompt in prompts:
            mask = last.get(prompt.object_id, torch.zeros(frame.shape[1:])).gt(0.5).float()
            for value, points in ((1.0, prompt.points), (0.0, prompt.not_points)):
                for x, y in points:
                    mask[(rows[:, None] - y) ** 2 + (columns[None] - x) ** 2 <= 36] = value
            found.append(mask)
        return torch.stack(found)


@pytest.fixture
def discs() -> Discs:
    """What answers clicks in `clicked`."""
    return Discs()


@pytest.fixture
def clicked(tmp_path: Path, film: Path, discs: Discs) -> Session:
    """With that clip open, and a prompter whose answers are known."""
    opened = Session(prompted(discs), tmp_path / "clicked")
    opened.open(film)
    return opened


def prompted(prompter: Discs) -> VOSPredictor:
    """A predictor of masks alone, with a prompter."""
    plain = tiny_predictor()
    return VOSPredictor(plain.network, options=plain.options, prompter=prompter)


def on(session: Session, object_id: int, x: float, y: float) -> NDArray[np.uint8]:
    """Click on an object; the ids that are shown then."""
    return session.click(object_id, (x, y), inside=True).ids


def beside(session: Session, object_id: int, x: float, y: float) -> NDArray[np.uint8]:
    """Click beside an object; the ids that are shown then."""
    return session.click(object_id, (x, y), inside=False).ids


def files_of(session: Session) -> dict[str, bytes]:
    """All that is told of frames, on disk."""
    return {path.name: path.read_bytes() for path in (session.folder / "painted").glob("*")}


def run(session: Session, stop_at: int | None = None) -> list[int]:
    """Track, and say which frames came."""
    frames = []
    for step in session.track():
        frames.append(step.frame)
        if step.frame == stop_at:
            session.stop()
    return frames


def test_paint_comes_back_as_it_was_shown() -> None:
    """Ids become paint and ids again, all six of them."""
    ids = np.arange(7, dtype=np.uint8)[None]

    np.testing.assert_array_equal(ids, ids_of_layers([layer_of_ids(ids)], height=1, width=7))


def test_mixed_colours_are_one_of_the_two() -> None:
    """A mixture of two objects' colours, as a soft brush leaves it, is never read as a third object; exact halves
    apart."""
    strength = np.delete(np.linspace(0, 1, 101), 50)[:, None]
    for one in range(6):
        for other in range(6):
            mixed = np.rint(strength * COLOURS[one] + (1 - strength) * np.array(COLOURS[other]))
            layer = np.concatenate([mixed, np.full((100, 1), 255)], 1).astype(np.uint8)[None]
            assert {one + 1, other + 1} >= set(ids_of_layers([layer], height=1, width=100).ravel().tolist())


@pytest.mark.parametrize(("alpha", "expected"), [(0, 0), (127, 0), (128, 1), (255, 1)])
def test_half_transparent_paint_counts(alpha: int, expected: int) -> None:
    """Paint counts from alpha 128 on."""
    layer = np.array([[(255, 0, 0, alpha)]], np.uint8)

    assert [[expected]] == ids_of_layers([layer], height=1, width=1).tolist()


def test_layers_of_another_size_fit_and_later_ones_are_on_top() -> None:
    """A canvas of twice the size gives the same ids; of two layers the last wins."""
    under, over = layer_of_ids(np.array([[1, 1, 1, 1]] * 2, np.uint8)), layer_of_ids(np.array([[0, 2]], np.uint8))

    assert [[1, 2]] == ids_of_layers([under, over], height=1, width=2).tolist()
    with pytest.raises(MaskError, match="RGBA"):
        ids_of_layers([np.zeros((2, 2, 3), np.uint8)], height=2, width=2)


def test_changed_objects_are_those_that_gained_or_lost_a_pixel() -> None:
    """Painting 3 over 2 changes both, and leaves 1 alone."""
    assert (2, 3) == changed_objects(np.array([[1, 3, 2]], np.uint8), np.array([[1, 2, 2]], np.uint8))
    assert () == changed_objects(ids_of(1, 2), ids_of(1, 2))


def test_drawing_uses_the_colours_of_the_paint() -> None:
    """The contour of an object is its paint's colour, and the background stays."""
    ids, picture = ids_of(4), np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    drawn = draw(picture, ids)

    assert list(COLOURS[3]) == drawn[HEIGHT // 4, WIDTH // 2].tolist()
    assert [90, 90, 90] == drawn[0, 0].tolist()


def test_a_session_masks_what_a_stream_does(session: Session, film: Path) -> None:
    """From the first frame on the masks are those of `track`."""
    session.give(0, ids_of(1, 2), [1, 2])

    assert list(range(FRAMES)) == run(session)
    expected = [result.ids.numpy() for result in tiny_predictor().track(film, ids_of(1, 2))]
    np.testing.assert_array_equal(expected, list(masks_of(session).values()))


def test_paint_on_any_frame_starts_there(session: Session) -> None:
    """Painted on frame 5, an object has masks from there on, under the clip's numbers; one painted on frame 8 enters
    there."""
    session.give(8, ids_of(2), [2])
    session.give(5, ids_of(1), [1])

    assert list(range(5, FRAMES)) == run(session)
    found = masks_of(session)
    assert list(range(5, FRAMES)) == sorted(found)
    assert [False] * 3 == [2 in found[frame] for frame in (5, 6, 7)]
    assert 2 in found[8]


@pytest.mark.parametrize(
    "frame", [0, 5, 9, 10, 12], ids=["first", "saved-state-before", "state-just-before", "last-tracked", "to-come"]
)
def test_a_correction_is_as_if_known_before(tmp_path: Path, film: Path, frame: int) -> None:
    """Stopped at frame 10 and corrected anywhere, the masks are those of a session that knew it all from the
    beginning."""
    corrected, known = (Session(tiny_predictor(), tmp_path / name) for name in ("corrected", "known"))
    for one in (corrected, known):
        one.open(film)
        one.give(0, ids_of(1, 2), [1, 2])
    run(corrected, stop_at=10)
    for one in (corrected, known):
        one.give(frame, ids_of(2, 1), [1])
    run(corrected)
    run(known)

    expected, got = masks_of(known), masks_of(corrected)
    assert sorted(expected) == sorted(got)
    if frame != 10:  # where it stopped it is corrected in place, after the frame had been memorised otherwise
        np.testing.assert_array_equal(list(expected.values()), list(got.values()))
    np.testing.assert_array_equal(expected[frame] == 1, got[frame] == 1)


def test_only_changed_paint_is_given(session: Session) -> None:
    """Paint that comes back as it was shown is none; a new stroke names its object alone; paint for another frame is
    left alone."""
    session.give(0, ids_of(1, 2), [1, 2])
    run(session, stop_at=4)
    shown = session.show(4)

    assert () == session.paint([layer_of_ids(shown.ids)], shown.picture)
    more = shown.ids.copy()
    more[:3, :3] = 3
    assert () == session.paint([layer_of_ids(more)], session.clip.picture(0))
    changed = session.paint([layer_of_ids(more)], shown.picture)
    assert 3 in changed
    assert [0, 4] == session.painted
    np.testing.assert_array_equal(more, session.show(4).ids)


def test_what_is_erased_is_not_tracked_further(session: Session) -> None:
    """An object without paint left on a frame is gone from that frame on, and stays in the frames before."""
    session.give(0, ids_of(1, 2), [1, 2])
    session.give(6, ids_of(1, 2), [2])  # so that it is seen there, whatever the weights
    run(session)
    before, ids = masks_of(session), session.show(6).ids
    assert 2 in before[6] and 2 in ids

    assert (2,) == session.paint([layer_of_ids(np.where(ids == 2, 0, ids).astype(np.uint8))])
    run(session)
    after = masks_of(session)
    assert list(range(FRAMES)) == sorted(after)
    assert [] == [frame for frame in range(6, FRAMES) if 2 in after[frame]]
    np.testing.assert_array_equal([before[frame] for frame in range(6)], [after[frame] for frame in range(6)])


def test_a_clip_that_is_not_there_leaves_the_one_that_is(session: Session) -> None:
    """A path without a file is told, and paint and masks of the open clip stay."""
    session.give(0, ids_of(1), [1])
    run(session, stop_at=3)
    for path in ("", "no/such/clip.mp4"):
        with pytest.raises(FrameError, match="no such file"):
            session.open(path)

    assert [0, 1, 2, 3] == sorted(masks_of(session))
    assert [0] == session.painted


def test_a_stopped_session_goes_on(session: Session) -> None:
    """Stopped after frame 4, it goes on with frame 5; at the end there is nothing left to do."""
    session.give(0, ids_of(1), [1])

    assert list(range(5)) == run(session, stop_at=4)
    assert list(range(5, FRAMES)) == run(session)
    with pytest.raises(OptionError, match="every frame is tracked"):
        session.track()


def test_states_on_disk_are_few(tmp_path: Path) -> None:
    """However long the clip, there are at most six saved states, and what the stream remembers does not grow."""
    track = Track(tiny_predictor(), tmp_path, first=3)
    frames, sizes = clip(120), set[int]()
    for frame in frames:
        track.step(frame, ids_of(1) if track.position < 3 else np.zeros((HEIGHT, WIDTH), np.uint8), ())
        assert len(list(tmp_path.iterdir())) <= MOST_STATES
        sizes.add(track.nbytes) if track.position > 3 else None

    assert 122 == track.position
    assert 1 == len(sizes)
    assert track.go_back(60)
    assert track.position < 60


def test_the_timeline_goes_back_with_a_correction(session: Session) -> None:
    """After going back the record begins where tracking began, and holds each frame once."""
    session.give(2, ids_of(1), [1])
    run(session)
    session.give(12, ids_of(1), [1])
    run(session)
    assert session._track is not None
    history = session._track._inspector.report().histories[1]

    assert (2, FRAMES - 1) == (history.first, history.last)
    assert [1] * (FRAMES - 2) == history.outcomes.sum(0)[: FRAMES - 2].tolist()
    assert page.timeline(session.timeline()).startswith('<div class="scroll"><img')


def test_files_to_take_home(session: Session) -> None:
    """The zip has a palette PNG for each tracked frame, and the film all frames up to there."""
    session.give(3, ids_of(1), [1])
    run(session, stop_at=9)

    assert list(range(1, 11)) == list(session.overlay())
    assert 10 == sum(1 for _ in iterate_video(session.overlay_path))
    with zipfile.ZipFile(session.zip_masks()) as archive:
        assert [f"masks/{frame:05d}.png" for frame in range(3, 10)] == archive.namelist()


def test_what_cannot_be_done_is_said(tmp_path: Path, session: Session) -> None:
    """No clip, no paint, no masks, no such frame, no video: each is an error that says what to do."""
    empty = Session(tiny_predictor(), tmp_path / "empty")
    with pytest.raises(FrameError, match="open or record one"):
        empty.track()
    with pytest.raises(FrameError, match="open a clip first"):
        empty.paint([])
    with pytest.raises(MaskError, match="choose an object and paint it"):
        session.track()
    with pytest.raises(OptionError, match="track it first"):
        session.zip_masks()
    with pytest.raises(FrameError, match="from 0 to 13"):
        session.show(14)
    (tmp_path / "words.mp4").write_text("no film")
    with pytest.raises(FrameError, match="not a video"):
        session.open(tmp_path / "words.mp4")


def test_one_thing_at_a_time(session: Session) -> None:
    """While a session tracks it shows no other frame and packs nothing."""
    session.give(0, ids_of(1), [1])
    steps = session.track()
    next(steps)
    with pytest.raises(OptionError, match="under way"):
        session.zip_masks()
    steps.close()

    assert 1 == session.show(1).frame


def test_sessions_do_not_mix_and_leave_nothing(tmp_path: Path, film: Path) -> None:
    """Each page has a folder of its own, which goes with it; there are no more than allowed."""
    sessions = Sessions(tiny_predictor(), tmp_path / "root", most=2)
    (tmp_path / "root").mkdir()
    one, other = sessions.of("../one"), sessions.of("other")
    one.open(film)
    one.give(0, ids_of(1), [1])
    other.open(film)

    assert one is sessions.of("../one")
    assert [[0], []] == [one.painted, other.painted]
    with pytest.raises(OptionError, match="at most 2 people"):
        sessions.of("third")
    steps = one.track()
    next(steps)
    one.stop()
    assert [] == list(steps)
    sessions.close("../one")
    assert [other.folder] == list((tmp_path / "root").iterdir())
    sessions.close_all()
    assert [] == list((tmp_path / "root").iterdir())
    with pytest.raises(OptionError, match="load the page again"):
        one.open(film)


def test_progress_names_each_object(session: Session) -> None:
    """The page says for each object how sure it is or that it is not seen."""
    session.give(0, ids_of(1, 2), [1, 2])
    step = next(session.track())
    told = page.progress(step, speed=2.0, words="tracking")

    assert ["object 1", "object 2"] == [f"object {i}" for i in range(1, 7) if f"object {i}:" in told]
    assert "data:image/jpeg;base64," in page.picture(step.picture, "frame 0")


def test_a_list_of_files_shows_none_of_them(tmp_path: Path, film: Path) -> None:
    """A playlist or a list for concatenation, whatever it is called, is no clip: it would show files of the server."""
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{film}\n#EXT-X-ENDLIST\n"
    session = Session(tiny_predictor(), tmp_path / "session")
    for name, text in (
        ("list.m3u8", playlist),
        ("list.mp4", playlist),
        ("list.txt", f"ffconcat version 1.0\nfile '{film}'\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(FrameError, match="playlist"):
            session.open(tmp_path / name)


def test_a_clip_that_would_take_the_memory_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A file of a few bytes that states 16 times the pixels of 4K is told with its size."""
    header = b"GIF89a" + (16384).to_bytes(2, "little") + (9216).to_bytes(2, "little") + b"\x80\0\0\0\0\0\xff\xff\xff"
    (tmp_path / "large.gif").write_bytes(header + b",\0\0\0\0" + b"\0\x40\0\x24" + b"\0\x02\x02\x4c\x01\0;")
    with pytest.raises(FrameError, match="16384 x 9216"):
        Session(tiny_predictor(), tmp_path / "session").open(tmp_path / "large.gif")


@pytest.mark.parametrize("name", ["clip.<b>", "clip." + "a" * 200, "clip.a b", "clip"])
def test_the_name_of_an_upload_makes_no_name_of_ours(tmp_path: Path, film: Path, name: str) -> None:
    """Only an ending of a few letters and digits is kept of it."""
    film.rename(tmp_path / name)
    session = Session(tiny_predictor(), tmp_path / "session")
    session.open(tmp_path / name)

    assert "clip.video" == session.clip.path.name


def test_places_of_silent_clients_are_given_to_others(
    tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client without a page never says that it goes: the one that was silent for longest makes room, but never one
    that tracks."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    (tmp_path / "root").mkdir()
    sessions = Sessions(tiny_predictor(), tmp_path / "root", most=2)
    working, idle = sessions.of("working"), sessions.of("idle")
    for session in (working, idle):
        session.open(film)
    working.give(0, ids_of(1), [1])
    steps = working.track()
    next(steps)
    now = 60.0
    with pytest.raises(OptionError, match="at most 2 people"):
        sessions.of("made up")
    now = 24 * 3600.0
    sessions.of("made up")
    assert not idle.folder.exists()
    assert working is sessions.of("working")
    now += 60  # no clip was opened in it
    sessions.of("a visitor")

    assert 2 == len(sessions)
    steps.close()


def test_clicks_add_and_remove_at_once(clicked: Session, discs: Discs) -> None:
    """The first click makes a mask, the next ones improve it with all clicks so far; that mask is what is tracked."""
    first = on(clicked, 1, 20, 20)
    second = on(clicked, 1, 30, 20)
    third = beside(clicked, 1, 20, 20)

    assert [1, 0] == [first[20, 20], first[20, 30]]
    assert [1, 1] == [second[20, 20], second[20, 30]]
    assert [0, 1] == [third[20, 20], third[20, 30]]
    assert Prompt(1, points=[(20, 20), (30, 20)], not_points=[(20, 20)]) == discs.asked[-1]
    shown = clicked.shown
    assert [(20, 20, True), (30, 20, True), (20, 20, False)] == [(one.x, one.y, one.inside) for one in shown.clicks]
    run(clicked, stop_at=2)
    np.testing.assert_array_equal(third, masks_of(clicked)[0])


def test_a_click_taken_back_leaves_nothing(clicked: Session) -> None:
    """Masks and files are those of before, click by click, also where something was painted and tracked."""
    clicked.give(0, ids_of(1, 2), [1, 2])
    run(clicked)
    clicked.give(6, ids_of(3), [3])
    run(clicked)
    clicked.show(6)
    seen, told = [clicked.shown.ids], [files_of(clicked)]
    for object_id, x in ((3, 4), (4, 60), (3, 50)):
        seen.append(on(clicked, object_id, x, 40))
        told.append(files_of(clicked))
    for ids, files in zip(reversed(seen[:-1]), reversed(told[:-1]), strict=True):
        np.testing.assert_array_equal(ids, clicked.undo().ids)
        assert files == files_of(clicked)

    assert not clicked.shown.can_undo
    with pytest.raises(MaskError, match="take back"):
        clicked.undo()
    with pytest.raises(OptionError, match="every frame is tracked"):
        clicked.track()


def test_what_a_click_covers_comes_back(clicked: Session) -> None:
    """The object that was clicked last lies on top; where it is clicked away, the one below is seen again."""
    on(clicked, 1, 20, 20)
    covered = on(clicked, 2, 24, 20)
    uncovered = beside(clicked, 2, 20, 20)

    assert [2, 2] == [covered[20, 20], covered[20, 24]]
    assert 1 == uncovered[20, 20]


def test_paint_replaces_the_clicks_of_what_it_changes_and_clicks_improve_paint(clicked: Session, discs: Discs) -> None:
    """Painted over, an object's clicks are forgotten and those of another are not; a click on it starts from the
    paint."""
    on(clicked, 1, 10, 10)
    ids = on(clicked, 2, 50, 30).copy()
    ids[36:44, 5:20] = 1
    shown = clicked.shown
    assert (1,) == clicked.paint([layer_of_ids(ids)], shown.picture)

    assert [2] == [one.object_id for one in clicked.shown.clicks]
    assert not clicked.shown.can_undo
    improved = beside(clicked, 1, 10, 10)
    assert [0, 1, 2] == [improved[10, 10], improved[40, 10], improved[30, 50]]
    assert discs.asked[-1].points  # the middle of the paint: what an object is not does not say where it is
    on(clicked, 2, 50, 20)
    assert Prompt(2, points=[*discs.asked[-1].points[:1], (50, 30), (50, 20)]) == discs.asked[-1]
    clicked.undo()
    np.testing.assert_array_equal(ids, clicked.undo().ids)


def test_a_found_mask_is_corrected_where_tracking_stopped_and_before(clicked: Session) -> None:
    """A click on any tracked frame improves what was found there; the frames from there on are tracked anew."""
    clicked.give(0, ids_of(1, 2), [1, 2])
    run(clicked, stop_at=10)
    before = masks_of(clicked)
    for frame in (10, 5, 0):
        found = clicked.show(frame).ids
        x, y = (44, 24) if frame else (4, 24)
        shown = on(clicked, 1, x, y)
        assert 1 == shown[y, x]
        far = np.hypot(*(np.indices(found.shape) - np.array([y, x])[:, None, None])) > 16
        assert (found == 1)[far].sum() * 0.9 <= (shown == 1)[far].sum()  # what was found elsewhere stays
        assert clicked.position == 10
    run(clicked, stop_at=10)
    after = masks_of(clicked)

    assert list(range(11)) == sorted(after)
    assert [1, 1, 1] == [after[0][24, 4], after[5][24, 44], after[10][24, 44]]
    assert not np.array_equal(before[7], after[7])


def test_clicks_stay_on_their_frame(clicked: Session) -> None:
    """On another frame there are none to take back, and the mask that they made is still known."""
    ids = on(clicked, 1, 20, 20)
    assert () == clicked.show(3).clicks
    with pytest.raises(MaskError, match="take back"):
        clicked.undo()

    shown = clicked.show(0)
    np.testing.assert_array_equal(ids, shown.ids)
    assert () == shown.clicks


def test_clicks_fit_frames_that_are_shown_smaller(tmp_path: Path, discs: Discs) -> None:
    """On a frame that is shown at half its size, a click is told in the frame's own pixels."""
    write_video(tmp_path / "large.mp4", np.zeros((2, 64, 2560, 3), np.uint8))
    session = Session(prompted(discs), tmp_path / "session")
    assert (32, 1280) == session.open(tmp_path / "large.mp4").ids.shape
    ids = on(session, 1, 1000, 10)

    assert [Prompt(1, points=[(2000, 20)])] == discs.asked
    assert [1, 0] == [ids[10, 1000], ids[20, 500]]


def test_clicks_that_cannot_be_used_change_nothing(clicked: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the frame, of no object, beside what is not there, with nothing found, too many: all is as before."""
    on(clicked, 1, 20, 20)
    ids, files = clicked.shown.ids, files_of(clicked)
    with pytest.raises(MaskError, match="on the frame"):
        on(clicked, 1, WIDTH + 1, 3)
    with pytest.raises(MaskError, match="from 1 to 6"):
        on(clicked, 7, 3, 3)
    with pytest.raises(MaskError, match="click on it first"):
        beside(clicked, 2, 3, 3)
    with pytest.raises(MaskError, match="nothing was found"):
        beside(clicked, 1, 20, 20)
    monkeypatch.setattr("clicks.MOST_CLICKS", 1)
    with pytest.raises(MaskError, match="at most 1 clicks"):
        on(clicked, 1, 30, 20)

    np.testing.assert_array_equal(ids, clicked.shown.ids)
    assert files == files_of(clicked)
    assert [(20, 20)] == [(one.x, one.y) for one in clicked.shown.clicks]


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        {},
        {"x": 3},
        {"x": "a", "y": 1},
        {"x": float("nan"), "y": 1},
        {"x": [], "y": 1},
        {"x": 10**400, "y": 1},
    ],
)
def test_a_page_that_sends_no_place_is_told_so(event: object) -> None:
    """Whatever a client sends in place of a click is refused in words."""
    with pytest.raises(MaskError, match="click on the frame"):
        place_of(event)


def test_weights_that_take_masks_alone_say_so(tmp_path: Path, film: Path) -> None:
    """Without anything that answers clicks, painting is offered in plain words."""
    predictor = new_predictor()
    predictor.prompter = None
    session = Session(predictor, tmp_path / "session")
    with pytest.raises(FrameError, match="open a clip first"):
        on(session, 1, 20, 20)
    session.open(film)
    with pytest.raises(OptionError, match="paint the object"):
        on(session, 1, 20, 20)


def test_a_click_waits_for_nothing(clicked: Session) -> None:
    """While something runs a click is refused, and what runs is named."""
    clicked.give(0, ids_of(1), [1])
    steps = clicked.track()
    next(steps)
    with pytest.raises(OptionError, match="tracking is under way"):
        on(clicked, 2, 50, 20)
    steps.close()
    with clicked._alone("click"), pytest.raises(OptionError, match="last click"):
        clicked.undo()


def test_what_clicks_keep_is_bounded() -> None:
    """A mask of one bit a pixel for each click, and not one click more than allowed."""
    height, width = 72, 1280
    clicks = Clicks(0, np.zeros((height, width), np.uint8))
    noise = np.random.default_rng(0).random((height, width)) > 0.5
    for number in range(MOST_CLICKS):
        clicks.check(Click(1 + number % 6, 3, 3, True))
        clicks.take(Click(1 + number % 6, 3, 3, True), noise)
    with pytest.raises(MaskError, match="at most"):
        clicks.check(Click(1, 3, 3, True))

    assert MOST_CLICKS * height * width // 8 == sum(len(taken.bits) for taken in clicks._taken)
    np.testing.assert_array_equal(noise, clicks.mask(3))


def test_clicks_of_visitors_do_not_mix(tmp_path: Path, film: Path, discs: Discs) -> None:
    """Two people click on the same clip: each sees their own."""
    (tmp_path / "root").mkdir()
    sessions = Sessions(prompted(discs), tmp_path / "root")
    one, other = sessions.of("one"), sessions.of("other")
    one.open(film)
    other.open(film)
    on(one, 1, 20, 20)
    ids = on(other, 2, 50, 20)

    assert [0, 2] == np.unique(ids).tolist()
    assert [[(1, 20)], [(2, 50)]] == [[(c.object_id, c.x) for c in session.shown.clicks] for session in (one, other)]


def test_the_board_marks_clicks(clicked: Session) -> None:
    """A frame to click on says its size, and has a mark of its own kind at each click."""
    on(clicked, 1, 20, 20)
    on(clicked, 1, 30, 20)
    beside(clicked, 1, 20, 30)
    board = page.board(clicked.shown)

    assert f'data-width="{WIDTH}" data-height="{HEIGHT}"' in board
    assert [2, 1] == [board.count('class="is"'), board.count('class="is-not"')]
    assert "translate(20.0 30.0)" in board


def test_sam2_answers_clicks_itself(tmp_path: Path, film: Path) -> None:
    """The first click is SAM 2's own answer; where it was tracked, later clicks are answered from its memory."""
    predictor = VOSPredictor(Sam2Network(tiny_model()))
    session = Session(predictor, tmp_path / "session")
    first = session.open(film)
    ids = on(session, 1, 20, 20)
    expected = predictor.start(first.picture, prompts=Prompt(1, points=[(20, 20)])).last.ids
    np.testing.assert_array_equal(expected, ids)
    run(session, stop_at=3)
    session.show(3)
    on(session, 1, 40, 20)
    corrected = beside(session, 1, 2, 2)
    run(session)

    assert list(range(FRAMES)) == sorted(masks_of(session))
    np.testing.assert_array_equal(corrected, masks_of(session)[3])
