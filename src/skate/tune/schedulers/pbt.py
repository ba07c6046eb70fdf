"""Population Based Training: bad trials go on as changed copies of good ones."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skate.tune.error import MetricError, TuneError
from skate.tune.readable import as_json
from skate.tune.schedulers.explore import Explore, check_mutations, explore, fill
from skate.tune.schedulers.trial_scheduler import (
    Controller,
    Exploit,
    Gate,
    Lines,
    TrialScheduler,
    Verdict,
)
from skate.tune.trial import Trial, TrialCheckpoint

#: A trial that is to be copied may be judged so often before it has to have a checkpoint.
PATIENCE = 3


@dataclass(slots=True)
class Member:
    """One trial of the population.

    Attributes:
        time: how far it was when it was judged last.
        score: its score then, larger is better; None before.
        perturbed_at: from when on the interval to its next judgement counts.
        judged: how often it was judged.
        policy: the lines that tell how it came to its configuration.
    """

    time: float = 0.0
    score: float | None = None
    perturbed_at: float = 0.0
    judged: int = 0
    policy: list[str] = field(default_factory=list)


class PopulationBasedTraining(TrialScheduler):
    """Has bad trials go on from the checkpoints of good ones, with a changed configuration.

    Each time that a trial has run for ``perturbation_interval``, and is among the worst
    ``quantile_fraction`` of the population, it *exploits* one of the best ``quantile_fraction``,
    drawn at random (takes its checkpoint and configuration) and *explores* (changes what
    ``hyperparam_mutations`` names).  So the population finds a schedule, not one configuration.

    The trainable has to save checkpoints, best as often as ``perturbation_interval``.  With fewer
    slots than trials, trials take turns.

    Source: Jaderberg et al., "Population based training of neural networks", 2017.

    Args:
        time_attr: the field of a result that measures how far a trial is; it has to grow.
        metric: what to compare; defaults to the run's.
        mode: "min" or "max"; defaults to the run's.
        perturbation_interval: how far trials go from one judgement to the next, in units of
            ``time_attr``.
        burn_in_period: no trial is judged before.
        hyperparam_mutations: what may be changed.  By name: a domain (``tune.uniform(...)``), a
            list of values in their order, a function without arguments that draws a value, or a
            dict of those for a nested configuration.  What the run's space lacks is drawn.
        quantile_fraction: which part of the population is bad, and which is good; at most 0.5.
        resample_probability: how likely a value is drawn anew instead of being moved.
        perturbation_factors: numbers are multiplied by one of these.
        custom_explore_fn: is called with the changed configuration and returns the one to use, for
            example with values put back into their bounds.
        log_config: whether to write which trial took over which, with what configuration, into
            ``pbt_global.txt`` and ``pbt_policy_<trial id>.txt`` in the folder of the run;
            ``PopulationBasedTrainingReplay`` reads the latter.
        require_attrs: whether results without ``time_attr`` or the metric are an error.
        synch: whether all trials wait for each other before they are judged.  If not, each is
            compared with the newest judged results of the others.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    needs_checkpoints = True
    works_with_searchers = False
    changes_config = True

    def __init__(
        self,
        time_attr: str = "time_total_s",
        metric: str | None = None,
        mode: str | None = None,
        perturbation_interval: float = 60.0,
        burn_in_period: float = 0.0,
        hyperparam_mutations: Mapping[str, Any] | None = None,
        quantile_fraction: float = 0.25,
        resample_probability: float = 0.25,
        perturbation_factors: tuple[float, ...] = (1.2, 0.8),
        custom_explore_fn: Explore | None = None,
        log_config: bool = True,
        require_attrs: bool = True,
        synch: bool = False,
    ) -> None:
        super().__init__(metric, mode)
        check_mutations(hyperparam_mutations or {})
        if not hyperparam_mutations and custom_explore_fn is None:
            raise ValueError(
                f"{type(self).__name__} has nothing to change; say what with"
                " hyperparam_mutations={'lr': tune.loguniform(1e-4, 1e-1)}, or how with"
                " custom_explore_fn"
            )
        if not 0 <= quantile_fraction <= 0.5:
            raise ValueError(
                f"quantile_fraction has to be between 0 and 0.5, got {quantile_fraction}"
            )
        if perturbation_interval <= 0:
            raise ValueError(
                f"perturbation_interval has to be above 0, got {perturbation_interval}"
            )
        if not 0 <= resample_probability <= 1:
            raise ValueError(
                f"resample_probability has to be between 0 and 1, got {resample_probability}"
            )
        if not perturbation_factors:
            raise ValueError("perturbation_factors has to have at least one factor")
        self.time_attr = time_attr
        self.perturbation_interval = perturbation_interval
        self.burn_in_period = burn_in_period
        self.hyperparam_mutations = dict(hyperparam_mutations or {})
        self.quantile_fraction = quantile_fraction
        self.resample_probability = resample_probability
        self.perturbation_factors = tuple(perturbation_factors)
        self.custom_explore_fn = custom_explore_fn
        self.log_config = log_config
        self.require_attrs = require_attrs
        self.synch = synch
        self.perturbations = 0
        # Scripts seed the module, and expect the same population then.
        self._random = random.Random(random.getrandbits(64))
        self._members: dict[str, Member] = {}
        #: Where trials wait for each other next, with ``synch``.
        self._meeting = max(burn_in_period, perturbation_interval)
        self._lines: list[Lines] = []

    # ---------------------------------------------------------------- the population

    def on_trial_add(self, controller: Controller, trial: Trial) -> None:
        """Draw what the configuration lacks."""
        self._members[trial.trial_id] = Member()
        drawn = fill(trial.config, self.hyperparam_mutations, self._random)
        trial.evaluated_params.update(drawn)

    def on_trial_complete(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> None:
        """Leave the population."""
        self._leave(controller, trial)

    def on_trial_error(self, controller: Controller, trial: Trial) -> None:
        """Leave the population."""
        self._leave(controller, trial)

    def on_trial_remove(self, controller: Controller, trial: Trial) -> None:
        """Leave the population."""
        self._leave(controller, trial)

    def _leave(self, controller: Controller, trial: Trial) -> None:
        del self._members[trial.trial_id]
        if self.synch and self._complete(controller):
            self._meet(controller)

    def quantiles(self) -> tuple[list[str], list[str]]:
        """Return the trials of the worst quantile and those of the best, worst first."""
        scores = {name: m.score for name, m in self._members.items() if m.score is not None}
        names = sorted(scores, key=lambda name: scores[name])
        size = min(math.ceil(len(names) * self.quantile_fraction), len(names) // 2)
        return names[:size], names[len(names) - size :]

    # ---------------------------------------------------------------- judging

    def next_decision(self, trial: Trial) -> Gate:
        """The next perturbation."""
        if self.synch:
            return {self.time_attr: self._meeting}
        due = self._members[trial.trial_id].perturbed_at + self.perturbation_interval
        return {self.time_attr: max(due, self.burn_in_period)}

    def on_trial_result(
        self, controller: Controller, trial: Trial, result: Mapping[str, object]
    ) -> Verdict:
        """Judge the trial if it is due."""
        time = self._number(result, self.time_attr)
        score = self.score(result)
        if score is None and self.metric is not None:
            self._number(result, self.metric)
        if time is None or score is None:
            return self.CONTINUE
        member = self._members[trial.trial_id]
        due = self._meeting
        if not self.synch:
            due = max(member.perturbed_at + self.perturbation_interval, self.burn_in_period)
        if time < due:
            return self.CONTINUE
        self.on_judged(trial, member, time, result)
        member.time = time
        member.score = score
        member.judged += 1
        if self.synch:
            if self._complete(controller):
                self._meet(controller)
            return self.PAUSE
        member.perturbed_at = time
        exploit = self._exploit(controller, trial, *self.quantiles())
        if self._others_wait(controller):
            if exploit is not None:
                controller.exploit_paused(trial, exploit)
            return self.PAUSE
        return exploit or self.CONTINUE

    def on_judged(
        self, trial: Trial, member: Member, time: float, result: Mapping[str, object]
    ) -> None:
        """Learn from the result that a trial is about to be judged by; for derived schedulers."""

    def _number(self, result: Mapping[str, object], name: str) -> float | None:
        value = result.get(name)
        if isinstance(value, (int, float)):
            return value
        if self.require_attrs:
            raise MetricError(
                f"{type(self).__name__} goes by {name!r}, which is no number in what the trials"
                f" report: {', '.join(sorted(result))}; report it, or pass require_attrs=False to"
                " skip such results"
            )
        return None

    def _others_wait(self, controller: Controller) -> bool:
        """Say whether somebody else could use the slot: each of the population gets its turn."""
        total = controller.total
        if total is not None and len(controller.trials) < total and not controller.exhausted:
            return True
        return any(
            trial.status in (Trial.PENDING, Trial.PAUSED) for trial in controller.live_trials
        )

    # ---------------------------------------------------------------- exploit and explore

    def _exploit(
        self, controller: Controller, trial: Trial, worst: Sequence[str], best: Sequence[str]
    ) -> Exploit | None:
        """Return what a trial goes on as, None if it stays what it is."""
        if trial.trial_id not in worst:
            return None
        name = self._random.choice(best)
        source = next(other for other in controller.live_trials if other.trial_id == name)
        checkpoint = controller.checkpoint_of(source)
        model, member = self._members[name], self._members[trial.trial_id]
        if checkpoint is None:
            if model.judged < PATIENCE:
                return None
            raise TuneError(
                f"{type(self).__name__} wants {trial.trial_id} to go on from a checkpoint of"
                f" {name}, which has none at its judgement number {model.judged}: have it"
                " save one every perturbation_interval"
                f" ({self.perturbation_interval:g} of {self.time_attr!r}), for a function with"
                " tune.report(metrics, checkpoint=tune.Checkpoint.from_dict(...)), and go on from"
                " tune.get_checkpoint()"
            )
        config = self.new_config(controller, trial, source)
        if self.custom_explore_fn is not None:
            config = self.custom_explore_fn(config)
            if not isinstance(config, dict):
                raise TypeError(
                    f"custom_explore_fn has to return the configuration, it returned {config!r}"
                )
        self.perturbations += 1
        if self.log_config:
            self._log(trial, source, checkpoint, config)
        # It goes on from where the checkpoint was made.
        at = checkpoint.metrics.get(self.time_attr, model.perturbed_at)
        member.time = model.time
        member.perturbed_at = at if isinstance(at, (int, float)) else model.perturbed_at
        return Exploit(source, config)

    def new_config(self, controller: Controller, trial: Trial, source: Trial) -> dict[str, Any]:
        """Return the configuration for a trial that goes on from the checkpoint of ``source``."""
        return explore(
            source.config,
            self.hyperparam_mutations,
            self.resample_probability,
            self.perturbation_factors,
            self._random,
        )

    def _log(
        self, trial: Trial, source: Trial, checkpoint: TrialCheckpoint, config: dict[str, Any]
    ) -> None:
        entry = [
            trial.trial_id,
            source.trial_id,
            trial.last_result.get("training_iteration", 0),
            checkpoint.iteration,
            source.config,
            config,
        ]
        line = as_json(entry) + "\n"
        member = self._members[trial.trial_id]
        # The past of the trial is now that of the one it goes on from.
        member.policy = [*self._members[source.trial_id].policy, line]
        self._lines.append(Lines("pbt_global.txt", line, anew=False))
        name = f"pbt_policy_{trial.trial_id}.txt"
        self._lines.append(Lines(name, "".join(member.policy), anew=True))

    def take_lines(self) -> list[Lines]:
        """Return what happened since the last call."""
        lines, self._lines = self._lines, []
        return lines

    # ---------------------------------------------------------------- meetings (synch)

    def _arrived(self, trial: Trial) -> bool:
        return self._members[trial.trial_id].time >= self._meeting

    def _complete(self, controller: Controller) -> bool:
        """Say whether nobody is missing at the meeting."""
        total = controller.total
        if total is not None and len(controller.trials) < total and not controller.exhausted:
            return False
        return bool(self._members) and all(
            member.time >= self._meeting for member in self._members.values()
        )

    def _meet(self, controller: Controller) -> None:
        """Judge everybody; all go on."""
        worst, best = self.quantiles()
        for trial in controller.live_trials:
            if trial.trial_id in worst:
                exploit = self._exploit(controller, trial, worst, best)
                if exploit is not None:
                    controller.exploit_paused(trial, exploit)
        latest = max(member.time for member in self._members.values())
        steps = math.floor((latest - self._meeting) / self.perturbation_interval) + 1
        self._meeting += max(1, steps) * self.perturbation_interval

    def choose_trial_to_run(self, controller: Controller) -> Trial | None:
        """Return the one that has run least; with ``synch`` of those that nobody waits for.

        One that was set back to where others are comes after them: it could be set back for ever.
        """
        waiting = [
            trial
            for trial in controller.live_trials
            if trial.status in (Trial.PENDING, Trial.PAUSED)
            and not (self.synch and self._arrived(trial))
        ]

        def turn(trial: Trial) -> tuple[float, int]:
            member = self._members[trial.trial_id]
            return member.time, member.judged

        return min(waiting, key=turn, default=None)

    def on_idle(self, controller: Controller) -> None:
        """Meet: nobody else comes."""
        if self.synch and self._members:
            self._meet(controller)

    def debug_string(self) -> str:
        """Return how many trials were changed."""
        return f"{type(self).__name__}: {self.perturbations} perturbations"
