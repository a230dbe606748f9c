"""The method names of SAM 2's video predictor, for scripts that were written for it, over a `ClipSession`.

Masks are prompts with any weights; points and boxes with SAM 2's own and the bundled ones, or with a prompter. SAM 2's
code is not needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.options import TrackingOptions
from stmemory.postprocess import mask_logits
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt, Prompter
from stmemory.result import Segmentation
from stmemory.session import ClipSession
from stmemory.types import ClipLike, MaskArrayLike
from stmemory.weights.hub import Where

__all__ = ["InferenceState", "Output", "VideoPredictor"]

Output = tuple[int, list[Hashable], Tensor]  # frame index, N object ids, mask logits [N, 1, H, W]
_Numbers: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]

NOTHING = -1024.0  # logit of an object of which nothing is known in a frame, as in SAM 2


class InferenceState:
    """One clip, the names of its objects, and the session under it. Made by `VideoPredictor.init_state`.

    `state["obj_ids"]`, `state["num_frames"]`, `state["video_height"]` and `state["video_width"]` are there as in SAM 2.

    Attributes:
        session: the clip, the masks that were given, and the stream; what it holds does not grow with the clip.
        numbers: each object's id in the session, in the order in which objects were named.
    """

    def __init__(self, session: ClipSession) -> None:
        self.session = session
        self.numbers: dict[Hashable, int] = {}

    def __getitem__(self, name: str) -> object:
        if name not in ("num_frames", "obj_ids", "video_height", "video_width"):
            known = "num_frames, obj_ids, video_height or video_width"
            raise OptionError(
                f"inference_state: expected {known}, got {name!r}, which is SAM 2's own; use one of these"
            )
        return getattr(self, name)

    @property
    def obj_ids(self) -> list[Hashable]:
        """The ids of all objects, in the order in which they were named."""
        return list(self.numbers)

    @property
    def num_frames(self) -> int:
        """Frames of the clip, a number always; see `ClipReader.count`."""
        return self.session.count

    @property
    def video_height(self) -> int:
        """H of the frames."""
        return self.session.height

    @property
    def video_width(self) -> int:
        """W of the frames."""
        return self.session.width

    def number_of(self, obj_id: Hashable) -> int:
        """An object's id in the session.

        Raises:
            MaskError: there is no such object.
        """
        if obj_id not in self.numbers:
            raise MaskError(f"obj_id: expected one of {self.obj_ids}, got {obj_id!r}; add_new_mask names new objects")
        return self.numbers[obj_id]


class VideoPredictor:
    """Takes the calls of a SAM 2 script.

    The masks of a frame are those of a stream that began at the earliest prompt that was given (with `reverse`: the
    latest), and got every other one at its frame; see `ClipSession`. No frame and no result is kept, so memory does not
    grow with the clip; a second pass, or a prompt on a frame that was passed, goes through the frames again.

    Args:
        predictor: what tracks.

    >>> import numpy as np
    >>> predictor = VideoPredictor.from_pretrained()
    >>> state = predictor.init_state(np.zeros((3, 48, 64, 3), np.uint8))
    >>> mask = np.zeros((48, 64), bool)
    >>> mask[10:30, 20:40] = True
    >>> frame_idx, obj_ids, logits = predictor.add_new_mask(state, frame_idx=0, obj_id=7, mask=mask)
    >>> for frame_idx, obj_ids, logits in predictor.propagate_in_video(state):
    ...     print(frame_idx, obj_ids, tuple(logits.shape))
    0 [7] (1, 1, 48, 64)
    1 [7] (1, 1, 48, 64)
    2 [7] (1, 1, 48, 64)
    """

    def __init__(self, predictor: VOSPredictor) -> None:
        self.predictor = predictor

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        options: TrackingOptions | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        prompter: str | Path | VOSPredictor | Prompter | None = None,
        **where: Unpack[Where],
    ) -> VideoPredictor:
        """As `VOSPredictor.from_pretrained`: names are those of this library's weights, or of SAM 2's for transformers
        such as `facebook/sam2.1-hiera-tiny`."""
        return cls(
            VOSPredictor.from_pretrained(name, options=options, device=device, dtype=dtype, prompter=prompter, **where)
        )

    def init_state(
        self,
        video_path: ClipLike,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> InferenceState:
        """Open a clip. Its frames are read when they are needed.

        Args:
            video_path: a folder of images, a video file, or anything else that `ClipReader` takes.
            offload_video_to_cpu: without effect: no frame is kept.
            offload_state_to_cpu: without effect: the state does not grow.
            async_loading_frames: without effect.

        Raises:
            FrameError: there is no such clip, or it cannot be read.
            ShapeError: it is of another kind.
        """
        return InferenceState(ClipSession(self.predictor, video_path))

    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, mask: MaskArrayLike
    ) -> Output:
        """Say where an object is in a frame: its first mask, or a correction.

        The frame last handed out is corrected where it is, as by `VOSStream.correct`, and the next goes on from there.
        After a mask on an earlier frame the clip is gone through again, up to the frame that is asked for next.

        Args:
            inference_state: the clip.
            frame_idx: from 0.
            obj_id: any name for the object; new ones may come at any time.
            mask: `[H, W]` of the frame's size: booleans, integers (not 0 is the object) or floats (0.5 and more is).
                Where masks of a frame overlap, the one given later is on top. An empty mask says that an object with a
                prompt in another frame is not in this one.

        Returns:
            The frame, all ids, and what is known of the frame by now, `[N, 1, H, W]`; where that is nothing, -1024.

        Raises:
            FrameError: the clip has no such frame.
            MaskError: the mask cannot be used.
        """
        state = inference_state
        number = _number_for(state, obj_id)
        state.session.give(frame_idx, number, mask)
        state.numbers[obj_id] = number
        return int(frame_idx), state.obj_ids, _logits(state, state.session.known(frame_idx))

    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Hashable,
        points: _Numbers | None = None,
        labels: _Numbers | None = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: _Numbers | None = None,
    ) -> Output:
        """Say where an object is in a frame by points and a box: where it enters, or a correction.

        A frame that was handed out before is corrected from what is remembered of the frames before it; in other frames
        the mask comes of the prompts alone, as in SAM 2. See `ClipSession.give_prompts`.

        Args:
            inference_state: the clip.
            frame_idx: from 0.
            obj_id: any name for the object; new ones may come at any time.
            points: x and y, `[P, 2]`.
            labels: of each point, `[P]`: 1 of the object, 0 not.
            clear_old_points: whether what was said of the object in this frame before is replaced. False adds the
                points to those of before, and to their box. A mask is replaced either way.
            normalize_coords: whether coordinates are pixels of the frame. False: they are in [0, 1] already, 1 the
                frame's right and bottom edge.
            box: left, top, right and bottom, 4 numbers of any shape. It comes before all points, so that old ones
                cannot stay.

        Returns:
            The frame, all ids, and what is known of the frame by now, `[N, 1, H, W]`; where that is nothing, -1024.

        Raises:
            FrameError: the clip has no such frame.
            MaskError: points without labels or the like, or prompts that cannot be used.
            OptionError: neither the network nor a prompter takes prompts.

        >>> import numpy as np
        >>> from stmemory.errors import OptionError
        >>> predictor = VideoPredictor.from_pretrained()
        >>> state = predictor.init_state(np.zeros((3, 48, 64, 3), np.uint8))
        >>> predictor.add_new_points_or_box(state, 0, 7, points=[[30, 20]], labels=[2])
        Traceback (most recent call last):
        stmemory.errors.MaskError: labels: expected 1 (of the object) or 0 (not), got 2; a box goes to box=
        """
        state = inference_state
        if box is not None and not clear_old_points:
            raise MaskError(
                "box: expected clear_old_points=True with it, got False; a box comes before all points, so give it "
                "with the points that are to stay"
            )
        size = (1, 1) if normalize_coords else (state.video_width, state.video_height)
        number = _number_for(state, obj_id)
        session = state.session
        old = None if clear_old_points else session.prompt(frame_idx, number)
        wanted, unwanted = _labelled(points, labels, size)
        if box is None and points is None:
            raise MaskError("add_new_points_or_box: expected points with labels, or a box, got neither; give one")
        prompt = Prompt(
            number,
            points=[*(old.points if old else ()), *wanted],
            not_points=[*(old.not_points if old else ()), *unwanted],
            box=_corners(box, size) if box is not None else old.box if old else None,
        )
        session.give_prompts(frame_idx, prompt)
        state.numbers[obj_id] = number
        return int(frame_idx), state.obj_ids, _logits(state, session.known(frame_idx))

    add_new_points = add_new_points_or_box  # SAM 2's older name, deprecated there

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[Output]:
        """Track through the clip, a frame at a time.

        Args:
            inference_state: the clip, with a prompt at least.
            start_frame_idx: the first frame to hand out; None is the earliest with a prompt. What is found does not
                depend on it.
            max_frame_num_to_track: how many frames to go on after that one, as in SAM 2; None goes to the end.
            reverse: go backwards. From frame 0 that gives nothing, as in SAM 2.

        Returns:
            Frame index, all ids, and logits `[N, 1, H, W]` at the frame's size: above 0 exactly where the object wins
            the pixel, see `stmemory.postprocess.mask_logits`; -1024 for objects that have not entered yet.

        Raises:
            MaskError: no prompt was given.
            FrameError: the clip has no such frame, or it cannot be read.
            OptionError: `max_frame_num_to_track` is below 0. Arguments are checked when this is called.
        """
        session = inference_state.session
        if not session.given_frames:
            raise MaskError(
                "propagate_in_video: expected a mask or points of some object, got none; call add_new_mask first, or "
                "add_new_points_or_box"
            )
        start = session.given_frames[0] if start_frame_idx is None else start_frame_idx
        if max_frame_num_to_track is not None and max_frame_num_to_track < 0:
            raise OptionError(
                f"max_frame_num_to_track: expected 0 or more, or None, got {max_frame_num_to_track}; reverse=True "
                "goes back"
            )
        if not session.has(start):
            raise FrameError(
                f"start_frame_idx: expected a frame of the clip, got {start} of {session.count}; count from 0"
            )
        order: Iterable[int]
        if reverse:
            end = 0 if max_frame_num_to_track is None else max(start - max_frame_num_to_track, 0)
            order = range(start, end - 1, -1) if start else ()
        else:
            order = (
                itertools.count(start)
                if max_frame_num_to_track is None
                else range(start, start + max_frame_num_to_track + 1)
            )
        return _propagate(inference_state, map(int, order), reverse)

    def remove_object(
        self, inference_state: InferenceState, obj_id: Hashable, strict: bool = False, need_output: bool = True
    ) -> tuple[list[Hashable], list[tuple[int, Tensor]]]:
        """Stop tracking an object and forget its prompts; the stream goes on with the others.

        Args:
            inference_state: the clip.
            obj_id: which.
            strict: whether an unknown id is an error.
            need_output: whether to give logits.

        Returns:
            The ids that are left, and for each frame in which the object had a prompt, what is known of the others.

        Raises:
            MaskError: the id is unknown, and `strict`.
        """
        state = inference_state
        if obj_id not in state.numbers and not strict:
            return state.obj_ids, []
        frames = state.session.remove(state.number_of(obj_id))
        del state.numbers[obj_id]
        wanted = frames if need_output and state.numbers else []
        return state.obj_ids, [(frame, _logits(state, state.session.known(frame))) for frame in wanted]

    def clear_all_prompts_in_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, need_output: bool = True
    ) -> Output | None:
        """Take back an object's mask or points of a frame; the object stays.

        Args:
            inference_state: the clip.
            frame_idx: from 0.
            obj_id: which.
            need_output: whether to give what is known of the frame then.

        Raises:
            MaskError: the id is unknown.
        """
        state = inference_state
        state.session.take_back(frame_idx, state.number_of(obj_id))
        return (frame_idx, state.obj_ids, _logits(state, state.session.known(frame_idx))) if need_output else None

    def reset_state(self, inference_state: InferenceState) -> None:
        """Forget all objects and prompts; the clip stays open."""
        inference_state.session.clear()
        inference_state.numbers.clear()


def _number_for(state: InferenceState, obj_id: Hashable) -> int:
    """An object's id in the session, a new one for a new name."""
    return state.numbers.get(obj_id) or 1 + max(state.numbers.values(), default=0)


def _labelled(
    points: _Numbers | None, labels: _Numbers | None, size: tuple[int, int]
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Points of the object, and points that are not, times a size `(W, H)`.

    Raises:
        MaskError: one of the two is missing, or they do not fit each other.
    """
    if (points is None) != (labels is None):
        raise MaskError("points, labels: expected both, or a box alone, got one of the two; give a label to each point")
    if points is None or labels is None:
        return [], []
    places, kinds = _array("points", points), _array("labels", labels)
    if places.size % 2 or places.ndim > 3 or (places.size and places.shape[-1] != 2) or kinds.size * 2 != places.size:
        raise MaskError(
            f"points, labels: expected [P, 2] and [P], got {list(places.shape)} and {list(kinds.shape)}; give x and y "
            "of each point, and a label"
        )
    if wrong := [kind for kind in kinds.flatten().tolist() if kind not in (0, 1)]:
        raise MaskError(f"labels: expected 1 (of the object) or 0 (not), got {wrong[0]:g}; a box goes to box=")
    pairs = [(float(x) * size[0], float(y) * size[1]) for x, y in places.reshape(-1, 2)]
    of_each = list(zip(pairs, kinds.flatten().tolist(), strict=True))
    return [pair for pair, kind in of_each if kind == 1], [pair for pair, kind in of_each if kind == 0]


def _corners(box: _Numbers, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, times a size `(W, H)`."""
    sides = _array("box", box)
    if sides.size != 4:
        raise MaskError(
            f"box: expected 4 numbers, got {list(sides.shape)}; give left, top, right and bottom of one box"
        )
    left, top, right, bottom = map(float, sides.flatten())
    return left * size[0], top * size[1], right * size[0], bottom * size[1]


def _array(name: str, given: _Numbers) -> NDArray[np.float64]:
    """Numbers as an array.

    Raises:
        MaskError: they are none.
    """
    try:
        return np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, np.float64)
    except (TypeError, ValueError) as error:
        raise MaskError(f"{name}: expected numbers, got {given!r}; give a list, an array or a tensor") from error


def _propagate(state: InferenceState, order: Iterable[int], reverse: bool) -> Iterator[Output]:
    for frame_idx in order:
        # All objects may have been removed since the last frame; and how long a video is, is known at its end.
        if not state.session.given_frames or not state.session.has(frame_idx):
            return
        yield frame_idx, state.obj_ids, _logits(state, state.session.segment(frame_idx, backwards=reverse))


def _logits(state: InferenceState, found: Segmentation | None) -> Tensor:
    """`[N, 1, H, W]` for all objects of the state, in their order."""
    shape = (len(state.numbers), 1, state.video_height, state.video_width)
    logits = torch.full(shape, NOTHING, device=state.session.predictor.device)
    if found is not None:
        places = {number: place for place, number in enumerate(state.numbers.values())}
        for number, one in zip(found.object_ids, mask_logits(found.probabilities), strict=True):
            logits[places[number], 0] = one
    return logits
