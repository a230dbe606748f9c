"""What the page is given of a frame: to click and paint on, and while it is tracked."""

from __future__ import annotations

from dataclasses import dataclass

from clicks import Click
from painting import Ids, Picture

__all__ = ["Shown", "Step"]


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame as the page shows it, for clicks and for painting.

    Attributes:
        frame: its index.
        picture: uint8 RGB `[H', W', 3]`.
        ids: `[H', W']`, what was painted or clicked there, else what was found.
        clicks: those on it.
        can_undo: whether the last one can be taken back.
    """

    frame: int
    picture: Picture
    ids: Ids
    clicks: tuple[Click, ...] = ()
    can_undo: bool = False


@dataclass(frozen=True, eq=False)
class Step:
    """One frame that was tracked.

    Attributes:
        frame: its index.
        frames: of the clip.
        picture: it with what was found drawn over it, as the page shows it.
        scores: for each object, how sure its mask is, in [0, 1].
        present: for each object, whether it is seen.
        nbytes: of all that is remembered of the clip.
    """

    frame: int
    frames: int
    picture: Picture
    scores: dict[int, float]
    present: dict[int, bool]
    nbytes: int
