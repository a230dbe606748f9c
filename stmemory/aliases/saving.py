"""Names of `stmemory.saving`, which moved."""

from stmemory.weights.pretrained import save_network, save_part

__all__ = ["save_network", "save_part"]
