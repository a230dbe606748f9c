"""`python -m stmemory.training`: another name of `stmemory train`, for `torchrun -m`."""

import sys
from collections.abc import Sequence

from stmemory.cli.main import main as command_line

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `stmemory train`.

    Args:
        arguments: after `train`; None takes those of the process.

    Returns:
        The exit code, see `stmemory.cli.main`.

    >>> main(["export", "no/such/run", "weights"])
    2
    """
    return command_line(["train", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    raise SystemExit(main())
