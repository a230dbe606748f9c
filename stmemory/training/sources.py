"""Sources: the packed material and the folders of a configuration, mixed by weight. Decodes no file itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stmemory.errors import OptionError
from stmemory.training.clips import Clip, ClipConfig, Clips, ClipSource, render_clip
from stmemory.training.config import Phase, TrainingConfig
from stmemory.training.layouts import open_folder
from stmemory.training.material import Material, Pictures
from stmemory.training.plan import ClipPlan

__all__ = ["Mixture", "Sources"]


class Mixture:
    """Clips of several sources, each as often as its weight says; which one a clip is of depends on seed and index alone.

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

    Args:
        config: of the run.
        material: the packed pictures, if there are any.

    Attributes:
        skipped: one line for each file of the folders that can be seen to be of no use without decoding it.
        notes: what else there is to tell about them, a line each.

    Raises:
        OptionError: there is nothing to make clips of, or a folder cannot be used.
    """

    def __init__(self, config: TrainingConfig, material: Material | None) -> None:
        self.config = config
        self._pictures: list[tuple[Pictures, float]] = [] if material is None else [(material, 1.0)]
        self.skipped: list[str] = []
        self.notes: list[str] = []
        for source in config.sources:
            folder = open_folder(source.root, layout=source.layout, split=source.split)
            if folder.skipped and config.bad_data == "refuse":
                raise OptionError(f"{source.root}: {len(folder.skipped)} files cannot be used, the first: {folder.skipped[0]}")
            self.skipped += folder.skipped
            self.notes += folder.notes
            self._pictures.append((folder, source.weight))
        if not self._pictures:
            raise OptionError("expected material or sources to make clips of, got neither; name a packed file or a folder")

    def clips(self, phase: Phase, *, validation: bool = False) -> Clips:
        """Clips as a phase wants them, of the run's seed, or of another for validation."""
        data: dict[str, Any] = {**self.config.data, "size": phase.size, "frames": phase.frames, "gap": phase.gap}
        config = ClipConfig(**data, max_objects=phase.max_objects)
        seed = self.config.seed + (1_000_003 if validation else 0)
        skip = self.config.bad_data == "skip"
        made = [(ClipSource(pictures, config, seed, skip_bad=skip), weight) for pictures, weight in self._pictures]
        return made[0][0] if len(made) == 1 else Mixture(made, seed)
