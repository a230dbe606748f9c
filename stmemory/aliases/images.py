"""Names of `stmemory.images`, which moved."""

from stmemory.io.images import (
    MOST_PIXELS,
    MOST_PIXELS_IN_ALL,
    UNREADABLE,
    check_cost,
    count_images,
    image_files,
    image_to_rgb,
    is_address,
    is_image_path,
    iterate_images,
    natural_order,
    opened_image,
)

__all__ = [
    "MOST_PIXELS",
    "MOST_PIXELS_IN_ALL",
    "UNREADABLE",
    "check_cost",
    "count_images",
    "image_files",
    "image_to_rgb",
    "is_address",
    "is_image_path",
    "iterate_images",
    "natural_order",
    "opened_image",
]
