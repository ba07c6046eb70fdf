"""The loop around the orchestrator: actors are started, waited for, stopped and killed here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import skate
from skate.exceptions import ActorError
from skate.tune.actions import Answer, Continue, Pause, Renew, Start, Stop
from skate.tune.callback import Callback
from skate.tune.orchestrator import Orchestrator
from skate.tune.resources import PlacementGroupFactory, actor_options
from skate.tune.session import FAILED, FINISHED, RUNNING, Batch, Report
from skate.tune.trial import Trial
from skate.tune.trial_actor import TrialActor

#: Callbacks that depend on the time (buffered files, the table) are called at least this often, in
#: seconds, even when no trial reports.
TICK_S = 0.25
#: How long a function may take to end after it was told to stop, before its process is killed.
STOP_GRACE_S = 5.0


@dataclass(slots=True)
class _Call:
    """An actor call under way."""

    kind: str  # "reports", "fail" or "stop": which method of TrialActor answers
    trial: Trial
    actor: Any


class Runner:
    """Carries out what the orchestrator decides.

    Args:
        orchestrator: decides.
        function: what trials run; with ``resources`` for each.
        callback: is told what happens.
        experiment: name of the run.
        reuse_actors: whether a process may run one trial after another.
        time_budget_s: the run ends after so many seconds; None for no limit.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        function: Callable[[dict[str, Any]], Any],
        resources: PlacementGroupFactory,
        callback: Callback,
        experiment: str,
        reuse_actors: bool = True,
        time_budget_s: float | None = None,
    ) -> None:
        self._orchestrator = orchestrator
        self._callback = callback
        self._experiment = experiment
        self._reuse_actors = reuse_actors
        self._deadline = None if time_budget_s is None else time.monotonic() + time_budget_s
        self._turn = 0
        # Stored once; every actor reads it from there.
        self._function = skate.put(function)
        options = actor_options(resources.head)
        self._actor_class = skate.remote(TrialActor).options(**options)
        self._calls: dict[Any, _Call] = {}
        self._idle: list[Any] = []

    def run(self) -> None:
        """Run all trials.  Ctrl-C ends the run, not the program.

        Raises:
            MetricError: trials do not report what the run is about.
            TuneError: the searcher does not do its part.
        """
        try:
            self._loop()
        except KeyboardInterrupt:
            self._end("interrupted")
        finally:
            self._kill_all()

    # ---------------------------------------------------------------- the loop

    def _loop(self) -> None:
        orchestrator = self._orchestrator
        while True:
            self._start_trials()
            if not self._calls:
                return
            ready, _ = skate.wait(list(self._calls), num_returns=1, timeout=self._timeout())
            for ref in ready:
                self._handle(ref, self._calls.pop(ref))
            now = time.monotonic()
            if self._deadline is not None and now >= self._deadline:
                self._end("time budget")
            elif orchestrator.wants_end:
                self._end("stopper")
            elif orchestrator.end_reason and orchestrator.running:
                self._end(orchestrator.end_reason)
            self._turn += 1
            self._callback.on_step_end(self._turn, orchestrator.trials, now=now)

    def _timeout(self) -> float:
        if self._deadline is None:
            return TICK_S
        return max(0.0, min(TICK_S, self._deadline - time.monotonic()))

    def _start_trials(self) -> None:
        # A trial that cannot even be sent frees its slot at once: ask until nothing starts.
        while starts := self._orchestrator.fill():
            for start in starts:
                self._start(start)

    def _start(self, start: Start) -> None:
        trial = start.trial
        self._tell("on_trial_start", trial)
        actor = self._idle.pop() if self._idle else self._actor_class.remote(self._function)
        try:
            ref = actor.run.remote(
                trial.config, trial.trial_id, trial.path, self._experiment, start.gate
            )
        except Exception as error:  # the configuration cannot be pickled
            self._release(actor)
            self._failed(trial, error)
            return
        self._calls[ref] = _Call("reports", trial, actor)

    def _handle(self, ref: Any, call: _Call) -> None:
        try:
            answer = skate.get(ref)
        except Exception as error:
            self._handle_error(call, error)
            return
        if call.kind == "reports":
            self._handle_batch(call, answer)
            return
        # A function that did not end when it was told to keeps its thread: only the process can go.
        if answer is True:
            self._release(call.actor)
        else:
            skate.kill(call.actor)
        self._orchestrator.on_released(call.trial)

    def _handle_error(self, call: _Call, error: Exception) -> None:
        if call.kind == "stop":
            skate.kill(call.actor)
            self._orchestrator.on_released(call.trial)
            return
        if call.kind == "fail" and not isinstance(error, ActorError):
            self._release(call.actor)
        else:
            skate.kill(call.actor)
        self._failed(call.trial, error)

    def _handle_batch(self, call: _Call, batch: Batch) -> None:
        state, reports, pid, host = batch
        trial = call.trial
        results = expand(trial, reports, pid, host)
        recorded = trial.iterations
        action = self._orchestrator.on_reports(trial, results)
        for result in results[: trial.iterations - recorded]:
            self._tell("on_trial_result", trial, result=result)
        if isinstance(action, Stop):
            self._tell("on_trial_complete", trial)
        if state == RUNNING:
            if action is not None:
                self._execute(action, call.actor)
        elif state == FAILED and isinstance(action, Continue):
            self._submit("fail", trial, call.actor, call.actor.fail.remote())
        else:
            assert state in (FINISHED, FAILED)
            self._release(call.actor)
            self._orchestrator.on_finished(trial)
            if isinstance(action, Continue):
                self._tell("on_trial_complete", trial)

    # ---------------------------------------------------------------- actions

    def _execute(self, action: Answer, actor: Any) -> None:
        match action:
            case Continue(trial, gate):
                self._submit("reports", trial, actor, actor.proceed.remote(gate))
            case Stop(trial):
                self._submit("stop", trial, actor, actor.stop.remote(STOP_GRACE_S))
            case Renew() | Pause():
                raise AssertionError(f"{action} needs trials with checkpoints")

    def _submit(self, kind: str, trial: Trial, actor: Any, ref: Any) -> None:
        self._calls[ref] = _Call(kind, trial, actor)

    def _end(self, reason: str) -> None:
        for kill in self._orchestrator.end(reason):
            trial = kill.trial
            for ref, call in list(self._calls.items()):
                if call.trial is trial:
                    del self._calls[ref]
                    skate.kill(call.actor)
            self._orchestrator.on_released(trial)
            self._tell("on_trial_complete", trial)

    def _failed(self, trial: Trial, error: Exception) -> None:
        self._orchestrator.on_failed(trial, error)
        if trial.status in (Trial.ERROR, Trial.PENDING):
            self._tell("on_trial_error", trial)

    def _release(self, actor: Any) -> None:
        if self._reuse_actors and not self._orchestrator.needs_no_more_actors:
            self._idle.append(actor)
        else:
            skate.kill(actor)

    def _kill_all(self) -> None:
        for actor in [*self._idle, *(call.actor for call in self._calls.values())]:
            skate.kill(actor)
        self._idle.clear()
        self._calls.clear()

    def _tell(self, event: str, trial: Trial, **info: Any) -> None:
        hook = getattr(self._callback, event)
        hook(iteration=self._turn, trials=self._orchestrator.trials, trial=trial, **info)


def expand(trial: Trial, reports: Sequence[Report], pid: int, host: str) -> list[dict[str, Any]]:
    """Return reports as results: with the fields that every result has."""
    results = []
    before = trial.last_result.get("time_total_s", 0.0)
    for metrics, iteration, elapsed, timestamp in reports:
        results.append(
            {
                "training_iteration": iteration,
                "time_this_iter_s": elapsed - before,
                "time_total_s": elapsed,
                "timestamp": timestamp,
                **metrics,
                "trial_id": trial.trial_id,
                "date": time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(timestamp)),
                "pid": pid,
                "hostname": host,
                "done": False,
                "config": trial.config,
            }
        )
        before = elapsed
    return results
