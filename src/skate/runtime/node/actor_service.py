"""Carries out what the actor directory decides.  It runs in the daemon of the head node."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from skate.runtime.head.actors import (
    Actor,
    ActorDirectory,
    Dequeue,
    Effect,
    KillWorker,
    Notify,
    Queue,
    StopWorker,
)
from skate.runtime.node.dispatch import Dispatcher
from skate.runtime.node.links import Links
from skate.runtime.node.loop import Loop
from skate.runtime.wire.cluster import PlaceActor
from skate.runtime.wire.messages import (
    ActorStarted,
    CreateActor,
    GetNamedActor,
    KillActor,
    NamedActor,
    WatchActor,
)


class ActorService:
    """Answers what processes ask of actors, and has actors started and ended."""

    def __init__(
        self, loop: Loop, links: Links, dispatcher: Dispatcher, directory: ActorDirectory
    ) -> None:
        self._loop = loop
        self._links = links
        self._dispatcher = dispatcher
        self.directory = directory

    # ------------------------------------------------------------------ processes ask

    def create(self, owner: bytes, message: CreateActor) -> None:
        """A process makes an actor."""
        message.job = self._dispatcher.job_of(owner)
        self._apply(self.directory.create(message, owner))

    def watch(self, process_id: bytes, message: WatchActor, creator_lives: bool) -> None:
        """A process holds a handle."""
        self._apply(self.directory.watch(message.actor_id, process_id, creator_lives))

    def kill(self, message: KillActor) -> None:
        """A process ends an actor."""
        self._apply(
            self.directory.kill(
                message.actor_id, message.no_restart, message.graceful, message.cause
            )
        )

    def started(self, process_id: bytes, message: ActorStarted) -> None:
        """An actor's constructor has returned or raised, or will never run."""
        self._apply(self.directory.started(process_id, message.actor_id, message.error))

    def find(self, process_id: bytes, message: GetNamedActor) -> None:
        """A process looks an actor up by name."""
        actor = self.directory.find(message.name, message.namespace)
        found = (actor.actor_id, actor.spec.handle) if actor is not None else (b"", b"")
        self._links.send(process_id, NamedActor(message.request_id, *found))

    # ------------------------------------------------------------------ nodes report

    def granted(self, actor_id: bytes, worker_id: bytes, address: str, pid: int) -> bool:
        """A worker was found for an actor; return whether the actor still wants one."""
        now = self._loop.now()
        return self.directory.granted(actor_id, worker_id, address, pid, now) is not None

    def refused(self, actor_id: bytes, cause: str, kind: str = "") -> None:
        """No worker can be had for an actor; ``kind`` as in ``WorkerDied``."""
        self._apply(self.directory.refused(actor_id, cause, kind))

    def worker_ended(self, worker_id: bytes, cause: str, where: str, kind: str = "") -> None:
        """A worker process, which may have held an actor, is gone."""
        now = self._loop.now()
        self._apply(self.directory.worker_died(worker_id, cause, now, where, kind))

    def process_died(self, process_id: bytes) -> None:
        """A process is gone that may have made or watched actors."""
        self._apply(self.directory.process_died(process_id))

    def group_removed(self, group_id: bytes, cause: str) -> None:
        """A placement group has ended."""
        self._apply(self.directory.group_removed(group_id, cause))

    # ------------------------------------------------------------------ effects

    def _apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Notify):
                for process_id in effect.processes:
                    self._links.send(process_id, effect.state)
            elif isinstance(effect, Queue):
                if effect.delay:
                    self._loop.call_later(effect.delay, partial(self._queue, effect.actor_id))
                else:
                    self._queue(effect.actor_id)
            elif isinstance(effect, Dequeue):
                self._dispatcher.dequeue_actor(effect.actor_id)
            elif isinstance(effect, KillWorker):
                self._dispatcher.kill(effect.worker_id, effect.cause)
            elif isinstance(effect, StopWorker):
                self._dispatcher.stop(effect.worker_id)

    def _queue(self, actor_id: bytes) -> None:
        actor = self.directory.actors.get(actor_id)
        if actor is not None and actor.waits:
            self._dispatcher.queue_actor(_order(actor))


def _order(actor: Actor) -> PlaceActor:
    return PlaceActor(actor.spec, actor.owner, actor.restarts)
