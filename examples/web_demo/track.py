"""Tracking that can be taken back: a stream under inspection, and at most six saved states to go back to.

Frames have the clip's own numbers, also when tracking begins in its midst. Knows no painting and no masks on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from clicks import Mask
from painting import Ids, Picture
from PIL import Image

from stmemory.inspection import Inspector
from stmemory.predictor import VOSPredictor
from stmemory.prompts import Prompt
from stmemory.result import Segmentation
from stmemory.state import StreamState
from stmemory.types import FrameLike

__all__ = ["MOST_STATES", "Track"]

MOST_STATES = 6  # on disk
SPACING = 8  # frames between two of them at first; twice as many whenever there are too many


class Track:
    """From one frame of a clip on.

    Args:
        predictor: what tracks.
        folder: of the saved states.
        first: the frame that tracking begins with.

    Attributes:
        first: the same.
    """

    def __init__(self, predictor: VOSPredictor, folder: Path, *, first: int) -> None:
        self.first = first
        self._predictor, self._folder, self._spacing = predictor, folder, SPACING
        network, options = predictor.network, predictor.options
        bank = network.new_bank(options.memory_size, policy=options.policy)
        state = StreamState(bank, network.new_beside(), frame_index=first - 1)
        self._inspector = Inspector(predictor.new_stream(state), at=())
        self._records: dict[int, Inspector] = {}  # by the frame that a state was saved after
        for old in folder.glob("*"):
            old.unlink()

    @property
    def position(self) -> int:
        """The last frame that was tracked; the one before `first` when none was."""
        return self._inspector.stream.frame_index

    @property
    def last(self) -> Segmentation:
        """The last frame's result."""
        return self._inspector.stream.last

    @property
    def nbytes(self) -> int:
        """Of all that the stream remembers."""
        return self._inspector.stream.nbytes

    def step(self, frame: FrameLike, given: Ids, gone: Sequence[int]) -> None:
        """Take the next frame.

        Args:
            frame: it, of any kind that `to_frame` takes.
            given: `[H, W]`, what is known of it, 0 where nothing is.
            gone: objects that are not tracked from here on.

        Raises:
            StmemoryError: see `VOSStream.step`.
        """
        self._remove(gone)
        self._inspector.step(frame, given if given.any() else None)
        if (self.position - self.first) % self._spacing == 0:
            self._save()

    def correct(self, given: Ids, gone: Sequence[int]) -> None:
        """Say of the last frame what `step` would have been told of it."""
        if given.any():
            self._inspector.stream.correct(given)
        self._remove(gone)
        self._drop([frame for frame in self._records if frame >= self.position])

    def answer(self, frame: int, picture: Picture, before: Mask, prompt: Prompt) -> Mask | None:
        """Say what a prompt makes of an object, from what is remembered of it; nothing changes.

        It is asked for where the frame is the last one that was tracked, and else from the last saved state before it.

        Args:
            frame: its index.
            picture: it, uint8 RGB `[H, W, 3]`.
            before: `[H, W]`, what is known of the object in it.
            prompt: of the object.

        Returns:
            Its mask `[H, W]`; None where nothing is remembered of it from earlier frames.

        Raises:
            StmemoryError: see `VOSStream.correct`.
        """
        live = self._inspector.stream
        path = self._folder / "asked"
        if self.first < frame == self.position and prompt.object_id in live.object_ids:
            live.save(path)
            stream = self._predictor.resume(path)
            path.unlink()
            stream.correct(before.astype(np.uint8) * prompt.object_id)
        elif frame < self.position and (earlier := [saved for saved in self._records if saved < frame]):
            stream = self._predictor.resume(self._path(max(earlier)))
            if prompt.object_id not in stream.object_ids:
                return None
            stream.step(picture, before.astype(np.uint8) * prompt.object_id)
        else:
            return None
        found: Mask = stream.correct(prompts=prompt).ids.cpu().numpy() == prompt.object_id
        return found

    def go_back(self, frame: int | None) -> bool:
        """Go back so that a frame can be told anew: to the last saved state before it. The record of the memory goes
        back too.

        Args:
            frame: the frame. The last one that was tracked can be corrected where it is, and a later one is still to
                come: for these, and for None, nothing changes.

        Returns:
            Whether that was possible; otherwise tracking has to begin anew.
        """
        if frame is None or frame >= self.position:
            return True
        earlier = [saved for saved in self._records if saved < frame]
        if not earlier:
            return False
        self._drop([saved for saved in self._records if saved >= frame])
        latest = max(earlier)
        self._inspector = self._records[latest].follow(self._predictor.resume(self._path(latest)))
        return True

    def timeline(self) -> Image.Image | None:
        """What the memory held over time; None before the first frame."""
        return self._inspector.report().timeline() if self.position >= self.first else None

    def _remove(self, gone: Sequence[int]) -> None:
        self._inspector.stream.remove_objects(i for i in gone if i in self._inspector.stream.object_ids)

    def _save(self) -> None:
        self._inspector.stream.save(self._path(self.position))
        self._records[self.position] = self._inspector.follow(self._inspector.stream)
        while len(self._records) > MOST_STATES:
            self._spacing *= 2
            self._drop([frame for frame in self._records if (frame - self.first) % self._spacing])

    def _drop(self, frames: Sequence[int]) -> None:
        for frame in frames:
            del self._records[frame]
            self._path(frame).unlink()

    def _path(self, frame: int) -> Path:
        return self._folder / f"{frame:05d}"
