"""Names of `stmemory.job`, which moved."""

from stmemory.jobs.track import JobReport, Predictor, Stop, Stream, run_job, stop_on_signals

__all__ = ["JobReport", "Predictor", "Stop", "Stream", "run_job", "stop_on_signals"]
