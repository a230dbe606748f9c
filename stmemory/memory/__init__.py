"""The memory of the paper, for any model: fixed slots, update policies, fusion, space-time read. Needs torch only.

`state.py` (banks in files) also needs safetensors; everything else here imports nothing but torch.
"""

from stmemory.memory.bank import MemoryBank
from stmemory.memory.discriminative import DiscriminativeMemory, DiscriminativeRead
from stmemory.memory.fusion import Fusion, FusionCell, MeanFusion, feature_alignment
from stmemory.memory.learned import LearnedPolicy
from stmemory.memory.policy import (
    BankView,
    Decision,
    Drop,
    InputToMemory,
    LeastSimilar,
    MostSimilar,
    Newest,
    Oldest,
    UpdatePolicy,
)
from stmemory.memory.policy_file import load_policy, save_policy
from stmemory.memory.read import ReadCache, SpaceTimeRead, memory_tokens, space_time_read
from stmemory.memory.registry import policy_names, update_policy
from stmemory.memory.similarity import similarities, similarity
from stmemory.memory.slots import SlotInfo
from stmemory.memory.state import load_bank, save_bank

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
