"""The loop around the orchestrator: actors are started, waited for, stopped and killed here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import skate
from skate.exceptions import ActorError, ObjectLostError, SkateError
from skate.tune.actions import Answer, Continue, Pause, Renew, Start, Stop
from skate.tune.analysis import as_checkpoint
from skate.tune.callback import Callback
from skate.tune.checkpoints import CheckpointKeeper
from skate.tune.ctrl_c import CtrlC
from skate.tune.homes import Home, Homes
from skate.tune.orchestrator import Orchestrator
from skate.tune.session import FAILED, FINISHED, RUNNING, Batch, Report
from skate.tune.trial import Trial, TrialCheckpoint
from skate.tune.trial_actor import Ended, TrialFacts

#: Callbacks that depend on the time (buffered files, the table) are called at least this often, in
#: seconds, even when no trial reports.
TICK_S = 0.25
#: How long a function may take to end after it was told to stop, before its process is killed.
STOP_GRACE_S = 5.0


@dataclass(slots=True)
class _Call:
    """An actor call under way, or a placement group that is waited for.

    ``kind`` says what it answers: "reports", "fail", "stop", "pause", "renew", "placed" or "close".
    """

    kind: str
    action: Any
    trial: Trial
    home: Home
    checkpoint: Any = None
    #: Results that came with the report after which the trial is paused.
    later: Sequence[dict[str, Any]] = ()
    deadline: float | None = None


class Runner:
    """Carries out what the orchestrator decides.

    Args:
        orchestrator: decides.
        homes: where trials run.
        keeper: writes their checkpoints.
        callback: is told what happens.
        ctrl_c: is let in while the loop waits.
        experiment: name of the run.
        has_cleanup: whether what trials run wants to be cleaned up.
        time_budget_s: the run ends after so many seconds; None for no limit.
        origin: what trials start from that have no checkpoint of their own.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        homes: Homes,
        keeper: CheckpointKeeper,
        callback: Callback,
        ctrl_c: CtrlC,
        experiment: str,
        has_cleanup: bool = False,
        time_budget_s: float | None = None,
        origin: TrialCheckpoint | None = None,
    ) -> None:
        self._orchestrator = orchestrator
        self._homes = homes
        self._keeper = keeper
        self._callback = callback
        self._ctrl_c = ctrl_c
        self._experiment = experiment
        self._has_cleanup = has_cleanup
        self._origin = origin
        self._deadline = None if time_budget_s is None else time.monotonic() + time_budget_s
        self._turn = 0
        self._calls: dict[Any, _Call] = {}
        #: Seconds of CPU that the loop has used.
        self.cpu_s = 0.0

    def run(self) -> None:
        """Run all trials.  Ctrl-C ends the run, not the program.

        Raises:
            MetricError: trials do not report what the run is about.
            TuneError: the searcher or the scheduler does not do its part.
        """
        began = time.thread_time()
        try:
            self._loop()
        except KeyboardInterrupt:
            self._end("interrupted")
        finally:
            self._close()
            self.cpu_s = time.thread_time() - began

    # ---------------------------------------------------------------- the loop

    def _loop(self) -> None:
        orchestrator = self._orchestrator
        while True:
            self._callback.on_step_begin(self._turn, orchestrator.trials)
            self._start_trials()
            if not self._calls:
                return
            with self._ctrl_c.waiting():
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
            if self._has_cleanup:
                self._give_up_cleanups(now)
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
        self._tell_ended()

    def _start(self, start: Start) -> None:
        trial = start.trial
        self._tell("on_trial_start", trial)
        home = self._homes.idle(trial.resources)
        if home is not None:
            self._send(start, home)
            return
        for other in self._homes.take_others(trial.resources):
            self._discard(other)
        if not trial.resources.wants_group:
            self._send(start, self._homes.make(trial.resources))
            return
        group = self._homes.group(trial.resources)
        home = Home(None, trial.resources, group)
        self._calls[group.ready()] = _Call("placed", start, trial, home)

    def _send(self, start: Start | Renew, home: Home) -> None:
        trial = start.trial
        checkpoint = trial.checkpoint or self._origin
        source: Any = None
        done = (0, 0.0)
        if checkpoint is not None:
            source = checkpoint.source
            done = (checkpoint.iteration, checkpoint.time_total_s)
        facts: TrialFacts = (trial.trial_id, trial.path, self._experiment, trial.name)
        try:
            if isinstance(start, Renew):
                refs = home.actor.renew.remote(
                    STOP_GRACE_S, trial.config, facts, start.gate, source, done
                )
            else:
                refs = home.actor.run.remote(trial.config, facts, start.gate, source, done)
        except Exception as error:  # the configuration cannot be pickled
            if isinstance(start, Renew):
                self._discard(home)
            else:
                self._release(home)
            self._failed(trial, error)
            return
        self._submit("renew" if isinstance(start, Renew) else "reports", start, home, refs)
        if source is not None:
            self._tell("on_trial_restore", trial)

    # ---------------------------------------------------------------- answers

    def _handle(self, ref: Any, call: _Call) -> None:
        try:
            answer = skate.get(ref)
        except Exception as error:
            self._handle_error(call, error)
            return
        match call.kind:
            case "reports":
                self._handle_batch(call, answer)
            case "renew":
                self._handle_renewed(call, answer)
            case "placed":
                self._send(call.action, self._homes.make(call.trial.resources, call.home.group))
            case "close":
                self._destroy(call.home)
            case _:
                self._handle_ended(call, answer)

    def _handle_error(self, call: _Call, error: Exception) -> None:
        trial, home = call.trial, call.home
        match call.kind:
            case "close":
                self._destroy(home)
            case "placed":
                self._homes.remove_group(home.group)
                self._failed(trial, error)
            case "stop":
                self._destroy(home)
                self._orchestrator.on_released(trial)
            case "fail" | "pause" if not isinstance(error, ActorError):
                self._release(home)
                self._failed(trial, error)
            case _ if isinstance(error, ObjectLostError) and trial.checkpoint is not None:
                self._destroy(home)
                self._orchestrator.on_checkpoint_lost(trial, self._keeper.older(trial))
            case _:
                self._destroy(home)
                self._failed(trial, error)

    def _handle_batch(self, call: _Call, batch: Batch) -> None:
        state, reports, pid, host, has_checkpoint = batch
        trial = call.trial
        results = expand(trial, reports, pid, host)
        recorded = trial.iterations
        checkpoint = TrialCheckpoint(call.checkpoint) if has_checkpoint else None
        answer = self._orchestrator.on_reports(trial, results, checkpoint)
        later = results[trial.iterations - recorded :]
        for result in results[: trial.iterations - recorded]:
            self._tell("on_trial_result", trial, result=result)
        if checkpoint is not None and checkpoint.reports:
            self._keep(trial, checkpoint)
        if isinstance(answer, Stop):
            self._tell_end(trial)
        if state == RUNNING or (state == FINISHED and isinstance(answer, Renew)):
            if answer is not None:
                self._execute(answer, call.home, later)
        elif state == FAILED and answer is not None and not isinstance(answer, Stop):
            self._submit("fail", answer, call.home, (call.home.actor.fail.remote(), None))
        else:
            assert state in (FINISHED, FAILED)
            self._release(call.home)
            paused = isinstance(answer, Pause)
            self._orchestrator.on_finished(trial, later if paused else ())
            for result in later if paused else ():
                self._tell("on_trial_result", trial, result=result)
            if answer is not None and not isinstance(answer, Stop):
                self._tell_end(trial)

    def _handle_renewed(self, call: _Call, batch: Batch | None) -> None:
        if batch is not None:
            self._handle_batch(call, batch)
            return
        # The function did not end: it goes with its process, and the trial to another one.
        self._destroy(call.home, keep_group=True)
        self._start(Start(call.trial, call.action.gate))

    def _handle_ended(self, call: _Call, how: Ended) -> None:
        ended, saved, reports, pid, host = how
        # A function that did not end when it was told to keeps its thread: only the process can go.
        if ended:
            self._release(call.home)
        else:
            self._destroy(call.home)
        trial = call.trial
        checkpoint = TrialCheckpoint(call.checkpoint) if saved else None
        if call.kind == "pause":
            # A checkpoint that was taken now has everything in it that was done meanwhile.
            results = [*call.later, *expand(trial, reports, pid, host)] if saved else []
            recorded = trial.iterations
            self._orchestrator.on_paused(trial, checkpoint, results)
            for result in results[: trial.iterations - recorded]:
                self._tell("on_trial_result", trial, result=result)
        else:
            self._orchestrator.on_released(trial)
            if checkpoint is not None:
                trial.take_checkpoint(checkpoint)
        if checkpoint is not None and checkpoint.reports:
            self._keep(trial, checkpoint)

    def _keep(self, trial: Trial, record: TrialCheckpoint) -> None:
        checkpoint = None
        if self._callback.wants_checkpoints:
            with contextlib.suppress(SkateError):
                checkpoint = as_checkpoint(record)
        self._keeper.add(trial, record)
        self._tell("on_trial_save", trial)
        if checkpoint is not None:
            self._tell("on_checkpoint", trial, checkpoint=checkpoint)

    # ---------------------------------------------------------------- actions

    def _execute(self, answer: Answer, home: Home, later: Sequence[dict[str, Any]]) -> None:
        match answer:
            case Continue(_, gate):
                self._submit("reports", answer, home, home.actor.proceed.remote(gate))
            case Renew(trial, _):
                self._tell("on_trial_start", trial)
                self._send(answer, home)
            case Pause(_, save):
                refs = home.actor.stop.remote(STOP_GRACE_S, save)
                self._submit("pause", answer, home, refs, later)
            case Stop(trial):
                newest = trial.checkpoint
                save = (
                    self._keeper.at_end
                    and trial.status != Trial.ERROR
                    and (newest is None or newest.reports < trial.iterations)
                )
                refs = home.actor.stop.remote(STOP_GRACE_S, save, trial.status != Trial.ERROR)
                self._submit("stop", answer, home, refs)

    def _submit(
        self,
        kind: str,
        action: Any,
        home: Home,
        refs: Sequence[Any],
        later: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._calls[refs[0]] = _Call(kind, action, action.trial, home, refs[1], later)

    def _end(self, reason: str) -> None:
        self._callback.on_experiment_ending(self._orchestrator.trials, end_reason=reason)
        for kill in self._orchestrator.end(reason):
            trial = kill.trial
            for ref, call in list(self._calls.items()):
                if call.trial is trial and call.kind != "close":
                    del self._calls[ref]
                    self._destroy(call.home)
            self._orchestrator.on_released(trial)
            self._tell_end(trial)
        self._tell_ended()

    def _failed(self, trial: Trial, error: Exception) -> None:
        ended = trial.is_finished
        self._orchestrator.on_failed(trial, error)
        if not ended:
            self._tell_end(trial)

    # ---------------------------------------------------------------- homes

    def _release(self, home: Home) -> None:
        if self._orchestrator.needs_no_more_actors or not self._homes.keep(home):
            self._discard(home)

    def _discard(self, home: Home) -> None:
        """End a home where nothing runs; a class is cleaned up before."""
        if not self._has_cleanup:
            self._destroy(home)
            return
        ref = home.actor.close.remote()
        deadline = time.monotonic() + STOP_GRACE_S
        self._calls[ref] = _Call("close", None, _NOBODY, home, deadline=deadline)

    def _destroy(self, home: Home, keep_group: bool | None = None) -> None:
        if keep_group is None:
            keep_group = not self._orchestrator.needs_no_more_actors
        if home.actor is not None:
            self._homes.destroy(home, keep_group)
        elif home.group is not None:
            self._homes.remove_group(home.group)

    def _give_up_cleanups(self, now: float) -> None:
        for ref, call in list(self._calls.items()):
            if call.deadline is not None and now >= call.deadline:
                del self._calls[ref]
                self._destroy(call.home)

    def _close(self) -> None:
        """End everything that is left; classes are cleaned up if they are quick about it."""
        for call in self._calls.values():
            if call.kind != "close":
                self._destroy(call.home, keep_group=False)
        self._calls = {ref: call for ref, call in self._calls.items() if call.kind == "close"}
        for home in self._homes.take_idle():
            self._discard(home)
        if self._calls:
            skate.wait(list(self._calls), num_returns=len(self._calls), timeout=STOP_GRACE_S)
            for call in self._calls.values():
                self._destroy(call.home, keep_group=False)
            self._calls.clear()
        self._homes.remove_groups()

    # ---------------------------------------------------------------- telling

    def _tell(self, event: str, trial: Trial, **info: Any) -> None:
        hook = getattr(self._callback, event)
        hook(iteration=self._turn, trials=self._orchestrator.trials, trial=trial, **info)

    def _tell_end(self, trial: Trial) -> None:
        """Tell that a trial has ended, or failed and will start again."""
        if trial.is_finished:
            self._keeper.trial_ended(trial)
        events = {Trial.ERROR: "on_trial_error", Trial.PENDING: "on_trial_recover"}
        self._tell(events.get(trial.status, "on_trial_complete"), trial)

    def _tell_ended(self) -> None:
        for trial in self._orchestrator.take_ended():
            self._tell_end(trial)


#: Whose home is cleaned up: nobody's any more.
_NOBODY = Trial("", {}, {})


def expand(trial: Trial, reports: Sequence[Report], pid: int, host: str) -> list[dict[str, Any]]:
    """Return reports as results: with the fields that every result has."""
    results = []
    for metrics, iteration, elapsed, timestamp, took in reports:
        results.append(
            {
                "training_iteration": iteration,
                "time_this_iter_s": took,
                "time_total_s": elapsed,
                "timestamp": timestamp,
                "done": False,
                **metrics,
                "trial_id": trial.trial_id,
                "date": time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(timestamp)),
                "pid": pid,
                "hostname": host,
                "config": trial.config,
            }
        )
    return results
