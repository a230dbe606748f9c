"""Sources of clips for a run, their shares, and what is held out for validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
from torch import Tensor

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.training.config import Phase, Source, TrainingConfig
from stmemory.training.data.folders import FolderPictures, open_folder, splits_of
from stmemory.training.data.material import Item, Material, Photo, Pictures
from stmemory.training.synthesis.clips import Clip, ClipConfig, Clips, ClipSource, render_clip
from stmemory.training.synthesis.render import ClipPlan

__all__ = ["Mixture", "Sources", "Subset", "held_out", "without"]

_ONE_IN = 20
_OBJECTS = ("photo", "cutout", "video")  # kinds that clips can track something of


class Subset:
    """Some of the pictures of a material or folder, with numbers of their own; see `Pictures`.

    Args:
        pictures: all of them.
        items: those that are wanted.
    """

    def __init__(self, pictures: Pictures, items: Iterable[Item]) -> None:
        kept = tuple(items)
        self._pictures, self._indices = pictures, tuple(item.index for item in kept)
        self.items = tuple(replace(item, index=index) for index, item in enumerate(kept))

    def photo(self, index: int) -> Photo:
        """See `Pictures.photo`."""
        return self._pictures.photo(self._indices[index])

    def pixels(self, index: int) -> Tensor:
        """See `Pictures.pixels`."""
        return self._pictures.pixels(self._indices[index])

    def cutout(self, index: int) -> Tensor:
        """See `Pictures.cutout`."""
        return self._pictures.cutout(self._indices[index])


def held_out(pictures: Pictures) -> tuple[Pictures, Pictures | None]:
    """Hold about one in twenty out, at least one and never all of a kind; frames of a video and sides of an object stay
    together.

    The first that is held out can be used, or validation of a small folder would depend on the luck of one image.

    Args:
        pictures: all of them.

    Returns:
        What is left to train on, and what is held out: None when there are not two images or videos with objects.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from stmemory.training.data.material import Material, pack
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "cutouts").mkdir()
    ...     for number in range(40):
    ...         Image.new("RGBA", (4, 4), "red").save(Path(folder) / "cutouts" / f"{number}.png")
    ...     _ = pack(folder, Path(folder) / "packed.safetensors")
    ...     training, validation = held_out(Material.load(Path(folder) / "packed.safetensors"))
    >>> len(training.items), [item.name for item in validation.items]
    (38, ['cutouts/9.png', 'cutouts/32.png'])
    """
    first_of: dict[int, str] = {}
    groups: dict[str, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in pictures.items:
        name = first_of.setdefault(item.series, item.name) if item.series >= 0 else item.name
        groups[item.kind][name].append(item)
    objects = {name: items for kind in _OBJECTS for name, items in groups[kind].items()}
    if len(objects) < 2:
        return pictures, None
    if all(len(groups[kind]) < 2 for kind in _OBJECTS):  # as one video and one cut-out
        groups = {"any": objects}
    held: set[int] = set()
    for named in groups.values():
        by_chance = sorted(named, key=lambda name: sha256(name.encode()).digest())
        count = max(1, round(len(named) / _ONE_IN)) if len(named) > 1 else 0
        if count:
            first = next((name for name in by_chance if _usable(pictures, named[name][0])), by_chance[0])
            by_chance.insert(0, by_chance.pop(by_chance.index(first)))
        held |= {item.index for name in by_chance[:count] for item in named[name]}
    return (
        Subset(pictures, (item for item in pictures.items if item.index not in held)),
        Subset(pictures, (item for item in pictures.items if item.index in held)),
    )


def _usable(pictures: Pictures, item: Item) -> bool:
    """Whether an image can be read, with the mask that it needs."""
    read = {"cutout": pictures.cutout, "background": pictures.pixels}.get(item.kind, pictures.photo)
    try:
        read(item.index)
    except (FrameError, MaskError):
        return False
    return True


def without(pictures: Pictures, others: Pictures) -> Pictures:
    """The images whose names are not among those of others of the same folder.

    Args:
        pictures: some of a folder.
        others: some of it too.

    >>> from stmemory.training.data.material import Material
    >>> import torch
    >>> one, two = (Item(index, "photo", False, -1, f"images/{index}.jpg") for index in range(2))
    >>> both, second = (Material(torch.zeros(0), torch.zeros(0), items) for items in ((one, two), (two,)))
    >>> [item.name for item in without(both, second).items]
    ['images/0.jpg']
    """
    names = {item.name for item in others.items}
    return Subset(pictures, (item for item in pictures.items if item.name not in names))


class Mixture:
    """Clips of several sources, each as often as its weight says; which one a clip is of depends on seed and index
    alone.

    Args:
        parts: the sources and their weights, one or more.
        seed: not negative.
    """

    def __init__(self, parts: Sequence[tuple[Clips, float]], seed: int) -> None:
        self.parts, self.seed = tuple(parts), seed
        weights = np.array([weight for _, weight in parts])
        self._cumulated = np.cumsum(weights) / weights.sum()

    def clip(self, index: int) -> Clip:
        """See `Clips.clip`."""
        return render_clip(self.draw(index))

    def draw(self, index: int) -> ClipPlan:
        """See `Clips.draw`."""
        drawn = np.random.default_rng([self.seed, index, len(self.parts)]).random()
        number = min(int(np.searchsorted(self._cumulated, drawn, side="right")), len(self.parts) - 1)
        return self.parts[number][0].draw(index)


class Sources:
    """Everything that a run makes clips of, opened once.

    A run that validates does so on other images than it trains on: those of each folder's validation split, or some
    that are held out. A run that does not trains on all.

    Args:
        config: configuration of the run.
        material: the packed images, if there are any.

    Attributes:
        skipped: one line for each file of the folders that can be seen to be of no use without decoding it.
        notes: further remarks on them, and what is validated on, a line each.

    Raises:
        OptionError: there is nothing to make clips of or to validate on, or a folder cannot be used.
    """

    def __init__(self, config: TrainingConfig, material: Material | None) -> None:
        self.config = config
        self.skipped: list[str] = []
        self.notes: list[str] = []
        self._training: list[tuple[Pictures, float]] = []
        self._validation: list[tuple[Pictures, float]] = []
        if material is not None:
            self._add(material, "the packed material", weight=1.0)
        for source in config.sources:
            self._add_folder(source)
        if not self._training:
            raise OptionError(
                "expected material or sources to make clips of, got neither; name a packed file or a folder"
            )
        if config.validate_every and not self._validation:
            raise OptionError(
                "validate_every: expected a validation split, or two pictures or videos so that one can be held out, "
                "got neither; give more, or train without validation"
            )

    def clips(self, phase: Phase, *, validation: bool = False) -> Clips:
        """Clips as a phase wants them: of the training images and the run's seed, or of others for validation.

        Raises:
            OptionError: clips for validation are wanted, and the configuration does not validate.
        """
        if validation and not self._validation:
            raise OptionError(
                "validation: expected a configuration with validate_every above 0, got 0: nothing is held out"
            )
        data: dict[str, Any] = {**self.config.data, "size": phase.size, "frames": phase.frames, "gap": phase.gap}
        config = ClipConfig(**data, max_objects=phase.max_objects)
        seed = self.config.seed + (1_000_003 if validation else 0)
        skip = self.config.bad_data == "skip"
        wanted = self._validation if validation else self._training
        made = [(ClipSource(pictures, config, seed, skip_bad=skip), weight) for pictures, weight in wanted]
        return made[0][0] if len(made) == 1 else Mixture(made, seed)

    def _add_folder(self, source: Source) -> None:
        folder, split = self._open(source, source.split), source.validation_split
        if (
            split == source.split
            or split not in splits_of(source.root, layout=source.layout)
            or not self.config.validate_every
        ):
            self._add(folder, source.root, weight=source.weight)
            return
        validation = self._open(source, split)
        training = without(folder, validation)
        if not training.items:
            raise OptionError(
                f"{source.root}: expected the split {source.split!r} "
                f"to have pictures that {split!r} has not, got none; "
                'choose another validation_split, or "" to hold some out'
            )
        self._training.append((training, source.weight))
        self._validation.append((validation, source.weight))
        self.notes.append(f"{source.root}: validated on the {len(validation.items)} pictures of the split {split!r}")

    def _open(self, source: Source, split: str) -> FolderPictures:
        folder = open_folder(source.root, layout=source.layout, split=split)
        if folder.skipped and self.config.bad_data == "refuse":
            raise OptionError(
                f"{source.root}: {len(folder.skipped)} files cannot be used, the first: {folder.skipped[0]}"
            )
        self.skipped += folder.skipped
        self.notes += folder.notes
        return folder

    def _add(self, pictures: Pictures, name: str, *, weight: float) -> None:
        """Train on all of them or, where the run validates, hold some out."""
        if not self.config.validate_every:
            self._training.append((pictures, weight))
            return
        training, validation = held_out(pictures)
        self._training.append((training, weight))
        if validation is None:
            self.notes.append(f"{name}: too few pictures to hold some out, so all are trained on")
        else:
            self._validation.append((validation, weight))
            self.notes.append(
                f"{name}: {len(validation.items)} of {len(pictures.items)} pictures are held out for validation"
            )
