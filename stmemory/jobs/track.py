"""`stmemory track`, without a terminal: a clip or a live source to masks, a summary and an overlay."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch
from torch import Tensor

from stmemory.errors import MaskError, OptionError, StmemoryError
from stmemory.io.images import is_image_path
from stmemory.io.masks import ObjectMasks, to_object_masks
from stmemory.io.overlap import ReadAhead, WriteBehind, spare_processors
from stmemory.io.palette import read_palette_png
from stmemory.io.run_folder import held, write_record
from stmemory.io.video import OverlayWriter, frame_rate
from stmemory.jobs.folder import TrackJob, frames_of, pictures_of
from stmemory.jobs.record import (
    check_folder,
    check_frames,
    check_later_masks,
    check_record,
    clear_folder,
    job_record,
    missing_masks,
)
from stmemory.prompts import Prompt, ready_prompts
from stmemory.result import Segmentation

__all__ = ["JobReport", "Predictor", "Stop", "Stream", "describe_job", "run_job", "stop_on_signals"]

MOST_OBJECTS = 8  # named one by one
MOST_MASKS = 3  # described one by one


def describe_job(job: TrackJob, *, device: object) -> str:
    """Say what was understood: the clip's length and size, the mask's objects with their pixels, the prompts, and what
    is left out.

    Args:
        job: the job.
        device: device to compute on.

    Returns:
        One line.

    Raises:
        FrameError: the first frame cannot be used.
        MaskError: a mask or a prompt cannot be used, none has an object, or one is of a frame that the clip does not
            have.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, value in (("clip.tif", 0), ("first.png", 7)):
    ...         Image.new("L", (6, 4), value).save(Path(folder) / name)
    ...     job = TrackJob(Path(folder, "clip.tif"), Path(folder, "first.png"), Path(folder, "out"))
    ...     describe_job(job, device="cpu")
    'clip.tif: 1 frame of 6 x 4, cpu; first.png: 1 object: 7 (24 px)'
    """
    height, width = next(frames_of(job)).shape[1:]
    last = job.given_frames[-1]
    if job.files and last >= len(job.files):
        raise MaskError(
            f"{job.given.get(last, 'prompts')}: expected a frame from 0 to {len(job.files) - 1}, got one of frame "
            f"{last}; count from 0"
        )
    alone, lines, objects = job.given_frames == [0], list[str](), 0
    for frame in job.given_frames:
        at, said = "" if alone else f" at frame {frame}", list[str]()
        masked: tuple[int, ...] = ()
        if path := job.given.get(frame):
            masks = _read(path, height, width, allow_empty=not alone or bool(job.prompted))
            masked = masks.object_ids
            said.append(f"{path.name}{at}: {_objects_in(masks)}")
        prompts = ready_prompts(job.prompted.get(frame), height=height, width=width)
        if both := sorted({prompt.object_id for prompt in prompts} & set(masked)):
            raise MaskError(f"prompts: {both} are in the mask of frame {frame} too; say one of the two of an object")
        if prompts:
            said.append(f"prompts{at}: {_objects_prompted(prompts)}")
        objects += len(masked) + len(prompts)
        lines += said[: max(0, MOST_MASKS - len(lines))]
    if not objects:
        raise MaskError(
            "masks: expected an object in at least one of them, got background only; mark objects with ids above 0"
        )
    known, total = job.source_frames, job.total
    limit = "" if job.frames is None else f"{total} of " if known is not None else f"at most {job.frames} frames, "
    length = f"{limit}{known:,} frame{'s' * (known != 1)} of " if known is not None else limit
    more = len(job.given) + len(job.prompted) - len(lines)
    lines += [f"{more} more mask{'s' * (more != 1)}" + " or prompts" * bool(job.prompted)] * (more > 0)
    if beside := job.masks_beside_frames:
        one = len(beside) == 1
        lines.append(
            f"{beside[0].name} lies among the frames and is not one of them"
            if one
            else f"{len(beside)} masks lie among the frames and are none of them"
        )
    return f"{job.name}: {length}{width} x {height}, {device}; {'; '.join(lines)}"


def _read(path: Path, height: int, width: int, *, allow_empty: bool) -> ObjectMasks:
    """A mask that is to be read when its frame is reached."""
    try:
        return to_object_masks(path, height=height, width=width, allow_empty=allow_empty)
    except StmemoryError as error:
        raise type(error)(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _objects_prompted(prompts: Sequence[Prompt]) -> str:
    number = len(prompts)
    named = []
    for prompt in prompts:
        points, box = len(prompt.points) + len(prompt.not_points), prompt.box is not None
        parts = [f"{points} point{'s' * (points != 1)}"] * (points > 0) + ["a box"] * box
        named.append(f"{prompt.object_id} ({' and '.join(parts)})")
    return f"{number} object{'s' * (number != 1)}: {', '.join(named[:MOST_OBJECTS])}" + ", ..." * (
        number > MOST_OBJECTS
    )


def _objects_in(masks: ObjectMasks) -> str:
    number = len(masks.object_ids)
    pixels = (masks.probabilities > 0.5).flatten(1).sum(1).tolist()
    named = [f"{object_id} ({count:,} px)" for object_id, count in zip(masks.object_ids, pixels, strict=True)]
    line = (
        f"{number} object{'s' * (number != 1)}"
        + (": " if named else "")
        + ", ".join(named[:MOST_OBJECTS])
        + ", ..." * (number > MOST_OBJECTS)
    )
    void = int(masks.void.sum())
    return line + (f"; 255 is void: {void:,} px ignored" if void else "")


_log = logging.getLogger(__name__)
SAVE_SECONDS = 30.0  # at most between two saved states
_AHEAD = 2  # frames that are read ahead, and masks that are not written yet, at most


class Stream(Protocol):
    """One video under way; a `VOSStream` is one."""

    @property
    def frame_index(self) -> int:
        """Of the last frame, from 0."""

    @property
    def last(self) -> Segmentation:
        """The last frame's result."""

    def step(
        self, frame: Tensor, mask: Path | None = None, /, *, prompts: Sequence[Prompt] | None = None
    ) -> Segmentation:
        """Segment the next frame `[3, H, W]`, of which a mask and prompts may be given."""

    def save(self, path: Path, /) -> None:
        """Write all that the stream remembers to a file, atomically."""


class Predictor(Protocol):
    """What makes streams; a `VOSPredictor` is one."""

    def start(
        self,
        frame: Tensor,
        mask: Path | None,
        /,
        *,
        prompts: Sequence[Prompt] | None = None,
        allow_empty: bool = False,
    ) -> Stream:
        """Open a stream with its first frame `[3, H, W]` and the mask and prompts there; `allow_empty`: objects may
        enter later."""

    def resume(self, path: Path, /) -> Stream:
        """Open a stream where `Stream.save` left it."""


@dataclass
class Stop:
    """A wish to stop between two frames."""

    wanted: bool = False


@dataclass(frozen=True)
class JobReport:
    """How a job ended.

    Attributes:
        frames: masks that are done, from the first frame on.
        resumed_at: frames that had been done before.
        finished: whether all that was asked for is done.
        error: why the job ended early, unless by a wish.
        more: whether the clip goes on beyond the `frames` that were asked for; the state is kept to resume with more.
        unused: frames of masks or prompts that lie beyond the clip's end.
    """

    frames: int
    resumed_at: int
    finished: bool
    error: StmemoryError | None = None
    more: bool = False
    unused: tuple[int, ...] = ()


def run_job(
    predictor: Predictor,
    job: TrackJob,
    *,
    resume: bool = False,
    force: bool = False,
    stop: Stop | None = None,
    on_frame: Callable[[str, int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> JobReport:
    """Track a clip into a folder.

    A job that stops early, by `stop`, by `job.frames` or because a later frame cannot be used, leaves the masks that
    are done and a state to resume from. Resumed, it gives the very masks that it would have given in one go. A live
    source (see `TrackJob`) leaves no state, whether it ends, is lost or is stopped: the masks and the overlay up to
    there are finished.

    Where torch leaves processors free, frames are read and masks written while the network works. A state is saved
    once the masks up to it are there.

    Args:
        predictor: tracks the clip.
        job: what to track, and where to write.
        resume: go on from the state in the output folder.
        force: begin again though there are masks of a job already; those are deleted.
        stop: looked at between frames.
        on_frame: called with `"skip"`, `"track"` or `"draw"` and the number of frames that are through, for progress;
            the masks of the last two may not be written yet.
            What it raises ends the job and comes through; the masks that are done and the state to resume from are
            saved.
        clock: seconds, growing; a state is saved every 30, too.

    Returns:
        How it ended.

    Raises:
        OptionError: the output folder has masks already, has nothing to resume, is of another job, or another run
            writes into it; see `check_folder`.
        StmemoryError: the first frame, its mask or prompts or the saved state cannot be used, or PyAV is missing for
            an overlay.

    >>> from stmemory.predictor import VOSPredictor
    >>> job = TrackJob(Path("no/such/clip"), Path("0.png"), Path("no/such/folder"))
    >>> run_job(VOSPredictor.from_pretrained(), job)
    Traceback (most recent call last):
    stmemory.errors.FrameError: no such file or folder: 'no/such/clip'
    """
    stop, notify = stop or Stop(), on_frame or (lambda part, done: None)
    check_folder(job, resume=resume, force=force)
    begun = clock()
    source = frames_of(job, lambda: stop.wanted or (job.seconds is not None and clock() - begun >= job.seconds))
    depth = min(_AHEAD, spare_processors()) if job.live is None else 0  # a live source is read ahead by itself
    with ReadAhead(source, depth=depth) as frames:
        first = next(frames)
        record = job_record(job, first)
        started = None if resume else _begin(predictor, job, first)  # the folder is touched only once that has worked
        with held(job.out), WriteBehind(depth=depth) as behind:  # the folder is held until nothing is written any more
            run = _Run(job, record, frames, behind, stop, notify, clock)
            check_folder(job, resume=resume, force=force)  # another run may have been there since
            if started is None:
                stream = _reopen(predictor, job, record)
                gone = missing_masks(job, stream.frame_index + 1)
                if gone is not None:
                    return JobReport(stream.frame_index + 1, stream.frame_index + 1, finished=False, error=gone)
            else:
                started.last.save(job.mask_path(0))
                clear_folder(job, record)
                stream = started
            return _advance_to_end(stream, run, resume=resume) if job.live is None else _follow(stream, run)


@dataclass(frozen=True)
class _Run:
    """A job under way.

    Attributes:
        job: what to track, and where to write.
        record: of the job, as it is written.
        frames: of the clip.
        behind: writes the masks.
        stop: see `run_job`.
        notify: see `on_frame` of `run_job`.
        clock: see there.
    """

    job: TrackJob
    record: Mapping[str, object]
    frames: Iterator[Tensor]
    behind: WriteBehind
    stop: Stop
    notify: Callable[[str, int], None]
    clock: Callable[[], float]


def _advance_to_end(stream: Stream, run: _Run, *, resume: bool) -> JobReport:
    """Track from where the stream is, in a folder that is ready and held."""
    job, behind, stop = run.job, run.behind, run.stop
    begun = stream.frame_index + 1

    def notify(part: str, done: int) -> None:
        try:
            run.notify(part, done)
        except Exception:  # the caller's; what is done is resumed from
            with suppress(StmemoryError):
                behind.wait()
            if not behind.failed:
                stream.save(job.state)
            raise

    resumed_at = begun if resume else 0
    error, more = None, False
    try:
        more = _advance(stream, replace(run, notify=notify))
        behind.wait()
        if job.overlay and not stop.wanted:
            stream.save(job.state)  # from here on an interruption costs the drawing only
            _draw(job, stream.frame_index + 1, stop, notify)
    except StmemoryError as failure:  # what is done stays, and the report says why there is no more
        error = failure
    with suppress(StmemoryError):  # of a mask: it is the error already, or comes after one of a frame
        behind.wait()
    masks = begun + behind.done
    error = error or missing_masks(job, masks)  # some may have been deleted meanwhile
    finished = error is None and not stop.wanted
    if finished and not more:
        write_record(job.record, {**run.record, "done": True})
        job.state.unlink(missing_ok=True)
    elif not behind.failed:  # else the state before is resumed from, all of whose masks are there
        stream.save(job.state)
    unused = tuple(frame for frame in job.given_frames if frame > stream.frame_index) if finished and not more else ()
    return JobReport(masks, resumed_at, finished, error, more, unused)


def _follow(stream: Stream, run: _Run) -> JobReport:
    """Track a live source from its second frame on. There is no state to resume from, and the overlay is drawn at
    once."""
    job, stop = run.job, run.stop
    live, error = job.live, None
    part = job.overlay_path.with_name("overlay.part.mp4")
    try:
        with OverlayWriter(part) if job.overlay else nullcontext() as writer:
            if writer is not None and live is not None:
                writer.write(stream.last.overlay(live.first()), time=0.0)
            run.notify("track", 1)
            while (
                stream.frame_index + 1 != job.frames
                and not stop.wanted
                and (frame := next(run.frames, None)) is not None
            ):
                index = stream.frame_index + 1
                result = _step(stream, frame, job, index)
                result.save(job.mask_path(index))
                if writer is not None and live is not None:
                    writer.write(result.overlay(frame), time=live.time)
                run.notify("track", index + 1)
    except StmemoryError as failure:  # what is done stays, and the report says why there is no more
        error = failure
    finally:
        if live is not None:
            live.close()
        if part.exists():
            os.replace(part, job.overlay_path)
    error = error or missing_masks(job, stream.frame_index + 1)
    write_record(job.record, {**run.record, "done": True})
    unused = tuple(frame for frame in job.given_frames if frame > stream.frame_index)
    return JobReport(stream.frame_index + 1, 0, error is None and not stop.wanted, error, unused=unused)


@contextmanager
def stop_on_signals(on_first: Callable[[], None] | None = None) -> Iterator[Stop]:
    """Turn ctrl-C and SIGTERM into a wish to stop between two frames; a second one interrupts at once, but for the
    frame that is being read and the mask that is being written.

    An interruption in the middle of a step would leave the stream half changed and not worth saving. Signals that were
    ignored before stay so; outside the main thread nothing changes.

    Args:
        on_first: called at the first signal, in the midst of whatever runs.

    >>> with stop_on_signals() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.wanted
    True
    """
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.wanted:
            raise KeyboardInterrupt
        stop.wanted = True
        if on_first is not None:
            on_first()

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _begin(predictor: Predictor, job: TrackJob, first: Tensor) -> Stream:
    """Start a stream."""
    if 0 in job.prompted:
        return predictor.start(first, job.given.get(0), prompts=job.prompted[0], allow_empty=True)
    if job.given_frames == [0]:
        return predictor.start(first, job.given[0])
    return predictor.start(first, job.given.get(0), allow_empty=True)


def _reopen(predictor: Predictor, job: TrackJob, record: Mapping[str, object]) -> Stream:
    """Open the saved stream, once it is sure that it is of this job."""
    check_record(job, record)
    stream = predictor.resume(job.state)
    if job.frames is not None and stream.frame_index >= job.frames:
        raise OptionError(
            f"frames: expected {stream.frame_index + 1} or more, which are done already, got {job.frames}"
        )
    check_later_masks(job, record, done=stream.frame_index + 1)
    check_frames(job, stream.frame_index + 1)
    write_record(job.record, record)  # masks and frames may have been added to the folder
    _log.info("%s: resumed after %d frames", job.out, stream.frame_index + 1)
    return stream


def _advance(stream: Stream, run: _Run) -> bool:
    """Track from the second frame on, and say whether the clip goes on beyond the frames asked for.

    Frames that a resumed stream has seen are passed over.
    """
    job, frames, notify, clock = run.job, run.frames, run.notify, run.clock
    saved_at = clock()
    if stream.frame_index == 0:
        stream.save(job.state)  # so that there is always one to resume from
    notify("track" if stream.frame_index == 0 else "skip", 1)
    for index in itertools.count(1):
        if run.stop.wanted:
            return False
        try:
            frame = next(frames, None)
        except StmemoryError:
            if index != job.frames:
                raise
            return True  # a frame that was not asked for is there, and can be mended
        if frame is None or index == job.frames:
            return frame is not None
        if index <= stream.frame_index:
            notify("skip", index + 1)
            continue
        result = replace(_step(stream, frame, job, index), probabilities=torch.empty(0))  # too large to wait for a disk
        run.behind.do(result.save, job.mask_path(index))
        notify("track", index + 1)
        now = clock()
        if (index + 1) % job.save_every == 0 or now - saved_at >= SAVE_SECONDS:
            run.behind.wait()
            stream.save(job.state)
            saved_at = now
    return False


def _step(stream: Stream, frame: Tensor, job: TrackJob, index: int) -> Segmentation:
    """Take the stream one frame further; what is wrong with a mask names its file."""
    mask, prompts = job.given.get(index), job.prompted.get(index)
    if mask is None and prompts is None:
        return stream.step(frame)
    try:
        return stream.step(frame, mask) if prompts is None else stream.step(frame, mask, prompts=prompts)
    except MaskError as error:
        place = f"frame {index}" if mask is None else str(mask)
        raise MaskError(str(error) if place in str(error) else f"{place}: {error}") from error


def _draw(job: TrackJob, count: int, stop: Stop, notify: Callable[[str, int], None]) -> None:
    """Draw the overlay video from the frames and the masks on disk; a stop leaves none."""
    part = job.overlay_path.with_name("overlay.part.mp4")
    rate = 25.0 if is_image_path(job.source) else frame_rate(job.source) or 25.0
    try:
        with OverlayWriter(part, rate=rate) as writer:
            for index, (moment, frame) in enumerate(itertools.islice(pictures_of(job), count)):
                if stop.wanted:
                    return
                ids = read_palette_png(job.mask_path(index))
                writer.write(Segmentation(index, ids, torch.empty(0), (), {}, {}).overlay(frame), time=moment)
                notify("draw", index + 1)
        os.replace(part, job.overlay_path)
    finally:
        part.unlink(missing_ok=True)
