"""Looking into the memory of a tracked video: what was stored, fused and read, as pictures. Not imported by the
core."""

from stmemory.inspection.history import Change, History
from stmemory.inspection.inspector import Inspector, inspect
from stmemory.inspection.moments import Moment, ObjectMoment, Thumbnail, memory_keys, slot_attention
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

__path__.append(f"{__path__[0]}/../aliases/inspection")  # modules that moved
