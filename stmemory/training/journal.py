"""Journals: what a run leaves to look at: a log, sample strips, a list of bad data, and TensorBoard if asked. Trains
nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stmemory.errors import OptionError
from stmemory.files import whole_file
from stmemory.training.clips import Clip
from stmemory.training.strips import clip_strips

__all__ = ["Journal", "told"]


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


def told(record: Mapping[str, float]) -> str:
    """A line of the log for the screen: counts whole, the rest to five digits.

    >>> told({"step": 123456, "rate": 0.000123456})
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
