"""Loggers: callbacks that bring what trials report to other tools.

Each needs a package of its own, which is imported when the logger is made.
"""

from __future__ import annotations

from skate.tune.logger._base import LoggerCallback
from skate.tune.logger.files import CSVLoggerCallback, JsonLoggerCallback
from skate.tune.logger.mlflow import MLflowLoggerCallback
from skate.tune.logger.tensorboardx import TBXLoggerCallback
from skate.tune.logger.wandb import WandbLoggerCallback

__all__ = [
    "CSVLoggerCallback",
    "JsonLoggerCallback",
    "LoggerCallback",
    "MLflowLoggerCallback",
    "TBXLoggerCallback",
    "WandbLoggerCallback",
]
