"""Names of `stmemory.evaluation.layouts`, which moved."""

from stmemory.evaluation.datasets import DATA_SETS, DataSet, find_data_set

__all__ = ["DATA_SETS", "DataSet", "find_data_set"]
