"""A tiny seeded network, a short random clip and other small things that the tests of streams and predictors share."""

from __future__ import annotations

import copy
import dataclasses
import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.prediction.config import PredictionConfig
from stmemory.prediction.network import PredictionNetwork
from stmemory.predictor import VOSPredictor
from stmemory.stream import VOSStream

HEIGHT, WIDTH = 48, 64
CONFIG = NetworkConfig(
    preset="tiny",
    template_channels=12,
    key_channels=4,
    value_channels=8,
    query_channels=4,
    decoder_channels=12,
    fusion_bottleneck=4,
    appearance_channels=4,
)
PREDICTION_CONFIG = PredictionConfig(
    preset="tiny",
    image_side=16,
    widths=(8, 8, 8, 8, 8, 8),
    key_channels=16,
    value_channels=6,
    clock_channels=4,
    fusion_bottleneck=4,
)


def tiny_network(seed: int = 0) -> SegmentationNetwork:
    """A narrow network whose random weights find parts of each frame, other parts for other memories."""
    return copy.deepcopy(_network(seed))


@functools.cache
def _network(seed: int, *, scored: bool = True) -> SegmentationNetwork:
    """The one that copies are made of, with a discriminative read or without."""
    config = CONFIG if scored else dataclasses.replace(CONFIG, appearance_channels=0, pinned_bias=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SegmentationNetwork(config).eval()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.startswith("query_encoder.trunk") and name.endswith("conv.weight"):
                    torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
                elif parameter.dim() > 1:
                    torch.nn.init.normal_(parameter, std=1.2 / parameter[0].numel() ** 0.5)
            for part in (network.decoder.cues.stride8, network.decoder.cues.stride16) if scored else ():
                part.weight.mul_(2.0)
            end = network.decoder.end
            end.weight.mul_(3)
            end.bias.fill_(0.3)
    return network


@functools.cache
def tiny_prediction_network(seed: int = 0, **changes: object) -> PredictionNetwork:
    """A narrow network that predicts frames, whose random weights make others of other memories; leave it as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PredictionNetwork(dataclasses.replace(PREDICTION_CONFIG, **changes)).eval().requires_grad_(False)
        for parameter in network.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=1.2 / parameter[0].numel() ** 0.5)
        network.decoder.layers[-1].bias.fill_(0.5)
    return network


def new_predictor(
    *, seed: int = 0, scored: bool = True, dtype: torch.dtype | None = None, **options: object
) -> VOSPredictor:
    """A predictor of that network; regions far away count, and every frame in which an object is seen is memorised."""
    chosen = TrackingOptions(**{"reach": None, "write_gate": 0.0, "memory_every": 1, "enlarge": 1, **options})
    return VOSPredictor(_network(seed, scored=scored), options=chosen, dtype=dtype)


# The same, made once for each set of options, for tests that leave it as it is.
tiny_predictor = functools.cache(new_predictor)


def clip(frames: int, height: int = HEIGHT, width: int = WIDTH, *, seed: int = 0) -> NDArray[np.uint8]:
    """Random frames `[T, H, W, 3]`; a longer clip begins with the shorter one."""
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def boxes(*ids: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.int32]:
    """A mask of one upright bar for each id, from left to right, with background around them."""
    mask = np.zeros((height, width), np.int32)
    step = width // len(ids)
    for place, object_id in enumerate(ids):
        mask[height // 4 : height - height // 4, place * step + step // 4 : (place + 1) * step - step // 4] = object_id
    return mask


Square = tuple[int, int, int, int]  # top, bottom, left and right; px


def moving_squares(
    frames: int, red: Square, blue: Square, *, height: int = HEIGHT, width: int = WIDTH
) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames `[T, 3, H, W]` of noise over which two squares move, one down and one up, and the ids `[H, W]` of the
    first."""
    pixels, ids = 0.3 * torch.rand(frames, 3, height, width), torch.zeros(height, width, dtype=torch.int64)
    squares = ((red, 2, (0.6, 0.1, 0.0)), (blue, -2, (0.0, 0.2, 0.6)))
    for number, ((top, bottom, left, right), step, colour) in enumerate(squares, 1):
        for t, frame in enumerate(pixels):
            frame[:, top + step * t : bottom + step * t, left:right] += torch.tensor(colour)[:, None, None]
        ids[top:bottom, left:right] = number
    return pixels, ids


def state_of(stream: VOSStream, folder: Path) -> bytes:
    """All that a stream remembers, as the bytes of its file: two streams are in the same state if these are equal."""
    path = folder / "state"
    stream.save(path)
    return path.read_bytes()


def bank_of(stream: VOSStream) -> dict[str, torch.Tensor]:
    """A copy of all that a stream's bank holds."""
    return {name: tensor.clone() for name, tensor in stream.bank.contents().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two banks hold the same, bit for bit."""
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
