"""The memory of the paper, for any model: fixed slots, update policies, fusion, space-time read. Imports torch only.

`save_bank`, `load_bank`, `save_policy` and `load_policy` are imported from `stmemory.weights` when they are used.
"""

from typing import TYPE_CHECKING

from stmemory.lazy import lazy_names
from stmemory.memory.bank import MemoryBank
from stmemory.memory.discriminative import DiscriminativeMemory, DiscriminativeRead
from stmemory.memory.fusion import Fusion, FusionCell, MeanFusion, feature_alignment
from stmemory.memory.policy import (
    BankView,
    Decision,
    Drop,
    InputToMemory,
    LearnedPolicy,
    LeastSimilar,
    MostSimilar,
    Newest,
    Oldest,
    UpdatePolicy,
    policy_names,
    update_policy,
)
from stmemory.memory.read import ReadCache, SpaceTimeRead, memory_tokens, space_time_read
from stmemory.memory.similarity import similarities, similarity
from stmemory.memory.slots import SlotInfo

if TYPE_CHECKING:
    from stmemory.weights.tensors import load_bank, load_policy, save_bank, save_policy

__all__ = [
    "BankView",
    "Decision",
    "DiscriminativeMemory",
    "DiscriminativeRead",
    "Drop",
    "Fusion",
    "FusionCell",
    "InputToMemory",
    "LearnedPolicy",
    "LeastSimilar",
    "MeanFusion",
    "MemoryBank",
    "MostSimilar",
    "Newest",
    "Oldest",
    "ReadCache",
    "SlotInfo",
    "SpaceTimeRead",
    "UpdatePolicy",
    "feature_alignment",
    "load_bank",
    "load_policy",
    "memory_tokens",
    "policy_names",
    "save_bank",
    "save_policy",
    "similarities",
    "similarity",
    "space_time_read",
    "update_policy",
]

__getattr__ = lazy_names(
    __name__, dict.fromkeys(("load_bank", "load_policy", "save_bank", "save_policy"), "stmemory.weights.tensors")
)

__path__.append(f"{__path__[0]}/../aliases/memory")  # modules that moved
