"""Carries out what scheduler and pool of a node decide: who gets which of its workers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from skate.engine.base import Strategy
from skate.runtime.node.elsewhere import ActorKeeper, Elsewhere
from skate.runtime.node.environments import Environments
from skate.runtime.node.links import Links
from skate.runtime.node.loop import Loop, Timer
from skate.runtime.node.pool import Pool
from skate.runtime.node.processes import GPU_DEVICES, has_open
from skate.runtime.node.requests import Key, Request
from skate.runtime.node.resources import NodeResources
from skate.runtime.node.scheduler import Grant, Scheduler
from skate.runtime.node.worker_starts import WorkerStarts
from skate.runtime.node.workers import Worker, Workers
from skate.runtime.wire.cluster import PlaceActor
from skate.runtime.wire.messages import (
    ENVIRONMENT_KIND,
    NO_NODE_KIND,
    REMOVED_KIND,
    ExitWorker,
    Job,
    LeaseGranted,
    LeaseRefused,
    RecallLease,
    RequestLease,
    StartActor,
)

if TYPE_CHECKING:
    from skate.runtime.node.placement import Placement

logger = logging.getLogger(__name__)

#: How often to look at what depends on time, while something waits or may be retired, in seconds.
TICK_SECONDS = 0.5
#: A worker that retires but owns what others may reach is asked again after so many seconds.
RETIRE_SECONDS = 1.0
#: Workers kept idle for a node without CPUs.
FEWEST_KEPT = 1


class Dispatcher:
    """Gives workers to lease requests and to actors."""

    #: Sets itself here.
    placement: Placement

    def __init__(
        self,
        node_id: bytes,
        loop: Loop,
        links: Links,
        workers: Workers,
        resources: NodeResources,
        environments: Environments,
        prestart: bool = True,
    ) -> None:
        self._node_id = node_id
        self._loop = loop
        self._links = links
        self._workers = workers
        self.scheduler = Scheduler(resources)
        self._environments = environments
        environments.on_ready = self._environment_ready
        environments.on_failed = self._environment_failed
        self.actor_keeper: ActorKeeper
        #: Whose work a process does, where several drivers share the node.
        self.job_of: Callable[[bytes], Job | None] = lambda process_id: None
        #: Given what users should know.
        self.on_warning: Callable[[str], None]
        #: None outside of clusters.
        self.elsewhere: Elsewhere | None = None
        cpus = resources.total.get("CPU", 0) // 10_000
        self.pool = Pool(max(cpus, FEWEST_KEPT), prestart)
        self.starts = WorkerStarts(loop, workers, self.pool, environments, self._refuse_all)
        self._dirty = True
        self._tick: Timer | None = None

    # ------------------------------------------------------------------ requests of processes

    def request_lease(
        self, holder: bytes, message: RequestLease, origin: bytes = b"", stays: bool = True
    ) -> None:
        """A process has work for one more worker.

        It may be one of another node (``origin``); see ``Request`` for ``stays``.
        """
        if not origin:
            message.job = self.job_of(holder)
        try:
            request = Request.for_lease(holder, message)
        except ValueError as error:
            self._links.send(holder, LeaseRefused(message.request_id, str(error)))
            return
        request.origin = origin
        request.stays = stays
        if message.argument_bytes and not origin:
            request.attracted_to = max(message.argument_bytes.items(), key=lambda item: item[1])[0]
        self.submit(request)

    def submit(self, request: Request) -> None:
        """Queue a request, or keep it until its environment is ready.

        What this node cannot serve, as far as it knows, is for another one, which prepares the
        environment there.
        """
        pools = self.scheduler.pools(request)
        here = any(pool.feasible(request.units) for pool in pools)
        if not here or self._environments.admit(request):
            self._queue(request)

    def _queue(self, request: Request) -> None:
        if request.place is not None:
            refusal = self.placement.refusal(request.place[0])
            if refusal:
                self.refuse(request, refusal, REMOVED_KIND)
                return
        elif request.strategy is not None and not self._bind(request, request.strategy):
            return
        self.scheduler.submit(request, self._loop.now())
        self._dirty = True

    def _bind(self, request: Request, strategy: Strategy) -> bool:
        """Choose the node of a request that has a say in that; return False if it is refused."""
        request.bound_to = b""
        if strategy.spread:
            if self.elsewhere is not None and not request.origin:
                request.attracted_to = self.elsewhere.next_node(request)
            return True
        node_id = strategy.node_id
        if not node_id or node_id == self._node_id:
            return True
        if self.elsewhere is not None and self.elsewhere.knows(node_id, request, strategy.soft):
            request.bound_to = node_id
        elif not strategy.soft:
            self.refuse(
                request,
                f"node {node_id.hex()} is not, or not any more, a node of this session, and nothing"
                " else will do (NodeAffinitySchedulingStrategy with soft=False)",
                NO_NODE_KIND,
            )
            return False
        return True

    def _moves(self, request: Request) -> bool:
        """Whether another node may serve a request that this one cannot serve now."""
        strategy = request.strategy
        if request.group_id:
            return False
        if strategy is None or strategy.node_id != self._node_id:
            return True
        return strategy.soft and not self.scheduler.feasible(request)

    def refuse(self, request: Request, reason: str, kind: str = "") -> None:
        """Say that a request which does not wait any more will not be served."""
        if request.actor_id:
            self.actor_keeper.refused(request.actor_id, reason, kind)
        elif not request.group_id:
            self._links.send(request.holder, LeaseRefused(request.request_id, reason, kind))

    def look_again(self) -> None:
        """Something has changed that requests may wait for."""
        self._dirty = True

    def end_in_group(self, grant: Grant, cause: str, final: bool) -> None:
        """End what runs in a bundle that is given back; for good if its group has ended."""
        kind = REMOVED_KIND if final else ""
        worker = self._workers.by_id.get(grant.worker_id)
        if worker is not None:
            worker.expected = True
            self._kill(worker, cause, kind)

    def end_for_memory(self, worker_id: bytes, cause: str, kind: str) -> None:
        """End a worker before memory runs out."""
        worker = self._workers.by_id.get(worker_id)
        if worker is not None:
            self._kill(worker, cause, kind)

    def cancel_request(self, holder: bytes, request_id: int) -> None:
        """The process does not need it any more."""
        self._cancel((holder, request_id))

    def return_lease(self, holder: bytes, lease_id: int) -> None:
        """The process gives its worker back."""
        grant = self.scheduler.lease(lease_id, holder)
        if grant is None:
            # Its worker may have died while this was on its way.
            return
        worker = self._workers.by_id.get(grant.worker_id)
        if worker is not None and grant.allocation.gpu_ids and has_open(worker.pid, GPU_DEVICES):
            # What it has there goes with its process; only then may others have the GPU.
            worker.retires = True
            self.stop(grant.worker_id)
            return
        self.scheduler.release(grant)
        if worker is not None and worker.link is not None and not worker.cause:
            if worker.retires:
                self.stop(grant.worker_id)
            else:
                self.pool.put_back(grant.worker_id, self._loop.now())
        self._dirty = True

    def retires(self, worker_id: bytes) -> None:
        """A worker has run all the calls that it may: it ends with its lease."""
        worker = self._workers.by_id.get(worker_id)
        if worker is None:
            return
        worker.retires = True
        if self.scheduler.grant_of(worker_id) is None:
            # Its lease was given back before this arrived.
            self.pool.remove(worker_id)
            self.stop(worker_id)

    def work_of(self, worker_id: bytes) -> str:
        """Return the name of the actor or of the tasks that a worker runs, "" if it is idle."""
        grant = self.scheduler.grant_of(worker_id)
        return grant.request.name if grant is not None else ""

    def peer_lost(self, worker_id: bytes, reason: str) -> None:
        """A process has no connection to a worker that lives: it cannot be relied on."""
        worker = self._workers.by_id.get(worker_id)
        if worker is None:
            return
        cause = "lost its connection to another process of the session"
        if reason:
            cause = f"ended because another process of the session {reason}"
            logger.warning("worker %s %s", worker_id.hex(), cause)
        self._kill(worker, cause)

    def still_needed(self, worker_id: bytes) -> None:
        """A surplus worker does not exit, because others may reach what it owns."""
        worker = self._workers.by_id.get(worker_id)
        if worker is None or worker.cause:
            # One that is being killed is no good to anybody.
            return
        grant = self.scheduler.grant_of(worker_id)
        if worker.retires:
            self._loop.call_later(RETIRE_SECONDS, lambda: self.stop(worker_id))
            if grant is not None:
                # It may be needed for long: whatever it has on a GPU, others cannot wait for it.
                self.scheduler.release(grant)
                self._dirty = True
        elif grant is None:
            worker.expected = False
            self.pool.put_back(worker_id, self._loop.now())
            self._dirty = True

    def blocked(self, worker_id: bytes) -> None:
        """The worker waits: others may use its CPUs."""
        self.scheduler.blocked(worker_id)
        self._dirty = True

    def resumed(self, worker_id: bytes) -> None:
        """The worker goes on."""
        self.scheduler.resumed(worker_id)

    # ------------------------------------------------------------------ actors

    def queue_actor(self, order: PlaceActor, origin: bytes = b"") -> None:
        """An actor needs a worker; ``origin`` as in ``request_lease``."""
        try:
            request = Request.for_actor(order)
        except ValueError as error:
            self.actor_keeper.refused(order.actor.actor_id, str(error))
            return
        request.origin = origin
        request.stays = order.stay or not origin
        if self.elsewhere is not None and not origin:
            # An actor lives beside its creator, if there is room.
            request.attracted_to = self.elsewhere.home_of(order.owner)
        self.submit(request)

    def dequeue_actor(self, actor_id: bytes) -> None:
        """An actor needs no worker any more."""
        self._cancel(actor_id)

    def kill(self, worker_id: bytes, cause: str) -> None:
        """End a worker at once, because its actor is to end."""
        worker = self._workers.by_id.get(worker_id)
        if worker is not None:
            worker.expected = True
            self._kill(worker, cause)
        elif self.elsewhere is not None:
            self.elsewhere.kill(worker_id, cause)

    # ------------------------------------------------------------------ runtime environments

    def _cancel(self, key: Key) -> None:
        self._environments.table.cancel(key)
        if self.scheduler.cancel(key) is None and self.elsewhere is not None:
            self.elsewhere.cancel(key)
        self._dirty = True

    def _environment_ready(self, requests: list[Request]) -> None:
        for request in requests:
            self._queue(request)
        self._dirty = True

    def _environment_failed(self, requests: list[Request], reason: str) -> None:
        for request in requests:
            self.refuse(request, reason, ENVIRONMENT_KIND)

    def _release_unused(self, environment: bytes) -> None:
        """A worker of an environment has ended: perhaps nobody uses it any more."""
        if any(worker.environment == environment for worker in self._workers.by_id.values()):
            return
        if any(request.environment == environment for request in self.scheduler.queue):
            return
        self._environments.release(environment)

    # ------------------------------------------------------------------ workers come and go

    def worker_registered(self, worker: Worker) -> None:
        """A worker is ready."""
        self.pool.registered(worker.worker_id, self._loop.now())
        self._dirty = True

    def worker_ended(self, worker: Worker, cause: str) -> None:
        """A worker is gone; whoever had to do with it has been told."""
        worker_id = worker.worker_id
        if worker.builds:
            self._environments.build_ended(worker, cause)
            return
        self.starts.ended(worker, cause)
        grant = self.scheduler.grant_of(worker_id)
        if grant is not None:
            self.scheduler.release(grant)
        where = f" (pid {worker.pid})"
        if worker.log_path:
            where += f"; its output: {worker.log_path}"
        self.actor_keeper.worker_ended(worker_id, cause, where, worker.kind)
        if worker.environment:
            self._release_unused(worker.environment)
        self._forget_unused(worker.serves)
        self._dirty = True

    def _forget_unused(self, kind: bytes) -> None:
        if any(worker.serves == kind for worker in self._workers.by_id.values()):
            return
        # Who waits for one is to be told if none starts: how many have failed is known until then.
        if not any(request.worker_kind == kind for request in self.scheduler.queue):
            self.pool.forget(kind)

    def job_ended(self, driver_id: bytes) -> None:
        """A driver is gone: its workers have nothing to do any more, unless others need them."""
        for worker_id, worker in list(self._workers.by_id.items()):
            if worker.job is None or worker.job.driver_id != driver_id:
                continue
            if worker.link is not None and self.scheduler.grant_of(worker_id) is None:
                self.pool.remove(worker_id)
                self.stop(worker_id)

    def process_died(self, process_id: bytes) -> None:
        """A driver or worker is gone: its requests and the tasks that it pushed are of no use."""
        self.scheduler.cancel_all_of(process_id)
        self._environments.table.cancel_all_of(process_id)
        for grant in self.scheduler.leases_of(process_id):
            worker = self._workers.by_id.get(grant.worker_id)
            if worker is not None:
                worker.expected = True
                self._kill(worker, "killed because its caller died")
        self.actor_keeper.process_died(process_id)
        self._dirty = True

    def _refuse_all(self, kind: bytes, environment: bytes, reason: str) -> None:
        """Workers of a kind do not start: tell everybody who waits for one."""
        for request in self.scheduler.runnable(self._loop.now()):
            if request.worker_kind == kind and not request.group_id:
                self.scheduler.cancel(request.key)
                self.refuse(request, reason, ENVIRONMENT_KIND if environment else "")

    def _kill(self, worker: Worker, cause: str, kind: str = "") -> None:
        # Nobody is to be given a worker that is about to end.
        self.pool.remove(worker.worker_id)
        self._workers.kill(worker, cause, kind)

    def let_go(self, worker_id: bytes) -> None:
        """Have an idle worker end, unless others may reach what it owns."""
        self.pool.remove(worker_id)
        self.stop(worker_id)

    def stop(self, worker_id: bytes) -> None:
        """Let a worker finish what it has, then end."""
        worker = self._workers.by_id.get(worker_id)
        if worker is not None:
            worker.expected = True
            self._links.send(worker_id, ExitWorker())
        elif self.elsewhere is not None:
            self.elsewhere.stop(worker_id)

    # ------------------------------------------------------------------ dispatch

    def run(self) -> None:
        """Grant, fork, recall and warn, as far as something has changed."""
        if not self._dirty:
            return
        now = self._loop.now()
        if self.elsewhere is not None:
            self.elsewhere.attract()
        waiting: list[Request] = []
        while self._dirty:
            # Once more if a placement group has got its bundles: others can run in them now.
            self._dirty = False
            waiting = self._grant_all(now)
        kinds: dict[bytes, list[Request]] = {b"": []}
        for request in waiting:
            kinds.setdefault(request.worker_kind, []).append(request)
        for kind, requests in kinds.items():
            self.starts.fork(kind, requests)
        if self.elsewhere is not None and len(self.scheduler.queue) > len(waiting):
            served = set(waiting)
            self.elsewhere.redirect(
                [r for r in self.scheduler.queue if r not in served and self._moves(r)]
            )
        if self.scheduler.queue:
            for grant in self.scheduler.recalls():
                self._links.send(grant.holder, RecallLease(grant.grant_id))
            for text in self.scheduler.warnings(now):
                self.on_warning(text)
        if self._tick is None and (self.scheduler.queue or self.pool.needs_time()):
            self._tick = self._loop.call_later(TICK_SECONDS, self._on_tick)

    def _grant_all(self, now: float) -> list[Request]:
        """Serve what can be served; return the requests that wait for nothing but a worker."""
        waiting = []
        for request in self.scheduler.runnable(now):
            if request.group_id:
                if self.scheduler.reserve(request):
                    self.placement.reserved(request)
                continue
            worker_id = self.pool.take(request.worker_kind)
            if worker_id is None:
                # Its environment is there unless it could not be served here at all before.
                if self._environments.admit(request):
                    waiting.append(request)
                else:
                    self.scheduler.cancel(request.key)
                continue
            worker = self._workers.by_id[worker_id]
            grant = self.scheduler.grant(request, worker_id, now)
            if grant is None:
                self.pool.put_back(worker_id, now)
                continue
            if request.actor_id:
                self._start_actor(request, grant, worker, now)
            else:
                self._grant_lease(request, grant, worker)
        return waiting

    def _grant_lease(self, request: Request, grant: Grant, worker: Worker) -> None:
        self._links.send(
            request.holder,
            LeaseGranted(
                request.request_id,
                grant.grant_id,
                worker.worker_id,
                worker.address,
                worker.pid,
                grant.allocation.gpu_ids,
            ),
        )

    def _start_actor(self, request: Request, grant: Grant, worker: Worker, now: float) -> None:
        order = request.actor_order
        assert order is not None
        actor = order.actor
        if not self.actor_keeper.granted(
            actor.actor_id, worker.worker_id, worker.address, worker.pid
        ):
            self.scheduler.release(grant)
            self.pool.put_back(worker.worker_id, now)
            return
        self._links.send(
            worker.worker_id,
            StartActor(
                actor.actor_id,
                actor.spec,
                actor.resources,
                grant.allocation.gpu_ids,
                order.restarts,
                actor.name,
                actor.namespace,
                actor.max_concurrency,
                actor.strategy,
            ),
        )

    def _on_tick(self) -> None:
        self._tick = None
        now = self._loop.now()
        for worker_id in self.pool.surplus(now):
            self.stop(worker_id)
        self.starts.end_overdue(now)
        self._dirty = True
