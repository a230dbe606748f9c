"""What data sets, records and folders of results may say: no name leads elsewhere, nothing of others is deleted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_untrusted import HOSTILE

from stmemory import FusionCell
from stmemory.errors import FrameError, MaskError, OptionError, WeightsError
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.datasets import find_data_set
from stmemory.evaluation.run import Evaluation, run_evaluation
from stmemory.evaluation.run_folder import RunFolder
from stmemory.evaluation.workers import Setup
from stmemory.formats import CocoWriter, DavisWriter, YouTubeVosWriter, read_coco, read_masks
from stmemory.io.run_folder import held
from stmemory.memory.policy import LearnedPolicy
from stmemory.options import TrackingOptions
from stmemory.training.config import TrainingConfig
from stmemory.training.data.folders import open_folder
from stmemory.training.data.material import Material, pack
from stmemory.training.run_state import Journal, find_start, write_state
from stmemory.weights import load_part, save_part
from stmemory.weights.tensors import load_policy, save_policy

IN_JSON = [name for name in HOSTILE.values() if "\ud800" not in name]
IN_LISTS = ["..", ".", "../..", "C:x", "..\\x", "a" * 256]  # one word of a line


def write(path: Path, content: object) -> Path:
    """Write text, or JSON, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def picture(path: Path) -> Path:
    """Write a small mask, or the same as a frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.zeros((32, 48), np.uint8)
    ids[4:28, 4:28] = 1
    Image.fromarray(ids).save(path)
    return path


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file of the user's beside what commands work on."""
    return write(tmp_path / "precious" / "photo.txt", "years of work")


@pytest.mark.parametrize("name", IN_JSON)
@pytest.mark.parametrize(("data_set", "place"), [("youtube2019", "valid/meta.json"), ("lvos1", "val/val_meta.json")])
def test_a_video_is_called_by_one_name(data_set: str, place: str, name: str, tmp_path: Path) -> None:
    """A `meta.json` that names a video otherwise is refused, and the message names the file."""
    file = write(tmp_path / place, {"videos": {"walk": {"objects": {}}, name: {"objects": {"1": {"frames": []}}}}})
    picture(file.parent / "JPEGImages" / "walk" / "00000.png")
    with pytest.raises(OptionError, match="meta.json: a clip: expected the name of one file"):
        find_data_set(data_set, tmp_path)


@pytest.mark.parametrize("line", ["../x", "/JPEGImages/480p/../00000.jpg", *IN_LISTS])
def test_a_list_of_davis_names_clips_alone(line: str, tmp_path: Path) -> None:
    """To measure on, each line is a clip, or a file of one."""
    write(tmp_path / "ImageSets" / "2017" / "val.txt", f"walk\n{line}\n")
    picture(tmp_path / "JPEGImages" / "480p" / "walk" / "00000.png")
    with pytest.raises(OptionError, match="val.txt: a clip: expected the name of one file"):
        find_data_set("davis2017", tmp_path)


@pytest.mark.parametrize("line", ["../x", "/etc/x", *IN_LISTS])
@pytest.mark.parametrize(("layout", "place"), [("davis", "ImageSets/2017/train.txt"), ("sbd", "train.txt")])
def test_a_list_to_learn_from_names_pictures_alone(layout: str, place: str, line: str, tmp_path: Path) -> None:
    """A name that leads elsewhere is refused."""
    write(tmp_path / place, f"walk\n{line}\n")
    with pytest.raises(OptionError, match="train.txt: a name: expected the name of one file"):
        open_folder(tmp_path, layout=layout)


@pytest.mark.parametrize("name", ["/etc/0.png", "../0.png", "a/../../0.png", "a\\0.png", "\0", None, 3])
def test_a_list_of_coco_names_pictures_below_its_folder(name: object, tmp_path: Path) -> None:
    """Folders in it are fine, others are not."""
    picture(tmp_path / "train2017" / "a" / "0.png")
    image = {"id": 1, "file_name": "a/0.png", "height": 32, "width": 48}
    box = {"id": 1, "image_id": 1, "area": 576, "segmentation": [[4, 4, 28, 4, 28, 28]]}
    write(tmp_path / "annotations" / "instances_train2017.json", {"images": [image], "annotations": [box]})
    assert 1 == len(open_folder(tmp_path, layout="coco").items)
    write(
        tmp_path / "annotations" / "instances_train2017.json",
        {"images": [{**image, "file_name": name}], "annotations": [box]},
    )
    with pytest.raises(OptionError, match="file_name: expected a path below"):
        open_folder(tmp_path, layout="coco")


@pytest.mark.parametrize("polygon", [["a"] * 6, [None] * 6, [[1, 2]] * 6, [{}] * 6])
def test_polygons_are_numbers(polygon: list[object], tmp_path: Path) -> None:
    """One of something else is told with its picture."""
    picture(tmp_path / "train2017" / "0.png")
    image = {"id": 1, "file_name": "0.png", "height": 32, "width": 48}
    box = {"id": 1, "image_id": 1, "area": 576, "segmentation": [polygon]}
    write(tmp_path / "annotations" / "instances_train2017.json", {"images": [image], "annotations": [box]})
    with pytest.raises(MaskError, match="0.png: expected polygons of numbers"):
        open_folder(tmp_path, layout="coco").photo(0)


def run_of(path: Path, *clips: object) -> RunFolder:
    """An evaluation's folder with masks of two clips, whose record names some."""
    for name in ("walk", "dog"):
        picture(path / "Annotations" / name / "00000.png")
        write(path / "clips" / f"{name}.json", "{}")
    write(path / "run.json", {"format": "stmemory.evaluation 1", "clips": list(clips)})
    return RunFolder(path)


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
@pytest.mark.parametrize("name", [*IN_JSON, "../../precious", None, 3, ["walk"]])
def test_a_record_that_names_no_clips_lets_nothing_be_deleted(
    name: object, force: bool, tmp_path: Path, precious: Path
) -> None:
    """It is none of a run, so that all that lies there is somebody's."""
    folder = run_of(tmp_path / "out", "walk", name)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OptionError, match="even force=True does not delete it"):
        folder.begin({"clips": ["walk"]}, resume=False, force=force)

    assert before == sorted(tmp_path.rglob("*"))
    assert precious.exists()


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_clip_that_cannot_be_a_folder_is_not_evaluated(name: str, tmp_path: Path) -> None:
    """Wherever its name came from; nothing is made."""
    folder = RunFolder(tmp_path / "out")
    for begin in (folder.check, folder.begin):
        with pytest.raises(OptionError, match="clip: expected the name of one file"):
            begin({"clips": [name]}, resume=False, force=True)
    for place in (folder.masks_of, folder.clear):
        with pytest.raises(OptionError, match="expected"):
            place(name)

    assert not folder.path.exists()


@pytest.mark.parametrize("place", ["Annotations", "Annotations/walk", "clips", "page", "report.json"])
def test_links_in_a_results_folder_are_not_followed(place: str, tmp_path: Path, precious: Path) -> None:
    """One that leads out of the folder is refused, though the folder's own record names what lies there."""
    folder = run_of(tmp_path / "out", "walk", "dog")
    picture(precious.parent / "00000.png")
    (folder.path / place).rename(tmp_path / "old") if (folder.path / place).exists() else None
    (folder.path / place).symlink_to(precious.parent)
    before = sorted(precious.parent.iterdir())
    with pytest.raises(OptionError, match="expected a place below"):
        folder.begin({"clips": ["walk"]}, resume=False, force=True)

    assert before == sorted(precious.parent.iterdir())


def test_force_deletes_what_a_run_writes_and_leaves_what_it_does_not(tmp_path: Path) -> None:
    """Masks, scores and the page go; notes beside them, folders, and clips that the record does not name stay."""
    folder = run_of(tmp_path / "out", "walk")
    picture(folder.page / "walk.png")
    kept = [
        write(folder.path / "Annotations" / "walk" / "notes.txt", "mine"),
        picture(folder.path / "Annotations" / "walk" / "more" / "00000.png"),
        picture(folder.page / "mine.png"),
        folder.path / "Annotations" / "dog" / "00000.png",
        folder.path / "clips" / "dog.json",
        write(folder.path / "notes.txt", "mine"),
    ]
    folder.begin({"clips": ["walk"]}, resume=False, force=True)

    assert sorted([*kept, folder.record]) == sorted(path for path in folder.path.rglob("*") if path.is_file())


def test_a_clip_that_the_record_does_not_name_is_not_cleared(tmp_path: Path) -> None:
    """Nothing is removed that the run's own record does not say it wrote."""
    folder = run_of(tmp_path / "out", "walk")
    with pytest.raises(OptionError, match="names the clip dog"):
        folder.clear("dog")
    folder.clear("walk")

    assert ["dog"] == [path.name for path in (folder.path / "Annotations").iterdir()]


def test_two_evaluations_do_not_write_into_one_folder(tmp_path: Path) -> None:
    """The second is refused while the first is under way, and may begin after it."""
    frame = picture(tmp_path / "walk" / "00000.png")
    clip = Clip("walk", (frame,), (frame,), (None,))
    evaluation, folder = Evaluation((clip,), Setup(None, TrackingOptions())), RunFolder(tmp_path / "out")
    with held(folder.path), pytest.raises(OptionError, match="no other run writes into"):
        run_evaluation(evaluation, folder)

    assert [] == list(folder.path.iterdir())


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path, precious: Path) -> None:
    """What it names is neither locked nor removed."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(precious)
    with pytest.raises(OptionError, match="folder to write to"), held(tmp_path / "out"):
        pass

    assert "years of work" == precious.read_text()


IMAGE = {"id": 1, "file_name": "0.png", "height": 2, "width": 2}
MASK = {"id": 1, "image_id": 1, "segmentation": {"size": [2, 2], "counts": [1, 3]}}
COCO = {
    "deep": '{"images":' * 5000,
    "an id beyond int32": {"images": [IMAGE], "annotations": [{**MASK, "id": 2**40}]},
    "a track beyond int32": {"images": [IMAGE], "annotations": [{**MASK, "track_id": 2**31}]},
    "an id of 0": {"images": [IMAGE], "annotations": [{**MASK, "id": 0}]},
    "an image of terapixels": {"images": [{**IMAGE, "height": 10**6, "width": 10**6}]},
    "a height below 0": {"images": [{**IMAGE, "height": -1}]},
    "a height that is a text": {"images": [{**IMAGE, "height": "tall"}]},
    "an infinite height": {"images": [{**IMAGE, "height": math.inf}]},
    "no height": {"images": [{key: value for key, value in IMAGE.items() if key != "height"}]},
    "a name that is none": {"images": [{**IMAGE, "file_name": "a/\0.png"}]},
    "a name that is a number": {"images": [{**IMAGE, "file_name": 7}]},
    "runs of another size": {
        "images": [IMAGE],
        "annotations": [{**MASK, "segmentation": {"size": [2, 3], "counts": [1, 5]}}],
    },
    "runs of a terapixel": {
        "images": [IMAGE],
        "annotations": [{**MASK, "segmentation": {"size": [2**20, 2**20], "counts": [0, 2**40]}}],
    },
    "runs that add up by overflow": {
        "images": [IMAGE],
        "annotations": [{**MASK, "segmentation": {"size": [2, 2], "counts": [2**62] * 4 + [4]}}],
    },
    "runs of halves": {
        "images": [IMAGE],
        "annotations": [{**MASK, "segmentation": {"size": [2, 2], "counts": [0.5, 3.5]}}],
    },
    "runs of texts": {
        "images": [IMAGE],
        "annotations": [{**MASK, "segmentation": {"size": [2, 2], "counts": ["1", "3"]}}],
    },
}


@pytest.mark.parametrize("content", COCO.values(), ids=COCO)
def test_impossible_masks_are_told(content: object, tmp_path: Path) -> None:
    """COCO files that say what cannot be end in an error that names what was expected."""
    with pytest.raises(MaskError, match="expected"):
        list(read_coco(write(tmp_path / "a.json", content)))


def test_masks_belong_to_images_whatever_their_ids_are(tmp_path: Path) -> None:
    """Ids of images may be texts or lists: JSON allows them; 1 and "1" are two images."""
    images = [{**IMAGE, "id": one, "file_name": f"{number}.png"} for number, one in enumerate((1, "1", [1]))]
    masks = [{**MASK, "id": number + 1, "image_id": image["id"]} for number, image in enumerate(images)]
    found = list(read_coco(write(tmp_path / "a.json", {"images": images, "annotations": masks})))

    assert [("0", 1), ("1", 2), ("2", 3)] == [(name, int(ids.max())) for name, ids in found]


def test_names_of_other_platforms_are_names_of_frames(tmp_path: Path) -> None:
    """The folder before a frame's name is left out, whichever way it is written."""
    images = [{**IMAGE, "file_name": name} for name in ("walk/0.jpg", "D:\\walk\\1.jpg", "2.jpg")]

    assert ["0", "1", "2"] == [name for name, _ in read_coco(write(tmp_path / "a.json", {"images": images}))]


@pytest.mark.parametrize("height", [2**40, 0, -1, "tall", 1.5, None])
def test_impossible_videos_are_told(height: object, tmp_path: Path) -> None:
    """YouTube-VIS files too."""
    video = {"id": 1, "file_names": ["v/0.jpg"], "height": height, "width": 2}
    with pytest.raises(MaskError, match="height"):
        list(read_masks(write(tmp_path / "a.json", {"videos": [video], "annotations": []}), format="youtube_vis"))


@pytest.mark.parametrize("name", [name for name in HOSTILE.values() if name != ""] + [".hidden"])
def test_no_frame_is_written_elsewhere(name: str, tmp_path: Path) -> None:
    """Whatever a file calls it, masks go into the folder that was named."""
    with pytest.raises(OptionError, match="name: expected"), DavisWriter(tmp_path / "out") as out:
        out.add(np.array([[0, 7]]), name=name)
    with pytest.raises(OptionError, match="video: expected"):
        YouTubeVosWriter(tmp_path / "root", video=name)

    assert ["out"] == [path.name for path in tmp_path.iterdir()]


def test_no_video_is_written_through_a_link(tmp_path: Path, precious: Path) -> None:
    """A data set whose folder of annotations is a link to elsewhere is not filled."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "Annotations").symlink_to(precious.parent)
    with pytest.raises(OptionError, match="expected a place below"):
        YouTubeVosWriter(tmp_path / "root", video="walk")

    assert [precious] == list(precious.parent.iterdir())


@pytest.mark.parametrize("channels", [0, -1, 2**62, 2**63, 2**64 - 1, 10**30, 1e6, "4", None, True, [4]])
def test_sizes_that_cannot_be_built_are_told(channels: object, tmp_path: Path) -> None:
    """A configuration that asks for them is refused before anything is allocated."""
    save_part(FusionCell(4), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["fusion_cell"]["channels"] = channels
    write(tmp_path / "config.json", config)
    with pytest.raises(WeightsError, match="config.json: expected"):
        load_part(FusionCell, tmp_path)


@pytest.mark.parametrize("temperature", ["nan", "inf", "-inf", "0", "-1", "warm", ""])
def test_a_policy_has_a_temperature(temperature: str, tmp_path: Path) -> None:
    """One that would turn every choice into NaN is refused when it is read."""
    path = tmp_path / "policy.safetensors"
    save_policy(LearnedPolicy(hidden=4), path)
    about = {"format": "stmemory.policy", "version": "1", "temperature": temperature}
    save_file(load_file(path), path, metadata=about)
    with pytest.raises(WeightsError, match="expected a policy"):
        load_policy(path)


def _beyond(tensors: dict[str, torch.Tensor]) -> None:
    tensors["offsets"][-1] += 100


def _falling(tensors: dict[str, torch.Tensor]) -> None:
    tensors["offsets"][1] = tensors["offsets"][-1] + 1


def _fewer(tensors: dict[str, torch.Tensor]) -> None:
    tensors["offsets"] = tensors["offsets"][:-1].clone()


def _unknown(tensors: dict[str, torch.Tensor]) -> None:
    tensors["table"][0, 0] = 99


def _negative(tensors: dict[str, torch.Tensor]) -> None:
    tensors["table"][0, 0] = -1


@pytest.mark.parametrize("damage", [_beyond, _falling, _fewer, _unknown, _negative])
def test_packed_material_is_whole(damage: Callable[[dict[str, torch.Tensor]], None], tmp_path: Path) -> None:
    """A table that points beyond the file, or to a kind that there is not, is refused when it is read."""
    picture(tmp_path / "in" / "images" / "0.png")
    picture(tmp_path / "in" / "masks" / "0.png")
    pack(tmp_path / "in", tmp_path / "a.safetensors")
    tensors = load_file(tmp_path / "a.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(OptionError, match="written by stmemory.training.pack"):
        Material.load(tmp_path / "b.safetensors")


@pytest.mark.parametrize("config", ["{", "[]", '{"preset": 3}', "[" * 5000, 7, None])
def test_a_state_has_the_configuration_of_its_run(config: object, tmp_path: Path) -> None:
    """One that holds something else in its place is told as damaged."""
    write_state(tmp_path / "state.pt", {"average": {}, "config": config})
    with pytest.raises(WeightsError, match=r"state.pt: expected the configuration"):
        find_start(tmp_path / "state.pt", TrainingConfig())


def test_a_damaged_log_goes_on(tmp_path: Path) -> None:
    """Lines that are damaged or half written are dropped, as are those of later steps; a loss may be NaN."""
    good = ['{"step": 1, "loss": 0.5}', '{"step": 2, "loss": NaN}']
    bad = [
        "[" * 5000 + "}",
        '{"step": "two"}',
        '{"loss": 1}',
        "[1]}",
        '{"step": 3}',
        "\ufffd}",
        '{"step": null}',
        '{"st',
    ]
    (tmp_path / "log.jsonl").write_bytes("\n".join([good[0], *bad, good[1]]).encode() + b"\n\xff\xfe}\n")
    (tmp_path / "skipped.txt").write_bytes(b"images/\xff.png: broken\n")
    Journal(tmp_path, step=2).close()

    assert good == (tmp_path / "log.jsonl").read_text().splitlines()


def test_long_names_of_frames_come_through(tmp_path: Path) -> None:
    """A frame's name of 255 bytes with its ending is written and read."""
    name = "a" * 251
    with DavisWriter(tmp_path / "out") as out, CocoWriter(tmp_path / "a.json") as document:
        for one in (out, document):
            one.add(np.array([[0, 7]]), name=name)

    assert [[name], [name]] == [
        [found for found, _ in read_masks(path)] for path in (tmp_path / "out", tmp_path / "a.json")
    ]


def test_a_playlist_is_no_video(tmp_path: Path) -> None:
    """FFmpeg would open what it names."""
    pytest.importorskip("av")
    from stmemory.io.video import iterate_video, write_video

    write_video(tmp_path / "film.mp4", [np.zeros((16, 16, 3), np.uint8)] * 2)
    for name in ("a.m3u8", "a.mp4"):
        write(tmp_path / name, f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/film.mp4\n#EXT-X-ENDLIST\n")
        with pytest.raises(FrameError, match="playlist"):
            iterate_video(tmp_path / name)
