"""Numpy's `.npz`: the arrays in it plane by plane, without holding more than one, whatever the file says of itself."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stmemory.errors import MaskError, OptionError
from stmemory.io.images import MOST_PIXELS
from stmemory.io.untrusted import UNREADABLE_ARRAY, checked_name

__all__ = ["read_archive"]

MOST_ARRAYS = 1 << 20
_UNREADABLE = (*UNREADABLE_ARRAY, zipfile.BadZipFile, zlib.error, RuntimeError)


@dataclass(frozen=True)
class _Member:
    """One array of an archive."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_archive(path: str | os.PathLike[str]) -> Iterator[tuple[str, NDArray[np.integer]]]:
    """Read the masks of a `.npz`.

    Args:
        path: with one array, integers or booleans `[T, H, W]` or `[H, W]`; or with several `[H, W]`, each of which is
            the mask of the frame that it is named after. Names that numpy gives, `arr_0`, are numbers of frames. The
            names are looked at when this is called.

    Returns:
        Names, and arrays `[H, W]`, those of a volume numbered with five digits, others in the order of the file.

    Raises:
        MaskError: the file cannot be read, or holds something else.
    """
    name = os.fspath(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [_member(archive, entry, name) for entry in archive.namelist()[: MOST_ARRAYS + 1]]
    except _UNREADABLE as error:
        if isinstance(error, MaskError):
            raise
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise MaskError(
            f"{name}: expected a .npz of integers, got: {said}; write it with numpy.savez_compressed"
        ) from error
    if (
        not members
        or len(members) > MOST_ARRAYS
        or (len(members) > 1 and any(len(member.shape) != 2 for member in members))
    ):
        raise MaskError(
            f"{name}: expected one array [T, H, W], or several [H, W], got {len(members)} arrays; write each "
            "frame's mask, or all in one"
        )
    return _planes(Path(path), members, name)


def _member(archive: zipfile.ZipFile, entry: str, path: str) -> _Member:
    with archive.open(entry) as file:
        shape, fortran, dtype = _header(file, path)
    if (
        dtype.kind not in "biu"
        or len(shape) not in (2, 3)
        or not 0 < np.prod([int(side) for side in shape[-2:]], dtype=object) <= MOST_PIXELS
    ):
        raise MaskError(
            f"{path}: {entry}: expected integers [T, H, W] or [H, W], got {dtype} {shape}; store ids or booleans"
        )
    if fortran and len(shape) == 3:
        raise MaskError(
            f"{path}: {entry}: expected an array in C's order, got one in Fortran's; store "
            "numpy.ascontiguousarray(masks)"
        )
    try:
        stem = checked_name(re.sub(r"\.npy$", "", entry), what=f"{path}: an array")
    except OptionError as error:
        raise MaskError(str(error)) from error
    numbered = re.fullmatch(r"arr_([0-9]{1,9})", stem)
    return _Member(f"{int(numbered[1]):05d}" if numbered else stem, shape, dtype)


def _header(file: IO[bytes], path: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise MaskError(
            f"{path}: expected arrays of version 1 or 2, got {version}; write it with numpy.savez_compressed"
        )
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = (
        npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    )(file)
    return header


def _planes(path: Path, members: list[_Member], name: str) -> Iterator[tuple[str, NDArray[np.integer]]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for entry, member in zip(archive.namelist(), members, strict=True):
                with archive.open(entry) as file:
                    _, fortran, _ = _header(file, name)
                    count = member.shape[0] if len(member.shape) == 3 else 1
                    for index in range(count):
                        numbered = len(members) == 1
                        yield f"{index:05d}" if numbered else member.name, _plane(file, member, name, fortran=fortran)
    except _UNREADABLE as error:
        if isinstance(error, MaskError):
            raise
        raise MaskError(
            f"{name}: expected a whole .npz, got one that cannot be read on: {error}; write it again"
        ) from error


def _plane(file: IO[bytes], member: _Member, path: str, *, fortran: bool) -> NDArray[np.integer]:
    shape = member.shape[-2:]
    wanted = member.dtype.itemsize * shape[0] * shape[1]
    data = file.read(wanted)
    if len(data) < wanted:
        raise MaskError(
            f"{path}: expected {wanted} bytes of each mask, got {len(data)} of one in {member.name!r}; the file "
            "is cut off: write it again"
        )
    flat = np.frombuffer(data, member.dtype)
    plane: NDArray[np.integer] = flat.reshape(shape, order="F" if fortran else "C")
    return plane
