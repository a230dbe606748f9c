"""Facts about the example that measures other networks beside ours: with a stand-in for a checkout."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_examples import _load

CORE = """
import torch
from types import SimpleNamespace


class InferenceCore:
    def __init__(self, network, images, objects):
        self.images = images.cuda()
        self.mem_bank = SimpleNamespace(top_k=20, mem_k=torch.zeros(objects, 25, device="cuda"), mem_v=None)

    def encode_key(self, index):
        return self.images[:, index].cuda()

    def interact(self, mask, start, end):
        for index in range(start, end):
            self.encode_key(index)
"""
NETWORK = """
import torch
from torch.utils import model_zoo


class STCN(torch.nn.Linear):
    def __init__(self):
        super().__init__(1, 1)
        self.load_state_dict(model_zoo.load_url("https://nowhere.invalid/resnet50.pth"))
"""


@pytest.mark.slow
def test_a_checkout_runs_without_a_gpu_and_without_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has a row for each network and number of objects; memory is counted by its tensors."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    (tmp_path / "model").mkdir()
    (tmp_path / "inference_core.py").write_text(CORE)
    (tmp_path / "model" / "eval_network.py").write_text(NETWORK)
    table = _load("peer_speed").main({"stcn": str(tmp_path)}, [1, 2], frames=3, rounds=1)
    assert ["stmemory, 1", "stcn, 1", "stmemory, 2", "stcn, 2"] == list(table)
    assert [100, 200] == [table["stcn, 1"][1], table["stcn, 2"][1]]
    printed = capsys.readouterr().out.splitlines()
    assert 6 == len(printed) and printed[3].startswith("| stcn | 1 | ")


@pytest.mark.slow
def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is missing, and no traceback."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    with pytest.raises(SystemExit, match="(?s)^xmem: No module named 'inference'.*not those of stmemory$"):
        _load("peer_speed").main({"xmem": str(tmp_path)}, [1], frames=2, rounds=1)
