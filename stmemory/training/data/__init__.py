"""Training material: what clips are made of."""

__all__: list[str] = []
