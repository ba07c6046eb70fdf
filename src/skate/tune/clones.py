"""Trials that go on as changed copies of others: with what configuration, from where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from skate.tune.error import TuneError
from skate.tune.schedulers.trial_scheduler import Exploit, TrialScheduler
from skate.tune.search.space import flatten, varying
from skate.tune.trial import Trial, TrialCheckpoint

#: What a paused trial starts with when it runs next, with the checkpoint that its source had when
#: that was decided; None if it had none.
Held: TypeAlias = tuple[Exploit, TrialCheckpoint | None]


@dataclass(slots=True)
class Clones:
    """Makes trials copies of others.

    Attributes:
        space: the search space, for naming the parameters that vary.
        waiting: what paused trials start with when they run next, by trial id.
    """

    space: Mapping[str, Any]
    waiting: dict[str, Held] = field(default_factory=dict)

    def hold(self, trial: Trial, exploit: Exploit) -> None:
        """Have a trial start with ``exploit`` when it runs next.

        The checkpoint is the newest that its source has now (by then, if it has none yet): the
        source may be far ahead when there is room for the trial.
        """
        newest = exploit.source.checkpoint
        # A copy: the source lets go of its own as soon as there is a newer one.
        held = None if newest is None else replace(newest)
        self.waiting[trial.trial_id] = exploit, held

    def take(self, trial: Trial) -> Held | None:
        """Return what the trial starts with, None if it is to stay what it is; it is forgotten."""
        return self.waiting.pop(trial.trial_id, None)

    def adopt(self, trial: Trial, exploit: Exploit, held: TrialCheckpoint | None = None) -> bool:
        """Give a trial another configuration and checkpoint; say whether there is one.

        What it reported so far stays: its next reports are added to those.
        """
        newest = held or exploit.source.checkpoint
        if newest is None:
            return False
        trial.config = exploit.config
        # What the scheduler itself has added to the configuration varies as well.
        flat = flatten(exploit.config)
        known = {name: flat[name] for name in trial.evaluated_params if name in flat}
        trial.evaluated_params = {**known, **varying(self.space, exploit.config)}
        # If it has to, it goes on from here.
        trial.checkpoint = replace(newest, reports=trial.iterations, metrics=trial.last_result)
        return True


def no_checkpoint(scheduler: TrialScheduler, trial: Trial, does: str) -> TuneError:
    """Return the error of a scheduler that needs a checkpoint of a trial that has none."""
    return TuneError(
        f"{type(scheduler).__name__} {does} trials, but {trial.trial_id} has never"
        " reported a checkpoint: call tune.report(metrics,"
        " checkpoint=tune.Checkpoint.from_dict(...)) and go on from tune.get_checkpoint()"
    )
