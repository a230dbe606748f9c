"""`InspectionReport`: what an inspector saw, as images and as JSON.

OUT/timeline.png                       what became of each frame, what the slots held, what was read
OUT/slots.png                          what the slots hold at the end
OUT/attention_00012_object_5.png ...   where points of frame 12 read from, one a frame and object
OUT/inspection.json                    all that is drawn, as numbers; weights of 1e-6 and more, as [row, column, weight]
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.inspection.figures import draw_attention, draw_slots, peak_of
from stmemory.inspection.history import KINDS, OUTCOMES, History
from stmemory.inspection.moments import Moment, Point, Thumbnail, attention_of, check_point
from stmemory.inspection.timeline import draw_timeline
from stmemory.io.files import whole_file
from stmemory.memory.read import SpaceTimeRead
from stmemory.memory.slots import SlotInfo
from stmemory.options import TrackingOptions

__all__ = ["InspectionReport"]

DIGITS = 6  # of shares and weights in JSON
LEAST = 1e-6  # weight of a cell that stands there
SLOT_COLUMNS = ("origin", "size", "pinned", "writes", "drops", "fusions")


@dataclass(frozen=True, eq=False)
class InspectionReport:
    """What an inspector saw; made by `Inspector.report` and `inspect`.

    Attributes:
        options: how it was tracked.
        read: the network's read, for its affinity, scale and top-k count; None where it reads in another way, of which
            nothing is kept.
        histories: what happened to the slots, by object id.
        slots: what they hold at the end, by object id and slot number; objects that were removed are missing.
        similarity: `[K, K]` of eq. 1 at the end, by object id.
        thumbnails: of the frames that stand in slots at the end, by frame.
        moments: the frames whose reads were kept, by frame.
        points: where to look in them; None is each object's own.
    """

    options: TrackingOptions
    read: SpaceTimeRead | None
    histories: Mapping[int, History]
    slots: Mapping[int, Mapping[int, SlotInfo]]
    similarity: Mapping[int, NDArray[np.float32]]
    thumbnails: Mapping[int, Thumbnail]
    moments: Mapping[int, Moment]
    points: tuple[Point, ...] | None = None

    def timeline(self) -> Image.Image:
        """What became of each frame, which frames the slots held, and which slots were read, over time.

        Raises:
            MaskError: there was no object.
        """
        if not self.histories:
            raise MaskError("timeline: expected an object, got a stream without any; give the first frame's mask")
        return draw_timeline(self.histories, gate=self.options.write_gate)

    def slot_sheet(self) -> Image.Image:
        """What the slots hold at the end, which frames went into them, and how alike they are."""
        return draw_slots(self.histories, self.slots, self.similarity, self.thumbnails)

    def attention(self, frame: int, object_id: int, *, points: Sequence[Point] | None = None) -> Image.Image:
        """Where points of a frame read from.

        Args:
            frame: one of `moments`.
            object_id: whose memory.
            points: pixels (x, y) of the frame; None takes those that the inspector was given, or the object's own.

        Raises:
            FrameError: the frame's read was not kept.
            MaskError: the object was not read in that frame.
            OptionError: a point lies outside the frame.
        """
        points = self.points_of(frame, object_id) if points is None else points
        whole = self.moments[frame].objects[object_id].cells
        over_all = self.weights(frame, object_id) if len(whole) else None
        return draw_attention(
            self.moments[frame],
            object_id,
            points,
            [self.weights(frame, object_id, p) for p in points],
            over_all=over_all,
        )

    def weights(self, frame: int, object_id: int, point: Point | None = None) -> NDArray[np.float32]:
        """Where a point of a frame read from.

        Args:
            frame: one of `moments`.
            object_id: whose memory.
            point: a pixel (x, y) of the frame; None is the mean over the object's cells.

        Returns:
            `[K, h, w]`, sums to 1. Zeros without a point, where the object was not seen.

        Raises:
            FrameError: the frame's read was not kept.
            MaskError: the object was not read in that frame.
            OptionError: the point lies outside the frame.
        """
        moment = self._moment(frame, object_id)
        cells = moment.objects[object_id].cells
        if point is not None:
            check_point(point, *moment.frame_size)
            row, column = moment.cell_of(point)
            cells = torch.tensor([row * moment.query.shape[2] + column])
        if len(cells) == 0:
            return np.zeros((self.options.memory_size, *moment.query.shape[1:]), np.float32)
        if self.read is None:
            raise OptionError("attention: expected a network with a space-time read, got one that reads in another way")
        return attention_of(moment, object_id, cells, read=self.read)

    def points_of(self, frame: int, object_id: int) -> tuple[Point, ...]:
        """Where `attention` looks by default."""
        moment = self._moment(frame, object_id)
        return moment.objects[object_id].points if self.points is None else self.points

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Draw everything into a folder, which is made.

        Args:
            folder: files of the names above are replaced.

        Returns:
            The files.
        """
        written = []
        for name, picture in self._pictures():
            written.append(Path(folder) / name)
            with whole_file(written[-1]) as part:
                picture.save(part, format="PNG", optimize=True)
        written.append(Path(folder) / "inspection.json")
        with whole_file(written[-1]) as part:
            part.write_text(json.dumps(self.as_dict(), allow_nan=False) + "\n", encoding="utf-8")
        return written

    def as_dict(self) -> dict[str, object]:
        """All that is drawn, as plain values; ids are text, as JSON wants them."""
        reads = [
            {
                "frame": frame,
                "object": object_id,
                "point": list(point) if point else None,
                **self._read(frame, object_id, point),
            }
            for frame, moment in sorted(self.moments.items())
            for object_id in moment.objects
            for point in (None, *self.points_of(frame, object_id))
        ]
        return {
            "options": self.options.as_dict(),
            "objects": {
                str(object_id): self._object(object_id, history) for object_id, history in self.histories.items()
            },
            "attention": reads,
        }

    def _pictures(self) -> Iterator[tuple[str, Image.Image]]:
        """One after the other, so that only one is held."""
        yield "timeline.png", self.timeline()
        yield "slots.png", self.slot_sheet()
        for frame, moment in sorted(self.moments.items()):
            for object_id in moment.objects:
                yield f"attention_{frame:05d}_object_{object_id}.png", self.attention(frame, object_id)

    def _moment(self, frame: int, object_id: int) -> Moment:
        if frame not in self.moments:
            raise FrameError(
                f"attention: expected one of the frames {sorted(self.moments)}, got {frame}; name it in `at` before "
                "tracking"
            )
        if object_id not in self.moments[frame].objects:
            ids = sorted(self.moments[frame].objects)
            raise MaskError(
                f"attention: expected an object whose memory frame {frame} read, of {ids}, got {object_id}; the frame "
                "in which an object enters reads nothing of it"
            )
        return self.moments[frame]

    def _read(self, frame: int, object_id: int, point: Point | None) -> dict[str, object]:
        heat, moment = self.weights(frame, object_id, point), self.moments[frame]
        slots = [
            {
                **dataclasses.asdict(info),
                "share": round(float(heat[slot].sum()), DIGITS),
                "peak": list(peak_of(heat[slot], moment.size)),
                "weights": [
                    [int(y), int(x), round(float(heat[slot, y, x]), DIGITS)]
                    for y, x in np.argwhere(heat[slot] >= LEAST)
                ],
            }
            for slot, info in sorted(moment.objects[object_id].slots.items())
        ]
        return {"cell": list(moment.cell_of(point)) if point else None, "slots": slots}

    def _object(self, object_id: int, history: History) -> dict[str, object]:
        used = slice(0, history.columns)
        reads = np.maximum(history.reads[used], 1)
        return {
            "first_frame": history.first,
            "last_frame": history.last,
            "frames_per_column": history.stride,
            "columns": {
                "outcomes": {name: history.outcomes[n, used].tolist() for n, name in enumerate(OUTCOMES)},
                "lowest_score": [float(score) if np.isfinite(score) else None for score in history.score[used]],
                **{name: getattr(history, name)[:, used].tolist() for name in SLOT_COLUMNS},
                "frames_inside_at_the_end": history.inside[:, used].tolist(),
                "frames_read": history.reads[used].tolist(),
                "attention_share": (history.share[:, used] / reads).round(DIGITS).tolist(),
                "attention_share_of_kinds": dict(
                    zip(KINDS, (history.kinds[:, used] / reads).round(DIGITS).tolist(), strict=True)
                ),
            },
            "latest_changes": [dataclasses.asdict(change) for change in history.changes],
            "slots": [dataclasses.asdict(info) for _, info in sorted(self.slots.get(object_id, {}).items())],
            "similarity": self.similarity[object_id].tolist() if object_id in self.similarity else None,
        }
