"""Label Studio's run-length code of one brush mask. Knows no files and no ids.

The mask is an RGBA image, row by row, of which alpha counts: numbers of 8 bits in runs. A stream of bits, highest
first, has 32 bits for how many numbers there are, 5 for the bits of a number less 1, and four times 4 for the four
sizes of a run's length, each less 1. Then, until all numbers are there: one bit, which says whether a number is
repeated; two, which of the sizes follows; the length less 1, in so many bits; and the number that is repeated, or as
many numbers as the length says. It is the code of thi.ng/rle-pack.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import MaskError
from stmemory.formats.rle import LARGEST_MASK

__all__ = ["decode_brush", "encode_brush"]

SIZES = (3, 4, 8, 16)  # bits of a run's length, as Label Studio writes them
_HEADER = 53  # bits
_LONGEST = 1 << 16  # of one run
_MOST_BITS = 1 + 2 + 16 + 8  # of one run


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Encode a mask; equals `label_studio_converter.brush.mask2rle` of 0 and 255, byte by byte.

    Args:
        mask: bool `[H, W]`.

    Returns:
        Bytes, as Label Studio's JSON has them under `rle`.

    Raises:
        MaskError: it is no such array, has no pixel, or more than 2**28.

    >>> encode_brush(np.array([[True]]))
    [0, 0, 0, 4, 57, 27, 252, 127, 224]
    """
    if mask.ndim != 2 or mask.dtype != np.bool_ or not 0 < mask.size <= LARGEST_MASK:
        raise MaskError(
            f"encode_brush: expected a bool array [H, W], got {mask.dtype} {mask.shape}; pass ids == object_id"
        )
    flat = mask.ravel()
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    runs, values = 4 * np.diff(edges), np.where(flat[edges[:-1]], 255, 0)
    parts = -(-runs // _LONGEST)  # runs above the longest are several
    last = np.zeros(int(parts.sum()), np.bool_)
    last[np.cumsum(parts) - 1] = True
    lengths = np.full(len(last), _LONGEST)
    lengths[last] = runs - (parts - 1) * _LONGEST
    long, values = np.repeat(parts > 1, parts), np.repeat(values, parts)
    which = np.where(long, 3, np.searchsorted([1 << size for size in SIZES], lengths))
    size = np.array(SIZES)[which]
    words = (((4 | which) << size | (lengths - 1)) << 8) | values
    used = 11 + size  # bits of each word
    places = np.arange(_MOST_BITS)
    bits = (words[:, None] >> (used[:, None] - 1 - places).clip(min=0) & 1).astype(np.uint8)[places < used[:, None]]
    header = 4 * flat.size
    for width, number in ((5, 7), *((4, size - 1) for size in SIZES)):
        header = header << width | number
    packed = np.packbits(
        np.concatenate([np.array([header >> place & 1 for place in reversed(range(_HEADER))], np.uint8), bits])
    )
    rest: list[int] = packed.tolist()
    return rest + [0] * ((_HEADER + len(bits)) % 8 == 0)  # as the converter does; readers stop before it


def decode_brush(rle: object, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode a mask.

    Args:
        rle: bytes as a list of whole numbers.
        size: H and W in px, which stand beside it.

    Returns:
        uint8 `[H, W]`: alpha, 0 where the brush was not.

    Raises:
        MaskError: it is no such list, has another size, ends too early, or the size is beyond 2**28 pixels.

    >>> decode_brush(encode_brush(np.array([[False, True]])), (1, 2)).tolist()
    [[0, 255]]
    """
    data = _bytes_of(rle)
    count = 4 * size[0] * size[1]
    if min(size) < 1 or count > 4 * LARGEST_MASK:
        raise MaskError(
            f"brush: expected a mask of 1 to {LARGEST_MASK:,} pixels, got {size[0]} x {size[1]} (H x W); the file "
            "is damaged"
        )
    if len(data) < 7 or int.from_bytes(data[:4], "big") != count or data[4] >> 3 != 7:
        stated = int.from_bytes(data[:4], "big")
        raise MaskError(
            f"brush: expected {count} numbers of 8 bits, RGBA of {size[0]} x {size[1]} (H x W), got {stated} "
            "numbers; the file is damaged"
        )
    sizes = [(int.from_bytes(data[4:7], "big") >> shift & 15) + 1 for shift in (15, 11, 7, 3)]
    out = np.zeros(count, np.uint8)
    at, place = 0, _HEADER
    while at < count:
        head = _number(data, place, 3)
        bits = sizes[head & 3]
        length = _number(data, place + 3, bits) + 1
        place += 3 + bits
        numbers = 1 if head & 4 else length
        if at + length > count or place + 8 * numbers > 8 * len(data):
            raise MaskError(
                f"brush: expected {count} numbers, got a run of {length} after {at} of them, or an early end; the "
                "file is damaged"
            )
        out[at : at + length] = _number(data, place, 8) if head & 4 else _numbers(data, place, numbers)
        place += 8 * numbers
        at += length
    alpha: NDArray[np.uint8] = out.reshape(*size, 4)[..., 3]
    return alpha


def _bytes_of(rle: object) -> bytes:
    try:
        if isinstance(rle, Sequence) and not isinstance(rle, str) and all(type(byte) is int for byte in rle):
            return bytes(rle)
    except ValueError:  # a number that is no byte
        pass
    raise MaskError(
        "brush: expected a list of whole numbers from 0 to 255 as rle, got another value; the file is damaged"
    )


def _number(data: bytes, place: int, bits: int) -> int:
    """The number of up to 16 bits that begins at a bit; bits beyond the end are 0."""
    piece = data[place >> 3 : (place >> 3) + 3].ljust(3, b"\0")
    return int.from_bytes(piece, "big") >> (24 - (place & 7) - bits) & ((1 << bits) - 1)


def _numbers(data: bytes, place: int, count: int) -> NDArray[np.uint8]:
    """Numbers of 8 bits each, from a bit on."""
    pieces = np.frombuffer(data, np.uint8, count=min(count + 1, len(data) - (place >> 3)), offset=place >> 3)
    bits = np.unpackbits(pieces)[place & 7 :][: 8 * count]
    return np.packbits(bits)
