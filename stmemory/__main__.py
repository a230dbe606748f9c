"""`python -m stmemory`: the command line, where the script `stmemory` is not on the path."""

from stmemory.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    raise SystemExit(main())
