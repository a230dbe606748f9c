"""A tracking job's files: which frames it reads, and what lies where in its output folder.

OUT/masks/00000.png ...    one palette PNG a frame; a folder's frames keep their own names
OUT/overlay.mp4            if wanted
OUT/job.json               what is tracked, how, and the names of the masks; written when the first mask is there
OUT/state.safetensors      the stream, saved now and then and when the job stops; removed when the job is done
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stmemory.errors import OptionError, StmemoryError
from stmemory.io.decoder import shown_address
from stmemory.io.frames import count_frames, iterate_frames
from stmemory.io.images import image_files, is_image_path
from stmemory.io.live import LiveSource, is_live
from stmemory.io.video import DAMAGED, iterate_timed_video
from stmemory.prompts import Prompt
from stmemory.types import FrameLike

__all__ = ["TrackJob", "frames_of", "is_mask_name", "pictures_of"]


@dataclass(frozen=True)
class TrackJob:
    """What is tracked, and into which folder.

    Attributes:
        source: a video, a folder of images or a multi-page image; or, live, the address of a stream or the number of a
            camera as text, a device such as `/dev/video0`, or a named pipe, see `LiveSource`. An address is no `Path`,
            which eats one of its slashes.
        mask: the first frame's mask, an image file; or masks by the frame's number, from 0: objects may enter, and be
            corrected, at any frame. In the source folder a mask is no frame. None where there are prompts alone.
        out: the output folder.
        overlay: also draw `overlay.mp4` (needs the extra `video`).
        frames: frames at most; None for all.
        save_every: frames between two saved states.
        damaged: treatment of a damaged video, `"error"` or `"skip"`; see `iterate_video`. A live source skips.
        seconds: seconds of a live source, after which it ends; None for no end.
        reconnect: attempts to open a live source again after a loss.
        prompts: points and boxes of objects in the first frame, or by the frame's number, as masks.

    Raises:
        OptionError: `damaged` is neither; `frames` or `save_every` is below 1, or there is neither a mask nor a prompt;
            `seconds` is not above 0, or the source is not live.
    """

    source: Path | str
    mask: Path | Mapping[int, Path] | None
    out: Path
    overlay: bool = False
    frames: int | None = None
    save_every: int = 100
    damaged: str = "error"
    seconds: float | None = None
    reconnect: int = 5
    prompts: Sequence[Prompt] | Mapping[int, Sequence[Prompt]] = ()

    def __post_init__(self) -> None:
        for name, value in (("frames", self.frames), ("save_every", self.save_every)):
            if value is not None and value < 1:
                raise OptionError(f"{name}: expected 1 or more, got {value}")
        if self.damaged not in DAMAGED:
            raise OptionError(f'damaged: expected "error" or "skip", got {self.damaged!r}')
        if not self.given_frames or min(self.given_frames) < 0:
            raise OptionError(
                f"mask: expected masks or prompts of frames from 0 on, got those of {self.given_frames}; name the "
                "first frame's mask, or points of objects"
            )
        if self.seconds is not None and not (0 < self.seconds and self.is_live):
            what = (
                "a camera, an address or a named pipe, since a file has its end"
                if self.seconds > 0
                else "a time above 0"
            )
            raise OptionError(
                f"seconds: expected {what}, got {self.seconds} s of {shown_address(self.source)}; leave it out"
            )

    @property
    def is_live(self) -> bool:
        """Whether the source can be read only once, as it comes."""
        return is_live(self.source)

    @functools.cached_property
    def live(self) -> LiveSource | None:
        """The source, where it is live; it is opened once for the job, when its first frame is asked for, and closed by
        `run_job`."""
        return LiveSource(self.source, reconnect=self.reconnect) if self.is_live else None

    @property
    def name(self) -> str:
        """The source's name, without its folder or, of an address, its password."""
        return shown_address(self.source) if self.is_live else Path(self.source).resolve().name

    @functools.cached_property
    def given(self) -> dict[int, Path]:
        """Files of the masks by the frame's number, sorted."""
        if self.mask is None:
            return {}
        return dict(sorted(self.mask.items())) if isinstance(self.mask, Mapping) else {0: self.mask}

    @functools.cached_property
    def prompted(self) -> dict[int, tuple[Prompt, ...]]:
        """Prompts by the frame's number, sorted."""
        by_frame = self.prompts if isinstance(self.prompts, Mapping) else {0: self.prompts}
        return {frame: tuple(prompts) for frame, prompts in sorted(by_frame.items()) if prompts}

    @functools.cached_property
    def given_frames(self) -> list[int]:
        """Numbers of the frames with a mask or prompts, sorted."""
        return sorted({*self.given, *self.prompted})

    @property
    def masks(self) -> Path:
        """Folder of the masks."""
        return self.out / "masks"

    @property
    def state(self) -> Path:
        """File of the saved stream."""
        return self.out / "state.safetensors"

    @property
    def record(self) -> Path:
        """File of the job's record."""
        return self.out / "job.json"

    @property
    def overlay_path(self) -> Path:
        """File of the overlay video."""
        return self.out / "overlay.mp4"

    @property
    def total(self) -> int | None:
        """Frames to do, where that can be known without reading them."""
        known = self.source_frames
        return self.frames if known is None else min(known, self.frames or known)

    @property
    def source_frames(self) -> int | None:
        """Frames of the source, where that can be known without reading them."""
        return None if self.is_live else len(self.files) or count_frames(self.source)

    @property
    def masks_beside_frames(self) -> list[Path]:
        """The masks that lie in the source folder, where they are passed over."""
        if self.is_live or not Path(self.source).is_dir():
            return []
        return [
            mask
            for mask in self.given.values()
            if mask.is_file() and mask.resolve().parent == Path(self.source).resolve()
        ]

    @functools.cached_property
    def files(self) -> tuple[Path, ...]:
        """A folder's frames in order, without masks; empty for other sources.

        Raises:
            FrameError: the folder has no frames.
        """
        if self.is_live or not Path(self.source).is_dir():
            return ()
        return tuple(image_files(Path(self.source), without=self.masks_beside_frames))

    @property
    def mask_names(self) -> list[str] | None:
        """Names of all masks without their ending, where frames of a folder give them; None: numbers of five digits or
        more."""
        return list(self._stems) or None

    def mask_path(self, index: int) -> Path:
        """File of one frame's mask; frames of a folder give it their own name."""
        return self.masks / f"{self._stems[index] if self._stems else format(index, '05d')}.png"

    @functools.cached_property
    def _stems(self) -> tuple[str, ...]:
        """A folder's file names without their endings; empty for other sources, or where two would be the same."""
        stems = tuple(file.stem for file in self.files)
        return stems if len(set(stems)) == len(stems) else ()


def frames_of(job: TrackJob, stop: Callable[[], bool] = lambda: False) -> Iterator[Tensor]:
    """Read a job's frames, one at a time.

    Args:
        job: the job.
        stop: asked while a live source sends nothing; see `LiveSource.frames`.

    Returns:
        Frames: float32 `[3, H, W]` in [0, 1]. Errors name the file of a folder's frame.

    Raises:
        FrameError: see `iterate_frames`.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("0.png", "1.png", "mask.png"):
    ...         Image.new("L", (4, 2)).save(Path(folder) / name)
    ...     len(list(frames_of(TrackJob(Path(folder), Path(folder, "mask.png"), Path("out")))))
    2
    """
    if job.live is not None:
        return iterate_frames(job.live.frames(stop))
    return (
        _named(iterate_frames(job.files), job.files) if job.files else iterate_frames(job.source, damaged=job.damaged)
    )


def pictures_of(job: TrackJob) -> Iterator[tuple[float | None, FrameLike]]:
    """Read a job's frames to draw on them.

    Args:
        job: the job.

    Returns:
        The time of each frame of a video, in seconds from its first, and None of others; and the frame.

    Raises:
        FrameError: see `iterate_frames`.
    """
    if is_image_path(job.source):
        return ((None, frame) for frame in frames_of(job))
    return iter(iterate_timed_video(job.source, damaged=job.damaged))


def is_mask_name(stem: str, names: object) -> bool:
    """Say whether a job with those mask names writes a mask of that name.

    Args:
        stem: a file's name without its ending.
        names: `TrackJob.mask_names`.

    >>> is_mask_name("00012", None), is_mask_name("hand", None), is_mask_name("hand", ["hand"])
    (True, False, True)
    """
    return stem in names if isinstance(names, list) else re.fullmatch(r"[0-9]{5,}", stem) is not None


def _named(frames: Iterator[Tensor], files: tuple[Path, ...]) -> Iterator[Tensor]:
    for file in files:
        try:
            frame = next(frames)
        except StmemoryError as error:
            raise type(error)(str(error) if str(file) in str(error) else f"{file}: {error}") from error
        yield frame
