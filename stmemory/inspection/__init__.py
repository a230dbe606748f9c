"""Looking into the memory of a tracked video: what was stored, fused and read, as pictures. Not imported by the
core."""

from stmemory.inspection.attention import memory_keys, slot_attention
from stmemory.inspection.changes import Change
from stmemory.inspection.history import History
from stmemory.inspection.inspector import Inspector, inspect
from stmemory.inspection.moments import Moment, ObjectMoment, Thumbnail
from stmemory.inspection.report import InspectionReport

__all__ = [
    "Change",
    "History",
    "InspectionReport",
    "Inspector",
    "Moment",
    "ObjectMoment",
    "Thumbnail",
    "inspect",
    "memory_keys",
    "slot_attention",
]
