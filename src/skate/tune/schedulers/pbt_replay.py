"""The schedule that a population has found, with a single trial."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skate.tune.error import MetricError, TuneError
from skate.tune.schedulers.trial_scheduler import (
    Controller,
    Exploit,
    Gate,
    TrialScheduler,
    Verdict,
)
from skate.tune.trial import Trial

#: A trial without a checkpoint when its configuration is to change may make so many more reports.
PATIENCE = 3


@dataclass(frozen=True, slots=True)
class Change:
    """From ``iteration`` on, ``config``."""

    iteration: int
    config: dict[str, Any]


class PopulationBasedTrainingReplay(TrialScheduler):
    """Runs one trial through the configurations that led to a trial of a population.

    The run is given the same trainable, no ``num_samples``, and no space: the first configuration
    is the one that the policy begins with.  At each change the trial goes on from its own
    checkpoint with the next one.

    Args:
        policy_file: a ``pbt_policy_<trial id>.txt`` that ``PopulationBasedTraining`` or ``PB2``
            wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file.
    """

    needs_checkpoints = True
    works_with_searchers = False
    needs_metric = False
    changes_config = True

    def __init__(self, policy_file: str | os.PathLike[str]) -> None:
        super().__init__()
        self.policy_file = Path(policy_file).expanduser()
        #: What the trial begins with, and when it goes on with what.
        self.config, self.changes = read_policy(self.policy_file)
        self.changed = 0
        self._trial_id: str | None = None
        self._late = 0

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """Have the trial begin with the configuration of the policy.

        Raises:
            ValueError: there is more than one trial.
        """
        if self._trial_id not in (None, trial.trial_id):
            raise ValueError(
                "PopulationBasedTrainingReplay replays one trial: leave out num_samples (it is 1"
                " then) and have no grid_search in the space"
            )
        self._trial_id = trial.trial_id
        # A trial of a resumed run may have a checkpoint: it goes on with what is due from there.
        checkpoint = controller.checkpoint_of(trial)
        done = 0 if checkpoint is None else checkpoint.iteration
        self.changed = sum(change.iteration <= done for change in self.changes)
        config = self.config if not self.changed else self.changes[self.changed - 1].config
        trial.config.update(config)
        trial.evaluated_params.update(config)

    def next_decision(self, trial: Trial) -> Gate:
        """The next change."""
        if self.changed == len(self.changes):
            return {}
        return {"training_iteration": self.changes[self.changed].iteration}

    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> Verdict:
        """Change the configuration when it is time."""
        done = result.get("training_iteration")
        if not isinstance(done, (int, float)):
            raise MetricError("the trial reports a training_iteration that is no number")
        due = self.changed
        while due < len(self.changes) and self.changes[due].iteration <= done:
            due += 1
        if due == self.changed:
            return self.CONTINUE
        if controller.checkpoint_of(trial) is None:
            self._late += 1
            if self._late < PATIENCE:
                return self.CONTINUE
            raise TuneError(
                f"{trial.trial_id} is to go on with another configuration at iteration"
                f" {self.changes[self.changed].iteration}, but has no checkpoint: report one with"
                " tune.report(metrics, checkpoint=tune.Checkpoint.from_dict(...)) and go on from"
                " tune.get_checkpoint()"
            )
        self._late = 0
        self.changed = due
        # What the policy does not name is as the user wants it here.
        return Exploit(trial, {**trial.config, **self.changes[due - 1].config})

    def debug_string(self) -> str:
        """Return how far the policy is carried out."""
        return f"PopulationBasedTrainingReplay: {self.changed} of {len(self.changes)} changes made"


def read_policy(path: Path) -> tuple[dict[str, Any], list[Change]]:
    """Return the first configuration of a policy, and its changes in their order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no policy.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"there is no policy {path}; PopulationBasedTraining(log_config=True) writes"
            " pbt_policy_<trial id>.txt into the folder of its run"
        )
    entries = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            target, source, _, iteration, old, new = json.loads(line)
            entries.append((target, source, int(iteration), dict(old), dict(new)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number} of {path} is no step of a policy") from error
    if not entries:
        raise ValueError(f"{path} is empty: its trial never changed, there is nothing to replay")
    # Backwards from the last step: each took over a trial whose own past comes before.  What else
    # is in the file happened to a trial that was overwritten later.
    changes: list[Change] = []
    expected = entries[-1][0]
    first: dict[str, Any] = {}
    for target, source, iteration, old, new in reversed(entries):
        if target != expected:
            break
        changes.append(Change(iteration, new))
        expected, first = source, old
    changes.reverse()
    return first, changes
