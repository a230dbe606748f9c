"""stmemory: track any object through a video of any length, in memory that does not grow.

The library of the paper *Space Time Recurrent Memory Network* (Nguyen and Li, arXiv 2109.06474). Start with `VOSPredictor`,
or with `FramePredictor` for what comes next in a video; the memory alone, for models of your own, is `MemoryBank`,
`FusionCell`, `UpdatePolicy` and `SpaceTimeRead`.
"""

import logging

from stmemory.errors import (
    BankError,
    FrameError,
    MaskError,
    OptionError,
    ShapeError,
    StmemoryError,
    WeightsError,
)
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
