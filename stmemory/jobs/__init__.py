"""What the commands do, without a terminal."""

__all__: list[str] = []
