"""`Segmentation`: the result of one frame, and its conversions to what other libraries take."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.io.drawing import contours
from stmemory.io.files import png_path
from stmemory.io.frames import to_frame
from stmemory.io.masks import bounding_box
from stmemory.io.palette import Ids, davis_palette, object_ids_in, write_palette_png
from stmemory.io.rle import box_of, encode_rle
from stmemory.types import FrameLike

if TYPE_CHECKING:
    import supervision

__all__ = ["Segmentation", "coco_annotation", "contours", "to_coco", "to_supervision"]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The objects in one frame, at the frame's own size.

    The tensors are made in inference mode: `clone()` them to change them in place or to use them in autograd.

    Attributes:
        frame_index: which frame of the clip, from 0.
        ids: int32 `[H, W]`, the user's own ids, 0 = background.
        probabilities: float32 `[1 + N, H, W]`, background first, then in the order of `object_ids`; sums to 1.
        object_ids: the N ids.
        scores: for each id, how sure its mask is, in [0, 1].
        present: for each id, whether it is seen in this frame.

    >>> import torch
    >>> found = Segmentation(0, torch.tensor([[0, 7]]).int(), torch.eye(2)[:, None], (7,), {7: 1.0}, {7: True})
    >>> found.overlay(np.zeros((1, 2, 3), np.uint8)).tolist()
    [[[0, 0, 0], [128, 128, 128]]]
    """

    frame_index: int
    ids: Tensor
    probabilities: Tensor
    object_ids: tuple[int, ...]
    scores: dict[int, float]
    present: dict[int, bool]

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.ids.shape))
        return f"Segmentation(frame {self.frame_index}, {size} (H x W), objects {self.object_ids})"

    def mask(self, object_id: int) -> Tensor:
        """Where one object is, bool `[H, W]`; nowhere where it is not `present`.

        Raises:
            MaskError: the object is not tracked.
        """
        self._check_tracked(object_id)
        return self.ids == object_id

    def box(self, object_id: int) -> tuple[int, int, int, int] | None:
        """The smallest box that holds one object: left, top, right and bottom in px, the last two one past it; None
        where it is not `present`.

        Raises:
            MaskError: the object is not tracked.
        """
        box = bounding_box(self.mask(object_id))
        if box is None:
            return None
        top, bottom, left, right = box
        return left, top, right, bottom

    def _check_tracked(self, object_id: int) -> None:
        if object_id not in self.object_ids:
            raise MaskError(
                f"expected an id of {self.object_ids}, got {object_id!r}; these are the objects that are tracked"
            )

    def overlay(self, frame: FrameLike, *, opacity: float = 0.5) -> NDArray[np.uint8]:
        """Draw the objects over the frame: each in its DAVIS colour, with a solid contour one pixel wide along its
        inside.

        Ids above 255 take the colours of the ids 1 to 255 again.

        Args:
            frame: the frame, of any kind that `to_frame` takes.
            opacity: of the colour inside the contour, 0 (contour alone) to 1.

        Returns:
            uint8 RGB `[H, W, 3]`.

        Raises:
            FrameError: the frame has another size than the masks, or cannot be used.
            ShapeError: the frame is of another kind or shape.
            OptionError: `opacity` is outside [0, 1].
        """
        if not 0 <= opacity <= 1:
            raise OptionError(f"opacity: expected 0 to 1, got {opacity}; 0 draws the contours alone")
        pixels = to_frame(frame)
        if pixels.shape[1:] != self.ids.shape:
            raise FrameError(
                f"overlay: expected a frame of the masks' size, {tuple(self.ids.shape)} (H, W), got "
                f"{tuple(pixels.shape[1:])}; pass the frame that was segmented"
            )
        image = pixels.permute(1, 2, 0).cpu().numpy() * 255  # [H, W, 3]
        ids = self.ids.cpu().numpy()
        palette = np.frombuffer(davis_palette(), np.uint8).reshape(256, 3)
        shown = ids > 0
        colours = palette[(ids[shown] - 1) % 255 + 1]  # [shown pixels, 3]
        strength = np.where(contours(ids)[shown], 1.0, opacity)[:, None].astype(np.float32)
        image[shown] += strength * (colours - image[shown])
        drawn: NDArray[np.uint8] = np.rint(image).astype(np.uint8)
        return drawn

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ids as a PNG in the DAVIS palette. The file is written atomically.

        Args:
            path: the file, `.png`. Missing parent folders are made; a file that is there is replaced.

        Raises:
            OptionError: the name has another ending than `.png`, or is not a name of a file.
            FileError: the file cannot be written there.
            MaskError: an id is above 254; a palette PNG cannot hold it, and 255 in it means void.
        """
        path = png_path(path, "other formats change ids or hold none: write the PNG, or numpy.save(path, result.ids)")
        if 255 in self.object_ids:
            raise MaskError(
                f"{path}: expected ids 1 to 254, since 255 is void in a palette PNG, got 255; track it under another "
                "id, or write numpy.save(path, result.ids)"
            )
        write_palette_png(path, self.ids)

    def to_coco(self) -> list[dict[str, object]]:
        """The objects that are seen, as COCO's annotations with RLE masks; see `stmemory.formats.to_coco`."""
        return to_coco(self)

    def to_supervision(self, *, names: Mapping[int, str] | None = None) -> supervision.Detections:
        """The objects that are seen, as `sv.Detections`; see `stmemory.formats.to_supervision`. Needs the extra
        `formats`."""

        return to_supervision(self, names=names)


def to_coco(result: Segmentation) -> list[dict[str, object]]:
    """The objects that are seen in a frame, as COCO's annotations.

    Args:
        result: of one frame.

    Returns:
        For each present object: `image_id` (the frame's index), `category_id` 1, `track_id` (the object's id),
        `segmentation` (RLE), `bbox` (x, y, width, height in px), `area` (px), `iscrowd` 0 and, where the result has it,
        `score`.

    >>> import torch
    >>> found = Segmentation(0, torch.tensor([[0, 7]]).int(), torch.eye(2)[:, None], (7,), {7: 1.0}, {7: True})
    >>> to_coco(found)[0]["segmentation"]
    {'size': [1, 2], 'counts': '11'}
    """
    ids: Ids = result.ids.detach().cpu().numpy()
    return [
        {"image_id": result.frame_index, "category_id": 1, **coco_annotation(ids == object_id, object_id)}
        | ({"score": result.scores[object_id]} if object_id in result.scores else {})
        for object_id in object_ids_in(ids)
    ]


def coco_annotation(mask: NDArray[np.bool_], object_id: int) -> dict[str, object]:
    """One object of a frame, `mask` bool `[H, W]`, as COCO has it, without its image and category.

    >>> coco_annotation(np.array([[False, True]]), 7)["bbox"]
    [1, 0, 1, 1]
    """
    return {
        "track_id": object_id,
        "segmentation": encode_rle(mask),
        "bbox": box_of(mask),
        "area": int(mask.sum()),
        "iscrowd": 0,
    }


OTHER = "object"  # the class of an object without a name


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
