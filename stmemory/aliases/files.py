"""Names of `stmemory.files`, which moved."""

from stmemory.io.files import file_path, out_file, out_folder, png_path, rename_file, whole_file

__all__ = ["file_path", "out_file", "out_folder", "png_path", "rename_file", "whole_file"]
