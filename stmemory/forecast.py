"""A forecast: a clip in; the frames after it, an animation and a strip out. Predicts and draws nothing itself, prints
nothing."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stmemory.errors import FrameError, OptionError
from stmemory.evaluation.prediction_metrics import FrameScores, score_frames
from stmemory.files import whole_file
from stmemory.forecast_pictures import COLUMNS, LONGEST, Row, animation, strip
from stmemory.frame_predictor import FramePredictor
from stmemory.frame_stream import checked_steps
from stmemory.grey import clip_frames, of_channels
from stmemory.predicted import PredictedFrame
from stmemory.run_lock import held
from stmemory.sequences.digits import glyphs, halved
from stmemory.sequences.recall import RepeatingPictures
from stmemory.untrusted import expect_below, read_json

__all__ = ["DEMO_CYCLE", "Forecast", "ForecastJob", "demo_clip", "run_forecast"]

DEMO_CYCLE = 6  # pictures
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
        scores: of the predictions against those; None without any, or where frames are too small for SSIM.
        copy_scores: of the last frame that was seen, in place of each prediction: what to beat.
        memory_bytes: of the stream, after the first frame and after the last.
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
    clip: object,
    job: ForecastJob,
    *,
    on_frame: Callable[[int, int, int], None] | None = None,
    on_prediction: Callable[[int], None] | None = None,
) -> Forecast:
    """Watch a clip, predict what follows, and write it down. Nothing is written before all is predicted, and each file
    whole.

    Args:
        predictor: what predicts.
        clip: what `clip_frames` takes.
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
            f"clip: expected more frames than the {job.hide} that are held back, got {len(hidden)}; hide fewer, or "
            "pass a longer clip"
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
    """A clip of the demo: six pictures that come again and again in the same order. Who has seen seven frames can know
    the rest.

    Args:
        side: px; digits are 14 px large below 56, else 28.
        frames: T.
        seed: of the pictures.

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
            f"{job.frames}: expected no frames there yet, got {there[0].name}; choose another folder, or --force to "
            "replace them"
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
    try:
        found: object = read_json(job.record)
    except (OSError, OptionError):
        return []
    names = found.get("frames") if isinstance(found, dict) and found.get("format") == _FORMAT else None
    return (
        [name for name in names if isinstance(name, str) and _FRAME.fullmatch(name)] if isinstance(names, list) else []
    )


def _write(job: ForecastJob, seen: Row, ahead: list[PredictedFrame], came: list[Tensor]) -> None:
    numbers = [prediction.frame_index for prediction in ahead]
    predicted = Row("predicted", [prediction.picture() for prediction in ahead], numbers, predicted=True)
    truth = Row("truth", [PredictedFrame(0, frame).picture() for frame in came], numbers) if came else None
    for name in _written(job):  # what else somebody keeps there stays
        (job.frames / name).unlink(missing_ok=True)
    with whole_file(job.record) as part:
        record = {"format": _FORMAT, "frames": [f"{number:05d}.png" for number in numbers]}
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for prediction in ahead:
        prediction.save(job.frames / f"{prediction.frame_index:05d}.png")
    images = animation(seen, predicted, truth)
    with whole_file(job.animation) as part:
        images[0].save(
            part, format="GIF", save_all=True, append_images=images[1:], duration=round(1000 / job.rate), loop=0
        )
    with whole_file(job.strip) as part:
        strip(seen, predicted, truth).save(part, format="PNG")
