"""Sources: the packed material and the folders of a configuration, mixed by weight, and what of them is validated on.

Decodes no file itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stmemory.errors import OptionError
from stmemory.training.clips import Clip, ClipConfig, Clips, ClipSource, render_clip
from stmemory.training.config import Phase, Source, TrainingConfig
from stmemory.training.folders import FolderPictures
from stmemory.training.holdout import held_out, without
from stmemory.training.layouts import open_folder, splits_of
from stmemory.training.material import Material, Pictures
from stmemory.training.plan import ClipPlan

__all__ = ["Mixture", "Sources"]


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

    A run that validates does so on other pictures than it trains on: those of each folder's validation split, or some
    that are held out. A run that does not trains on all.

    Args:
        config: of the run.
        material: the packed pictures, if there are any.

    Attributes:
        skipped: one line for each file of the folders that can be seen to be of no use without decoding it.
        notes: what else there is to tell about them, and what is validated on, a line each.

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
                "got neither; "
                "give more, or train without validation"
            )

    def clips(self, phase: Phase, *, validation: bool = False) -> Clips:
        """Clips as a phase wants them: of the training pictures and the run's seed, or of others for validation.

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
                f"{source.root}: expected the split {source.split!r} to have pictures that {split!r} has not, got "
                "none; "
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
