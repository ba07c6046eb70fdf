"""The runtime environments of a node: what is prepared, who waits for it, what failed.

Requests for workers in an environment that is not ready are kept here and not in the scheduler's
queue, so that nothing is reserved for them and nobody waits behind them.  Building is the work of a
process of its own, see ``builder``.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
from collections.abc import Callable

import msgspec

from skate.runtime.node import cache
from skate.runtime.node.loop import Loop, Timer
from skate.runtime.node.packages import PackageStore
from skate.runtime.node.requests import Key, Request
from skate.runtime.node.workers import Worker, Workers
from skate.runtime.wire.environments import Environment, decode
from skate.runtime.worker.config import PreparedEnvironment

logger = logging.getLogger(__name__)

#: How often an environment is prepared anew because it was removed before it could be held.
MAX_ATTEMPTS = 3


class BuildResult(msgspec.Struct):
    """What a builder leaves in a file when it ends."""

    #: Why it failed, for the user; "" if it did not.
    error: str
    prepared: PreparedEnvironment | None = None


class Admission(enum.Enum):
    """What happens to a request that names an environment."""

    READY = enum.auto()
    #: It waits, and the environment has to be prepared.
    START = enum.auto()
    WAIT = enum.auto()


class EnvironmentTable:
    """Which environments are ready, and which requests wait for the others.  No I/O."""

    def __init__(self) -> None:
        self.ready: dict[bytes, PreparedEnvironment] = {}
        #: Who waits for each environment that is being prepared.
        self._waiting: dict[bytes, list[Request]] = {}

    def admit(self, request: Request) -> Admission:
        """Somebody wants a worker in an environment."""
        admission = self.expect(request.environment)
        if admission is not Admission.READY:
            self.cancel(request.key)
            self._waiting[request.environment].append(request)
        return admission

    def expect(self, environment: bytes) -> Admission:
        """Somebody will want an environment; ``START``: it is being prepared from now on."""
        if environment in self.ready:
            return Admission.READY
        if environment in self._waiting:
            return Admission.WAIT
        self._waiting[environment] = []
        return Admission.START

    def prepared(self, prepared: PreparedEnvironment) -> list[Request]:
        """An environment is ready; return who has waited for it."""
        self.ready[prepared.environment] = prepared
        return self._waiting.pop(prepared.environment, [])

    def known(self) -> dict[bytes, bool]:
        """Return all environments, and whether each is ready or still being prepared."""
        return {**dict.fromkeys(self._waiting, False), **dict.fromkeys(self.ready, True)}

    def failed(self, environment: bytes) -> list[Request]:
        """It could not be prepared; return who has waited.  The next one who asks starts anew."""
        return self._waiting.pop(environment, [])

    def cancel(self, key: Key) -> None:
        """A request is not made any more."""
        for requests in self._waiting.values():
            for request in requests:
                if request.key == key:
                    requests.remove(request)
                    return

    def cancel_all_of(self, holder: bytes) -> None:
        """A process is gone; its actors are the directory's business."""
        for requests in self._waiting.values():
            requests[:] = [r for r in requests if r.holder != holder or r.actor_id]


class Environments:
    """Has environments prepared and holds those that are in use."""

    def __init__(
        self, loop: Loop, workers: Workers, packages: PackageStore, session_dir: str
    ) -> None:
        self.table = EnvironmentTable()
        self._loop = loop
        self._workers = workers
        self._packages = packages
        self._session_dir = session_dir
        #: What each builder builds, and the timer that limits it.
        self._builds: dict[bytes, tuple[bytes, Timer | None]] = {}
        self._attempts: dict[bytes, int] = {}
        #: Descriptors of locks, for as long as the environment may not be removed.
        self._held: dict[bytes, int] = {}
        #: These requests can be scheduled now.
        self.on_ready: Callable[[list[Request]], None]
        #: These can never be served, for this reason.
        self.on_failed: Callable[[list[Request], str], None]

    def admit(self, request: Request) -> bool:
        """Return whether a request can be scheduled; if not, it is kept until it can.

        Raises:
            msgspec.MsgspecError: it names no environment.
        """
        if not request.environment or request.environment in self.table.ready:
            return True
        environment = decode(request.environment)
        admission = self.table.admit(request)
        if admission is Admission.START:
            self._start(request.environment, environment)
        return admission is Admission.READY

    def expect(self, name: bytes) -> None:
        """Prepare an environment before anybody needs it.

        Raises:
            msgspec.MsgspecError: there is no such environment.
        """
        environment = decode(name)
        if self.table.expect(name) is Admission.START:
            self._start(name, environment)

    # ------------------------------------------------------------------ building

    def _start(self, name: bytes, environment: Environment) -> None:
        packages = [*environment.py_modules]
        if environment.working_dir:
            packages.insert(0, environment.working_dir)
        if not packages and environment.installation is None:
            # Not at once: whoever asked is in the table, but does not know it yet.
            prepared = PreparedEnvironment(name, environment.env_vars)
            self._loop.call_later(0.0, lambda: self._finish(prepared))
            return
        self._packages.need(packages, lambda error: self._build(name, environment, error))

    def _build(self, name: bytes, environment: Environment, error: str) -> None:
        """The packages are here, or why they are not."""
        if error:
            self._fail(name, error)
            return
        try:
            builder_id = self._workers.build(name)
        except OSError as failure:
            self._fail(name, f"no process could be started for it: {failure}")
            return
        seconds = environment.setup_timeout_seconds
        timer = None
        if seconds > 0:
            timer = self._loop.call_later(seconds, lambda: self._give_up(builder_id, seconds))
        self._builds[builder_id] = (name, timer)

    def _give_up(self, builder_id: bytes, seconds: float) -> None:
        worker = self._workers.by_id.get(builder_id)
        if worker is not None:
            cause = f"it took longer than {seconds:g} s (setup_timeout_seconds in its config)"
            self._workers.kill(worker, cause)

    def build_ended(self, worker: Worker, cause: str) -> None:
        """A builder has ended."""
        name, timer = self._builds.pop(worker.worker_id)
        if timer is not None:
            timer.cancel()
        result = _take_result(result_path(self._session_dir, worker.worker_id))
        if result is None or worker.cause:
            self._fail(name, _described(cause, worker.log_path))
        elif result.prepared is None:
            where = f"\nIts whole output: {worker.log_path}" if worker.log_path else ""
            self._fail(name, result.error + where)
        else:
            self._finish(result.prepared)

    def _finish(self, prepared: PreparedEnvironment) -> None:
        name = prepared.environment
        if prepared.virtual_environment and name not in self._held:
            held = cache.hold(prepared.virtual_environment)
            attempts = self._attempts[name] = self._attempts.get(name, 0) + 1
            if held is None and attempts < MAX_ATTEMPTS:
                # Somebody has removed it between the builder's end and now.
                self._start(name, decode(name))
                return
            if held is None:
                self._fail(name, f"{prepared.virtual_environment} is removed again and again")
                return
            self._held[name] = held
        self._attempts.pop(name, None)
        self.on_ready(self.table.prepared(prepared))

    def _fail(self, name: bytes, reason: str) -> None:
        self._attempts.pop(name, None)
        logger.warning("a runtime environment could not be prepared: %s", reason)
        self.on_failed(
            self.table.failed(name), f"the runtime environment could not be prepared: {reason}"
        )

    # ------------------------------------------------------------------ the end of use

    def release(self, name: bytes) -> None:
        """No worker is in the environment and nobody wants one: it may be removed."""
        self.table.ready.pop(name, None)
        held = self._held.pop(name, None)
        if held is not None:
            os.close(held)


def result_path(session_dir: str, builder_id: bytes) -> str:
    """Return where a builder leaves its result."""
    return os.path.join(session_dir, f"{builder_id.hex()}.built")


def _take_result(path: str) -> BuildResult | None:
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        with open(path, "rb") as file:
            result = msgspec.msgpack.decode(file.read(), type=BuildResult)
        os.unlink(path)
        return result
    return None


def _described(cause: str, log_path: str) -> str:
    from skate.runtime.node.session_dir import tail

    text = tail(log_path) if log_path else ""
    return cause + (f"; the end of its output, {log_path}:\n{text}" if text else "")
