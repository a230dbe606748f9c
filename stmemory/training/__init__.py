"""Training: optional, never imported by the core."""

__all__: list[str] = []

__path__.append(f"{__path__[0]}/../aliases/training")  # modules that moved
