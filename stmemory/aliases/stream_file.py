"""Names of `stmemory.stream_file`, which moved."""

from stmemory.state import FORMAT_VERSION, StreamState, load_state, save_state

__all__ = ["FORMAT_VERSION", "StreamState", "load_state", "save_state"]
