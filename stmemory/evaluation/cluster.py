"""Clips spread over machines with Ray (extra `cluster`). Owns the actors' lives; measures and writes nothing itself.

All machines see the data and the output folder under the same paths, and have this library installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from stmemory.errors import OptionError
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.run_folder import RunFolder
from stmemory.evaluation.worker import News, Setup, evaluate_and_tell

__all__ = ["evaluate_on_cluster", "load_ray"]


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
        raise OptionError(f"--ray: expected the address of a cluster, or local, got {address!r}: {error}") from error
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
    stmemory.errors.OptionError: --ray: expected Ray to be installed, got import of ray halted; None in sys.modules;
    run: pip install "stmemory[cluster]"
    >>> del sys.modules["ray"]
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise OptionError(
            f'--ray: expected Ray to be installed, got {error}; run: pip install "stmemory[cluster]"'
        ) from error
