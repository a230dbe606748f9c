"""The commands of the command line, one a file: its arguments, and the words that it says. Contain no logic."""

__all__: list[str] = []
