"""The rows of an ablation: each a way to keep the memory, with its weights. Measures nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stmemory.errors import OptionError
from stmemory.evaluation.clips import Clip
from stmemory.memory.learned import LearnedPolicy
from stmemory.memory.registry import update_policy
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.options import TrackingOptions
from stmemory.weights import load_network

__all__ = ["GROWING", "MATCHING", "RULES", "Row", "ablation_rows", "shortened"]

RULES = ("A", "B", "C", "D", "drop", "I2M", "learned")
GROWING = "growing"
MATCHING = "matching"  # the default rule without the discriminative read


@dataclass(frozen=True)
class Row:
    """One way to keep the memory.

    Attributes:
        name: the paper's letter or a policy's name, or `GROWING`; also the name of the row's folder.
        options: how to track; the policy is the row's.
        weights: see `VOSPredictor.from_pretrained`.
        revision: of a repository.
        every: which frames the growing memory keeps for ever; None for a fixed number of slots.
        scored: whether the network's discriminative read is used, if it has one.
    """

    name: str
    options: TrackingOptions
    weights: str | None = None
    revision: str | None = None
    every: int | None = None
    scored: bool = True

    def network(self) -> SegmentationNetwork:
        """Load its weights.

        Raises:
            WeightsError: there are no such weights.
        """
        return load_network(self.weights, where={} if self.revision is None else {"revision": self.revision})

    @property
    def title(self) -> str:
        """The row in words.

        >>> Row("A", TrackingOptions(policy="A")).title, Row("growing", TrackingOptions(), every=5).title
        ('A: oldest', 'growing: frames 0, 5, 10, ... kept (STM)')
        """
        if self.every is not None:
            return (
                f"{self.name}: "
                + ("every frame" if self.every == 1 else f"frames 0, {self.every}, {2 * self.every}, ...")
                + " kept (STM)"
            )
        if not self.scored:
            return f"{self.name}: {update_policy(self.options.policy).name} without the discriminative read"
        policy = update_policy(self.options.policy).name
        return self.name if self.name == policy else f"{self.name}: {policy}"


def ablation_rows(
    options: TrackingOptions,
    *,
    rules: Sequence[str] = RULES,
    learned: LearnedPolicy | None = None,
    growing: int = 5,
    weights: str | None = None,
    weights_by_rule: Mapping[str, str] | None = None,
) -> tuple[Row, ...]:
    """The rows of an ablation.

    Args:
        options: how to track, but for the policy.
        rules: policies, by name or letter; `MATCHING` is the policy of the options without the discriminative read.
        learned: the policy of the row "learned", which is left out without one: untrained it would mean nothing.
        growing: the upper reference keeps every so-manieth frame for ever; 0 leaves it out.
        weights: of all rows.
        weights_by_rule: other weights of some rows, by their names, such as those trained under each rule.

    Raises:
        OptionError: a rule is unknown or stands there twice; weights are for a row that there is not.

    >>> [row.name for row in ablation_rows(TrackingOptions(), rules=("A", "drop"), weights_by_rule={"A": "mine"})]
    ['A', 'drop', 'growing']
    """
    rows = []
    for rule in rules:
        if rule == MATCHING:
            rows.append(Row(rule, options, weights, scored=False))
        elif update_policy(rule).name == "learned":
            if learned is not None:
                rows.append(Row(rule, dataclasses.replace(options, policy=learned), weights))
        else:
            rows.append(Row(rule, dataclasses.replace(options, policy=rule), weights))
    if growing:
        rows.append(Row(GROWING, options, weights, every=growing))
    names = [row.name for row in rows]
    policies = [update_policy(row.options.policy).name for row in rows if row.every is None and row.scored]
    if not rows or len(set(policies)) < len(policies) or len(set(names)) < len(names):
        raise OptionError(f"rules: expected one or more, each once, got {', '.join(names) or 'none'}")
    other = dict(weights_by_rule or {})
    if strangers := [name for name in other if name not in names]:
        raise OptionError(f"weights of a rule: expected one of {', '.join(names)}, got {', '.join(strangers)}")
    return tuple(dataclasses.replace(row, weights=other.get(row.name, row.weights)) for row in rows)


def shortened(clip: Clip, frames: int) -> Clip:
    """The clip's first frames, with their annotations.

    Raises:
        OptionError: less than two frames.

    >>> from pathlib import Path
    >>> shortened(Clip("walk", (Path("0.jpg"),) * 9, (None,) * 9, (None,) * 9), 4).annotation_paths
    (None, None, None, None)
    """
    if frames < 2:
        raise OptionError(f"frames: expected 2 or more, got {frames}")
    return dataclasses.replace(
        clip,
        frame_paths=clip.frame_paths[:frames],
        annotation_paths=clip.annotation_paths[:frames],
        void_paths=clip.void_paths[:frames],
    )
