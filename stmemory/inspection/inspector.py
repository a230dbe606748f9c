"""`Inspector`: takes a stream through a video and keeps, in bounded memory, what its memory did. Draws nothing, changes
nothing.

What it keeps does not grow with the video: for each object a `History` of fixed size, thumbnails of the frames that
stand in slots, and a few moments, each with the keys of every slot.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.inspection.history import History, RowState, compare, row_state
from stmemory.inspection.moments import (
    Moment,
    ObjectMoment,
    Point,
    Thumbnail,
    attention_of,
    cells_of,
    check_point,
    interesting_points,
    memory_keys,
    thumbnail,
)
from stmemory.inspection.report import InspectionReport
from stmemory.io.frames import iterate_frames, to_frame
from stmemory.predictor import VOSPredictor
from stmemory.prompts import PromptsLike
from stmemory.result import Segmentation
from stmemory.stream import VOSStream
from stmemory.types import FrameLike, MaskLike, VideoLike

__all__ = ["MOST_MOMENTS", "MOST_OBJECTS", "Inspector", "inspect"]

MOST_MOMENTS = 16  # that may be asked for
FEW_MOMENTS = 4  # kept when none are asked for, the last frame apart
MOST_OBJECTS = 16  # looked at when none are named


class Inspector:
    """Watches one stream. Call its `step` in place of the stream's; the masks are the same, bit for bit.

    Its pictures show what the network saw: of each frame the window that it was looked at through.

    Each frame costs one more query encoding and a read of at most 128 cells of each object.

    Args:
        stream: a new one (`VOSPredictor.new_stream()`), or one that has seen frames already; of those nothing is known
            but what `describe()` says.
        at: frames whose reads are kept whole, at most 16; None keeps a few, evenly spread, and thins them out as the
            video goes on, and the last frame.
        points: pixels (x, y) to look at in those frames; None is each object's centre and a point of its contour.
        objects: ids to look at; None is all, or the first 16 that appear.

    Raises:
        OptionError: too many moments, or a negative frame.

    >>> predictor = VOSPredictor.from_pretrained()
    >>> inspector = Inspector(predictor.new_stream())
    >>> mask = np.zeros((48, 64), np.uint8)
    >>> mask[10:30, 20:40] = 7
    >>> for frame in np.zeros((3, 48, 64, 3), np.uint8):
    ...     result = inspector.step(frame, mask if inspector.stream.frame_index < 0 else None)
    >>> inspector.report().histories[7].origin[0, :3].tolist()
    [0, 0, 0]
    """

    def __init__(
        self,
        stream: VOSStream,
        *,
        at: Iterable[int] | None = None,
        points: Iterable[Point] | None = None,
        objects: Iterable[int] | None = None,
    ) -> None:
        self.stream = stream
        self.at = None if at is None else tuple(sorted(set(at)))
        if self.at is not None and (len(self.at) > MOST_MOMENTS or min(self.at, default=0) < 0):
            raise OptionError(
                f"at: expected at most {MOST_MOMENTS} frames, from 0 on, got {self.at}; each of them keeps all keys "
                "of its memory"
            )
        self.points = None if points is None else tuple(points)
        self.objects = None if objects is None else tuple(objects)
        self._watched = list(self.objects or ())
        self._first = stream.frame_index + 1
        self._states: dict[int, RowState] = {}
        self._histories: dict[int, History] = {}
        self._thumbnails: dict[int, Thumbnail] = {}
        self._moments: dict[int, Moment] = {}
        self._places: dict[int, tuple[Point, ...]] = {}  # where each object was seen last
        self._last: Moment | None = None
        self._spacing = 1
        self._seen = self._look()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept: bounded, whatever the length of the video."""
        moments = {id(m): m for m in (*self._moments.values(), *([self._last] if self._last else []))}.values()
        parts = [part for moment in moments for part in moment.objects.values()]
        pictures = {
            id(t): t for t in (*self._thumbnails.values(), *(t for part in parts for t in part.origins.values()))
        }
        histories = sum(history.nbytes for history in self._histories.values())
        return (
            histories + sum(moment.nbytes for moment in moments) + sum(picture.nbytes for picture in pictures.values())
        )

    @torch.inference_mode()
    def step(
        self,
        frame: FrameLike,
        mask: MaskLike | None = None,
        *,
        prompts: PromptsLike | None = None,
        write: bool = True,
    ) -> Segmentation:
        """Take the stream one frame further; arguments, result and errors are those of `VOSStream.step`.

        Raises:
            OptionError: a point lies outside the frame.
        """
        pixels = to_frame(frame)
        height, width = pixels.shape[1:]
        for x, y in self.points or ():
            check_point((x, y), height, width)
        self._catch_up()
        bank, network = self.stream.bank, self.stream.network
        rows = {i: row for row, i in enumerate(self.stream.object_ids) if row < bank.rows and i in self._watched}
        read = network.read
        keys = (
            memory_keys(read, bank).flatten(3)[list(rows.values())] if rows and read is not None else None
        )  # [R, K, Ck, n], a copy
        valid = bank.cells[list(rows.values())].flatten(2) if rows else None  # [R, K, n]
        before = self._seen
        result = self.stream.step(frame, mask, prompts=prompts, write=write)
        size = self.stream.options.working_size(network, height, width)
        weight = next(network.parameters())
        window = self.stream.window
        query = torch.zeros(1, 1, 1)  # [Ck, h, w]
        if read is not None:
            query = network.encode_query(window.see(pixels.to(weight.device), size)[None].to(weight.dtype)).key[0]
        view, ids = window.view(size), window.part(result.ids)
        self._seen = self._look()
        picture = thumbnail(window.part(pixels), ids, frame_index=result.frame_index)
        memories: dict[int, ObjectMoment] = {}
        for object_id in self._seen:
            old = before.get(object_id, RowState({}, (-1,) * bank.capacity, False))
            if old.slots and object_id in rows and keys is not None and valid is not None:
                row = list(rows).index(object_id)
                origins = {
                    s.frame: self._thumbnails[s.frame] for s in old.slots.values() if s.frame in self._thumbnails
                }
                found = interesting_points((ids == object_id).cpu().numpy())
                points = tuple((x + window.left, y + window.top) for x, y in found) or self._places.get(object_id, ())
                self._places[object_id] = points
                cells = cells_of(ids == object_id, view, (query.shape[1], query.shape[2]))
                memories[object_id] = ObjectMoment(
                    keys[row], valid[row], old.slots, origins, cells, points or ((width // 2, height // 2),)
                )
        moment = Moment(result.frame_index, view, query, picture, memories, (window.left, window.top), (height, width))
        for object_id, state in self._seen.items():
            old, part = before.get(object_id, RowState({}, (-1,) * bank.capacity, False)), memories.get(object_id)
            share = None
            if read is not None and part is not None and len(part.cells):
                share = attention_of(moment, object_id, part.cells, read=read).sum((1, 2), np.float64)
            missed = "unwritten" if not write else "gate" if result.present[object_id] else "absent"
            change = compare(old, state, frame=result.frame_index, missed=missed)
            self._history(object_id).add(change, state, before=old, share=share, score=result.scores[object_id])
        self._keep_pictures(picture)
        self._keep_moment(moment)
        return result

    def follow(self, stream: VOSStream) -> Inspector:
        """A second inspector with the same record so far; what either sees from here on is its own.

        With `VOSStream.save` a video can be taken back: the stream's file and this record belong together.

        Args:
            stream: one at the frame that this record ends with: this inspector's own, or one resumed from its file.

        Raises:
            FrameError: it is at another frame.
        """
        frame = self._last.frame if self._last else self._first - 1
        if stream.frame_index != frame:
            at = f"a stream at frame {frame}, got one at {stream.frame_index}"
            raise FrameError(f"follow: expected {at}; save a stream and call follow() at the same frame")
        other = copy.copy(self)
        other.stream = stream
        other._watched = list(self._watched)
        other._histories = copy.deepcopy(self._histories)
        other._moments, other._places = dict(self._moments), dict(self._places)
        return other

    def report(self) -> InspectionReport:
        """What was seen so far, ready to be drawn; changes of the bank since the last frame included.

        Raises:
            FrameError: no frame was seen yet.
            MaskError: an object that was asked for never appeared.
        """
        self._catch_up()
        if self._last is None:
            raise FrameError(
                "report: expected an inspector that has seen a frame, got a new one; call step(frame, mask) first"
            )
        if unknown := [i for i in self.objects or () if i not in self._histories]:
            raise MaskError(f"objects: expected ids of {self.stream.object_ids}, got {unknown}; they never appeared")
        bank, similarity = self.stream.bank.fork(), dict[int, NDArray[np.float32]]()
        with torch.inference_mode():
            matrices = (
                bank.similarity().cpu().numpy()
                if bank.rows
                else np.zeros((0, bank.capacity, bank.capacity), np.float32)
            )
        for row, object_id in enumerate(self.stream.object_ids):
            if object_id in self._histories and row < len(matrices):
                similarity[object_id] = matrices[row]
        return InspectionReport(
            options=self.stream.options,
            read=self.stream.network.read,
            histories=dict(self._histories),
            slots={i: dict(state.slots) for i, state in self._seen.items()},
            similarity=similarity,
            thumbnails=dict(self._thumbnails),
            moments=self._chosen(self._last),
            points=self.points,
        )

    def _chosen(self, last: Moment) -> dict[int, Moment]:
        """The moments that were asked for, or those that were kept with the last one, unless they are right before
        it."""
        if self.at is not None:
            return dict(self._moments)
        kept = {frame: moment for frame, moment in self._moments.items() if last.frame - frame > self._spacing // 2}
        return {**kept, last.frame: last} if last.objects else kept

    def _history(self, object_id: int) -> History:
        if object_id not in self._histories:
            self._histories[object_id] = History(self.stream.bank.capacity, first=self._first)
        return self._histories[object_id]

    def _look(self) -> dict[int, RowState]:
        """The slots of each object that is looked at."""
        ids = self.stream.object_ids
        if self.objects is None:
            new = [object_id for object_id in ids if object_id not in self._watched]
            self._watched += new[: MOST_OBJECTS - len(self._watched)]
        return {i: row_state(self.stream.bank, row) for row, i in enumerate(ids) if i in self._watched}

    def _catch_up(self) -> None:
        """Take down what happened to the stream between two steps: corrections, objects that entered or left."""
        before, self._seen = self._seen, self._look()
        frame = self.stream.frame_index
        for object_id, state in self._seen.items():
            old = before.get(object_id, RowState({}, (-1,) * self.stream.bank.capacity, False))
            if frame >= self._first and old.versions != state.versions:
                self._history(object_id).add(compare(old, state, frame=frame), state)

    def _keep_pictures(self, picture: Thumbnail) -> None:
        """Keep the thumbnails of frames that stand in a slot, and no others."""
        wanted = {slot.frame for state in self._seen.values() for slot in state.slots.values()}
        known = {**self._thumbnails, picture.frame: picture}
        self._thumbnails = {frame: known[frame] for frame in known if frame in wanted}

    def _keep_moment(self, moment: Moment) -> None:
        self._last = moment
        if self.at is not None:
            if moment.frame in self.at:
                self._moments[moment.frame] = moment
            return
        if moment.objects and moment.frame % self._spacing == 0:
            self._moments[moment.frame] = moment
        while len(self._moments) > FEW_MOMENTS:
            self._spacing *= 2
            self._moments = {f: kept for f, kept in self._moments.items() if f % self._spacing == 0}


def inspect(
    predictor: VOSPredictor,
    frames: VideoLike,
    first_mask: MaskLike | None = None,
    *,
    prompts: PromptsLike | None = None,
    at: Iterable[int] | None = None,
    objects: Iterable[int] | None = None,
    on_result: Callable[[Segmentation], None] | None = None,
) -> InspectionReport:
    """Track a clip to its end and report what the memory did.

    Args:
        predictor: what tracks.
        frames: a video in any form that `iterate_frames` takes.
        first_mask: the first frame's, in any form that `to_object_masks` takes; None where there are prompts.
        prompts: points and boxes of objects in the first frame: one `Prompt` or several.
        at: see `Inspector`.
        objects: see `Inspector`.
        on_result: called with each frame's result.

    Returns:
        The report; `save(folder)` draws all of it.

    Raises:
        FrameError: the video cannot be read, or ends before a frame of `at`.
        MaskError: the mask or a prompt cannot be used, there is neither, or none has an object of `objects`.
        OptionError: too many frames in `at`.

    >>> mask = np.zeros((48, 64), np.uint8)
    >>> mask[10:30, 20:40] = 7
    >>> report = inspect(VOSPredictor.from_pretrained(), np.zeros((3, 48, 64, 3), np.uint8), mask)
    >>> report.attention(2, 7).mode
    'RGB'
    """
    if first_mask is None and prompts is None:
        raise MaskError("inspect: expected a mask of the first frame or prompts, got neither; give one")
    inspector = Inspector(predictor.new_stream(), at=at, objects=objects)
    for index, frame in enumerate(iterate_frames(frames)):
        result = inspector.step(frame) if index else inspector.step(frame, first_mask, prompts=prompts)
        if index == 0:
            inspector.report()  # raises for objects that the mask does not have
        if on_result is not None:
            on_result(result)
    report = inspector.report()
    if late := [frame for frame in inspector.at or () if frame not in report.moments]:
        raise FrameError(
            f"at: expected frames of the clip, 0 to {inspector.stream.frame_index}, got {late}; choose earlier ones"
        )
    return report
