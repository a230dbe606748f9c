"""Formats: what is written comes back, whole or not at all, in memory that does not grow; bad input is told what to
do."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import CASES, FRAMES, frame_at, stem, truth_at, write_data_set
from numpy.typing import NDArray
from PIL import Image
from tiny import boxes, clip, tiny_predictor

from stmemory.cli import track as export_command
from stmemory.errors import FrameError, MaskError, OptionError, StmemoryError
from stmemory.evaluation.datasets import find_data_set
from stmemory.formats import (
    FORMATS,
    CocoWriter,
    FormatOptions,
    GifWriter,
    VolumeWriter,
    YouTubeVisWriter,
    YouTubeVosWriter,
    export,
    frame_files,
    new_writer,
    read_coco,
    read_davis,
    read_masks,
    read_object_masks,
    read_objects,
    read_volume,
    read_youtube_vis,
    read_youtube_vos,
    to_coco,
    to_label_volume,
    to_supervision,
    with_frames,
)
from stmemory.io.palette import davis_palette, write_palette_png
from stmemory.io.video import iterate_video, write_video
from stmemory.result import Segmentation

Ids = NDArray[np.int32]
HOLD_IDS = [name for name in FORMATS if FORMATS[name].read]
DRAW = [name for name in FORMATS if FORMATS[name].draws]
PALETTE = ("davis", "youtube_vos")
BYTES = (*PALETTE, "mask_video")  # ids of 1 to 254
NUMBERED = ("volume", "mask_video")  # without names
VIDEOS = ("mp4", "mov", "mov_lossless", "object_movs", "mask_video", "matte", "object_mattes")


def story(*ids: int, size: tuple[int, int] = (9, 12), frames: int = 5) -> list[Ids]:
    """The first object from frame 0, others one frame later each; all are absent in frame 3, the first comes back."""
    masks = []
    for t in range(frames):
        mask = np.zeros(size, np.int32)
        for place, object_id in enumerate(ids[: 1 if t > 3 else t + 1] if t != 3 else ()):
            mask[place % size[0] :: len(ids) + 1, (t + place) % size[1] :] = object_id
        masks.append(mask)
    return masks


def target(format: str, folder: Path) -> Path:
    """Where a format goes."""
    endings = {
        "youtube_vis": "a.json",
        "coco": "a.json",
        "coco_polygons": "a.json",
        "cvat": "a.xml",
        "label_studio": "a.json",
        "volume": "a.npy",
        "mask_video": "a.mkv",
        "mp4": "a.mp4",
        "gif": "a.gif",
        "mov": "a.mov",
        "mov_lossless": "a.mov",
        "matte": "a.mkv",
    }
    return folder / "out" / endings.get(format, "")


def write(format: str, folder: Path, masks: list[Ids], names: list[str] | None = None) -> Path:
    """Write masks, over grey frames where frames are drawn."""
    path = target(format, folder)
    with new_writer(format, path) as out:
        for t, ids in enumerate(masks):
            frame = np.full((*ids.shape, 3), 40 + t, np.uint8) if FORMATS[format].draws else None
            out.add(ids, name=names[t] if names else None, frame=frame)
    return path


def files_in(folder: Path) -> list[str]:
    """All files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Trip:
    """Masks that go out and come back."""

    ids: tuple[int, ...]
    size: tuple[int, int] = (9, 12)


TRIPS = {
    "odd": Trip((7, 254, 3)),
    "one": Trip((1,)),
    "large": Trip((300, 7, 2_000_000_000)),
    "void": Trip((255, 7)),
    "pixel": Trip((7,), (1, 1)),
    "row": Trip((7, 9), (1, 5)),
}


HELD = [(name, trip) for name in HOLD_IDS for trip in TRIPS if name not in BYTES or max(TRIPS[trip].ids) < 255]


@pytest.mark.parametrize(
    ("format", "trip"), [(name, TRIPS[trip]) for name, trip in HELD], ids=[f"{name}-{trip}" for name, trip in HELD]
)
def test_round_trip(format: str, trip: Trip, tmp_path: Path) -> None:
    """Ids, names and sizes come back as they went, those of objects that enter late, leave or return too."""
    if format == "mask_video" and trip.size[0] == 1 and int(pytest.importorskip("av").__version__.split(".")[0]) < 13:
        pytest.skip("the FFmpeg of PyAV 12 reads a video of one row as black, see docs/pages/limits.md")
    masks, names = story(*trip.ids, size=trip.size), [f"shot {t + 8}" for t in range(5)]
    found = list(read_masks(write(format, tmp_path, masks, names)))

    assert (names if format not in NUMBERED else [f"{t:05d}" for t in range(5)]) == [name for name, _ in found]
    for expected, (_, ids) in zip(masks, found, strict=True):
        assert np.int32 == ids.dtype
        assert np.array_equal(expected, ids)


@pytest.mark.parametrize("format", [name for name in HOLD_IDS if name != "objects"])
def test_frames_without_objects_come_back(format: str, tmp_path: Path) -> None:
    """A video of background alone, and one frame alone, are videos."""
    empty = np.zeros((4, 6), np.int32)
    found = list(read_masks(write(format, tmp_path, [empty])))

    assert [("00000", [])] == [(name, ids[ids > 0].tolist()) for name, ids in found]


def test_volumes_are_numbered(tmp_path: Path) -> None:
    """A volume has no names, so numbers come back; numpy opens the file with its length, unread."""
    path = write("volume", tmp_path, story(7, 300), ["a", "b", "c", "d", "e"])
    volume = np.load(path, mmap_mode="r")

    assert (5, 9, 12) == volume.shape
    assert np.array_equal(to_label_volume(story(7, 300)), volume)
    assert [f"{t:05d}" for t in range(5)] == [name for name, _ in read_volume(path)]
    assert np.array_equal(story(7, 300)[2], list(read_volume(volume))[2][1])


@pytest.mark.parametrize("format", BYTES)
@pytest.mark.parametrize("object_id", [255, 300])
def test_palettes_refuse_ids_that_they_cannot_hold(format: str, object_id: int, tmp_path: Path) -> None:
    """255 is void in a palette, and 300 no byte; the error names formats that hold them."""
    with pytest.raises(MaskError, match=f"got {object_id}.*youtube_vis or volume"):
        write(format, tmp_path, story(object_id))


@pytest.mark.parametrize("format", FORMATS)
def test_writers_refuse_what_cannot_be(format: str, tmp_path: Path) -> None:
    """Another size, no ids, a bad name, a frame of another size or none: errors; what was written before stays
    right."""
    good, frame = story(7)[0], np.zeros((9, 12, 3), np.uint8)
    path = target(format, tmp_path)
    with new_writer(format, path) as out:
        out.add(good, frame=frame)
        for masks, error, words in (
            (np.zeros((9, 13), np.int32), FrameError, r"size of those before, \(9, 12\)"),
            (np.zeros((9, 12)), MaskError, "integer ids"),
            (-good, MaskError, "0 is background"),
            (np.zeros((2, 9, 12), np.int32), MaskError, "integer ids"),
        ):
            with pytest.raises(error, match=words):
                out.add(masks, frame=frame)
        with pytest.raises(OptionError, match="name of one file"):
            out.add(good, name="../up", frame=frame)
        if FORMATS[format].draws:
            with pytest.raises(FrameError, match="frame=frame"):
                out.add(good)
            with pytest.raises(FrameError, match="of the masks' size"):
                out.add(good, frame=np.zeros((8, 12, 3), np.uint8))
    with pytest.raises(OptionError, match="closed"):
        out.add(good, frame=frame)

    assert 1 == out.count
    assert path.exists()


@pytest.mark.parametrize(
    "format", [name for name in FORMATS if "cutouts" in name or name in ("davis", "objects", "youtube_vos")]
)
def test_folders_are_new_and_names_different(format: str, tmp_path: Path) -> None:
    """Masks of another run are neither mixed in nor replaced, and no frame replaces another of its name."""
    path = write(format, tmp_path, story(7))
    with pytest.raises(OptionError, match="new folder or an empty one"):
        new_writer(format, path)
    with new_writer(format, tmp_path / "other") as out:
        out.add(story(7)[0], name="a", frame=np.zeros((9, 12, 3), np.uint8))
        with pytest.raises(OptionError, match="twice"):
            out.add(story(7)[0], name="a", frame=np.zeros((9, 12, 3), np.uint8))
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="file"):
        new_writer(format, tmp_path / "file" if format != "youtube_vos" else path)


@pytest.mark.parametrize(
    "format",
    ["youtube_vis", "coco", "label_studio", "volume", "mask_video", "mp4", "gif", "mov", "mov_lossless", "matte"],
)
def test_files_are_whole_or_as_before(format: str, tmp_path: Path) -> None:
    """An interruption leaves the old file and nothing else; the end replaces it."""
    path = target(format, tmp_path)
    path.parent.mkdir()
    with pytest.raises(OptionError, match="got a folder; name a file in it"):
        new_writer(format, path.parent)
    with pytest.raises(OptionError, match=f"ends in .*{path.suffix}"):
        new_writer(format, path.with_suffix(".masks"))
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), new_writer(format, path) as out:
        out.add(story(7)[0], frame=np.zeros((9, 12, 3), np.uint8))
        raise KeyboardInterrupt

    assert [path.name] == files_in(path.parent)
    assert "old" == path.read_text()
    write(format, tmp_path, story(7))
    assert [path.name] == files_in(path.parent)
    assert b"old" != path.read_bytes()


def test_interrupted_folders_keep_what_is_whole(tmp_path: Path) -> None:
    """The masks that were done stay; the list of a video that was not finished, and temporary files, do not appear."""
    with pytest.raises(KeyboardInterrupt), YouTubeVosWriter(tmp_path, video="walk") as out:
        out.add(story(7)[0])
        raise KeyboardInterrupt

    assert ["Annotations/walk/00000.png"] == files_in(tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_no_frame_makes_no_file(format: str, tmp_path: Path) -> None:
    """Closing a writer that was given nothing is an error, and leaves no file."""
    with pytest.raises(FrameError, match="at least one frame"), new_writer(format, target(format, tmp_path)):
        pass

    assert [] == files_in(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("format", [name for name in FORMATS if name not in VIDEOS])  # what an encoder holds is its own
def test_memory_does_not_grow(format: str, tmp_path: Path) -> None:
    """A writer of 160 frames holds no more at its highest than one of 40."""
    ids = np.random.default_rng(0).choice(
        np.array([0, 7, 254], np.int32), (64, 80)
    )  # noise, so that codes of runs are long
    frame = np.zeros((64, 80, 3), np.uint8)

    def peak(frames: int, path: Path) -> int:
        gc.collect()
        tracemalloc.start()
        try:
            with GifWriter(path, most_frames=8) if format == "gif" else new_writer(format, path) as out:
                for _ in range(frames):
                    out.add(ids, frame=frame)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(3, target(format, tmp_path / "warm-up"))
    few, many = peak(40, target(format, tmp_path / "few")), peak(160, target(format, tmp_path / "many"))

    assert many < few + 150_000  # the codes of 120 frames take 550 000 bytes, their ids 2.4 million


def test_results_are_written_as_they_come(tmp_path: Path) -> None:
    """Results of a predictor go into every format under their frame's number, and what is read starts another video."""
    frames, mask = clip(3), boxes(7, 200)
    writers = {name: new_writer(name, target(name, tmp_path / name)) for name in FORMATS}
    for frame, result in zip(frames, tiny_predictor().track(frames, mask), strict=True):
        for writer in writers.values():
            writer.add(result, frame=frame)
    for writer in writers.values():
        writer.close()
    for name in HOLD_IDS:
        found = dict(read_masks(target(name, tmp_path / name)))
        assert ["00000", "00001", "00002"] == list(found)
        assert (7, 200) == tiny_predictor().start(frames[0], found["00000"]).last.object_ids


def test_davis_files_are_palette_pngs(tmp_path: Path) -> None:
    """Mode P in the DAVIS colours; void is read as background, a black and white mask as object 1."""
    write("davis", tmp_path, story(7)[:1])
    with Image.open(tmp_path / "out" / "00000.png") as image:
        assert ("P", davis_palette()) == (image.mode, bytes(image.getpalette() or []))
    (tmp_path / "read").mkdir()
    write_palette_png(tmp_path / "read" / "0.png", np.array([[0, 7, 255]]))
    Image.fromarray(np.array([[0, 255, 255]], np.uint8)).save(tmp_path / "read" / "1.png")

    assert [[[0, 7, 0]], [[0, 1, 1]]] == [ids.tolist() for _, ids in read_davis(tmp_path / "read")]


def test_objects_have_folders(tmp_path: Path) -> None:
    """A folder for each object, with a mask in each frame from its first on, empty ones too."""
    write("objects", tmp_path, story(7, 1234))

    assert [f"007/{t:05d}.png" for t in range(5)] + [f"1234/{t:05d}.png" for t in range(1, 5)] == files_in(
        tmp_path / "out"
    )


def test_objects_may_overlap(tmp_path: Path) -> None:
    """The highest id is on top; apart, each object is whole; any value but 0 is the object, in palettes too."""
    for object_id, row, mode in ((2, [1, 1, 0], "P"), (10, [0, 255, 255], "L")):
        (tmp_path / f"{object_id:03d}").mkdir()
        Image.fromarray(np.array([row], np.uint8)).convert(mode).save(tmp_path / f"{object_id:03d}" / "00000.png")

    assert [("00000", [[2, 10, 10]])] == [(name, ids.tolist()) for name, ids in read_objects(tmp_path)]
    ((_, apart),) = read_object_masks(tmp_path)
    assert {2: [[True, True, False]], 10: [[False, True, True]]} == {
        object_id: mask.tolist() for object_id, mask in apart.items()
    }


def test_youtube_vos_lists_frames(tmp_path: Path) -> None:
    """`meta.json` lists the frames that show an object; videos join those that are there."""
    for video in ("walk", "run", "walk 2"):
        with YouTubeVosWriter(tmp_path, video=video, categories={7: "dog"}) as out:
            for ids in story(9, 7):
                out.add(ids)
    objects = {
        "7": {"category": "dog", "frames": ["00001", "00002"]},
        "9": {"category": "object", "frames": ["00000", "00001", "00002", "00004"]},
    }

    assert {"videos": {key: {"objects": objects} for key in ("walk", "run", "walk 2")}} == json.loads(
        (tmp_path / "meta.json").read_text()
    )
    assert 5 == len(list(read_youtube_vos(tmp_path, video="run")))
    with pytest.raises(OptionError, match="run, walk, walk 2.*got None"):
        read_youtube_vos(tmp_path)


def test_youtube_vos_is_what_evaluation_reads(tmp_path: Path) -> None:
    """Written masks are a data set: the same objects count in the same frames as in one made by hand."""
    case = next(case for case in CASES if case.name == "youtube2019" and case.split == "train")
    write_data_set(case, tmp_path / "theirs")
    (tmp_path / "ours" / "train" / "JPEGImages").mkdir(parents=True)
    (tmp_path / "theirs" / "train" / "JPEGImages" / "walk").rename(tmp_path / "ours" / "train" / "JPEGImages" / "walk")
    with YouTubeVosWriter(tmp_path / "ours" / "train", video="walk") as out:
        for index in range(0, FRAMES, 5):
            out.add(truth_at(index), name=stem(case, index))
    (found,) = find_data_set("youtube2019", tmp_path / "ours", split="train")

    assert {1: (0, 5, 10), 2: (5, 10)} == found.listed
    assert frozenset((0, 5, 10)) == found.asked


def test_youtube_vis_has_nulls_where_objects_are_absent(tmp_path: Path) -> None:
    """One annotation an object, its id the user's; a segmentation, a box and an area for each frame, or null."""
    document = json.loads(write("youtube_vis", tmp_path, story(300, 7)).read_text())
    (video,) = document["videos"]
    seven, other = document["annotations"]

    assert (5, 9, 12) == (video["length"], video["height"], video["width"])
    assert [f"video/{t:05d}.jpg" for t in range(5)] == video["file_names"]
    assert (7, 300) == (seven["id"], other["id"])
    for key in ("segmentations", "bboxes", "areas"):
        assert [t in (1, 2) for t in range(5)] == [value is not None for value in seven[key]]
        assert [t != 3 for t in range(5)] == [value is not None for value in other[key]]
    ids = story(300, 7)[2]
    rows, columns = np.nonzero(ids == 7)
    assert [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1] == seven["bboxes"][2]
    assert (ids == 7).sum() == seven["areas"][2]


def test_youtube_vis_of_others_is_read(tmp_path: Path) -> None:
    """Plain run lengths, several videos in a file, and overlaps, where the highest id is on top."""
    rows = [{"size": [1, 3], "counts": [0, 2, 1]}, {"size": [1, 3], "counts": [1, 2]}]
    document = {
        "videos": [{"id": n, "height": 1, "width": 3, "file_names": [f"clip{n}/0.jpg"]} for n in (1, 2)],
        "annotations": [{"id": 5 + n, "video_id": 2, "segmentations": [row]} for n, row in enumerate(rows)],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))

    assert [("0", [[5, 6, 6]])] == [(name, ids.tolist()) for name, ids in read_youtube_vis(path, video="clip2")]
    assert [("0", [[0, 0, 0]])] == [(name, ids.tolist()) for name, ids in read_youtube_vis(path, video="clip1")]
    with pytest.raises(OptionError, match="clip1, clip2"):
        read_youtube_vis(path)
    for video in document["videos"]:
        video["file_names"] = ["0.jpg"]
    path.write_text(json.dumps(document))
    assert [[5, 6, 6]] == next(read_youtube_vis(path, video="2"))[1].tolist()


def test_coco_reads_annotations_without_tracks(tmp_path: Path) -> None:
    """Where there is no `track_id`, the annotation's id is the object's; what is neither an RLE nor polygons is
    refused."""
    image = {"id": 4, "file_name": "shots/a.png", "height": 1, "width": 2}
    annotation = {"id": 9, "image_id": 4, "category_id": 1, "segmentation": {"size": [1, 2], "counts": [1, 1]}}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    assert [("a", [[0, 9]])] == [(name, ids.tolist()) for name, ids in read_coco(path)]
    path.write_text(json.dumps({"images": [image], "annotations": [annotation | {"segmentation": "11"}]}))
    with pytest.raises(MaskError, match="an RLE, or polygons"):
        list(read_coco(path))


def test_coco_files_load_in_pycocotools(tmp_path: Path) -> None:
    """Its API reads the file, and gives the masks."""
    pycocotools = pytest.importorskip("pycocotools.coco", reason="reads with pycocotools")
    masks = story(7, 300)
    coco = pycocotools.COCO(write("coco", tmp_path, masks))
    for t, ids in enumerate(masks):
        found = coco.loadAnns(coco.getAnnIds(imgIds=[t + 1]))
        assert sorted(set(ids[ids > 0].tolist())) == sorted(each["track_id"] for each in found)
        for each in found:
            with pytest.warns(DeprecationWarning, match="__array__"):  # pycocotools 2.0.11 with numpy 2
                assert np.array_equal(ids == each["track_id"], coco.annToMask(each))


def segmentation(ids: Ids, *, known: tuple[int, ...] = ()) -> Segmentation:
    """A result that is sure of `ids` by 0.75, and tracks `known` as well."""
    object_ids = tuple(sorted({*known, *(int(i) for i in np.unique(ids) if i)}))
    present = {i: bool((ids == i).any()) for i in object_ids}
    return Segmentation(
        4, torch.from_numpy(ids), torch.empty(0), object_ids, {i: 0.75 * present[i] for i in object_ids}, present
    )


def test_to_coco_lists_present_objects() -> None:
    """One annotation for each object that is seen, none for one that is not."""
    ids = np.array([[0, 300], [7, 300]], np.int32)
    found = segmentation(ids, known=(9,)).to_coco()

    assert [7, 300] == [each["track_id"] for each in found]
    assert {"size": [2, 2], "counts": "22"} == found[1]["segmentation"]
    assert ([1, 0, 1, 2], 2, 0.75, 4, 0) == tuple(
        found[1][key] for key in ("bbox", "area", "score", "image_id", "iscrowd")
    )
    assert [] == to_coco(segmentation(np.zeros((2, 2), np.int32), known=(9,)))


def test_to_supervision_has_a_row_for_each_present_object() -> None:
    """Boxes, masks, scores, names and ids of those that are seen; supervision annotates with them; none is none."""
    sv = pytest.importorskip("supervision", reason="makes supervision's detections")
    ids = np.zeros((20, 30), np.int32)
    ids[4:9, 10:20], ids[12:15, 3:5] = 300, 7
    found = segmentation(ids, known=(9,)).to_supervision(names={300: "dog", 9: "cat"})

    assert [7, 300] == found.tracker_id.tolist()
    assert [[3, 12, 4, 14], [10, 4, 19, 8]] == found.xyxy.tolist()
    assert [0.75, 0.75] == found.confidence.tolist()
    assert (["object", "dog"], [2, 1]) == (found.data["class_name"].tolist(), found.class_id.tolist())
    assert np.array_equal(found.mask, np.stack([ids == 7, ids == 300]))
    picture = sv.MaskAnnotator(color_lookup=sv.ColorLookup.TRACK).annotate(np.zeros((20, 30, 3), np.uint8), found)
    assert np.array_equal(ids > 0, picture.any(axis=2))
    nothing = to_supervision(segmentation(np.zeros((2, 2), np.int32), known=(9,)))
    assert 0 == len(nothing)


def test_supervision_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without supervision the error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(OptionError, match="pip install"):
        segmentation(np.ones((1, 1), np.int32)).to_supervision()


def test_a_gif_is_bounded(tmp_path: Path) -> None:
    """However many frames come, few stay; they cover the whole video, in the time that it takes."""
    with GifWriter(tmp_path / "a.gif", rate=10, longest_side=20, most_frames=8) as out:
        for t in range(45):
            out.add(np.zeros((30, 40), np.int32), frame=np.full((30, 40, 3), 5 * t, np.uint8))
    with Image.open(tmp_path / "a.gif") as image:
        shown = []
        for page in range(image.n_frames):
            image.seek(page)
            shown.append((image.convert("RGB").getpixel((0, 0))[0], image.info["duration"], image.size))

    assert [(5 * t, 800, (20, 15)) for t in range(0, 45, 8)] == shown


@pytest.mark.parametrize("size", [(16, 32), (33, 47), (1, 1)], ids=["even", "odd", "one pixel"])
def test_overlay_and_transparent_videos(size: tuple[int, int], tmp_path: Path) -> None:
    """An MP4 has each frame; a ProRes `.mov` keeps colours and transparency."""
    av = pytest.importorskip("av", reason="writes videos")
    ids = np.zeros(size, np.int32)
    ids[: size[0] // 2 + 1, : size[1] // 2 + 1] = 7
    frame = np.full((*size, 3), (200, 90, 30), np.uint8)
    for format in ("mp4", "mov"):
        with new_writer(format, tmp_path / f"a.{format}", options=FormatOptions(rate=10)) as out:
            for _ in range(3):
                out.add(ids, frame=frame)

    assert 3 == len(list(iterate_video(tmp_path / "a.mp4")))
    with av.open(str(tmp_path / "a.mov")) as container:
        found = list(container.decode(video=0))
    rgba = found[1].to_ndarray(format="rgba")[: size[0], : size[1]]
    assert ("yuva444p", 3) == (found[0].format.name[:8], len(found))
    assert np.array_equal(ids > 0, rgba[..., 3] >= 128)
    assert np.abs(rgba[..., :3].astype(int) - frame).max() <= 6


def test_cutouts_hold_objects_alone(tmp_path: Path) -> None:
    """The frame's pixels inside, nothing outside; by object, only frames that show it have a file."""
    masks = story(7, 9)
    for format in ("cutouts", "object_cutouts"):
        write(format, tmp_path / format, masks)
    whole, apart = (files_in(tmp_path / format / "out") for format in ("cutouts", "object_cutouts"))

    assert [f"{t:05d}.png" for t in range(5)] == whole
    assert [f"007/{t:05d}.png" for t in (0, 1, 2, 4)] + [f"009/{t:05d}.png" for t in (1, 2)] == apart
    with Image.open(tmp_path / "object_cutouts" / "out" / "009" / "00002.png") as image:
        rgba = np.array(image)
    assert np.array_equal(rgba, np.where((masks[2] == 9)[..., None], np.array([42, 42, 42, 255]), 0))


def test_volume_types(tmp_path: Path) -> None:
    """A small type is kept, and ids that it cannot hold are refused; unknown types too."""
    with VolumeWriter(tmp_path / "a.npy", dtype="uint8") as out:
        out.add(np.array([[255]]))
        with pytest.raises(MaskError, match='uint8 holds ids up to 255, got 300; pass dtype="int32"'):
            out.add(np.array([[300]]))
    assert np.uint8 == np.load(tmp_path / "a.npy").dtype
    assert [255] == [int(ids[0, 0]) for _, ids in read_volume(tmp_path / "a.npy")]
    with pytest.raises(OptionError, match="dtype"):
        VolumeWriter(tmp_path / "b.npy", dtype="float32")


def test_label_volumes_need_frames_of_one_size() -> None:
    """No results, or another size, are errors."""
    with pytest.raises(FrameError, match="at least one"):
        to_label_volume([])
    with pytest.raises(FrameError, match="frame 1"):
        to_label_volume([np.zeros((1, 2), np.int32), np.zeros((2, 1), np.int32)])


BROKEN = {
    "a.npy": b"no array",
    "a.json": b"{",
    "list.json": b"[1]",
    "images.json": b'{"images": 3, "annotations": []}',
    "video.json": b'{"videos": [{"id": 1}], "annotations": []}',
    "a.txt": b"",
    "folder/notes.txt": b"",
    "damaged/0.png": b"no png",
    "objects/001/0.png": b"no png",
    "none": None,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_sources_are_named(name: str, tmp_path: Path) -> None:
    """What cannot be read is an error with its path."""
    content = BROKEN[name]
    if content is not None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    path = tmp_path / name.split("/")[0]
    with pytest.raises(StmemoryError, match=path.name) as told:
        list(read_masks(path))
    assert "unsafely" not in str(told.value)  # numpy's advice for what is no array


@pytest.mark.parametrize("format", ["davis", "objects"])
def test_masks_that_change_their_size_are_refused(format: str, tmp_path: Path) -> None:
    """The error names the file."""
    path = write(format, tmp_path, story(7))
    file = sorted(path.rglob("00003.png"))[0]
    Image.new("L", (3, 3)).save(file)
    with pytest.raises(FrameError, match="00003.png.*nearest"):
        list(read_masks(path))


def named(*names: str) -> Iterator[tuple[str, Ids]]:
    """Masks by name."""
    return ((name, np.zeros((2, 3), np.int32)) for name in names)


def test_masks_find_their_frames(tmp_path: Path) -> None:
    """By name in a folder, else by number, else in order; a mask without a frame is an error."""
    for t in range(4):
        Image.new("RGB", (3, 2), (t, t, t)).save(tmp_path / f"shot{t}.png")
    pictures = [np.full((2, 3, 3), t, np.uint8) for t in range(4)]

    assert ["shot3.png", "shot1.png"] == [
        Path(str(frame)).name for _, _, frame in with_frames(named("shot3", "shot1"), tmp_path)
    ]
    for masks, frames, expected in (
        (("00001", "00003"), pictures, [1, 3]),
        (("00001", "00003"), tmp_path, [1, 3]),
        (("a", "b"), pictures, [0, 1]),
    ):
        assert expected == [round(float(frame[0, 0, 0]) * 255) for _, _, frame in with_frames(named(*masks), frames)]
    for masks, frames, words in (
        (("shot1", "shot9"), tmp_path, "a frame shot9"),
        (("00004",), pictures, "mask 00004, got only 4"),
        (("00002", "00001"), pictures, "in the order"),
    ):
        with pytest.raises(FrameError, match=words):
            list(with_frames(named(*masks), frames))


@pytest.mark.parametrize("source", HOLD_IDS)
@pytest.mark.parametrize("to", FORMATS)
def test_export_from_each_to_each(source: str, to: str, tmp_path: Path) -> None:
    """Every format that holds ids becomes every other, with frames where they are drawn."""
    masks = story(7, 254)
    start = write(source, tmp_path / "start", masks)
    seen: list[int] = []
    frames = [np.zeros((9, 12, 3), np.uint8)] * 5 if to in DRAW else None
    count = export(read_masks(start), target(to, tmp_path), format=to, frames=frames, on_frame=seen.append)

    assert (5, [1, 2, 3, 4, 5]) == (count, seen)
    if to in HOLD_IDS:
        assert [ids.tolist() for ids in masks] == [ids.tolist() for _, ids in read_masks(target(to, tmp_path))]


def test_export_needs_frames_to_draw(tmp_path: Path) -> None:
    """The error says how to pass them, and nothing is made."""
    with pytest.raises(FrameError, match="frames=CLIP"):
        export(named("0"), tmp_path / "out", format="cutouts")
    with pytest.raises(OptionError, match="which is for looking at"):
        read_masks(tmp_path, format="gif")
    assert [] == list(tmp_path.iterdir())


def test_the_command_exports_what_track_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder of `stmemory track` becomes any format; a second time into the same folder is refused."""
    from stmemory.cli import main

    write_video(tmp_path / "clip.mp4", [frame_at(t) for t in range(4)], rate=5)
    (tmp_path / "run" / "masks").mkdir(parents=True)
    (tmp_path / "run" / "job.json").write_text("{}")
    for t in range(4):
        write_palette_png(tmp_path / "run" / "masks" / f"{t:05d}.png", truth_at(t))
    arguments = ["export", str(tmp_path / "run"), "-o"]

    assert 0 == main([*arguments, str(tmp_path / "objects"), "--to", "objects"])
    assert f"4 frames in {tmp_path / 'objects'}" in capsys.readouterr().out
    assert [f"001/{t:05d}.png" for t in range(4)] == files_in(tmp_path / "objects")
    assert 2 == main([*arguments, str(tmp_path / "objects"), "--to", "objects"])
    assert 2 == main([*arguments, str(tmp_path / "a.gif"), "--to", "gif"])
    assert 0 == main([*arguments, str(tmp_path / "a.gif"), "--to", "gif", "--frames", str(tmp_path / "clip.mp4")])
    with Image.open(tmp_path / "a.gif") as image:
        assert (4, 200) == (image.n_frames, image.info["duration"])  # the clip's own rate
    assert 0 == main([*arguments, str(tmp_path / "a.json"), "--to", "youtube_vis", "--video", "walk"])
    assert truth_at(3).tolist() == list(read_youtube_vis(tmp_path / "a.json", video="walk"))[3][1].tolist()
    assert tuple(FORMATS) == export_command._NAMES


@pytest.mark.parametrize("writer", [CocoWriter, YouTubeVisWriter], ids=["coco", "youtube_vis"])
def test_a_json_names_the_files_of_the_frames(writer: type[CocoWriter], tmp_path: Path) -> None:
    """A frame's file is called as it is where that is known, and NAME.jpg else."""
    with writer(tmp_path / "a.json", file_names={"00000": "00000.png"}) as out:
        for _ in range(2):
            out.add(np.array([[0, 7]]))
    text = (tmp_path / "a.json").read_text()
    assert "00000.png" in text and "00001.jpg" in text and "00000.jpg" not in text


@pytest.mark.parametrize("format", ["youtube_vis", "coco", "coco_polygons", "label_studio"])
def test_an_export_names_the_files_of_a_folder_of_frames(format: str, tmp_path: Path) -> None:
    """All formats of JSON take the names of files from `--frames`."""
    from stmemory.cli import main

    for folder in ("frames", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "frames" / "walk.bmp")
    mask = Image.new("P", (4, 3), 1)
    mask.putpalette(davis_palette())
    mask.save(tmp_path / "masks" / "walk.png")
    out, frames = tmp_path / "a.json", str(tmp_path / "frames")
    assert 0 == main(["export", str(tmp_path / "masks"), "-o", str(out), "--to", format, "--frames", frames])
    assert "walk.bmp" in out.read_text() and "walk.jpg" not in out.read_text()


def test_the_record_of_a_run_tells_the_files_of_its_frames(tmp_path: Path) -> None:
    """Names come from the record of a job; what is no plain name is left out, and a record that cannot be read tells
    nothing."""
    (tmp_path / "masks").mkdir()
    record = tmp_path / "job.json"
    for content, expected in (
        (
            {"frame_files": ["a.png", "b.JPG", "../c.png", "/d.png", "e\\f.png", "g", 7, "h\0.png"]},
            {"a": "a.png", "b": "b.JPG"},
        ),
        ({"frame_files": "a.png"}, {}),
        ([], {}),
    ):
        record.write_text(json.dumps(content))
        assert expected == frame_files(tmp_path)
    record.write_text("[" * 100_000)
    assert {} == frame_files(tmp_path)
    assert {} == frame_files(tmp_path / "masks")
