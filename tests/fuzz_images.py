"""A fuzzer of image files: seeded mutations of small PNG, JPEG, GIF, TIFF, WebP and BMP files, read as frames and as
masks.

`python tests/fuzz_images.py --number 50000` for a long run; `test_fuzz_images.py` runs a few hundred. A mutation is
told by its number alone, so that `--first N --number 1` repeats it. What is found is an error that is not of this
library, or a file that takes too long.
"""

from __future__ import annotations

import argparse
import collections
import io
import os
import random
import resource
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
from PIL import Image

from stmemory.errors import StmemoryError
from stmemory.io.frames import iterate_frames
from stmemory.io.palette import read_id_image, read_mask, read_palette_png, write_palette_png
from stmemory.training.data.masks import BinaryMask, IdMask

SECONDS = 20  # of processor time that one file may take; a whole one takes a few thousandths
GIBIBYTES = 6  # of address space


def seeds() -> dict[str, bytes]:
    """Small whole files of every kind that is read, by name."""
    rng = np.random.default_rng(0)
    colours = [Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)) for _ in range(3)]
    smooth = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 7, (24, 1)))
    ids = np.zeros((24, 32), np.uint8)
    ids[4:12, 5:20], ids[14:20, 8:30] = 1, 7
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photograph"
    made: dict[str, bytes] = {}

    def add(name: str, image: Image.Image, **options: object) -> None:
        buffer = io.BytesIO()
        image.save(buffer, name.rpartition(".")[2], **options)
        made[name] = buffer.getvalue()

    pages = {"save_all": True, "append_images": colours[1:]}
    add("colour.png", colours[0])
    add("grey.png", smooth)
    add("deep.png", Image.fromarray(ids.astype(np.uint16) * 300))
    add("bit.png", Image.fromarray(ids > 0))
    add("alpha.png", colours[0].convert("RGBA"))
    add("pages.png", colours[0], **pages)
    add("exif.png", colours[0], exif=exif)
    add("a.jpeg", colours[0], exif=exif)
    add("progressive.jpeg", colours[0], progressive=True)
    add("grey.jpeg", smooth)
    add("pages.gif", colours[0], **pages, duration=40)
    add("ids.gif", Image.fromarray(ids))
    for compression in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg"):
        add(f"{compression}.tiff", colours[0], **pages, compression=compression)
    add("float.tiff", Image.fromarray(ids.astype(np.float32) / 9))
    add("a.webp", colours[0])
    add("pages.webp", colours[0], **pages, lossless=True)
    add("a.bmp", colours[0])
    add("ids.bmp", Image.fromarray(ids).convert("P"))
    with tempfile.TemporaryDirectory() as folder:
        write_palette_png(f"{folder}/ids.png", ids)
        made["ids.png"] = Path(folder, "ids.png").read_bytes()
    return made


def mutation(number: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """One damaged file: its name and its bytes. Bytes are changed, cut out, doubled, swapped between files, or numbers
    put in."""
    rng = random.Random(number)
    name = rng.choice(sorted(files))
    data = bytearray(files[name])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.randrange(7)
        first, last = sorted(rng.randrange(len(data)) for _ in range(2))
        if kind == 0:
            for _ in range(rng.choice((1, 2, 4, 8))):
                data[rng.randrange(len(data))] = rng.randrange(256)
        elif kind == 1:  # most of what is stated stands at the beginning
            for _ in range(rng.choice((1, 2, 4))):
                data[rng.randrange(min(len(data), 120))] = rng.choice((0, 1, 2, 127, 128, 254, 255))
        elif kind == 2:
            data = data[:first] + data[last:]
        elif kind == 3:
            data = data[:last] + data[first:]
        elif kind == 4:
            data = data[: max(1, last)]
        elif kind == 5:
            width = rng.choice((2, 4, 8))
            value = rng.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, rng.randrange(2**16))) % 2 ** (8 * width)
            data[first : first + width] = value.to_bytes(width, rng.choice(("little", "big")))
        else:
            other = files[rng.choice(sorted(files))]
            place = rng.randrange(len(other))
            data[first:last] = other[place : place + last - first]
        data = data or bytearray(1)
    return name, bytes(data)


def read_all(path: Path) -> None:
    """Read a file in every way in which the library reads images; errors of its own are fine."""
    for read in (
        lambda: collections.deque(iterate_frames(path), maxlen=1),
        lambda: read_mask(path),
        lambda: read_palette_png(path),
        lambda: read_id_image(path).ids,
        lambda: IdMask(path).read(32, 24),
        lambda: BinaryMask(path).read(32, 24),
    ):
        try:
            read()
        except StmemoryError as error:
            if not str(error):
                raise AssertionError("an error without a message") from error


def fuzz(first: int, number: int) -> Iterator[tuple[int, str, str]]:
    """Try mutations; yields the number, the file and the error of each that is not answered as it should be."""
    files = seeds()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"), _bounded():
        for each in range(first, first + number):
            name, data = mutation(each, files)
            path = Path(folder) / name
            path.write_bytes(data)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                read_all(path)
            except Exception as error:  # whatever it is
                yield each, name, f"{type(error).__name__}: {error}"
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)


class _TooLongError(Exception):
    """A file takes more than its time."""


@contextmanager
def _bounded() -> Iterator[None]:
    """With limits of time and memory; without what the C libraries say."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _TooLongError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, interrupt)
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (GIBIBYTES << 30, limit[1]))
    said, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(said, 2)
        os.close(said)
        os.close(nowhere)
        resource.setrlimit(resource.RLIMIT_AS, limit)
        signal.signal(signal.SIGPROF, before)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=1000, help="of mutations")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    given = parser.parse_args()
    found = list(fuzz(given.first, given.number))
    for each, name, error in found[:40]:
        print(f"{each} {name}: {error}")
    kinds = collections.Counter(f"{name.rpartition('.')[2]} {error.partition(':')[0]}" for _, name, error in found)
    print(f"{given.number} damaged files, {len(found)} answered wrongly: {dict(kinds)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
