"""stmemory: track any object through a video of any length, in memory that does not grow.

The library of the paper *Space Time Recurrent Memory Network* (Nguyen and Li, arXiv 2109.06474). Start with
`VOSPredictor`, or with `FramePredictor` for what comes next in a video; the memory alone, for models of your own, is
`MemoryBank`, `FusionCell`, `UpdatePolicy` and `SpaceTimeRead`.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from typing import TYPE_CHECKING

from stmemory.errors import (
    BankError,
    FrameError,
    MaskError,
    OptionError,
    ShapeError,
    StmemoryError,
    WeightsError,
)

if TYPE_CHECKING:
    from stmemory.frame_predictor import FramePredictor
    from stmemory.frame_stream import FrameStream
    from stmemory.memory import FusionCell, LearnedPolicy, MeanFusion, MemoryBank, SpaceTimeRead, UpdatePolicy
    from stmemory.networks.config import NetworkConfig
    from stmemory.networks.prediction import PredictionNetwork
    from stmemory.networks.prediction_config import PredictionConfig
    from stmemory.networks.segmentation import SegmentationNetwork
    from stmemory.options import PredictionOptions, TrackingOptions
    from stmemory.predicted import PredictedFrame
    from stmemory.predictor import VOSPredictor
    from stmemory.result import Segmentation
    from stmemory.stream import VOSStream

__all__ = [
    "BankError",
    "FrameError",
    "FramePredictor",
    "FrameStream",
    "FusionCell",
    "LearnedPolicy",
    "MaskError",
    "MeanFusion",
    "MemoryBank",
    "NetworkConfig",
    "OptionError",
    "PredictedFrame",
    "PredictionConfig",
    "PredictionNetwork",
    "PredictionOptions",
    "Segmentation",
    "SegmentationNetwork",
    "ShapeError",
    "SpaceTimeRead",
    "StmemoryError",
    "TrackingOptions",
    "UpdatePolicy",
    "VOSPredictor",
    "VOSStream",
    "WeightsError",
    "__version__",
]

__version__ = "0.1.0"

logging.getLogger("stmemory").addHandler(logging.NullHandler())  # the application decides what is shown

_HOMES = {
    "FramePredictor": "stmemory.frame_predictor",
    "FrameStream": "stmemory.frame_stream",
    "FusionCell": "stmemory.memory",
    "LearnedPolicy": "stmemory.memory",
    "MeanFusion": "stmemory.memory",
    "MemoryBank": "stmemory.memory",
    "NetworkConfig": "stmemory.networks.config",
    "PredictedFrame": "stmemory.predicted",
    "PredictionConfig": "stmemory.networks.prediction_config",
    "PredictionNetwork": "stmemory.networks.prediction",
    "PredictionOptions": "stmemory.options",
    "Segmentation": "stmemory.result",
    "SegmentationNetwork": "stmemory.networks.segmentation",
    "SpaceTimeRead": "stmemory.memory",
    "TrackingOptions": "stmemory.options",
    "UpdatePolicy": "stmemory.memory",
    "VOSPredictor": "stmemory.predictor",
    "VOSStream": "stmemory.stream",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for, so that `stmemory --help` and `stmemory.errors` need not wait for
    torch."""
    if name in _HOMES:
        globals()[name] = found = getattr(importlib.import_module(_HOMES[name]), name)
        return found
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
