"""Mask videos, lossless grey videos whose levels are ids, written and read; and mattes, white where objects are."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import FrameError, MaskError
from stmemory.formats.base import Labelled, ids_of
from stmemory.formats.images import VideoWriter, alpha_of
from stmemory.io.decoder import open_video
from stmemory.io.palette import Ids
from stmemory.io.video import iterate_video

__all__ = ["VIDEO_SUFFIXES", "MaskVideoWriter", "MatteWriter", "read_mask_video"]

VIDEO_SUFFIXES = (".mkv", ".mov", ".mp4", ".m4v", ".avi", ".webm", ".mpg", ".mpeg", ".ts", ".mxf", ".nut", ".y4m")
LOSSLESS = (
    "ffv1",
    "png",
    "apng",
    "qtrle",
    "rawvideo",
    "huffyuv",
    "ffvhuff",
    "utvideo",
    "gif",
    "bmp",
    "tiff",
    "zmbv",
    "magicyuv",
    "v210",
    "r210",
)
_IDS, _MATTE = "stmemory: levels are ids", "stmemory: white is what is kept"
_CODECS = {".mkv": "grey_ffv1", ".mov": "grey_png"}


class MaskVideoWriter(VideoWriter):
    """Writes a grey video without loss, in which a pixel's level is its object's id. Ids 1 to 254. Needs PyAV (the
    extra `video`).

    Args:
        path: a `.mkv` (FFV1) or a `.mov` (PNG).
        rate: frames per second.

    Raises:
        FrameError: PyAV is missing.
        OptionError: `rate` is out of range.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with MaskVideoWriter(f"{folder}/a.mkv") as out:
    ...         out.add(np.array([[0, 7]]))
    ...     [(name, ids.tolist()) for name, ids in read_mask_video(f"{folder}/a.mkv")]
    [('00000', [[0, 7]])]
    """

    def __init__(self, path: str | os.PathLike[str], *, rate: float = 25.0) -> None:
        super().__init__(path, _CODECS, rate=rate, comment=_IDS)

    def _drawn(self, frame: Labelled, object_ids: tuple[int, ...]) -> NDArray[np.uint8]:
        most = int(frame.ids.max())
        if most > 254:
            raise MaskError(
                f"{frame.name}: a grey video holds ids up to 254, got {most}; write youtube_vis or volume "
                "instead, or number the objects from 1"
            )
        return frame.ids.astype(np.uint8)


class MatteWriter(VideoWriter):
    """Writes a matte for video editors, a grey video without loss: white where objects are, black elsewhere, and soft
    edges where results are added. Needs PyAV (the extra `video`).

    Args:
        path: a `.mov` (PNG) or a `.mkv` (FFV1) of all objects; with `per_object` a folder, new or empty, of one `.mov`
            for each, as long as the clip.
        rate: frames per second.
        soft: let grey be the probability of the object, or of all objects, where results are added; else there is black
            and white alone.
        per_object: a video for each object, `FOLDER/<object id>.mov`.

    Raises:
        FrameError: PyAV is missing.
        OptionError: `rate` is out of range.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, rate: float = 25.0, soft: bool = True, per_object: bool = False
    ) -> None:
        super().__init__(path, _CODECS, rate=rate, per_object=per_object, comment=_MATTE)
        self._soft = soft

    def _drawn(self, frame: Labelled, object_ids: tuple[int, ...]) -> NDArray[np.uint8]:
        return alpha_of(frame, object_ids, soft=self._soft)


def read_mask_video(path: str | os.PathLike[str]) -> Iterator[tuple[str, Ids]]:
    """Read a video of masks.

    In a codec that loses nothing (FFV1, PNG, Animation, HuffYUV, raw, ...) levels are ids, by the rule of grey
    images: white alone is object 1, in the soft edges of black and white 128 and more. Other codecs blur levels, so
    that a video in them has to be black and white.

    Args:
        path: the video, which is opened when this is called.

    Returns:
        The numbers of the frames with five digits, and ids int32 `[H, W]`.

    Raises:
        MaskError: it is no video, is damaged, or shows colours, or in a codec with loss anything but black and white;
            PyAV is missing.
    """
    name = os.fspath(path)
    try:
        container, stream = open_video(path)
        with container:
            codec, comment = (
                str(stream.codec_context.name),
                {key.lower(): value for key, value in container.metadata.items()}.get("comment"),
            )
        pictures = iterate_video(path)
    except FrameError as error:
        raise MaskError(f"{error} (masks were wanted)") from error
    return _each(pictures, comment if codec in LOSSLESS else None, codec, name)


def _each(
    pictures: Iterator[NDArray[np.uint8]], comment: str | None, codec: str, path: str
) -> Iterator[tuple[str, Ids]]:
    for index in range(2**31):
        try:
            picture = next(pictures, None)
        except FrameError as error:
            raise MaskError(str(error)) from error
        if picture is None:
            return
        if codec not in LOSSLESS or comment == _MATTE:
            ids = _white(picture, exact=codec in LOSSLESS, where=f"{path}: frame {index}", codec=codec)
        elif not (picture == picture[..., :1]).all():
            raise MaskError(
                f"{path}: frame {index}: expected grey, whose levels are "
                "ids, got colours; is it the clip itself, or an overlay?"
            )
        elif comment == _IDS:
            ids = picture[..., 0].astype(np.int32)
        else:
            try:
                ids = ids_of(np.ascontiguousarray(picture[..., 0]))
            except MaskError as error:
                raise MaskError(f"{path}: frame {index}: {error}") from error
        yield f"{index:05d}", ids


def _white(picture: NDArray[np.uint8], *, exact: bool, where: str, codec: str) -> Ids:
    """Object 1 where a black and white image is white."""
    lowest, highest = picture.min(axis=2), picture.max(axis=2)
    white = highest >= 128
    if not exact:
        between = int(((highest >= 80) & (highest < 176)).sum())
        colours = int((highest - lowest > 48).sum())
        if max(between, colours) > max(int(white.sum()) // 4, white.size // 50):  # edges are thin
            raise MaskError(
                f"{where}: expected black and white, since {codec} blurs levels so that they are no ids, got "
                "greys or colours; write the masks as FFV1 "
                '(format="mask_video"), or as PNGs'
            )
    ids: Ids = white.astype(np.int32)
    return ids
