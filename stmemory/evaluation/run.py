"""An evaluation from beginning to end: the record of the run, the clips that are left, the tables and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch

from stmemory.errors import OptionError
from stmemory.evaluation.clips import Clip
from stmemory.evaluation.protocol import ClipResult
from stmemory.evaluation.report import Circumstances, as_json, current_circumstances, write_tables
from stmemory.evaluation.run_folder import RunFolder
from stmemory.evaluation.workers import (
    ClipUpdate,
    Setup,
    evaluate_here,
    evaluate_in_processes,
    evaluate_on_cluster,
    load_ray,
)
from stmemory.io.files import whole_file
from stmemory.io.run_folder import held
from stmemory.state import weights_of
from stmemory.weights.devices import usable_device
from stmemory.weights.hub import Where
from stmemory.weights.pretrained import commit_of, load_tracking_network

__all__ = ["Evaluation", "Outcome", "run_evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, on what, and how it is spread.

    Attributes:
        clips: what to measure on; their names differ.
        setup: how to make the predictor.
        about: which data set and split, for the record: plain JSON values.
        devices: where to compute; processes take them in turn.
        jobs: number of processes or actors; by default one for each device, or one for each CPU or GPU of the cluster.
        ray: address of a Ray cluster; None stays on this machine.

    Raises:
        OptionError: there are no clips, two have one name, or there is less than one job or thread.
    """

    clips: tuple[Clip, ...]
    setup: Setup
    about: Mapping[str, object] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu",)
    jobs: int | None = None
    ray: str | None = None

    def __post_init__(self) -> None:
        names = [clip.name for clip in self.clips]
        if not names or len(set(names)) < len(names):
            raise OptionError(
                f"clips: expected one or more with names of their own, got {', '.join(names) or 'none'}; name each once"
            )
        for name, value in (("jobs", self.jobs), ("threads", self.setup.threads)):
            if value is not None and value < 1:
                raise OptionError(f"{name}: expected 1 or more, got {value}")
        if self.ray is not None and self.devices not in (("cpu",), ("cuda",)):
            raise OptionError(
                "devices: expected cpu or cuda, without a number, since Ray gives each worker a GPU, got "
                f"{','.join(self.devices)}"
            )


@dataclass(frozen=True)
class Outcome:
    """How an evaluation ended.

    Attributes:
        results: of the clips that are finished, in the order that was asked for.
        skipped: why others are not, by name.
        circumstances: what they were measured with, as the processes that measured had it.
    """

    results: tuple[ClipResult, ...]
    skipped: Mapping[str, str]
    circumstances: Circumstances


def run_evaluation(
    evaluation: Evaluation,
    folder: RunFolder,
    *,
    resume: bool = False,
    force: bool = False,
    on_begin: Callable[[tuple[ClipResult, ...], int], None] | None = None,
    on_news: Callable[[ClipUpdate], None] | None = None,
) -> Outcome:
    """Evaluate clips into a folder.

    A finished clip is never lost: its masks and scores are on disk before the next begins. A clip that cannot be
    measured is named, and the others go on. However clips are spread, the tables are the same, byte for byte.

    Args:
        evaluation: what, on what, and how.
        folder: where the results go.
        resume: go on with the run that is there; its finished clips are taken as they are.
        force: begin again though there is a run, and delete what it wrote.
        on_begin: called with the results that are there already, and the number of frames that are left.
        on_news: called with an update after every frame and every clip; what it raises ends the run.

    Returns:
        The results, and why there are no more.

    Raises:
        OptionError: see `RunFolder.check`; there is no such device or cluster, or another run writes into the folder.
        WeightsError: there are no such weights.
    """
    folder.check({}, resume=False, force=True)  # what costs nothing first
    for device in evaluation.devices if evaluation.ray is None else ():
        usable_device(device)
    if evaluation.ray is not None:
        load_ray()
    evaluation, weights = _pinned(evaluation)
    evaluation = replace(evaluation, setup=replace(evaluation.setup, threads=_threads(evaluation)))
    record = _record(evaluation, weights)
    folder.check(record, resume=resume, force=force)
    with held(folder.path):
        found = {clip.name: folder.result_of(clip) if resume else None for clip in evaluation.clips}
        folder.begin(record, resume=resume, force=force)  # checks again: another run may have been there since
        return _run(evaluation, record, folder, found, on_begin, on_news)


def _run(
    evaluation: Evaluation,
    record: Mapping[str, object],
    folder: RunFolder,
    found: Mapping[str, ClipResult | None],
    on_begin: Callable[[tuple[ClipResult, ...], int], None] | None,
    on_news: Callable[[ClipUpdate], None] | None,
) -> Outcome:
    """Evaluate what is not there yet, into a folder that is ready and held."""
    left = [clip for clip in evaluation.clips if found[clip.name] is None]
    if on_begin is not None:
        on_begin(tuple(result for result in found.values() if result is not None), sum(len(clip) for clip in left))
    skipped: dict[str, str] = {}

    def on_update(update: ClipUpdate) -> None:
        if update.error is not None:
            skipped[update.clip] = update.error
            folder.clear(update.clip)
        if on_news is not None:
            on_news(update)

    _spread(evaluation, left, folder, on_update)
    results = {clip.name: folder.result_of(clip) for clip in evaluation.clips if clip.name not in skipped}
    outcome = Outcome(
        tuple(result for result in results.values() if result is not None),
        {clip.name: skipped[clip.name] for clip in evaluation.clips if clip.name in skipped},
        _circumstances(evaluation),
    )
    _write(evaluation, record, folder, outcome)
    return outcome


def _spread(
    evaluation: Evaluation, clips: list[Clip], folder: RunFolder, on_update: Callable[[ClipUpdate], None]
) -> None:
    """Evaluate clips here, in processes, or on a cluster."""
    devices, jobs = evaluation.devices, min(_jobs(evaluation), max(len(clips), 1))
    setups = [replace(evaluation.setup, device=devices[place % len(devices)]) for place in range(jobs)]
    if evaluation.ray is not None and clips:
        evaluate_on_cluster(setups[0], clips, folder, on_update, address=evaluation.ray, jobs=evaluation.jobs)
    elif jobs == 1:
        evaluate_here(setups[0], clips, folder, on_update)
    else:
        evaluate_in_processes(setups, clips, folder, on_update)


def _jobs(evaluation: Evaluation) -> int:
    """Processes that are wanted."""
    return evaluation.jobs or len(evaluation.devices)


def _threads(evaluation: Evaluation) -> int:
    """Threads of torch in each process, so that all fit the cores; a worker of a cluster has one core."""
    if evaluation.ray is not None:
        return evaluation.setup.threads or 1
    return evaluation.setup.threads or max(1, torch.get_num_threads() // _jobs(evaluation))


def _circumstances(evaluation: Evaluation) -> Circumstances:
    """What the workers measured with."""
    here = current_circumstances(resolution=evaluation.setup.options.short_side)
    if evaluation.ray is not None:
        names = [f"{device} of a Ray cluster" for device in evaluation.devices]
    else:
        names = [current_circumstances(device=device).device for device in evaluation.devices]
    return replace(here, device=", ".join(dict.fromkeys(names)), threads=_threads(evaluation))


def _pinned(evaluation: Evaluation) -> tuple[Evaluation, str]:
    """The evaluation with weights of the Hub pinned to one commit for all processes; and their fingerprint."""
    setup = evaluation.setup
    where: Where = {} if setup.revision is None else {"revision": setup.revision}
    if (commit := commit_of(setup.weights, where)) is not None:
        setup, where = replace(setup, revision=commit), {"revision": commit}
    network = load_tracking_network(setup.weights, where=where)
    setup = replace(setup, options=setup.options.of_network(network.tracking))
    return replace(evaluation, setup=setup), weights_of(network, setup.options)


def _record(evaluation: Evaluation, weights: str) -> dict[str, object]:
    """What makes a run the same run."""
    here = current_circumstances()
    kinds = sorted({torch.device(device).type for device in evaluation.devices})
    return {
        **evaluation.about,
        "weights": weights,
        "revision": evaluation.setup.revision,
        "options": evaluation.setup.options.as_dict(),
        "device": ", ".join(kinds),
        "dtype": evaluation.setup.dtype,
        "threads": evaluation.setup.threads if "cpu" in kinds else None,
        "versions": {"commit": here.commit, "stmemory": here.stmemory, "torch": here.torch},
        "clips": [clip.name for clip in evaluation.clips],
    }


def _write(evaluation: Evaluation, record: Mapping[str, object], folder: RunFolder, outcome: Outcome) -> None:
    """The tables and the report."""
    write_tables(folder.path, outcome.results)
    options = evaluation.setup.options
    extra = {
        **evaluation.about,
        "weights": {
            "name": evaluation.setup.weights or "lite",
            "revision": record["revision"],
            "fingerprint": record["weights"],
        },
        "options": options.as_dict(),
        "dtype": evaluation.setup.dtype,
        "spread": {
            "devices": list(evaluation.devices),
            "jobs": evaluation.jobs if evaluation.ray else _jobs(evaluation),
            "ray": evaluation.ray,
            "threads": evaluation.setup.threads,
        },
        "skipped": dict(outcome.skipped),
    }
    text = as_json(outcome.results, outcome.circumstances, extra=extra)
    with whole_file(folder.path / "report.json") as part:
        part.write_text(text, encoding="utf-8")
