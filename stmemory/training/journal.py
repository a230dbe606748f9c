"""Journals: what a run leaves to look at: a log, sample strips, a list of bad data, and TensorBoard if asked. Trains nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stmemory.errors import OptionError
from stmemory.files import whole_file
from stmemory.training.clips import Clip
from stmemory.training.strips import clip_strips

__all__ = ["Journal"]


class Journal:
    """The files of a run: `log.jsonl`, `skipped.txt`, `strips/STEP.png`, and `events.*` of TensorBoard.

    Args:
        out: folder of the run; made if missing.
        step: what the log says of later steps is dropped: the run goes on from here, and does them again.
        tensorboard: write for TensorBoard too.

    Raises:
        OptionError: TensorBoard is asked for and not installed.
    """

    def __init__(self, out: Path, *, step: int = 0, tensorboard: bool = False) -> None:
        self.out = out
        self._board: Any = _summary_writer(out) if tensorboard else None
        log = out / "log.jsonl"
        if log.exists():
            lines = [line for line in log.read_text().splitlines() if line.endswith("}") and json.loads(line)["step"] <= step]
            with whole_file(log) as part:
                part.write_text("".join(f"{line}\n" for line in lines))
        skipped = out / "skipped.txt"
        self._known = set(skipped.read_text().splitlines()) if skipped.exists() else set()
        out.mkdir(parents=True, exist_ok=True)

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
            self._known.update(new)
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


def _summary_writer(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OptionError("tensorboard: expected it to be installed, and it is not; pip install stmemory[train]") from error
    return SummaryWriter(str(out))
