"""Weights: folders, the Hub, cards, and files of tensors."""

from typing import TYPE_CHECKING

from stmemory.lazy import lazy_names

if TYPE_CHECKING:
    from stmemory.weights.pretrained import load_network, load_part, push_part, save_network, save_part

__all__ = ["load_network", "load_part", "push_part", "save_network", "save_part"]

__getattr__ = lazy_names(
    __name__,
    {
        "load_network": "stmemory.weights.pretrained",
        "load_part": "stmemory.weights.pretrained",
        "push_part": "stmemory.weights.pretrained",
        "save_network": "stmemory.weights.pretrained",
        "save_part": "stmemory.weights.pretrained",
    },
)
