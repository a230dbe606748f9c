"""Networks: backbones, encoders, decoders, and the networks built from them."""

from stmemory.networks.config import PRESETS, NetworkConfig
from stmemory.networks.layers import FrameFeatures, fold_batch_norm
from stmemory.networks.segmentation import SegmentationNetwork

__all__ = ["PRESETS", "FrameFeatures", "NetworkConfig", "SegmentationNetwork", "fold_batch_norm"]
