"""What is written, read back by the packages that it is for. Each test is skipped where its package is not installed,
as in CI.

    python -m venv tools && tools/bin/pip install pytest av safetensors huggingface-hub pycocotools supervision \
        cvat-sdk label-studio-converter label-studio-sdk datumaro opencv-python-headless
    PYTHONPATH=. tools/bin/python -m pytest -m slow -rsP tests/test_other_readers.py

Ultralytics wants an environment of its own. Each test prints the package and its version.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stmemory.formats import FORMATS, FormatOptions, new_writer, read_masks

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

HEIGHT, WIDTH = 64, 90
JOINED = 10  # pixels of a line between a ring and its hole, or between two squares
Mask = NDArray[np.bool_]


def package(module: str, name: str) -> Any:
    """A module of a package, whose version is printed; skips the test where it cannot be imported."""
    found: ModuleType = pytest.importorskip(module, exc_type=ImportError)
    print(f"{name} {importlib.metadata.version(name)}")
    return found


def masks() -> list[NDArray[np.int32]]:
    """Frames with a disk, a ring and two squares, each an object; one frame has nothing in it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = []
    for t in range(3):
        ids = np.zeros((HEIGHT, WIDTH), np.int32)
        far = np.hypot(y - 20, x - 25 - 3 * t)
        ids[far < 13] = 3
        ids[(np.hypot(y - 40, x - 65) < 18) & (np.hypot(y - 40, x - 65) > 8)] = 7
        ids[50:60, 5:15] = ids[50:60, 20 + t : 30] = 12
        frames.append(ids)
    return [*frames, np.zeros((HEIGHT, WIDTH), np.int32)]


def write(format: str, folder: Path) -> Path:
    """The masks in a format, with images beside them, which some readers ask for."""
    path = folder / {"yolo": "data", "cvat": "a.xml", "mask_video": "a.mkv", "matte": "a.mov"}.get(format, "a.json")
    with new_writer(format, path, options=FormatOptions(categories={3: "disk", 7: "ring", 12: "squares"})) as out:
        for index, ids in enumerate(masks()):
            out.add(
                ids,
                name=f"{index:05d}",
                frame=np.zeros((HEIGHT, WIDTH, 3), np.uint8) if FORMATS[format].draws else None,
            )
    images = path / "images" if format == "yolo" else folder / "images"
    images.mkdir()
    for index in range(len(masks())):
        Image.new("RGB", (WIDTH, HEIGHT), (index, 0, 0)).save(images / f"{index:05d}.jpg")
    return path


def border(mask: Mask) -> Mask:
    """Pixels on either side of a mask's outline, corners among them."""
    padded = np.pad(mask, 1, mode="edge")
    around = np.stack([padded[y : y + HEIGHT, x : x + WIDTH] for y in range(3) for x in range(3)])
    return around.any(axis=0) & ~around.all(axis=0)


def agree(expected: Mask, found: NDArray[np.generic], *, joined: int = 0) -> None:
    """The same pixels but for those along the outline, where programs draw polygons in ways of their own; and for some
    pixels of lines that join a polygon's parts, to which programs that draw borders give a width."""
    wrong = (expected != (np.asarray(found) > 0)) & ~border(expected)
    assert int(wrong.sum()) <= joined, f"{int(wrong.sum())} pixels off the outline"


@pytest.mark.parametrize("format", ["coco", "coco_polygons"])
def test_pycocotools_reads_coco(format: str, tmp_path: Path) -> None:
    """`COCO.annToMask` gives the masks: of RLEs exactly, of polygons but for the outline."""
    coco = package("pycocotools.coco", "pycocotools").COCO(str(write(format, tmp_path)))
    assert 4 == len(coco.imgs) and {"disk", "ring", "squares"} == {
        row["name"] for row in coco.loadCats(coco.getCatIds())
    }
    for index, ids in enumerate(masks()):
        rows = coco.loadAnns(coco.getAnnIds(imgIds=[index + 1]))
        assert set(np.unique(ids)) - {0} == {row["track_id"] for row in rows}
        for row in rows:
            found = coco.annToMask(row)
            agree(ids == row["track_id"], found, joined=0 if format == "coco" else JOINED)
            if format == "coco":
                assert np.array_equal(ids == row["track_id"], found > 0)


def test_pycocotools_reads_the_rles_of_youtube_vis(tmp_path: Path) -> None:
    """`mask.decode` gives each object's mask in each frame."""
    tools = package("pycocotools.mask", "pycocotools")
    for row in json.loads(write("youtube_vis", tmp_path).read_text())["annotations"]:
        for ids, rle in zip(masks(), row["segmentations"], strict=True):
            found = np.zeros((HEIGHT, WIDTH)) if rle is None else tools.decode(rle)
            assert np.array_equal(ids == row["id"], found > 0)


@pytest.mark.parametrize("format", ["coco", "coco_polygons", "yolo"])
def test_supervision_reads_coco_and_yolo(format: str, tmp_path: Path) -> None:
    """`DetectionDataset` gives the masks under their classes."""
    sets = package("supervision", "supervision").DetectionDataset
    path = write(format, tmp_path)
    if format == "yolo":
        data = sets.from_yolo(str(path / "images"), str(path / "labels"), str(path / "data.yaml"), force_masks=True)
    else:
        data = sets.from_coco(str(tmp_path / "images"), str(path), force_masks=True)
    seen = 0
    for image, _, detections in data:
        ids = masks()[int(Path(image).stem)]
        for kind, mask in zip(detections.class_id, detections.mask if len(detections) else (), strict=True):
            agree(
                ids == {"disk": 3, "ring": 7, "squares": 12}[data.classes[kind]],
                mask,
                joined=0 if format == "coco" else JOINED,
            )
            seen += 1
    assert 9 == seen


def test_ultralytics_reads_yolo(tmp_path: Path) -> None:
    """Its check of a label file finds no fault, and its polygons fill the masks."""
    utils = package("ultralytics.data.utils", "ultralytics")
    path = write("yolo", tmp_path)
    names = {"disk": 3, "ring": 7, "squares": 12}
    listed = [
        line.split(": ")[1].strip('"')
        for line in (path / "data.yaml").read_text().splitlines()
        if line.startswith("  ")
    ]
    for index, ids in enumerate(masks()):
        label = path / "labels" / f"{index:05d}.txt"
        found = utils.verify_image_label(
            (str(path / "images" / f"{index:05d}.jpg"), str(label), "", False, len(listed), 0, 0, False)
        )
        _, rows, shape, segments, _, missing, _, empty, corrupt, message = found
        assert ((HEIGHT, WIDTH), 0, index == 3, 0, "") == (shape, missing, bool(empty), corrupt, message)
        for row, segment in zip(rows, segments, strict=True):
            mask = utils.polygon2mask((HEIGHT, WIDTH), [(segment * (WIDTH, HEIGHT)).ravel()])
            agree(ids == names[listed[int(row[0])]], mask, joined=JOINED)


def test_cvat_decodes_the_masks(tmp_path: Path) -> None:
    """`cvat_sdk.masks.decode_mask` of the XML's runs gives the masks, and what it encodes is what we write."""
    tools = package("cvat_sdk.masks", "cvat-sdk")
    for image, ids in zip(ElementTree.parse(write("cvat", tmp_path)).getroot().iter("image"), masks(), strict=True):
        for mask in image.iter("mask"):
            left, top, across, down = (int(mask.attrib[name]) for name in ("left", "top", "width", "height"))
            runs = [int(run) for run in mask.attrib["rle"].split(",")]
            points = [*runs, left, top, left + across - 1, top + down - 1]
            expected = ids == int(mask[0].text or 0)
            assert np.array_equal(expected, tools.decode_mask(points, image_width=WIDTH, image_height=HEIGHT))
            assert points == tools.encode_mask(expected)


def test_datumaro_reads_cvat_and_coco(tmp_path: Path) -> None:
    """Its importers give the frames, the labels and the masks."""
    Dataset = package("datumaro", "datumaro").Dataset
    for format, kind in (("cvat", "cvat"), ("coco", "coco_instances")):
        folder = tmp_path / format
        folder.mkdir()
        path = write(format, folder)
        (folder / "annotations").mkdir()
        if format == "coco":
            path = path.rename(folder / "annotations" / "instances_default.json")
            (folder / "images").rename(folder / "default")
            (folder / "images").mkdir()
            (folder / "default").rename(folder / "images" / "default")
        data = Dataset.import_from(str(folder if format == "coco" else path), kind)
        labels = [
            label.name for label in data.categories()[next(key for key in data.categories() if key.name == "label")]
        ]
        seen = 0
        for item in data:
            ids = masks()[int(Path(item.id).stem)]
            for annotation in item.annotations:
                if annotation.type.name != "mask":
                    continue
                assert np.array_equal(
                    ids == {"disk": 3, "ring": 7, "squares": 12}[labels[annotation.label]],
                    np.asarray(annotation.image) > 0,
                )
                seen += 1
        assert 9 == seen, format


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("label_studio_converter.brush", "label-studio-converter"),
        ("label_studio_sdk.converter.brush", "label-studio-sdk"),
    ],
)
def test_label_studio_decodes_the_brush_and_is_decoded(module: str, name: str, tmp_path: Path) -> None:
    """Its converter gives our masks, its code equals ours byte by byte, and what it makes of an image is read."""
    brush = package(module, name)
    for task, ids in zip(json.loads(write("label_studio", tmp_path).read_text()), masks(), strict=True):
        regions = task["predictions"][0]["result"]
        layers = brush.decode_from_annotation("tag", [{**region, **region["value"]} for region in regions])
        assert len(regions) == len(layers)
        for region, layer in zip(regions, layers.values(), strict=True):
            expected = ids == int(region["meta"]["text"][0].split()[1])
            assert np.array_equal(255 * expected, layer)
            assert brush.mask2rle((255 * expected).astype(np.uint8)) == region["value"]["rle"]
    Image.fromarray(masks()[0] == 7).save(tmp_path / "ring.png")
    made = brush.image2annotation(str(tmp_path / "ring.png"), "object 7", "tag", "image")
    (tmp_path / "made.json").write_text(
        json.dumps([{"data": {"image": "/data/upload/1/0a1b2c3d-ring.png"}, "annotations": [made]}])
    )
    ((stem, found),) = read_masks(tmp_path / "made.json")
    assert "ring" == stem and np.array_equal(masks()[0] == 7, found == 7)


def test_label_studio_converts_the_tasks_to_images(tmp_path: Path) -> None:
    """`Converter` makes a PNG of each region of an export of annotations."""
    converter = package("label_studio_sdk.converter", "label-studio-sdk").Converter
    config = """<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">
      <Label value="disk"/><Label value="ring"/><Label value="squares"/></BrushLabels></View>"""
    tasks = json.loads(write("label_studio", tmp_path).read_text())
    for number, task in enumerate(tasks):
        (prediction,) = task.pop("predictions")
        task |= {"id": number, "annotations": [{"id": 10 + number, "completed_by": 1, "result": prediction["result"]}]}
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    (tmp_path / "out").mkdir()
    converter(config, str(tmp_path)).convert(
        str(tmp_path / "a.json"), str(tmp_path / "out"), "BRUSH_TO_PNG", is_dir=False
    )
    files = sorted((tmp_path / "out").glob("*.png"))
    assert 9 == len(files)
    for file in files:
        ids = masks()[int(file.name.split("-")[1])]
        object_id = next(
            each for label, each in {"disk": 3, "ring": 7, "squares": 12}.items() if f"-{label}-" in file.name
        )
        with Image.open(file) as image:
            assert np.array_equal(ids == object_id, np.array(image) > 0)


@pytest.mark.parametrize("format", ["mask_video", "matte"])
def test_opencv_reads_the_videos(format: str, tmp_path: Path) -> None:
    """`VideoCapture` gives the levels: ids, and white."""
    cv2 = pytest.importorskip("cv2")
    print(f"opencv {cv2.__version__}")
    capture = cv2.VideoCapture(str(write(format, tmp_path)))
    for ids in masks():
        there, picture = capture.read()
        assert there and np.array_equal(ids if format == "mask_video" else 255 * (ids > 0), picture[..., 0])
    assert not capture.read()[0]
