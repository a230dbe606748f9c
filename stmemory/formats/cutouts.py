"""Cut-outs: the frames' pixels where objects are, the rest transparent; as RGBA PNGs, or as a ProRes 4444 video."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stmemory.errors import FrameError
from stmemory.files import whole_file
from stmemory.formats.writer import Labelled, MaskWriter, new_file, new_folder
from stmemory.video import OverlayWriter

__all__ = ["CutoutMovWriter", "CutoutWriter"]


class CutoutWriter(MaskWriter):
    """Writes `FOLDER/<frame>.png`, RGBA; or, for each object, `FOLDER/<object id>/<frame>.png`. `add` needs `frame`.

    Args:
        path: the folder, new or empty.
        per_object: a folder for each object, with a PNG for each frame that shows it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with CutoutWriter(folder) as out:
    ...         out.add(np.array([[0, 7]]), frame=np.full((1, 2, 3), 99, np.uint8))
    ...     with Image.open(f"{folder}/00000.png") as image:
    ...         np.array(image).tolist()
    [[[0, 0, 0, 0], [99, 99, 99, 255]]]
    """

    draws = True

    def __init__(self, path: str | os.PathLike[str], *, per_object: bool = False) -> None:
        super().__init__(path)
        self._per_object = per_object
        new_folder(self.path)

    def _write(self, frame: Labelled) -> None:
        if not self._per_object:
            self._save(frame, frame.ids > 0, "")
        for object_id in frame.shown if self._per_object else ():
            self._save(frame, frame.ids == object_id, f"{object_id:03d}")

    def _finish(self) -> None:
        if not any(self.path.iterdir()):
            raise FrameError(f"{self.path}: expected frames with objects, got background only; no file was made")

    def _save(self, frame: Labelled, mask: NDArray[np.bool_], folder: str) -> None:
        path = new_file(self.path / folder, frame)
        picture = _with_alpha(frame, mask)
        picture[~mask] = 0  # what is cut away is not in the file
        with whole_file(path) as part:
            Image.fromarray(picture).save(part, format="PNG")


class CutoutMovWriter(MaskWriter):
    """Writes a ProRes 4444 `.mov` with an alpha channel, for video editors. `add` needs `frame`. Needs PyAV (the extra `video`).

    Straight alpha: the frame's colours stay where it is transparent, so that the codec leaves no dark seam.

    Args:
        path: the `.mov`.
        rate: frames per second.

    Raises:
        FrameError: PyAV is missing.
        OptionError: `rate` is out of range.
    """

    draws = True

    def __init__(self, path: str | os.PathLike[str], *, rate: float = 25.0) -> None:
        super().__init__(path)
        OverlayWriter(path, rate=rate, alpha=True)  # makes no file; raises before anything else does
        self._video = OverlayWriter(self._whole(".mov"), rate=rate, alpha=True)
        self._stack.callback(self._video.close)

    def _write(self, frame: Labelled) -> None:
        self._video.write(_with_alpha(frame, frame.ids > 0))

    def _finish(self) -> None:
        self._video.close()


def _with_alpha(frame: Labelled, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """uint8 RGBA `[H, W, 4]`."""
    if frame.picture is None:  # a format that draws is never given such a frame
        raise FrameError(f"{frame.name}: expected a frame to cut out of, got none; pass add(result, frame=frame)")
    picture = np.empty((*mask.shape, 4), np.uint8)
    picture[..., :3] = frame.picture.mul(255).round().byte().permute(1, 2, 0).numpy()
    picture[..., 3] = 255 * mask
    return picture
