"""The actor directory of a cluster: states, restarts, names, who watches whom.

Plain decisions: events in, effects out; ``now`` is passed in, in seconds.  States and transitions::

    pending ──granted──> starting ──constructor returned──> alive
       ^                    │ process died, restarts left      │
       └──── restarting <───┴──────────────────────────────────┘
    any ──killed, constructor raised, no restarts left, owner died──> dead

A watcher sees "pending" while the actor starts for the first time and "restarting" afterwards.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

import msgspec

from skate.ids import owner_of
from skate.runtime.wire.messages import REMOVED_KIND, ActorState, CreateActor

#: Dead actors that are remembered with their cause, for those who ask late.
REMEMBERED = 1_000
#: An actor whose process lived shorter than this many seconds is restarted with a delay ...
SHORT_LIFE_SECONDS = 2.0
#: ... of this many seconds, doubled every time, ...
FIRST_DELAY_SECONDS = 0.05
#: ... up to this many.
LAST_DELAY_SECONDS = 5.0

KILLED = "killed by skate.kill"
UNREACHABLE = "every handle to it is gone"
#: Added for actors with names, which others may have found.
WEAK = " (what get_actor returns keeps no actor alive; lifetime='detached' does)"


class Notify(msgspec.Struct, frozen=True):
    """Tell these processes the actor's state."""

    processes: frozenset[bytes]
    state: ActorState


class Queue(msgspec.Struct, frozen=True):
    """The actor needs a worker, ``delay`` seconds from now."""

    actor_id: bytes
    delay: float = 0.0


class Dequeue(msgspec.Struct, frozen=True):
    """The actor needs no worker any more."""

    actor_id: bytes


class KillWorker(msgspec.Struct, frozen=True):
    """End the actor's process at once."""

    worker_id: bytes
    cause: str


class StopWorker(msgspec.Struct, frozen=True):
    """Let the actor's process finish what it has, then end."""

    worker_id: bytes


Effect: TypeAlias = Notify | Queue | Dequeue | KillWorker | StopWorker


class Actor:
    """One actor's record."""

    __slots__ = (
        "actor_id",
        "cause",
        "ending",
        "error",
        "kind",
        "max_restarts",
        "owner",
        "pid",
        "restarts",
        "short_lives",
        "spec",
        "started_at",
        "state",
        "watchers",
        "worker_address",
        "worker_id",
    )

    def __init__(self, spec: CreateActor, owner: bytes) -> None:
        self.actor_id = spec.actor_id
        #: The message that made it, without the payload once it is dead.
        self.spec = spec
        self.owner = owner
        self.state = "pending"
        self.max_restarts = spec.max_restarts
        self.restarts = 0
        self.worker_id = b""
        self.worker_address = ""
        self.pid = 0
        self.cause = ""
        #: As in ``WorkerDied``.
        self.kind = ""
        self.error: bytes | None = None
        self.watchers: set[bytes] = {owner}
        #: Not empty: the actor was told to end, and why.
        self.ending = ""
        self.started_at = 0.0
        #: Processes in a row that died soon after they had started.
        self.short_lives = 0

    @property
    def may_restart(self) -> bool:
        """Whether it would be started again if its process died now."""
        return self.max_restarts < 0 or self.restarts < self.max_restarts

    @property
    def waits(self) -> bool:
        """Whether it is in the queue for a worker, or will be."""
        return self.state in ("pending", "restarting") and not self.worker_id

    def state_message(self) -> ActorState:
        """Return the state as watchers see it."""
        alive = self.state == "alive"
        state = self.state
        if state == "starting":
            state = "restarting" if self.restarts else "pending"
        return ActorState(
            self.actor_id,
            state,
            self.worker_id if alive else b"",
            self.worker_address if alive else "",
            self.pid if alive else 0,
            self.restarts,
            self.cause,
            self.error,
            self.spec.max_task_retries,
            self.kind,
        )


class ActorDirectory:
    """All actors of a session."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self.actors: dict[bytes, Actor] = {}
        self._names: dict[tuple[str, str], Actor] = {}
        self._by_worker: dict[bytes, Actor] = {}
        self._dead: OrderedDict[bytes, None] = OrderedDict()
        #: Who watches actors whose ``CreateActor`` has not arrived.
        self._expected: dict[bytes, set[bytes]] = {}
        #: Per creator, the highest id that is not remembered any more.
        self._forgotten: dict[bytes, bytes] = {}

    # ------------------------------------------------------------------ creation and look-up

    def create(self, spec: CreateActor, owner: bytes) -> list[Effect]:
        """Somebody asks for an actor."""
        if spec.actor_id in self.actors:
            # The id is the creator's own; a second request for it is no second actor.
            return self.watch(spec.actor_id, owner)
        namespace = spec.namespace = self.namespace_of(spec)
        actor = Actor(spec, owner)
        actor.watchers |= self._expected.pop(spec.actor_id, set())
        self.actors[spec.actor_id] = actor
        if spec.name and (namespace, spec.name) in self._names:
            return self._die(
                actor, f"an actor named {spec.name!r} exists in namespace {namespace!r}"
            )
        if spec.name:
            self._names[namespace, spec.name] = actor
        return [Queue(spec.actor_id), self._notify(actor)]

    def namespace_of(self, spec: CreateActor) -> str:
        """Return where the actor's name counts."""
        return spec.namespace or self._namespace

    def find(self, name: str, namespace: str) -> Actor | None:
        """Return the living actor of that name; namespace "" is the session's."""
        return self._names.get((namespace or self._namespace, name))

    def actor_on(self, worker_id: bytes) -> Actor | None:
        """Return the actor that lives, or is about to live, in this worker."""
        return self._by_worker.get(worker_id)

    def watch(self, actor_id: bytes, process_id: bytes, creator_lives: bool = True) -> list[Effect]:
        """A process holds a handle: it is told the state now and whenever it changes.

        The handle may have been faster than ``CreateActor``, which comes on another connection and
        not before the constructor's arguments are there.
        """
        actor = self.actors.get(actor_id)
        if actor is None:
            if creator_lives and actor_id > self._forgotten.get(owner_of(actor_id), b""):
                self._expected.setdefault(actor_id, set()).add(process_id)
                return []
            return [Notify(frozenset({process_id}), _dead_state(actor_id, "no such actor"))]
        if actor.state != "dead":
            actor.watchers.add(process_id)
        return [Notify(frozenset({process_id}), actor.state_message())]

    # ------------------------------------------------------------------ life

    def granted(
        self, actor_id: bytes, worker_id: bytes, address: str, pid: int, now: float
    ) -> Actor | None:
        """The actor gets this worker; return its record if it still wants one."""
        actor = self.actors.get(actor_id)
        if actor is None or not actor.waits:
            return None
        actor.state = "starting"
        actor.worker_id = worker_id
        actor.worker_address = address
        actor.pid = pid
        actor.started_at = now
        self._by_worker[worker_id] = actor
        return actor

    def started(self, worker_id: bytes, actor_id: bytes, error: bytes | None) -> list[Effect]:
        """The worker has run the constructor; or the creator of an actor that nobody will make,
        because an argument of its constructor has failed, says why."""
        actor = self._by_worker.get(worker_id)
        if actor_id not in self.actors and owner_of(actor_id) == worker_id:
            spec = CreateActor(actor_id, "", "", "", {}, 0, 1, b"", b"", False, 0)
            actor = self.actors[actor_id] = Actor(spec, worker_id)
            actor.watchers |= self._expected.pop(actor_id, set())
            return self._die(actor, "an argument of its constructor has failed", error)
        if actor is None or actor.actor_id != actor_id or actor.state != "starting":
            return []
        if error is not None:
            effects = self._die(actor, "its constructor raised", error)
            return [*effects, StopWorker(worker_id)]
        actor.state = "alive"
        actor.cause = ""
        actor.kind = ""
        return [self._notify(actor)]

    def refused(self, actor_id: bytes, cause: str, kind: str = "") -> list[Effect]:
        """No worker can be had for the actor."""
        actor = self.actors.get(actor_id)
        if actor is None or not actor.waits:
            return []
        actor.kind = kind
        return self._die(actor, cause)

    def worker_died(
        self, worker_id: bytes, cause: str, now: float, where: str = "", kind: str = ""
    ) -> list[Effect]:
        """The process of an actor has ended; ``where`` is added to the cause for the user."""
        actor = self._by_worker.pop(worker_id, None)
        if actor is None or actor.state == "dead":
            return []
        actor.kind = kind
        if actor.ending:
            finished = cause == "exited with code 0"
            return self._die(actor, actor.ending if finished else cause + where)
        if not actor.may_restart or kind == REMOVED_KIND:
            return self._die(actor, cause + where)
        actor.short_lives = (
            actor.short_lives + 1 if now - actor.started_at < SHORT_LIFE_SECONDS else 0
        )
        actor.state = "restarting"
        actor.restarts += 1
        actor.cause = cause + where
        self._forget_worker(actor)
        return [self._notify(actor), Queue(actor.actor_id, _delay(actor.short_lives))]

    def kill(
        self, actor_id: bytes, no_restart: bool, graceful: bool, cause: str = ""
    ) -> list[Effect]:
        """Somebody ends the actor: at once, or (graceful) when it has done what it was asked."""
        actor = self.actors.get(actor_id)
        if actor is None or actor.state == "dead":
            return []
        if graceful:
            cause = cause or UNREACHABLE + (WEAK if actor.spec.name else "")
            if actor.waits:
                return self._die(actor, cause)
            actor.ending = cause
            return [StopWorker(actor.worker_id)]
        if no_restart:
            return self._end(actor, KILLED)
        # The death of its worker restarts it, or not.  While it waits there is nothing to kill.
        return [] if actor.waits else [KillWorker(actor.worker_id, KILLED)]

    def process_died(self, process_id: bytes) -> list[Effect]:
        """A process is gone: it watches no more, and its actors end unless they are detached."""
        effects: list[Effect] = []
        for actor_id, watchers in list(self._expected.items()):
            watchers.discard(process_id)
            if owner_of(actor_id) == process_id:
                del self._expected[actor_id]
                state = _dead_state(actor_id, "its owner died")
                effects.append(Notify(frozenset(watchers), state))
        self._forgotten.pop(process_id, None)
        for actor in list(self.actors.values()):
            actor.watchers.discard(process_id)
            if actor.owner == process_id and not actor.spec.detached and actor.state != "dead":
                effects += self._end(actor, "its owner died")
        return effects

    def group_removed(self, group_id: bytes, cause: str) -> list[Effect]:
        """A placement group has ended: its actors are dead, and their names free, from now on.

        Its nodes end the processes.
        """
        effects: list[Effect] = []
        for actor in list(self.actors.values()):
            strategy = actor.spec.strategy
            if strategy is None or strategy.group_id != group_id or actor.state == "dead":
                continue
            actor.kind = REMOVED_KIND
            effects += self._die(actor, f"its placement group is gone: {cause}")
        return effects

    # ------------------------------------------------------------------ helpers

    def _end(self, actor: Actor, cause: str) -> list[Effect]:
        worker_id = actor.worker_id
        effects = self._die(actor, cause)
        if worker_id:
            effects.append(KillWorker(worker_id, cause))
        return effects

    def _die(self, actor: Actor, cause: str, error: bytes | None = None) -> list[Effect]:
        effects: list[Effect] = [Dequeue(actor.actor_id)] if actor.waits else []
        actor.state = "dead"
        actor.cause = cause
        actor.error = error
        self._forget_worker(actor)
        spec = actor.spec
        name = (self.namespace_of(spec), spec.name)
        if self._names.get(name) is actor:
            del self._names[name]
        effects.append(self._notify(actor))
        actor.watchers.clear()
        # What is kept of the dead must not hold their constructors' arguments.
        spec.spec = b""
        spec.handle = b""
        self._dead[actor.actor_id] = None
        if len(self._dead) > REMEMBERED:
            oldest, _ = self._dead.popitem(last=False)
            del self.actors[oldest]
            creator = owner_of(oldest)
            self._forgotten[creator] = max(oldest, self._forgotten.get(creator, b""))
        return effects

    def _forget_worker(self, actor: Actor) -> None:
        self._by_worker.pop(actor.worker_id, None)
        actor.worker_id = b""
        actor.worker_address = ""
        actor.pid = 0

    @staticmethod
    def _notify(actor: Actor) -> Notify:
        return Notify(frozenset(actor.watchers), actor.state_message())


def _delay(short_lives: int) -> float:
    if short_lives <= 1:
        return 0.0
    delay: float = FIRST_DELAY_SECONDS * 2 ** min(short_lives - 2, 16)
    return min(delay, LAST_DELAY_SECONDS)


def _dead_state(actor_id: bytes, cause: str) -> ActorState:
    return ActorState(actor_id, "dead", b"", "", 0, 0, cause, None)
