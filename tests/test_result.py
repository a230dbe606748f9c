"""Facts about what the user holds for each frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stmemory.errors import FileError, FrameError, MaskError, OptionError
from stmemory.io.palette import davis_palette, read_palette_png, write_palette_png
from stmemory.prediction.stream import PredictedFrame
from stmemory.result import Segmentation


def segmentation(ids: torch.Tensor) -> Segmentation:
    """Make a result that is sure of `ids`."""
    object_ids = tuple(int(i) for i in torch.unique(ids) if i > 0)
    probabilities = torch.stack([(ids == i).float() for i in (0, *object_ids)])
    found = dict.fromkeys(object_ids, True)
    return Segmentation(0, ids.int(), probabilities, object_ids, dict.fromkeys(object_ids, 1.0), found)


def square(object_id: int) -> torch.Tensor:
    """Draw one object of 5 x 5 pixels in a frame of 9 x 8."""
    ids = torch.zeros(9, 8, dtype=torch.int32)
    ids[2:7, 1:6] = object_id
    return ids


def test_overlay_blends_inside_a_solid_contour() -> None:
    """The background is untouched, the contour has the object's colour, the inside half of it."""
    frame = np.full((9, 8, 3), 100, np.uint8)
    drawn = segmentation(square(1)).overlay(frame, opacity=0.5)
    expected = frame.copy()
    expected[2:7, 1:6] = (128, 0, 0)
    expected[3:6, 2:5] = (114, 50, 50)
    assert np.array_equal(expected, drawn)
    assert drawn.dtype == np.uint8
    assert 100 == frame.min() == frame.max()


def test_overlay_takes_frames_of_any_kind() -> None:
    """Arrays, tensors and PIL images of the same pixels give the same overlay."""
    frame = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    found = segmentation(square(2))
    expected = found.overlay(frame)
    assert np.array_equal(expected, found.overlay(torch.from_numpy(frame).permute(2, 0, 1)))
    assert np.array_equal(expected, found.overlay(Image.fromarray(frame)))
    assert np.array_equal(expected, found.overlay(frame / 255.0))


def test_overlay_repeats_the_colours_above_255() -> None:
    """Ids 1 and 256 share a colour; no object is drawn as background."""
    frame = np.zeros((9, 8, 3), np.uint8)
    assert np.array_equal(segmentation(square(1)).overlay(frame), segmentation(square(256)).overlay(frame))


def test_overlay_refuses_another_size_and_opacity() -> None:
    """A frame of another size and an opacity above 1 are errors that say what came."""
    found = segmentation(square(1))
    with pytest.raises(FrameError, match=r"\(9, 8\) \(H, W\), got \(8, 9\)"):
        found.overlay(np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(OptionError, match="got 1.5"):
        found.overlay(np.zeros((9, 8, 3), np.uint8), opacity=1.5)


def test_save_writes_a_palette_png_that_reads_back(tmp_path: Path) -> None:
    """Ids survive a file; it is in palette mode with the DAVIS colours; nothing else is left in its folder."""
    ids = square(200)
    path = tmp_path / "new" / "folder" / "00000.png"
    segmentation(ids).save(path)
    segmentation(ids).save(path)
    assert torch.equal(ids, read_palette_png(path))
    with Image.open(path) as image:
        assert "P" == image.mode
        assert davis_palette() == bytes(image.getpalette() or [])
    assert [path] == list(path.parent.iterdir())


def test_save_refuses_ids_above_255(tmp_path: Path) -> None:
    """An id of 300 is an error that names another way, and leaves no file."""
    with pytest.raises(MaskError, match="0 to 300.*numpy.save"):
        segmentation(square(300)).save(tmp_path / "a.png")
    assert [] == list(tmp_path.iterdir())


def test_save_refuses_id_255(tmp_path: Path) -> None:
    """An object 255 would read back as void, so it is not written."""
    with pytest.raises(MaskError, match="255 is void.*numpy.save"):
        segmentation(square(255)).save(tmp_path / "a.png")
    assert [] == list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing breaks, the file that was there is whole and no temporary file is left."""
    path = tmp_path / "a.png"
    write_palette_png(path, square(1))

    def broken(self: Image.Image, target: Path, format: str) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        write_palette_png(path, square(2))
    assert torch.equal(square(1), read_palette_png(path))
    assert [path] == list(tmp_path.iterdir())


def test_palette_is_that_of_davis() -> None:
    """The first and last colours are those of the DAVIS and PASCAL VOC files, and no two are equal."""
    colours = np.frombuffer(davis_palette(), np.uint8).reshape(256, 3)
    expected = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128]]
    assert expected == colours[:7].tolist()
    assert [[64, 0, 0], [224, 224, 192]] == colours[[8, 255]].tolist()
    assert 256 == len(np.unique(colours, axis=0))


@pytest.mark.parametrize(
    "ids", [np.zeros((2, 3)), np.zeros((1, 2, 3), int), np.array([[-1]])], ids=["floats", "a stack", "negative"]
)
def test_what_is_no_id_mask_is_not_written(
    tmp_path: Path, ids: np.ndarray[tuple[int, ...], np.dtype[np.integer]]
) -> None:
    """Floats, stacks and negative ids are refused."""
    with pytest.raises(MaskError, match="a.png"):
        write_palette_png(tmp_path / "a.png", ids)


def test_a_colour_png_is_not_read_as_ids(tmp_path: Path) -> None:
    """Colours, a missing file and a damaged one are errors that name the file."""
    Image.new("RGB", (2, 2), "red").save(tmp_path / "colour.png")
    (tmp_path / "damaged.png").write_bytes(b"no png")
    for name in ("colour.png", "missing.png", "damaged.png"):
        with pytest.raises(MaskError, match=name):
            read_palette_png(tmp_path / name)


RESULTS = {
    "masks": Segmentation(0, torch.tensor([[0, 7]]).int(), torch.eye(2)[:, None], (7,), {7: 1.0}, {7: True}),
    "prediction": PredictedFrame(3, torch.zeros(1, 4, 4)),
}
each_result = pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)


@each_result
@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.npy", "a.png.bak"])
def test_save_refuses_names_of_other_formats(result: Segmentation | PredictedFrame, name: str, tmp_path: Path) -> None:
    """A PNG is never written under the name of something else."""
    with pytest.raises(OptionError, match=r"\.png"):
        result.save(tmp_path / name)
    assert [] == list(tmp_path.iterdir())


@each_result
@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a"])
def test_save_takes_names_of_png_and_plain_ones(
    result: Segmentation | PredictedFrame, name: str, tmp_path: Path
) -> None:
    """The ending may be in capitals, or left out."""
    result.save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert "PNG" == image.format


@each_result
def test_save_into_a_place_that_cannot_be_is_an_error(result: Segmentation | PredictedFrame, tmp_path: Path) -> None:
    """A folder of that name is an error of the library's, which is an OSError too."""
    (tmp_path / "a.png" / "inside").mkdir(parents=True)
    with pytest.raises(FileError, match="a.png"):
        result.save(tmp_path / "a.png")


def test_mask_and_box_of_one_object() -> None:
    """Of its pixels alone, the box as slices take it; an object that is not seen has no box, and one that is not
    tracked is an error."""
    ids = torch.zeros(6, 8, dtype=torch.int32)
    ids[1:4, 2:7], ids[2, 3] = 5, 9
    result = Segmentation(0, ids, torch.zeros(4, 6, 8), (5, 9, 11), {}, {})
    assert (ids == 5).tolist() == result.mask(5).tolist()
    assert [(2, 1, 7, 4), (3, 2, 4, 3), None] == [result.box(i) for i in (5, 9, 11)]
    assert not result.mask(11).any()
    for look in (result.mask, result.box):
        with pytest.raises(MaskError, match=r"\(5, 9, 11\).*got 0"):
            look(0)
