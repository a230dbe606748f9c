"""How to put back what was changed, step by step, so that something either happens or does not."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Undo"]


class Undo:
    """Steps that put back what was changed, the latest change first. A step may be taken twice.

    >>> values, undo = [1], Undo()
    >>> undo.note(lambda: values.__setitem__(0, 1)); values[0] = 2
    >>> undo.put_back(); values
    [1]
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def __len__(self) -> int:
        """How many steps were noted."""
        return len(self._steps)

    def note(self, step: Callable[[], object]) -> None:
        """Say how to put back what is changed next."""
        self._steps.append(step)

    def put_back(self, down_to: int = 0) -> None:
        """Put back all that was changed since there were `down_to` steps. Goes on where it was interrupted, when it is called again."""
        while len(self._steps) > down_to:
            self._steps[-1]()  # first taken, then forgotten
            self._steps.pop()
