"""`python -m stmemory.training predict run | report | export`: the commands of prediction. Contains no logic of its
own."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

import torch

from stmemory.cli.options import zero_or_more
from stmemory.io.files import out_folder, whole_file
from stmemory.io.run_folder import held
from stmemory.jobs.track import stop_on_signals
from stmemory.prediction.report import Others, export, report
from stmemory.prediction.train import PredictionTrainer
from stmemory.prediction.train_config import PredictionTraining
from stmemory.training.run_state import expect_no_run, expect_no_weights, told
from stmemory.weights.devices import usable_device

__all__ = ["add_prediction"]

_INTERRUPTED = 130


def add_prediction(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Offer the commands."""
    offered = commands.add_parser("predict", help="train and compare networks that predict video").add_subparsers(
        required=True
    )
    running = offered.add_parser("run", help="train the networks of a comparison, or go on where it was interrupted")
    running.add_argument("config", type=Path, help="JSON, see PredictionTraining")
    running.add_argument("-o", "--out", type=Path, required=True, help="folder of the comparison")
    running.add_argument(
        "--only", nargs="+", metavar="NAME", help="of its contenders (default: all, one after another)"
    )
    running.add_argument(
        "--turns", type=zero_or_more, default=0, metavar="STEPS", help="train them in turns of so many steps"
    )
    running.add_argument("--device", default="cpu")
    running.add_argument("--threads", type=zero_or_more, default=0, help="of torch; 0 leaves torch's own choice")
    running.set_defaults(predict=_run)
    reporting = offered.add_parser("report", help="measure what was trained: a table, a plot and a strip of examples")
    reporting.add_argument("runs", type=Path, nargs="+", help="folders of comparisons, each with its config.json")
    reporting.add_argument(
        "-o", "--out", type=Path, required=True, help="folder: prediction.md, prediction.json, prediction.png, ..."
    )
    reporting.add_argument("--clips", type=int, default=0, help="of each test; 0 for as many as the configuration says")
    reporting.add_argument(
        "--capacities", type=int, nargs="*", default=[], metavar="K", help="measure ours with other memory sizes too"
    )
    reporting.add_argument("--policies", nargs="*", default=[], metavar="NAME", help="and under other update policies")
    reporting.add_argument("--device", default="cpu")
    reporting.add_argument("--threads", type=zero_or_more, default=0, help="of torch; 0 leaves torch's own choice")
    reporting.set_defaults(predict=_report)
    exporting = offered.add_parser(
        "export", help="write one network's averaged weights as a folder that from_pretrained reads"
    )
    exporting.add_argument("run", type=Path, help="folder of the comparison")
    exporting.add_argument("name", help="of a contender that is ours")
    exporting.add_argument("out", type=Path, help="folder of the weights")
    exporting.set_defaults(predict=_export)


def _run(options: argparse.Namespace) -> int:
    if options.threads:
        torch.set_num_threads(options.threads)
    expect_no_weights(out_folder(options.out))
    device = str(usable_device(options.device))
    config = PredictionTraining.load(options.config)
    names = options.only or [contender.name for contender in config.contenders]
    with ExitStack() as stack:
        for folder in dict.fromkeys(options.out / config.contender(name).name for name in names):
            stack.enter_context(held(folder))
        return _train(options, config, names, device)


def _train(options: argparse.Namespace, config: PredictionTraining, names: list[str], device: str) -> int:
    """Train contenders in turns; each one's folder is held."""
    trainers = [PredictionTrainer(config, name, options.out, device=device) for name in names]
    resumed = [trainer.resume() for trainer in trainers]
    with whole_file(options.out / "config.json") as part:
        part.write_text(config.to_json(), encoding="utf-8")
    for trainer, going_on in zip(trainers, resumed, strict=True):
        sys.stdout.write(
            f"{trainer.contender.name}: from step {trainer.step} of {config.steps}{' (resumed)' * going_on}\n"
        )
    with stop_on_signals(lambda: _stop(trainers)) as stop:
        while not stop.wanted and any(trainer.step < config.steps for trainer in trainers):
            for trainer in trainers:
                until = trainer.step + options.turns if options.turns else config.steps
                for record in trainer.run(until=until) if not stop.wanted else ():
                    sys.stdout.write(f"{trainer.contender.name} {told(record)}\n")
                    sys.stdout.flush()
    return _INTERRUPTED if stop.wanted else 0


def _stop(trainers: list[PredictionTrainer]) -> None:
    """Finish the step; a second signal does what it always did."""
    for trainer in trainers:
        trainer.stop()
    sys.stderr.write("stopping after this step; the same command goes on from here\n")


def _report(options: argparse.Namespace) -> int:
    if options.threads:
        torch.set_num_threads(options.threads)
    text, missing = report(
        options.runs,
        out_folder(options.out),
        clips=options.clips,
        others=Others(tuple(options.capacities), tuple(options.policies)),
        device=str(usable_device(options.device)),
    )
    sys.stdout.write(text)
    sys.stdout.write("".join(f"not trained yet, left out: {name}\n" for name in missing))
    return 1 if missing else 0


def _export(options: argparse.Namespace) -> int:
    expect_no_run(out_folder(options.out))
    step = export(options.run, options.name, options.out)
    sys.stdout.write(f"step {step} written to {options.out}\n")
    return 0
