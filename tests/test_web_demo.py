"""Facts about the web demo's parts that need no gradio: paint, the clip, a session with its corrections, and its
folder."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import HEIGHT, WIDTH, boxes, clip, tiny_predictor

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.io.palette import read_palette_png
from stmemory.io.video import iterate_video, write_video

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "web_demo"))

import page
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
