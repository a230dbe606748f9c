"""The commands info, convert and export-network."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from stmemory.cli.options import Commands
from stmemory.cli.output import DONE

__all__ = ["add_convert", "add_export_network", "add_info"]


def add_info(commands: Commands) -> None:
    """Offer the command."""
    info = commands.add_parser("info", help="versions and devices, or the card of weights")
    info.add_argument(
        "name",
        nargs="?",
        help="bundled name, folder, or owner/name on the Hugging Face Hub (default: all that are bundled)",
    )
    info.add_argument("--revision", help="branch, tag or commit, for weights on the Hub")
    info.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> int:
    from stmemory.jobs.info import versions
    from stmemory.weights.devices import devices
    from stmemory.weights.pretrained import bundled_names

    if arguments.name:
        _card(arguments.name, arguments.revision)
        return DONE
    for name, version in versions().items():
        _line(name, version)
    for device in devices():
        _line("device", device)
    for name in bundled_names():
        print()
        _card(name, arguments.revision)
    return DONE


def _card(name: str, revision: str | None) -> None:
    from stmemory.jobs.info import weights_facts
    from stmemory.weights.card import metrics_of

    facts = weights_facts(name, where={} if revision is None else {"revision": revision})
    print(f"weights {facts.name}")
    _line("kind", facts.kind.replace("_", " "))
    if facts.preset is not None:
        _line("preset", facts.preset)
    if facts.frames is not None:
        _line("frames", facts.frames)
    _line("parameters", f"{facts.parameters:,}")
    _line("size", f"{facts.nbytes / 1e6:.1f} MB")
    if facts.object_bytes is not None:
        _line("memory", f"{facts.object_bytes / 1e6:.1f} MB for one object at 480p, whatever the length of the video")
    if facts.video_bytes is not None:
        _line("memory", f"{facts.video_bytes / 1e6:.1f} MB for one video of such frames, whatever its length")
    for key, label in (
        ("licence", "licence"),
        ("base_model", "starts from"),
        ("data", "trained on"),
        ("limits", "limits"),
    ):
        stated = facts.about.get(key, "not stated" if key == "licence" else ())
        for line in [stated] if isinstance(stated, str) else stated:
            _line(label, str(line))
    for key, label in (("re-hosting", "condition"), ("converted from", "from")):
        if key in facts.about:
            stated = facts.about[key]
            _line(label, f"{stated['file']}, sha256 {stated['sha256']}" if isinstance(stated, dict) else str(stated))
    for metric in metrics_of(facts.about):
        _line(
            "measured", f"{metric.metric} {metric.value:g} on {metric.dataset}" + f" ({metric.how})" * bool(metric.how)
        )


def _line(label: str, value: str) -> None:
    print(f"  {label:<12}{value}")


def add_convert(commands: Commands) -> None:
    """Offer the command."""
    convert = commands.add_parser("convert", help="turn other people's checkpoints into folders of weights")
    convert.add_argument(
        "kind",
        choices=["stm", "stcn"],
        help="whose: the published checkpoint of STM (Oh et al. 2019) or of STCN (Cheng et al. 2021)",
    )
    convert.add_argument(
        "file", type=Path, metavar="CHECKPOINT", help="as its authors publish it; read without running code"
    )
    convert.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="for --weights and from_pretrained"
    )
    convert.add_argument("--force", action="store_true", help="replace other weights that the folder holds")
    convert.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> int:
    from stmemory.networks.convert import convert_stcn, convert_stm

    convert = convert_stm if arguments.kind == "stm" else convert_stcn
    done = convert(arguments.file, arguments.out, force=arguments.force)
    print(f"{done.parameters:,} parameters of {done.source.name} (sha256 {done.sha256[:16]}...) in {done.folder}")
    use = f"stmemory track VIDEO --mask FIRST.png -o OUT --weights {shlex.quote(str(done.folder))}"
    if arguments.kind == "stm":
        print("licence CC BY-NC-SA 4.0: non-commercial use only, and never re-host them")
    else:
        print("licence MIT")
        use += " --top-k 20"  # as STCN reads
    print("the fusion cell is untrained: it leaves templates as they are until you train it")
    print(f"use: {use}")
    return DONE


def add_export_network(commands: Commands) -> None:
    """Offer the command."""
    export = commands.add_parser("export-network", help="write a network as ONNX files, for other runtimes")
    export.add_argument("weights", metavar="FOLDER", help="bundled name, folder, or owner/name on the Hugging Face Hub")
    export.add_argument("--revision", help="branch, tag or commit, for weights on the Hub")
    export.add_argument("--onnx", type=Path, required=True, metavar="OUT", help="folder for the files")
    export.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(480, 864),
        metavar=("HEIGHT", "WIDTH"),
        help="of frames, in multiples of 16 (default: 480 864)",
    )
    export.add_argument("--memory-size", type=int, default=5, metavar="K", help="slots for each object (default: 5)")
    export.add_argument("--force", action="store_true", help="replace files of an earlier export")
    export.set_defaults(run=_export_network)


def _export_network(arguments: argparse.Namespace) -> int:
    from stmemory.networks.export import export_onnx
    from stmemory.networks.segmentation import SegmentationNetwork

    network = SegmentationNetwork.from_pretrained(arguments.weights, revision=arguments.revision)
    height, width = arguments.size
    files = export_onnx(
        network,
        arguments.onnx,
        height=height,
        width=width,
        memory_size=arguments.memory_size,
        force=arguments.force,
    )
    print(
        f"for frames of {height} x {width}, {arguments.memory_size} slots and any number of objects, "
        f"in {arguments.onnx}"
    )
    for file in files:
        print(f"  {file.name:<15}{file.stat().st_size / 1e6:.1f} MB")
    return DONE
