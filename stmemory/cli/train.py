"""The commands train pack, clips, run, export and predict."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from stmemory.cli.options import Commands, one_or_more, zero_or_more
from stmemory.cli.output import DONE, FAILED, INTERRUPTED, complain, say_at_once
from stmemory.io.files import out_file, out_folder

if TYPE_CHECKING:
    from stmemory.prediction.train import PredictionTrainer
    from stmemory.prediction.train_config import PredictionTraining
    from stmemory.training.config import TrainingConfig
    from stmemory.training.data.material import Material
    from stmemory.training.loop import Trainer

__all__ = ["add_train"]

_ORDER = "CONFIG MATERIAL OUT, and MATERIAL is - for the sources of the configuration alone"


def add_train(commands: Commands) -> None:
    """Offer the commands."""
    offered = commands.add_parser("train", help="train networks on material of your own").add_subparsers(
        required=True, metavar="COMMAND"
    )
    for add in (_add_pack, _add_clips, _add_run, _add_export, _add_predict):
        add(offered)


def _add_pack(commands: Commands) -> None:
    packing = commands.add_parser("pack", help="write a folder of material as one file")
    packing.add_argument("root", type=Path)
    packing.add_argument("out", type=Path)
    packing.add_argument("--max-side", type=one_or_more, default=300, help="of photos, px")
    packing.add_argument("--cutout-side", type=one_or_more, default=128, help="of cut-outs, px")
    packing.add_argument("--quality", type=one_or_more, default=68, help="of WebP, 1..95")
    packing.add_argument(
        "--drawn",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME",
        help="names of folders that hold drawings or renders, not photos: after ROOT and OUT, or as --drawn=NAME, "
        "once for each",
    )
    packing.set_defaults(run=_pack)


def _add_clips(commands: Commands) -> None:
    looking = commands.add_parser("clips", help="draw clips of a configuration, to look at before training")
    looking.add_argument("config", type=Path, help="JSON, see TrainingConfig")
    looking.add_argument(
        "material", type=Path, help="a file that pack wrote; - for the sources of the configuration alone"
    )
    looking.add_argument("out", type=Path, help="the image to write, a row a clip")
    looking.add_argument("--number", type=one_or_more, default=6, help="of clips, of the last phase")
    looking.add_argument(
        "--time",
        type=zero_or_more,
        default=0,
        metavar="N",
        help="also say how fast N clips are drawn, and rendered on the device",
    )
    looking.add_argument("--device", default="cpu", help="that renders what --time asks for")
    looking.set_defaults(run=_clips)


def _add_run(commands: Commands) -> None:
    running = commands.add_parser("run", help="train, or go on with a run that was interrupted")
    running.add_argument("config", type=Path, help="JSON, see TrainingConfig")
    running.add_argument(
        "material", type=Path, help="a file that pack wrote; - for the sources of the configuration alone"
    )
    running.add_argument("out", type=Path, help="folder of the run")
    running.add_argument("--device", default="cpu")
    running.add_argument("--workers", type=zero_or_more, default=1)
    _add_threads(running)
    running.add_argument(
        "--strips", type=zero_or_more, default=0, help="steps between two images of a clip and its prediction; 0 none"
    )
    running.add_argument("--tensorboard", action="store_true", help="write for TensorBoard too (extra train)")
    running.add_argument(
        "--until",
        type=one_or_more,
        metavar="STEP",
        help="end, saved, at that step; the same command without it goes on",
    )
    start = running.add_mutually_exclusive_group()
    start.add_argument(
        "--init",
        metavar="STATE_OR_WEIGHTS",
        help="weights to start from: state.pt of another run, a bundled name or a folder; else ImageNet's",
    )
    start.add_argument(
        "--imagenet",
        metavar="PATH_OR_NAME",
        help="ImageNet weights of the backbones: a file, org/name on the Hub, or none for random ones "
        "(default: where the preset's are published)",
    )
    running.set_defaults(run=_run)


def _add_export(commands: Commands) -> None:
    exporting = commands.add_parser(
        "export", help="write a run's averaged weights as a folder that from_pretrained reads"
    )
    exporting.add_argument("training", type=Path, metavar="run", help="folder of the run")
    exporting.add_argument("out", type=Path, help="folder of the weights")
    exporting.add_argument("--about", type=Path, help="JSON file of what to say of them: license, data, metrics")
    exporting.set_defaults(run=_export)


def _add_predict(commands: Commands) -> None:
    offered = commands.add_parser("predict", help="train and compare networks that predict video").add_subparsers(
        required=True, metavar="COMMAND"
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
    _add_threads(running)
    running.set_defaults(run=_predict_run)
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
    _add_threads(reporting)
    reporting.set_defaults(run=_predict_report)
    exporting = offered.add_parser(
        "export", help="write one network's averaged weights as a folder that from_pretrained reads"
    )
    exporting.add_argument("comparison", type=Path, metavar="run", help="folder of the comparison")
    exporting.add_argument("name", help="of a contender that is ours")
    exporting.add_argument("out", type=Path, help="folder of the weights")
    exporting.set_defaults(run=_predict_export)


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=zero_or_more, default=0, help="of torch; 0 leaves torch's own choice")


def _pack(arguments: argparse.Namespace) -> int:
    from stmemory.training.data.material import pack

    report = pack(
        arguments.root,
        arguments.out,
        max_side=arguments.max_side,
        cutout_side=arguments.cutout_side,
        quality=arguments.quality,
        drawn=arguments.drawn,
    )
    for line in report.skipped:
        print(f"skipped {line}")
    words = {"photo": "photos", "cutout": "cut-outs", "background": "backgrounds", "video": "frames of videos"}
    counts = ", ".join(f"{count} {words[kind]}" for kind, count in report.counts.items() if count)
    skipped = len(report.skipped)
    print(f"{counts} packed into {arguments.out}, {report.nbytes / 1e6:.1f} MB; files skipped: {skipped}")
    return FAILED if skipped else DONE


def _clips(arguments: argparse.Namespace) -> int:
    import torch

    from stmemory.training.data.sources import Sources
    from stmemory.training.loader import time_clips
    from stmemory.training.synthesis.clips import Clip, clip_strips
    from stmemory.weights.devices import usable_device

    out_file(arguments.out)
    device = usable_device(arguments.device)
    config = _config(arguments)
    phase = config.phases[-1]
    sources = Sources(config, _material(arguments.material))
    _note(sources.notes)
    torch.set_num_threads(1)  # as in a worker
    drawn, since = sources.clips(phase), perf_counter()
    clips = [drawn.clip(index) for index in range(arguments.number)]
    took = 1000 * (perf_counter() - since) / (arguments.number * phase.frames)
    small = [Clip(clip.frames[..., ::2, ::2], clip.ids[..., ::2, ::2], clip.name) for clip in clips]
    clip_strips(small, arguments.out)
    skipped = list(dict.fromkeys([*sources.skipped, *(line for clip in clips for line in clip.skipped)]))
    for line in skipped:
        print(f"skipped {line}")
    print(f"{len(clips)} clips of {phase.frames} frames at {phase.size} px: {took:.0f} ms a frame on one thread")
    if arguments.time:
        print(time_clips(drawn, arguments.time, device))
    return FAILED if skipped else DONE


def _config(arguments: argparse.Namespace) -> TrainingConfig:
    """The configuration, if the arguments are in their places."""
    from stmemory.errors import OptionError
    from stmemory.training.config import TrainingConfig

    config, material = arguments.config, arguments.material
    if str(config) == "-" or config.suffix == ".safetensors" or config.is_dir():
        raise OptionError(
            f"config: expected a JSON file, see TrainingConfig, got {str(config)!r}; the order is {_ORDER}"
        )
    if material.is_dir():
        advice = "name it in sources of the configuration, and give - here (or pack it first)"
        raise OptionError(
            f"material: expected a file that pack wrote, or -, got the folder {str(material)!r}; {advice}"
        )
    if material.suffix == ".json":
        raise OptionError(
            f"material: expected a file that pack wrote, or -, got {str(material)!r}; the order is {_ORDER}"
        )
    return TrainingConfig.load(config)


def _material(path: Path) -> Material | None:
    from stmemory.training.data.material import Material

    return None if str(path) == "-" else Material.load(path)


def _run(arguments: argparse.Namespace) -> int:
    from stmemory.io.run_folder import held
    from stmemory.jobs.track import stop_on_signals
    from stmemory.training.distributed import World
    from stmemory.training.export import imagenet_state
    from stmemory.training.loop import Trainer
    from stmemory.training.run_state import log_line
    from stmemory.weights.devices import usable_device

    _set_threads(arguments)
    config = _config(arguments)
    out_folder(arguments.out)
    world = World.from_environment(arguments.device)
    device = str(usable_device(arguments.device))
    material = _material(arguments.material)
    trainer = Trainer(config, material, arguments.out, device=device, workers=arguments.workers, world=world)
    if world.first:
        _note(trainer.sources.notes)
    with held(arguments.out) if world.first else nullcontext(), stop_on_signals(lambda: _stop(trainer)):
        if not trainer.resume():
            if arguments.init:
                trainer.start_from(arguments.init)
            elif arguments.imagenet != "none":
                trainer.adopt({**trainer.network.state_dict(), **imagenet_state(config.preset, arguments.imagenet)})
        for record in trainer.run(
            strip_every=arguments.strips, tensorboard=arguments.tensorboard, until=arguments.until
        ):
            if world.first:
                print(log_line(record), flush=True)
    world.close()
    done, reached = trainer.step == config.steps, arguments.until is not None and trainer.step >= arguments.until
    if world.first and (done or reached):
        last = (
            f"done; stmemory train export {arguments.out} WEIGHTS"
            if done
            else "saved; the same command without --until goes on"
        )
        print(f"step {trainer.step} of {config.steps}: {last}")
        if trainer.lost:
            complain(
                f"the last steps changed no weight ({trainer.lost} lost in a row): see the log, and try a lower "
                "learning_rate"
            )
    return DONE if done or reached else INTERRUPTED


def _stop(*trainers: Trainer | PredictionTrainer) -> None:
    """Finish the step; a second signal interrupts it."""
    for trainer in trainers:
        trainer.stop()
    say_at_once("stopping after this step; the same command goes on from here")


def _export(arguments: argparse.Namespace) -> int:
    from stmemory.training.export import export, read_about

    about = read_about(arguments.about) if arguments.about else None
    print(f"step {export(arguments.training, arguments.out, about=about)} written to {arguments.out}")
    return DONE


def _predict_run(arguments: argparse.Namespace) -> int:
    from stmemory.io.run_folder import held
    from stmemory.prediction.train_config import PredictionTraining
    from stmemory.training.run_state import expect_no_weights
    from stmemory.weights.devices import usable_device

    _set_threads(arguments)
    expect_no_weights(out_folder(arguments.out))
    device = str(usable_device(arguments.device))
    config = PredictionTraining.load(arguments.config)
    names = arguments.only or [contender.name for contender in config.contenders]
    with ExitStack() as stack:
        for folder in dict.fromkeys(arguments.out / config.contender(name).name for name in names):
            stack.enter_context(held(folder))
        return _train_contenders(arguments, config, names, device)


def _train_contenders(arguments: argparse.Namespace, config: PredictionTraining, names: list[str], device: str) -> int:
    """Train contenders in turns; each one's folder is held."""
    from stmemory.io.files import whole_file
    from stmemory.jobs.track import stop_on_signals
    from stmemory.prediction.train import PredictionTrainer
    from stmemory.training.run_state import log_line

    trainers = [PredictionTrainer(config, name, arguments.out, device=device) for name in names]
    resumed = [trainer.resume() for trainer in trainers]
    with whole_file(arguments.out / "config.json") as part:
        part.write_text(config.to_json(), encoding="utf-8")
    for trainer, going_on in zip(trainers, resumed, strict=True):
        print(f"{trainer.contender.name}: from step {trainer.step} of {config.steps}{' (resumed)' * going_on}")
    with stop_on_signals(lambda: _stop(*trainers)) as stop:
        while not stop.wanted and any(trainer.step < config.steps for trainer in trainers):
            for trainer in trainers:
                until = trainer.step + arguments.turns if arguments.turns else config.steps
                for record in trainer.run(until=until) if not stop.wanted else ():
                    print(f"{trainer.contender.name} {log_line(record)}", flush=True)
    return INTERRUPTED if stop.wanted else DONE


def _predict_report(arguments: argparse.Namespace) -> int:
    from stmemory.prediction.report import Others, report
    from stmemory.weights.devices import usable_device

    _set_threads(arguments)
    text, missing = report(
        arguments.runs,
        out_folder(arguments.out),
        clips=arguments.clips,
        others=Others(tuple(arguments.capacities), tuple(arguments.policies)),
        device=str(usable_device(arguments.device)),
    )
    print(text, end="")
    for name in missing:
        print(f"not trained yet, left out: {name}")
    return FAILED if missing else DONE


def _predict_export(arguments: argparse.Namespace) -> int:
    from stmemory.prediction.report import export
    from stmemory.training.run_state import expect_no_run

    expect_no_run(out_folder(arguments.out))
    print(f"step {export(arguments.comparison, arguments.name, arguments.out)} written to {arguments.out}")
    return DONE


def _set_threads(arguments: argparse.Namespace) -> None:
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)


def _note(lines: list[str] | tuple[str, ...]) -> None:
    """Write to stderr what is no complaint."""
    for line in lines:
        print(line, file=sys.stderr)
