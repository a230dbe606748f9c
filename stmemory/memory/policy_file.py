"""A learned policy in a file: safetensors with a version, beside a network's weights or alone. Nothing is ever unpickled."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from stmemory.errors import WeightsError
from stmemory.files import whole_file
from stmemory.memory.learned import LearnedPolicy

__all__ = ["POLICY_FILE", "load_policy", "save_policy"]

POLICY_FILE = "policy.safetensors"

_VERSION = 1


def save_policy(policy: LearnedPolicy, path: str | Path) -> None:
    """Write the weights of a learned policy. The file appears whole or not at all.

    Args:
        policy: trained or not.
        path: the file, or a folder, which gets `policy.safetensors`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_policy(LearnedPolicy(hidden=8), folder)
    ...     load_policy(folder).remove_score[0].out_features
    8
    """
    path = Path(path) / POLICY_FILE if Path(path).is_dir() else Path(path)
    about = {"format": "stmemory.policy", "version": str(_VERSION), "temperature": str(policy.temperature)}
    content = save({name: t.detach().cpu().contiguous() for name, t in policy.state_dict().items()}, metadata=about)
    with whole_file(path) as part:
        part.write_bytes(content)  # save_file() hides the file from other users of the machine


def load_policy(path: str | Path) -> LearnedPolicy:
    """A learned policy from such a file, in eval mode; give it to `TrackingOptions(policy=...)` or `MemoryBank(policy=...)`.

    Args:
        path: the file, or the folder that holds `policy.safetensors`.

    Raises:
        WeightsError: there is no such file, or it holds something else.
    """
    path = Path(path) / POLICY_FILE if Path(path).is_dir() else Path(path)
    try:
        with safe_open(str(path), framework="pt") as opened:
            about, tensors = opened.metadata() or {}, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if about.get("format") != "stmemory.policy" or about.get("version") != str(_VERSION):
            raise WeightsError(f"{path}: expected a policy of version {_VERSION} that save_policy wrote, got {about}")
        temperature = float(about["temperature"])
        if not 0 < temperature < math.inf:
            raise WeightsError(f"{path}: expected a policy with a temperature above 0, got {about['temperature'][:40]}; the file is damaged")
        policy = LearnedPolicy(hidden=len(tensors["remove_score.0.bias"]), temperature=temperature)
        policy.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path}: expected a policy that save_policy wrote, got: {error}") from error
    return policy.eval()
