"""`VOSStream`: one video on its way through the network, frame by frame."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from stmemory.errors import BankError, FrameError, MaskError, OptionError, WeightsError
from stmemory.io.frames import WorkingSize, check_unmoved, fit, size_of_next, to_frame
from stmemory.io.masks import MAX_OBJECTS, ObjectMasks, to_object_masks
from stmemory.memory.bank import MemoryBank
from stmemory.memory.discriminative import DiscriminativeMemory
from stmemory.memory.read import ReadCache
from stmemory.memory.slots import SlotInfo
from stmemory.memory.undo import Steps
from stmemory.networks.layers import FrameFeatures, keep_large_buffers
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.postprocess import (
    GivenMasks,
    Labels,
    impose,
    keep_near,
    last_places,
    segmentation_of,
    soft_aggregate,
    winners,
)
from stmemory.result import Segmentation
from stmemory.state import StreamState, save_state
from stmemory.types import FrameLike, MaskLike
from stmemory.window import Window, aim, is_cut

__all__ = ["VOSStream"]

_Answer = TypeVar("_Answer")
_CHUNK = 4  # objects decoded or memorised at a time, so that many objects need no more working memory than these

_NOT_FINITE = "expected finite values from the network, got NaN or infinity; use dtype=torch.float32, or other weights"


class VOSStream:
    """One video on its way, made by `VOSPredictor.start` or `VOSPredictor.resume`; network and options are shared and
    never change.

    What it holds does not grow with the video: the bank, a cache of its keys and values, the sums of the discriminative
    read, the window, and of the last frame the image, the places of the objects and the result. Objects added later add
    their rows; objects removed free them.

    Args:
        network: in eval mode; shared by all streams, and left as it is.
        options: how to track.
        state: what another stream remembered; None begins a new video.

    Raises:
        OptionError: the network is in training mode.
    """

    def __init__(
        self, network: SegmentationNetwork, options: TrackingOptions, state: StreamState | None = None
    ) -> None:
        _check_eval(network)
        self.network, self.options = _reading_from(network, options.top_k), options
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
        """The window of the last frame.

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
    def step(self, frame: FrameLike, mask: MaskLike | None = None, *, write: bool = True) -> Segmentation:
        """Segment the next frame and memorise it. Atomic: after any error, KeyboardInterrupt among them, the stream is
        as it was before.

        Args:
            frame: the next frame, of any kind that `to_frame` takes, of the same size as those before.
            mask: what is known of this frame, of any kind that `to_object_masks` takes. New ids are objects that enter
                here; known ids are corrected. 0 says nothing about objects that the mask does not name. Given objects
                come back as they were given. Each object keeps its first given template pinned, and the most recent
                corrections: at most `memory_size - 2` pinned slots in all.
            write: whether to memorise; False only looks, and takes no new objects.

        Returns:
            The objects at the frame's own size.

        Raises:
            FrameError: the frame cannot be used, or its size changed.
            ShapeError: the frame is of another kind or shape.
            MaskError: the mask cannot be used, or has new ids although `write` is false.
            WeightsError: the network gave NaN or infinity.
            OptionError: the network was moved, cast or put into training mode since the stream began. After any of
                these the stream is as it was before.
        """
        return self._atomically(lambda: self._step(frame, mask, write=write))

    def _step(self, frame: FrameLike, mask: MaskLike | None, *, write: bool) -> Segmentation:
        image = to_frame(frame)  # [3, H, W]
        size = self._working_size(image)
        masks = self._object_masks(mask, size)
        if not write and not set(masks.object_ids) <= set(self.object_ids):
            known = f"only ids of {self.object_ids} with write=False"
            raise MaskError(f"step: expected {known}, got {masks.object_ids}; new objects must be memorised")
        window = self._aim(masks, size)
        pixels = self._fit(image, size, window)  # [1, 3, H', W']
        features = self.network.encode_query(pixels)  # key [1, Ck, h, w], skips
        recalled, cues = self._read(features)  # [N, Cv, h, w]
        found = self._decode(recalled, cues, features)  # [N, H', W'], each object's own probability
        probabilities = soft_aggregate(found)  # [1 + N, H', W']
        labels = self._label(probabilities, size, window)
        self._state.size, self._state.pixels = size, pixels
        self._state.frame_index += 1
        given = GivenMasks.of(masks, size, window)
        labels, result = self._conclude(labels, window.put_back(labels.probabilities, size), given)
        if write:
            self._memorise(features, labels, given)
        return result

    @torch.inference_mode()
    def correct(self, mask: MaskLike | None = None, *, absent: Iterable[int] = ()) -> Segmentation:
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
        return self._atomically(lambda: self._correct(mask, absent))

    def _correct(self, mask: MaskLike | None, absent: Iterable[int]) -> Segmentation:
        _, size, _ = self._state.last_frame()
        masks = self._object_masks(mask, size)
        gone = self._rows_of_absent(absent, masks.object_ids)
        if not masks.object_ids and not gone:
            raise MaskError(
                "correct: expected a mask with at least one object, or absent=[...] with ids, got neither; mark an "
                "object with its id, or name those that are not in the frame"
            )
        if self._state.window is not None and not self._state.window.covers(masks.probabilities):
            self._state.pixels = self._state.overview
            self._turn(Window.whole(size), size)
        pixels, size, last = self._state.last_frame()
        self._state.cut = self._state.cut or is_cut(masks.probabilities)
        given = GivenMasks.of(masks, size, self._state.window or Window.whole(size))
        found, full = (_without(p, [1 + row for row in gone]) for p in (last, self.last.probabilities))
        labels, result = self._conclude(Labels.of(found), full, given)
        if gone and self._state.places is not None:
            self._state.places[gone] = False
        self._state.sums.forget(self.frame_index, rows=gone)
        for row in [*gone, *(self.object_ids.index(i) for i in given.object_ids)]:
            for slot in self._state.bank.describe(row) if row < self._state.bank.rows else ():
                if slot.frame == self.frame_index:
                    self._state.bank.drop(slot.slot, row=row)
        if given.object_ids:
            self._memorise(self.network.encode_query(pixels), labels, given, only_given=True)
        return result

    def add_objects(self, mask: MaskLike) -> Segmentation:
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
        if known := sorted(set(self._object_masks(mask, size).object_ids) & set(self.object_ids)):
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
        self._atomically(lambda: self._remove(gone))

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

    def _atomically(self, work: Callable[[], _Answer]) -> _Answer:
        """Do something; what it changed is put back where it ends in an error: out of memory, an interrupt, or any
        other."""
        check_unmoved(self.network, self._began)
        _check_eval(self.network)
        state, before = self._state, {**vars(self._state), "sums": self._state.sums.shared()}
        return self._steps.take(work, (state.bank, state.cache), lambda: vars(state).update(before))

    def _new_bank(self) -> MemoryBank:
        return self.network.new_bank(self.options.memory_size, policy=self.options.policy)

    def _working_size(self, image: Tensor) -> WorkingSize:
        """The working size of the video whose next frame this is, `[3, H, W]`."""
        options, index, stride = self.options, self.frame_index + 1, self.network.stride
        enlarge = options.factor(image.shape[1], image.shape[2])
        return size_of_next(
            image, self._state.size, index=index, short_side=options.short_side, stride=stride, enlarge=enlarge
        )

    def _aim(self, masks: ObjectMasks, size: WorkingSize) -> Window:
        """Turn to the window for the next frame: around the objects, while all of them are seen."""
        last, before = self._state.last, self._state.window
        self._state.cut = self._state.cut or is_cut(masks.probabilities)
        given = masks.probabilities.gt(0.5).any(0)
        seen = given if last is None else (last.ids > 0) | given
        all_seen = last is None or all(last.present.values())
        window = Window.whole(size)
        if all_seen and not self._state.cut:
            window = aim(seen, size, before, zoom=self.options.zoom)
        self._turn(window, size)
        return window

    def _turn(self, window: Window, size: WorkingSize) -> None:
        """Bring what was found in the last frame to the window."""
        before, last = self._state.window, self._state.last
        if before is not None and before != window and last is not None:
            self._state.probabilities = window.see(last.probabilities, size)
            if self._state.places is not None:
                self._state.places = before.turn(self._state.places, window, size)
        self._state.window = window

    def _fit(self, image: Tensor, size: WorkingSize, window: Window) -> Tensor:
        """A frame through a window, `[1, 3, H', W']`; keeps all of it too, for corrections outside."""
        like = next(self.network.parameters())
        image = image.to(like.device)
        if self.options.zoom > 1:
            self._state.overview = fit(image, size)[None].to(like.dtype)
        return window.see(image, size)[None].to(like.dtype)

    def _object_masks(self, mask: MaskLike | None, size: WorkingSize) -> ObjectMasks:
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

    def _rows_of_absent(self, absent: Iterable[int], given: tuple[int, ...]) -> list[int]:
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

    def _read(self, features: FrameFeatures) -> tuple[Tensor, Tensor | None]:
        """Read the memory: what the bank holds for each cell, `[N, Cv, h, w]`, and the cues of the discriminative read,
        `[N, 5, H'/8, W'/8]`, or None without it."""
        if not self.object_ids:
            return features.key.new_zeros(0, self.network.config.value_channels, *features.key.shape[2:]), None
        video = _rows_of_one_video(len(self.object_ids), features)
        recalled = self.network.recall(features, self._state.bank, video, self._state.cache)
        if not features.can_discriminate:
            return recalled, None
        _, _, probabilities = self._state.last_frame()
        masks = probabilities[1:]  # [N, H', W'], of the last frame
        last = masks, (masks.sum(0) - masks).clamp(0, 1)
        return recalled, self.network.cues(features, self._state.sums, last, video)

    def _decode(self, recalled: Tensor, cues: Tensor | None, features: FrameFeatures) -> Tensor:
        """Each object's own probability, float32 `[N, H', W']`."""
        if not len(recalled):
            return torch.zeros(0, *features.frame.shape[2:], dtype=torch.float32, device=features.key.device)
        video = _rows_of_one_video(len(recalled), features)
        parts = [slice(start, start + _CHUNK) for start in range(0, len(recalled), _CHUNK)]
        decoded = (
            self.network.decode(recalled[p], features, video[p], None if cues is None else cues[p]) for p in parts
        )
        found = torch.cat([logits.float().sigmoid() for logits in decoded])
        if not bool(found.sum().isfinite()):  # between 0 and 1, or NaN
            raise WeightsError(_NOT_FINITE)
        return found

    def _label(self, probabilities: Tensor, size: WorkingSize, window: Window) -> Labels:
        """Label the pixels of `[1 + N, H', W']`, without false positives far away."""
        winner = winners(probabilities)
        if self._state.places is not None and self.options.reach is not None:
            share = self.options.reach * size.frame_height / window.height
            reach = round(min(share * min(size.height, size.width), size.height + size.width))
            probabilities, winner = keep_near(probabilities, winner, self._state.places, reach=reach)
        return Labels.of(probabilities, winner)

    def _conclude(self, labels: Labels, full: Tensor, given: GivenMasks) -> tuple[Labels, Segmentation]:
        """Put given masks in place of what was found, `labels` at the working size and `full` `[1 + N, H, W]`; keep
        what comes of it."""
        self._admit(given)
        if rows := [self.object_ids.index(i) for i in given.object_ids]:
            found, full = (_with_maps(p, 1 + len(self.object_ids)) for p in (labels.probabilities, full))
            labels = Labels.of(impose(found, given.working, given.working_void, rows))
            full = impose(full, given.full, given.full_void, rows)
        self._state.probabilities = labels.probabilities
        self._state.places = last_places(labels.masks, self._state.places)
        return labels, self._report(full)

    def _report(self, full: Tensor) -> Segmentation:
        """The result of probabilities `[1 + N, H, W]`; keeps it."""
        self._state.last = segmentation_of(Labels.of(full), self.object_ids, frame_index=self.frame_index)
        return self._state.last

    def _memorise(
        self, features: FrameFeatures, labels: Labels, given: GivenMasks, *, only_given: bool = False
    ) -> None:
        """Write the last frame's templates of objects that were given (pinned), and of those that are seen well
        enough."""
        known = [row for row, object_id in enumerate(self.object_ids) if object_id in given.object_ids]
        seen = (labels.areas > 0) & (labels.scores >= self.options.write_gate)
        *good, finite = torch.cat([seen, _finite(features)[None]]).tolist()  # one look at the device for both
        if not finite:
            raise WeightsError(_NOT_FINITE)
        found = [] if only_given else [row for row, fine in enumerate(good) if fine and row not in known]
        everything = labels.probabilities[1:].sum(0)
        for rows, is_given in ((known, True), (found, False)):
            for start in range(0, len(rows), _CHUNK):
                part = rows[start : start + _CHUNK]
                mask = labels.probabilities[[1 + row for row in part]].to(features.key.dtype)
                others = (everything - mask).clamp(0, 1).to(features.key.dtype)
                video = _rows_of_one_video(len(part), features)
                self._write(self.network.encode_memory(features, mask, others, video), part, is_given)
                if is_given or self.frame_index % self.options.memory_every == 0:
                    self._learn(features, (mask, others), part, is_given)

    def _learn(self, features: FrameFeatures, masks: tuple[Tensor, Tensor], rows: list[int], is_given: bool) -> None:
        """Add what the frame says of objects, `mask` and `others` `[R, H', W']`, to the sums of the discriminative
        read."""
        sums, first = self._state.sums, not self._state.sums.rows
        video = _rows_of_one_video(len(rows), features)
        self.network.learn(
            sums, features, *masks, video, rows=None if first else rows, frame=self.frame_index, given=is_given
        )
        if first and sums.rows:
            sums.add_rows(len(self.object_ids) - sums.rows)

    def _write(self, template: Tensor, rows: list[int], is_given: bool) -> None:
        """Store templates; given ones are pinned, as far as that leaves two slots free."""
        bank, number = self._state.bank, self.frame_index
        if not bank.rows:  # the first write makes rows for these objects, add_rows those of the others
            _store(bank, template, frame=number, pinned=is_given)
            bank.add_rows(len(self.object_ids) - bank.rows)
            return
        for row in rows if is_given else ():
            if not _has_room_for_pin(bank, row):
                _unpin_oldest_correction(bank, row)
        pinned = [is_given and _has_room_for_pin(bank, row) for row in rows]
        provisional = not is_given and number % self.options.memory_every != 0
        for pin in sorted(set(pinned)):
            part = [n for n in range(len(rows)) if pinned[n] == pin]
            at = [rows[n] for n in part]
            _store(bank, template[part], at, frame=number, pinned=pin, provisional=provisional)


def _has_room_for_pin(bank: MemoryBank, row: int) -> bool:
    """Whether one more slot of a row may be pinned: two stay free, but the first template is pinned in any bank."""
    return sum(slot.pinned for slot in bank.describe(row)) < max(1, bank.capacity - 2)


def _unpin_oldest_correction(bank: MemoryBank, row: int) -> None:
    """Unpin the second pinned slot of a row, where there is one; the first template stays pinned."""
    pins = [slot for slot in bank.describe(row) if slot.pinned]
    if len(pins) > 1:
        bank.unpin(pins[1].slot, row=row)


def _store(
    bank: MemoryBank,
    template: Tensor,
    rows: list[int] | None = None,
    *,
    frame: int,
    pinned: bool,
    provisional: bool = False,
) -> None:
    """Write to a bank; a template that is not finite is reported as an error of the weights."""
    try:
        bank.write(template, rows=rows, frame=frame, pinned=pinned, provisional=provisional)
    except BankError as error:
        if bool(template.isfinite().all()):
            raise
        raise WeightsError(f"{_NOT_FINITE} ({error})") from error


def _check_eval(network: SegmentationNetwork) -> None:
    """Refuse a network of which a part is in training mode.

    Raises:
        OptionError: it is.
    """
    if network.training or any(part.training for part in network.children()):
        raise OptionError(
            "network: expected one in eval mode, got one in training mode, in which its results depend on the batch; "
            "call network.eval()"
        )


def _reading_from(network: SegmentationNetwork, top_k: int | None) -> SegmentationNetwork:
    """The network with another number of cells to read from: the same weights, and the argument left as it is."""
    if network.read.top_k == top_k:
        return network
    same = copy.copy(network)
    same._modules = dict(network._modules)
    same.read = copy.copy(network.read)
    same.read.top_k = top_k
    return same


def _rows_of_one_video(rows: int, features: FrameFeatures) -> Tensor:
    """Each row's frame among those of `features`, int64 `[rows]`: all 0, since a stream passes one frame."""
    return torch.zeros(rows, dtype=torch.int64, device=features.key.device)


def _finite(features: FrameFeatures) -> Tensor:
    """Whether the squared features of a frame sum to a finite value, bool `[]`, so that the sums of the discriminative
    read stay finite; a tensor, so that nothing waits for the device here."""
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


def _with_maps(probabilities: Tensor, count: int) -> Tensor:
    """Probabilities `[1 + N, H, W]` with maps of new objects, all 0, up to `count` maps."""
    new = count - len(probabilities)
    return torch.cat([probabilities, probabilities.new_zeros(new, *probabilities.shape[1:])]) if new else probabilities
