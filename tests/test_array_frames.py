"""Frames out of what people have: stacks with a stated range, array-likes, readers and data sets by number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import boxes, clip, tiny_predictor
from torch import Tensor

from stmemory.errors import FrameError, MaskError, OptionError, ShapeError
from stmemory.io.frames import iterate_frames, to_frame
from stmemory.session import ClipReader

STACK = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


class ByArray:
    """Offers `__array__`, as dask does, and counts."""

    def __init__(self, values: NDArray[np.generic], asked: list[tuple[int, ...]]) -> None:
        self.values, self.asked, self.shape = values, asked, values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> ByArray:
        return ByArray(self.values[index], self.asked)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[np.generic]:
        self.asked.append(self.shape)
        return self.values


class ByInterface:
    """Offers `__array_interface__` alone."""

    def __init__(self, values: NDArray[np.generic]) -> None:
        self.__array_interface__ = values.__array_interface__
        self.kept = values


class ByDLPack:
    """Offers DLPack alone."""

    def __init__(self, values: NDArray[np.generic]) -> None:
        self.values = torch.from_numpy(values.copy())

    def __dlpack__(self, **how: object) -> object:
        return self.values.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


class AsNumpy:
    """Offers `asnumpy`, as decord's arrays do."""

    def __init__(self, values: NDArray[np.generic]) -> None:
        self.values = values

    def asnumpy(self) -> NDArray[np.generic]:
        return self.values


class Reader:
    """Has a length and gives what is made of each frame; past its end it gives the last one, and counts what was asked
    for."""

    def __init__(self, make: Callable[[NDArray[np.generic]], object] = AsNumpy) -> None:
        self.make, self.asked = make, list[int]()

    def __len__(self) -> int:
        return len(STACK)

    def __getitem__(self, index: int) -> object:
        self.asked.append(index)
        return self.make(STACK[min(index, len(STACK) - 1)])


class Pictures(torch.utils.data.Dataset[Tensor]):
    """A map style data set of tensors."""

    def __len__(self) -> int:
        return len(STACK)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(STACK[min(index, len(STACK) - 1)]).permute(2, 0, 1)


def expected() -> Tensor:
    """The frames of the stack."""
    return torch.stack(list(iterate_frames(STACK)))


@pytest.mark.parametrize(
    "make",
    [AsNumpy, ByInterface, ByDLPack, lambda values: ByArray(values, [])],
    ids=["asnumpy", "interface", "dlpack", "array"],
)
def test_an_image_may_be_what_becomes_an_array(make: Callable[[NDArray[np.generic]], object]) -> None:
    """Each protocol of arrays gives the frame that the array gives, in clips as alone."""
    assert torch.equal(expected()[0], to_frame(make(STACK[0])))
    assert torch.equal(expected(), torch.stack(list(iterate_frames(make(STACK)))))
    assert torch.equal(expected(), torch.stack(list(iterate_frames(Reader(make)))))


def test_a_lazy_array_is_computed_frame_by_frame() -> None:
    """A clip of dask's kind is never computed as a whole, and each frame once, when it is reached."""
    asked = list[tuple[int, ...]]()
    frames = iterate_frames(ByArray(STACK, asked))
    assert [] == asked
    next(frames)
    assert [STACK.shape[1:]] == asked
    list(frames)
    assert [STACK.shape[1:]] * len(STACK) == asked


def test_dask_arrays_are_clips() -> None:
    """dask itself, where it is installed."""
    dask = pytest.importorskip("dask.array")

    assert torch.equal(expected(), torch.stack(list(iterate_frames(dask.from_array(STACK, chunks=(1, 4, 6, 3))))))


def test_a_reader_is_asked_for_each_frame_once() -> None:
    """Frames are asked for by number up to the length; no IndexError is needed."""
    reader = Reader()
    assert torch.equal(expected(), torch.stack(list(iterate_frames(reader))))

    assert list(range(len(STACK))) == reader.asked


def test_a_torch_data_set_is_a_clip() -> None:
    """A map style data set without `__iter__`, of which Python would go past the end."""
    assert torch.equal(expected(), torch.stack(list(iterate_frames(Pictures()))))


def test_a_clip_reader_takes_them_too() -> None:
    """Frames of a data set are read in any order."""
    reader = ClipReader(Pictures())
    frame = reader.read(3)

    assert frame is not None and torch.equal(expected()[3], frame)
    assert (5, None) == (reader.count, reader.read(5))


def test_pairs_of_image_and_label_are_told() -> None:
    """An item that is a pair is refused, and the message says how to take its image."""
    with pytest.raises(ShapeError, match=r"item\[0\]"):
        list(iterate_frames(Reader(lambda values: (values, 7))))


def test_a_data_set_without_items_is_empty() -> None:
    """A length of 0 is an error at the call."""
    with pytest.raises(FrameError, match="got none"):
        iterate_frames(ByArray(STACK[:0], []))


@pytest.mark.parametrize("shape", [(4, 6), (5, 4, 6), (5, 3, 4, 6)], ids=["image", "grey", "channels first"])
def test_a_lazy_array_of_another_shape_is_told(shape: tuple[int, ...]) -> None:
    """Its shape is checked at the call, before anything is computed."""
    asked = list[tuple[int, ...]]()
    with pytest.raises(ShapeError, match="frames: expected"):
        iterate_frames(ByArray(np.zeros(shape, np.uint8), asked))
    assert [] == asked


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        (STACK.astype(np.uint16) * 257, (0, 65535)),
        (STACK.astype(np.uint16) * 16, (0, 4080)),
        (STACK.astype(np.int16) - 100, (-100, 155)),
        (STACK.astype(np.float64) * 2 + 1e6, (1e6, 1e6 + 510)),
        (STACK.astype(np.int64) + 2**40, (2**40, 2**40 + 255)),
        (STACK.astype(np.uint32), (0, 255)),
        (STACK, (0, 255)),
    ],
    ids=["16-bit", "12-bit", "signed", "double", "int64", "uint32", "8-bit"],
)
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_a_stated_range_goes_from_black_to_white(
    values: NDArray[np.generic], limits: tuple[float, float], kind: str
) -> None:
    """Stacks of any number type are the frames of the bytes that they stand for."""
    source = values if kind == "array" else torch.from_numpy(values).movedim(-1, -3)
    found = torch.stack(list(iterate_frames(source, value_range=limits)))

    assert torch.float32 == found.dtype
    assert (found - expected()).abs().max() < 1e-6


def test_16_bits_without_a_range_are_refused() -> None:
    """The message says what to write."""
    with pytest.raises(ShapeError, match=r"value_range=\(0, 65535\)"):
        to_frame(STACK[0].astype(np.uint16))


@pytest.mark.parametrize("value", [4100.0, -300.0, np.nan, np.inf])
def test_values_outside_the_range_are_told(value: float) -> None:
    """A range that the values do not have is an error that says theirs."""
    image = np.full((4, 6, 3), 100.0)
    image[0, 0, 0] = value
    with pytest.raises(FrameError, match=r"expected finite values in \[0, 4095\]"):
        to_frame(image, value_range=(0, 4095))


@pytest.mark.parametrize("limits", [(1, 0), (0, 0), (0,), (0, float("inf")), (float("nan"), 1), 5, "ab"])
def test_a_range_is_two_numbers(limits: tuple[float, float]) -> None:
    """A range that is none is an error at the call."""
    with pytest.raises(OptionError, match="value_range"):
        iterate_frames(STACK, value_range=limits)


@pytest.mark.parametrize("dtype", [np.bool_, np.complex64])
def test_booleans_and_complex_numbers_have_no_range(dtype: type[np.generic]) -> None:
    """Neither is a brightness."""
    for image in (STACK[0].astype(dtype), torch.from_numpy(STACK[0].astype(dtype)).movedim(-1, 0)):
        with pytest.raises(ShapeError):
            to_frame(image, value_range=(0, 1))


def test_track_takes_a_range() -> None:
    """Tracking 16 bits gives what tracking 8 bits gives."""
    frames, mask = clip(3), boxes(1, 2)
    deep = (frames * 65535).round().astype(np.uint16) if frames.dtype.kind == "f" else frames.astype(np.uint16) * 257
    one, other = tiny_predictor().track(frames, mask), tiny_predictor().track(deep, mask, value_range=(0, 65535))
    for result, ranged in zip(one, other, strict=True):
        assert torch.equal(result.ids, ranged.ids)


def test_a_mask_is_still_needed() -> None:
    """A range changes nothing about the other arguments."""
    with pytest.raises(MaskError):
        tiny_predictor().track(clip(3), None, value_range=(0, 255))
