"""`ClipSession`: a clip whose frames can be visited and corrected in any order, and the reader of its frames."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stmemory.errors import FrameError, MaskError, ShapeError
from stmemory.io.frames import count_frames, iterate_frames, to_frame
from stmemory.io.images import image_files, is_image_path
from stmemory.io.masks import to_object_masks
from stmemory.io.video import scan_video_frames
from stmemory.postprocess import Labels, segmentation_of
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt, ready_prompts
from stmemory.result import Segmentation
from stmemory.stream import VOSStream
from stmemory.types import ClipLike, MaskArrayLike

__all__ = ["ClipReader", "ClipSession"]

_HELD = 32  # frames held while a file is read backwards, so that it is read again for every 32nd alone


class ClipReader:
    """Reads any frame of a clip.

    Folders, arrays and lists are read where the frame lies. A video or an image with pages is read from its beginning
    when an earlier frame is asked for; the 32 frames before that one are then held (uint8), for the next questions.

    Args:
        source: a path, an array `[T, H, W, 3]`, a tensor `[T, 3, H, W]`, a sequence of images, or an array-like or a
            data set as `iterate_frames` takes it; no generator, which can be read only once.

    Raises:
        ShapeError: the source is of another kind.
        FrameError: it is empty or cannot be opened.

    >>> import numpy as np
    >>> reader = ClipReader(np.zeros((5, 4, 6, 3), np.uint8))
    >>> reader.count, reader.read(4).shape, reader.read(5)
    (5, torch.Size([3, 4, 6]), None)
    """

    def __init__(self, source: ClipLike) -> None:
        self._source = source
        self._images: Any = None  # has a length, and gives an image by its number
        if isinstance(source, (str, os.PathLike)):
            if is_image_path(source) and Path(source).is_dir():
                self._images = image_files(Path(source))
        elif hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, (bytes, Mapping)):
            self._images = source
        else:
            raise ShapeError(
                f"clip: expected a path, an array, a tensor or a list of images, got {type(source).__name__}; what can "
                "be read only once goes to VOSPredictor.track, a camera to VOSPredictor.start and step"
            )
        iterate_frames(source)  # checks it
        self._count: int | None = None if self._images is None else len(self._images)
        self._frames: Iterator[Tensor] = iter(())
        self._next = 0  # the number of what `_frames` gives next
        self._last: tuple[int, Tensor] | None = None
        self._held: dict[int, Tensor] = {}  # uint8
        self._rewind()

    @property
    def count(self) -> int:
        """Frames of the clip. A video is gone through for it once, without decoding, since headers do not know or are
        wrong.

        Once the end of the clip was read it is exact; a video that is damaged has fewer frames than it says before
        that.
        """
        if self._count is None:
            path = str(self._source) if isinstance(self._source, os.PathLike) else self._source
            known = isinstance(path, str) and not is_image_path(path)
            self._count = (
                scan_video_frames(path) if known and isinstance(path, str) else count_frames(self._source) or 0
            )
        return self._count

    def read(self, index: int) -> Tensor | None:
        """A frame: float32 `[3, H, W]` in [0, 1]; None where the clip has no such frame.

        Args:
            index: from 0.

        Raises:
            FrameError: the file is damaged, or the frame cannot be used.
            ShapeError: the frame is of another kind or shape.
        """
        if index < 0:
            return None
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        if self._images is not None:
            if index >= len(self._images):
                return None
            self._last = (index, to_frame(self._images[index]))
            return self._last[1]
        if index in self._held:
            return self._held[index].float() / 255
        backwards = index < self._next
        if backwards:
            self._rewind()
        last: deque[tuple[int, Tensor]] = deque(maxlen=_HELD)
        while self._next <= index:
            frame = next(self._frames, None)
            if frame is None:
                self._count = self._next
                return None
            self._last = (self._next, frame)
            self._next += 1
            if backwards:  # files hold bytes, so nothing is lost
                last.append((self._last[0], (frame * 255).round().to(torch.uint8)))
        self._held = dict(last)
        return self._last[1] if self._last is not None else None

    def _rewind(self) -> None:
        self._frames, self._next, self._last, self._held = iter(()), 0, None, {}
        if self._images is None:
            self._frames = iterate_frames(self._source)


@dataclass(eq=False)
class _Run:
    """A stream, the way it goes (1 or -1), the frame that it saw last, and the one that it began with."""

    stream: VOSStream
    way: int
    position: int
    begin: int

    def has_passed(self, frame_index: int) -> bool:
        """Whether the stream has seen the frame."""
        return (frame_index - self.position) * self.way <= 0


@dataclass(frozen=True)
class _Asked:
    """Prompts of an object in a frame, and whether they correct what was found there, as by `VOSStream.correct`."""

    prompt: Prompt
    corrects: bool

    @property
    def says_where(self) -> bool:
        """Whether it says where an object is that is not tracked; points that are not of it do not."""
        return bool(self.prompt.points) or self.prompt.box is not None


class ClipSession:
    """What was said of objects in frames of a clip, by masks or prompts, and the masks of all its frames that follow.

    The masks of a frame are those of a stream that began at the earliest frame of which something was said (backwards:
    at the latest), and got all the rest at its frame. Asked for frame after frame, each is computed once; asked for one
    that lies behind, or after something was changed behind, the frames are gone through again. What is held grows with
    what was said, a byte a pixel of a mask, and not with the clip.

    Args:
        predictor: what tracks.
        source: the clip, see `ClipReader`.

    Attributes:
        height: H of the frames.
        width: W of the frames.

    Raises:
        FrameError: there is no such clip, or it cannot be read.
        ShapeError: it is of another kind.

    >>> session = ClipSession(VOSPredictor.from_pretrained(), np.zeros((3, 48, 64, 3), np.uint8))
    >>> session.give(1, 7, np.ones((48, 64), bool))
    >>> session.segment(0) is None, session.segment(2).object_ids, session.segment(0, backwards=True).object_ids
    (True, (7,), (7,))
    """

    def __init__(self, predictor: VOSPredictor, source: ClipLike) -> None:
        self.predictor, self._reader = predictor, ClipReader(source)
        first = self._reader.read(0)
        if first is None:
            raise FrameError("clip: expected at least one frame, got none; check where it comes from")
        self.height, self.width = first.shape[1:]
        # Of each frame: an object's id, and its mask, bool [H, W], or its prompts.
        self._given: dict[int, dict[int, Tensor | _Asked]] = {}
        self._absent: dict[int, set[int]] = {}  # of each frame: the ids of objects that are not in it
        self._run: _Run | None = None
        self._seen = range(0)  # the frames that were segmented, forwards or backwards
        self._way = 1  # of the last run
        self._answer: tuple[int, Segmentation] | None = None  # a frame, and its result by its own prompts alone

    @property
    def count(self) -> int:
        """Frames of the clip; see `ClipReader.count`."""
        return self._reader.count

    @property
    def given_frames(self) -> list[int]:
        """Indices of the frames with given masks or prompts, sorted."""
        return sorted(self._given)

    def prompt(self, frame_index: int, object_id: int) -> Prompt | None:
        """The prompts that were given of an object in a frame; None where none were, or a mask."""
        said = self._given.get(frame_index, {}).get(object_id)
        return said.prompt if isinstance(said, _Asked) else None

    def has(self, frame_index: int) -> bool:
        """Whether the clip has such a frame; reads it to know.

        Raises:
            FrameError: the index is no whole number, or the frame cannot be read.
        """
        return self._reader.read(_whole(frame_index)) is not None

    def give(self, frame_index: int, object_id: int, mask: MaskArrayLike) -> None:
        """Say where an object is in a frame: its first mask, or a correction; it replaces what was said of it in that
        frame before, prompts included.

        The frame that was segmented last is corrected where it is, as by `VOSStream.correct`. An empty mask says that
        an object that is known from another frame is not in this one, as `mark_absent` does.

        Args:
            frame_index: from 0.
            object_id: a whole number above 0.
            mask: `[H, W]`: booleans, integers (not 0 is the object) or floats (0.5 and more is). Where masks of a frame
                overlap, the one given later is on top.

        Raises:
            FrameError: the clip has no such frame.
            MaskError: the mask or the id cannot be used.
        """
        object_id, frame_index = _id(object_id), self._there(frame_index)
        flags = _one_object(mask)
        if not bool(flags.any()) and self._is_given_elsewhere(frame_index, object_id):
            to_object_masks(flags, height=self.height, width=self.width, allow_empty=True)  # checks its size
            self.mark_absent(frame_index, object_id)
            return
        to_object_masks(flags, height=self.height, width=self.width)  # checks it
        if self._run is not None and self._run.position == frame_index:
            self._run.stream.correct(flags.int() * object_id)
        elif self._run is not None and self._run.has_passed(frame_index):
            self._run = None
        self._put(frame_index, object_id, flags)

    def give_prompts(self, frame_index: int, prompt: Prompt) -> None:
        """Say where an object is in a frame by points and a box: where it enters, or a correction. It replaces what was
        said of the object in that frame before, a mask included: give all points, those of before too.

        Prompts of a frame that was segmented already correct what was found there, as by `VOSStream.correct`: the one
        that was segmented last where it is, another after the frames up to it were gone through again. In other frames,
        and of objects that are new, the mask comes of the prompts and the frame alone. Either way it is computed at
        once, so that prompts which cannot be answered are refused, and change nothing; see `known`. Only what is
        corrected may have points alone that are not of the object.

        Args:
            frame_index: from 0.
            prompt: of one object.

        Raises:
            FrameError: the clip has no such frame.
            MaskError: the prompts cannot be used.
            OptionError: neither the network nor a prompter takes prompts.
        """
        frame_index = self._there(frame_index)
        if not isinstance(prompt, Prompt):
            raise MaskError(f"prompt: expected one Prompt(object_id, points=..., box=...), got {prompt!r}")
        object_id, run = prompt.object_id, self._run
        corrects = frame_index in self._seen and self._is_given_elsewhere(frame_index, object_id)
        tracked = (object_id,) if corrects else ()
        ready_prompts(prompt, height=self.height, width=self.width, found=tracked)  # checks it
        in_place = run is not None and run.position == frame_index and not (frame_index == run.begin and not corrects)
        if run is not None and in_place:
            run.stream.correct(prompts=prompt)
            self._put(frame_index, object_id, _Asked(prompt, True))
            return
        before, absent = dict(self._given.get(frame_index, {})), set(self._absent.get(frame_index, ()))
        self._put(frame_index, object_id, _Asked(prompt, corrects))
        try:
            if corrects:
                self._run = None
                self.segment(frame_index, backwards=self._way < 0)
            else:
                self._run = None if run is not None and run.has_passed(frame_index) else run
                self.known(frame_index)
        except BaseException:
            self._given[frame_index], self._absent[frame_index] = before, absent
            self._given = {frame: said for frame, said in self._given.items() if said}
            self._absent = {frame: ids for frame, ids in self._absent.items() if ids}
            self._answer, self._run = None, run
            raise

    def mark_absent(self, frame_index: int, object_id: int) -> None:
        """Say that an object is not in a frame; it replaces the object's mask or prompts of that frame.

        The object stays, and may be found again in the frames that follow. The frame that was segmented last is
        corrected where it is, as by `VOSStream.correct`.

        Args:
            frame_index: from 0.
            object_id: of an object that has a mask or prompts in another frame.

        Raises:
            FrameError: the clip has no such frame.
            MaskError: the object has neither in another frame.
        """
        object_id, frame_index = _id(object_id), self._there(frame_index)
        if not self._is_given_elsewhere(frame_index, object_id):
            raise MaskError(
                f"object {object_id}: expected a mask of it in another frame than {frame_index}, or prompts, "
                "got neither; give one first, or forget the object with remove()"
            )
        had_mask = self._drop(frame_index, object_id)
        self._absent.setdefault(frame_index, set()).add(object_id)
        if self._run is None or not self._run.has_passed(frame_index):
            return
        if had_mask or self._run.position != frame_index:
            self._run = None
        elif object_id in self._run.stream.object_ids:
            self._run.stream.correct(absent=[object_id])

    def take_back(self, frame_index: int, object_id: int) -> None:
        """Forget what was said of an object in a frame, its mask, prompts or absence, if anything was."""
        had_mask = self._drop(frame_index, object_id)
        if not self._forget_absence(frame_index, object_id) and not had_mask:
            return
        if self._run is not None and self._run.has_passed(frame_index):
            self._run = None

    def remove(self, object_id: int) -> list[int]:
        """Forget an object; the stream goes on with the others.

        Returns:
            The frames in which it had masks or prompts.
        """
        had = [frame for frame in self.given_frames if self._drop(frame, object_id)]
        for frame in list(self._absent):
            self._forget_absence(frame, object_id)
        if not self._given:
            self._run = None
        elif self._run is not None and object_id in self._run.stream.object_ids:
            self._run.stream.remove_objects([object_id])
        return had

    def clear(self) -> None:
        """Forget all objects; the clip stays open."""
        self._given, self._absent, self._run, self._seen, self._answer = {}, {}, None, range(0), None

    def segment(self, frame_index: int, *, backwards: bool = False) -> Segmentation | None:
        """The masks of a frame.

        Args:
            frame_index: from 0.
            backwards: follow the clip from its end to its beginning.

        Returns:
            The frame's result; None before the first given mask or prompts (backwards: after the last).

        Raises:
            FrameError: the clip has no such frame, or it cannot be read.
            MaskError: neither a mask nor prompts were given, or prompts on the way cannot be answered.
            OptionError: there are prompts, and neither the network nor a prompter takes them.
        """
        if not self._given:
            raise MaskError("expected a mask or prompts of some object, got neither; give one first")
        frame_index = _whole(frame_index)
        if frame_index < 0:
            raise _no_frame(frame_index, self.count)
        way, begin = (-1, max(self._given)) if backwards else (1, min(self._given))
        if (begin - frame_index) * way > 0:
            return None
        run = self._run
        if run is None or run.way != way or (run.position - frame_index) * way > 0:
            stream = self.predictor.start(
                self._frame(begin, asked=begin),
                self._ids(begin),
                prompts=self._prompts(begin) or None,
                allow_empty=True,
            )
            run = self._run = _Run(stream, way, begin, begin)
            self._have_seen(begin, way)
        while run.position != frame_index:
            self._go_on(run, asked=frame_index)
        return dataclasses.replace(run.stream.last, frame_index=frame_index)

    def _go_on(self, run: _Run, *, asked: int) -> None:
        """Take the stream one frame further, on the way to the one that was asked for."""
        stream, coming = run.stream, run.position + run.way
        corrections, rest = list[Prompt](), list[Prompt]()
        for said in self._asked(coming):
            tracked = said.prompt.object_id in stream.object_ids
            if said.corrects and tracked:
                corrections.append(said.prompt)
            elif said.says_where:
                rest.append(said.prompt)
        stream.step(self._frame(coming, asked=asked), self._ids(coming), prompts=rest or None)
        run.position = coming
        self._have_seen(coming, run.way)
        try:
            for prompt in corrections:
                stream.correct(prompts=prompt)
            if absent := self._absent.get(coming, set()) & set(stream.object_ids):
                stream.correct(absent=absent)
        except BaseException:
            self._run = None  # the stream lacks what was said of this frame
            raise

    def known(self, frame_index: int) -> Segmentation | None:
        """What is known of a frame without going through the clip: what was segmented last, or what was given, with the
        answer to prompts as it is without the frames before; None where that is nothing.

        Nothing is computed but that answer, once.
        """
        if self._run is not None and self._run.position == frame_index:
            return dataclasses.replace(self._run.stream.last, frame_index=frame_index)
        ids, prompts = self._ids(frame_index), self._prompts(frame_index)
        if prompts:
            if self._answer is None or self._answer[0] != frame_index:
                stream = self.predictor.start(self._frame(frame_index, asked=frame_index), ids, prompts=prompts)
                self._answer = frame_index, dataclasses.replace(stream.last, frame_index=frame_index)
            return self._answer[1]
        if ids is None:
            return None
        masks = to_object_masks(ids, height=self.height, width=self.width)
        background = 1 - masks.probabilities.sum(0, keepdim=True)
        labels = Labels.of(torch.cat([background, masks.probabilities]))
        return segmentation_of(labels, masks.object_ids, frame_index=frame_index)

    def _there(self, frame_index: int) -> int:
        """The index of a frame that the clip has."""
        if not self.has(frame_index):
            raise _no_frame(frame_index, self.count)
        return _whole(frame_index)

    def _is_given_elsewhere(self, frame_index: int, object_id: int) -> bool:
        """Whether a mask or prompts say in another frame where the object is."""
        elsewhere = (said.get(object_id) for frame, said in self._given.items() if frame != frame_index)
        return any(isinstance(said, Tensor) or (said is not None and said.says_where) for said in elsewhere)

    def _put(self, frame_index: int, object_id: int, said: Tensor | _Asked) -> None:
        """Keep what was said of an object in a frame, on top of what was said of others."""
        self._forget_absence(frame_index, object_id)
        self._drop(frame_index, object_id)
        self._given.setdefault(frame_index, {})[object_id] = said

    def _drop(self, frame_index: int, object_id: int) -> bool:
        """Forget an object's mask or prompts of a frame, and say whether there was one."""
        if self._answer is not None and self._answer[0] == frame_index:
            self._answer = None
        said = self._given.get(frame_index, {})
        had = said.pop(object_id, None) is not None
        if not said:
            self._given.pop(frame_index, None)
        return had

    def _forget_absence(self, frame_index: int, object_id: int) -> bool:
        """Take back that an object is absent, and say whether that was said."""
        absent = self._absent.get(frame_index, set())
        was_said = object_id in absent
        absent.discard(object_id)
        if not absent:
            self._absent.pop(frame_index, None)
        return was_said

    def _frame(self, frame_index: int, *, asked: int) -> Tensor:
        """A frame on the way to the one that was asked for."""
        frame = self._reader.read(frame_index)
        if frame is None:
            raise _no_frame(asked, frame_index)
        return frame

    def _ids(self, frame_index: int) -> Tensor | None:
        """The given masks of a frame as ids, int32 `[H, W]`; None where there are none."""
        masks = {i: said for i, said in self._given.get(frame_index, {}).items() if isinstance(said, Tensor)}
        if not masks:
            return None
        ids = torch.zeros(self.height, self.width, dtype=torch.int32)
        for object_id, flags in masks.items():
            ids.masked_fill_(flags, object_id)
        return ids

    def _asked(self, frame_index: int) -> list[_Asked]:
        """The given prompts of a frame, in the order in which they were given."""
        return [said for said in self._given.get(frame_index, {}).values() if isinstance(said, _Asked)]

    def _prompts(self, frame_index: int) -> tuple[Prompt, ...]:
        """Those of them that say where an object is, as what a stream takes."""
        return tuple(said.prompt for said in self._asked(frame_index) if said.says_where)

    def _have_seen(self, frame_index: int, way: int) -> None:
        """Remember that a frame was segmented; those of a run follow each other."""
        touches = bool(self._seen) and self._seen.start - 1 <= frame_index <= self._seen.stop
        ends = (frame_index, *([self._seen.start, self._seen.stop - 1] if touches else []))
        self._seen, self._way = range(min(ends), max(ends) + 1), way


def _no_frame(frame_index: int, count: int) -> FrameError:
    return FrameError(
        f"frame {frame_index}: expected a frame of the clip, which has {count} frames, got none; count from 0"
    )


def _whole(frame_index: object) -> int:
    """A frame's index as Python's own int; numpy's are taken."""
    if isinstance(frame_index, bool) or not isinstance(frame_index, (int, np.integer)):
        raise FrameError(f"frame index: expected a whole number from 0 on, got {frame_index!r}; convert it with int()")
    return int(frame_index)


def _id(object_id: object) -> int:
    """An object's id as Python's own int; numpy's are taken."""
    if isinstance(object_id, bool) or not isinstance(object_id, (int, np.integer)) or not 0 < object_id < 2**31:
        raise MaskError(
            f"object_id: expected a whole number from 1 to {2**31 - 1}, got {object_id!r}; number the objects from 1"
        )
    return int(object_id)


def _one_object(mask: MaskArrayLike) -> Tensor:
    """A mask as bool `[H, W]` on the CPU."""
    values = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if values.dtype.kind not in "biuf" or values.ndim != 2:
        kind = f"{values.dtype} {values.shape}" if values.dtype.kind in "biuf" else type(mask).__name__
        raise MaskError(f"mask: expected one object as numbers [H, W], got {kind}; give each object's mask by itself")
    return torch.from_numpy(values >= 0.5 if values.dtype.kind == "f" else values != 0)
