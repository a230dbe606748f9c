"""Facts about the ablation: what a row is, that it is what an evaluation of its own gives, and what an interruption
leaves."""

from __future__ import annotations

import dataclasses
import json
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
from data_sets import CASES, write_data_set
from tiny import CONFIG, tiny_network

from stmemory.cli import main
from stmemory.errors import OptionError
from stmemory.evaluation.ablation import (
    MATCHING,
    Row,
    RowResult,
    ablation_rows,
    ablation_table,
    run_ablation,
    shortened,
)
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.datasets import find_data_set
from stmemory.evaluation.growing import GrowingPredictor
from stmemory.evaluation.growth import BankBytes
from stmemory.evaluation.protocol import Predictor, evaluate_clip
from stmemory.evaluation.report import current_circumstances
from stmemory.evaluation.workers import ClipUpdate, Setup
from stmemory.io.run_folder import held
from stmemory.memory import LearnedPolicy, load_policy, save_policy
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.weights import save_network
from stmemory.weights.pretrained import fingerprint, load_network

OPTIONS = TrackingOptions(memory_size=3, memory_every=1, write_gate=0.0, reach=None, enlarge=1)
FLAGS = ["--enlarge", "1", "--memory-size", "3", "--memory-every", "1", "--write-gate", "0", "--reach", "none"]


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DAVIS 2017 val of two clips of twelve frames."""
    return write_data_set(CASES[2], tmp_path_factory.mktemp("davis"), clips=("run", "walk"))


@pytest.fixture(scope="module")
def clips(davis: Path) -> list[Clip]:
    """Its clips, each of nine frames."""
    return [shortened(clip, 9) for clip in find_data_set("davis2017", davis)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two folders of weights, with a learned policy in the second."""
    folders = [tmp_path_factory.mktemp("weights") / name for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        save_network(tiny_network(seed), folder)
    save_policy(LearnedPolicy(seed=3), folders[1])
    return str(folders[0]), str(folders[1])


@pytest.fixture(scope="module")
def rows(weights: tuple[str, str]) -> tuple[Row, ...]:
    """A, drop and the growing memory."""
    return ablation_rows(OPTIONS, rules=("A", "drop"), growing=2, weights=weights[0])


@pytest.fixture(scope="module")
def whole(rows: tuple[Row, ...], clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> tuple[RowResult, ...]:
    """An ablation in one go."""
    return run_ablation(rows, clips, tmp_path_factory.mktemp("whole") / "out")


def told(results: tuple[RowResult, ...]) -> list[object]:
    """Everything but the time that it took."""
    return [
        (each.row.name, [dataclasses.replace(result, seconds=0) for result in each.results], each.memory)
        for each in results
    ]


@pytest.mark.parametrize("number", [0, 1, 2], ids=["A", "drop", "growing"])
def test_a_row_is_what_an_evaluation_of_its_own_gives(
    whole: tuple[RowResult, ...], clips: list[Clip], number: int
) -> None:
    """The scores are those of a predictor with that rule, and of one that never forgets."""
    fixed = VOSPredictor(tiny_network(), options=dataclasses.replace(OPTIONS, policy=("A", "drop", "C")[number]))
    predictor: Predictor = GrowingPredictor(fixed, every=2) if number == 2 else fixed

    assert [evaluate_clip(predictor, clip).objects for clip in clips] == [
        result.objects for result in whole[number].results
    ]


def test_the_bytes_are_those_of_the_memory_at_the_end(whole: tuple[RowResult, ...], clips: list[Clip]) -> None:
    """A fixed memory has the bytes of the formula for each object; one that keeps every second of nine frames has those
    of five slots."""
    height, width = clips[0].frame(0).shape[:2]
    cells = -(-height // 16) * -(-width // 16)

    expected = [BankBytes.of(CONFIG, rows=1, slots=slots, cells=cells).total for slots in (3, 3, 5)]

    assert [(3, 3), (3, 3), (5, 5)] == [tuple(use.slots for use in result.memory) for result in whole]
    assert expected == [result.bytes_per_object for result in whole]


def test_an_interrupted_run_goes_on(
    rows: tuple[Row, ...], whole: tuple[RowResult, ...], clips: list[Clip], tmp_path: Path
) -> None:
    """What was finished is not measured again, and all of it is what one go gives."""

    def interrupt(row: Row, update: ClipUpdate) -> None:
        if (row.name, update.clip, update.frames) == ("drop", "walk", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_ablation(rows, clips, tmp_path, on_news=interrupt)
    measured: list[tuple[str, str]] = []
    left: list[int] = []
    again = run_ablation(
        rows,
        clips,
        tmp_path,
        resume=True,
        on_begin=left.append,
        on_news=lambda row, update: measured.append((row.name, update.clip)),
    )

    assert [("drop", "walk"), ("growing", "run"), ("growing", "walk")] == list(dict.fromkeys(measured))
    assert [3 * 9] == left
    assert told(whole) == told(again)


def test_rules_may_be_added_and_nothing_else_changed(rows: tuple[Row, ...], clips: list[Clip], tmp_path: Path) -> None:
    """A folder with results is not touched without a word, takes more rules, and refuses other options for those it
    has."""
    run_ablation(rows[:1], clips[:1], tmp_path)
    with pytest.raises(OptionError, match="pass resume=True to go on"):
        run_ablation(rows, clips[:1], tmp_path)
    other = [dataclasses.replace(row, options=dataclasses.replace(row.options, memory_every=2)) for row in rows]
    with pytest.raises(OptionError, match="memory every was 1, is 2"):
        run_ablation(other, clips[:1], tmp_path, resume=True)
    more = run_ablation(rows[:2], clips[:1], tmp_path, resume=True)

    assert ["A", "drop"] == [result.row.name for result in more]


def test_one_ablation_at_a_time_writes_into_a_folder(rows: tuple[Row, ...], clips: list[Clip], tmp_path: Path) -> None:
    """Another one is refused meanwhile, and so is a row whose folder is a link to elsewhere."""
    with held(tmp_path / "out"), pytest.raises(OptionError, match="no other run writes into"):
        run_ablation(rows[:1], clips[:1], tmp_path / "out")
    (tmp_path / "photos").mkdir()
    (tmp_path / "out" / rows[0].name).symlink_to(tmp_path / "photos")
    with pytest.raises(OptionError, match="expected a place below"):
        run_ablation(rows[:1], clips[:1], tmp_path / "out", force=True)

    assert [] == list((tmp_path / "photos").iterdir())


def test_a_clip_that_cannot_be_measured_is_named_and_its_row_marked(
    clips: list[Clip], rows: tuple[Row, ...], tmp_path: Path
) -> None:
    """The others go on, and the table says that the row lacks one."""
    broken = dataclasses.replace(clips[1], frame_paths=(*clips[1].frame_paths[:-1], Path("no/such/frame.jpg")))
    results = run_ablation(rows[:1], [clips[0], broken], tmp_path)

    assert ["walk"] == list(results[0].skipped)
    assert "| A: oldest (1 of 2 clips) |" in ablation_table(results, current_circumstances())


def test_matching_alone_is_the_network_without_its_discriminative_read(
    weights: tuple[str, str], clips: list[Clip], tmp_path: Path
) -> None:
    """Its row has the default policy, the same weights by name, and the masks of the network with the second read taken
    out."""
    rows = ablation_rows(OPTIONS, rules=("C", MATCHING), growing=0, weights=weights[0])
    assert ["C: least_similar", "matching: least_similar without the discriminative read"] == [
        row.title for row in rows
    ]
    results = run_ablation(rows, clips[:1], tmp_path / "out")
    assert results[0].fingerprint == results[1].fingerprint
    predictor = VOSPredictor(load_network(weights[0]), options=rows[1].options)
    predictor.network.discriminate = None
    expected = evaluate_clip(predictor, clips[0])
    assert expected.region == results[1].results[0].region != results[0].results[0].region


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rules": ("A", "oldest")}, "each once, got A, oldest"),
        ({"rules": ("C", "matching", "matching")}, "each once"),
        ({"rules": ("E",)}, "expected one of oldest"),
        ({"rules": (), "growing": 0}, "got none"),
        ({"weights_by_rule": {"learned": "mine"}}, "expected one of A, B, C, D, drop, I2M, growing, got learned"),
    ],
    ids=["twice", "matching-twice", "unknown", "none", "no-such-row"],
)
def test_rows_that_cannot_be(asked: dict[str, object], message: str) -> None:
    """What is wrong with the rules is said."""
    with pytest.raises(OptionError, match=message):
        ablation_rows(OPTIONS, **asked)


def test_the_command_leaves_a_table(
    davis: Path, weights: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each rule in the order given, weights of their own where asked for, and what it was measured with."""
    out = tmp_path / "out"
    more = [
        "--rules",
        "C",
        "learned",
        "--learned",
        weights[1],
        "--rule-weights",
        f"learned={weights[1]}",
        "--frames",
        "6",
    ]
    command = [
        "benchmark",
        "ablation",
        "davis2017",
        "walk",
        "--root",
        str(davis),
        "-o",
        str(out),
        "--weights",
        weights[0],
        *FLAGS,
    ]
    assert 0 == main([*command, *more])
    table, report = (out / "ablation.md").read_text(), json.loads((out / "ablation.json").read_text())

    assert ["C: least_similar", "learned", "growing: frames 0, 5, 10, ... kept (STM)"] == [
        line.split(" | ")[0][2:] for line in table.splitlines()[2:5]
    ]
    assert table in capsys.readouterr().out
    assert (
        "every frame committed (memory_every 1; the paper commits every frame)" in table
        and "the first 6 frames" in table
    )
    assert f"Weights: C {weights[0]} (" in table
    assert [weights[0], weights[1], weights[0]] == [row["weights"] for row in report["rows"]]
    assert 0 == main([*command, *more, "--resume"])
    assert report["rows"] == json.loads((out / "ablation.json").read_text())["rows"]
    assert 2 == main([*command, "--rules", "learned", "--resume"])
    assert 2 == main([*command, "--rule-weights", "A", "--resume"])
    assert 2 == main([*command, "--policy", "A", "--resume"])


def test_a_learned_policy_is_named_by_its_file(
    davis: Path, weights: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--policy FILE` tracks with the policy of that file, and a run with another one is another run."""
    evaluate = [
        "evaluate",
        "davis2017",
        "--root",
        str(davis),
        "-o",
        str(tmp_path),
        "--weights",
        weights[0],
        *FLAGS,
        "--policy",
    ]
    assert 0 == main([*evaluate, weights[1]])
    clip = find_data_set("davis2017", davis)[0]
    options = dataclasses.replace(OPTIONS, policy=load_policy(weights[1]))
    expected = evaluate_clip(VOSPredictor(tiny_network(), options=options), clip)

    assert expected.region == pytest.approx(
        json.loads((tmp_path / "report.json").read_text())["clips"][0]["region"], abs=1e-12
    )
    save_policy(LearnedPolicy(seed=4), tmp_path / "other.safetensors")
    assert 2 == main([*evaluate, str(tmp_path / "other.safetensors"), "--resume"])
    assert "weights was" in capsys.readouterr().err
    assert 2 == main([*evaluate, str(tmp_path / "none.safetensors"), "--force"])


def test_a_learned_policy_travels_to_other_processes() -> None:
    """As plain bytes, equal in every weight; no handle of shared memory goes with it."""
    policy = LearnedPolicy(hidden=5, seed=7)
    sent = bytes(ForkingPickler.dumps(Setup(None, dataclasses.replace(OPTIONS, policy=policy), threads=1)))
    arrived = pickle.loads(sent)

    assert b"torch" not in sent.replace(b"stmemory", b"")
    assert 1 == arrived.threads
    assert fingerprint(policy) == fingerprint(arrived.options.policy)
