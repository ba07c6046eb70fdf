"""What a trial's function talks to: ``report`` and the context, and the thread it runs in.

The user's function runs in a thread of its own beside the thread that serves the trial's actor.  A
``Session`` stands between the two: reports go into its outbox, and the function waits only where
the orchestrator asked it to (at a *gate*), or when it is far ahead of the orchestrator.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from skate.tune.trial_context import TrialContext

if TYPE_CHECKING:
    from skate.tune.checkpoint import Checkpoint, PackedCheckpoint
    from skate.tune.trial_output import TrialOutput

#: How long reports may lie in the outbox before they travel, in seconds.  It makes one message of
#: what is reported in quick succession.  A function that waits or ends is heard of at once.
GATHER_S = 0.05
#: A function that is so many reports ahead of the orchestrator waits.
MAX_AHEAD = 1000

#: One report: the metrics, the iteration, seconds since the trial began, the time (epoch seconds),
#: seconds since the last report.
Report: TypeAlias = tuple[dict[str, Any], int, float, float, float]
#: What an actor call brings: one of the states below, the reports since the last call, where the
#: trial runs (pid, host), and whether a checkpoint came with the last report.  A plain tuple of
#: plain values, which is what pickles fastest; the checkpoint itself is the call's second value.
Batch: TypeAlias = tuple[str, list[Report], int, str, bool]

#: The function goes on, or waits at a gate.
RUNNING = "running"
#: The function returned (or was stopped).
FINISHED = "finished"
#: The function raised.
FAILED = "failed"


class StopTrial(BaseException):
    """Raised by ``report`` to end the function of a trial that is to stop.

    No ``Exception``, so that ``except Exception`` in the user's code lets it pass.
    """


class Session:
    """One evaluation of a function, from the inside (``report``) and the outside (``collect``).

    Args:
        function: is called with ``config``.
        context: where it runs.
        gate: where it has to wait first.
        checkpoint: what it goes on from, if it does.
        done: iterations and seconds that lie behind it then.
    """

    def __init__(
        self,
        function: Callable[[dict[str, Any]], Any],
        config: dict[str, Any],
        context: TrialContext,
        gate: Mapping[str, float] | None,
        checkpoint: Checkpoint | None = None,
        done: tuple[int, float] = (0, 0.0),
    ) -> None:
        self.context = context
        self.checkpoint = checkpoint
        #: Goes with the next report, if that brings none itself.
        self.next_checkpoint: Checkpoint | None = None
        #: Where what the function prints is copied to.
        self.output: TrialOutput | None = None
        #: What is to be closed when it ends.
        self.exits = contextlib.ExitStack()
        self.done = done
        self.error: BaseException | None = None
        self.function = function
        self._config = config
        self._gate = gate
        self._condition = threading.Condition()
        # Who goes on from a checkpoint is heard of at once: a population's exploit step is over
        # when the clone reports.
        self._gather = GATHER_S if checkpoint is None else 0.0
        self._outbox: list[Report] = []
        #: The checkpoint in the outbox, if there is one, and the report that it came with.
        self._packed: PackedCheckpoint | None = None
        self._packed_at = 0
        self._iteration = done[0]
        self._at_gate = False
        self._stopping = False
        self._keep = False
        self._ended = False
        self._start = time.monotonic() - done[1]
        self._reported = done[1]
        # The function runs where the actor does: in its placement group, for example.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._run,),
            name=f"trial-{context.get_trial_id()}",
            daemon=True,
        )

    # ---------------------------------------------------------------- outside

    def start(self) -> None:
        """Begin to run the function."""
        self._thread.start()

    def proceed(self, gate: Mapping[str, float] | None) -> None:
        """Set the next gate; a function that waits at one goes on."""
        with self._condition:
            self._gate = gate
            # With a report in the outbox, the function came to its gate after the orchestrator last
            # looked: the permission to go on was meant for an earlier one.
            if not self._outbox:
                self._at_gate = False
                self._condition.notify_all()

    def stop(self, keep: bool = False) -> None:
        """Have the function end at its current or next report.

        ``keep``: that report counts, and ``rest`` returns it.
        """
        with self._condition:
            self._stopping, self._keep = True, keep
            self._condition.notify_all()

    def rest(self) -> list[Report]:
        """Return the reports that no ``collect`` has brought; the function has ended."""
        return self._outbox

    def join(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the function to end; say whether it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def collect(self) -> tuple[Batch, PackedCheckpoint | None]:
        """Wait for reports, a gate or the end, and return what there is up to a checkpoint."""
        condition = self._condition
        with condition:
            condition.wait_for(lambda: bool(self._outbox) or self._ended)
            condition.wait_for(self._worth_a_message, self._gather)
            self._gather = GATHER_S
            packed, self._packed = self._packed, None
            reports = self._outbox
            if packed is None:
                self._outbox = []
            else:
                reports, self._outbox = reports[: self._packed_at], reports[self._packed_at :]
            condition.notify_all()
            state = RUNNING
            if self._ended and not self._outbox:
                state = FINISHED if self.error is None else FAILED
                # Not before its end is told: whoever hears of it may give the thread up.
                self._thread.join()
        return (state, reports, os.getpid(), socket.gethostname(), packed is not None), packed

    def _worth_a_message(self) -> bool:
        return (
            self._at_gate
            or self._ended
            or self._packed is not None
            or len(self._outbox) >= MAX_AHEAD
        )

    # ---------------------------------------------------------------- inside

    def report(
        self,
        metrics: dict[str, Any],
        checkpoint: PackedCheckpoint | None = None,
        save: Callable[[], PackedCheckpoint] | None = None,
    ) -> None:
        """Hand over one result; wait if the orchestrator wants to look at it first.

        Args:
            metrics: the result.
            checkpoint: goes with it.
            save: makes a checkpoint, which is done where the function has to wait.
        """
        condition = self._condition
        elapsed = time.monotonic() - self._start
        if checkpoint is None and save is not None and self._reached(metrics, elapsed, 1):
            checkpoint = save()
        with condition:
            # One checkpoint at a time lies here: they are large.
            while checkpoint is not None and self._packed is not None and not self._stopping:
                condition.wait()
            if self._told_to_stop() and not self._keep:
                raise StopTrial
            self._iteration += 1
            took, self._reported = elapsed - self._reported, elapsed
            self._outbox.append((metrics, self._iteration, elapsed, time.time(), took))
            if self._told_to_stop():
                raise StopTrial
            if checkpoint is not None:
                self._packed, self._packed_at = checkpoint, len(self._outbox)
            self._at_gate = self._reached(metrics, elapsed)
            waiting = len(self._outbox)
            if self._at_gate or checkpoint is not None or waiting in (1, MAX_AHEAD):
                condition.notify_all()
            while self._at_gate or len(self._outbox) >= MAX_AHEAD:
                condition.wait()
                if self._told_to_stop():
                    raise StopTrial

    def _told_to_stop(self) -> bool:
        return self._stopping

    def _reached(self, metrics: Mapping[str, Any], elapsed: float, ahead: int = 0) -> bool:
        gate = self._gate
        if gate is None:
            return True
        for name, bound in gate.items():
            value = _look_up(metrics, name)
            if value is None and name == "training_iteration":
                value = self._iteration + ahead
            elif value is None and name == "time_total_s":
                value = elapsed
            # A gate is a number to reach; what cannot be compared with it is left to the driver.
            if not isinstance(value, (int, float)) or value >= bound:
                return True
        return False

    def _run(self) -> None:
        _enter(self)
        error: BaseException | None = None
        try:
            with self.output or contextlib.nullcontext(), self.exits:
                returned = self.function(self._config)
                if isinstance(returned, GeneratorType):
                    for result in returned:
                        report(result)
                elif returned is not None:
                    report(returned)
        except StopTrial:
            pass
        except BaseException as raised:
            # The traceback begins with the user's function, not with this one.
            tail = raised.__traceback__.tb_next if raised.__traceback__ is not None else None
            error = raised.with_traceback(tail)
            _let_go(error)
        finally:
            _leave(self)
        with self._condition:
            self.error = error
            self._ended = True
            self._condition.notify_all()


def _let_go(error: BaseException | None) -> None:
    """Forget the local variables in the tracebacks of an error; the lines stay.

    Otherwise actors and arrays of a failed function live as long as its error: the next trial might
    wait for resources that they hold.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _look_up(metrics: Mapping[str, Any], name: str) -> Any:
    if name in metrics or "/" not in name:
        return metrics.get(name)
    value: Any = metrics
    for key in name.split("/"):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


# --------------------------------------------------------------------------- the current session

_local = threading.local()
#: Sessions that run in this process.  A function may report from threads that it started itself;
#: they belong to the only session there is.
_running: list[Session] = []


def _enter(session: Session) -> None:
    _local.session = session
    _running.append(session)


def _leave(session: Session) -> None:
    _running.remove(session)
    _local.session = None


def _current() -> Session | None:
    session: Session | None = getattr(_local, "session", None)
    if session is None and len(_running) == 1 and not _in_main_thread():
        return _running[0]
    return session


def current_output() -> TrialOutput | None:
    """Return where what the calling thread prints is copied to; None for nowhere."""
    session = _current()
    return None if session is None else session.output


def _in_main_thread() -> bool:
    """Say whether this thread can belong to no trial: trials have threads of their own.

    It matters on the inline engine, where a driver goes on beside the thread of a killed trial.
    """
    return threading.current_thread() is threading.main_thread()


_warned = False


def report(metrics: Any = None, /, *, checkpoint: Checkpoint | None = None, **named: Any) -> None:
    """Report results of the running trial: ``report({"loss": 0.1})`` or ``report(loss=0.1)``.

    Does not return if the trial is to stop.  Outside a trial it does nothing but warn once, so that
    a function can be tried by itself.

    Args:
        metrics: a dict with names as keys, or a number, which is then called ``_metric``.
        checkpoint: what the trial can go on from; it is read now, a folder may be deleted after.
        named: metrics by name, added to those.

    Raises:
        TypeError: neither dict nor number, or no ``Checkpoint``.
        OSError: the checkpoint cannot be read.
    """
    if metrics is None and isinstance(named.get("metrics"), Mapping):
        metrics = named.pop("metrics")  # as today's Ray names its argument
    result = _as_metrics(metrics, named)
    session = _current()
    if session is None:
        global _warned
        if not _warned:
            _warned = True
            warnings.warn("tune.report does nothing outside a trial", stacklevel=2)
        return
    if checkpoint is None:
        checkpoint, session.next_checkpoint = session.next_checkpoint, None
    session.report(result, _packed(checkpoint))


def save_with_next_report(checkpoint: Checkpoint) -> None:
    """Have the next report of the running trial bring a checkpoint, which is read now.

    Raises:
        OSError: it cannot be read.
    """
    session = _current()
    if session is not None:
        session.next_checkpoint = type(checkpoint).from_packed(checkpoint.pack())


def when_trial_ends(call: Callable[[BaseException | None], object]) -> None:
    """Have something called when the function of the running trial ends, with what it raised.

    Outside of trials nothing is called.
    """

    def end(kind: object, error: BaseException | None, trace: object) -> None:
        call(None if isinstance(error, StopTrial) else error)

    session = _current()
    if session is not None:
        session.exits.push(end)


def _packed(checkpoint: object) -> PackedCheckpoint | None:
    if checkpoint is None:
        return None
    from skate.tune.checkpoint import Checkpoint

    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(
            f"checkpoint= wants a tune.Checkpoint, got {type(checkpoint).__name__}; make one with"
            " tune.Checkpoint.from_dict(...) or .from_directory(...)"
        )
    return checkpoint.pack()


def _as_metrics(metrics: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    if metrics is None:
        result = dict(named)
    elif isinstance(metrics, Mapping):
        result = {**metrics, **named}
    else:
        number = _plain(metrics)
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(
                "a result is a dict of metrics, such as {'loss': 0.1}, or a number; got"
                f" {type(metrics).__name__}: {metrics!r:.100}"
            )
        result = {"_metric": number, **named}
    if not result:
        raise TypeError("a result has to have at least one metric: tune.report(loss=...)")
    for name, value in result.items():
        if not isinstance(name, str):
            raise TypeError(f"metrics are named by text, got {name!r}")
        kind = type(value)
        if kind is not float and kind is not int and kind is not str:
            result[name] = _plain(value)
    return result


def _plain(value: Any) -> Any:
    """Return Python's number for the scalars of numpy, torch and others, at any depth of dicts."""
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    # Asked of the class first: what users report may answer in strange ways, or not at all.
    if hasattr(type(value), "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def get_checkpoint() -> Checkpoint | None:
    """Return what the running trial goes on from, None if it begins (or outside of trials)."""
    session = _current()
    return None if session is None else session.checkpoint


def get_context() -> TrialContext:
    """Return where the calling function runs.

    Raises:
        RuntimeError: not inside a trial.
    """
    session = _current()
    if session is None:
        _outside("get_context")
    return session.context


def is_session_enabled() -> bool:
    """Say whether the calling code runs inside a trial."""
    return _current() is not None


def get_trial_id() -> str | None:
    """Return the id of the running trial, None outside of trials."""
    session = _current()
    return None if session is None else session.context.get_trial_id()


def get_trial_name() -> str | None:
    """Return the name of the running trial, None outside of trials."""
    session = _current()
    return None if session is None else session.context.get_trial_name()


def get_trial_dir() -> str | None:
    """Return the folder of the running trial, None outside of trials."""
    session = _current()
    return None if session is None else session.context.get_trial_dir()


def _outside(name: str) -> NoReturn:
    raise RuntimeError(f"tune.{name}() was called outside of a trial")
