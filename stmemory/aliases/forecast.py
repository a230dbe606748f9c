"""Names of `stmemory.forecast`, which moved."""

from stmemory.jobs.forecast import DEMO_CYCLE, Forecast, ForecastJob, demo_clip, run_forecast

__all__ = ["DEMO_CYCLE", "Forecast", "ForecastJob", "demo_clip", "run_forecast"]
