"""Facts about weights and the Hugging Face Hub, told to a real server on loopback that speaks its protocol."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from data_sets import CASES, write_data_set
from hub_server import Hub, Repository, hub_of_huggingface, new_session, point_at
from huggingface_hub import constants
from tiny import boxes, clip, tiny_network, tiny_prediction_network

from stmemory.cli import main
from stmemory.errors import OptionError, WeightsError
from stmemory.memory import FusionCell, SpaceTimeRead
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.prediction.network import PredictionNetwork
from stmemory.predictor import VOSPredictor
from stmemory.weights import load_part, push_part
from stmemory.weights.hub import Where, download
from stmemory.weights.pretrained import find_checkpoint, fingerprint, network_info

# huggingface_hub's own way of uploading, not ours
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "someone/tiny"
METRICS = [{"dataset": "made clips", "metric": "J&F", "value": 12.5, "how": "a test"}]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A server with one repository of weights, which huggingface_hub takes for the Hub, and an empty cache."""
    with hub_of_huggingface(monkeypatch, tmp_path / "cache") as served:
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
        tiny_network().save_pretrained(tmp_path / "made", about={"licence": "MIT", "metrics": METRICS})
        served.repositories[NAME] = Repository()
        served.repositories[NAME].commit({file.name: file.read_bytes() for file in (tmp_path / "made").iterdir()})
        yield served


def test_weights_come_from_the_hub_and_the_second_time_from_the_cache(hub: Hub) -> None:
    """Both files are fetched once; the second call only asks whether they changed."""
    first = SegmentationNetwork.from_pretrained(NAME)
    again = SegmentationNetwork.from_pretrained(NAME)
    assert ["config.json", "model.safetensors"] == [
        path.rsplit("/", 1)[1] for path in hub.asked("GET") if "/resolve/" in path
    ]
    assert fingerprint(tiny_network()) == fingerprint(first) == fingerprint(again)
    assert not first.training


def test_a_predictor_from_the_hub_tracks_as_the_pushed_network(hub: Hub) -> None:
    """Masks are the same bit for bit."""
    one, other = VOSPredictor(tiny_network()), VOSPredictor.from_pretrained(NAME)
    for expected, actual in zip(one.track(clip(3), boxes(3)), other.track(clip(3), boxes(3)), strict=True):
        assert torch.equal(expected.probabilities, actual.probabilities)


def test_a_predictor_asks_the_hub_once_for_the_config(hub: Hub) -> None:
    """It tells whose weights they are; a repository that is not there is asked for once too."""
    VOSPredictor.from_pretrained(NAME)
    assert 1 == sum(path.endswith("/config.json") for path in hub.asked("HEAD"))
    hub.requests.clear()
    with pytest.raises(WeightsError, match="there is no folder someone/nothing here"):
        VOSPredictor.from_pretrained("someone/nothing")
    assert 1 == len(hub.requests)


def test_parts_come_from_the_hub(hub: Hub) -> None:
    """A fusion cell, the space-time read and a bank with both, each with the network's own weights."""
    network = tiny_network()
    cell = load_part(FusionCell, NAME)
    assert fingerprint(network.fusion) == fingerprint(cell)
    assert fingerprint(network.read) == fingerprint(load_part(SpaceTimeRead, NAME))
    bank = SegmentationNetwork.from_pretrained(NAME).new_bank(3, policy="oldest")
    assert (3, "oldest") == (bank.capacity, bank.policy.name)
    template = torch.randn(1, network.config.template_channels, 3, 4)
    ours = network.new_bank(3, policy="oldest")
    with torch.inference_mode():
        for frame in range(6):
            for one in (bank, ours):
                one.write(template * (1 + frame), frame=frame)
    assert torch.equal(ours.templates, bank.templates) and torch.equal(ours.keys, bank.keys)


def test_a_revision_pins_the_weights(hub: Hub, tmp_path: Path) -> None:
    """A commit gives its own weights whatever was pushed since; the branch gives the newest."""
    old = hub.repositories[NAME].branches["main"]
    other = tiny_network(1)
    other.save_pretrained(tmp_path / "newer")
    hub.repositories[NAME].commit({file.name: file.read_bytes() for file in (tmp_path / "newer").iterdir()})
    assert fingerprint(tiny_network()) == fingerprint(SegmentationNetwork.from_pretrained(NAME, revision=old))
    assert fingerprint(other) == fingerprint(SegmentationNetwork.from_pretrained(NAME, revision="main"))


@pytest.mark.slow
def test_an_evaluation_is_of_its_revision(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Record and report name the commit and its weights; resumed without the revision, other weights are refused."""
    old = hub.repositories[NAME].branches["main"]
    tiny_network(1).save_pretrained(tmp_path / "newer")
    hub.repositories[NAME].commit({file.name: file.read_bytes() for file in (tmp_path / "newer").iterdir()})
    new = hub.repositories[NAME].branches["main"]
    root = write_data_set(CASES[0], tmp_path / "clips")
    run = ["evaluate", str(root), "--weights", NAME, "-o", str(tmp_path / "out")]

    assert 0 == main([*run, "--revision", old])
    weights = {"name": NAME, "revision": old, "fingerprint": fingerprint(tiny_network())}
    assert weights == json.loads((tmp_path / "out" / "report.json").read_text())["weights"]
    assert [] == [path for path in hub.asked("GET") if f"/{new}/" in path], "the newer weights are not fetched"
    assert 2 == main([*run, "--resume"])
    assert f"revision was {old}, is {new}; weights was {weights['fingerprint']}" in capsys.readouterr().err
    assert 0 == main([*run, "--resume", "--revision", old])


def test_a_push_in_between_mixes_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both files come from the commit that the first one came from."""
    tiny_network(1).save_pretrained(tmp_path / "newer")
    newer = {file.name: file.read_bytes() for file in (tmp_path / "newer").iterdir()}
    fetch = huggingface_hub.hf_hub_download

    def fetch_then_push(repository: str, file: str, **where: object) -> str:
        path = fetch(repository, file, **where)
        if file == "config.json":
            hub.repositories[NAME].commit(newer)
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch_then_push)
    assert fingerprint(tiny_network()) == fingerprint(SegmentationNetwork.from_pretrained(NAME))


def test_offline_asks_nobody(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `local_files_only`, or offline, the cache answers; what is not in it is an error that says so."""
    with pytest.raises(WeightsError, match=r"expected config.json in the local cache.*got nothing"):
        SegmentationNetwork.from_pretrained(NAME, local_files_only=True)
    SegmentationNetwork.from_pretrained(NAME)
    hub.requests.clear()
    SegmentationNetwork.from_pretrained(NAME, local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    new_session()
    SegmentationNetwork.from_pretrained(NAME)
    assert [] == hub.requests
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE"):
        SegmentationNetwork.from_pretrained("someone/else")


def test_info_prints_the_card_of_weights_on_the_hub(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """Kind, parameters, licence and figures; a revision can be chosen."""
    commit = hub.repositories[NAME].branches["main"]
    assert 0 == main(["info", NAME, "--revision", commit])
    said = capsys.readouterr().out
    assert all(word in said for word in ("network", "tiny", "MIT", "J&F 12.5 on made clips (a test)"))
    assert 2 == main(["info", NAME, "--revision", "v9"])


def test_tracking_with_weights_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    """`--weights` takes a repository, `--revision` pins it."""
    weights = ["--weights", NAME, "--revision", hub.repositories[NAME].branches["main"]]
    hub.repositories[NAME].commit({"config.json": b"a broken push"})
    assert 2 == main(
        ["demo", "-o", str(tmp_path / "newest"), "--frames", "3", "--height", "48", "--width", "64", *weights[:2]]
    )
    assert 0 == main(
        ["demo", "-o", str(tmp_path / "demo"), "--frames", "3", "--height", "48", "--width", "64", *weights]
    )


def test_a_cache_of_ones_own(hub: Hub, tmp_path: Path) -> None:
    """`cache_dir` is where files go."""
    info = network_info(NAME, where={"cache_dir": tmp_path / "mine"})
    assert (tmp_path / "mine") in info.folder.parents


@pytest.mark.parametrize(
    ("name", "where", "said"),
    [
        ("someone/nothing", {}, "a repository that exists"),
        (NAME, {"revision": "v9"}, "revision 'v9'"),
        ("someone/empty", {}, "a repository without it"),
        ("someone/private", {}, "a repository that exists and that you may use"),
        ("someone/gated", {}, "accept its conditions"),
        ("someone/..", {}, "a bundled name"),
        ("someone/a--b", {}, "Cannot have"),
    ],
    ids=["repository", "revision", "file", "private", "gated", "dots", "name"],
)
def test_what_is_not_there_is_an_error(hub: Hub, name: str, where: Where, said: str) -> None:
    """The message says what was looked for and what to do."""
    hub.repositories["someone/empty"] = Repository()
    hub.repositories["someone/empty"].commit({"notes.txt": b"nothing"})
    for kind, marks in (("private", {"private": True}), ("gated", {"gated": True})):
        hub.repositories[f"someone/{kind}"] = Repository(**marks)
        hub.repositories[f"someone/{kind}"].commit({"config.json": b"{}"})
    with pytest.raises(WeightsError, match="expected .* got") as error:
        find_checkpoint(name, where)
    assert said in str(error.value)


def test_a_token_opens_a_private_repository(hub: Hub) -> None:
    """It goes to the Hub and into no message."""
    hub.repositories[NAME].private = True
    with pytest.raises(WeightsError):
        SegmentationNetwork.from_pretrained(NAME)
    SegmentationNetwork.from_pretrained(NAME, token="hf_secret")
    assert "hf_secret" == hub.requests[-1][2]
    with pytest.raises(WeightsError) as error:
        SegmentationNetwork.from_pretrained("someone/nothing", token="hf_secret")
    assert "hf_secret" not in str(error.value)


@pytest.mark.skipif(
    not hasattr(huggingface_hub, "close_session"),
    reason="huggingface_hub 0.x gives up where a file ends early; the next call takes it",
)
def test_a_broken_connection_is_taken_up_again(hub: Hub) -> None:
    """The rest of the file is asked for, and the weights are whole."""
    hub.cut["model.safetensors"] = [5000, 7000]  # bytes
    assert fingerprint(tiny_network()) == fingerprint(SegmentationNetwork.from_pretrained(NAME))
    assert 3 == sum(path.endswith("model.safetensors") for path in hub.asked("GET"))


def test_a_connection_that_stays_broken_is_an_error(hub: Hub) -> None:
    """It is not tried for ever, and the next call gets the file."""
    content = hub.repositories[NAME].commits[hub.repositories[NAME].branches["main"]]["config.json"]
    hub.cut["config.json"] = [0] * 50
    with pytest.raises(WeightsError, match="expected config.json, got"):
        SegmentationNetwork.from_pretrained(NAME)
    hub.cut.clear()
    assert content == (download(NAME, ["config.json"]) / "config.json").read_bytes()


def test_a_server_that_is_gone_is_an_error(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers: the message says that the Hub could not be asked."""
    point_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(WeightsError, match="could not be asked"):
        SegmentationNetwork.from_pretrained(NAME)


def test_a_file_that_is_not_the_one_is_refused(hub: Hub) -> None:
    """What a server sends under a wrong ETag, of the right length, is noticed by the digest in config.json."""
    whole = hub.repositories[NAME].commits[hub.repositories[NAME].branches["main"]]["model.safetensors"]
    hub.etags["model.safetensors"] = "0" * 64
    hub.swapped["model.safetensors"] = whole[:-2] + bytes(2)
    with pytest.raises(WeightsError, match="sha256 .* got .*: another or a damaged one"):
        SegmentationNetwork.from_pretrained(NAME)


def test_a_server_without_etag_is_an_error(hub: Hub) -> None:
    """A mirror that does not speak the protocol is told from a Hub."""
    hub.etags["config.json"] = ""
    with pytest.raises(WeightsError, match="expected config.json"):
        SegmentationNetwork.from_pretrained(NAME)


@pytest.mark.slow
def test_pushed_weights_are_read_back(hub: Hub) -> None:
    """A network and a fusion cell, with a card; the commit's address is returned."""
    network = tiny_network(3)
    address = network.push_to_hub(
        "someone/new", token="hf_write", dtype=torch.float32, about={"licence": "MIT", "metrics": METRICS}
    )
    assert address.startswith(f"{hub.url}/someone/new/commit/")
    assert {"README.md", "config.json", "model.safetensors"} == set(_files(hub, "someone/new"))
    assert fingerprint(network) == fingerprint(SegmentationNetwork.from_pretrained("someone/new"))
    push_part(network.fusion, "someone/cell", private=True, token="hf_write", dtype=torch.float64)
    assert len(_files(hub, "someone/cell")["model.safetensors"]) > 8 * sum(
        p.numel() for p in network.fusion.parameters()
    )
    assert hub.repositories["someone/cell"].private
    assert fingerprint(network.fusion) == fingerprint(load_part(FusionCell, "someone/cell", where={"token": "hf_read"}))
    assert {"hf_write", "hf_read", None} == {token for _, _, token in hub.requests}


def test_a_prediction_network_is_pushed_and_read_back(hub: Hub) -> None:
    """With a card of its own task, whose example runs."""
    network = tiny_prediction_network()
    network.push_to_hub("someone/next", token="hf_write", about={"licence": "MIT", "metrics": METRICS})
    assert fingerprint(network) == fingerprint(PredictionNetwork.from_pretrained("someone/next"))
    card = huggingface_hub.ModelCard(_files(hub, "someone/next")["README.md"].decode())
    assert (None, ["Video Prediction"]) == (card.data.pipeline_tag, [r.task_name for r in card.data.eval_results or []])
    exec(re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)[0], {})


def test_a_pushed_card_says_what_is_known(hub: Hub) -> None:
    """Licence, task and figures in the header that the Hub reads, and an example that runs."""
    tiny_network().push_to_hub("someone/new", about={"licence": "Apache-2.0", "metrics": METRICS})
    card = huggingface_hub.ModelCard(_files(hub, "someone/new")["README.md"].decode())
    assert ("apache-2.0", "mask-generation", "stmemory") == (
        card.data.license,
        card.data.pipeline_tag,
        card.data.library_name,
    )
    results = [(r.dataset_name, r.metric_name, r.metric_value) for r in card.data.eval_results or []]
    assert [("made clips", "J&F", 12.5)] == results
    example = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert 1 == len(example) and "someone/new" in example[0]
    exec(example[0], {})


def test_a_push_leaves_a_card_that_is_there(hub: Hub) -> None:
    """Weights are replaced, what somebody wrote about them is not; a card that nobody wrote to follows the weights."""
    tiny_network(1).push_to_hub(NAME, about={"licence": "BSD-3-Clause"})
    assert b"license: bsd-3-clause" in _files(hub, NAME)["README.md"]
    hub.repositories[NAME].commit({"README.md": b"written by hand"})
    tiny_network(1).push_to_hub(NAME)
    assert b"written by hand" == _files(hub, NAME)["README.md"]
    assert fingerprint(tiny_network(1)) == fingerprint(SegmentationNetwork.from_pretrained(NAME))


def test_a_push_to_a_branch_leaves_the_main_one(hub: Hub) -> None:
    """The branch is made if it is not there."""
    tiny_network(1).push_to_hub(NAME, revision="trial")
    assert fingerprint(tiny_network(1)) == fingerprint(SegmentationNetwork.from_pretrained(NAME, revision="trial"))
    assert fingerprint(tiny_network()) == fingerprint(SegmentationNetwork.from_pretrained(NAME))


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_without_the_right_is_told(hub: Hub, status: int) -> None:
    """The message says to log in, and names neither the token nor a lack of connection."""
    hub.refuses = status
    with pytest.raises(WeightsError, match="expected a token with the right") as error:
        tiny_network().push_to_hub(NAME, token="hf_secret")
    assert "hf_secret" not in str(error.value) and "try again" not in str(error.value)


def test_another_librarys_repository_is_refused_before_its_weights_are_fetched(hub: Hub) -> None:
    """`config.json` comes first, and is enough to know."""
    hub.repositories["timm/big"] = Repository()
    hub.repositories["timm/big"].commit({"config.json": b'{"architecture": "resnet50"}', "model.safetensors": b"large"})
    with pytest.raises(WeightsError, match="not stmemory's"):
        SegmentationNetwork.from_pretrained("timm/big")
    assert not [path for _, path, _ in hub.requests if path.endswith("model.safetensors")]


def test_a_path_with_a_typo_is_told_from_a_repository(hub: Hub) -> None:
    """The message says that there is no such folder either."""
    with pytest.raises(WeightsError, match="there is no folder runs/mien here"):
        SegmentationNetwork.from_pretrained("runs/mien")


def test_a_push_that_is_refused_is_an_error(hub: Hub) -> None:
    """The message names the repository."""
    hub.refuses = 500
    with pytest.raises(WeightsError, match=f"{NAME} on the Hub: expected"):
        tiny_network().push_to_hub(NAME)


def test_a_revision_of_local_weights_is_an_error(tmp_path: Path) -> None:
    """It would be silently ignored otherwise."""
    tiny_network().save_pretrained(tmp_path)
    for name in ("lite", tmp_path):
        with pytest.raises(OptionError, match="revision"):
            SegmentationNetwork.from_pretrained(name, revision="main")


@pytest.mark.slow
def test_the_environment_says_where_the_hub_is(hub: Hub, tmp_path: Path) -> None:
    """In a process of its own, with HF_ENDPOINT and HF_HOME, as a user has it; offline after."""
    code = f"from stmemory import VOSPredictor; print(VOSPredictor.from_pretrained({NAME!r}).network.config.preset)"
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    for more in ({"HF_ENDPOINT": hub.url}, {"HF_HUB_OFFLINE": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **home, **more}, capture_output=True, text=True
        )
        assert "tiny\n" == done.stdout, done.stderr


def _files(hub: Hub, name: str) -> dict[str, bytes]:
    repository = hub.repositories[name]
    return repository.commits[repository.branches["main"]]
