"""`TrackingNetwork`: all that a stream needs of a network, so that any network can be tracked with.

`SegmentationNetwork` is one, `stmemory.networks.sam2.Sam2Network` another. A network remembers nothing of a video: what
is remembered stands in the stream's `Memory`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from stmemory.io.frames import WorkingSize
from stmemory.memory.bank import MemoryBank
from stmemory.memory.policy import UpdatePolicy
from stmemory.memory.read import ReadCache, SpaceTimeRead

__all__ = ["Beside", "Found", "Given", "Memory", "Template", "TrackingNetwork"]


class Beside(Protocol):
    """What a network remembers of each row beside the bank, in as many bytes after any number of frames.

    Nothing in it is ever written in place.
    """

    @property
    def rows(self) -> int:
        """B; 0 before the first write."""

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held."""

    def forget(self, frame: int, *, rows: Sequence[int]) -> None:
        """Take back what rows know of a frame, where it is their last one."""

    def add_rows(self, number: int) -> None:
        """Append empty rows."""

    def remove_rows(self, rows: Sequence[int]) -> None:
        """Forget whole rows; the rows after them move up."""

    def shared(self) -> Beside:
        """One that holds the same now, and shares its bytes."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that is held, by name, without a copy."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict()` gave."""


@dataclass(frozen=True, eq=False)
class Memory:
    """What a stream remembers for its network. Row n of bank and beside is object n.

    Attributes:
        bank: the templates.
        beside: see `Beside`.
        cache: of what is read from the bank.
    """

    bank: MemoryBank
    beside: Beside
    cache: ReadCache


@dataclass(frozen=True, eq=False)
class Given:
    """What a user says of one object in a frame: its mask, or points.

    Attributes:
        row: the object's; one that the memory does not have yet is an object that enters here.
        mask: `[H, W]` in [0, 1], of the part of the frame that is looked at, at its own size; None where points are
            given.
        points: float32 `[P, 2]`, x and y, px of that part.
        labels: int64 `[P]`: 1 a point of the object, 0 one that is not, 2 and 3 the top left and the bottom right of a
            box around it, which come first.
    """

    row: int
    mask: Tensor | None = None
    points: Tensor | None = None
    labels: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """What a network found in a frame.

    Attributes:
        rows: the R rows it is about.
        logits: float32 `[R, h, w]`, each object's own: above 0 is the object. At the size at which the network answers.
        presence: float32 `[R]`, the probability that the object is in the frame; None where the network has no opinion.
        memory: what the network wants back when the frame is memorised.
        boxes: top, bottom, left and right of a box for each of the R rows, px of the logits, ends excluded: it was
            looked for in there alone, and outside of it its logit is far below 0. None where it was looked for
            everywhere.
    """

    rows: tuple[int, ...]
    logits: Tensor
    presence: Tensor | None = None
    memory: Any = None
    boxes: tuple[tuple[int, int, int, int], ...] | None = None


@dataclass(frozen=True, eq=False)
class Template:
    """What the bank stores of a frame.

    Attributes:
        values: `[R, C, *S]`.
        extent: int64 `[R, d, 2]`, see `MemoryBank.write`; None where all of S counts.
    """

    values: Tensor
    extent: Tensor | None = None

    def of(self, rows: Sequence[int]) -> Template:
        """The templates of some of the R rows."""
        return Template(self.values[rows], None if self.extent is None else self.extent[rows])


class TrackingNetwork(Protocol):
    """What `VOSStream` needs of a network, a `torch.nn.Module`. Features are what `encode_query` gives, whatever that
    is.

    Attributes:
        takes_prompts: whether `segment` and `revise` take points; a network without gets masks alone.
        aggregation: how objects share pixels. `"soft"`: each object's own probability, see
            `stmemory.postprocess.soft_aggregate`. `"largest"`: the object with the largest logit above 0 has the pixel.
        tracking: options of `TrackingOptions` that are the network's own, where the user chooses none.
        training: as of a module.
        read: the space-time read, for those who show what was read; None in a network that reads in another way.
    """

    takes_prompts: bool
    aggregation: str
    training: bool

    @property
    def read(self) -> SpaceTimeRead | None:
        """See above."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    @property
    def tracking(self) -> Mapping[str, Any]:
        """See above."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As of a module."""

    def children(self) -> Iterator[nn.Module]:
        """As of a module."""

    def state_dict(self) -> Mapping[str, Any]:
        """As of a module."""

    def ready(self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """A copy that is fit to track with: in eval mode, without gradients, on that device and in that dtype.

        Raises:
            OptionError: the device is not there, or the dtype is no float.
        """

    def with_top_k(self, top_k: int | None) -> Self:
        """The same weights, reading from that many memory cells alone; None reads from all.

        Raises:
            OptionError: the network cannot.
        """

    def with_margin(self, margin: float | None) -> Self:
        """The same weights, looking for an object and memorising it within that many short sides of what the network is
        shown around its last place; None in all of it.

        Raises:
            OptionError: the network cannot.
        """

    def working_size(self, height: int, width: int, *, short_side: int | None, enlarge: float) -> WorkingSize:
        """The size at which it works on frames `[H, W]`; see `WorkingSize.of`."""

    def new_bank(self, capacity: int = 5, *, policy: str | UpdatePolicy = "least_similar") -> MemoryBank:
        """An empty bank for its templates.

        Raises:
            OptionError: it can read no bank of that many slots.
        """

    def new_beside(self) -> Beside:
        """An empty memory of what it remembers beside the bank."""

    def encode_query(self, frame: Tensor) -> Any:
        """Features of frames `[V, 3, H', W']`, RGB in [0, 1]."""

    def features_are_finite(self, features: Any) -> Tensor:
        """Whether what `memorise_beside` takes of the features is finite, bool `[]`."""

    def segment(
        self,
        features: Any,
        memory: Memory,
        given: Sequence[Given],
        *,
        frame: int,
        last: Tensor | None,
        size: WorkingSize,
    ) -> Found:
        """Find all objects of the memory in a frame.

        Args:
            features: of the frame.
            memory: of B rows.
            given: what is said of objects, new ones among them. A network may find these too, or leave them out; points
                it has to answer.
            frame: the frame's index.
            last: `[1 + N, H', W']`, probabilities of the frame before; None at the first.
            size: the size of what is looked at, and the working size.

        Returns:
            Rows 0 to B - 1, or these and the new ones.
        """

    def revise(
        self, features: Any, memory: Memory, given: Sequence[Given], *, frame: int, size: WorkingSize
    ) -> Found | None:
        """Find objects again in the frame that was segmented last, of which something is said now.

        Args:
            features: see `segment`.
            memory: its bank without the slots of these objects from this frame.
            given: what is said.
            frame: see `segment`.
            size: see `segment`.

        Returns:
            The rows of `given`; None where the network takes masks as they are.
        """

    def template(
        self,
        features: Any,
        found: Found | None,
        rows: Sequence[int],
        mask: Tensor,
        others: Tensor,
        *,
        given: bool,
    ) -> Template:
        """What the bank stores of a frame.

        Args:
            features: of the frame.
            found: what `segment` or `revise` found there, if anything.
            rows: R rows.
            mask: `[R, H', W']` in [0, 1], each row's object as it was labelled in the end.
            others: `[R, H', W']` in [0, 1], all other objects.
            given: whether the objects were given; else they were found.

        Returns:
            The templates of the R rows.
        """

    def memorise_beside(
        self,
        features: Any,
        found: Found | None,
        rows: Sequence[int],
        mask: Tensor,
        others: Tensor,
        *,
        memory: Memory,
        frame: int,
        given: bool,
    ) -> None:
        """Add to `memory.beside` what it remembers of a frame; arguments as of `template`."""

    def state_shapes(self, rows: int, slots: int, size: WorkingSize) -> Mapping[str, tuple[int, ...]]:
        """Shapes of what a state holds for B rows of K slots: `bank.templates` and other contents of the bank, `keys`,
        `values` and `seen` of the cache, and `sums.*` of the beside."""

    def stages(self) -> Sequence[tuple[nn.Module, str, str]]:
        """Its parts in the order in which they compute: each with the stage that it is, and the stage that comes after
        it."""
