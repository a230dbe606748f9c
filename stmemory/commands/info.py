"""`stmemory info`: versions, devices, and what is known of weights."""

from __future__ import annotations

import argparse

from stmemory.commands.options import Commands
from stmemory.commands.words import DONE

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
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
    from stmemory.inventory import devices, versions
    from stmemory.weights import bundled_names

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
    from stmemory.card import metrics_of
    from stmemory.inventory import weights_facts

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
        told = facts.about.get(key, "not stated" if key == "licence" else ())
        for line in [told] if isinstance(told, str) else told:
            _line(label, str(line))
    for key, label in (("re-hosting", "condition"), ("converted from", "from")):
        if key in facts.about:
            told = facts.about[key]
            _line(label, f"{told['file']}, sha256 {told['sha256']}" if isinstance(told, dict) else str(told))
    for metric in metrics_of(facts.about):
        _line(
            "measured", f"{metric.metric} {metric.value:g} on {metric.dataset}" + f" ({metric.how})" * bool(metric.how)
        )


def _line(label: str, value: str) -> None:
    print(f"  {label:<12}{value}")
