"""A network exported: as programs of `torch.export` and as ONNX files, with the results of the network itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stmemory.cli import main
from stmemory.errors import FileError, OptionError
from stmemory.evaluation.scenes import render_scene
from stmemory.memory import MemoryBank
from stmemory.networks.config import NetworkConfig
from stmemory.networks.export import export_onnx, stages
from stmemory.networks.layers import FrameFeatures
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor

STAGES = ["encode", "read", "decode", "memorise", "fuse", "key"]
HEIGHT, WIDTH = 192, 320  # large enough for the discriminative read
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="needs the extra onnx",
)

Run = Callable[..., tuple[Tensor, ...]]


def small_network(preset: str) -> SegmentationNetwork:
    return SegmentationNetwork(NetworkConfig.of(preset)).eval()


def given(stage: Any, rows: int) -> list[Tensor]:
    """Inputs of a stage for that many rows."""
    shapes = {name: (rows if name in stage.rows else 1, *tensor.shape[1:]) for name, tensor in stage.inputs.items()}
    flags = {name: tensor.dtype == torch.bool for name, tensor in stage.inputs.items()}
    return [torch.arange(5).expand(shape) < 3 if flags[name] else torch.rand(shape) for name, shape in shapes.items()]


@pytest.mark.parametrize("number", range(len(STAGES)), ids=STAGES)
@pytest.mark.parametrize("preset", ["lite", "paper", "stcn"])
def test_each_stage_is_exported_for_any_number_of_objects(preset: str, number: int) -> None:
    """`torch.export` of encode_query, the read, decode and encode_memory gives what the network gives."""
    torch.manual_seed(0)
    stage = stages(small_network(preset), height=64, width=96)[number]
    program = stage.export().module()
    for rows in (1, 3):
        tensors = given(stage, rows)
        with torch.no_grad():
            expected, found = (run(*[t.clone() for t in tensors]) for run in (stage.module, program))
        torch.testing.assert_close(expected, found, atol=1e-5, rtol=1e-5)


def track_with(network: SegmentationNetwork, run: dict[str, Run]) -> SegmentationNetwork:
    """The network with its methods replaced by stages, which have the inputs of `stages` in their order."""

    def encode_query(frame: Tensor) -> FrameFeatures:
        found = run["encode"](frame)
        return FrameFeatures(frame, *found)

    def recall(features: FrameFeatures, bank: MemoryBank, video: Tensor, cache: object = None) -> Tensor:
        return run["read"](features.key, bank.templates, bank.valid, bank.pinned)[0]

    def decode(recalled: Tensor, features: FrameFeatures, video: Tensor, cues: Tensor | None = None) -> Tensor:
        inputs = (features.value, features.stride4, features.stride8, recalled, *([] if cues is None else [cues]))
        return run["decode"](*inputs)[0]

    def encode_memory(features: FrameFeatures, mask: Tensor, others: Tensor, video: Tensor) -> Tensor:
        strides = (features.stride4, features.stride8, features.stride16)
        return run["memorise"](features.frame, features.key, *strides, mask, others)[0]

    def new_bank(capacity: int = 5, *, policy: str = "least_similar") -> MemoryBank:
        return MemoryBank(
            capacity,
            policy=policy,
            fusion=lambda source, target, sizes=None: run["fuse"](source, target)[0],
            key=lambda template: run["key"](template)[0],
        )

    for function in (encode_query, recall, decode, encode_memory, new_bank):
        vars(network)[function.__name__] = function
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled network in ONNX files, by the command."""
    out = tmp_path_factory.mktemp("onnx") / "lite"
    assert 0 == main(["export-network", "lite", "--onnx", str(out), "--size", str(HEIGHT), str(WIDTH)])
    return out


def onnx_stage(path: Path) -> Run:
    """A file as a function of tensors."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [known.name for known in session.get_inputs()]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        feed = {name: tensor.detach().contiguous().numpy() for name, tensor in zip(names, tensors, strict=True)}
        return tuple(torch.from_numpy(array.copy()) for array in session.run(None, feed))

    return run


@needs_onnx
def test_onnxruntime_tracks_as_torch_does(folder: Path) -> None:
    """A rendered scene of two objects, with every step of the network and the fusion in onnxruntime and the bank in
    torch: probabilities within 1e-4, and the same masks."""
    frames, truths = zip(*render_scene(12, height=HEIGHT, width=WIDTH), strict=True)
    options = TrackingOptions(memory_size=5, memory_every=1, enlarge=1.0)
    sessions = {name: onnx_stage(folder / f"{name}.onnx") for name in STAGES}
    results = []
    for network in (SegmentationNetwork.from_pretrained(), track_with(SegmentationNetwork.from_pretrained(), sessions)):
        stream = VOSPredictor(network, options=options).start(frames[0], truths[0])
        results.append([stream.step(frame) for frame in frames[1:]])
        assert [5, 5] == stream.bank.count.tolist()
    for torchs, onnxs in zip(*results, strict=True):
        torch.testing.assert_close(torchs.probabilities, onnxs.probabilities, atol=1e-4, rtol=0)
        assert np.array_equal(torchs.ids.numpy(), onnxs.ids.numpy())


@needs_onnx
def test_the_files_say_what_they_take(folder: Path) -> None:
    """Inputs and outputs have the names of the stages, the number of objects is free, and nothing else lies there."""
    import onnxruntime

    assert {f"{name}.onnx" for name in STAGES} == {path.name for path in folder.iterdir()}
    for stage in stages(SegmentationNetwork.from_pretrained(), height=HEIGHT, width=WIDTH):
        session = onnxruntime.InferenceSession(str(folder / f"{stage.name}.onnx"), providers=["CPUExecutionProvider"])
        assert list(stage.inputs) == [known.name for known in session.get_inputs()]
        assert list(stage.outputs) == [known.name for known in session.get_outputs()]
        assert {"rows" if known.name in stage.rows else 1 for known in session.get_inputs()} == {
            known.shape[0] for known in session.get_inputs()
        }


@needs_onnx
def test_files_that_are_there_are_kept(folder: Path) -> None:
    """An export into their folder is refused, unless they are to be replaced."""
    with pytest.raises(FileError, match="earlier export"):
        export_onnx(SegmentationNetwork.from_pretrained(), folder, height=HEIGHT, width=WIDTH)


def test_frames_too_small_for_the_discriminative_read_are_decoded_without_cues() -> None:
    """As a stream does, so the file for decoding takes cues where a frame has cells enough alone."""
    network = SegmentationNetwork.from_pretrained()
    inputs = [list(stages(network, height=h, width=w)[2].inputs) for h, w in ((64, 96), (HEIGHT, WIDTH))]
    assert ["value", "stride4", "stride8", "recalled"] == inputs[0] == inputs[1][:-1]
    assert "cues" == inputs[1][-1]


@pytest.mark.parametrize(
    ("size", "memory_size"), [((60, 96), 5), ((64, 0), 5), ((64, 96), 1)], ids=["not of 16", "no width", "one slot"]
)
def test_sizes_that_cannot_be_exported_are_refused(size: tuple[int, int], memory_size: int) -> None:
    """The error says what a size must be."""
    with pytest.raises(OptionError, match="multiples of 16"):
        stages(small_network("lite"), height=size[0], width=size[1], memory_size=memory_size)


def test_a_network_in_training_mode_is_not_exported() -> None:
    """Its BatchNorm would be another function."""
    with pytest.raises(OptionError, match="eval"):
        stages(small_network("lite").train(), height=HEIGHT, width=WIDTH)


def test_without_onnx_the_export_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The extra is named, and no folder is made."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"stmemory\[onnx\]"):
        export_onnx(small_network("lite"), tmp_path / "out")
    assert [] == list(tmp_path.iterdir())
