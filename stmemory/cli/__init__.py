"""The command line: the only room that prints."""

from stmemory.cli.main import main

__all__ = ["main"]
