"""The engine that runs tasks and actors on processes of this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from collections.abc import Sequence
from types import FrameType
from typing import Any

from skate.engine.base import Context
from skate.refs import ObjectRef
from skate.runtime.node.launch import NodeProcess
from skate.runtime.wire.logs import LogRange
from skate.runtime.wire.messages import StateRequest
from skate.runtime.wire.state import Filter, Inspect, Inspection
from skate.runtime.worker.cells import WeakActorCell
from skate.runtime.worker.completions import Completions
from skate.runtime.worker.core import Core
from skate.runtime.worker.driver_output import DriverOutput
from skate.runtime.worker.environments import describe
from skate.runtime.worker.handlers import raise_keyboard_interrupt

logger = logging.getLogger("skate")

#: Seconds that ``shutdown`` waits for the daemon before it kills it.
SHUTDOWN_TIMEOUT = 5.0


class NativeEngine:
    """An ``Engine`` on a ``Core``; the same class serves drivers and workers."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.session_dir = core.session_dir
        self.submit_task = core.submitter.submit
        self.create_actor = core.actors.create
        self.submit_call = core.actors.call
        self.find_actor = core.actors.find
        self.kill_actor = core.actors.kill
        self.put = core.objects.put
        self.get = core.objects.get
        self.get_one = core.objects.get_one
        self.wait = core.objects.wait
        self.portable = core.environments.portable
        self.placement_groups = core.placement
        _engines.add(self)

    def own_actor(self) -> tuple[Any, bytes] | None:
        """Return cell and handle of the actor that this process is, or None."""
        executor = self.core.executor
        if executor is None or not executor.invoker.actor_id:
            return None
        return WeakActorCell(executor.invoker.actor_id, ""), executor.invoker.actor_handle

    def completions(self, refs: Sequence[ObjectRef[Any]]) -> Completions:
        """Return refs in the order in which their values come."""
        return Completions(self.core, refs)

    def cancel(self, ref: Any, force: bool, recursive: bool) -> None:
        """Stop the task that makes ``ref`` if it has not finished."""
        self.core.submitter.cancel(ref._cell, force, recursive)

    def state(self, what: str) -> list[dict[str, Any]]:
        """Return rows about the cluster from the daemon."""
        answer = self.core.ask(lambda number: StateRequest(number, what))
        rows: list[dict[str, Any]] = answer.rows
        return rows

    def inspect(
        self,
        what: str,
        limit: int,
        filters: Sequence[Filter],
        timeout: float,
        processes: Sequence[bytes],
        log: LogRange | None = None,
    ) -> Inspection:
        """Ask the processes of the session through the daemon."""
        answer: Inspection = self.core.ask(
            lambda number: Inspect(
                number, what, limit, list(filters), timeout, list(processes), log
            )
        )
        return answer

    def context(self) -> Context:
        """Return where the caller runs."""
        core = self.core
        executor = core.executor
        running = core.executing
        if executor is None:
            return Context(
                core.node_id,
                core.process_id,
                core.job_id,
                core.namespace,
                runtime_env=describe(core.environments.inherited),
            )
        task = running.task if running is not None else None
        return Context(
            core.node_id,
            core.process_id,
            core.job_id,
            core.namespace,
            task_id=task.task_id if task is not None else b"",
            task_name=running.name if running is not None else "",
            actor_id=executor.invoker.actor_id,
            actor_name=executor.invoker.actor_name,
            restarts=executor.invoker.restarts,
            attempt=task.attempt if task is not None else 0,
            assigned_resources=executor.resources,
            gpu_ids=executor.gpu_ids,
            is_driver=False,
            runtime_env=describe(core.environments.inherited),
            strategy=executor.strategy,
        )

    def shutdown(self) -> None:
        """End the session; only drivers do."""


class DriverEngine(NativeEngine):
    """The engine of a driver: it has started the session and ends it."""

    def __init__(self, core: Core, node: NodeProcess, output: DriverOutput) -> None:
        super().__init__(core)
        self.node = node
        self._output = output
        self._pid = os.getpid()
        self._restore_signal = _defer_interrupts(core)

    def shutdown(self) -> None:
        """End every process of the session and let go of everything."""
        if os.getpid() != self._pid:
            return
        try:
            self.core.shutdown(SHUTDOWN_TIMEOUT)
        finally:
            if self.node.wait(SHUTDOWN_TIMEOUT):
                self.node.clear_up()
            else:
                self.node.kill()
            self.core.close()
            self._output.close()
            self._restore_signal()


class GuestEngine(NativeEngine):
    """The engine of a driver that has joined a cluster: it leaves, and the cluster goes on."""

    def __init__(self, core: Core, output: DriverOutput) -> None:
        super().__init__(core)
        self._output = output
        self._pid = os.getpid()
        self._restore_signal = _defer_interrupts(core)

    def shutdown(self) -> None:
        """End what this driver has started, and let go of everything."""
        if os.getpid() != self._pid:
            return
        try:
            self.core.shutdown(SHUTDOWN_TIMEOUT)
        finally:
            self.core.close()
            self._output.close()
            self._restore_signal()


def show_output(core: Core) -> DriverOutput:
    """Print what workers print, and log what the daemon warns of."""
    pump = core.pump
    # Timers run under the core's lock, printing must not.
    output = DriverOutput(
        lambda seconds, report: pump.call_later(seconds, lambda: pump.callbacks.append(report))
    )
    core.on_log = output.on_lines
    core.on_warning = logger.warning
    return output


def _defer_interrupts(core: Core) -> Any:
    """Keep Ctrl-C from tearing the runtime's state; see ``Pump.interrupt``.

    Only the default handler is replaced, and only from the main thread.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        return lambda: None

    def handler(signum: int, frame: FrameType | None) -> None:
        core.pump.interrupt(signum, frame, raise_keyboard_interrupt)

    signal.signal(signal.SIGINT, handler)

    def restore() -> None:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is handler
        ):
            signal.signal(signal.SIGINT, signal.default_int_handler)

    return restore


_engines: weakref.WeakSet[NativeEngine] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # A child of a driver or worker (multiprocessing) has copies of its sockets.  It must not speak
    # on them, and as long as it keeps them open the daemon would not notice the driver's death.
    for engine in list(_engines):
        engine.core.abandon()
    _engines.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
