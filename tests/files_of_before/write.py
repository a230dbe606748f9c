"""Writes the files of this folder: run once, with the package as it was at commit 23e24c3, before its modules moved.

    git clone REPOSITORY /tmp/old && git -C /tmp/old checkout 23e24c3
    PYTHONPATH=/tmp/old python tests/files_of_before/write.py tests/files_of_before

`tests/test_files_of_before.py` imports the functions above `write`, reads the files with the package of today, and goes
on from each.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from stmemory import (
    FramePredictor,
    FusionCell,
    LearnedPolicy,
    MemoryBank,
    NetworkConfig,
    PredictionConfig,
    PredictionNetwork,
    PredictionOptions,
    SegmentationNetwork,
    TrackingOptions,
    VOSPredictor,
)

LITE = NetworkConfig(
    template_channels=12,
    key_channels=4,
    value_channels=8,
    query_channels=4,
    decoder_channels=12,
    fusion_bottleneck=4,
    appearance_channels=2,
)
STM = NetworkConfig(
    preset="stm",
    backbone="resnet50",
    norm="group",
    template_channels=16,
    key_channels=4,
    value_channels=4,
    query_channels=4,
    decoder_channels=4,
    affinity="dot",
    fusion_bottleneck=4,
    appearance_channels=0,
    pinned_bias=False,
)
AHEAD = PredictionConfig(
    preset="tiny",
    image_side=16,
    widths=(8, 8, 8, 8, 8, 8),
    key_channels=16,
    value_channels=6,
    clock_channels=4,
    fusion_bottleneck=4,
)
RULES = TrackingOptions(memory_size=3, memory_every=2, write_gate=0.0, enlarge=1, zoom=2.0, top_k=7)
RUN = ["--weights", "network", "--memory-size", "2", "--zoom", "1", "--enlarge", "1", "--write-gate", "0"]
SIDE = 32


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Floats in [-1, 1) that are the same on every machine: no generator, and each is a whole number of 2048ths."""
    index = torch.arange(int(np.prod(shape, dtype=np.int64)), dtype=torch.int64)
    mixed = (index + 7919 * seed + 1) * 2654435761 % 2**32
    mixed = (mixed ^ (mixed >> 15)) * 2246822519 % 2**32
    return (((mixed >> 13) % 4096 - 2048).float() / 2048).view(shape)


def filled(module: nn.Module, *, factor: float = 1.0) -> nn.Module:
    """The module with such numbers as weights, in eval mode."""
    with torch.no_grad():
        for place, (name, parameter) in enumerate(module.named_parameters()):
            if parameter.dim() > 1:
                scale = 2.0 ** round(float(np.log2((3 / parameter[0].numel()) ** 0.5)))
                parameter.copy_(numbers(*parameter.shape, seed=place) * (factor * scale))
            elif name.endswith("bias") and parameter.dim():
                parameter.copy_(numbers(*parameter.shape, seed=place) / 4)
    return module.eval().requires_grad_(False)


def lite_network() -> SegmentationNetwork:
    """A narrow network of the default kind, too large for a file here: its trunk has 2.8 MB."""
    return filled(SegmentationNetwork(LITE), factor=1.5)


def prediction_network() -> PredictionNetwork:
    """A narrow network that predicts frames."""
    return filled(PredictionNetwork(AHEAD))


def learned_policy() -> LearnedPolicy:
    """A learned policy."""
    return filled(LearnedPolicy(hidden=8))


def clip(frames: int = 8) -> NDArray[np.uint8]:
    """Frames `[T, H, W, 3]` of two bright rectangles that move over a pattern."""
    blocks = (numbers(SIDE // 8, SIDE // 8, 3, seed=5).numpy() * 40 + 60).astype(np.uint8)
    video = np.repeat(np.kron(blocks, np.ones((8, 8, 1), np.uint8))[None], frames, axis=0)
    for time in range(frames):
        video[time, 6:16, 4 + time : 16 + time] = (220, 60, 40)
        video[time, 14:24, 20 - time : 28 - time] = (40, 70, 230)
    return video


def mask() -> NDArray[np.uint8]:
    """Both objects of the first frame."""
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[6:16, 4:16], ids[14:24, 20:28] = 3, 9
    return ids


def one_object(time: int) -> NDArray[np.uint8]:
    """The second object of a frame, for a correction."""
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[14:24, 20 - time : 28 - time] = 9
    return ids


def templates(time: int) -> Tensor:
    """Templates for two rows of a bank, `[2, 6, 3, 4]`."""
    return numbers(2, 6, 3, 4, seed=100 + time)


def write(folder: Path) -> None:
    """Write all files, and beside them what the next steps give."""
    from safetensors.torch import save_file

    from stmemory.memory import save_bank, save_policy

    after: dict[str, Tensor] = {}
    stream = VOSPredictor(lite_network(), options=RULES).start(clip()[0], mask())
    for time in range(1, 4):
        stream.step(clip()[time], one_object(time) if time == 2 else None)
    stream.save(folder / "tracking.stream")
    stream.step(clip()[4])
    after["tracking"] = stream.step(clip()[5]).probabilities

    network = filled(SegmentationNetwork(STM), factor=1.5)
    network.save_pretrained(folder / "network")
    options = TrackingOptions(memory_size=3, memory_every=1, write_gate=0.0, zoom=1, enlarge=1, policy=learned_policy())
    stream = VOSPredictor(network, options=options).start(clip()[0], mask())
    for time in range(1, 5):
        stream.step(clip()[time])
    stream.save(folder / "learned.stream")
    stream.step(clip()[5])
    after["learned"] = stream.step(clip()[6]).probabilities

    ahead = FramePredictor(prediction_network(), options=PredictionOptions(memory_size=3)).start()
    for time in range(5):
        ahead.step(clip()[time, :16, :16])
    ahead.save(folder / "prediction.stream")
    after["prediction"] = torch.stack([one.pixels for one in ahead.foresee(2)])

    fusion = filled(FusionCell(6, bottleneck=4))
    fusion.save_pretrained(folder / "fusion")
    bank = MemoryBank(3, fusion=fusion)
    for time in range(5):
        bank.write(templates(time), frame=time, pinned=time == 0)
    save_bank(bank, folder / "bank.safetensors")
    bank.write(templates(5), frame=5)
    after["bank"] = bank.templates.clone()
    for name in ("network", "fusion"):
        (folder / name / "README.md").unlink()  # the card

    save_policy(learned_policy(), folder / "policy.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in after.items()}, folder / "after.safetensors")

    frames = folder / "clip"
    frames.mkdir()
    for time, pixels in enumerate(clip(6)):
        Image.fromarray(pixels).save(frames / f"{time:05d}.png", optimize=True)
    Image.fromarray(mask()).save(folder / "first.png")
    command = [sys.executable, "-m", "stmemory", "track", "clip", "--mask", "first.png", "--threads", "1", *RUN]
    subprocess.run([*command, "-o", "run", "--frames", "3"], cwd=folder, check=True)
    subprocess.run([*command, "-o", "whole"], cwd=folder, check=True)
    for name in ("00003.png", "00004.png", "00005.png"):
        shutil.copy(folder / "whole" / "masks" / name, folder / f"after-{name}")
    shutil.rmtree(folder / "whole")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(Path(sys.argv[1]))
