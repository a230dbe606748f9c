"""Evaluation: J and F, the protocols of data sets, benchmarks, a memory that grows, reports, and rendered clips with
exact truth.

The core never imports this package; the command line does so inside the commands that need it.
"""

from stmemory.evaluation.clips import Clip, find_clips
from stmemory.evaluation.datasets import DATA_SETS, DataSet, find_data_set
from stmemory.evaluation.frame_metrics import (
    FRAME_PROTOCOLS,
    FrameProtocol,
    FrameScores,
    frame_mae,
    frame_mse,
    psnr,
    score_frames,
    ssim,
)
from stmemory.evaluation.growing import GrowingMemory, GrowingPredictor
from stmemory.evaluation.growth import (
    GrowthReport,
    Slope,
    block_slope,
    measure_growth,
    resident_bytes,
    slope_per_thousand,
)
from stmemory.evaluation.mask_folders import find_mask_clips, score_clip
from stmemory.evaluation.metrics import (
    ObjectScores,
    SequenceScores,
    Statistics,
    boundary_accuracy,
    boundary_map,
    boundary_radius,
    region_similarity,
    statistics,
)
from stmemory.evaluation.protocol import (
    ClipResult,
    Predictor,
    SegmentedFrame,
    Stream,
    Summary,
    evaluate,
    evaluate_clip,
    summarise,
)
from stmemory.evaluation.report import (
    Circumstances,
    as_json,
    current_circumstances,
    markdown_table,
    write_json,
    write_tables,
)
from stmemory.evaluation.scenes import render_scene

__all__ = [
    "DATA_SETS",
    "FRAME_PROTOCOLS",
    "Circumstances",
    "Clip",
    "ClipResult",
    "DataSet",
    "FrameProtocol",
    "FrameScores",
    "GrowingMemory",
    "GrowingPredictor",
    "GrowthReport",
    "ObjectScores",
    "Predictor",
    "SegmentedFrame",
    "SequenceScores",
    "Slope",
    "Statistics",
    "Stream",
    "Summary",
    "as_json",
    "block_slope",
    "boundary_accuracy",
    "boundary_map",
    "boundary_radius",
    "current_circumstances",
    "evaluate",
    "evaluate_clip",
    "find_clips",
    "find_data_set",
    "find_mask_clips",
    "frame_mae",
    "frame_mse",
    "markdown_table",
    "measure_growth",
    "psnr",
    "region_similarity",
    "render_scene",
    "resident_bytes",
    "score_clip",
    "score_frames",
    "slope_per_thousand",
    "ssim",
    "statistics",
    "summarise",
    "write_json",
    "write_tables",
]

__path__.append(f"{__path__[0]}/../aliases/evaluation")  # modules that moved
