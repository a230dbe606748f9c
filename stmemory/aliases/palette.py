"""Names of `stmemory.palette`, which moved."""

from stmemory.io.palette import (
    VOID,
    IdImage,
    davis_palette,
    grey_ids,
    read_id_image,
    read_palette_png,
    write_palette_png,
)

__all__ = ["VOID", "IdImage", "davis_palette", "grey_ids", "read_id_image", "read_palette_png", "write_palette_png"]
