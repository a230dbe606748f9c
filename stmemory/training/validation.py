"""Validation: the error of a run's averaged weights on clips that it does not train on. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stmemory.memory.learned import LearnedPolicy
from stmemory.training.clips import Clips, render_clip
from stmemory.training.config import Phase
from stmemory.training.learner import Learner
from stmemory.training.parcel import Parcel
from stmemory.training.unroll import Unroller, UnrollOptions

__all__ = ["Validation", "validate"]


@dataclass(frozen=True)
class Validation:
    """What came of it.

    Attributes:
        error: mean Dice loss, in [0, 1].
        skipped: one line for each file that could not be used for its clips.
    """

    error: float
    skipped: tuple[str, ...] = ()


def validate(learner: Learner, clips: Clips, phase: Phase, *, device: torch.device | None = None) -> Validation:
    """Measure the averaged weights, with their own masks fed back.

    Args:
        learner: of the run.
        clips: other ones than those of the training.
        phase: whose memory and segments to use.
        device: where to render the clips; None is the CPU.

    >>> from stmemory.training.photometric import Look
    >>> from stmemory.training.plan import ClipPlan, Film, Scene
    >>> from stmemory.training.config import TrainingConfig
    >>> class Still:
    ...     def draw(self, index):
    ...         film = Film(torch.full((2, 3, 32, 32), index, dtype=torch.uint8), torch.ones(2, 32, 32, dtype=torch.uint8))
    ...         return ClipPlan(Scene(film, (), 32, "made"), torch.arange(256, dtype=torch.uint8), Look(torch.ones(2, 3)))
    >>> learner = Learner(TrainingConfig(validation_clips=1), torch.device("cpu"))
    >>> 0 < validate(learner, Still(), Phase(size=32, frames=2)).error < 1
    True
    """
    policy = learner.policy_average
    if isinstance(policy, LearnedPolicy):
        policy.eval()
    options = UnrollOptions(phase.capacity, policy, own_masks=1.0, memory_every=phase.memory_every)
    total = 0.0
    skipped: list[str] = []
    learner.average.eval()
    with torch.no_grad():
        for index in range(learner.config.validation_clips):
            clip = render_clip(Parcel.of(clips.draw(index)).opened(device or torch.device("cpu")))
            skipped += clip.skipped
            unroller = Unroller(learner.average, options=options, generator=torch.Generator().manual_seed(index))
            length = len(clip.frames)
            for start in range(0, length, phase.segment or length):
                part = slice(start, start + (phase.segment or length))
                pixels = clip.frames[None, part].to(learner.device).float() / 255
                result = unroller.advance(pixels, clip.ids[None, part].to(learner.device).long())
                total += float(result.dice) * result.length / (length - 1)
    return Validation(total / learner.config.validation_clips, tuple(skipped))
