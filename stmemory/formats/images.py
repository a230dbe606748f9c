"""Images and videos of masks: overlays as GIF and MP4, cut-outs with alpha, and what all writers of videos share."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.formats.base import Labelled, MaskWriter, new_file, new_folder
from stmemory.io.files import whole_file
from stmemory.io.video import OverlayWriter
from stmemory.result import Segmentation

__all__ = ["CutoutMovWriter", "CutoutWriter", "GifWriter", "Mp4Writer", "VideoWriter", "alpha_of"]


class VideoWriter(MaskWriter):
    """A writer of one video of all objects; or of a folder with a video for each object, as long as the clip.

    Args:
        path: the video; with `per_object` the folder, new or empty.
        codecs: the codec for each ending that the video may have, see `OverlayWriter`; a folder's are `.mov`.
        rate: frames per second.
        per_object: a video for each object.
        comment: text that is stored in the file.

    Raises:
        FrameError: PyAV is missing.
        OptionError: `rate` or a codec is out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        codecs: Mapping[str, str],
        *,
        rate: float,
        per_object: bool = False,
        comment: str = "",
    ) -> None:
        super().__init__(path)
        OverlayWriter(path, rate=rate, codec=next(iter(codecs.values())))  # raises before any file is made
        self._videos: _ObjectVideos | None = None
        if per_object:
            folder = new_folder(self.path)
            self._videos = _ObjectVideos(folder, self._stack, rate=rate, codec=codecs[".mov"], comment=comment)
        else:
            part = self._whole(*codecs)
            self._video = OverlayWriter(part, rate=rate, codec=codecs[self.path.suffix.lower()], comment=comment)
            self._stack.callback(self._video.close)

    @abstractmethod
    def _drawn(self, frame: Labelled, object_ids: tuple[int, ...]) -> NDArray[np.uint8]:
        """A frame's image of some objects, as the codec takes it."""

    def _write(self, frame: Labelled) -> None:
        if self._videos is None:
            self._video.write(self._drawn(frame, frame.tracked))
            return
        for object_id in self._videos.known(frame):
            self._videos.write(frame, object_id, self._drawn(frame, (object_id,)))

    def _finish(self) -> None:
        (self._videos or self._video).close()


class Mp4Writer(VideoWriter):
    """Writes an MP4 with the objects over the frames; `add` needs `frame`. Needs PyAV (the extra `video`).

    Args:
        path: the MP4.
        rate: frames per second.
        opacity: opacity of the colour inside the contour, 0 to 1.

    Raises:
        FrameError: PyAV is missing.
        OptionError: `rate` or `opacity` is out of range.
    """

    draws = True

    def __init__(self, path: str | os.PathLike[str], *, rate: float = 25.0, opacity: float = 0.5) -> None:
        self._opacity = _checked(opacity)
        super().__init__(path, {".mp4": "h264"}, rate=rate)

    def _drawn(self, frame: Labelled, object_ids: tuple[int, ...]) -> NDArray[np.uint8]:
        return _overlay(frame, self._opacity)


class GifWriter(MaskWriter):
    """Writes a GIF with the objects over the frames; `add` needs `frame`. Bounded in size, however long the video is.

    At most `most_frames` are kept, in memory and in the file: when there are more, every second one goes, and the
    others are shown twice as long.

    Args:
        path: the GIF.
        rate: frames per second of the video.
        longest_side: in px; larger frames are shrunk to it.
        most_frames: an even number.
        opacity: opacity of the colour inside the contour, 0 to 1.

    Raises:
        OptionError: an option is out of range.
    """

    draws = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rate: float = 25.0,
        longest_side: int = 480,
        most_frames: int = 120,
        opacity: float = 0.5,
    ) -> None:
        super().__init__(path)
        if not 0 < rate < 1000:
            raise OptionError(f"rate: expected frames per second above 0 and below 1000, got {rate}; 25 is usual")
        if longest_side < 1 or most_frames < 2 or most_frames % 2:
            raise OptionError(
                f"expected longest_side of 1 px or more and most_frames even, got {longest_side} and {most_frames}"
            )
        self._rate, self._longest, self._most, self._opacity = rate, longest_side, most_frames, _checked(opacity)
        self._kept: list[Image.Image] = []
        self._step = 1
        self._part = self._whole(".gif")

    def _write(self, frame: Labelled) -> None:
        if frame.index % self._step:
            return
        if len(self._kept) == self._most:
            del self._kept[1::2]
            self._step *= 2  # this frame's index, `most` steps, is still a multiple
        picture = Image.fromarray(_overlay(frame, self._opacity))
        picture.thumbnail((self._longest, self._longest), Image.Resampling.LANCZOS)
        # the method that keeps the colours of small objects: cutting at the median loses them among those of the
        # background
        self._kept.append(picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))

    def _finish(self) -> None:
        # hundredths of a second are what a GIF counts in; browsers slow down what is shown for less than two
        milliseconds = max(20, 10 * round(100 * self._step / self._rate))
        self._kept[0].save(
            self._part, format="GIF", save_all=True, append_images=self._kept[1:], duration=milliseconds, loop=0
        )


def _overlay(frame: Labelled, opacity: float) -> NDArray[np.uint8]:
    found = Segmentation(frame.index, torch.from_numpy(frame.ids), torch.empty(0), (), {}, {})
    if frame.picture is None:
        raise FrameError(f"{frame.name}: expected the frame to draw on, got none; pass add(result, frame=frame)")
    return found.overlay(frame.picture, opacity=opacity)


def _checked(opacity: float) -> float:
    if not 0 <= opacity <= 1:
        raise OptionError(f"opacity: expected 0 to 1, got {opacity}; 0 draws the contours alone")
    return opacity


ALPHA_CODECS = ("prores", "png", "qtrle")
MOST_VIDEOS = 200  # that are written at a time, one for each object


class CutoutWriter(MaskWriter):
    """Writes `FOLDER/<frame>.png`, RGBA; or, for each object, `FOLDER/<object id>/<frame>.png`. `add` needs `frame`.

    Args:
        path: the folder, new or empty.
        per_object: a folder for each object, with a PNG for each frame that shows it.
        soft: let alpha be the probability of the object, or of all objects, where results are added; else it is 0 or
            255.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with CutoutWriter(folder) as out:
    ...         out.add(np.array([[0, 7]]), frame=np.full((1, 2, 3), 99, np.uint8))
    ...     with Image.open(f"{folder}/00000.png") as image:
    ...         np.array(image).tolist()
    [[[0, 0, 0, 0], [99, 99, 99, 255]]]
    """

    draws = True

    def __init__(self, path: str | os.PathLike[str], *, per_object: bool = False, soft: bool = False) -> None:
        super().__init__(path)
        self._per_object, self._soft = per_object, soft
        new_folder(self.path)

    def _write(self, frame: Labelled) -> None:
        if not self._per_object:
            self._save(frame, frame.tracked, "")
        for object_id in frame.shown if self._per_object else ():
            self._save(frame, (object_id,), f"{object_id:03d}")

    def _finish(self) -> None:
        if not any(self.path.iterdir()):
            raise FrameError(f"{self.path}: expected frames with objects, got background only; no file was made")

    def _save(self, frame: Labelled, object_ids: tuple[int, ...], folder: str) -> None:
        path = new_file(self.path / folder, frame)
        picture = _with_alpha(frame, alpha_of(frame, object_ids, soft=self._soft))
        picture[picture[..., 3] == 0] = 0  # what is cut away is not in the file
        with whole_file(path) as part:
            Image.fromarray(picture).save(part, format="PNG")


class CutoutMovWriter(VideoWriter):
    """Writes a `.mov` with an alpha channel, for video editors; or a folder of them, `FOLDER/<object id>.mov`. `add`
    needs `frame`. Needs PyAV (the extra `video`).

    Straight alpha: the frame's colours stay where it is transparent, so that the codec leaves no dark seam. Each
    object's video is as long as the clip: before the frame where the object is first known it is black and transparent.

    Args:
        path: the `.mov`; with `per_object` the folder, new or empty.
        rate: frames per second.
        codec: `"prores"`, ProRes 4444, which every editor takes; or `"png"` or `"qtrle"`, which lose nothing.
        soft: let alpha be the probability of the object, or of all objects, where results are added; else it is 0 or
            255.
        per_object: a video for each object.

    Raises:
        FrameError: PyAV is missing.
        OptionError: `rate` or `codec` is out of range.
    """

    draws = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rate: float = 25.0,
        codec: str = "prores",
        soft: bool = False,
        per_object: bool = False,
    ) -> None:
        if codec not in ALPHA_CODECS:
            raise OptionError(f"codec: expected one of {', '.join(ALPHA_CODECS)}, got {codec!r}")
        self._soft = soft
        super().__init__(path, {".mov": codec}, rate=rate, per_object=per_object)

    def _drawn(self, frame: Labelled, object_ids: tuple[int, ...]) -> NDArray[np.uint8]:
        return _with_alpha(frame, alpha_of(frame, object_ids, soft=self._soft))


class _ObjectVideos:
    """A video for each object, `<object id, three digits or more>.mov`, all of them as long as the clip."""

    def __init__(self, folder: Path, stack: ExitStack, *, rate: float, codec: str, comment: str) -> None:
        self._folder, self._stack, self._rate, self._codec, self._comment = folder, stack, rate, codec, comment
        self._videos: dict[int, OverlayWriter] = {}  # of objects, not of frames

    def known(self, frame: Labelled) -> tuple[int, ...]:
        """The objects that have a video from this frame on, at most 200."""
        ids = tuple(sorted({*self._videos, *frame.tracked}))
        if len(ids) > MOST_VIDEOS:
            raise MaskError(
                f"{frame.name}: expected at most {MOST_VIDEOS} objects, each of which has a video, got "
                f"{len(ids)}; write one video of all"
            )
        return ids

    def write(self, frame: Labelled, object_id: int, picture: NDArray[np.uint8]) -> None:
        """Append an image to the video of an object; a new one gets blank images for the frames before."""
        video = self._videos.get(object_id)
        if video is None:
            part = self._stack.enter_context(whole_file(self._folder / f"{object_id:03d}.mov"))
            video = self._videos[object_id] = OverlayWriter(
                part, rate=self._rate, codec=self._codec, comment=self._comment
            )
            self._stack.callback(video.close)
            for _ in range(frame.index):
                video.write(np.zeros_like(picture))
        video.write(picture)

    def close(self) -> None:
        """Finish the videos, of which there must be one."""
        if not self._videos:
            raise FrameError(f"{self._folder}: expected frames with objects, got background only; no file was made")
        for video in self._videos.values():
            video.close()


def alpha_of(frame: Labelled, object_ids: Collection[int], *, soft: bool) -> NDArray[np.uint8]:
    """How much of each pixel belongs to one of some objects.

    Args:
        frame: the frame.
        object_ids: ids of the objects; those that the frame does not know have no part.
        soft: take the probabilities of a result, where there is one.

    Returns:
        uint8 `[H, W]`: without probabilities 0 and 255.

    >>> frame = Labelled(0, "00000", np.array([[0, 7, 9]], np.int32), (7, 9), (7, 9), None)
    >>> alpha_of(frame, (7,), soft=True).tolist(), alpha_of(frame, (7, 9), soft=False).tolist()
    ([[0, 255, 0]], [[0, 255, 255]])
    """
    result = frame.result
    if soft and result is not None and result.probabilities.shape == (1 + len(result.object_ids), *frame.ids.shape):
        rows = [1 + row for row, object_id in enumerate(result.object_ids) if object_id in object_ids]
        share = result.probabilities.detach()[rows].sum(0).clamp(0, 1).mul(255).round().byte()
        alpha: NDArray[np.uint8] = share.cpu().numpy()
        return alpha
    return 255 * np.isin(frame.ids, list(object_ids)).astype(np.uint8)


def _with_alpha(frame: Labelled, alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 RGBA `[H, W, 4]`."""
    if frame.picture is None:  # a format that draws is never given such a frame
        raise FrameError(f"{frame.name}: expected a frame to cut out of, got none; pass add(result, frame=frame)")
    picture = np.empty((*alpha.shape, 4), np.uint8)
    picture[..., :3] = frame.picture.mul(255).round().byte().permute(1, 2, 0).numpy()
    picture[..., 3] = alpha
    return picture
