"""Validation: the error of a run's averaged weights on clips that it does not train on. Changes nothing."""

from __future__ import annotations

import torch

from stmemory.memory.learned import LearnedPolicy
from stmemory.training.clips import Clips, render_clip
from stmemory.training.config import Phase
from stmemory.training.learner import Learner
from stmemory.training.parcel import Parcel
from stmemory.training.unroll import Unroller, UnrollOptions

__all__ = ["validation_error"]


def validation_error(learner: Learner, clips: Clips, phase: Phase, *, device: torch.device | None = None) -> float:
    """The mean Dice loss of the averaged weights, with their own masks fed back, in [0, 1].

    Args:
        learner: of the run.
        clips: other ones than those of the training.
        phase: whose memory and segments to use.
        device: where to render the clips; None is the CPU.
    """
    policy = learner.policy_average
    if isinstance(policy, LearnedPolicy):
        policy.eval()
    options = UnrollOptions(phase.capacity, policy, own_masks=1.0)
    total = 0.0
    learner.average.eval()
    with torch.no_grad():
        for index in range(learner.config.validation_clips):
            clip = render_clip(Parcel.of(clips.draw(index)).opened(device or torch.device("cpu")))
            unroller = Unroller(learner.average, options=options, generator=torch.Generator().manual_seed(index))
            length = len(clip.frames)
            for start in range(0, length, phase.segment or length):
                part = slice(start, start + (phase.segment or length))
                pixels = clip.frames[None, part].to(learner.device).float() / 255
                result = unroller.advance(pixels, clip.ids[None, part].to(learner.device).long())
                total += float(result.dice) * result.length / (length - 1)
    return total / learner.config.validation_clips
