"""All that a stream remembers, as one record, and that record in a file. Knows no step: `stream.py` makes and changes it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stmemory.errors import BankError, FrameError, WeightsError
from stmemory.files import whole_file
from stmemory.frames import WorkingSize
from stmemory.memory.bank import MemoryBank
from stmemory.memory.read import ReadCache
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.result import Segmentation
from stmemory.weights import fingerprint, tensors_digest

__all__ = ["FORMAT_VERSION", "StreamState", "load_state", "save_state", "weights_of"]

FORMAT_VERSION = 1


@dataclass(eq=False)
class StreamState:
    """What is kept from one frame of a video to the next. Nothing here grows with the video.

    Attributes:
        bank: the memory; row n belongs to `object_ids[n]`.
        cache: of the bank's keys and values.
        object_ids: the N ids being tracked.
        frame_index: of the last frame, from 0; -1 before the first.
        size: frame size and working size; None before the first frame.
        pixels: `[1, 3, H', W']`, the last frame at its padded working size.
        probabilities: `[1 + N, H', W']`, what was found in it.
        places: bool `[N, H', W']`, where each object was seen last.
        last: the last frame's result.
    """

    bank: MemoryBank
    cache: ReadCache = field(default_factory=ReadCache)
    object_ids: tuple[int, ...] = ()
    frame_index: int = -1
    size: WorkingSize | None = None
    pixels: Tensor | None = None
    probabilities: Tensor | None = None
    places: Tensor | None = None
    last: Segmentation | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        kept = [self.pixels, self.probabilities, self.places]
        if self.last is not None:
            kept += [self.last.ids, self.last.probabilities]
        return self.bank.nbytes + self.cache.nbytes + sum(t.numel() * t.element_size() for t in kept if t is not None)

    def last_frame(self) -> tuple[Tensor, WorkingSize, Tensor]:
        """Pixels, size and probabilities of the last frame.

        Raises:
            FrameError: there was none.
        """
        if self.pixels is None or self.size is None or self.probabilities is None:
            raise FrameError("expected a stream that has seen a frame, got a new one; call step(frame, mask) first")
        return self.pixels, self.size, self.probabilities


def save_state(state: StreamState, path: str | Path, *, network: SegmentationNetwork, options: TrackingOptions) -> None:
    """Write a state, with the fingerprint of the weights and the options it belongs to. The file appears whole or not at all.

    Raises:
        FrameError: no frame was seen yet.
    """
    pixels, size, probabilities = state.last_frame()
    tensors: dict[str, Tensor] = {f"bank.{name}": t for name, t in state.bank.state_dict().items()}
    tensors |= {f"cache.{name}": t for name, t in state.cache.state_dict(state.bank).items()}
    tensors |= {"pixels": pixels, "probabilities": probabilities}
    if state.places is not None:
        tensors["places"] = state.places
    about: dict[str, object] = {"format": "stmemory.stream", "version": FORMAT_VERSION, "weights": weights_of(network, options)}
    about |= {"options": options.as_dict(), "frame_index": state.frame_index, "object_ids": state.object_ids}
    about |= {"size": dataclasses.asdict(size)}
    if state.last is not None:
        tensors |= {"last.ids": state.last.ids, "last.probabilities": state.last.probabilities}
        about |= {"scores": list(state.last.scores.values()), "present": list(state.last.present.values())}
    about |= {"digest": tensors_digest(tensors)}
    with whole_file(path) as part:
        save_file({name: t.clone().contiguous() for name, t in tensors.items()}, part, metadata={"about": json.dumps(about)})


def load_state(path: str | Path, *, bank: MemoryBank, network: SegmentationNetwork, options: TrackingOptions) -> StreamState:
    """A state as it was when it was saved.

    Args:
        path: what `save_state` wrote.
        bank: an empty bank of the network's, to be filled.
        network: the very network that it was saved with.
        options: the very options.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or belongs to other weights or options.
    """
    weight = next(network.parameters())
    try:
        with safe_open(str(path), framework="pt", device=str(weight.device)) as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(f"{path}: expected a stream that stream.save() wrote, got: {error}; start the video anew") from error
    kind, version = (about.get("format"), about.get("version")) if isinstance(about, dict) else (None, None)
    if kind != "stmemory.stream" or not isinstance(version, int) or version > FORMAT_VERSION:
        raise WeightsError(
            f"{path}: expected a stmemory.stream of version {FORMAT_VERSION} or older, got {kind or 'another file'} of version "
            f"{version or 'unknown'}; pass what stream.save() wrote, or update stmemory"
        )
    try:
        if about["digest"] != tensors_digest(tensors):
            raise WeightsError(f"{path}: expected the tensors that were saved, got others; the file is damaged, start the video anew")
        _check_belongs(path, about, weights_of(network, options), options.as_dict())
        return _state(about, tensors, bank)
    except (KeyError, TypeError, ValueError, BankError) as error:
        raise WeightsError(f"{path}: expected all that a stream remembers, got: {error!r}; start the video anew") from error


def _check_belongs(path: str | Path, about: dict[str, Any], weights: str, ours: dict[str, str | int | float | None]) -> None:
    if about["weights"] != weights:
        raise WeightsError(f"{path}: expected the weights it was saved with ({about['weights']}), got {weights}; load those")
    theirs = about["options"]
    changed = {name: (theirs.get(name), ours.get(name)) for name in sorted({*ours, *theirs}) if theirs.get(name) != ours.get(name)}
    if changed:
        told = ", ".join(f"{name} {then!r} (now {now!r})" for name, (then, now) in changed.items())
        raise WeightsError(f"{path}: expected the options it was saved with: {told}; build the predictor with those")


def _state(about: dict[str, Any], tensors: dict[str, Tensor], bank: MemoryBank) -> StreamState:
    state = StreamState(bank)
    state.bank.load_state_dict(_part(tensors, "bank."))
    state.cache.load_state_dict(_part(tensors, "cache."), bank)
    state.object_ids = tuple(about["object_ids"])
    state.frame_index, state.size = about["frame_index"], WorkingSize(**about["size"])
    state.pixels, state.probabilities, state.places = tensors["pixels"], tensors["probabilities"], tensors.get("places")
    if "last.ids" in tensors:
        scores = dict(zip(state.object_ids, about["scores"], strict=True))
        present = dict(zip(state.object_ids, about["present"], strict=True))
        ids, probabilities = tensors["last.ids"], tensors["last.probabilities"]
        state.last = Segmentation(state.frame_index, ids, probabilities, state.object_ids, scores, present)
    return state


def weights_of(network: SegmentationNetwork, options: TrackingOptions) -> str:
    """Short names of all weights that a stream's masks depend on: the network's, and after it those of a policy that was given.

    >>> from stmemory.memory.learned import LearnedPolicy
    >>> from stmemory.weights import load_network
    >>> len(weights_of(load_network(), TrackingOptions())), len(weights_of(load_network(), TrackingOptions(policy=LearnedPolicy())))
    (16, 33)
    """
    policy = options.policy
    return fingerprint(network) + ("-" + fingerprint(policy) if isinstance(policy, nn.Module) else "")


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
