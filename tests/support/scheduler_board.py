"""A scheduler with trials that report by hand, in place of the orchestrator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skate.tune.schedulers import TrialScheduler
from skate.tune.schedulers.trial_scheduler import Exploit, Resize, Verdict
from skate.tune.trial import Trial, TrialCheckpoint


class Board:
    """Carries out verdicts at once; every report comes with a checkpoint, unless told otherwise."""

    def __init__(self, scheduler: TrialScheduler, total: int | None = None) -> None:
        self.scheduler = scheduler
        self.trials: list[Trial] = []
        self.total = total
        self.saves = True
        self.total_resources: dict[str, float] | None = None
        scheduler.set_search_properties(scheduler.metric or "score", scheduler.mode or "max")

    @property
    def live_trials(self) -> Sequence[Trial]:
        return [trial for trial in self.trials if not trial.is_finished]

    @property
    def exhausted(self) -> bool:
        return self.total is not None and len(self.trials) >= self.total

    def checkpoint_of(self, trial: Trial) -> TrialCheckpoint | None:
        return trial.checkpoint

    def stop_trial(self, trial: Trial) -> None:
        assert trial.status in (Trial.PENDING, Trial.PAUSED)
        trial.status = Trial.TERMINATED
        trial.stop_reason = "scheduler"
        self.scheduler.on_trial_remove(self, trial)

    def exploit_paused(self, trial: Trial, exploit: Exploit) -> None:
        self._adopt(trial, exploit)

    def add(self, runs: bool = True, **config: Any) -> Trial:
        trial = Trial(f"t{len(self.trials)}", config, {})
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)
        if runs:
            trial.status = Trial.RUNNING
        return trial

    def report(self, trial: Trial, iteration: float, score: float, **more: Any) -> Verdict:
        trial.status = Trial.RUNNING
        result = {"training_iteration": iteration, "score": score, **more}
        trial.record(result)
        if self.saves:
            trial.checkpoint = TrialCheckpoint(
                "ref", iteration=int(iteration), reports=trial.iterations, metrics=result
            )
        verdict = self.scheduler.on_trial_result(self, trial, result)
        if verdict == TrialScheduler.PAUSE:
            trial.status = Trial.PAUSED
        elif isinstance(verdict, Resize):
            trial.resources = verdict.resources
        elif isinstance(verdict, Exploit):
            self._adopt(trial, verdict)
        elif verdict in (TrialScheduler.STOP, TrialScheduler.COMPLETE):
            self.end(trial)
        return verdict

    def end(self, trial: Trial) -> None:
        trial.status = Trial.TERMINATED
        self.scheduler.on_trial_complete(self, trial, trial.last_result)

    def next(self) -> Trial | None:
        return self.scheduler.choose_trial_to_run(self)

    def _adopt(self, trial: Trial, exploit: Exploit) -> None:
        trial.config = exploit.config
        trial.checkpoint = exploit.source.checkpoint
