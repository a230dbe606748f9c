"""Where a run may start from: the state of another one, or weights to track with. Trains nothing."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stmemory.checkpoint import differences
from stmemory.errors import OptionError, WeightsError
from stmemory.memory.learned import LearnedPolicy
from stmemory.memory.policy_file import POLICY_FILE, load_policy
from stmemory.memory.registry import update_policy
from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.config import TrainingConfig
from stmemory.training.run_state import read_state
from stmemory.untrusted import parse_json
from stmemory.weights import bundled_names, find_checkpoint, load_part

__all__ = ["Start", "find_start", "without_scores"]


@dataclass(frozen=True, eq=False)
class Start:
    """Weights to start from, by the names of their modules.

    Attributes:
        network: of a `SegmentationNetwork`; without those of the discriminative read if they are older than it.
        policy: of a `LearnedPolicy`, if there is one.
    """

    network: dict[str, Tensor]
    policy: dict[str, Tensor] | None = None


def find_start(where: str | Path, config: TrainingConfig) -> Start:
    """Find what a run is to start from.

    Args:
        where: the `state.pt` of another run, whose averages are taken; or weights to track with, see
            `stmemory.weights.find_checkpoint`, and the policy beside them.
        config: of the run that starts.

    Raises:
        WeightsError: there are none, they are of another preset, or it is the folder of a run.

    >>> find_start("lite", TrainingConfig(preset="paper"))
    Traceback (most recent call last):
    stmemory.errors.WeightsError: lite: expected weights of preset 'paper', got those of 'lite'
    """
    path = Path(where)
    if path.suffix == ".pt" or path.is_file():
        return _from_state(path, config)
    if str(where) not in bundled_names() and (path / "state.pt").is_file():
        raise WeightsError(
            f"{path}: expected weights or the state.pt of a run, got the folder of a run: give {path / 'state.pt'}"
        )
    checkpoint = find_checkpoint(str(where))
    network = load_part(SegmentationNetwork, checkpoint)
    wanted = NetworkConfig.of(config.preset)
    if network.config not in (wanted, without_scores(wanted)):
        raise WeightsError(
            f"{where}: expected weights of preset {config.preset!r}, got those of {network.config.preset!r}"
        )
    policy = load_policy(checkpoint.folder).state_dict() if (checkpoint.folder / POLICY_FILE).is_file() else None
    return Start(network.state_dict(), _wanted_policy(policy, checkpoint.folder / POLICY_FILE, config))


def without_scores(config: NetworkConfig) -> NetworkConfig:
    """The config of the same network without a discriminative read.

    >>> without_scores(NetworkConfig()).appearance_channels
    0
    """
    return dataclasses.replace(config, appearance_channels=0, pinned_bias=False)


def _from_state(path: Path, config: TrainingConfig) -> Start:
    state = read_state(path)
    preset = (
        _preset_of(state["config"], path) if "config" in state else config.preset
    )  # states of earlier versions do not say
    if preset != config.preset:
        raise WeightsError(
            f"{path}: expected the state of a run with preset {config.preset!r}, got one with {preset!r}"
        )
    with torch.device("meta"):
        wanted = NetworkConfig.of(config.preset)
        expected, older = (SegmentationNetwork(each).state_dict() for each in (wanted, without_scores(wanted)))
    average = state["average"]
    told = differences(average, expected) if isinstance(average, dict) else "no weights"
    if told and isinstance(average, dict) and not differences(average, older):
        told = ""
    if told:
        raise WeightsError(
            f"{path}: expected the state of a run with preset {config.preset!r}, got other weights; {told}"
        )
    return Start(average, _wanted_policy(state.get("policy_average"), path, config))


def _preset_of(text: object, path: Path) -> str:
    """The preset of the configuration that is in a state."""
    values = None
    if isinstance(text, str):
        with suppress(OptionError):
            values = parse_json(text)
    preset = values.get("preset") if isinstance(values, dict) else None
    if not isinstance(preset, str):
        raise WeightsError(
            f"{path}: expected the configuration of the run in its state, got something else; the file is damaged: "
            "use a copy of it"
        )
    return preset


def _wanted_policy(found: dict[str, Tensor] | None, path: Path, config: TrainingConfig) -> dict[str, Tensor] | None:
    """The policy's weights, checked, where one is learned."""
    policy = update_policy(config.policy)
    if found is None or not isinstance(policy, LearnedPolicy):
        return None
    if told := differences(found, policy.state_dict()):
        raise WeightsError(f"{path}: expected a learned policy as a run has it, got another; {told}")
    return found
