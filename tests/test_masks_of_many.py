"""Masks of many frames in one file or folder as `--mask`, arrays among them; and arrays as clips."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny import HEIGHT, WIDTH, boxes, clip

from stmemory.cli import main
from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.formats import FORMATS, new_writer, read_masks
from stmemory.io.frames import count_frames, iterate_frames, to_frame
from stmemory.io.palette import read_mask, read_palette_png
from stmemory.jobs.schedule import masks_by_frame

PATHS = {
    "youtube_vis": "a.json",
    "coco": "a.json",
    "coco_polygons": "a.json",
    "label_studio": "a.json",
    "cvat": "a.xml",
    "volume": "a.npy",
    "mask_video": "a.mkv",
}
HOLD_IDS = [name for name in FORMATS if FORMATS[name].read]


def written(format: str, folder: Path, masks: list[NDArray[np.int32]], names: list[str] | None = None) -> Path:
    """Masks in a format."""
    path = folder / PATHS.get(format, format)
    with new_writer(format, path) as out:
        for index, ids in enumerate(masks):
            out.add(ids, name=names[index] if names else None)
    return path


def given(named: str, source: Path, folder: Path) -> dict[int, list[list[int]]]:
    """The masks of a text, by frame, as tracking reads them."""
    return {
        frame: read_mask(path)[0].tolist()
        for frame, path in masks_by_frame([named], source, unpack_to=folder / "unpacked").items()
    }


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Four frames, whose names begin at 5."""
    (tmp_path / "clip").mkdir()
    for index, picture in enumerate(clip(4)):
        Image.fromarray(picture).save(tmp_path / "clip" / f"{index + 5:04d}.png")
    return tmp_path / "clip"


@pytest.mark.parametrize("format", HOLD_IDS)
def test_masks_of_every_format_are_given_to_their_frames(format: str, frames: Path, tmp_path: Path) -> None:
    """By the frames' names, or by place where there are no names; frames without an object get no mask."""
    masks = [boxes(3), boxes(3) * 0, boxes(3, 9), boxes(9)]
    path = written(format, tmp_path, masks, [f"{index + 5:04d}" for index in range(4)])
    if format in ("davis", "objects"):  # a folder of images has always been all of its masks
        assert set(given(str(path), frames, tmp_path)) >= {0, 2, 3}
    else:
        assert {0: masks[0].tolist(), 2: masks[2].tolist(), 3: masks[3].tolist()} == given(str(path), frames, tmp_path)


@pytest.mark.parametrize("format", [name for name in HOLD_IDS if name != "davis"])
def test_one_of_many_masks_may_be_chosen(format: str, frames: Path, tmp_path: Path) -> None:
    """`FRAME:PATH` takes the mask of that frame alone; one that is not there, or is empty, is an error."""
    path = written(format, tmp_path, [boxes(3), boxes(3, 9), boxes(3) * 0], ["0005", "0006", "0007"])
    assert {1: boxes(3, 9).tolist()} == given(f"1:{path}", frames, tmp_path / "one")
    for number in (2, 3):
        with pytest.raises(MaskError, match=f"mask of frame {number} with an object"):
            given(f"{number}:{path}", frames, tmp_path / str(number))


def test_the_one_mask_of_a_file_is_of_the_frame_that_is_said(frames: Path, tmp_path: Path) -> None:
    """An array `[H, W]`, and a JSON of one image under any name, are of frame 2 as `2:PATH`; without a number an array
    is of the first."""
    np.save(tmp_path / "one.npy", boxes(3))
    assert {2: boxes(3).tolist()} == given(f"2:{tmp_path / 'one.npy'}", frames, tmp_path / "a")
    assert {0: boxes(3).tolist()} == given(str(tmp_path / "one.npy"), frames, tmp_path / "b")
    path = written("coco", tmp_path, [boxes(3)], ["painted"])
    assert {2: boxes(3).tolist()} == given(f"2:{path}", frames, tmp_path / "c")
    with pytest.raises(MaskError, match="painted.png.*name of a frame"):
        given(str(path), frames, tmp_path / "d")


@pytest.mark.parametrize("large", [255, 300, 65535, 65536, 2**31 - 1])
def test_large_ids_stay_what_they_are(large: int, frames: Path, tmp_path: Path) -> None:
    """No id becomes void or another one, 255 neither."""
    masks = np.stack([boxes(3, large)])
    np.save(tmp_path / "a.npy", masks)
    assert {0: masks[0].tolist()} == given(str(tmp_path / "a.npy"), frames, tmp_path)
    (path,) = masks_by_frame([str(tmp_path / "a.npy")], frames, unpack_to=tmp_path / "again").values()
    assert read_mask(path)[1] is None


def test_what_has_no_objects_or_nowhere_to_go_is_refused(frames: Path, tmp_path: Path) -> None:
    """Background alone, two masks of a frame, and a file of many without a place to unpack it to."""
    np.save(tmp_path / "none.npy", np.zeros((2, HEIGHT, WIDTH), np.int32))
    np.save(tmp_path / "some.npy", np.stack([boxes(1)]))
    with pytest.raises(MaskError, match="none.npy.*background only"):
        given(str(tmp_path / "none.npy"), frames, tmp_path)
    with pytest.raises(OptionError, match="frame 0 has two"):
        masks_by_frame([str(tmp_path / "some.npy"), "first.png"], frames, unpack_to=tmp_path / "two")
    with pytest.raises(OptionError, match="unpack_to"):
        masks_by_frame([str(tmp_path / "some.npy")], frames)


def test_the_command_line_takes_masks_of_many_frames(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JSON, an archive and a folder of PNGs give the same run, which resumes; nothing is left in the folder of
    temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    masks = [boxes(3), boxes(3) * 0, boxes(3, 9)]
    names = [f"{index + 5:04d}" for index in range(3)]
    json_file, folder = (
        written("label_studio", tmp_path, masks, names),
        written("davis", tmp_path, [masks[0], masks[2]], [names[0], names[2]]),
    )
    np.savez_compressed(tmp_path / "a.npz", **dict(zip(names, masks, strict=True)))
    found = []
    for name, path in (("one", json_file), ("two", folder), ("three", tmp_path / "a.npz")):
        arguments = ["track", str(frames), "--mask", str(path), "-o", str(tmp_path / name)]
        assert 0 == main([*arguments, "--frames", "2"])
        assert 0 == main([*arguments, "--resume"])
        found.append([read_palette_png(file).tolist() for file in sorted((tmp_path / name / "masks").iterdir())])
    assert 4 == len(found[0]) and masks[2].tolist() == found[0][2]
    assert found[0] == found[1] == found[2]
    assert [] == list((tmp_path / "temporary").glob("stmemory-*"))


def test_what_a_run_left_is_masks_of_another(frames: Path, tmp_path: Path) -> None:
    """The folder of `track` is taken as masks; those of a file of another size are refused with its name."""
    np.save(tmp_path / "a.npy", boxes(3))
    assert 0 == main(["track", str(frames), "--mask", str(tmp_path / "a.npy"), "-o", str(tmp_path / "run")])
    assert {0, 1, 2, 3} == set(given(str(tmp_path / "run"), frames, tmp_path))
    np.save(tmp_path / "small.npy", np.ones((2, 4, 4), np.int32))
    assert 2 == main(["track", str(frames), "--mask", str(tmp_path / "small.npy"), "-o", str(tmp_path / "other")])


def test_an_array_is_a_clip(tmp_path: Path) -> None:
    """`.npy` with uint8 `[T, H, W, 3]` gives the frames that the array gives, and tracks as the frames do."""
    np.save(tmp_path / "clip.npy", np.stack(clip(3)))
    expected = [frame.tolist() for frame in iterate_frames(clip(3))]
    assert expected == [frame.tolist() for frame in iterate_frames(tmp_path / "clip.npy")]
    assert (3, expected[0]) == (count_frames(tmp_path / "clip.npy"), to_frame(tmp_path / "clip.npy").tolist())
    np.save(tmp_path / "mask.npy", boxes(3))
    assert 0 == main(
        [
            "track",
            str(tmp_path / "clip.npy"),
            "--mask",
            str(tmp_path / "mask.npy"),
            "-o",
            str(tmp_path / "run"),
            "--overlay",
        ]
    )
    assert ["00000.png", "00001.png", "00002.png"] == sorted(
        file.name for file in (tmp_path / "run" / "masks").iterdir()
    )
    assert (tmp_path / "run" / "overlay.mp4").stat().st_size > 0


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((2, 4, 4), np.uint8), "repeat grey"),
        (np.zeros((2, 4, 4, 3), np.float32), "floats"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"\(2, 3, 4, 4\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), r"\(0, 4, 4, 3\)"),
        (None, "clip.npy"),
    ],
    ids=["grey", "floats", "channels first", "empty", "no array"],
)
def test_arrays_that_are_no_clip_are_refused(array: NDArray[np.generic] | None, told: str, tmp_path: Path) -> None:
    """The error says what was expected, and names the file."""
    if array is None:
        (tmp_path / "clip.npy").write_bytes(b"no array")
    else:
        np.save(tmp_path / "clip.npy", array)
    with pytest.raises(FrameError, match=told):
        iterate_frames(tmp_path / "clip.npy")


def archive(
    folder: Path, save: Callable[..., None] = np.savez, **arrays: NDArray[np.generic]
) -> list[tuple[str, list[list[int]]]]:
    """What is read of arrays that were saved."""
    save(folder / "a.npz", **arrays)
    return [(name, ids.tolist()) for name, ids in read_masks(folder / "a.npz")]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_archives_are_read(save: Callable[..., None], tmp_path: Path) -> None:
    """One array is a volume or one mask; several are named; booleans are object 1; the order in memory does not
    matter."""
    one, two = np.array([[0, 7]]), np.array([[9, 0]])
    assert [("00000", [[0, 7]]), ("00001", [[9, 0]])] == archive(tmp_path, save, masks=np.stack([one, two]))
    assert [("00000", [[0, 1]])] == archive(tmp_path, save, mask=one > 0)
    assert [("b", [[0, 7]]), ("a", [[9, 0]])] == archive(tmp_path, save, b=one, a=two)
    assert [("00000", [[0, 7], [1, 2]])] == archive(tmp_path, save, x=np.asfortranarray(np.array([[0, 7], [1, 2]])))
    save(tmp_path / "a.npz", one, two)
    assert ["00000", "00001"] == [name for name, _ in read_masks(tmp_path / "a.npz")]


def test_archives_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    """Floats, objects, other shapes, names that lead elsewhere, sizes beyond any image, no archive, and one that is cut
    off."""
    for arrays, told in (
        ({"a": np.zeros((2, 2))}, "float64"),
        ({"a": np.zeros(2, np.uint8)}, r"\(2,\)"),
        ({"a": np.zeros((2, 2), object)}, "object"),
        ({"a": np.zeros((1, 2, 2), np.uint8), "b": np.zeros((2, 2), np.uint8)}, "several"),
        ({"a": np.asfortranarray(np.zeros((3, 2, 2), np.uint8))}, "ascontiguousarray"),
        ({}, "0 arrays"),
    ):
        with pytest.raises(MaskError, match=told):
            archive(tmp_path, **arrays)
    plane = io.BytesIO()
    np.save(plane, np.zeros((2, 2), np.uint8))
    huge = plane.getvalue().replace(b"(2, 2), }" + b" " * 10, b"(99999, 99999), }  ")
    for name, content, told in (
        ("../../x.npy", plane.getvalue(), "one file"),
        ("a.npy", huge, "99999"),
        ("a.npy", plane.getvalue()[:-2], "cut off"),
    ):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as out:
            out.writestr(name, content)
        with pytest.raises(MaskError, match=told):
            list(read_masks(tmp_path / "a.npz"))
    (tmp_path / "a.npz").write_bytes(json.dumps([1]).encode())
    with pytest.raises(MaskError, match="a.npz.*npz of integers"):
        read_masks(tmp_path / "a.npz")
