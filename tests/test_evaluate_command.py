"""`stmemory evaluate`, end to end with a tiny network: what it writes, how it is spread, and what an interruption
leaves."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import CASES, FRAMES, Case, annotation_of, case_id, frames_of, write_data_set
from PIL import Image
from tiny import tiny_network

from stmemory.cli import main
from stmemory.errors import OptionError
from stmemory.evaluation.report import TABLES
from stmemory.evaluation.run_folder import RunFolder
from stmemory.evaluation.workers import ClipUpdate, Setup, evaluate_in_processes
from stmemory.options import TrackingOptions
from stmemory.weights import save_network
from stmemory.weights.pretrained import fingerprint, load_network

DAVIS = CASES[2]
CLIPS = ("fall", "jump", "run", "swim", "walk")
PAGE = ["page"] if importlib.util.find_spec("matplotlib") else []  # drawn where matplotlib is installed


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a tiny network's weights."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    save_network(tiny_network(), folder)
    return folder


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DAVIS 2017 val of five clips of twelve frames."""
    return write_data_set(DAVIS, tmp_path_factory.mktemp("davis"), clips=CLIPS)


@pytest.fixture
def command(weights: Path, davis: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments that evaluate the clips into `tmp_path / out`."""

    def arguments(*more: str, clips: tuple[str, ...] = (), root: Path = davis) -> list[str]:
        how = ("--weights", str(weights), "--write-gate", "0", "--reach", "none")
        return ["evaluate", "davis2017", *clips, "--root", str(root), "-o", str(tmp_path / "out"), *how, *more]

    return arguments


@pytest.fixture(scope="module")
def whole(weights: Path, davis: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run in one go."""
    out = tmp_path_factory.mktemp("whole") / "out"
    how = ("--weights", str(weights), "--write-gate", "0", "--reach", "none")
    assert 0 == main(["evaluate", "davis2017", "--root", str(davis), "-o", str(out), *how])
    return out


def tables(out: Path) -> list[bytes]:
    """The tables' bytes."""
    return [(out / name).read_bytes() for name in TABLES]


def masks(out: Path) -> dict[str, bytes]:
    """All masks' bytes, by clip and name."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes() for path in sorted((out / "Annotations").rglob("*.png"))
    }


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Run the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "stmemory", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_the_folder_holds_masks_tables_and_a_report(whole: Path) -> None:
    """Every frame has a palette mask by its name; the report says what was measured with what."""
    assert sorted(["Annotations", "clips", "report.json", "run.json", *TABLES, *PAGE]) == sorted(
        p.name for p in whole.iterdir()
    )
    assert {f"Annotations/{clip}/{index:05d}.png" for clip in CLIPS for index in range(FRAMES)} == set(masks(whole))
    with Image.open(whole / "Annotations" / "walk" / "00007.png") as image:
        assert ("P", (56, 40)) == (image.mode, image.size)
    report = json.loads((whole / "report.json").read_text())
    assert (torch.__version__, 480, None) == tuple(
        report["circumstances"][key] for key in ("torch", "resolution", "seed")
    )
    assert ("davis2017", "val", 16) == (report["data set"], report["split"], len(report["weights"]["fingerprint"]))
    assert {"commit", "stmemory", "device"} <= set(report["circumstances"]) and 5 == report["options"]["memory_size"]
    assert (5, 10, {}) == (report["summary"]["clips"], report["summary"]["objects"], report["skipped"])
    assert list(range(1, FRAMES - 1)) == report["clips"][0]["objects"][0]["frames"]
    rows = (whole / TABLES[1]).read_text().splitlines()
    assert list(CLIPS) == [row.split(",")[0] for row in rows[1:]] and len({row.split(",", 1)[1] for row in rows}) == 6


def test_scoring_the_folder_gives_its_own_scores(whole: Path, davis: Path, tmp_path: Path) -> None:
    """`stmemory score` of the written masks gives the same tables, byte for byte."""
    assert 0 == main(["score", str(whole), "davis2017", "--root", str(davis), "-o", str(tmp_path / "score")])
    assert tables(whole) == tables(tmp_path / "score")


@pytest.mark.slow
def test_processes_give_the_same(command: Callable[..., list[str]], whole: Path, tmp_path: Path) -> None:
    """Spread over two processes, tables and masks are those of one, byte for byte."""
    assert 0 == main(command("--jobs", "2", "--device", "cpu,cpu", "--threads", "1"))
    assert (tables(whole), masks(whole)) == (tables(tmp_path / "out"), masks(tmp_path / "out"))


@pytest.mark.slow
def test_the_report_has_the_threads_of_the_processes(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not those of the process that waits for them; resumed with others, the run is refused."""
    assert 0 == main(command("--jobs", "2", "--threads", "2", clips=("run", "walk")))
    assert 1 == torch.get_num_threads()
    assert 2 == json.loads((tmp_path / "out" / "report.json").read_text())["circumstances"]["threads"]
    assert not PAGE or "2 threads" in (tmp_path / "out" / "page" / "index.md").read_text()
    assert 2 == main(command("--resume", clips=("run", "walk")))
    assert "threads was 2, is 1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray, the extra `cluster`")
def test_a_cluster_gives_the_same(command: Callable[..., list[str]], whole: Path, tmp_path: Path) -> None:
    """Spread over two workers of a local Ray cluster, tables and masks are those of one process, byte for byte."""
    run = start(command("--ray", "local", "--jobs", "2"))
    _, said = run.communicate(timeout=300)

    assert 0 == run.returncode, said
    assert (tables(whole), masks(whole)) == (tables(tmp_path / "out"), masks(tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "more"),
    [(signal.SIGINT, ()), (signal.SIGTERM, ("--jobs", "2")), (signal.SIGKILL, ()), (signal.SIGKILL, ("--jobs", "2"))],
    ids=["ctrl-C", "SIGTERM-two-processes", "kill-9", "kill-9-two-processes"],
)
def test_an_interrupted_run_loses_nothing_finished(
    command: Callable[..., list[str]], whole: Path, tmp_path: Path, number: signal.Signals, more: tuple[str, ...]
) -> None:
    """What was finished before a signal is taken as it is, and --resume ends with the masks and tables of one go."""
    out = tmp_path / "out"
    run = start(command(*more))
    began = time.monotonic()
    while not list((out / "clips").glob("*.json")) and run.poll() is None and time.monotonic() - began < 120:
        time.sleep(0.005)
    run.send_signal(number)
    _, said = run.communicate(timeout=120)
    while len(more) and number == signal.SIGKILL and busy(out):  # its processes end at their next word to it
        time.sleep(0.05)
    finished = {path: path.stat().st_mtime_ns for path in (out / "clips").glob("*.json")}

    assert 1 <= len(finished) < len(CLIPS)
    assert not (out / "report.json").exists()
    if number != signal.SIGKILL:
        assert 130 == run.returncode and "Traceback" not in said
        assert f"stopped with {len(finished)} of 5 clips finished; the same command with --resume goes on" in said
    assert 0 == main(command("--resume"))
    assert (tables(whole), masks(whole)) == (tables(out), masks(out))
    assert finished == {path: path.stat().st_mtime_ns for path in finished}
    assert [] == list(out.rglob(".*")), "parts of files"


@pytest.mark.slow
def test_what_an_interrupted_run_says_is_what_it_kept(
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A clip that was finished when the signal came counts, though its last update was lost; a part of its file is
    removed by the next run."""

    def interrupted(teller: object, update: ClipUpdate) -> None:
        if update.last:
            raise KeyboardInterrupt

    monkeypatch.setattr("stmemory.cli.evaluate._Reporter.update", interrupted)
    assert 130 == main(command())
    assert "stopped with 1 of 5 clips finished; the same command with --resume goes on" in capsys.readouterr().err
    monkeypatch.undo()
    part = tmp_path / "out" / "clips" / f".{CLIPS[1]}.json.1.1"
    part.write_text("{")
    assert 0 == main(command("--resume"))
    assert not part.exists()


def busy(out: Path) -> bool:
    """Whether masks still come."""
    before = len(list(out.rglob("*")))
    time.sleep(0.5)
    return len(list(out.rglob("*"))) != before


def damage(root: Path, case: Case) -> None:
    """Make four of five clips unfit, each in a way of its own."""
    annotation_of(case, root, 3, "fall").write_bytes(b"no image")
    small = np.array(Image.open(annotation_of(case, root, 4, "jump")))[1:]
    Image.fromarray(small).save(annotation_of(case, root, 4, "jump"))
    (frames_of(case, root, "run") / "00006.png").unlink()
    shutil.rmtree(frames_of(case, root, "swim"))


@pytest.mark.slow
def test_clips_that_cannot_be_measured_are_named_and_the_others_go_on(
    command: Callable[..., list[str]], davis: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unreadable mask, a size that differs, a missing frame, an empty folder: told, exit code 1; mended, they are
    resumed."""
    shutil.copytree(davis, tmp_path / "davis")
    damage(tmp_path / "davis", DAVIS)
    code = main(command(root=tmp_path / "davis"))
    said = capsys.readouterr()

    assert 1 == code
    for name, reason in (
        ("fall", "00003.png"),
        ("jump", "frame 4"),
        ("run", "00006.png"),
        ("swim", "at least one frame"),
    ):
        (line,) = [line for line in said.err.splitlines() if f"skipped {name}: " in line]
        assert reason in line
    assert "4 of 5 clips were skipped" in said.err and "walk" in said.out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (["fall", "jump", "run", "swim"], 1) == (list(report["skipped"]), report["summary"]["clips"])
    assert {"walk"} == {name.split("/")[1] for name in masks(tmp_path / "out")}

    shutil.rmtree(tmp_path / "davis")
    shutil.copytree(davis, tmp_path / "davis")
    assert 0 == main(command("--resume", root=tmp_path / "davis"))
    assert tables(whole) == tables(tmp_path / "out")


def test_a_bundled_name_stays_one_beside_a_folder_of_that_name(
    command: Callable[..., list[str]], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--weights lite` are the bundled ones, as everywhere, and `./lite` those of the folder."""
    shutil.copytree(weights, tmp_path / "lite")
    monkeypatch.chdir(tmp_path)
    named = []
    for name in ("lite", "./lite"):
        assert 0 == main(command("--force", "--weights", name, clips=("walk",)))
        named.append(json.loads((tmp_path / "out" / "report.json").read_text())["weights"])
    assert ["lite", str(tmp_path / "lite")] == [weights["name"] for weights in named]
    assert [fingerprint(load_network("lite")), fingerprint(tiny_network())] == [
        weights["fingerprint"] for weights in named
    ]


@pytest.mark.slow
def test_another_run_is_refused(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results are neither replaced without --force nor mixed: other options or weights are told with what they were."""

    def said(*more: str) -> str:
        assert 2 == main(command(*more, clips=("walk",)))
        return capsys.readouterr().err

    assert "nothing to resume" in said("--resume")
    assert 0 == main(command(clips=("walk",)))
    before = masks(tmp_path / "out")
    assert "with 1 finished clip; pass --resume to go on, --force to begin again" in said()
    assert "memory size was 5, is 3" in said("--resume", "--memory-size", "3")
    assert "weights was" in said("--resume", "--weights", "lite")
    assert before == masks(tmp_path / "out")
    assert 0 == main(command("--resume", clips=("walk", "run")))
    assert 2 * FRAMES == len(masks(tmp_path / "out"))
    assert 0 == main(command("--force", "--memory-size", "3", clips=("run",)))
    assert {"run"} == {name.split("/")[1] for name in masks(tmp_path / "out")}


def test_clips_that_changed_since_are_refused(
    command: Callable[..., list[str]], davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished clip whose files are others now is not taken for measured."""
    shutil.copytree(davis, tmp_path / "davis")
    again = {"clips": ("walk",), "root": tmp_path / "davis"}
    assert 0 == main(command(**again))
    (frames_of(DAVIS, tmp_path / "davis") / "00011.png").unlink()
    annotation_of(DAVIS, tmp_path / "davis", 11).unlink()
    assert 2 == main(command("--resume", **again))
    assert "got other files" in capsys.readouterr().err


def test_true_masks_that_changed_in_a_pixel_are_refused(
    command: Callable[..., list[str]], davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other bytes under the same name and of the same number are another truth."""
    shutil.copytree(davis, tmp_path / "davis")
    again = {"clips": ("walk",), "root": tmp_path / "davis"}
    assert 0 == main(command(**again))
    file = annotation_of(DAVIS, tmp_path / "davis", 7)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert 2 == main(command("--resume", **again))
    assert "got other files" in capsys.readouterr().err


def test_what_the_network_computes_in_is_chosen_and_recorded(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--dtype` reaches the network, also that of a process; a run does not go on in another one."""
    assert 0 == main(command(clips=("walk",)))
    exact = json.loads((tmp_path / "out" / "report.json").read_text())
    assert 2 == main(command("--resume", "--dtype", "bfloat16", clips=("walk",)))
    assert "dtype was float32, is bfloat16" in capsys.readouterr().err
    assert 0 == main(command("--force", "--dtype", "bfloat16", clips=("walk",)))
    rounded = json.loads((tmp_path / "out" / "report.json").read_text())
    assert ("float32", "bfloat16") == (exact["dtype"], rounded["dtype"])
    sent = pickle.loads(pickle.dumps(Setup(None, TrackingOptions(), dtype="bfloat16")))
    assert torch.bfloat16 == next(sent.predictor().network.parameters()).dtype
    with pytest.raises(OptionError, match="dtype: expected a name such as 'float32' or 'bfloat16', got 'auto'"):
        Setup(None, TrackingOptions(), dtype="auto")


def test_a_finished_clip_that_lacks_a_mask_is_done_again(command: Callable[..., list[str]], tmp_path: Path) -> None:
    """Taken as finished are clips with all their masks; the other stays as it was."""
    assert 0 == main(command(clips=("run", "walk")))
    before, kept = masks(tmp_path / "out"), (tmp_path / "out" / "clips" / "run.json").stat().st_mtime_ns
    (tmp_path / "out" / "Annotations" / "walk" / "00004.png").unlink()
    assert 0 == main(command("--resume", clips=("run", "walk")))
    assert (before, kept) == (masks(tmp_path / "out"), (tmp_path / "out" / "clips" / "run.json").stat().st_mtime_ns)


def test_a_damaged_record_is_told(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cut `run.json` is named as one that cannot be read."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{")
    assert 2 == main(command("--resume"))
    assert "got a run.json that cannot be read" in capsys.readouterr().err


def test_files_of_others_are_not_touched(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with masks that no run wrote is refused, even with --force."""
    (tmp_path / "out" / "Annotations").mkdir(parents=True)
    (tmp_path / "out" / "Annotations" / "mine.png").write_bytes(b"mine")
    assert 2 == main(command("--force"))
    assert "even --force does not delete it" in capsys.readouterr().err
    assert b"mine" == (tmp_path / "out" / "Annotations" / "mine.png").read_bytes()


@pytest.mark.parametrize("name", ["davis2017-test-dev", "youtube2018-val", "lvos2-test", "mose-val"])
def test_masks_for_a_server_are_packed_as_it_wants_them(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Where a server keeps the truth, nothing is scored, and a zip has a palette mask for each frame that is asked
    for."""
    case = next(case for case in CASES if case_id(case) == name)
    write_data_set(case, tmp_path / "data")
    arguments = [
        "evaluate",
        case.name,
        "--root",
        str(tmp_path / "data"),
        "--split",
        case.split,
        "--weights",
        str(weights),
    ]
    assert 0 == main([*arguments, "-o", str(tmp_path / "out")])
    inside, frames = ("Annotations/walk", (0, 5, 10)) if case.name == "youtube2018" else ("walk", range(FRAMES))
    expected = [f"{inside}/{index + case.number:0{case.digits}d}.png" for index in frames]

    with zipfile.ZipFile(tmp_path / "out" / "submission.zip") as archive:
        assert expected == archive.namelist()
        with archive.open(expected[0]) as file, Image.open(file) as image:
            assert ("P", {0, 1}) == (image.mode, set(np.unique(np.array(image)).tolist()) - {2})
    assert "walk                           0       -       -       -" in capsys.readouterr().out
    assert (tmp_path / "out" / TABLES[0]).read_text().endswith("\n,,,,,,\n")


@pytest.mark.slow
def test_a_process_that_dies_takes_one_clip_with_it(davis: Path, tmp_path: Path) -> None:
    """A worker that cannot live is named with its exit code for the clip that it had; none is left waiting."""
    from stmemory.evaluation import find_data_set

    folder, updates = RunFolder(tmp_path), list[ClipUpdate]()
    folder.begin({"clips": list(CLIPS)}, resume=False, force=False)
    dead = Setup(None, TrackingOptions(), device="cuda:99")
    evaluate_in_processes([dead, dead], find_data_set("davis2017", davis, names=CLIPS[:3]), folder, updates.append)

    assert dict.fromkeys(CLIPS[:3], "its process ended with exit code 1") == {
        update.clip: update.error for update in updates
    }


@pytest.mark.parametrize("name", ["notes/out", "report.json"], ids=["below-a-file", "name-of-a-report"])
@pytest.mark.parametrize("what", ["evaluate", "score"])
def test_an_output_that_is_no_folder_is_refused_first(
    davis: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, name: str
) -> None:
    """Before a clip is measured, and before anything is made."""
    (tmp_path / "notes").write_text("mine")
    what_on = [str(davis)] if what == "score" else ["--weights", str(weights)]
    assert 2 == main([what, str(davis), *what_on, "-o", str(tmp_path / name)])
    said = capsys.readouterr()
    assert ("", True) == (said.out, "-o: expected" in said.err)
    assert ["notes"] == [path.name for path in tmp_path.iterdir()]


def test_a_folder_needs_no_output(
    davis: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without -o the scores are printed and nothing is written; clips can be named."""
    before = sorted(davis.rglob("*"))
    assert 0 == main(["evaluate", str(davis), "run", "walk", "--weights", str(weights)])
    said = capsys.readouterr().out
    assert ["run", "walk", "mean"] == [line.split()[0] for line in said.splitlines()[1:]]
    assert (before, []) == (sorted(davis.rglob("*")), list(tmp_path.iterdir()))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["davis2017"], "./davis2017"),
        (["no/such"], "with --root one of davis2016"),
        (["mose", "--root", ".", "--resolution", "480p"], "expected davis2016 or davis2017"),
        (["davis2018", "--root", "."], "expected one of davis2016"),
        (["davis2017", "--root", ".", "--split", "test"], "val, train, test-dev"),
        (["mose", "--root", "no/such"], "valid/JPEGImages"),
        ([".", "--resume"], "expected -o OUT"),
    ],
    ids=["no-root", "no-folder", "no-resolution", "no-data-set", "no-split", "no-files", "resume-nothing"],
)
def test_bad_arguments(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be meant exits with 2 and a line that says what was expected."""
    assert 2 == main(["evaluate", *arguments])
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "clips", "told"),
    [
        (("--jobs", "0"), (), "jobs: expected 1 or more"),
        (("--threads", "0"), (), "threads: expected 1 or more"),
        (("--device", "cuda:99"), (), "cuda:99"),
        (("--revision", "v9"), (), "not on the Hub"),
        ((), ("walk", "walk"), "name each once"),
        (("--ray", "local"), (), "expected Ray to be installed"),
        (("--ray", "local", "--device", "cuda:0,cuda:1"), (), "cuda, without a number"),
    ],
    ids=["jobs", "threads", "device", "revision", "twice", "no-ray", "ray-device"],
)
def test_bad_options_leave_nothing_behind(
    command: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    clips: tuple[str, ...],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Options that cannot be used exit with 2 before a folder is made."""
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    assert 2 == main(command(*more, clips=clips))
    assert told in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())
