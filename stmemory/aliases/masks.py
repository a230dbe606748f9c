"""Names of `stmemory.masks`, which moved."""

from stmemory.io.masks import MAX_OBJECTS, ObjectMasks, to_object_masks
from stmemory.postprocess import ids_from, ids_of_winners, mask_logits, soft_aggregate, winners

__all__ = [
    "MAX_OBJECTS",
    "ObjectMasks",
    "ids_from",
    "ids_of_winners",
    "mask_logits",
    "soft_aggregate",
    "to_object_masks",
    "winners",
]
