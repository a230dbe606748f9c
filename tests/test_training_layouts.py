"""Facts about folders of pictures and masks: the layouts of public data sets, and what is bad in them."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import pack_tiny, save_still
from PIL import Image

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.formats import encode_rle
from stmemory.training.config import Phase, Source, TrainingConfig
from stmemory.training.data.folders import LAYOUTS, FolderPictures, open_folder
from stmemory.training.data.masks import IdMask, SbdMask
from stmemory.training.data.material import Material, Photo, pack
from stmemory.training.data.sources import Mixture, Sources
from stmemory.training.synthesis.clips import ClipConfig, ClipSource
from stmemory.training.synthesis.cutouts import Cutter
from stmemory.training.synthesis.render import Film

BOX = np.zeros((64, 80), np.uint8)
BOX[15:45, 20:60] = 1


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((64, 80, 3), 40, np.uint8)
    pixels[BOX > 0] = (250, 30, 20)
    Image.fromarray(pixels).save(path)


def _grey(path: Path, ids: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


def _stills(root: Path) -> None:
    save_still(root, "a")


def _videos(root: Path) -> None:
    for time in range(6):
        _picture(root / "images" / "cat" / f"{time}.jpg")
        _grey(root / "masks" / "cat" / f"{time}.png", BOX)


def _clips(root: Path) -> None:
    for time in range(3):
        _picture(root / "cat" / "JPEGImages" / f"{time}.jpg")
        _grey(root / "cat" / "Annotations" / f"{time}.png", BOX)
        _picture(root / "dog" / "images" / f"{time}.jpg")
        _grey(root / "dog" / "masks" / f"{time}.png", BOX)


def _davis(root: Path) -> None:
    for name in ("bear", "not-listed"):
        for time in range(6):
            _picture(root / "JPEGImages" / "480p" / name / f"{time:05}.jpg")
            _grey(root / "Annotations" / "480p" / name / f"{time:05}.png", np.where(BOX > 0, BOX, 255).astype(np.uint8))
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "train.txt").write_text("bear\n")


def _youtube_vos(root: Path) -> None:
    for time in range(0, 30, 5):
        _picture(root / "train" / "JPEGImages" / "0a2f" / f"{time:05}.jpg")
        _grey(root / "train" / "Annotations" / "0a2f" / f"{time:05}.png", BOX)
    for time in (1, 2):  # of the larger set, with frames that nobody labelled
        _picture(root / "train" / "JPEGImages" / "0a2f" / f"{time:05}.jpg")


def _coco(root: Path) -> None:
    _picture(root / "train2017" / "000000000001.jpg")
    _picture(root / "train2017" / "000000000002.jpg")
    (root / "annotations").mkdir()
    box = [20, 15, 59, 15, 59, 44, 20, 44]
    about = {
        "images": [{"id": n, "file_name": f"00000000000{n}.jpg", "width": 80, "height": 64} for n in (1, 2)],
        "annotations": [
            {"image_id": 1, "iscrowd": 0, "area": 1200, "segmentation": [box]},
            {"image_id": 1, "iscrowd": 1, "area": 5120, "segmentation": {"size": [64, 80], "counts": [0, 5120]}},
        ],
    }
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(about))


def _bright(pictures: str, masks: str, suffix: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        _picture(root / pictures / f"0001{suffix}")
        _grey(root / masks / "0001.png", BOX * 240)

    return make


def _sbd(root: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    _picture(root / "img" / "2008_000001.jpg")
    (root / "inst").mkdir()
    ids = np.where(BOX > 0, BOX, 255).astype(np.uint8)
    scipy_io.savemat(root / "inst" / "2008_000001.mat", {"GTinst": {"Segmentation": ids, "Categories": [[7]]}})
    (root / "train.txt").write_text("2008_000001\n")


MAKERS = {
    "stills": _stills,
    "videos": _videos,
    "clips": _clips,
    "davis": _davis,
    "youtube_vos": _youtube_vos,
    "coco": _coco,
    "ecssd": _bright("images", "ground_truth_mask", ".jpg"),
    "hku_is": _bright("imgs", "gt", ".png"),
    "msra10k": _bright("Imgs", "Imgs", ".jpg"),
    "sbd": _sbd,
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_layout_is_read(layout: str, tmp_path: Path) -> None:
    """Each layout gives its pictures with their masks, exactly, and clips can be made of them."""
    MAKERS[layout](tmp_path)
    folder = open_folder(tmp_path, layout=layout)
    video = layout in ("clips", "videos", "davis", "youtube_vos")

    assert [("video" if video else "photo")] * (6 if video else 1) == [item.kind for item in folder.items]
    assert () == folder.skipped
    photo = folder.photo(0)
    assert (3, 64, 80) == tuple(photo.pixels.shape)
    assert BOX.tolist() == photo.ids.tolist()
    clip = ClipSource(folder, ClipConfig(size=32, frames=5, gap=3, warp=0.5), 0).clip(0)
    assert (5, 3, 32, 32) == tuple(clip.frames.shape)
    assert int(clip.ids[0].max()) >= 1


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_an_empty_folder_is_told(layout: str, tmp_path: Path) -> None:
    """A folder without anything in it is named, whatever its layout."""
    with pytest.raises(OptionError, match=tmp_path.name):
        open_folder(tmp_path, layout=layout)


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("videos", "davis", "got no images in it"),
        ("davis", "videos", "got no JPEGImages/480p in it"),
        ("stills", "videos", "got none (images: no pictures in it)"),
        ("videos", "stills", "got none"),
        ("clips", "msra10k", "got none"),
        ("coco", "youtube_vos", "there is no split at all"),
    ],
)
def test_the_layout_that_would_fit_is_told(wrong: str, right: str, said: str, tmp_path: Path) -> None:
    """A folder of another layout is an error that names what is missing, and the layout that the folder has."""
    MAKERS[right](tmp_path)
    with pytest.raises(OptionError) as raised:
        open_folder(tmp_path, layout=wrong)

    assert said in str(raised.value)
    assert str(raised.value).endswith(f"it looks like the layout {right!r}")


def test_an_unknown_layout_and_a_missing_folder_are_told(tmp_path: Path) -> None:
    """Both are named."""
    with pytest.raises(OptionError, match="'cityscapes'"):
        open_folder(tmp_path, layout="cityscapes")
    with pytest.raises(OptionError, match="no folder"):
        open_folder(tmp_path / "none", layout="davis")


@pytest.mark.parametrize("layout", ["davis", "youtube_vos", "coco", "sbd"])
def test_a_split_that_is_not_there_is_told(layout: str, tmp_path: Path) -> None:
    """A split is never replaced by another: the error names its file, and the splits that there are."""
    MAKERS[layout](tmp_path)
    with pytest.raises(OptionError, match=r"trian.*the splits that are there: train$"):
        open_folder(tmp_path, layout=layout, split="trian")


def test_a_folder_that_nobody_split_says_so(tmp_path: Path) -> None:
    """Videos in the layout of DAVIS without `ImageSets` are all taken, and that is told; with it but without lists,
    none are."""
    _davis(tmp_path)
    (tmp_path / "ImageSets" / "2017" / "train.txt").unlink()
    with pytest.raises(OptionError, match=r"ImageSets/2017/train\.txt .*no split at all"):
        open_folder(tmp_path, layout="davis")
    shutil.rmtree(tmp_path / "ImageSets")
    folder = open_folder(tmp_path, layout="davis")

    assert {"bear", "not-listed"} == {Path(item.name).parent.name for item in folder.items}
    assert ["no ImageSets"] == [note.split(": ")[1][:12] for note in folder.notes]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """A frame without its mask, a mask without its frame, and a video without frames are skipped by name."""
    _videos(tmp_path)
    (tmp_path / "images" / "cat" / "3.jpg").unlink()
    (tmp_path / "masks" / "cat" / "4.png").unlink()
    _picture(tmp_path / "images" / "dog" / "0.jpg")
    (tmp_path / "masks" / "dog").mkdir()
    (tmp_path / "images" / "empty").mkdir()
    folder = open_folder(tmp_path, layout="videos")

    assert ["0.jpg", "1.jpg", "2.jpg", "5.jpg"] == [Path(item.name).name for item in folder.items]
    bad = ["images/cat/4.jpg", "masks/cat/3.png", "images/dog/0.jpg", "images/empty"]
    assert bad == [line[len(str(tmp_path)) + 1 :].split(":")[0] for line in folder.skipped]


def _empty(root: Path) -> None:
    _grey(root / "masks" / "a.png", np.zeros((64, 80), np.uint8))


def _pixel(root: Path) -> None:
    ids = np.zeros((64, 80), np.uint8)
    ids[3, 4] = 1
    _grey(root / "masks" / "a.png", ids)


def _other_size(root: Path) -> None:
    _grey(root / "masks" / "a.png", np.ones((6, 8), np.uint8))


def _colours(root: Path) -> None:
    Image.new("RGB", (80, 64), "red").save(root / "masks" / "a.png")


def _smooth_grey(root: Path) -> None:
    Image.fromarray(BOX * 200).resize((160, 128)).rotate(7).resize((80, 64), Image.Resampling.LANCZOS).save(
        root / "masks" / "a.png"
    )


def _jpeg(root: Path) -> None:
    Image.fromarray(BOX).save(root / "masks" / "a.png", "JPEG")


def _deep(root: Path) -> None:
    Image.fromarray(BOX.astype(np.uint16)).save(root / "masks" / "a.png")


def _broken_mask(root: Path) -> None:
    (root / "masks" / "a.png").write_bytes(b"no")


def _broken_picture(root: Path) -> None:
    (root / "images" / "a.jpg").write_bytes(b"no")


BAD = {
    "empty": (_empty, MaskError, "largest has 0"),
    "one pixel": (_pixel, MaskError, "largest has 1"),
    "other size": (_other_size, MaskError, "80x64, got 8x6"),
    "colours": (_colours, MaskError, "palette or grey"),
    "smooth grey": (
        _smooth_grey,
        MaskError,
        "looks like a mask with smoothed edges, or of a JPEG; save ids 1 to N as PNG without smoothing",
    ),
    "JPEG": (_jpeg, MaskError, "JPEG blurs ids"),
    "16 bits": (_deep, MaskError, "save it with 8 bits"),
    "broken mask": (_broken_mask, MaskError, "cannot be read"),
    "broken picture": (_broken_picture, FrameError, "cannot be read"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_pictures_are_skipped_or_refused_by_name(kind: str, tmp_path: Path) -> None:
    """What only shows when a picture is read ends the clip, or is skipped and named in it."""
    spoil, error, words = BAD[kind]
    save_still(tmp_path, "a")
    save_still(tmp_path, "b")
    spoil(tmp_path)
    folder = open_folder(tmp_path, layout="stills")
    config = ClipConfig(size=32, frames=2)
    with pytest.raises(error, match=words) as raised:
        folder.photo(0)
    assert "a." in str(raised.value)
    with pytest.raises(error):
        for index in range(30):
            ClipSource(folder, config, 0).clip(index)

    skipped = [line for index in range(30) for line in ClipSource(folder, config, 0, skip_bad=True).clip(index).skipped]
    assert {str(raised.value)} == set(skipped)


@pytest.mark.parametrize(("step", "thin"), [(1, True), (5, False)], ids=["thin-1-to-50", "every-fifth"])
def test_many_small_objects_do_not_look_smoothed(step: int, thin: bool, tmp_path: Path) -> None:
    """Fifty objects are read as they are drawn: of two pixels each when they are numbered 1 to 50, of nine when they
    are numbered otherwise."""
    ids = np.zeros((64, 80), np.uint8)
    ids[:4, :] = 255
    for number in range(50):
        y, x = 10 + 5 * (number // 10), 5 + 7 * (number % 10)
        ids[y : y + (1 if thin else 3), x : x + (2 if thin else 3)] = step * (number + 1)
    _grey(tmp_path / "a.png", ids)

    assert np.where(ids == 255, 0, ids).tolist() == IdMask(tmp_path / "a.png").read(80, 64).tolist()


def test_a_folder_of_bad_pictures_only_is_told(tmp_path: Path) -> None:
    """When nothing is left, the error names one of them."""
    save_still(tmp_path, "a")
    _empty(tmp_path)
    with pytest.raises(OptionError, match=r"a\.jpg"):
        ClipSource(open_folder(tmp_path, layout="stills"), ClipConfig(size=32, frames=2), 0, skip_bad=True).clip(0)


def test_large_pictures_are_shrunk_with_their_masks(tmp_path: Path) -> None:
    """A picture has at most the longer side asked for, and its mask the same size."""
    save_still(tmp_path, "a")
    stills = open_folder(tmp_path, layout="stills")
    small = FolderPictures(tmp_path, stills._stills, max_side=40).photo(0)

    assert (3, 32, 40) == tuple(small.pixels.shape)
    assert BOX[1::2, 1::2].sum() == pytest.approx(int(small.ids.sum()), rel=0.1)


def _small(root: Path, side: int) -> Path:
    """Three pictures with a square object each, green on black."""
    for name in "abc":
        ids = np.zeros((200, 240), np.uint8)
        ids[90 : 90 + side, 100 : 100 + side] = 1
        _grey(_made(root / "masks") / f"{name}.png", ids)
        Image.fromarray(ids[..., None] * np.array([0, 200, 0], np.uint8)).save(_made(root / "images") / f"{name}.png")
    return root


def test_small_objects_are_cut_out_where_there_are_no_larger_ones(tmp_path: Path) -> None:
    """What is pasted is an object of the pictures and has their names, though all are of 400 pixels."""
    cutter = Cutter(open_folder(_small(tmp_path, 20), layout="stills"))
    rng = np.random.default_rng(0)
    cutouts = [cutter.cut(rng, natural=1.0, side=30) for _ in range(20)]

    assert {"images/a.png", "images/b.png", "images/c.png"} == {cutout.name for cutout in cutouts}
    assert {(22, 22)} == {tuple(cutout.views.shape[-2:]) for cutout in cutouts}
    brightest = torch.stack([cutout.views[0, :3].amax((1, 2)) for cutout in cutouts])
    torch.testing.assert_close(torch.tensor([0, 200 / 255, 0]).expand(20, 3), brightest)


def test_pictures_with_nothing_to_cut_out_are_told(tmp_path: Path) -> None:
    """Where no picture has an object of 16 pixels, one is named: nothing else is pasted in its place."""

    class Specks(FolderPictures):
        def photo(self, index: int) -> Photo:
            photo = super().photo(index)
            return Photo(photo.pixels, torch.where(photo.ids.cumsum(0) == 1, 1, 0).to(torch.uint8))

    pictures = Specks(tmp_path, open_folder(_small(tmp_path, 12), layout="stills")._stills)
    with pytest.raises(MaskError, match=r"images/[abc]\.png: .*the largest in it and 19 other draws has 12"):
        Cutter(pictures).cut(np.random.default_rng(0), natural=1.0, side=30)


def _turned(root: Path) -> None:
    """A picture that a camera took on its side, and the mask of the upright one."""
    pixels = np.zeros((64, 80, 3), np.uint8)
    pixels[BOX > 0] = (250, 30, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(_made(root / "images") / "a.jpg", exif=exif, quality=95)
    _grey(root / "masks" / "a.png", np.rot90(BOX, -1).copy())


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "packed"])
def test_pictures_are_upright(packed: bool, tmp_path: Path) -> None:
    """A mask lies on the picture as people see it: EXIF orientation is applied."""
    _turned(tmp_path)
    if packed:
        assert () == pack(tmp_path, tmp_path / "material.safetensors").skipped
    photo = (
        Material.load(tmp_path / "material.safetensors") if packed else open_folder(tmp_path, layout="stills")
    ).photo(0)

    assert ((80, 64), (3, 80, 64)) == (tuple(photo.ids.shape), tuple(photo.pixels.shape))
    assert bool(((photo.pixels[0] > 125) == (photo.ids == 1)).float().mean() > 0.97)


def test_a_mask_on_its_side_is_told(tmp_path: Path) -> None:
    """A mask of the picture before it was turned is refused, and the error says why."""
    _turned(tmp_path)
    _grey(tmp_path / "masks" / "a.png", BOX)
    with pytest.raises(MaskError, match="64x80, got 80x64; draw it on the picture as its EXIF"):
        open_folder(tmp_path, layout="stills").photo(0)


def test_pack_refuses_16_bits(tmp_path: Path) -> None:
    """A deep grey picture, which a plain conversion would make white, is skipped with the reason, as in folders."""
    _grey(tmp_path / "masks" / "a.png", BOX)
    Image.fromarray(np.full((64, 80), 9000, np.uint16)).save(_made(tmp_path / "images") / "a.png")
    _stills(tmp_path / "fine")
    report = pack(tmp_path, tmp_path / "material.safetensors")

    assert 1 == len(report.skipped) and "8 bits a channel" in report.skipped[0]
    with pytest.raises(FrameError, match="8 bits a channel"):
        open_folder(tmp_path, layout="stills").photo(0)


def test_an_object_that_vanishes_when_shrunk_is_told(tmp_path: Path) -> None:
    """What counts is the object as clips would show it: 4 x 4 pixels of a large picture are no object."""
    ids = np.zeros((1500, 2000), np.uint8)
    ids[700:704, 900:904] = 1
    _grey(tmp_path / "masks" / "a.png", ids)
    Image.new("RGB", (2000, 1500)).save(_made(tmp_path / "images") / "a.png")
    with pytest.raises(MaskError, match=r"a\.png: .*the largest has [0-9] at 640x480"):
        open_folder(tmp_path, layout="stills").photo(0)


def test_a_picture_without_an_object_is_no_base(tmp_path: Path) -> None:
    """Whoever hands an empty mask out, its background is never tracked: the picture is named."""

    class Empty(FolderPictures):
        def photo(self, index: int) -> Photo:
            return Photo(self.pixels(index), torch.zeros(64, 80, dtype=torch.uint8))

    save_still(tmp_path, "a")
    pictures = Empty(tmp_path, open_folder(tmp_path, layout="stills")._stills)
    with pytest.raises(MaskError, match=r"images/a\.jpg"):
        ClipSource(pictures, ClipConfig(size=32, frames=2, photo_base=1.0), 0).clip(0)


def test_masks_of_davis_2016_are_one_object(tmp_path: Path) -> None:
    """In a video whose masks are black and white, with smooth edges or without, white is object 1."""
    _davis(tmp_path)
    for number, mask in enumerate(tmp_path.glob("Annotations/480p/*/*.png")):
        white = Image.fromarray(BOX * 255)
        (white.resize((160, 128)).rotate(7).resize((80, 64), Image.Resampling.LANCZOS) if number % 2 else white).save(
            mask
        )
    folder = open_folder(tmp_path, layout="davis")

    assert {(0, 1)} == {tuple(folder.photo(item.index).ids.unique().tolist()) for item in folder.items}


@pytest.mark.parametrize("layout", ["clips", "davis", "videos", "youtube_vos"])
def test_a_frame_of_void_alone_is_one_of_a_hidden_object(layout: str, tmp_path: Path) -> None:
    """In a video that shows its object elsewhere, a mask of 0 and 255 is an empty one."""
    MAKERS[layout](tmp_path)
    for mask in sorted(tmp_path.rglob("*.png"))[1::2]:
        _grey(mask, BOX * 255)
    folder = open_folder(tmp_path, layout=layout)

    assert {True, False} == {bool(folder.photo(item.index).ids.any()) for item in folder.items}


def test_a_video_without_an_object_is_named(tmp_path: Path) -> None:
    """It is skipped as one, whichever of its frames are drawn; clips are made of the others."""
    _clips(tmp_path)
    for mask in (tmp_path / "cat" / "Annotations").iterdir():
        _grey(mask, BOX * 0)
    source = ClipSource(open_folder(tmp_path, layout="clips"), ClipConfig(size=32, frames=2), 0, skip_bad=True)

    lines = {line for index in range(12) for line in source.clip(index).skipped}
    assert {f"{tmp_path}/cat/Annotations: no frame of this video holds an object"} == lines


def test_a_mask_without_a_picture_is_named(tmp_path: Path) -> None:
    """In a folder of stills too."""
    for name in "ab":
        save_still(tmp_path, name)
    (tmp_path / "images" / "b.jpg").unlink()

    assert (f"{tmp_path}/masks/b.png: no picture in images",) == open_folder(tmp_path, layout="stills").skipped


def _coco_segments(root: Path, segmentation: object, **more: object) -> None:
    """Gives the picture 1 an annotation of BOX as it is given, and one of its upper left corner on top, without an
    area."""
    corner = {"image_id": 1, "segmentation": [[20, 15, 29, 15, 29, 24, 20, 24]], **more}
    about = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    about["annotations"] = [
        corner,
        {"id": 7, "image_id": 1, "segmentation": segmentation, **({"area": 1200} if more else {})},
    ]
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(about))


RUNS = [20 * 64 + 15, *([30, 34] * 40)[:-1], 19 * 64 + 53]
RUNS[-1] = 64 * 80 - sum(RUNS[:-1])
SEGMENTS = {
    "list": {"size": [64, 80], "counts": RUNS},
    "text": encode_rle(BOX > 0),
    "polygon": [[20, 15, 59, 15, 59, 44, 20, 44]],
}


@pytest.mark.parametrize("area", [{}, {"area": 100}], ids=["no-area", "area"])
@pytest.mark.parametrize("segmentation", SEGMENTS.values(), ids=SEGMENTS.keys())
def test_coco_has_polygons_and_runs(segmentation: object, area: dict[str, int], tmp_path: Path) -> None:
    """An object is read from either, large ones lie below small ones, and an area that is not given is counted."""
    _coco(tmp_path)
    _coco_segments(tmp_path, segmentation, **area)
    folder = open_folder(tmp_path, layout="coco")
    expected = BOX.copy()
    expected[15:25, 20:30] = 2

    assert () == folder.skipped
    assert expected.tolist() == folder.photo(0).ids.tolist()


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([], "annotation 7 of picture 1: no segmentation"),
        (None, "no segmentation"),
        ({"size": [64, 80], "counts": [9]}, "the file is damaged"),
    ],
    ids=["empty", "null", "damaged"],
)
def test_coco_names_annotations_of_no_use(segmentation: object, said: str, tmp_path: Path) -> None:
    """What is not there or damaged is named; the other pictures are used."""
    _coco(tmp_path)
    _coco_segments(tmp_path, segmentation)
    about = json.loads((tmp_path / "annotations" / "instances_train2017.json").read_text())
    about["annotations"].append({"image_id": 2, "segmentation": SEGMENTS["polygon"]})
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(about))

    assert [True] == [said in line for line in open_folder(tmp_path, layout="coco").skipped]


def test_a_frame_of_another_size_is_told(tmp_path: Path) -> None:
    """A video that changes its size ends a clip by the name of the frame, or the clip is made of other frames."""
    _videos(tmp_path)
    Image.new("RGB", (40, 32)).save(tmp_path / "images" / "cat" / "5.jpg")
    _grey(tmp_path / "masks" / "cat" / "5.png", np.ones((32, 40), np.uint8))
    folder, config = open_folder(tmp_path, layout="videos"), ClipConfig(size=32, frames=3)
    with pytest.raises(FrameError, match=r"cat/[345]\.jpg: expected the size of"):
        for index in range(30):
            ClipSource(folder, config, 0).clip(index)
    clips = [ClipSource(folder, config, 0, skip_bad=True).clip(index) for index in range(30)]

    assert {(3, 3, 32, 32)} == {tuple(clip.frames.shape) for clip in clips}
    assert any(clip.skipped for clip in clips)


def test_sbd_without_scipy_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .mat file is the only reason for SciPy, which is named when it is missing."""
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MaskError, match="pip install scipy"):
        SbdMask(tmp_path / "x.mat").read(80, 64)


def test_gaps_widen_what_a_clip_sees_of_a_video(tmp_path: Path) -> None:
    """Clips of a video take frames up to `gap` apart, in order; the frames of a clip are evenly spaced."""
    for time in range(40):
        Image.new("RGB", (32, 32), (6 * time, 6 * time, 6 * time)).save(
            _made(tmp_path / "images" / "v") / f"{time}.png"
        )
        Image.new("L", (32, 32), 1).save(_made(tmp_path / "masks" / "v") / f"{time}.png")
    folder = open_folder(tmp_path, layout="videos")

    def steps(gap: int) -> set[int]:
        source = ClipSource(folder, ClipConfig(size=16, frames=3, gap=gap, reverse=0.0, blur=0.0, grey=0.0), 0)
        found = set()
        for index in range(40):
            scene = source._from_video(np.random.default_rng(index))
            assert isinstance(scene.base, Film)
            times = (scene.base.pixels.float().mean((1, 2, 3)) / 6).round().int().tolist()
            assert times[1] - times[0] == times[2] - times[1]
            found.add(times[1] - times[0])
        return found

    assert {1} == steps(1), "continuous frames, as in section 3.4.2"
    assert {1, 2, 3, 4} == steps(4)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_sources_are_mixed_by_weight(tmp_path: Path) -> None:
    """Of many clips, each source has about its share, and which one a clip is of depends on its number alone."""
    for name in ("one", "three"):
        save_still(tmp_path / name, name)
    config = TrainingConfig(
        phases=(Phase(size=32, frames=5, capacity=3),),
        sources=(Source(str(tmp_path / "one")), Source(str(tmp_path / "three"), weight=3.0)),
        data={"photo_base": 1.0},
    )
    clips = Sources(config, None).clips(config.phases[0])
    assert isinstance(clips, Mixture)
    names = [clips.clip(index).name for index in range(40)]

    assert 20 <= sum("three" in name for name in names) <= 38
    assert names[7] == Sources(config, None).clips(config.phases[0]).clip(7).name
    twice = [clips.clip(5).frames for _ in range(2)]
    assert torch.equal(*twice)


VALIDATING = TrainingConfig(phases=(Phase(size=32, frames=5, capacity=3),), validate_every=1)


def _names(sources: Sources, *, validation: bool) -> set[str]:
    """What the first clips are made of, without what is pasted over it."""
    clips = sources.clips(VALIDATING.phases[0], validation=validation)
    return {part for index in range(60) for part in clips.draw(index).scene.name.split(" + ") if part}


def _many_videos(root: Path) -> None:
    for name in ("cat", "dog", "eel"):
        for time in range(3):
            _picture(root / "images" / name / f"{time}.jpg")
            _grey(root / "masks" / name / f"{time}.png", BOX)


def _many_stills(root: Path) -> None:
    for number in range(6):
        save_still(root, str(number), seed=number)


@pytest.mark.parametrize(
    ("make", "layout", "held"), [(_many_stills, "stills", 1), (_many_videos, "videos", 3)], ids=["stills", "videos"]
)
def test_validation_sees_other_pictures_of_a_folder(
    make: Callable[[Path], None], layout: str, held: int, tmp_path: Path
) -> None:
    """No picture of the training is in a clip of the validation, nor a frame of a video; all are used for one of
    them."""
    make(tmp_path)
    sources = Sources(dataclasses.replace(VALIDATING, sources=(Source(str(tmp_path), layout),)), None)
    trained, validated = (_names(sources, validation=validation) for validation in (False, True))
    if layout == "videos":  # a clip is named after one frame of its video
        trained, validated = ({Path(name).parent.name for name in names} for names in (trained, validated))

    assert set() == trained & validated
    assert (len(open_folder(tmp_path, layout=layout).items) // held, 1) == (len(trained | validated), len(validated))
    assert f"{held} of" in sources.notes[0]


def test_validation_sees_other_pictures_of_packed_material(tmp_path: Path) -> None:
    """Of a packed file some photos are held out too, and a cut-out that is the only one is trained on."""
    for name in "abc":
        save_still(tmp_path / "things", name)
    pack_tiny(tmp_path / "film")
    (tmp_path / "film" / "things" / "masks" / "0.png").unlink()
    pack(tmp_path, tmp_path / "material.safetensors")
    material = Material.load(tmp_path / "material.safetensors")
    sources = Sources(dataclasses.replace(VALIDATING, data={"video": 0.4}), material)
    trained, validated = (_names(sources, validation=validation) for validation in (False, True))

    assert {"photo": 3, "video": 2, "cutout": 1} == dict(Counter(item.kind for item in material.items))
    assert set() == trained & validated
    assert (4, 1) == (len(trained), len(validated))  # a clip of the video is named after its first frame


def test_a_video_and_a_cutout_are_parted(tmp_path: Path) -> None:
    """Where no kind has two, one of all is held out."""
    sources = Sources(dataclasses.replace(VALIDATING, data={"video": 0.5}), Material.load(pack_tiny(tmp_path)))
    trained, validated = (_names(sources, validation=validation) for validation in (False, True))

    assert set() == trained & validated
    assert 2 == len(trained | validated)


@pytest.mark.parametrize("split", ["val", ""], ids=["val", "held-out"])
def test_validation_uses_the_split_for_it(split: str, tmp_path: Path) -> None:
    """Where a data set has a validation split, that is what is validated on, unless some are to be held out."""
    _many_videos(tmp_path)
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "images").rename(tmp_path / "JPEGImages" / "480p")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "masks").rename(tmp_path / "Annotations" / "480p")
    lists = tmp_path / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("cat\ndog\n")
    (lists / "val.txt").write_text("eel\n")
    source = Source(str(tmp_path), "davis", validation_split=split)
    sources = Sources(dataclasses.replace(VALIDATING, sources=(source,)), None)
    trained, validated = (
        {Path(name).parent.name for name in _names(sources, validation=validation)} for validation in (False, True)
    )

    assert (({"cat", "dog"}, {"eel"}) if split else (1, 1)) == (
        (trained, validated) if split else (len(trained), len(validated))
    )
    assert set() == trained & validated


def test_a_run_without_validation_holds_nothing_out(tmp_path: Path) -> None:
    """Its clips are those of all pictures, and clips for validation are refused."""
    _many_stills(tmp_path)
    config = dataclasses.replace(VALIDATING, validate_every=0, sources=(Source(str(tmp_path)),))
    sources, phase = Sources(config, None), config.phases[0]
    expected = ClipSource(open_folder(tmp_path, layout="stills"), ClipConfig(size=32, frames=5), 0, skip_bad=True)

    assert all(torch.equal(expected.clip(index).frames, sources.clips(phase).clip(index).frames) for index in range(4))
    assert () == tuple(sources.notes)
    with pytest.raises(OptionError, match="validate_every"):
        sources.clips(phase, validation=True)


def test_a_picture_that_can_be_used_is_held_out(tmp_path: Path) -> None:
    """Though half of the pictures are bad, those whose turn it would be, validation has one that is not, and training
    has the others."""
    for number in range(8):
        save_still(tmp_path, str(number), seed=number)
        if number in (6, 1, 7, 3):
            _grey(tmp_path / "masks" / f"{number}.png", np.zeros((64, 80), np.uint8))
    sources = Sources(dataclasses.replace(VALIDATING, sources=(Source(str(tmp_path)),)), None)
    trained, validated = (_names(sources, validation=validation) for validation in (False, True))

    assert {"images/0.jpg"} == validated
    assert {"images/2.jpg", "images/4.jpg", "images/5.jpg"} == trained


def test_too_little_to_validate_on_is_told(tmp_path: Path) -> None:
    """One picture cannot be trained on and held out; a source beside others is trained on then, and that is said."""
    save_still(tmp_path / "one", "a")
    _many_stills(tmp_path / "many")
    one, many = (Source(str(tmp_path / name)) for name in ("one", "many"))
    with pytest.raises(OptionError, match="held out"):
        Sources(dataclasses.replace(VALIDATING, sources=(one,)), None)

    notes = Sources(dataclasses.replace(VALIDATING, sources=(one, many)), None).notes
    assert ["too few", "1 of 6 "] == [note.split(": ")[1][:7] for note in notes]
