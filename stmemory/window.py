"""Where the network looks: at the whole frame, or through a window at what is tracked, enlarged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from torch import Tensor

from stmemory.io.frames import WorkingSize, fit, restore
from stmemory.io.masks import bounding_box

__all__ = ["Window", "aim", "closest", "is_cut", "place"]

ROOM = 1.3  # sides of a window, at the least, in sides of the box around the objects
_STEP = 0.2  # between two factors
CLOSER, FARTHER = 1.35, 0.9  # a window's size changes when it could be so much closer, or must be so much farther
_EDGE = 0.15  # of a window's sides: objects nearer to its edge than that move it


@dataclass(frozen=True)
class Window:
    """A part of a frame, of the frame's proportions. It is worked at in the working size of the whole frame.

    So all cells of all windows are as many, whatever the window: the memory takes the same bytes, a step the same time.

    Attributes:
        top: first row, px.
        left: first column, px.
        height: rows.
        width: columns.
    """

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def whole(cls, size: WorkingSize) -> Window:
        """The window that is all of the frame.

        >>> Window.whole(WorkingSize.of(30, 40, None, 16))
        Window(top=0, left=0, height=30, width=40)
        """
        return cls(0, 0, size.frame_height, size.frame_width)

    def is_whole(self, size: WorkingSize) -> bool:
        """Whether it is all of the frame."""
        return self == Window.whole(size)

    def fits(self, size: WorkingSize) -> bool:
        """Whether it is a window of such frames: whole numbers, inside."""
        whole = all(type(value) is int for value in astuple(self))
        rows = 0 <= self.top and 1 <= self.height <= size.frame_height - self.top
        return whole and rows and 0 <= self.left and 1 <= self.width <= size.frame_width - self.left

    def view(self, size: WorkingSize) -> WorkingSize:
        """The sizes of frames that are this window of frames of that size."""
        return WorkingSize(self.height, self.width, size.height, size.width, size.padded_height, size.padded_width)

    def covers(self, maps: Tensor) -> bool:
        """Whether nothing above 0 of maps `[*, H, W]` lies outside."""
        return int((self.part(maps) > 0).sum()) == int((maps > 0).sum())

    def part(self, maps: Tensor) -> Tensor:
        """What of maps `[*, H, W]` lies inside, `[*, height, width]`; copies nothing."""
        return maps[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def see(self, maps: Tensor, size: WorkingSize) -> Tensor:
        """Maps `[c, H, W]` through the window, at the padded working size `[c, H', W']`.

        >>> import torch
        >>> size = WorkingSize.of(32, 48, None, 16)
        >>> Window(0, 0, 16, 24).see(torch.ones(1, 32, 48), size).shape
        torch.Size([1, 32, 48])
        """
        return fit(self.part(maps), self.view(size))

    def put_back(self, probabilities: Tensor, size: WorkingSize) -> Tensor:
        """Probabilities `[1 + N, H', W']` of the window in the whole frame, `[1 + N, H, W]`: outside is background.

        >>> import torch
        >>> size = WorkingSize.of(32, 48, None, 16)
        >>> object_alone = torch.tensor([0.0, 1.0]).view(2, 1, 1).expand(2, 32, 48)
        >>> Window(0, 0, 16, 24).put_back(object_alone, size).sum((1, 2)).tolist()
        [1152.0, 384.0]
        """
        if self.is_whole(size):
            return restore(probabilities, size)
        full = probabilities.new_zeros(len(probabilities), size.frame_height, size.frame_width)
        full[0] = 1
        return self._paste(probabilities, full, size)

    def boxes_in_frame(
        self, boxes: Sequence[tuple[int, int, int, int]], size: WorkingSize
    ) -> list[tuple[int, int, int, int]]:
        """Boxes, px of the padded working size of this window, in px of the frame: what `put_back` may make of what is
        in them lies inside.

        >>> size = WorkingSize.of(32, 48, None, 16)
        >>> Window(0, 0, 16, 24).boxes_in_frame([(0, 16, 16, 32)], size)
        [(0, 10, 6, 18)]
        """
        sides = ((self.top, self.height / size.height, self.height), (self.left, self.width / size.width, self.width))
        found = []
        for box in boxes:
            ends = []
            for (start, scale, length), first, end in zip(sides, box[::2], box[1::2], strict=True):
                about = 0 if scale == 1 else 1 + math.ceil(scale)  # px that interpolation mixes with those of the box
                ends += [
                    start + min(length, max(0, math.floor(first * scale) - about)),
                    start + min(length, math.ceil(end * scale) + about),
                ]
            found.append((ends[0], ends[1], ends[2], ends[3]))
        return found

    def turn(self, places: Tensor, to: Window, size: WorkingSize) -> Tensor:
        """Places bool `[N, H', W']` of this window, as another one has them: each pixel that they touch."""
        if self == to or not len(places):
            return places
        return self.carry(places.float(), to, size) > 0

    def carry(self, maps: Tensor, to: Window, size: WorkingSize) -> Tensor:
        """Maps `[c, H', W']` of this window, as another one has them: 0 is what lies outside of this.

        >>> import torch
        >>> size = WorkingSize.of(32, 48, None, 16)
        >>> Window(0, 0, 16, 24).carry(torch.ones(1, 32, 48), Window.whole(size), size).sum().item()
        384.0
        """
        full = maps.new_zeros(len(maps), size.frame_height, size.frame_width)
        return to.see(self._paste(maps, full, size), size)

    def _paste(self, maps: Tensor, full: Tensor, size: WorkingSize) -> Tensor:
        """Write maps `[c, H', W']` of the window to their place in `full` `[c, H, W]`, and return that."""
        return self.paste(restore(maps, self.view(size)), full)

    def paste(self, maps: Tensor, full: Tensor) -> Tensor:
        """Write maps `[c, height, width]` to the window's place in `full` `[c, H, W]`, and return that."""
        self.part(full).copy_(maps)
        return full


def aim(seen: Tensor, size: WorkingSize, before: Window | None, *, zoom: float) -> Window:
    """The window to look through at the next frame: that of the last frame, while it still suits the objects.

    Args:
        seen: bool `[H, W]`, where the objects are; without any, the whole frame is looked at.
        size: of the frames.
        before: the window of the last frame; None before the first.
        zoom: how much larger than in the frame things may be seen, 1 or more.

    >>> import torch
    >>> size, seen = WorkingSize.of(100, 200, None, 16), torch.zeros(100, 200).bool()
    >>> seen[40:60, 150:180] = True
    >>> aim(seen, size, None, zoom=2)
    Window(top=25, left=100, height=50, width=100)
    """
    box = None if zoom == 1 else bounding_box(seen)
    if box is None:
        return Window.whole(size)
    current = before or Window.whole(size)
    now = size.frame_height / current.height
    most = closest(box, size, room=ROOM)
    best = max(1.0, int(min(most, zoom) / _STEP + 1e-6) * _STEP)
    factor = best if before is None or most < FARTHER * now or best > CLOSER * now else now
    height, width = round(size.frame_height / factor), round(size.frame_width / factor)
    return place(box, height, width, current, size)


def closest(box: tuple[int, int, int, int], size: WorkingSize, *, room: float) -> float:
    """How much larger than in the frame a box can be seen, at the most.

    Args:
        box: top, bottom, left and right, px.
        size: of the frames.
        room: sides of the window, at the least, in sides of the box.

    >>> closest((40, 60, 150, 180), WorkingSize.of(100, 200, None, 16), room=2)
    2.5
    """
    top, bottom, left, right = box
    return 1 / (room * max((bottom - top) / size.frame_height, (right - left) / size.frame_width))


def place(box: tuple[int, int, int, int], height: int, width: int, before: Window, size: WorkingSize) -> Window:
    """A window of that size around a box: the one before it, if it is as large and the box is not too near its edges.

    Args:
        box: top, bottom, left and right of the objects, px.
        height: rows of the window.
        width: columns of the window.
        before: the window of the last frame.
        size: of the frames.

    >>> size = WorkingSize.of(100, 200, None, 16)
    >>> place((40, 60, 150, 180), 50, 100, Window(24, 98, 50, 100), size)
    Window(top=24, left=98, height=50, width=100)
    """
    top, bottom, left, right = box
    across = _has_room(before.left, width, (left, right), size.frame_width) and width == before.width
    if across and _has_room(before.top, height, (top, bottom), size.frame_height) and height == before.height:
        return before
    return Window(
        _around((top + bottom) / 2, height, size.frame_height),
        _around((left + right) / 2, width, size.frame_width),
        height,
        width,
    )


def is_cut(given: Tensor) -> bool:
    """Whether an object of masks `[G, H, W]` lies at the frame's edge, which may cut off a part of it.

    Its template then has the edge in it, and what lies there later is taken for it: the more so, the more closely it is
    looked at.

    >>> import torch
    >>> is_cut(torch.eye(3)[None])
    True
    """
    sides = (given[:, 0], given[:, -1], given[:, :, 0], given[:, :, -1])
    return any(bool((side > 0.5).any()) for side in sides)


def _has_room(start: int, length: int, span: tuple[int, int], whole: int) -> bool:
    """Whether a span is far enough from both ends of a window, along one side; an end at the frame's edge does not
    count."""
    room, end = _EDGE * length, start + length
    return (start == 0 or span[0] - start >= room) and (end == whole or end - span[1] >= room)


def _around(centre: float, length: int, whole: int) -> int:
    """The start of a window of a length with its centre there, as far as the frame allows."""
    return int(min(max(centre - length / 2, 0), whole - length))
