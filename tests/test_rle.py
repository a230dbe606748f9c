"""COCO's run-length code: against a slow encoder written from its description, stored strings, and pycocotools where it
is."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from numpy.typing import NDArray

from stmemory.errors import MaskError
from stmemory.formats import box_of, decode_rle, encode_rle


def slow_counts(mask: NDArray[np.bool_]) -> list[int]:
    """Runs of zeros and ones in turn, zeros first, pixel by pixel down each column."""
    counts, value = [0], False
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if mask[y, x] != value:
                counts.append(0)
                value = not value
            counts[-1] += 1
    return counts


def slow_text(counts: list[int]) -> str:
    """Each number, from the fourth on less the one two before, in characters of five bits and one that says whether
    more follow."""
    text = ""
    for place, count in enumerate(counts):
        rest = count - counts[place - 2] if place > 2 else count
        while True:
            digit, rest = rest % 32, rest // 32
            more = rest != (-1 if digit >= 16 else 0)
            text += chr(48 + digit + 32 * more)
            if not more:
                break
    return text


def drawn(name: str) -> NDArray[np.bool_]:
    """A mask by name."""
    random = np.random.default_rng(5)
    if name.startswith("noise"):
        return random.random((37, 53)) < 0.5
    if name == "sparse":
        return random.random((480, 854)) < 1e-4
    if name == "disk":
        y, x = np.mgrid[:480, :854]
        return (y - 200) ** 2 + (x - 500) ** 2 < 150**2
    mask = np.zeros(
        {"tall": (3000, 2), "wide": (2, 3000)}.get(name, (6, 5) if "pixel" not in name else (1, 1)), np.bool_
    )
    if name in ("full", "one pixel"):
        mask[:] = True
    if name == "corner":
        mask[0, 0] = mask[-1, -1] = True
    if name in ("tall", "wide"):
        mask[-1, -1] = True
    return mask


MASKS = ("empty", "full", "one pixel", "no pixel", "corner", "tall", "wide", "noise", "sparse", "disk")

# What pycocotools 2.0.11 gave for these masks.
GOLDEN = {
    "empty": "n0",
    "full": "0n0",
    "one pixel": "01",
    "no pixel": "1",
    "corner": "01l00",
    "tall": "_k51",
    "wide": "_k51",
}


@pytest.mark.parametrize("name", MASKS)
def test_encoding_equals_the_slow_one(name: str) -> None:
    """The text is that of an encoder that goes pixel by pixel."""
    mask = drawn(name)

    assert {"size": list(mask.shape), "counts": slow_text(slow_counts(mask))} == encode_rle(mask)


@pytest.mark.parametrize("name", MASKS)
def test_decoding_gives_the_mask_back(name: str) -> None:
    """Text, bytes and plain run lengths give the mask that was encoded."""
    mask = drawn(name)
    rle = encode_rle(mask)
    for counts in (rle["counts"], rle["counts"].encode(), slow_counts(mask)):
        assert np.array_equal(mask, decode_rle({"size": rle["size"], "counts": counts}))


@pytest.mark.parametrize("name", GOLDEN)
def test_encoding_stays_as_it_was(name: str) -> None:
    """Strings that pycocotools gave once."""
    assert GOLDEN[name] == encode_rle(drawn(name))["counts"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0.11 with numpy 2
@pytest.mark.parametrize("name", MASKS)
def test_pycocotools_agrees(name: str) -> None:
    """Its bytes, its box and its area are ours, and it reads what we write."""
    pytest.importorskip("pycocotools", reason="compares with pycocotools")
    coco = importlib.import_module("pycocotools.mask")
    mask = drawn(name)
    expected, ours = coco.encode(np.asfortranarray(mask.astype(np.uint8))), encode_rle(mask)

    assert expected == {"size": ours["size"], "counts": ours["counts"].encode()}
    assert np.array_equal(mask, coco.decode(ours).astype(bool))
    assert coco.toBbox(expected).tolist() == box_of(mask)
    assert coco.area(expected) == mask.sum()


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 2], "counts": "1"},
        {"size": [2, 2], "counts": "P"},
        {"size": [2, 2], "counts": "\x7f1"},
        {"size": [2, 2], "counts": "é"},
        {"size": [2, 2], "counts": ""},
        {"size": [2, 2], "counts": "P" * 20 + "1"},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": [[0.0, 1.0], [2.0, 2.0]]},
        {"size": [4], "counts": "4"},
        {"counts": "4"},
    ],
    ids=[
        "too short",
        "cut off",
        "no character",
        "not ascii",
        "empty",
        "endless",
        "negative",
        "polygon",
        "one size",
        "no size",
    ],
)
def test_damaged_codes_are_refused(rle: dict[str, object]) -> None:
    """What is no run-length code of that size is an error."""
    with pytest.raises(MaskError, match="RLE: expected"):
        decode_rle(rle)


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2)), np.zeros((0, 4), bool), np.zeros(4, bool)], ids=["floats", "no pixel", "flat"]
)
def test_what_is_no_mask_is_not_encoded(mask: NDArray[np.generic]) -> None:
    """Other arrays are an error that says what to pass."""
    with pytest.raises(MaskError, match="ids == object_id"):
        encode_rle(mask)


def test_the_box_of_nothing_is_zero() -> None:
    """As in pycocotools."""
    assert [0, 0, 0, 0] == box_of(np.zeros((3, 4), bool))
