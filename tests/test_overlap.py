"""Facts about reading ahead and writing behind: order, bounds, errors where they belong, and threads that end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from stmemory.io.overlap import ReadAhead, WriteBehind, spare_processors


def ours() -> list[str]:
    """Threads of this module that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stmemory-")]


def numbers(read: list[int], *, fails_at: int | None = None, end: int = 20) -> Iterator[int]:
    for number in range(end):
        if number == fails_at:
            raise ValueError(f"no {number}")
        read.append(number)
        yield number


def test_items_come_in_order_and_few_are_held() -> None:
    """All of them; never more than two are read beyond the one that is worked on."""
    read: list[int] = []
    with ReadAhead(numbers(read), depth=2) as items:
        for expected, item in enumerate(items):
            assert expected == item
            assert len(read) <= item + 1 + 2
    assert list(range(20)) == read and [] == ours()


def test_an_error_comes_in_its_place() -> None:
    """What was before it is handed out first; after it there is nothing."""
    got = []
    with ReadAhead(numbers([], fails_at=5), depth=3) as items, pytest.raises(ValueError, match="no 5"):
        for item in items:
            got.append(item)
    assert [0, 1, 2, 3, 4] == got and [] == ours()


def test_leaving_early_reads_no_more() -> None:
    """The thread ends, and the rest of the source is left."""
    read: list[int] = []
    with ReadAhead(numbers(read), depth=2) as items:
        assert 0 == next(items)
    assert len(read) <= 4 and [] == ours()
    assert [] == list(items)


def test_it_reads_in_another_thread_while_the_caller_works() -> None:
    """The next item is there before it is asked for."""
    there = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        there.set()
        yield 1

    with ReadAhead(source()) as items:
        assert 0 == next(items) and there.wait(10)


def test_calls_are_made_in_order_and_all_of_them() -> None:
    """The block ends when the last one is made."""
    done: list[int] = []
    with WriteBehind(depth=2) as behind:
        for number in range(8):
            behind.do(done.append, number)
    assert list(range(8)) == done and [] == ours()


def test_an_interrupted_caller_drops_what_has_not_begun() -> None:
    """The call that has begun is waited for: nothing is half done, and no thread is left."""
    begun, done = threading.Event(), list[int]()

    def slow() -> None:
        begun.set()
        time.sleep(0.1)
        done.append(1)

    with pytest.raises(KeyboardInterrupt), WriteBehind(depth=3) as behind:
        behind.do(slow)
        assert begun.wait(10)
        behind.do(done.append, 2)
        raise KeyboardInterrupt
    assert [1] == done and [] == ours()


def test_no_more_calls_wait_than_may() -> None:
    """The caller waits instead."""
    hold, begun, asked = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        hold.wait(10)

    def ask() -> None:
        with WriteBehind(depth=2) as behind:
            for number in range(4):
                behind.do(slow)
                asked.append(number)

    caller = threading.Thread(target=ask)
    caller.start()
    assert begun.wait(10)
    caller.join(0.2)
    assert len(asked) <= 2
    hold.set()
    caller.join(10)
    assert 4 == len(asked)


def test_a_call_that_fails_ends_the_rest() -> None:
    """Its error is raised, and nothing that was asked for after it is done."""
    done: list[int] = []

    def fail() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), WriteBehind(depth=8) as behind:
        behind.do(done.append, 1)
        behind.do(fail)
        behind.do(done.append, 2)
        behind.wait()
    assert [1] == done and [] == ours()


def test_without_depth_all_is_done_in_turns() -> None:
    """No thread, nothing ahead; errors come where they arise."""
    read: list[int] = []
    with ReadAhead(numbers(read, fails_at=3), depth=0) as items, pytest.raises(ValueError, match="no 3"):
        for item in items:
            assert list(range(item + 1)) == read and [] == ours()
    assert [] == list(items)
    done: list[int] = []
    with WriteBehind(depth=0) as behind:
        behind.do(done.append, 1)
        assert [1] == done and 1 == behind.done and [] == ours()
        with pytest.raises(ZeroDivisionError):
            behind.do(divmod, 1, 0)
        behind.do(done.append, 2)  # nothing comes after what failed
    assert [1] == done and behind.failed


def test_processors_to_spare_are_those_without_a_thread_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as this process may use, less torch's threads, and never fewer than none."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert 2 == spare_processors()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 9)
    assert 0 == spare_processors()
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert 3 == spare_processors()
