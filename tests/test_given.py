"""Facts about what a user says of a frame, and how it enters what was found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stmemory.io.frames import WorkingSize
from stmemory.io.masks import to_object_masks
from stmemory.postprocess import (
    GivenMasks,
    Labels,
    impose,
    keep_near,
    last_places,
    object_scores,
    segmentation_of,
    winners,
)
from stmemory.window import Window


def found(objects: int, height: int = 5, width: int = 6) -> Tensor:
    """Random probabilities `[1 + N, H, W]` that sum to 1."""
    return torch.randn(1 + objects, height, width).softmax(0)


def impose_slowly(probabilities: Tensor, given: Tensor, void: Tensor, rows: list[int]) -> Tensor:
    """Pixel by pixel: given objects as given, others what is left, the background the rest; void pixels as they
    were."""
    result = probabilities.clone()
    for y in range(void.shape[0]):
        for x in range(void.shape[1]):
            if bool(void[y, x]):
                continue
            told = {row: float(given[n, y, x]) for n, row in enumerate(rows)}
            claimed = sum(told.values())
            told = {row: value / max(1.0, claimed) for row, value in told.items()}
            for row in range(len(probabilities) - 1):
                left = 1 - min(1.0, claimed)
                result[1 + row, y, x] = told.get(row, float(probabilities[1 + row, y, x]) * left)
            result[0, y, x] = 1 - float(result[1:, y, x].sum())
    return result


@pytest.mark.parametrize("rows", [[0], [2], [2, 0], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_impose_is_what_its_definition_says(rows: list[int], soft: bool) -> None:
    """Over random maps, hard and soft, with void pixels, the fast way equals the loop."""
    probabilities, given, void = found(3), torch.rand(len(rows), 5, 6), torch.rand(5, 6) > 0.8
    given = given if soft else (given > 0.6).float()
    actual = impose(probabilities, given, void, rows)
    torch.testing.assert_close(impose_slowly(probabilities, given, void, rows), actual)
    torch.testing.assert_close(torch.ones(5, 6), actual.sum(0))
    assert 0 <= float(actual.min())


def test_impose_nothing_changes_nothing() -> None:
    """Without given objects what was found stays."""
    probabilities = found(2)
    assert torch.equal(probabilities, impose(probabilities, torch.zeros(0, 5, 6), torch.zeros(5, 6).bool(), []))


def test_impose_does_not_write_into_its_arguments() -> None:
    """Whoever holds the probabilities of before holds them still."""
    probabilities = found(2)
    before = probabilities.clone()
    impose(probabilities, torch.ones(1, 5, 6), torch.zeros(5, 6).bool(), [1])
    assert torch.equal(before, probabilities)


def test_given_masks_know_their_working_size() -> None:
    """A mask of 30 x 44 is shrunk to 15 x 22 and padded to 16 x 32; its void goes with it."""
    mask = torch.zeros(30, 44, dtype=torch.uint8)
    mask[10:20, 10:30] = 7
    mask[20:, :] = 255
    masks = to_object_masks(mask, height=30, width=44)
    size = WorkingSize.of(30, 44, 15, 16)
    given = GivenMasks.of(masks, size, Window.whole(size))
    assert (7,) == given.object_ids
    assert ((1, 30, 44), (1, 16, 32)) == (tuple(given.full.shape), tuple(given.working.shape))
    assert ((30, 44), (16, 32)) == (tuple(given.full_void.shape), tuple(given.working_void.shape))
    assert (
        given.working_void[11:15, :22].all()
        and not given.working_void[:9].any()
        and not given.working_void[:, 22:].any()
    )


def test_far_regions_go_to_the_background() -> None:
    """Of two regions the one that does not touch the last place loses its probability to the background."""
    probabilities = torch.zeros(2, 1, 9)
    probabilities[1] = torch.tensor([0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.8, 0.8])
    probabilities[0] = 1 - probabilities[1]
    places = torch.zeros(1, 1, 9, dtype=torch.bool)
    places[0, 0, 0] = True
    winner = winners(probabilities)
    actual, near = keep_near(probabilities, winner, places, reach=2)
    torch.testing.assert_close(torch.tensor([0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0]), actual[1, 0])
    torch.testing.assert_close(torch.ones(1, 9), actual.sum(0))
    assert torch.equal(winners(actual), near)
    assert (probabilities, winner) == keep_near(probabilities, winner, places, reach=20)  # nothing is far


def test_who_is_not_seen_stays_where_it_was() -> None:
    """Object 1 is seen and moves, object 2 is hidden and stays, object 3 is new."""
    probabilities = torch.tensor([[0.1, 0.1, 0.2], [0.8, 0.1, 0.1], [0.05, 0.1, 0.1], [0.05, 0.7, 0.6]]).view(4, 1, 3)
    before = torch.tensor([[[False, True, False]], [[False, False, True]]])
    expected = [[[True, False, False]], [[False, False, True]], [[False, True, True]]]
    assert expected == last_places(Labels.of(probabilities).masks, before).tolist()
    assert [[[False, True, False]], [[False, False, True]]] == before.tolist()


def test_scores_are_means_over_the_pixels_that_an_object_wins() -> None:
    """As the definition says, object by object; 0 where it wins nothing."""
    probabilities = found(3, 8, 8)
    probabilities[2] = 0.0
    winner = winners(probabilities)
    scores, area = object_scores(probabilities, winner)
    for row in range(3):
        own = probabilities[1 + row][probabilities.argmax(0) == 1 + row]
        assert len(own) == int(area[row])
        assert pytest.approx(float(own.mean()) if len(own) else 0.0) == float(scores[row])


@pytest.mark.parametrize("objects", [0, 1, 2, 5], ids=str)
def test_labels_are_winners_scores_and_areas_of_one_frame(objects: int) -> None:
    """For any number of objects, the record holds what the functions give of its probabilities, and its masks are the
    pixels that each object wins."""
    probabilities = found(objects)
    labels = Labels.of(probabilities)
    scores, areas = object_scores(probabilities, winners(probabilities))
    assert torch.equal(winners(probabilities), labels.winner) and labels.probabilities is probabilities
    assert torch.equal(scores, labels.scores) and torch.equal(areas, labels.areas)
    assert [(probabilities.argmax(0) == 1 + row).tolist() for row in range(objects)] == labels.masks.tolist()


def test_a_segmentation_says_who_is_where() -> None:
    """Ids are the user's own, an object that wins no pixel is not present and scores 0."""
    probabilities = torch.tensor([[0.2, 0.9], [0.8, 0.06], [0.0, 0.04]]).view(3, 1, 2)
    result = segmentation_of(Labels.of(probabilities), (7, 1000), frame_index=4)
    assert (4, [[7, 0]], {7: True, 1000: False}) == (result.frame_index, result.ids.tolist(), result.present)
    assert pytest.approx({7: 0.8, 1000: 0.0}) == result.scores
