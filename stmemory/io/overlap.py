"""Work that overlaps: what is read ahead of its use, and what is written behind it, each in a thread of its own.

Where torch has a thread on every processor this gains nothing, since they take turns: see `spare_processors`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import torch

__all__ = ["ReadAhead", "WriteBehind", "spare_processors"]

_Item = TypeVar("_Item")
_END: Any = object()


def spare_processors() -> int:
    """How many processors this process may run on beside those that torch has threads for. A container's share of their
    time is not known here, and threads of torch count though a GPU computes.

    >>> spare_processors() >= 0
    True
    """
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, ours - torch.get_num_threads())


class ReadAhead(Generic[_Item]):
    """What an iterator gives, in order, read in a thread while the last of it is worked on.

    An error of the source is raised where its item would have come.

    Args:
        source: used by no one else from here on.
        depth: items that are held at most, beside the one that was handed out; with 0 each is read when it is asked
            for, without a thread.

    >>> with ReadAhead(iter(range(5))) as items:
    ...     list(items)
    [0, 1, 2, 3, 4]
    """

    def __init__(self, source: Iterator[_Item], *, depth: int = 1) -> None:
        self._source, self._depth = source, depth
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stmemory-read")  # starts with the first order
        self._coming: deque[Future[_Item]] = deque()
        for _ in range(depth):
            self._order()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Item:
        if not self._depth:
            return next(self._source)
        if not self._coming:
            raise StopIteration
        item = self._coming.popleft().result()
        if item is _END:
            self.close()
            raise StopIteration
        self._order()
        return item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Read no more, and drop what was read ahead. Waits for the item that is being read."""
        self._coming.clear()
        self._source = iter(())
        self._thread.shutdown(cancel_futures=True)

    def _order(self) -> None:
        self._coming.append(cast("Future[_Item]", self._thread.submit(next, self._source, _END)))


class WriteBehind:
    """Calls that are made in a thread, in order, while the caller goes on.

    An error is raised by the call of `do` or `wait` that meets it; what was asked for after it is not done. An error of
    the caller drops the calls that have not begun.

    Args:
        depth: calls that are not done yet, at most; one more makes the caller wait. With 0 each is made when it is
            asked for, without a thread.

    >>> done = []
    >>> with WriteBehind() as behind:
    ...     for number in range(5):
    ...         behind.do(done.append, number)
    >>> done
    [0, 1, 2, 3, 4]
    """

    def __init__(self, *, depth: int = 1) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stmemory-write")
        self._depth = depth
        self._waiting: deque[Future[object]] = deque()
        self.done = 0  # calls that were made
        self.failed = False  # whether one of them has failed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self._thread.shutdown(cancel_futures=True)  # waits for the call that has begun

    def do(self, call: Callable[..., object], *arguments: object) -> None:
        """Ask for a call; waits while too many do."""
        if not self._depth:
            self._made(call, arguments)
            return
        while len(self._waiting) >= self._depth:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._made, call, arguments))

    def wait(self) -> None:
        """Wait until everything that was asked for is done."""
        while self._waiting:
            self._waiting.popleft().result()

    def _made(self, call: Callable[..., object], arguments: tuple[object, ...]) -> None:
        if self.failed:
            return
        try:
            call(*arguments)
            self.done += 1
        except BaseException:
            self.failed = True
            raise
