"""`python -m stmemory.training pack | run | export`: the commands of training. Contains no logic of its own."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from stmemory.errors import StmemoryError
from stmemory.networks.config import NetworkConfig
from stmemory.networks.segmentation import SegmentationNetwork
from stmemory.training.config import TrainingConfig
from stmemory.training.imagenet import imagenet_state
from stmemory.training.loop import Trainer
from stmemory.training.material import Material, pack
from stmemory.saving import save_network

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code is 0 when all went well, 1 when something was skipped, 2 for bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m stmemory.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write a folder of material as one file")
    packing.add_argument("root", type=Path)
    packing.add_argument("out", type=Path)
    packing.add_argument("--max-side", type=int, default=300, help="of photos, px")
    packing.add_argument("--cutout-side", type=int, default=128, help="of cut-outs, px")
    packing.add_argument("--quality", type=int, default=68, help="of WebP, 1..95")
    packing.add_argument("--drawn", nargs="*", default=[], help="folders that hold drawings or renders, not photos")
    running = commands.add_parser("run", help="train, or go on with a run that was interrupted")
    running.add_argument("config", type=Path, help="JSON, see TrainingConfig")
    running.add_argument("material", type=Path, help="a file that pack wrote")
    running.add_argument("out", type=Path, help="folder of the run")
    running.add_argument("--device", default="cpu")
    running.add_argument("--workers", type=int, default=1)
    running.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves torch's own choice")
    start = running.add_mutually_exclusive_group()
    start.add_argument("--init", type=Path, help="weights to start from: state.pt of another run; else ImageNet's")
    start.add_argument(
        "--imagenet",
        metavar="PATH_OR_NAME",
        help="ImageNet weights of the backbones: a file, org/name on the Hub, or none for random ones "
        "(default: where the preset's are published)",
    )
    exporting = commands.add_parser("export", help="write a run's averaged weights as a folder that from_pretrained reads")
    exporting.add_argument("run", type=Path, help="folder of the run")
    exporting.add_argument("out", type=Path, help="folder of the weights")
    exporting.add_argument("--about", type=Path, help="JSON file of what to tell of them: licence, data, metrics")
    options = parser.parse_args(arguments)
    try:
        return {"pack": _pack, "run": _run, "export": _export}[options.command](options)
    except StmemoryError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _pack(options: argparse.Namespace) -> int:
    report = pack(
        options.root,
        options.out,
        max_side=options.max_side,
        cutout_side=options.cutout_side,
        quality=options.quality,
        drawn=options.drawn,
    )
    sys.stdout.write(f"{report}\n")
    return 1 if report.skipped else 0


def _run(options: argparse.Namespace) -> int:
    if options.threads:
        torch.set_num_threads(options.threads)
    config = TrainingConfig.load(options.config)
    trainer = Trainer(
        config, Material.load(options.material), options.out, device=options.device, workers=options.workers
    )
    if not trainer.resume():
        if options.init:
            trainer.adopt(torch.load(options.init, map_location="cpu", weights_only=True)["average"])
        elif options.imagenet != "none":
            trainer.adopt({**trainer.network.state_dict(), **imagenet_state(config.preset, options.imagenet)})
    for record in trainer.run():
        sys.stdout.write(" ".join(f"{name} {value:.5g}" for name, value in record.items()) + "\n")
        sys.stdout.flush()
    return 0


def _export(options: argparse.Namespace) -> int:
    config = TrainingConfig.load(options.run / "config.json")
    state = torch.load(options.run / "state.pt", map_location="cpu", weights_only=True)
    network = SegmentationNetwork(NetworkConfig.of(config.preset))
    network.load_state_dict(state["average"])
    about = json.loads(options.about.read_text()) if options.about else {}
    about["training"] = {"steps": int(state["step"]), "config": json.loads(config.to_json())}
    save_network(network, options.out, dtype=torch.float16, about=about)
    sys.stdout.write(f"step {int(state['step'])} written to {options.out}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
