"""From the folder of a run to weights that can be loaded, with what is to be told of them. Trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stmemory.errors import OptionError, WeightsError
from stmemory.files import out_folder
from stmemory.memory.learned import LearnedPolicy
from stmemory.memory.policy_file import save_policy
from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.saving import save_network
from stmemory.training.config import TrainingConfig
from stmemory.training.run_folder import expect_no_run
from stmemory.training.run_state import read_state
from stmemory.untrusted import parse_json, read_json

__all__ = ["export", "read_about"]


def export(run: Path, out: Path, *, about: Mapping[str, Any] | None = None) -> int:
    """Write a run's averaged weights, half as long, and those of its learned policy if it has one; the step they are
    of.

    Args:
        run: folder of the run.
        out: folder that `from_pretrained` reads.
        about: what to tell of the weights, see `stmemory.card`; the run's steps, configuration and material are added.

    Raises:
        OptionError: `out` cannot be a folder, or is that of a run.
        WeightsError: the run has no state yet, or a damaged one.

    >>> export(Path("no/such/run"), Path("weights"))
    Traceback (most recent call last):
    stmemory.errors.WeightsError: no/such/run/state.pt: expected the state of a run, got no such file; train first, or
    check the path
    """
    expect_no_run(out_folder(out))
    path = run / "state.pt"
    state = read_state(path, needs=("average", "step"))
    if not isinstance(state.get("config", ""), str):
        raise WeightsError(
            f"{path}: expected the configuration of the run in its state, got something else; the file is damaged: "
            "use a copy of it"
        )
    config = (
        TrainingConfig.from_json(state["config"]) if "config" in state else TrainingConfig.load(run / "config.json")
    )
    network, policy = SegmentationNetwork(NetworkConfig.of(config.preset)), LearnedPolicy()
    try:
        network.load_state_dict(state["average"])
        if "policy_average" in state:
            policy.load_state_dict(state["policy_average"])
    except (TypeError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: expected the state of a run of {config.preset!r}, got other weights "
            f"({str(error).splitlines()[0]})"
        ) from error
    training = {"steps": int(state["step"]), "config": parse_json(config.to_json())}
    if state.get("material"):
        training["material"] = state["material"]
    save_network(network, out, dtype=torch.float16, about={**(about or {}), "training": training})
    if "policy_average" in state:
        save_policy(policy, out)
    return int(state["step"])


def read_about(path: Path) -> dict[str, Any]:
    """Read what is to be told of weights.

    Args:
        path: of a JSON file.

    Raises:
        OptionError: there is no such file, or it holds no JSON object.

    >>> read_about(Path("no/such.json"))
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such.json: expected a JSON object, see stmemory.card; got: No such file or directory
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"{path}: expected a JSON object, see stmemory.card; got: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not isinstance(found, dict):
        raise OptionError(f"{path}: expected a JSON object, see stmemory.card; got {type(found).__name__}")
    about: dict[str, Any] = found
    return about
