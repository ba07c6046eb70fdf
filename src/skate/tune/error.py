"""What goes wrong in a tuning run, as types."""

from __future__ import annotations

from skate.exceptions import SkateError


class TuneError(SkateError):
    """A run could not go on, or some of its trials failed (see ``tune.run``)."""


class MetricError(TuneError, ValueError):
    """Trials do not report a metric that the run needs; the message names what they report."""
