"""Names of `stmemory.memory.state`, which moved."""

from stmemory.weights.tensors import FORMAT_VERSION, load_bank, save_bank

__all__ = ["FORMAT_VERSION", "load_bank", "save_bank"]
