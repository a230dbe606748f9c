"""Facts about folders of runs: what is in one is never another's, and one process at a time trains into it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import TINY, pack_tiny
from tiny import tiny_network

from stmemory.io.run_folder import held
from stmemory.prediction.train_config import PredictionTraining
from stmemory.training.__main__ import main
from stmemory.training.config import TrainingConfig
from stmemory.training.data.material import Material
from stmemory.training.loop import Trainer
from stmemory.weights import save_network


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny material in a file."""
    return pack_tiny(tmp_path_factory.mktemp("material"))


@pytest.fixture
def command(packed: Path, tmp_path: Path) -> list[str]:
    """A run of the command, into the folder `run`, that needs no ImageNet weights."""
    (tmp_path / "tiny.json").write_text(TINY.to_json())
    return [
        "run",
        str(tmp_path / "tiny.json"),
        str(packed),
        str(tmp_path / "run"),
        "--imagenet",
        "none",
        "--workers",
        "0",
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_weights_do_not_replace_a_run(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run exported onto itself, or onto one without a state, or a comparison onto itself is refused, and stays."""
    run, unbegun, comparison = (tmp_path / name for name in ("run", "unbegun", "comparison"))
    Trainer(TINY, Material.load(packed), run, workers=0).save()
    for folder, config in ((unbegun, TINY), (comparison, PredictionTraining()), (run, TINY)):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(config.to_json())
    before = [contents(folder) for folder in (run, unbegun, comparison)]

    assert [2, 2, 2] == [
        main(["export", str(run), str(run)]),
        main(["export", str(run), str(unbegun)]),
        main(["predict", "export", str(comparison), "ours", str(comparison)]),
    ]
    assert 3 == capsys.readouterr().err.count("expected a folder for weights, got that of a run")
    assert before == [contents(folder) for folder in (run, unbegun, comparison)]


def test_a_run_does_not_replace_weights(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of exported weights is refused by both trainings, and stays."""
    save_network(tiny_network(), tmp_path / "run")
    (tmp_path / "comparison.json").write_text(PredictionTraining().to_json())
    before = contents(tmp_path / "run")

    assert 2 == main(command)
    assert 2 == main(["predict", "run", str(tmp_path / "comparison.json"), "-o", str(tmp_path / "run")])
    assert 2 == capsys.readouterr().err.count("expected a folder for a run, got one of exported weights")
    assert before == contents(tmp_path / "run")


def test_export_tells_the_configuration_of_the_state(packed: Path, tmp_path: Path) -> None:
    """What `about.training` says is what the state was trained with, whatever became of `config.json`; without it
    too."""
    run = tmp_path / "run"
    Trainer(TINY, Material.load(packed), run, workers=0).save()
    assert 0 == main(["export", str(run), str(tmp_path / "without")])
    (run / "config.json").write_text(dataclasses.replace(TINY, learning_rate=5.0).to_json())
    assert 0 == main(["export", str(run), str(tmp_path / "with")])

    for name in ("without", "with"):
        told = json.loads((tmp_path / name / "config.json").read_text())["about"]["training"]["config"]
        assert json.loads(TINY.to_json()) == told


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            dataclasses.replace(TINY, seed=9).to_json(),
            "cannot resume another run: seed was 9, is 0; there is no state yet",
        ),
        (PredictionTraining().to_json(), "expected the configuration of this run, got another file"),
        ("mine", "expected the configuration of this run, got another file"),
        ("", "expected the configuration of this run, got another file"),
    ],
    ids=["another run", "a comparison", "no JSON", "empty"],
)
def test_a_run_without_a_state_is_not_taken_over(
    content: str, said: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The `config.json` that is there counts from the first moment on; it and the log stay."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(content)
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 10}\n')
    before = contents(tmp_path / "run")

    assert 2 == main(command)
    assert said in capsys.readouterr().err
    assert before == contents(tmp_path / "run")


def test_a_run_without_a_state_begins_again(command: list[str], tmp_path: Path) -> None:
    """With the configuration that it began with, but for how often it is saved, it goes on."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(dataclasses.replace(TINY, save_every=7).to_json())

    assert 0 == main(command)
    assert TINY == TrainingConfig.load(tmp_path / "run" / "config.json")


HOLDS = """
import sys
from pathlib import Path

from stmemory.io.run_folder import held

with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_train_into_one_folder(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second is told, by the name of the folder, and changes nothing; when the first is killed, the folder is
    free."""
    pytest.importorskip("fcntl")
    run = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(run)], env=environment, text=True, **pipes) as holder:
        assert holder.stdout is not None
        assert "held\n" == holder.stdout.readline()
        assert 2 == main(command)
        assert f"{run}: expected a folder that no other run writes into" in capsys.readouterr().err
        assert [".lock"] == list(contents(run))
        holder.kill()
    with held(run):
        pass

    assert [] == list(run.iterdir())


def test_a_run_leaves_no_lock(command: list[str], tmp_path: Path) -> None:
    """What it held is gone at its end."""
    assert 0 == main(command)

    assert ".lock" not in contents(tmp_path / "run")


def test_a_platform_without_locks_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no `fcntl`, nothing is held."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with held(tmp_path / "run"):
        assert not (tmp_path / "run").exists()
