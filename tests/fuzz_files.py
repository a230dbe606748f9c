"""Damages structured files of all kinds that the library reads, and looks for errors that are not the library's own.

    python tests/fuzz_files.py --number 50000

Each case takes a file, such as a record, metadata or a configuration, changes it by a seeded generator, and reads it.
Fine is a result, or an error of `stmemory.errors`. A fault is any other error, more than ten seconds, more than four
GiB, or a file beside the folder of the case that is gone.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from PIL import Image
from tiny import boxes, clip, tiny_predictor

from stmemory import FusionCell, MemoryBank, StmemoryError, VOSPredictor, WeightsError
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.datasets import find_data_set
from stmemory.evaluation.metrics import ObjectScores, statistics
from stmemory.evaluation.protocol import ClipResult
from stmemory.evaluation.run_folder import RunFolder
from stmemory.evaluation.speed import compare_speed, read_speed
from stmemory.formats import CocoWriter, LabelStudioWriter, YouTubeVisWriter, YouTubeVosWriter, read_masks
from stmemory.io.grey import clip_frames
from stmemory.jobs.folder import TrackJob
from stmemory.jobs.record import check_folder, check_record
from stmemory.memory.policy import LearnedPolicy
from stmemory.prediction.config import PredictionConfig
from stmemory.prediction.datasets import MovingMnistFile
from stmemory.prediction.network import PredictionNetwork
from stmemory.prediction.train_config import PredictionTraining
from stmemory.training.config import TrainingConfig
from stmemory.training.data.folders import open_folder
from stmemory.training.data.material import Material, pack
from stmemory.training.export import read_about
from stmemory.training.run_state import Journal, find_start, write_state
from stmemory.weights import load_part, save_part
from stmemory.weights.card import card_text
from stmemory.weights.checkpoint import read_config
from stmemory.weights.pretrained import network_info
from stmemory.weights.tensors import load_bank, load_policy, save_bank, save_policy

SECONDS = 10  # that one case may take
BYTES = 4 * 2**30  # beyond what the process has before
DEPTHS = (50, 500, 50_000)
HOSTILE: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 2, 255, 256, 1.5, -0.5, 1e308, 5e-324),
    *(2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 10**5000),
    *(
        "",
        "x",
        "0",
        "1",
        "-1",
        "1e400",
        ".",
        "..",
        "../victim",
        "../../../victim",
        "a/../../victim",
        "C:\\victim",
        "a" * 300,
        "\0",
        "a\0b",
        "\n",
        "\ud800",
        "é",
    ),
    *([], {}, [[]], [None], [0], ["x"], {"x": 1}, [1] * 1000, float("nan"), float("inf"), float("-inf")),
)


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        name: of the kind.
        make: fills a folder, and gives the file in it that is damaged.
        read: reads it, from that folder.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], object]


@dataclass
class Report:
    """What came of the cases.

    Attributes:
        number: of cases.
        ends: how they ended, for each kind.
        faults: the faults and how often each was met, with the traceback's last line of the library.
    """

    number: int = 0
    ends: dict[str, Counter[str]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)


class _TooLong(BaseException):
    """A case took too long; no `except Exception` hides it."""


def written(path: Path, content: object) -> Path:
    """Write JSON or bytes, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=1).encode())
    return path


def picture(path: Path, value: int = 1) -> None:
    """Write a small mask, or the same as a frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.zeros((32, 48), np.uint8)
    ids[4:28, 4:28] = value
    Image.fromarray(ids).save(path)


def job(folder: Path) -> TrackJob:
    """A tracking job that was stopped."""
    return TrackJob(folder / "frames", folder / "first.png", folder / "out")


def job_record(folder: Path) -> Path:
    """Its record, with masks."""
    for name in ("00000", "00001"):
        picture(folder / "frames" / f"{name}.png")
        picture(folder / "out" / "masks" / f"{name}.png")
    picture(folder / "first.png")
    (folder / "out" / "state.safetensors").touch()
    record = {
        "format": "stmemory.job 1",
        "source": "frames",
        "mask_names": ["00000", "00001"],
        "frame_size": [32, 48],
        "first_frame": "0" * 64,
        "first_mask": "",
    }
    return written(folder / "out" / "job.json", record)


def read_job(folder: Path) -> None:
    """Look whether a job may go on or begin anew."""
    for resume in (True, False):
        check_folder(job(folder), resume=resume, force=not resume)
    check_record(
        job(folder),
        {"format": "stmemory.job 1", "frame_size": [32, 48], "first_frame": "0" * 64, "first_mask": ""},
    )


def walk(folder: Path) -> Clip:
    """A clip of one frame."""
    return Clip("walk", (folder / "frames" / "00000.png",), (folder / "frames" / "00000.png",), (None,))


RUN = {
    "format": "stmemory.evaluation 1",
    "source": "x",
    "data set": "folder",
    "options": {"memory_size": 5},
    "versions": {"torch": "2"},
    "clips": ["walk", "dog"],
}


def run_record(folder: Path) -> Path:
    """The record of an evaluation, with masks."""
    picture(folder / "frames" / "00000.png")
    for clip_name in ("walk", "dog"):
        picture(folder / "out" / "Annotations" / clip_name / "00000.png")
    return written(folder / "out" / "run.json", RUN)


def read_run(folder: Path) -> None:
    """Look whether an evaluation may go on."""
    wanted = {name: value for name, value in RUN.items() if name != "format"}
    RunFolder(folder / "out").check(wanted, resume=False, force=True)
    RunFolder(folder / "out").check(wanted, resume=True, force=False)


def begin_run(folder: Path) -> None:
    """Begin an evaluation anew, which deletes what the one before wrote."""
    RunFolder(folder / "out").begin({"clips": ["walk"]}, resume=False, force=True)


def clip_scores(folder: Path) -> Path:
    """The scores of a clip."""
    run_record(folder)
    scores = ObjectScores(1, statistics([0.5, 0.25]), statistics([0.5, 0.25]), (1, 2))
    RunFolder(folder / "out").finish(walk(folder), ClipResult("walk", (scores,), 2, 0.5, 32, 48))
    return folder / "out" / "clips" / "walk.json"


def read_scores(folder: Path) -> None:
    """Read the scores, and what is worked out from them."""
    result = RunFolder(folder / "out").result_of(walk(folder))
    if result is not None:
        str((result.region, result.boundary, result.frames_per_second))


def youtube(folder: Path) -> Path:
    """A `meta.json` of YouTube-VOS."""
    picture(folder / "valid" / "JPEGImages" / "walk" / "00000.png")
    picture(folder / "valid" / "Annotations" / "walk" / "00000.png")
    return written(
        folder / "valid" / "meta.json",
        {"videos": {"walk": {"objects": {"1": {"category": "dog", "frames": ["00000"]}}}}},
    )


def lvos(folder: Path) -> Path:
    """A `val_meta.json` of LVOS."""
    picture(folder / "val" / "JPEGImages" / "walk" / "00000.png")
    picture(folder / "val" / "Annotations" / "walk" / "00000.png")
    return written(
        folder / "val" / "val_meta.json",
        {"videos": {"walk": {"objects": {"1": {"frame_range": {"start": 0, "end": 5}}}}}},
    )


def davis(folder: Path) -> Path:
    """A list of DAVIS."""
    for part in ("JPEGImages", "Annotations"):
        for name in ("walk", "dogs"):
            picture(folder / part / "480p" / name / "00000.png")
    return written(folder / "ImageSets" / "2017" / "val.txt", b"walk\ndogs\n")


def read_davis_lists(folder: Path) -> None:
    """As data to measure on, and to learn from."""
    find_data_set("davis2017", folder)
    open_folder(folder, layout="davis", split="val").photo(0)


def coco(folder: Path) -> Path:
    """Masks as COCO."""
    with CocoWriter(folder / "a.json") as out:
        for ids in (boxes(1, 2), boxes(1)):
            out.add(ids.astype(np.int32))
    return folder / "a.json"


def youtube_vis(folder: Path) -> Path:
    """Masks as YouTube-VIS."""
    with YouTubeVisWriter(folder / "a.json") as out:
        for ids in (boxes(1, 2), boxes(1)):
            out.add(ids.astype(np.int32))
    return folder / "a.json"


def label_studio(folder: Path) -> Path:
    """Masks as Label Studio's tasks."""
    with LabelStudioWriter(folder / "a.json") as out:
        for ids in (boxes(1, 2), boxes(1)):
            out.add(ids.astype(np.int32))
    return folder / "a.json"


def reader_of(name: str, format: str) -> Callable[[Path], object]:
    """Reads all masks of a file, and gives them to the writer of another format."""

    def read(folder: Path) -> None:
        with YouTubeVosWriter(folder / "copy") as out:
            for frame, ids in read_masks(folder / name, format=format):
                out.add(ids, name=frame)

    return read


def other_videos(folder: Path) -> Path:
    """A `meta.json` with other videos, which a writer keeps."""
    return written(
        folder / "meta.json", {"videos": {"walk": {"objects": {"1": {"category": "dog", "frames": ["00000"]}}}}}
    )


def write_beside(folder: Path) -> None:
    """Write a video beside those."""
    with YouTubeVosWriter(folder, video="mine") as out:
        out.add(boxes(1).astype(np.int32))


def volume(folder: Path) -> Path:
    """Masks, or a grey clip, as an array."""
    np.save(folder / "a.npy", np.stack([boxes(1), boxes(2)]).astype(np.uint8))
    return folder / "a.npy"


def archive(folder: Path) -> Path:
    """Masks as an archive of arrays."""
    np.savez_compressed(folder / "a.npz", a=boxes(1), b=boxes(2))
    return folder / "a.npz"


def read_volume(folder: Path) -> None:
    """As masks, as frames, and as a data set."""
    for read in (
        lambda: list(read_masks(folder / "a.npy", format="volume")),
        lambda: list(clip_frames(folder / "a.npy")),
        lambda: MovingMnistFile(folder / "a.npy"),
    ):
        with suppress(StmemoryError):
            read()


def cell(folder: Path) -> Path:
    """The configuration of a fusion cell."""
    save_part(
        FusionCell(4),
        folder,
        about={"licence": "MIT", "metrics": [{"dataset": "DAVIS", "metric": "J&F", "value": 75.5}]},
    )
    return folder / "config.json"


def read_cell(folder: Path) -> None:
    """Load it, and write its card."""
    found = load_part(FusionCell, folder)
    card_text("fusion_cell", read_config(folder, "cell").about, name="cell")
    save_part(found, folder / "copy")


def predicting(folder: Path) -> Path:
    """The configuration of a network that predicts."""
    config = PredictionConfig(image_side=16, widths=(8,) * 6, key_channels=14, value_channels=4, fusion_bottleneck=0)
    PredictionNetwork(config).save_pretrained(folder)
    return folder / "config.json"


def network(folder: Path) -> Path:
    """The configuration of a segmentation network; its weights are not read."""
    import stmemory

    return Path(shutil.copy(Path(stmemory.__file__).parent / "bundled" / "lite" / "config.json", folder))


def read_network(folder: Path) -> None:
    """All but the tensors."""
    (folder / "model.safetensors").touch()
    network_info(folder)


def training(folder: Path) -> Path:
    """The configuration of a training run."""
    values = json.loads(TrainingConfig().to_json())
    values["sources"] = [{"root": "pictures", "layout": "stills"}]
    return written(folder / "a.json", values)


def comparing(folder: Path) -> Path:
    """The configuration of a comparison of networks that predict."""
    return written(folder / "a.json", PredictionTraining().to_json().encode())


def coco_pictures(folder: Path) -> Path:
    """A list of pictures to learn from."""
    picture(folder / "train2017" / "0.png")
    images = [{"id": 1, "file_name": "0.png", "height": 32, "width": 48}]
    box = [4, 4, 28, 4, 28, 28, 4, 28]
    annotations = [
        {"id": 1, "image_id": 1, "iscrowd": 0, "area": 576.0, "segmentation": [box]},
        {"id": 2, "image_id": 1, "iscrowd": 0, "segmentation": {"size": [32, 48], "counts": [100, 400, 1036]}},
    ]
    return written(folder / "annotations" / "instances_train2017.json", {"images": images, "annotations": annotations})


def log(folder: Path) -> Path:
    """The log of a training run."""
    written(folder / "skipped.txt", b"images/0.png: broken\n")
    return written(
        folder / "log.jsonl", b'{"step": 10, "loss": 0.5}\n{"step": 20, "loss": NaN}\n{"step": 30, "loss": 0.25}\n'
    )


def speed(folder: Path) -> Path:
    """The report of a speed benchmark."""
    stages = {
        stage: {"median": 0.1, "spread": 0.0, "operations": 10, "share_of_ceiling": 0.5}
        for stage in (*_stages(), "step")
    }
    here = {"commit": "a", "device": "cpu", "threads": 1, "torch": "2", "resolution": 480}
    case = {"stages": stages, "frames_per_second": 2.0}
    document = {
        "circumstances": here,
        "options": {"top_k": None},
        "dtype": "float32",
        "matrix_product_per_second": {"median": 3e11, "spread": 0.0},
        "cases": {"one": case},
    }
    return written(folder / "a.json", document)


def _stages() -> Sequence[str]:
    from stmemory.evaluation.stages import STAGES

    return STAGES


def read_speeds(folder: Path) -> None:
    """Compare it with itself."""
    found = read_speed(folder / "a.json")
    list(compare_speed(found, found))


def policy(folder: Path) -> Path:
    """A learned policy."""
    save_policy(LearnedPolicy(hidden=4), folder / "a.safetensors")
    return folder / "a.safetensors"


def bank(folder: Path) -> Path:
    """A memory bank."""
    full = MemoryBank(2)
    full.write(torch.rand(1, 4, 3, 3))
    save_bank(full, folder / "a.safetensors")
    return folder / "a.safetensors"


_PREDICTOR: list[VOSPredictor] = []


def predictor() -> VOSPredictor:
    """A small one, made once."""
    if not _PREDICTOR:
        _PREDICTOR.append(tiny_predictor())
    return _PREDICTOR[0]


def stream(folder: Path) -> Path:
    """A saved stream."""
    frame = clip(1)[0]
    predictor().start(frame, boxes(1).astype(np.int32)).save(folder / "a.safetensors")
    return folder / "a.safetensors"


def material(folder: Path) -> Path:
    """Packed pictures."""
    picture(folder / "in" / "images" / "0.png")
    picture(folder / "in" / "masks" / "0.png")
    pack(folder / "in", folder / "a.safetensors")
    return folder / "a.safetensors"


def state(folder: Path) -> Path:
    """The state of a training run."""
    write_state(
        folder / "state.pt", {"average": {"a": torch.zeros(2)}, "step": 3, "config": TrainingConfig().to_json()}
    )
    return folder / "state.pt"


def read_training_state(folder: Path) -> None:
    """To start another run from; its weights are of no network."""
    with suppress(WeightsError):
        find_start(folder / "state.pt", TrainingConfig())


TARGETS: tuple[Target, ...] = (
    Target("job.json", job_record, read_job),
    Target("run.json", run_record, read_run),
    Target("run.json, begun anew", run_record, begin_run),
    Target("clips/CLIP.json", clip_scores, read_scores),
    Target("meta.json", youtube, lambda folder: find_data_set("youtube2019", folder)),
    Target("val_meta.json", lvos, lambda folder: find_data_set("lvos1", folder)),
    Target("a DAVIS list", davis, read_davis_lists),
    Target("COCO", coco, reader_of("a.json", "coco")),
    Target("YouTube-VIS", youtube_vis, reader_of("a.json", "youtube_vis")),
    Target("masks in a .npz", archive, reader_of("a.npz", "volume")),
    Target("Label Studio", label_studio, reader_of("a.json", "label_studio")),
    Target("meta.json, written", other_videos, write_beside),
    Target(".npy", volume, read_volume),
    Target("config.json, cell", cell, read_cell),
    Target("config.json, prediction", predicting, lambda folder: PredictionNetwork.from_pretrained(folder)),
    Target("config.json, network", network, read_network),
    Target("training", training, lambda folder: TrainingConfig.load(folder / "a.json")),
    Target("comparison", comparing, lambda folder: PredictionTraining.load(folder / "a.json")),
    Target("COCO pictures", coco_pictures, lambda folder: open_folder(folder, layout="coco").photo(0)),
    Target("log.jsonl", log, lambda folder: Journal(folder, step=20).close()),
    Target(
        "about",
        lambda folder: written(folder / "a.json", {"licence": "MIT", "data": ["mine"]}),
        lambda folder: read_about(folder / "a.json"),
    ),
    Target("speed", speed, read_speeds),
    Target("policy", policy, lambda folder: load_policy(folder / "a.safetensors")),
    Target("bank", bank, lambda folder: load_bank(MemoryBank(2), folder / "a.safetensors")),
    Target("stream", stream, lambda folder: predictor().resume(folder / "a.safetensors")),
    Target("material", material, lambda folder: Material.load(folder / "a.safetensors").fingerprint),
    Target("state.pt", state, read_training_state),
)


def places_in(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in values of JSON."""
    yield at
    for key, inside in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places_in(inside, (*at, key))


def with_change(document: Any, draw: random.Random) -> Any:
    """The document with one value replaced, left out, doubled, renamed or put into lists."""
    document = json.loads(json.dumps(document))
    place = draw.choice(list(places_in(document)))
    if not place:
        return draw.choice(HOSTILE)
    *way, last = place
    inside = document
    for key in way:
        inside = inside[key]
    kind = draw.random()
    if kind < 0.6:
        inside[last] = draw.choice(HOSTILE)
    elif kind < 0.75:
        del inside[last]
    elif kind < 0.85 and isinstance(inside, dict):
        inside[draw.choice([value for value in HOSTILE if isinstance(value, str)])] = inside.pop(last)
    elif isinstance(inside, list):
        inside.extend([inside[last]] * draw.choice((1, 2, 100)))
    else:
        inside[last] = [inside[last]]
    return document


def as_text(document: Any, draw: random.Random) -> bytes:
    """JSON in some encoding; sometimes a value in it is nested deeply."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    text = json.dumps(document)
    sys.set_int_max_str_digits(limit)
    kind = draw.random()
    if kind < 0.1:
        depth = draw.choice(DEPTHS)
        begin, end = draw.choice((("[", "]"), ('{"a":', "}")))
        spots = [place for place, letter in enumerate(text) if letter in ":,"] or [len(text)]
        spot = draw.choice(spots)
        text = text[: spot + 1] + begin * depth + "1" + end * draw.choice((0, depth)) + text[spot + 1 :]
    if kind > 0.97:
        return text.encode(draw.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-le", "utf-7")), "replace")
    return text.encode()


def with_damage(content: bytes, draw: random.Random) -> bytes:
    """The bytes with some changed, cut out, repeated or added."""
    kind, size = draw.random(), len(content)
    first = draw.randrange(size + 1)
    last = min(size, first + draw.choice((1, 2, 8, 64, size)))
    if kind < 0.4:
        changed = bytearray(content)
        for _ in range(draw.choice((1, 1, 2, 8))):
            if changed:
                changed[draw.randrange(size)] = draw.randrange(256)
        return bytes(changed)
    if kind < 0.55:
        return content[:first]
    if kind < 0.7:
        return content[:first] + content[last:]
    if kind < 0.85:
        return content[:last] + content[first:last] * draw.choice((1, 3)) + content[last:]
    return (
        content[:first]
        + draw.choice((b"\0", b"\xff", b"\xed\xa0\x80", b'"', b"[" * 2000, b"9" * 5000, b"-", b"\n", b"NaN"))
        + content[first:]
    )


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A damaged file of the same kind: by its structure where it is JSON or has a header of JSON, else by its bytes."""
    if draw.random() < 0.3:
        return with_damage(content, draw)
    try:
        return as_text(with_change(json.loads(content), draw), draw)
    except (ValueError, RecursionError):
        pass
    if len(content) > 9 and content[8:9] == b"{":  # safetensors
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        about = header.get("__metadata__", {})
        if "about" in about and draw.random() < 0.6:
            about["about"] = as_text(with_change(json.loads(about["about"]), draw), draw).decode("utf-8", "replace")
        else:
            header = with_change(header, draw)
        text = as_text(header, draw)
        return struct.pack("<Q", len(text)) + text + content[8 + length :]
    return with_damage(content, draw)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End what takes too long, where the platform has such a signal."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(target: Target, folder: Path) -> tuple[str, str]:
    """How reading ended, in a word, and what is wrong with that; nothing if nothing is."""
    try:
        with limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(folder)
    except StmemoryError as error:
        return type(error).__name__, "" if len(
            str(error)
        ) < 20_000 else f"{target.name}: a message of {len(str(error))} letters"
    except _TooLong:
        return "too long", f"{target.name}: more than {SECONDS} s"
    except (Exception, SystemExit) as error:
        inside = [
            f"{Path(one.filename).name}:{one.lineno}"
            for one in traceback.extract_tb(error.__traceback__)
            if "stmemory" in one.filename
        ]
        return "raw", f"{target.name}: {type(error).__name__} at {inside[-1] if inside else '?'}: {str(error)[:60]!r}"
    return "read", ""


def fuzz(number: int, *, seed: int = 0, targets: Sequence[Target] = TARGETS) -> Report:
    """Run cases, the same number of each kind.

    Args:
        number: of cases, all kinds together.
        seed: equal ones give equal cases.
        targets: the kinds.
    """
    report = Report(ends={target.name: Counter() for target in targets})
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        seeds = {}
        for target in targets:
            made = root / "seeds" / str(len(seeds))
            made.mkdir(parents=True)
            seeds[target.name] = (made, target.make(made).relative_to(made))
        for case in range(number):
            target = targets[case % len(targets)]
            made, name = seeds[target.name]
            outside = root / "outside"
            folder = outside / "1" / "2" / "3" / "4" / "case"
            shutil.copytree(made, folder)
            victims = [
                written(parent / "victim" / "photo.txt", b"years of work") for parent in (folder, *folder.parents[:5])
            ]
            (folder / name).write_bytes(mutated((made / name).read_bytes(), random.Random(f"{seed} {case}")))
            end, fault = outcome(target, folder)
            if not all(victim.exists() for victim in victims):
                fault = f"{target.name}: a file beside was deleted"
            report.number += 1
            report.ends[target.name][end] += 1
            if fault:
                report.faults[fault] += 1
            shutil.rmtree(outside)
    return report


def table(ends: Mapping[str, Counter[str]]) -> Iterator[str]:
    """How the cases of each kind ended, as lines."""
    kinds = list(dict.fromkeys(kind for counts in ends.values() for kind in counts))
    yield f"{'':<26}" + "".join(f"{kind:>14}" for kind in kinds)
    for name, counts in ends.items():
        yield f"{name:<26}" + "".join(f"{counts[kind]:>14}" for kind in kinds)


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, resource.RLIM_INFINITY))


def main() -> int:
    """Run as many cases as are asked for, and say what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=50_000, help="of cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="kinds whose names hold this text")
    parser.add_argument("--skip", help="leave out kinds whose names hold this text")
    options = parser.parse_args()
    targets = [
        t
        for t in TARGETS
        if (not options.only or options.only in t.name) and not (options.skip and options.skip in t.name)
    ]
    predictor()
    _limit_memory()
    report = fuzz(options.number, seed=options.seed, targets=targets)
    print("\n".join(table(report.ends)))
    for fault, count in report.faults.most_common():
        print(f"{count:>6} {fault}")
    print(f"{report.number} cases, {sum(report.faults.values())} faults")
    return int(bool(report.faults))


if __name__ == "__main__":
    sys.exit(main())
