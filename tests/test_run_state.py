"""Facts about what a run resumes with: its window, its state, what it says of earlier versions' states and of damaged
ones."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import TINY, pack_tiny, save_still
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from stmemory.errors import OptionError, WeightsError
from stmemory.training.config import Phase, Source, TrainingConfig
from stmemory.training.data.material import Material, pack
from stmemory.training.distributed import World
from stmemory.training.loader import Batch
from stmemory.training.loop import Trainer, Validation, validate
from stmemory.training.run_state import read_state, write_state

THREES = dataclasses.replace(TINY, phases=tuple(dataclasses.replace(phase, steps=3) for phase in TINY.phases))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny material in a file."""
    return pack_tiny(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def material(packed: Path) -> Material:
    """The same, loaded."""
    return Material.load(packed)


def log_of(out: Path) -> list[dict[str, float]]:
    """The lines of a log."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that learn nothing and take 0.5 s by a clock of ours, and validations that take 100."""
    now = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    def train_step(
        self: Trainer, batch: Batch, phase: Phase, *, predict: bool = False
    ) -> tuple[dict[str, float], Tensor | None]:
        pass_time(0.5)
        self.step += 1
        return {"cross_entropy": 1.0, "dice": 2.0, "norm": 3.0}, None

    def validated(*_: object, **__: object) -> Validation:
        pass_time(100)
        return Validation(0.5)

    monkeypatch.setattr("stmemory.training.run.perf_counter", lambda: now)
    monkeypatch.setattr(Trainer, "train_step", train_step)
    monkeypatch.setattr("stmemory.training.loop.validate", validated)


@pytest.mark.usefixtures("half_a_second")
def test_the_log_says_how_long_a_step_took(material: Material, tmp_path: Path) -> None:
    """Seconds a step are those of steps alone, in lines that span an interruption and a validation."""
    config = dataclasses.replace(THREES, validate_every=5, validation_clips=1)
    for until in (1, 6):
        trainer = Trainer(config, material, tmp_path, workers=0)
        trainer.resume()
        for _ in trainer.run(log_every=2, until=until):
            pass

    assert [0.5] * 4 == [record["seconds"] for record in log_of(tmp_path) if "seconds" in record]


@pytest.mark.usefixtures("half_a_second")
@pytest.mark.parametrize(
    "stops", [(6,), (1, 2, 3, 4, 5, 6), (2, 5, 6)], ids=["in one go", "at every step", "in the phases"]
)
def test_each_step_is_in_one_line_of_the_log(stops: tuple[int, ...], material: Material, tmp_path: Path) -> None:
    """The last steps of a phase and of the run too, and where a run is interrupted makes no line."""
    for until in stops:
        trainer = Trainer(THREES, material, tmp_path, workers=0)
        trainer.resume()
        for _ in trainer.run(until=until):
            pass

    assert [(3, 0), (6, 1)] == [(record["step"], record["phase"]) for record in log_of(tmp_path)]
    assert [1.0] * 2 == [record["cross_entropy"] for record in log_of(tmp_path)]


def test_states_of_earlier_versions_are_gone_on_from(material: Material, tmp_path: Path) -> None:
    """A state without seconds, and without the phase of its plateau, gives the same log as one with them, and seconds
    of the steps since."""
    config = dataclasses.replace(TINY, schedule="plateau", validate_every=1, validation_clips=1, learning_rate=1e-12)
    logs = []
    for name in ("now", "earlier"):
        out = tmp_path / name
        for _ in Trainer(config, material, out, workers=0).run(log_every=2, until=1):
            pass
        if name == "earlier":
            state = read_state(out / "state.pt")
            state["window"] = {
                key: state["window"][key] for key in ("cross_entropy", "dice", "scores", "norm", "lost", "steps")
            }
            state["plateau"] = {"best": state["plateau"]["best"], "drops": float(state["plateau"]["drops"])}
            write_state(out / "state.pt", state)
        again = Trainer(config, material, out, workers=0)
        assert again.resume()
        for _ in again.run(log_every=2):
            pass
        logs.append(log_of(out))

    assert all(record.pop("seconds") > 0 for log in logs for record in log if "seconds" in record)
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "damaged or foreign"),
        (b"{}", "damaged or foreign"),
        ([1, 2], "without average"),
        ({"average": {}}, "without network"),
        (5000, "damaged or foreign"),
    ],
    ids=["missing", "empty", "JSON", "a list", "another state", "cut short"],
)
def test_a_state_that_cannot_be_read_is_told(
    content: bytes | dict[str, Any] | list[int] | int | None, said: str, tmp_path: Path
) -> None:
    """Missing, damaged and foreign states are errors that name the file and what is wrong with it."""
    path = tmp_path / "state.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict | list):
        torch.save(content, path)
    elif content is not None:
        write_state(path, {"average": {"weight": torch.ones(5000)}})
        path.write_bytes(path.read_bytes()[:content])
    with pytest.raises(WeightsError, match=rf"state\.pt: expected the state.*{said}"):
        read_state(path, needs=("average", "network"))


def killed_and_whole(config: TrainingConfig, out: Path, *, tensorboard: bool = False) -> None:
    """A run in `out/whole`, and in `out/killed` one that dies after four steps, of which two are saved, and is begun
    again."""

    def run(name: str) -> Trainer:
        trainer = Trainer(config, None, out / name, workers=0)
        trainer.resume()
        return trainer

    for _ in run("whole").run(log_every=1, save_every=2, tensorboard=tensorboard):
        pass
    dying = run("killed")
    for record in dying.run(log_every=1, save_every=100, tensorboard=tensorboard):
        if record["step"] == 2:
            dying.save()
        if record["step"] == 4:
            break
    for _ in run("killed").run(log_every=1, tensorboard=tensorboard):
        pass


@pytest.fixture
def bad_folder(tmp_path: Path) -> TrainingConfig:
    """Seven steps on pictures of which half have empty masks."""
    for number in range(24):
        save_still(tmp_path / "data", str(number), seed=number)
    for number in range(12):
        Image.new("L", (80, 64)).save(tmp_path / "data" / "masks" / f"{number}.png")
    phase = Phase(steps=7, size=32, frames=5, batch=1, capacity=3, frozen=6)
    return TrainingConfig(sources=(Source(str(tmp_path / "data")),), phases=(phase,), warmup=1)


def test_the_log_of_a_killed_run_is_that_of_a_whole_one(bad_folder: TrainingConfig, tmp_path: Path) -> None:
    """Lines of steps that were not saved are written once, and bad files count from the step that met them, as in one
    go."""
    killed_and_whole(bad_folder, tmp_path)
    whole, killed = log_of(tmp_path / "whole"), log_of(tmp_path / "killed")

    assert [record["skipped"] for record in whole][1] < [record["skipped"] for record in whole][
        3
    ]  # else nothing could differ
    assert [{**record, "seconds": 0} for record in whole] == [{**record, "seconds": 0} for record in killed]
    assert (tmp_path / "whole" / "skipped.txt").read_text() == (tmp_path / "killed" / "skipped.txt").read_text()


def test_tensorboard_of_a_killed_run_has_each_step_once(bad_folder: TrainingConfig, tmp_path: Path) -> None:
    """What was written of steps that are done again is dropped."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed_and_whole(bad_folder, tmp_path, tensorboard=True)
    for name in ("whole", "killed"):
        events = EventAccumulator(str(tmp_path / name))
        events.Reload()
        assert list(range(1, 8)) == [event.step for event in events.Scalars("norm")]


def test_a_state_that_does_not_say_what_was_skipped_leaves_the_list(bad_folder: TrainingConfig, tmp_path: Path) -> None:
    """States of earlier versions go on with what `skipped.txt` says."""
    out = tmp_path / "run"
    for _ in Trainer(bad_folder, None, out, workers=0).run(until=5):
        pass
    before, state = (out / "skipped.txt").read_text(), read_state(out / "state.pt")
    del state["skipped"]
    write_state(out / "state.pt", state)
    again = Trainer(bad_folder, None, out, workers=0)
    assert again.resume()
    for _ in again.run(until=6):
        pass

    assert (out / "skipped.txt").read_text().startswith(before)
    assert before.splitlines() == read_state(out / "state.pt")["skipped"][: len(before.splitlines())]


def test_a_run_does_not_go_on_with_other_material(packed: Path, material: Material, tmp_path: Path) -> None:
    """Material with another picture, or none, is refused; the same one from another file is not, nor by states that
    name none."""
    shutil.copytree(packed.parent, tmp_path / "more")
    save_still(tmp_path / "more" / "things", "3", seed=3)
    pack(tmp_path / "more", tmp_path / "more.safetensors")
    shutil.copy(packed, tmp_path / "moved.safetensors")
    more, moved = (Material.load(tmp_path / f"{name}.safetensors") for name in ("more", "moved"))
    config = dataclasses.replace(TINY, sources=(Source(str(tmp_path / "more" / "things")),))
    out = tmp_path / "run"
    Trainer(config, material, out, workers=0).save()

    assert material.fingerprint == moved.fingerprint != more.fingerprint
    assert Trainer(config, moved, out, workers=0).resume()
    for other in (more, None):
        with pytest.raises(OptionError, match=r"state\.pt: cannot resume another run: material was"):
            Trainer(config, other, out, workers=0).resume()
    state = read_state(out / "state.pt")
    del state["material"]
    write_state(out / "state.pt", state)
    assert Trainer(config, more, out, workers=0).resume()


@pytest.mark.parametrize("change", ["blobs", "offsets", "table", "names"])
def test_a_fingerprint_sees_every_part_of_the_material(
    change: str, packed: Path, material: Material, tmp_path: Path
) -> None:
    """One other byte of a picture, one moved border, one other kind or name make another fingerprint."""
    tensors = load_file(packed)
    if change == "offsets":
        tensors[change][int(tensors[change].diff().argmax())] += 1
    else:
        tensors[change].view(-1)[1 if change == "table" else -1] ^= 1
    save_file(tensors, tmp_path / "other.safetensors")

    assert material.fingerprint != Material.load(tmp_path / "other.safetensors").fingerprint


def test_a_new_phase_begins_a_new_plateau(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer clips are harder: the first error of a phase is compared with none, those after it with the best of the
    phase."""
    errors = iter([0.3, 0.2, 0.9, 0.8])
    monkeypatch.setattr("stmemory.training.loop.validate", lambda *_, **__: Validation(next(errors)))
    config = dataclasses.replace(TINY, schedule="plateau", validate_every=1, warmup=0)
    rates = []
    for until in (1, 2, 3, 4):
        trainer = Trainer(config, material, tmp_path, workers=0)
        trainer.resume()
        rates += [record["rate"] for record in trainer.run(log_every=1, until=until)]

    assert [config.learning_rate] * 4 == rates


class Counting(World):
    """One process that counts how often all would have met to tell of bad files."""

    def __init__(self) -> None:
        super().__init__()
        self.met = 0

    def gather(self, lines: Sequence[str]) -> list[str]:
        """See `World.gather`."""
        self.met += 1
        return super().gather(lines)


def test_processes_meet_when_there_is_something_to_write(bad_folder: TrainingConfig, tmp_path: Path) -> None:
    """Bad files are told at lines of the log and at states, and none of those between is lost."""
    world, out = Counting(), tmp_path / "run"
    for _ in Trainer(bad_folder, None, tmp_path / "each", workers=0).run(log_every=1):
        pass
    for _ in Trainer(bad_folder, None, out, workers=0, world=world).run(log_every=4, save_every=3):
        pass

    assert 4 == world.met  # after steps 3, 4, 6 and 7
    assert (tmp_path / "each" / "skipped.txt").read_text() == (out / "skipped.txt").read_text() != ""


def test_bad_files_of_validation_are_named(bad_folder: TrainingConfig, tmp_path: Path) -> None:
    """What could not be used for its clips is in the list and in the count; of 84 pictures, some that are held out are
    bad."""
    for number in range(24, 84):
        save_still(tmp_path / "data", str(number), seed=number)
        if number % 2:
            Image.new("L", (80, 64)).save(tmp_path / "data" / "masks" / f"{number}.png")
    config = dataclasses.replace(bad_folder, validate_every=1, validation_clips=4)
    trainer = Trainer(config, None, tmp_path / "run", workers=0)
    phase = config.phases[0]
    met = validate(trainer.learner, trainer.sources.clips(phase, validation=True), phase).skipped
    records = list(trainer.run(until=1))
    lines = (tmp_path / "run" / "skipped.txt").read_text().splitlines()

    assert len(met) > 0 and set(met) <= set(lines)
    assert len(lines) == records[-1]["skipped"]
