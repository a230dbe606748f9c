"""`Learner`: all that a run changes: a network, a learned policy if there is one, their averages, the optimiser."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from stmemory.memory.policy import LearnedPolicy, UpdatePolicy, update_policy
from stmemory.networks.config import NetworkConfig
from stmemory.networks.layers import use_channels_last
from stmemory.networks.lite import LiteTrunk
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.config import Phase, TrainingConfig
from stmemory.training.schedule import averaging, temperature

__all__ = ["Learner", "follow"]

_PROJECTED = (".appearance.", "discriminate.")  # the discriminative read itself
_SCORED = ("decoder.cues.", "decoder.trust")  # its part in the decoder
_OPTIMISERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


class Learner:
    """What is learned, and what is saved of it.

    Args:
        config: Configuration of the run.
        device: where.
    """

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.network, self.average = self._new_network(), self._new_network().requires_grad_(False)
        self.policy, self.policy_average = self._new_policy(), self._new_policy()
        self.adopt(self.network.state_dict())
        self.optimiser: torch.optim.Optimizer = _OPTIMISERS[config.optimiser](
            self._groups(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def adopt(self, weights: dict[str, Tensor]) -> None:
        """Start from these weights of a network, strictly."""
        self.network.load_state_dict(weights)
        self.average.load_state_dict(weights)

    def adopt_policy(self, weights: dict[str, Tensor] | None) -> None:
        """Start from these weights of a learned policy, if there are any and a policy is learned."""
        if (
            weights is not None
            and isinstance(self.policy, LearnedPolicy)
            and isinstance(self.policy_average, LearnedPolicy)
        ):
            self.policy.load_state_dict(weights)
            self.policy_average.load_state_dict(weights)

    def parameters(self) -> list[nn.Parameter]:
        """All that gradients reach, in a fixed order."""
        learned = list(self.policy.parameters()) if isinstance(self.policy, LearnedPolicy) else []
        return [*self.network.parameters(), *learned]

    def prepare(self, phase: Phase, step: int, *, rate: float) -> None:
        """Training mode but for what a phase keeps fixed, no gradients yet, and what the schedules say of the step."""
        self.network.train()
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # the statistics of ImageNet are better than those of a few clips
        trunk = getattr(self.network.query_encoder, "trunk", None)
        if isinstance(trunk, LiteTrunk):
            for number, part in enumerate((trunk.stem, *trunk.stages)):
                part.requires_grad_(number >= phase.frozen)
        if self.config.matching_factor == 0 or self.config.projection_factor == 0:
            for name, parameter in self.network.named_parameters():
                scored, projected = (any(part in name for part in parts) for parts in (_SCORED, _PROJECTED))
                if (projected and self.config.projection_factor == 0) or (
                    not (scored or projected) and self.config.matching_factor == 0
                ):
                    parameter.requires_grad_(False)
        if self.config.network_factor == 0:
            self.network.requires_grad_(
                False
            )  # gradients pass through to the policy, whose norm alone counts for clipping
        if isinstance(self.policy, LearnedPolicy):
            self.policy.temperature = temperature(self.config, step)
            self.policy.seed(self.config.seed * 1_000_003 + step)  # of the step alone, so that a run can stop at any
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimiser.zero_grad(set_to_none=True)

    def update(self, step: int) -> float:
        """One step of the optimiser and of the average; the norm of the gradients before clipping.

        A norm that is not finite is returned like any other, and changes no weights, nor their average.
        """
        norm = float(nn.utils.clip_grad_norm_(self.parameters(), self.config.clip_norm))
        if not math.isfinite(norm):
            return norm
        self.optimiser.step()
        decay = averaging(self.config, step + 1)
        follow(self.average, self.network, decay)
        if isinstance(self.policy, LearnedPolicy) and isinstance(self.policy_average, LearnedPolicy):
            follow(self.policy_average, self.policy, decay)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """To go on from exactly."""
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        if isinstance(self.policy, LearnedPolicy) and isinstance(self.policy_average, LearnedPolicy):
            state |= {"policy": self.policy.state_dict(), "policy_average": self.policy_average.state_dict()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        if isinstance(self.policy, LearnedPolicy) and isinstance(self.policy_average, LearnedPolicy):
            self.policy.load_state_dict(state["policy"])
            self.policy_average.load_state_dict(state["policy_average"])

    def _new_network(self) -> SegmentationNetwork:
        network = SegmentationNetwork(NetworkConfig.of(self.config.preset)).to(self.device)
        use_channels_last(network)
        return network

    def _new_policy(self) -> UpdatePolicy:
        policy = update_policy(self.config.policy)
        if isinstance(policy, LearnedPolicy):
            policy.to(self.device).train()
        return policy

    def _groups(self) -> list[dict[str, Any]]:
        trunk = [p for name, p in self.network.named_parameters() if ".trunk." in name or ".backbone." in name]
        known = {id(p) for p in trunk}
        named, factor = list(self.network.named_parameters()), self.config.network_factor
        scored = [p for name, p in named if any(part in name for part in _SCORED)]
        projected = [p for name, p in named if any(part in name for part in _PROJECTED)]
        known |= {id(p) for p in (*scored, *projected)}
        rest = [p for p in self.network.parameters() if id(p) not in known]
        of_matching = factor * self.config.matching_factor
        groups: list[dict[str, Any]] = [
            {"params": trunk, "factor": self.config.trunk_factor * of_matching},
            {"params": rest, "factor": of_matching},
        ]
        if scored:
            groups.append({"params": scored, "factor": self.config.score_factor * factor})
            groups.append({"params": projected, "factor": self.config.projection_factor * factor})
        if isinstance(self.policy, LearnedPolicy):
            groups.append({"params": list(self.policy.parameters()), "factor": self.config.policy_factor})
        return groups


def follow(mean: nn.Module, now: nn.Module, decay: float) -> None:
    """Move averaged weights towards the present ones, in place: to `decay` of themselves and the rest of these."""
    with torch.no_grad():
        for slow, fast in zip(mean.parameters(), now.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)
