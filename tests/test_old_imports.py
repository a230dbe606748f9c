"""Imports of before the rooms: what README, docs and examples of commit 23e24c3 import can still be imported."""

from __future__ import annotations

import importlib

import pytest

NAMES = {
    "stmemory": "FrameError FramePredictor FusionCell MemoryBank PredictionOptions SegmentationNetwork SpaceTimeRead "
    "StmemoryError TrackingOptions VOSPredictor VOSStream",
    "stmemory.errors": "FrameError MaskError OptionError",
    "stmemory.evaluation": "SequenceScores boundary_accuracy evaluate_clip find_data_set region_similarity "
    "score_frames summarise write_tables",
    "stmemory.evaluation.layouts": "find_data_set",
    "stmemory.evaluation.metrics": "region_similarity",
    "stmemory.evaluation.scenes": "render_scene",
    "stmemory.files": "whole_file",
    "stmemory.forecast": "demo_clip",
    "stmemory.formats": "CutoutMovWriter CutoutWriter GifWriter MatteWriter VolumeWriter YouTubeVisWriter decode_rle "
    "encode_rle export read_masks read_youtube_vis",
    "stmemory.frames": "count_frames iterate_frames",
    "stmemory.images": "UNREADABLE image_files is_image_path iterate_images",
    "stmemory.inspection": "Inspector inspect memory_keys slot_attention",
    "stmemory.inspection.ink": "FAINT INK MARGIN colour_of_frame colour_of_object font page text_on",
    "stmemory.job": "run_job",
    "stmemory.job_folder": "TrackJob",
    "stmemory.job_record": "check_folder",
    "stmemory.live": "LiveSource",
    "stmemory.memory": "BankView Decision FusionCell LearnedPolicy MemoryBank ReadCache SpaceTimeRead "
    "feature_alignment load_bank load_policy memory_tokens policy_names save_bank save_policy "
    "space_time_read update_policy",
    "stmemory.memory.policy": "BankView",
    "stmemory.memory.state": "load_bank save_bank",
    "stmemory.palette": "read_palette_png write_palette_png",
    "stmemory.predictor": "VOSPredictor",
    "stmemory.result": "Segmentation contours",
    "stmemory.sam2": "VideoPredictor",
    "stmemory.saving": "save_network",
    "stmemory.sequences": "Curtain DigitPool Human36mMim Human36mOpenStl Kth MovingDigits MovingMnistFile "
    "RepeatingPictures VanishingDigits batch glyphs halved",
    "stmemory.session": "ClipSession",
    "stmemory.stream": "VOSStream",
    "stmemory.stream_file": "StreamState",
    "stmemory.training.config": "Phase Source TrainingConfig",
    "stmemory.training.loop": "Trainer",
    "stmemory.training.prediction": "ClipSet Contender PredictionTrainer PredictionTraining",
    "stmemory.video": "OverlayWriter frame_rate iterate_video",
    "stmemory.weights": "load_network",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_of_before_are_found_where_they_were(module: str) -> None:
    """A module that moved is there under its old name, with the names that were used."""
    found = importlib.import_module(module)

    assert [] == [name for name in NAMES[module].split() if not hasattr(found, name)]


def test_an_old_name_is_the_new_object() -> None:
    """An alias names the same class: what is made by one is an instance of the other."""
    old, new = importlib.import_module("stmemory.live"), importlib.import_module("stmemory.io.live")

    assert new.LiveSource is old.LiveSource
