"""Facts about clips that training sees through windows: where they are, what they show, and what is carried from one to
the next."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from stmemory.errors import OptionError
from stmemory.io.frames import WorkingSize
from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.config import TrainingConfig
from stmemory.training.unroll import Unroller, UnrollOptions, unroll
from stmemory.training.views import Views, carried, draw_views, seen_through
from stmemory.window import Window

SIZE = WorkingSize.of(64, 96, None, 16)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _network() -> SegmentationNetwork:
    torch.manual_seed(0)
    return SegmentationNetwork(dataclasses.replace(NetworkConfig.of("lite"), appearance_channels=8)).eval()


def _clips(frames: int = 16) -> tuple[Tensor, Tensor]:
    """Two clips `[2, T, 3, 64, 96]` of noise: a square that goes right by two pixels a frame; and in the second a still
    one that comes in frame 1 and is not tracked."""
    pixels = torch.rand(2, frames, 3, 64, 96, generator=_generator(1))
    ids = torch.zeros(2, frames, 64, 96, dtype=torch.int64)
    for t in range(frames):
        ids[:, t, 20:34, 10 + 2 * t : 24 + 2 * t] = 1
    ids[1, 1:, 40:60, 4:20] = 2
    return pixels, ids


def _windows(seed: int, tracked: Tensor, lengths: tuple[int, ...]) -> list[tuple[Window, ...]]:
    """All windows of each clip, of views that are drawn for all of them."""
    views = Views(draw_views(len(tracked), tracked.shape[1], 1.0, _generator(seed)), SIZE)
    parts = [views.advance(part) for part in tracked.split(lengths, dim=1)]
    return [tuple(window for part in parts for window in part[clip]) for clip in range(len(tracked))]


def test_without_zoom_chance_is_left_alone() -> None:
    """A probability of 0 asks the generator for nothing, and a clip runs as one without views, bit for bit."""
    generator = _generator()
    before = generator.get_state()
    assert (None,) * 3 == draw_views(3, 16, 0.0, generator)
    assert torch.equal(before, generator.get_state())

    network, (frames, ids), options = _network(), _clips(4), UnrollOptions(capacity=3, damage=0.5)
    expected = unroll(network, frames, ids, options=options, generator=_generator())
    found = unroll(network, frames, ids, options=dataclasses.replace(options, zoom=0.0), generator=_generator())
    assert () == found.windows
    assert torch.equal(expected.probabilities, found.probabilities)
    assert torch.equal(found.probabilities[1].argmax(1), found.ids(1).long())


def test_views_are_drawn_within_the_clip() -> None:
    """They come about as often as asked, begin in every frame of the clip, and a quarter of them at once."""
    found = [view for view in draw_views(3000, 8, 0.4, _generator(3)) if view is not None]
    assert pytest.approx(0.4, abs=0.05) == len(found) / 3000
    assert {*range(8)} == {view.first for view in found}
    assert pytest.approx(0.25, abs=0.05) == sum(view.first == 0 for view in found) / len(found)
    assert {8} == {len(view.chances) for view in found}


@pytest.mark.parametrize("seed", range(8))
def test_windows_are_around_what_was_tracked(seed: int) -> None:
    """Each is in the frame and of its proportions, at most 2.5 times as close, has the objects of the frame before in
    it with room around them, and is the whole frame before the view begins."""
    _, ids = _clips()
    begins = [view.first for view in draw_views(2, 16, 1.0, _generator(seed)) if view is not None]
    for clip, windows in enumerate(_windows(seed, ids == 1, (16,))):
        for t, window in enumerate(windows):
            assert window.fits(SIZE)
            assert window.is_whole(SIZE) or t >= begins[clip]
            assert pytest.approx(96 / 64, abs=0.05) == window.width / window.height
            assert 64 / window.height <= 2.6
            assert window.covers(ids[clip, max(0, t - 1)] == 1)
            assert window.height >= 1.15 * 14


def test_windows_stay_and_move() -> None:
    """Around something that moves slowly most windows are those of the frame before, and a clip has several."""
    _, ids = _clips()
    tracked = (ids[:1] == 1).expand(40, -1, -1, -1)
    found = [windows for windows in _windows(0, tracked, (16,)) if not windows[0].is_whole(SIZE)]
    assert found
    same = [before == after for windows in found for before, after in itertools.pairwise(windows)]
    assert 0.3 < sum(same) / len(same) < 0.95
    assert all(2 <= len(set(windows)) for windows in found)


def test_the_whole_frame_is_seen_while_nothing_is() -> None:
    """From the frame after the objects left until the one after they came back, all of the frame is looked at."""
    _, ids = _clips()
    tracked = ids == 1
    tracked[:, 5:9] = False
    for windows in _windows(2, tracked, (16,)):
        assert all(window.is_whole(SIZE) for window in windows[6:10])


@pytest.mark.parametrize("lengths", [(8, 8), (2, 5, 9), (1,) * 16], ids=str)
def test_segments_do_not_change_the_windows(lengths: tuple[int, ...]) -> None:
    """However a clip is cut into segments, its windows are those of the clip in one."""
    _, ids = _clips()
    for seed in range(4):
        assert _windows(seed, ids == 1, (16,)) == _windows(seed, ids == 1, lengths)


def test_a_clip_in_segments_is_the_whole_clip() -> None:
    """Two segments of 8 frames have the windows and the probabilities of one of 16."""
    network, (frames, ids) = _network(), _clips()
    options = UnrollOptions(capacity=3, damage=0.5, zoom=1.0, length=16)
    with torch.no_grad():
        whole = unroll(network, frames, ids, options=options, generator=_generator(4))
        unroller = Unroller(network, options=options, generator=_generator(4))
        parts = [unroller.advance(frames[:, part], ids[:, part]) for part in (slice(0, 8), slice(8, 16))]
    assert whole.windows == tuple(a + b for a, b in zip(*(part.windows for part in parts), strict=True))
    assert 1 < len({window for of_clip in whole.windows for window in of_clip})
    assert {15} == {len(of_clip) for of_clip in whole.windows}
    torch.testing.assert_close(whole.probabilities, torch.cat([part.probabilities for part in parts], 1))


def test_a_window_shows_things_at_their_place() -> None:
    """Each pixel of the window has the id of the pixel of the frame in which its centre lies; colours agree."""
    _, ids = _clips(2)
    frames = (ids == 1)[:, :, None].expand(-1, -1, 3, -1, -1).float()
    window, whole = Window(12, 3, 40, 60), Window.whole(SIZE)
    seen, seen_ids = seen_through(frames, ids, [[whole, window], [window, window]], SIZE)
    expected = torch.zeros(64, 96, dtype=torch.int64)
    for y in range(64):
        for x in range(96):
            expected[y, x] = ids[1, 1, int(12 + (y + 0.5) * 40 / 64), int(3 + (x + 0.5) * 60 / 96)]
    assert torch.equal(expected, seen_ids[1, 1])
    assert torch.equal(ids[0, 0], seen_ids[0, 0]) and torch.equal(frames[0, 0], seen[0, 0])
    agree = (seen[:, :, 0] > 0.5) == (seen_ids == 1)
    assert 0.995 < float(agree.float().mean())
    assert 0 <= float(seen.min()) and float(seen.max()) <= 1


def test_what_is_carried_is_what_the_new_window_shows() -> None:
    """A mask goes to its place in another window, with an error at its edge alone; what the old window did not show is
    not there, and rows of other clips are left alone."""
    _, ids = _clips(2)
    frames, whole = torch.zeros(2, 2, 3, 64, 96), Window.whole(SIZE)
    for old, new in (
        (whole, Window(8, 0, 40, 60)),
        (Window(8, 0, 40, 60), Window(12, 3, 32, 48)),
        (Window(8, 0, 40, 60), whole),
    ):
        before, after = (seen_through(frames, ids, [[whole, each]] * 2, SIZE)[1][:, 1] == 1 for each in (old, new))
        found = carried(before.float(), [0, 1], [old, old], [new, old], SIZE)
        overlap = (found[0] * after[0]).sum() / torch.maximum(found[0], after[0].float()).sum()
        assert float(overlap) > 0.85
        assert bool(((found[0] > 0.5) == after[0]).float().mean() > 0.99)
        assert torch.equal(before[1].float(), found[1])
    everything = torch.ones(1, 64, 96)
    assert 0.0 == float(carried(everything, [0], [Window(0, 0, 32, 48)], [Window(32, 48, 32, 48)], SIZE).sum())


def test_the_cues_see_the_last_masks_through_the_new_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the truth is fed back, the masks beside each frame are those of the frame before in this frame's window."""
    network, (frames, ids) = _network(), _clips()
    options, seen, cues = UnrollOptions(capacity=3, own_masks=0.0, zoom=1.0), [], network.cues

    def spy(features: Any, sums: Any, last: tuple[Tensor, Tensor], video: Tensor) -> Tensor | None:
        seen.append(last[0])
        return cues(features, sums, last, video)

    monkeypatch.setattr(network, "cues", spy)
    with torch.no_grad():
        windows = unroll(network, frames, ids, options=options, generator=_generator(4)).windows
    changes = 0
    for t, masks in enumerate(seen):
        now = [[of_clip[t]] for of_clip in windows]
        _, expected = seen_through(frames[:, t : t + 1], ids[:, t : t + 1], now, SIZE)
        assert 0.98 < float(((masks > 0.5) == (expected[:, 0] == 1)).float().mean())
        changes += t > 0 and any(of_clip[t - 1] != of_clip[t] for of_clip in windows)
    assert changes > 3


def test_what_is_found_is_put_back_into_the_frame() -> None:
    """The ids of a result are those of whole frames, background outside of the window."""
    network, (frames, ids) = _network(), _clips(4)
    for seed in range(20):
        with torch.no_grad():
            options = UnrollOptions(capacity=3, zoom=1.0)
            result = unroll(network, frames, ids, options=options, generator=_generator(seed))
        if not result.windows[0][-1].is_whole(SIZE):
            break
    found, window = result.ids(0), result.windows[0][-1]
    assert (3, 64, 96) == tuple(found.shape)
    expected = window.put_back(result.probabilities[0, -1], SIZE).argmax(0)
    assert torch.equal(expected, found[-1].long())
    assert window.covers(found[-1])


@pytest.mark.parametrize("zoom", [-0.1, 1.5])
def test_a_run_refuses_a_zoom_that_is_no_probability(zoom: float) -> None:
    """The configuration of a run takes 0 to 1, from JSON too; its default is 0."""
    phases = TrainingConfig.from_json('{"phases": [{"frames": 9}], "zoom": 0.3}')
    assert 0.3 == phases.zoom
    with pytest.raises(OptionError, match=r"zoom: expected 0 to 1"):
        dataclasses.replace(phases, zoom=zoom)
    assert 0.0 == TrainingConfig(phases=phases.phases).zoom
