"""No criterion at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skate.tune.schedulers.trial_scheduler import Gate
from skate.tune.stopper.stopper import Stopper


class NoopStopper(Stopper):
    """Leaves trials alone."""

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Go on."""
        return False

    def gate(self) -> Gate:
        """Never."""
        return {}
