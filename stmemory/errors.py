"""Everything that stmemory raises on purpose, as one tree. Imports nothing.

    StmemoryError                  catch this to catch them all
    ├── ShapeError    (ValueError)     a tensor or array of the wrong shape or type
    ├── FrameError    (ValueError)     a frame or a video that cannot be used
    ├── MaskError     (ValueError)     a mask that cannot be used, or names unknown objects
    ├── OptionError   (ValueError)     an option, name or configuration that does not exist or is out of range
    ├── FileError     (OSError)        a file that cannot be written: no space, no right, no such place
    ├── BankError     (RuntimeError)   an operation that the memory bank cannot do in its present state
    └── WeightsError  (RuntimeError)   a checkpoint, configuration or saved state that cannot be loaded

Each message says what was expected, what came, and what to do.
"""

__all__ = [
    "BankError",
    "FileError",
    "FrameError",
    "MaskError",
    "OptionError",
    "ShapeError",
    "StmemoryError",
    "WeightsError",
]


class StmemoryError(Exception):
    """The root of all errors that stmemory raises on purpose."""


class ShapeError(StmemoryError, ValueError):
    """A tensor or array has the wrong shape or type."""


class FrameError(StmemoryError, ValueError):
    """A frame or a video cannot be used: empty, truncated, not finite, out of range, or of a changed size."""


class MaskError(StmemoryError, ValueError):
    """A mask cannot be used: no object in it, another size than the frame, too many objects, an unknown id."""


class OptionError(StmemoryError, ValueError):
    """An option, name or configuration does not exist or is out of its range."""


class FileError(StmemoryError, OSError):
    """A file cannot be written: the disk is full, the right to write is missing, or there can be no file of that
    name."""


class BankError(StmemoryError, RuntimeError):
    """The memory bank cannot do this in its present state (for example, pin its last free slot)."""


class WeightsError(StmemoryError, RuntimeError):
    """A checkpoint, its configuration, or a saved stream cannot be loaded or written."""
