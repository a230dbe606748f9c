"""Labels of annotation and training tools: COCO's polygons, YOLO's segmentation labels, CVAT's XML; read back by readers of the tests' own."""

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
from stmemory.formats import CocoWriter, CvatWriter, MaskWriter, YoloWriter, new_writer, read_masks
from stmemory.formats.polygons import draw_polygon, is_hole, joined_rings, rings_of
from stmemory.formats.registry import FormatOptions
from stmemory.result import Segmentation

HEIGHT, WIDTH = 9, 13
FORMATS = ("coco_polygons", "yolo", "cvat")


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
    names = {int(number): int(name) for number, name in re.findall(r'(\d+): "object (\d+)"', (path / "data.yaml").read_text())}
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


READERS: dict[str, Callable[[Path], list[NDArray[np.int32]]]] = {"coco_polygons": coco, "yolo": yolo, "cvat": cvat}
PATHS = {"coco_polygons": "a.json", "yolo": "labels-of-a", "cvat": "a.xml"}


def write(format: str, folder: Path, frames: list[NDArray[np.int32]], *, categories: dict[int, str] | None = None) -> Path:
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
    """The joined rings of a random mask fill that mask; the rings that are no holes cover it; regions that touch at a corner are two."""
    random = np.random.default_rng(seed)
    mask = random.random((random.integers(1, 12), random.integers(1, 12))) < random.random()
    mask[0, 0] = True
    rings = rings_of(mask)
    joined, covered = np.zeros_like(mask), np.zeros_like(mask)
    draw_polygon(joined, joined_rings(rings))
    for ring in rings:
        if not is_hole(ring):
            draw_polygon(covered, ring)
    assert mask.tolist() == joined.tolist() == slow_polygon([tuple(p) for p in joined_rings(rings).tolist()], *mask.shape).tolist()
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
    """Masks without `track_id` are numbered past those that have one; a video's tracks are numbered from 1, and outside is absent."""
    images = """<annotations><image id="0" name="walk/7.jpg" width="4" height="1">
      <mask label="a" rle="0, 1" left="0" top="0" width="1" height="1" z_order="0"/>
      <mask label="a" rle="1, 1" left="0" top="0" width="2" height="1" z_order="0"><attribute name="track_id">1</attribute></mask>
      <polygon label="b" points="2,0;4,0;4,1;2,1" z_order="0"/></image></annotations>"""
    (tmp_path / "a.xml").write_text(images)
    assert [("7", [[2, 1, 3, 3]])] == [(name, ids.tolist()) for name, ids in read_masks(tmp_path / "a.xml")]
    tracks = """<annotations><meta><original_size><width>4</width><height>1</height></original_size></meta>
      <track id="4" label="a"><polygon frame="0" outside="0" points="0,0;1,0;1,1;0,1"/><polygon frame="3" outside="1" points="0,0;1,0;1,1"/></track>
      <track id="0" label="a"><polygon frame="3" outside="0" points="1,0;4,0;4,1;1,1"/></track></annotations>"""
    (tmp_path / "b.xml").write_text(tracks)
    expected = [("00000", [[5, 0, 0, 0]]), ("00003", [[0, 1, 1, 1]])]
    assert expected == [(name, ids.tolist()) for name, ids in read_masks(tmp_path / "b.xml")]


def test_yolo_lines_of_shared_classes_are_numbered(tmp_path: Path) -> None:
    """With categories identities are lost: objects are numbered in each frame; the size is that of the images beside the labels."""
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


DAMAGED = {
    "yolo text": ("x/labels/0.txt", "0 a b c d e f"),
    "yolo box": ("x/labels/0.txt", "0 0.5 0.5 0.1 0.1"),
    "yolo odd": ("x/labels/0.txt", "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4"),
    "yolo nan": ("x/labels/0.txt", "0 0.1 0.1 nan 0.2 0.3 0.3"),
    "yolo bytes": ("x/labels/0.txt", "\x00\x01\x02"),
    "xml cut": ("a.xml", "<annotations><image"),
    "xml empty": ("a.xml", ""),
    "xml other": ("a.xml", "<html/>"),
    "xml entities": ("a.xml", '<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><annotations><image>&d;</image></annotations>'),
    "xml size": ("a.xml", '<annotations><image name="0" width="99999999" height="99999999"/></annotations>'),
    "xml no size": ("a.xml", '<annotations><image name="0"/></annotations>'),
    "xml runs": ("a.xml", '<annotations><image name="0" width="2" height="2"><mask rle="1,99999999999" left="0" top="0" width="2" height="2"/></image></annotations>'),
    "xml outside": ("a.xml", '<annotations><image name="0" width="2" height="2"><mask rle="4" left="1" top="0" width="2" height="2"/></image></annotations>'),
    "xml points": ("a.xml", '<annotations><image name="0" width="2" height="2"><polygon points="1,2;a"/></image></annotations>'),
    "xml track": ("a.xml", '<annotations><track id="9999999999"><mask frame="0"/></track></annotations>'),
    "coco polygon": ("a.json", '{"images": [{"id": 1, "file_name": "a", "height": 2, "width": 2}], "annotations": [{"id": 1, "image_id": 1, "segmentation": [[1, 2, "x", 4, 5, 6]]}]}'),
    "coco infinity": ("a.json", '{"images": [{"id": 1, "file_name": "a", "height": 2, "width": 2}], "annotations": [{"id": 1, "image_id": 1, "segmentation": [[1, 2, Infinity, 4, 5, 6]]}]}'),
    "coco id": ("a.json", '{"images": [{"id": 1, "file_name": "a", "height": 2, "width": 2}], "annotations": [{"id": 9999999999, "image_id": 1, "segmentation": []}]}'),
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
    path = write("cvat", tmp_path, masks(), categories={3: "<dog> & \"cat's\""})
    labels = {mask.attrib["label"] for mask in ElementTree.parse(path).getroot().iter("mask")}
    assert {"<dog> & \"cat's\"", "object"} == labels


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
