"""Facts about `SelfPrompter`: `lite` makes masks of boxes and clicks itself, on a rendered scene of known truth."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny import new_predictor, tiny_network

from stmemory.errors import OptionError
from stmemory.evaluation.metrics import region_similarity
from stmemory.evaluation.prompts import box_of, inmost
from stmemory.evaluation.scenes import render_scene
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.prompter import SelfPrompter
from stmemory.prompts import Prompt

FRAME, TRUTH = next(iter(render_scene(1, height=240, width=432)))
BALL, KITE = (TRUTH == number for number in np.unique(TRUTH)[1:3])


@pytest.fixture(scope="module")
def lite() -> VOSPredictor:
    return VOSPredictor.from_pretrained("lite")


def of(mask: np.ndarray, object_id: int) -> Prompt:
    return Prompt(object_id, box=box_of(mask))


def test_a_box_gives_more_than_the_box(lite: VOSPredictor) -> None:
    """The mask is nearer to the truth than the box itself is, and inside of it."""
    for mask in (BALL, KITE):
        left, top, right, bottom = (int(side) for side in box_of(mask))
        drawn = np.zeros_like(mask)
        drawn[top:bottom, left:right] = True
        found = lite.start(FRAME, prompts=of(mask, 1)).last.mask(1).numpy()
        assert region_similarity(found, mask) > region_similarity(drawn, mask)
        assert not (found & ~drawn).any()


def test_several_objects_are_found_in_one_frame(lite: VOSPredictor) -> None:
    """Each in its own box, by the same calls as one alone gives."""
    result = lite.start(FRAME, prompts=[of(BALL, 4), of(KITE, 9)]).last
    assert (4, 9) == result.object_ids and all(result.present.values())
    for mask, object_id in ((BALL, 4), (KITE, 9)):
        assert region_similarity(result.mask(object_id).numpy(), mask) > 0.4


def test_the_same_prompt_gives_the_same_mask_and_changes_nothing(lite: VOSPredictor) -> None:
    """Nothing is drawn, and the network is left as it is."""
    before = copy.deepcopy(lite.network.state_dict())
    one, other = (lite.start(FRAME, prompts=of(BALL, 1)).last.probabilities for _ in range(2))
    assert torch.equal(one, other)
    assert all(torch.equal(tensor, lite.network.state_dict()[name]) for name, tensor in before.items())


def test_a_click_is_of_the_object_and_one_beside_it_is_not(lite: VOSPredictor) -> None:
    """The clicked pixels are what was said of them."""
    x, y = inmost(BALL)
    away = inmost(KITE)
    result = lite.start(FRAME, prompts=Prompt(1, points=[(x, y)], not_points=[away])).last
    assert result.ids[int(y), int(x)] == 1 and result.ids[int(away[1]), int(away[0])] == 0


def test_a_network_without_the_read_is_refused() -> None:
    """And a predictor of one has no prompter."""
    plain = new_predictor(scored=False)
    assert plain.prompter is None
    with pytest.raises(OptionError, match="discriminative read"):
        SelfPrompter(plain.network, TrackingOptions())  # type: ignore[arg-type]
    assert isinstance(VOSPredictor(tiny_network()).prompter, SelfPrompter)
