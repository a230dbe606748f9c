"""Names of `stmemory.live`, which moved."""

from stmemory.io.live import LiveSource, is_live

__all__ = ["LiveSource", "is_live"]
