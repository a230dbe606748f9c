"""Facts about packed material and the clips made from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from stmemory.errors import OptionError
from stmemory.training.data.material import Material, PackReport, pack
from stmemory.training.synthesis.clips import Clip, ClipConfig, ClipSource, clip_strips
from stmemory.training.synthesis.events import Shot
from stmemory.training.synthesis.motion import (
    Motion,
    View,
    out_and_back,
    pass_over,
    place_base,
    place_camera,
    place_layer,
    random_motion,
    walk,
)
from stmemory.training.synthesis.render import paste, render_base, render_layer, render_seen

RNG_SEED = 7


def _photo(folder: Path, name: str, *, colour: tuple[int, int, int], suffix: str = "jpg") -> None:
    """A noisy photo with two rectangles, ids 1 and 2, and its palette mask."""
    rng = np.random.default_rng(len(name))
    pixels = rng.integers(0, 80, (72, 96, 3), dtype=np.uint8)
    ids = np.zeros((72, 96), dtype=np.uint8)
    ids[20:50, 10:45] = 1
    ids[30:60, 60:85] = 2
    pixels[ids == 1] = colour
    pixels[ids == 2] = colour[::-1]
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "images" / f"{name}.{suffix}", quality=95)
    palette = Image.frombytes("P", (96, 72), ids.tobytes())
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(folder / "masks" / f"{name}.png")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos, a video of four frames, a turning object, two cut-outs, a background and four bad files."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("cat", "dog"):
        _photo(root / "a" / "pets", name, colour=(250, 30, 20))
    for time in range(4):
        _photo(root / "film", f"{time:03}", colour=(20, 200, 40 + time))
    cutouts = root / "art" / "cutouts"
    cutouts.mkdir(parents=True)
    for name in ("star", "moon", *(f"cup_{view:02}" for view in range(10))):
        picture = np.zeros((40, 50, 4), dtype=np.uint8)
        picture[8:33, 5:45] = (240, 240, 10, 255)
        Image.fromarray(picture).save(cutouts / f"{name}.webp")
    (root / "a" / "backgrounds" / "walls").mkdir(parents=True)
    Image.new("RGB", (80, 60), (90, 120, 150)).save(root / "a" / "backgrounds" / "walls" / "blue.jpg")

    _photo(root / "bad", "size", colour=(1, 2, 3))
    Image.new("L", (10, 10), 1).save(root / "bad" / "masks" / "size.png")
    _photo(root / "bad", "nothing", colour=(1, 2, 3))
    Image.new("L", (96, 72), 0).save(root / "bad" / "masks" / "nothing.png")
    _photo(root / "bad", "broken", colour=(1, 2, 3))
    (root / "bad" / "images" / "broken.jpg").write_bytes(b"not a picture")
    _photo(root / "bad", "alone", colour=(1, 2, 3))
    (root / "bad" / "masks" / "alone.png").unlink()
    return root


@pytest.fixture(scope="module")
def packed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PackReport]:
    """The tree, packed."""
    path = tmp_path_factory.mktemp("packed") / "material.safetensors"
    return path, pack(tree, path, drawn=("art",))


@pytest.fixture(scope="module")
def material(packed: tuple[Path, PackReport]) -> Material:
    """The packed tree, loaded."""
    return Material.load(packed[0])


def test_pack_counts_what_it_packed(packed: tuple[Path, PackReport]) -> None:
    """Photos, cut-outs, backgrounds and video frames are told apart by where they lie."""
    assert {"photo": 2, "cutout": 12, "background": 1, "video": 4} == packed[1].counts
    assert packed[0].stat().st_size == packed[1].nbytes


@pytest.mark.parametrize(
    ("name", "reason"),
    [("size.jpg", "10x10"), ("nothing.jpg", "no object"), ("broken.jpg", "cannot identify"), ("alone.jpg", "no mask")],
    ids=["sizes-differ", "empty-mask", "unreadable", "no-mask"],
)
def test_pack_names_what_it_skipped(packed: tuple[Path, PackReport], name: str, reason: str) -> None:
    """Each bad file is skipped and named with the reason."""
    lines = [line for line in packed[1].skipped if f"bad/images/{name}" in line]
    assert 1 == len(lines)
    assert reason in lines[0]


def test_pack_keeps_masks_exact(tree: Path, material: Material) -> None:
    """A mask that is not shrunk comes back bit for bit, its photo nearly so."""
    item = next(item for item in material.items if item.name == "a/pets/images/cat.jpg")
    with Image.open(tree / "a" / "pets" / "masks" / "cat.png") as picture:
        expected = np.array(picture)
    photo = material.photo(item.index)
    assert expected.tolist() == photo.ids.tolist()
    assert photo.pixels[:, 35, 28].tolist() == pytest.approx([250, 30, 20], abs=12)


def test_pack_reads_masks_as_folders_do(tmp_path: Path) -> None:
    """Void is background beside an object, and white alone is the object."""
    for name in ("void", "white"):
        _photo(tmp_path, name, colour=(250, 30, 20))
    ids = np.zeros((72, 96), np.uint8)
    ids[20:50, 10:45] = 255
    Image.fromarray(ids).save(tmp_path / "masks" / "white.png")
    ids[30:60, 60:85] = 3
    Image.fromarray(ids).save(tmp_path / "masks" / "void.png")
    report = pack(tmp_path, tmp_path / "material.safetensors")
    material = Material.load(tmp_path / "material.safetensors")

    assert () == tuple(report.skipped)
    assert np.where(ids == 255, 0, ids).tolist() == material.photo(0).ids.tolist()
    assert [0, 1] == material.photo(1).ids.unique().tolist()


def test_pack_crops_cutouts(material: Material) -> None:
    """A cut-out loses its empty margins."""
    item = next(item for item in material.items if item.name.endswith("star.webp"))
    assert (4, 25, 40) == tuple(material.cutout(item.index).shape)


def test_material_tells_drawn_from_natural(material: Material) -> None:
    """Only what lies in a folder named as drawn is drawn."""
    assert {"art"} == {item.source for item in material.items if item.drawn}
    assert {"a/pets", "a/backgrounds/walls", "film"} == {item.source for item in material.items if item.natural}


def test_material_groups_series(material: Material) -> None:
    """Frames of a video share a series, as do the views of one turning object; others have none."""
    groups: dict[int, list[str]] = {}
    for item in material.items:
        groups.setdefault(item.series, []).append(Path(item.name).stem)
    assert [4, 5, 10] == sorted(len(names) for names in groups.values())
    assert {"cat", "dog", "blue", "star", "moon"} == set(groups[-1])


def test_pack_counts_as_people_do(tmp_path: Path) -> None:
    """Frames of a video and sides of an object are packed in the order of their numbers, which need not be padded."""
    (tmp_path / "cutouts").mkdir()
    for number in range(12):
        _photo(tmp_path, str(number), colour=(250, 30, 20))
        Image.new("RGBA", (8, 8), "red").save(tmp_path / "cutouts" / f"cup_{number}.png")
    pack(tmp_path, tmp_path / "material.safetensors")
    items = Material.load(tmp_path / "material.safetensors").items

    numbers = [str(number) for number in range(12)]
    assert [f"cup_{number}" for number in numbers] == [Path(item.name).stem for item in items if item.kind == "cutout"]
    assert numbers == [Path(item.name).stem for item in items if item.kind == "video"]


def test_pack_keeps_frames_in_which_the_object_is_hidden(tmp_path: Path) -> None:
    """A video keeps its frames without an object, and clips are made of it; one that never shows an object is skipped,
    frame by frame."""
    for film, hidden in (("seen", (1, 2)), ("empty", (0, 1, 2, 3))):
        for time in range(4):
            _photo(tmp_path / film, str(time), colour=(250, 30, 20))
        for time in hidden:
            Image.new("L", (96, 72)).save(tmp_path / film / "masks" / f"{time}.png")
    report = pack(tmp_path, tmp_path / "material.safetensors")
    material = Material.load(tmp_path / "material.safetensors")

    expected = [(f"empty/images/{time}.jpg", "no frame of this video holds an object") for time in range(4)]
    assert expected == [(line.split(": ")[0], line.split(": ")[-1]) for line in report.skipped]
    assert [f"seen/images/{time}.jpg" for time in range(4)] == [item.name for item in material.items]
    assert [True, False, False, True] == [bool(material.photo(index).ids.any()) for index in range(4)]
    assert 1 <= int(ClipSource(material, ClipConfig(size=32, frames=4), RNG_SEED).clip(0).ids[0].max())


def test_pack_keeps_frames_of_void_alone(tmp_path: Path) -> None:
    """In a video a mask of 0 and 255 is one of a hidden object; where no frame has ids, white is the object."""
    for film, void in (("seen", (1, 2)), ("white", (0, 1, 2, 3))):
        for time in range(4):
            _photo(tmp_path / film, str(time), colour=(250, 30, 20))
        for time in void:
            Image.new("L", (96, 72), 255).save(tmp_path / film / "masks" / f"{time}.png")
    report = pack(tmp_path, tmp_path / "material.safetensors")
    material = Material.load(tmp_path / "material.safetensors")

    assert () == tuple(report.skipped)
    assert [True, False, False, True] == [bool(material.photo(index).ids.any()) for index in range(4)]
    assert [[1]] * 4 == [material.photo(index).ids.unique().tolist() for index in range(4, 8)]


def test_pack_skips_frames_of_another_size(tmp_path: Path) -> None:
    """A frame that is not of the size of most of its video is named, though it be the first."""
    for time in range(4):
        _photo(tmp_path, str(time), colour=(250, 30, 20))
    Image.new("RGB", (60, 60)).save(tmp_path / "images" / "0.jpg")
    Image.new("L", (60, 60), 1).save(tmp_path / "masks" / "0.png")
    report = pack(tmp_path, tmp_path / "material.safetensors")

    assert ("images/0.jpg: is 60x60 when it is shrunk, most frames of this video 96x72",) == report.skipped
    assert 3 == report.counts["video"]


def test_material_refuses_other_files(tmp_path: Path, material: Material) -> None:
    """A file that `pack` did not write, and an item of another kind, are errors."""
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(OptionError, match=r"written by stmemory\.training\.pack"):
        Material.load(tmp_path / "x.safetensors")
    background = next(item.index for item in material.items if item.kind == "background")
    with pytest.raises(OptionError, match="expected an item of kind cutout"):
        material.cutout(background)


def test_pack_refuses_an_empty_tree(tmp_path: Path) -> None:
    """A tree without a usable picture is an error."""
    with pytest.raises(OptionError, match=r"images/NAME with masks/NAME.png .*; got none of them"):
        pack(tmp_path, tmp_path / "out.safetensors")


def test_pack_says_why_nothing_is_of_use(tmp_path: Path) -> None:
    """The error has the first reasons; a mask without its picture is one."""
    _photo(tmp_path, "a", colour=(250, 30, 20))
    Image.new("L", (96, 72)).save(tmp_path / "masks" / "b.png")
    (tmp_path / "images" / "a.jpg").write_bytes(b"no")
    with pytest.raises(
        OptionError, match=r"got 2 of no use: masks/b\.png: no picture in images/; images/a\.jpg: .*cannot be read"
    ):
        pack(tmp_path, tmp_path / "out.safetensors")


def test_pack_knows_the_drawn_folders(tree: Path, tmp_path: Path) -> None:
    """A name that no folder has is an error, which says those that there are."""
    with pytest.raises(OptionError, match=r"got 'arts'; there are a, art, "):
        pack(tree, tmp_path / "out.safetensors", drawn=("art", "arts"))


def test_packed_files_can_be_read_by_others(packed: tuple[Path, PackReport], tmp_path: Path) -> None:
    """The file has the mode of any other new file."""
    (tmp_path / "any").touch()
    assert (tmp_path / "any").stat().st_mode == packed[0].stat().st_mode


def test_every_byte_of_packed_material_counts(packed: tuple[Path, PackReport], tmp_path: Path) -> None:
    """A flipped bit, wherever in the file, is refused; before, one in a picture trained on other pixels."""
    whole, rng = packed[0].read_bytes(), np.random.default_rng(0)
    damaged = tmp_path / "material.safetensors"
    for place in (*range(0, 400, 3), *rng.integers(0, len(whole), 200).tolist()):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        damaged.write_bytes(content)
        with pytest.raises(OptionError, match=r"written by stmemory\.training\.pack"):
            Material.load(damaged)


def test_material_of_earlier_versions_is_read(
    packed: tuple[Path, PackReport], material: Material, tmp_path: Path
) -> None:
    """It had neither words nor a digest; what runs compare it by is the same."""
    save_file(load_file(packed[0]), tmp_path / "old.safetensors")
    assert material.fingerprint == Material.load(tmp_path / "old.safetensors").fingerprint


@pytest.mark.parametrize("index", range(24))
def test_clip_keeps_its_promises(material: Material, index: int) -> None:
    """Every clip has its shape, and 1..max_objects objects, all of them seen in frame 0."""
    config = ClipConfig(size=64, frames=5, max_objects=2)
    clip = ClipSource(material, config, RNG_SEED).clip(index)
    assert (5, 3, 64, 64) == tuple(clip.frames.shape)
    assert (5, 64, 64) == tuple(clip.ids.shape)
    assert {torch.uint8} == {clip.frames.dtype, clip.ids.dtype}
    first = set(clip.ids[0].flatten().tolist()) - {0}
    assert first in ({1}, {1, 2})
    assert set(clip.ids.flatten().tolist()) <= first | {0}


@pytest.mark.parametrize("index", range(12))
def test_objects_of_parts_and_objects_that_come_into_view_keep_the_promises_too(material: Material, index: int) -> None:
    """With each such clip asked for, ids are those of frame 0, all of them are seen there, and the clip differs from
    one without."""
    plain = ClipConfig(size=64, frames=5, photo_base=0.0, video=0.0)
    config = dataclasses.replace(plain, composite=1.0, reveal=1.0)
    clip = ClipSource(material, config, RNG_SEED).clip(index)
    assert (5, 3, 64, 64) == tuple(clip.frames.shape)
    first, ever = set(clip.ids[0].unique().tolist()) - {0}, set(clip.ids.unique().tolist()) - {0}
    assert set(range(1, len(first) + 1)) == first and ever <= first
    assert not torch.equal(clip.frames, ClipSource(material, plain, RNG_SEED).clip(index).frames)


@pytest.mark.parametrize("frames", [1, 2, 30], ids=["one-frame", "two-frames", "longer-than-the-video"])
def test_clip_can_have_any_length(material: Material, frames: int) -> None:
    """Clips of one frame, and of more frames than the packed videos have, are made."""
    source = ClipSource(material, ClipConfig(size=32, frames=frames, video=0.5, event=1.0), RNG_SEED)
    assert {frames} == {len(source.clip(index).frames) for index in range(6)}


def test_clip_depends_on_seed_and_index_only(material: Material) -> None:
    """The same seed and index give the same clip in any order; another seed gives another clip."""
    config = ClipConfig(size=48, frames=3)
    source = ClipSource(material, config, RNG_SEED)
    forward = [source.clip(index) for index in range(4)]
    torch.manual_seed(123)
    again = ClipSource(material, config, RNG_SEED)
    for index in (3, 2, 1, 0):
        clip = again.clip(index)
        assert torch.equal(forward[index].frames, clip.frames)
        assert torch.equal(forward[index].ids, clip.ids)
    other = ClipSource(material, config, RNG_SEED + 1).clip(0)
    assert not torch.equal(forward[0].frames, other.frames)


def test_clip_leaves_global_chance_alone(material: Material) -> None:
    """Making a clip draws nothing from torch's or numpy's global generators."""
    before, numpy_before = torch.get_rng_state(), str(np.random.get_state())
    ClipSource(material, ClipConfig(size=32, frames=2), RNG_SEED).clip(0)
    assert torch.equal(before, torch.get_rng_state())
    assert numpy_before == str(np.random.get_state())


def _still(frames: int, *, centre: tuple[float, float] = (0.5, 0.5)) -> Motion:
    """No motion at all."""
    zeros = torch.zeros(frames)
    return Motion(torch.tensor([centre] * frames), zeros, zeros, zeros, torch.zeros(frames, 2, 4, 4))


def test_render_base_without_motion_is_the_photo() -> None:
    """A camera that does not move and sees all of the photo gives the photo back."""
    texture = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0))
    nodes = place_base(_still(2), View(16, 16, 32), bumps=[], shape=(32, 32), size=32)
    rendered = render_base(texture, nodes, size=32)
    torch.testing.assert_close(texture.expand(2, -1, -1, -1), rendered, atol=1e-4, rtol=0)


def test_render_base_leaves_mirrored_parts_unlabelled() -> None:
    """Outside of the photo the pixels are mirrored but the masks are 0."""
    nodes = place_base(_still(1), View(8, 8, 32), bumps=[], shape=(16, 16), size=32)
    rendered = render_base(torch.ones(4, 16, 16), nodes, size=32)
    torch.testing.assert_close(torch.ones(3, 32, 32), rendered[0, :3])
    assert 256 == int((rendered[0, 3] > 0.5).sum())
    assert 256 == int((rendered[0, 3, 8:24, 8:24] > 0.5).sum())


def test_a_camera_over_a_video_moves_pixels_and_labels_alike() -> None:
    """Without motion a video is as it was; moved by whole pixels, frames and ids move by them, and what enters is
    unlabelled."""
    frames = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(1, 5, (2, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    still = place_camera(_still(2))
    torch.testing.assert_close(frames, render_seen(frames, still), atol=1e-5, rtol=0)
    assert torch.equal(ids, render_seen(ids, still))

    moved = place_camera(_still(2).moved(torch.tensor([3 / 16, 0.0])))
    seen, labels = render_seen(frames, moved), render_seen(ids, moved)
    torch.testing.assert_close(frames[..., :-3], seen[..., 3:], atol=1e-5, rtol=0)
    assert torch.equal(ids[..., :-3], labels[..., 3:])
    assert 0 == int(labels[..., :3].sum())


def test_render_layer_moves_by_whole_pixels_exactly() -> None:
    """A layer of its own size, moved by whole pixels, is the texture at that place."""
    texture = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.5
    motion = _still(2, centre=(10 / 32, 12 / 32)).moved(torch.tensor([[0.0, 0.0], [5 / 32, 3 / 32]]))
    canvas, ids = torch.zeros(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.uint8)
    paste(canvas, ids, render_layer(texture, place_layer(motion, (4 / 32, 4 / 32), size=32)), object_id=3)
    expected_ids = torch.zeros(2, 32, 32, dtype=torch.uint8)
    expected_ids[0, 8:16, 6:14] = 3
    expected_ids[1, 11:19, 11:19] = 3
    assert torch.equal(expected_ids, ids)
    torch.testing.assert_close(texture[:3], canvas[0, :, 8:16, 6:14], atol=1e-4, rtol=0)
    torch.testing.assert_close(texture[:3], canvas[1, :, 11:19, 11:19], atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [1, 4], ids=["sharp", "motion-blur"])
def test_labels_lie_where_the_object_is_drawn(steps: int) -> None:
    """However a layer moves, its id covers exactly the pixels of which it makes up half or more."""
    rng = np.random.default_rng(3)
    for _ in range(10):
        motion = random_motion(rng, 4, centre=(0.5, 0.3), speed=4.0, elastic=0.1)
        blurred = motion.within_exposure(steps=steps, shutter=0.5) if steps > 1 else motion
        canvas, ids = torch.zeros(4, 3, 48, 48), torch.zeros(4, 48, 48, dtype=torch.uint8)
        window = render_layer(torch.ones(4, 9, 9), place_layer(blurred, (0.4, 0.2), size=48, steps=steps))
        paste(canvas, ids, window, object_id=1)
        assert torch.equal(canvas[:, 0] >= 0.5, ids == 1)


def test_hidden_objects_keep_only_what_is_seen() -> None:
    """A layer on top takes the pixels of the one below, tracked or not."""
    canvas, ids = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.uint8)
    for half, object_id in ((0.5, 1), (0.25, 2), (0.125, 0)):
        window = render_layer(torch.ones(4, 4, 4), place_layer(_still(1), (half, half), size=16))
        paste(canvas, ids, window, object_id=object_id)
    # the texture has no rim here, so that the outermost half pixel of each layer is partly covered
    assert 0 == int(ids[0, 8, 8])
    assert 2 == int(ids[0, 8, 5])
    assert 1 == int(ids[0, 8, 2])


def test_long_walks_come_back() -> None:
    """Over 1000 frames nothing goes away for good: every walk crosses its beginning again, and none gets far."""
    for seed in range(20):
        path = walk(np.random.default_rng(seed), 1000, 3)
        assert bool((path.abs() < 60).all())
        assert bool((path[200:].amin(0) < 0).all()) and bool((path[200:].amax(0) > 0).all())


def test_a_gap_leaves_frames_out() -> None:
    """A clip with a gap of 3 sees every third moment of the motion, so that things move three times as far."""
    fine = Shot(13, 1, 64).motion(np.random.default_rng(1), centre=(0.5, 0.5), speed=1.0, elastic=0.1)
    coarse = Shot(5, 3, 64).motion(np.random.default_rng(1), centre=(0.5, 0.5), speed=1.0, elastic=0.1)
    for name in ("centre", "angle", "log_scale", "shear", "elastic"):
        assert torch.equal(getattr(fine, name)[::3], getattr(coarse, name)), name


def test_gaps_make_faster_clips(material: Material) -> None:
    """With gaps up to 6 the objects of clips change more from frame to frame."""

    def change(gap: int) -> float:
        source = ClipSource(
            material, ClipConfig(size=48, frames=5, gap=gap, video=0.0, event=0.0, max_pasted=1), RNG_SEED
        )
        return sum(float((clip.ids[1:] != clip.ids[:-1]).float().mean()) for clip in map(source.clip, range(20)))

    assert change(6) > 1.3 * change(1)


def test_a_long_clip_has_several_events_inside_it() -> None:
    """Windows of events begin after the first frame; a short clip is one event as a whole."""
    rng = np.random.default_rng(0)
    assert [None] == Shot(8, 1, 64).windows(rng)
    drawn = [Shot(50, 1, 64).windows(rng) for _ in range(50)]
    assert {1, 2, 3, 4, 5} == {len(windows) for windows in drawn}
    for window in (window for windows in drawn for window in windows):
        assert window is not None
        assert 1 <= window[0] < window[0] + 4 <= window[1] < 50


def test_events_happen_in_their_windows() -> None:
    """Outside of its window an object is where it was, and what passes over it is far."""
    shift = out_and_back(30, start=(0.5, 0.2), reach=0.1, window=(10, 20))
    gone = [t for t in range(30) if float(shift[t].norm()) > 0]
    assert list(range(11, 20)) == gone
    assert pytest.approx(0.35) == float(shift[15].norm())
    centres = pass_over(np.random.default_rng(0), torch.zeros(30, 2), reach=0.4, window=(10, 20))
    near = [t for t in range(30) if float(centres[t].norm()) < 0.399]
    assert list(range(11, 20)) == near
    assert pytest.approx(0.0, abs=1e-6) == float(centres[15].norm())


@pytest.mark.parametrize("gap", [1, 4])
def test_objects_of_long_clips_leave_and_return(material: Material, gap: int) -> None:
    """In clips of 40 frames with events, objects are gone for a while, and most are seen again."""
    source = ClipSource(material, ClipConfig(size=32, frames=40, event=1.0, video=0.0, reverse=0.0, gap=gap), RNG_SEED)
    left, returned = 0, 0
    for clip in map(source.clip, range(16)):
        for number in range(1, int(clip.ids.max()) + 1):
            seen = (clip.ids == number).flatten(1).any(1)
            if not bool(seen.all()):
                left += 1
                returned += bool(seen[int((~seen).long().argmax()) :].any())
    assert left >= 8
    assert returned >= 0.6 * left


@pytest.mark.parametrize(
    "bad",
    [{"size": 8}, {"frames": 0}, {"max_objects": 0}, {"max_pasted": 0}, {"gap": 0}, {"blur": 1.5}, {"video": -0.1}],
    ids=lambda bad: next(iter(bad)),
)
def test_config_is_checked(bad: dict[str, Any]) -> None:
    """A value out of range is an error."""
    with pytest.raises(OptionError):
        ClipConfig(**bad)


def test_contact_sheet_has_a_row_per_clip(tmp_path: Path) -> None:
    """Two clips of three frames make a sheet of two rows and three columns; no clips are an error."""
    clip = Clip(torch.zeros(3, 3, 10, 10, dtype=torch.uint8), torch.zeros(3, 10, 10, dtype=torch.uint8), "")
    clip_strips([clip, clip], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (30, 20) == sheet.size
    with pytest.raises(OptionError):
        clip_strips([], tmp_path / "none.png")
