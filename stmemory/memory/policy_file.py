"""A learned policy in a file: safetensors with a version and a digest, beside a network's weights or alone. Nothing is
ever unpickled."""

from __future__ import annotations

import math
from pathlib import Path

from stmemory.errors import OptionError, WeightsError
from stmemory.files import file_path
from stmemory.memory.learned import LearnedPolicy
from stmemory.tensor_file import read_tensor_file, write_tensor_file

__all__ = ["POLICY_FILE", "load_policy", "save_policy"]

POLICY_FILE = "policy.safetensors"

_VERSION = 2  # 2 added a digest of all of the file


def save_policy(policy: LearnedPolicy, path: str | Path) -> None:
    """Write the weights of a learned policy. The file appears whole or not at all.

    Args:
        policy: trained or not.
        path: the file, or a folder, which gets `policy.safetensors`.

    Raises:
        OptionError: the path is no name of a file.
        FileError: the file cannot be written there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_policy(LearnedPolicy(hidden=8), folder)
    ...     load_policy(folder).remove_score[0].out_features
    8
    """
    about = {"format": "stmemory.policy", "version": str(_VERSION), "temperature": str(policy.temperature)}
    write_tensor_file(_file(path), policy.state_dict(), about)


def load_policy(path: str | Path) -> LearnedPolicy:
    """A learned policy from such a file, in eval mode; give it to `TrackingOptions(policy=...)` or
    `MemoryBank(policy=...)`.

    Args:
        path: the file, or the folder that holds `policy.safetensors`.

    Raises:
        WeightsError: there is no such file, it is damaged by as little as one bit, or it holds something else.
        OptionError: the path is no name of a file.
    """
    path = _file(path)
    file = read_tensor_file(path, "a policy that save_policy wrote")
    about, tensors = file.about, file.tensors
    found, version = about.get("format"), about.get("version")
    if found != "stmemory.policy" or version not in ("1", "2") or (version == "2" and not file.whole):
        came = f"{found or 'another file'} of version {version or 'unknown'}{'' if file.whole or version == '1' else ', without a digest'}"
        raise WeightsError(
            f"{path}: expected a policy of version {_VERSION} or older that save_policy wrote, got {came}; use "
            "another copy"
        )
    try:
        temperature = float(about["temperature"])
        if not 0 < temperature < math.inf:
            raise WeightsError(
                f"{path}: expected a policy with a temperature above 0, got {about['temperature'][:40]}; the file is "
                "damaged"
            )
        policy = LearnedPolicy(hidden=len(tensors["remove_score.0.bias"]), temperature=temperature)
        policy.load_state_dict(tensors)
    except (KeyError, ValueError, TypeError, RuntimeError, OptionError) as error:
        raise WeightsError(
            f"{path}: expected a policy that save_policy wrote, got: {error}; use another copy"
        ) from error
    return policy.eval()


def _file(path: str | Path) -> Path:
    """The file, where a folder was named that holds it."""
    folder = isinstance(path, str | Path) and Path(path).is_dir()
    return Path(path) / POLICY_FILE if folder else file_path(path)
