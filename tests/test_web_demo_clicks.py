"""Facts about clicks in the web demo: each makes a mask at once and can be taken back; paint replaces them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import boxes, clip, tiny_network
from torch import Tensor

from stmemory.errors import MaskError, OptionError
from stmemory.io.video import write_video
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "web_demo"))

from clicks import MOST, Click, draw_clicks
from painting import layer_of_ids
from session import Session

pytest.importorskip("av", reason="the demo reads and writes videos")


class Squares:
    """Takes squares of 7 px around points for the object, less those around points beside it, and what was found
    before."""

    def masks(self, frame: Tensor, prompts: Sequence[Prompt], last: Mapping[int, Tensor]) -> Tensor:
        made = torch.zeros(len(prompts), *frame.shape[1:])
        for mask, prompt in zip(made, prompts, strict=True):
            if prompt.object_id in last:
                mask.copy_(last[prompt.object_id])
            for value, points in ((1, prompt.points), (0, prompt.not_points)):
                for x, y in points:
                    mask[max(0, int(y) - 3) : int(y) + 4, max(0, int(x) - 3) : int(x) + 4] = value
        return made


def opened(folder: Path, prompter: Squares | None) -> Session:
    """A session with a short random clip open."""
    write_video(folder / "film.mp4", clip(6))
    options = TrackingOptions(reach=None, zoom=1.0)
    session = Session(VOSPredictor(tiny_network(), options=options, prompter=prompter), folder / "session")
    session.open(folder / "film.mp4")
    return session


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return opened(tmp_path, Squares())


def test_a_click_is_a_mask_at_once_and_is_tracked(session: Session) -> None:
    """A second one adds to it, one beside it takes away; what is tracked is what was shown."""
    first = session.click(2, Click(10, 10)).ids
    assert (7 * 7, {0, 2}) == (int((first == 2).sum()), set(np.unique(first).tolist()))
    more = session.click(2, Click(20, 10)).ids
    assert 2 * 7 * 7 == (more == 2).sum()
    less = session.click(2, Click(22, 10, on=False)).ids
    assert 0 < (more == 2).sum() - (less == 2).sum() < 7 * 7
    assert np.array_equal(less, session.show(0).ids)
    steps = list(session.track())
    assert 6 == len(steps)
    assert np.array_equal(less, session.show(0).ids)


def test_clicks_are_taken_back_one_by_one(session: Session) -> None:
    """After the first one the object is as it was before: painted, or not there."""
    session.paint([layer_of_ids(boxes(4).astype(np.uint8))])
    painted = session.shown.ids.copy()
    seen = [painted, session.click(4, Click(20, 14)).ids, session.click(4, Click(5, 5)).ids]
    for before in reversed(seen[:-1]):
        assert np.array_equal(before, session.take_back_click(4).ids)
    with pytest.raises(MaskError, match="click first"):
        session.take_back_click(4)
    session.click(3, Click(10, 10))
    assert 3 not in session.take_back_click(3).ids


def test_paint_replaces_clicks_and_other_objects_stay(session: Session) -> None:
    """A painted object has no clicks any more; the next click begins from its paint."""
    session.click(1, Click(8, 8))
    session.click(2, Click(20, 20))
    ids = np.where(session.shown.ids == 2, 2, 0).astype(np.uint8)
    ids[1:3, 1:9] = 1
    assert (1,) == session.paint([layer_of_ids(ids)])
    assert session.clicks is not None and {2} == set(session.clicks.of)
    grown = session.click(1, Click(20, 4)).ids
    assert bool((grown[1:3, 1:9] == 1).all()) and (grown == 1).sum() > 16
    assert 7 * 7 == (grown == 2).sum()


def test_clicks_belong_to_their_frame(session: Session) -> None:
    """Another frame begins without any; coming back, the masks are there and the clicks are not."""
    kept = session.click(1, Click(8, 8)).ids.copy()
    session.show(3)
    assert session.clicks is None
    session.click(2, Click(20, 20))
    assert np.array_equal(kept, session.show(0).ids) and session.clicks is None


def test_a_click_that_cannot_be_answered_changes_nothing(session: Session, tmp_path: Path) -> None:
    """Beside what was never shown; too many; and a network that takes no clicks."""
    before = session.shown.ids.copy()
    with pytest.raises(MaskError):
        session.click(1, Click(8, 8, on=False))
    assert np.array_equal(before, session.shown.ids) and [] == session.painted
    for _ in range(MOST):
        session.click(1, Click(8, 8))
    with pytest.raises(MaskError, match="paint"):
        session.click(1, Click(8, 8))
    (tmp_path / "plain").mkdir()
    plain = opened(tmp_path / "plain", None)
    plain._predictor.prompter = None
    with pytest.raises(OptionError, match="takes masks"):
        plain.click(1, Click(8, 8))


def test_dots_show_where_was_clicked(session: Session) -> None:
    """One on the object is filled with its colour, one beside it is not."""
    session.click(1, Click(10, 10))
    session.click(1, Click(30, 16, on=False))
    drawn = draw_clicks(session.shown.picture, np.zeros_like(session.shown.ids), session.clicks)
    assert (255, 0, 0) == tuple(drawn[10, 10]) and tuple(session.shown.picture[16, 30]) == tuple(drawn[16, 30])
    assert not np.array_equal(session.shown.picture, drawn)
