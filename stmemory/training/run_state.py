"""State of a training run: checkpoints, the log, and the start from weights."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from stmemory.errors import OptionError, WeightsError
from stmemory.io.files import whole_file
from stmemory.io.run_folder import expect_same
from stmemory.io.untrusted import parse_json, read_json
from stmemory.memory.policy import LearnedPolicy, update_policy
from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.config import TrainingConfig
from stmemory.training.synthesis.clips import Clip, clip_strips
from stmemory.weights.checkpoint import differences
from stmemory.weights.pretrained import bundled_names, find_checkpoint, load_part
from stmemory.weights.tensors import POLICY_FILE, load_policy

__all__ = [
    "Journal",
    "Start",
    "expect_no_run",
    "expect_no_weights",
    "expect_own_config",
    "find_start",
    "log_line",
    "read_state",
    "without_scores",
    "write_config",
    "write_state",
]

_CONFIG, _STATE = "config.json", "state.pt"
_COMMENT = b"stmemory.state sha256 "  # and 64 hexadecimal digits
_END = b"PK\x05\x06"  # begins the last 22 bytes of an archive without a comment
_DAMAGED = (
    OSError,
    RuntimeError,
    UnpicklingError,
    EOFError,
    struct.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)


def read_state(path: Path, *, needs: Sequence[str] = ("average",)) -> dict[str, Any]:
    """Read what `write_state` wrote, without running code of the file.

    All tensors are on the CPU, and go from there to where they belong. On CUDA this matters for more than memory: Adam
    takes its counters of steps as they come, and would wait for the GPU in each step if they lay there.

    Args:
        path: path of the file.
        needs: names that are wanted of it.

    Raises:
        WeightsError: there is no such file, it is damaged by as little as one bit, or it is something else.

    >>> read_state(Path("no/such/state.pt"))
    Traceback (most recent call last):
    stmemory.errors.WeightsError: no/such/state.pt: expected the state of a run, got no such file; train first, or check
    the path
    """
    if not path.is_file():
        raise WeightsError(f"{path}: expected the state of a run, got no such file; train first, or check the path")
    try:
        state = torch.load(io.BytesIO(_checked(path, path.read_bytes())), map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except _DAMAGED as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path}: expected the state.pt of a run, got a damaged or foreign file ({why}); use a copy of it, or "
            "begin again in another folder"
        ) from error
    missing = [name for name in needs if name not in state] if isinstance(state, dict) else list(needs)
    if missing:
        raise WeightsError(
            f"{path}: expected the state.pt of a run, got one without {', '.join(missing)}; name another file"
        )
    found: dict[str, Any] = state
    return found


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state, atomically.

    Raises:
        FileError: the file cannot be written there.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run" / "state.pt"
    >>> write_state(path, {"average": {"weight": torch.ones(2)}})
    >>> read_state(path)["average"]["weight"]
    tensor([1., 1.])
    """
    buffer = io.BytesIO()  # torch's own writer turns a full disk into a riddle
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    comment = _COMMENT + hashlib.sha256(content).hexdigest().encode()
    with whole_file(path) as part, part.open("wb") as file:
        file.write(content[:-2])
        file.write(struct.pack("<H", len(comment)) + comment)


def _checked(path: Path, content: bytes) -> bytes:
    """What `torch.save` wrote, without the digest; states of earlier versions have none.

    Raises:
        WeightsError: the digest is another, or something stands where it should.
    """
    if content[-22:-18] == _END or content[:2] != b"PK":  # of an earlier version, or of another program
        return content
    length = len(_COMMENT) + 64
    plain = content[: -length - 2] + b"\0\0"
    if content[-length:] != _COMMENT + hashlib.sha256(plain).hexdigest().encode():
        raise WeightsError(
            f"{path}: expected the state.pt of a run, got a damaged or foreign file (its digest is another, or there "
            "is none); use a copy of it, or begin again in another folder"
        )
    return plain


class Journal:
    """The files of a run: `log.jsonl`, `skipped.txt`, `strips/STEP.png`, and `events.*` of TensorBoard.

    Args:
        out: folder of the run; made if missing.
        step: what log and TensorBoard say of later steps is dropped: the run goes on from here, and does them again.
        skipped: the files that were known to be of no use at that step; None leaves those of `skipped.txt`.
        tensorboard: write for TensorBoard too.

    Raises:
        OptionError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, out: Path, *, step: int = 0, skipped: Sequence[str] | None = None, tensorboard: bool = False
    ) -> None:
        self.out = out
        self._board: Any = _summary_writer(out, step=step) if tensorboard else None
        out.mkdir(parents=True, exist_ok=True)
        log, listed = out / "log.jsonl", out / "skipped.txt"
        if log.exists():
            _rewrite(log, [line for line in _lines(log) if _step_of(line) <= step])
        if skipped is not None and listed.exists():
            _rewrite(listed, skipped)
        self._known = dict.fromkeys(_lines(listed) if listed.exists() else ())

    @property
    def skipped(self) -> tuple[str, ...]:
        """The files that could not be used so far, in the order in which they were met."""
        return tuple(self._known)

    def write(self, record: Mapping[str, float]) -> None:
        """Append a line to the log."""
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(dict(record)) + "\n")
        if self._board is not None:
            for name, value in record.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(record["step"]))
            self._board.flush()

    def skip(self, lines: Sequence[str]) -> int:
        """Name files that could not be used, each once; how many are known by now."""
        new = [line for line in dict.fromkeys(lines) if line not in self._known]
        if new:
            with (self.out / "skipped.txt").open("a") as file:
                file.write("".join(f"{line}\n" for line in new))
            self._known.update(dict.fromkeys(new))
        return len(self._known)

    def strip(self, step: int, truth: Clip, predicted: Clip) -> None:
        """Draw a clip as it is, and as it was predicted below."""
        path = self.out / "strips" / f"{step:08}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        clip_strips([truth, predicted], path)

    def close(self) -> None:
        """Finish the files."""
        if self._board is not None:
            self._board.close()


def log_line(record: Mapping[str, float]) -> str:
    """A line of the log for the screen: counts whole, the rest to five digits.

    >>> log_line({"step": 123456, "rate": 0.000123456})
    'step 123456 rate 0.00012346'
    """
    return " ".join(
        f"{name} {value}" if isinstance(value, int) else f"{name} {value:.5g}" for name, value in record.items()
    )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _step_of(line: str) -> float:
    """The step that a line of a log is of; infinity where it is half written or damaged, so that it is dropped as those
    of later steps."""
    try:
        step = json.loads(line)["step"]  # losses may be NaN
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf
    return step if isinstance(step, int) else math.inf


def _rewrite(path: Path, lines: Sequence[str]) -> None:
    with whole_file(path) as part:
        part.write_text("".join(f"{line}\n" for line in lines))


def _summary_writer(out: Path, *, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OptionError(
            "tensorboard: expected it to be installed, and it is not; pip install stmemory[train]"
        ) from error
    return SummaryWriter(str(out), purge_step=step + 1)


@dataclass(frozen=True, eq=False)
class Start:
    """Weights to start from, by the names of their modules.

    Attributes:
        network: parameters of a `SegmentationNetwork`; without those of the discriminative read if they are older than
            it.
        policy: parameters of a `LearnedPolicy`, if there is one.
    """

    network: dict[str, Tensor]
    policy: dict[str, Tensor] | None = None


def find_start(where: str | Path, config: TrainingConfig) -> Start:
    """Find what a run is to start from.

    Args:
        where: the `state.pt` of another run, whose averages are taken; or weights to track with, see
            `stmemory.weights.pretrained.find_checkpoint`, and the policy beside them.
        config: configuration of the run that starts.

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
    problem = differences(average, expected) if isinstance(average, dict) else "no weights"
    if problem and isinstance(average, dict) and not differences(average, older):
        problem = ""
    if problem:
        raise WeightsError(
            f"{path}: expected the state of a run with preset {config.preset!r}, got other weights; {problem}"
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
            f"{path}: expected the configuration of the run in its state, "
            "got something else; the file is damaged: use a copy of it"
        )
    return preset


def _wanted_policy(found: dict[str, Tensor] | None, path: Path, config: TrainingConfig) -> dict[str, Tensor] | None:
    """The policy's weights, checked, where one is learned."""
    policy = update_policy(config.policy)
    if found is None or not isinstance(policy, LearnedPolicy):
        return None
    if problem := differences(found, policy.state_dict()):
        raise WeightsError(f"{path}: expected a learned policy as a run has it, got another; {problem}")
    return found


def expect_own_config(out: Path, config: TrainingConfig) -> None:
    """Refuse a folder whose `config.json` is of another run, of exported weights, or of something else; none is fine.

    Args:
        out: folder of the run.
        config: configuration of the run; what a run may change, such as `save_every`, is not compared.

    Raises:
        OptionError: the folder is taken.

    >>> expect_own_config(Path("no/such/run"), TrainingConfig())
    """
    path = out / _CONFIG
    expect_no_weights(out)
    if not path.exists():
        return
    try:
        written = TrainingConfig.load(path)
    except ValueError as error:
        raise OptionError(
            f"{path}: expected the configuration of this run, got another file ({error}); train into another folder"
        ) from error
    expect_same(
        path,
        "run",
        written.decisive(),
        config.decisive(),
        advice="there is no state yet: go on with that configuration, train into another folder, or delete this one",
    )


def expect_no_weights(out: Path) -> None:
    """Refuse to train into a folder of exported weights, whose `config.json` the run's would replace.

    Raises:
        OptionError: the folder holds the `config.json` of weights.

    >>> expect_no_weights(Path("no/such/folder"))
    """
    if _is_of_weights(out / _CONFIG):
        raise OptionError(
            f"{out}: expected a folder for a run, got one of exported "
            "weights, which a run would destroy; name another folder"
        )


def expect_no_run(out: Path) -> None:
    """Refuse to write weights into the folder of a run, whose `config.json` theirs would replace.

    Raises:
        OptionError: the folder holds a `state.pt`, or a `config.json` that is not of weights.

    >>> expect_no_run(Path("no/such/folder"))
    """
    config = out / _CONFIG
    if (out / _STATE).exists() or (config.exists() and not _is_of_weights(config)):
        raise OptionError(
            f"{out}: expected a folder for weights, got that of a run, "
            f"whose {_CONFIG} they would replace; name another folder"
        )


def write_config(out: Path, config: TrainingConfig) -> None:
    """Say in the folder what is trained there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_config(Path(folder), TrainingConfig(seed=3))
    ...     TrainingConfig.load(Path(folder) / "config.json").seed
    3
    """
    with whole_file(out / _CONFIG) as part:
        part.write_text(config.to_json(), encoding="utf-8")


def _is_of_weights(config: Path) -> bool:
    try:
        found = read_json(config)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "format_version" in found
