"""`stmemory info`: versions, devices, and what is known of weights."""

from __future__ import annotations

import argparse

from stmemory.commands.options import Commands
from stmemory.commands.words import DONE

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Offer the command."""
    info = commands.add_parser("info", help="versions, devices, and what is known of weights")
    info.add_argument("name", nargs="?", help="bundled name or folder of weights (default: all that are bundled)")
    info.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> int:
    from stmemory.inventory import devices, versions, weights_facts
    from stmemory.weights import bundled_names

    for name, version in versions().items():
        print(f"{name:<12}{version}")
    for device in devices():
        print(f"{'device':<12}{device}")
    for weights in [arguments.name] if arguments.name else bundled_names():
        facts = weights_facts(weights)
        print(f"\nweights {facts.name}: preset {facts.preset}, {facts.parameters:,} parameters, {facts.nbytes / 1e6:.1f} MB")
        print(f"  memory of one object at 480p: {facts.object_bytes / 1e6:.1f} MB, whatever the length of the video")
        for name, value in facts.about.items():
            if not isinstance(value, dict):
                print(f"  {name}: {value}")
            elif not any(isinstance(entry, (dict, list)) for entry in value.values()):
                print(f"  {name}: {', '.join(f'{key} {entry}' for key, entry in value.items())}")
    return DONE
