"""Clips spread over processes and devices of this machine. Owns the processes' lives; measures and writes nothing
itself.

A process that dies takes one clip with it and is replaced; when this process dies, the others end at their next word to
it.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from stmemory.evaluation.clips import Clip
from stmemory.evaluation.run_folder import RunFolder
from stmemory.evaluation.worker import News, Setup, evaluate_and_tell

__all__ = ["evaluate_here", "evaluate_in_processes"]

Tell = Callable[[News], None]


def evaluate_here(setup: Setup, clips: Iterable[Clip], folder: RunFolder, tell: Tell) -> None:
    """Evaluate clips in this process, one after the other.

    Args:
        setup: the predictor.
        clips: what to measure it on.
        folder: where the results go; it has its record.
        tell: called after every frame and every clip; what it raises ends the run.

    Raises:
        StmemoryError: the predictor cannot be made.

    >>> from pathlib import Path
    >>> from stmemory.options import TrackingOptions
    >>> evaluate_here(Setup("lite", TrackingOptions()), [], RunFolder(Path("no/such/folder")), print)
    """
    predictor = setup.predictor()
    for clip in clips:
        tell(evaluate_and_tell(predictor, clip, folder, on_frame=_teller(tell, clip.name)))


def evaluate_in_processes(setups: Sequence[Setup], clips: Iterable[Clip], folder: RunFolder, tell: Tell) -> None:
    """Evaluate clips in processes of their own, the longest first.

    Args:
        setups: one for each process.
        clips: what to measure.
        folder: where the results go; it has its record.
        tell: called after every frame and every clip; what it raises ends the run, and the processes.

    >>> from pathlib import Path
    >>> evaluate_in_processes([], [], RunFolder(Path("no/such/folder")), print)
    """
    waiting = sorted(clips, key=len)
    workers: dict[Connection, _Worker] = {}
    try:
        for setup in setups[: len(waiting)]:
            _start(setup, waiting.pop(), folder, workers)
        while workers:
            heard = wait(list(workers))
            for worker in [worker for connection, worker in workers.items() if connection in heard]:
                _listen(worker, waiting, folder, workers, tell)
    finally:
        for worker in workers.values():
            worker.process.terminate()
        for worker in workers.values():
            worker.process.join()
            worker.connection.close()


@dataclass
class _Worker:
    """A process, the wire to it, and the clip that it has."""

    setup: Setup
    process: SpawnProcess
    connection: Connection
    clip: Clip


def _start(setup: Setup, clip: Clip, folder: RunFolder, workers: dict[Connection, _Worker]) -> None:
    """Start a process with its first clip."""
    context = multiprocessing.get_context("spawn")  # torch does not live through a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, setup, folder), daemon=True)
    with _deaf_to_interrupts():  # ctrl-C reaches all processes; this one ends the others
        process.start()
    theirs.close()  # so that the process's death is the wire's end
    with suppress(OSError):  # it may be dead already, which shows when it is listened to
        ours.send(clip)
    workers[ours] = _Worker(setup, process, ours, clip)


def _listen(
    worker: _Worker, waiting: list[Clip], folder: RunFolder, workers: dict[Connection, _Worker], tell: Tell
) -> None:
    """Hear one word of a worker, and give it the next clip when it has done one."""
    try:
        news: News = worker.connection.recv()
    except (EOFError, OSError):
        del workers[worker.connection]
        worker.process.join()
        worker.connection.close()
        tell(
            News(
                worker.clip.name, len(worker.clip), error=f"its process ended with exit code {worker.process.exitcode}"
            )
        )
        if waiting:
            _start(worker.setup, waiting.pop(), folder, workers)
        return
    if news.last and waiting:
        worker.clip = waiting.pop()
        with suppress(OSError):
            worker.connection.send(worker.clip)
    elif news.last:
        del workers[worker.connection]
        worker.connection.close()  # the process ends
        worker.process.join()
    tell(news)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ignore ctrl-C for a moment: a process that is started then ignores it for good."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def _serve(connection: Connection, setup: Setup, folder: RunFolder) -> None:
    """What a process does: clip after clip, until the wire ends."""
    predictor = setup.predictor()
    with suppress(EOFError, OSError):  # the wire ends: there is no more to do, or nobody to do it for
        while True:
            clip: Clip = connection.recv()
            connection.send(evaluate_and_tell(predictor, clip, folder, on_frame=_teller(connection.send, clip.name)))


def _teller(tell: Tell, name: str) -> Callable[[int], None]:
    return lambda done: tell(News(name, done))
