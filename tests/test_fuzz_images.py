"""Facts about image files that are damaged, or that state more than they hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from fuzz_images import fuzz, read_all, seeds
from PIL import Image

from stmemory.errors import FrameError, MaskError, StmemoryError
from stmemory.io import images
from stmemory.io.frames import iterate_frames, to_frame
from stmemory.io.images import count_images, opened_image, read_picture
from stmemory.io.palette import read_id_image, read_mask, read_palette_png
from stmemory.training.data.masks import BinaryMask, IdMask


def test_damaged_images_end_in_errors_of_ours() -> None:
    """Mutated files of every kind are read or refused with an error of this library, and none takes for ever."""
    assert [] == list(fuzz(0, 400))


def test_what_is_fuzzed_can_be_read(tmp_path: Path) -> None:
    """The files that the fuzzer damages are whole: each gives frames, unless its values have more than 8 bits."""
    for name, data in seeds().items():
        (tmp_path / name).write_bytes(data)
        read_all(tmp_path / name)
        if name in ("deep.png", "float.tiff"):
            with pytest.raises(FrameError, match="8 bits"):
                next(iterate_frames(tmp_path / name))
        else:
            assert (3 if "pages" in name or name.endswith(".tiff") else 1) == len(list(iterate_frames(tmp_path / name)))


def bomb(folder: Path, kind: str) -> Path:
    """A small file that says that it has 13,000 x 13,000 pixels."""
    path = folder / f"bomb.{kind}"
    if kind == "gif":
        Image.new("P", (8, 8)).save(path)
        data = bytearray(path.read_bytes())
        data[6:10] = struct.pack("<HH", 13_000, 13_000)
    else:
        Image.new("L", (8, 8)).save(path)
        data = bytearray(path.read_bytes())
        if kind == "bmp":
            data[18:26] = struct.pack("<ii", 13_000, 13_000)
        else:
            entries = {256: 13_000, 257: 13_000}
            at = struct.unpack("<I", data[4:8])[0]
            for place in range(at + 2, at + 2 + 12 * struct.unpack("<H", data[at : at + 2])[0], 12):
                tag = struct.unpack("<H", data[place : place + 2])[0]
                if tag in entries:
                    data[place + 2 : place + 12] = struct.pack("<HII", 4, 1, entries[tag])
    path.write_bytes(data)
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["gif", "bmp", "tif"])
def test_a_size_is_checked_before_pixels_are_decoded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes that state 169 million pixels are refused by every reader, and no pixel is asked for."""

    def decode(image: Image.Image) -> None:
        raise AssertionError("pixels were decoded")

    path = bomb(tmp_path, kind)
    with Image.open(path) as image:
        monkeypatch.setattr(type(image), "load", decode)
    for read in (lambda: next(iterate_frames(path)), lambda: to_frame(path), lambda: read_picture(path)):
        with pytest.raises(FrameError, match="bomb.*67 million pixels.*13000 x 13000"):
            read()
    for look in (
        read_mask,
        read_palette_png,
        lambda path: read_id_image(path).ids,
        lambda file: IdMask(file).read(8, 8),
        lambda file: BinaryMask(file).read(8, 8),
    ):
        with pytest.raises(MaskError, match="bomb.*67 million pixels"):
            look(path)


def test_many_pages_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages count together: what one page may have, a thousand may not; and a TIFF has a number of pages that can be
    counted."""
    for name in ("a.gif", "a.tif"):
        pages = [Image.new("L", (8, 8), grey) for grey in (1, 50, 100)]
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    monkeypatch.setattr(images, "MOST_PIXELS_IN_ALL", 3 * 64)
    assert 3 == count_images(tmp_path / "a.gif") == count_images(tmp_path / "a.tif")
    monkeypatch.setattr(images, "MOST_PIXELS_IN_ALL", 3 * 64 - 1)
    for name in ("a.gif", "a.tif"):
        with pytest.raises(FrameError, match="3 pages of 8 x 8; split it"):
            iterate_frames(tmp_path / name)
    monkeypatch.setattr(images, "MOST_PAGES", 3)
    with pytest.raises(FrameError, match="at most 3 pages"):
        count_images(tmp_path / "a.tif")


def test_a_page_that_is_larger_than_the_first_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page of a TIFF states its own size; frames before a page that is too large are given."""
    Image.new("L", (8, 8)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (9, 9))])
    monkeypatch.setattr(images, "MOST_PIXELS", 64)
    frames = iterate_frames(tmp_path / "a.tif")
    next(frames)
    with pytest.raises(FrameError, match="a.tif.*9 x 9.*after 1 of its 2 pages"):
        next(frames)


def test_a_file_that_is_a_program_is_not_opened(tmp_path: Path) -> None:
    """PostScript under the name of a PNG is refused, since reading it starts an interpreter."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    for read in (lambda: next(iterate_frames(tmp_path / "a.png")), lambda: read_mask(tmp_path / "a.png")):
        with pytest.raises(StmemoryError, match="a.png.*cannot be read"):
            read()


@pytest.mark.parametrize(
    "raised",
    [KeyError(3), IndexError("index"), MemoryError(), struct.error("4 bytes"), RuntimeError("codec"), OSError()],
)
def test_whatever_pillow_raises_names_the_file(raised: Exception, tmp_path: Path) -> None:
    """Each kind of error, even without a message, becomes one that says which file is damaged."""
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    with (
        pytest.raises(MaskError, match="a.png: expected an image file.*save it again"),
        opened_image(tmp_path / "a.png", MaskError),
    ):
        raise raised
