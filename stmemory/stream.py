"""`VOSStream`: one video on its way through the network, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from stmemory.errors import BankError, FrameError, MaskError, OptionError, WeightsError
from stmemory.io.frames import WorkingSize, check_unmoved, fit, resize, size_of_next, to_frame
from stmemory.io.masks import MAX_OBJECTS, ObjectMasks, to_object_masks
from stmemory.memory.bank import MemoryBank
from stmemory.memory.read import ReadCache
from stmemory.memory.slots import SlotInfo
from stmemory.memory.undo import Steps
from stmemory.networks.layers import keep_large_buffers
from stmemory.networks.tracking import Found, Template, TrackingNetwork
from stmemory.options import TrackingOptions
from stmemory.postprocess import (
    Boxes,
    GivenMasks,
    Labels,
    impose,
    impose_answers,
    keep_near,
    largest_logit,
    last_places,
    logits_at,
    segmentation_of,
    soft_aggregate_logits,
    winners,
)
from stmemory.prompts import Prompt, Prompter, PromptsLike, given_rows, inside, ready_prompts, with_prompted
from stmemory.result import Segmentation
from stmemory.state import StreamState, save_state
from stmemory.types import FrameLike, MaskLike
from stmemory.window import Window, aim, is_cut

__all__ = ["VOSStream"]

_Answer = TypeVar("_Answer")
_CHUNK = 4  # objects whose templates are made at a time, so that many objects need no more working memory than these
_SHARING = 16  # objects that are memorised beside the bank at a time, and may share what is computed of the frame

_NOT_FINITE = "expected finite values from the network, got NaN or infinity; use dtype=torch.float32, or other weights"


class VOSStream:
    """One video on its way, made by `VOSPredictor.start` or `VOSPredictor.resume`; network and options are shared and
    never change.

    What it holds does not grow with the video: the bank, a cache of its keys and values, what the network remembers
    beside the bank (`lite`: the sums of the discriminative read), the window, and of the last frame the image, the
    places of the objects and the result. Objects added later add their rows; objects removed free them.

    Args:
        network: in eval mode; shared by all streams, and left as it is.
        options: how to track.
        state: what another stream remembered; None begins a new video.
        prompter: makes masks of prompts for a network that takes masks alone; None refuses prompts there.

    Raises:
        OptionError: the network is in training mode, or cannot do what the options say.
    """

    def __init__(
        self,
        network: TrackingNetwork,
        options: TrackingOptions,
        state: StreamState | None = None,
        *,
        prompter: Prompter | None = None,
    ) -> None:
        _check_eval(network)
        self.options = options.of_network(network.tracking)
        self.network = network.with_top_k(self.options.top_k).with_margin(self.options.margin)
        self.prompter = prompter
        self._state = StreamState(self._new_bank(), network.new_beside()) if state is None else state
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
    def step(
        self,
        frame: FrameLike,
        mask: MaskLike | None = None,
        *,
        prompts: PromptsLike | None = None,
        write: bool = True,
    ) -> Segmentation:
        """Segment the next frame and memorise it. Atomic: after any error, KeyboardInterrupt among them, the stream is
        as it was before.

        Args:
            frame: the next frame, of any kind that `to_frame` takes, of the same size as those before.
            mask: what is known of this frame, of any kind that `to_object_masks` takes. New ids are objects that enter
                here; known ids are corrected. 0 says nothing about objects that the mask does not name. Given objects
                come back as they were given. Each object keeps its first given template pinned, and the most recent
                corrections: at most `memory_size - 2` pinned slots in all.
            prompts: the same by points and boxes, of objects that the mask does not name: one `Prompt` or several.
            write: whether to memorise; False only looks, and takes no new objects.

        Returns:
            The objects at the frame's own size.

        Raises:
            FrameError: the frame cannot be used, or its size changed.
            ShapeError: the frame is of another kind or shape.
            MaskError: the mask or a prompt cannot be used, both name an object, or there are new ids although `write`
                is false.
            WeightsError: the network gave NaN or infinity.
            OptionError: there are prompts, and neither the network nor a prompter takes them; or the network was moved,
                cast or put into training mode since the stream began. After any of these the stream is as it was
                before.
        """
        return self._atomically(lambda: self._step(frame, mask, prompts, write=write))

    def _step(
        self, frame: FrameLike, mask: MaskLike | None, prompts: PromptsLike | None, *, write: bool
    ) -> Segmentation:
        image = to_frame(frame)  # [3, H, W]
        size = self._working_size(image)
        masks, asked = self._what_is_said(mask, prompts, size, image)
        named = {*masks.object_ids, *(prompt.object_id for prompt in asked)}
        if not write and not named <= set(self.object_ids):
            known = f"only ids of {self.object_ids} with write=False"
            raise MaskError(f"step: expected {known}, got {tuple(sorted(named))}; new objects must be memorised")
        window = self._aim(masks, size)
        pixels = self._fit(image, size, window)  # [1, 3, H', W']
        features = self.network.encode_query(pixels)
        found = self.network.segment(
            features,
            self._state.memory,
            given_rows(masks, asked, self.object_ids, window),
            frame=self.frame_index + 1,
            last=self._state.probabilities,
            size=window.view(size),
        )
        labels, full = self._settle(found, size, window)
        self._state.size, self._state.pixels = size, pixels
        self._state.frame_index += 1
        given = GivenMasks.of(masks, size, window)
        self._admit((*given.object_ids, *(prompt.object_id for prompt in asked)))
        boxes = None if found.boxes is None else window.boxes_in_frame(found.boxes, size)
        labels, result = self._conclude(labels, full, given, boxes)
        if write:
            self._memorise(features, found, labels, named)
        return result

    @torch.inference_mode()
    def correct(
        self, mask: MaskLike | None = None, *, prompts: PromptsLike | None = None, absent: Iterable[int] = ()
    ) -> Segmentation:
        """Replace what was found in the last frame, and memorise the correction, pinned.

        Args:
            mask: as in `step`; ids that are new enter in the last frame. None where only the rest is to be said.
            prompts: as in `step`; all points of an object in this frame, those of before included. They improve the
                mask that was found; so that of a tracked object may be only what it is not.
            absent: ids of objects that are not in the last frame. Their pixels go to the background or another object,
                and what was memorised of them in this frame is forgotten; older templates stay, and the objects are
                looked for in the frames to come, wherever they may be.

        Returns:
            The last frame's result, corrected.

        Raises:
            FrameError: there was no frame yet.
            MaskError: the mask or a prompt cannot be used, or nothing was said; or an absent object is not tracked, is
                in the mask or the prompts too, or is known from this frame alone.
            OptionError: there are prompts, and neither the network nor a prompter takes them.
            WeightsError: the network gave NaN or infinity. After any error the stream is as it was before.
        """
        return self._atomically(lambda: self._correct(mask, prompts, absent))

    def _correct(self, mask: MaskLike | None, prompts: PromptsLike | None, absent: Iterable[int]) -> Segmentation:
        _, size, _ = self._state.last_frame()
        masks, asked = self._what_is_said(mask, prompts, size, None)
        named = (*masks.object_ids, *(prompt.object_id for prompt in asked))
        gone = self._rows_of_absent(absent, named)
        if not named and not gone:
            raise MaskError(
                "correct: expected a mask or prompts with at least one object, or absent=[...] with ids, got neither; "
                "mark an object with its id, or name those that are not in the frame"
            )
        before = self._state.window
        if before is not None and not (before.covers(masks.probabilities) and inside(before, asked)):
            self._state.pixels = self._state.overview
            self._turn(Window.whole(size), size)
        pixels, size, last = self._state.last_frame()
        window = self._state.window or Window.whole(size)
        self._state.cut = self._state.cut or is_cut(masks.probabilities)
        said, number = given_rows(masks, asked, self.object_ids, window), self.frame_index
        self._admit(named)
        for row in [*gone, *(one.row for one in said)]:
            for slot in self._state.bank.describe(row) if row < self._state.bank.rows else ():
                if slot.frame == number:
                    self._state.bank.drop(slot.slot, row=row)
        self._state.beside.forget(number, rows=gone)
        features, found = None, None
        if named:
            features = self.network.encode_query(pixels)
            found = self.network.revise(features, self._state.memory, said, frame=number, size=window.view(size))
        labels, full = (_without(p, [1 + row for row in gone]) for p in (last, self.last.probabilities))
        if found is not None and asked:
            rows = [self.object_ids.index(prompt.object_id) for prompt in asked]
            answers = found.logits[[found.rows.index(row) for row in rows]]
            _check_finite(answers)
            labels, full = (_with_maps(p, 1 + len(self.object_ids)) for p in (labels, full))
            labels, full = impose_answers(labels, full, answers, rows, size, window)
        labelled, result = self._conclude(Labels.of(labels), full, GivenMasks.of(masks, size, window))
        if gone and self._state.places is not None:
            self._state.places[gone] = False
        if named:
            self._memorise(features, found, labelled, set(named), only_given=True)
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
            if self._state.beside.rows:
                self._state.beside.remove_rows(out)
        else:
            self._state.bank, self._state.beside = self._new_bank(), self.network.new_beside()
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
        check_unmoved(next(self.network.parameters()), self._began)
        _check_eval(self.network)
        state, before = self._state, {**vars(self._state), "beside": self._state.beside.shared()}
        return self._steps.take(work, (state.bank, state.cache), lambda: vars(state).update(before))

    def _new_bank(self) -> MemoryBank:
        return self.network.new_bank(self.options.memory_size, policy=self.options.policy)

    def _working_size(self, image: Tensor) -> WorkingSize:
        """The working size of the video whose next frame this is, `[3, H, W]`."""
        choose = partial(self.options.working_size, self.network)
        return size_of_next(image, self._state.size, index=self.frame_index + 1, choose=choose)

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
        """What the user says about a frame."""
        device = next(self.network.parameters()).device
        if mask is None:
            nothing = torch.zeros(0, size.frame_height, size.frame_width, device=device)
            return ObjectMasks((), nothing, torch.zeros(nothing.shape[1:], dtype=torch.bool, device=device))
        masks = to_object_masks(
            mask, height=size.frame_height, width=size.frame_width, allow_empty=self.frame_index >= 0
        )
        return ObjectMasks(masks.object_ids, masks.probabilities.to(device), masks.void.to(device))

    def _what_is_said(
        self, mask: MaskLike | None, prompts: PromptsLike | None, size: WorkingSize, image: Tensor | None
    ) -> tuple[ObjectMasks, tuple[Prompt, ...]]:
        """The masks of a frame, and the prompts that the network answers itself; a prompter makes masks of the others.

        Args:
            mask: what the user gave.
            prompts: the same.
            size: of the frame.
            image: `[3, H, W]`; None for the last frame.
        """
        masks = self._object_masks(mask, size)
        found = self.object_ids if image is None else ()
        asked = ready_prompts(prompts, height=size.frame_height, width=size.frame_width, found=found)
        ids = [prompt.object_id for prompt in asked]
        if both := sorted(set(ids) & set(masks.object_ids)):
            raise MaskError(f"prompts: {both} are in the mask too; say one of the two of an object")
        if (number := len({*masks.object_ids, *ids, *self.object_ids})) > MAX_OBJECTS:
            raise MaskError(
                f"{'prompts' if ids else 'mask'}: expected at most {MAX_OBJECTS} objects in all, got {number}; "
                "remove_objects() first"
            )
        if not asked or self.network.takes_prompts:
            return masks, asked
        if self.prompter is None:
            raise OptionError(
                f"prompts: expected a network that takes points and boxes, got {self.network.name}, which takes masks "
                "alone; give a mask, or make the predictor with prompter=..., such as a repository of SAM 2"
            )
        last: dict[int, Tensor] = {}
        if image is None:
            image = self._last_image(size)
            known = dict(zip(self.object_ids, self.last.probabilities[1:], strict=True))
            last = {i: known[i] for i in ids if i in known and self.last.present[i]}
        return with_prompted(masks, asked, self.prompter.masks(image, asked, last)), ()

    def _last_image(self, size: WorkingSize) -> Tensor:
        """The last frame, `[3, H, W]`, as far as it is remembered: at the working size, enlarged again."""
        pixels, _, _ = self._state.last_frame()
        whole = pixels if self._state.overview is None else self._state.overview
        return resize(whole[0].float()[:, : size.height, : size.width], size.frame_height, size.frame_width).clamp(0, 1)

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

    def _admit(self, ids: Sequence[int]) -> None:
        """Give new ids rows of their own."""
        new = tuple(i for i in ids if i not in self.object_ids)
        if new and self._state.bank.rows:
            self._state.bank.add_rows(len(new))
            if self._state.beside.rows:
                self._state.beside.add_rows(len(new))
        self._state.object_ids += new

    def _settle(self, found: Found, size: WorkingSize, window: Window) -> tuple[Labels, Tensor]:
        """Let the objects share the pixels: labels at the padded working size, and probabilities `[1 + N, H, W]` at the
        frame's own."""
        if self.network.aggregation == "soft":
            _check_finite(found.logits)
            labels = self._label(soft_aggregate_logits(found.logits, found.boxes), size, window, found.boxes)
            return labels, window.put_back(labels.probabilities, size)
        _check_finite(found.logits)
        shared = largest_logit(logits_at(found.logits, (size.padded_height, size.padded_width)))
        labels = self._label(shared, size, window)
        if labels.probabilities is not shared or not window.is_whole(size):
            return labels, window.put_back(labels.probabilities, size)
        return labels, largest_logit(logits_at(found.logits, (size.frame_height, size.frame_width)))

    def _label(self, probabilities: Tensor, size: WorkingSize, window: Window, boxes: Boxes | None = None) -> Labels:
        """Label the pixels of `[1 + N, H', W']`, without false positives far away."""
        winner = winners(probabilities, boxes)
        if self._state.places is not None and self.options.reach is not None:
            share = self.options.reach * size.frame_height / window.height
            reach = round(min(share * min(size.height, size.width), size.height + size.width))
            places = self._state.places
            new = len(probabilities) - 1 - len(places)  # objects that enter here, which were nowhere before
            places = torch.cat([places, places.new_zeros(new, *places.shape[1:])]) if new else places
            probabilities, winner = keep_near(probabilities, winner, places, reach=reach)
        return Labels.of(probabilities, winner, boxes=boxes)

    def _conclude(
        self, labels: Labels, full: Tensor, given: GivenMasks, boxes: Boxes | None = None
    ) -> tuple[Labels, Segmentation]:
        """Put given masks in place of what was found, `labels` at the working size and `full` `[1 + N, H, W]`, whose
        objects are in `boxes`; keep what comes of it."""
        rows = [self.object_ids.index(i) for i in given.object_ids]
        if rows or len(full) <= len(self.object_ids):
            found, full = (_with_maps(p, 1 + len(self.object_ids)) for p in (labels.probabilities, full))
            labels = Labels.of(impose(found, given.working, given.working_void, rows))
            full, boxes = impose(full, given.full, given.full_void, rows), None
        self._state.probabilities = labels.probabilities
        self._state.places = last_places(labels.masks, self._state.places)
        return labels, self._report(full, boxes)

    def _report(self, full: Tensor, boxes: Boxes | None = None) -> Segmentation:
        """The result of probabilities `[1 + N, H, W]`; keeps it."""
        self._state.last = segmentation_of(Labels.of(full, boxes=boxes), self.object_ids, frame_index=self.frame_index)
        return self._state.last

    def _memorise(
        self, features: Any, found: Found | None, labels: Labels, named: set[int], *, only_given: bool = False
    ) -> None:
        """Write the last frame's templates of objects that were given (pinned), and of those that are seen well
        enough."""
        known = [row for row, object_id in enumerate(self.object_ids) if object_id in named]
        good, finite = self._worth(features, found, labels)
        if not finite:
            raise WeightsError(_NOT_FINITE)
        others_found = [] if only_given else [row for row, fine in enumerate(good) if fine and row not in known]
        everything = labels.probabilities[1:].sum(0)
        for rows, is_given in ((known, True), (others_found, False)):
            for part, mask, others in _in_parts(labels.probabilities, everything, rows, _CHUNK):
                template = self.network.template(features, found, part, mask, others, given=is_given)
                self._write(template, part, is_given)
            if not is_given and self.frame_index % self.options.memory_every != 0:
                continue
            for part, mask, others in _in_parts(labels.probabilities, everything, rows, _SHARING):
                self.network.memorise_beside(
                    features,
                    found,
                    part,
                    mask,
                    others,
                    memory=self._state.memory,
                    frame=self.frame_index,
                    given=is_given,
                )

    def _worth(self, features: Any, found: Found | None, labels: Labels) -> tuple[list[bool], bool]:
        """Whether each object is seen well enough to be memorised, and whether the features are finite; one look at the
        device for both."""
        seen = (labels.areas > 0) & (labels.scores >= self.options.write_gate)
        if found is not None and found.presence is not None:  # the network says it itself
            rows = torch.tensor(found.rows, dtype=torch.int64, device=seen.device)
            seen = torch.zeros_like(seen).index_put((rows,), found.presence >= self.options.write_gate)
        *good, finite = torch.cat([seen, self.network.features_are_finite(features)[None]]).tolist()
        return good, finite

    def _write(self, template: Template, rows: list[int], is_given: bool) -> None:
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
            _store(bank, template.of(part), at, frame=number, pinned=pin, provisional=provisional)


def _in_parts(
    probabilities: Tensor, everything: Tensor, rows: list[int], size: int
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Rows, so many at a time, with their masks `[R, H', W']` and those of all others together, out of probabilities
    `[1 + N, H', W']` and the sum of the objects `[H', W']`."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        mask = probabilities[[1 + row for row in part]]
        yield part, mask, (everything - mask).clamp(0, 1)


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
    template: Template,
    rows: list[int] | None = None,
    *,
    frame: int,
    pinned: bool,
    provisional: bool = False,
) -> None:
    """Write to a bank; a template that is not finite is reported as an error of the weights."""
    try:
        bank.write(
            template.values, rows=rows, frame=frame, pinned=pinned, provisional=provisional, extent=template.extent
        )
    except BankError as error:
        if bool(template.values.isfinite().all()):
            raise
        raise WeightsError(f"{_NOT_FINITE} ({error})") from error


def _check_eval(network: TrackingNetwork) -> None:
    """Refuse a network of which a part is in training mode.

    Raises:
        OptionError: it is.
    """
    if network.training or any(part.training for part in network.children()):
        raise OptionError(
            "network: expected one in eval mode, got one in training mode, in which its results depend on the batch; "
            "call network.eval()"
        )


def _check_finite(found: Tensor) -> None:
    """Refuse what a network gave that is NaN or infinite.

    Raises:
        WeightsError: it is.
    """
    if not bool(found.sum().isfinite()):
        raise WeightsError(_NOT_FINITE)


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
