"""Windows: what the steps since the last line of a log answered, and its means. Names no loss, writes no file."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Window"]


class Window:
    """The steps since the last line of a log.

    Args:
        names: of the losses that a step answers.

    >>> window = Window("loss")
    >>> window.add({"loss": 3.0}, seconds=0.5)
    >>> window.add({"lost": 1.0}, seconds=0.7)
    >>> window.record()
    {'seconds': 0.6, 'loss': 3.0, 'lost': 1.0}
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._sums = self._empty()

    def add(self, losses: Mapping[str, float], *, seconds: float) -> None:
        """Count a step.

        Args:
            losses: of the step; or `lost` alone, if it changed no weight.
            seconds: that it took, with the wait for its clips, and without what is done between steps, such as validation.
        """
        for name, value in (*losses.items(), ("steps", 1.0), ("timed", 1.0), ("seconds", seconds)):
            self._sums[name] += value

    def record(self) -> dict[str, float]:
        """Seconds a step, means of the losses over the steps that were not lost, and how many were lost; and begin anew."""
        sums, self._sums = self._sums, self._empty()
        kept = max(1.0, sums["steps"] - sums["lost"])
        means = {name: sums[name] / kept for name in self._names}
        return {"seconds": sums["seconds"] / max(1.0, sums["timed"]), **means, "lost": sums["lost"]}

    def state_dict(self) -> dict[str, float]:
        """To go on from."""
        return dict(self._sums)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from there. Some states of earlier versions do not know how long their steps took: those are not in the mean."""
        timed = state.get("steps", 0.0) if "seconds" in state else 0.0
        self._sums = {**self._empty(), "timed": timed, **state}

    def _empty(self) -> dict[str, float]:
        return dict.fromkeys((*self._names, "lost", "steps", "timed", "seconds"), 0.0)
