"""`Sam2Network`: SAM 2, EdgeTAM and their kin of transformers as networks to track with, in memory that does not grow.

A session of transformers keeps all frames, masks and memories of a video. Here a session lives for one frame: it is
filled with what the stream's bank holds, the model makes its step, and what it would have remembered goes to the bank.
The model's own code computes everything, so its masks are the model's to the bit while the bank holds what the session
would read: with the policy `"drop"` for good, with others until the bank is full.

Needs transformers: `pip install "stmemory[sam2]"`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stmemory.errors import BankError, OptionError, WeightsError
from stmemory.io.frames import WorkingSize
from stmemory.memory.bank import MemoryBank
from stmemory.memory.packing import Packed, packed, unpacked
from stmemory.memory.policy import UpdatePolicy
from stmemory.networks.tracking import Found, Given, Memory, Template
from stmemory.weights.devices import place_to_compute
from stmemory.weights.foreign import ForeignWeights

__all__ = ["PointerMemory", "Sam2Features", "Sam2Network", "load_sam2"]

_PROMPTED, _TRACKED = "cond_frame_outputs", "non_cond_frame_outputs"  # how a session calls them
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_NO_FRAME = -1
_OLDEST = (5, 5)  # version of transformers


@dataclass(frozen=True)
class _Kind:
    """What models of a type are called, and how they differ."""

    model: str
    session: str
    tokens_first: bool = True  # memory maps are [n, 1, C]; else [1, n, C]
    masks_apart: bool = False  # a step of the model cannot join the scores of given masks with those of found objects
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] = _IMAGENET


_KINDS = {
    "sam2_video": _Kind("Sam2VideoModel", "Sam2VideoInferenceSession"),
    "edgetam_video": _Kind("EdgeTamVideoModel", "EdgeTamVideoInferenceSession", tokens_first=False, masks_apart=True),
    "sam3_tracker_video": _Kind(
        "Sam3TrackerVideoModel", "Sam3TrackerVideoInferenceSession", mean_std=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    ),
}


def load_sam2(weights: ForeignWeights) -> Sam2Network:
    """The network of a folder of transformers, float32, on the CPU. Tensors are read from safetensors alone.

    Args:
        weights: where they lie.

    Raises:
        WeightsError: transformers is not installed, or too old for the model type; or the files do not fit it.
    """
    kind = _KINDS[weights.model_type]
    model_class = _of_transformers(kind.model, f"weights {weights.name!r}")
    try:
        with torch.random.fork_rng(devices=[]), _quiet():  # initial weights are drawn and thrown away
            model, about = model_class.from_pretrained(
                str(weights.folder),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # of transformers, safetensors or timm, whose errors have no common base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"weights {weights.name!r}: expected a {weights.model_type} model with its tensors in safetensors, got: "
            f"{reason}; check the folder, update transformers, and for EdgeTAM also pip install timm"
        ) from error
    if missing := sorted(about["missing_keys"]):
        raise WeightsError(
            f"weights {weights.name!r}: expected all tensors of a {weights.model_type} model, got none for {missing[0]}"
            f"{f' and {len(missing) - 1} others' if missing[1:] else ''}; the files are not complete"
        )
    return Sam2Network(model, name=weights.name, settings=weights.settings())


@dataclass(frozen=True, eq=False)
class Sam2Features:
    """What the image encoder makes of one frame.

    Attributes:
        pixels: `[1, 3, S, S]`, normalised.
        maps: feature maps of several strides, `[h w, 1, C]` each, the deepest last.
        positions: their position encodings.
    """

    pixels: Tensor
    maps: list[Tensor]
    positions: list[Tensor]


class PointerMemory:
    """Object pointers of the latest frames of each row, newest first, and the position encoding of memory maps.

    SAM 2 reads memory maps of 7 frames, but object pointers of 16: these are small, and stay here when their maps have
    left the bank. Nothing is written in place.

    Args:
        length: pointers of each row.

    >>> pointers = PointerMemory(3)
    >>> for frame in range(5):
    ...     pointers.write(torch.full((1, 2), float(frame)), rows=[0], of=1, frame=frame, position=torch.zeros(1))
    >>> sorted(pointers.of_row(0)), pointers.rows
    ([2, 3, 4], 1)
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._tensors: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, int | Packed]:
        return {"length": self.length, "tensors": packed(self._tensors)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.length, self._tensors = state["length"], unpacked(state["tensors"])

    @property
    def rows(self) -> int:
        """B; 0 before the first write."""
        return len(self._tensors["frames"]) if self._tensors else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held; constant from the first write on while the rows are the same."""
        return sum(t.numel() * t.element_size() for t in self._tensors.values())

    @property
    def position(self) -> Tensor:
        """The position encoding of memory maps, as the model made it.

        Raises:
            BankError: nothing was written yet.
        """
        if not self._tensors:
            raise BankError("pointers: expected a memory that was written to, got an empty one; start with a frame")
        return self._tensors["position"]

    def write(
        self, pointers: Tensor, *, rows: Sequence[int], of: int, frame: int, position: Tensor, given: bool = False
    ) -> None:
        """Add pointers of a frame; those of the same frame are replaced.

        Args:
            pointers: `[R, P]`.
            rows: the rows they belong to.
            of: B, how many rows there are; the first write makes them.
            frame: index of the frame.
            position: position encoding of memory maps.
            given: whether the objects were given there: then their pinned templates have the pointers for good, and
                none are kept here.
        """
        if not self._tensors:
            self._tensors = {
                "pointers": pointers.new_zeros(of, self.length, pointers.shape[1]),
                "frames": torch.full((of, self.length), _NO_FRAME, dtype=torch.int64, device=pointers.device),
                "position": position.clone(),
            }
        self.forget(frame, rows=rows)
        if given:
            return
        index = torch.as_tensor(list(rows), dtype=torch.int64, device=pointers.device)
        held, frames = self._tensors["pointers"], self._tensors["frames"]
        newer = torch.cat([pointers[:, None], held[index][:, :-1]], 1)
        number = torch.full_like(frames[index][:, :1], frame)
        self._put("pointers", index, newer.to(held.dtype))
        self._put("frames", index, torch.cat([number, frames[index][:, :-1]], 1))

    def of_row(self, row: int) -> dict[int, Tensor]:
        """The pointers `[P]` of one row by their frames."""
        frames = self._tensors["frames"][row].tolist() if row < self.rows else []
        return {frame: self._tensors["pointers"][row, n] for n, frame in enumerate(frames) if frame != _NO_FRAME}

    def forget(self, frame: int, *, rows: Sequence[int]) -> None:
        """Take back the pointers of a frame."""
        if self._tensors and len(rows):
            index = torch.as_tensor(list(rows), dtype=torch.int64, device=self._tensors["frames"].device)
            frames = self._tensors["frames"][index]
            self._put("frames", index, frames.masked_fill(frames == frame, _NO_FRAME))

    def add_rows(self, number: int) -> None:
        """Append empty rows: objects that enter later; only after the first write, which makes rows."""
        frames, pointers = self._tensors["frames"], self._tensors["pointers"]
        empty = torch.full_like(frames[:1], _NO_FRAME).expand(number, -1)
        self._tensors = {
            **self._tensors,
            "frames": torch.cat([frames, empty]),
            "pointers": torch.cat([pointers, pointers.new_zeros(number, *pointers.shape[1:])]),
        }

    def remove_rows(self, rows: Sequence[int]) -> None:
        """Forget whole rows; the rows after them move up."""
        kept = [row for row in range(self.rows) if row not in set(rows)]
        self._tensors |= {name: self._tensors[name][kept] for name in ("frames", "pointers")}

    def shared(self) -> PointerMemory:
        """A memory that holds what this one holds now, and shares its bytes."""
        twin = PointerMemory(self.length)
        twin._tensors = dict(self._tensors)
        return twin

    def state_dict(self) -> dict[str, Tensor]:
        """All that is held, by name, without a copy."""
        return dict(self._tensors)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a copy of what `state_dict()` gave.

        Raises:
            BankError: a tensor is missing.
        """
        if state and set(state) != {"frames", "pointers", "position"}:
            raise BankError(f"pointers: expected frames, pointers and position, got {', '.join(sorted(state))}")
        self._tensors = {name: t.clone() for name, t in state.items()}

    def _put(self, name: str, index: Tensor, value: Tensor) -> None:
        self._tensors = {**self._tensors, name: self._tensors[name].index_copy(0, index, value)}


@dataclass(frozen=True, eq=False)
class _Memories:
    """What the model would have remembered of a frame, for each row that was found: templates `[R, C, n + p]`, pointers
    `[R, P]`, and the position encoding of its maps."""

    templates: Tensor
    pointers: Tensor
    position: Tensor


class Sam2Network(nn.Module):
    """A video model of transformers, a `TrackingNetwork`.

    A template is what the model's memory attention reads of a frame, `[C, n + p]`: the memory map of n cells, and the
    object pointer cut into p tokens as wide.

    Args:
        model: `Sam2VideoModel`, `EdgeTamVideoModel` or `Sam3TrackerVideoModel`.
        name: for people; None is the model's type.
        settings: `image_mean` and `image_std` of its images, where they are not those of its type.

    Raises:
        OptionError: it is another model.
        WeightsError: the transformers that is installed is too old for it.
    """

    takes_prompts = True
    aggregation = "largest"
    read = None

    def __init__(self, model: nn.Module, *, name: str | None = None, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        config: Any = getattr(model, "config", None)
        kind = getattr(config, "model_type", None)
        if kind not in _KINDS:
            raise OptionError(
                f"Sam2Network: expected a model of type {', '.join(_KINDS)}, got {kind or type(model).__name__}; "
                "take a video model of transformers"
            )
        self.model: Any = model.eval()
        self.model_type, self._name, self._kind = str(kind), name, _KINDS[kind]
        self._session_class = _of_transformers(self._kind.session, self.name)
        side = config.image_size
        self.side = int(side if isinstance(side, int) else side[0])  # px
        mean, std = self._kind.mean_std
        self.mean = _colour("image_mean", settings, mean)
        self.std = _colour("image_std", settings, std)

    @property
    def name(self) -> str:
        """As it was asked for."""
        return self._name or self.model_type

    @property
    def template_shape(self) -> tuple[int, int]:
        """C and n + p of its templates."""
        config, channels = self.model.config, int(self.model.mem_dim)
        height, width = self.model.backbone_feature_sizes[-1]
        cells = int(height) * int(width)
        if hasattr(config, "perceiver_resampler_num_latents"):
            cells = int(config.perceiver_resampler_num_latents + config.perceiver_resampler_num_latents_2d)
        return channels, cells + int(self.model.hidden_dim) // channels

    @property
    def tracking(self) -> Mapping[str, Any]:
        """The model's own window: the prompted frames and those right before, each memorised, the frame seen whole."""
        return {
            "memory_size": int(self.model.num_maskmem),
            "policy": "drop",
            "memory_every": 1,
            "zoom": 1.0,
            "write_gate": 0.0,
            "reach": None,
            "margin": None,
        }

    def ready(self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """See `TrackingNetwork.ready`."""
        network = copy.deepcopy(self).eval().requires_grad_(False)
        place_to_compute(network, device=device, dtype=dtype)
        return network

    def with_top_k(self, top_k: int | None) -> Self:
        """Itself; its attention always reads from all cells.

        Raises:
            OptionError: a number is asked for.
        """
        if top_k is not None:
            raise OptionError(f"top_k: expected None with {self.name}, which reads all memory cells, got {top_k}")
        return self

    def with_margin(self, margin: float | None) -> Self:
        """Itself; it always looks at all of the frame.

        Raises:
            OptionError: a number is asked for.
        """
        if margin is not None:
            raise OptionError(f"margin: expected None with {self.name}, which looks at all of a frame, got {margin}")
        return self

    def working_size(self, height: int, width: int, *, short_side: int | None, enlarge: float) -> WorkingSize:
        """A square of the model's own size, whatever the frame's size and proportions."""
        return WorkingSize(height, width, self.side, self.side, self.side, self.side)

    def new_bank(self, capacity: int = 7, *, policy: str | UpdatePolicy = "drop") -> MemoryBank:
        """An empty bank; fused templates are means.

        Raises:
            OptionError: the model has temporal encodings for fewer slots.
        """
        if capacity > self.model.num_maskmem:
            raise OptionError(
                f"memory_size: expected at most {self.model.num_maskmem} with {self.name}, which has temporal "
                f"encodings for no more, got {capacity}"
            )
        return MemoryBank(capacity, policy=policy, borrow=() if isinstance(policy, str) else ("policy",))

    def new_beside(self) -> PointerMemory:
        """An empty memory of object pointers."""
        return PointerMemory(max(1, int(self.model.config.max_object_pointers_in_encoder) - 1))

    def encode_query(self, frame: Tensor) -> Sam2Features:
        """Encode one frame, whatever the number of objects.

        Args:
            frame: `[1, 3, S, S]`, RGB in [0, 1].
        """
        pixels = self.normalised(frame)
        outputs = self.model.get_image_features(pixels, return_dict=True)
        return Sam2Features(pixels, list(outputs.fpn_hidden_states), list(outputs.fpn_position_encoding))

    def normalised(self, frame: Tensor) -> Tensor:
        """Frames as the model takes them: less the mean of its images, by their deviation."""
        mean, std = (frame.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (frame - mean) / std

    def features_are_finite(self, features: Sam2Features | None) -> Tensor:
        """True: nothing but templates is kept of them, and these are checked by the bank."""
        return torch.ones((), dtype=torch.bool, device=next(self.parameters()).device)

    def segment(
        self,
        features: Sam2Features,
        memory: Memory,
        given: Sequence[Given],
        *,
        frame: int,
        last: Tensor | None,
        size: WorkingSize,
    ) -> Found:
        """See `TrackingNetwork.segment`. An object of which something is given is found from that alone, as at a frame
        that the model calls a conditioning frame."""
        rows = sorted({*range(memory.bank.rows), *(one.row for one in given)})
        return self._step(features, memory, rows, given, frame=frame, size=size, again=False)

    def revise(
        self, features: Sam2Features, memory: Memory, given: Sequence[Given], *, frame: int, size: WorkingSize
    ) -> Found:
        """See `TrackingNetwork.revise`. An object that is known from other frames is found from its memory and the
        points."""
        rows = sorted(one.row for one in given)
        return self._step(features, memory, rows, given, frame=frame, size=size, again=True)

    def template(
        self,
        features: Sam2Features,
        found: Found | None,
        rows: Sequence[int],
        mask: Tensor,
        others: Tensor,
        *,
        given: bool,
    ) -> Template:
        """See `TrackingNetwork.template`: what the model made of the frame, `[R, C, n + p]`."""
        memories, places = _memories(found, rows)
        return Template(memories.templates[places])

    def memorise_beside(
        self,
        features: Sam2Features,
        found: Found | None,
        rows: Sequence[int],
        mask: Tensor,
        others: Tensor,
        *,
        memory: Memory,
        frame: int,
        given: bool,
    ) -> None:
        """See `TrackingNetwork.memorise_beside`: keeps the object pointers."""
        memories, places = _memories(found, rows)
        _pointers(memory).write(
            memories.pointers[places],
            rows=rows,
            of=memory.bank.rows,
            frame=frame,
            position=memories.position,
            given=given,
        )

    def state_shapes(self, rows: int, slots: int, size: WorkingSize) -> dict[str, tuple[int, ...]]:
        """See `TrackingNetwork.state_shapes`."""
        length, pointer = self.new_beside().length, int(self.model.hidden_dim)
        return {
            "bank.templates": (rows, slots, *self.template_shape),
            "sums.frames": (rows, length),
            "sums.pointers": (rows, length, pointer),
        }

    def stages(self) -> Sequence[tuple[nn.Module, str, str]]:
        """See `TrackingNetwork.stages`."""
        return (
            (self.model.vision_encoder, "encode", "read"),
            (self.model.memory_attention, "read", "decode"),
            (self.model.mask_decoder, "decode", "aggregate"),
            (self.model.memory_encoder, "memorise", "write"),
        )

    def _step(
        self,
        features: Sam2Features,
        memory: Memory,
        rows: Sequence[int],
        given: Sequence[Given],
        *,
        frame: int,
        size: WorkingSize,
        again: bool,
    ) -> Found:
        """One step of a session that knows of these rows what the memory holds, and nothing else."""
        weight = next(self.parameters())
        if not rows:
            return Found((), torch.zeros(0, self.side // 4, self.side // 4, device=weight.device))
        masked = {one.row for one in given if one.mask is not None}
        parts = [rows]
        if self._kind.masks_apart:
            parts = [part for part in ([r for r in rows if r in masked], [r for r in rows if r not in masked]) if part]
        said = {one.row: one for one in given}
        news: dict[int, Mapping[str, Tensor]] = {}
        for part in parts:
            news |= self._remembered(features, memory, part, said, frame=frame, size=size, again=again)
        found = [news[row] for row in rows]
        return Found(
            tuple(rows),
            torch.cat([new["pred_masks"].flatten(0, 1) for new in found]).float(),
            torch.cat([new["object_score_logits"].reshape(1) for new in found]).float().sigmoid(),
            _Memories(
                torch.stack([self._tokens(new) for new in found]),
                torch.stack([new["object_pointer"].reshape(-1) for new in found]),
                found[0]["maskmem_pos_enc"],
            ),
        )

    def _remembered(
        self,
        features: Sam2Features,
        memory: Memory,
        rows: Sequence[int],
        said: Mapping[int, Given],
        *,
        frame: int,
        size: WorkingSize,
        again: bool,
    ) -> dict[int, Mapping[str, Tensor]]:
        """What a session remembers of a frame, by row."""
        session = self._session(next(self.parameters()))
        for row in rows:
            number = session.obj_id_to_idx(row)
            held = self._held(memory, row, frame)
            session.output_dict_per_obj[number].update(held)
            if again and held[_PROMPTED]:
                session.frames_tracked_per_obj[number][frame] = {"reverse": False}
            if row in said:
                self._say(session, number, said[row], frame=frame, size=size)
        session.obj_with_new_inputs = [row for row in rows if row in said]
        maps = {"vision_feats": features.maps, "vision_pos_embeds": features.positions}
        session.cache.cache_vision_features(frame, maps)
        self.model(session, frame=features.pixels, frame_idx=frame)
        outputs = {row: session.output_dict_per_obj[session.obj_id_to_idx(row)] for row in rows}
        return {row: kinds[_PROMPTED].get(frame) or kinds[_TRACKED][frame] for row, kinds in outputs.items()}

    def _session(self, weight: Tensor) -> Any:
        """An empty session of the model's kind."""
        place = weight.device
        return self._session_class(
            inference_device=place, inference_state_device=place, video_storage_device=place, dtype=weight.dtype
        )

    def _say(self, session: Any, number: int, given: Given, *, frame: int, size: WorkingSize) -> None:
        """Tell a session what is given of an object."""
        if given.mask is not None:
            mask = given.mask.float()[None, None]
            if mask.shape[2:] != (self.side, self.side):
                mask = F.interpolate(
                    mask, size=(self.side, self.side), align_corners=False, mode="bilinear", antialias=True
                )
            session.add_mask_inputs(number, frame, (mask >= 0.5).float())
        elif given.points is not None and given.labels is not None:
            points = given.points.clone()
            points[:, 0] = points[:, 0] * (self.side / size.frame_width)
            points[:, 1] = points[:, 1] * (self.side / size.frame_height)
            inputs = {"point_coords": points[None, None], "point_labels": given.labels[None, None]}
            session.add_point_inputs(number, frame, inputs)

    def _tokens(self, new: Mapping[str, Tensor]) -> Tensor:
        """The template `[C, n + p]` of what a session remembers of one frame."""
        maps = new["maskmem_features"]
        cells = maps.reshape(-1, maps.shape[-1])
        pointer = new["object_pointer"].reshape(-1, maps.shape[-1])
        return torch.cat([cells.to(pointer.dtype), pointer]).t().contiguous()

    def _held(self, memory: Memory, row: int, frame: int) -> dict[str, dict[int, dict[str, Tensor]]]:
        """What a session is to know of a row: pinned slots as prompted frames, the others as frames right before this
        one, at their own distance as far as the model has temporal encodings, else as near as it goes; and the pointers
        of frames before these."""
        held: dict[str, dict[int, dict[str, Tensor]]] = {_PROMPTED: {}, _TRACKED: {}}
        if row >= memory.bank.rows:
            return held
        beside = _pointers(memory)
        slots = memory.bank.describe(row)  # oldest first
        if not slots:
            return held
        pinned = [slot for slot in slots if slot.pinned] or slots[:1]
        loose = [slot for slot in reversed(slots) if slot not in pinned]  # youngest first
        farthest, distance = int(self.model.num_maskmem) - 1, 0
        for slot in pinned:
            held[_PROMPTED][slot.frame] = self._entry(memory, row, slot.slot)
        for place, slot in enumerate(loose, 1):
            distance = max(distance + 1, min(frame - slot.frame, farthest - (len(loose) - place)))
            held[_TRACKED][frame - distance] = self._entry(memory, row, slot.slot)
        for past, pointer in beside.of_row(row).items():
            if frame - past > farthest:
                held[_TRACKED][past] = {"object_pointer": pointer[None, None]}
        return held

    def _entry(self, memory: Memory, row: int, slot: int) -> dict[str, Tensor]:
        """A slot as a session holds it."""
        tokens = memory.bank.templates[row, slot].t()  # [n + p, C]
        size = int(self.model.hidden_dim)
        cells = len(tokens) - size // tokens.shape[1]
        maps = tokens[:cells]
        return {
            "maskmem_features": maps[:, None] if self._kind.tokens_first else maps[None],
            "maskmem_pos_enc": _pointers(memory).position,
            "object_pointer": tokens[cells:].reshape(1, 1, size),
        }


def _memories(found: Found | None, rows: Sequence[int]) -> tuple[_Memories, list[int]]:
    """What was found to be remembered, and the places of rows in it."""
    if found is None or not isinstance(found.memory, _Memories):
        raise OptionError("template: expected what segment() or revise() of this network found; pass that")
    return found.memory, [found.rows.index(row) for row in rows]


def _pointers(memory: Memory) -> PointerMemory:
    """The object pointers of a stream of such a network."""
    if not isinstance(memory.beside, PointerMemory):
        raise OptionError(f"memory: expected one of new_beside(), got {type(memory.beside).__name__}")
    return memory.beside


def _colour(name: str, settings: Mapping[str, Any] | None, known: tuple[float, ...]) -> tuple[float, ...]:
    """Three numbers of a setting; `known` where there is none.

    Raises:
        OptionError: it is something else.
    """
    value = (settings or {}).get(name)
    if value is None:
        return known
    numbers = isinstance(value, list | tuple) and all(type(one) in (int, float) and math.isfinite(one) for one in value)
    if not numbers or len(value) != 3:
        raise OptionError(f"{name}: expected three numbers, got {value!r}; look at the files beside the weights")
    return tuple(float(one) for one in value)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar of transformers: a library prints nothing."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)  # what is wrong is in the error
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _of_transformers(name: str, what: str) -> Any:
    """A class of transformers.

    Raises:
        WeightsError: it is not installed, or does not have it.
    """
    try:
        import transformers

        if tuple(int(part) for part in transformers.__version__.split(".")[:2]) < _OLDEST:
            raise WeightsError(
                f"{what}: expected transformers {_OLDEST[0]}.{_OLDEST[1]} or newer, got {transformers.__version__}; "
                "update it"
            )
        return getattr(transformers, name)
    except ImportError as error:
        raise WeightsError(
            f'{what}: expected transformers, which has this model, got none; pip install "stmemory[sam2]"'
        ) from error
    except AttributeError as error:
        raise WeightsError(
            f"{what}: expected a transformers that has {name}, got one without it; update transformers"
        ) from error
