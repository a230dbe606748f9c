"""How to put back what was changed, step by step, so that something either happens or does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

__all__ = ["Steps", "Undo"]

_Answer = TypeVar("_Answer")


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
        """Put back all that was changed since there were `down_to` steps. Goes on where it was interrupted, when it is
        called again."""
        while len(self._steps) > down_to:
            self._steps[-1]()  # first taken, then forgotten
            self._steps.pop()


class _Changing(Protocol):
    def note_changes(self, undo: Undo | None) -> None: ...


class Steps:
    """Takes one step after another, each of which is atomic: no error, and no interrupt, leaves a
    half.

    >>> values, steps = [1], Steps()
    >>> steps.take(lambda: values.append(2), (), lambda: values.__setitem__(slice(1, None), []))
    >>> values
    [1, 2]
    """

    def __init__(self) -> None:
        self._undo = Undo()  # empty between steps

    def take(self, work: Callable[[], _Answer], parts: Sequence[_Changing], restore: Callable[[], object]) -> _Answer:
        """Do something, and give what it gives.

        Args:
            work: what to do.
            parts: what it changes, that notes its changes itself.
            restore: puts back the rest of what it changes, once the parts are as they were; may be called twice.
        """
        self._undo.put_back()  # what a second interrupt kept from being put back
        undo = self._undo = Undo()
        try:
            undo.note(restore)
            for part in parts:
                part.note_changes(undo)
            answer = work()
            self._undo = Undo()  # from here on it has happened
            return answer
        except BaseException:
            self._undo.put_back()
            raise
        finally:
            for part in parts:
                part.note_changes(None)
