"""Facts about masks of any kind, soft aggregation and ids."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stmemory.errors import MaskError, ShapeError
from stmemory.formats import read_objects
from stmemory.formats.base import ids_of
from stmemory.io.masks import to_object_masks
from stmemory.io.palette import (
    IdImage,
    davis_palette,
    read_id_image,
    read_mask,
    read_palette_png,
    write_palette_png,
)
from stmemory.postprocess import ids_from, soft_aggregate
from stmemory.training.data.masks import IdMask

IDS = np.array([[0, 7, 7], [300, 0, 7]])
BYTES = np.array([[0, 7, 7], [30, 0, 7]], np.uint8)
MAPS = [[[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]
SOFT = np.array([[0.1, 0.9, 0.8], [0.0, 0.0, 1.0]], np.float32)


def indexed(ids: NDArray[np.uint8], palette: bytes) -> Image.Image:
    """A palette image."""
    image = Image.fromarray(ids)
    image.putpalette(palette)
    return image


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


def ellipse(height: int = 40, width: int = 60) -> NDArray[np.bool_]:
    """One object of some size."""
    y, x = np.mgrid[:height, :width]
    inside: NDArray[np.bool_] = ((y - height / 2) / (height / 3)) ** 2 + ((x - width / 2) / (width / 3)) ** 2 < 1
    return inside


def smooth(level: int = 255, *, method: Image.Resampling = Image.Resampling.LANCZOS) -> NDArray[np.uint8]:
    """That object as a paint program saves it: drawn four times as large, and shrunk."""
    large = Image.fromarray((ellipse(160, 240) * level).astype(np.uint8))
    return np.array(large.resize((60, 40), method))


def as_colours_of(palette: list[tuple[int, int, int]], picture: NDArray[np.uint8]) -> Image.Image:
    """A palette image of such a picture [H, W, 3]."""
    ids = np.zeros(picture.shape[:2], np.uint8)
    for number, colour in enumerate(palette):
        ids[(picture == colour).all(-1)] = number
    return indexed(ids, bytes(np.array(palette, np.uint8).ravel()))


def by_every_reader(path: Path) -> list[NDArray[np.int64]]:
    """Ids that tracking, formats, evaluation and training read from a file; white alone is 1 where others say so
    later."""
    tracked = to_object_masks(path, height=40, width=60)
    numbers = torch.tensor(tracked.object_ids).view(-1, 1, 1)
    found = read_id_image(path)
    labels, is_palette = found.ids, found.palette
    alone = not is_palette and not ((labels > 0) & (labels < 255)).any()
    return [
        (tracked.probabilities * numbers).sum(0).long().numpy(),
        ids_of(path).astype(np.int64),
        ((labels > 0) if alone else np.where(labels == 255, 0, labels)).astype(np.int64),
        IdMask(path).read(60, 40).astype(np.int64),
    ]


@pytest.mark.parametrize(
    "method",
    [Image.Resampling.LANCZOS, Image.Resampling.BOX, Image.Resampling.BICUBIC],
    ids=["lanczos", "box", "bicubic"],
)
@pytest.mark.parametrize("kind", ["grey", "RGB", "grey palette", "adaptive palette"])
def test_a_mask_with_smooth_edges_is_one_object(kind: str, method: Image.Resampling, tmp_path: Path) -> None:
    """Black and white with greys along the edge is object 1, from 128 on, for tracking, formats, evaluation and
    training alike."""
    values = smooth(method=method)
    image = Image.fromarray(values)
    if kind == "adaptive palette":
        image = image.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
    else:
        image = image.convert({"grey": "L", "RGB": "RGB", "grey palette": "P"}[kind])
    image.save(tmp_path / "a.png")

    expected = values >= 128
    for ids in by_every_reader(tmp_path / "a.png"):
        assert [0, 1] == np.unique(ids).tolist()
        assert (expected != (ids > 0)).sum() <= (9 if "adaptive" in kind else 0)
    (tmp_path / "objects" / "007").mkdir(parents=True)
    image.save(tmp_path / "objects" / "007" / "0.png")
    ((_, of_objects),) = read_objects(tmp_path / "objects")
    assert [0, 7] == np.unique(of_objects).tolist() and (expected != (of_objects > 0)).sum() <= 9


@pytest.mark.parametrize(
    ("values", "palette", "void_id", "is_white"),
    [
        (np.array([[0, 7, 255]], np.uint8), True, 255, False),
        (np.array([[0, 255]], np.uint8), True, 255, False),
        (np.array([[0, 7]], np.uint8), True, 255, False),
        (np.array([[0, 7, 255]], np.uint8), False, 255, False),
        (np.array([[0, 255]], np.uint8), False, None, True),
        (np.array([[0, 7]], np.uint8), False, None, False),
        (np.zeros((1, 2), np.uint8), False, None, False),
        (np.array([[0, 255]], np.uint16), False, None, False),
        (np.array([[0, 7, 255]], np.int32), False, None, False),
        (np.array([[False, True]]), False, None, False),
        (np.array([[[0, 255]]], np.uint8), False, None, False),
    ],
    ids=[
        "palette",
        "palette of void alone",
        "palette without void",
        "greys beside 255",
        "black and white",
        "greys without 255",
        "black",
        "16 bits",
        "32 bits",
        "one bit",
        "a stack",
    ],
)
def test_255_has_one_rule(values: NDArray[np.generic], palette: bool, void_id: int | None, is_white: bool) -> None:
    """Void in a palette and beside other ids in bytes, the object where it is alone in bytes, else an id like others;
    `ids` keeps it in all of them."""
    found = IdImage(values, palette)
    assert (void_id, is_white) == (found.void_id, found.is_white)
    assert values.astype(int).tolist() == found.ids.tolist()
    if values.ndim == 2 and not palette:
        read, void = read_mask(np.array(values))
        assert void_id == void
        assert (values != 0 if is_white else values).astype(int).tolist() == read.int().tolist()


def test_smooth_edges_in_arrays_are_edges_too() -> None:
    """The same bytes as an array and as a tensor are one object; as int64 every value is an id."""
    values = smooth()
    for mask in (values, torch.from_numpy(values)):
        assert (1,) == to_object_masks(mask, height=40, width=60).object_ids
    assert len(np.unique(values)) - 1 == len(to_object_masks(values.astype(np.int64), height=40, width=60).object_ids)


def two_greys() -> NDArray[np.uint8]:
    """Two objects painted with 128 and 255."""
    ids = np.zeros((40, 60), np.uint8)
    ids[5:15, 5:25], ids[20:35, 30:50] = 128, 255
    return ids


def smooth_grey() -> NDArray[np.uint8]:
    """A grey object with smooth edges."""
    return smooth(200)


def was_jpeg() -> NDArray[np.uint8]:
    """Black and white that was a JPEG, where the greys fill small areas."""
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, "JPEG", quality=30)
    with Image.open(buffer) as image:
        return np.array(image)


def dithered() -> Image.Image:
    """Colours that the palette does not have, mixed of those that it has."""
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[ellipse()] = (130, 40, 60)
    palette = Image.new("P", (1, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255, 255, 255, 255])
    return Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def coloured_edges() -> Image.Image:
    """Two colours with smooth edges, in a palette."""
    picture = np.zeros((160, 240, 3), np.uint8)
    picture[ellipse(160, 240)] = (250, 60, 20)
    picture[:, :90][ellipse(160, 240)[:, :90]] = (20, 60, 250)
    small = Image.fromarray(picture).resize((60, 40), Image.Resampling.LANCZOS)
    return small.convert("P", palette=Image.Palette.ADAPTIVE, colors=32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Image.fromarray(two_greys()), "greys 128 and 255.*void beside other ids.*1 to N"),
        (lambda: Image.fromarray(smooth_grey()), "greys.*thin lines.*smoothed"),
        (lambda: Image.fromarray(was_jpeg()), "greys.*thin lines.*JPEG"),
        (dithered, "dithered"),
        (coloured_edges, "smoothed"),
    ],
    ids=["128 and 255", "grey with smooth edges", "was a JPEG", "dithered", "coloured edges"],
)
def test_what_cannot_be_told_apart_is_refused_by_all(
    make: Callable[[], Image.Image], message: str, tmp_path: Path
) -> None:
    """A mask that may be ids or paint is an error that says why, whoever reads it, and names its file."""
    make().save(tmp_path / "a.png")
    for read in (
        lambda: to_object_masks(tmp_path / "a.png", height=40, width=60),
        lambda: ids_of(tmp_path / "a.png"),
        lambda: read_id_image(tmp_path / "a.png").ids,
        lambda: read_palette_png(tmp_path / "a.png"),
        lambda: IdMask(tmp_path / "a.png").read(60, 40),
    ):
        with pytest.raises(MaskError, match=rf"a\.png.*{message}"):
            read()


def many_small() -> NDArray[np.uint8]:
    """Objects of two by two pixels with the ids 1 to 77, apart from each other."""
    ids = np.zeros((40, 60), np.uint8)
    for number in range(77):
        y, x = 2 + 5 * (number // 11), 2 + 5 * (number % 11)
        ids[y : y + 2, x : x + 2] = number + 1
    return ids


def with_void_edge() -> NDArray[np.uint8]:
    """An object with a contour of void, as PASCAL VOC has them."""
    ids = np.zeros((40, 60), np.uint8)
    ids[8:32, 8:40], ids[10:30, 10:38] = 255, 5
    return ids


def three_greys() -> NDArray[np.uint8]:
    """Objects with the ids 60, 120 and 180."""
    ids = np.zeros((40, 60), np.uint8)
    ids[2:12, 2:20], ids[12:24, 10:30], ids[20:38, 30:58] = 60, 120, 180
    return ids


@pytest.mark.parametrize(
    "ids", [many_small(), with_void_edge(), three_greys()], ids=["many small", "void edge", "three greys"]
)
def test_ids_are_not_taken_for_paint(ids: NDArray[np.uint8], tmp_path: Path) -> None:
    """Small objects, contours of void and high ids are read as they are, in grey and palette images."""
    expected = np.where(ids == 255, 0, ids).tolist()
    Image.fromarray(ids).save(tmp_path / "grey.png")
    write_palette_png(tmp_path / "palette.png", ids)
    for name in ("grey.png", "palette.png"):
        for found in by_every_reader(tmp_path / name):
            assert expected == found.tolist()


@pytest.mark.parametrize("place", [1, 2])
def test_black_is_the_background_of_a_palette(place: int, tmp_path: Path) -> None:
    """Wherever black stands in the palette it is background, and the object that had the number 0 gets that of
    black."""
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[5:15, 5:25], picture[20:35, 30:50] = (220, 30, 30), (30, 200, 40)
    palette = [(220, 30, 30), (30, 200, 40)]
    palette.insert(place, (0, 0, 0))
    as_colours_of(palette, picture).save(tmp_path / "a.png")
    for ids in by_every_reader(tmp_path / "a.png"):
        assert [0, 1, 2] == np.unique(ids).tolist()
        assert (0, place, 3 - place) == (ids[0, 0], ids[8, 8], ids[30, 40])


def test_a_palette_whose_first_colour_is_used_and_black_is_left_as_it_is(tmp_path: Path) -> None:
    """Where the number 0 is used and black, other numbers are ids, though their colour may be black too."""
    ids = np.zeros((40, 60), np.uint8)
    ids[5:15, 5:25], ids[20:35, 30:50] = 1, 2
    indexed(ids, bytes([0, 0, 0, 255, 0, 0, 0, 0, 0])).save(tmp_path / "a.png")
    for found in by_every_reader(tmp_path / "a.png"):
        assert ids.tolist() == found.tolist()


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
        (indexed(np.full((2, 3), 255, np.uint8), davis_palette()), "255 is void"),
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
    ids=[
        "empty",
        "void only",
        "size",
        "objects last",
        "4-D",
        "negative",
        "too large",
        "float ids",
        "float 255",
        "NaN",
        "inf",
    ]
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
    """Whatever Pillow raises on a file with a few bytes changed or the end missing, what comes out is a MaskError, or
    ids."""
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
    [
        ([0.0, 0.0], [1, 0, 0]),
        ([1.0, 0.0], [0, 1, 0]),
        ([1.0, 1.0], [0, 0.5, 0.5]),
        ([0.0] * 200, [1, *[0] * 200]),
        ([], [1]),
    ],
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
