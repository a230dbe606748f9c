"""Facts about masks of any kind, soft aggregation and ids."""

from __future__ import annotations

import contextlib
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stmemory.errors import MaskError, ShapeError
from stmemory.masks import ids_from, soft_aggregate, to_object_masks
from stmemory.palette import read_palette_png, write_palette_png

IDS = np.array([[0, 7, 7], [300, 0, 7]])
BYTES = np.array([[0, 7, 7], [30, 0, 7]], np.uint8)
MAPS = [[[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]
SOFT = np.array([[0.1, 0.9, 0.8], [0.0, 0.0, 1.0]], np.float32)


@pytest.mark.parametrize(
    ("mask", "object_ids", "maps"),
    [
        (IDS, (7, 300), MAPS),
        (torch.from_numpy(IDS), (7, 300), MAPS),
        (IDS.astype(np.uint16), (7, 300), MAPS),
        (IDS.astype(">i4")[:, ::-1][:, ::-1], (7, 300), MAPS),
        (BYTES, (7, 30), MAPS),
        (Image.fromarray(BYTES), (7, 30), MAPS),
        (Image.fromarray(IDS.astype(np.uint16)), (7, 300), MAPS),
        (np.array(MAPS[0], bool), (1,), MAPS[:1]),
        (Image.fromarray(np.array(MAPS[0], bool)), (1,), MAPS[:1]),
        (torch.tensor(MAPS).bool(), (1, 2), MAPS),
        (np.array(MAPS, np.uint8), (1, 2), MAPS),
        (np.array(MAPS), (1, 2), MAPS),
        (SOFT, (1,), SOFT[None].tolist()),
        (torch.from_numpy(SOFT).double()[None], (1,), SOFT[None].tolist()),
    ],
    ids=["ids", "tensor", "uint16", "odd memory", "uint8", "grey PIL", "16-bit PIL", "bool", "1-bit PIL", "bool stack"]
    + ["one-hot", "float stack", "soft", "soft stack"],
)
def test_reads_every_kind(mask: object, object_ids: tuple[int, ...], maps: list[list[list[float]]]) -> None:
    """Masks of every kind become float32 maps under the user's own ids."""
    read = to_object_masks(mask, height=2, width=3)
    assert object_ids == read.object_ids
    assert torch.equal(torch.tensor(maps), read.probabilities)
    assert torch.float32 == read.probabilities.dtype
    assert torch.equal(torch.zeros(2, 3, dtype=torch.bool), read.void)


def test_reads_a_palette_png(tmp_path: Path) -> None:
    """A palette PNG gives its ids; 255 in it is void, and is no object."""
    write_palette_png(tmp_path / "a.png", np.array([[0, 7, 255], [30, 0, 7]]))
    read = to_object_masks(tmp_path / "a.png", height=2, width=3)
    assert (7, 30) == read.object_ids
    assert [[0, 0, 1], [0, 0, 0]] == read.void.int().tolist()
    assert 0 == read.probabilities[:, 0, 2].sum()


@pytest.mark.parametrize("as_image", [False, True], ids=["array", "grey PIL"])
def test_255_in_bytes_is_void_only_beside_other_ids(as_image: bool) -> None:
    """A black and white mask is object 1; with other ids in it, 255 is void."""
    both = np.array([[0, 255], [3, 0]], np.uint8)
    binary = np.array([[0, 255], [0, 0]], np.uint8)
    read = to_object_masks(Image.fromarray(both) if as_image else both, height=2, width=2)
    assert ((3,), 1) == (read.object_ids, int(read.void.sum()))
    read = to_object_masks(Image.fromarray(binary) if as_image else binary, height=2, width=2)
    assert ((1,), 0, 1) == (read.object_ids, int(read.void.sum()), int(read.probabilities.sum()))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_stored_as_colours_is_read_as_grey(tmp_path: Path, mode: str) -> None:
    """Equal channels, nothing transparent: the values are ids, as an image editor saves them."""
    Image.fromarray(BYTES).convert(mode).save(tmp_path / "grey.png")
    read = to_object_masks(tmp_path / "grey.png", height=2, width=3)

    assert ((7, 30), MAPS) == (read.object_ids, read.probabilities.tolist())


def test_a_jpeg_is_no_mask(tmp_path: Path) -> None:
    """A JPEG, from a path or opened before, is refused: its ids are blurred."""
    Image.fromarray(BYTES).save(tmp_path / "mask.png", format="JPEG")
    for mask in (tmp_path / "mask.png", Image.open(tmp_path / "mask.png")):
        with pytest.raises(MaskError, match="JPEG blurs ids.*PNG"):
            to_object_masks(mask, height=2, width=3)
        if isinstance(mask, Image.Image):
            mask.close()


def test_255_in_wider_integers_is_an_id() -> None:
    """In an int64 map 255 is an id like others."""
    assert (3, 255) == to_object_masks(np.array([[3, 255]]), height=1, width=2).object_ids


def test_later_objects_are_on_top() -> None:
    """Where a boolean stack overlaps, the later object has the pixel."""
    stack = torch.tensor([[[1, 1, 0]], [[0, 1, 0]], [[0, 0, 1]]]).bool()
    expected = [[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]
    assert expected == to_object_masks(stack, height=1, width=3).probabilities.tolist()


def test_does_not_share_memory_with_the_mask() -> None:
    """Writing to the maps leaves the user's soft mask alone."""
    mask = torch.ones(1, 2, 2)
    to_object_masks(mask, height=2, width=2).probabilities.zero_()
    assert 4 == mask.sum()


def test_empty_masks_pass_where_they_are_allowed() -> None:
    """With allow_empty, no object is no error, and a stack's objects without pixels are left out."""
    for mask in (np.zeros((2, 3), int), np.zeros((2, 3), bool), np.zeros((0, 2, 3), bool), np.zeros((2, 3))):
        read = to_object_masks(mask, height=2, width=3, allow_empty=True)
        assert ((), (0, 2, 3)) == (read.object_ids, tuple(read.probabilities.shape))
    stack = np.zeros((3, 2, 3), bool)
    stack[1, 0, 0] = True
    assert (2,) == to_object_masks(stack, height=2, width=3, allow_empty=True).object_ids


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((2, 3), int), "at least one object.*above 0"),
        (Image.fromarray(np.full((2, 3), 255, np.uint8)).convert("P"), "255 is void"),
        (np.ones((3, 3), int), r"2 x 3 \(H x W\), got shape \(3, 3\)"),
        (np.ones((2, 3, 4), bool), "objects first"),
        (np.ones((2, 3, 4, 1), int), r"\[H, W\] or \[N, H, W\]"),
        (-IDS, "got -300"),
        (IDS * 2**30, "ids from 0 to 2147483647"),
        (IDS.astype(float), "ids must be integers"),
        (SOFT * 255, "sigmoid"),
        (SOFT * np.nan, "NaN"),
        (SOFT + np.inf, "infinity"),
        (SOFT / 3, "at least one object"),
        (np.arange(6).reshape(1, 2, 3), "0 and 1 in a stack"),
        (np.ones((201, 2, 3), bool), "at most 200 objects, got a stack of 201"),
        (np.array([[[0, 1, 0], [0, 0, 0]], [[0] * 3] * 2]), "none of object 2"),
        (np.array([[[0, 1, 0], [0, 0, 0]]] * 2), "none of object 1"),
        (np.full((2, 3), "a"), "an array of <U1"),
        (torch.ones(2, 3, dtype=torch.complex64), "complex64"),
        ([[0, 1]], "got list"),
        (Image.new("RGB", (3, 2), (1, 1, 2)), "'RGB'.*map its colours"),
        (Image.new("RGBA", (3, 2), (1, 1, 1, 128)), "'RGBA'.*map its colours"),
        (np.ones((3, 2), int), "turned by 90 degrees"),
        (Image.new("LA", (3, 2)), "'LA'"),
        ("missing.png", "^mask: no file 'missing.png'"),
    ],
    ids=["empty", "void only", "size", "objects last", "4-D", "negative", "too large", "float ids", "float 255", "NaN", "inf"]
    + ["faint", "ids in a stack", "201", "empty object", "hidden object", "text", "complex", "list", "RGB", "RGBA"]
    + ["turned", "LA", "no file"],
)
def test_wrong_masks_are_errors_that_say_why(mask: object, message: str) -> None:
    """What is no mask of this frame is refused, with the reason and a way out."""
    with pytest.raises(MaskError, match=message):
        to_object_masks(mask, height=2, width=3)


def test_more_than_200_ids_are_refused_and_200_taken() -> None:
    """200 objects pass; 201 are an error."""
    ids = np.arange(201).reshape(1, 201)
    assert 200 == len(to_object_masks(ids, height=1, width=201).object_ids)
    with pytest.raises(MaskError, match="at most 200 objects, got 201"):
        to_object_masks(ids + 1, height=1, width=201)


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    """A file that is cut off is named, whether its header or its pixels are missing."""
    path = tmp_path / "a.png"
    write_palette_png(path, np.random.default_rng(0).integers(0, 9, (64, 64)))
    whole = path.read_bytes()
    for length in (4, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(MaskError, match="a.png"):
            to_object_masks(path, height=64, width=64)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "bmp", "tif"])
def test_damage_anywhere_is_an_error_of_ours(tmp_path: Path, kind: str) -> None:
    """Whatever Pillow raises on a file with a few bytes changed or the end missing, what comes out is a MaskError, or ids."""
    path, rng = tmp_path / f"a.{kind}", np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 9, (16, 16), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for _ in range(150):
        broken = bytearray(whole[: rng.integers(20, len(whole) + 1)])
        for place in rng.integers(0, min(200, len(broken)), 3):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        for read in (read_palette_png, lambda path: to_object_masks(path, height=16, width=16, allow_empty=True)):
            with contextlib.suppress(MaskError), warnings.catch_warnings(action="ignore"):
                read(path)


def slow_aggregate(probabilities: list[float]) -> list[float]:
    """STM's soft aggregation at one pixel, in float64, from its definition."""
    background = float(np.prod([1 - p for p in probabilities]))
    odds = [p / (1 - p) for p in (min(max(p, 1e-7), 1 - 1e-7) for p in (background, *probabilities))]
    return [o / sum(odds) for o in odds]


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_soft_aggregation_equals_its_definition(count: int) -> None:
    """Odds over their sum, pixel by pixel."""
    maps = torch.rand(count, 3, 4, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    expected = torch.tensor(
        [[slow_aggregate(maps[:, y, x].tolist()) for x in range(4)] for y in range(3)], dtype=torch.float64
    ).permute(2, 0, 1)
    torch.testing.assert_close(soft_aggregate(maps), expected)
    torch.testing.assert_close(soft_aggregate(maps.float()), expected.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("maps", "expected"),
    [([0.0, 0.0], [1, 0, 0]), ([1.0, 0.0], [0, 1, 0]), ([1.0, 1.0], [0, 0.5, 0.5]), ([0.0] * 200, [1, *[0] * 200]), ([], [1])],
    ids=["none", "one", "both", "none of 200", "no objects"],
)
def test_soft_aggregation_is_exact_at_the_extremes(maps: list[float], expected: list[float]) -> None:
    """Probabilities of 0 and 1 give certainty within 1e-6, in float32 and in half precision, never NaN."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        combined = soft_aggregate(torch.tensor(maps, dtype=dtype).view(-1, 1, 1))
        torch.testing.assert_close(combined.flatten(), torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


def test_soft_aggregation_has_finite_gradients() -> None:
    """The gradient at 0, 1 and between is finite, and right between."""
    maps = torch.tensor([0.0, 1.0, 0.5, 0.3]).view(4, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(soft_aggregate(maps)[1].sum(), maps)
    assert bool(gradient.isfinite().all())
    inner = torch.rand(3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(soft_aggregate, (inner,))


def test_ids_are_those_of_the_user() -> None:
    """The most probable map gives its id; a tie goes to the background, then to the first object."""
    probabilities = torch.tensor([[0.4, 0.1, 0.2], [0.4, 0.1, 0.4], [0.2, 0.8, 0.4]])[:, None]
    ids = ids_from(probabilities, (7, 300))
    assert [[0, 300, 7]] == ids.tolist()
    assert torch.int32 == ids.dtype
    assert [[0, 0, 0]] == ids_from(torch.ones(1, 1, 3), ()).tolist()


@pytest.mark.parametrize("mask", [IDS, np.array([[1, 2, 2], [0, 0, 1]])], ids=["sparse", "dense"])
def test_ids_survive_the_way_through_probabilities(mask: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    """Reading a mask, aggregating it and taking ids gives the mask."""
    read = to_object_masks(mask, height=2, width=3)
    assert mask.tolist() == ids_from(soft_aggregate(read.probabilities), read.object_ids).tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: soft_aggregate(torch.zeros(2, 3, 3, dtype=torch.bool)), "expected floats [N, H, W]"),
        (lambda: soft_aggregate(torch.tensor(0.5)), "expected floats [N, H, W]"),
        (lambda: ids_from(torch.zeros(2, 3, 3), (1, 2)), "with N = 2 ids, got (2, 3, 3)"),
    ],
    ids=["bool", "scalar", "ids"],
)
def test_wrong_shapes_are_errors(call: object, message: str) -> None:
    """Maps of the wrong type or number are refused."""
    assert callable(call)
    with pytest.raises(ShapeError, match=re.escape(message)):
        result: Tensor = call()
        result.sum()
