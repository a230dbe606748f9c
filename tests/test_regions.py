"""Facts about the removal of false positives."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import Tensor

from stmemory.errors import OptionError, ShapeError
from stmemory.postprocess import remove_false_positives


def slow_removal(mask: Tensor, previous: Tensor, reach: int) -> Tensor:
    """Breadth-first search over one mask, pixel by pixel."""
    height, width = mask.shape
    kept = torch.zeros_like(mask)
    queue: deque[tuple[int, int]] = deque()

    def neighbours(row: int, column: int, distance: int) -> list[tuple[int, int]]:
        rows = range(max(0, row - distance), min(height, row + distance + 1))
        columns = range(max(0, column - distance), min(width, column + distance + 1))
        return [(r, c) for r in rows for c in columns]

    for row in range(height):
        for column in range(width):
            if mask[row, column] and any(previous[place] for place in neighbours(row, column, reach)):
                kept[row, column] = True
                queue.append((row, column))
    while queue:
        for place in neighbours(*queue.popleft(), 1):
            if mask[place] and not kept[place]:
                kept[place] = True
                queue.append(place)
    return kept if kept.any() else mask


@pytest.mark.parametrize("density", [0.1, 0.3, 0.45, 0.6], ids=lambda d: f"density {d}")
@pytest.mark.parametrize("reach", [0, 1, 2, 5, 40], ids=lambda r: f"reach {r}")
def test_equals_a_search_pixel_by_pixel(density: float, reach: int) -> None:
    """Random masks of odd sizes keep what a breadth-first search keeps."""
    generator = torch.Generator().manual_seed(round(100 * density) + reach)
    for height, width in ((1, 1), (1, 9), (9, 1), (13, 17), (24, 19)):
        masks = torch.rand(3, height, width, generator=generator) < density
        previous = torch.rand(3, height, width, generator=generator) < 0.02
        expected = torch.stack([slow_removal(m, p, reach) for m, p in zip(masks, previous, strict=True)])
        assert torch.equal(expected, remove_false_positives(masks, previous, reach=reach))


def test_follows_a_spiral_to_its_end() -> None:
    """A region that winds around itself is kept whole, however far its end is from the last place."""
    spiral = torch.zeros(41, 41, dtype=torch.bool)
    row, column, down, along = 0, 0, 0, 1
    spiral[0, 0] = True
    for length in [40, 40, 40, *[n for n in range(38, 0, -2) for _ in (0, 1)]]:
        for _ in range(length):
            row, column = row + down, column + along
            spiral[row, column] = True
        down, along = along, -down
    previous = torch.zeros_like(spiral)
    previous[0, 0] = True
    assert torch.equal(spiral, remove_false_positives(spiral, previous, reach=0))
    assert torch.equal(slow_removal(spiral, previous, 0), remove_false_positives(spiral, previous, reach=0))


def test_removes_the_far_one_of_two_blobs() -> None:
    """Only the blob beside the last place is kept."""
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[2:6, 2:6] = mask[12:18, 20:28] = True
    previous = torch.zeros_like(mask)
    previous[2:5, 2:5] = True
    expected = mask.clone()
    expected[12:] = False
    assert torch.equal(expected, remove_false_positives(mask, previous, reach=2))


@pytest.mark.parametrize("previous_pixels", [0, 1], ids=["nowhere before", "jumped"])
def test_never_removes_an_object(previous_pixels: int) -> None:
    """An object that was nowhere, or jumped, keeps everything."""
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, 10:12, 3:5] = mask[0, 15:, 15:] = True
    previous = torch.zeros_like(mask)
    previous[0, 0, :previous_pixels] = True
    assert torch.equal(mask, remove_false_positives(mask, previous, reach=1))


def test_objects_are_judged_apart_and_inputs_left_alone() -> None:
    """One object's last place keeps no region of another; the masks passed in do not change, nor are they returned."""
    masks = torch.zeros(2, 8, 20, dtype=torch.bool)
    masks[:, :3, :3] = masks[:, 5:, 15:] = True
    previous = torch.zeros_like(masks)
    previous[0, 0, 0] = previous[1, 7, 19] = True
    before = masks.clone()
    kept = remove_false_positives(masks, previous, reach=1)
    assert [9, 15] == kept.flatten(1).sum(1).tolist()
    assert torch.equal(before, masks)
    near = remove_false_positives(masks, masks, reach=1)
    near.fill_(False)
    assert torch.equal(before, masks)


def test_takes_no_objects_and_empty_masks() -> None:
    """N = 0 and masks without pixels come back as they are."""
    assert (0, 4, 5) == tuple(remove_false_positives(*[torch.zeros(0, 4, 5, dtype=torch.bool)] * 2, reach=3).shape)
    assert not remove_false_positives(*[torch.zeros(2, 4, 5, dtype=torch.bool)] * 2, reach=3).any()


def test_wrong_arguments_are_errors() -> None:
    """Floats, another shape and a reach below 0 are refused."""
    mask = torch.zeros(4, 5, dtype=torch.bool)
    with pytest.raises(ShapeError, match="expected booleans"):
        remove_false_positives(mask.float(), mask, reach=1)
    with pytest.raises(ShapeError, match=r"\(4, 5\) and torch.bool \(5, 4\)"):
        remove_false_positives(mask, mask.T, reach=1)
    with pytest.raises(OptionError, match="got -1"):
        remove_false_positives(mask, mask, reach=-1)
