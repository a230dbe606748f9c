"""Evaluation of clips by workers: this process, several processes of this machine, or the actors of a Ray cluster."""

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
from typing import Any, Protocol

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
    "ClipUpdate",
    "Setup",
    "evaluate_here",
    "evaluate_in_processes",
    "evaluate_on_cluster",
    "load_ray",
    "measure_clip",
]

# What ends the evaluation of one clip, and not the run.
FAILURES = (StmemoryError, OSError, MemoryError, torch.cuda.OutOfMemoryError)


@dataclass(frozen=True)
class Setup:
    """All that a worker needs to make the predictor: plain values, which can be sent to another process.

    Attributes:
        weights: bundled name, folder or repository; None is the default.
        options: how to track.
        device: where to compute.
        threads: threads of torch on the CPU; None leaves them as they are.
        revision: revision of a repository; `run_evaluation` makes it a commit, so that all workers load the same.
        dtype: what the network computes in, by its name in torch; no `"auto"`, since other processes may be on other
            processors.

    Raises:
        OptionError: an unknown dtype.
    """

    weights: str | None
    options: TrackingOptions
    device: str = "cpu"
    threads: int | None = None
    revision: str | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not isinstance(getattr(torch, self.dtype, None), torch.dtype):
            raise OptionError(f"dtype: expected a name such as 'float32' or 'bfloat16', got {self.dtype!r}")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle a learned policy as plain arrays: tensors would need shared memory, which not every machine has."""
        policy, options, arrays = self.options.policy, self.options, None
        if isinstance(policy, LearnedPolicy):
            options = dataclasses.replace(options, policy="learned")
            arrays = {name: tensor.detach().cpu().numpy() for name, tensor in policy.state_dict().items()}
        fields = (self.weights, options, self.device, self.threads, self.revision, self.dtype)
        return _unpickled, (Setup, fields, arrays)

    def predictor(self) -> VOSPredictor:
        """Make the predictor, and set the threads of this process.

        Raises:
            WeightsError: there are no such weights.
            OptionError: there is no such device.
        """
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return VOSPredictor.from_pretrained(
            self.weights,
            options=self.options,
            device=usable_device(self.device),
            dtype=getattr(torch, self.dtype),
            revision=self.revision,
        )


def _unpickled(kind: type[Setup], fields: tuple[Any, ...], arrays: Mapping[str, NDArray[np.float32]] | None) -> Setup:
    """The setup that `Setup.__reduce__` took apart."""
    setup = kind(*fields)
    if arrays is None:
        return setup
    policy = LearnedPolicy(hidden=len(arrays["remove_score.0.bias"])).eval()
    policy.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return dataclasses.replace(setup, options=dataclasses.replace(setup.options, policy=policy))


@dataclass(frozen=True)
class ClipUpdate:
    """Progress of a clip, or how it ended.

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
        """Whether this is the last update of the clip."""
        return self.result is not None or self.error is not None


OnUpdate = Callable[[ClipUpdate], object]


def measure_clip(
    predictor: Predictor, clip: Clip, folder: RunFolder, *, on_update: OnUpdate | None = None
) -> ClipUpdate:
    """Evaluate a clip: write its masks as they come, and its scores after the last frame.

    Args:
        predictor: what to measure.
        clip: what to measure it on.
        folder: the run's folder; what is there of the clip is replaced.
        on_update: called after every frame.

    Returns:
        The last update of the clip, with its scores or with the error that ended it. Errors that do not concern this
        clip alone are raised.

    >>> from pathlib import Path
    >>> measure_clip(None, Clip("walk", (), (), ()), RunFolder(Path("no/such/folder"))).error
    'run.json: expected it in the output folder, got none there; all machines must see that folder under the same path'
    """

    def keep(index: int, ids: NDArray[np.int32]) -> None:
        if clip.asked is None or index in clip.asked:
            write_palette_png(folder.mask_of(clip, index), ids)
        if on_update is not None:
            on_update(ClipUpdate(clip.name, index + 1))

    try:
        if not folder.record.is_file():
            raise OptionError(
                f"{folder.record.name}: expected it in the output folder, got none there; all machines must see that "
                "folder under the same path"
            )
        folder.clear(clip.name)
        result = evaluate_clip(predictor, clip, on_frame=keep)
        folder.finish(clip, result)
    except FAILURES as error:
        return ClipUpdate(clip.name, len(clip), error=str(error) or type(error).__name__)
    return ClipUpdate(clip.name, len(clip), result)


def evaluate_here(setup: Setup, clips: Iterable[Clip], folder: RunFolder, on_update: OnUpdate) -> None:
    """Evaluate clips in this process, one after the other.

    Args:
        setup: how to make the predictor.
        clips: what to measure it on.
        folder: where the results go; it has its record.
        on_update: called after every frame and every clip; what it raises ends the run.

    Raises:
        StmemoryError: the predictor cannot be made.

    >>> from pathlib import Path
    >>> evaluate_here(Setup("lite", TrackingOptions()), [], RunFolder(Path("no/such/folder")), print)
    """
    predictor = setup.predictor()
    for clip in clips:
        on_update(measure_clip(predictor, clip, folder, on_update=on_update))


def evaluate_in_processes(
    setups: Sequence[Setup], clips: Iterable[Clip], folder: RunFolder, on_update: OnUpdate
) -> None:
    """Evaluate clips in several processes, the longest clips first.

    Args:
        setups: how to make the predictor, one for each process.
        clips: what to measure.
        folder: where the results go; it has its record.
        on_update: called after every frame and every clip; what it raises ends the run and the processes.

    >>> from pathlib import Path
    >>> evaluate_in_processes([], [], RunFolder(Path("no/such/folder")), print)
    """
    _spread([_Process(setup, folder) for setup in setups], clips, wait, on_update)


def evaluate_on_cluster(
    setup: Setup,
    clips: Iterable[Clip],
    folder: RunFolder,
    on_update: OnUpdate,
    *,
    address: str,
    jobs: int | None = None,
) -> None:
    """Evaluate clips in actors of a Ray cluster, the longest clips first.

    Args:
        setup: how to make the predictor; the device `cuda` gives every actor a GPU of its own.
        clips: what to measure it on.
        folder: where the results go; it has its record.
        on_update: called after every clip; what it raises ends the run and the actors.
        address: the cluster's address: `local` starts one on this machine, `auto` finds the one of this machine.
        jobs: number of actors; by default one for each GPU or CPU of the cluster.

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
        remote = ray.remote(_Actor).options(num_cpus=1, num_gpus=1 if on_gpu else 0)
        workers = [_RayWorker(ray, lambda: remote.remote(setup, folder)) for _ in range(jobs or places)]
        _spread(workers, clips, lambda handles: ray.wait(handles, num_returns=1)[0], on_update)
    finally:
        ray.shutdown()


class _Worker(Protocol):
    """A worker with one clip at a time."""

    @property
    def handle(self) -> Any:
        """What to wait for while the worker has a clip."""

    def give(self, clip: Clip) -> None:
        """Let it evaluate a clip; it is started for its first clip, and again after its death."""

    def update(self) -> ClipUpdate:
        """Receive the next update of the clip; of a worker that died, the last one."""

    def stop(self) -> None:
        """End it, whatever it is doing."""


def _spread(
    workers: Sequence[_Worker],
    clips: Iterable[Clip],
    wait_for: Callable[[list[Any]], Iterable[Any]],
    on_update: OnUpdate,
) -> None:
    """Keep every worker busy until no clip is left, the longest first; a worker that dies takes one clip with it."""
    waiting = sorted(clips, key=len)
    busy = list(workers[: len(waiting)])
    try:
        for worker in busy:
            worker.give(waiting.pop())
        while busy:
            ready = set(wait_for([worker.handle for worker in busy]))
            for worker in [worker for worker in busy if worker.handle in ready]:
                update = worker.update()
                if update.last and waiting:
                    worker.give(waiting.pop())
                elif update.last:
                    busy.remove(worker)
                    worker.stop()
                on_update(update)
    finally:
        for worker in busy:
            worker.stop()


class _Process:
    """A worker in a process of its own, at the other end of a connection."""

    def __init__(self, setup: Setup, folder: RunFolder) -> None:
        self._setup, self._folder = setup, folder
        self._process: SpawnProcess | None = None

    def give(self, clip: Clip) -> None:
        self._clip = clip
        if self._process is None:
            context = multiprocessing.get_context("spawn")  # torch does not survive a fork
            self.handle, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._setup, self._folder), daemon=True)
            with _interrupts_ignored():  # ctrl-C reaches all processes; this one ends the others
                self._process.start()
            theirs.close()  # so that the connection ends with the process
        with suppress(OSError):  # of a process that is dead already, `update` finds out
            self.handle.send(clip)

    def update(self) -> ClipUpdate:
        try:
            update: ClipUpdate = self.handle.recv()
        except (EOFError, OSError):
            code = self._end()
            return ClipUpdate(self._clip.name, len(self._clip), error=f"its process ended with exit code {code}")
        return update

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._end()

    def _end(self) -> int | None:
        """Wait for the end of the process; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.join()
        self.handle.close()
        return process.exitcode


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore ctrl-C for a moment: a process that is started then ignores it for good."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can set signal handlers
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def _serve(connection: Connection, setup: Setup, folder: RunFolder) -> None:
    """Evaluate clip after clip in this process, until the connection ends."""
    predictor = setup.predictor()
    with suppress(EOFError, OSError):  # the other process is gone
        while True:
            clip: Clip = connection.recv()
            connection.send(measure_clip(predictor, clip, folder, on_update=connection.send))


class _RayWorker:
    """A worker on some machine of a Ray cluster."""

    def __init__(self, ray: ModuleType, start: Callable[[], Any]) -> None:
        self._ray, self._start = ray, start
        self._actor: Any = None

    def give(self, clip: Clip) -> None:
        self._clip = clip
        self._actor = self._actor or self._start()
        self.handle = self._actor.evaluate.remote(clip)

    def update(self) -> ClipUpdate:
        try:
            update: ClipUpdate = self._ray.get(self.handle)
        except self._ray.exceptions.RayError as error:
            self._actor = None
            last = (str(error).strip() or type(error).__name__).splitlines()[-1]
            return ClipUpdate(self._clip.name, len(self._clip), error=f"its worker ended: {last}")
        return update

    def stop(self) -> None:
        self._actor = None  # Ray ends an actor that has no handle


class _Actor:
    """The other end of a `_RayWorker`: holds a predictor and evaluates clip after clip."""

    def __init__(self, setup: Setup, folder: RunFolder) -> None:
        self.folder = folder
        self.predictor = setup.predictor()

    def evaluate(self, clip: Clip) -> ClipUpdate:
        """Evaluate a clip into the folder."""
        return measure_clip(self.predictor, clip, self.folder)


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


News = ClipUpdate  # its name before
