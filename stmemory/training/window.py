"""Windows: what the steps since the last line of a log answered, its means, and whether steps still learn. Names no
loss, writes no file."""

from __future__ import annotations

from collections.abc import Mapping

from stmemory.errors import StmemoryError

__all__ = ["Window"]

_DIVERGED = 100  # lost steps in a row, after which none will be kept again


class Window:
    """The steps since the last line of a log.

    Args:
        names: of the losses that a step answers.

    >>> window = Window("loss")
    >>> window.add({"loss": 3.0}, seconds=0.5)
    >>> window.add({"lost": 1.0}, seconds=0.7)
    >>> window.record()
    {'seconds': 0.6, 'loss': 3.0, 'lost': 1.0}
    >>> window.add({"lost": 1.0}, seconds=0.7)
    >>> window.record()
    {'seconds': 0.7, 'lost': 1.0}
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._sums, self._row = self._empty(), 0

    def add(self, losses: Mapping[str, float], *, seconds: float) -> None:
        """Count a step.

        Args:
            losses: of the step; or `lost` alone, if it changed no weight.
            seconds: that it took, with the wait for its clips, and without what is done between steps, such as
                validation.

        Raises:
            StmemoryError: so many steps in a row were lost that the run will learn nothing more.
        """
        for name, value in (*losses.items(), ("steps", 1.0), ("timed", 1.0), ("seconds", seconds)):
            self._sums[name] += value
        self._row = self._row + 1 if "lost" in losses else 0
        if self._row >= _DIVERGED:
            raise StmemoryError(
                f"expected gradients that are finite, got none in {self._row} steps, one after another: the run "
                "diverged; what was saved before "
                "stays, but begin anew in another folder, with a lower learning_rate or a longer warmup"
            )

    @property
    def lost(self) -> int:
        """How many steps in a row were lost, up to the last one, in this window and before it."""
        return self._row

    def record(self) -> dict[str, float]:
        """Seconds a step, means of the losses over the steps that were not lost, if any, and how many were lost; and
        begin anew."""
        sums, self._sums = self._sums, self._empty()
        kept = sums["steps"] - sums["lost"]
        means = {
            name: sums[name] / kept for name in self._names if kept > 0
        }  # a mean of none is no number, least of all 0
        return {"seconds": sums["seconds"] / max(1.0, sums["timed"]), **means, "lost": sums["lost"]}

    def state_dict(self) -> dict[str, float]:
        """To go on from."""
        return {**self._sums, "row": float(self._row)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from there. Some states of earlier versions do not know how long their steps took: those are not in the
        mean."""
        timed = state.get("steps", 0.0) if "seconds" in state else 0.0
        self._sums = {**self._empty(), "timed": timed, **state}
        self._row = int(self._sums.pop("row", 0))

    def _empty(self) -> dict[str, float]:
        return dict.fromkeys((*self._names, "lost", "steps", "timed", "seconds"), 0.0)
