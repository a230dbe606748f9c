"""Facts about what training feeds back damaged, and about objects that come into view or are made of parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stmemory.training.damage import Damage, damaged, draw_damage
from stmemory.training.synthesis.motion import come_in, draw_back
from stmemory.training.unroll import score_loss


def _square() -> torch.Tensor:
    """Two rows of 20 x 20, in each a square of 10 x 10 pixels."""
    masks = torch.zeros(2, 20, 20)
    masks[:, 5:15, 5:15] = 0.9
    return masks


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, 2.0, -1.0])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_a_side_is_erased(angle: float, share: float) -> None:
    """About that share of the object goes, all on one side, what is left is as it was, and the other row is
    untouched."""
    masks = _square()
    found = damaged(masks, (Damage(2, 4, angle, share, adds=False), None), 3)
    gone = (found[0] == 0) & (masks[0] > 0)
    assert pytest.approx(share, abs=0.11) == int(gone.sum()) / 100
    assert torch.equal(masks[0][~gone], found[0][~gone]) and torch.equal(masks[1], found[1])
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    place = x * math.cos(angle) + y * math.sin(angle)
    assert float(place[gone].max()) <= float(place[found[0] > 0].min()) + 1e-4


def test_a_copy_is_added_beside() -> None:
    """A false part is a copy of the object, moved by the share of its size; what was there stays."""
    masks = _square()
    found = damaged(masks, (Damage(0, 9, 0.0, 0.5, adds=True), None), 3)
    expected = masks.clone()
    expected[0, 5:15, 10:20] = 0.9
    assert torch.equal(expected, found)


@pytest.mark.parametrize("time", [1, 5], ids=["before", "after"])
def test_damage_has_its_time(time: int) -> None:
    """Outside of its frames nothing happens: the very tensor comes back."""
    masks = _square()
    assert masks is damaged(masks, (Damage(2, 4, 0.0, 0.5, adds=False), None), time)


def test_an_object_that_is_hardly_there_is_not_damaged() -> None:
    """Of fewer than four pixels nothing is erased."""
    masks = torch.zeros(1, 8, 8)
    masks[0, 0, :3] = 1
    assert masks is damaged(masks, (Damage(0, 9, 0.0, 0.5, adds=False),), 1)


def test_gradients_pass_what_is_left() -> None:
    """Through a damaged mask the gradient reaches the pixels that were kept, and no others."""
    masks = _square().requires_grad_()
    damaged(masks, (Damage(0, 9, 0.0, 0.5, adds=False), None), 1)[0].sum().backward()
    assert masks.grad is not None
    kept = torch.zeros(20, 20)
    kept[:, 10:] = 1
    assert torch.equal(kept, masks.grad[0])


def test_damages_are_drawn_within_the_clip() -> None:
    """They begin after frame 0 and within the clip, last some frames, and come about as often as asked, of both
    kinds."""
    drawn = draw_damage(2000, 16, 0.4, torch.Generator().manual_seed(3))
    found = [damage for damage in drawn if damage is not None]
    assert pytest.approx(0.4, abs=0.05) == len(found) / 2000
    assert {*range(1, 15)} == {damage.first for damage in found}
    assert all(0 <= damage.last - damage.first < 8 for damage in found)
    erased = [damage.share for damage in found if not damage.adds]
    assert pytest.approx(0.7, abs=0.06) == len(erased) / len(found)
    assert 0.1 <= min(erased) < 0.15 and 0.55 < max(erased) <= 0.6


def test_without_damage_chance_is_left_alone() -> None:
    """A probability of 0 asks the generator for nothing, so that runs without damage are what they were."""
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert (None, None, None) == draw_damage(3, 16, 0.0, generator)
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize("seed", range(12))
def test_what_hides_an_object_leaves_it(seed: int) -> None:
    """In frame 0 it overlaps the object without covering its middle; at the end they no longer touch."""
    target = torch.rand(16, 2, generator=torch.Generator().manual_seed(seed))
    away = (draw_back(np.random.default_rng(seed), target, reach=0.4) - target).norm(dim=1)
    assert 0.3 * 0.4 < float(away[0]) < 0.4 < float(away[-1])
    assert bool((away.diff() > 0).all())


@pytest.mark.parametrize("seed", range(12))
def test_what_begins_over_the_side_comes_in(seed: int) -> None:
    """In frame 0 its middle is near the side of the frame, and its shift falls to nothing before the clip ends."""
    rng = np.random.default_rng(seed)
    shift = come_in(rng, 16, start=(0.7, 0.4), half=0.2)
    assert [0.0, 0.0] == shift[-1].tolist()
    assert 1 - 0.4 * 0.2 <= 0.7 + float(shift[0, 0]) <= 1 + 0.5 * 0.2 and bool((shift[:, 1] == 0).all())


def test_score_loss_is_the_balanced_cross_entropy() -> None:
    """For each object that is there, one half is the mean over its own cells, one half that over the rest."""
    generator = torch.Generator().manual_seed(1)
    scores, mask = torch.rand(3, 4, 4, generator=generator), (torch.rand(3, 4, 4, generator=generator) > 0.6).float()
    mask[1] = 0
    expected = []
    for row in (0, 2):
        chance = torch.sigmoid(8 * (scores[row] - 0.5))
        inside, outside = -chance[mask[row] == 1].log(), -(1 - chance[mask[row] == 0]).log()
        expected.append(0.5 * inside.mean() + 0.5 * outside.mean())
    torch.testing.assert_close(torch.stack(expected).mean(), score_loss(scores, mask))
    assert 0.0 == float(score_loss(scores[1:2], mask[1:2]))
