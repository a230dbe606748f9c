"""J, F and their statistics, beside slow references written from the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stmemory.errors import MaskError, ShapeError
from stmemory.evaluation import (
    SequenceScores,
    boundary_accuracy,
    boundary_map,
    boundary_radius,
    region_similarity,
    statistics,
)


def slow_region(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Pixels in both over pixels in either, counted one by one."""
    both = either = 0
    for y, x in np.ndindex(truth.shape):
        both += bool(prediction[y, x] and truth[y, x])
        either += bool(prediction[y, x] or truth[y, x])
    return both / either if either else 1.0


def slow_boundary(mask: np.ndarray) -> set[tuple[int, int]]:
    """Pixels that differ from a neighbour to the right, below, or both; neighbours outside the frame do not count."""
    height, width = mask.shape
    found = set()
    for y, x in np.ndindex(mask.shape):
        for down, right in ((0, 1), (1, 0), (1, 1)):
            if y + down < height and x + right < width and mask[y, x] != mask[y + down, x + right]:
                found.add((y, x))
    return found


def slow_accuracy(prediction: np.ndarray, truth: np.ndarray, radius: int) -> float:
    """Dilate each boundary by a disk, pixel by pixel, and count what it covers of the other."""
    disk = [
        (j, i) for j in range(-radius, radius + 1) for i in range(-radius, radius + 1) if j * j + i * i <= radius**2
    ]
    ours, theirs = slow_boundary(prediction), slow_boundary(truth)
    if not ours or not theirs:
        return float(not ours and not theirs)
    near_theirs = {(y + j, x + i) for y, x in theirs for j, i in disk}
    near_ours = {(y + j, x + i) for y, x in ours for j, i in disk}
    precision, recall = len(ours & near_theirs) / len(ours), len(theirs & near_ours) / len(theirs)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def ellipse(height: int, width: int, *, centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((40, 50), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def drawn_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of ellipses in frames of many sizes: overlapping, apart, cut by the frame's edges, filling it, and
    noise."""
    rng = np.random.default_rng(7)
    pairs = []
    for _ in range(30):
        height, width = (int(side) for side in rng.integers(1, 60, 2))
        masks = [
            ellipse(height, width, centre=tuple(rng.uniform(0, (height, width))), radii=tuple(rng.uniform(0.5, 40, 2)))
            for _ in range(2)
        ]
        pairs.append((masks[0], masks[1]))
        pairs.append((masks[0], masks[0] ^ (rng.random((height, width)) < 0.02)))
    return pairs


class TestRegionSimilarity:
    def test_equals_the_count_pixel_by_pixel(self) -> None:
        """J of drawn shapes equals a count over all pixels."""
        for prediction, truth in drawn_pairs():
            assert slow_region(prediction, truth) == region_similarity(prediction, truth)

    def test_of_two_empty_masks_is_one(self) -> None:
        """Nothing predicted where nothing is counts as right."""
        nothing = np.zeros((4, 5), dtype=bool)
        assert 1.0 == region_similarity(nothing, nothing)

    def test_of_one_empty_mask_is_zero(self) -> None:
        """Something predicted where nothing is counts as wholly wrong."""
        assert 0.0 == region_similarity(square(2, 2, 9), square(0, 0, 0))


class TestBoundaryAccuracy:
    @pytest.mark.parametrize("radius", [0, 1, 3, None], ids=["exact", "radius-1", "radius-3", "default-radius"])
    def test_equals_the_disk_dilation_pixel_by_pixel(self, radius: int | None) -> None:
        """F of drawn shapes equals the definition with explicit disks."""
        for prediction, truth in drawn_pairs():
            reference = slow_accuracy(prediction, truth, boundary_radius(*truth.shape) if radius is None else radius)
            assert reference == pytest.approx(boundary_accuracy(prediction, truth, radius=radius), abs=1e-12)

    @pytest.mark.parametrize(
        ("height", "width", "radius"),
        [(480, 854, 8), (240, 432, 4), (1080, 1920, 18), (1, 1, 1)],
        ids=["480p", "240p", "1080p", "pixel"],
    )
    def test_radius_is_a_share_of_the_diagonal_rounded_up(self, height: int, width: int, radius: int) -> None:
        """The tolerance is 0.8 % of the diagonal, rounded up."""
        assert radius == boundary_radius(height, width)

    def test_boundary_map_equals_the_neighbours_one_by_one(self) -> None:
        """The boundary of drawn shapes is what a look at each pixel's neighbours gives."""
        for mask, _ in drawn_pairs():
            assert slow_boundary(mask) == {(int(y), int(x)) for y, x in np.argwhere(boundary_map(mask))}

    @pytest.mark.parametrize("filled", [False, True], ids=["empty", "whole-frame"])
    def test_of_two_masks_without_boundary_is_one(self, filled: bool) -> None:
        """Two masks that both have no boundary agree on it."""
        mask = np.full((9, 12), filled)
        assert 1.0 == boundary_accuracy(mask, mask)

    def test_of_one_mask_without_boundary_is_zero(self) -> None:
        """A boundary where there is none counts as wholly wrong, either way round."""
        nothing = square(0, 0, 0)
        assert (0.0, 0.0) == (boundary_accuracy(square(5, 5, 9), nothing), boundary_accuracy(nothing, square(5, 5, 9)))

    def test_forgives_a_shift_within_the_radius_and_no_more(self) -> None:
        """A square moved by the radius scores 1; moved far away it scores 0."""
        assert 1.0 == boundary_accuracy(square(5, 5, 10), square(5, 8, 10), radius=3)
        assert 1.0 > boundary_accuracy(square(5, 5, 10), square(5, 8, 10), radius=2)
        assert 0.0 == boundary_accuracy(square(2, 2, 6), square(30, 40, 6), radius=3)

    def test_takes_tensors_as_well_as_arrays(self) -> None:
        """A tensor and an array with the same pixels score the same."""
        first, second = square(5, 5, 10), square(9, 9, 10)
        assert boundary_accuracy(first, second) == boundary_accuracy(torch.from_numpy(first), torch.from_numpy(second))
        assert region_similarity(first, second) == region_similarity(torch.from_numpy(first), second)


class TestWrongInput:
    @pytest.mark.parametrize("measure", [region_similarity, boundary_accuracy], ids=["J", "F"])
    def test_masks_of_two_sizes_are_refused(self, measure) -> None:
        """Masks of different sizes are an error that names both."""
        with pytest.raises(ShapeError, match=r"\(3, 4\).*\(3, 5\)"):
            measure(np.zeros((3, 5), dtype=bool), np.zeros((3, 4), dtype=bool))

    @pytest.mark.parametrize("measure", [region_similarity, boundary_accuracy], ids=["J", "F"])
    def test_ids_in_place_of_a_mask_are_refused(self, measure) -> None:
        """An integer map is not taken for a mask by accident."""
        with pytest.raises(ShapeError, match="ids == 1"):
            measure(np.zeros((3, 4), dtype=np.uint8), np.zeros((3, 4), dtype=bool))

    @pytest.mark.parametrize("object_id", [0, 255], ids=["background", "void"])
    def test_background_and_void_are_no_objects(self, object_id: int) -> None:
        """Scoring the background or the void as an object is an error."""
        ids = np.zeros((3, 4), dtype=np.uint8)
        with pytest.raises(MaskError, match=f"got {object_id}"):
            SequenceScores().add(ids, ids, object_ids=[object_id])


class TestStatistics:
    def test_recall_is_the_share_above_one_half(self) -> None:
        """A value of exactly 0.5 does not count as recalled."""
        assert 0.25 == statistics([0.5, 0.51, 0.2, 0.0]).recall

    def test_decay_is_first_quarter_less_last(self) -> None:
        """The quarters share their end frames: of nine frames, the first three and the last three."""
        values = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
        assert 0.9 - 0.3 == pytest.approx(statistics(values).decay)

    @pytest.mark.parametrize("length", [*range(1, 40), 77, 98, 255, 256])
    def test_decay_equals_the_bins_of_the_toolkit(self, length: int) -> None:
        """The bins run from edge to edge, both included; edges are four equal steps from 1 to T, a half rounded up."""
        values = np.random.default_rng(length).random(length).tolist()
        edges = [math.floor(1 + (length - 1) * quarter / 4 + 0.5) for quarter in range(5)]  # counted from 1
        first = [values[t - 1] for t in range(edges[0], edges[1] + 1)]
        last = [values[t - 1] for t in range(edges[3], edges[4] + 1)]
        assert sum(first) / len(first) - sum(last) / len(last) == pytest.approx(statistics(values).decay, abs=1e-12)

    def test_decay_of_a_long_sequence_has_no_wrap_around(self) -> None:
        """Beyond 256 frames the quarters are still quarters."""
        values = np.linspace(1, 0, 1001)
        assert np.mean(values[:251]) - np.mean(values[750:]) == pytest.approx(statistics(values.tolist()).decay)

    def test_of_nothing_is_not_a_number(self) -> None:
        """No frames give NaN, not zero and not an exception."""
        assert math.isnan(statistics([]).mean)


class TestSequenceScores:
    def test_scores_each_object_over_its_frames(self) -> None:
        """Each object's figures are those of its own masks, averaged over the frames that were added."""
        truth = np.where(square(2, 2, 12), 3, np.where(square(20, 20, 15), 7, 0))
        half = np.where(square(2, 2, 12), 3, 0)
        sequence = SequenceScores()
        sequence.add(truth, truth, object_ids=[3, 7])
        sequence.add(torch.from_numpy(half), truth, object_ids=[3, 7])
        first, second = sequence.scores()
        assert (3, 1.0, 1.0) == (first.object_id, first.region.mean, first.boundary.mean)
        assert (7, 0.5, 0.5, 0.5) == (second.object_id, second.region.mean, second.boundary.mean, second.mean)
        assert (1.0, 0.0) == second.region.per_frame

    @pytest.mark.parametrize("where", ["in-the-truth", "beside-the-truth"])
    def test_void_pixels_count_for_nothing(self, where: str) -> None:
        """What is predicted on void pixels changes neither measure."""
        truth, void = np.where(square(2, 2, 12), 1, 0), square(20, 20, 15)
        prediction = np.where(void, 1, truth)
        sequence = SequenceScores()
        if where == "in-the-truth":
            sequence.add(prediction, np.where(void, 255, truth), object_ids=[1])
        else:
            sequence.add(prediction, truth, object_ids=[1], void=void)
        (scores,) = sequence.scores()
        assert (1.0, 1.0) == (scores.region.mean, scores.boundary.mean)
        sequence.add(prediction, truth, object_ids=[1])
        assert 1.0 > sequence.scores()[0].region.mean

    def test_frames_are_kept_beside_the_values(self) -> None:
        """An object's values can be found again in the video; an object that joins late has fewer."""
        ids = np.where(square(2, 2, 12), 1, np.where(square(20, 20, 15), 2, 0))
        sequence = SequenceScores()
        sequence.add(ids, ids, object_ids=[1], frame=3)
        sequence.add(ids, ids, object_ids=[1, 2], frame=8)
        assert [(3, 8), (8,)] == [scores.frames for scores in sequence.scores()]

    def test_sizes_that_differ_are_refused(self) -> None:
        """A prediction or a void map of another size than the truth is an error that says so."""
        ids = np.ones((3, 4), np.uint8)
        with pytest.raises(ShapeError, match=r"prediction: .*\(3, 4\), got \(4, 3\)"):
            SequenceScores().add(ids.T, ids, object_ids=[1])
        with pytest.raises(ShapeError, match="void"):
            SequenceScores().add(ids, ids, object_ids=[1], void=np.ones((4, 3), bool))

    def test_255_can_be_an_object(self) -> None:
        """Without a void id, 255 is an id like any other."""
        ids = np.where(square(2, 2, 12), 255, 0)
        sequence = SequenceScores(void_id=None)
        sequence.add(ids, ids, object_ids=[255])
        assert 255 == sequence.scores()[0].object_id
