"""`python -m stmemory.training pack | clips | run | export | predict`: the commands of training. Learns and draws
nothing itself."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

import torch

from stmemory.cli.options import one_or_more, zero_or_more
from stmemory.cli.predict_training import add_prediction as add_prediction
from stmemory.errors import OptionError, StmemoryError
from stmemory.io.files import out_file, out_folder
from stmemory.io.run_folder import held
from stmemory.jobs.track import stop_on_signals
from stmemory.training.config import TrainingConfig
from stmemory.training.data.material import Material, pack
from stmemory.training.data.sources import Sources
from stmemory.training.distributed import World
from stmemory.training.export import export, imagenet_state, read_about
from stmemory.training.loader import time_clips
from stmemory.training.loop import Trainer
from stmemory.training.run_state import told
from stmemory.training.synthesis.clips import Clip, clip_strips
from stmemory.weights.devices import usable_device

__all__ = ["main"]

_INTERRUPTED = 130
_ORDER = "CONFIG MATERIAL OUT, and MATERIAL is - for the sources of the configuration alone"


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit code.

    Args:
        arguments: of the command; None takes those of the process.

    Returns:
        0 when all went well, 1 when something was skipped or failed, 2 for bad arguments, 130 when it was stopped.

    >>> main(["export", "no/such/run", "weights"])
    2
    """
    parser = argparse.ArgumentParser(prog="python -m stmemory.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
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
    looking = commands.add_parser("clips", help="draw clips of a configuration, to look at before training")
    looking.add_argument("config", type=Path, help="JSON, see TrainingConfig")
    looking.add_argument(
        "material", type=Path, help="a file that pack wrote; - for the sources of the configuration alone"
    )
    looking.add_argument("out", type=Path, help="the picture to write, a row a clip")
    looking.add_argument("--number", type=one_or_more, default=6, help="of clips, of the last phase")
    looking.add_argument(
        "--time",
        type=zero_or_more,
        default=0,
        metavar="N",
        help="also say how fast N clips are drawn, and rendered on the device",
    )
    looking.add_argument("--device", default="cpu", help="that renders what --time asks for")
    running = commands.add_parser("run", help="train, or go on with a run that was interrupted")
    running.add_argument("config", type=Path, help="JSON, see TrainingConfig")
    running.add_argument(
        "material", type=Path, help="a file that pack wrote; - for the sources of the configuration alone"
    )
    running.add_argument("out", type=Path, help="folder of the run")
    running.add_argument("--device", default="cpu")
    running.add_argument("--workers", type=zero_or_more, default=1)
    running.add_argument("--threads", type=zero_or_more, default=0, help="of torch; 0 leaves torch's own choice")
    running.add_argument(
        "--strips", type=zero_or_more, default=0, help="steps between two pictures of a clip and its prediction; 0 none"
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
    exporting = commands.add_parser(
        "export", help="write a run's averaged weights as a folder that from_pretrained reads"
    )
    exporting.add_argument("run", type=Path, help="folder of the run")
    exporting.add_argument("out", type=Path, help="folder of the weights")
    exporting.add_argument("--about", type=Path, help="JSON file of what to tell of them: licence, data, metrics")
    add_prediction(commands)
    options = parser.parse_args(arguments)
    try:
        if options.command == "predict":
            return int(options.predict(options))
        return {"pack": _pack, "clips": _clips, "run": _run, "export": _export}[options.command](options)
    except OSError as error:  # `FileError` among them
        sys.stderr.write(f"{error}\n")
        return 1
    except StmemoryError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what was saved before stays\n")
        return _INTERRUPTED


def _pack(options: argparse.Namespace) -> int:
    report = pack(
        options.root,
        options.out,
        max_side=options.max_side,
        cutout_side=options.cutout_side,
        quality=options.quality,
        drawn=options.drawn,
    )
    sys.stdout.write("".join(f"skipped {line}\n" for line in report.skipped))
    words = {"photo": "photos", "cutout": "cut-outs", "background": "backgrounds", "video": "frames of videos"}
    counts = ", ".join(f"{count} {words[kind]}" for kind, count in report.counts.items() if count)
    sys.stdout.write(
        f"{counts} packed into {options.out}, {report.nbytes / 1e6:.1f} MB; files skipped: {len(report.skipped)}\n"
    )
    return 1 if report.skipped else 0


def _clips(options: argparse.Namespace) -> int:
    out_file(options.out)
    device = usable_device(options.device)
    config = _config(options)
    phase = config.phases[-1]
    sources = Sources(config, _material(options.material))
    sys.stderr.write("".join(f"{line}\n" for line in sources.notes))
    torch.set_num_threads(1)  # as in a worker
    made, since = sources.clips(phase), perf_counter()
    clips = [made.clip(index) for index in range(options.number)]
    took = 1000 * (perf_counter() - since) / (options.number * phase.frames)
    small = [Clip(clip.frames[..., ::2, ::2], clip.ids[..., ::2, ::2], clip.name) for clip in clips]
    clip_strips(small, options.out)
    skipped = list(dict.fromkeys([*sources.skipped, *(line for clip in clips for line in clip.skipped)]))
    sys.stdout.write("".join(f"skipped {line}\n" for line in skipped))
    sys.stdout.write(
        f"{len(clips)} clips of {phase.frames} frames at {phase.size} px: {took:.0f} ms a frame on one thread\n"
    )
    if options.time:
        sys.stdout.write(f"{time_clips(made, options.time, device)}\n")
    return 1 if skipped else 0


def _config(options: argparse.Namespace) -> TrainingConfig:
    """The configuration, if the arguments are in their places."""
    config, material = options.config, options.material
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
    return None if str(path) == "-" else Material.load(path)


def _run(options: argparse.Namespace) -> int:
    if options.threads:
        torch.set_num_threads(options.threads)
    config = _config(options)
    out_folder(options.out)
    world = World.from_environment(options.device)
    device = str(usable_device(options.device))
    trainer = Trainer(
        config, _material(options.material), options.out, device=device, workers=options.workers, world=world
    )
    sys.stderr.write("".join(f"{line}\n" for line in trainer.sources.notes if world.first))
    with held(options.out) if world.first else nullcontext(), stop_on_signals(lambda: _stop(trainer)):
        if not trainer.resume():
            if options.init:
                trainer.start_from(options.init)
            elif options.imagenet != "none":
                trainer.adopt({**trainer.network.state_dict(), **imagenet_state(config.preset, options.imagenet)})
        for record in trainer.run(strip_every=options.strips, tensorboard=options.tensorboard, until=options.until):
            if world.first:
                sys.stdout.write(f"{told(record)}\n")
                sys.stdout.flush()
    world.close()
    done, reached = trainer.step == config.steps, options.until is not None and trainer.step >= options.until
    if world.first and (done or reached):
        last = (
            f"done; python -m stmemory.training export {options.out} WEIGHTS"
            if done
            else "saved; the same command without --until goes on"
        )
        sys.stdout.write(f"step {trainer.step} of {config.steps}: {last}\n")
        if trainer.lost:
            sys.stderr.write(
                f"the last steps changed no weight ({trainer.lost} lost in a row): see the log, and try a lower "
                "learning_rate\n"
            )
    return 0 if done or reached else _INTERRUPTED


def _stop(trainer: Trainer) -> None:
    """Finish the step; a second signal interrupts it."""
    trainer.stop()
    sys.stderr.write("stopping after this step; the same command goes on from here\n")


def _export(options: argparse.Namespace) -> int:
    step = export(options.run, options.out, about=read_about(options.about) if options.about else None)
    sys.stdout.write(f"step {step} written to {options.out}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
