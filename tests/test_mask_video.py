"""Videos of masks, both ways: ids as levels, mattes, and cut-outs whose alpha is a probability; decoded by PyAV
alone."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.formats import CutoutMovWriter, CutoutWriter, MaskVideoWriter, MatteWriter, read_mask_video, read_masks
from stmemory.io.video import OverlayWriter, write_video
from stmemory.result import Segmentation

HEIGHT, WIDTH = 33, 47


def decoded(path: Path, layout: str) -> NDArray[np.uint8]:
    """All frames of a video."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format=layout) for frame in container.decode(video=0)])


def results(count: int = 3) -> list[Segmentation]:
    """Soft results of the objects 7 and 12; the second enters at frame 1."""
    random = torch.Generator().manual_seed(0)
    made = []
    for index in range(count):
        known = (7, 12) if index else (7,)
        probabilities = torch.rand(1 + len(known), HEIGHT, WIDTH, generator=random)
        probabilities /= probabilities.sum(0)
        ids = torch.tensor([0, *known])[probabilities.argmax(0)].int()
        made.append(
            Segmentation(index, ids, probabilities, known, dict.fromkeys(known, 0.5), dict.fromkeys(known, True))
        )
    return made


def share(result: Segmentation, *object_ids: int) -> NDArray[np.uint8]:
    """The probability of some objects in 255 steps."""
    rows = [1 + result.object_ids.index(object_id) for object_id in object_ids if object_id in result.object_ids]
    return np.rint(255 * result.probabilities[rows].sum(0).numpy()).astype(np.uint8)


def frame(index: int) -> NDArray[np.uint8]:
    """A frame of noise."""
    return np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("ending", ["mkv", "mov"])
def test_levels_are_ids(ending: str, tmp_path: Path) -> None:
    """Any ids from 1 to 254 are the very levels that PyAV decodes, and come back, noise of 254 ids too."""
    masks = [np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH), np.int32) for seed in range(3)]
    with MaskVideoWriter(tmp_path / f"a.{ending}", rate=12) as out:
        for ids in masks:
            out.add(ids)
    assert np.array_equal(np.stack(masks), decoded(tmp_path / f"a.{ending}", "gray"))
    assert np.array_equal(np.stack(masks), np.stack([ids for _, ids in read_masks(tmp_path / f"a.{ending}")]))


@pytest.mark.parametrize("codec", ["prores", "png", "qtrle"])
def test_alpha_is_the_probability_of_all_objects(codec: str, tmp_path: Path) -> None:
    """Colours and alpha of the codecs without loss come back; ProRes 4444 keeps alpha to a few levels of 255."""
    with CutoutMovWriter(tmp_path / "a.mov", codec=codec, soft=True) as out:
        for index, result in enumerate(results()):
            out.add(result, frame=frame(index))
    found = decoded(tmp_path / "a.mov", "rgba")[:, :HEIGHT, :WIDTH].astype(int)
    alpha = np.stack([share(result, 7, 12) for result in results()])
    assert np.abs(found[..., 3] - alpha).max() <= (4 if codec == "prores" else 0)
    if codec != "prores":
        assert np.array_equal(np.stack([frame(index) for index in range(3)]), found[..., :3])


@pytest.mark.parametrize("kind", ["cut-outs", "mattes"])
def test_each_object_has_a_video_as_long_as_the_clip(kind: str, tmp_path: Path) -> None:
    """An object that enters late is blank before; its alpha, or its level in a matte, is its own probability."""
    made = results()
    with (
        CutoutMovWriter(tmp_path / "out", codec="png", soft=True, per_object=True)
        if kind == "cut-outs"
        else MatteWriter(tmp_path / "out", per_object=True) as out
    ):
        for index, result in enumerate(made):
            out.add(result, frame=frame(index) if kind == "cut-outs" else None)
    assert ["007.mov", "012.mov"] == sorted(file.name for file in (tmp_path / "out").iterdir())
    for object_id in (7, 12):
        found = decoded(tmp_path / "out" / f"{object_id:03d}.mov", "rgba" if kind == "cut-outs" else "gray")
        levels = found[..., 3] if kind == "cut-outs" else found
        assert np.array_equal(np.stack([share(result, object_id) for result in made]), levels)
        if kind == "cut-outs" and object_id == 12:
            assert not found[0].any() and np.array_equal(frame(1), found[1, ..., :3])


def test_cutouts_of_one_image_may_have_soft_alpha(tmp_path: Path) -> None:
    """With `soft` a PNG's alpha is the probability, of one object or of all; without it is 0 or 255."""
    result = results(2)[1]
    for name, options, alpha in (
        ("all", {"soft": True}, share(result, 7, 12)),
        ("each/007", {"soft": True, "per_object": True}, share(result, 7)),
        ("hard", {}, 255 * (result.ids.numpy() > 0)),
    ):
        with CutoutWriter(tmp_path / name.split("/")[0], **options) as out:
            out.add(result, frame=frame(1))
        with Image.open(tmp_path / name / "00001.png") as image:
            found = np.array(image)
        assert np.array_equal(alpha, found[..., 3])
        assert np.array_equal(np.where(alpha[..., None] > 0, frame(1), 0), found[..., :3])


def test_mattes_of_ids_are_black_and_white_and_read_as_object_1(tmp_path: Path) -> None:
    """Ids have no soft edges; what is read of a matte is where it is 128 or more."""
    with MatteWriter(tmp_path / "ids.mkv") as out:
        out.add(np.array([[0, 7, 255, 300]]))
    assert [[0, 255, 255, 255]] == decoded(tmp_path / "ids.mkv", "gray")[0].tolist()
    assert [[0, 1, 1, 1]] == next(ids.tolist() for _, ids in read_masks(tmp_path / "ids.mkv"))
    with MatteWriter(tmp_path / "soft.mov") as out:
        out.add(results(2)[1])
    assert np.array_equal(share(results(2)[1], 7, 12), decoded(tmp_path / "soft.mov", "gray")[0])
    assert np.array_equal(share(results(2)[1], 7, 12) >= 128, next(ids for _, ids in read_masks(tmp_path / "soft.mov")))


def test_a_black_and_white_video_of_a_codec_with_loss_is_object_1(tmp_path: Path) -> None:
    """What the codec blurs is cut at 128; frames without white are background."""
    white = np.zeros((64, 96, 3), np.uint8)
    white[10:40, 20:70] = 255
    write_video(tmp_path / "a.mp4", [np.zeros_like(white), white, white])
    found = [ids for _, ids in read_masks(tmp_path / "a.mp4")]
    assert [np.int32] * 3 == [ids.dtype for ids in found] and not found[0].any()
    assert np.array_equal(white[..., 0] > 0, found[1] == 1)


def test_a_codec_with_loss_holds_no_ids(tmp_path: Path) -> None:
    """Levels between, colours, and the clip itself are refused, with the format that holds them."""
    levels = np.repeat(np.linspace(0, 255, 96).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    colours = np.zeros((64, 96, 3), np.uint8)
    colours[:, :48, 0] = 255
    for picture in (levels, colours, np.full((64, 96, 3), 110, np.uint8)):
        write_video(tmp_path / "a.mp4", [picture])
        with pytest.raises(MaskError, match="frame 0.*mask_video"):
            list(read_mask_video(tmp_path / "a.mp4"))


def test_levels_of_others_are_read_by_the_rule_of_grey_images(tmp_path: Path) -> None:
    """White alone is object 1, white beside ids is void; colours are refused."""
    for row, expected in (([0, 255, 0, 255], [0, 1, 0, 1]), ([0, 3, 255, 7], [0, 3, 0, 7])):
        with OverlayWriter(tmp_path / "a.mov", codec="grey_png") as out:
            out.write(np.array([row], np.uint8))
        assert [expected] == next(ids.tolist() for _, ids in read_mask_video(tmp_path / "a.mov"))
    with OverlayWriter(tmp_path / "a.mov", codec="png") as out:
        out.write(np.array([[[9, 8, 7, 255]]], np.uint8))
    with pytest.raises(MaskError, match="frame 0.*colours"):
        list(read_mask_video(tmp_path / "a.mov"))


def test_what_is_no_whole_video_is_an_error_of_masks(tmp_path: Path) -> None:
    """No video, a missing one and one that is cut off end in a `MaskError` that names the file."""
    (tmp_path / "a.mkv").write_bytes(b"no video")
    with pytest.raises(MaskError, match="a.mkv.*no"):
        read_masks(tmp_path / "a.mkv")
    with pytest.raises(MaskError, match="no/such.mkv"):
        read_mask_video("no/such.mkv")
    with MaskVideoWriter(tmp_path / "b.mov") as out:
        for seed in range(5):
            out.add(np.random.default_rng(seed).integers(0, 99, (64, 64), np.int32))
    (tmp_path / "b.mov").write_bytes((tmp_path / "b.mov").read_bytes()[:-6000])
    with pytest.raises(MaskError, match="b.mov"):
        list(read_mask_video(tmp_path / "b.mov"))


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """Codecs without alpha, rates, endings, and objects without number."""
    with pytest.raises(OptionError, match="prores, png, qtrle"):
        CutoutMovWriter(tmp_path / "a.mov", codec="h264")
    with pytest.raises(OptionError, match="grey_ffv1"):
        OverlayWriter(tmp_path / "a.mov", codec="vp8")
    with pytest.raises(OptionError, match="rate"):
        MaskVideoWriter(tmp_path / "a.mkv", rate=0)
    with pytest.raises(OptionError, match=".mkv or .mov"):
        MatteWriter(tmp_path / "a.mp4")
    with pytest.raises(MaskError, match="at most 200 objects"), MatteWriter(tmp_path / "many", per_object=True) as out:
        out.add(np.arange(201)[None] + 1)
    with pytest.raises(FrameError, match="background only"), MatteWriter(tmp_path / "none", per_object=True) as out:
        out.add(np.zeros((2, 2), np.int32))
