"""Worker processes that are actors: what ``Pool`` and ``SkateExecutor`` have in common."""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import threading
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import skate
from skate.exceptions import ActorError, SkateError, TaskCancelledError, TaskError
from skate.util._assignment import Action, Assignment, Run, Start
from skate.util._deadline import Deadline

#: How often a thread that waits for a future looks whether it was cancelled, in seconds.
LOOK_SECONDS = 0.2
#: Functions that a worker keeps after it has unpickled them.
KEPT_FUNCTIONS = 32


class RemoteError(SkateError):
    """The traceback of a worker, as the cause of the exception that it explains."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class WorkersBrokenError(SkateError):
    """The initializer of the workers raised, so there are none."""


class _Exited:
    """What a call is answered with if it raised SystemExit, which would end an actor."""

    def __init__(self, code: object) -> None:
        self.code = code


class PoolWorker:
    """The class of the actors."""

    def __init__(self, initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]) -> None:
        self._functions: OrderedDict[Any, Callable[..., Any]] = OrderedDict()
        if initializer is not None:
            initializer(*initargs)

    def run(self, code: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function; ``code`` is the function itself or a list with its ref."""
        function = self._load(code[0]) if type(code) is list else code
        try:
            return function(*args, **kwargs)
        except SystemExit as exit_request:
            return _Exited(exit_request.code)

    def _load(self, ref: skate.ObjectRef[Any]) -> Callable[..., Any]:
        functions = self._functions
        function = functions.get(ref)
        if function is None:
            function = functions[ref] = skate.get(ref)
            if len(functions) > KEPT_FUNCTIONS:
                functions.popitem(last=False)
        else:
            functions.move_to_end(ref)
        return function


class Future(concurrent.futures.Future[Any]):
    """A future whose waiters wait the way Skate does.

    They read the results themselves, without a thread in between, and inside a task they give its
    CPU back meanwhile.
    """

    def __init__(self, workers: Workers) -> None:
        super().__init__()
        self._workers = workers

    def result(self, timeout: float | None = None) -> Any:
        """Return what the call returned, or raise; see ``concurrent.futures.Future``."""
        deadline = Deadline(timeout)
        self._workers.wait_for(self.done, deadline)
        return super().result(deadline.left())

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, or None; see ``concurrent.futures.Future``."""
        deadline = Deadline(timeout)
        self._workers.wait_for(self.done, deadline)
        return super().exception(deadline.left())


class Work:
    """One call, and the future of its result."""

    __slots__ = ("args", "function", "future", "kwargs")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        future: Future,
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.future = future


class Workers:
    """At most ``size`` actors that run calls, each one call at a time.

    Thread-safe.  Futures are completed, and the next calls sent, by whichever thread reads the
    results: one that waits for a future or in ``skate.get``, or else one of Skate's own.
    """

    def __init__(
        self,
        size: int,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_worker: int | None = None,
        options: Mapping[str, Any] | None = None,
        lost_error: Callable[[ActorError], BaseException] = lambda error: error,
        broken_class: type[WorkersBrokenError] = WorkersBrokenError,
        finish_at_exit: bool = False,
    ) -> None:
        """Nothing is started yet.

        Args:
            size: How many workers there are at most.
            initializer: Each worker calls it first.
            initargs: Its arguments.
            max_tasks_per_worker: After so many calls a worker is replaced.
            options: Of the actors.  By default they hold no CPUs, so that calls may themselves wait
                for tasks, pools and executors without a deadlock.
            lost_error: What a call fails with when its worker has died.
            broken_class: What calls fail with when the initializer has raised.
            finish_at_exit: Let the interpreter wait for unfinished calls before it exits.
        """
        if not skate.is_initialized():
            skate.init()
        # They reserve nothing, so nothing else would take them to other nodes of a cluster.
        chosen = {"scheduling_strategy": "SPREAD", **(options or {})}
        self._class = skate.remote(PoolWorker).options(**chosen)
        self._arguments = (initializer, initargs)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._assignment: Assignment[Work] = Assignment(size, max_tasks_per_worker)
        self._actors: dict[int, Any] = {}
        #: The result of what each busy worker does.
        self._results: dict[int, skate.ObjectRef[Any]] = {}
        #: What the initializer raised.
        self._broken: BaseException | None = None
        self._broken_class = broken_class
        self._lost_error = lost_error
        self._terminated = False
        self.finish_at_exit = finish_at_exit
        #: Calls that run, or whose callbacks do.
        self._unfinished = 0
        self._codes: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        _live.add(self)
        _register_exit()

    # ------------------------------------------------------------------ work

    def submit(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> concurrent.futures.Future[Any]:
        """Call ``function`` as soon as a worker is free.

        Raises:
            WorkersBrokenError: The initializer has raised.
        """
        work = Work(function, args, kwargs, Future(self))
        with self._lock:
            if self._broken is not None:
                raise self._broken_error()
            self._unfinished += 1
            actions = self._assignment.add(work)
        self._carry_out(actions)
        return work.future

    def start_all(self) -> None:
        """Start all workers now, not each when there is work for it."""
        with self._lock:
            actions = self._assignment.start_all()
        self._carry_out(actions)

    def _carry_out(self, actions: list[Action[Work]]) -> None:
        left = deque(actions)
        while left:
            action = left.popleft()
            if isinstance(action, Start):
                actor = self._class.remote(*self._arguments)
                with self._lock:
                    if not self._terminated:
                        self._actors[action.worker] = actor
            elif isinstance(action, Run):
                left.extend(self._run(action.worker, action.work))
            else:
                # The actor ends with its last handle.
                self._actors.pop(action.worker, None)

    def _run(self, worker: int, work: Work) -> list[Action[Work]]:
        """Send a call; return what is next if there is none to wait for."""
        if not work.future.set_running_or_notify_cancel():
            return self._completed(worker, lost=False)
        actor = self._actors.get(worker)
        try:
            if actor is None:
                raise _terminated()
            ref = actor.run.remote(self._code(work.function), *work.args, **work.kwargs)
            self._results[worker] = ref
            result = ref.future()
        except Exception as error:  # what cannot be pickled, or the session has ended
            work.future.set_exception(error)
            return self._completed(worker, lost=False)
        result.add_done_callback(lambda done: self._on_result(worker, work, done))
        return []

    def _code(self, function: Any) -> Any:
        """Return what stands for a function in a call: functions that would be pickled by value
        are stored once."""
        if type(function) is not types.FunctionType or (
            function.__module__ != "__main__" and "<locals>" not in function.__qualname__
        ):
            return function
        ref = self._codes.get(function)
        if ref is None:
            ref = self._codes[function] = skate.put(function)
        return [ref]

    def _on_result(self, worker: int, work: Work, done: concurrent.futures.Future[Any]) -> None:
        error = done.exception()
        lost = isinstance(error, ActorError)
        if isinstance(error, ActorError):
            if isinstance(error.__cause__, TaskError):
                self._break(error.__cause__)
                error = self._broken_error()
            else:
                error = _terminated() if self._terminated else self._lost_error(error)
        if error is not None:
            work.future.set_exception(original(error))
        elif isinstance(done.result(), _Exited):
            work.future.set_exception(SystemExit(done.result().code))
        else:
            work.future.set_result(done.result())
        self._carry_out(self._completed(worker, lost))

    def _completed(self, worker: int, lost: bool) -> list[Action[Work]]:
        with self._lock:
            self._unfinished -= 1
            self._results.pop(worker, None)
            self._changed.notify_all()
            if lost:
                self._actors.pop(worker, None)
                return self._assignment.lost(worker)
            return self._assignment.finished(worker)

    def _break(self, cause: BaseException) -> None:
        """The initializer has raised: every worker would fail like this one."""
        with self._lock:
            if self._broken is None:
                self._broken = original(cause)
        self.cancel_waiting(self._broken_error)

    def _broken_error(self) -> BaseException:
        cause = self._broken
        assert cause is not None
        error = self._broken_class(
            f"the initializer of the workers raised {type(cause).__name__}: {cause}"
        )
        error.__cause__ = cause
        return error

    # ------------------------------------------------------------------ the end

    def cancel_waiting(self, make_error: Callable[[], BaseException] | None = None) -> None:
        """Cancel, or fail with an error, what no worker has begun."""
        with self._lock:
            dropped = self._assignment.drop_waiting()
            self._unfinished -= len(dropped)
            if not self._unfinished:
                self._changed.notify_all()
        for work in dropped:
            if make_error is None:
                work.future.cancel()
                work.future.set_running_or_notify_cancel()
            elif work.future.set_running_or_notify_cancel():
                work.future.set_exception(make_error())

    def close(self) -> None:
        """Let workers go as they run out of work; nothing may be submitted any more."""
        with self._lock:
            actions = self._assignment.close()
        self._carry_out(actions)

    def wait(self) -> None:
        """Wait until all work is done."""
        self.wait_for(lambda: not self._unfinished, Deadline(None))

    def wait_for(self, done: Callable[[], bool], deadline: Deadline) -> None:
        """Wait for ``done()``, which is so once some call has ended, or until the deadline."""
        while not done() and (left := deadline.left()) != 0:
            # Not longer: nothing else tells of a future that another thread cancels.
            seconds = LOOK_SECONDS if left is None else min(left, LOOK_SECONDS)
            refs = list(self._results.values())
            if refs and not (ready := skate.wait(refs, timeout=seconds)[0]):
                continue
            # Another thread may be about to complete the future, or to send the next call.
            with self._lock:
                if not done() and (not refs or ready[0] in self._results.values()):
                    self._changed.wait(seconds)

    def notify(self) -> None:
        """What somebody may wait for in ``wait_for`` has changed."""
        with self._lock:
            self._changed.notify_all()

    def kill(self) -> None:
        """End all workers at once; what they do, or would have done, fails."""
        with self._lock:
            self._terminated = True
            actors = list(self._actors.values())
        self.cancel_waiting(_terminated)
        for actor in actors:
            with contextlib.suppress(SkateError):
                skate.kill(actor)


def original(error: BaseException) -> BaseException:
    """Return the exception as it was raised in the worker, with the remote traceback as cause.

    Where the types of the standard library are stood in for, so has its behaviour to be: there the
    exception has exactly the class that was raised.
    """
    if isinstance(error, TaskError) and error.cause is not None:
        cause = error.cause
        cause.__cause__ = RemoteError(error.traceback_str)
        return cause
    return error


def _terminated() -> TaskCancelledError:
    return TaskCancelledError("the pool was terminated before the call had ended")


#: Those that may have work left when the interpreter exits.
_live: weakref.WeakSet[Workers] = weakref.WeakSet()
_exit_registered = False


def _register_exit() -> None:
    # Exit handlers run last in, first out: this one, registered when there is a session, before the
    # one that ends it.
    global _exit_registered
    if not _exit_registered:
        _exit_registered = True
        atexit.register(_finish_all)


def _finish_all() -> None:
    """Wait for work that was submitted to executors, as the standard library does at exit."""
    for workers in list(_live):
        if workers.finish_at_exit:
            workers.wait()
