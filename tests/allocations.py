"""What torch allocates and frees while a function runs, by its profiler. Measures; asserts nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def allocations(function: Callable[[], object]) -> list[int]:
    """Bytes of every allocation (positive) and release (negative) on the CPU, in order; the function's result is
    freed."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    return [event["args"]["Bytes"] for event in events if event["name"] == "[memory]"]
