"""How much a run may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Limits:
    """How much a run may do."""

    #: How many trials run at a time.
    slots: int = 1
    #: Passes over the grid, or trials of other searchers; -1 for no limit.
    num_samples: int = 1
    #: How often a failed trial is started again; -1 for always.
    max_failures: int = 0
    #: Whether the first failure ends the run.
    fail_fast: bool = False
    #: What all trials that run may hold together; None for no limit.
    resources: Mapping[str, float] | None = None
