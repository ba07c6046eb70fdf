"""One actor as one caller sees it: its state, the calls that wait for it, those under way."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from skate.exceptions import (
    ActorDiedError,
    ActorError,
    ActorPlacementGroupRemovedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    PendingCallsLimitExceeded,
    RuntimeEnvSetupError,
    TaskError,
)
from skate.runtime.wire.messages import (
    ENVIRONMENT_KIND,
    NO_NODE_KIND,
    REMOVED_KIND,
    ActorState,
)
from skate.runtime.worker.links import FLUSH_AT
from skate.runtime.worker.record import Record
from skate.runtime.worker.tasks import cancelled_error
from skate.serialization import deserialize

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core
    from skate.runtime.worker.links import Peer


class ActorClient:
    """One actor as seen by one caller: a queue of calls and what is in flight, in order."""

    __slots__ = (
        "actor_id",
        "cause",
        "core",
        "error",
        "group_id",
        "in_flight",
        "keeps",
        "kind",
        "max_task_retries",
        "name",
        "peer",
        "queue",
        "restarts",
        "state",
        "unready",
        "worker_id",
    )

    def __init__(self, core: Core, actor_id: bytes) -> None:
        self.core = core
        self.actor_id = actor_id
        self.name = ""
        self.state = "pending"
        self.peer: Peer | None = None
        self.worker_id = b""
        self.restarts = -1
        self.queue: deque[Record] = deque()
        #: Calls whose arguments are not ready and that let others pass.
        self.unready: dict[bytes, Record] = {}
        self.in_flight: dict[bytes, Record] = {}
        self.cause = ""
        #: The placement group of an actor made here.
        self.group_id = b""
        #: As in ``WorkerDied``.
        self.kind = ""
        #: The serialized exception of a constructor that raised.
        self.error: bytes | None = None
        self.max_task_retries = 0
        #: The constructor's arguments, of an actor made here that is not restarted.
        self.keeps: list[Any] | None = None

    # All of these run with the lock held.

    def add(self, record: Record) -> None:
        """Queue a call and send what can be sent."""
        if record.waiting and record.options.out_of_order:
            self.unready[record.task_id] = record
            if self.state == "dead":
                self.fail_queue()
            return
        self.queue.append(record)
        self.advance()

    def advance(self, ready: Record | None = None) -> None:
        """Send calls in order, up to the first whose arguments are not ready.

        ``ready``: the arguments of this one have just become so.
        """
        if ready is not None and self.unready.pop(ready.task_id, None) is not None:
            self.queue.append(ready)
        if self.state != "alive":
            if self.state == "dead":
                self.fail_queue()
            return
        core = self.core
        peer = self.peer
        if peer is None or peer.connection is None:
            return
        idle = not self.in_flight
        sent = False
        queue = self.queue
        while queue:
            record = queue[0]
            if record.failed_argument is not None:
                queue.popleft()
                core.submitter.finish_failed(record, record.failed_argument)
                continue
            if record.waiting:
                break
            queue.popleft()
            self.in_flight[record.task_id] = record
            core.prepare(record, peer.process_id)
            core.links.send(peer, record.task)
            sent = True
        if not sent:
            return
        if idle or peer.queued >= FLUSH_AT:
            core.links.flush_peer(peer)
        else:
            core.pump.nudge()

    def check_pending(self, limit: int, method: str) -> None:
        """Refuse a call if too many of this process have not finished.

        Raises:
            PendingCallsLimitExceeded: there are ``limit`` of them.
        """
        pending = len(self.queue) + len(self.unready) + len(self.in_flight)
        if pending >= limit:
            raise PendingCallsLimitExceeded(
                f"{method}() was not called: {pending} calls of {self.name or 'the actor'} (actor"
                f" {self.actor_id.hex()}) by this process have not finished, and"
                f" max_pending_calls={limit}. Wait for some of them first (skate.wait)."
            )

    def answered(self, record: Record) -> None:
        """A call has come back."""
        self.in_flight.pop(record.task_id, None)

    def discard(self, record: Record) -> None:
        """Take a call off the queue if it is there."""
        if self.unready.pop(record.task_id, None) is None and record in self.queue:
            self.queue.remove(record)
            self.advance()

    def peer_of(self, record: Record) -> Peer | None:
        """Return where a call runs, if it was sent."""
        return self.peer if record.task_id in self.in_flight else None

    def died_error(self) -> bytes:
        """Return the exception for calls on a dead actor."""
        name = self.name or "the actor"
        actor_id = self.actor_id.hex()
        if self.kind == ENVIRONMENT_KIND:
            text = f"{name} (actor {actor_id}) could not be started: {self.cause}"
            return self.core.error(RuntimeEnvSetupError(text))
        if self.error is not None:
            error = deserialize(self.error)
            if isinstance(error, TaskError):
                return self.core.error(
                    ActorDiedError.in_constructor(name, error, actor_id=actor_id)
                )
        kind = self._death(self.kind)
        return self.core.error(
            kind(f"{name} (actor {actor_id}) is dead: {self.cause}", actor_id=actor_id)
        )

    @staticmethod
    def _death(kind: str) -> type[ActorError]:
        if kind == NO_NODE_KIND:
            return ActorUnschedulableError
        return ActorPlacementGroupRemovedError if kind == REMOVED_KIND else ActorDiedError

    def fail_queue(self) -> None:
        """No call will be sent any more."""
        if self.unready:
            self.queue.extend(self.unready.values())
            self.unready.clear()
        if self.queue:
            error = self.died_error()
            while self.queue:
                self.core.submitter.finish_failed(self.queue.popleft(), error)

    def update(self, message: ActorState) -> None:
        """The daemon has told a new state."""
        if self.state == "dead":
            return
        # A process may die and be replaced before we hear of either: what was in flight to
        # another life of the actor is lost all the same.
        if message.state != "alive" or message.worker_id != self.worker_id:
            self.lose_in_flight(message)
        self.cause = message.cause or self.cause
        self.error = message.error
        self.kind = message.kind
        self.state = message.state
        self.max_task_retries = message.max_task_retries
        self.restarts = message.restarts
        if message.state == "alive":
            self.worker_id = message.worker_id
            self.peer = self.core.links.peer(message.worker_id, message.worker_address)
            if self.peer.dead:
                # It is about to be reported dead, or ended; calls wait for what comes then.
                self.peer = None
            self.advance()
        elif message.state == "dead":
            self.fail_queue()

    def may_retry(self, record: Record) -> bool:
        """Whether a call that a dead process had may be sent to the next one."""
        limit = self.max_task_retries if record.retries is None else record.retries
        return limit < 0 or record.task.attempt < limit

    def lose_in_flight(self, message: ActorState) -> None:
        """Calls that a dead process had: send them again if they may be, fail the others."""
        records = list(self.in_flight.values())
        self.in_flight.clear()
        again: list[Record] = []
        submitter = self.core.submitter
        for record in records:
            if record.cancelled:
                submitter.finish_failed(record, self.core.error(cancelled_error(record)))
                continue
            if record.overdue is not None:
                submitter.pending.pop(record.task_id, None)
                submitter.end_overdue(record)
                continue
            if message.state != "dead" and self.may_retry(record):
                record.task.attempt += 1
                again.append(record)
                continue
            actor_id = self.actor_id.hex()
            cause = message.cause or self.cause or "its process died"
            text = (
                f"{self.name or 'the actor'} (actor {actor_id}) died before it had answered"
                f" {record.task.method}(): {cause}"
            )
            error = (
                self._death(message.kind)(text, actor_id=actor_id)
                if message.state == "dead"
                else ActorUnavailableError(
                    f"{text}; the actor is being restarted", actor_id=actor_id
                )
            )
            self.core.submitter.finish_failed(record, self.core.error(error))
        self.queue.extendleft(reversed(again))
        self.peer = None
