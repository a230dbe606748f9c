"""Views: a clip seen through a window around its objects, as in tracking."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stmemory.io.frames import WorkingSize, resize
from stmemory.window import CLOSER, FARTHER, ROOM, Window, place

__all__ = ["View", "Views", "carried", "draw_views", "seen_through"]

_ROOM = ROOM, 2.2  # sides of a window, at the least, in sides of the box around the objects
_CLOSEST = 1.5, 2.5  # how much larger than in the frame things are seen, at the most
_CHANGES = 0.1  # probability that a window is drawn again without a reason
_AT_ONCE = 0.25  # probability that the first frame is seen through a window already

_Box = tuple[int, int, int, int]  # top, bottom, left, right; px


@dataclass(frozen=True)
class View:
    """How one clip is looked at: from some frame on through a window.

    Attributes:
        first: that frame.
        chances: of each frame, in [0, 1): whether its window is drawn again, and how much room and how close that is.
    """

    first: int
    chances: tuple[tuple[float, float, float], ...]

    def window(self, time: int, box: _Box | None, before: Window, size: WorkingSize) -> Window:
        """The window of a frame: the one before, while the objects stay well inside, or a new one.

        Args:
            time: index of the frame.
            box: around the objects of the frame before; None where there are none.
            before: the window of the frame before.
            size: size of the frames.

        >>> size = WorkingSize.of(96, 192, None, 16)
        >>> View(first=0, chances=((0.5, 0.0, 0.5),)).window(0, (40, 60, 150, 180), Window.whole(size), size)
        Window(top=26, left=96, height=48, width=96)
        """
        if time < self.first or box is None:
            return Window.whole(size)
        change, *shares = self.chances[time % len(self.chances)]
        room, closest = (
            low + share * (high - low) for share, (low, high) in zip(shares, (_ROOM, _CLOSEST), strict=True)
        )
        now = size.frame_height / before.height
        whole = min(size.frame_height / (box[1] - box[0]), size.frame_width / (box[3] - box[2]))  # the frame, in boxes
        tight = whole / _ROOM[0] < FARTHER * now
        loose = min(whole / _ROOM[1], _CLOSEST[0]) > CLOSER * now
        height, width = before.height, before.width
        if time == self.first or change < _CHANGES or tight or loose:
            factor = max(1.0, min(whole / room, closest))
            height, width = round(size.frame_height / factor), round(size.frame_width / factor)
        return place(box, height, width, before, size)


def draw_views(clips: int, frames: int, probability: float, generator: torch.Generator) -> tuple[View | None, ...]:
    """Draw for each clip how it is looked at, or that all of it is seen.

    Args:
        clips: V.
        frames: T of the clips, 2 or more.
        probability: probability of a view, for each clip.
        generator: the only source of chance; asked for nothing where the probability is 0.

    >>> draw_views(2, 8, 0.0, torch.Generator())
    (None, None)
    """
    if probability == 0:
        return (None,) * clips
    found: list[View | None] = []
    for is_seen, at_once, start, *rest in torch.rand(clips, 3 + 3 * frames, generator=generator).tolist():
        first = 0 if at_once < _AT_ONCE else 1 + int(start * (frames - 1))
        chances = tuple(zip(rest[::3], rest[1::3], rest[2::3], strict=True))
        found.append(View(first, chances) if is_seen < probability else None)
    return tuple(found)


class Views:
    """The windows of V clips, from one segment to the next.

    Args:
        views: views of the V clips; None sees all of the frame.
        size: size of the frames.
    """

    def __init__(self, views: tuple[View | None, ...], size: WorkingSize) -> None:
        self.views, self.size = views, size
        self._time = 0  # frames seen
        self._last = [Window.whole(size)] * len(views)
        self._boxes: list[_Box | None] = [None] * len(views)  # of the last frame

    def advance(self, tracked: Tensor) -> tuple[tuple[Window, ...], ...]:
        """The windows of the next S frames of the V clips; each knows only the frames before its own, as in tracking.

        Args:
            tracked: bool `[V, S, H, W]`, where tracked objects truly are, in whole frames. Frame 0 is looked at by its
                own, which are given.
        """
        result = []
        for clip, (view, boxes) in enumerate(zip(self.views, _boxes(tracked), strict=True)):
            windows: list[Window] = []
            known = [boxes[0] if self._time == 0 else self._boxes[clip], *boxes[:-1]]
            for time, box in enumerate(known, self._time):
                last = windows[-1] if windows else self._last[clip]
                windows.append(Window.whole(self.size) if view is None else view.window(time, box, last, self.size))
            self._last[clip], self._boxes[clip] = windows[-1], boxes[-1]
            result.append(tuple(windows))
        self._time += tracked.shape[1]
        return tuple(result)


def seen_through(
    frames: Tensor, ids: Tensor, windows: Sequence[Sequence[Window]], size: WorkingSize
) -> tuple[Tensor, Tensor]:
    """Frames and ids as windows show them, at the size of the whole frame: bilinearly, and by the nearest pixel.

    Args:
        frames: `[V, S, 3, H, W]`, RGB in [0, 1].
        ids: `[V, S, H, W]` int64.
        windows: windows of the S frames of each of the V clips.
        size: size of the frames.

    >>> size = WorkingSize.of(16, 16, None, 16)
    >>> ids = torch.arange(16).expand(1, 1, 16, 16)
    >>> seen_through(torch.zeros(1, 1, 3, 16, 16), ids, [[Window(0, 4, 8, 8)]], size)[1][0, 0, 0].tolist()
    [4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11]
    """
    frames, ids = frames.clone(), ids.clone()
    height, width = ids.shape[2:]
    for clip, of_clip in enumerate(windows):
        start = 0
        for window, group in itertools.groupby(of_clip):
            part = slice(start, start := start + len(list(group)))
            if window.is_whole(size):
                continue
            rows, columns = (_nearest(*each, ids.device) for each in ((window.height, height), (window.width, width)))
            frames[clip, part] = resize(window.part(frames[clip, part]), height, width)
            ids[clip, part] = window.part(ids[clip, part])[:, rows[:, None], columns]
    return frames, ids


def carried(
    masks: Tensor, clips: Sequence[int], before: Sequence[Window], after: Sequence[Window], size: WorkingSize
) -> Tensor:
    """Masks as other windows show them: back in the whole frame, 0 outside of their window, and through the new one.

    Args:
        masks: `[B, H, W]` in [0, 1].
        clips: index of the clip of each of the B rows.
        before: the V windows through which they are seen.
        after: the V windows to see them through.
        size: size of the frames.

    >>> size = WorkingSize.of(16, 16, None, 16)
    >>> left, right = Window(0, 0, 8, 8), Window(0, 4, 8, 8)
    >>> carried(torch.ones(1, 16, 16), [0], [left], [right], size)[0, 0].tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    changed = {clip for clip, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    if not changed.intersection(clips):
        return masks
    rows = list(masks)
    for row, clip in enumerate(clips):
        if clip in changed:
            rows[row] = before[clip].carry(rows[row][None], after[clip], size)[0]
    return torch.stack(rows)


def _boxes(seen: Tensor) -> list[list[_Box | None]]:
    """The boxes around what is true in bool maps `[V, S, H, W]`; looks at the device once."""
    limits = []
    for dim in (3, 2):
        line = seen.any(dim).to(torch.uint8)  # [V, S, H] or [V, S, W]
        limits += [line.argmax(2), line.shape[2] - line.flip(2).argmax(2)]
    found = torch.stack([*limits, seen.flatten(2).any(2)], -1).tolist()  # [V, S, 5]
    return [[(each[0], each[1], each[2], each[3]) if each[4] else None for each in clip] for clip in found]


def _nearest(inside: int, length: int, device: torch.device) -> Tensor:
    """For each of `length` pixels the nearest of those inside a window, int64 `[length]`."""
    return (2 * torch.arange(length, device=device) + 1) * inside // (2 * length)
