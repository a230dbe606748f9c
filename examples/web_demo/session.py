"""One person's session: a clip, what was clicked or painted on which frame, and tracking from there, with corrections.

    FOLDER/clip.mp4                        the clip, under its own ending
    FOLDER/painted, FOLDER/masks           see `store.py`
    FOLDER/states                          see `track.py`
    FOLDER/masks.zip, FOLDER/overlay.mp4   see `take_home.py`

Owns the order of events. In memory it holds one stream and the record of its memory, both of a constant size, the
clicks on the frame that is shown, of a bounded one, and nothing that gains an item a frame. Draws no page.

The mask that clicks make is what the tracker is told, as if it was painted: what a person sees is what is tracked.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from clicks import Click, Clicks, Mask, mask_of_prompt, prompt_of, takes_clicks
from clip import Clip, clip_ending, shrink
from painting import Ids, Picture, changed_objects, draw, ids_of_layers, resize_ids
from PIL import Image
from shown import Shown, Step
from store import Painting, Store
from take_home import draw_film, zip_masks
from track import Track

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.predictor import VOSPredictor

__all__ = ["Session"]

PATIENCE = 60.0  # seconds that closing waits for the frame under way


class Session:
    """One clip at a time, for one person.

    Args:
        predictor: what tracks; sessions share it.
        folder: of this session alone; everything in it is the session's.
    """

    def __init__(self, predictor: VOSPredictor, folder: Path) -> None:
        self._predictor, self.folder, self._store = predictor, folder, Store(folder)
        self._clip: Clip | None = None
        self._track: Track | None = None
        self._shown: Shown | None = None
        self._changed: int | None = None  # the first frame whose paint is not tracked yet
        self._clicks: Clicks | None = None  # on the frame that is shown
        self._before_clicks: tuple[Painting | None, int | None] = None, None  # its paint and `_changed`, without them
        self._busy, self._stop, self._closed = threading.Lock(), False, False
        self._doing = ""  # what is busy

    @property
    def clip(self) -> Clip:
        """The clip that is open.

        Raises:
            FrameError: none is.
        """
        if self._clip is None:
            raise FrameError("expected a clip, none is open; open or record one, or take the demo clip")
        return self._clip

    @property
    def empty(self) -> bool:
        """Whether no clip is open."""
        return self._clip is None

    @property
    def busy(self) -> bool:
        """Whether something runs in it now."""
        return self._busy.locked()

    @property
    def position(self) -> int | None:
        """The last frame that was tracked."""
        return self._track.position if self._track else None

    @property
    def painted(self) -> list[int]:
        """The frames that were painted or clicked on."""
        return self._store.painted

    def open(self, path: str | os.PathLike[str]) -> Shown:
        """Take a clip, in place of the one before, and show its first frame.

        Raises:
            FrameError: there is no such file, and the clip before it stays; or it cannot be read, and the one before is
                gone all the same.
        """
        if not Path(path).is_file():
            raise FrameError(f"expected a clip, got no such file: {os.fspath(path)!r}; choose another")
        with self._alone():
            self._forget()
            kept = self.folder / f"clip{clip_ending(path)}"
            shutil.copyfile(path, kept)
            self._clip = Clip(kept)
        return self.show(0)

    def show(self, index: int) -> Shown:
        """Show a frame with what was painted on it, else with what was found in it.

        Raises:
            FrameError: there is no such frame, or no clip.
        """
        with self._alone():
            height, width = self.clip.shown_size
            picture = shrink(self.clip.picture(index), height=height, width=width)
            if self._clicks is not None and self._clicks.frame != index:
                self._clicks = None
            return self._see(index, picture, self._ids_at(index))

    @property
    def shown(self) -> Shown:
        """The frame that is shown.

        Raises:
            FrameError: none is.
        """
        if self._shown is None:
            raise FrameError("expected a frame to click or paint on, none is shown; open a clip first")
        return self._shown

    def click(self, object_id: int, place: tuple[float, float], *, inside: bool) -> Shown:
        """Take a click on the frame that is shown, and show the mask that comes of it.

        Args:
            object_id: of the object that it is about.
            place: x and y, px of the frame as it is shown.
            inside: whether that is the object; otherwise it is not.

        Raises:
            FrameError: no frame is shown.
            MaskError: the click says nothing, or no mask comes of it.
            OptionError: the weights take masks alone, or something is under way. After any error all is as it was.
        """
        with self._alone("click"):
            shown = self.shown
            if not takes_clicks(self._predictor):
                raise OptionError(
                    "these weights take masks alone, so a click makes no mask; paint the object, or start the demo "
                    "with --prompter"
                )
            clicks, click = self._clicks or Clicks(shown.frame, shown.ids), Click(object_id, *place, inside)
            clicks.check(click)
            mask = self._answer(clicks, click)
            if not mask.any():
                raise MaskError(f"nothing was found of object {object_id} there; click in its middle, or paint it")
            if self._clicks is None:
                self._clicks, self._before_clicks = clicks, (self._store.painting(shown.frame), self._changed)
            clicks.take(click, mask)
            return self._tell(clicks)

    def undo(self) -> Shown:
        """Take the last click on the frame that is shown back.

        Raises:
            FrameError: no frame is shown.
            MaskError: there is no click, or the frame was painted since.
            OptionError: something is under way.
        """
        with self._alone("click"):
            clicks = self._clicks or Clicks(self.shown.frame, self.shown.ids)
            clicks.undo()
            return self._tell(clicks)

    def paint(self, layers: Sequence[object], background: object = None) -> tuple[int, ...]:
        """Take what a person painted on the frame that is shown.

        Only objects that were changed are given to the tracker, as they are now; one of which nothing is left is not
        tracked from this frame on. Paint that is as it was shown is no paint.

        Args:
            layers: RGBA arrays; see `ids_of_layers`.
            background: what they were painted over, RGB or RGBA; paint over another frame than the one shown is left
                alone: a page may lag behind.

        Returns:
            The objects that were changed.

        Raises:
            FrameError: no frame is shown.
            MaskError: a layer cannot be used.
        """
        shown = self.shown
        if isinstance(background, np.ndarray) and not np.array_equal(background[..., :3], shown.picture):
            return ()
        height, width = shown.ids.shape
        ids = ids_of_layers(layers, height=height, width=width)
        changed = changed_objects(ids, shown.ids)
        if changed:
            self.give(shown.frame, ids, changed)
            if self._clicks is not None:
                self._clicks.settle(ids, changed)
                self._before_clicks = self._store.painting(shown.frame), self._changed
            self._see(shown.frame, shown.picture, ids)
        return changed

    def give(self, frame: int, ids: Ids, objects: Sequence[int]) -> None:
        """Say where objects are in a frame, as painting and clicking do.

        Args:
            frame: its index.
            ids: `[H', W']` of all objects that are seen there.
            objects: those that this is meant to say; one without a pixel is gone.
        """
        self._store.paint(frame, ids, objects)
        if self._shown is not None and self._shown.frame == frame:
            self._see(frame, self._shown.picture, ids)
        self._changed = frame if self._changed is None else min(self._changed, frame)

    def track(self) -> Iterator[Step]:
        """Track from the first paint that is new, else from where it stopped, to the end of the clip or until `stop`.

        Returns:
            One step a frame, as they are computed.

        Raises:
            FrameError: no clip is open, or it is damaged (when that is met).
            MaskError: nothing was painted yet.
            OptionError: all is tracked, and nothing new was painted; or tracking is under way.
        """
        clip, painted = self.clip, self.painted
        if not any(self._given(frame)[0].any() for frame in painted):
            raise MaskError(
                "expected an object on a frame, found none; choose an object and click on it, or choose an object and "
                "paint it, then track"
            )
        if self._changed is None and self._track and self._track.position >= clip.frames - 1:
            raise OptionError("every frame is tracked; choose a frame, correct what is wrong there, and track again")
        return self._steps(clip)

    def stop(self) -> None:
        """Let tracking or drawing end after the frame that it is at."""
        self._stop = True

    def timeline(self) -> Image.Image | None:
        """What the memory held over time; None before anything was tracked."""
        return self._track.timeline() if self._track else None

    def zip_masks(self) -> Path:
        """Pack the masks that are done.

        Raises:
            OptionError: there are none, or tracking is under way.
        """
        with self._alone():
            return zip_masks(self._store, self._done(), self.folder / "masks.zip")

    def overlay(self) -> Iterator[int]:
        """Draw the clip with its masks into `overlay_path`; a stop leaves a shorter film.

        Returns:
            The number of frames drawn, after each.

        Raises:
            OptionError: nothing is tracked, or tracking is under way.
            FrameError: PyAV is missing.
        """
        with self._alone():
            end = self._done().stop
            yield from draw_film(self._store, self.clip, end=end, path=self.overlay_path, stopped=lambda: self._stop)

    @property
    def overlay_path(self) -> Path:
        """Where `overlay` leaves its film."""
        return self.folder / "overlay.mp4"

    def close(self) -> None:
        """Stop, and remove the session's folder once nothing writes to it any more."""
        self._stop = self._closed = True
        freed = self._busy.acquire(timeout=PATIENCE)
        self._clip = self._track = self._shown = self._clicks = None
        shutil.rmtree(self.folder, ignore_errors=True)
        if freed:
            self._busy.release()

    def _steps(self, clip: Clip) -> Iterator[Step]:
        with self._alone():
            self._clicks = None
            track = self._rewound(clip)
            size = clip.shown_size
            frame = track.position
            if self._changed is not None and self._changed == frame:  # the very frame at which it stopped
                track.correct(*self._given(frame))
                self._changed = None
                yield self._step(clip, track, shrink(clip.picture(frame), height=size[0], width=size[1]))
            for frame, picture in enumerate(clip.pictures_from(track.position + 1), start=track.position + 1):
                if self._stop:
                    return
                track.step(picture, *self._given(frame))
                if self._changed is not None and self._changed <= frame:
                    self._changed = next((late for late in self.painted if late > frame), None)
                yield self._step(clip, track, shrink(picture, height=size[0], width=size[1]))
            clip.frames = frame + 1

    def _step(self, clip: Clip, track: Track, picture: Picture) -> Step:
        last = track.last
        ids = last.ids.cpu().numpy().astype(np.uint8)
        self._store.keep_mask(track.position, ids)
        drawn = draw(picture, resize_ids(ids, height=picture.shape[0], width=picture.shape[1]))
        return Step(track.position, clip.frames, drawn, dict(last.scores), dict(last.present), track.nbytes)

    def _rewound(self, clip: Clip) -> Track:
        """The track, where the first new paint asks for it to be; masks that are no longer true are removed."""
        first = min(frame for frame in self.painted if self._given(frame)[0].any())
        track, changed = self._track, self._changed
        going_on = track is not None and track.first == first and track.go_back(changed)
        if track is None or not going_on:
            track = self._track = Track(self._predictor, self.folder / "states", first=first)
        self._store.forget_masks(but=range(first, track.position + 1))
        return track

    def _see(self, frame: int, picture: Picture, ids: Ids) -> Shown:
        said, can_undo = (self._clicks.said, self._clicks.can_undo) if self._clicks else ((), False)
        self._shown = Shown(frame, picture, ids, said, can_undo)
        return self._shown

    def _answer(self, clicks: Clicks, click: Click) -> Mask:
        """The mask `[H', W']` that all clicks on an object make of it: from what is remembered of it, where it was
        tracked, else from what was clicked or painted on this frame."""
        height, width = self.clip.shown_size
        own, before = (self.clip.height, self.clip.width), clicks.mask(click.object_id)
        said = [one for one in (*clicks.said, click) if one.object_id == click.object_id]
        scale = own[1] / width, own[0] / height
        picture = self.clip.picture(clicks.frame)
        large = _resized(before, *own)
        found: Mask | None = None
        if self._track is not None and before.any():
            one_kind = len({one.inside for one in said}) == 1  # with both it is known what is right of what was found
            prompt = prompt_of(said, scale, before if one_kind else None)
            found = self._track.answer(clicks.frame, picture, large, prompt)
        if found is None:
            painted = clicks.base(click.object_id)
            prompt = prompt_of(said, scale, painted if painted.any() else None)
            found = mask_of_prompt(self._predictor, picture, large, prompt)
        return _resized(found, height, width)

    def _tell(self, clicks: Clicks) -> Shown:
        """Make what clicks say what is known of their frame."""
        shown = self.shown
        painting, self._changed = self._before_clicks
        self._store.put_back(clicks.frame, painting)
        if clicks.objects:
            self.give(clicks.frame, clicks.ids, clicks.objects)
        return self._see(clicks.frame, shown.picture, clicks.ids)

    @contextmanager
    def _alone(self, doing: str = "tracking") -> Iterator[None]:
        """One thing at a time: a second one is refused, not kept waiting."""
        if not self._busy.acquire(blocking=False):
            if self._doing == "click":
                raise OptionError("the last click is being worked on; wait for its mask, then go on")
            raise OptionError("tracking is under way; stop it first")
        self._doing = doing
        try:
            if self._closed:
                raise OptionError("this session has ended; load the page again")
            self._stop = False
            yield
        finally:
            self._busy.release()

    def _done(self) -> range:
        if self._track is None or self._track.position < self._track.first:
            raise OptionError("expected masks, there are none yet; paint an object and track it first")
        return range(self._track.first, self._track.position + 1)

    def _ids_at(self, frame: int) -> Ids:
        """What is shown over a frame: what was found, and over it what was painted."""
        height, width = self.clip.shown_size
        mask, painting = self._store.mask(frame), self._store.painting(frame)
        found = np.zeros((height, width), np.uint8) if mask is None else resize_ids(mask, height=height, width=width)
        if painting is None:
            return found
        told = np.isin(found, [*painting.there, *painting.gone])
        return np.where(painting.ids > 0, painting.ids, np.where(told, 0, found)).astype(np.uint8)

    def _given(self, frame: int) -> tuple[Ids, tuple[int, ...]]:
        """What the tracker is told of a frame, `[H, W]`, and which objects are gone from there on."""
        painting = self._store.painting(frame)
        if painting is None:
            return np.zeros((self.clip.height, self.clip.width), np.uint8), ()
        return resize_ids(painting.ids, height=self.clip.height, width=self.clip.width), painting.gone

    def _forget(self) -> None:
        self._clip = self._track = self._shown = self._clicks = self._changed = None
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)


def _resized(mask: Mask, height: int, width: int) -> Mask:
    resized: Mask = resize_ids(mask.astype(np.uint8), height=height, width=width) > 0
    return resized
