"""Update policies, which decide what slot a new template takes and what is fused: rules A-D, drop, I2M, learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from stmemory.errors import OptionError

__all__ = [
    "BankView",
    "Decision",
    "Drop",
    "InputToMemory",
    "LearnedPolicy",
    "LeastSimilar",
    "MostSimilar",
    "Newest",
    "Oldest",
    "UpdatePolicy",
    "is_policy",
    "policy_names",
    "update_policy",
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
            the new template is not stored itself but fused (eq. 11).
        into: `[B, K]` float in [0, 1]: how far each slot moves to its fused template. Zero: the slot stays as it is.
    """

    remove: Tensor
    into: Tensor


@runtime_checkable
class UpdatePolicy(Protocol):
    """Decides what happens when a full row gets a new template. Write your own: any object with these three will do.

    One that never looks at the similarity of pinned slots may say so with `movable_only = True`, and one that fuses
    into n slots of a row at most with `most_targets = n`, which saves work in a compiled write.

    Attributes:
        name: shown by `repr(bank)` and stored in files.
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
    most_targets = 1

    def decide(self, view: BankView) -> Decision:
        """See `UpdatePolicy.decide`."""
        return _best_pair(-view.similarity, view)


class MostSimilar:
    """Rule D: (i, j) = argmax S(X_i, X_j) over i older than j; i goes into j."""

    name = "most_similar"
    uses_similarity = True
    movable_only = True
    most_targets = 1

    def decide(self, view: BankView) -> Decision:
        """See `UpdatePolicy.decide`."""
        return _best_pair(view.similarity, view)


class Drop:
    """No fusion: the oldest template is removed and lost, as in most trackers."""

    name = "drop"
    uses_similarity = False
    most_targets = 0

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


_FEATURES = 8


class LearnedPolicy(nn.Module):
    """Scores slots by how alike and how old they are, and draws the slot that goes and the slot it goes into.

    In training mode both draws are Gumbel-Softmax samples, one-hot in the forward pass and soft in the backward pass
    (straight-through), so the policy learns from the segmentation loss through the fused and replaced templates. In
    eval mode both are the argmax: deterministic.

    Args:
        hidden: width of the two scorers.
        temperature: temperature of the Gumbel-Softmax, above 0; assign `policy.temperature` to follow a schedule.
        seed: seed of the first weights and of the noise, both drawn from generators of the policy's own.

    Raises:
        OptionError: the temperature is not positive.
    """

    name = "learned"
    uses_similarity = True
    most_targets = 1

    def __init__(self, *, hidden: int = 32, temperature: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        if not temperature > 0:
            raise OptionError(f"LearnedPolicy: expected a temperature above 0, got {temperature}; 1.0 is a good start")
        self.temperature = temperature
        wide = torch.float32  # as the similarities are, whatever torch's default
        self.remove_score = nn.Sequential(
            nn.Linear(_FEATURES, hidden, dtype=wide), nn.ReLU(), nn.Linear(hidden, 1, dtype=wide)
        )
        self.into_score = nn.Sequential(
            nn.Linear(_FEATURES + 2, hidden, dtype=wide), nn.ReLU(), nn.Linear(hidden, 1, dtype=wide)
        )
        self._noise = torch.Generator().manual_seed(seed)
        weights = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in self.modules():  # drawn again, so that a policy by name is always the same
                if isinstance(layer, nn.Linear):
                    for parameter in layer.parameters():
                        parameter.uniform_(-1, 1, generator=weights).div_(math.sqrt(layer.in_features))

    def seed(self, seed: int) -> None:
        """Restart the noise."""
        self._noise.manual_seed(seed)

    def decide(self, view: BankView) -> Decision:
        """See `UpdatePolicy.decide`; `remove` and `into` carry gradients in training mode."""
        movable = view.movable
        with torch.autocast(
            view.age.device.type, enabled=False
        ):  # in half precision the noise is infinite now and then
            features = _slot_features(view)  # [B, K, F]
            remove = self._draw(self.remove_score(features).squeeze(-1), movable)  # [B, K]
            to_slot = torch.einsum("bi,bij->bj", remove, view.similarity)
            from_slot = torch.einsum("bi,bji->bj", remove, view.similarity)
            pair = torch.cat([features, to_slot[..., None], from_slot[..., None]], -1)
            others = movable & (remove.detach() < 0.5)
            into = self._draw(self.into_score(pair).squeeze(-1), others)
            return Decision(remove, into * others.any(1, keepdim=True))

    def _draw(self, score: Tensor, allowed: Tensor) -> Tensor:
        """One-hot `[B, K]` over the allowed slots; rows with none allowed are not meant to be used."""
        score = score.masked_fill(~allowed, -1e9)
        if not self.training:
            return nn.functional.one_hot(score.argmax(1), score.shape[1]).to(score.dtype)
        uniform = torch.rand(score.shape, generator=self._noise, dtype=torch.float32).clamp_(1e-9, 1 - 1e-7).to(score)
        soft = ((score - (-uniform.log()).log()) / self.temperature).softmax(1)
        hard = nn.functional.one_hot(soft.argmax(1), score.shape[1]).to(soft.dtype)
        return hard + (soft - soft.detach())  # in this order the value is exactly one-hot


def _slot_features(view: BankView) -> Tensor:
    """What is known of each slot, `[B, K, 8]`: similarity to and from the other movable slots (mean, max) and the
    pinned ones (mean), and age (rank, logarithm).
    """
    slots = view.age.shape[1]
    diagonal = torch.eye(slots, dtype=torch.bool, device=view.age.device)
    others = (view.movable[:, None, :] & ~diagonal).to(view.similarity.dtype)  # [B, K, K]
    count = others.sum(2).clamp_min(1)
    columns = []
    for matrix in (view.similarity, view.similarity.transpose(1, 2)):
        columns += [(matrix * others).sum(2) / count, (matrix - 2 * (1 - others)).amax(2).clamp_min(-1)]
        pinned = (view.pinned & view.valid)[:, None, :].to(matrix.dtype)
        columns.append((matrix * pinned).sum(2) / pinned.sum(2).clamp_min(1))
    rank = (view.age[:, :, None] > view.age[:, None, :]).sum(2) / max(1, slots - 1)
    columns += [rank.to(view.similarity.dtype), view.age.to(view.similarity.dtype).add(1).log() / 5]
    return torch.stack(columns, -1)


_POLICIES: dict[str, Callable[[], UpdatePolicy]] = {
    "oldest": Oldest,
    "newest": Newest,
    "least_similar": LeastSimilar,
    "most_similar": MostSimilar,
    "drop": Drop,
    "input_to_memory": InputToMemory,
    "learned": LearnedPolicy,
}
_LETTERS = {"A": "oldest", "B": "newest", "C": "least_similar", "D": "most_similar", "I2M": "input_to_memory"}


def policy_names() -> tuple[str, ...]:
    """The names that `update_policy` knows, without the paper's letters.

    >>> "least_similar" in policy_names()
    True
    """
    return tuple(_POLICIES)


def is_policy(name: str) -> bool:
    """Whether `update_policy` knows that name or letter.

    >>> is_policy("i2m"), is_policy("mine.safetensors")
    (True, False)
    """
    return _LETTERS.get(name.upper(), name) in _POLICIES


def update_policy(policy: str | UpdatePolicy) -> UpdatePolicy:
    """A policy by its name or the paper's letter, in either case; an object that already is one comes back as it is.

    Raises:
        OptionError: there is no such name, or the object is not an `UpdatePolicy`, as a class of such is not.

    >>> update_policy("C").name, update_policy("i2m").name
    ('least_similar', 'input_to_memory')
    """
    if isinstance(policy, str):
        if not is_policy(policy):
            raise OptionError(
                f"update policy: expected one of {', '.join(_POLICIES)} (or {', '.join(_LETTERS)}), got {policy!r}"
            )
        return _POLICIES[_LETTERS.get(policy.upper(), policy)]()
    if isinstance(policy, type):
        raise OptionError(
            f"update policy: expected a name or an object, got the class {policy.__name__}; write {policy.__name__}()"
        )
    if not isinstance(policy, UpdatePolicy) or not isinstance(policy.name, str) or not callable(policy.decide):
        raise OptionError(
            "update policy: expected a name or an object with name, "
            f"uses_similarity and decide(view), got {type(policy).__name__}"
        )
    return policy
