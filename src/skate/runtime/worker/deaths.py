"""Processes that have died, or that cannot be reached: what is settled then, and who is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skate.runtime.wire import messages as wire
from skate.runtime.worker.links import Peer

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core

#: A process whose connection has ended is reported to the daemon if it lives on this many seconds.
PEER_LOST_SECONDS = 1.0
#: Dead processes that are remembered with their cause; those before cannot be connected to either.
REMEMBERED_DEAD = 4096


class Deaths:
    """Hears of every death, and of connections that end."""

    def __init__(self, core: Core) -> None:
        self._core = core
        #: Processes that could not be connected to just now.
        self._unreachable: set[bytes] = set()

    def on_worker_died(self, message: wire.WorkerDied) -> None:
        """Locked.  The daemon says that a worker or driver is gone, and why."""
        core = self._core
        process_id = message.process_id
        if process_id in core.dead:
            return
        # What it said before it died still counts: replies first, then its death.
        core.links.forget(process_id)
        log = f"; its log: {message.log_path}" if message.log_path else ""
        core.dead[process_id] = f"pid {message.pid}, {message.cause}{log}"
        if len(core.dead) > REMEMBERED_DEAD:
            del core.dead[next(iter(core.dead))]
        core.submitter.on_process_died(message)
        core.ownership.on_process_died(process_id)
        if core.executor is not None:
            core.executor.producers.on_process_died(process_id)
        core.pump.completions += 1

    def on_peer_closed(self, peer: Peer | None) -> None:
        """Locked.  A peer's connection ended.

        The daemon will say why, since it broadcasts every death.
        """
        core = self._core
        if peer is None or core.links.peers.get(peer.process_id) is not peer:
            return
        peer.connection = None

        def still_alive() -> None:
            # Somebody closed our socket, or a message was refused: what was under way is lost, and
            # the two would wait for each other for ever.  The daemon ends it.
            if peer.process_id not in core.dead and not core.closed:
                core.links.send_node(wire.PeerLost(peer.process_id))

        core.pump.call_later(PEER_LOST_SECONDS, still_alive)

    def on_unreachable(self, process_id: bytes, reason: str) -> None:
        """Locked.  Nobody listens at the address of a process: it has just died, as a rule.

        Otherwise we lack descriptors, or somebody has removed the session's directory.
        """
        core = self._core
        if process_id in self._unreachable or process_id in core.dead:
            return
        self._unreachable.add(process_id)

        def still_alive() -> None:
            self._unreachable.discard(process_id)
            if process_id not in core.dead and not core.closed:
                core.links.send_node(wire.PeerLost(process_id, reason))

        core.pump.call_later(PEER_LOST_SECONDS, still_alive)
