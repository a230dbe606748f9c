"""supervision: a result as `sv.Detections`. supervision (the extra `formats`) is imported when this is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stmemory.errors import OptionError
from stmemory.formats.writer import Ids, object_ids_in
from stmemory.result import Segmentation

if TYPE_CHECKING:
    import supervision

__all__ = ["to_supervision"]

OTHER = "object"  # what an object without a name is


def to_supervision(result: Segmentation, *, names: Mapping[int, str] | None = None) -> supervision.Detections:
    """One row for each object that is seen in a frame, in the order of the ids.

    Args:
        result: of one frame.
        names: for an id, what the object is; others are an "object".

    Returns:
        `sv.Detections`: `mask` bool `[n, H, W]`, `xyxy` (as `sv.mask_to_xyxy`, last pixel included), `tracker_id` (the
        object's id), `confidence` (its score), `class_id` (from 0: its name among all `names`, in the
        alphabet's order, "object" the last) and `data["class_name"]`.

    Raises:
        OptionError: supervision is not installed.
    """
    try:
        sv = importlib.import_module("supervision")
    except ImportError as error:
        raise OptionError(
            'to_supervision needs supervision, which is not installed; run: pip install "supervision>=0.26"'
        ) from error
    ids: Ids = result.ids.detach().cpu().numpy()
    shown = object_ids_in(ids)
    names = names or {}
    kinds = [*sorted(set(names.values()) - {OTHER}), OTHER]  # the same in each frame, whichever objects it has
    mine = [names.get(object_id, OTHER) for object_id in shown]
    masks = ids == np.array(shown, np.int32)[:, None, None]  # [n, H, W]
    detections: supervision.Detections = sv.Detections(
        xyxy=sv.mask_to_xyxy(masks).astype(np.float32) if shown else np.zeros((0, 4), np.float32),
        mask=masks,
        confidence=np.array([result.scores.get(i, 1.0) for i in shown], np.float32),
        class_id=np.array([kinds.index(kind) for kind in mine], np.int64),
        tracker_id=np.array(shown, np.int64),
        data={"class_name": np.array(mine, np.str_)},
    )
    return detections
