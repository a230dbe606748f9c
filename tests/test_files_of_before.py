"""Files that the package wrote before its modules moved load, and go on with what was computed then.

`tests/files_of_before/write.py` wrote them at commit 23e24c3, and what came next beside them.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from files_of_before.write import (
    RULES,
    RUN,
    clip,
    learned_policy,
    lite_network,
    prediction_network,
    templates,
)
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from stmemory import (
    FramePredictor,
    FusionCell,
    MemoryBank,
    PredictionOptions,
    SegmentationNetwork,
    TrackingOptions,
    VOSPredictor,
)
from stmemory.cli import main
from stmemory.memory import load_bank, load_policy
from stmemory.postprocess import soft_aggregate

FILES = Path(__file__).parent / "files_of_before"


@pytest.fixture(scope="module")
def after() -> dict[str, Tensor]:
    """What was computed after each file was written."""
    return load_file(FILES / "after.safetensors")


def assert_same(expected: Tensor, actual: Tensor) -> None:
    """Equal but for the last bits, in which processors differ, and no constant."""
    assert 0.1 < float(expected.std())
    torch.testing.assert_close(expected, actual, atol=1e-4, rtol=1e-4)


@pytest.fixture
def _aggregated_as_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of probabilities in float32, which are 1 from a logit of 17 on, so that objects that were surer than that
    shared their pixels alike; what these files hold was computed so."""

    def aggregate(logits: Tensor, _: object = None) -> Tensor:
        return soft_aggregate(logits.sigmoid())

    monkeypatch.setattr("stmemory.stream.soft_aggregate_logits", aggregate)


@pytest.mark.usefixtures("_aggregated_as_then")
def test_a_stream_goes_on(after: dict[str, Tensor]) -> None:
    """With a policy of the paper's, a window, the sums of the discriminative read, and a correction in memory."""
    options = dataclasses.replace(RULES, margin=None)  # there was none then
    stream = VOSPredictor(lite_network(), options=options).resume(FILES / "tracking.stream")
    assert (3, (3, 9)) == (stream.frame_index, stream.object_ids)
    assert [[0], [0]] == [[slot.frame for slot in slots if slot.pinned] for slots in stream.describe().values()]
    stream.step(clip()[4])
    assert_same(after["tracking"], stream.step(clip()[5]).probabilities)


def test_a_stream_with_a_learned_policy_goes_on(after: dict[str, Tensor]) -> None:
    """Network and policy are read from files too."""
    network, policy = SegmentationNetwork.from_pretrained(FILES / "network"), load_policy(FILES / "policy.safetensors")
    options = TrackingOptions(memory_size=3, memory_every=1, write_gate=0.0, zoom=1, enlarge=1, policy=policy)
    stream = VOSPredictor(network, options=options).resume(FILES / "learned.stream")
    assert 4 == stream.frame_index
    stream.step(clip()[5])
    assert_same(after["learned"], stream.step(clip()[6]).probabilities)


def test_a_stream_that_predicts_goes_on(after: dict[str, Tensor]) -> None:
    """It looks two frames ahead as it did."""
    predictor = FramePredictor(prediction_network(), options=PredictionOptions(memory_size=3))
    stream = predictor.resume(FILES / "prediction.stream")
    assert 4 == stream.frame_index
    assert_same(after["prediction"], torch.stack([one.pixels for one in stream.foresee(2)]))


def test_a_bank_goes_on(after: dict[str, Tensor]) -> None:
    """With its fusion cell, whose weights are a file of their own, it takes one more template."""
    fusion = FusionCell.from_pretrained(FILES / "fusion")
    bank = MemoryBank(3, fusion=fusion)
    load_bank(bank, FILES / "bank.safetensors")
    assert (2, [True, False, False]) == (bank.rows, [slot.pinned for slot in bank.describe(0)])
    bank.write(templates(5), frame=5)
    assert_same(after["bank"], bank.templates)


def test_a_policy_is_the_one_that_was_saved() -> None:
    """Every weight, bit for bit."""
    expected, actual = learned_policy().state_dict(), load_policy(FILES / "policy.safetensors").state_dict()
    assert set(expected) == set(actual)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.usefixtures("_aggregated_as_then")
def test_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`stmemory track --resume` in a folder that was left after three of six frames writes the masks of one go, but for
    the few pixels that rounding decides: the weights are random, and layers may be computed in another order now."""
    for name in ("clip", "network", "run"):
        shutil.copytree(FILES / name, tmp_path / name)
    shutil.copy(FILES / "first.png", tmp_path)
    monkeypatch.chdir(tmp_path)
    then = [*RUN, "--margin", "none"]
    assert 0 == main(["track", "clip", "--mask", "first.png", *then, "-o", "run", "--resume"])
    assert 6 == len(list((tmp_path / "run" / "masks").glob("*.png")))
    for name in ("00003.png", "00004.png", "00005.png"):
        expected, actual = (
            np.array(Image.open(path)) for path in (FILES / f"after-{name}", tmp_path / "run" / "masks" / name)
        )
        assert 0.995 < float((expected == actual).mean())


def test_the_files_are_small() -> None:
    """All of them together are less than 300 KiB."""
    assert (
        sum(file.stat().st_size for file in FILES.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc"))
        < 300 * 1024
    )
