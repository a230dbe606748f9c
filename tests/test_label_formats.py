"""Labels of annotation and training tools: COCO's polygons, YOLO's segmentation labels, CVAT's XML, Label Studio's
brush; read back by readers of the tests' own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from stmemory.cli import main
from stmemory.errors import MaskError, OptionError, StmemoryError
from stmemory.formats import CocoWriter, CvatWriter, LabelStudioWriter, MaskWriter, YoloWriter, new_writer, read_masks
from stmemory.formats.label_studio import decode_brush, encode_brush
from stmemory.formats.polygons import draw_polygon, is_hole, joined_rings, rings_of
from stmemory.formats.registry import FormatOptions
from stmemory.result import Segmentation

HEIGHT, WIDTH = 9, 13
FORMATS = ("coco_polygons", "yolo", "cvat", "label_studio")


def masks(seed: int = 0) -> list[NDArray[np.int32]]:
    """Frames with regions, holes, and pixels that touch at corners; one with nothing in it."""
    random = np.random.default_rng(seed)
    some = [random.choice([0, 0, 3, 70000], (HEIGHT, WIDTH)).astype(np.int32) for _ in range(3)]
    ring = np.zeros((HEIGHT, WIDTH), np.int32)
    ring[1:8, 2:10], ring[3:5, 4:7] = 3, 0
    return [*some, np.zeros((HEIGHT, WIDTH), np.int32), ring]


def slow_polygon(points: list[tuple[float, float]], height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.bool_]:
    """Each pixel's centre by itself: a ray to the left crosses the outline an odd number of times."""
    inside = np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
                if (y0 > y + 0.5) != (y1 > y + 0.5) and x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0) < x + 0.5:
                    inside[y, x] ^= True
    return inside


def pairs(numbers: list[float]) -> list[tuple[float, float]]:
    """x, y, x, y, ... as corners."""
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def coco(path: Path) -> list[NDArray[np.int32]]:
    """A COCO file's frames."""
    document = json.loads(path.read_text())
    frames = {row["id"]: np.zeros((row["height"], row["width"]), np.int32) for row in document["images"]}
    for row in document["annotations"]:
        for polygon in row["segmentation"]:
            frames[row["image_id"]][slow_polygon(pairs(polygon))] = row["track_id"]
    return [frames[number] for number in sorted(frames)]


def yolo(path: Path) -> list[NDArray[np.int32]]:
    """A YOLO folder's frames; classes are named after ids."""
    names = {
        int(number): int(name)
        for number, name in re.findall(r'(\d+): "object (\d+)"', (path / "data.yaml").read_text())
    }
    frames = []
    for file in sorted((path / "labels").iterdir()):
        frames.append(np.zeros((HEIGHT, WIDTH), np.int32))
        for line in file.read_text().splitlines():
            kind, *shares = line.split()
            corners = [(float(x) * WIDTH, float(y) * HEIGHT) for x, y in pairs(shares)]
            frames[-1][slow_polygon(corners)] = names[int(kind)]
    return frames


def cvat(path: Path) -> list[NDArray[np.int32]]:
    """A CVAT file's frames."""
    frames = []
    for image in ElementTree.parse(path).getroot().iter("image"):
        frames.append(np.zeros((int(image.attrib["height"]), int(image.attrib["width"])), np.int32))
        for mask in image.iter("mask"):
            pixels = "".join("01"[place % 2] * int(run) for place, run in enumerate(mask.attrib["rle"].split(",")))
            for place, pixel in enumerate(pixels):
                y, x = divmod(place, int(mask.attrib["width"]))
                if pixel == "1":
                    frames[-1][y + int(mask.attrib["top"]), x + int(mask.attrib["left"])] = int(mask[0].text or 0)
    return frames


def slow_brush(rle: list[int]) -> list[int]:
    """The numbers of a run-length code, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, width = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    numbers: list[int] = []
    while len(numbers) < total:
        repeated = read(1)
        length = read(sizes[read(2)]) + 1
        numbers += [read(width)] * length if repeated else [read(width) for _ in range(length)]
    return numbers


def slow_brush_code(numbers: list[int], sizes: tuple[int, int, int, int], lengths: list[int]) -> list[int]:
    """A code of numbers one by one, not repeated, in runs of the lengths given in turn; `sizes` are the bits of a
    length."""
    bits = f"{len(numbers):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    place, turn = 0, 0
    while place < len(numbers):
        which = turn % 4
        run = numbers[place : place + min(lengths[turn % len(lengths)], 2 ** sizes[which])]
        bits += "0" + f"{which:02b}" + f"{len(run) - 1:0{sizes[which]}b}" + "".join(f"{number:08b}" for number in run)
        place, turn = place + len(run), turn + 1
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def label_studio(path: Path) -> list[NDArray[np.int32]]:
    """The frames of Label Studio's tasks; ids are in the regions' texts."""
    frames = []
    for task in json.loads(path.read_text()):
        frames.append(np.zeros((task["data"]["height"], task["data"]["width"]), np.int32))
        for region in task["predictions"][0]["result"]:
            rgba = np.array(slow_brush(region["value"]["rle"])).reshape(
                region["original_height"], region["original_width"], 4
            )
            frames[-1][rgba[..., 3] == 255] = int(region["meta"]["text"][0].removeprefix("track_id "))
    return frames


READERS: dict[str, Callable[[Path], list[NDArray[np.int32]]]] = {
    "coco_polygons": coco,
    "yolo": yolo,
    "cvat": cvat,
    "label_studio": label_studio,
}
PATHS = {"coco_polygons": "a.json", "yolo": "labels-of-a", "cvat": "a.xml", "label_studio": "a.json"}


def write(
    format: str, folder: Path, frames: list[NDArray[np.int32]], *, categories: dict[int, str] | None = None
) -> Path:
    """Write frames, and give the path."""
    with new_writer(format, folder / PATHS[format], options=FormatOptions(categories=categories)) as out:
        for ids in frames:
            out.add(ids)
    return folder / PATHS[format]


@pytest.mark.parametrize("format", FORMATS)
def test_another_reader_finds_the_very_masks(format: str, tmp_path: Path) -> None:
    """A reader that was written from the format's description gives all ids, pixel by pixel."""
    path = write(format, tmp_path, masks())
    assert [ids.tolist() for ids in masks()] == [ids.tolist() for ids in READERS[format](path)]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_recognised_and_read(format: str, tmp_path: Path) -> None:
    """`read_masks` knows the format by what lies there, and gives the very masks."""
    path = write(format, tmp_path, masks(1))
    found = list(read_masks(path, options=FormatOptions(size=(HEIGHT, WIDTH))))
    assert [f"{index:05d}" for index in range(5)] == [name for name, _ in found]
    assert [ids.tolist() for ids in masks(1)] == [ids.tolist() for _, ids in found]


@pytest.mark.parametrize("seed", range(20))
def test_outlines_are_exact(seed: int) -> None:
    """The joined rings of a random mask fill that mask; the rings that are no holes cover it; regions that touch at a
    corner are two."""
    random = np.random.default_rng(seed)
    mask = random.random((random.integers(1, 12), random.integers(1, 12))) < random.random()
    mask[0, 0] = True
    rings = rings_of(mask)
    joined, covered = np.zeros_like(mask), np.zeros_like(mask)
    draw_polygon(joined, joined_rings(rings))
    for ring in rings:
        if not is_hole(ring):
            draw_polygon(covered, ring)
    assert (
        mask.tolist()
        == joined.tolist()
        == slow_polygon([tuple(p) for p in joined_rings(rings).tolist()], *mask.shape).tolist()
    )
    assert (covered >= mask).all()
    assert 2 == len(rings_of(np.eye(2, dtype=np.bool_)))


def test_polygons_may_leave_the_image_and_lie_between_pixels() -> None:
    """Corners anywhere, fractions and beyond the border, fill the pixels whose centres are inside."""
    random = np.random.default_rng(0)
    for _ in range(30):
        points = random.uniform(-5, 18, (random.integers(3, 8), 2))
        mask = np.zeros((HEIGHT, WIDTH), np.bool_)
        draw_polygon(mask, points)
        assert slow_polygon([tuple(p) for p in points.tolist()]).tolist() == mask.tolist()


def test_coco_has_the_scores_of_results(tmp_path: Path) -> None:
    """An annotation has the score that the result had, with RLEs and with polygons; plain ids have none."""
    ids = torch.tensor([[0, 7]]).int()
    result = Segmentation(0, ids, torch.eye(2)[:, None], (7,), {7: 0.75}, {7: True})
    for polygons in (False, True):
        with CocoWriter(tmp_path / f"{polygons}.json", polygons=polygons) as out:
            out.add(result)
            out.add(ids.numpy())
        rows = json.loads((tmp_path / f"{polygons}.json").read_text())["annotations"]
        assert [0.75, None] == [row.get("score") for row in rows]


def test_coco_takes_track_ids_from_attributes(tmp_path: Path) -> None:
    """CVAT puts `track_id` into `attributes`; where both are there, the annotation's own counts."""
    square = [[0.0, 0.0, 2.0, 0.0, 2.0, 1.0, 0.0, 1.0]]
    right = [[2.0, 0.0, 3.0, 0.0, 3.0, 1.0, 2.0, 1.0]]
    rows = [
        {"id": 1, "image_id": 1, "segmentation": square, "attributes": {"track_id": 44}},
        {"id": 2, "image_id": 1, "segmentation": right, "track_id": 5, "attributes": {"track_id": 44}},
    ]
    document = {"images": [{"id": 1, "file_name": "a.jpg", "height": 1, "width": 4}], "annotations": rows}
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert [("a", [[44, 44, 5, 0]])] == [(name, ids.tolist()) for name, ids in read_masks(tmp_path / "a.json")]


def test_cvat_polygons_tracks_and_masks_without_an_id_are_read(tmp_path: Path) -> None:
    """Masks without `track_id` are numbered past those that have one; a video's tracks are numbered from 1, and outside
    is absent."""
    images = """<annotations><image id="0" name="walk/7.jpg" width="4" height="1">
      <mask label="a" rle="0, 1" left="0" top="0" width="1" height="1" z_order="0"/>
      <mask label="a" rle="1, 1" left="0" top="0" width="2" height="1" z_order="0">
        <attribute name="track_id">1</attribute></mask>
      <polygon label="b" points="2,0;4,0;4,1;2,1" z_order="0"/></image></annotations>"""
    (tmp_path / "a.xml").write_text(images)
    assert [("7", [[2, 1, 3, 3]])] == [(name, ids.tolist()) for name, ids in read_masks(tmp_path / "a.xml")]
    tracks = """<annotations><meta><original_size><width>4</width><height>1</height></original_size></meta>
      <track id="4" label="a"><polygon frame="0" outside="0" points="0,0;1,0;1,1;0,1"/>
        <polygon frame="3" outside="1" points="0,0;1,0;1,1"/></track>
      <track id="0" label="a"><polygon frame="3" outside="0" points="1,0;4,0;4,1;1,1"/></track></annotations>"""
    (tmp_path / "b.xml").write_text(tracks)
    expected = [("00000", [[5, 0, 0, 0]]), ("00003", [[0, 1, 1, 1]])]
    assert expected == [(name, ids.tolist()) for name, ids in read_masks(tmp_path / "b.xml")]


def test_yolo_lines_of_shared_classes_are_numbered(tmp_path: Path) -> None:
    """With categories identities are lost: objects are numbered in each frame; the size is that of the images beside
    the labels."""
    path = write("yolo", tmp_path, masks()[:1], categories={3: "dog", 70000: "dog"})
    assert '0: "dog"' in (path / "data.yaml").read_text()
    about = (path / "data.yaml").read_text()
    (path / "data.yaml").write_text(about.replace("frame_size", "other"))
    with pytest.raises(OptionError, match="pass the size"):
        list(read_masks(path))
    (path / "data.yaml").write_text(about.replace(f"[{HEIGHT},", "[999999,").replace(f" {WIDTH}]", " 999999]"))
    with pytest.raises(MaskError, match="pixels"):
        list(read_masks(path))
    (path / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(path / "images" / "00000.png")
    ids = next(read_masks(path))[1]
    assert np.select([masks()[0] == 3, masks()[0] == 70000], [1, 2]).tolist() == ids.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_a_brush_code_is_decoded_whatever_its_sizes(seed: int) -> None:
    """Soft alphas in runs that are not repeated, with other sizes of lengths than ours, come back; so do long runs of
    ours."""
    random = np.random.default_rng(seed)
    rgba = random.integers(0, 256, (5, 7, 4), np.uint8)
    sizes = (int(random.integers(1, 5)), 5, int(random.integers(1, 17)), 16)
    code = slow_brush_code(rgba.ravel().tolist(), sizes, [1, 9, 30, 2])
    assert rgba[..., 3].tolist() == decode_brush(code, (5, 7)).tolist()
    mask = np.zeros((150, 400), np.bool_)
    mask[random.integers(1, 40) :, : random.integers(1, 400)] = True
    mask |= random.random(mask.shape) < 0.001
    code = encode_brush(mask)
    assert np.repeat(255 * mask.ravel(), 4).tolist() == slow_brush(code)
    assert (255 * mask).tolist() == decode_brush(code, mask.shape).tolist()


def studio_task(
    image: str, *regions: dict[str, object], key: str = "annotations", **about: object
) -> dict[str, object]:
    """A task as Label Studio exports it."""
    sides = {"original_width": 4, "original_height": 1, "image_rotation": 0, "from_name": "tag", "to_name": "image"}
    return {"id": 7, "data": {"image": image}, key: [{"result": [sides | region for region in regions], **about}]}


def brush(label: str, row: list[int], **about: object) -> dict[str, object]:
    """A region of a row of pixels."""
    code = slow_brush_code(np.repeat(row, 4).tolist(), (3, 4, 8, 16), [8])
    return {"type": "brushlabels", "value": {"format": "rle", "rle": code, "brushlabels": [label]}, **about}


def read_tasks(path: Path, *tasks: dict[str, object]) -> list[tuple[str, list[list[int]]]]:
    """Names and ids of tasks that were written to a file."""
    path.write_text(json.dumps(tasks))
    return [(name, ids.tolist()) for name, ids in read_masks(path)]


def test_label_studio_exports_are_read_as_they_come(tmp_path: Path) -> None:
    """Names lose the mark of an upload and the query of a local file; polygons are percentages; tasks without masks are
    left out."""
    corners = {
        "type": "polygonlabels",
        "value": {"points": [[50, 0], [100, 0], [100, 100], [50, 100]], "polygonlabels": ["b"]},
    }
    found = read_tasks(
        tmp_path / "a.json",
        studio_task("/data/upload/3/0a1b2c3d-frame-10.jpg", brush("a", [255, 0, 0, 0]), corners),
        studio_task("/data/local-files/?d=clip%5C/frame-9.png", brush("a", [0, 200, 90, 0])),
        studio_task(
            "https://host/frame-11.jpg?sig=1",
            {"type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 5, "height": 5}},
        ),
    )
    assert [("frame-9", [[0, 1, 0, 0]]), ("frame-10", [[1, 0, 2, 2]])] == found


def test_label_studio_regions_without_an_id_are_known_by_label_and_order(tmp_path: Path) -> None:
    """The second dog is one object in all frames; ids that texts and labels state are kept, and no other region gets
    them."""
    found = read_tasks(
        tmp_path / "a.json",
        studio_task("0.jpg", brush("dog", [9, 0, 0, 0]), brush("dog", [0, 9, 0, 0]), brush("object 1", [0, 0, 9, 0])),
        studio_task(
            "1.jpg",
            brush("cat", [9, 0, 0, 0], meta={"text": ["track_id 3"]}),
            brush("dog", [0, 9, 0, 0]),
            brush("dog", [0, 0, 9, 9]),
        ),
    )
    assert [("0", [[2, 4, 1, 0]]), ("1", [[3, 2, 4, 4]])] == found


def test_label_studio_annotations_come_before_predictions_and_cancelled_ones_do_not_count(tmp_path: Path) -> None:
    """The last annotation that was not cancelled counts, else the prediction; a plain brush has its label beside it."""
    task = studio_task("0.jpg", brush("a", [9, 9, 9, 9]), was_cancelled=True)
    task["predictions"] = studio_task("0.jpg", brush("a", [9, 0, 0, 0]), key="predictions")["predictions"]
    assert [("0", [[1, 0, 0, 0]])] == read_tasks(tmp_path / "a.json", task)
    plain = {**brush("", [0, 9, 0, 0]), "type": "brush", "id": "x"}
    plain["value"] = {"rle": encode_brush(np.array([[False, True, False, False]]))}
    beside = {"type": "labels", "id": "x", "value": {"labels": ["object 8"]}}
    assert [("0", [[0, 8, 0, 0]])] == read_tasks(tmp_path / "a.json", studio_task("0.jpg", plain, beside))


def test_label_studio_is_given_files_scores_and_categories(tmp_path: Path) -> None:
    """A task names the image by prefix and file; regions and predictions have the scores of results; annotations have
    neither score nor model."""
    result = Segmentation(0, torch.tensor([[0, 7]]).int(), torch.eye(2)[:, None], (7,), {7: 0.75}, {7: True})
    for as_annotations in (False, True):
        path = tmp_path / f"{as_annotations}.json"
        with LabelStudioWriter(
            path,
            categories={7: "dog"},
            file_names={"00000": "00000.png"},
            prefix="s3://bucket/",
            annotations=as_annotations,
        ) as out:
            out.add(result)
        (task,) = json.loads(path.read_text())
        (made,) = task["annotations" if as_annotations else "predictions"]
        assert ("s3://bucket/00000.png", ["dog"], 0.75) == (
            task["data"]["image"],
            made["result"][0]["value"]["brushlabels"],
            made["result"][0]["score"],
        )
        assert (None if as_annotations else 0.75) == made.get("score")
        assert [("00000", [[0, 7]])] == [(name, ids.tolist()) for name, ids in read_masks(path)]


def test_other_lists_than_tasks_are_refused(tmp_path: Path) -> None:
    """JSON-MIN and lists of anything else are told what to export."""
    for document in ([{"image": "0.jpg", "tag": []}], [], [{"data": {"image": "0.jpg"}}]):
        (tmp_path / "a.json").write_text(json.dumps(document))
        with pytest.raises(MaskError, match="JSON-MIN"):
            read_masks(tmp_path / "a.json", format="label_studio")
        with pytest.raises(MaskError, match="Label Studio's tasks"):
            read_masks(tmp_path / "a.json")


DAMAGED_BRUSH: dict[str, dict[str, object]] = {
    "no list": {"value": {"rle": "abc"}},
    "no bytes": {"value": {"rle": [256, 1]}},
    "empty": {"value": {"rle": []}},
    "cut": {"value": {"rle": encode_brush(np.eye(4, dtype=np.bool_)[:1])[:-3]}},
    "another size": {"value": {"rle": encode_brush(np.eye(5, dtype=np.bool_))}},
    "beyond the end": {"value": {"rle": slow_brush_code([1] * 16, (3, 4, 8, 16), [8])[:7] + [255] * 9}},
    "turned": {"image_rotation": 90},
    "no size": {"original_width": None},
    "size a list": {"original_width": [4]},
    "size huge": {"original_width": 2**31 - 1, "original_height": 2**31 - 1},
    "points": {"type": "polygonlabels", "value": {"points": [1, 2, 3]}},
    "points inside": {"type": "polygonlabels", "value": {"points": [["a", 2], [3, 4], [5, 6]]}},
}


@pytest.mark.parametrize("name", DAMAGED_BRUSH)
def test_damaged_brush_masks_are_errors_that_name_the_file(name: str, tmp_path: Path) -> None:
    """Whatever stands in a region, the error is a `MaskError` with the file's name."""
    with pytest.raises(MaskError, match="a.json"):
        read_tasks(tmp_path / "a.json", studio_task("0.jpg", {**brush("a", [9, 0, 0, 0]), **DAMAGED_BRUSH[name]}))


DAMAGED = {
    "yolo text": ("x/labels/0.txt", "0 a b c d e f"),
    "yolo box": ("x/labels/0.txt", "0 0.5 0.5 0.1 0.1"),
    "yolo odd": ("x/labels/0.txt", "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4"),
    "yolo nan": ("x/labels/0.txt", "0 0.1 0.1 nan 0.2 0.3 0.3"),
    "yolo bytes": ("x/labels/0.txt", "\x00\x01\x02"),
    "xml cut": ("a.xml", "<annotations><image"),
    "xml empty": ("a.xml", ""),
    "xml other": ("a.xml", "<html/>"),
    "xml entities": (
        "a.xml",
        '<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><annotations><image>&d;</image></annotations>',
    ),
    "xml size": ("a.xml", '<annotations><image name="0" width="99999999" height="99999999"/></annotations>'),
    "xml no size": ("a.xml", '<annotations><image name="0"/></annotations>'),
    "xml runs": (
        "a.xml",
        '<annotations><image name="0" width="2" height="2"><mask rle="1,99999999999" left="0" top="0" width="2" '
        'height="2"/></image></annotations>',
    ),
    "xml outside": (
        "a.xml",
        '<annotations><image name="0" width="2" height="2"><mask rle="4" left="1" top="0" width="2" '
        'height="2"/></image></annotations>',
    ),
    "xml points": (
        "a.xml",
        '<annotations><image name="0" width="2" height="2"><polygon points="1,2;a"/></image></annotations>',
    ),
    "xml track": ("a.xml", '<annotations><track id="9999999999"><mask frame="0"/></track></annotations>'),
    "coco polygon": (
        "a.json",
        '{"images": [{"id": 1, "file_name": "a", "height": 2, "width": 2}], "annotations": [{"id": 1, "image_id": 1, '
        '"segmentation": [[1, 2, "x", 4, 5, 6]]}]}',
    ),
    "coco infinity": (
        "a.json",
        '{"images": [{"id": 1, "file_name": "a", "height": 2, "width": 2}], "annotations": [{"id": 1, "image_id": 1, '
        '"segmentation": [[1, 2, Infinity, 4, 5, 6]]}]}',
    ),
    "coco id": (
        "a.json",
        '{"images": [{"id": 1, "file_name": "a", "height": 2, "width": 2}], "annotations": [{"id": 9999999999, '
        '"image_id": 1, "segmentation": []}]}',
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_labels_are_errors_of_ours(name: str, tmp_path: Path) -> None:
    """Whatever stands in such a file, the error is a `MaskError` that names it."""
    file, text = DAMAGED[name]
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    with pytest.raises(MaskError):
        list(read_masks(tmp_path / file.split("/")[0], options=FormatOptions(size=(4, 4))))


def test_a_name_that_xml_cannot_hold_is_refused(tmp_path: Path) -> None:
    """Control characters in a category are an error, and others are written so that they come back."""
    with pytest.raises(OptionError, match="printable"):
        CvatWriter(tmp_path / "a.xml", categories={1: "a\x00"})
    path = write("cvat", tmp_path, masks(), categories={3: '<dog> & "cat\'s"'})
    labels = {mask.attrib["label"] for mask in ElementTree.parse(path).getroot().iter("mask")}
    assert {'<dog> & "cat\'s"', "object"} == labels


@pytest.mark.parametrize("writer", [YoloWriter, CvatWriter], ids=lambda writer: writer.__name__)
def test_an_interrupted_export_leaves_no_file_that_looks_whole(writer: type[MaskWriter], tmp_path: Path) -> None:
    """After an error neither the XML nor `data.yaml` is there."""
    with pytest.raises(StmemoryError), writer(tmp_path / "a.xml") as out:
        out.add(masks()[0])
        out.add(masks()[0][1:])
    assert not list(tmp_path.rglob("data.yaml")) and not [file for file in tmp_path.rglob("*.xml") if file.is_file()]


def test_the_command_line_names_categories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--category ID=NAME` reaches the file; what is no such pair, or names an object twice, is refused."""
    np.save(tmp_path / "a.npy", np.stack(masks()))
    arguments = ["export", str(tmp_path / "a.npy"), "--to", "coco_polygons", "-o", str(tmp_path / "a.json")]
    assert 0 == main([*arguments, "--category", "3=dog", "--category", "70000=a=b"])
    assert ["a=b", "dog"] == [row["name"] for row in json.loads((tmp_path / "a.json").read_text())["categories"]]
    for wrong in (["3"], ["=dog"], ["0=dog"], ["x=dog"], ["3="], ["3=a", "3=b"]):
        assert 2 == main([*arguments, *(part for each in wrong for part in ("--category", each))])
        assert "category" in capsys.readouterr().err
