"""Label volumes: one `.npy` of integers `[T, H, W]`, as napari and others take it; written and read without holding
it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stmemory.errors import FrameError, MaskError, OptionError
from stmemory.formats.archive import read_archive
from stmemory.formats.base import Labelled, MaskWriter, ids_of
from stmemory.io.palette import Ids
from stmemory.io.untrusted import read_array
from stmemory.result import Segmentation
from stmemory.types import MaskLike

__all__ = ["VolumeWriter", "read_volume", "to_label_volume"]


class VolumeWriter(MaskWriter):
    """Writes a `.npy` frame by frame; `numpy.load(path, mmap_mode="r")` opens it without reading it.

    Args:
        path: the file.
        dtype: dtype of the ids: "int32" holds any, "uint8" and "uint16" take a quarter and half of the space.

    Raises:
        OptionError: the dtype is no integer type.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with VolumeWriter(f"{folder}/a.npy", dtype="uint16") as out:
    ...         out.add(np.array([[0, 300]]))
    ...     [(name, ids.tolist()) for name, ids in read_volume(f"{folder}/a.npy")]
    [('00000', [[0, 300]])]
    """

    def __init__(self, path: str | os.PathLike[str], *, dtype: str = "int32") -> None:
        super().__init__(path)
        if dtype not in ("uint8", "uint16", "int32", "uint32", "int64"):
            raise OptionError(f"dtype: expected uint8, uint16, int32, uint32 or int64, got {dtype!r}")
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._size: tuple[int, ...] = ()
        self._header = 0
        self._file = self._stack.enter_context(self._whole(".npy").open("w+b"))

    def _write(self, frame: Labelled) -> None:
        most = np.iinfo(self._dtype).max
        if frame.ids.max() > most:
            raise MaskError(
                f'{frame.name}: {self._dtype.name} holds ids up to {most}, got {frame.ids.max()}; pass dtype="int32"'
            )
        self._size = frame.ids.shape
        if not self.count:
            self._write_header(1)
            self._header = self._file.tell()
        self._file.write(frame.ids.astype(self._dtype).tobytes())

    def _finish(self) -> None:
        self._file.seek(0)
        self._write_header(self.count)  # numpy leaves room in a header for the first length to grow
        if self._file.tell() != self._header:
            raise FrameError(
                f"{self.path}: numpy's header grew from {self._header} to "
                f"{self._file.tell()} bytes; write fewer frames to a file"
            )
        self._file.flush()

    def _write_header(self, count: int) -> None:
        shape = (count, *self._size)
        npy.write_array_header_1_0(self._file, {"descr": self._dtype.str, "fortran_order": False, "shape": shape})


def to_label_volume(results: Iterable[Segmentation | MaskLike]) -> NDArray[np.int32]:
    """Stack results as ids; all of them are in memory then, so for long videos use `VolumeWriter`.

    Args:
        results: frames of one size: `Segmentation`s, or ids `[H, W]`.

    Returns:
        int32 `[T, H, W]`, 0 = background.

    Raises:
        FrameError: there are none, or the size changes.
        MaskError: ids cannot be used.

    >>> to_label_volume([np.array([[0, 7]]), np.array([[7, 0]])]).shape
    (2, 1, 2)
    """
    slices: list[Ids] = []
    for index, result in enumerate(results):
        slices.append(ids_of(result))
        if slices[-1].shape != slices[0].shape:
            raise FrameError(
                f"frame {index}: expected the size of those before it, {slices[0].shape} (H, W), got "
                f"{slices[-1].shape}; make another volume"
            )
    if not slices:
        raise FrameError("results: expected at least one, got none; a generator can be used once only")
    return np.stack(slices)


def read_volume(volume: str | os.PathLike[str] | NDArray[np.integer]) -> Iterator[tuple[str, Ids]]:
    """Read a label volume slice by slice. One slice, `volume[t]`, can be given to `predictor.start` as it is.

    Args:
        volume: integers or booleans `[T, H, W]`; or the path of a `.npy` or `.npz` with them, or with one mask `[H,
            W]`, which is not read into memory as a whole. A `.npz` may also have a mask `[H, W]` for each frame, see
            `read_archive`.

    Returns:
        The numbers of the frames with five digits, of a `.npz` with several arrays their names; and ids int32 `[H, W]`;
        each value is an id, 255 too; true is 1.

    Raises:
        MaskError: there is no such file, or it holds something else.
    """
    name = "volume"
    if not isinstance(volume, np.ndarray):
        name = os.fspath(volume)
        if name.lower().endswith(".npz"):
            return ((stem, ids_of(plane.astype(np.int64))) for stem, plane in read_archive(volume))
        try:
            volume = read_array(volume)
            volume = volume[None] if volume.ndim == 2 else volume
        except OptionError as error:
            raise MaskError(f"{error} or VolumeWriter, as integers [T, H, W]") from error
    if not isinstance(volume, np.ndarray) or volume.ndim != 3 or volume.dtype.kind not in "biu" or volume.size == 0:
        came = f"{volume.dtype} {volume.shape}" if isinstance(volume, np.ndarray) else type(volume).__name__
        raise MaskError(f"{name}: expected integer ids [T, H, W], got {came}; one frame is volume[None]")
    return ((f"{index:05d}", ids_of(plane.astype(np.int64))) for index, plane in enumerate(volume))
