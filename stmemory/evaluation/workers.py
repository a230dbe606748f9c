"""Evaluation of clips in processes of their own: one worker, several on this machine, or a Ray cluster."""

from __future__ import annotations

import dataclasses
import importlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stmemory.errors import OptionError, StmemoryError
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.protocol import ClipResult, Predictor, evaluate_clip
from stmemory.evaluation.run_folder import RunFolder
from stmemory.io.palette import write_palette_png
from stmemory.memory.policy import LearnedPolicy
from stmemory.options import TrackingOptions
from stmemory.predictor import VOSPredictor
from stmemory.weights.devices import usable_device

__all__ = [
    "News",
    "Setup",
    "evaluate_and_tell",
    "evaluate_here",
    "evaluate_in_processes",
    "evaluate_into",
    "evaluate_on_cluster",
    "load_ray",
]

# What ends one clip's evaluation and not the run.
FAILURES = (StmemoryError, OSError, MemoryError, torch.cuda.OutOfMemoryError)


@dataclass(frozen=True)
class Setup:
    """All that a worker needs to make the predictor; plain values, so that it can travel.

    Attributes:
        weights: bundled name, folder or repository; None is the default.
        options: how to track.
        device: where to compute.
        threads: of torch on the CPU; None leaves them as they are.
        revision: of a repository; `run_evaluation` makes it a commit, so that all load the same.
    """

    weights: str | None
    options: TrackingOptions
    device: str = "cpu"
    threads: int | None = None
    revision: str | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Travel with a learned policy as plain arrays: tensors would go through shared memory, which not every machine
        has."""
        policy, options, arrays = self.options.policy, self.options, None
        if isinstance(policy, LearnedPolicy):
            options = dataclasses.replace(options, policy="learned")
            arrays = {name: tensor.detach().cpu().numpy() for name, tensor in policy.state_dict().items()}
        return _arrived, (Setup, (self.weights, options, self.device, self.threads, self.revision), arrays)

    def predictor(self) -> VOSPredictor:
        """Make the predictor, and set the threads of this process.

        Raises:
            WeightsError: there are no such weights.
            OptionError: there is no such device.
        """
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = usable_device(self.device)
        return VOSPredictor.from_pretrained(self.weights, options=self.options, device=device, revision=self.revision)


def _arrived(kind: type[Setup], fields: tuple[Any, ...], arrays: Mapping[str, NDArray[np.float32]] | None) -> Setup:
    """A setup that has travelled."""
    setup = kind(*fields)
    if arrays is None:
        return setup
    policy = LearnedPolicy(hidden=len(arrays["remove_score.0.bias"])).eval()
    policy.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return dataclasses.replace(setup, options=dataclasses.replace(setup.options, policy=policy))


@dataclass(frozen=True)
class News:
    """What a worker tells.

    Attributes:
        clip: the clip's name.
        frames: frames of it that are done.
        result: its scores, which are on disk; None while it is under way.
        error: why it was given up; None unless it was.
    """

    clip: str
    frames: int
    result: ClipResult | None = None
    error: str | None = None

    @property
    def last(self) -> bool:
        """Whether nothing more will be told of the clip."""
        return self.result is not None or self.error is not None


def evaluate_and_tell(
    predictor: Predictor, clip: Clip, folder: RunFolder, *, on_frame: Callable[[int], None] | None = None
) -> News:
    """Evaluate a clip as `evaluate_into` does, and say how it ended, well or not.

    Args:
        predictor: what to measure.
        clip: what to measure it on.
        folder: of the run.
        on_frame: called with the number of frames done.

    Returns:
        The last news of the clip. Errors that are not of one clip alone are raised.

    >>> from pathlib import Path
    >>> evaluate_and_tell(None, Clip("walk", (), (), ()), RunFolder(Path("no/such/folder"))).last
    True
    """
    try:
        return News(clip.name, len(clip), evaluate_into(predictor, clip, folder, on_frame=on_frame))
    except FAILURES as error:
        return News(clip.name, len(clip), error=str(error) or type(error).__name__)


def evaluate_into(
    predictor: Predictor, clip: Clip, folder: RunFolder, *, on_frame: Callable[[int], None] | None = None
) -> ClipResult:
    """Evaluate a clip, write its masks as they come, and its scores when all is done.

    Args:
        predictor: what to measure.
        clip: what to measure it on.
        folder: of the run; what is there of the clip is replaced.
        on_frame: called with the number of frames done.

    Returns:
        The scores.

    Raises:
        StmemoryError: see `evaluate_clip`.
        OptionError: the run's folder is not to be seen from here.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as path:
    ...     evaluate_into(None, Clip("walk", (), (), ()), RunFolder(Path(path)))
    Traceback (most recent call last):
    stmemory.errors.OptionError: run.json: expected it in the output folder, got none there; all machines must see that
    folder under the same path
    """
    if not folder.record.is_file():
        raise OptionError(
            f"{folder.record.name}: expected it in the output folder, got none there; all machines must see that "
            "folder under the "
            "same path"
        )
    folder.clear(clip.name)

    def keep(index: int, ids: NDArray[np.int32]) -> None:
        if clip.asked is None or index in clip.asked:
            write_palette_png(folder.mask_of(clip, index), ids)
        if on_frame is not None:
            on_frame(index + 1)

    result = evaluate_clip(predictor, clip, on_frame=keep)
    folder.finish(clip, result)
    return result


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


def evaluate_on_cluster(
    setup: Setup,
    clips: Iterable[Clip],
    folder: RunFolder,
    tell: Callable[[News], None],
    *,
    address: str,
    jobs: int | None = None,
) -> None:
    """Evaluate clips in actors of a Ray cluster, the longest first.

    Args:
        setup: the predictor; a device `cuda` gives every actor a GPU of its own.
        clips: what to measure it on.
        folder: where the results go; it has its record.
        tell: called after every clip; what it raises ends the run, and the actors.
        address: of the cluster: `local` starts one on this machine, `auto` finds the one that this machine belongs to.
        jobs: actors; one for each GPU or CPU of the cluster by default.

    Raises:
        OptionError: Ray is not installed, or there is no such cluster.
    """
    ray = load_ray()
    try:
        options = {"num_cpus": jobs} if address == "local" and jobs else {}
        ray.init(
            address=address, include_dashboard=False if address == "local" else None, log_to_driver=False, **options
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OptionError(f"ray: expected the address of a cluster, or local, got {address!r}: {error}") from error
    try:
        on_gpu = setup.device.startswith("cuda")
        places = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 0)) or 1
        actor = ray.remote(_Actor).options(num_cpus=1, num_gpus=1 if on_gpu else 0)
        _drive(ray, lambda: actor.remote(setup, folder), sorted(clips, key=len), jobs or places, tell)
    finally:
        ray.shutdown()


class _Actor:
    """Lives on some machine, holds a predictor, and evaluates clip after clip."""

    def __init__(self, setup: Setup, folder: RunFolder) -> None:
        self.folder = folder
        self.predictor = setup.predictor()

    def evaluate(self, clip: Clip) -> News:
        """Evaluate a clip into the folder."""
        return evaluate_and_tell(self.predictor, clip, self.folder)


@dataclass
class _Task:
    """A clip under way, and the actor that has it."""

    actor: Any
    clip: Clip


def _drive(
    ray: ModuleType, new_actor: Callable[[], Any], waiting: list[Clip], jobs: int, tell: Callable[[News], None]
) -> None:
    """Keep every actor busy until no clip waits; an actor that dies takes one clip with it and is replaced."""
    tasks: dict[Any, _Task] = {}

    def give(actor: Any) -> None:
        clip = waiting.pop()
        tasks[actor.evaluate.remote(clip)] = _Task(actor, clip)

    for _ in range(min(jobs, len(waiting))):
        give(new_actor())
    while tasks:
        (done, *_), _ = ray.wait(list(tasks), num_returns=1)
        task = tasks.pop(done)
        actor = task.actor
        try:
            news: News = ray.get(done)
        except ray.exceptions.RayError as error:
            last = (str(error).strip() or type(error).__name__).splitlines()[-1]
            news, actor = News(task.clip.name, len(task.clip), error=f"its worker ended: {last}"), None
        if waiting:
            give(actor or new_actor())
        tell(news)


def load_ray() -> ModuleType:
    """Import Ray.

    Raises:
        OptionError: it is not installed.

    >>> import sys
    >>> sys.modules["ray"] = None  # as if it were not
    >>> load_ray()
    Traceback (most recent call last):
    stmemory.errors.OptionError: ray: expected Ray to be installed, got import of ray halted; None in sys.modules;
    run: pip install "stmemory[cluster]"
    >>> del sys.modules["ray"]
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise OptionError(
            f'ray: expected Ray to be installed, got {error}; run: pip install "stmemory[cluster]"'
        ) from error
