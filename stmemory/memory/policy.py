"""Update policies: which slot goes, and into which slots it is distilled. Sees numbers, never features.

| name | letter | what goes | what it is distilled into | source |
|---|---|---|---|---|
| `oldest` | A | the oldest | all others | section 3.2 |
| `newest` | B | the newest | all others | section 3.2 |
| `least_similar` | C | the older of the least similar pair | the younger | section 3.2, default |
| `most_similar` | D | the older of the most similar pair | the younger | section 3.2 |
| `drop` | | the oldest | nothing | the plain queue, for comparison |
| `input_to_memory` | I2M | nothing: the new template is distilled into every slot | | eq. 11, the ablation of table 3 |
| `learned` | | learned, see `learned.py` | | the abstract of the paper's second version |

Pinned slots neither go nor change: "all" above means all that are not pinned. Older and younger (the paper's i < j) are
told by age.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = [
    "BankView",
    "Decision",
    "Drop",
    "InputToMemory",
    "LeastSimilar",
    "MostSimilar",
    "Newest",
    "Oldest",
    "UpdatePolicy",
    "with_a_free_slot",
]


@dataclass(frozen=True, eq=False)
class BankView:
    """What a policy sees of `B` full rows of a bank. Read only.

    Attributes:
        similarity: `[B, K, K]` float32, S(X_i, X_j) of eq. 1 at `[b, i, j]`; means nothing where `uses_similarity` is
            false, nor for pinned slots where the policy has a `movable_only` that is true.
        age: `[B, K]` int64, 0 for the newest slot of a row, larger is older, no two alike.
        valid: `[B, K]` bool, slots that hold a template.
        pinned: `[B, K]` bool, slots that must neither go nor change.
    """

    similarity: Tensor
    age: Tensor
    valid: Tensor
    pinned: Tensor

    @property
    def movable(self) -> Tensor:
        """`[B, K]` bool: the slots a policy may touch."""
        return self.valid & ~self.pinned


@dataclass(frozen=True, eq=False)
class Decision:
    """What a policy answers, for the same `B` rows.

    Attributes:
        remove: `[B, K]` float, one-hot: the slot that goes and that the new template takes. All zeros: none goes, and
            the new template is not stored itself but distilled (eq. 11).
        into: `[B, K]` float in [0, 1]: how far each slot moves to its fused template. Zero: the slot stays as it is.
    """

    remove: Tensor
    into: Tensor


@runtime_checkable
class UpdatePolicy(Protocol):
    """Decides what happens when a full row gets a new template. Write your own: any object with these three will do.

    One that never looks at the similarity of pinned slots may say so with a fourth, `movable_only = True`; that saves
    work.

    Attributes:
        name: what `describe()` and saved files call it.
        uses_similarity: whether `decide` reads `BankView.similarity`; if not, the bank saves itself the work.
    """

    @property
    def name(self) -> str: ...

    @property
    def uses_similarity(self) -> bool: ...

    def decide(self, view: BankView) -> Decision:
        """One decision a row. At least one slot a row is movable."""
        ...


class Oldest:
    """Rule A: the oldest template goes and updates all that remain."""

    name = "oldest"
    uses_similarity = False

    def decide(self, view: BankView) -> Decision:
        """See `UpdatePolicy.decide`."""
        remove = _one_hot(view.age.masked_fill(~view.movable, -1).argmax(1), view)
        return Decision(remove, _others(remove, view))


class Newest:
    """Rule B: the newest template goes and updates all that remain."""

    name = "newest"
    uses_similarity = False

    def decide(self, view: BankView) -> Decision:
        """See `UpdatePolicy.decide`."""
        never = torch.iinfo(view.age.dtype).max
        remove = _one_hot(view.age.masked_fill(~view.movable, never).argmin(1), view)
        return Decision(remove, _others(remove, view))


class LeastSimilar:
    """Rule C, the paper's choice: (i, j) = argmin S(X_i, X_j) over i older than j; i goes into j."""

    name = "least_similar"
    uses_similarity = True
    movable_only = True

    def decide(self, view: BankView) -> Decision:
        """See `UpdatePolicy.decide`."""
        return _best_pair(-view.similarity, view)


class MostSimilar:
    """Rule D: (i, j) = argmax S(X_i, X_j) over i older than j; i goes into j."""

    name = "most_similar"
    uses_similarity = True
    movable_only = True

    def decide(self, view: BankView) -> Decision:
        """See `UpdatePolicy.decide`."""
        return _best_pair(view.similarity, view)


class Drop:
    """No distillation: the oldest template goes and is lost. What most trackers do."""

    name = "drop"
    uses_similarity = False

    def decide(self, view: BankView) -> Decision:
        """See `UpdatePolicy.decide`."""
        remove = Oldest().decide(view).remove
        return Decision(remove, torch.zeros_like(remove))


class InputToMemory:
    """Eq. 11, as in LSTM and NTM: the new template updates every slot and is not kept itself."""

    name = "input_to_memory"
    uses_similarity = False

    def decide(self, view: BankView) -> Decision:
        """See `UpdatePolicy.decide`."""
        into = view.movable.float()
        return Decision(torch.zeros_like(into), into)


def with_a_free_slot(decision: Decision, view: BankView) -> Decision:
    """The same decision, but where no slot goes the oldest does, lost as by `Drop`: for templates that must be stored.

    >>> view = BankView(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]), torch.ones(1, 2).bool(), torch.zeros(1, 2).bool())
    >>> with_a_free_slot(InputToMemory().decide(view), view).remove
    tensor([[0., 1.]])
    """
    goes = decision.remove.detach().sum(1, keepdim=True) > 0.5  # [B, 1]
    plain = Drop().decide(view)
    remove = torch.where(goes, decision.remove, plain.remove.to(decision.remove))
    return Decision(remove, torch.where(goes, decision.into, plain.into.to(decision.into)))


def _best_pair(score: Tensor, view: BankView) -> Decision:
    """The pair with the highest score `[B, K, K]`, older into younger; ties go to the older i, then the older j."""
    slots = score.shape[1]
    order = view.age.argsort(dim=1, descending=True)  # [B, K], oldest first
    rows = torch.arange(len(score), device=score.device)[:, None, None]
    by_age = score[rows, order[:, :, None], order[:, None, :]]  # [B, K, K], i < j is older before younger
    movable = view.movable.gather(1, order)
    allowed = (movable[:, :, None] & movable[:, None, :]).triu(1)
    best = by_age.masked_fill(~allowed, -torch.inf).flatten(1).argmax(1)
    pair = torch.stack([best // slots, best % slots], 1)
    source, target = order.gather(1, pair).unbind(1)
    paired = allowed.flatten(1).any(1, keepdim=True)
    alone = _one_hot(movable.float().argmax(1), view).gather(
        1, order.argsort(1)
    )  # a single movable slot has no partner
    remove = torch.where(paired, _one_hot(source, view), alone)
    return Decision(remove, _one_hot(target, view) * paired)


def _one_hot(slot: Tensor, view: BankView) -> Tensor:
    """Slots `[B]` as `[B, K]` float."""
    return torch.nn.functional.one_hot(slot, view.age.shape[1]).float()


def _others(remove: Tensor, view: BankView) -> Tensor:
    """Every movable slot but the one that goes, `[B, K]` float."""
    return view.movable.float() * (1 - remove)
