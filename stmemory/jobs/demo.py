"""The demo: renders a clip whose true masks are known, tracks it, and leaves what to look at and what to try next.

Owns the choice of what to show.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stmemory.errors import OptionError
from stmemory.evaluation.metrics import ObjectScores, SequenceScores, region_similarity
from stmemory.evaluation.scenes import render_scene
from stmemory.io.drawing import Tile, contact_sheet, draw_outline, outlined
from stmemory.io.palette import write_palette_png
from stmemory.io.video import OverlayWriter
from stmemory.predictor import VOSPredictor
from stmemory.result import Segmentation

__all__ = ["DemoReport", "run_demo"]

Picture = NDArray[np.uint8]  # [H, W, 3] RGB

TILES = 12
RATE = 24.0  # frames per second shown
IDS = np.array([0, 5, 6], np.uint8)  # of background, ball and kite: ids are the user's own, and these colours stand out
NAMES = {5: "ball", 6: "kite"}


@dataclass(frozen=True)
class DemoReport:
    """What the demo gave.

    Attributes:
        objects: scores of each object, by the DAVIS protocol.
        frames_per_second: frames per second of the tracking alone.
        first_bytes: bytes of the memory bank after the first frame.
        last_bytes: bytes of the memory bank after the last frame.
        bank_is_constant: whether it had the same bytes after every frame.
        video: the clip with what was tracked drawn over it; MP4 with PyAV, else an animated WebP.
        sheet: the contact sheet.
        clip: the clip as it was rendered, in the same format.
        first_mask: palette PNG of the first frame's true mask.
    """

    objects: tuple[ObjectScores, ...]
    frames_per_second: float
    first_bytes: int
    last_bytes: int
    bank_is_constant: bool
    video: Path
    sheet: Path
    clip: Path
    first_mask: Path

    @property
    def region(self) -> float:
        """J, mean over the objects, in [0, 1]."""
        return float(np.mean([scores.region.mean for scores in self.objects]))

    @property
    def boundary(self) -> float:
        """F, mean over the objects, in [0, 1]."""
        return float(np.mean([scores.boundary.mean for scores in self.objects]))

    def describe(self) -> str:
        """Say in plain lines how it went and what to look at."""
        equal = "equal after every frame" if self.bank_is_constant else "NOT equal after every frame"
        lines = [
            f"J {100 * self.region:.1f} of 100: overlap with the true masks",
            f"F {100 * self.boundary:.1f} of 100: agreement with their contours",
            f"tracking alone: {self.frames_per_second:.1f} frames/s",
            f"memory bank: {self.first_bytes:,} bytes after the first "
            f"frame, {self.last_bytes:,} after the last, {equal}",
            f"watch: {self.video}",
            f"look at: {self.sheet}",
            f"track yourself: {self.clip} with the mask {self.first_mask}",
        ]
        if self.video.suffix == ".webp":
            lines.append("(animated WebP, since PyAV is not installed; for MP4: pip install av)")
        return "\n".join(lines)


def run_demo(
    predictor: VOSPredictor,
    out: Path,
    *,
    frames: int = 48,
    size: tuple[int, int] = (360, 640),
    seed: int = 0,
    on_frame: Callable[[int], None] | None = None,
) -> DemoReport:
    """Track a rendered clip from its first true mask, and draw what came of it.

    The clip is rendered frame by frame, and only the frames of the contact sheet are kept; without PyAV all images
    are, since Pillow writes an animation in one go.

    Args:
        predictor: tracks the clip.
        out: folder of `clip.mp4` and `overlay.mp4` (or `.webp`), `first.png` and `contact_sheet.png`; files of these
            names are replaced.
        frames: length of the clip, at least 3, since first and last frame are not scored.
        size: H and W of the clip, at least 32 px each.
        seed: seed of the scenery.
        on_frame: called with the number of frames done, for progress.

    Returns:
        The scores, the speed, the bytes, and the files.

    Raises:
        OptionError: a number is out of its range.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = run_demo(VOSPredictor.from_pretrained(), Path(folder), frames=3, size=(64, 96))
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['clip.mp4', 'contact_sheet.png', 'first.png', 'overlay.mp4']
    >>> report.bank_is_constant, len(report.objects)
    (True, 2)
    """
    if frames < 3:
        raise OptionError(f"frames: expected 3 or more, since first and last frame are not scored, got {frames}")
    clip = render_scene(frames, height=size[0], width=size[1], seed=seed)
    shown = {round(place) for place in np.linspace(0, frames - 1, min(TILES, frames))}
    scores, tiles, seconds = SequenceScores(void_id=None), [], 0.0
    first, truth = next(clip)
    truth = IDS[truth]
    began = time.perf_counter()
    stream = predictor.start(first, truth)
    seconds += time.perf_counter() - began
    bank_bytes = np.zeros(frames, np.int64)
    ids = stream.object_ids
    with _open_writer(out, "overlay") as writer, _open_writer(out, "clip") as plain:
        first_mask = _save_first(out / "first.png", truth, clip=plain.path)
        frame, result = first, stream.last
        for index in range(frames):
            if index:
                frame, truth = next(clip)
                truth = IDS[truth]
                began = time.perf_counter()
                result = stream.step(frame)
                seconds += time.perf_counter() - began
            bank_bytes[index] = stream.bank.nbytes
            plain.write(frame)
            writer.write(_draw(frame, result))
            if 0 < index < frames - 1:
                scores.add(result.ids, truth, object_ids=ids)
            if index in shown:
                tiles.append(_tile(frame, result, truth))
            if on_frame is not None:
                on_frame(index + 1)
    report = DemoReport(
        objects=scores.scores(),
        frames_per_second=frames / seconds,
        first_bytes=int(bank_bytes[0]),
        last_bytes=int(bank_bytes[-1]),
        bank_is_constant=bool((bank_bytes == bank_bytes[0]).all()),
        video=writer.path,
        sheet=out / "contact_sheet.png",
        clip=plain.path,
        first_mask=first_mask,
    )
    _draw_sheet(report, tiles, f"{frames} rendered frames of {size[1]} x {size[0]}, seed {seed}")
    return report


def _save_first(path: Path, truth: NDArray[np.uint8], *, clip: Path) -> Path:
    height, width = truth.shape
    if clip.suffix == ".mp4":  # whose sides are even: an odd one is padded, and the mask must fit the clip
        truth = np.pad(truth, ((0, height % 2), (0, width % 2)), mode="edge")
    write_palette_png(path, truth)
    return path


def _draw(frame: Picture, result: Segmentation) -> Picture:
    """Overlay with contours two pixels wide, in the same colours at full brightness."""
    ids = result.ids.cpu().numpy()
    picture = result.overlay(frame, opacity=0.55)
    for object_id in result.object_ids:
        picture = outlined(picture, ids, object_id)
    return picture


def _tile(frame: Picture, result: Segmentation, truth: NDArray[np.uint8]) -> Tile:
    picture, found = _draw(frame, result), result.ids.cpu().numpy()
    if result.frame_index == 0:
        return Tile(draw_outline(picture, truth), "frame 0", "its mask is given")
    regions = [f"{NAMES[i]} {100 * region_similarity(found == i, truth == i):.0f}" for i in result.object_ids]
    return Tile(draw_outline(picture, truth), f"frame {result.frame_index}", "J  " + "   ".join(regions))


def _draw_sheet(report: DemoReport, tiles: list[Tile], clip: str) -> None:
    notes = (
        f"{clip}; colours are what was tracked from the first mask, dashed lines are the truth.",
        f"J (overlap) {100 * report.region:.1f}, F (contours) {100 * report.boundary:.1f}, tracked at "
        f"{report.frames_per_second:.1f} frames/s; memory bank "
        f"{report.first_bytes:,} bytes after the first frame, {report.last_bytes:,} after the last.",
    )
    contact_sheet(tiles, title="stmemory demo", notes=notes).save(report.sheet)


class _Writer(Protocol):
    """Takes images one at a time; a context manager."""

    path: Path

    def write(self, picture: Picture) -> None:
        """Append an image."""

    def __enter__(self) -> _Writer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _open_writer(out: Path, name: str) -> _Writer:
    out.mkdir(parents=True, exist_ok=True)
    return _Video(out / f"{name}.mp4") if importlib.util.find_spec("av") else _Animation(out / f"{name}.webp")


class _Video:
    """An MP4."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = OverlayWriter(path, rate=RATE)

    def write(self, picture: Picture) -> None:
        self._writer.write(picture)

    def __enter__(self) -> _Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


class _Animation:
    """An animated WebP; keeps all images until it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pictures: list[Image.Image] = []

    def write(self, picture: Picture) -> None:
        self._pictures.append(Image.fromarray(picture))

    def __enter__(self) -> _Animation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pictures:
            first, *others = self._pictures
            first.save(self.path, save_all=True, append_images=others, duration=round(1000 / RATE), loop=0, quality=80)
