"""The runtime inside one process: links, pump, objects, tasks, actors and execution."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skate.engine.base import Strategy
from skate.exceptions import NodeDiedError, SessionError
from skate.ids import IdSource, nth
from skate.refs import hooks
from skate.runtime.store.client import StoreClient
from skate.runtime.wire import messages as wire
from skate.runtime.wire.addresses import Access
from skate.runtime.worker.actors import Actors
from skate.runtime.worker.bringing import future_of
from skate.runtime.worker.cells import FAILED, Cell, Finalized
from skate.runtime.worker.deaths import Deaths
from skate.runtime.worker.environments import Environments
from skate.runtime.worker.events import Events
from skate.runtime.worker.execute import Executor
from skate.runtime.worker.handlers import SIGALRM, UserHandlers, getsignal
from skate.runtime.worker.invoke import Running
from skate.runtime.worker.leasing import Leasing
from skate.runtime.worker.lineage import Lineages
from skate.runtime.worker.links import Links, Peer
from skate.runtime.worker.looking import Looking
from skate.runtime.worker.objects import Objects
from skate.runtime.worker.own_metrics import OwnMetrics
from skate.runtime.worker.ownership import Ownership
from skate.runtime.worker.placement import Placement
from skate.runtime.worker.pump import Answer, Pump, Waiter
from skate.runtime.worker.record import Record
from skate.runtime.worker.routing import node_handlers, peer_handlers
from skate.runtime.worker.streams import IDS_PER_STREAM, Streams
from skate.runtime.worker.tasks import Submitter
from skate.runtime.worker.timeouts import Timeouts
from skate.serialization import serialize

if TYPE_CHECKING:
    from skate.runtime.worker.awaiting import Awaiting


def _allow_many_descriptors() -> None:
    """Raise the soft limit: a process has a connection to each process that it deals with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Core:
    """Everything that a driver or worker process needs to take part in a session."""

    def __init__(
        self,
        process_id: bytes,
        node_id: bytes,
        session_dir: str,
        node_address: str,
        store_address: str,
        is_driver: bool,
        environment: bytes = b"",
        access: Access | None = None,
    ) -> None:
        """``environment`` names the runtime environment that this process runs in.

        ``access``: how to reach other nodes, if there are any.
        """
        _allow_many_descriptors()
        self.process_id = process_id
        self.is_driver = is_driver
        self.node_id = node_id
        self.session_dir = session_dir
        self.namespace = ""
        self.job_id = ""
        self.log_dir = ""
        self.total_resources: dict[str, float] = {}
        #: One lock around all state of this process; see ``docs/architecture.md``.
        self.lock: Any = threading.RLock()
        self.ids = IdSource(process_id)
        self.finalized = Finalized()
        #: Processes known to be dead, and why.
        self.dead: dict[bytes, str] = {}
        self.closed = False
        self._ending = False
        #: What calls raise once it is closed.
        self.ended: Exception = SessionError("the session has ended")
        self.pump = Pump(self.lock, self._flush)
        self.pump.housekeeping = self._housekeep
        self.finalized.nudge = self.pump.nudge
        deaths = self.deaths = Deaths(self)
        self.links = Links(
            self.pump,
            process_id,
            os.path.join(session_dir, f"{process_id.hex()}.sock"),
            self._on_peer_message,
            deaths.on_peer_closed,
            deaths.on_unreachable,
            node_id,
            access,
        )
        #: Where other processes reach this one.
        self.address = self.links.address
        #: There may be other nodes.
        self.in_cluster = access is not None
        self.events = Events(self)
        self.looking = Looking(self)
        self.own_metrics = OwnMetrics(self)
        self.ownership = Ownership(self)
        store = StoreClient(store_address, node_id, process_id)
        store.safe_point = self.pump.safe_point
        self.handlers = UserHandlers(self.pump)
        self.pump.is_busy_elsewhere = store.is_busy
        store.node_ended = lambda: self.node_ended()
        self.objects = Objects(self, store)
        self.lineages = Lineages(self)
        self.environments = Environments(self, environment)
        self.leasing = Leasing(self)
        self.submitter = Submitter(self)
        self.actors = Actors(self)
        self._awaiting: Awaiting | None = None
        self.streams = Streams(self)
        self.placement = Placement(self)
        #: Where what the running call submits goes unless that says otherwise.
        self.captured: Strategy | None = None
        self.timeouts = Timeouts(self)
        #: None in drivers.
        self.executor: Executor | None = None if is_driver else Executor(self)
        self._requests: dict[int, Answer] = {}
        self._request_number = 0
        #: Output of workers, in drivers.
        self.on_log: Callable[[wire.LogLines], None] = lambda message: None
        self.on_warning: Callable[[str], None] = lambda text: None
        #: How the daemon has ended and where its log is, in drivers: e.g. "has ended".
        self.node_ended: Callable[[], str] = lambda: "has ended"
        self._registered = Waiter(1)
        #: The daemon has ended the session.
        self.shutdown_done = Waiter(1)
        self._peer_handlers = peer_handlers(self)
        self._node_handlers = node_handlers(self)
        self.links.open_node(node_address, self._on_node_message, self._on_node_closed)

    # ------------------------------------------------------------------ life

    def register(self, kind: str, job: wire.Job | None = None) -> None:
        """Introduce this process to its daemon and wait for the answer.

        A driver that shares the daemon with others says what its ``job`` is.

        Raises:
            SessionError: the daemon is gone.
        """
        with self.lock:
            self.links.send_node(wire.Register(kind, self.address, job))
        self.pump.block(self._registered)
        if self.closed:
            raise SessionError("the node daemon ended before it answered")
        hooks.resolve = self.ownership.resolve
        hooks.pin = self.ownership.pin
        hooks.future = lambda cell: future_of(self, cell)
        hooks.awaited = lambda cell: self.awaiting.future(cell)
        self.pump.start()
        self.own_metrics.start()

    def shutdown(self, timeout: float) -> None:
        """Driver: ask the daemon to end the session and wait until it has."""
        if self.closed:
            return
        with self.lock:
            self._ending = True
            self.links.send_node(wire.Shutdown())
        self.pump.block(self.shutdown_done, time.monotonic() + timeout)

    def close(self, reason: str = "skate.shutdown() was called") -> None:
        """Fail what is pending and let go of sockets and memory."""
        with self.lock:
            self.closed = True
            self._fail_everything(SessionError(f"the session has ended: {reason}"))
        self.handlers.give_back()
        self.pump.stop()
        with self.lock:
            self.links.close()
        self.pump.close()
        self.objects.store.close()
        hooks.clear()

    def abandon(self) -> None:
        """After a fork, in the child: this session is the parent's."""
        self.closed = True
        self.ended = SessionError(
            "this process was forked from one that has a session, which stays with its parent"
        )
        # Nobody will complete what is pending.  Without the lock: a thread that is gone may hold
        # it.
        error = self.error(self.ended)
        pending = [cell for record in self.submitter.pending.values() for cell in record.cells]
        for cell in [*pending, *self.ownership.all_known()]:
            if not cell.status:
                cell.data = error
                cell.status = FAILED
        self.objects.store.abandon()
        self.pump.abandon()
        self.links.abandon()
        hooks.clear()

    def _fail_everything(self, error: Exception) -> None:
        self.ended = error
        data = self.error(error)
        self.submitter.fail_all(data)
        self.placement.fail_all(data)
        self.actors.fail_all(str(error))
        self.ownership.fail_all(data)
        for answer in self._requests.values():
            answer.on_ready()
        self._requests.clear()
        self._registered.on_ready()
        self.shutdown_done.on_ready()
        self.pump.completions += 1
        for waiter in self.pump.any_waiters:
            waiter.wake()

    # ------------------------------------------------------------------ helpers

    @property
    def is_needed(self) -> bool:
        """Whether objects, tasks or actors of this process would be lost with it."""
        return bool(
            len(self.ownership.borrows)
            or self.submitter.pending
            or self.actors.owned
            or self.placement.owned
        )

    @property
    def awaiting(self) -> Awaiting:
        """Who awaits refs in event loops."""
        if self._awaiting is None:
            from skate.runtime.worker.awaiting import Awaiting  # it imports asyncio: 35 ms

            self._awaiting = Awaiting(self)
        return self._awaiting

    @property
    def executing(self) -> Running | None:
        """The call that runs in this process, None in the driver and between tasks."""
        executor = self.executor
        return None if executor is None else executor.running

    def error(self, error: BaseException) -> bytes:
        """Serialize one of our own exceptions."""
        return serialize(error).to_bytes()

    def new_cells(self, count: int) -> tuple[bytes, list[Cell]]:
        """Locked.  Return a task id and the cells of its results; of a stream, that of its end."""
        if count == 1:
            task_id = self.ids.draw()
            return task_id, [Cell(task_id, self.address)]
        if count < 0:
            task_id = self.ids.draw(IDS_PER_STREAM)
            return task_id, [Cell(task_id, self.address)]
        task_id = self.ids.draw(count or 1)
        return task_id, [Cell(nth(task_id, index), self.address) for index in range(count)]

    def block(
        self,
        waiter: Waiter,
        deadline: float | None = None,
        step: Callable[[], bool] | None = None,
    ) -> bool:
        """Wait for ``waiter`` or the deadline; in a task, without keeping a CPU meanwhile."""
        self.check_open()
        self.handlers.adopt()
        if self.executor is None:
            started = time.perf_counter()
            try:
                return self.pump.block(waiter, deadline, step)
            finally:
                self.events.waited(started, b"", "", 0)
        return self.executor.blocking.block(waiter, deadline, step)

    def check_open(self) -> None:
        """Before a request: raise what ended the session, if it has; see to a new time limit."""
        if self.closed:
            raise self.ended
        if getsignal(SIGALRM) is not self.handlers.alarm:
            self.handlers.adopt()

    def poll(self) -> None:
        """Handle what has arrived, without waiting."""
        self.pump.poll()

    def drain(self) -> None:
        """Free what finalizers have found unreachable, now rather than at the next turn."""
        if self.finalized.items:
            with self.lock:
                self.ownership.drain()

    def ask(self, make: Callable[[int], object]) -> Any:
        """Send a request to the daemon and return its answer.

        Raises:
            SessionError: the daemon is gone.
        """
        answer = Answer()
        self._request(make, answer)
        self.pump.block(answer)
        if answer.message is None:
            raise self.ended
        return answer.message

    def ask_patiently(self, make: Callable[[int], object], deadline: float | None) -> Any:
        """Like ``ask``, but a task that waits does not keep its CPU; None after the deadline.

        Raises:
            SessionError: the daemon is gone.
        """
        answer = Answer()
        number = self._request(make, answer)
        try:
            if not self.block(answer, deadline):
                return None
        finally:
            self._requests.pop(number, None)
        if answer.message is None:
            raise self.ended
        return answer.message

    def ask_soon(self, make: Callable[[int], object], answer: Answer) -> None:
        """Like ``ask``, but ``answer`` is told: with the lock held, by any thread.

        Its message stays None if the daemon is gone.

        Raises:
            SessionError: the session has ended.
        """
        self._request(make, answer)
        with self.lock:
            self.links.flush()
            self.pump.expect()

    def _request(self, make: Callable[[int], object], answer: Answer) -> int:
        with self.lock:
            self.check_open()
            self._request_number += 1
            number = self._request_number
            self._requests[number] = answer
            self.links.send_node(make(number))
        return number

    def resolve_arguments(self, record: Record, ready: Callable[[Record], None]) -> None:
        """Locked.  Call ``ready(record)`` once all top-level refs have values or one failed."""
        record.on_resolved = ready
        record.waiting = 1
        for cell in record.slot_cells:
            if cell.status:
                if cell.status == FAILED and record.failed_argument is None:
                    record.failed_argument = cell.data
                continue
            record.waiting += 1
            cell.listen(record)
            self.objects.request_if_borrowed(cell)
        record.waiting -= 1
        if record.on_resolved is not None and (
            record.waiting == 0 or record.failed_argument is not None
        ):
            record.on_resolved = None
            ready(record)

    def prepare(self, record: Record, receiver: bytes | None) -> None:
        """Locked.  Fill the resolved arguments into the message for one receiver.

        ``receiver`` None: it is not known yet and will register its borrows by itself.
        """
        if record.stream is not None:
            assert record.task.terms is not None
            record.stream.resume(record.task.terms)
        if not record.slot_cells and not record.nested:
            return
        objects = self.objects
        task = record.task
        slots = []
        for cell in record.slot_cells:
            value = objects.value_for(cell, receiver)
            if value.data is None:
                self.ownership.grant(cell, receiver)
            slots.append(wire.ArgSlot(cell.object_id, cell.owner_address, value))
        task.slots = slots
        task.refs = [self.ownership.grant(cell, receiver) for cell in record.nested]

    # ------------------------------------------------------------------ turns of the pump

    def _flush(self) -> None:
        if self.links.dirty or self.finalized.items:
            with self.lock:
                if self.finalized.items:
                    self.ownership.drain()
                self.links.flush()

    def _housekeep(self) -> None:
        """Locked.  After each batch of messages."""
        if self.objects.store.used:
            self.objects.report_use()
        self.leasing.run_touched()
        if self.finalized.items:
            self.ownership.drain()

    def _on_peer_message(self, peer: Peer, message: Any) -> None:
        self._peer_handlers[type(message)](peer, message)

    def _on_node_message(self, _peer: Peer, message: Any) -> None:
        handler = self._node_handlers.get(type(message))
        if handler is not None:
            handler(message)

    # ------------------------------------------------------------------ messages (locked)

    def on_registered(self, message: wire.Registered) -> None:
        """Locked.  The daemon has answered ``Register``."""
        self.total_resources = message.resources
        self.namespace = message.namespace
        self.job_id = message.job_id
        self.log_dir = message.log_dir
        if message.object_store_memory:
            self.objects.store.set_limit(message.object_store_memory)
        self._registered.on_ready()

    def on_cluster_resources(self, message: wire.ClusterResources) -> None:
        """Locked.  Nodes have come or gone."""
        self.total_resources = message.resources
        self.leasing.limits_changed()

    def on_answer(self, message: Any) -> None:
        """Locked.  The daemon answers a question with a number."""
        answer = self._requests.pop(message.request_id, None)
        if answer is not None:
            answer.message = message
            answer.on_ready()

    def _on_node_closed(self, _peer: Peer | None) -> None:
        if self.closed:
            return
        if not self.is_driver:
            # Without a daemon there is no session, and nobody who would end this process.
            with contextlib.suppress(OSError):
                os.killpg(0, signal.SIGKILL)
            os._exit(1)
        self.closed = True
        self._fail_everything(
            SessionError("the session has ended: skate.shutdown() was called")
            if self._ending
            else NodeDiedError(
                "the session is over, and all that ran in it: the node daemon that this program is"
                f" connected to {self.node_ended()}"
            )
        )
