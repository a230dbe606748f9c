"""Masks in the files that other tools take, both ways, one frame at a time.

Each writer is used alike: `with DavisWriter(path) as out: out.add(result)`. Each reader gives `(name, ids)`, and `ids`
is a mask that `predictor.track` and `predictor.start` take. `read_masks`, `new_writer` and `export` choose by a
format's name.
"""

from stmemory.formats.base import MaskWriter, with_frames
from stmemory.formats.coco import CocoWriter, YouTubeVisWriter, read_coco, read_youtube_vis
from stmemory.formats.cvat import CvatWriter, read_cvat
from stmemory.formats.images import CutoutMovWriter, CutoutWriter, GifWriter, Mp4Writer
from stmemory.formats.label_studio import LabelStudioWriter, read_label_studio
from stmemory.formats.mask_video import MaskVideoWriter, MatteWriter, read_mask_video
from stmemory.formats.pngs import (
    DavisWriter,
    ObjectsWriter,
    YouTubeVosWriter,
    read_davis,
    read_object_masks,
    read_objects,
    read_youtube_vos,
)
from stmemory.formats.polygons import YoloWriter, read_yolo
from stmemory.formats.registry import FORMATS, FormatOptions, export, frame_files, new_writer, read_masks
from stmemory.formats.volume import VolumeWriter, read_volume, to_label_volume
from stmemory.io.rle import Rle, box_of, decode_rle, encode_rle
from stmemory.result import to_coco, to_supervision

__all__ = [
    "FORMATS",
    "CocoWriter",
    "CutoutMovWriter",
    "CutoutWriter",
    "CvatWriter",
    "DavisWriter",
    "FormatOptions",
    "GifWriter",
    "LabelStudioWriter",
    "MaskVideoWriter",
    "MaskWriter",
    "MatteWriter",
    "Mp4Writer",
    "ObjectsWriter",
    "Rle",
    "VolumeWriter",
    "YoloWriter",
    "YouTubeVisWriter",
    "YouTubeVosWriter",
    "box_of",
    "decode_rle",
    "encode_rle",
    "export",
    "frame_files",
    "new_writer",
    "read_coco",
    "read_cvat",
    "read_davis",
    "read_label_studio",
    "read_mask_video",
    "read_masks",
    "read_object_masks",
    "read_objects",
    "read_volume",
    "read_yolo",
    "read_youtube_vis",
    "read_youtube_vos",
    "to_coco",
    "to_label_volume",
    "to_supervision",
    "with_frames",
]
