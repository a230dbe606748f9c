"""Synthetic clips with exact masks, each a pure function of (seed, index), and contact sheets of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from PIL import Image
from torch import Tensor

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.io.files import whole_file
from stmemory.training.data.material import Photo, Pictures
from stmemory.training.synthesis.cutouts import Cutter
from stmemory.training.synthesis.events import Shot
from stmemory.training.synthesis.motion import place_camera
from stmemory.training.synthesis.render import ClipPlan, Film, Scene, develop, draw_look, ids_at
from stmemory.training.synthesis.scene import draw_scene

__all__ = ["Clip", "ClipConfig", "ClipSource", "Clips", "clip_strips", "render_clip"]

_ATTEMPTS = 25
_SEEN = 12 / 224**2  # least share of frame 0 that a tracked object must cover: 12 pixels at 224 x 224


@dataclass(frozen=True)
class ClipConfig:
    """What clips look like; all probabilities are in [0, 1].

    Attributes:
        size: side of the square frames, pixels.
        frames: T.
        max_objects: most tracked objects in a clip.
        max_pasted: most cut-outs pasted, tracked or not.
        gap: most frames of motion between two frames of a clip; each clip draws its own from 1 to here.
        photo_base: the base is a photo with instances, some of them tracked, rather than a mere background.
        video: the clip comes from a packed video, if there are any.
        local_motion: a tracked instance of the base moves by itself.
        lookalike: an untracked copy of a tracked cut-out moves about.
        event: an object is passed over by another, or leaves the frame and comes back.
        composite: a tracked cut-out is one of two or three that are attached and move against each other, as one
            object.
        reveal: an object is hidden in part in the first frame, and comes into view.
        natural: a cut-out is photographed, rather than drawn or rendered.
        blur: the clip is out of focus.
        grey: the clip has no colour.
        reverse: time runs backwards.
        warp: a clip of a video is seen by a camera that moves on its own: the paper's linear transformations of each
            frame.
    """

    size: int = 256
    frames: int = 6
    max_objects: int = 3
    max_pasted: int = 4
    gap: int = 1
    photo_base: float = 0.6
    video: float = 0.1
    local_motion: float = 0.5
    lookalike: float = 0.33
    event: float = 0.2
    composite: float = 0.0
    reveal: float = 0.0
    natural: float = 0.75
    blur: float = 0.3
    grey: float = 0.05
    reverse: float = 0.1
    warp: float = 0.0

    def __post_init__(self) -> None:
        """Check every field."""
        if self.size < 16 or self.frames < 1 or not 1 <= self.max_objects <= 50 or min(self.max_pasted, self.gap) < 1:
            raise OptionError(
                "ClipConfig: expected size >= 16, frames >= 1, max_objects in 1..50, max_pasted and gap >= 1, "
                f"got {self.size}, {self.frames}, {self.max_objects}, {self.max_pasted}, {self.gap}"
            )
        for field in fields(self)[5:]:
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise OptionError(f"ClipConfig.{field.name}: expected a probability in [0, 1], got {value}")


@dataclass(frozen=True, eq=False)
class Clip:
    """A short video with masks.

    Attributes:
        frames: uint8 [T, 3, H, W], RGB.
        ids: uint8 [T, H, W], 0 = background, 1..N = tracked objects where they are seen; all N are seen in frame 0.
        name: what it was made from, for messages.
        skipped: one line for each file that was drawn for it and could not be used.
    """

    frames: Tensor
    ids: Tensor
    name: str
    skipped: tuple[str, ...] = ()


class Clips(Protocol):
    """An endless list of clips of one size and length."""

    def draw(self, index: int) -> ClipPlan:
        """The plan of the clip of that number: what it will show, not yet rendered."""
        ...

    def clip(self, index: int) -> Clip:
        """The clip of that number, 0 or more; the same whenever it is asked for."""
        ...


def render_clip(plan: ClipPlan) -> Clip:
    """The clip of a plan, on the device of the plan's tensors.

    >>> from stmemory.training.synthesis.render import Look
    >>> film = Film(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.ones(2, 16, 16, dtype=torch.uint8))
    >>> plan = ClipPlan(Scene(film, (), 16, "film"), torch.arange(256, dtype=torch.uint8), Look(torch.ones(2, 3)))
    >>> clip = render_clip(plan)
    >>> clip.name, clip.frames.shape
    ('film', torch.Size([2, 3, 16, 16]))
    """
    frames, ids = develop(plan)
    return Clip(frames=frames, ids=ids, name=plan.scene.name, skipped=plan.skipped)


class ClipSource:
    """An endless list of clips: the same (seed, index) gives the same clip in every process and order."""

    def __init__(self, material: Pictures, config: ClipConfig, seed: int, *, skip_bad: bool = False) -> None:
        """Remember what to make clips from.

        Args:
            material: the images, packed or in folders.
            config: what the clips look like.
            seed: not negative.
            skip_bad: make the clip of other images when one turns out to be of no use, and name it in `Clip.skipped`.

        Raises:
            OptionError: the seed is negative, or the material holds no objects.
        """
        if seed < 0:
            raise OptionError(f"seed: expected 0 or more, got {seed}")
        self.config = config
        self.seed = seed
        self._skip_bad = skip_bad
        self._cutter = Cutter(material)

    def clip(self, index: int) -> Clip:
        """Draw a clip and render it on the CPU; see `draw`."""
        return render_clip(self.draw(index))

    def draw(self, index: int) -> ClipPlan:
        """Decide all about one clip, and decode what it is made of; `render_clip` does the rest.

        Raises:
            OptionError: the index is negative, or 25 attempts gave no clip with an object in frame 0, which only
                happens when the material's objects are next to empty.
            FrameError, MaskError: an image of it cannot be used, and bad ones are not skipped.
        """
        if index < 0:
            raise OptionError(f"index: expected 0 or more, got {index}")
        skipped: list[str] = []
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([self.seed, index, attempt])
            try:
                scene = self._scene(rng)
            except (FrameError, MaskError) as error:
                if not self._skip_bad:
                    raise
                skipped.append(str(error))
                continue
            scene = replace(scene, reversed=rng.random() < self.config.reverse)
            first = ids_at(scene, self.config.frames - 1 if scene.reversed else 0)
            table = _numbering(first, self.config.max_objects)
            if table is not None:
                look = draw_look(rng, self.config.frames, blur=self.config.blur, grey=self.config.grey)
                return ClipPlan(scene, table, look, tuple(skipped))
        raise OptionError(
            f"material: no object was visible in {_ATTEMPTS} attempts at clip {index}; check its masks and alpha"
            + (f". {len(skipped)} files could not be used, the first: {skipped[0]}" if skipped else "")
        )

    def _scene(self, rng: Generator) -> Scene:
        """A made scene, or a piece of a video."""
        if self._cutter.videos and (rng.random() < self.config.video or not self._cutter.has_objects):
            return self._from_video(rng)
        return draw_scene(rng, self._cutter, self.config)

    def _from_video(self, rng: Generator) -> Scene:
        """Consecutive frames of a packed video, cropped to a square around one of its objects."""
        config, material = self.config, self._cutter.material
        video = self._cutter.videos[int(rng.integers(len(self._cutter.videos)))]
        stride = int(rng.integers(1, 1 + config.gap))
        there_and_back = [
            *range(len(video)),
            *range(len(video) - 2, 0, -1),
        ]  # a clip longer than the video turns around
        first = int(rng.integers(max(1, len(video) - stride * (config.frames - 1))))
        numbers = [
            video[there_and_back[(first + stride * time) % len(there_and_back)]] for time in range(config.frames)
        ]
        photos = [material.photo(number) for number in numbers]
        _check_sizes(photos, [material.items[number].name for number in numbers])
        pixels = torch.stack([photo.pixels for photo in photos])
        ids = torch.stack([photo.ids for photo in photos])
        height, width = ids.shape[-2:]
        side = int(min(height, width) * math.exp(rng.uniform(math.log(0.5), 0)))
        seen = ids[0].nonzero()
        y, x = seen[int(rng.integers(len(seen)))].tolist() if len(seen) else (height // 2, width // 2)
        top, left = (min(max(0, at - side // 2), length - side) for at, length in ((y, height), (x, width)))
        pixels, ids = (tensor[..., top : top + side, left : left + side] for tensor in (pixels, ids))
        ids = F.interpolate(ids[:, None], size=(config.size, config.size), mode="nearest-exact")[:, 0]
        mirrored, theta = rng.random() < 0.5, None
        if config.warp and rng.random() < config.warp:
            shot = Shot(config.frames, 1, config.size)
            camera = shot.motion(rng, centre=(0.5, 0.5), speed=float(rng.choice([0.3, 1.0])), elastic=0.0).held(0.2)
            theta = place_camera(camera)
        return Scene(Film(pixels, ids, mirrored, theta), (), config.size, material.items[video[0]].name)


def _check_sizes(photos: Sequence[Photo], names: Sequence[str]) -> None:
    """Frames of a video are of one size."""
    expected, *sizes = (f"{photo.ids.shape[1]}x{photo.ids.shape[0]}" for photo in photos)
    for name, size in zip(names[1:], sizes, strict=True):
        if size != expected:
            raise FrameError(
                f"{name}: expected the size of {names[0]}, {expected}, "
                f"got {size}; frames of one video must be of one size"
            )


def _numbering(ids: Tensor, max_objects: int) -> Tensor | None:
    """A clip's id for each id of a scene, uint8 [256], by its first frame [H, W]: objects that are hardly seen there
    get 0, the others 1..N, the largest first; None when nothing is left."""
    counts = torch.bincount(ids.flatten(), minlength=256)
    counts[0] = 0
    seen = (counts >= max(1, _SEEN * ids.numel())).nonzero()[:, 0]
    largest = seen[counts[seen].argsort(descending=True, stable=True)][:max_objects]
    if not len(largest):
        return None
    table = torch.zeros(256, dtype=torch.uint8)
    table[largest] = torch.arange(1, len(largest) + 1, dtype=torch.uint8)
    return table


_COLOURS = ((255, 40, 40), (40, 220, 40), (60, 110, 255), (255, 200, 0), (240, 60, 240), (0, 220, 220))


def clip_strips(clips: Sequence[Clip], path: str | Path, *, masks: bool = True) -> None:
    """Write clips as an image, one row each, with masks tinted over the frames.

    Args:
        clips: clips of one size and length.
        path: the file to write, atomically; its suffix chooses the format, PNG where it is unknown.
        masks: tint the objects.

    Raises:
        OptionError: there is no clip.

    Example:
        >>> import torch
        >>> import tempfile
        >>> clip = Clip(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(2, 8, 8, dtype=torch.uint8), "made")
        >>> target = Path(tempfile.mkdtemp()) / "sheet.png"
        >>> clip_strips([clip], target)
        >>> with Image.open(target) as sheet:
        ...     sheet.size
        (16, 8)
    """
    if not clips:
        raise OptionError("clips: expected at least one, got none")
    colours = np.array([(0, 0, 0), *(_COLOURS[i % len(_COLOURS)] for i in range(255))], dtype=np.float32)
    rows = []
    for clip in clips:
        frames = clip.frames.permute(0, 2, 3, 1).numpy().astype(np.float32)
        ids = clip.ids.numpy()
        tinted = np.where((ids > 0)[..., None], 0.5 * frames + 0.5 * colours[ids], frames) if masks else frames
        rows.append(np.concatenate(list(tinted), axis=1))
    sheet, kind = (
        Image.fromarray(np.concatenate(rows).round().astype(np.uint8)),
        Image.registered_extensions().get(Path(path).suffix.lower()),
    )
    with whole_file(path) as part:
        sheet.save(part, kind or "PNG")
