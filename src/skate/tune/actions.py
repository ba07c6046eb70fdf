"""What the orchestrator has the runner do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from skate.tune.schedulers.trial_scheduler import Gate
from skate.tune.trial import Trial


@dataclass(frozen=True, slots=True)
class Start:
    """Run the trial, from its checkpoint if it has one, and have it wait where ``gate`` says."""

    trial: Trial
    gate: Gate


@dataclass(frozen=True, slots=True)
class Continue:
    """Bring further reports; a trial that waits at a gate goes on, up to the next one."""

    trial: Trial
    gate: Gate


@dataclass(frozen=True, slots=True)
class Renew:
    """End the trial's function at its gate and start it again in the same actor.

    The trial has another configuration and another checkpoint by now.
    """

    trial: Trial
    gate: Gate


@dataclass(frozen=True, slots=True)
class Pause:
    """End the trial's function at its current or next report, then call ``on_paused``.

    ``save``: the newest checkpoint is older than the last report; take one, if the trainable can.
    """

    trial: Trial
    save: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """End the trial's function at its current or next report, then call ``on_released``."""

    trial: Trial


@dataclass(frozen=True, slots=True)
class Kill:
    """End the trial's process at once, then call ``on_released``."""

    trial: Trial


#: What is done with a trial that has reported.
Answer: TypeAlias = Continue | Renew | Pause | Stop
