"""Training: optional, never imported by the core."""

__all__: list[str] = []
