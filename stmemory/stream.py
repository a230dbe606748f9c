"""`VOSStream`: one video on its way through the network, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from stmemory.errors import BankError, FrameError, MaskError, WeightsError
from stmemory.io.frames import WorkingSize, check_unmoved, fit, size_of_next, to_frame
from stmemory.io.masks import MAX_OBJECTS, ObjectMasks, soft_aggregate, to_object_masks, winners
from stmemory.memory.bank import MemoryBank
from stmemory.memory.discriminative import DiscriminativeMemory
from stmemory.memory.read import ReadCache
from stmemory.memory.slots import SlotInfo
from stmemory.memory.undo import Steps
from stmemory.networks.layers import FrameFeatures, keep_large_buffers
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.postprocess import GivenMasks, impose, keep_near, last_places, object_scores, segmentation_of
from stmemory.result import Segmentation
from stmemory.state import StreamState, save_state
from stmemory.window import Window, aim, is_cut

__all__ = ["VOSStream", "room_for_pin"]


def room_for_pin(bank: MemoryBank, row: int) -> bool:
    """Whether one more slot of a row may be pinned, so that two stay free; the oldest correction gives way, the first
    template never.

    >>> import torch
    >>> bank = MemoryBank(3)
    >>> bank.write(torch.rand(1, 2, 4), pinned=True)
    >>> room_for_pin(bank, 0)
    False
    """
    pins = [slot for slot in bank.describe(row) if slot.pinned]
    if len(pins) < max(1, bank.capacity - 2):
        return True
    if len(pins) > 1:
        bank.unpin(pins[1].slot, row=row)
    return len(pins) > 1


_Answer = TypeVar("_Answer")
_CHUNK = 4  # objects decoded or memorised at a time, so that many objects need no more working memory than these

_NOT_FINITE = "expected finite values from the network, got NaN or infinity; use dtype=torch.float32, or other weights"


class VOSStream:
    """One video: made by `VOSPredictor.start` or `VOSPredictor.resume`. The only thing that changes from frame to
    frame.

    What it holds does not grow with the video: the bank, a cache of its keys and values, the last frame at its working
    size and the last result. Objects added later add their rows; objects removed free them.

    Args:
        network: in eval mode; shared by all streams.
        options: how to track.
        state: what another stream remembered; None begins a new video.
    """

    def __init__(
        self, network: SegmentationNetwork, options: TrackingOptions, state: StreamState | None = None
    ) -> None:
        self.network, self.options = network, options
        self._state = StreamState(self._new_bank()) if state is None else state
        self._began = next(network.parameters()).new_empty(0)
        self._steps = Steps()
        keep_large_buffers()

    def __repr__(self) -> str:
        return f"VOSStream(frame {self.frame_index}, objects {self.object_ids}, {self.bank!r})"

    @property
    def bank(self) -> MemoryBank:
        """The memory; row n belongs to `object_ids[n]`. Look, but write through the stream."""
        return self._state.bank

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The ids being tracked, in the order of the rows."""
        return self._state.object_ids

    @property
    def frame_index(self) -> int:
        """Of the last frame, from 0; -1 before the first."""
        return self._state.frame_index

    @property
    def last(self) -> Segmentation:
        """The last frame's result.

        Raises:
            FrameError: there was none.
        """
        if self._state.last is None:
            raise FrameError("expected a stream that has seen a frame, got a new one; call step(frame, mask) first")
        return self._state.last

    @property
    def window(self) -> Window:
        """What the last frame was looked at through.

        Raises:
            FrameError: there was none.
        """
        if self._state.window is None:
            raise FrameError("expected a stream that has seen a frame, got a new one; call step(frame, mask) first")
        return self._state.window

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept from one frame to the next; constant from the second frame on, while the objects
        are the same.

        After the first frame it is a little less: nothing was read yet, so the cache of what is read is empty."""
        return self._state.nbytes

    def save(self, path: str | Path) -> None:
        """Write all that is remembered to a file that `VOSPredictor.resume` reads; the masks go on bit for bit.

        Raises:
            FrameError: the stream has not seen a frame yet.
        """
        save_state(self._state, path, network=self.network, options=self.options)

    def describe(self) -> dict[int, list[SlotInfo]]:
        """For each object, what its slots hold, oldest first."""
        return {object_id: self.bank.describe(row) for row, object_id in enumerate(self.object_ids)}

    @torch.inference_mode()
    def step(self, frame: object, mask: object = None, *, write: bool = True) -> Segmentation:
        """Segment the next frame and memorise it: a step happens, or after any error, an interrupt among them, it did
        not.

        Args:
            frame: the next frame, of any kind that `to_frame` takes, of the same size as those before.
            mask: what is known of this frame, of any kind that `to_object_masks` takes. New ids are objects that enter
                here; known ids are corrected. 0 says nothing about objects that the mask does not name. Given objects
                come back as they were given, and their templates are pinned: of an object the first, and the last of
                the others up to `memory_size - 2` in all.
            write: whether to memorise; False only looks, and takes no new objects.

        Returns:
            The objects at the frame's own size.

        Raises:
            FrameError: the frame cannot be used, or its size changed.
            ShapeError: the frame is of another kind or shape.
            MaskError: the mask cannot be used, or has new ids although `write` is false.
            WeightsError: the network gave NaN or infinity.
            OptionError: the network was moved or cast since the stream began. After any of these the stream is as it
                was before.
        """
        return self._whole(lambda: self._step(frame, mask, write=write))

    def _step(self, frame: object, mask: object, *, write: bool) -> Segmentation:
        image = to_frame(frame)
        size = self._size(image)
        masks = self._masks(mask, size)
        if not write and not set(masks.object_ids) <= set(self.object_ids):
            known = f"only ids of {self.object_ids} with write=False"
            raise MaskError(f"step: expected {known}, got {masks.object_ids}; new objects must be memorised")
        window = self._look(masks, size)
        pixels, given = self._show(image, size, window), GivenMasks.of(masks, size, window)
        features = self.network.encode_query(pixels)
        found, winner = self._believe(
            soft_aggregate(self._segment(features)), size, window
        )  # [1 + N, H', W'], [H', W']
        self._state.size, self._state.pixels = size, pixels
        self._state.frame_index += 1
        result, winner = self._conclude(found, window.put_back(found, size), given, winner)
        if write:
            self._memorise(features, given, winner)
        return result

    @torch.inference_mode()
    def correct(self, mask: object = None, *, absent: Iterable[int] = ()) -> Segmentation:
        """Replace what was found in the last frame, and memorise the correction, pinned.

        Args:
            mask: as in `step`; ids that are new enter in the last frame. None where only `absent` is to be said.
            absent: ids of objects that are not in the last frame. Their pixels go to the background or another object,
                and what was memorised of them in this frame is forgotten; older templates stay, and the objects are
                looked for in the frames to come, wherever they may be.

        Returns:
            The last frame's result, corrected.

        Raises:
            FrameError: there was no frame yet.
            MaskError: the mask cannot be used, or nothing was said; or an absent object is not tracked, is in the mask
                too, or is known from this frame alone.
            WeightsError: the network gave NaN or infinity. After any error the stream is as it was before.
        """
        return self._whole(lambda: self._correct(mask, absent))

    def _correct(self, mask: object, absent: Iterable[int]) -> Segmentation:
        _, size, _ = self._state.last_frame()
        masks = self._masks(mask, size)
        gone = self._absent(absent, masks.object_ids)
        if not masks.object_ids and not gone:
            raise MaskError(
                "correct: expected a mask with at least one object, or absent=[...] with ids, got neither; mark an "
                "object with its id, "
                "or name those that are not in the frame"
            )
        if self._state.window is not None and not self._state.window.covers(masks.probabilities):
            self._state.pixels = self._state.overview
            self._turn(Window.whole(size), size)
        pixels, size, last = self._state.last_frame()
        self._state.cut = self._state.cut or is_cut(masks.probabilities)
        given = GivenMasks.of(masks, size, self._state.window or Window.whole(size))
        found, full = (_without(p, [1 + row for row in gone]) for p in (last, self.last.probabilities))
        result, winner = self._conclude(found, full, given)
        if gone and self._state.places is not None:
            self._state.places[gone] = False
        self._state.sums.forget(self.frame_index, rows=gone)
        for row in [*gone, *(self.object_ids.index(i) for i in given.object_ids)]:
            for slot in self._state.bank.describe(row) if row < self._state.bank.rows else ():
                if slot.frame == self.frame_index:
                    self._state.bank.drop(slot.slot, row=row)
        if given.object_ids:
            self._memorise(self.network.encode_query(pixels), given, winner, only_given=True)
        return result

    def add_objects(self, mask: object) -> Segmentation:
        """Track more objects from the last frame on.

        Args:
            mask: of the last frame, as in `step`, with ids that are not tracked yet.

        Returns:
            The last frame's result with the new objects in it.

        Raises:
            FrameError: there was no frame yet.
            MaskError: the mask cannot be used, has no object, or names one that is tracked already.
        """
        _, size, _ = self._state.last_frame()
        if known := sorted(set(self._masks(mask, size).object_ids) & set(self.object_ids)):
            raise MaskError(
                f"add_objects: expected new ids, got {known}, which are tracked already; use correct() for those"
            )
        return self.correct(mask)

    @torch.inference_mode()
    def remove_objects(self, object_ids: Iterable[int]) -> None:
        """Stop tracking objects and free their memory; in `last` their pixels go to the background or another object.

        Raises:
            MaskError: an id is not tracked.
        """
        try:
            gone = set(object_ids)
        except TypeError as error:
            raise MaskError(f"remove_objects: expected several ids, such as [5], got {object_ids!r}") from error
        if not gone <= set(self.object_ids):
            raise MaskError(
                f"remove_objects: expected ids of {self.object_ids}, got {sorted(gone - set(self.object_ids))}"
            )
        if not gone:
            return
        self._whole(lambda: self._remove(gone))

    def _remove(self, gone: set[int]) -> None:
        rows = [row for row, object_id in enumerate(self.object_ids) if object_id not in gone]
        if rows:
            out = [row for row in range(len(self.object_ids)) if row not in rows]
            self._state.bank.remove_rows(out)
            if self._state.sums.rows:
                self._state.sums.remove_rows(out)
        else:
            self._state.bank, self._state.sums = self._new_bank(), DiscriminativeMemory()
        self._state.cache = ReadCache()
        self._state.object_ids = tuple(self.object_ids[row] for row in rows)
        if self._state.probabilities is not None and self._state.places is not None:
            maps = [0, *(1 + row for row in rows)]
            self._state.probabilities, self._state.places = self._state.probabilities[maps], self._state.places[rows]
            full = self.last.probabilities[maps]
            for kept in (self._state.probabilities, full):
                kept[0] = (1 - kept[1:].sum(0)).clamp_min(0)
            self._report(full)

    def _whole(self, work: Callable[[], _Answer]) -> _Answer:
        """Do something; what it changed is put back where it ends in an error: out of memory, an interrupt, or any
        other."""
        check_unmoved(self.network, self._began)
        state, before = self._state, {**vars(self._state), "sums": self._state.sums.shared()}
        return self._steps.take(work, (state.bank, state.cache), lambda: vars(state).update(before))

    def _new_bank(self) -> MemoryBank:
        return self.network.new_bank(self.options.memory_size, policy=self.options.policy)

    def _size(self, image: Tensor) -> WorkingSize:
        """The working size of the video whose next frame this is, `[3, H, W]`."""
        options, index, stride = self.options, self.frame_index + 1, self.network.stride
        enlarge = options.factor(image.shape[1], image.shape[2])
        return size_of_next(
            image, self._state.size, index=index, short_side=options.short_side, stride=stride, enlarge=enlarge
        )

    def _look(self, masks: ObjectMasks, size: WorkingSize) -> Window:
        """Turn to the window for the next frame: around the objects, while all of them are seen."""
        last, before = self._state.last, self._state.window
        self._state.cut = self._state.cut or is_cut(masks.probabilities)
        given = masks.probabilities.gt(0.5).any(0)
        seen = given if last is None else (last.ids > 0) | given
        all_seen = last is None or all(last.present.values())
        window = (
            aim(seen, size, before, zoom=self.options.zoom) if all_seen and not self._state.cut else Window.whole(size)
        )
        self._turn(window, size)
        return window

    def _turn(self, window: Window, size: WorkingSize) -> None:
        """Have what was found in the last frame as the window has it."""
        before, last = self._state.window, self._state.last
        if before is not None and before != window and last is not None:
            self._state.probabilities = window.see(last.probabilities, size)
            if self._state.places is not None:
                self._state.places = before.turn(self._state.places, window, size)
        self._state.window = window

    def _show(self, image: Tensor, size: WorkingSize, window: Window) -> Tensor:
        """A frame through a window, `[1, 3, H', W']`; keeps all of it too, for corrections outside."""
        like = next(self.network.parameters())
        image = image.to(like.device)
        if self.options.zoom > 1:
            self._state.overview = fit(image, size)[None].to(like.dtype)
        return window.see(image, size)[None].to(like.dtype)

    def _masks(self, mask: object, size: WorkingSize) -> ObjectMasks:
        """What the user says about a frame; checks that the objects fit in."""
        device = next(self.network.parameters()).device
        if mask is None:
            nothing = torch.zeros(0, size.frame_height, size.frame_width, device=device)
            return ObjectMasks((), nothing, torch.zeros(nothing.shape[1:], dtype=torch.bool, device=device))
        masks = to_object_masks(
            mask, height=size.frame_height, width=size.frame_width, allow_empty=self.frame_index >= 0
        )
        if (number := len(set(masks.object_ids) | set(self.object_ids))) > MAX_OBJECTS:
            raise MaskError(
                f"mask: expected at most {MAX_OBJECTS} objects in all, got {number}; remove_objects() first"
            )
        return ObjectMasks(masks.object_ids, masks.probabilities.to(device), masks.void.to(device))

    def _absent(self, absent: Iterable[int], given: tuple[int, ...]) -> list[int]:
        """The rows of objects that are said to be absent from the last frame; checks that each is known from another
        one."""
        if isinstance(absent, (str, bytes)) or not isinstance(absent, Iterable):
            raise MaskError(f"absent: expected several ids, got {absent!r}; one id is a list of one")
        named = list(absent)
        if unknown := [i for i in named if i not in self.object_ids]:
            raise MaskError(
                f"absent: expected ids of {self.object_ids}, got {unknown}; only an object that is tracked can be "
                "absent"
            )
        ids = sorted({int(i) for i in named})
        if both := [i for i in ids if i in given]:
            raise MaskError(f"absent: {both} are in the mask and in absent; say one of the two of an object")
        rows = [self.object_ids.index(i) for i in ids]
        for object_id, row in zip(ids, rows, strict=True):
            slots = self._state.bank.describe(row) if row < self._state.bank.rows else ()
            if slots and all(slot.frame == self.frame_index for slot in slots):
                raise MaskError(
                    f"absent: all that is known of object {object_id} is from this frame; use "
                    f"remove_objects([{object_id}])"
                )
        return rows

    def _admit(self, given: GivenMasks) -> None:
        """Give new ids rows of their own."""
        new = tuple(i for i in given.object_ids if i not in self.object_ids)
        if new and self._state.bank.rows:
            self._state.bank.add_rows(len(new))
            if self._state.sums.rows:
                self._state.sums.add_rows(len(new))
        self._state.object_ids += new

    def _segment(self, features: FrameFeatures) -> Tensor:
        """Each object's own probability `[N, H', W']`: read the memory and decode."""
        video = torch.zeros(len(self.object_ids), dtype=torch.int64, device=features.key.device)
        if not len(video):
            return torch.zeros(0, *features.frame.shape[2:], dtype=torch.float32, device=features.key.device)
        recalled = self.network.recall(features, self._state.bank, video, self._state.cache)
        _, _, probabilities = self._state.last_frame()
        masks = probabilities[1:]  # [N, H', W'], of the last frame
        last = masks, (masks.sum(0) - masks).clamp(0, 1)
        cues = self.network.cues(features, self._state.sums, last, video) if features.can_discriminate else None
        parts = [slice(start, start + _CHUNK) for start in range(0, len(video), _CHUNK)]
        decoded = (
            self.network.decode(recalled[p], features, video[p], None if cues is None else cues[p]) for p in parts
        )
        found = torch.cat([logits.float().sigmoid() for logits in decoded])
        if not bool(found.sum().isfinite()):  # between 0 and 1, or NaN
            raise WeightsError(_NOT_FINITE)
        return found

    def _believe(self, found: Tensor, size: WorkingSize, window: Window) -> tuple[Tensor, Tensor]:
        """What was found, `[1 + N, H', W']`, without false positives far away, and who wins each pixel `[H', W']`."""
        winner = winners(found)
        if self._state.places is None or self.options.reach is None:
            return found, winner
        share = self.options.reach * size.frame_height / window.height
        reach = round(min(share * min(size.height, size.width), size.height + size.width))
        near = keep_near(found, self._state.places, reach=reach, winner=winner)
        return near, winner if near is found else winners(near)

    def _conclude(
        self, found: Tensor, full: Tensor, given: GivenMasks, winner: Tensor | None = None
    ) -> tuple[Segmentation, Tensor]:
        """From what was found, `[1 + N, H', W']` and `[1 + N, H, W]`, and what is given, to the result; keeps both.

        Takes who wins each pixel of `found`, where that is known; gives who does in the end too, `[H', W']`."""
        self._admit(given)
        rows = [self.object_ids.index(i) for i in given.object_ids]
        if new := 1 + len(self.object_ids) - len(found):
            found, full = (torch.cat([p, p.new_zeros(new, *p.shape[1:])]) for p in (found, full))
        self._state.probabilities = found = impose(found, given.working, given.working_void, rows)
        winner = winners(found) if winner is None or rows else winner
        self._state.places = last_places(found, self._state.places, winner=winner)
        return self._report(impose(full, given.full, given.full_void, rows)), winner

    def _report(self, full: Tensor) -> Segmentation:
        """The result of probabilities `[1 + N, H, W]`; keeps it."""
        self._state.last = segmentation_of(full, self.object_ids, frame_index=self.frame_index)
        return self._state.last

    def _memorise(
        self, features: FrameFeatures, given: GivenMasks, winner: Tensor, *, only_given: bool = False
    ) -> None:
        """Write the last frame's templates of objects that were given (pinned), and of those that are seen well
        enough."""
        _, _, probabilities = self._state.last_frame()
        known = [row for row, object_id in enumerate(self.object_ids) if object_id in given.object_ids]
        scores, area = object_scores(probabilities, winner)
        seen = (area > 0) & (scores >= self.options.write_gate)
        *good, finite = torch.cat([seen, _finite(features)[None]]).tolist()  # one look at the device for both
        if not finite:
            raise WeightsError(_NOT_FINITE)
        found = [] if only_given else [row for row, fine in enumerate(good) if fine and row not in known]
        everything = probabilities[1:].sum(0)
        for rows, is_given in ((known, True), (found, False)):
            for start in range(0, len(rows), _CHUNK):
                part = rows[start : start + _CHUNK]
                mask = probabilities[[1 + row for row in part]].to(features.key.dtype)
                others = (everything - mask).clamp(0, 1).to(features.key.dtype)
                video = torch.zeros(len(part), dtype=torch.int64, device=mask.device)
                self._write(self.network.encode_memory(features, mask, others, video), part, is_given)
                if is_given or self.frame_index % self.options.memory_every == 0:
                    self._learn(features, (mask, others), part, is_given)

    def _learn(self, features: FrameFeatures, masks: tuple[Tensor, Tensor], rows: list[int], is_given: bool) -> None:
        """Add what the frame says of objects, `mask` and `others` `[R, H', W']`, to the sums of the discriminative
        read."""
        sums, first = self._state.sums, not self._state.sums.rows
        video = torch.zeros(len(rows), dtype=torch.int64, device=masks[0].device)
        self.network.learn(
            sums, features, *masks, video, rows=None if first else rows, frame=self.frame_index, given=is_given
        )
        if first and sums.rows:
            sums.add_rows(len(self.object_ids) - sums.rows)

    def _write(self, template: Tensor, rows: list[int], is_given: bool) -> None:
        """Store templates; given ones are pinned, as far as that leaves two slots free."""
        bank, number = self._state.bank, self.frame_index
        if not bank.rows:  # the first template makes the bank, for the first of the objects
            _store(bank, template, frame=number, pinned=is_given)
            bank.add_rows(len(self.object_ids) - bank.rows)
            return
        pinned = [is_given and room_for_pin(bank, row) for row in rows]
        provisional = not is_given and number % self.options.memory_every != 0
        for pin in sorted(set(pinned)):
            part = [n for n in range(len(rows)) if pinned[n] == pin]
            at = [rows[n] for n in part]
            _store(bank, template[part], at, frame=number, pinned=pin, provisional=provisional)


def _store(
    bank: MemoryBank,
    template: Tensor,
    rows: list[int] | None = None,
    *,
    frame: int,
    pinned: bool,
    provisional: bool = False,
) -> None:
    """Write to a bank; a template that is not finite is the network's."""
    try:
        bank.write(template, rows=rows, frame=frame, pinned=pinned, provisional=provisional)
    except BankError as error:
        if bool(template.isfinite().all()):
            raise
        raise WeightsError(f"{_NOT_FINITE} ({error})") from error


def _finite(features: FrameFeatures) -> Tensor:
    """Whether the sums of the discriminative read stay finite with a frame's features in them, bool `[]`; nothing waits
    for it here."""
    if features.appearance is None:
        return torch.ones((), dtype=torch.bool, device=features.key.device)
    return features.appearance.float().square().sum().isfinite()  # no product of two is larger


def _without(probabilities: Tensor, maps: list[int]) -> Tensor:
    """Probabilities `[1 + N, H, W]` in which those objects' maps are 0, and the background has what they had."""
    if not maps:
        return probabilities
    result = probabilities.clone()
    result[maps] = 0.0
    result[0] = (1 - result[1:].sum(0)).clamp_min(0)
    return result
