"""Names of `stmemory.saving`, which moved."""

from stmemory.weights.save import save_network, save_part

__all__ = ["save_network", "save_part"]
