"""Facts about the commands of training: bad input is a sentence and exit code 2, before any work; what is written is
whole."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
from pictures import TINY, pack_tiny, save_still
from PIL import Image

from stmemory.cli import main as command_line
from stmemory.errors import OptionError
from stmemory.training.__main__ import main
from stmemory.training.config import Source
from stmemory.training.data.material import Material, PackReport, pack
from stmemory.training.distributed import World


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, material, a file, a folder, and runs that were not begun or are damaged."""
    folder = tmp_path_factory.mktemp("commands")
    pack_tiny(folder / "pictures")
    for name in ("", "unbegun", "damaged"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(TINY.to_json())
    (folder / "damaged" / "state.pt").write_bytes(b"PK\x03\x04 and no more")
    (folder / "file").write_text("mine")
    (folder / "list.json").write_text("[1]")
    return folder


BAD = {
    "export before the first state": (
        "export unbegun weights",
        "unbegun/state.pt: expected the state of a run, got no such file",
    ),
    "export of a damaged state": (
        "export damaged weights",
        "damaged/state.pt: expected the state.pt of a run, got a damaged",
    ),
    "export into a file": ("export damaged file", "expected a folder"),
    "no such about": ("export damaged weights --about none.json", "none.json: expected a JSON object"),
    "about is no JSON": ("export damaged weights --about file", "file: expected a JSON object"),
    "about is a list": ("export damaged weights --about list.json", "list.json: expected a JSON object"),
    "no clips": ("clips config.json MATERIAL clips.png --number 0", "1 or more, got '0'"),
    "clips onto a folder": ("clips config.json MATERIAL unbegun", "expected a file to write to, got the folder"),
    "clips on no device": ("clips config.json MATERIAL clips.png --device nowhere", "device: expected one of cpu"),
    "pack onto a folder": ("pack pictures unbegun", "expected a file to write to, got the folder"),
    "pack into a file": ("pack pictures file/packed.safetensors", "file' is a file"),
    "run into a file": ("run config.json MATERIAL file", "expected a folder"),
    "run on no device": ("run config.json MATERIAL run --device nowhere", "device: expected one of cpu"),
    "run on a GPU that is not there": ("run config.json MATERIAL run --device cuda:99", "device: expected one of cpu"),
    "fewer than no workers": ("run config.json MATERIAL run --workers -1", "0 or more, got '-1'"),
    "fewer than no threads": ("run config.json MATERIAL run --threads -1", "0 or more, got '-1'"),
    "until no step": ("run config.json MATERIAL run --until 0", "1 or more, got '0'"),
    "no configuration": (
        "run - config.json run",
        "config: expected a JSON file, see TrainingConfig, got '-'; the order is CONFIG MATERIAL OUT",
    ),
    "material in the first place": (
        "run MATERIAL config.json run",
        "config: expected a JSON file, see TrainingConfig, got 'pictures/material.safetensors'",
    ),
    "clips of the wrong order": (
        "clips MATERIAL config.json clips.png",
        "config: expected a JSON file, see TrainingConfig, got 'pictures/material.safetensors'",
    ),
    "configurations in both places": (
        "run config.json config.json run",
        "material: expected a file that pack wrote, or -, got 'config.json'",
    ),
    "a folder for material": (
        "run config.json pictures run",
        "got the folder 'pictures'; name it in sources of the configuration, and give - here",
    ),
    "begin with the folder of a run": (
        "run config.json MATERIAL run --init damaged",
        "got the folder of a run: give damaged/state.pt",
    ),
    "resume from a damaged state": (
        "run config.json MATERIAL damaged",
        "damaged/state.pt: expected the state.pt of a run",
    ),
    "begin with a damaged state": (
        "run config.json MATERIAL run --init damaged/state.pt",
        "damaged/state.pt: expected the state.pt of a run",
    ),
    "predict on no device": ("predict run config.json -o run --device nowhere", "device: expected one of cpu"),
    "report on no device": ("predict report run -o report --device nowhere", "device: expected one of cpu"),
    "predict on fewer than no threads": ("predict run config.json -o run --threads -1", "0 or more, got '-1'"),
    "predict export into a file": ("predict export run ours file", "expected a folder"),
}


@pytest.mark.parametrize(("line", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_told(
    line: str, said: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and what is wrong, with no traceback, and nothing is left behind."""
    monkeypatch.chdir(place)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    try:
        code: object = main([word.replace("MATERIAL", "pictures/material.safetensors") for word in line.split()])
    except SystemExit as end:  # arguments that argparse refuses
        code = end.code

    assert 2 == code
    assert said in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}


def test_the_module_is_another_name_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m stmemory.training` and `stmemory train` say and return the same."""
    line = ["export", "no/such/run", "weights"]
    assert (main(line), capsys.readouterr()) == (command_line(["train", *line]), capsys.readouterr())


def test_clips_are_written_into_a_new_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the picture is made, and the picture has the format of its name."""
    monkeypatch.chdir(place)
    assert 0 == main(["clips", "config.json", "pictures/material.safetensors", "new/clips.webp", "--number", "1"])
    with Image.open("new/clips.webp") as sheet:
        assert "WEBP" == sheet.format


def test_a_run_says_where_it_ended(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--until` ends it, saved, with exit code 0; a run that is finished says what to do next, also when it is run
    again."""
    monkeypatch.chdir(place)
    command = ["run", "config.json", "pictures/material.safetensors", "short", "--imagenet", "none", "--workers", "0"]
    last = [main([*command, *more]) or capsys.readouterr().out.splitlines()[-1] for more in (["--until", "1"], [], [])]

    done = "step 4 of 4: done; stmemory train export short WEIGHTS"
    assert ["step 1 of 4: saved; the same command without --until goes on", done, done] == last
    assert [2, 4] == [json.loads(line)["step"] for line in Path("short/log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("device", ["cuda:1", "cuda", "nowhere"])
def test_processes_on_one_gpu_are_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU for all of several processes, more processes than GPUs, and no device are errors before the processes
    meet."""
    monkeypatch.setenv("WORLD_SIZE", "200")
    monkeypatch.setenv("LOCAL_RANK", "199")
    with pytest.raises(OptionError, match="device: expected"):
        World.from_environment(device)


def test_packing_has_one_set_of_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command packs as the function does."""
    given: dict[str, object] = {}

    def packing(*_: object, **options: object) -> PackReport:
        given.update(options)
        return PackReport({}, 0, ())

    monkeypatch.setattr("stmemory.training.data.material.pack", packing)
    assert 0 == main(["pack", "root", "out"])
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(pack).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }

    assert {**defaults, "drawn": []} == given


def test_packing_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words, with what was skipped; names of drawn folders may stand before or after the others, once or
    together."""
    save_still(tmp_path / "photos", "a")
    save_still(tmp_path / "emoji", "a")
    save_still(tmp_path / "clip art", "a")
    (tmp_path / "photos" / "images" / "b.jpg").write_bytes(b"no")
    root, out = str(tmp_path), str(tmp_path / "m.safetensors")
    for line in (["--drawn=emoji", root, "--drawn=clip art", out], [root, out, "--drawn", "emoji", "clip art"]):
        assert 1 == main(["pack", *line])
        said = capsys.readouterr().out.splitlines()

        assert ["skipped photos/images/b.jpg: no mask b.png in masks/", f"3 photos packed into {out}"] == [
            said[0],
            said[1].split(",")[0],
        ]
        assert said[1].endswith(" MB; files skipped: 1")
        assert [True, True, False] == [item.drawn for item in Material.load(out).items]


def test_clips_name_a_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many clips it was drawn for."""
    for name in "ab":
        save_still(tmp_path / "stills", name)
    (tmp_path / "stills" / "masks" / "a.png").write_bytes(b"no")
    config = dataclasses.replace(TINY, sources=(Source(str(tmp_path / "stills"), "stills"),))
    (tmp_path / "config.json").write_text(config.to_json())
    monkeypatch.chdir(tmp_path)

    assert 1 == main(["clips", "config.json", "-", "clips.png", "--number", "8"])
    assert 1 == capsys.readouterr().out.count("skipped ")
