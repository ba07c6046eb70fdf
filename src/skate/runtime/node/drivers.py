"""The drivers of a node: the one whose session it is, or those that share a node of a cluster."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from functools import partial

from skate.runtime.node.config import NodeConfig
from skate.runtime.node.links import Link, Links
from skate.runtime.node.logs import Forward, Forwarder
from skate.runtime.node.loop import Loop
from skate.runtime.wire.connection import ProtocolError
from skate.runtime.wire.messages import Job, LogLines, Register, ShutdownDone, Warn

#: How often to look for the owner where the kernel cannot tell of its end, in seconds.
PARENT_CHECK_SECONDS = 1.0
#: With several drivers: what may be in flight of workers' output is counted anew this often, in
#: seconds.
RELIEF_SECONDS = 1.0
#: A driver that leaves waits so many seconds at most for the output of its workers.
FLUSH_SECONDS = 2.0


class Drivers:
    """Registers drivers, notices their ends, and tells them what their users should know."""

    def __init__(
        self,
        loop: Loop,
        links: Links,
        config: NodeConfig,
        on_end: Callable[[str], None],
        on_gone: Callable[[Link], None],
    ) -> None:
        """``on_end(reason)``: the node is to end.  ``on_gone(link)``: one of several has gone."""
        self._loop = loop
        self._links = links
        self._config = config
        self._on_end = on_end
        self._on_gone = on_gone
        self._shared = config.cluster is not None
        self._own_forwarder = Forwarder(self._send_to_owner)
        #: What carries workers' output to each of several drivers.
        self._forwarders: dict[bytes, Forwarder] = {}
        #: The driver of a session that is not shared.
        self.owner: Link | None = None
        self._jobs: dict[bytes, Job] = {}
        self._since: dict[bytes, float] = {}
        #: Has the output for a driver sent by all nodes, then calls the function.
        self.flush_all: Callable[[bytes, Callable[[], None]], None] = lambda _driver, done: done()
        #: Drivers of other nodes.
        self.elsewhere: Callable[[], list[bytes]] = list
        self._warnings: list[str] = []

    def start(self) -> None:
        """Begin to watch, when the daemon is complete."""
        if self._config.driver_pid:
            self._watch_owner()
        if self._shared:
            self._relieve()

    # ------------------------------------------------------------------ the process that owns us

    def _watch_owner(self) -> None:
        """End when the owner's process is gone, even if copies of its sockets live."""
        pid = self._config.driver_pid
        fd = _open_process(pid)
        if os.getppid() != pid:
            self._on_end("the process that started it is gone")
        elif fd >= 0:
            self._loop.add(fd, lambda _events: self._on_owner_gone(fd))
        else:
            self._loop.call_later(PARENT_CHECK_SECONDS, self._watch_owner)

    def _on_owner_gone(self, fd: int) -> None:
        self._loop.remove(fd)
        os.close(fd)
        self._on_end("the process that started it has ended")

    # ------------------------------------------------------------------ come and go

    def register(self, link: Link, message: Register) -> Job:
        """A driver introduces itself; return its job.

        Raises:
            ProtocolError: it has no place here.
        """
        config = self._config
        if not self._shared:
            if self.owner is not None:
                raise ProtocolError("this session has a driver already")
            self.owner = link
            link.on_flushed = self._own_forwarder.caught_up
            job = Job(
                config.job_id,
                link.process_id,
                config.namespace,
                log_to_driver=config.log_to_driver,
            )
        else:
            if message.job is None or message.job.driver_id != link.process_id:
                raise ProtocolError("a driver has to say what its job is")
            job = message.job
            self._watch(link)
        self._jobs[link.process_id] = job
        self._since[link.process_id] = time.time()
        return job

    def jobs(self) -> list[tuple[Job, float]]:
        """Return the jobs of our drivers, and since when (Unix time) each is here."""
        return [(job, self._since[driver_id]) for driver_id, job in self._jobs.items()]

    def registered(self, link: Link) -> None:
        """The driver may be sent messages."""
        for text in self._warnings:
            self._links.send(link.process_id, Warn(text))
        self._warnings.clear()

    def _watch(self, link: Link) -> None:
        """Notice a driver's end, even if copies of its sockets live in its children."""
        fd = _open_process(link.peer_pid)
        if fd < 0:
            return

        def on_gone(_events: int) -> None:
            self._loop.remove(fd)
            os.close(fd)
            self._links.close(link)

        self._loop.add(fd, on_gone)

    def job_of(self, process_id: bytes) -> Job | None:
        """Return the job of a driver of this node, if it shares the node with others."""
        return self._jobs.get(process_id) if self._shared else None

    def closed(self, link: Link) -> None:
        """A driver's link has ended."""
        if link is self.owner:
            self.owner = None
            self._on_end("the driver has closed its connection")
        elif self._jobs.pop(link.process_id, None) is not None:
            self._since.pop(link.process_id, None)
            self._on_gone(link)

    def shut_down(self, link: Link) -> None:
        """A driver wants to end the session, or its part of a cluster.

        Raises:
            ProtocolError: it is none.
        """
        if link.process_id not in self._jobs:
            raise ProtocolError("only drivers end sessions")
        if link is self.owner:
            self._on_end("the driver said so")
            return
        # What its workers have printed comes first, from all nodes.
        leave = partial(self._leave, link)
        self._loop.call_later(FLUSH_SECONDS, leave)
        self.flush_all(link.process_id, leave)

    def _leave(self, link: Link) -> None:
        if self._jobs.pop(link.process_id, None) is not None:
            self._since.pop(link.process_id, None)
            self._on_gone(link)
            self._links.queue(link, ShutdownDone())

    # ------------------------------------------------------------------ what they are told

    def warn(self, text: str) -> None:
        """Tell the users, now or when a driver has registered."""
        drivers = [*self._jobs, *self.elsewhere()]
        if not drivers:
            self._warnings.append(text)
        for process_id in drivers:
            self._links.send(process_id, Warn(text))

    def warn_own(self, text: str) -> None:
        """Tell the users of this node's drivers."""
        for process_id in self._jobs:
            self._links.send(process_id, Warn(text))

    # ------------------------------------------------------------------ what workers print

    def forward_for(self, job: Job | None) -> Forward:
        """Return what to do with the output of a worker that does this job."""
        if job is None:
            return self._own_forwarder.forward
        if not job.log_to_driver:
            return _drop
        forwarder = self._forwarders.get(job.driver_id)
        if forwarder is None:
            send = partial(self._links.send, job.driver_id)
            forwarder = self._forwarders[job.driver_id] = Forwarder(send)
        return forwarder.forward

    def flush(self) -> None:
        """Send what workers have printed."""
        self._own_forwarder.flush()
        for forwarder in self._forwarders.values():
            forwarder.flush()

    def job_ended(self, driver_id: bytes) -> None:
        """A driver, of whatever node, is gone."""
        self._forwarders.pop(driver_id, None)

    def _send_to_owner(self, message: LogLines) -> None:
        if self.owner is not None and self._config.log_to_driver:
            self._links.send(self.owner.process_id, message)

    def _relieve(self) -> None:
        for forwarder in self._forwarders.values():
            forwarder.caught_up()
        self._loop.call_later(RELIEF_SECONDS, self._relieve)


def _drop(_message: LogLines) -> None:
    """Nobody wants to see it; it is in the log."""


def _open_process(pid: int) -> int:
    """Return a descriptor that becomes readable when the process ends, -1 if there is none."""
    if pid and hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return -1
