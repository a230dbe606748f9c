"""stmemory: track any object through a video of any length, in memory that does not grow.

The library of the paper *Space Time Recurrent Memory Network* (Nguyen and Li, arXiv 2109.06474). Start with
`VOSPredictor`, or with `FramePredictor` for what comes next in a video; the memory alone, for models of your own, is
`MemoryBank`, `FusionCell`, `UpdatePolicy` and `SpaceTimeRead`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from stmemory.errors import BankError, FrameError, MaskError, OptionError, ShapeError, StmemoryError, WeightsError
from stmemory.lazy import lazy_names

if TYPE_CHECKING:
    from stmemory.memory import FusionCell, LearnedPolicy, MeanFusion, MemoryBank, SpaceTimeRead, UpdatePolicy
    from stmemory.networks.config import NetworkConfig
    from stmemory.networks.segmentation import SegmentationNetwork
    from stmemory.options import PredictionOptions, TrackingOptions
    from stmemory.prediction.config import PredictionConfig
    from stmemory.prediction.network import PredictionNetwork
    from stmemory.prediction.predictor import FramePredictor
    from stmemory.prediction.stream import FrameStream, PredictedFrame
    from stmemory.predictor import VOSPredictor
    from stmemory.prompts import Prompt
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
    "Prompt",
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

__path__.append(f"{__path__[0]}/aliases")  # modules that moved before 0.1.0 can be imported from where they were

_HOMES = {
    "FramePredictor": "stmemory.prediction.predictor",
    "FrameStream": "stmemory.prediction.stream",
    "FusionCell": "stmemory.memory",
    "LearnedPolicy": "stmemory.memory",
    "MeanFusion": "stmemory.memory",
    "MemoryBank": "stmemory.memory",
    "NetworkConfig": "stmemory.networks.config",
    "PredictedFrame": "stmemory.prediction.stream",
    "PredictionConfig": "stmemory.prediction.config",
    "PredictionNetwork": "stmemory.prediction.network",
    "PredictionOptions": "stmemory.options",
    "Prompt": "stmemory.prompts",
    "Segmentation": "stmemory.result",
    "SegmentationNetwork": "stmemory.networks.segmentation",
    "SpaceTimeRead": "stmemory.memory",
    "TrackingOptions": "stmemory.options",
    "UpdatePolicy": "stmemory.memory",
    "VOSPredictor": "stmemory.predictor",
    "VOSStream": "stmemory.stream",
}


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
