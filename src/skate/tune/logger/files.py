"""The files that every run writes anyway, under the names of Ray Tune's callbacks.

Scripts pass these to choose what is written.  Here ``params.json``, ``result.json`` and
``progress.csv`` are always there: the table, the reports and resuming read them.
"""

from __future__ import annotations

from skate.tune.logger._base import LoggerCallback


class JsonLoggerCallback(LoggerCallback):
    """Stands for ``params.json`` and ``result.json``, which every run has."""


class CSVLoggerCallback(LoggerCallback):
    """Stands for ``progress.csv``, which every run has."""
