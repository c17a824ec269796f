"""Everything the suite says to MLflow and hears from it; no other package imports it.

Shape: grid run (YAML, environment, report) > training run (parameters, curves, cost) > cell run (test metrics of one
condition).
"""

from bench.tracking.glance import Glance
from bench.tracking.places import (
    StoreUnreachable,
    TrackingError,
    check_store,
    resolve_uri,
    safe_name,
    sqlite_path,
    state_folder,
)
from bench.tracking.reading import ARRAYS, Known, Reader
from bench.tracking.record import record_of
from bench.tracking.writing import Store

__all__ = [
    "ARRAYS",
    "Glance",
    "Known",
    "Reader",
    "Store",
    "StoreUnreachable",
    "TrackingError",
    "check_store",
    "record_of",
    "resolve_uri",
    "safe_name",
    "sqlite_path",
    "state_folder",
]
