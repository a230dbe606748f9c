"""`stmemory predict`, without a terminal: predicted frames of a clip, as images and a report."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from stmemory.errors import FrameError, OptionError
from stmemory.evaluation.frame_metrics import FrameScores, score_frames
from stmemory.io.drawing import INK, PAPER, font
from stmemory.io.files import whole_file
from stmemory.io.grey import clip_frames, of_channels
from stmemory.io.run_folder import held, read_record, write_record
from stmemory.io.untrusted import expect_below
from stmemory.prediction.predictor import FramePredictor
from stmemory.prediction.recall import RepeatingPictures
from stmemory.prediction.stream import PredictedFrame, checked_steps
from stmemory.prediction.synthetic import glyphs, halved
from stmemory.types import GreyVideoLike

__all__ = ["DEMO_CYCLE", "Forecast", "ForecastJob", "Row", "animation", "demo_clip", "run_forecast", "strip"]

Picture = NDArray[np.uint8]  # [H, W, 3] RGB

OWN, PREDICTED = (64, 120, 200), (236, 132, 36)  # frames of the clip itself, and of its continuation
EDGE, GAP, LABEL, CAPTION = 4, 6, 84, 20  # px
LONGEST = 50  # frames of each kind that an animation shows
COLUMNS = 10


@dataclass(frozen=True, eq=False)
class Row:
    """Frames of one kind.

    Attributes:
        label: label of the row.
        pictures: uint8 RGB `[H, W, 3]`, all of one size.
        numbers: their places in the video.
        predicted: whether they were made rather than seen.
    """

    label: str
    pictures: Sequence[Picture]
    numbers: Sequence[int]
    predicted: bool = False


def animation(seen: Row, ahead: Row, came: Row | None = None, *, side: int = 192) -> list[Image.Image]:
    """What was seen and then what was predicted, each framed in its colour; what really came runs beside it on the
    left.

    Args:
        seen: frames of the clip; the last 50 are shown.
        ahead: predictions; the first 50 are shown.
        came: the frames that were predicted, as they came; where there are fewer, the last one stays.
        side: px of the longer side of each image, about.

    Returns:
        RGB images of one size.

    Raises:
        OptionError: nothing was seen or predicted.

    >>> one = np.zeros((8, 8, 3), np.uint8)
    >>> seen, ahead = Row("seen", [one], [0]), Row("predicted", [one], [1], predicted=True)
    >>> [image.size for image in animation(seen, ahead, side=16)]
    [(24, 24), (24, 24)]
    """
    _check(seen, ahead)
    images = []
    for row in (seen, ahead):
        shown = row.pictures[-LONGEST:] if row is seen else row.pictures[:LONGEST]
        for place, picture in enumerate(shown):
            panels = [_framed(picture, side, predicted=row.predicted)]
            if came is not None and came.pictures:
                own = picture if row is seen else came.pictures[min(place, len(came.pictures) - 1)]
                panels.insert(0, _framed(own, side, predicted=False))
            width, height = panels[0].size
            image = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height), PAPER)
            for column, panel in enumerate(panels):
                image.paste(panel, (column * (width + GAP), 0))
            images.append(image)
    return images


def strip(seen: Row, ahead: Row, came: Row | None = None, *, side: int = 96) -> Image.Image:
    """What was seen above, what was predicted below it, and what came below that, frame by frame from left to right.

    Args:
        seen: frames of the clip; the last 10 are shown.
        ahead: predictions; if there are more than 10, as many of them are shown, evenly spaced.
        came: the frames that were predicted, as they came, from the first on.
        side: px of the longer side of each image, about.

    Raises:
        OptionError: nothing was seen or predicted.

    >>> one = np.zeros((8, 8, 3), np.uint8)
    >>> strip(Row("seen", [one] * 3, [0, 1, 2]), Row("predicted", [one], [3], predicted=True), side=16).size
    (180, 96)
    """
    _check(seen, ahead)
    chosen = sorted({round(place) for place in np.linspace(0, len(ahead.pictures) - 1, COLUMNS)})
    rows = [(seen, list(range(len(seen.pictures)))[-COLUMNS:]), (ahead, chosen)]
    if came is not None and came.pictures:
        rows.append((came, [place for place in chosen if place < len(came.pictures)]))
    width, height = _framed(seen.pictures[0], side, predicted=False).size
    columns = max(len(places) for _, places in rows)
    image = Image.new(
        "RGB", (LABEL + columns * (width + GAP) + GAP, len(rows) * (height + CAPTION + GAP) - CAPTION // 2 + GAP), PAPER
    )
    pen, letters = ImageDraw.Draw(image), font(13)
    for line, (row, places) in enumerate(rows):
        y = GAP + line * (height + CAPTION + GAP)
        pen.text((GAP, y + height // 2), row.label, INK, font=letters, anchor="lm")
        for column, place in enumerate(places):
            x = LABEL + column * (width + GAP)
            image.paste(_framed(row.pictures[place], side, predicted=row.predicted), (x, y))
            pen.text((x + width // 2, y + height + 2), str(row.numbers[place]), INK, font=letters, anchor="ma")
    return image


def _framed(picture: Picture, side: int, *, predicted: bool) -> Image.Image:
    """An image at about that size, small ones in whole steps, with a frame of its kind's colour."""
    image = Image.fromarray(picture)
    longer = max(image.size)
    if longer < side:
        factor = side // longer
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    elif longer > side:
        image = image.resize(
            (max(1, image.width * side // longer), max(1, image.height * side // longer)), Image.Resampling.LANCZOS
        )
    framed = Image.new("RGB", (image.width + 2 * EDGE, image.height + 2 * EDGE), PREDICTED if predicted else OWN)
    framed.paste(image, (EDGE, EDGE))
    return framed


def _check(seen: Row, ahead: Row) -> None:
    if not seen.pictures or not ahead.pictures:
        raise OptionError(
            "expected a frame seen and one predicted or more, got "
            f"{len(seen.pictures)} and {len(ahead.pictures)}; pass some to show"
        )


DEMO_CYCLE = 6  # images
_LEAST_FOR_SSIM = 7  # px
_FORMAT = "stmemory.forecast 1"
_FRAME = re.compile(r"[0-9]{5,250}\.png")


@dataclass(frozen=True)
class ForecastJob:
    """What to predict and where to put it.

    Attributes:
        out: the folder of results.
        steps: frames to predict.
        hide: last frames of the clip that are held back, to compare.
        rate: frames a second of the animation.
        force: replace the predicted frames of an earlier run.

    Raises:
        OptionError: a number is out of its range.
    """

    out: Path
    steps: int = 10
    hide: int = 0
    rate: float = 5.0
    force: bool = False

    def __post_init__(self) -> None:
        checked_steps(self.steps)
        if self.hide < 0 or not 0.1 <= self.rate <= 50:
            raise OptionError(
                f"expected hide of 0 or more and a rate of 0.1 to 50 frames a second, got {self.hide} and "
                f"{self.rate}; change them"
            )

    @property
    def frames(self) -> Path:
        """Where the predicted frames go, named by their numbers in the video."""
        return self.out / "frames"

    @property
    def record(self) -> Path:
        """Which frames this wrote."""
        return self.out / "forecast.json"

    @property
    def animation(self) -> Path:
        """What was seen and what was predicted, as a GIF."""
        return self.out / "prediction.gif"

    @property
    def strip(self) -> Path:
        """The same side by side, as a PNG."""
        return self.out / "strip.png"


@dataclass(frozen=True)
class Forecast:
    """How it went.

    Attributes:
        seen: frames that were watched.
        predicted: frames that were written.
        size: H and W.
        compared: frames that were held back and predicted.
        scores: scores of the predictions against those; None without any, or where frames are too small for SSIM.
        copy_scores: scores of the last frame that was seen, in place of each prediction: what to beat.
        memory_bytes: bytes of the stream, after the first frame and after the last.
    """

    seen: int
    predicted: int
    size: tuple[int, int]
    compared: int
    scores: FrameScores | None
    copy_scores: FrameScores | None
    memory_bytes: tuple[int, int]


def run_forecast(
    predictor: FramePredictor,
    clip: GreyVideoLike,
    job: ForecastJob,
    *,
    on_frame: Callable[[int, int, int], None] | None = None,
    on_prediction: Callable[[int], None] | None = None,
) -> Forecast:
    """Watch a clip, predict what follows, and write it down. Nothing is written before all is predicted, and each file
    whole.

    Args:
        predictor: makes the forecast.
        clip: any clip that `clip_frames` takes.
        job: how far, and where to.
        on_frame: called before each frame is watched with its place, from 1, its H and its W, for progress.
        on_prediction: called after each frame is predicted with its place, from 1.

    Raises:
        OptionError: predicted frames of an earlier run are there, and `job.force` is not set; there are frames that no
            run wrote; a link leads out of the folder; or another run writes into it.
        FrameError: the clip cannot be used, or has no frame beside those held back.
        StmemoryError: see `FramePredictor.predict`.
    """
    _check_folder(job)
    source, stream, first_bytes = clip_frames(clip), predictor.start(), 0
    seen: deque[Tensor] = deque(maxlen=max(COLUMNS, LONGEST))
    hidden: deque[Tensor] = deque()
    for frame in source:
        hidden.append(frame)
        if len(hidden) > job.hide:
            seen.append(hidden.popleft())
            if on_frame is not None:
                on_frame(stream.frame_index + 2, seen[-1].shape[1], seen[-1].shape[2])
            stream.step(seen[-1])
            first_bytes = first_bytes or stream.nbytes
    if not seen:
        raise FrameError(
            f"clip: expected more frames than the {job.hide} that are held "
            f"back, got {len(hidden)}; hide fewer, or pass a longer clip"
        )
    ahead = []
    for frame_ahead in stream.foresee(job.steps):
        ahead.append(frame_ahead)
        if on_prediction is not None:
            on_prediction(len(ahead))
    channels = predictor.network.config.image_channels
    came = [of_channels(frame, channels).cpu() for frame in hidden][: job.steps]
    with held(job.out):
        _check_folder(job)  # another run may have been there since
        _write(job, _pictures(seen, stream.frame_index), ahead, came)
    now = of_channels(seen[-1], channels).cpu()
    scores = copied = None
    if came and min(now.shape[1:]) >= _LEAST_FOR_SSIM:
        truth = torch.stack(came)
        scores = score_frames(torch.stack([one.pixels.cpu() for one in ahead[: len(came)]]), truth)
        copied = score_frames(now.expand_as(truth), truth)
    size = (now.shape[1], now.shape[2])
    return Forecast(stream.frame_index + 1, len(ahead), size, len(came), scores, copied, (first_bytes, stream.nbytes))


def demo_clip(*, side: int, frames: int, seed: int = 0) -> Tensor:
    """A clip of the demo: six images that come again and again in the same order. Who has seen seven frames can know
    the rest.

    Args:
        side: px; digits are 14 px large below 56, else 28.
        frames: T.
        seed: seed of the images.

    Returns:
        float32 `[T, 1, H, W]` in [0, 1].

    >>> demo_clip(side=32, frames=3).shape
    torch.Size([3, 1, 32, 32])
    """
    digits = glyphs(100, seed=seed)
    return RepeatingPictures(
        halved(digits) if side < 56 else digits, DEMO_CYCLE, frames=frames, size=side, seed=seed
    ).clip(0)


def _pictures(frames: deque[Tensor], last: int) -> Row:
    """Frames of a clip that ends with the number `last`."""
    pictures = [PredictedFrame(0, frame).picture() for frame in frames]
    return Row("seen", pictures, range(last + 1 - len(pictures), last + 1))


def _check_folder(job: ForecastJob) -> None:
    """Refuse what would delete or replace files that no forecast wrote, or write elsewhere than into its folder."""
    for place in (job.frames, job.animation, job.strip, job.record):
        expect_below(place, job.out)
    there = sorted(job.frames.iterdir()) if job.frames.is_dir() else []
    if there and not job.force:
        raise OptionError(
            f"{job.frames}: expected no frames there yet, got {there[0].name}; choose another folder, or pass "
            "force=True to replace them"
        )
    written = _written(job)
    foreign = [file for file in there if _FRAME.fullmatch(file.name) and file.name not in written]
    if foreign:
        raise OptionError(
            f"{foreign[0]}: expected only frames of the run before, got one that {job.record.name} does not say it "
            "wrote; move it away, or choose another folder"
        )


def _written(job: ForecastJob) -> list[str]:
    """Names of the frames that an earlier run wrote, as its record says; none where there is none."""
    names = (read_record(job.record, _FORMAT) or {}).get("frames")
    return (
        [name for name in names if isinstance(name, str) and _FRAME.fullmatch(name)] if isinstance(names, list) else []
    )


def _write(job: ForecastJob, seen: Row, ahead: list[PredictedFrame], came: list[Tensor]) -> None:
    numbers = [prediction.frame_index for prediction in ahead]
    predicted = Row("predicted", [prediction.picture() for prediction in ahead], numbers, predicted=True)
    truth = Row("truth", [PredictedFrame(0, frame).picture() for frame in came], numbers) if came else None
    for name in _written(job):  # other files in the folder stay
        (job.frames / name).unlink(missing_ok=True)
    write_record(job.record, {"format": _FORMAT, "frames": [f"{number:05d}.png" for number in numbers]})
    for prediction in ahead:
        prediction.save(job.frames / f"{prediction.frame_index:05d}.png")
    images = animation(seen, predicted, truth)
    with whole_file(job.animation) as part:
        images[0].save(
            part, format="GIF", save_all=True, append_images=images[1:], duration=round(1000 / job.rate), loop=0
        )
    with whole_file(job.strip) as part:
        strip(seen, predicted, truth).save(part, format="PNG")
