"""A policy that is learned: our reading of the abstract of the paper's second version, which names Gumbel-Softmax only.

Not a reproduction: neither the equations nor the results of that version were available to us.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stmemory.errors import OptionError
from stmemory.memory.policy import BankView, Decision

__all__ = ["LearnedPolicy"]

_FEATURES = 8


class LearnedPolicy(nn.Module):
    """Scores slots by how alike and how old they are, and draws the slot that goes and the slot it goes into.

    In training mode both draws are Gumbel-Softmax samples, one-hot in the forward pass and soft in the backward pass
    (straight-through), so the policy learns from the segmentation loss through the fused and replaced templates. In
    eval mode both are the argmax: deterministic.

    Args:
        hidden: width of the two scorers.
        temperature: of the Gumbel-Softmax, above 0; assign `policy.temperature` to follow a schedule.
        seed: of the first weights and of the noise, both drawn from generators of the policy's own.

    Raises:
        OptionError: the temperature is not positive.
    """

    name = "learned"
    uses_similarity = True

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
            for layer in self.modules():  # drawn anew, so that a policy by name is always the same
                if isinstance(layer, nn.Linear):
                    for parameter in layer.parameters():
                        parameter.uniform_(-1, 1, generator=weights).div_(math.sqrt(layer.in_features))

    def seed(self, seed: int) -> None:
        """Start the noise anew."""
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
