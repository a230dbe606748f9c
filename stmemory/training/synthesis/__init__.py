"""Synthetic clips with exact masks."""

__all__: list[str] = []
